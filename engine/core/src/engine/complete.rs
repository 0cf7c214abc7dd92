//! What a completion does: it returns credits, retires pages, and ends batches.

use super::state::{Engine, WCS};
use crate::events::{EngineEvent, EventSink};
use crate::id::RailIndex;
use crate::lane::record::{Record, Run};
use crate::lane::{Completed, Fatal, LaneState};
use crate::limits::narrow;
use crate::page::lane_set::LaneSet;
use crate::page::list::{PageLink, PageRef};
use crate::page::{Page, PageTable, Phase};
use crate::provider::{Provider, ProviderEvent};
use crate::rail::rails::Rails;
use crate::time::Time;
use crate::verbs_abi::{FaultKind, Wc};

/// The most calls of [`Provider::poll`] per rail and poll, so that a poll has bounded work.
const ROUNDS: usize = 16;
/// The most events per poll.
const EVENTS: usize = 64;

impl<P: Provider, E: EventSink> Engine<'_, P, E> {
    /// Takes completions and events, posts as much as there is room for, and fails late batches.
    /// Returns how many batches are done.
    #[inline]
    pub fn poll(&mut self, now: Time) -> usize {
        self.sink.check();
        self.emit_time(now);
        if self.arrivals.armed {
            self.disarm();
        }
        for _ in 0..EVENTS {
            let Some(event) = self.provider.next_event() else { break };
            self.event(event, now);
        }
        for rail in 0..self.rails.len() {
            self.poll_rail(rail, now);
        }
        self.arrivals.slept = false;
        self.repairs.poll(now);
        self.timers(now);
        self.arrivals.behind = false;
        if self.peers.any_parked() {
            self.unpark();
        }
        if !self.peers.trials.is_empty() {
            self.try_suspects(now);
        }
        self.schedule(now);
        self.in_flight.done.len()
    }

    #[inline]
    fn poll_rail(&mut self, rail: usize, now: Time) {
        for round in 0..ROUNDS {
            let r = &self.rails[rail];
            if r.wrs == 0 && r.dying == 0 && r.silent == 0 && r.cq_residue == 0 && !self.arrivals.slept {
                break;
            }
            let n = self.provider.poll(RailIndex::at(rail), &mut self.arrivals.wcs).min(WCS);
            self.rails[rail].stats.completions += n as u64;
            for i in 0..n {
                self.completion(rail, i, now);
            }
            if n < WCS {
                // The queue is empty, so it has no completion of a freed lane any more.
                let r = &mut self.rails[rail];
                r.cq_used -= core::mem::take(&mut r.cq_residue);
                if r.speed.is_due(now) {
                    self.refresh_estimate(rail, now);
                }
                return;
            }
            // Completions that are still in the queue may be those of a lane that seems to stall.
            self.arrivals.behind |= round + 1 == ROUNDS;
        }
        if self.rails[rail].speed.is_due(now) {
            self.refresh_estimate(rail, now);
        }
    }

    /// Brings the bandwidth estimate of a rail up to date.
    // It takes the whole engine: a call from `poll` that takes the address of a part (`self.rails`)
    // makes the compiler keep that address on the stack, and load it before each use of the part.
    #[cold]
    fn refresh_estimate(&mut self, rail: usize, now: Time) {
        let r = &mut self.rails[rail];
        if r.speed.tick(now, r.bytes, u64::from(self.config.run_bytes)) {
            self.rails.refresh(rail);
            self.rails.refresh_rate(&self.config);
        }
    }

    /// Handles completion number `at` of those just taken from `rail`.
    #[inline]
    fn completion(&mut self, rail: usize, at: usize, now: Time) {
        let wc = &self.arrivals.wcs[at];
        let id = wc.wr_id().lane();
        let index = id.index();
        let Some(lane) = self.lanes.get_mut(index).filter(|lane| lane.id == id) else {
            self.rails[rail].stats.stale += 1;
            return;
        };
        let covered = lane.covered(wc.wr_id().seq());
        if covered <= lane.outstanding() && wc.status().is_success() {
            match lane.state {
                LaneState::Up => {
                    // `heard` takes the whole engine: only behind it the lane is looked up again.
                    let lane = if self.rails.silent_count > 0 {
                        self.heard(index);
                        &mut self.lanes[index]
                    } else {
                        lane
                    };
                    let done = lane.complete(covered, now);
                    return self.advance(index, done, now);
                }
                // A success of a lane that dies is not believed: its wr is read again, over another
                // lane.
                LaneState::Failing | LaneState::Draining | LaneState::Closing => return,
                LaneState::Free | LaneState::Quiet => {}
            }
        }
        let wc = *wc;
        self.unusual(rail, index, &wc, covered, now);
    }

    /// Handles a completion that is not a success of a lane in use.
    #[cold]
    fn unusual(&mut self, rail: usize, index: usize, wc: &Wc, covered: u32, now: Time) {
        let lane = &mut self.lanes[index];
        let stats = &mut self.rails[rail].stats;
        let flushing = matches!(lane.state, LaneState::Draining | LaneState::Closing);
        if flushing && covered == lane.outstanding() + 1 {
            // The drain wr: everything before it has been flushed.
            return self.lane_is_quiet(index, now);
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
        let (status, vendor_err) = (wc.status(), wc.vendor_err());
        // The first error is the cause, and the wrs behind it are flushed. It would imply that
        // earlier wrs succeeded, if every completion could be trusted to come. So wrs that were not
        // seen to succeed are read again.
        if lane.fatal.is_none() {
            lane.fatal = Some(Fatal { seq: wc.wr_id().seq(), status, vendor_err });
        }
        let (lane, up) = (lane.id, lane.state == LaneState::Up);
        self.emit(|_| EngineEvent::WrFailed { lane, seq: wc.wr_id().seq(), status, vendor_err });
        if up {
            self.fail_lane(index, now);
        }
    }

    /// The oldest wrs of a lane in use have succeeded.
    #[inline]
    fn advance(&mut self, index: usize, done: Completed, now: Time) {
        let Completed { peer, rail, circle, first, from: mut seq, to: head } = done;
        let (n, rail) = (head.wrapping_sub(seq), usize::from(rail));
        if first {
            self.repairs.heard(peer, rail);
        }
        let (mut bytes, mut pages, lane) = (0, 0, LaneSet::of(index));
        self.emit(|engine| EngineEvent::Completed { lane: engine.lanes[index].id, wrs: n });
        while seq != head {
            let record = *self.lanes.record(index, seq);
            let count = u32::from(record.count);
            let done = count.min(head.wrapping_sub(seq));
            seq = seq.wrapping_add(done);
            if done == count {
                bytes += record.bytes();
            } else {
                let behind = self.behind(record, done);
                bytes += record.bytes() - behind.bytes();
                *self.lanes.record(index, seq) = behind;
            }
            pages += self.arrived(record.page, record.covers(done), record.run, lane);
        }
        let lane = &mut self.lanes[index];
        lane.bytes -= bytes;
        let idle = lane.head == head;
        let Rails { all: rails, choice, .. } = &mut self.rails;
        let r = &mut rails[rail];
        r.complete(n, bytes, now);
        choice.refresh(rail, r);
        let p = &mut self.peers[usize::from(peer)];
        if idle {
            // The idle lane is the next candidate: it can begin at once, and is in the cache.
            p.circles.set_next(circle, narrow(index));
        }
        p.stats.pages += pages;
        p.stats.bytes += bytes;
        // If the peer had room on this rail, and has work, it is in the queues already.
        if !p.circles.has_room(circle) {
            p.circles.set_room(circle);
            self.peers.enroll(peer);
        }
    }

    /// Accounts for one chunk (or the entry) of each of `n` consecutive pages, or for `n` chunks of
    /// one page, which have arrived over `lane`. Returns how many pages have arrived by it.
    #[inline]
    fn arrived(&mut self, first: PageRef, n: u32, run: Run, lane: LaneSet) -> u64 {
        if matches!(run, Run::Chunks | Run::JoinedRows | Run::SetEntries) {
            if run == Run::SetEntries {
                self.set_entries_arrived(first, n);
                return 0;
            }
            let page = self.pages.at(first);
            page.mark(lane);
            page.left -= n;
            if page.left == 0 {
                self.complete(first);
            }
            return 0;
        }
        let batch = self.pages.at(first).batch;
        debug_assert!(
            run != Run::NoValidation
                || self.pages.head(batch).must_settle_each
                || self.pages.slice(first, n).iter().all(Page::is_awaited_unvalidated),
            "each page lacks one chunk and is not validated"
        );
        let head = self.pages.head(batch);
        // Apart from the other runs, since a branch costs less than the jump table of a `match`.
        if run == Run::NoValidation && !head.must_settle_each {
            // Each page lacked only this chunk, so none of them has to be looked at.
            head.left -= narrow(n as usize);
            let is_last = head.left == 0;
            self.pages.at(first).land(n);
            self.emit_arrived(first, n);
            if is_last {
                self.end_batch(batch);
            }
            return u64::from(n);
        }
        match run {
            _ if head.must_settle_each => self.each_arrived(first, n, batch, lane),
            Run::Validating => self.validated(first, n, batch),
            Run::Pairs => self.pairs_arrived(first, n, batch, lane),
            Run::NeedsValidation => {
                for page in self.pages.slice(first, n) {
                    debug_assert!(page.phase == Phase::NeedsValidation && page.left == 1, "a page under way");
                    // `left` stays 1, for the entry.
                    page.phase = Phase::Validating;
                    page.validate = PageLink::BEHIND;
                    page.arrive_over(lane);
                }
                self.pages.at(first).validate = PageLink::OUT;
                self.queue_validation(first, batch);
                0
            }
            _ => self.each_arrived(first, n, batch, lane),
        }
    }

    /// Does what [`arrived`](Self::arrived) does for a [`Run::Pairs`]. The READs of a page are on
    /// one lane and complete in their order, so all of these pages lack as many chunks.
    #[inline(never)]
    fn pairs_arrived(&mut self, first: PageRef, n: u32, batch: u16, lane: LaneSet) -> u64 {
        let is_last = self.pages.at(first).left == 1;
        let pages = self.pages.slice(first, n);
        debug_assert!(
            pages.iter().all(|page| page.phase == Phase::NeedsValidation && page.left == pages[0].left),
            "pages that lack as many chunks"
        );
        if !is_last {
            for page in pages {
                page.left -= 1;
                page.mark(lane);
            }
            return 0;
        }
        for page in pages {
            // `left` stays 1, for the entry.
            page.phase = Phase::Validating;
            page.validate = PageLink::BEHIND;
            debug_assert!(page.is_doubtful(lane, true), "a page whose earlier chunks came over this lane");
        }
        self.pages.at(first).validate = PageLink::OUT;
        self.queue_validation(first, batch);
        0
    }

    /// Does what [`arrived`](Self::arrived) does where each page has to be looked at.
    // A function of its own, so that its loop takes no registers of `poll`.
    #[inline(never)]
    fn each_arrived(&mut self, first: PageRef, n: u32, batch: u16, lane: LaneSet) -> u64 {
        let (mut at, mut arrived) = (first.0, 0);
        while at < first.0 + n {
            let pages = self.pages.slice(PageRef(at), first.0 + n - at);
            let other = pages.iter_mut().position(|page| !page.arrive());
            // A place in a slice of n pages.
            let unvalidated = other.map_or(first.0 + n - at, |i| i as u32);
            if unvalidated > 0 {
                self.emit_arrived(PageRef(at), unvalidated);
                self.report(PageRef(at), unvalidated);
            }
            (at, arrived) = (at + unvalidated, arrived + unvalidated);
            if other.is_some() {
                self.pages.at(PageRef(at)).mark(lane);
                self.drop_chunk(PageRef(at));
                at += 1;
            }
        }
        if arrived > 0 {
            self.release_batch(batch, narrow(arrived as usize));
        }
        u64::from(arrived)
    }

    /// Compares the entries of `n` consecutive pages with the expected ones, and retires the pages.
    /// Returns how many pages have arrived.
    fn validated(&mut self, first: PageRef, n: u32, batch: u16) -> u64 {
        let peer = usize::from(self.pages.at(first).peer());
        let entries = self.landing.of(first, n);
        let mut arrived = 0;
        for (page, entry) in self.pages.slice(first, n).iter_mut().zip(entries) {
            debug_assert!(page.phase == Phase::Validating && page.left == 1, "a page under way");
            page.left = 0;
            arrived += u64::from(page.validate_by(entry));
        }
        let missed = u64::from(n) - arrived;
        self.peers[peer].stats.misses += missed;
        // At most n, the pages of one batch.
        self.pages.head(batch).failed += narrow(missed as usize);
        if E::ENABLED {
            self.emit_results(first, n);
        }
        self.release_batch(batch, narrow(n as usize));
        arrived
    }

    /// Accounts for a wr that has finished, for each of its pages.
    pub(super) fn drop_wr(&mut self, wr: Record) {
        let (first, n) = self.counted_in(wr);
        for i in 0..n {
            self.drop_chunk(PageRef(first.0 + i));
        }
    }

    /// Accounts for a posted chunk of a page that has finished: it arrived, or it no longer
    /// matters.
    #[inline]
    pub(super) fn drop_chunk(&mut self, page: PageRef) {
        let p = self.pages.at(page);
        p.left -= 1;
        if p.left == 0 {
            self.complete(page);
        }
    }

    /// Goes on with a page whose chunks have all finished: queues its validating READ, or retires
    /// it.
    #[inline]
    pub(super) fn complete(&mut self, page: PageRef) {
        let p = self.pages.at(page);
        match p.phase {
            Phase::NeedsValidation => {
                p.phase = Phase::Validating;
                p.left = 1;
                let batch = p.batch;
                return self.queue_validation(page, batch);
            }
            Phase::Validating => {
                p.validate_by(self.landing.of_one(page));
            }
            Phase::NoValidation => p.phase = Phase::Arrived,
            Phase::Failed => p.phase = Phase::Lost,
            Phase::Arrived | Phase::Lost | Phase::InSet => debug_assert!(false, "a page retires once"),
        }
        self.retire(page);
    }

    /// Queues the validating READ of a page of `batch`, and of the pages that it stands for: behind
    /// the page before, if that one waits for its own.
    #[inline]
    fn queue_validation(&mut self, page: PageRef, batch: u16) {
        let Self { pages, peers, .. } = self;
        let (source, begins_set) = (pages.at(page).source, pages.at(page).begins_set());
        // The entries of a set are asked for together.
        if page.0 > pages.first(batch).0 && !begins_set {
            let before = pages.at(PageRef(page.0 - 1));
            // The data of the page before has arrived, too, and its validating READ is not posted
            // yet, so one READ may bring the entries of both. The link of a retired page is that of
            // the pages that are reported.
            if before.source == source && before.phase == Phase::Validating && !before.validate.is_out() {
                pages.at(page).validate = PageLink::BEHIND;
                return;
            }
        }
        let peer = source.peer().index();
        let p = &mut peers[usize::from(peer)];
        // The class is looked up only where it matters.
        let turn = if p.circles.is_divided() { usize::from(pages.head(batch).class) } else { 0 };
        p.validate[turn].push_back(pages, page);
        peers.enroll_class(peer, turn);
    }

    #[cold]
    fn event(&mut self, event: ProviderEvent, now: Time) {
        match event {
            ProviderEvent::LaneFailed(id) => self.lane_failed(id, now),
            ProviderEvent::LaneClosed(id) => self.lane_closed(id, now),
            ProviderEvent::RailDown(rail) => self.rail_down(rail.get(), now),
            ProviderEvent::RailUp(rail) => self.rail_up(rail.get(), now),
        }
    }
}
