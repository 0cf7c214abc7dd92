//! Why the rails of an engine could not be started.

use super::RailError;
use crate::config::VerbsConfigError;

/// Why the rails of an engine could not be started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VerbsStartError {
    /// A rail cannot be opened or used.
    #[error(transparent)]
    Rail(#[from] RailError),
    /// A value of the configuration cannot work.
    #[error(transparent)]
    Config(#[from] VerbsConfigError),
}

impl VerbsStartError {
    /// The code of the error inside: see `docs/errors.md`.
    #[must_use]
    pub const fn code(&self) -> u32 {
        match self {
            Self::Rail(error) => error.code(),
            Self::Config(error) => error.code(),
        }
    }
}
