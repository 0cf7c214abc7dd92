//! Deadlines, stalls, sleeping.

use super::Engine;
use super::death::fail_page;
use crate::error::PageError;
use crate::lane::{LaneState, NO_LANE};
use crate::page::{PageRef, PageTable, Phase, settle_pages};
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

    #[cold]
    fn expire(&mut self, now: Time) {
        let mut next = Time::NEVER;
        for group in 0..self.deadlines.len() {
            if self.deadlines[group] <= now {
                let mut earliest = Time::NEVER;
                let mut flying = self.flying[group];
                while flying != 0 {
                    // Batches are fewer than 16,385 by Storage::CHECKED.
                    let batch = (64 * group) as u16 + flying.trailing_zeros() as u16;
                    flying &= flying - 1;
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
        self.cancel(batch, None, |page| PageError::Deadline {
            deadline,
            missing: if page.phase == Phase::Validating { 0 } else { page.left },
            chunks: page.chunks(shift),
        });
        if self.flying[usize::from(batch / 64)] & (1 << (batch % 64)) != 0 {
            self.overdue[usize::from(batch / 64)] |= 1 << (batch % 64);
        }
    }

    /// Fails all that is in flight from one peer.
    pub(super) fn cancel_peer(&mut self, peer: u16) {
        for group in 0..self.flying.len() {
            let mut flying = self.flying[group];
            while flying != 0 {
                let batch = (64 * group) as u16 + flying.trailing_zeros() as u16;
                flying &= flying - 1;
                self.cancel(batch, Some(peer), |_| PageError::PeerGone);
            }
        }
    }

    /// Fails the pages of a batch (of one peer, or of all) that are not retired. What is not posted is
    /// accounted for here; what is posted when it comes back or its lane is quiet.
    fn cancel(&mut self, batch: u16, only: Option<u16>, error: impl Fn(&crate::page::Page) -> PageError) {
        let (first, shift) = (self.pages.first(batch), self.chunk_shift);
        let head = self.pages.head(batch);
        let (len, class) = (head.len, usize::from(head.class));
        // The batch must not be done before all its pages have been looked at.
        head.left += 1;
        head.spoilt = true;
        settle_pages(self.pages.slice(first, u32::from(len)));
        let mut at = 0;
        while at < len {
            let segment = PageRef(first.0 + u32::from(at));
            let page = self.pages.at(segment);
            let (peer, seg_len) = (page.peer(), page.seg_len);
            at += seg_len;
            if only.is_some_and(|only| only != peer) {
                continue;
            }
            self.dequeue(usize::from(peer), class, segment);
            for i in 0..u32::from(seg_len) {
                let at = PageRef(segment.0 + i);
                let page = self.pages.at(at);
                if page.is_retired() {
                    continue;
                }
                let error = error(page);
                fail_page(page, error, shift);
                let behind = self.pages.at(at).validate.is_behind();
                // All pages behind one are the same peer's, so this takes them along, too.
                if self.peers[usize::from(peer)].validate.remove(&mut self.pages, at) || behind {
                    self.pages.at(at).left -= 1;
                }
                if self.pages.at(at).left == 0 {
                    self.complete(at);
                }
            }
            if self.peers[usize::from(peer)].carcass != NO_LANE {
                self.purge_peer(peer);
            }
        }
        self.release_batch(batch, 1);
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
                LaneState::Up if lane.outstanding() > 0 && !lane.silent && !self.behind => {
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
        lane.silent = true;
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
        if core::mem::take(&mut lane.silent) {
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
    /// batches are done already; poll after it in any case.
    ///
    /// Waking for each completion would cost more than the completions do (docs/performance.md).
    pub fn wait(&mut self, now: Time, until: Time) {
        if !self.done.is_empty() || self.overdue.iter().any(|&word| word != 0) {
            return;
        }
        let outstanding: u32 = self.rails.iter().map(|rail| rail.wrs).sum();
        let silent = self.rails.iter().any(|rail| rail.silent > 0);
        let mut until = until.min(self.next_deadline);
        if outstanding > 0 || silent || self.dying > 0 {
            until = until.min(self.next_sweep);
        }
        until = until.min(self.next_retry(now));
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

    /// When the next lane will be wanted. Whoever has not asked for those that are wanted already makes none.
    fn next_retry(&self, now: Time) -> Time {
        let mut next = Time::NEVER;
        if self.missing > self.asked && self.asked < u32::from(self.config.reconnects) {
            for (paths, _) in self.paths.iter().zip(self.peers.iter()).filter(|(_, peer)| peer.missing > 0) {
                let up = paths
                    .iter()
                    .zip(self.rails.iter())
                    .filter(|(path, rail)| rail.up && path.retry_at > now && path.wanted().is_some());
                next = up.fold(next, |next, (path, _)| next.min(path.retry_at));
            }
        }
        next
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
