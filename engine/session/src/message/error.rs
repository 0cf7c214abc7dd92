//! Why bytes are no message.

use std::fmt;

use kvrail_core::remote::OfferError;

use super::kind::MessageKind;
use super::wire::{HEADER, MAX_MESSAGE_BYTES};
use crate::name::NameError;

/// Why bytes are no message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ParseError {
    /// Fewer bytes than a header has.
    #[error("{got} bytes are no message: its header alone has {HEADER} bytes")]
    Header {
        /// How many there are.
        got: usize,
    },
    /// Fewer bytes than the message has.
    #[error("{got} bytes were given for {kind:?}, a message of {want} bytes: its end is missing")]
    Short {
        /// The message's kind.
        kind: MessageKind,
        /// How many there are.
        got: usize,
        /// How many it takes, by the numbers in its header.
        want: usize,
    },
    /// More bytes than the message has.
    #[error("{got} bytes were given for {kind:?}, a message of {want} bytes: other bytes follow it")]
    Long {
        /// The message's kind.
        kind: MessageKind,
        /// How many there are.
        got: usize,
        /// How many it takes, by the numbers in its header.
        want: usize,
    },
    /// A kind that this version does not know.
    #[error("message kind {got} is not known: run the same release on both sides")]
    UnknownKind {
        /// Its number.
        got: u16,
    },
    /// By the numbers in the header, the message is longer than any message.
    #[error("{kind:?} says that it has {got} bytes: a message has at most {MAX_MESSAGE_BYTES}")]
    Size {
        /// The message's kind.
        kind: MessageKind,
        /// How many bytes it takes, by the numbers in its header.
        got: usize,
    },
    /// A field has a value that it cannot have.
    #[error("{kind:?}.{field} is {got}: {want}")]
    Field {
        /// The message's kind.
        kind: MessageKind,
        /// The field.
        field: MessageField,
        /// Its value.
        got: u64,
        /// What it may be.
        want: &'static str,
    },
    /// A byte without a meaning is not zero.
    #[error("{kind:?} has {got:#04x} at byte {at}, which must be {want:#04x}")]
    Stray {
        /// The message's kind.
        kind: MessageKind,
        /// Which byte, the header's first being 0.
        at: usize,
        /// Its value.
        got: u8,
        /// What it must be.
        want: u8,
    },
    /// A name is not valid.
    #[error("{kind:?}.{field}: {source}")]
    Name {
        /// The message's kind.
        kind: MessageKind,
        /// The field.
        field: MessageField,
        /// What is wrong with it.
        // A raw name: the text contains the cause, so `source()` must not return it again.
        r#source: NameError,
    },
    /// A region is not valid.
    #[error("{kind:?}.region[{index}]: {source}")]
    Region {
        /// The message's kind.
        kind: MessageKind,
        /// Which of the message's regions.
        index: usize,
        /// What is wrong with it.
        // A raw name: the text contains the cause, so `source()` must not return it again.
        r#source: OfferError,
    },
    /// The additions at the message's end are cut off: the last one is longer than what is left.
    #[error(
        "{kind:?} has an addition of {want} bytes at byte {at}, where its additions have {got} more: its sender is at fault"
    )]
    AdditionCut {
        /// The message's kind.
        kind: MessageKind,
        /// Where the addition begins, the header's first byte being 0.
        at: usize,
        /// Bytes of additions from there on.
        got: usize,
        /// Bytes that the addition has with its tag and its length, as far as known.
        want: usize,
    },
    /// The message has an addition that this version does not know and that must be understood.
    #[error(
        "{kind:?} has an addition with tag {tag:#06x}, which must be understood and is not known: run the same release on both sides"
    )]
    AdditionUnknown {
        /// The message's kind.
        kind: MessageKind,
        /// The addition's tag.
        tag: u16,
    },
}

impl ParseError {
    /// A number that never changes its meaning (docs/errors.md).
    #[must_use]
    pub const fn code(&self) -> u32 {
        match self {
            Self::Short { .. } => 4000,
            Self::Long { .. } => 4001,
            Self::UnknownKind { .. } => 4003,
            Self::Size { .. } => 4005,
            Self::Field { .. } => 4006,
            Self::Stray { .. } => 4007,
            Self::Region { .. } => 4008,
            Self::Header { .. } => 4009,
            Self::AdditionCut { .. } => 4010,
            Self::AdditionUnknown { .. } => 4011,
            Self::Name { source, .. } => source.code(),
        }
    }

    /// The number of the message's kind as far as known, else 0, as
    /// [`Refusal::Malformed`](crate::Refusal::Malformed) carries it.
    #[must_use]
    pub const fn kind(&self) -> u16 {
        match *self {
            Self::Header { .. } => 0,
            Self::UnknownKind { got } => got,
            Self::Short { kind, .. }
            | Self::Long { kind, .. }
            | Self::Size { kind, .. }
            | Self::Field { kind, .. }
            | Self::Stray { kind, .. }
            | Self::Name { kind, .. }
            | Self::Region { kind, .. }
            | Self::AdditionCut { kind, .. }
            | Self::AdditionUnknown { kind, .. } => kind as u16,
        }
    }
}

/// A field of a message, as an error names it: `epoch`, or `rail[3].kind`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MessageField {
    /// The list whose item has the field, and the item's place in it, counted from 0.
    pub item: Option<(&'static str, usize)>,
    /// The field's name; empty where the item is itself a number.
    pub name: &'static str,
}

impl MessageField {
    /// A field of the message itself.
    pub(super) const fn of_message(name: &'static str) -> Self {
        Self { item: None, name }
    }

    /// A field of an item of a list.
    pub(super) const fn of_item(list: &'static str, index: usize, name: &'static str) -> Self {
        Self { item: Some((list, index)), name }
    }
}

impl fmt::Display for MessageField {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { item, name } = *self;
        let Some((list, index)) = item else { return f.write_str(name) };
        write!(f, "{list}[{index}]")?;
        if name.is_empty() { Ok(()) } else { write!(f, ".{name}") }
    }
}
