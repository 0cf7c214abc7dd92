//! What can go wrong between two peers.

use std::fmt;
use std::io;
use std::time::Duration;

use crate::message::{ByeReason, ParseError};
use crate::offer::OfferedRegionError;
use crate::refusal::Refusal;
use crate::wire::MessageKind;

/// What went wrong, with whom, and when in the exchange.
#[derive(Debug, thiserror::Error)]
#[error("{peer}, {step}: {cause}")]
pub struct SessionError {
    /// The peer's address, as given or as seen.
    pub peer: String,
    /// What was going on.
    pub step: Step,
    /// What went wrong.
    pub cause: Cause,
}

impl SessionError {
    /// A number that never changes its meaning (docs/errors.md).
    #[must_use]
    pub fn code(&self) -> u32 {
        self.cause.code()
    }
}

/// A step of an exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Step {
    /// Asking for the addresses behind a name.
    Resolving,
    /// Making the connection.
    Connecting,
    /// Sending a message.
    Sending(MessageKind),
    /// Waiting for a message, or checking it.
    Awaiting(MessageKind),
    /// The session stood, and nothing was asked.
    Idle,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Resolving => f.write_str("resolving the name"),
            Self::Connecting => f.write_str("connecting"),
            Self::Sending(kind) => write!(f, "sending {kind:?}"),
            Self::Awaiting(kind) => write!(f, "waiting for {kind:?}"),
            Self::Idle => f.write_str("in session"),
        }
    }
}

/// Which side of the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// This side.
    Us,
    /// The peer.
    Peer,
}

/// What went wrong.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Cause {
    /// The operating system said so.
    #[error(transparent)]
    Io(io::Error),
    /// The system gives no random numbers.
    #[error("the system gives no random numbers: {0}")]
    Random(getrandom::Error),
    /// The peer sent nothing, or took nothing, for this time.
    #[error(
        "not a byte for {:.1} s: has the peer's process died or been stopped, or is something else on that port?",
        .0.as_secs_f64()
    )]
    Silence(Duration),
    /// The deadline passed.
    #[error("the deadline passed")]
    Deadline,
    /// The peer closed the connection between two messages.
    #[error("the peer closed the connection")]
    Closed,
    /// The peer closed the connection within a message.
    #[error("the peer closed the connection after {got} bytes of a message of {want}")]
    Truncated {
        /// Bytes that came.
        got: usize,
        /// Bytes that the message has, as far as known.
        want: usize,
    },
    /// The peer sent bytes that are not a message.
    #[error(transparent)]
    Parse(#[from] ParseError),
    /// A good message, out of turn.
    #[error("{got:?} came instead")]
    Unexpected {
        /// What came.
        got: MessageKind,
    },
    /// A message of another kind than the one that is due in the handshake.
    #[error(
        "the peer sent no valid {want:?} (message kind {}), but {got:?}: does something else use this port?",
        *.want as u16
    )]
    Instead {
        /// What was due.
        want: MessageKind,
        /// What came.
        got: MessageKind,
    },
    /// A message's MAC is wrong.
    #[error("the message's MAC is wrong: it was changed on its way, or replayed")]
    Forged,
    /// The connection had not authenticated when others needed its place.
    #[error("it had not proved itself when there were {limit} newcomers, or half as many of its address")]
    SentAway {
        /// How many newcomers there may be.
        limit: usize,
    },
    /// A message contradicts an earlier one.
    #[error("the peer contradicts itself: {0}")]
    Contradiction(&'static str),
    /// The regions that the peer offers are not its layout's.
    #[error(transparent)]
    Regions(#[from] OfferedRegionError),
    /// One of the sides refused the other.
    #[error("{}{refusal}", if *.verified { "" } else { "(the peer says, unproven) " })]
    Refused {
        /// Which.
        by: By,
        /// Why, as this side sees it.
        refusal: Box<Refusal>,
        /// Whether it is certain that this refusal is the peer's own word: its MAC is right. Ours
        /// is.
        verified: bool,
    },
    /// The peer ended the session in good order.
    #[error("the peer ended the session: {0}")]
    Bye(ByeReason),
    /// This side is stopping.
    #[error("this side is stopping")]
    Stopped,
}

impl Cause {
    /// A number that never changes its meaning (docs/errors.md).
    #[must_use]
    pub fn code(&self) -> u32 {
        match self {
            Self::Io(_) => 4070,
            Self::Random(_) => 4071,
            Self::Silence(_) => 4072,
            Self::Deadline => 4073,
            Self::Closed => 4074,
            Self::Truncated { .. } => 4075,
            Self::Unexpected { .. } => 4076,
            Self::Instead { .. } => 4077,
            Self::Forged => 4078,
            Self::SentAway { .. } => 4079,
            Self::Contradiction(_) => 4080,
            Self::Bye(_) => 4081,
            Self::Stopped => 4082,
            Self::Parse(source) => source.code(),
            Self::Regions(source) => source.code(),
            Self::Refused { refusal, .. } => refusal.reason.code(),
        }
    }
}

impl SessionError {
    /// The refusal, if that is what went wrong.
    #[must_use]
    pub fn refusal(&self) -> Option<&Refusal> {
        match &self.cause {
            Cause::Refused { refusal, .. } => Some(refusal),
            _ => None,
        }
    }
}
