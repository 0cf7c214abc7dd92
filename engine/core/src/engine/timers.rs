//! Deadlines, stalls, sleeping.

use super::Engine;
use super::death::fail_page;
use crate::error::PageError;
use crate::lane::{Hold, LaneState, NO_LANE};
use crate::page::{Link, Page, PageRef, PageTable, Phase, settle_pages};
use crate::peer::Remote;
use crate::provider::{Provider, WaitFor, Wake};
use crate::time::{Nanos, Time};

/// How much longer than expected half of what is outstanding is waited for.
const PATIENCE: Nanos = Nanos::from_millis(10);
/// A lane is silent when nothing has completed for so long, or for eight times as long as all that its rail
/// has should take, whichever is longer.
const SILENCE: Nanos = Nanos::from_millis(10);
/// Lanes looked at per poll while a sweep is under way.
const SWEEP: usize = 256;

impl<P: Provider> Engine<'_, P> {
    /// A batch is in flight until `deadline`.
    #[inline]
    pub(super) fn watch(&mut self, batch: u16, deadline: Time) {
        let group = usize::from(batch / 64);
        self.flying[group] |= 1 << (batch % 64);
        self.deadlines[group] = self.deadlines[group].min(deadline);
        self.next_deadline = self.next_deadline.min(deadline);
    }

    #[inline]
    pub(super) fn timers(&mut self, now: Time) {
        if now >= self.next_deadline {
            self.expire(now);
        }
        if now >= self.next_sweep || self.sweep < self.lanes.len() {
            self.sweep(now);
        }
    }

    /// The first batch of a group, from number `from` in it on, that is in flight: looked up anew
    /// each time, since what is done to one batch may end others.
    fn next_flying(&self, group: usize, from: u32) -> Option<u32> {
        let rest = u64::MAX.checked_shl(from)? & self.flying[group];
        (rest != 0).then(|| rest.trailing_zeros())
    }

    #[cold]
    fn expire(&mut self, now: Time) {
        let mut next = Time::NEVER;
        for group in 0..self.deadlines.len() {
            if self.deadlines[group] <= now {
                let (mut earliest, mut from) = (Time::NEVER, 0);
                while let Some(number) = self.next_flying(group, from) {
                    from = number + 1;
                    // Batches are fewer than 16,385 by Storage::CHECKED.
                    let batch = (64 * group) as u16 + number as u16;
                    let deadline = self.pages.head(batch).deadline;
                    if deadline > now {
                        earliest = earliest.min(deadline);
                    } else {
                        // What is left of it is with the hardware: there is nothing to look for again.
                        self.pages.head(batch).deadline = Time::NEVER;
                        self.expire_batch(batch, deadline);
                    }
                }
                self.deadlines[group] = earliest;
            }
            next = next.min(self.deadlines[group]);
        }
        self.next_deadline = next;
    }

    fn expire_batch(&mut self, batch: u16, deadline: Time) {
        let shift = self.chunk_shift;
        let late = |page: &Page| PageError::Deadline {
            deadline,
            missing: if page.phase == Phase::Validating { 0 } else { page.left },
            chunks: page.chunks(shift),
        };
        self.cancel(batch, |_, page| Some(late(page)));
        if self.flying[usize::from(batch / 64)] & (1 << (batch % 64)) != 0 {
            self.overdue[usize::from(batch / 64)] |= 1 << (batch % 64);
        }
    }

    /// Fails all that is in flight from one peer.
    pub(super) fn cancel_peer(&mut self, peer: u16) {
        self.cancel_some(peer, |_, _| Some(PageError::PeerGone));
    }

    /// Fails the pages in flight from one peer of which `why` tells why they fail.
    pub(super) fn cancel_some(&mut self, peer: u16, why: impl Fn(&[Remote], &Page) -> Option<PageError>) {
        for group in 0..self.flying.len() {
            let mut from = 0;
            while self.peers[usize::from(peer)].in_flight() > 0
                && let Some(number) = self.next_flying(group, from)
            {
                from = number + 1;
                // Batches are fewer than 16,385 by Storage::CHECKED.
                let batch = (64 * group) as u16 + number as u16;
                self.cancel(
                    batch,
                    |remotes, page| if page.peer() == peer { why(remotes, page) } else { None },
                );
            }
        }
    }

    /// Fails the pages of a batch that are not retired and of which `why` tells why they fail. What
    /// is not posted is accounted for here; what is posted when it comes back or its lane is quiet.
    /// Other batches may be done by it.
    pub(super) fn cancel(&mut self, batch: u16, why: impl Fn(&[Remote], &Page) -> Option<PageError>) {
        let (first, shift) = (self.pages.first(batch), self.chunk_shift);
        let head = self.pages.head(batch);
        let (len, class) = (head.len, usize::from(head.class));
        let hit = |remotes: &[Remote], page: &Page| !page.is_retired() && why(remotes, page).is_some();
        let Self { pages, remotes, .. } = self;
        if !pages.slice(first, u32::from(len)).iter().any(|page| hit(remotes, page)) {
            return;
        }
        settle_pages(pages.slice(first, u32::from(len)));
        // The batch must not be done before all its pages have been looked at.
        let head = pages.head(batch);
        head.left += 1;
        head.spoilt = true;
        let mut at = 0;
        while at < len {
            let segment = PageRef(first.0 + u32::from(at));
            let Self { pages, remotes, .. } = self;
            let page = pages.at(segment);
            let (peer, seg_len) = (page.peer(), page.seg_len);
            at += seg_len;
            let segment_pages = pages.slice(segment, u32::from(seg_len));
            let hits = segment_pages.iter().filter(|page| hit(remotes, page)).count();
            let living = segment_pages.iter().filter(|page| !page.is_retired()).count();
            if hits == 0 {
                continue;
            }
            if hits == living {
                self.dequeue(usize::from(peer), class, segment);
            } else {
                pages.at(segment).seg.mix();
            }
            for i in 0..u32::from(seg_len) {
                let at = PageRef(segment.0 + i);
                let page = self.pages.at(at);
                if let Some(error) = why(self.remotes, page).filter(|_| !page.is_retired()) {
                    fail_page(page, error, shift);
                    self.stop_validating(at, i + 1 < u32::from(seg_len));
                    if self.pages.at(at).left == 0 {
                        self.complete(at);
                    }
                }
            }
            if hits < living {
                self.trim(segment);
            }
            let p = &self.peers[usize::from(peer)];
            if p.carcass != NO_LANE || p.suspects != NO_LANE {
                self.purge_peer(peer);
            }
        }
        self.release_batch(batch, 1);
    }

    /// A page has failed. If its validating READ has not been posted, it is not going to be; a page
    /// behind it that was to be validated with it stands in the list itself from now on.
    fn stop_validating(&mut self, page: PageRef, has_next: bool) {
        let peer = usize::from(self.pages.at(page).peer());
        let behind = self.pages.at(page).validate.is_behind();
        let list = &mut self.peers[peer].validate;
        if !list.remove(&mut self.pages, page) && !behind {
            return;
        }
        self.pages.at(page).left -= 1;
        let next = PageRef(page.0 + 1);
        if has_next && self.pages.at(next).validate.is_behind() {
            self.pages.at(next).validate = Link::OUT;
            self.peers[peer].validate.push_back(&mut self.pages, next);
        }
    }

    /// Looks for lanes that complete nothing and flushes that do not end, a part of them at a time.
    #[cold]
    fn sweep(&mut self, now: Time) {
        if self.sweep >= self.lanes.len() {
            self.sweep = 0;
            self.next_sweep = now + Nanos(self.config.stall.0.min(self.config.drain.0) / 4).min(SILENCE);
        }
        let end = self.lanes.len().min(self.sweep + SWEEP);
        for index in self.sweep..end {
            let lane = &self.lanes[index];
            let still = now.since(lane.since);
            match lane.state {
                LaneState::Up if lane.outstanding() > 0 && still >= self.config.stall && !self.behind => {
                    self.rails[usize::from(lane.rail)].stats.lanes_stalled += 1;
                    self.kill(index, now);
                }
                LaneState::Up if lane.outstanding() > 0 && !lane.hold.has(Hold::SILENT) && !self.behind => {
                    let rail = &self.rails[usize::from(lane.rail)];
                    // What was posted to a rail under suspicion is what was risked.
                    if still >= SILENCE.max(Nanos(8 * rail.key(0))) && lane.since <= rail.suspect {
                        self.mute(index, now);
                    }
                }
                LaneState::Failing | LaneState::Draining if still >= self.config.drain => {
                    self.begin_close(index, now);
                }
                _ => {}
            }
        }
        self.sweep = end;
    }

    /// A lane is silent: its peer may be gone, which is no reason to keep others waiting.
    fn mute(&mut self, index: usize, now: Time) {
        let lane = &mut self.lanes[index];
        lane.hold.set(Hold::SILENT);
        let rail = usize::from(lane.rail);
        // Its other lanes over this rail are not tried before one of them is heard of.
        self.peers[usize::from(lane.peer)].room &= !(1 << rail);
        let suspected = self.rails[rail].mute(lane.outstanding(), lane.bytes, lane.since, now, &self.config);
        self.hushed += 1 + u32::from(suspected);
        self.refresh_room(rail);
    }

    /// Something has completed on a lane while some are silent.
    #[cold]
    pub(super) fn heard(&mut self, index: usize) {
        let lane = &mut self.lanes[index];
        let rail = &mut self.rails[usize::from(lane.rail)];
        if lane.hold.clear(Hold::SILENT) {
            rail.unmute(lane.outstanding(), lane.bytes);
            self.hushed -= 1;
        }
        if rail.suspect != Time::NEVER {
            rail.clear(&self.config);
            self.hushed -= 1;
        }
    }

    /// Sleeps until something happens (half of what is outstanding has completed, a lane fails, a submitter wakes
    /// the engine, a lane is wanted) or `until` is reached. The one call that may sleep. Returns at once when
    /// batches are done already, or can be posted; poll after it in any case.
    ///
    /// Waking for each completion would cost more than the completions do (docs/performance.md).
    pub fn wait(&mut self, now: Time, until: Time) {
        if !self.done.is_empty() || self.overdue.iter().any(|&word| word != 0) {
            return;
        }
        if self.choice.open != 0 && self.turns.any(self.choice.open) {
            // A lane has been attached since the last poll, or a rail has room: somebody has his turn.
            return;
        }
        let outstanding: u32 = self.rails.iter().map(|rail| rail.wrs).sum();
        let silent = self.rails.iter().any(|rail| rail.silent > 0);
        let mut until = until.min(self.next_deadline);
        if outstanding > 0 || silent || self.dying > 0 {
            until = until.min(self.next_sweep);
        }
        until = until.min(self.repairs.next_at());
        if outstanding > 0 {
            // Some of what is outstanding may never come (a silent peer): half of all is waited for only as
            // long as it should take.
            let bytes: u64 = self.rails.iter().map(|rail| rail.bytes).sum();
            let take = u128::from(bytes) * 2_000_000_000 / u128::from(self.rate.max(1));
            until = until.min(now + Nanos(u64::try_from(take).unwrap_or(u64::MAX)) + PATIENCE);
        }
        if until <= now {
            return;
        }
        let completions = outstanding.div_ceil(2).max(u32::from(silent));
        self.woken = true;
        self.provider.wait(WaitFor { now, until, completions });
    }

    /// Something that wakes an engine out of [`wait`](Self::wait), from any thread.
    pub fn waker(&self) -> impl Wake + Clone + use<P> {
        self.provider.waker()
    }

    /// Removes all peers. The engine is at rest when [`lanes_dying`](Self::lanes_dying) and
    /// [`in_flight`](Self::in_flight) are 0; poll until then, and take what is done.
    pub fn stop(&mut self, now: Time) {
        for index in 0..self.peers.len() {
            let id = self.peers[index].id(index as u16);
            // Places without a peer refuse, which is as well.
            let _ = self.remove_peer(id, now);
        }
    }
}
