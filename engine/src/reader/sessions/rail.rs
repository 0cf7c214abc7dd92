//! What a session knows of one rail of the reader: the lane that is being made, and those that are
//! to be made.

use std::collections::VecDeque;
use std::time::Instant;

use kvrail_core::events::LaneWanted;
use kvrail_core::id::RailIndex;
use kvrail_session::{LaneDialer, LaneNumber, RailPair};

use super::jobs::PreparedEnd;

/// A rail of the reader, as this session sees it.
pub(super) struct Rail<D: LaneDialer> {
    pub(super) making: Option<Making<D>>,
    pub(super) wanted: VecDeque<(LaneWanted, Instant)>,
    /// Its first lanes; `None` for a rail that has no counterpart.
    pub(super) path: Option<Path>,
}

/// The first lanes of a rail.
pub(super) struct Path {
    /// The producer's rail that they lead to.
    pub(super) remote: RailIndex,
    /// The producer's rails that were tried, `remote` included.
    pub(super) tried: Vec<RailIndex>,
    /// Lanes that have not been begun.
    pub(super) left: usize,
    pub(super) made: usize,
    pub(super) failed_in_a_row: usize,
    /// Another rail of the producer is being looked for, until this time at most.
    pub(super) choosing: Option<Instant>,
}

/// A lane that is being made.
pub(super) struct Making<D: LaneDialer> {
    pub(super) pair: RailPair,
    /// The engine's request; `None`: it is one of the first lanes.
    pub(super) wanted: Option<LaneWanted>,
    pub(super) step: Step<D>,
    /// `None`: a first lane that waits for a thread. Others may keep the threads of the rail busy,
    /// so the time of this lane has not begun.
    pub(super) until: Option<Instant>,
    /// The lane has not come in time, and has been counted as a failure.
    pub(super) late: bool,
}

/// How far a lane is made.
pub(super) enum Step<D: LaneDialer> {
    /// A job makes this end.
    Preparing,
    /// The producer was asked for the other end.
    Asked(LaneNumber, Box<PreparedEnd<D>>),
    /// A job connects this end to the other one.
    Connecting(LaneNumber),
}

impl<D: LaneDialer> Rail<D> {
    pub(super) const fn new() -> Self {
        Self { making: None, wanted: VecDeque::new(), path: None }
    }

    /// Whether connecting waits for this rail. A lane that is late may hang, and is not waited for.
    pub(super) fn makes_first_lanes(&self) -> bool {
        let path = self.path.as_ref();
        match &self.making {
            Some(making) => making.wanted.is_none() && !making.late,
            None => path.is_some_and(|path| path.left > 0 || path.choosing.is_some()),
        }
    }
}

impl Path {
    /// `left` lanes are to be made to the producer's rail `remote`.
    pub(super) fn new(remote: RailIndex, left: usize) -> Self {
        Self { remote, tried: vec![remote], left, made: 0, failed_in_a_row: 0, choosing: None }
    }
}

impl<D: LaneDialer> Making<D> {
    /// When this lane is late. `None`: it is, or its time has not begun, or the session says when
    /// the producer's answer is late.
    pub(super) fn ends_by(&self) -> Option<Instant> {
        let asked = matches!(self.step, Step::Asked(..));
        self.until.filter(|_| !self.late && !asked)
    }
}
