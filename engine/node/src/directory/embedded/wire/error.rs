//! Why bytes are no question to a shard, or no answer of one.

use crate::record::RecordError;

/// Why bytes are no question to a shard, or no answer of one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FormatError {
    /// Another length.
    #[error("{got} bytes, and {want} by the numbers in them")]
    Length {
        /// How many there are.
        got: usize,
        /// How many there must be.
        want: usize,
    },
    /// A version that this release does not know.
    #[error("version {got} of look-ups is not known: run the same release on all nodes")]
    Version {
        /// The version.
        got: u8,
    },
    /// Another operation.
    #[error("operation {got} is not one that is due here")]
    Operation {
        /// Its number.
        got: u8,
    },
    /// A field has a value that it cannot have.
    #[error("{field} is {got}: {want}")]
    Field {
        /// Which field.
        field: &'static str,
        /// Its value.
        got: u64,
        /// What it may be.
        want: &'static str,
    },
    /// A name or an address cannot be parsed.
    #[error("the {field} of an owner is not one")]
    Text {
        /// Which field.
        field: &'static str,
    },
    /// A record cannot be parsed.
    #[error(transparent)]
    Record(#[from] RecordError),
}

impl FormatError {
    /// A number that never changes its meaning (docs/errors.md).
    #[must_use]
    pub const fn code(&self) -> u32 {
        match self {
            Self::Length { .. } => 7030,
            Self::Version { .. } => 7031,
            Self::Operation { .. } => 7032,
            Self::Field { .. } => 7033,
            Self::Text { .. } => 7034,
            Self::Record(source) => source.code(),
        }
    }
}
