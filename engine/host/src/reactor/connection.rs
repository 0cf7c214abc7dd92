//! What a protocol gives the reactor: a value for each connection, and one for each listener.

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use super::id::ConnectionId;

/// The protocol of one connection, without its socket.
///
/// All calls come from the reactor's thread, and so does the drop, which comes once. No call may
/// block: all other connections of the reactor wait meanwhile. A call that panics closes this
/// connection and no other.
pub trait Connection: Send {
    /// Takes bytes that came. `bytes` is not empty, has 64 KiB at most, and lies in a buffer that
    /// all connections share: copy what is incomplete.
    fn received(&mut self, now: Instant, bytes: &[u8]) -> Flow;

    /// No more bytes come.
    ///
    /// `None`: the peer has ended its half of the connection. The reactor sends what
    /// [`fill`](Self::fill) still gives, for ten seconds at most, and closes the connection as soon
    /// as `fill` gives nothing. `Some`: the connection was not made, or it failed; it is closed.
    fn ended(&mut self, now: Instant, error: Option<io::Error>);

    /// Appends to `out` what is to be sent next, about `room` bytes at most. To append nothing
    /// means that there is nothing to send now.
    ///
    /// It is called when the socket can take bytes and everything appended earlier has been
    /// written; each time that the connection was called for another reason, too. `out` is empty.
    fn fill(&mut self, now: Instant, out: &mut Vec<u8>, room: usize);

    /// When [`tick`](Self::tick) is to be called at the latest. The reactor asks again after each
    /// of its calls.
    fn due(&self) -> Instant;

    /// The time that [`due`](Self::due) named has passed. If `due` does not move, the next call
    /// comes a millisecond later.
    fn tick(&mut self, now: Instant) -> Flow;

    /// Another thread has called [`notify`](super::Handle::notify) for this connection, once or
    /// several times since the last call.
    fn notified(&mut self, now: Instant) -> Flow;

    /// Whether the connection takes bytes now. The reactor asks again after each of its calls.
    /// While the answer is `false`, bytes stay in the socket, so that the peer cannot send more of
    /// them than the socket holds.
    fn takes_bytes(&self) -> bool {
        true
    }
}

/// How a connection goes on after a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Flow {
    /// The connection stays.
    GoOn,
    /// The connection has received what it wanted to receive. The reactor sends what
    /// [`Connection::fill`] still gives, ends this half of the connection, and waits until the peer
    /// has ended the other half, all this for `linger` at most. Meanwhile it reads and drops what
    /// comes: to close a socket with unread bytes would reset the connection, and the peer could
    /// lose the last message. Only `fill` is called after this. A connection that is not made yet
    /// is closed at once.
    Finish {
        /// How long sending and waiting may take together.
        linger: Duration,
    },
    /// The connection is closed at once; the peer may lose what was sent last.
    Close,
}

/// Decides about the connections that a listener accepts. All calls come from the reactor's thread.
pub trait Acceptor: Send {
    /// A connection from `peer` has come. Its socket is set up: no delay, probes while it is idle,
    /// non-blocking. `id` will be its id. `None` closes it at once; to send a message first, return
    /// a connection whose first [`tick`](Connection::tick) is due and [finishes](Flow::Finish).
    fn accepted(
        &mut self,
        id: ConnectionId,
        peer: SocketAddr,
        tcp: &TcpStream,
    ) -> Option<Box<dyn Connection>>;
}
