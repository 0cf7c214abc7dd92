//! The thread that accepts connections, and refuses those for which there is no room.

use std::collections::VecDeque;
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::time::Instant;

use kvrail_host::accept::{AcceptHandler, accept_loop};
use kvrail_host::handshakes::Handshakes;
use kvrail_host::listener::Listener;
use rustix::event::{PollFd, PollFlags};

use super::connection::connection;
use super::shared::{Permit, ServerEvent, Shared};
use crate::handshake::{Unauthenticated, unauthenticated_refusal};
use crate::lane::LaneAcceptor;
use crate::refusal::Reason;
use crate::stream::{LINGER, Stream};

/// How many refused connections are kept open at a time so that their peers can read the reason.
const TURNED_AWAY: usize = 64;
/// Stack of a session's thread. It keeps nothing large; a [`LaneAcceptor`] runs on it.
const STACK: usize = 512 << 10;

/// Accepts connections from `listener` until the server stops.
pub(crate) fn accept<A: LaneAcceptor>(listener: &Listener, shared: Arc<Shared>, acceptor: Arc<A>) {
    let stop = Arc::clone(&shared.stop);
    let handshakes = Handshakes::new(shared.config.max_handshakes);
    let mut admission = Admission { handshakes, shared, acceptor, turned_away: VecDeque::new() };
    if let Err(error) = accept_loop(listener, stop.as_fd(), &mut admission) {
        tracing::error!(%error, "no reader can connect any more");
    }
}

/// The state of the thread that accepts connections.
struct Admission<A> {
    handshakes: Arc<Handshakes>,
    shared: Arc<Shared>,
    acceptor: Arc<A>,
    /// Refused connections, oldest first, and until when their peers have time to read the reason.
    turned_away: VecDeque<(Stream, Instant)>,
}

impl<A: LaneAcceptor> AcceptHandler<(TcpStream, SocketAddr)> for Admission<A> {
    fn accepted(&mut self, (tcp, peer): (TcpStream, SocketAddr)) {
        self.admit(tcp, peer);
    }

    fn cannot_accept(&mut self, error: &io::Error) {
        if let Some(left_out) = self.shared.log.allows() {
            tracing::warn!(%error, left_out, "cannot accept; raise the limit (ulimit -n)");
        }
    }

    fn watch<'a>(&'a self, fds: &mut Vec<PollFd<'a>>) -> Option<Instant> {
        fds.extend(self.turned_away.iter().map(|(stream, _)| PollFd::new(stream, PollFlags::IN)));
        self.turned_away.front().map(|&(_, until)| until)
    }

    fn woken(&mut self, now: Instant, _: &[bool]) {
        self.turned_away.retain_mut(|(stream, until)| now < *until && !stream.drained());
    }
}

impl<A: LaneAcceptor> Admission<A> {
    /// Gives a connection a thread, or turns it away.
    fn admit(&mut self, tcp: TcpStream, peer: SocketAddr) {
        let Some(permit) = Permit::new(&self.shared) else {
            return match self.stream(tcp) {
                Ok(stream) => self.turn_away(stream, peer),
                Err(error) => tracing::debug!(%peer, %error, "set-up of a connection"),
            };
        };
        // A connection that this one displaces ends by itself.
        let admitted = self.handshakes.admit(peer.ip(), &tcp);
        let (stream, place) = match admitted.and_then(|(place, _)| Ok((self.stream(tcp)?, place))) {
            Ok(admitted) => admitted,
            Err(error) => return tracing::debug!(%peer, %error, "set-up of a connection"),
        };
        let place = Unauthenticated { place, limit: self.handshakes.limit() };
        let (shared, acceptor) = (Arc::clone(&self.shared), Arc::clone(&self.acceptor));
        let thread = std::thread::Builder::new().name("kvrail-session".into()).stack_size(STACK);
        let spawned = thread.spawn(move || connection(&shared, &*acceptor, stream, peer, place, permit));
        if let Err(error) = spawned {
            // The closure was dropped, and the connection with it: the peer sees it closed.
            if let Some(left_out) = self.shared.log.allows() {
                tracing::warn!(%peer, %error, left_out, "no thread for a connection");
            }
            self.shared
                .report(ServerEvent::TurnedAway { peer, max_handshakes: self.shared.config.max_handshakes });
        }
    }

    fn stream(&self, tcp: TcpStream) -> io::Result<Stream> {
        Stream::new(tcp, self.shared.config.silence, Some(Arc::clone(&self.shared.stop)))
    }

    fn turn_away(&mut self, mut stream: Stream, peer: SocketAddr) {
        let max_handshakes = self.shared.config.max_handshakes;
        let reason = Reason::TooManyHandshakes { limit: max_handshakes as u64 };
        stream.send_now(&unauthenticated_refusal(self.shared.node, reason));
        stream.end();
        if self.turned_away.len() == TURNED_AWAY {
            self.turned_away.pop_front();
        }
        self.turned_away.push_back((stream, Instant::now() + LINGER));
        self.shared.report(ServerEvent::TurnedAway { peer, max_handshakes });
    }
}
