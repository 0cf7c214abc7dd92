//! What a lane does as time passes: requests travel, bytes land, wrs complete or are flushed.
//!
//! A READ is accepted, waits for one of the lane's `rd_atomic` places, travels half a round trip,
//! books the peer's line and then the local line, has its bytes copied at some time between the
//! begin and the end of that, and completes half a round trip after its last byte, never before the
//! READ before it.

use kvrail_core::id::RailIndex;
use kvrail_core::provider::ProviderEvent;
use kvrail_core::verbs_abi::{FaultKind, WcStatus};

use super::lane::State;
use super::model::Model;
use super::timers::NEVER;
use super::violation::Violation;

impl Model<'_> {
    /// Does everything that is due on one lane.
    pub(super) fn lane_turn(&mut self, place: usize) {
        let now = self.now;
        let lane = &mut self.lanes[place];
        if lane.close_at <= now {
            self.closed(place);
            return;
        }
        if lane.fail_at <= now {
            lane.fail_at = NEVER;
            self.enter_error(place);
            if let Some(id) = self.lanes[place].id {
                self.report_event(ProviderEvent::LaneFailed(id));
            }
        }
        if self.lanes[place].retry_at <= now {
            self.lanes[place].retry_at = NEVER;
            self.complete_head(place, WcStatus::RETRY_EXC_ERR);
        }
        if self.lanes[place].state == State::Ready && !self.lanes[place].stalled {
            self.begin_due(place);
        }
        self.land_due(place);
        match self.lanes[place].state {
            State::Ready if !self.lanes[place].stalled => self.complete_due(place),
            State::Error => self.flush_due(place),
            _ => {}
        }
        self.rearm(place);
    }

    /// Works out when something is due next on the lane.
    pub(super) fn rearm(&mut self, place: usize) {
        let lane = &self.lanes[place];
        let mut next = lane.close_at.min(lane.fail_at).min(lane.retry_at).min(lane.land_at);
        match lane.state {
            State::Ready if !lane.stalled => {
                let (begun, issued, head) = (lane.begun, lane.issued, lane.head);
                if begun < issued {
                    next = next.min(self.wrs[self.slot(place, begun)].start);
                }
                if head < begun {
                    next = next.min(self.wrs[self.slot(place, head)].done);
                }
            }
            State::Error => next = next.min(lane.flush_at),
            _ => {}
        }
        self.timers.set(place, next);
    }

    /// Sends requests until `rd_atomic` of them are at the responder.
    pub(super) fn issue(&mut self, place: usize) {
        let now = self.now;
        let lane = &mut self.lanes[place];
        let there = now.saturating_add(self.rails[lane.rail.get()].spec.rtt.0 / 2);
        while lane.issued < lane.posted && lane.issued - lane.head < u64::from(lane.rd_atomic) {
            let slot = place * self.depth + (lane.issued % self.depth as u64) as usize;
            self.wrs[slot].start = there;
            lane.issued += 1;
            if lane.stalled && lane.retry_at == NEVER {
                lane.retry_at = now.saturating_add(self.config.retry.0);
            }
        }
    }

    /// Begins to answer the requests that have arrived at the responder.
    fn begin_due(&mut self, place: usize) {
        loop {
            let lane = &self.lanes[place];
            if lane.begun == lane.issued {
                return;
            }
            let slot = self.slot(place, lane.begun);
            if self.wrs[slot].start > self.now || !self.begin(place, slot) {
                return;
            }
            self.lanes[place].begun += 1;
        }
    }

    /// Plans the answer of one request; returns `false` if it must wait for the peer's line.
    fn begin(&mut self, place: usize, slot: usize) -> bool {
        let now = self.now;
        let lane = &mut self.lanes[place];
        let wr = &mut self.wrs[slot];
        if lane.refused {
            wr.done = NEVER;
            wr.pieces = 0;
            return true;
        }
        let rail = &mut self.rails[lane.rail.get()];
        let back = rail.spec.rtt.0 - rail.spec.rtt.0 / 2;
        let mut done = now.saturating_add(back);
        if !wr.drain {
            if wr.status.is_success() {
                wr.status = self.memories.answer(lane.peer, lane.remote_rail, &wr.read);
                if wr.status.is_success()
                    && !wr
                        .local(0, wr.read.len)
                        .all(|(_, range)| self.memories.local_allows(lane.rail, wr.read.lkey, range))
                {
                    wr.status = WcStatus::LOC_PROT_ERR;
                }
            }
            let whole = if wr.read.len <= self.config.copy_up_to { self.config.pieces } else { 0 };
            if wr.status.is_success() {
                let Some(last_byte) = book(now, wr, lane, rail, &mut self.peers[lane.peer.0 as usize]) else {
                    return false;
                };
                done = last_byte.saturating_add(back);
                wr.pieces = whole;
                if wr.incomplete {
                    wr.pieces = self.rng.up_to(u64::from(whole.saturating_sub(1))) as u8;
                }
            } else {
                // A READ that fails on its path may fail after some of its pieces have landed.
                let lost_on_path = wr.status.fault() == FaultKind::Path;
                wr.pieces = if lost_on_path { self.rng.up_to(u64::from(whole)) as u8 } else { 0 };
                lane.refused = true;
                let patient = matches!(
                    wr.status,
                    WcStatus::RETRY_EXC_ERR | WcStatus::RNR_RETRY_EXC_ERR | WcStatus::RESP_TIMEOUT_ERR
                );
                if patient {
                    done = done.saturating_add(self.config.retry.0);
                }
            }
            if wr.pieces > 0 {
                wr.phase = (self.rng.next() >> 56) as u8;
            }
        }
        done = done.saturating_add(self.rng.up_to(rail.spec.jitter.0));
        wr.done = done.max(lane.last_done);
        lane.last_done = wr.done;
        wr.start = now;
        true
    }

    /// Moves the bytes that are due.
    fn land_due(&mut self, place: usize) {
        if self.lanes[place].stalled {
            return;
        }
        let pieces = self.config.pieces;
        loop {
            let lane = &mut self.lanes[place];
            if lane.land >= lane.begun {
                lane.land_at = NEVER;
                return;
            }
            let k = lane.land;
            let slot = place * self.depth + (k % self.depth as u64) as usize;
            let wr = &self.wrs[slot];
            if wr.landed >= wr.pieces {
                lane.land += 1;
                continue;
            }
            let at = wr.lands_at(pieces);
            if at > self.now {
                lane.land_at = at;
                return;
            }
            self.land(place, slot);
        }
    }

    /// Moves one piece of one READ.
    pub(super) fn land(&mut self, place: usize, slot: usize) {
        let lane = self.lanes[place];
        let wr = &mut self.wrs[slot];
        let cut = |piece: u8| {
            // At most len: piece <= pieces.
            (u64::from(wr.read.len) * u64::from(piece) / u64::from(self.config.pieces)) as u32
        };
        let (from, to) = (cut(wr.landed), cut(wr.landed + 1));
        wr.landed += 1;
        if from == to {
            return;
        }
        for (from, range) in wr.local(from, to) {
            let wr = &mut self.wrs[slot];
            let released = lane.state == State::Free || lane.drained || self.memories.is_protected(range);
            if released {
                let wr_id = wr.read.wr_id;
                let lane = self.key(place);
                self.violations.record(Violation::WriteAfterRelease { lane, wr_id, range });
                return;
            }
            let rails = (lane.rail, lane.remote_rail);
            if let Err(status) = self.memories.copy(lane.peer, rails, &wr.read, (from, range)) {
                // The memory was revoked or deregistered while it was being read.
                if wr.status.is_success() {
                    wr.status = status;
                }
                wr.pieces = wr.landed;
                self.lanes[place].refused = true;
                return;
            }
        }
    }

    /// Completes the wrs that are due, in order, and sends as many further requests.
    fn complete_due(&mut self, place: usize) {
        loop {
            let lane = &self.lanes[place];
            if lane.state != State::Ready || lane.head >= lane.begun {
                return;
            }
            let wr = &self.wrs[self.slot(place, lane.head)];
            if wr.done > self.now {
                return;
            }
            let status = wr.status;
            self.complete_head(place, status);
        }
    }

    /// Completes the oldest wr. An error moves the lane to the error state.
    fn complete_head(&mut self, place: usize, status: WcStatus) {
        let k = self.lanes[place].head;
        let incomplete = status.is_success() && self.wrs[self.slot(place, k)].incomplete;
        self.lanes[place].head += 1;
        // Its flush tells that the lane is dead, so there must be a wr to be flushed.
        let flushes = self.lanes[place].head < self.lanes[place].posted;
        let status = if incomplete && !flushes { WcStatus::REM_ACCESS_ERR } else { status };
        self.report(place, k, status);
        if status.is_success() && !incomplete {
            self.issue(place);
            return;
        }
        self.enter_error(place);
        if status.is_success() {
            let lane = &mut self.lanes[place];
            lane.land = lane.land.max(lane.head);
            lane.flush_at = self.now;
            let RailIndex(rail) = lane.rail;
            self.rails[usize::from(rail)].stats.incomplete += 1;
            return self.flush_due(place);
        }
        let lane = &mut self.lanes[place];
        // The wr's own completion has been reported, so none of its bytes lands any more.
        lane.land = lane.land.max(lane.head);
        let announced = self.config.faults.announced.draw(&mut self.rng);
        if announced && let Some(id) = self.lanes[place].id {
            self.report_event(ProviderEvent::LaneFailed(id));
        }
    }

    /// Moves the lane to the error state, in which every wr is flushed.
    pub(super) fn enter_error(&mut self, place: usize) {
        let flush = self.config.flush.draw(&mut self.rng);
        // Bytes on their way still land, or do not: the seed decides.
        let dropped = self.rng.next() & 1 == 0;
        let lane = &mut self.lanes[place];
        if lane.state != State::Ready {
            return;
        }
        lane.state = State::Error;
        if dropped || lane.stalled {
            lane.land = lane.land.max(lane.begun);
            lane.land_at = NEVER;
        }
        lane.stalled = false;
        lane.retry_at = NEVER;
        lane.flush_at = NEVER;
        if lane.head < lane.posted {
            lane.flush_at = self.now.saturating_add(flush);
        }
    }

    /// Flushes the wrs that are due, in order, signaled or not.
    fn flush_due(&mut self, place: usize) {
        while self.lanes[place].head < self.lanes[place].posted && self.lanes[place].flush_at <= self.now {
            let k = self.lanes[place].head;
            if self.wrs[self.slot(place, k)].drain {
                let last = self.last_landing(place);
                if last > self.now {
                    self.lanes[place].flush_at = last;
                    return;
                }
                self.lanes[place].drained = true;
            }
            let flush = self.config.flush.draw(&mut self.rng);
            let lane = &mut self.lanes[place];
            lane.head += 1;
            if !self.config.late_bytes && lane.land < lane.head {
                lane.land = lane.head;
            }
            lane.flush_at = if lane.head < lane.posted { self.now.saturating_add(flush) } else { NEVER };
            self.report(place, k, WcStatus::WR_FLUSH_ERR);
        }
        // Bytes on their way may have been dropped above, so what lands next has changed.
        self.land_due(place);
    }

    /// When the last bytes on their way land; 0 if there are none.
    fn last_landing(&self, place: usize) -> u64 {
        let lane = &self.lanes[place];
        let mut last = 0;
        for k in lane.land..lane.begun {
            let wr = &self.wrs[self.slot(place, k)];
            if wr.landed < wr.pieces {
                last = last.max(wr.done);
            }
        }
        last
    }

    /// Works out anew when the next piece of a lane lands, after the times of its wrs have changed.
    pub(super) fn land_later(&mut self, place: usize) {
        if self.lanes[place].land_at != NEVER {
            let slot = self.slot(place, self.lanes[place].land);
            self.lanes[place].land_at = self.wrs[slot].lands_at(self.config.pieces);
        }
    }

    /// Frees the lane's place, without an event, after its provider was dropped.
    pub(super) fn destroy(&mut self, place: usize) {
        self.lanes[place].state = State::Free;
        self.timers.set(place, NEVER);
    }

    /// Frees the lane's place, after its QP has been destroyed. Its unfinished wrs are gone.
    pub(super) fn closed(&mut self, place: usize) {
        let (key, lane) = (self.key(place), self.lanes[place]);
        self.lanes[place].state = State::Free;
        self.timers.set(place, NEVER);
        if self.config.purge {
            self.purge(lane.rail, key);
        }
        if let Some(id) = lane.id {
            self.report_event(ProviderEvent::LaneClosed(id));
        }
    }
}

/// Books the peer's line and then the local line, in picoseconds. Returns when the last byte leaves
/// the local line, in nanoseconds. `None` if the peer's line is taken; then `wr.start` is the time
/// at which it is free.
fn book(
    now: u64,
    wr: &mut super::lane::Wr,
    lane: &super::lane::Lane,
    rail: &mut super::model::Rail,
    peer: &mut super::model::Peer,
) -> Option<u64> {
    let now_ps = now.saturating_mul(1000);
    let remote = lane.remote_rail.get();
    if !wr.booked {
        let begins = now_ps.max(peer.free[remote]);
        wr.booked = true;
        wr.sent = begins.saturating_add(peer.rates[remote].picos(wr.read.len));
        peer.free[remote] = wr.sent;
        if begins > now_ps {
            wr.start = begins.div_ceil(1000);
            return None;
        }
    }
    let begins = now_ps.max(rail.free);
    rail.free = begins.saturating_add(rail.rate.picos(wr.read.len));
    wr.through = rail.free;
    Some(rail.free.max(wr.sent).div_ceil(1000))
}
