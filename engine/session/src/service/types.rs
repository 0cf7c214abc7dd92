//! Questions, answers and their bounds.

use std::fmt;
use std::num::NonZeroU32;

use crate::name::NodeName;

/// The most bytes of a question's content, and of an answer's: so many fit one message and leave
/// the room that every message leaves to later versions.
pub const MAX_SERVICE_BYTES: usize = 48 * 1024 - 64;
/// How many questions of one session may have no answer.
pub const MAX_UNANSWERED: usize = 256;

/// Which service of a producer: both sides know what the number stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServiceNumber(pub u16);

impl fmt::Display for ServiceNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// The number of a question in its session. The reader chooses it, and none that an unanswered
/// question has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AskNumber(pub NonZeroU32);

/// A question to a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceAsk {
    /// Its number; the answer repeats it.
    pub number: AskNumber,
    /// The service.
    pub service: ServiceNumber,
    /// What the service is asked, [`MAX_SERVICE_BYTES`] at most.
    pub content: Vec<u8>,
}

/// The answer to a question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceAnswer {
    /// The number of the question.
    pub number: AskNumber,
    /// What the service answers, [`MAX_SERVICE_BYTES`] at most, or why there is no answer.
    pub result: Result<Vec<u8>, ServiceRefusal>,
}

/// Why a question was not answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {text}")]
pub struct ServiceRefusal {
    /// The kind of reason.
    pub code: ServiceRefusalCode,
    /// In the producer's words.
    pub text: NodeName,
}

impl ServiceRefusal {
    /// A number that never changes its meaning (docs/errors.md).
    #[must_use]
    pub const fn code(&self) -> u32 {
        match self.code {
            ServiceRefusalCode::NoSuchService => 4225,
            ServiceRefusalCode::Refused => 4226,
            ServiceRefusalCode::Failed => 4227,
            ServiceRefusalCode::Other(_) => 4228,
        }
    }
}

/// The kind of reason for which a question was not answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ServiceRefusalCode {
    /// The producer has no service of this number.
    NoSuchService,
    /// The service does not answer this question.
    Refused,
    /// The service has a fault: it panicked, or its answer was too long.
    Failed,
    /// A reason that this version does not know.
    Other(u16),
}

impl ServiceRefusalCode {
    /// The code behind a number on the wire; 0 means that there is an answer.
    #[must_use]
    pub const fn from_wire(code: u16) -> Option<Self> {
        Some(match code {
            0 => return None,
            1 => Self::NoSuchService,
            2 => Self::Refused,
            3 => Self::Failed,
            other => Self::Other(other),
        })
    }

    /// Its number on the wire.
    #[must_use]
    pub const fn to_wire(self) -> u16 {
        match self {
            Self::NoSuchService => 1,
            Self::Refused => 2,
            // 0 would say that there is an answer.
            Self::Failed | Self::Other(0) => 3,
            Self::Other(code) => code,
        }
    }
}

impl fmt::Display for ServiceRefusalCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSuchService => f.write_str("the producer has no such service"),
            Self::Refused => f.write_str("the service refused"),
            Self::Failed => f.write_str("the service failed"),
            Self::Other(code) => write!(f, "the service gave no answer for reason {code}"),
        }
    }
}
