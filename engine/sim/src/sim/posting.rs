//! What an engine does to its lanes: it posts, fails, drains and closes them, and deregisters
//! memory.

use kvrail_core::id::{LaneId, RailIndex, WrId};
use kvrail_core::provider::{Commit, MemoryRange, Piece, RailKeys, Read};

use super::config::Faults;
use super::handle::LaneHandle;
use super::lane::{State, Wr};
use super::limits::{CHAIN, SGES};
use super::model::Model;
use super::script::Fate;
use super::timers::NEVER;
use super::violation::Violation;

/// The errno of a full send queue.
pub(super) const ENOMEM: i32 = 12;
pub(super) const EINVAL: i32 = 22;
/// The errno of the driver rxe after it has queued as many wrs as it could.
pub(super) const EIO: i32 = 5;

impl Model<'_> {
    /// Writes descriptor `i` of a commit behind the end of the send queue, where it has no effect
    /// before the commit.
    pub(super) fn encode(&mut self, place: usize, i: u32, read: Read, pieces: &[Piece]) {
        if i as usize == CHAIN {
            let lane = self.key(place);
            self.violations.record(Violation::ChainTooLong { lane, chain: CHAIN });
        }
        let lane = &mut self.lanes[place];
        if i as usize >= CHAIN || i >= lane.room() {
            return;
        }
        let k = lane.posted + u64::from(i);
        // The place of a flushed wr whose bytes could still land is used again, so these bytes are
        // dropped.
        lane.land = lane.land.max((k + 1).saturating_sub(self.depth as u64));
        let slot = self.slot(place, k);
        let mut wr = Wr { read, ..Wr::NONE };
        let bytes: u64 = pieces.iter().map(|piece| u64::from(piece.len)).sum();
        let has_empty_piece = pieces.len() > 1 && pieces.iter().any(|piece| piece.len == 0);
        let most = self.config.sges.clamp(1, SGES as u32) as usize;
        if pieces.len() > most || bytes != u64::from(read.len) || has_empty_piece {
            let (pieces, wr_id) = (pieces.len(), read.wr_id);
            self.violations.record(Violation::Pieces { wr_id, pieces, bytes, len: read.len });
        }
        for (at, piece) in wr.pieces_at.iter_mut().zip(pieces) {
            *at = *piece;
        }
        self.wrs[slot] = wr;
    }

    /// Rings the doorbell for `wanted` encoded descriptors.
    pub(super) fn commit(&mut self, place: usize, wanted: u32) -> Commit {
        // Descriptors beyond CHAIN were never encoded.
        let wanted = wanted.min(CHAIN as u32);
        if wanted == 0 {
            return Commit::All;
        }
        let key = self.key(place);
        let nth = self.lanes[place].commits;
        self.lanes[place].commits += 1;
        let room = self.lanes[place].room();
        if wanted > room {
            self.violations.record(Violation::SqOverrun { lane: key, wanted, room });
            self.accept(place, room);
            return Commit::Prefix { accepted: room, errno: ENOMEM };
        }
        let commit = self.fate_of_commit(key, nth, wanted);
        match commit {
            Fate::Prefix { accepted, errno, .. } if accepted < wanted => {
                self.accept(place, accepted);
                Commit::Prefix { accepted, errno }
            }
            Fate::Unknown { queued, errno, .. } => {
                self.accept(place, queued.min(wanted));
                Commit::Unknown { errno }
            }
            _ => {
                self.accept(place, wanted);
                Commit::All
            }
        }
    }

    fn fate_of_commit(&mut self, lane: LaneHandle, commit: u64, wanted: u32) -> Fate {
        let scripted = self.scripts.find(lane, |fate| match fate {
            Fate::Prefix { nth, .. } | Fate::Unknown { nth, .. } if nth == commit => Some(fate),
            _ => None,
        });
        if let Some(fate) = scripted {
            return fate;
        }
        // up_to(n) <= n, a u32.
        if self.config.faults.prefix.draw(&mut self.rng) {
            let accepted = self.rng.up_to(u64::from(wanted) - 1) as u32;
            return Fate::Prefix { nth: commit, accepted, errno: ENOMEM };
        }
        if self.config.faults.unknown.draw(&mut self.rng) {
            let queued = self.rng.up_to(u64::from(wanted)) as u32;
            return Fate::Unknown { nth: commit, queued, errno: EIO };
        }
        Fate::Prefix { nth: commit, accepted: wanted, errno: 0 }
    }

    /// Puts the next `n` encoded wrs into the send queue, and draws their faults.
    fn accept(&mut self, place: usize, n: u32) {
        let faults = self.config.faults;
        let first = self.lanes[place].posted;
        for k in first..first + u64::from(n) {
            let slot = self.slot(place, k);
            let read = self.wrs[slot].read;
            self.learn_id(place, read.wr_id.lane());
            if read.len == 0 {
                self.violations.record(Violation::EmptyRead { wr_id: read.wr_id });
            }
            if !faults.statuses.is_empty() && faults.wr.draw(&mut self.rng) {
                let which = self.rng.up_to(faults.statuses.len() as u64 - 1) as usize;
                self.wrs[slot].status = faults.statuses[which];
            }
            self.wrs[slot].lost = faults.lost.draw(&mut self.rng);
            let long = read.len > Faults::PACKET;
            self.wrs[slot].incomplete = long && faults.incomplete.draw(&mut self.rng);
            let key = self.key(place);
            let scripted = self.scripts.find(key, |fate| match fate {
                Fate::Status { nth, status } if nth == k => Some(status),
                _ => None,
            });
            if let Some(status) = scripted {
                self.wrs[slot].status = status;
            }
            let lost = |fate| matches!(fate, Fate::Lost { nth } if nth == k).then_some(());
            if self.scripts.find(key, lost).is_some() {
                self.wrs[slot].lost = true;
            }
            let incomplete = |fate| matches!(fate, Fate::Incomplete { nth } if nth == k).then_some(());
            if long && self.scripts.find(key, incomplete).is_some() {
                self.wrs[slot].incomplete = true;
            }
        }
        self.lanes[place].posted += u64::from(n);
        self.queued(place);
    }

    /// Goes on after wrs were added to the send queue.
    fn queued(&mut self, place: usize) {
        let lane = &self.lanes[place];
        if lane.state == State::Ready {
            self.issue(place);
        } else if lane.flush_at == NEVER && lane.head < lane.posted {
            let flush = self.config.flush.draw(&mut self.rng);
            self.lanes[place].flush_at = self.now.saturating_add(flush);
        }
        self.rearm(place);
    }

    /// Posts the drain wr.
    pub(super) fn drain(&mut self, place: usize, wr_id: WrId) -> Result<(), i32> {
        self.learn_id(place, wr_id.lane());
        let key = self.key(place);
        if self.lanes[place].state == State::Ready {
            self.violations.record(Violation::DrainTooEarly { lane: key });
        }
        if self.lanes[place].room() == 0 {
            self.violations.record(Violation::SqOverrun { lane: key, wanted: 1, room: 0 });
            return Err(ENOMEM);
        }
        let refused = |fate| match fate {
            Fate::DrainRefused { errno } => Some(errno),
            _ => None,
        };
        if let Some(errno) = self.scripts.find(key, refused) {
            return Err(errno);
        }
        if self.config.faults.drain_refused.draw(&mut self.rng) {
            return Err(ENOMEM);
        }
        let silent = |fate| matches!(fate, Fate::DrainLost).then_some(());
        let lost =
            self.scripts.find(key, silent).is_some() || self.config.faults.drain_lost.draw(&mut self.rng);
        let read = Read { wr_id, signaled: true, ..Wr::NONE.read };
        self.encode(place, 0, read, &[]);
        let slot = self.slot(place, self.lanes[place].posted);
        self.wrs[slot].drain = true;
        self.wrs[slot].lost = lost;
        self.lanes[place].posted += 1;
        self.queued(place);
        Ok(())
    }

    /// Starts moving the lane to the error state.
    pub(super) fn fail(&mut self, place: usize, id: LaneId) {
        self.learn_id(place, id);
        let takes = self.config.fail.draw(&mut self.rng);
        let lane = &mut self.lanes[place];
        lane.fail_at = lane.fail_at.min(self.now.saturating_add(takes));
        self.rearm(place);
    }

    /// Starts destroying the lane.
    pub(super) fn close(&mut self, place: usize, id: LaneId) {
        self.learn_id(place, id);
        let key = self.key(place);
        let hangs = |fate| matches!(fate, Fate::CloseHangs).then_some(());
        if self.scripts.find(key, hangs).is_some() || self.config.faults.close_hangs.draw(&mut self.rng) {
            return;
        }
        let takes = self.config.close.draw(&mut self.rng);
        self.lanes[place].close_at = self.now.saturating_add(takes);
        self.rearm(place);
    }

    /// Ends a registration.
    pub(super) fn deregister(&mut self, range: MemoryRange, keys: &RailKeys) {
        for place in 0..self.lanes.len() {
            if let Some(wr_id) = self.writer_into(place, keys) {
                let lane = self.key(place);
                self.violations.record(Violation::DeregisteredInUse { range, lane, wr_id });
            }
        }
        if !self.memories.deregister(range, keys) {
            self.violations.record(Violation::NotRegistered { range });
        }
    }

    /// The oldest wr of a lane that may still write with one of these keys.
    fn writer_into(&self, place: usize, keys: &RailKeys) -> Option<WrId> {
        let lane = &self.lanes[place];
        if lane.state == State::Free {
            return None;
        }
        let RailIndex(rail) = lane.rail;
        (lane.head.min(lane.land)..lane.posted)
            .map(|k| &self.wrs[self.slot(place, k)])
            .find(|wr| !wr.drain && wr.read.lkey == keys[rail as usize])
            .map(|wr| wr.read.wr_id)
    }
}
