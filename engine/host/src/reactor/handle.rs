//! What other threads do with a reactor.

use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Instant;

use super::connection::{Acceptor, Connection};
use super::id::ConnectionId;
use super::places::{Incoming, Made, NewConnection, Shared};
use super::socket::{begin_connect, set_up};
use crate::listener::Listener;

/// A way to a reactor, for any thread, also for code of a connection. No call blocks.
///
/// A handle does not keep the reactor going. In a child of a fork, [`notify`](Self::notify) and
/// [`close`](Self::close) do nothing to the parent's connections, and the other calls fail.
#[derive(Clone)]
pub struct Handle {
    pub(super) shared: Arc<Shared>,
}

impl Handle {
    /// Serves `tcp` by `connection`.
    ///
    /// # Errors
    ///
    /// The socket cannot be set up, or the reactor has stopped; `tcp` and `connection` are dropped
    /// here then. If the system cannot watch a further socket, the connection's
    /// [`ended`](Connection::ended) says so.
    pub fn add(&self, tcp: TcpStream, connection: Box<dyn Connection>) -> io::Result<ConnectionId> {
        set_up(&tcp)?;
        self.enter(NewConnection { tcp, connection, made: Made::Yes })
    }

    /// Connects to `to`, and serves the connection. If it is not made before `deadline`, or cannot
    /// be made, [`ended`](Connection::ended) says why. Until it is made, only
    /// [`tick`](Connection::tick) and [`notified`](Connection::notified) are called beside that;
    /// the first call of [`fill`](Connection::fill) means that it is made.
    ///
    /// # Errors
    ///
    /// The process has no descriptor left for a socket, or the reactor has stopped; `connection` is
    /// dropped here then.
    pub fn connect(
        &self,
        to: SocketAddr,
        deadline: Instant,
        connection: Box<dyn Connection>,
    ) -> io::Result<ConnectionId> {
        let (tcp, begun) = begin_connect(to)?;
        let made = begun.map_or_else(|errno| Made::Failed(errno.into()), |()| Made::Until(deadline));
        self.enter(NewConnection { tcp, connection, made })
    }

    /// Serves the connections of `listener` as `acceptor` decides. [`close`](Self::close) with the
    /// id that it returns ends the listener, and leaves its connections.
    ///
    /// # Errors
    ///
    /// The reactor has stopped; `listener` and `acceptor` are dropped here then.
    pub fn listen(&self, listener: Listener, acceptor: Box<dyn Acceptor>) -> io::Result<ConnectionId> {
        self.shared.enter(Box::new(Incoming::Listener(listener, acceptor)))
    }

    /// Calls [`notified`](Connection::notified) of the connection `id`, if there still is one, at
    /// least once from now on. Notifications that wait count as one.
    pub fn notify(&self, id: ConnectionId) {
        self.shared.notify(id);
    }

    /// Closes the connection or listener `id` at once, if there still is one.
    pub fn close(&self, id: ConnectionId) {
        self.shared.close(id);
    }

    fn enter(&self, new: NewConnection) -> io::Result<ConnectionId> {
        self.shared.enter(Box::new(Incoming::Connection(new)))
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle").finish_non_exhaustive()
    }
}
