//! What a submitter and the engine share: the two rings between them, and the submitter's end.
#![allow(
    unsafe_code,
    reason = "it is made in place; the submitter takes the orders that the hub left in a ring when it ended"
)]

use core::mem::MaybeUninit;
use core::sync::atomic::{AtomicBool, Ordering};
use core::task::Waker;

use crate::batch::pool::Pool;
use crate::batch::{Batch, Done, DonePage, Ticket};
use crate::class::Class;
use crate::engine::Rejected;
use crate::error::SubmitError;
use crate::memory::Slot;
use crate::provider::Wake;
use crate::ring::sleeper::Sleeper;
use crate::ring::{Consumer, Producer, Ring};
use crate::time::Time;

/// What a submitter asks of the engine.
#[derive(Debug)]
pub(super) enum Order<'s> {
    /// Read a batch until the deadline.
    Submit(Batch<'s>, Time),
    /// Give up a batch.
    Withdraw(Ticket),
    /// Give up the page at this position of a batch.
    WithdrawPage(Ticket, u16),
    /// Move a batch to a class.
    SetClass(Ticket, Class),
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
    /// A page has its final result before its batch is done, and here is its slot: the batch comes
    /// back without it. Only batches that [report their pages](Batch::report_pages) have such
    /// outcomes. Each page is told once: here, or with its batch. The number is the batch's tag.
    Page(Ticket, u64, DonePage),
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

impl Outcome<'_> {
    /// Whether it is the last outcome of a batch.
    pub(super) const fn is_last(&self) -> bool {
        matches!(self, Outcome::Done(_) | Outcome::Rejected(_))
    }

    /// How many pages that a submitter has counted as due are not due any more with this outcome.
    pub(super) fn pages_due(&self) -> usize {
        match self {
            Outcome::Page(..) => 1,
            Outcome::Done(done) => done.untold(),
            Outcome::Rejected(rejected) => rejected.batch.early_pages(),
            Outcome::Overdue(..) | Outcome::Orphan(_) | Outcome::ReaderGone(_) => 0,
        }
    }
}

/// The two rings between one submitter and the engine, for at most `N / 2` batches on their way,
/// and `NEWS - N` pages of them that are told before their batch is done; both are powers of two,
/// at least 2. A batch has at most two outcomes (overdue and done) beside those of its pages, so
/// the ring of outcomes never overflows.
#[derive(Debug)]
pub struct Mailbox<'s, const N: usize, const NEWS: usize = N> {
    pub(super) orders: Ring<Order<'s>, N>,
    pub(super) outcomes: Ring<Outcome<'s>, NEWS>,
    pub(super) shared: Shared,
}

/// What both sides of a mailbox know of each other.
#[derive(Debug)]
pub(super) struct Shared {
    /// Whether the submitter has ended. A side sets its flag after its last access to the rings.
    pub(super) submitter_ended: AtomicBool,
    pub(super) hub_ended: AtomicBool,
    /// Whether the submitter sleeps until an outcome comes, and how it is woken.
    pub(super) sleeper: Sleeper,
}

impl Shared {
    const fn new() -> Self {
        let (submitter_ended, hub_ended) = (AtomicBool::new(false), AtomicBool::new(false));
        Self { submitter_ended, hub_ended, sleeper: Sleeper::new() }
    }
}

impl<const N: usize> Mailbox<'_, N, N> {
    /// An empty mailbox without room for pages that are told before their batch is done.
    #[must_use]
    #[allow(clippy::new_without_default, reason = "a mailbox is a part of a storage, not a temporary value")]
    pub const fn new() -> Self {
        Self::with_room_for_pages()
    }
}

impl<'s, const N: usize, const NEWS: usize> Mailbox<'s, N, NEWS> {
    /// An empty mailbox.
    #[must_use]
    pub const fn with_room_for_pages() -> Self {
        const { assert!(N >= 2, "a mailbox holds at least one batch and its two outcomes") };
        const { assert!(NEWS >= N, "a mailbox holds the outcomes of its batches") };
        Self { orders: Ring::new(), outcomes: Ring::new(), shared: Shared::new() }
    }

    /// An empty mailbox, made in place. Of the room for batches and pages, which may be large,
    /// nothing is written.
    pub fn in_place(room: &mut MaybeUninit<Self>) -> &mut Self {
        const { assert!(N >= 2, "a mailbox holds at least one batch and its two outcomes") };
        const { assert!(NEWS >= N, "a mailbox holds the outcomes of its batches") };
        let this = room.as_mut_ptr();
        // SAFETY: `this` points at `room`, which is as large and aligned as a mailbox.
        let orders = unsafe { &raw mut (*this).orders }.cast::<MaybeUninit<Ring<Order<'s>, N>>>();
        // SAFETY: within `room`, which is borrowed exclusively; and a MaybeUninit may be any bytes.
        Ring::in_place(unsafe { &mut *orders });
        // SAFETY: as for `orders`.
        let outcomes = unsafe { &raw mut (*this).outcomes }.cast::<MaybeUninit<Ring<Outcome<'s>, NEWS>>>();
        // SAFETY: as for `orders`.
        Ring::in_place(unsafe { &mut *outcomes });
        // SAFETY: as for `orders`.
        let shared = unsafe { &raw mut (*this).shared };
        // SAFETY: within `room`, which is borrowed exclusively.
        unsafe { shared.write(Shared::new()) };
        // SAFETY: all of its fields have just been made.
        unsafe { room.assume_init_mut() }
    }
}

/// An application thread's end of a mailbox. When it is dropped, the engine's own thread gets the
/// slots of its batches.
#[derive(Debug)]
pub struct HubSubmitter<'s, 'r, W: Wake> {
    pub(super) orders: Producer<'r, Order<'s>>,
    pub(super) outcomes: Consumer<'r, Outcome<'s>>,
    pub(super) shared: &'r Shared,
    pub(super) pool: Pool<'s>,
    /// Wakes the engine.
    pub(super) waker: W,
    pub(super) in_flight: usize,
    /// Pages of batches on their way that report their pages, which have not come back: told, or
    /// with their batch.
    pub(super) pages_due: usize,
    /// The most of them.
    pub(super) room: usize,
}

/// Why a batch was not sent to the engine.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SendError<'s> {
    /// As many batches are on their way as the mailbox allows, or it is full of orders that the
    /// engine has not taken.
    #[error(
        "{in_flight} batches are on their way, or so many orders, that this mailbox holds no more: take outcomes first"
    )]
    Full {
        /// The batch, untouched.
        batch: Batch<'s>,
        /// How many batches are on their way.
        in_flight: usize,
    },
    /// The batch reports its pages, and the mailbox has no room for so many.
    #[error(
        "{pages} pages of the batch are to be told one by one, {due} of other batches are due, and this mailbox holds \
         {room}: take outcomes first, submit fewer pages, or declare a mailbox with more room"
    )]
    NoRoom {
        /// The batch, untouched.
        batch: Batch<'s>,
        /// How many pages the batch has.
        pages: usize,
        /// How many pages of other batches are on their way.
        due: usize,
        /// The most pages that are on their way together.
        room: usize,
    },
    /// The hub has been dropped.
    #[error("the engine is gone: no submitted batch is read any more")]
    ReaderGone {
        /// The batch, untouched.
        batch: Batch<'s>,
    },
}

/// Why an order about a batch was not sent to the engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OrderError {
    /// The mailbox is full of orders that the engine has not taken.
    #[error(
        "{orders} orders wait for the engine, the most of this mailbox: try again after the engine's next turn"
    )]
    Full {
        /// How many orders wait.
        orders: usize,
    },
    /// The hub has been dropped.
    #[error("the engine is gone: take the last outcomes")]
    ReaderGone,
}

impl OrderError {
    /// The number of this error in docs/errors.md, for logs, metrics and callers in other
    /// languages.
    #[must_use]
    pub const fn code(&self) -> u32 {
        match self {
            Self::Full { .. } => 2102,
            Self::ReaderGone => 2103,
        }
    }
}

impl SendError<'_> {
    /// The number of this error in docs/errors.md, for logs, metrics and callers in other
    /// languages.
    #[must_use]
    pub const fn code(&self) -> u32 {
        match self {
            Self::Full { .. } => 2100,
            Self::ReaderGone { .. } => 2101,
            Self::NoRoom { .. } => 2104,
        }
    }
}

impl<'s> SendError<'s> {
    /// The batch, untouched.
    #[must_use]
    pub fn into_batch(self) -> Batch<'s> {
        match self {
            Self::Full { batch, .. } | Self::NoRoom { batch, .. } | Self::ReaderGone { batch } => batch,
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
        self.shared.hub_ended.load(Ordering::Acquire)
    }

    /// Sends a batch to the engine, and wakes the engine if it sleeps. Returns the name of the
    /// batch, by which it can be withdrawn.
    ///
    /// # Errors
    ///
    /// Too many batches are on their way, or too many pages of batches that report their pages, or
    /// the hub has been dropped. The batch comes back.
    #[inline]
    pub fn submit(&mut self, batch: Batch<'s>, deadline: Time) -> Result<Ticket, SendError<'s>> {
        let (in_flight, ticket) = (self.in_flight, batch.ticket());
        if self.is_orphaned() {
            return Err(SendError::ReaderGone { batch });
        }
        if 2 * in_flight >= self.orders.capacity() {
            return Err(SendError::Full { batch, in_flight });
        }
        let (pages, due, room) = (batch.early_pages(), self.pages_due, self.room);
        if pages > room - due {
            return Err(SendError::NoRoom { batch, pages, due, room });
        }
        match self.orders.push(Order::Submit(batch, deadline)) {
            Ok(()) => {
                self.in_flight += 1;
                self.pages_due += pages;
                self.waker.wake();
                Ok(ticket)
            }
            Err(Order::Submit(batch, _)) => Err(SendError::Full { batch, in_flight }),
            // A ring that is full gives back what it was given.
            Err(_) => unreachable!(),
        }
    }

    /// Asks the engine to give up a batch of this submitter
    /// ([`Engine::withdraw`](crate::engine::Engine::withdraw)). The batch comes back as
    /// [`Outcome::Done`]. If it is done already, or is another submitter's, nothing happens.
    ///
    /// # Errors
    ///
    /// The mailbox is full of orders, or the hub has been dropped.
    pub fn withdraw(&mut self, ticket: Ticket) -> Result<(), OrderError> {
        self.order(Order::Withdraw(ticket))
    }

    /// As [`withdraw`](Self::withdraw), for the page at position `page` of the batch
    /// ([`Engine::withdraw_page`](crate::engine::Engine::withdraw_page)). If the batch has no such
    /// page, nothing happens.
    ///
    /// # Errors
    ///
    /// As [`withdraw`](Self::withdraw).
    pub fn withdraw_page(&mut self, ticket: Ticket, page: usize) -> Result<(), OrderError> {
        // No batch has as many pages as that.
        self.order(Order::WithdrawPage(ticket, u16::try_from(page).unwrap_or(u16::MAX)))
    }

    /// Asks the engine to move a batch of this submitter to a class
    /// ([`Engine::set_class`](crate::engine::Engine::set_class)).
    ///
    /// # Errors
    ///
    /// As [`withdraw`](Self::withdraw).
    pub fn set_class(&mut self, ticket: Ticket, class: Class) -> Result<(), OrderError> {
        self.order(Order::SetClass(ticket, class))
    }

    fn order(&mut self, order: Order<'s>) -> Result<(), OrderError> {
        if self.is_orphaned() {
            return Err(OrderError::ReaderGone);
        }
        let orders = self.orders.capacity();
        self.orders.push(order).map_err(|_| OrderError::Full { orders })?;
        self.waker.wake();
        Ok(())
    }

    /// Prepares to sleep until an outcome comes. If it returns true, no outcome is there, and
    /// `waker` is woken when one is or when the hub is dropped; the caller may sleep. If it returns
    /// false, an outcome or the hub's end is there, or `waker` is about to be woken: the caller
    /// looks again. At most one later call of `waker` is for nothing, if the caller does not sleep.
    ///
    /// It takes no lock and makes no system call. It clones `waker` unless it is the same as last
    /// time. Each outcome is announced after the engine has published it, at the end of
    /// [`Hub::turn`](super::Hub::turn).
    #[must_use = "the caller sleeps only if it is true"]
    pub fn prepare_sleep(&mut self, waker: &Waker) -> bool {
        let sleeper = &self.shared.sleeper;
        if !sleeper.prepare(waker) {
            return false;
        }
        let nothing = self.outcomes.is_empty() && !self.shared.hub_ended.load(Ordering::Acquire);
        if !nothing {
            sleeper.stay_awake();
        }
        nothing
    }

    /// The next outcome, if one has come back.
    #[inline]
    pub fn next_outcome(&mut self) -> Option<Outcome<'s>> {
        let Some(outcome) = self.outcomes.pop() else { return self.last_outcome() };
        Some(self.take(outcome))
    }

    /// Accounts for an outcome that has come back.
    #[inline]
    fn take<'o>(&mut self, outcome: Outcome<'o>) -> Outcome<'o> {
        self.in_flight -= usize::from(outcome.is_last());
        self.pages_due -= outcome.pages_due();
        outcome
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
            return Some(self.take(outcome));
        }
        // SAFETY: the hub has ended, which was acquired, so its consumer is gone. Consumers are
        // made only here, one after the other.
        let mut orders = unsafe { self.orders.take_over() };
        while let Some(order) = orders.pop() {
            if let Order::Submit(batch, _) = order {
                let rejected = Rejected { batch, error: SubmitError::EngineGone };
                return Some(self.take(Outcome::Rejected(rejected)));
            }
        }
        self.pages_due = 0;
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
        self.shared.submitter_ended.store(true, Ordering::Release);
        self.waker.wake();
    }
}
