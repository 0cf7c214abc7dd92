//! A run of chunks becomes one commit.
//!
//! | file | what |
//! |---|---|
//! | `mod.rs` | what runs, turns and commits have in common |
//! | `uniform.rs` | pages of one shape and one chunk each |
//! | `chunks.rs` | any other chunks |
//! | `validate.rs` | validating READs |
//! | `repost.rs` | wrs of a lane that was lost |
//!
//! A run is first written into the lane's ring, which is where its records belong anyway, and then
//! encoded from there: so its length, and with it which wr is the last and signaled, is known
//! before the first descriptor is handed over.

mod chunks;
mod repost;
mod uniform;
mod validate;

use super::state::Engine;
use crate::config::EngineConfig;
use crate::events::{EngineEvent, EventSink};
use crate::id::LaneId;
use crate::lane::Lane;
use crate::lane::lanes::next_in_circle;
use crate::page::list::PageRef;
use crate::peer::Peer;
use crate::provider::{Commit, Provider};
use crate::rail::Rail;
use crate::time::Time;

/// Validating READs in one commit. They are small, so what counts is that they go where there is
/// room now: in runs of 16 a model whose eighth rail is slow carries 364 of 367 GB/s, in runs of 8
/// all of it (tests/model.rs).
const VALIDATING: u32 = 8;

/// How a turn ended.
pub(super) enum Turn {
    /// The quantum is used up, more waits.
    More,
    /// Nothing waits any more.
    Over,
    /// Its rails are at their caps: it waits until one of them is not.
    Capped,
    /// Its lanes have no room, or it has no lanes: it enrolls again when one has.
    Blocked,
}

/// What a run is made of.
#[derive(Clone, Copy)]
pub(super) enum Work {
    /// Validating READs.
    Validate,
    /// wrs of a dead lane.
    Repost(u16),
    /// Chunks that have not been posted; the first segment.
    Fresh(PageRef),
}

/// Why no more of a segment is posted in runs of its own.
pub(super) enum Stop {
    /// All of it has been, or as much as the peer may in its turn.
    Posted,
    /// No rail that leads to the peer has room, or no lane over it.
    NoRoom,
    /// What is left is less than a run, and goes with the segment behind it.
    Short,
}

impl<P: Provider, E: EventSink> Engine<'_, P, E> {
    /// Posts one run on `lane` and says how many bytes it was, at least 1.
    #[inline]
    pub(super) fn run(&mut self, lane: usize, work: Work, class: usize, now: Time) -> u64 {
        let l = &self.lanes[lane];
        let rail = &self.rails[usize::from(l.rail)];
        // Where there is one lane only, there is nothing to spread over.
        let peer = usize::from(l.peer);
        let alone = self.peers[peer].lanes_up == 1;
        let chunks = if alone { u32::MAX } else { self.config.run_chunks };
        let chunks = chunks.min(P::CHAIN as u32).min(l.room()).min(rail.wrs_cap - rail.wrs);
        let bytes = rail.bytes_cap - rail.bytes;
        let most = if alone { self.config.quantum_bytes } else { self.config.run_bytes };
        let bytes = bytes.min(u64::from(most));
        let n = match work {
            Work::Validate => return self.post_validating(lane, chunks.min(VALIDATING), now).max(1),
            Work::Repost(from) => self.gather_dead_lane(lane, usize::from(from), chunks, bytes),
            Work::Fresh(segment) => self.gather_fresh(lane, segment, class, chunks, bytes, now),
        };
        if n == 0 { 1 } else { self.post(lane, n, now).max(1) }
    }

    /// Accounts for a commit of `n` wrs, and says again how many bytes they are.
    #[inline]
    pub(super) fn posted(&mut self, lane: usize, n: u32, bytes: u64, commit: Commit, now: Time) -> u64 {
        let l = &mut self.lanes[lane];
        let index = usize::from(l.rail);
        account(l, &mut self.rails[index], n, bytes, now);
        self.rails.refresh(index);
        self.emit(|engine| EngineEvent::Posted { lane: engine.lanes[lane].id, wrs: n, bytes });
        if commit != Commit::All {
            // What was accepted is flushed with the rest; what was not is in the ring all the same,
            // and goes elsewhere when the lane is known to be quiet.
            self.rails[index].stats.path_faults += 1;
            self.emit(|engine| refused(engine.lanes[lane].id, commit));
            self.fail_lane(lane, now);
        }
        bytes
    }
}

/// What is reported of a commit that was not taken whole.
#[cold]
fn refused(lane: LaneId, commit: Commit) -> EngineEvent {
    match commit {
        Commit::All => EngineEvent::PostRefused { lane, accepted: None, errno: 0 },
        Commit::Prefix { accepted, errno } => {
            EngineEvent::PostRefused { lane, accepted: Some(accepted), errno }
        }
        Commit::Unknown { errno } => EngineEvent::PostRefused { lane, accepted: None, errno },
    }
}

/// The peer's next lane on `rail` that has room. Where none has, the rail is taken out of the
/// peer's `room`.
#[inline]
pub(super) fn next_lane<L>(lanes: &[Lane<L>], peer: &mut Peer, rail: usize) -> Option<usize> {
    let first = peer.lanes[rail];
    let mut at = first;
    loop {
        let lane = &lanes[usize::from(at)];
        if lane.room() > 0 {
            peer.lanes[rail] = lane.next;
            return Some(usize::from(at));
        }
        match next_in_circle(lanes, at, first) {
            Some(next) => at = next,
            None => break,
        }
    }
    peer.room &= !(1 << rail);
    None
}

/// Accounts for a commit of `n` wrs on a lane of `rail`.
#[inline]
pub(super) fn account<L>(lane: &mut Lane<L>, rail: &mut Rail, n: u32, bytes: u64, now: Time) {
    if lane.head == lane.tail {
        lane.since = now;
    }
    lane.head = lane.head.wrapping_add(n);
    lane.bytes += bytes;
    rail.post(n, bytes);
}

/// Which wrs of a commit are signaled besides the last: one every so many wrs or bytes. The commit
/// before ended with one.
pub(super) struct Signals {
    wrs: u32,
    bytes: u64,
    every: (u32, u64),
}

impl Signals {
    #[inline]
    fn new(config: &EngineConfig) -> Self {
        let every = (config.signal_wrs, u64::from(config.signal_bytes));
        Self { wrs: 0, bytes: 0, every }
    }

    /// Counts a wr of `len` bytes.
    #[inline]
    fn next(&mut self, len: u32) -> bool {
        (self.wrs, self.bytes) = (self.wrs + 1, self.bytes + u64::from(len));
        let signaled = self.wrs >= self.every.0 || self.bytes >= self.every.1;
        if signaled {
            (self.wrs, self.bytes) = (0, 0);
        }
        signaled
    }
}
