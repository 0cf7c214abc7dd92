//! Completions come back: credits, pages, batches.

use super::{Engine, WCS};
use crate::abi::{FaultKind, Wc};
use crate::id::RailIndex;
use crate::lane::{Fatal, LaneState, lane_ring};
use crate::page::{PageRef, PageTable};
use crate::provider::{Event, Provider};
use crate::remote::NO_ENTRY;
use crate::time::Time;

/// Calls of the provider per rail and poll, so that one poll ends.
const ROUNDS: usize = 16;
/// Events per poll.
const EVENTS: usize = 64;

/// Pages of one batch that have arrived, and one that needs a closer look.
struct Finished {
    pages: u16,
    batch: u16,
    special: Option<PageRef>,
}

impl<P: Provider> Engine<'_, P> {
    /// Takes completions and events, returns credits, posts what there is room for now, and keeps the
    /// deadlines. Says how many batches are done.
    #[inline]
    pub fn poll(&mut self, now: Time) -> usize {
        for _ in 0..EVENTS {
            let Some(event) = self.provider.next_event() else { break };
            self.event(event, now);
        }
        for rail in 0..self.rails.len() {
            self.reap(rail, now);
        }
        self.timers(now);
        self.pump(now);
        self.done.len
    }

    #[inline]
    fn reap(&mut self, rail: usize, now: Time) {
        for _ in 0..ROUNDS {
            let r = &self.rails[rail];
            if r.wrs == 0 && r.dying == 0 {
                break;
            }
            // Rails are at most 16.
            let n = self.provider.poll(RailIndex(rail as u8), &mut self.wcs).min(WCS);
            self.rails[rail].stats.completions += n as u64;
            for i in 0..n {
                let wc = self.wcs[i];
                self.completion(rail, &wc, now);
            }
            if n < WCS {
                break;
            }
        }
        if self.rails[rail].tick(now, u64::from(self.config.run_bytes)) {
            self.refresh_rate();
        }
    }

    #[inline]
    fn completion(&mut self, rail: usize, wc: &Wc, now: Time) {
        let id = wc.wr_id().lane();
        let index = id.index();
        let known = self.lanes.get(index).is_some_and(|lane| lane.id == id);
        if !known {
            self.rails[rail].stats.stale += 1;
            return;
        }
        let lane = &self.lanes[index];
        let covered = lane.covered(wc.wr_id().seq());
        let posted = covered <= lane.outstanding();
        if posted && wc.status().is_success() && lane.fatal.is_none() {
            match lane.state {
                LaneState::Up => return self.advance(index, covered, now),
                LaneState::Failing | LaneState::Draining | LaneState::Closing => {
                    return self.advance_dying(index, covered);
                }
                LaneState::Free | LaneState::Quiet => {}
            }
        }
        self.unusual(rail, index, wc, covered, now);
    }

    /// Anything but a success of a lane in use.
    #[cold]
    fn unusual(&mut self, rail: usize, index: usize, wc: &Wc, covered: u32, now: Time) {
        let lane = &mut self.lanes[index];
        let stats = &mut self.rails[rail].stats;
        if lane.state == LaneState::Draining && covered == lane.outstanding() + 1 {
            // The drain wr: everything before it has been flushed.
            return self.quiet(index, now);
        }
        let dead = matches!(lane.state, LaneState::Free | LaneState::Quiet);
        if dead || covered > lane.outstanding() || wc.status().is_success() {
            stats.stale += 1;
            return;
        }
        match wc.status().fault() {
            FaultKind::Page => stats.page_faults += 1,
            FaultKind::Path => stats.path_faults += 1,
            FaultKind::Flushed => stats.flushed += 1,
        }
        // The first error is the cause, the rest is flushed. That earlier wrs succeeded is implied
        // only where every completion can be trusted to come; what has not been seen to succeed is
        // read again.
        if lane.fatal.is_none() {
            let status = wc.status();
            lane.fatal = Some(Fatal { seq: wc.wr_id().seq(), status, vendor_err: wc.vendor_err() });
        }
        if lane.state == LaneState::Up {
            self.kill(index, now);
        }
    }

    /// The `n` oldest wrs of a lane in use have succeeded.
    #[inline]
    fn advance(&mut self, index: usize, n: u32, now: Time) {
        let tail = self.lanes[index].tail;
        let done = self.record(index, tail.wrapping_add(n - 1)).bytes;
        let lane = &mut self.lanes[index];
        let bytes = done.wrapping_sub(lane.bytes_done);
        lane.bytes_done = done;
        lane.tail = tail.wrapping_add(n);
        lane.since = now;
        let (peer, rail, fresh) = (lane.peer, usize::from(lane.rail), lane.fresh);
        if fresh {
            lane.fresh = false;
            self.paths[usize::from(peer)][rail].failures = 0;
        }
        self.rails[rail].complete(n, u64::from(bytes));
        self.refresh_room(rail);
        let (mut i, mut pages) = (0, 0);
        while i < n {
            let (upto, finished) = self.finish(index, tail, i, n);
            i = upto;
            pages += u64::from(finished.pages);
            if finished.pages > 0 {
                self.release_batch(finished.batch, finished.pages);
            }
            if let Some(page) = finished.special {
                self.complete(page);
            }
        }
        let p = &mut self.peers[usize::from(peer)];
        p.stats.pages += pages;
        p.stats.bytes += u64::from(bytes);
        p.room |= 1 << rail;
        self.enroll(peer);
    }

    /// Accounts for the chunks of records `from..n` after `tail`, as far as the pages that they finish are
    /// of one batch and need nothing but to be counted.
    #[inline(never)]
    fn finish(&mut self, index: usize, tail: u32, from: u32, n: u32) -> (u32, Finished) {
        let ring = lane_ring(self.records, index, self.depth);
        let mut view = self.pages.view();
        let mut finished = Finished { pages: 0, batch: 0, special: None };
        for i in from..n {
            let at = PageRef(ring.at(tail.wrapping_add(i)).page);
            let page = view.at(at);
            if page.left > 1 {
                page.left -= 1;
                continue;
            }
            if finished.pages > 0 && page.batch != finished.batch {
                return (i, finished);
            }
            page.left = 0;
            if !page.simple {
                finished.special = Some(at);
                return (i + 1, finished);
            }
            page.retired = true;
            finished.batch = page.batch;
            finished.pages += 1;
        }
        (n, finished)
    }

    /// The same for a lane that is dying: its rail no longer counts it.
    #[cold]
    fn advance_dying(&mut self, index: usize, n: u32) {
        let tail = self.lanes[index].tail;
        let done = self.record(index, tail.wrapping_add(n - 1)).bytes;
        let lane = &mut self.lanes[index];
        let rail = usize::from(lane.rail);
        let bytes = done.wrapping_sub(lane.bytes_done);
        (lane.bytes_done, lane.tail) = (done, tail.wrapping_add(n));
        let stats = &mut self.rails[rail].stats;
        stats.chunks += u64::from(n);
        stats.bytes += u64::from(bytes);
        self.peers[usize::from(lane.peer)].stats.bytes += u64::from(bytes);
        for i in 0..n {
            let page = PageRef(self.record(index, tail.wrapping_add(i)).page);
            self.drop_chunk(page);
        }
    }

    /// One posted chunk of a page is accounted for: it arrived, or it no longer matters.
    #[inline]
    pub(super) fn drop_chunk(&mut self, page: PageRef) {
        let p = self.pages.at(page);
        p.left -= 1;
        if p.left == 0 {
            self.complete(page);
        }
    }

    /// All chunks of a page are accounted for.
    #[inline]
    fn complete(&mut self, page: PageRef) {
        let p = self.pages.at(page);
        if !p.dead && p.entry != NO_ENTRY {
            if !p.validating {
                p.validating = true;
                p.left = 1;
                let peer = p.peer.index;
                self.peers[usize::from(peer)].validate.push_back(&mut self.pages, page);
                return self.enroll_class(peer, 0);
            }
            let found = self.landing[page.0 as usize].snapshot();
            if let Err(miss) = found.check(p.expected) {
                p.failed = true;
                p.outcome = miss.into();
            }
        }
        self.retire(page);
    }

    #[cold]
    fn event(&mut self, event: Event, now: Time) {
        match event {
            Event::LaneFailed(id) => self.lane_failed(id, now),
            Event::LaneClosed(id) => self.lane_closed(id, now),
            Event::RailDown(rail) => self.rail_down(rail.get(), now),
            Event::RailUp(rail) => self.rail_up(rail.get(), now),
        }
    }
}
