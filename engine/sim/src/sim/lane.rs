//! The state of a lane and of the wrs in its send queue.

use kvrail_core::id::{LaneId, RailIndex, WrId};
use kvrail_core::provider::{MemoryRange, Piece, Read};
use kvrail_core::verbs_abi::WcStatus;

use super::handle::PeerHandle;
use super::limits::SGES;
use super::timers::NEVER;

/// The state of a lane's QP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// No lane uses this place.
    Free,
    /// READs are executed.
    Ready,
    /// Posted wrs are flushed.
    Error,
}

/// A wr in the send queue.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wr {
    pub(super) read: Read,
    /// The local memory that its bytes go to, one piece after the other.
    pub(super) pieces_at: [Piece; SGES],
    /// The status that it will complete with, if nothing changes.
    pub(super) status: WcStatus,
    /// Whether its success gives no completion, though the wr is signaled.
    pub(super) lost: bool,
    /// Whether its success is the last thing that the lane does, and some of its bytes are missing.
    pub(super) incomplete: bool,
    /// Whether it is a drain wr, not a READ.
    pub(super) drain: bool,
    /// The peer's rail is booked for it until `sent` (picoseconds).
    pub(super) booked: bool,
    pub(super) sent: u64,
    /// The local line is booked for it until then (picoseconds); 0 if it has no bytes to carry.
    pub(super) through: u64,
    /// When the request arrives at the responder; once it is being answered, when the copying of
    /// its bytes begins.
    pub(super) start: u64,
    /// When it completes. `NEVER` for a request that the responder ignores.
    pub(super) done: u64,
    /// How many pieces land in all, and how many have landed.
    pub(super) pieces: u8,
    pub(super) landed: u8,
    /// When a piece lands within its share of the time, in 256ths.
    pub(super) phase: u8,
}

impl Wr {
    pub(super) const NONE: Self = Self {
        read: Read {
            wr_id: WrId(0),
            remote_addr: 0,
            local_addr: 0,
            len: 0,
            rkey: 0,
            lkey: 0,
            signaled: false,
        },
        pieces_at: [Piece { addr: 0, len: 0 }; SGES],
        status: WcStatus::SUCCESS,
        lost: false,
        incomplete: false,
        drain: false,
        booked: false,
        sent: 0,
        through: 0,
        start: NEVER,
        done: NEVER,
        pieces: 0,
        landed: 0,
        phase: 0,
    };

    /// Bytes `from .. to` of the READ as ranges of local memory, each with its first byte in the
    /// READ.
    pub(super) fn local(&self, from: u32, to: u32) -> impl Iterator<Item = (u32, MemoryRange)> + use<> {
        let mut begin = 0;
        self.pieces_at.into_iter().filter_map(move |Piece { addr, len }| {
            let (a, b) = (from.max(begin), to.min(begin + len));
            let range = MemoryRange {
                addr: addr + u64::from(a.saturating_sub(begin)),
                len: u64::from(b.saturating_sub(a)),
            };
            begin += len;
            (range.len > 0).then_some((a, range))
        })
    }

    /// When the next piece lands: between `start` and `done`, piece after piece.
    pub(super) fn lands_at(&self, pieces: u8) -> u64 {
        let span = u128::from(self.done - self.start);
        let part = u128::from(self.landed) * 256 + u128::from(self.phase);
        // part <= 255 * 256 + 255 < pieces * 256 for the pieces that are not landed, so no more
        // than `span`.
        self.start + (span * part / (u128::from(pieces) * 256)) as u64
    }
}

/// A place for a lane. Counters from `posted` to `tail` count the lane's wrs that have reached each
/// step: `tail <= head <= issued <= posted` and `head <= begun <= issued` while the lane is ready.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lane {
    pub(super) state: State,
    /// How many lanes have used this place: the life of the present one.
    pub(super) life: u32,
    /// The id that the engine gave it.
    pub(super) id: Option<LaneId>,
    pub(super) rail: RailIndex,
    pub(super) peer: PeerHandle,
    pub(super) remote_rail: RailIndex,
    pub(super) sq_entries: u32,
    pub(super) rd_atomic: u32,
    /// Wrs in the send queue, ever.
    pub(super) posted: u64,
    /// Wrs sent to the responder.
    pub(super) issued: u64,
    /// Wrs that the responder has begun to answer.
    pub(super) begun: u64,
    /// Wrs whose bytes have all landed or been dropped.
    pub(super) land: u64,
    /// Wrs that have completed.
    pub(super) head: u64,
    /// Wrs that the engine knows to have completed.
    pub(super) tail: u64,
    pub(super) commits: u64,
    /// The earliest time at which the next wr can complete.
    pub(super) last_done: u64,
    /// When the next piece lands.
    pub(super) land_at: u64,
    pub(super) flush_at: u64,
    pub(super) retry_at: u64,
    pub(super) fail_at: u64,
    pub(super) close_at: u64,
    /// Whether the path is down.
    pub(super) stalled: bool,
    /// Whether the responder has refused a request, and ignores later ones.
    pub(super) refused: bool,
    /// Whether a drain wr has completed, so that nothing lands any more.
    pub(super) drained: bool,
}

impl Lane {
    pub(super) const NONE: Self = Self {
        state: State::Free,
        life: 0,
        id: None,
        rail: RailIndex(0),
        peer: PeerHandle(0),
        remote_rail: RailIndex(0),
        sq_entries: 0,
        rd_atomic: 0,
        posted: 0,
        issued: 0,
        begun: 0,
        land: 0,
        head: 0,
        tail: 0,
        commits: 0,
        last_done: 0,
        land_at: NEVER,
        flush_at: NEVER,
        retry_at: NEVER,
        fail_at: NEVER,
        close_at: NEVER,
        stalled: false,
        refused: false,
        drained: false,
    };

    /// How many more wrs the send queue holds.
    pub(super) fn room(&self) -> u32 {
        // The model accepts no more wrs than there is room for, so posted - tail <= sq_entries, a
        // u32.
        self.sq_entries - (self.posted - self.tail) as u32
    }
}
