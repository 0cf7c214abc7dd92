//! Parts of messages that several kinds have.

use std::num::{NonZeroU16, NonZeroU32, NonZeroU64};

use kvrail_layouts::Fingerprint;
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::error::{MessageField, ParseError};
use super::kind::MessageKind;
use super::wire::{self, Form, HEADER, Header};
use crate::name::Name;
use crate::offer::Layout;

/// The parts of a message whose header has been checked.
#[derive(Clone, Copy)]
pub(super) struct Parts<'a> {
    pub(super) kind: MessageKind,
    fixed: &'a [u8],
    items: &'a [u8],
    /// Bytes of the whole message, additions included.
    bytes: usize,
}

impl<'a> Parts<'a> {
    /// The parts of `bytes`, a whole message without its additions, and with `additions` bytes of
    /// them.
    pub(super) fn new(kind: MessageKind, bytes: &'a [u8], additions: usize) -> Self {
        let behind = bytes.get(HEADER..).unwrap_or_default();
        let (fixed, items) = behind.split_at_checked(Form::of(kind).fixed).unwrap_or((behind, &[]));
        Self { kind, fixed, items, bytes: bytes.len() + additions }
    }

    /// The fixed fields.
    pub(super) fn fixed<T>(self) -> Result<&'a T, ParseError>
    where
        T: FromBytes + KnownLayout + Immutable + Unaligned,
    {
        T::ref_from_bytes(self.fixed).map_err(|_| self.other_form())
    }

    /// The items of the list.
    pub(super) fn items<T>(self) -> Result<&'a [T], ParseError>
    where
        T: FromBytes + Immutable + Unaligned,
    {
        <[T]>::ref_from_bytes(self.items).map_err(|_| self.other_form())
    }

    /// An invalid field of the message itself.
    pub(super) fn field(self, name: &'static str, got: impl Into<u64>, want: &'static str) -> ParseError {
        ParseError::Field { kind: self.kind, field: MessageField::of_message(name), got: got.into(), want }
    }

    /// The kind's form says another size than its parser takes. That is a fault of this crate and
    /// not of the bytes, and the tests of every kind's golden bytes find it.
    fn other_form(self) -> ParseError {
        ParseError::Short { kind: self.kind, got: self.bytes, want: self.bytes }
    }
}

/// Where the bytes of one message go.
pub(super) struct Output<'a> {
    pub(super) kind: MessageKind,
    pub(super) bytes: &'a mut Vec<u8>,
}

impl Output<'_> {
    /// Appends a message without a list.
    pub(super) fn fixed(self, fixed: &(impl IntoBytes + Immutable)) {
        self.list::<U32>(fixed, [].into_iter());
    }

    /// Appends a message with a list.
    ///
    /// # Panics
    ///
    /// If there are more or fewer items than the kind has.
    pub(super) fn list<T: IntoBytes + Immutable>(
        self,
        fixed: &(impl IntoBytes + Immutable),
        items: impl ExactSizeIterator<Item = T>,
    ) {
        let Self { kind, bytes } = self;
        let count = items.len();
        assert_fits(kind, count);
        bytes.reserve(Form::of(kind).bytes(count));
        // `Form` asserts that every bound fits 16 bits.
        bytes.extend_from_slice(Header::of(kind as u16, count as u16).as_bytes());
        bytes.extend_from_slice(fixed.as_bytes());
        items.for_each(|item| bytes.extend_from_slice(item.as_bytes()));
    }

    /// Appends a message whose list is bytes.
    ///
    /// # Panics
    ///
    /// If there are more bytes than the kind has.
    pub(super) fn content(self, fixed: &(impl IntoBytes + Immutable), content: &[u8]) {
        let Self { kind, bytes } = self;
        assert_fits(kind, content.len());
        bytes.reserve(Form::of(kind).bytes(content.len()));
        // `Form` asserts that every bound fits 16 bits.
        bytes.extend_from_slice(Header::of(kind as u16, content.len() as u16).as_bytes());
        bytes.extend_from_slice(fixed.as_bytes());
        bytes.extend_from_slice(content);
    }
}

fn assert_fits(kind: MessageKind, count: usize) {
    let form = Form::of(kind);
    assert!(count >= form.min && count <= form.max, "{kind:?} with {count} items: {}", form.bounds);
}

pub(super) fn name<const N: usize>(
    kind: MessageKind,
    field: MessageField,
    bytes: &[u8; N],
) -> Result<Name<N>, ParseError> {
    Name::from_field(bytes).map_err(|source| ParseError::Name { kind, field, source })
}

pub(super) fn write_layout(layout: &Layout) -> wire::Layout {
    wire::Layout {
        name: *layout.name.field(),
        fingerprint: layout.fingerprint.to_bytes(),
        any_rank: layout.any_rank.to_bytes(),
        page_bytes: U64::new(layout.page_bytes.get()),
        parts: U16::new(layout.parts.get()),
        zero: [0; 6],
    }
}

/// A layout whose fields `field` names.
pub(super) fn layout(
    kind: MessageKind,
    read: &wire::Layout,
    field: impl Fn(&'static str) -> MessageField,
) -> Result<Layout, ParseError> {
    let zero = |name| ParseError::Field { kind, field: field(name), got: 0, want: "at least 1" };
    Ok(Layout {
        name: name(kind, field("name"), &read.name)?,
        fingerprint: Fingerprint::from_bytes(read.fingerprint),
        any_rank: Fingerprint::from_bytes(read.any_rank),
        page_bytes: NonZeroU64::new(read.page_bytes.get()).ok_or_else(|| zero("page_bytes"))?,
        parts: NonZeroU16::new(read.parts.get()).ok_or_else(|| zero("parts"))?,
    })
}

/// The items of a list of numbers, none of which is 0, each as `make` wraps it.
pub(super) fn numbers<T>(parts: Parts<'_>, make: impl Fn(NonZeroU32) -> T) -> Result<Vec<T>, ParseError> {
    let items: &[U32] = parts.items()?;
    let number = |(index, number): (usize, &U32)| {
        let field = MessageField::of_item("number", index, "");
        let zero = ParseError::Field { kind: parts.kind, field, got: 0, want: "at least 1" };
        NonZeroU32::new(number.get()).map(&make).ok_or(zero)
    };
    items.iter().enumerate().map(number).collect()
}
