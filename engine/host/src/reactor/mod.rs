//! One thread that serves many TCP connections.
//!
//! A [`Reactor`] owns a thread that waits for tens of thousands of sockets by epoll(7). It knows no
//! protocol: each connection is a [`Connection`], a value without a socket, to which it gives the
//! bytes that came and from which it takes the bytes to send. A [`Handle`] adds connections that
//! exist, makes new ones, and accepts them from a [`Listener`](crate::listener::Listener), which an
//! [`Acceptor`] decides about.
//!
//! # Turns
//!
//! A connection with something to do gets a turn: it reads 64 KiB at most and writes 64 KiB at
//! most. If that was not all, it gets the next turn after all others. A round of the thread takes
//! bounded numbers of requests, timers, new connections, turns and events, so none of these delays
//! the others for long.
//!
//! Events are edge-triggered. The reactor remembers what is ready, and so an idle or a blocked
//! connection costs no system call: with level-triggered events, each change between "has something
//! to send" and "has not", or between "takes bytes" and "does not", would be one. What that asks
//! for in return is here: readiness is forgotten only after the socket has said that it is not
//! ready, or has given less than was asked for and no end of the stream is known to follow.
//!
//! # Memory
//!
//! An idle connection costs the reactor 256 bytes at most, beside its [`Connection`]. All
//! connections share one buffer for what comes and one for what goes. A connection has a buffer of
//! its own only while its socket does not take all that was to be sent.
//!
//! # Time
//!
//! Each connection has one timer, in a heap. A time that moves to an earlier point costs
//! O(log *n*); one that moves to a later point costs nothing until the timer fires, when the
//! reactor asks for the new time. epoll(7) counts in milliseconds, so a tick comes up to one
//! millisecond late.
//!
//! # Errors
//!
//! - A panic in the code of a connection closes that connection. A panic in an acceptor closes the
//!   connection that it was asked about.
//! - Where the process has no descriptor left for a connection that was accepted, that connection
//!   ends, a warning says so, and the listener rests for 50 milliseconds.
//! - If epoll(7) fails, an error is logged, and the thread tries again after the same pause.
//!
//! # Forks
//!
//! A child of a fork inherits no listening port: the port is in the descriptor table of the
//! listener's own thread, so it is free as soon as this process dies. Accepted and outgoing
//! connections are in the table of the process, as the code of a connection may use other
//! descriptors of the process, and logs. So a child that does not call exec(2) has copies of them
//! while it lives. If this process closes a connection, the peer sees that at once all the same: it
//! is shut down first. If this process dies, the peer notices only by what the protocol does
//! against silence. A child must not use the reactor of its parent; to drop a [`Reactor`] or a
//! [`Handle`] there does nothing.

mod connection;
mod handle;
mod id;
mod listening;
mod places;
mod served;
mod service;
mod socket;
mod timers;

use std::fmt;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

pub use connection::{Acceptor, Connection, Flow};
pub use handle::Handle;
pub use id::ConnectionId;

use places::Shared;
use service::Service;

/// How long a stop waits for the thread beyond the deadline: code of a connection may run.
const GRACE: Duration = Duration::from_secs(2);

/// A thread that serves connections, until it is stopped or dropped.
///
/// A drop closes all connections at once. In a child of a fork it does nothing.
pub struct Reactor {
    handle: Handle,
    thread: Option<JoinHandle<()>>,
}

impl Reactor {
    /// Starts the thread. Linux keeps 15 bytes of `name`.
    ///
    /// # Errors
    ///
    /// The system has no thread or descriptor left.
    pub fn start(name: &str) -> io::Result<Self> {
        let shared = Arc::new(Shared::new()?);
        let service = Service::new(Arc::clone(&shared))?;
        let end = End(Arc::clone(&shared));
        let body = move || {
            // First the connections are dropped, and then the requests that were not served, also
            // after a panic.
            let _end = end;
            let mut service = service;
            service.run();
        };
        let thread = std::thread::Builder::new().name(name.into()).spawn(body)?;
        Ok(Self { handle: Handle { shared }, thread: Some(thread) })
    }

    /// A handle of this reactor.
    #[must_use]
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Ends all listeners at once, ends all connections as by [`Flow::Finish`] until `deadline`,
    /// and waits for the thread. `false`: the thread did not end within two seconds after
    /// `deadline`, since code of a connection blocks; it ends after that code.
    ///
    /// Requests that were made before are served first. To let connections say something at the
    /// end, notify them before.
    pub fn stop(mut self, deadline: Instant) -> bool {
        self.end(deadline)
    }

    fn end(&mut self, deadline: Instant) -> bool {
        let shared = &self.handle.shared;
        let Some(thread) = self.thread.take() else { return true };
        if !shared.is_owner() {
            return true;
        }
        shared.stop(deadline);
        if thread.thread().id() == std::thread::current().id() {
            // Code of a connection owns the reactor: the thread ends after that code.
            return false;
        }
        let time = deadline.saturating_duration_since(Instant::now()) + GRACE;
        let ended = shared.await_end(time);
        if ended {
            // The thread does nothing any more, and its panics were reported.
            let _ = thread.join();
        } else {
            tracing::error!("the code of a connection blocks the reactor's thread, which was to stop");
        }
        ended
    }
}

impl Drop for Reactor {
    fn drop(&mut self) {
        self.end(Instant::now());
    }
}

impl fmt::Debug for Reactor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reactor").field("thread", &self.thread).finish_non_exhaustive()
    }
}

/// Reports the end of the thread.
struct End(Arc<Shared>);

impl Drop for End {
    fn drop(&mut self) {
        for request in self.0.end() {
            // A panic there has been printed, and concerns one value.
            let _ = catch_unwind(AssertUnwindSafe(|| drop(request)));
        }
        self.0.has_ended();
    }
}
