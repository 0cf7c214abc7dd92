//! A session of a reader with a socket of its own, for programs without a reactor.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use kvrail_host::descriptors::OwnerProcess;
use kvrail_host::reactor::Flow;
use kvrail_host::wake::poll_timeout;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;

use super::changes::Changes;
use super::event::{ReaderDescription, SessionEvent};
use super::lanes::Answer;
use super::session::Session;
use crate::address::Address;
use crate::error::{Cause, SessionError, Step};
use crate::key::PeerKeys;
use crate::lane::{Attached, LaneDialer, SessionLaneError};
use crate::message::{ByeReason, LaneNumber};
use crate::name::NodeName;
use crate::offer::RailDescription;
use crate::pairing::RailPair;
use crate::pool::{Offer, OfferChange};
use crate::socket::{addresses_of, dial};

/// Bytes of one read.
const READ: usize = 16 << 10;
/// Reads of one call: a producer that sends without end does not block the caller.
const READS: usize = 16;
/// Bytes that are encrypted before the socket has taken those before them.
const ROOM: usize = 64 << 10;
/// When to try again to write what the socket did not take.
const WRITE_AGAIN: Duration = Duration::from_millis(20);
/// A time so long that it does not matter how long it is.
const LONG: Duration = Duration::from_secs(24 * 3600);

/// Connects to the producer at `address`, and agrees with it on key and version. The session is
/// established: it has the producer's offer.
///
/// Blocks, no longer than until `deadline`, and a second for the last message of a session that
/// fails. A name that stands for several addresses is tried at each in turn. Where the producer
/// does not know the first of two keys, the reader dials again with the other one.
///
/// # Errors
///
/// What went wrong, with which peer and when. If the producer refused this reader, both get the
/// same [`Refusal`](crate::Refusal).
pub fn connect(
    address: &Address,
    keys: impl Into<PeerKeys>,
    reader: ReaderDescription,
    deadline: Instant,
) -> Result<ConnectedSession, SessionError> {
    let keys = keys.into();
    let targets = addresses_of(address, deadline)?;
    let mut attempt = 0;
    loop {
        let (peer, now) = (address.to_string(), Instant::now());
        let session = Session::new(peer, &keys, attempt, reader.clone(), deadline, now)?;
        let error = match ConnectedSession::establish(session, address, &targets, deadline) {
            Ok(connected) => return Ok(connected),
            Err(error) => error,
        };
        attempt = Session::next_attempt(&keys, attempt, &error).ok_or(error)?;
    }
}

/// An established session with a producer, and its socket: it makes lanes, and shows that the
/// producer lives.
///
/// Each side sends a message every [`BEAT`](crate::BEAT), and a side from which no message comes
/// for [`LULL`](crate::LULL) counts as gone: call [`closed`](Self::closed) by [`due`](Self::due) at
/// the latest, also when nothing happens.
///
/// Dropping it closes the session; the producer then frees all lanes of the session. The drop waits
/// a second at most until the producer has read the last message. In a child of a fork it does
/// nothing.
pub struct ConnectedSession {
    pub(super) session: Session,
    tcp: TcpStream,
    /// What the session gave to be sent, and the socket did not take.
    unsent: Vec<u8>,
    /// When to try to write `unsent` again.
    write_again: Instant,
    answers: VecDeque<Answer>,
    changes: Changes,
    ended: Option<Arc<SessionError>>,
    /// How the connection goes on.
    flow: Flow,
    /// Reading or writing has failed, or the producer has ended its half.
    hung_up: bool,
    owner: OwnerProcess,
}

impl ConnectedSession {
    fn establish(
        session: Session,
        address: &Address,
        targets: &[SocketAddr],
        deadline: Instant,
    ) -> Result<Self, SessionError> {
        let tcp = dial(targets, deadline).map_err(|error| SessionError {
            peer: address.to_string(),
            step: Step::Connecting,
            cause: Cause::Io(error),
        })?;
        let mut this = Self {
            session,
            tcp,
            unsent: Vec::new(),
            write_again: Instant::now(),
            answers: VecDeque::new(),
            changes: Changes::default(),
            ended: None,
            flow: Flow::GoOn,
            hung_up: false,
            owner: OwnerProcess::current(),
        };
        loop {
            if let Some(why) = this.closed().map(Arc::clone) {
                drop(this);
                // The session and its events had the other references.
                return Err(Arc::try_unwrap(why).unwrap_or_else(|why| SessionError {
                    peer: why.peer.clone(),
                    step: why.step,
                    cause: Cause::Closed,
                }));
            }
            if this.session.offer().is_some() {
                return Ok(this);
            }
            this.wait();
        }
    }

    /// The producer's name.
    #[must_use]
    pub fn producer(&self) -> NodeName {
        self.offer().producer
    }

    /// What the producer offers, as far as the calls of [`closed`](Self::closed) and of the other
    /// methods have read.
    #[must_use]
    pub fn offer(&self) -> &Offer {
        self.session.offer().expect("a connected session is established")
    }

    /// The next change of the offer that no earlier call has returned. Does not block.
    ///
    /// A pool that came and went between two calls is not mentioned.
    pub fn next_change(&mut self) -> Option<OfferChange> {
        self.closed();
        self.changes.next()
    }

    /// Makes a lane for each of `pairs`, and returns the result of each, in their order. It can be
    /// called at any time of a session, with 256 pairs at most. The producer's ends are ready to
    /// receive when this returns.
    ///
    /// Blocks, until `deadline` and for as long as `dialer` takes beyond it. A lane that is not
    /// made in time is [`SessionLaneError::Late`]; the session goes on, and gives the lane back if
    /// the producer makes it later.
    pub fn attach<D: LaneDialer>(
        &mut self,
        dialer: &mut D,
        pairs: &[RailPair],
        deadline: Instant,
    ) -> Vec<Result<Attached<D::UnopenedLane>, SessionLaneError>> {
        let mut lanes: Vec<_> = pairs.iter().map(|_| None).collect();
        let mut pending = HashMap::new();
        for (at, &pair) in pairs.iter().enumerate() {
            let prepared = self.rail(pair).and_then(|remote| {
                let failed = |e| SessionLaneError::Transport(Arc::new(e));
                let (end, blob) = dialer.prepare(pair.rail, &remote).map_err(failed)?;
                Ok((self.session.ask(pair, blob, deadline)?, end))
            });
            match prepared {
                Ok((number, end)) => drop(pending.insert(number, (at, end))),
                Err(error) => lanes[at] = Some(Err(error)),
            }
        }
        while !pending.is_empty() {
            self.closed();
            let Some((number, result)) = self.answers.pop_front() else {
                self.wait();
                continue;
            };
            let Some((at, end)) = pending.remove(&number) else { continue };
            let pair @ RailPair { rail, remote_rail } = pairs[at];
            let lane = result.and_then(|blob| {
                let remote = self.rail(pair)?;
                dialer.connect(end, &remote, &blob).map_err(|error| {
                    self.session.release(&[number]);
                    SessionLaneError::Transport(Arc::new(error))
                })
            });
            lanes[at] = Some(lane.map(|lane| Attached { number, rail, remote_rail, lane }));
        }
        self.closed();
        lanes.into_iter().map(|lane| lane.unwrap_or(Err(SessionLaneError::Late))).collect()
    }

    fn rail(&self, pair: RailPair) -> Result<RailDescription, SessionLaneError> {
        let (rails, remote_rail) = (&self.offer().rails, pair.remote_rail);
        let rail = rails.get(remote_rail.get()).copied();
        rail.ok_or(SessionLaneError::NoSuchRail { remote_rail, rails: rails.len() })
    }

    /// Gives lanes back that this side no longer uses: the producer frees its ends. Does not block.
    /// The end of a session gives all its lanes back.
    pub fn release(&mut self, lanes: &[LaneNumber]) {
        self.session.release(lanes);
        self.closed();
    }

    /// Why the session ended, if it has. Does not block. Reads what has come, and sends what is to
    /// be sent.
    ///
    /// The end of a producer that stops, or whose process dies, is found at once. If a child of a
    /// fork has inherited the connection, if the host dies, or if the process is stopped (SIGSTOP),
    /// the end is found within [`LULL`](crate::LULL).
    ///
    /// A caller that sleeps in between waits for the session's file descriptor to become readable,
    /// and no longer than until [`due`](Self::due).
    pub fn closed(&mut self) -> Option<&Arc<SessionError>> {
        self.read();
        let now = Instant::now();
        if self.ended.is_none() && now >= self.session.due() {
            self.flow = self.session.tick(now);
        }
        if let Err(error) = self.write() {
            // The producer may have sent its reason before it broke the connection.
            self.read();
            self.hang_up(Some(error));
        }
        self.take_events();
        self.ended.as_ref()
    }

    /// When [`closed`](Self::closed) is to be called at the latest.
    #[must_use]
    pub fn due(&self) -> Instant {
        let session = if self.ended.is_none() { self.session.due() } else { Instant::now() + LONG };
        if self.unsent.is_empty() { session } else { session.min(self.write_again) }
    }

    /// Whether the session is open, as far as this side knows. Does not block.
    pub fn is_alive(&mut self) -> bool {
        self.closed().is_none()
    }

    /// Gives the session the bytes that have come.
    fn read(&mut self) {
        let mut bytes = [0; READ];
        for _ in 0..READS {
            if self.ended.is_some() || self.hung_up {
                return;
            }
            match self.tcp.read(&mut bytes) {
                Ok(0) => self.hang_up(None),
                Ok(got) => {
                    self.flow = self.session.received(Instant::now(), &bytes[..got]);
                    self.take_events();
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) => self.hang_up(Some(error)),
            }
        }
    }

    /// The connection has ended.
    fn hang_up(&mut self, error: Option<io::Error>) {
        self.hung_up = true;
        self.unsent = Vec::new();
        self.session.ended(Instant::now(), error);
        self.take_events();
    }

    /// Writes what is to be sent and the socket takes.
    fn write(&mut self) -> io::Result<()> {
        while !self.hung_up {
            if self.unsent.is_empty() {
                self.session.fill(Instant::now(), &mut self.unsent, ROOM);
                if self.unsent.is_empty() {
                    self.unsent = Vec::new();
                    if self.flow != Flow::GoOn {
                        // Fails if the producer has closed the connection.
                        let _ = self.tcp.shutdown(Shutdown::Write);
                    }
                    return Ok(());
                }
            }
            match self.tcp.write(&self.unsent) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(sent) => drop(self.unsent.drain(..sent)),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.write_again = Instant::now() + WRITE_AGAIN;
                    return Ok(());
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn take_events(&mut self) {
        while let Some(event) = self.session.next_event() {
            match event {
                // The session keeps the offer.
                SessionEvent::Established(_) => {}
                SessionEvent::OfferChanged(change) => self.changes.note(change),
                SessionEvent::Lane(number, result) => self.answers.push_back((number, result)),
                // The session keeps them until they are fetched.
                SessionEvent::Takings => {}
                SessionEvent::Ended(why) => self.ended = Some(why),
            }
        }
    }

    /// Waits until there is something to do.
    fn wait(&self) {
        let out = if self.unsent.is_empty() { PollFlags::empty() } else { PollFlags::OUT };
        // If waiting fails, the next read reports the error.
        let _ = self.poll(PollFlags::IN | out, self.session.due());
    }

    fn poll(&self, flags: PollFlags, until: Instant) -> Result<usize, Errno> {
        poll(&mut [PollFd::new(&self.tcp, flags)], Some(&poll_timeout(until)))
    }

    /// Sends what is left and waits until the producer has closed its half, no longer than until
    /// `until`. To close a socket with unread bytes would reset the connection, and the producer
    /// could lose the last message.
    fn finish(&mut self, until: Instant) {
        while self.write().is_ok() && !self.hung_up && Instant::now() < until {
            match self.tcp.read(&mut [0; READ]) {
                Ok(0) => return,
                Ok(_) => continue,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => return,
            }
            let out = if self.unsent.is_empty() { PollFlags::empty() } else { PollFlags::OUT };
            if self.poll(PollFlags::IN | out, until).is_err() {
                return;
            }
        }
    }
}

impl AsFd for ConnectedSession {
    /// Readable when [`closed`](Self::closed) has something to read.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.tcp.as_fd()
    }
}

impl Drop for ConnectedSession {
    fn drop(&mut self) {
        if !self.owner.is_current() {
            // In a child of a fork the connection is the parent's.
            return;
        }
        if self.ended.is_none() {
            self.flow = self.session.bye(ByeReason::Finished);
        }
        if let Flow::Finish { linger } = self.flow {
            self.finish(Instant::now() + linger);
        }
        // A child of a fork may have a copy of the socket. Fails if the producer was faster.
        let _ = self.tcp.shutdown(Shutdown::Both);
    }
}

impl fmt::Debug for ConnectedSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnectedSession")
            .field("session", &self.session)
            .field("ended", &self.ended)
            .finish_non_exhaustive()
    }
}
