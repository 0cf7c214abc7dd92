//! The first bytes of a connection, readable and frozen: magic, version range and key id.

/// The version of the protocol that this crate implements.
pub(crate) const VERSION: u16 = 2;

/// Why bytes are no greeting.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GreetingError {
    /// The bytes are of another protocol.
    #[error("the stream begins with {got:02x?} instead of kvrail's magic: something else uses this port")]
    Magic {
        /// The first eight bytes.
        got: [u8; 8],
    },
}

impl GreetingError {
    /// A number that never changes its meaning (docs/errors.md).
    #[must_use]
    pub const fn code(&self) -> u32 {
        match self {
            Self::Magic { .. } => 4002,
        }
    }
}
