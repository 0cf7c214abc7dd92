//! A thread per session: whatever blocks, blocks here.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use std::{fmt, io};

use kvrail_core::engine::LaneWanted;
use kvrail_core::provider::Wake;
use kvrail_session::{
    Address, Attached, Fabric, Hello, LaneError, LaneNumber, NodeName, NothingInCommon, Offer, PeerKey,
    RailPair, Session, SessionError, connect,
};
use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::io::Errno;

/// How long the making of one lane may take.
const LANE_PATIENCE: Duration = Duration::from_secs(5);

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

/// What a reader asks of a session's thread.
enum Order {
    /// To make a lane. An answer comes, or the session's end does.
    Lane(LaneWanted),
    /// To tell the producer that it need not keep its end of a lane.
    Release(LaneNumber),
}

/// The reader's hand on a session's thread. Dropping it ends the session.
pub(crate) struct Link {
    orders: Option<Sender<Order>>,
    bell: Arc<OwnedFd>,
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

impl Link {
    pub(crate) fn start<F>(
        errand: Errand,
        dialer: F,
        mailbox: Arc<Mailbox<F::Lane>>,
        waker: impl Wake + 'static,
    ) -> io::Result<Self>
    where
        F: Fabric + Send + 'static,
        F::Lane: Send + 'static,
    {
        let (orders, told) = channel();
        let bell = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
        let own = Arc::clone(&bell);
        let number = errand.number;
        let thread = std::thread::Builder::new().name(format!("kvrail-link-{number}")).spawn(move || {
            let tell = |news| {
                mailbox.post(number, news);
                waker.wake();
            };
            run(&errand, dialer, &told, &own, tell);
        })?;
        Ok(Self { orders: Some(orders), bell, thread: Some(thread) })
    }

    /// Asks for a lane. An answer comes, or the session's end does.
    pub(crate) fn want(&self, lane: LaneWanted) {
        self.order(Order::Lane(lane));
    }

    /// The producer need not keep its end of this lane.
    pub(crate) fn release(&self, lane: LaneNumber) {
        self.order(Order::Release(lane));
    }

    fn order(&self, order: Order) {
        if let Some(orders) = &self.orders {
            // A thread that has ended has said so.
            let _ = orders.send(order);
            self.ring();
        }
    }

    fn ring(&self) {
        // Full at 2^64 - 1 rings that nobody heard: it is readable then, too.
        let _ = rustix::io::write(&self.bell, &1_u64.to_ne_bytes());
    }

    /// Tells the thread to end. It does at once, unless it is in an exchange with the peer.
    pub(crate) fn hang_up(&mut self) {
        if self.orders.take().is_some() {
            self.ring();
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

impl Drop for Link {
    fn drop(&mut self) {
        self.hang_up();
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link").field("open", &self.orders.is_some()).finish_non_exhaustive()
    }
}

/// The thread.
fn run<F: Fabric>(
    errand: &Errand,
    mut dialer: F,
    told: &Receiver<Order>,
    bell: &OwnedFd,
    tell: impl Fn(News<F::Lane>),
) {
    let mut session = match agree(errand, &mut dialer) {
        Ok((session, agreed)) => {
            tell(News::Agreed(Box::new(agreed)));
            session
        }
        Err(error) => return tell(News::Failed(error)),
    };
    loop {
        loop {
            match told.try_recv() {
                Ok(Order::Lane(wanted)) => {
                    let path = RailPair {
                        rail: wanted.rail,
                        remote_rail: kvrail_core::id::RailIndex(wanted.remote_rail),
                    };
                    let lanes = session.attach(&mut dialer, &[path], Instant::now() + LANE_PATIENCE);
                    for lane in lanes {
                        tell(News::Lane(wanted, lane));
                    }
                }
                Ok(Order::Release(lane)) => {
                    // Of a session that has ended everything is given back, and it says so itself.
                    let _ = session.release(&[lane], Instant::now() + LANE_PATIENCE);
                }
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => return,
            }
        }
        if let Some(why) = session.closed() {
            return tell(News::Ended(Arc::clone(why)));
        }
        if let Err(errno) = sleep(&session, bell) {
            tracing::error!(%errno, "a session cannot be watched any more, and is ended");
            return tell(News::Ended(Arc::new(SessionError {
                peer: errand.address.to_string(),
                step: kvrail_session::Step::Idle,
                cause: kvrail_session::Cause::Io(errno.into()),
            })));
        }
    }
}

fn agree<F: Fabric>(errand: &Errand, dialer: &mut F) -> Result<(Session, Agreed<F::Lane>), LinkError> {
    let session = connect(&errand.address, &errand.key, errand.hello, errand.deadline);
    let mut session = session.map_err(|error| LinkError::Session(Arc::new(error)))?;
    let pairs = dialer.pair(&session.offer().rails)?;
    let pairs: Vec<_> = (0..errand.lanes_per_rail).flat_map(|_| pairs.iter().copied()).collect();
    let mut lanes = session.attach(dialer, &pairs, errand.deadline);
    detour(errand, &mut session, dialer, &pairs, &mut lanes);
    let agreed = Agreed { producer: session.producer(), offer: session.offer().clone(), lanes };
    Ok((session, agreed))
}

/// Rails of which no lane came about are led to other rails of the producer, where the transport knows some.
fn detour<F: Fabric>(
    errand: &Errand,
    session: &mut Session,
    dialer: &mut F,
    pairs: &[RailPair],
    lanes: &mut Vec<Result<Attached<F::Lane>, LaneError>>,
) {
    let mut seen = Vec::new();
    for &RailPair { rail, remote_rail } in pairs {
        let alive = |(pair, lane): (&RailPair, &Result<_, _>)| pair.rail == rail && lane.is_ok();
        if seen.contains(&rail) || pairs.iter().zip(&*lanes).any(alive) {
            continue;
        }
        seen.push(rail);
        let rails = session.offer().rails.clone();
        let mut tried = vec![remote_rail];
        while let Some(other) = dialer.instead(rail, &tried, &rails) {
            tried.push(other);
            let path = vec![RailPair { rail, remote_rail: other }; errand.lanes_per_rail];
            let made = session.attach(dialer, &path, errand.deadline);
            let some = made.iter().any(Result::is_ok);
            lanes.extend(made);
            tracing::warn!(
                rail = rail.0,
                unreachable = remote_rail.0,
                instead = other.0,
                made = some,
                "a rail is led to another one of the producer"
            );
            if some || session.closed().is_some() {
                break;
            }
        }
    }
}

/// Sleeps until the peer says something or hangs up, or the bell rings.
fn sleep(session: &Session, bell: &OwnedFd) -> Result<(), Errno> {
    let mut fds =
        [PollFd::from_borrowed_fd(session.as_fd(), PollFlags::IN), PollFd::new(bell, PollFlags::IN)];
    match poll(&mut fds, None) {
        Ok(_) | Err(Errno::INTR) => {}
        Err(errno) => return Err(errno),
    }
    // Heard. It does not block, and what it counted is of no interest.
    let _ = rustix::io::read(bell, &mut [0_u8; 8]);
    Ok(())
}
