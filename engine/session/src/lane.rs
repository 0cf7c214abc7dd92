//! The two traits that a transport implements, one for each end of a lane.

use std::error::Error;

use kvrail_core::id::RailIndex;

use crate::message::LaneRefusal;
use crate::offer::{LaneBlob, RailDescription, RailList};
use crate::pairing::{NothingInCommon, RailPair};
use crate::{LaneNumber, SessionError};
use std::sync::Arc;

/// Why a transport did not make its end of a lane.
#[derive(Debug, thiserror::Error)]
#[error("rail {}: {source}", rail.0)]
pub struct LaneEndError {
    /// The rail, on the side that reports the error.
    pub rail: RailIndex,
    /// The transport's error.
    // A raw name: the text contains the cause, so `source()` must not return it again.
    pub r#source: Box<dyn Error + Send + Sync>,
}

impl LaneEndError {
    /// A number that never changes its meaning (docs/errors.md).
    #[must_use]
    pub const fn code(&self) -> u32 {
        4120
    }
}

impl LaneEndError {
    /// `source` happened on `rail`.
    pub fn new(rail: RailIndex, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self { rail, source: source.into() }
    }
}

/// The reader's side of a transport: makes lanes for an engine's provider.
///
/// Making a lane takes two steps, since each end must know the other: [`prepare`](Self::prepare)
/// makes this end and returns 64 bytes that describe it; [`connect`](Self::connect) gets the 64
/// bytes of the peer's end, which can receive by then. A pending lane that is never connected is
/// dropped, and dropping it frees all that it holds.
pub trait LaneDialer {
    /// A lane whose two ends know each other, for the engine's provider to open.
    type UnopenedLane;
    /// This end of a lane whose other end is not known yet.
    type Pending;

    /// The rails, in the provider's order. The order never changes: keys and indices refer to it.
    fn rails(&self) -> RailList;

    /// Which of a producer's rails each of these reads from: see [`pair`](crate::pair()). A
    /// transport that knows which rails cannot reach each other implements it by itself.
    ///
    /// # Errors
    ///
    /// No rail has a pair.
    fn pair(&self, producer: &[RailDescription]) -> Result<Vec<RailPair>, NothingInCommon> {
        crate::pairing::pair(&self.rails(), producer)
    }

    /// Another rail of the producer for `rail`, where no lane to the rails in `tried` could be
    /// made. `None`: the transport knows none.
    fn instead(
        &self,
        rail: RailIndex,
        tried: &[RailIndex],
        producer: &[RailDescription],
    ) -> Option<RailIndex> {
        let _ = (rail, tried, producer);
        None
    }

    /// Makes this end of a lane from `rail` to the producer's rail `remote`.
    ///
    /// # Errors
    ///
    /// There is no such rail, or the transport failed.
    fn prepare(
        &mut self,
        rail: RailIndex,
        remote: &RailDescription,
    ) -> Result<(Self::Pending, LaneBlob), LaneEndError>;

    /// Connects it to the producer's end.
    ///
    /// # Errors
    ///
    /// The producer's end is wrong, or the transport failed. `pending` has been dropped.
    fn connect(
        &mut self,
        pending: Self::Pending,
        remote: &RailDescription,
        remote_lane: &LaneBlob,
    ) -> Result<Self::UnopenedLane, LaneEndError>;
}

/// The producer's side of a transport: makes the other ends of lanes. Called from several threads
/// at a time: at most one per session and rail.
pub trait LaneAcceptor: Send + Sync + 'static {
    /// This end of a lane.
    type Lane: Send;

    /// The rails that peers read over; asked once, when the server starts. At least one, unless the
    /// server has services.
    fn rails(&self) -> RailList;

    /// Makes this end of a lane on `rail`, for the reader's end `remote_lane`.
    ///
    /// It returns only when this end is *ready to receive* (a QP: in RTR or RTS): the reader posts
    /// as soon as it has the answer.
    ///
    /// # Errors
    ///
    /// The reader's end is wrong, or the transport failed. The reader gets the first 64 bytes of
    /// the text, and the failed lane holds no resources.
    fn accept(&self, rail: RailIndex, remote_lane: &LaneBlob)
    -> Result<(Self::Lane, LaneBlob), LaneEndError>;

    /// Frees a lane that the reader gave back, or whose reader is gone. Called exactly once for
    /// every lane that [`accept`](Self::accept) made.
    fn release(&self, lane: Self::Lane);
}

/// The transport of a server that has [services](crate::service) alone: it has no rails.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoLanes;

impl LaneAcceptor for NoLanes {
    type Lane = std::convert::Infallible;

    fn rails(&self) -> RailList {
        RailList::new()
    }

    fn accept(&self, rail: RailIndex, _: &LaneBlob) -> Result<(Self::Lane, LaneBlob), LaneEndError> {
        Err(LaneEndError::new(rail, "this server has no rails"))
    }

    fn release(&self, lane: Self::Lane) {
        match lane {}
    }
}

/// A lane that a session made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attached<L> {
    /// Its number in the session, for [`Session::release`](crate::Session::release).
    pub number: LaneNumber,
    /// The reader's rail.
    pub rail: RailIndex,
    /// The producer's rail.
    pub remote_rail: RailIndex,
    /// The lane, for the reader's provider to open.
    pub lane: L,
}

/// Why a session made no lane.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SessionLaneError {
    /// The producer offers no such rail.
    #[error("the producer has {rails} rails, and no rail {}", remote_rail.0)]
    NoSuchRail {
        /// The requested rail.
        remote_rail: RailIndex,
        /// How many rails it has.
        rails: usize,
    },
    /// This side's transport failed.
    #[error("this side's transport failed: {0}")]
    Transport(Arc<LaneEndError>),
    /// The producer made no lane.
    #[error(transparent)]
    Refused(LaneRefusal),
    /// The lane was not made in time. If the producer makes it later, the session gives it back.
    #[error("the lane was not made in time: one of the two transports is slow or hangs")]
    Late,
    /// The producer has not answered earlier requests.
    #[error("the producer has not answered {asked} requests for lanes: its transport hangs")]
    Unanswered {
        /// How many requests have no answer.
        asked: usize,
    },
    /// The session ended first. All its lanes are gone with it.
    #[error(transparent)]
    Session(Arc<SessionError>),
}

impl SessionLaneError {
    /// A number that never changes its meaning (docs/errors.md).
    #[must_use]
    pub fn code(&self) -> u32 {
        match self {
            Self::NoSuchRail { .. } => 4121,
            Self::Late => 4122,
            Self::Unanswered { .. } => 4123,
            Self::Transport(source) => source.code(),
            Self::Refused(source) => source.code(),
            Self::Session(source) => source.code(),
        }
    }
}
