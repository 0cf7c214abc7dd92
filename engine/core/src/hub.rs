//! Many application threads feed one engine thread.
//!
//! Each submitter has a [`Mailbox`]: a ring of orders to the engine and a ring of outcomes back,
//! both wait-free. The engine's thread calls [`Hub::turn`] in its loop; a submitter that finds the
//! engine asleep wakes it.
//!
//! Either side may end first. When a submitter is dropped, its batches go on, and their slots come
//! to the engine's own thread ([`Outcome::Orphan`]). When the hub is dropped, submitters learn it
//! from their next call.
#![allow(unsafe_code, reason = "one side takes the items that the other left in a ring when it ended")]

use core::sync::atomic::{AtomicBool, Ordering};

use crate::batch::in_flight::Origins;
use crate::batch::pool::Pool;
use crate::batch::{Batch, Done, Ticket};
use crate::engine::{Engine, Rejected};
use crate::error::SubmitError;
use crate::events::EventSink;
use crate::limits::narrow;
use crate::memory::Slot;
use crate::provider::{Provider, Wake};
use crate::ring::{Consumer, Producer, Ring};
use crate::time::Time;

/// The most orders that are taken from one submitter before the next submitter has its turn.
const ORDERS_PER_TURN: usize = 8;

/// A batch on its way to the engine.
#[derive(Debug)]
struct Order<'s> {
    batch: Batch<'s>,
    deadline: Time,
}

/// What a submitter gets back.
#[derive(Debug)]
#[allow(
    clippy::exhaustive_enums,
    reason = "most hand memory back: a caller that names not all of them loses it"
)]
pub enum Outcome<'s> {
    /// A batch is done. It is the last outcome of the batch.
    Done(Done<'s>),
    /// The engine refused a batch. It is the last outcome of the batch.
    Rejected(Rejected<'s>),
    /// The deadline of a batch has passed while READs of it were outstanding; `Done` follows. The
    /// number is the batch's tag ([`Batch::set_tag`]).
    Overdue(Ticket, u64),
    /// A slot of a submitter that has been dropped. The engine's own thread gets it.
    Orphan(Slot),
    /// The hub has been dropped, and this number of batches that the engine had taken are lost with
    /// their slots. It is a submitter's last outcome. Batches that the engine had not taken come
    /// back before it, as [`Rejected`](Outcome::Rejected).
    ReaderGone(usize),
}

/// The two rings between one submitter and the engine, for at most `N / 2` batches on their way;
/// `N` is a power of two, at least 2. A batch has at most two outcomes (overdue and done), so the
/// ring of outcomes never overflows.
#[derive(Debug)]
pub struct Mailbox<'s, const N: usize> {
    orders: Ring<Order<'s>, N>,
    outcomes: Ring<Outcome<'s>, N>,
    ended: Ended,
}

/// Which side has ended. A side sets its flag after its last access to the rings.
#[derive(Debug)]
struct Ended {
    submitter: AtomicBool,
    hub: AtomicBool,
}

impl<'s, const N: usize> Mailbox<'s, N> {
    /// An empty mailbox.
    #[must_use]
    #[allow(clippy::new_without_default, reason = "a mailbox is a part of a storage, not a temporary value")]
    pub const fn new() -> Self {
        const { assert!(N >= 2, "a mailbox holds at least one batch and its two outcomes") };
        let ended = Ended { submitter: AtomicBool::new(false), hub: AtomicBool::new(false) };
        Self { orders: Ring::new(), outcomes: Ring::new(), ended }
    }
}

/// An application thread's end of a mailbox. When it is dropped, the engine's own thread gets the
/// slots of its batches.
#[derive(Debug)]
pub struct HubSubmitter<'s, 'r, W: Wake> {
    orders: Producer<'r, Order<'s>>,
    outcomes: Consumer<'r, Outcome<'s>>,
    ended: &'r Ended,
    pool: Pool<'s>,
    waker: W,
    in_flight: usize,
}

/// Why a batch was not sent to the engine.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SendError<'s> {
    /// As many batches are on their way as the mailbox allows.
    #[error("{in_flight} batches are on their way, the most that this mailbox allows: take outcomes first")]
    Full {
        /// The batch, untouched.
        batch: Batch<'s>,
        /// How many batches are on their way.
        in_flight: usize,
    },
    /// The hub has been dropped.
    #[error("the engine is gone: no submitted batch is read any more")]
    ReaderGone {
        /// The batch, untouched.
        batch: Batch<'s>,
    },
}

impl SendError<'_> {
    /// The number of this error in docs/errors.md, for logs, metrics and callers in other
    /// languages.
    #[must_use]
    pub const fn code(&self) -> u32 {
        match self {
            Self::Full { .. } => 2100,
            Self::ReaderGone { .. } => 2101,
        }
    }
}

impl<'s> SendError<'s> {
    /// The batch, untouched.
    #[must_use]
    pub fn into_batch(self) -> Batch<'s> {
        match self {
            Self::Full { batch, .. } | Self::ReaderGone { batch } => batch,
        }
    }
}

impl<'s, W: Wake> HubSubmitter<'s, '_, W> {
    /// An empty batch of the engine's pool; `None` if all are in use or the hub has been dropped.
    #[inline]
    pub fn batch(&mut self) -> Option<Batch<'s>> {
        if self.is_orphaned() { None } else { self.pool.claim().map(Batch::new) }
    }

    /// Whether the hub has been dropped. Then no submitted batch is read any more.
    #[inline]
    #[must_use]
    pub fn is_orphaned(&self) -> bool {
        self.ended.hub.load(Ordering::Acquire)
    }

    /// Sends a batch to the engine, and wakes the engine if it sleeps.
    ///
    /// # Errors
    ///
    /// Too many batches are on their way, or the hub has been dropped. The batch comes back.
    #[inline]
    pub fn submit(&mut self, batch: Batch<'s>, deadline: Time) -> Result<(), SendError<'s>> {
        let in_flight = self.in_flight;
        if self.is_orphaned() {
            return Err(SendError::ReaderGone { batch });
        }
        if 2 * in_flight >= self.orders.capacity() {
            return Err(SendError::Full { batch, in_flight });
        }
        match self.orders.push(Order { batch, deadline }) {
            Ok(()) => {
                self.in_flight += 1;
                self.waker.wake();
                Ok(())
            }
            Err(Order { batch, .. }) => Err(SendError::Full { batch, in_flight }),
        }
    }

    /// The next outcome, if one has come back.
    #[inline]
    pub fn next_outcome(&mut self) -> Option<Outcome<'s>> {
        let Some(outcome) = self.outcomes.pop() else { return self.last_outcome() };
        if !matches!(outcome, Outcome::Overdue(..)) {
            self.in_flight -= 1;
        }
        Some(outcome)
    }

    /// Called when the ring of outcomes is empty. If the hub has ended, gives the batches on their
    /// way their last outcomes.
    fn last_outcome(&mut self) -> Option<Outcome<'s>> {
        if self.in_flight == 0 || !self.is_orphaned() {
            return None;
        }
        // An outcome may have arrived between the look into the ring and the hub's end. No further
        // one can arrive now.
        if let Some(outcome) = self.outcomes.pop() {
            self.in_flight -= usize::from(!matches!(outcome, Outcome::Overdue(..)));
            return Some(outcome);
        }
        // SAFETY: the hub has ended, which was acquired, so its consumer is gone. Consumers are
        // made only here, one after the other.
        let mut orders = unsafe { self.orders.take_over() };
        if let Some(Order { batch, .. }) = orders.pop() {
            self.in_flight -= 1;
            return Some(Outcome::Rejected(Rejected { batch, error: SubmitError::EngineGone }));
        }
        Some(Outcome::ReaderGone(core::mem::take(&mut self.in_flight)))
    }

    /// How many batches are on their way.
    #[must_use]
    pub const fn in_flight(&self) -> usize {
        self.in_flight
    }
}

impl<W: Wake> Drop for HubSubmitter<'_, '_, W> {
    fn drop(&mut self) {
        self.ended.submitter.store(true, Ordering::Release);
        self.waker.wake();
    }
}

/// The engine's end of one mailbox.
#[derive(Debug)]
struct MailboxEnd<'s, 'r> {
    orders: Consumer<'r, Order<'s>>,
    outcomes: Producer<'r, Outcome<'s>>,
    ended: &'r Ended,
    /// Whether the submitter has been dropped, so that its outcomes go to the engine's own thread.
    orphaned: bool,
}

/// The engine's ends of at most `M` mailboxes. An engine has one hub at a time: outcomes of batches
/// that were submitted through an earlier hub go to the engine's own thread.
#[derive(Debug)]
pub struct Hub<'s, 'r, const M: usize> {
    mailboxes: [Option<MailboxEnd<'s, 'r>>; M],
    open: usize,
    origins: Origins,
}

/// The hub has no place for another submitter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{limit} submitters are connected already, the most of this hub: give the hub more")]
pub struct HubFull {
    /// The most submitters of the hub.
    pub limit: usize,
}

impl HubFull {
    /// The number of this error in docs/errors.md, for logs, metrics and callers in other
    /// languages.
    #[must_use]
    pub const fn code(&self) -> u32 {
        2110
    }
}

impl<'s, 'r, const M: usize> Hub<'s, 'r, M> {
    /// A hub without submitters.
    #[must_use]
    #[allow(clippy::new_without_default, reason = "each engine has one hub")]
    pub const fn new() -> Self {
        const { assert!(M < u16::MAX as usize, "a hub has fewer than 65535 submitters") };
        // Engines are numbered from 1.
        Self { mailboxes: [const { None }; M], open: 0, origins: Origins { engine: 0, first: 0 } }
    }

    /// Makes a submitter for `engine` over `mailbox`, to be sent to its thread. Batches and
    /// outcomes that an earlier submitter left in the mailbox belong to the new one.
    ///
    /// # Errors
    ///
    /// The hub has `M` submitters already.
    pub fn submitter<P: Provider, E: EventSink, const N: usize>(
        &mut self,
        engine: &Engine<'s, P, E>,
        mailbox: &'r mut Mailbox<'s, N>,
    ) -> Result<HubSubmitter<'s, 'r, P::Waker>, HubFull> {
        let engine_end = self.mailboxes.get_mut(self.open).ok_or(HubFull { limit: M })?;
        self.open += 1;
        let (orders_in, orders_out) = mailbox.orders.split();
        let (mut outcomes_in, mut outcomes_out) = mailbox.outcomes.split();
        // An earlier submitter left no more batches than there is room for. `Overdue` outcomes of
        // its time are dropped.
        let mut in_flight = orders_out.len();
        for _ in 0..outcomes_out.len() {
            let left = outcomes_out.pop().filter(|outcome| !matches!(outcome, Outcome::Overdue(..)));
            in_flight += usize::from(left.is_some_and(|outcome| outcomes_in.push(outcome).is_ok()));
        }
        let ended = &mailbox.ended;
        ended.submitter.store(false, Ordering::Relaxed);
        ended.hub.store(false, Ordering::Relaxed);
        *engine_end = Some(MailboxEnd { orders: orders_out, outcomes: outcomes_in, ended, orphaned: false });
        Ok(HubSubmitter {
            orders: orders_in,
            outcomes: outcomes_out,
            ended,
            pool: engine.pool(),
            waker: engine.provider().waker(),
            in_flight,
        })
    }

    /// Submits the orders to the engine, polls it, and delivers the outcomes. `own` gets the
    /// outcomes of batches that the engine's own thread has submitted, and the slots of dropped
    /// submitters. Returns how many outcomes there were.
    #[inline]
    pub fn turn<P: Provider, E: EventSink>(
        &mut self,
        engine: &mut Engine<'s, P, E>,
        now: Time,
        mut own: impl FnMut(Outcome<'s>),
    ) -> usize {
        self.origins = engine.origins(self.origins, narrow(M));
        let first = self.origins.first;
        for (place, engine_end) in self.mailboxes[..self.open].iter_mut().enumerate() {
            let Some(engine_end) = engine_end else { continue };
            if !engine_end.orphaned && engine_end.ended.submitter.load(Ordering::Acquire) {
                engine_end.take_remaining(&mut own);
            }
            for _ in 0..ORDERS_PER_TURN {
                let Some(Order { mut batch, deadline }) = engine_end.orders.pop() else { break };
                batch.set_origin(first + narrow(place));
                if let Err(mut rejected) = engine.submit(batch, now, deadline) {
                    // The rejected batch gets the origin of the thread that submits it next.
                    rejected.batch.set_origin(0);
                    engine_end.deliver(Outcome::Rejected(rejected), &mut own);
                }
            }
        }
        engine.poll(now);
        let mut outcomes = 0;
        let mut deliver = |origin: u16, outcome| {
            outcomes += 1;
            let place = origin.checked_sub(first).map(usize::from);
            match place.and_then(|place| self.mailboxes.get_mut(place)?.as_mut()) {
                Some(engine_end) => engine_end.deliver(outcome, &mut own),
                None => own(outcome),
            }
        };
        while let Some((ticket, origin, tag)) = engine.next_overdue_of() {
            deliver(origin, Outcome::Overdue(ticket, tag));
        }
        while let Some(done) = engine.next_done() {
            deliver(done.origin(), Outcome::Done(done));
        }
        outcomes
    }
}

impl<'s> MailboxEnd<'s, '_> {
    #[inline]
    fn deliver(&mut self, outcome: Outcome<'s>, own: &mut impl FnMut(Outcome<'s>)) {
        if self.orphaned {
            return return_slots(outcome, own);
        }
        // At most N / 2 batches are on their way, with at most two outcomes each, and the ring has
        // room for N.
        let delivered = self.outcomes.push(outcome);
        debug_assert!(delivered.is_ok(), "a mailbox has room for the outcomes of all its batches");
    }

    /// Notes that the submitter has been dropped, and gives the outcomes that it has not taken to
    /// the engine's own thread.
    #[cold]
    fn take_remaining(&mut self, own: &mut impl FnMut(Outcome<'s>)) {
        self.orphaned = true;
        // SAFETY: the submitter set its flag after its last access, which was acquired, so its
        // consumer is gone. Another one is made only here, once.
        let mut left = unsafe { self.outcomes.take_over() };
        while let Some(outcome) = left.pop() {
            return_slots(outcome, own);
        }
    }
}

/// Gives the slots of an outcome whose submitter has been dropped to the engine's own thread, and
/// its batch back to the pool.
#[cold]
fn return_slots<'s>(outcome: Outcome<'s>, own: &mut impl FnMut(Outcome<'s>)) {
    match outcome {
        Outcome::Done(mut done) => done.pages().for_each(|page| own(Outcome::Orphan(page.slot))),
        Outcome::Rejected(mut rejected) => {
            rejected.batch.clear().for_each(|slot| own(Outcome::Orphan(slot)));
        }
        Outcome::Orphan(slot) => own(Outcome::Orphan(slot)),
        Outcome::Overdue(..) | Outcome::ReaderGone(_) => {}
    }
}

impl<const M: usize> Drop for Hub<'_, '_, M> {
    /// Tells the submitters that the hub has ended.
    fn drop(&mut self) {
        for engine_end in self.mailboxes.iter().flatten() {
            engine_end.ended.hub.store(true, Ordering::Release);
        }
    }
}
