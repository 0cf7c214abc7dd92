//! Why a file is no configuration.

use std::io;
use std::path::PathBuf;

use kvrail::Address;
use kvrail::session::KeyError;

use crate::node::NodeError;

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
    /// A file that the configuration names holds no secret.
    #[error("{key}: {source}")]
    Secret {
        /// The key of the configuration.
        key: &'static str,
        /// Why the file holds none.
        // Raw, as above.
        r#source: KeyError,
    },
    /// This build lacks what the configuration wants.
    #[error("this build has no {what}: build kvrail-node with its feature `{feature}`")]
    Missing {
        /// What it lacks.
        what: &'static str,
        /// The feature that has it.
        feature: &'static str,
    },
    /// The name of the address at which the node listens is not known.
    #[error("listen: {address}: {source}")]
    Listen {
        /// The address.
        address: Address,
        /// The resolver's reason.
        // Raw, as above.
        r#source: io::Error,
    },
    /// The node does not start.
    #[error("the node does not start: {0}")]
    Node(Box<NodeError>),
    /// The directory's address cannot be.
    #[cfg(feature = "redis")]
    #[error(transparent)]
    Redis(#[from] crate::directory::redis::RedisConfigError),
    /// The system has no thread left for the directory.
    #[error("the directory's thread could not be started: {0}")]
    Thread(io::Error),
    /// The endpoint of the metrics does not start.
    #[cfg(feature = "metrics")]
    #[error(transparent)]
    Metrics(#[from] crate::metrics::http::MetricsError),
}

impl From<NodeError> for NodeFileError {
    fn from(error: NodeError) -> Self {
        Self::Node(Box::new(error))
    }
}

impl NodeFileError {
    /// A number that never changes its meaning (docs/errors.md).
    #[must_use]
    pub const fn code(&self) -> u32 {
        match self {
            Self::File { .. } => 7340,
            Self::Syntax { .. } => 7341,
            Self::Value { .. } => 7342,
            Self::Secret { .. } => 7343,
            Self::Missing { .. } => 7344,
            Self::Listen { .. } => 7346,
            Self::Node(source) => source.code(),
            #[cfg(feature = "redis")]
            Self::Redis(source) => source.code(),
            Self::Thread(_) => 7345,
            #[cfg(feature = "metrics")]
            Self::Metrics(source) => source.code(),
        }
    }
}
