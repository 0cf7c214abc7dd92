//! What happens as time passes: late batches fail, silent and stalled lanes are found, and the
//! engine sleeps.

use super::state::Engine;
use crate::error::PageError;
use crate::events::{EngineEvent, EventSink};
use crate::lane::{Hold, LaneState, NO_LANE};
use crate::limits::{CLASSES, narrow};
use crate::page::list::{PageLink, PageRef};
use crate::page::{Page, PageTable, Phase, settle_pages};
use crate::provider::{Provider, WaitFor, Wake};
use crate::regions::RemotePlace;
use crate::time::{Nanos, Time};

/// How much longer than expected the engine waits for half of the outstanding work.
const WAIT_MARGIN: Nanos = Nanos::from_millis(10);
/// A lane is silent when none of its wrs has completed for this long, or for eight times as long as
/// all outstanding work of its rail should take, whichever is longer.
const SILENCE: Nanos = Nanos::from_millis(10);
/// Lanes looked at per poll while a sweep is under way.
const SWEEP: usize = 256;

impl<P: Provider, E: EventSink> Engine<'_, P, E> {
    #[inline]
    pub(super) fn timers(&mut self, now: Time) {
        if now >= self.in_flight.next_deadline() {
            self.expire(now);
        }
        if now >= self.sweep.next || self.sweep.lane < self.lanes.len() {
            self.sweep(now);
        }
    }

    #[cold]
    fn expire(&mut self, now: Time) {
        for group in 0..self.in_flight.groups() {
            if !self.in_flight.may_be_late(group, now) {
                continue;
            }
            let (mut earliest, mut from) = (Time::NEVER, 0);
            while let Some((batch, behind)) = self.in_flight.next_flying(group, from) {
                from = behind;
                let deadline = self.pages.head(batch).deadline;
                if deadline > now {
                    earliest = earliest.min(deadline);
                } else {
                    // Only outstanding wrs of the batch are left, so its deadline needs no further
                    // look.
                    self.pages.head(batch).deadline = Time::NEVER;
                    self.expire_batch(batch, deadline);
                }
            }
            self.in_flight.set_earliest(group, earliest);
        }
        self.in_flight.refresh_next_deadline();
    }

    fn expire_batch(&mut self, batch: u16, deadline: Time) {
        let shift = self.chunk_shift;
        let late = |page: &Page| PageError::Deadline {
            deadline,
            // A page that is read again may have more wrs than chunks.
            missing: if page.phase == Phase::Validating { 0 } else { page.left.min(page.chunks(shift)) },
            chunks: page.chunks(shift),
        };
        self.emit(|engine| EngineEvent::DeadlinePassed { batch: engine.ticket(batch), deadline });
        self.cancel(batch, |_, _, pages| pages.first().map(late));
        self.in_flight.set_overdue(batch);
    }

    /// Fails all pages in flight from one peer.
    pub(super) fn cancel_peer(&mut self, peer: u16) {
        self.cancel_some(peer, |_, _| Some(PageError::PeerGone));
    }

    /// Fails those pages in flight from one peer for which `why` gives an error, as
    /// [`cancel`](Self::cancel) does.
    pub(super) fn cancel_some(
        &mut self,
        peer: u16,
        why: impl Fn(&[RemotePlace], &[Page]) -> Option<PageError>,
    ) {
        if self.peers[usize::from(peer)].in_flight() == 0 {
            return;
        }
        for group in 0..self.in_flight.groups() {
            let mut from = 0;
            while self.peers[usize::from(peer)].in_flight() > 0
                && let Some((batch, behind)) = self.in_flight.next_flying(group, from)
            {
                from = behind;
                self.cancel(batch, |remotes, _, pages| match pages {
                    [page, ..] if page.peer() == peer => why(remotes, pages),
                    _ => None,
                });
            }
        }
    }

    /// Fails those unretired pages of a batch for which `why` gives an error; it gets each page,
    /// with pages behind it, at least those of its set, and its place. Their unposted chunks are
    /// accounted for here, their outstanding chunks when these complete or their lane is quiet.
    /// Other batches may become done by it, too. Returns how many pages it has failed.
    pub(super) fn cancel(
        &mut self,
        batch: u16,
        why: impl Fn(&[RemotePlace], PageRef, &[Page]) -> Option<PageError>,
    ) -> usize {
        let first = self.pages.first(batch);
        let head = self.pages.head(batch);
        let (len, class) = (head.len, usize::from(head.class));
        // How many of consecutive pages are hit, from `at` on.
        let hits = |remotes: &[RemotePlace], at: PageRef, pages: &[Page]| {
            let unretired = (0..pages.len()).filter(|&i| !pages[i].is_retired());
            // Places of pages fit a u32.
            unretired.filter(|&i| why(remotes, PageRef(at.0 + i as u32), &pages[i..]).is_some()).count()
        };
        let (pages, remotes) = (&mut self.pages, &*self.regions.remotes);
        if hits(remotes, first, pages.slice(first, u32::from(len))) == 0 {
            return 0;
        }
        settle_pages(pages.slice(first, u32::from(len)));
        // One more thing keeps the batch from being done until all its pages have been looked at.
        let head = pages.head(batch);
        head.left += 1;
        head.must_settle_each = true;
        let (mut at, mut failed) = (0, 0);
        while at < len {
            let segment = PageRef(first.0 + u32::from(at));
            let (pages, remotes) = (&mut self.pages, &*self.regions.remotes);
            let page = pages.at(segment);
            let (peer, seg_len) = (page.peer(), page.seg_len);
            at += seg_len;
            let segment_pages = &*pages.slice(segment, u32::from(seg_len));
            let hits = hits(remotes, segment, segment_pages);
            let unretired = segment_pages.iter().filter(|page| !page.is_retired()).count();
            if hits == 0 {
                continue;
            }
            if hits == unretired {
                self.dequeue(usize::from(peer), class, segment);
            } else {
                pages.at(segment).seg.make_per_page();
            }
            for i in 0..u32::from(seg_len) {
                let at = PageRef(segment.0 + i);
                let pages = &*self.pages.slice(at, u32::from(seg_len) - i);
                let page = &pages[0];
                let unretired = Some(pages).filter(|_| !page.is_retired());
                if let Some(error) = unretired.and_then(|pages| why(self.regions.remotes, at, pages)) {
                    failed += usize::from(page.phase != Phase::Failed);
                    self.fail_page(at, error);
                    self.stop_validating(at, i + 1 < u32::from(seg_len));
                    if self.pages.at(at).left == 0 {
                        self.complete(at);
                    }
                }
            }
            if hits < unretired {
                self.trim(segment);
            }
            let p = &self.peers[usize::from(peer)];
            if p.dead_lanes != [NO_LANE; CLASSES] || p.suspects != NO_LANE {
                self.purge_peer(peer);
            }
        }
        self.release_batch(batch, 1);
        failed
    }

    /// Cancels the validating READ of a page, if it has not been posted. If the next page
    /// was to be validated together with it, that page joins the list itself.
    pub(super) fn stop_validating(&mut self, page: PageRef, has_next: bool) {
        let (peer, batch) = (usize::from(self.pages.at(page).peer()), self.pages.at(page).batch);
        let behind = self.pages.at(page).validate.is_behind();
        let turn = self.peers[peer].circles.turn_of(self.pages.head(batch).class.into());
        let list = &mut self.peers[peer].validate[turn];
        if !list.remove(&mut self.pages, page) && !behind {
            return;
        }
        self.pages.at(page).left -= 1;
        if self.pages.at(page).begins_set() {
            // None of its entries has been asked for when it is validated again.
            self.pages.at(PageRef(page.0 + 1)).left = 0;
        }
        let next = PageRef(page.0 + 1);
        if has_next && self.pages.at(next).validate.is_behind() {
            self.pages.at(next).validate = PageLink::OUT;
            self.peers[peer].validate[turn].push_back(&mut self.pages, next);
        }
    }

    /// Looks at the next lanes: finds those that complete nothing, and flushes that do not end.
    #[cold]
    fn sweep(&mut self, now: Time) {
        if self.sweep.lane >= self.lanes.len() {
            self.sweep.lane = 0;
            self.sweep.next = now + Nanos(self.config.stall.0.min(self.config.drain.0) / 4).min(SILENCE);
        }
        let end = self.lanes.len().min(self.sweep.lane + SWEEP);
        for index in self.sweep.lane..end {
            let lane = &self.lanes[index];
            let still = now.since(lane.since);
            match lane.state {
                LaneState::Up
                    if lane.outstanding() > 0 && still >= self.config.stall && !self.arrivals.behind =>
                {
                    self.rails[usize::from(lane.rail)].stats.lanes_stalled += 1;
                    self.emit(|engine| EngineEvent::LaneStalled { lane: engine.lanes[index].id });
                    self.fail_lane(index, now);
                }
                LaneState::Up
                    if lane.outstanding() > 0
                        && !lane.hold.contains(Hold::SILENT)
                        && !self.arrivals.behind =>
                {
                    let rail = &self.rails[usize::from(lane.rail)];
                    // Work posted to a suspected rail is a trial of the rail, and does not make
                    // more lanes silent.
                    if still >= SILENCE.max(Nanos(8 * rail.key(0))) && lane.since <= rail.suspect {
                        self.set_silent(index, now);
                    }
                }
                LaneState::Failing | LaneState::Draining if still >= self.config.drain => {
                    self.begin_close(index, now);
                }
                _ => {}
            }
        }
        self.sweep.lane = end;
    }

    /// Marks a lane as silent: its peer may be gone, and must not keep other peers waiting.
    fn set_silent(&mut self, index: usize, now: Time) {
        let lane = &mut self.lanes[index];
        lane.hold.insert(Hold::SILENT);
        let rail = usize::from(lane.rail);
        // Nothing is posted on the peer's other lanes of the class over this rail before a wr of
        // one of them completes.
        self.peers[usize::from(lane.peer)].circles.clear_room(lane.circle);
        let suspected =
            self.rails[rail].set_silent(lane.outstanding(), lane.bytes, lane.since, now, &self.config);
        self.rails.silent_count += 1 + u32::from(suspected);
        self.emit(|engine| EngineEvent::LaneSilent { lane: engine.lanes[index].id });
        self.rails.refresh(rail);
    }

    /// Fails a page that is not retired ([`Page::fail`]), and reports it once.
    pub(super) fn fail_page(&mut self, at: PageRef, error: PageError) {
        let shift = self.chunk_shift;
        let error = self.or_no_lane(at, error);
        let page = self.pages.at(at);
        let new = page.phase != Phase::Failed;
        page.fail(error, shift);
        if new {
            self.emit(|engine| {
                let (batch, page) = engine.name_of(at);
                EngineEvent::PageFailed { batch, page, error }
            });
        }
    }

    /// `error`, unless the deadline has passed without a chunk of the page, and its peer has no
    /// lane.
    fn or_no_lane(&mut self, at: PageRef, error: PageError) -> PageError {
        let peer = self.pages.at(at).peer();
        match error {
            PageError::Deadline { deadline, missing, chunks }
                if missing == chunks && self.peers[usize::from(peer)].circles.is_empty() =>
            {
                PageError::NoLane { deadline }
            }
            _ => error,
        }
    }

    /// A wr has completed on a lane while some lanes are silent: ends the silence of this lane and
    /// the suspicion of its rail.
    #[cold]
    pub(super) fn heard(&mut self, index: usize) {
        let lane = &mut self.lanes[index];
        let rail = usize::from(lane.rail);
        if lane.hold.clear(Hold::SILENT) {
            self.rails[rail].clear_silent(lane.outstanding(), lane.bytes);
            self.rails.silent_count -= 1;
            self.emit(|engine| EngineEvent::LaneHeard { lane: engine.lanes[index].id });
        }
        if self.rails[rail].suspect != Time::NEVER {
            self.rails[rail].clear_suspicion(&self.config);
            self.rails.silent_count -= 1;
        }
    }

    /// Sleeps until `until`, or until half of the outstanding wrs have completed, a deadline
    /// passes, a lane fails, a submitter wakes the engine, or a lane is to be requested. It is the
    /// only call that may sleep. It returns at once if the engine [has news](Self::has_news), a
    /// page of a hub's submitter is to be told, or work can be posted. While a batch is in flight
    /// that [reports](crate::batch::Batch::report_pages) its pages, it sleeps for one completion
    /// only. Poll afterwards in any case.
    ///
    /// Waking up for each completion would cost more than handling the completions
    /// (docs/performance.md).
    pub fn wait(&mut self, now: Time, until: Time) {
        self.disarm();
        if let Some(wait) = self.plan_sleep(now, until) {
            self.arrivals.slept = true;
            self.provider.wait(wait);
        }
    }

    /// As [`wait`](Self::wait), for a caller that sleeps in poll(2) or epoll(7) on the provider's
    /// descriptor. `Some` is the latest time at which the sleep must end, at most `until`: the
    /// descriptor becomes readable for the reasons for which `wait` returns. `None` says that there
    /// is something to be done already, or that the provider cannot do it. Poll afterwards in any
    /// case.
    ///
    /// A [`submit`](Self::submit) between this call and the sleep makes the descriptor readable.
    /// After any other call that changes something, poll and arm again before the sleep.
    pub fn arm(&mut self, now: Time, until: Time) -> Option<Time> {
        self.disarm();
        let wait = self.plan_sleep(now, until)?;
        // A look for reasons may take completions out of any queue, for the next poll.
        self.arrivals.slept = true;
        self.arrivals.armed = self.provider.arm(wait);
        self.arrivals.armed.then_some(wait.until)
    }

    /// Ends what [`arm`](Self::arm) began.
    #[cold]
    pub(super) fn disarm(&mut self) {
        if core::mem::take(&mut self.arrivals.armed) {
            self.provider.disarm();
        }
    }

    /// Work has come since the provider was armed, of which the sleep's reasons know nothing: makes
    /// the descriptor readable.
    #[cold]
    pub(super) fn end_armed_sleep(&self) {
        self.provider.waker().wake();
    }

    /// Until when and until how many completions the engine can sleep; `None` if there is something
    /// to be done.
    fn plan_sleep(&mut self, now: Time, until: Time) -> Option<WaitFor> {
        if self.has_news() || core::mem::take(&mut self.in_flight.hub_news) {
            return None;
        }
        if self.rails.choice.open != 0 && self.peers.turns.any(self.rails.choice.open) {
            // A lane has been attached since the last poll, or a rail has room: a peer can be
            // served.
            return None;
        }
        let outstanding = self.rails.outstanding_wrs();
        let silent = self.rails.iter().any(|rail| rail.silent > 0);
        let mut until = until.min(self.in_flight.next_deadline());
        if outstanding > 0 || silent || self.lanes.dying > 0 {
            until = until.min(self.sweep.next);
        }
        until = until.min(self.repairs.next_at());
        if outstanding > 0 {
            // Some completions may never come (those of a silent peer), so the engine waits for
            // half of all only as long as they should take.
            until = until.min(now + self.rails.expected_time() + WAIT_MARGIN);
        }
        if until <= now {
            return None;
        }
        // A caller that is told of each page is to be told of the first one.
        let half = if self.in_flight.reporting > 0 { outstanding.min(1) } else { outstanding.div_ceil(2) };
        let completions = half.max(u32::from(silent));
        Some(WaitFor { now, until, completions })
    }

    /// A handle that wakes the engine out of [`wait`](Self::wait), or makes the descriptor of an
    /// [armed](Self::arm) one readable, from any thread.
    pub fn waker(&self) -> P::Waker {
        self.provider.waker()
    }

    /// Removes all peers. The engine is at rest when [`lanes_dying`](Self::lanes_dying) and
    /// [`in_flight`](Self::in_flight) are 0; poll until then, and take the done batches.
    pub fn stop(&mut self, now: Time) {
        for index in 0..self.peers.len() {
            let id = self.peers[index].id(narrow(index));
            // A place without a peer gives an error, which does not matter here.
            let _ = self.remove_peer(id, now);
        }
    }
}
