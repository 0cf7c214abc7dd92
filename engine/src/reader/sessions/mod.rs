//! The sessions of a reader. One thread serves the connections of all of them, and a bounded number
//! of others does what may block.
//!
//! | file | what |
//! |---|---|
//! | `attempt.rs` | which address and which key are tried next |
//! | `run.rs` | a session: its connections, and the threads that call it |
//! | `state.rs` | how far it is |
//! | `lanes.rs` | which lanes it makes |
//! | `rail.rs` | what it knows of one rail |
//! | `jobs.rs` | the steps of making a lane that may block |
//! | `messages.rs` | the requests and the news of a session |
//!
//! # Threads
//!
//! The reactor's thread never blocks. What may block (resolving a name, pairing rails, making a
//! reader's end of a lane, dropping one) is a job of [`Workers`]. No job waits for the peer.
//!
//! The jobs of one rail get [`JOBS_AT_ONCE`] threads, and there are so many threads that every rail
//! can have as many: a rail that hangs takes no thread from another. A session makes one lane at a
//! time on each rail, so a peer that hangs takes at most one of a rail's threads, and the other
//! thread makes lanes to other peers. Where two peers hang at the same time on the same rail, the
//! others wait for them there; the time of a lane that waits has not begun. Threads are started
//! when there is something to do: with one rail there are at most seven, the reactor's included,
//! with 16 rails 37, however many sessions there are.

mod attempt;
mod jobs;
mod lanes;
mod messages;
mod rail;
mod run;
mod state;

use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};
use std::{fmt, io};

use kvrail_core::events::LaneWanted;
use kvrail_core::provider::Wake;
use kvrail_host::descriptors::OwnerProcess;
use kvrail_host::log_limit::LogLimit;
use kvrail_host::reactor::Reactor;
use kvrail_host::workers::Workers;
use kvrail_session::handover::{
    Block, Class, GiveUpReason, HandoverNumber, RequestId, TakingError, TakingEvent,
};
use kvrail_session::{LaneNumber, Pool, Session, TakeError};

pub(super) use self::jobs::{DialerMaker, SessionDialer};
pub(super) use self::messages::{Agreed, ConnectRequest, SessionFailure, SessionNews};

use self::jobs::OTHER_KEYS;
use self::messages::{Mailbox, Reporter, WakeEngine};
use self::run::{Common, ReaderSession};

/// Jobs of one key at a time.
const JOBS_AT_ONCE: usize = 2;

/// All sessions of a reader. Threads are started at the first one.
pub(super) struct Sessions<D: SessionDialer> {
    mailbox: Arc<Mailbox<D::UnopenedLane>>,
    /// How many of the mailbox's news have been taken.
    taken: u64,
    wake: WakeEngine,
    dialers: DialerMaker<D>,
    rails: usize,
    threads: Option<Threads<D>>,
}

struct Threads<D: SessionDialer> {
    common: Arc<Common<D>>,
    reactor: Reactor,
}

impl<D: SessionDialer> Sessions<D> {
    /// No session, of a reader with this many rails. `waker` wakes its engine.
    pub(super) fn new(rails: usize, dialers: DialerMaker<D>, waker: impl Wake + 'static) -> Self {
        let wake: WakeEngine = Arc::new(move || waker.wake());
        Self { mailbox: Mailbox::new(), taken: 0, wake, dialers, rails, threads: None }
    }

    /// Whether there are news that nothing has taken yet. One load.
    #[inline]
    pub(super) fn has_news(&self) -> bool {
        self.mailbox.posted() != self.taken
    }

    /// The news that nothing has taken yet, each with its session's number.
    pub(super) fn take_news(&mut self) -> Vec<(u64, SessionNews<D::UnopenedLane>)> {
        self.taken = self.mailbox.posted();
        self.mailbox.take()
    }

    /// Begins a session. News tell whether it is established, by the request's deadline.
    ///
    /// # Errors
    ///
    /// The system has no thread or descriptor left.
    pub(super) fn begin(&mut self, request: ConnectRequest) -> io::Result<SessionHandle<D>> {
        let common = Arc::clone(&self.threads()?.common);
        let (mailbox, wake) = (Arc::clone(&self.mailbox), Arc::clone(&self.wake));
        let reporter = Reporter::new(request.number, mailbox, wake);
        let session = ReaderSession::begin(common, reporter, request)?;
        Ok(SessionHandle { session, owner: OwnerProcess::current(), open: true })
    }

    fn threads(&mut self) -> io::Result<&Threads<D>> {
        let threads = match self.threads.take() {
            Some(threads) => threads,
            None => {
                let reactor = Reactor::start("kvrail-peers")?;
                let most = JOBS_AT_ONCE * (self.rails + OTHER_KEYS);
                let common = Common {
                    handle: reactor.handle(),
                    workers: Workers::new("kvrail-dialers", most, JOBS_AT_ONCE),
                    dialers: Arc::clone(&self.dialers),
                    rails: self.rails,
                    log: LogLimit::new(),
                };
                Threads { common: Arc::new(common), reactor }
            }
        };
        Ok(self.threads.insert(threads))
    }

    /// Ends all threads. Sessions that have been told to end may say so until `deadline`. Returns
    /// whether all threads have ended; the others end when their transport lets them.
    pub(super) fn stop(&mut self, deadline: Instant) -> bool {
        let Some(Threads { common, reactor }) = self.threads.take() else { return true };
        let connections = reactor.stop(deadline);
        connections && common.workers.stop(deadline) == 0
    }
}

/// A session, as the reader sees it. Dropping it ends the session.
pub(super) struct SessionHandle<D: SessionDialer> {
    session: Arc<ReaderSession<D>>,
    /// In a child of a fork a lock of the session may be taken for ever.
    owner: OwnerProcess,
    open: bool,
}

impl<D: SessionDialer> SessionHandle<D> {
    /// Asks for a lane. News answer: the lane's, or the session's end.
    pub(super) fn request_lane(&self, wanted: LaneWanted) {
        self.session.request_lane(wanted);
    }

    /// Has the first lanes of the peer made. News tell of each, and when that is over.
    pub(super) fn open_lanes(&self) {
        self.session.open_lanes();
    }

    /// Tells the producer to free its end of this lane.
    pub(super) fn release(&self, lane: LaneNumber) {
        self.session.release(lane);
    }

    /// Takes a request. Like the four calls below it gives `None` if the session has ended.
    pub(super) fn take(
        &self,
        request: RequestId,
        class: Class,
        wait: Duration,
    ) -> Option<Result<HandoverNumber, TakeError>> {
        self.session.say(|session| session.take(request, class, wait, Instant::now()))
    }

    /// This side has what it wants of a request.
    pub(super) fn done(&self, number: HandoverNumber) -> Option<Result<(), TakingError>> {
        self.session.say(|session| session.done(number))
    }

    /// This side wants no more of a request.
    pub(super) fn give_up(
        &self,
        number: HandoverNumber,
        reason: GiveUpReason,
    ) -> Option<Result<(), TakingError>> {
        self.session.say(|session| session.give_up(number, reason))
    }

    /// The pools that the producer offers now. `None`: the session has ended.
    pub(super) fn pools(&self) -> Option<Vec<Pool>> {
        self.session.pools()
    }

    /// The next event of a request that was taken.
    pub(super) fn next_taking_event(&self) -> Option<TakingEvent> {
        self.session.look(Session::next_taking_event).flatten()
    }

    /// The blocks of a request at these places, as far as they are known.
    pub(super) fn blocks(&self, number: HandoverNumber, places: Range<u32>) -> Vec<Block> {
        let blocks = self.session.look(|session| {
            let all = session.blocks(number);
            let end = all.len().min(places.end as usize);
            all.get(places.start as usize..end).unwrap_or_default().to_vec()
        });
        blocks.unwrap_or_default()
    }

    /// Ends the session. In a child of a fork it does nothing.
    pub(super) fn hang_up(&mut self) {
        if std::mem::replace(&mut self.open, false) && self.owner.is_current() {
            self.session.hang_up();
        }
    }
}

impl<D: SessionDialer> Drop for SessionHandle<D> {
    fn drop(&mut self) {
        self.hang_up();
    }
}

impl<D: SessionDialer> fmt::Debug for SessionHandle<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionHandle").field("open", &self.open).finish_non_exhaustive()
    }
}
