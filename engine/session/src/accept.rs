//! The thread that accepts connections, and turns away those that there is no room for.

use std::collections::VecDeque;
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use kvrail_host::accept::ConnectionSource as _;
use kvrail_host::handshakes::Handshakes;
use kvrail_host::listener::Listener;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::fabric::Responder;
use crate::handshake::{Newcomer, blunt_refusal};
use crate::io::{LINGER, Stream, timeout};
use crate::refusal::Reason;
use crate::serve;
use crate::server::{Permit, ServerEvent, Shared};

/// Connections turned away that may be waited for, until they have read why, at a time.
const TURNED_AWAY: usize = 64;
/// Stack of a session's thread. It keeps nothing large; a [`Responder`] runs on it.
const STACK: usize = 512 << 10;
/// How long to leave a process alone that has run out of file descriptors.
const OUT_OF_DESCRIPTORS: Duration = Duration::from_millis(50);

/// The thread that accepts.
pub(crate) struct Acceptor<R> {
    listener: Listener,
    newcomers: Arc<Handshakes>,
    shared: Arc<Shared>,
    responder: Arc<R>,
    /// Told why, and given until then to read it. Oldest first.
    turned_away: VecDeque<(Stream, Instant)>,
}

impl<R: Responder> Acceptor<R> {
    pub(crate) fn new(listener: Listener, shared: Arc<Shared>, responder: Arc<R>) -> Self {
        let newcomers = Handshakes::new(shared.config.max_handshakes);
        Self { listener, newcomers, shared, responder, turned_away: VecDeque::new() }
    }

    pub(crate) fn run(mut self) {
        loop {
            match self.wait(self.turned_away.front().map(|t| t.1)) {
                Next::Stop => return,
                Next::Look => {}
            }
            let now = Instant::now();
            self.turned_away.retain_mut(|(stream, until)| now < *until && !stream.drained());
            match self.listener.accept() {
                Ok((tcp, peer)) => self.admit(tcp, peer),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                Err(e) if is_out_of_descriptors(&e) => {
                    if let Some(left_out) = self.shared.log.allows() {
                        tracing::warn!(error = %e, left_out, "cannot accept; raise the limit (ulimit -n)");
                    }
                    if matches!(self.rest(OUT_OF_DESCRIPTORS), Next::Stop) {
                        return;
                    }
                }
                Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => {
                    return tracing::error!("the thread that listens has ended: no reader can connect");
                }
                // The connection was gone before it was accepted, or the like.
                Err(e) => tracing::debug!(error = %e, "accept"),
            }
        }
    }

    /// Waits for a connection, one turned away, the stop, or `until`.
    fn wait(&self, until: Option<Instant>) -> Next {
        let mut fds = Vec::with_capacity(2 + TURNED_AWAY);
        fds.push(PollFd::new(&*self.shared.stop, PollFlags::IN));
        fds.push(PollFd::new(&self.listener, PollFlags::IN));
        fds.extend(self.turned_away.iter().map(|(stream, _)| PollFd::new(stream, PollFlags::IN)));
        Self::poll(&mut fds, until.map(timeout))
    }

    /// Waits for the stop only.
    fn rest(&self, time: Duration) -> Next {
        let mut fds = [PollFd::new(&*self.shared.stop, PollFlags::IN)];
        Self::poll(&mut fds, Some(timeout(Instant::now() + time)))
    }

    fn poll(fds: &mut [PollFd<'_>], time: Option<Timespec>) -> Next {
        match poll(fds, time.as_ref()) {
            Ok(n) if n > 0 && !fds[0].revents().is_empty() => Next::Stop,
            _ => Next::Look,
        }
    }

    fn admit(&mut self, tcp: TcpStream, peer: SocketAddr) {
        let Some(permit) = Permit::new(&self.shared) else {
            return match self.stream(tcp) {
                Ok(stream) => self.turn_away(stream, peer),
                Err(error) => tracing::debug!(%peer, %error, "set-up of a connection"),
            };
        };
        // A newcomer that has to go for this one notices by itself.
        let admitted = self.newcomers.admit(peer.ip(), &tcp);
        let (stream, place) = match admitted.and_then(|(place, _)| Ok((self.stream(tcp)?, place))) {
            Ok(admitted) => admitted,
            Err(error) => return tracing::debug!(%peer, %error, "set-up of a connection"),
        };
        let newcomer = Newcomer { place, limit: self.newcomers.limit() };
        let (shared, responder) = (Arc::clone(&self.shared), Arc::clone(&self.responder));
        let thread = std::thread::Builder::new().name("kvrail-session".into()).stack_size(STACK);
        let spawned =
            thread.spawn(move || serve::connection(&shared, &*responder, stream, peer, newcomer, permit));
        if let Err(error) = spawned {
            // The connection went with the closure; the peer sees it closed.
            if let Some(left_out) = self.shared.log.allows() {
                tracing::warn!(%peer, %error, left_out, "no thread for a connection");
            }
            self.shared
                .tell(ServerEvent::TurnedAway { peer, max_handshakes: self.shared.config.max_handshakes });
        }
    }

    fn stream(&self, tcp: TcpStream) -> io::Result<Stream> {
        Stream::new(tcp, self.shared.config.silence, Some(Arc::clone(&self.shared.stop)))
    }

    fn turn_away(&mut self, mut stream: Stream, peer: SocketAddr) {
        let max_handshakes = self.shared.config.max_handshakes;
        let reason = Reason::TooManyHandshakes { limit: max_handshakes as u64 };
        stream.send_now(&blunt_refusal(self.shared.node, reason));
        stream.end();
        if self.turned_away.len() == TURNED_AWAY {
            self.turned_away.pop_front();
        }
        self.turned_away.push_back((stream, Instant::now() + LINGER));
        self.shared.tell(ServerEvent::TurnedAway { peer, max_handshakes });
    }
}

enum Next {
    Look,
    Stop,
}

fn is_out_of_descriptors(error: &io::Error) -> bool {
    use rustix::io::Errno;
    [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM]
        .iter()
        .any(|e| error.raw_os_error() == Some(e.raw_os_error()))
}
