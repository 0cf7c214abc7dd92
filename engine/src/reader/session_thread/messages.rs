//! Messages between a reader and the threads of its sessions.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use kvrail_core::events::LaneWanted;
use kvrail_host::wake::EventFd;
use kvrail_session::{
    Address, Attached, Hello, LaneBlob, LaneDialer, LaneNumber, NodeName, NothingInCommon, Offer, PeerKey,
    SessionError, SessionLaneError,
};

/// The first order to a session's thread: which producer to connect to, and by when.
pub(crate) struct ConnectRequest {
    pub(crate) number: u64,
    pub(crate) address: Address,
    pub(crate) key: PeerKey,
    pub(crate) hello: Hello,
    pub(crate) lanes_per_rail: usize,
    pub(crate) deadline: Instant,
}

/// The events of all sessions of a reader: a queue, and how many events it has ever had, so that a
/// poll without a new event is one load.
pub(crate) struct Mailbox<L> {
    posted: AtomicU64,
    events: Mutex<Vec<(u64, SessionEvent<L>)>>,
}

impl<L> Mailbox<L> {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self { posted: AtomicU64::new(0), events: Mutex::new(Vec::new()) })
    }

    pub(super) fn post(&self, session: u64, event: SessionEvent<L>) {
        self.events.lock().unwrap_or_else(PoisonError::into_inner).push((session, event));
        self.posted.fetch_add(1, Ordering::Release);
    }

    /// How many events have been posted so far.
    #[inline]
    pub(crate) fn posted(&self) -> u64 {
        self.posted.load(Ordering::Acquire)
    }

    /// The events that nothing has taken yet, each with its session's number.
    pub(crate) fn take(&self) -> Vec<(u64, SessionEvent<L>)> {
        std::mem::take(&mut *self.events.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// An event of a session.
pub(crate) enum SessionEvent<L> {
    /// The session stands, with these first lanes.
    Agreed(Box<Agreed<L>>),
    /// The session was not made.
    Failed(SessionFailure),
    /// A first lane that came after the reader had been told of the session.
    LateLane(Attached<L>),
    /// The result of [`Order::Lane`].
    Lane(LaneWanted, Result<Attached<L>, SessionLaneError>),
    /// The session has ended.
    Ended(Arc<SessionError>),
}

/// A session that stands.
pub(crate) struct Agreed<L> {
    pub(crate) producer: NodeName,
    pub(crate) offer: Offer,
    pub(crate) lanes: Vec<Result<Attached<L>, SessionLaneError>>,
}

/// Why there is no session.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SessionFailure {
    #[error(transparent)]
    Session(Arc<SessionError>),
    #[error(transparent)]
    NothingInCommon(#[from] NothingInCommon),
}

/// An order to a session's thread.
pub(super) enum Order<D: LaneDialer> {
    /// From the reader: make a lane. [`SessionEvent::Lane`] or [`SessionEvent::Ended`] answers it.
    Lane(LaneWanted),
    /// From the reader: tell the producer to free its end of a lane.
    Release(LaneNumber),
    /// From the reader: end the session.
    HangUp,
    /// From a thread that makes a lane on this rail: this side's end.
    Prepared(usize, LaneBlob),
    /// From that thread: its dialer, and the lane or why it was not made.
    Made(usize, D, Result<D::UnopenedLane, SessionLaneError>),
}

/// Sends orders to a session's thread, and wakes it.
pub(super) struct OrderSender<D: LaneDialer> {
    orders: Sender<Order<D>>,
    /// Readable when there are orders.
    pub(super) wake: Arc<EventFd>,
}

impl<D: LaneDialer> Clone for OrderSender<D> {
    fn clone(&self) -> Self {
        Self { orders: self.orders.clone(), wake: Arc::clone(&self.wake) }
    }
}

impl<D: LaneDialer> OrderSender<D> {
    pub(super) fn new(orders: Sender<Order<D>>, wake: EventFd) -> Self {
        Self { orders, wake: Arc::new(wake) }
    }

    pub(super) fn send(&self, order: Order<D>) {
        // Fails only if the thread has ended, and then an event has said so.
        let _ = self.orders.send(order);
        self.wake.signal();
    }
}
