//! How a run of chunks becomes one commit.
//!
//! | file | what |
//! |---|---|
//! | `mod.rs` | the limits of a run, the accounting of a commit, and which wrs are signaled |
//! | `uniform.rs` | pages of one shape and one chunk each |
//! | `chunks.rs` | all other pages |
//! | `pairs.rs` | READs between pairs of regions, of one page or of several |
//! | `row_sets.rs` | sets of rows |
//! | `validate.rs` | validating READs |
//! | `repost.rs` | wrs of a dead lane |
//!
//! The records of a run are first written into the lane's ring, where they belong anyway, and the
//! run is encoded from there. So its length is known before the first descriptor is handed over,
//! and with it which wr is the last, which is signaled.

mod chunks;
mod pairs;
mod repost;
mod row_sets;
mod uniform;
mod validate;

use super::state::Engine;
use crate::config::EngineConfig;
use crate::events::{EngineEvent, EventSink};
use crate::id::LaneId;
use crate::lane::Lane;
use crate::lane::circle::Circle;
use crate::lane::lanes::next_in_circle;
use crate::page::list::PageRef;
use crate::peer::circles::Circles;
use crate::provider::{Commit, Provider};
use crate::rail::Rail;
use crate::time::Time;

/// The most validating READs in one commit. They are small, so it matters more that they go where
/// there is room now: in runs of 16 a model whose eighth rail is slow carries 364 of 367 GB/s, in
/// runs of 8 all of it (tests/model.rs).
const VALIDATING: u32 = 8;

/// How a turn ended.
pub(super) enum Turn {
    /// The quantum is used up, and more work waits.
    More,
    /// No work waits any more.
    Over,
    /// The rails over which the peer has room are at their caps: it waits until one of them is not.
    Capped,
    /// No lane of the peer has room: it is queued again when one has.
    Blocked,
}

/// The work of a run.
#[derive(Clone, Copy)]
pub(super) enum Work {
    /// Validating READs.
    Validate,
    /// Wrs of this dead lane.
    Repost(u16),
    /// Chunks that have not been posted, from this segment on.
    Fresh(PageRef),
}

/// Why `post_uniform` posts no more of a segment.
pub(super) enum Stop {
    /// All of the segment has been posted, or as much as the peer may post in its turn.
    Posted,
    /// No rail over which the peer has room is open.
    NoRoom,
    /// The rest is less than a run, and goes into one with the next segment.
    Short,
}

impl<P: Provider, E: EventSink> Engine<'_, P, E> {
    /// Posts one run on `lane`, and returns how many bytes it reads, at least 1.
    #[inline]
    pub(super) fn run(&mut self, lane: usize, work: Work, class: usize, now: Time) -> u64 {
        let l = &self.lanes[lane];
        let rail = &self.rails[usize::from(l.rail)];
        // With only one lane for it there is nothing to spread the work over, so a run is as long
        // as the turn.
        let peer = usize::from(l.peer);
        let alone = self.peers[peer].circles.is_alone(class);
        let chunks = if alone { u32::MAX } else { self.config.run_chunks };
        let chunks = chunks.min(P::CHAIN as u32).min(l.room()).min(rail.wrs_cap - rail.wrs);
        let bytes = rail.bytes_cap - rail.bytes;
        let most = if alone { self.config.quantum_bytes } else { self.config.run_bytes };
        let bytes = bytes.min(u64::from(most));
        let n = match work {
            Work::Validate => return self.post_validating(lane, class, chunks.min(VALIDATING), now).max(1),
            Work::Repost(from) => self.gather_dead_lane(lane, usize::from(from), class, chunks, bytes),
            Work::Fresh(segment) => self.gather_fresh(lane, segment, class, chunks, bytes, now),
        };
        if n == 0 { 1 } else { self.post(lane, n, now).max(1) }
    }

    /// Accounts for a commit of `n` wrs, and returns `bytes`. A commit that was not accepted whole
    /// fails the lane.
    #[inline]
    pub(super) fn posted(&mut self, lane: usize, n: u32, bytes: u64, commit: Commit, now: Time) -> u64 {
        let l = &mut self.lanes[lane];
        let index = usize::from(l.rail);
        account(l, &mut self.rails[index], n, bytes, now);
        self.rails.refresh(index);
        self.emit(|engine| EngineEvent::Posted { lane: engine.lanes[lane].id, wrs: n, bytes });
        if commit != Commit::All {
            // Accepted wrs are flushed. The others have records in the ring, too, and go to other
            // lanes when this one is known to be quiet.
            self.rails[index].stats.path_faults += 1;
            self.emit(|engine| refused(engine.lanes[lane].id, commit));
            self.fail_lane(lane, now);
        }
        bytes
    }
}

/// The event of a commit that was not accepted whole.
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

/// The next lane of a circle that has room. If none has, the circle is removed from those that have
/// room.
#[inline]
pub(super) fn next_lane<L>(lanes: &[Lane<L>], circles: &mut Circles, circle: Circle) -> Option<usize> {
    let first = circles.next(circle);
    let mut at = first;
    loop {
        let lane = &lanes[usize::from(at)];
        if lane.room() > 0 {
            circles.set_next(circle, lane.next);
            return Some(usize::from(at));
        }
        match next_in_circle(lanes, at, first) {
            Some(next) => at = next,
            None => break,
        }
    }
    circles.clear_room(circle);
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

/// Which wrs of a commit are signaled besides its last: one after every `every.0` wrs or `every.1`
/// bytes. Counting begins with the commit, since the last wr of the commit before was signaled.
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

    /// After how many wrs of `len` bytes from a signaled one on there is the next one.
    #[inline]
    fn every_of(&self, len: u32) -> u32 {
        // At least 1: both limits are.
        let by_bytes = self.every.1.div_ceil(u64::from(len.max(1)));
        self.every.0.min(u32::try_from(by_bytes).unwrap_or(u32::MAX))
    }

    /// After how many wrs of `len` bytes from here on there is a signaled one.
    #[inline]
    fn until_next(&self, len: u32) -> u32 {
        let by_bytes = self.every.1.saturating_sub(self.bytes).div_ceil(u64::from(len.max(1)));
        let by_wrs = u64::from(self.every.0.saturating_sub(self.wrs));
        // The less of the two is at most `every.0`.
        by_wrs.min(by_bytes).max(1) as u32
    }

    /// Notes that `left` more wrs of `len` bytes would make a signaled one.
    #[inline]
    fn count_behind(&mut self, left: u32, len: u32) {
        self.wrs = self.every.0.saturating_sub(left);
        self.bytes = self.every.1.saturating_sub(u64::from(left) * u64::from(len));
    }

    /// Notes that the last wr was signaled.
    #[inline]
    const fn reset(&mut self) {
        (self.wrs, self.bytes) = (0, 0);
    }

    /// Counts a wr of `len` bytes, and returns whether it is signaled.
    #[inline]
    fn next(&mut self, len: u32) -> bool {
        (self.wrs, self.bytes) = (self.wrs + 1, self.bytes + u64::from(len));
        let signaled = self.wrs >= self.every.0 || self.bytes >= self.every.1;
        if signaled {
            self.reset();
        }
        signaled
    }
}
