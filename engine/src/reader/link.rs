//! A thread per session, and one for each lane that is being made: whatever blocks, blocks there.
//!
//! Lanes of one rail are made one after the other, those of different rails side by side, so that a
//! slow rail delays no other. The session's thread itself never waits for a transport, and goes on
//! telling the producer that this side lives.

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use std::{fmt, io};

use kvrail_core::events::LaneWanted;
use kvrail_core::provider::Wake;
use kvrail_session::{
    Address, Attached, Fabric, Hello, LaneBlob, LaneError, LaneNumber, NodeName, NothingInCommon, Offer,
    PeerKey, SessionError,
};
use rustix::event::{EventfdFlags, eventfd};

use super::session_thread::run;

/// What a reader's threads tell it: a queue, and a number that says when to look into it, so that a
/// poll without news is one load.
pub(crate) struct Mailbox<L> {
    count: AtomicU64,
    letters: Mutex<Vec<(u64, News<L>)>>,
}

impl<L> Mailbox<L> {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self { count: AtomicU64::new(0), letters: Mutex::new(Vec::new()) })
    }

    fn post(&self, link: u64, news: News<L>) {
        self.letters.lock().unwrap_or_else(PoisonError::into_inner).push((link, news));
        self.count.fetch_add(1, Ordering::Release);
    }

    /// How many letters there have been.
    #[inline]
    pub(crate) fn count(&self) -> u64 {
        self.count.load(Ordering::Acquire)
    }

    pub(crate) fn take(&self) -> Vec<(u64, News<L>)> {
        std::mem::take(&mut *self.letters.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// What happened at a session.
pub(crate) enum News<L> {
    /// It stands, and these are its first lanes.
    Agreed(Box<Agreed<L>>),
    /// It does not stand.
    Failed(LinkError),
    /// A first lane that came after the reader had been told of the session.
    More(Attached<L>),
    /// A lane was asked for; this became of it.
    Lane(LaneWanted, Result<Attached<L>, LaneError>),
    /// It is over.
    Ended(Arc<SessionError>),
}

/// A session that stands.
pub(crate) struct Agreed<L> {
    pub(crate) producer: NodeName,
    pub(crate) offer: Offer,
    pub(crate) lanes: Vec<Result<Attached<L>, LaneError>>,
}

/// Why there is no session.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LinkError {
    #[error(transparent)]
    Session(Arc<SessionError>),
    #[error(transparent)]
    Nothing(#[from] NothingInCommon),
}

/// What a session's thread is told.
pub(super) enum Order<F: Fabric> {
    /// By the reader: to make a lane. An answer comes, or the session's end does.
    Lane(LaneWanted),
    /// By the reader: to tell the producer that it need not keep its end of a lane.
    Release(LaneNumber),
    /// By the reader: to end the session.
    HangUp,
    /// By a thread that makes a lane on this rail: this side's end.
    Prepared(usize, LaneBlob),
    /// By the same: its result, and the dialer back.
    Made(usize, F, Result<F::Lane, LaneError>),
}

/// What reaches a session's thread.
pub(super) struct Hand<F: Fabric> {
    orders: Sender<Order<F>>,
    pub(super) bell: Arc<OwnedFd>,
}

impl<F: Fabric> Clone for Hand<F> {
    fn clone(&self) -> Self {
        Self { orders: self.orders.clone(), bell: Arc::clone(&self.bell) }
    }
}

impl<F: Fabric> Hand<F> {
    pub(super) fn order(&self, order: Order<F>) {
        // A thread that has ended has said so.
        let _ = self.orders.send(order);
        // Fails only when the counter is full, and then it is readable.
        let _ = rustix::io::write(&self.bell, &1_u64.to_ne_bytes());
    }
}

/// The reader's hand on a session's thread. Dropping it ends the session.
pub(crate) struct Link<F: Fabric> {
    /// `None`: the thread has been told to end.
    hand: Option<Hand<F>>,
    thread: Option<JoinHandle<()>>,
}

/// What a link is to do first.
pub(crate) struct Errand {
    pub(crate) number: u64,
    pub(crate) address: Address,
    pub(crate) key: PeerKey,
    pub(crate) hello: Hello,
    pub(crate) lanes_per_rail: usize,
    pub(crate) deadline: Instant,
}

impl<F> Link<F>
where
    F: Fabric + Send + 'static,
    F::Lane: Send + 'static,
{
    /// Starts the thread, with one dialer more than there are rails.
    pub(crate) fn start(
        errand: Errand,
        dialers: Vec<F>,
        mailbox: Arc<Mailbox<F::Lane>>,
        waker: impl Wake + 'static,
    ) -> io::Result<Self> {
        let (orders, told) = channel();
        let bell = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
        let hand = Hand { orders, bell };
        let own = hand.clone();
        let number = errand.number;
        let thread = std::thread::Builder::new().name(format!("kvrail-link-{number}")).spawn(move || {
            let tell = |news| {
                mailbox.post(number, news);
                waker.wake();
            };
            run(errand, dialers, &told, &own, tell);
        })?;
        Ok(Self { hand: Some(hand), thread: Some(thread) })
    }
}

impl<F: Fabric> Link<F> {
    /// Asks for a lane. An answer comes, or the session's end does.
    pub(crate) fn want(&self, lane: LaneWanted) {
        self.order(Order::Lane(lane));
    }

    /// The producer need not keep its end of this lane.
    pub(crate) fn release(&self, lane: LaneNumber) {
        self.order(Order::Release(lane));
    }

    fn order(&self, order: Order<F>) {
        if let Some(hand) = &self.hand {
            hand.order(order);
        }
    }

    /// Tells the thread to end. It does at once, unless it is connecting.
    pub(crate) fn hang_up(&mut self) {
        if let Some(hand) = self.hand.take() {
            hand.order(Order::HangUp);
        }
    }

    /// Waits for the thread, and says whether it has ended.
    pub(crate) fn join(&mut self, deadline: Instant) -> bool {
        self.hang_up();
        while let Some(thread) = &self.thread {
            if thread.is_finished() {
                // It has nothing to return, and a panic has been printed.
                let _ = self.thread.take().map(JoinHandle::join);
                return true;
            }
            if Instant::now() >= deadline {
                return false;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        true
    }
}

impl<F: Fabric> Drop for Link<F> {
    fn drop(&mut self) {
        self.hang_up();
    }
}

impl<F: Fabric> fmt::Debug for Link<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link").field("open", &self.hand.is_some()).finish_non_exhaustive()
    }
}
