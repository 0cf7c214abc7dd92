//! One connection at a producer, without its socket: its handshake, its session, and its end.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use kvrail_host::reactor::{Connection, Flow};

use super::config::ServerEvent;
use super::handshake::{Admission, Handshake};
use super::session::Established;
use super::shared::{Permit, Registration, SessionCount};
use super::shop::{LaneShop, SessionRecord};
use crate::error::{By, Cause, SessionError};
use crate::lane::LaneAcceptor;
use crate::liveness::LINGER;
use crate::message::Introduction;
use crate::refusal::Refusal;

/// One connection at a producer.
pub(super) struct ReaderConnection<A: LaneAcceptor> {
    shop: Arc<LaneShop<A>>,
    peer: SocketAddr,
    registration: Registration,
    /// Kept until the session is established, or the connection is closed.
    admission: Option<Box<Admission>>,
    phase: Phase<A>,
}

enum Phase<A: LaneAcceptor> {
    Handshake(Box<Handshake>),
    Established(Box<Established<A>>),
    Over(Over),
}

/// The connection has ended.
struct Over {
    /// What the peer has not been told yet.
    unsent: Vec<u8>,
    flow: Flow,
    /// It ended then.
    since: Instant,
}

impl Over {
    const fn new(unsent: Vec<u8>, finishes: bool, now: Instant) -> Self {
        let flow = if finishes { Flow::Finish { linger: LINGER } } else { Flow::Close };
        Self { unsent, flow, since: now }
    }
}

impl<A: LaneAcceptor> ReaderConnection<A> {
    /// A connection of which no byte has come. It ends at once if the server is stopping.
    pub(super) fn new(
        shop: Arc<LaneShop<A>>,
        peer: SocketAddr,
        registration: Registration,
        admission: Option<Box<Admission>>,
        now: Instant,
    ) -> Self {
        let config = &shop.shared.config;
        let handshake = Handshake::new(now + config.handshake, config.silence, now);
        let phase = Phase::Handshake(Box::new(handshake));
        let mut connection = Self { shop, peer, registration, admission, phase };
        // A server that stops notifies the connections that are registered; this one may have come
        // too late for that.
        if connection.shop.shared.is_stopping() {
            connection.end(now, Cause::Stopped);
        }
        connection
    }

    /// The flow after a call.
    const fn flow(&self) -> Flow {
        match &self.phase {
            Phase::Handshake(_) | Phase::Established(_) => Flow::GoOn,
            Phase::Over(over) => over.flow,
        }
    }

    /// Takes bytes from the front of `bytes`.
    fn take(&mut self, now: Instant, bytes: &mut &[u8]) -> Result<(), Cause> {
        match &mut self.phase {
            Phase::Handshake(handshake) => {
                let introduction = handshake.received(&self.shop.shared.keys, bytes)?;
                if let Some(admission) = &self.admission
                    && handshake.named_a_key()
                {
                    admission.place.mark_spoken();
                }
                introduction.map_or(Ok(()), |introduction| self.establish(now, introduction))
            }
            Phase::Established(session) => session.received(now, bytes),
            Phase::Over(_) => {
                *bytes = &[];
                Ok(())
            }
        }
    }

    /// Begins the session with a reader that has introduced itself.
    fn establish(&mut self, now: Instant, introduction: Introduction) -> Result<(), Cause> {
        let shared = Arc::clone(&self.shop.shared);
        if shared.is_stopping() {
            return Err(Cause::Stopped);
        }
        let Some(count) = SessionCount::new(&shared) else {
            let refusal = Refusal::TooManySessions { limit: shared.config.max_sessions as u64 };
            return Err(Cause::Refused { by: By::Us, refusal, verified: true });
        };
        let over = Phase::Over(Over::new(Vec::new(), false, now));
        let Phase::Handshake(handshake) = std::mem::replace(&mut self.phase, over) else { return Ok(()) };
        let Some(channel) = handshake.into_channel() else { return Ok(()) };
        let (number, reader) = (shared.next_session_number(), introduction.node);
        let record = SessionRecord { number, peer: self.peer, reader, count };
        let (shop, id) = (Arc::clone(&self.shop), self.registration.id());
        let session = Established::new(shop, record, id, channel, introduction, now);
        self.phase = Phase::Established(Box::new(session));
        self.admission = None;
        shared.report(ServerEvent::Opened { session: number, peer: self.peer, reader });
        Ok(())
    }

    /// Ends the connection, and reports why.
    fn end(&mut self, now: Instant, cause: Cause) {
        // Where the peer has gone, it waits for nothing.
        let gone = matches!(cause, Cause::Io(_) | Cause::Closed | Cause::Truncated { .. });
        let bye = matches!(cause, Cause::Bye(_));
        let mut unsent = Vec::new();
        let over = Phase::Over(Over::new(Vec::new(), false, now));
        match std::mem::replace(&mut self.phase, over) {
            Phase::Handshake(handshake) => {
                let (shared, step) = (&self.shop.shared, handshake.step());
                handshake.end(&shared.keys, &cause, &mut unsent);
                self.phase = Phase::Over(Over::new(unsent, !gone, now));
                let why = SessionError { peer: self.peer.to_string(), step, cause };
                shared.report(ServerEvent::Failed { peer: self.peer, why });
            }
            Phase::Established(session) => {
                session.end(now, cause, &mut unsent);
                let finishes = bye || !unsent.is_empty();
                self.phase = Phase::Over(Over::new(unsent, finishes, now));
            }
            over @ Phase::Over(_) => self.phase = over,
        }
    }
}

impl<A: LaneAcceptor> Connection for ReaderConnection<A> {
    fn received(&mut self, now: Instant, mut bytes: &[u8]) -> Flow {
        if let Phase::Handshake(handshake) = &mut self.phase {
            handshake.heard(now);
        }
        while !bytes.is_empty() {
            if let Err(cause) = self.take(now, &mut bytes) {
                self.end(now, cause);
            }
        }
        self.flow()
    }

    fn ended(&mut self, now: Instant, error: Option<io::Error>) {
        let displaced = self.admission.as_ref().filter(|admission| admission.place.was_displaced());
        let cause = match (&self.phase, error) {
            (Phase::Handshake(_), None) if displaced.is_some() => {
                // Its place was taken, and the stream with it.
                Cause::SentAway { limit: self.shop.shared.config.max_handshakes.max(2) }
            }
            (_, Some(error)) => Cause::Io(error),
            (Phase::Handshake(handshake), None) => {
                handshake.partial().map_or(Cause::Closed, |(got, want)| Cause::Truncated { got, want })
            }
            (Phase::Established(session), None) => session.cut_off(),
            (Phase::Over(_), None) => return,
        };
        self.end(now, cause);
    }

    fn fill(&mut self, now: Instant, out: &mut Vec<u8>, room: usize) {
        let filled = match &mut self.phase {
            Phase::Handshake(handshake) => {
                handshake.fill(out);
                Ok(())
            }
            Phase::Established(session) => session.fill(now, out, room),
            Phase::Over(over) => {
                out.append(&mut std::mem::take(&mut over.unsent));
                Ok(())
            }
        };
        if let Err(cause) = filled {
            self.end(now, cause);
        }
    }

    fn due(&self) -> Instant {
        match &self.phase {
            Phase::Handshake(handshake) => handshake.due(),
            Phase::Established(session) => session.due(),
            Phase::Over(over) => over.since,
        }
    }

    fn tick(&mut self, now: Instant) -> Flow {
        let overdue = match &mut self.phase {
            Phase::Handshake(handshake) => handshake.overdue(now).map_or(Ok(()), Err),
            Phase::Established(session) => session.tick(now),
            Phase::Over(_) => Ok(()),
        };
        if let Err(cause) = overdue {
            self.end(now, cause);
        }
        self.flow()
    }

    fn notified(&mut self, now: Instant) -> Flow {
        if self.shop.shared.is_stopping() {
            self.end(now, Cause::Stopped);
        } else if let Phase::Established(session) = &mut self.phase {
            session.notified(now);
        }
        self.flow()
    }

    fn takes_bytes(&self) -> bool {
        match &self.phase {
            Phase::Established(session) => session.takes_bytes(),
            Phase::Handshake(_) | Phase::Over(_) => true,
        }
    }
}

impl<A: LaneAcceptor> Drop for ReaderConnection<A> {
    /// A connection that is closed without a call, as after a panic, ends like any other.
    fn drop(&mut self) {
        self.end(Instant::now(), Cause::Stopped);
    }
}

/// A connection that is told why it is turned away, and ends.
pub(super) struct TurnedAway {
    unsent: Vec<u8>,
    since: Instant,
    _permit: Permit,
}

impl TurnedAway {
    /// A connection whose peer is told `refusal`, as bytes.
    pub(super) const fn new(refusal: Vec<u8>, permit: Permit, now: Instant) -> Self {
        Self { unsent: refusal, since: now, _permit: permit }
    }
}

impl Connection for TurnedAway {
    fn received(&mut self, _: Instant, _: &[u8]) -> Flow {
        Flow::Finish { linger: LINGER }
    }

    fn ended(&mut self, _: Instant, _: Option<io::Error>) {}

    fn fill(&mut self, _: Instant, out: &mut Vec<u8>, _: usize) {
        out.append(&mut std::mem::take(&mut self.unsent));
    }

    fn due(&self) -> Instant {
        self.since
    }

    fn tick(&mut self, _: Instant) -> Flow {
        Flow::Finish { linger: LINGER }
    }

    fn notified(&mut self, _: Instant) -> Flow {
        Flow::Finish { linger: LINGER }
    }
}
