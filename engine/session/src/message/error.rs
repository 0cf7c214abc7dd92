//! Why bytes are no message.

use kvrail_core::remote::OfferError;

use super::types::MessageKind;
use crate::name::NameError;

/// Why bytes are no message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ParseError {
    /// Fewer bytes than the message has.
    #[error("{got} bytes were given for a message of {want} bytes: its end is missing")]
    Short {
        /// How many there are.
        got: usize,
        /// How many it takes.
        want: usize,
    },
    /// More bytes than the message has.
    #[error("{got} bytes were given for a message of {want} bytes: other bytes follow it")]
    Long {
        /// How many there are.
        got: usize,
        /// How many it takes.
        want: usize,
    },
    /// A kind that this version does not know.
    #[error("message kind {got} is not known: run the same release on both sides")]
    UnknownKind {
        /// Its number.
        got: u16,
    },
    /// The header's version is not the kind's.
    #[error("{kind:?} has version {got} instead of {want}: run the same release on both sides")]
    Version {
        /// The message's kind.
        kind: MessageKind,
        /// The header's.
        got: u16,
        /// The kind's.
        want: u16,
    },
    /// The header's size is not the kind's.
    #[error("{kind:?} says that it has {got} bytes, and a message of this kind has {want}")]
    Size {
        /// The message's kind.
        kind: MessageKind,
        /// The header's.
        got: u32,
        /// The kind's.
        want: usize,
    },
    /// A field has a value that it cannot have.
    #[error("{kind:?}.{field} is {got}: {want}")]
    Field {
        /// The message's kind.
        kind: MessageKind,
        /// The field's name.
        field: &'static str,
        /// Its value.
        got: u64,
        /// What it may be.
        want: &'static str,
    },
    /// A byte without a meaning is not zero: a reserved byte, or a byte after the end of a list.
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
        /// The field's name.
        field: &'static str,
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
}

impl ParseError {
    /// A number that never changes its meaning (docs/errors.md).
    #[must_use]
    pub const fn code(&self) -> u32 {
        match self {
            Self::Short { .. } => 4000,
            Self::Long { .. } => 4001,
            Self::UnknownKind { .. } => 4003,
            Self::Version { .. } => 4004,
            Self::Size { .. } => 4005,
            Self::Field { .. } => 4006,
            Self::Stray { .. } => 4007,
            Self::Region { .. } => 4008,
            Self::Name { source, .. } => source.code(),
        }
    }
}
