//! Lanes fail, are flushed, and what they had goes elsewhere.
//!
//! ```text
//!            kill               LaneFailed, drain posted       drain wr back
//!   Up ------------> Failing ------------------> Draining ------------------> Quiet --> Free
//!                       |                            |                          ^
//!                       | too slow                   | too slow, not accepted   | LaneClosed
//!                       +-------------------------> Closing ---------------------+
//! ```
//!
//! Nothing that the lane had is posted again or given back before Quiet: until then its QP may write.

use super::Engine;
use crate::abi::FaultKind;
use crate::error::PageError;
use crate::id::{LaneId, PeerId, RailIndex, WrId};
use crate::lane::{LaneState, NO_LANE, Record};
use crate::page::{PageRef, PageTable, Phase, VALIDATE, settle_pages};
use crate::peer::PeerState;
use crate::provider::Provider;
use crate::table::ENTRY_BYTES;
use crate::time::{Nanos, Time};

/// A lane that is missing: somebody on the control path is to make it, and then to
/// [`attach`](Engine::attach) it, or to say that it is [`unavailable`](Engine::lane_unavailable).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LaneWanted {
    /// To whom.
    pub peer: PeerId,
    /// Over which local rail.
    pub rail: RailIndex,
    /// To which rail of the peer the lost one led.
    pub remote_rail: u8,
    /// How often this path has failed in a row.
    pub failures: u8,
}

/// A lane that was attached and has failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LaneLost {
    /// What [`attach`](Engine::attach) called it.
    pub lane: LaneId,
    /// To whom it led.
    pub peer: PeerId,
    /// Over which local rail.
    pub rail: RailIndex,
    /// To which rail of the peer.
    pub remote_rail: u8,
}

impl LaneLost {
    /// Stands where none is.
    pub(crate) const NONE: Self = Self {
        lane: LaneId::new(0, 0),
        peer: PeerId { index: 0, life: 0 },
        rail: RailIndex(0),
        remote_rail: 0,
    };
}

impl<P: Provider> Engine<'_, P> {
    /// Takes a lane out of service and starts its flush.
    #[cold]
    pub(super) fn kill(&mut self, index: usize, now: Time) {
        self.condemn(index, now);
        let lane = &mut self.lanes[index];
        if let Some(handle) = lane.handle.as_mut() {
            self.provider.fail(handle);
        }
    }

    /// The bookkeeping of [`kill`](Self::kill).
    fn condemn(&mut self, index: usize, now: Time) {
        let lane = &mut self.lanes[index];
        debug_assert_eq!(lane.state, LaneState::Up);
        lane.state = LaneState::Failing;
        lane.since = now;
        let (peer, rail, remote_rail) = (lane.peer, usize::from(lane.rail), lane.remote_rail);
        let r = &mut self.rails[rail];
        let silent = core::mem::take(&mut lane.silent);
        if silent {
            r.unmute(lane.outstanding(), lane.bytes);
            self.hushed -= 1;
        }
        r.forget(lane.outstanding(), lane.bytes);
        r.dying += 1;
        r.stats.lanes_failed += 1;
        self.refresh_room(rail);
        self.spread(index);
        self.dying += 1;
        // Lanes are fewer than 65,535.
        self.unlink_lane(index as u16);
        if silent && self.peers[usize::from(peer)].lanes[rail] != NO_LANE {
            self.peers[usize::from(peer)].room |= 1 << rail;
            self.enroll(peer);
        }
        if self.peers[usize::from(peer)].state == PeerState::Up {
            let p = &mut self.peers[usize::from(peer)];
            p.missing += 1;
            let lane = LaneLost {
                lane: self.lanes[index].id,
                peer: p.id(peer),
                rail: RailIndex(rail as u8),
                remote_rail,
            };
            self.lost.push(lane);
            self.paths[usize::from(peer)][rail].lost[usize::from(remote_rail)].missing += 1;
            self.missing += 1;
            self.back_off(peer, rail, now);
        }
    }

    /// Writes down each wr of a lane by itself: from now on they have different fates.
    fn spread(&mut self, index: usize) {
        let (mut seq, head) = (self.lanes[index].tail, self.lanes[index].head);
        while seq != head {
            let run = *self.record(index, seq);
            for i in 0..u32::from(run.count) {
                let wr = if i == 0 { run } else { run.behind(i) };
                *self.record(index, seq) = Record::one(wr.page, wr.chunk, wr.len);
                seq = seq.wrapping_add(1);
            }
        }
    }

    fn back_off(&mut self, peer: u16, rail: usize, now: Time) {
        let path = &mut self.paths[usize::from(peer)][rail];
        let Nanos(min) = self.config.backoff_min;
        let wait = min.saturating_mul(1 << path.failures.min(20)).min(self.config.backoff_max.0);
        // Up to a quarter more, different for each path, so that paths that failed together do not
        // come back together.
        let spread = (u64::from(peer) * 31 + rail as u64 * 7 + u64::from(path.failures)) % 16;
        path.retry_at = now + Nanos(wait.saturating_add(wait / 64 * spread));
        path.failures = path.failures.saturating_add(1);
    }

    fn lookup(&self, id: LaneId) -> Option<usize> {
        let lane = self.lanes.get(id.index())?;
        (lane.id == id && lane.state != LaneState::Free).then_some(id.index())
    }

    pub(super) fn lane_failed(&mut self, id: LaneId, now: Time) {
        let Some(index) = self.lookup(id) else { return };
        if self.lanes[index].state == LaneState::Up {
            self.condemn(index, now);
        }
        let lane = &mut self.lanes[index];
        if lane.state != LaneState::Failing {
            return;
        }
        let Some(handle) = lane.handle.as_mut() else { return };
        let drain = WrId::new(id, lane.head);
        lane.state = LaneState::Draining;
        lane.since = now;
        if self.provider.drain(handle, drain).is_err() {
            self.begin_close(index, now);
        }
    }

    /// Gives up on seeing the flush end: a destroyed QP writes no more either.
    pub(super) fn begin_close(&mut self, index: usize, now: Time) {
        let lane = &mut self.lanes[index];
        lane.state = LaneState::Closing;
        lane.since = now;
        if let Some(handle) = lane.handle.take() {
            self.provider.close(handle);
        }
    }

    pub(super) fn lane_closed(&mut self, id: LaneId, now: Time) {
        let Some(index) = self.lookup(id) else { return };
        if self.lanes[index].state == LaneState::Up {
            self.condemn(index, now);
        }
        self.lanes[index].closed = true;
        match self.lanes[index].state {
            LaneState::Quiet => self.free_lane(index),
            _ => self.quiet(index, now),
        }
    }

    /// It is known that the lane writes no more.
    pub(super) fn quiet(&mut self, index: usize, now: Time) {
        let lane = &mut self.lanes[index];
        lane.state = LaneState::Quiet;
        lane.since = now;
        let (peer, rail) = (lane.peer, lane.rail);
        if let Some(handle) = lane.handle.take() {
            self.provider.close(handle);
        }
        self.rails[usize::from(rail)].dying -= 1;
        self.accuse(index);
        self.purge(index);
        if self.lanes[index].outstanding() == 0 {
            return self.free_lane(index);
        }
        let peer_state = &mut self.peers[usize::from(peer)];
        self.lanes[index].next = core::mem::replace(&mut peer_state.carcass, index as u16);
        self.enroll_class(peer, 0);
    }

    /// Fails the page whose wr killed the lane, where the page is to blame: all pages whose entries it should have brought.
    fn accuse(&mut self, index: usize) {
        let lane = &self.lanes[index];
        let Some(fatal) = lane.fatal else { return };
        let covered = lane.covered(fatal.seq);
        if fatal.status.fault() != FaultKind::Page || covered > lane.outstanding() {
            return;
        }
        let (rail, remote_rail) = (lane.rail, usize::from(lane.remote_rail));
        let seq = lane.tail.wrapping_add(covered - 1);
        let record = *self.record(index, seq);
        let batch = self.pages.at(record.page).batch;
        let (first, len) = (self.pages.first(batch), self.pages.head(batch).len);
        settle_pages(self.pages.slice(first, u32::from(len)));
        let page = self.pages.at(record.page);
        let remote = &self.remotes[usize::from(page.source.region())];
        let (remote_addr, len, keys) = if record.chunk == VALIDATE {
            let entry = remote.table + u64::from(page.entry) * ENTRY_BYTES;
            (entry, record.len, &remote.table_keys)
        } else {
            let (offset, len) = match page.plan() {
                None => page.chunk(record.chunk, self.chunk_shift),
                Some(plan) => self.plans.chunk(plan, record.chunk),
            };
            (page.remote + offset, len, &remote.keys)
        };
        let error = PageError::Fault {
            status: fatal.status,
            vendor_err: fatal.vendor_err,
            rail,
            remote_addr,
            len,
            rkey: keys[remote_rail],
        };
        self.pages.head(batch).spoilt = true;
        for i in 0..record.covers(1) {
            let page = PageRef(record.page.0 + i);
            fail_page(self.pages.at(page), error, self.chunk_shift);
            self.trim(page);
        }
    }

    /// A failed page may have been the last of its segment with something to post: then the segment must
    /// not wait to be posted, for its batch may be done before.
    fn trim(&mut self, page: PageRef) {
        let p = self.pages.at(page);
        let (batch, peer, shift) = (p.batch, usize::from(p.peer()), self.chunk_shift);
        let mut segment = self.pages.first(batch);
        while segment.0 + u32::from(self.pages.at(segment).seg_len) <= page.0 {
            segment.0 += u32::from(self.pages.at(segment).seg_len);
        }
        let first = self.pages.at(segment);
        let (seg_len, mut seg_done) = (first.seg_len, first.seg_done);
        while seg_done < seg_len {
            let p = self.pages.at(PageRef(segment.0 + u32::from(seg_done)));
            if p.next < p.chunks(shift) {
                break;
            }
            seg_done += 1;
        }
        self.pages.at(segment).seg_done = seg_done;
        if seg_done == seg_len {
            let class = usize::from(self.pages.head(batch).class);
            self.dequeue(peer, class, segment);
        }
    }

    /// Accounts for the wrs of a quiet lane whose pages have failed, and keeps the others.
    pub(super) fn purge(&mut self, index: usize) {
        let (tail, head) = (self.lanes[index].tail, self.lanes[index].head);
        let mut kept = tail;
        for i in 0..head.wrapping_sub(tail) {
            let record = *self.record(index, tail.wrapping_add(i));
            // Pages of one wr fail together: their batch is late, their peer gone, or the wr itself has failed.
            if self.pages.at(record.page).phase == Phase::Dead {
                self.drop_wr(record);
            } else {
                *self.record(index, kept) = record;
                kept = kept.wrapping_add(1);
            }
        }
        self.lanes[index].head = kept;
    }

    /// Purges all carcasses of a peer, after pages of it have failed.
    pub(super) fn purge_peer(&mut self, peer: u16) {
        let mut carcass = self.peers[usize::from(peer)].carcass;
        let mut before = NO_LANE;
        while carcass != NO_LANE {
            let index = usize::from(carcass);
            let next = self.lanes[index].next;
            self.purge(index);
            if self.lanes[index].outstanding() == 0 {
                match before {
                    NO_LANE => self.peers[usize::from(peer)].carcass = next,
                    before => self.lanes[usize::from(before)].next = next,
                }
                self.free_lane(index);
            } else {
                before = carcass;
            }
            carcass = next;
        }
    }

    /// The first carcass of its peer may have nothing left.
    pub(super) fn carcass_emptied(&mut self, index: usize) {
        let lane = &self.lanes[index];
        if lane.outstanding() == 0 {
            self.peers[usize::from(lane.peer)].carcass = lane.next;
            self.free_lane(index);
        }
    }

    /// Frees a lane's place, if nothing of it is left.
    fn free_lane(&mut self, index: usize) {
        let lane = &mut self.lanes[index];
        if lane.state != LaneState::Quiet || !lane.closed || lane.outstanding() != 0 {
            return;
        }
        lane.state = LaneState::Free;
        lane.id = lane.id.next_life();
        let (peer, rail) = (lane.peer, usize::from(lane.rail));
        // Its last words may still lie in the completion queue: its share of that is free when they have
        // been taken out.
        self.rails[rail].cq_residue += lane.credits + 1;
        self.dying -= 1;
        self.free_lane = self.free_lane.min(index);
        self.peers[usize::from(peer)].lanes_all -= 1;
        self.leave(peer);
    }

    pub(super) fn rail_down(&mut self, rail: usize, now: Time) {
        let Some(r) = self.rails.get_mut(rail) else { return };
        r.up = false;
        self.refresh_room(rail);
        self.refresh_rate();
        for index in 0..self.lanes.len() {
            let lane = &self.lanes[index];
            if lane.state == LaneState::Up && usize::from(lane.rail) == rail {
                self.kill(index, now);
            }
        }
    }

    pub(super) fn rail_up(&mut self, rail: usize, now: Time) {
        let Some(r) = self.rails.get_mut(rail) else { return };
        r.up = true;
        self.refresh_room(rail);
        self.refresh_rate();
        // What failed because the port was down says nothing about the port that is up.
        for path in self.paths.iter_mut().map(|paths| &mut paths[rail]).filter(|path| path.missing() > 0) {
            path.retry_at = now;
            path.failures = 0;
        }
    }

    /// A lane that should be made now, if there is one: at most `Config::reconnects` are being made at
    /// the same time, and each path waits longer after each failure.
    pub fn next_wanted_lane(&mut self, now: Time) -> Option<LaneWanted> {
        if self.missing <= self.asked || self.asked >= u32::from(self.config.reconnects) {
            return None;
        }
        for (peer, paths) in self.paths.iter_mut().enumerate() {
            if self.peers[peer].missing == 0 {
                continue;
            }
            for (rail, path) in paths.iter_mut().enumerate().take(self.rails.len()) {
                if path.retry_at > now || !self.rails[rail].up {
                    continue;
                }
                let Some(remote_rail) = path.wanted() else { continue };
                path.lost[remote_rail].asked += 1;
                self.asked += 1;
                return Some(LaneWanted {
                    peer: self.peers[peer].id(peer as u16),
                    rail: RailIndex(rail as u8),
                    remote_rail: remote_rail as u8,
                    failures: path.failures,
                });
            }
        }
        None
    }

    /// A wanted lane could not be made. It is wanted again after a longer while.
    pub fn lane_unavailable(&mut self, wanted: LaneWanted, now: Time) {
        let rail = wanted.rail.get();
        if self.peer(wanted.peer).is_none() || rail >= self.rails.len() {
            return;
        }
        let lost = self.paths[wanted.peer.index()][rail].lost.get_mut(usize::from(wanted.remote_rail));
        if let Some(lost) = lost.filter(|lost| lost.asked > 0) {
            lost.asked -= 1;
            self.asked -= 1;
            self.back_off(wanted.peer.index, rail, now);
        }
    }

    /// A lane between these rails has been attached.
    pub(super) fn found(&mut self, peer: u16, rail: usize, remote_rail: usize) {
        let lost = &mut self.paths[usize::from(peer)][rail].lost[remote_rail];
        if lost.missing > 0 {
            lost.missing -= 1;
            self.missing -= 1;
            self.peers[usize::from(peer)].missing -= 1;
            if lost.asked > 0 {
                lost.asked -= 1;
                self.asked -= 1;
            }
        }
    }

    /// The next lane that has failed: the peer may release its end. Of lanes of peers that have been removed
    /// nothing is told. As many as the storage has lanes are remembered; the oldest are forgotten first.
    pub fn next_lost_lane(&mut self) -> Option<LaneLost> {
        self.lost.pop()
    }
}

/// Fails a page that is not retired: what is not posted of it will not be. What is posted still counts in `left`, and at
/// least one chunk is, or the caller retires the page.
pub(super) fn fail_page(page: &mut crate::page::Page, error: PageError, shift: u8) {
    if page.phase != Phase::Dead {
        page.phase = Phase::Dead;
        page.outcome = error;
        let chunks = page.chunks(shift);
        page.left -= chunks - page.next;
        page.next = chunks;
    }
}
