//! Many application threads feed one engine thread.
//!
//! Each submitter has a [`Mailbox`]: a ring of orders to the engine and a ring of outcomes back, both
//! wait-free. The engine's thread calls [`Hub::turn`] in its loop; a submitter that finds the engine
//! asleep wakes it.

use crate::batch::{Batch, Done, Ticket};
use crate::engine::{Engine, Rejected};
use crate::pool::Pool;
use crate::provider::{Provider, Wake};
use crate::spsc::{Consumer, Producer, Ring};
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
}

/// Both ways between one submitter and the engine: at most `N / 2` batches on their way, `N` a power
/// of two, at least 2. (An overdue batch has two outcomes, so the way back never overflows.)
#[derive(Debug)]
pub struct Mailbox<'s, const N: usize> {
    orders: Ring<Order<'s>, N>,
    outcomes: Ring<Outcome<'s>, N>,
}

impl<'s, const N: usize> Mailbox<'s, N> {
    /// An empty mailbox.
    #[must_use]
    #[allow(clippy::new_without_default, reason = "mailboxes live in storage, not in passing")]
    pub const fn new() -> Self {
        const { assert!(N >= 2, "a mailbox holds at least one batch and its two outcomes") };
        Self { orders: Ring::new(), outcomes: Ring::new() }
    }
}

/// An application thread's end.
#[derive(Debug)]
pub struct Submitter<'s, 'r, W> {
    orders: Producer<'r, Order<'s>>,
    outcomes: Consumer<'r, Outcome<'s>>,
    pool: Pool<'s>,
    waker: W,
    in_flight: usize,
}

/// A submitter's ring is full: it has as many batches on their way as its mailbox allows.
#[derive(Debug, thiserror::Error)]
#[error("{in_flight} batches are on their way, the most that this mailbox allows: take outcomes first")]
pub struct MailboxFull<'s> {
    /// The batch, untouched.
    pub batch: Batch<'s>,
    /// How many are on their way.
    pub in_flight: usize,
}

impl<'s, W: Wake> Submitter<'s, '_, W> {
    /// An empty batch of the engine's pool, or `None` when all are in use.
    #[inline]
    pub fn batch(&mut self) -> Option<Batch<'s>> {
        self.pool.claim().map(Batch::new)
    }

    /// Sends a batch to the engine, and wakes it if it sleeps.
    ///
    /// # Errors
    ///
    /// The batch, when too many are on their way.
    #[inline]
    pub fn submit(&mut self, batch: Batch<'s>, deadline: Time) -> Result<(), MailboxFull<'s>> {
        let in_flight = self.in_flight;
        if 2 * in_flight >= self.orders.capacity() {
            return Err(MailboxFull { batch, in_flight });
        }
        match self.orders.push(Order { batch, deadline }) {
            Ok(()) => {
                self.in_flight += 1;
                self.waker.wake();
                Ok(())
            }
            Err(Order { batch, .. }) => Err(MailboxFull { batch, in_flight }),
        }
    }

    /// What has come back, if anything.
    #[inline]
    pub fn next_outcome(&mut self) -> Option<Outcome<'s>> {
        let outcome = self.outcomes.pop()?;
        if !matches!(outcome, Outcome::Overdue(..)) {
            self.in_flight -= 1;
        }
        Some(outcome)
    }

    /// Batches on their way.
    #[must_use]
    pub const fn in_flight(&self) -> usize {
        self.in_flight
    }
}

/// The engine's end of one mailbox.
#[derive(Debug)]
struct Desk<'s, 'r> {
    orders: Consumer<'r, Order<'s>>,
    outcomes: Producer<'r, Outcome<'s>>,
}

/// The engine's ends of at most `M` mailboxes. An engine has one hub: what was submitted through another comes
/// back to whoever has the same place in this one.
#[derive(Debug)]
pub struct Hub<'s, 'r, const M: usize> {
    desks: [Option<Desk<'s, 'r>>; M],
    open: usize,
}

/// A hub has no place for another submitter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{limit} submitters are connected already, the most that this hub holds")]
pub struct HubFull {
    /// The maximum.
    pub limit: usize,
}

impl<'s, 'r, const M: usize> Hub<'s, 'r, M> {
    /// Without submitters.
    #[must_use]
    #[allow(clippy::new_without_default, reason = "a hub is made once per engine")]
    pub const fn new() -> Self {
        const { assert!(M < u16::MAX as usize, "a hub has fewer than 65535 submitters") };
        Self { desks: [const { None }; M], open: 0 }
    }

    /// A submitter for `engine`, over `mailbox`, to be sent to its thread.
    ///
    /// # Errors
    ///
    /// A hub with `M` submitters has no more.
    pub fn submitter<P: Provider, const N: usize>(
        &mut self,
        engine: &Engine<'s, P>,
        mailbox: &'r mut Mailbox<'s, N>,
    ) -> Result<Submitter<'s, 'r, P::Waker>, HubFull> {
        let desk = self.desks.get_mut(self.open).ok_or(HubFull { limit: M })?;
        self.open += 1;
        let (orders_in, orders_out) = mailbox.orders.split();
        let (outcomes_in, outcomes_out) = mailbox.outcomes.split();
        *desk = Some(Desk { orders: orders_out, outcomes: outcomes_in });
        Ok(Submitter {
            orders: orders_in,
            outcomes: outcomes_out,
            pool: engine.pool(),
            waker: engine.provider().waker(),
            in_flight: 0,
        })
    }

    /// Takes orders to the engine, polls it, and takes outcomes back. What the engine's own thread has
    /// submitted itself goes to `own`. Says how many outcomes there were.
    #[inline]
    pub fn turn<P: Provider>(
        &mut self,
        engine: &mut Engine<'s, P>,
        now: Time,
        mut own: impl FnMut(Outcome<'s>),
    ) -> usize {
        for (origin, desk) in self.desks[..self.open].iter_mut().enumerate() {
            let Some(desk) = desk else { continue };
            for _ in 0..ORDERS_PER_TURN {
                let Some(Order { mut batch, deadline }) = desk.orders.pop() else { break };
                batch.set_origin(origin as u16 + 1);
                if let Err(mut rejected) = engine.submit(batch, now, deadline) {
                    // Whoever submits it next is who waits for it.
                    rejected.batch.set_origin(0);
                    desk.tell(Outcome::Rejected(rejected));
                }
            }
        }
        engine.poll(now);
        let mut outcomes = 0;
        let mut tell = |origin: u16, outcome| {
            outcomes += 1;
            match usize::from(origin).checked_sub(1).and_then(|i| self.desks.get_mut(i)?.as_mut()) {
                Some(desk) => desk.tell(outcome),
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
    fn tell(&mut self, outcome: Outcome<'s>) {
        // N / 2 batches are on their way at most, with two outcomes each at most: there is room for
        // N. A submitter that is gone takes nothing out; then the batch goes back to the pool.
        drop(self.outcomes.push(outcome));
    }
}
