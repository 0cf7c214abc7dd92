//! What addresses of both transports have in common: magic, version, and how they fail to parse.

/// Bytes that are not an address of the expected kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LocalAddressError {
    /// The bytes are something else, or damaged.
    #[error("not an address of this kind: it begins with {begin:02x?} instead of {expected:02x?}")]
    Magic {
        /// The first four bytes.
        begin: [u8; 4],
        /// The first four bytes of an address of this kind.
        expected: [u8; 4],
    },
    /// An address of another version.
    #[error(
        "the address has version {found}, and this side reads version {expected}: run the same release on both sides"
    )]
    Version {
        /// The address's version.
        found: u16,
        /// This side's version.
        expected: u16,
    },
    /// A field has a value that no address has.
    #[error("the address is damaged: its {field} has an impossible value")]
    Field {
        /// The field.
        field: &'static str,
    },
}

impl LocalAddressError {
    /// A number that never changes its meaning (docs/errors.md).
    #[must_use]
    pub const fn code(&self) -> u32 {
        match self {
            Self::Magic { .. } => 3100,
            Self::Version { .. } => 3101,
            Self::Field { .. } => 3102,
        }
    }

    /// Checks the first two fields, which addresses of all kinds share.
    pub(crate) fn check_head(
        begin: [u8; 4],
        magic: [u8; 4],
        found: u16,
        version: u16,
    ) -> Result<(), LocalAddressError> {
        if begin != magic {
            return Err(Self::Magic { begin, expected: magic });
        }
        if found != version {
            return Err(Self::Version { found, expected: version });
        }
        Ok(())
    }
}
