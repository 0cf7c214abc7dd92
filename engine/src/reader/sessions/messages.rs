//! Messages between a reader and its sessions.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use kvrail_core::events::LaneWanted;
use kvrail_session::{
    Address, Attached, Layout, NothingInCommon, Offer, PeerKeys, ReaderDescription, SessionError,
    SessionLaneError,
};

/// A reader's request for a session: with which producer, for pages of which layout, and by when.
pub(crate) struct ConnectRequest {
    /// The session's number.
    pub(crate) number: u64,
    pub(crate) address: Address,
    pub(crate) keys: PeerKeys,
    /// What the producer is told of the reader.
    pub(crate) reader: ReaderDescription,
    /// The layout of the pages that are to be read: one of `reader`'s.
    pub(crate) wanted: Vec<Layout>,
    pub(crate) lanes_per_rail: usize,
    /// Lanes are made when [`open_lanes`](super::SessionHandle::open_lanes) asks for them.
    pub(crate) on_demand: bool,
    pub(crate) deadline: Instant,
}

/// News of a session, for its reader. `L` is an unopened lane.
pub(crate) enum SessionNews<L> {
    /// The session is established, with these first lanes.
    Agreed(Box<Agreed<L>>),
    /// The session was not established, or has nothing to read.
    Failed(SessionFailure),
    /// A first lane that came after the reader had been told of the session.
    LateLane(Attached<L>),
    /// The first lanes that were asked for have been made, or none could be.
    Opened(Result<(), SessionLaneError>),
    /// The result of a requested lane.
    Lane(LaneWanted, Result<Attached<L>, SessionLaneError>),
    /// The producer offers other pools than when the reader last looked.
    Offer,
    /// Something has happened to requests that were taken.
    Takings,
    /// The session has ended.
    Ended(Arc<SessionError>),
}

/// An established session.
pub(crate) struct Agreed<L> {
    pub(crate) offer: Offer,
    pub(crate) lanes: Vec<Result<Attached<L>, SessionLaneError>>,
}

/// Why there is no session.
pub(crate) enum SessionFailure {
    Session(Arc<SessionError>),
    NothingInCommon(NothingInCommon),
    /// No pool of the producer has a wanted layout; the layouts of those that it has.
    NoPool {
        wanted: Vec<Layout>,
        offered: Vec<Layout>,
    },
    /// The pools of the wanted layouts have no regions.
    NoRegions,
}

/// The news of all sessions of a reader: a queue, and how many news it has ever had, so that a poll
/// without news is one load.
pub(crate) struct Mailbox<L> {
    posted: AtomicU64,
    news: Mutex<Vec<(u64, SessionNews<L>)>>,
}

impl<L> Mailbox<L> {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self { posted: AtomicU64::new(0), news: Mutex::new(Vec::new()) })
    }

    fn post(&self, session: u64, news: SessionNews<L>) {
        self.news.lock().unwrap_or_else(PoisonError::into_inner).push((session, news));
        self.posted.fetch_add(1, Ordering::Release);
    }

    /// How many news have been posted so far.
    #[inline]
    pub(super) fn posted(&self) -> u64 {
        self.posted.load(Ordering::Acquire)
    }

    /// The news that nothing has taken yet, each with its session's number.
    pub(super) fn take(&self) -> Vec<(u64, SessionNews<L>)> {
        std::mem::take(&mut *self.news.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Makes the engine's `wait` return.
pub(super) type WakeEngine = Arc<dyn Fn() + Send + Sync>;

/// Reports the news of one session, and wakes the reader.
pub(super) struct Reporter<L> {
    session: u64,
    mailbox: Arc<Mailbox<L>>,
    wake: WakeEngine,
}

impl<L> Reporter<L> {
    pub(super) fn new(session: u64, mailbox: Arc<Mailbox<L>>, wake: WakeEngine) -> Self {
        Self { session, mailbox, wake }
    }

    pub(super) fn report(&self, news: SessionNews<L>) {
        self.mailbox.post(self.session, news);
        (self.wake)();
    }
}
