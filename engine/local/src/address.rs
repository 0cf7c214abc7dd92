//! What addresses of both kinds have in common.

/// Bytes that are no address of the expected kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LocalAddressError {
    /// Something else, or damaged.
    #[error("not an address of this kind: it begins with {begin:02x?}, and not with {expected:02x?}")]
    Magic {
        /// What the bytes begin with.
        begin: [u8; 4],
        /// What an address of this kind begins with.
        expected: [u8; 4],
    },
    /// An address of another version.
    #[error(
        "the address has version {found}, this side speaks {expected}: run the same release on both sides"
    )]
    Version {
        /// What it has.
        found: u16,
        /// What this side speaks.
        expected: u16,
    },
    /// A field holds what none may hold.
    #[error("the address is damaged: its {field} cannot be so")]
    Field {
        /// Which.
        field: &'static str,
    },
}

impl LocalAddressError {
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
