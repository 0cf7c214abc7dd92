//! Many application threads feed one engine thread.
//!
//! Each submitter has a [`Mailbox`]: a ring of orders to the engine and a ring of outcomes back,
//! both wait-free. The engine's thread calls [`Hub::turn`] in its loop; a submitter that finds the
//! engine asleep wakes it.
//!
//! Either side may end first. Of a submitter that is dropped, what it had on its way goes on, and
//! the slots come to the engine's own thread ([`Outcome::Orphan`]). Of a hub that is dropped,
//! submitters are told at their next call.
#![allow(unsafe_code, reason = "one side takes what the other, which has ended, left in a ring")]

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

/// Orders taken from one submitter before the next one's turn.
const ORDERS_PER_TURN: usize = 8;

/// A batch on its way to the engine.
#[derive(Debug)]
struct Order<'s> {
    batch: Batch<'s>,
    deadline: Time,
}

/// What comes back to a submitter.
#[derive(Debug)]
pub enum Outcome<'s> {
    /// A batch is done. The last word on it.
    Done(Done<'s>),
    /// The engine refused a batch. The last word on it.
    Rejected(Rejected<'s>),
    /// A batch's deadline has passed while the hardware still had READs of it; `Done` follows.
    Overdue(Ticket, u64),
    /// A slot of a submitter that is gone; comes to the engine's own thread.
    Orphan(Slot),
    /// To a submitter: the engine's side is gone, and with it so many batches that it had, slots
    /// included. The last outcome. (Batches that it had not taken yet come back as
    /// [`Rejected`](Outcome::Rejected) before.)
    ReaderGone(usize),
}

/// Both ways between one submitter and the engine: at most `N / 2` batches on their way, `N` a
/// power of two, at least 2. (An overdue batch has two outcomes, so the way back never overflows.)
#[derive(Debug)]
pub struct Mailbox<'s, const N: usize> {
    orders: Ring<Order<'s>, N>,
    outcomes: Ring<Outcome<'s>, N>,
    ended: Ended,
}

/// Which side has ended. It is set last of all that the side does to the rings.
#[derive(Debug)]
struct Ended {
    submitter: AtomicBool,
    hub: AtomicBool,
}

impl<'s, const N: usize> Mailbox<'s, N> {
    /// An empty mailbox.
    #[must_use]
    #[allow(clippy::new_without_default, reason = "mailboxes live in storage, not in passing")]
    pub const fn new() -> Self {
        const { assert!(N >= 2, "a mailbox holds at least one batch and its two outcomes") };
        let ended = Ended { submitter: AtomicBool::new(false), hub: AtomicBool::new(false) };
        Self { orders: Ring::new(), outcomes: Ring::new(), ended }
    }
}

/// An application thread's end. Dropped, it leaves its slots to the engine's own thread.
#[derive(Debug)]
pub struct HubSubmitter<'s, 'r, W: Wake> {
    orders: Producer<'r, Order<'s>>,
    outcomes: Consumer<'r, Outcome<'s>>,
    ended: &'r Ended,
    pool: Pool<'s>,
    waker: W,
    in_flight: usize,
}

/// A batch was not sent.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SendError<'s> {
    /// As many are on their way as the mailbox allows.
    #[error("{in_flight} batches are on their way, the most that this mailbox allows: take outcomes first")]
    Full {
        /// The batch, untouched.
        batch: Batch<'s>,
        /// How many are on their way.
        in_flight: usize,
    },
    /// The engine's side is gone.
    #[error("the reader is gone: nothing that is sent is read any more")]
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
    /// An empty batch of the engine's pool, or `None` when all are in use, or the engine is gone.
    #[inline]
    pub fn batch(&mut self) -> Option<Batch<'s>> {
        if self.is_orphaned() { None } else { self.pool.claim().map(Batch::new) }
    }

    /// Whether the engine's side is gone: then nothing that is sent is read any more.
    #[inline]
    #[must_use]
    pub fn is_orphaned(&self) -> bool {
        self.ended.hub.load(Ordering::Acquire)
    }

    /// Sends a batch to the engine, and wakes it if it sleeps.
    ///
    /// # Errors
    ///
    /// The batch, when too many are on their way, or the engine is gone.
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

    /// What has come back, if anything.
    #[inline]
    pub fn next_outcome(&mut self) -> Option<Outcome<'s>> {
        let Some(outcome) = self.outcomes.pop() else { return self.last_outcome() };
        if !matches!(outcome, Outcome::Overdue(..)) {
            self.in_flight -= 1;
        }
        Some(outcome)
    }

    /// Called when the ring is empty: finds out whether the hub has ended, and what becomes of the
    /// batches on their way.
    fn last_outcome(&mut self) -> Option<Outcome<'s>> {
        if self.in_flight == 0 || !self.is_orphaned() {
            return None;
        }
        // An outcome may have arrived between the look into the ring and the hub's end. No more can
        // arrive now.
        if let Some(outcome) = self.outcomes.pop() {
            self.in_flight -= usize::from(!matches!(outcome, Outcome::Overdue(..)));
            return Some(outcome);
        }
        // SAFETY: the hub has ended, which was acquired: its consumer is gone, and another one is
        // made here alone, one after the other.
        let mut orders = unsafe { self.orders.take_over() };
        if let Some(Order { batch, .. }) = orders.pop() {
            self.in_flight -= 1;
            return Some(Outcome::Rejected(Rejected { batch, error: SubmitError::EngineGone }));
        }
        Some(Outcome::ReaderGone(core::mem::take(&mut self.in_flight)))
    }

    /// Batches on their way.
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
struct Desk<'s, 'r> {
    orders: Consumer<'r, Order<'s>>,
    outcomes: Producer<'r, Outcome<'s>>,
    ended: &'r Ended,
    /// The submitter is gone: its outcomes are the engine's own thread's.
    orphaned: bool,
}

/// The engine's ends of at most `M` mailboxes. An engine has one hub at a time: what was submitted
/// through another comes to the engine's own thread.
#[derive(Debug)]
pub struct Hub<'s, 'r, const M: usize> {
    desks: [Option<Desk<'s, 'r>>; M],
    open: usize,
    origins: Origins,
}

/// A hub has no place for another submitter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{limit} submitters are connected already, the most that this hub holds")]
pub struct HubFull {
    /// The maximum.
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
    /// Without submitters.
    #[must_use]
    #[allow(clippy::new_without_default, reason = "a hub is made once per engine")]
    pub const fn new() -> Self {
        const { assert!(M < u16::MAX as usize, "a hub has fewer than 65535 submitters") };
        // No engine is number 0.
        Self { desks: [const { None }; M], open: 0, origins: Origins { engine: 0, first: 0 } }
    }

    /// A submitter for `engine`, over `mailbox`, to be sent to its thread. What an earlier one has
    /// left in the mailbox is on its way to this one.
    ///
    /// # Errors
    ///
    /// A hub with `M` submitters has no more.
    pub fn submitter<P: Provider, E: EventSink, const N: usize>(
        &mut self,
        engine: &Engine<'s, P, E>,
        mailbox: &'r mut Mailbox<'s, N>,
    ) -> Result<HubSubmitter<'s, 'r, P::Waker>, HubFull> {
        let desk = self.desks.get_mut(self.open).ok_or(HubFull { limit: M })?;
        self.open += 1;
        let (orders_in, orders_out) = mailbox.orders.split();
        let (mut outcomes_in, mut outcomes_out) = mailbox.outcomes.split();
        // An earlier submitter had no more on their way than there is room for. Who was late then
        // is not told now.
        let mut in_flight = orders_out.len();
        for _ in 0..outcomes_out.len() {
            let left = outcomes_out.pop().filter(|outcome| !matches!(outcome, Outcome::Overdue(..)));
            in_flight += usize::from(left.is_some_and(|outcome| outcomes_in.push(outcome).is_ok()));
        }
        let ended = &mailbox.ended;
        ended.submitter.store(false, Ordering::Relaxed);
        ended.hub.store(false, Ordering::Relaxed);
        *desk = Some(Desk { orders: orders_out, outcomes: outcomes_in, ended, orphaned: false });
        Ok(HubSubmitter {
            orders: orders_in,
            outcomes: outcomes_out,
            ended,
            pool: engine.pool(),
            waker: engine.provider().waker(),
            in_flight,
        })
    }

    /// Takes orders to the engine, polls it, and takes outcomes back. What the engine's own thread
    /// has submitted itself goes to `own`, and so do the slots of submitters that are gone. Says
    /// how many outcomes there were.
    #[inline]
    pub fn turn<P: Provider, E: EventSink>(
        &mut self,
        engine: &mut Engine<'s, P, E>,
        now: Time,
        mut own: impl FnMut(Outcome<'s>),
    ) -> usize {
        self.origins = engine.origins(self.origins, narrow(M));
        let first = self.origins.first;
        for (place, desk) in self.desks[..self.open].iter_mut().enumerate() {
            let Some(desk) = desk else { continue };
            if !desk.orphaned && desk.ended.submitter.load(Ordering::Acquire) {
                desk.inherit(&mut own);
            }
            for _ in 0..ORDERS_PER_TURN {
                let Some(Order { mut batch, deadline }) = desk.orders.pop() else { break };
                batch.set_origin(first + narrow(place));
                if let Err(mut rejected) = engine.submit(batch, now, deadline) {
                    // The thread that submits it next is the one that waits for it.
                    rejected.batch.set_origin(0);
                    desk.tell(Outcome::Rejected(rejected), &mut own);
                }
            }
        }
        engine.poll(now);
        let mut outcomes = 0;
        let mut tell = |origin: u16, outcome| {
            outcomes += 1;
            let place = origin.checked_sub(first).map(usize::from);
            match place.and_then(|place| self.desks.get_mut(place)?.as_mut()) {
                Some(desk) => desk.tell(outcome, &mut own),
                None => own(outcome),
            }
        };
        while let Some((ticket, origin, tag)) = engine.next_overdue_of() {
            tell(origin, Outcome::Overdue(ticket, tag));
        }
        while let Some(done) = engine.next_done() {
            tell(done.origin(), Outcome::Done(done));
        }
        outcomes
    }
}

impl<'s> Desk<'s, '_> {
    #[inline]
    fn tell(&mut self, outcome: Outcome<'s>, own: &mut impl FnMut(Outcome<'s>)) {
        if self.orphaned {
            return give_away(outcome, own);
        }
        // N / 2 batches are on their way at most, with two outcomes each at most: there is room for
        // N.
        let told = self.outcomes.push(outcome);
        debug_assert!(told.is_ok(), "a mailbox has room for the outcomes of all its batches");
    }

    /// The submitter is gone: what it has not taken goes to the engine's own thread, as all that is
    /// to come does.
    #[cold]
    fn inherit(&mut self, own: &mut impl FnMut(Outcome<'s>)) {
        self.orphaned = true;
        // SAFETY: the submitter's last act was to say that it ends, which was acquired: its
        // consumer is gone, and another one is made here, once.
        let mut left = unsafe { self.outcomes.take_over() };
        while let Some(outcome) = left.pop() {
            give_away(outcome, own);
        }
    }
}

/// Gives the slots of an outcome whose submitter is gone to the engine's own thread, and its batch
/// back to the pool.
#[cold]
fn give_away<'s>(outcome: Outcome<'s>, own: &mut impl FnMut(Outcome<'s>)) {
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
    /// Tells the submitters.
    fn drop(&mut self) {
        for desk in self.desks.iter().flatten() {
            desk.ended.hub.store(true, Ordering::Release);
        }
    }
}
