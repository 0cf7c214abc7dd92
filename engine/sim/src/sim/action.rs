//! What befalls rails, peers and memory, now or at a model time.

use heapless::vec::VecView;
use kvrail_core::id::RailIndex;

use super::config::Rate;
use super::handle::{LaneHandle, MemoryHandle, PeerHandle};
use super::memory::FailedRanges;
use super::timers::NEVER;

/// Something that happens to the world. Named rails, peers and memories must exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// A local port goes down: its READs get no answer, and fail when they have been retried for
    /// [`SimConfig::retry`](super::SimConfig::retry). If `told`, `RailDown` is reported.
    RailDown {
        /// Which.
        rail: RailIndex,
        /// Whether the engine is told.
        told: bool,
    },
    /// A local port comes up. READs that have not failed yet are sent again. If `told`, `RailUp` is
    /// reported.
    RailUp {
        /// Which.
        rail: RailIndex,
        /// Whether the engine is told.
        told: bool,
    },
    /// A local line carries more, or less, from now on; also for what is on its way.
    RailRate {
        /// Which.
        rail: RailIndex,
        /// How much.
        rate: Rate,
    },
    /// All rails of a peer go down.
    PeerDown(PeerHandle),
    /// All rails of a peer come up.
    PeerUp(PeerHandle),
    /// One rail of a peer goes down.
    RemoteRailDown(PeerHandle, RailIndex),
    /// One rail of a peer comes up.
    RemoteRailUp(PeerHandle, RailIndex),
    /// One rail of a peer carries more, or less, for what it begins to send from now on.
    RemoteRate(PeerHandle, RailIndex, Rate),
    /// A lane gets into the error state by itself, and says so. Nothing, when it is gone.
    FailLane(LaneHandle),
    /// A peer's memory is deregistered: requests for it are refused.
    Revoke(MemoryHandle),
    /// Ranges of a peer's memory have failed, as a DIMM does: READs of them come back with
    /// `REM_OP_ERR`, which kills their lanes.
    FailMemory(MemoryHandle, FailedRanges),
    /// The owner writes 16 bytes, which is an entry of the publication table.
    Write {
        /// Where.
        memory: MemoryHandle,
        /// Bytes from its start.
        offset: usize,
        /// What.
        bytes: [u8; 16],
    },
    /// The owner fills a range with one byte.
    Fill {
        /// Where.
        memory: MemoryHandle,
        /// Bytes from its start.
        offset: usize,
        /// How many.
        len: usize,
        /// With what.
        byte: u8,
    },
}

/// What will happen, in order of asking; at most some dozens, so nothing is sorted.
#[derive(Debug)]
pub(super) struct Agenda<'m> {
    held: &'m mut VecView<(u64, Action)>,
    first: u64,
}

impl<'m> Agenda<'m> {
    pub(super) fn new(held: &'m mut VecView<(u64, Action)>) -> Self {
        held.clear();
        Self { held, first: NEVER }
    }

    /// `false` when there is no room.
    pub(super) fn add(&mut self, time: u64, action: Action) -> bool {
        if self.held.push((time, action)).is_err() {
            return false;
        }
        self.first = self.first.min(time);
        true
    }

    /// When something happens next.
    #[inline]
    pub(super) fn first(&self) -> u64 {
        self.first
    }

    /// Takes out what happens next; of several things at one time, the one asked for first.
    pub(super) fn pop(&mut self) -> Option<Action> {
        let at = self.held.iter().position(|(time, _)| *time == self.first)?;
        let (_, action) = self.held.remove(at);
        self.first = self.held.iter().map(|(time, _)| *time).min().unwrap_or(NEVER);
        Some(action)
    }
}
