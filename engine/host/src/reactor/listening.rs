//! A listener of the reactor.

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::time::Instant;

use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::fd::OwnedFd;
use rustix::io::Errno;

use super::connection::{Acceptor, Connection};
use super::id::ConnectionId;
use super::socket::set_up;
use crate::accept::{ConnectionSource as _, PAUSE};
use crate::listener::Listener;

/// How many connections one listener accepts before others get a turn.
pub(super) const PER_TURN: usize = 64;

/// A listener, and what decides about its connections.
pub(super) struct Listening {
    pub(super) id: ConnectionId,
    listener: Listener,
    acceptor: Box<dyn Acceptor>,
    /// A connection may wait.
    pub(super) ready: bool,
    /// It is not watched until then, since no connection could be accepted.
    pub(super) paused: Option<Instant>,
}

impl Listening {
    pub(super) const fn new(id: ConnectionId, listener: Listener, acceptor: Box<dyn Acceptor>) -> Self {
        Self { id, listener, acceptor, ready: false, paused: None }
    }

    /// Watches the listener. An event comes for each new connection; those before it are accepted
    /// until none is left.
    pub(super) fn watch(&self, epoll: &OwnedFd) -> Result<(), Errno> {
        let data = EventData::new_u64(self.id.to_data());
        epoll::add(epoll, &self.listener, data, EventFlags::IN | EventFlags::ET)
    }

    pub(super) fn unwatch(&self, epoll: &OwnedFd) {
        // Fails if it is not watched.
        let _ = epoll::delete(epoll, &self.listener);
    }

    /// Accepts nothing before `until`: a listener stays ready while the process has no descriptor
    /// for its connections.
    pub(super) fn pause(&mut self, epoll: &OwnedFd, until: Instant) {
        self.unwatch(epoll);
        (self.ready, self.paused) = (false, Some(until));
    }

    /// Watches it again if its pause is over.
    pub(super) fn resume(&mut self, epoll: &OwnedFd, now: Instant) {
        if self.paused.is_some_and(|until| now >= until) {
            self.paused = self.watch(epoll).err().map(|_| now + PAUSE);
        }
    }

    pub(super) fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        self.listener.accept()
    }

    /// Sets the connection up, and asks the acceptor for its protocol.
    pub(super) fn ask(
        &mut self,
        id: ConnectionId,
        peer: SocketAddr,
        tcp: &TcpStream,
    ) -> io::Result<Option<Box<dyn Connection>>> {
        set_up(tcp)?;
        Ok(self.acceptor.accepted(id, peer, tcp))
    }
}
