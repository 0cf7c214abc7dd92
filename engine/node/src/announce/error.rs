//! Why a directory was not told.

use std::io;

use crate::directory::DirectoryError;

/// Why an announcer does not run, or the directory was not told everything.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AnnounceError {
    /// The system has no thread left.
    #[error("no thread to announce pages could be started: {0}")]
    Thread(io::Error),
    /// The deadline passed before the directory had been told everything.
    #[error(
        "{pending} changes of pages were not told to {directory} before the deadline: {}",
        why.as_ref().map_or_else(|| "it answers, and needs more time".into(), ToString::to_string)
    )]
    Pending {
        /// How many changes are left.
        pending: usize,
        /// Which directory.
        directory: String,
        /// Its last error, if its last answer was one.
        why: Option<DirectoryError>,
    },
}

impl AnnounceError {
    /// A number that never changes its meaning (docs/errors.md).
    #[must_use]
    pub const fn code(&self) -> u32 {
        match self {
            Self::Thread(_) => 7140,
            Self::Pending { .. } => 7141,
        }
    }
}
