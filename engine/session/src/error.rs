//! Why a session could not be made, or ended.

use std::fmt;
use std::io;
use std::time::Duration;

use kvrail_host::secret::RandomError;

use crate::greeting::GreetingError;
use crate::handover::HandoverProtocolError;
use crate::message::MessageKind;
use crate::message::{ByeReason, ParseError};
use crate::pool::{MAX_LAYOUTS, PoolError};
use crate::refusal::Refusal;

/// Why a session could not be made, or ended: the peer, the step and the cause.
#[derive(Debug, thiserror::Error)]
#[error("{peer}, {step}: {cause}")]
pub struct SessionError {
    /// The peer's address, as given or as seen.
    pub peer: String,
    /// The step that failed.
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

/// A step of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Step {
    /// Resolving the peer's host name.
    Resolving,
    /// Making the connection.
    Connecting,
    /// The handshake that proves the key.
    Handshake,
    /// The reader introduces itself, and the producer offers its pools.
    Offer,
    /// The session was established.
    Established,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Resolving => "resolving the name",
            Self::Connecting => "connecting",
            Self::Handshake => "in the handshake",
            Self::Offer => "waiting for the offer",
            Self::Established => "in session",
        })
    }
}

/// Which side of the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_enums, reason = "a session has two ends")]
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
    /// An error of the operating system.
    #[error(transparent)]
    Io(io::Error),
    /// The system gave no random numbers.
    #[error("the system gave no random numbers: {0}")]
    Random(RandomError),
    /// The peer sent nothing, or took nothing, for this time.
    #[error(
        "the peer sent or took no byte for {:.1} s: has its process died or been stopped, or does something else use this port?",
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
    /// The peer's first bytes are not a greeting of this protocol.
    #[error(transparent)]
    Greeting(#[from] GreetingError),
    /// The peer sent a valid message at a point where the protocol does not allow it.
    #[error("the peer sent {got:?} (message kind {}), which is not allowed here: do both sides run the same release?", *.got as u16)]
    Unexpected {
        /// The kind of the message.
        got: MessageKind,
    },
    /// A message of the handshake, or a frame, cannot be decrypted, or does not agree with what was
    /// sent in clear.
    #[error(
        "a message was not sealed by the peer for this connection: it was changed on its way, or is a copy of an old one"
    )]
    Forged,
    /// Another connection displaced this one before it had authenticated.
    #[error(
        "the connection was displaced before it had authenticated: {limit} others, or half as many from its address, were in their handshake"
    )]
    SentAway {
        /// How many connections may be in their handshake at a time.
        limit: usize,
    },
    /// A message contradicts an earlier one.
    #[error("the peer broke the protocol: {0}")]
    Contradiction(&'static str),
    /// A pool that the peer offers cannot be one.
    #[error(transparent)]
    Pool(#[from] PoolError),
    /// The peer broke the rules of a hand-over.
    #[error(transparent)]
    Handover(#[from] HandoverProtocolError),
    /// One of the sides refused the other.
    #[error("{}{refusal}", if *.verified { "" } else { "(not authenticated) " })]
    Refused {
        /// The side that refused.
        by: By,
        /// The reason, as this side sees it.
        refusal: Refusal,
        /// Whether the refusal is certain to come from the peer: it came encrypted. `true` for a
        /// refusal of this side.
        verified: bool,
    },
    /// The peer closed the session.
    #[error("the peer ended the session: {0}")]
    Bye(ByeReason),
    /// This side is stopping.
    #[error("this side is stopping")]
    Stopped,
    /// A reader was given more layouts than a session carries.
    #[error("a reader of {count} layouts cannot introduce itself: give it {MAX_LAYOUTS} at most")]
    Layouts {
        /// How many layouts it was given.
        count: usize,
    },
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
            Self::Forged => 4078,
            Self::SentAway { .. } => 4079,
            Self::Contradiction(_) => 4080,
            Self::Bye(_) => 4081,
            Self::Stopped => 4082,
            Self::Layouts { .. } => 4090,
            Self::Parse(source) => source.code(),
            Self::Greeting(source) => source.code(),
            Self::Pool(source) => source.code(),
            Self::Handover(source) => source.code(),
            Self::Refused { refusal, .. } => refusal.code(),
        }
    }
}

impl SessionError {
    /// The refusal, if the cause is one.
    #[must_use]
    pub fn refusal(&self) -> Option<&Refusal> {
        match &self.cause {
            Cause::Refused { refusal, .. } => Some(refusal),
            _ => None,
        }
    }
}
