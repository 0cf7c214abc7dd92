//! What a test lets happen to rails, peers and memory, now or at a model time.

use heapless::vec::VecView;
use kvrail_core::id::RailIndex;

use super::config::Rate;
use super::handle::{LaneHandle, MemoryHandle, PeerHandle};
use super::memory::FailedRanges;
use super::timers::NEVER;

/// A change of rails, peers, lanes or memory. The rails, peers and memories that it names must
/// exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Action {
    /// A local port goes down: its READs get no answer, and fail when they have been retried for
    /// [`SimConfig::retry`](super::SimConfig::retry).
    RailDown {
        /// The rail.
        rail: RailIndex,
        /// Whether `RailDown` is reported.
        told: bool,
    },
    /// A local port comes up. READs that have not failed yet are sent again.
    RailUp {
        /// The rail.
        rail: RailIndex,
        /// Whether `RailUp` is reported.
        told: bool,
    },
    /// The rate of a local line changes, also for READs on their way.
    RailRate {
        /// The rail.
        rail: RailIndex,
        /// Its new rate.
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
    /// The rate of one rail of a peer changes, for responses that it begins to send from now on.
    RemoteRate(PeerHandle, RailIndex, Rate),
    /// A lane enters the error state by itself, and `LaneFailed` is reported. Nothing happens if
    /// the lane is gone.
    FailLane(LaneHandle),
    /// A peer deregisters memory: READs of it are refused with `REM_ACCESS_ERR`.
    Revoke(MemoryHandle),
    /// Ranges of a peer's memory fail, as a DIMM does: READs of them complete with `REM_OP_ERR`,
    /// which kills their lanes. Ranges of this memory that failed before work again.
    FailMemory(MemoryHandle, FailedRanges),
    /// The owner writes 32 bytes: the size of an entry of the publication table.
    Write {
        /// The memory.
        memory: MemoryHandle,
        /// Where in the memory, in bytes from its start.
        offset: usize,
        /// The bytes.
        bytes: [u8; 32],
    },
    /// The owner fills a range with one byte.
    Fill {
        /// The memory.
        memory: MemoryHandle,
        /// Where in the memory, in bytes from its start.
        offset: usize,
        /// How many bytes.
        len: usize,
        /// The value of each.
        byte: u8,
    },
}

/// The planned actions, in the order in which they were added. They are few, so they are not
/// sorted.
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

    /// Adds an action. Returns `false` if there is no room.
    pub(super) fn add(&mut self, time: u64, action: Action) -> bool {
        if self.held.push((time, action)).is_err() {
            return false;
        }
        self.first = self.first.min(time);
        true
    }

    /// When the next action happens.
    #[inline]
    pub(super) fn first(&self) -> u64 {
        self.first
    }

    /// Takes the next action; of several at one time, the one that was added first.
    pub(super) fn pop(&mut self) -> Option<Action> {
        let at = self.held.iter().position(|(time, _)| *time == self.first)?;
        let (_, action) = self.held.remove(at);
        self.first = self.held.iter().map(|(time, _)| *time).min().unwrap_or(NEVER);
        Some(action)
    }
}
