//! How a batch is submitted, and how it comes back: done, overdue or rejected.

use core::fmt;

use super::state::Engine;
use crate::batch::in_flight::Origins;
use crate::batch::pool::Pool;
use crate::batch::{Batch, Done, Ticket};
use crate::error::{PageError, SubmitError};
use crate::events::{EngineEvent, EventSink};
use crate::limits::narrow;
use crate::page::PageTable;
use crate::page::list::PageRef;
use crate::peer::PeerState;
use crate::provider::Provider;
use crate::time::Time;

/// A batch that was refused, and the reason. The batch is untouched.
pub struct Rejected<'s> {
    /// The batch.
    pub batch: Batch<'s>,
    /// The reason.
    pub error: SubmitError,
}

impl fmt::Debug for Rejected<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.error, f)
    }
}

impl fmt::Display for Rejected<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.error, f)
    }
}

impl core::error::Error for Rejected<'_> {}

impl<'s, P: Provider, E: EventSink> Engine<'s, P, E> {
    /// An empty batch. `None` if all batches are being filled, in flight, or done and not dropped:
    /// poll, and drop done batches.
    #[inline]
    pub fn batch(&mut self) -> Option<Batch<'s>> {
        self.pages.pool().claim().map(Batch::new)
    }

    pub(crate) fn pool(&self) -> Pool<'s> {
        self.pages.pool()
    }

    /// How many batches the storage has, and how many pages a batch can hold.
    #[must_use]
    pub fn capacity(&self) -> (usize, usize) {
        let pool = self.pages.pool();
        (pool.batches(), pool.pages_per_batch())
    }

    /// How many batches are free now.
    #[must_use]
    pub fn batches_free(&self) -> usize {
        self.pages.pool().free()
    }

    /// Takes a batch with its slots, and posts as much of it as there is room for. The batch comes
    /// back whole from [`next_done`](Self::next_done), at its deadline or soon after: see
    /// [`next_overdue`](Self::next_overdue).
    ///
    /// # Errors
    ///
    /// The batch is empty or another engine's, its deadline is not in the future, or the peer of a
    /// page was removed. The batch comes back untouched.
    #[inline]
    pub fn submit(
        &mut self,
        mut batch: Batch<'s>,
        now: Time,
        deadline: Time,
    ) -> Result<Ticket, Rejected<'s>> {
        self.sink.check();
        if let Err(error) = self.admissible(&mut batch, now, deadline) {
            return Err(Rejected { batch, error });
        }
        if self.arrivals.armed {
            self.end_armed_sleep();
        }
        let mut buffer = batch.into_buffer();
        let index = buffer.index();
        let head = buffer.head_mut();
        let serial = head.serial;
        head.left = head.len - head.in_sets;
        head.failed = 0;
        head.deadline = deadline;
        head.started = false;
        head.must_settle_each = head.report;
        self.in_flight.reporting += u32::from(head.report);
        let (len, class) = (head.len, usize::from(head.class));
        let first = self.pages.take(buffer);
        self.in_flight.begin(index, deadline);
        self.emit_time(now);
        self.emit(|_| EngineEvent::Submitted {
            batch: Ticket { batch: index, serial },
            pages: len,
            deadline,
        });

        let (mut at, mut faulty) = (0, false);
        loop {
            let seg = PageRef(first.0 + u32::from(at));
            let page = self.pages.at(seg);
            let (peer, seg_len) = (page.peer(), page.seg_len);
            let p = &mut self.peers[usize::from(peer)];
            p.queue[class].push_back(&mut self.pages, seg);
            p.submitted += u64::from(seg_len);
            faulty |= !p.forbidden.is_empty();
            at += seg_len;
            if at >= len {
                if faulty {
                    self.fail_set_aside(index, now);
                }
                self.schedule_for(peer, class, now);
                return Ok(Ticket { batch: index, serial });
            }
            self.peers.enroll_class(peer, class);
        }
    }

    #[inline]
    fn admissible(&self, batch: &mut Batch<'s>, now: Time, deadline: Time) -> Result<(), SubmitError> {
        if batch.engine() != self.tag {
            return Err(SubmitError::OtherEngine);
        }
        if deadline <= now {
            return Err(SubmitError::DeadlinePassed { deadline, now });
        }
        let len = narrow(batch.len());
        if len == 0 {
            return Err(SubmitError::Empty);
        }
        if batch.buffer_mut().head().has_planned {
            self.follows_known_plans(batch)?;
        }
        batch.close_segment();
        let mut at = 0;
        while at < len {
            let seg = batch.buffer_mut().page_mut(u32::from(at));
            let (peer, seg_len) = (seg.source.peer(), seg.seg_len);
            let known = &self.peers[usize::from(peer.index())];
            if known.life as u16 != peer.life() || known.state != PeerState::Up {
                return Err(SubmitError::PeerGone { page: usize::from(at), peer: peer.index().into() });
            }
            at += seg_len;
        }
        Ok(())
    }

    /// Checks that no plan of a batch's pages has been forgotten since they joined the batch.
    fn follows_known_plans(&self, batch: &mut Batch<'s>) -> Result<(), SubmitError> {
        let len = narrow(batch.len());
        let buffer = batch.buffer_mut();
        if buffer.head().plan_epoch == self.plans.lives.now() {
            return Ok(());
        }
        match buffer.forgotten_plan(len.into()) {
            Some(page) => Err(SubmitError::PlanForgotten { page }),
            None => Ok(()),
        }
    }

    /// The next done batch, in the order in which they became done.
    #[inline]
    pub fn next_done(&mut self) -> Option<Done<'s>> {
        let batch = self.in_flight.done.pop()?;
        if self.pages.head(batch).report {
            self.end_reports(batch);
        }
        Some(Done::new(self.pages.give_up(batch)))
    }

    /// The next batch whose deadline has passed while READs of it were outstanding. Each is
    /// returned once. Its pages that had not arrived have failed; its slots come back with
    /// [`next_done`](Self::next_done), when nothing can write into them any more.
    pub fn next_overdue(&mut self) -> Option<Ticket> {
        self.next_overdue_of().map(|(ticket, ..)| ticket)
    }

    /// As [`next_overdue`](Self::next_overdue), with the submitter that gets the batch back, and
    /// the caller's number.
    pub(crate) fn next_overdue_of(&mut self) -> Option<(Ticket, u16, u64)> {
        let batch = self.in_flight.next_overdue()?;
        let head = self.pages.head(batch);
        Some((Ticket { batch, serial: head.serial }, head.origin, head.tag))
    }

    /// Numbers for the `n` submitters of a hub; `known` if these are already of this engine.
    pub(crate) fn origins(&mut self, known: Origins, n: u16) -> Origins {
        let engine = self.tag;
        if known.engine == engine {
            return known;
        }
        self.in_flight.origins(engine, n)
    }

    /// Accounts for a page that is retired: in its peer's counters and in its batch.
    pub(super) fn retire(&mut self, page: PageRef) {
        // A set counts as many pages as it has.
        let pages = self.pages.set_len(page);
        let n = u64::from(pages);
        let p = self.pages.at(page);
        debug_assert!(p.is_retired() && p.left == 0, "a retired page has no chunk that has not finished");
        let (batch, result) = (p.batch, p.result());
        let peer = &mut self.peers[usize::from(p.peer())];
        let stats = &mut peer.stats;
        match result {
            Ok(()) => stats.pages += n,
            Err(PageError::Miss(_)) => stats.misses += n,
            Err(PageError::Fault { .. } | PageError::SetAside { .. }) => stats.faults += n,
            Err(PageError::Withdrawn) => {
                stats.withdrawn = stats.withdrawn.saturating_add(pages.into());
                peer.submitted -= n;
            }
            Err(_) => stats.late += n,
        }
        self.pages.head(batch).failed += u16::from(result.is_err());
        self.report(page, 1);
        match result {
            Ok(()) => self.emit_arrived(page, pages.into()),
            Err(_) => self.emit_result(page, result),
        }
        self.release_batch(batch, 1);
    }

    /// Reports that a page has arrived, or is a miss. A page that has failed was reported when it
    /// failed.
    #[inline(always)]
    pub(super) fn emit_result(&mut self, page: PageRef, result: Result<(), PageError>) {
        match result {
            Ok(()) => self.emit_arrived(page, 1),
            Err(PageError::Miss(miss)) => self.emit(|engine| {
                let (batch, page) = engine.name_of(page);
                EngineEvent::PageMissed { batch, page, miss }
            }),
            Err(_) => {}
        }
    }

    /// Reports the results of `n` consecutive pages, with one event for each run of pages that have
    /// arrived.
    #[cold]
    pub(super) fn emit_results(&mut self, first: PageRef, n: u32) {
        let mut row = first.0;
        for page in first.0..first.0 + n {
            let result = self.pages.at(PageRef(page)).result();
            if result.is_err() {
                if page > row {
                    self.emit_arrived(PageRef(row), page - row);
                }
                self.emit_result(PageRef(page), result);
                row = page + 1;
            }
        }
        if first.0 + n > row {
            self.emit_arrived(PageRef(row), first.0 + n - row);
        }
    }

    /// Reports that `n` consecutive pages have arrived.
    #[inline(always)]
    pub(super) fn emit_arrived(&mut self, first: PageRef, n: u32) {
        self.emit(|engine| {
            let (batch, first) = engine.name_of(first);
            EngineEvent::PagesArrived { batch, first, pages: narrow(n as usize) }
        });
    }

    /// Subtracts `n` from the things that keep a batch from being done: its pages, and a walk over
    /// its pages. The batch is done when none is left.
    #[inline]
    pub(super) fn release_batch(&mut self, batch: u16, n: u16) {
        let head = self.pages.head(batch);
        head.left -= n;
        if head.left == 0 {
            self.end_batch(batch);
        }
    }

    /// Moves a batch whose pages are all retired to the done batches.
    #[inline]
    pub(super) fn end_batch(&mut self, batch: u16) {
        self.in_flight.end(batch);
        self.emit(|engine| EngineEvent::Done { batch: engine.ticket(batch) });
    }
}
