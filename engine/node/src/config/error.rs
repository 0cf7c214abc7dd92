//! Why a file is no configuration.

use std::io;
use std::path::PathBuf;

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NodeFileError {
    /// The file cannot be read.
    #[error("cannot read the configuration {}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        // A raw name: the text contains the cause, so `source()` must not return it again.
        r#source: io::Error,
    },
    /// It is no TOML, has a key that is not known, lacks one, or has one of another type. The text
    /// of the line is not repeated: it may hold a password.
    #[error("{}, line {line}: {why}", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong there.
        why: String,
    },
    /// A value cannot be.
    #[error("{}, line {line}: {key}: {why}", path.display())]
    Value {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// The key.
        key: &'static str,
        /// Why the value cannot be, and what to write.
        why: String,
    },
}

impl NodeFileError {
    /// A number that never changes its meaning (docs/errors.md).
    #[must_use]
    pub const fn code(&self) -> u32 {
        match self {
            Self::File { .. } => 7340,
            Self::Syntax { .. } => 7341,
            Self::Value { .. } => 7342,
        }
    }
}
