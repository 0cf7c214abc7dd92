//! Many application threads feed one engine thread.
//!
//! Each submitter has a [`Mailbox`]: a ring of orders to the engine and a ring of outcomes back,
//! both wait-free. The engine's thread calls [`Hub::turn`] in its loop; a submitter that finds the
//! engine asleep wakes it, and the engine wakes a submitter that sleeps
//! ([`HubSubmitter::prepare_sleep`]).
//!
//! A submitter is told the pages of a batch one by one, as they arrive, if the batch
//! [reports its pages](crate::batch::Batch::report_pages). They come through the same ring as all
//! other outcomes, in front of their batch's [`Outcome::Done`], each with its slot: the ring hands
//! slots over as it hands batches over, wakes the submitter by the same rule, and a dropped
//! submitter's pages and batches are found in one place. How many pages may be on their way is a
//! number of the mailbox's type. The submitter counts them when it submits, a page for each page of
//! the batch, until the page or the end of its batch has come back; it refuses a batch for which
//! there is no room ([`SendError::NoRoom`]). So the ring never overflows, the engine never waits
//! for a submitter, and no page is held back. Inside the engine the pages to be told are a list
//! through the pages themselves, which every turn empties. A batch that does not report its pages
//! touches none of this.
//!
//! Either side may end first. When a submitter is dropped, its batches go on, and their slots come
//! to the engine's own thread ([`Outcome::Orphan`]). When the hub is dropped, submitters learn it
//! from their next call.
#![allow(unsafe_code, reason = "one side takes the items that the other left in a ring when it ended")]

mod mailbox;

use core::sync::atomic::Ordering;

pub use self::mailbox::{HubSubmitter, Mailbox, OrderError, Outcome, SendError};

use self::mailbox::{Order, Shared};
use crate::batch::in_flight::Origins;
use crate::engine::Engine;
use crate::events::EventSink;
use crate::limits::narrow;
use crate::provider::Provider;
use crate::ring::{Consumer, Producer};
use crate::time::Time;

/// The most orders that are taken from one submitter before the next submitter has its turn.
const ORDERS_PER_TURN: usize = 8;

/// The engine's end of one mailbox.
#[derive(Debug)]
struct MailboxEnd<'s, 'r> {
    orders: Consumer<'r, Order<'s>>,
    outcomes: Producer<'r, Outcome<'s>>,
    shared: &'r Shared,
    /// Whether the submitter has been dropped, so that its outcomes go to the engine's own thread.
    orphaned: bool,
    /// Whether outcomes have been delivered since the submitter was last woken.
    delivered: bool,
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
    pub fn submitter<P: Provider, E: EventSink, const N: usize, const NEWS: usize>(
        &mut self,
        engine: &Engine<'s, P, E>,
        mailbox: &'r mut Mailbox<'s, N, NEWS>,
    ) -> Result<HubSubmitter<'s, 'r, P::Waker>, HubFull> {
        let engine_end = self.mailboxes.get_mut(self.open).ok_or(HubFull { limit: M })?;
        self.open += 1;
        let (mut orders_in, mut orders_out) = mailbox.orders.split();
        let (mut outcomes_in, mut outcomes_out) = mailbox.outcomes.split();
        // An earlier submitter left no more batches than there is room for. Its other orders, and
        // `Overdue` outcomes of its time, are dropped.
        let (mut in_flight, mut pages_due) = (0, 0);
        for _ in 0..orders_out.len() {
            if let Some(Order::Submit(batch, deadline)) = orders_out.pop() {
                (in_flight, pages_due) = (in_flight + 1, pages_due + batch.early_pages());
                let put = orders_in.push(Order::Submit(batch, deadline));
                debug_assert!(put.is_ok(), "the order was in this ring before");
            }
        }
        for _ in 0..outcomes_out.len() {
            if let Some(outcome) =
                outcomes_out.pop().filter(|outcome| !matches!(outcome, Outcome::Overdue(..)))
            {
                in_flight += usize::from(outcome.is_last());
                pages_due += outcome.pages_due();
                let put = outcomes_in.push(outcome);
                debug_assert!(put.is_ok(), "the outcome was in this ring before");
            }
        }
        let shared = &mailbox.shared;
        shared.submitter_ended.store(false, Ordering::Relaxed);
        shared.hub_ended.store(false, Ordering::Relaxed);
        let (orphaned, delivered) = (false, false);
        *engine_end =
            Some(MailboxEnd { orders: orders_out, outcomes: outcomes_in, shared, orphaned, delivered });
        Ok(HubSubmitter {
            orders: orders_in,
            outcomes: outcomes_out,
            shared,
            pool: engine.pool(),
            waker: engine.provider().waker(),
            in_flight,
            pages_due,
            room: NEWS - N,
        })
    }

    /// Submits the orders to the engine, polls it, and delivers the outcomes. `own` gets the
    /// outcomes of batches that the engine's own thread has submitted, and the slots of dropped
    /// submitters. Pages of these batches that are told before their batch come by
    /// [`Engine::next_arrival`] as ever. Returns how many outcomes there were.
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
            if !engine_end.orphaned && engine_end.shared.submitter_ended.load(Ordering::Acquire) {
                engine_end.take_remaining(&mut own);
            }
            for _ in 0..ORDERS_PER_TURN {
                let Some(order) = engine_end.orders.pop() else { break };
                let origin = first + narrow(place);
                let Order::Submit(mut batch, deadline) = order else {
                    change(engine, origin, &order, now);
                    continue;
                };
                batch.set_origin(origin);
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
        while let Some((origin, ticket, tag, page)) = engine.next_early() {
            deliver(origin, Outcome::Page(ticket, tag, page));
        }
        while let Some((ticket, origin, tag)) = engine.next_overdue_of() {
            deliver(origin, Outcome::Overdue(ticket, tag));
        }
        while let Some(done) = engine.next_done() {
            deliver(done.origin(), Outcome::Done(done));
        }
        for engine_end in self.mailboxes[..self.open].iter_mut().flatten() {
            if core::mem::take(&mut engine_end.delivered) {
                engine_end.shared.sleeper.wake();
            }
        }
        outcomes
    }

    /// Whether there is something for another turn: orders that the last one has left, or that have
    /// come since, or a submitter that has been dropped. A caller that is about to sleep asks this,
    /// since the submitters that sent these orders have woken it already.
    pub fn has_orders(&mut self) -> bool {
        self.mailboxes[..self.open].iter_mut().flatten().any(|engine_end| {
            let dropped = !engine_end.orphaned && engine_end.shared.submitter_ended.load(Ordering::Acquire);
            dropped || !engine_end.orders.is_empty()
        })
    }
}

/// Does to a batch what its submitter has ordered. A batch that is done meanwhile, or is another
/// submitter's, stays as it is.
#[cold]
fn change<P: Provider, E: EventSink>(
    engine: &mut Engine<'_, P, E>,
    origin: u16,
    order: &Order<'_>,
    now: Time,
) {
    let (Order::Withdraw(ticket) | Order::WithdrawPage(ticket, _) | Order::SetClass(ticket, _)) = *order
    else {
        return;
    };
    if engine.origin_of(ticket) != Some(origin) {
        return;
    }
    // The batch is in flight. Where it has no such page, the order has no effect.
    match *order {
        Order::Withdraw(_) => _ = engine.withdraw(ticket, now),
        Order::WithdrawPage(_, page) => _ = engine.withdraw_page(ticket, page.into(), now),
        Order::SetClass(_, class) => _ = engine.set_class(ticket, class, now),
        Order::Submit(..) => {}
    }
}

impl<'s> MailboxEnd<'s, '_> {
    #[inline]
    fn deliver(&mut self, outcome: Outcome<'s>, own: &mut impl FnMut(Outcome<'s>)) {
        if self.orphaned {
            return return_slots(outcome, own);
        }
        // At most N / 2 batches are on their way, with at most two outcomes each, and no more pages
        // than the submitter has counted as due; the ring has room for all of them.
        let delivered = self.outcomes.push(outcome);
        self.delivered = true;
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
        Outcome::Page(.., page) => own(Outcome::Orphan(page.slot)),
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
            engine_end.shared.hub_ended.store(true, Ordering::Release);
            engine_end.shared.sleeper.wake();
        }
    }
}
