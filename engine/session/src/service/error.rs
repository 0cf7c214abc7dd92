//! Why a question was not asked, or not answered.

use std::sync::Arc;

use super::types::{MAX_SERVICE_BYTES, MAX_UNANSWERED, ServiceRefusal};
use crate::error::SessionError;

/// Why a question was not asked, or not answered.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AskError {
    /// The question is longer than a message carries.
    #[error("a question of {bytes} bytes fits no message: ask with {MAX_SERVICE_BYTES} at most")]
    TooLong {
        /// Bytes of the question.
        bytes: usize,
    },
    /// Too many questions of this session have no answer.
    #[error("{MAX_UNANSWERED} questions have no answer yet: wait for some of them")]
    TooMany,
    /// The session is not established yet.
    #[error("no service can be asked before the session is established")]
    NotEstablished,
    /// The deadline passed without an answer. The answer is dropped when it comes.
    #[error("the producer did not answer before the deadline")]
    Deadline,
    /// The producer answered that there is no answer.
    #[error(transparent)]
    Refused(#[from] ServiceRefusal),
    /// The session has ended, and this question was not answered before.
    #[error(transparent)]
    Session(Arc<SessionError>),
}

impl AskError {
    /// A number that never changes its meaning (docs/errors.md).
    #[must_use]
    pub fn code(&self) -> u32 {
        match self {
            Self::TooLong { .. } => 4220,
            Self::TooMany => 4221,
            Self::NotEstablished => 4222,
            Self::Deadline => 4223,
            Self::Refused(source) => source.code(),
            Self::Session(source) => source.code(),
        }
    }
}
