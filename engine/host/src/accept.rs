//! The loop that accepts connections.
//!
//! A thread that accepts connections must do three things right: it must not spin when the process
//! is out of file descriptors (the listener stays readable then), one broken connection must not
//! end it, and it must end when the stop signal is raised. [`accept_loop`] does that once for all
//! listeners; an [`AcceptHandler`] takes the connections.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use crate::wake::poll_timeout;

/// How long the loop waits after it could not accept, most likely for lack of a file descriptor.
pub const PAUSE: Duration = Duration::from_millis(50);
/// The longest time for which the loop waits while poll(2) fails again and again.
pub const MAX_PAUSE: Duration = Duration::from_secs(1);

/// A listener. Its descriptor is readable when [`accept`](Self::accept) has a connection.
pub trait ConnectionSource: AsFd {
    /// A connection, with what the source knows of it.
    type Connection;

    /// The next connection. Does not block.
    ///
    /// # Errors
    ///
    /// [`WouldBlock`](io::ErrorKind::WouldBlock): no connection waits.
    /// [`UnexpectedEof`](io::ErrorKind::UnexpectedEof): no connection will come any more. Others as
    /// accept(2) has them.
    fn accept(&self) -> io::Result<Self::Connection>;
}

/// What an accepting thread does between two connections. No method may block.
pub trait AcceptHandler<C> {
    /// Takes a connection.
    fn accepted(&mut self, connection: C);

    /// No connection can be accepted at present; the loop tries again after [`PAUSE`] or more. This
    /// can happen as often as that, so a log line needs a rate limit.
    fn cannot_accept(&mut self, error: &io::Error);

    /// Adds to `fds` further descriptors for which the loop waits, and returns the time at which
    /// the loop wakes at the latest (`None`: not before a descriptor is ready).
    fn watch<'a>(&'a self, _fds: &mut Vec<PollFd<'a>>) -> Option<Instant> {
        None
    }

    /// The loop has woken. `ready` has one entry for each descriptor that [`watch`](Self::watch)
    /// added, in the same order. All entries are `false` where poll(2) failed: it is called all the
    /// same, so that what has waited too long can be given up.
    fn woken(&mut self, _now: Instant, _ready: &[bool]) {}
}

/// Why an accept loop ended before its stop signal was raised.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AcceptError {
    /// The source has no more connections to give.
    #[error("the listener has ended by itself, and accepts no more connections: start it again")]
    SourceEnded,
    /// poll(2) fails even if the stop signal is its only descriptor.
    #[error("poll(2), which waits for connections, fails: {0}")]
    Wait(Errno),
}

impl AcceptError {
    /// A number that never changes its meaning (docs/errors.md).
    #[must_use]
    pub const fn code(&self) -> u32 {
        match self {
            Self::SourceEnded => 3030,
            Self::Wait(_) => 3031,
        }
    }
}

/// Accepts from `source` until `stop` is readable.
///
/// A connection that its peer has given up before it was accepted is passed over. Where the process
/// or the system is out of descriptors or memory, the loop calls the handler's `cannot_accept`, and
/// waits for [`PAUSE`] or the stop.
///
/// poll(2) itself can fail for a while: where memory is short, or where the handler watches more
/// descriptors than the process may have at present. So the loop goes on, with pauses that double
/// from [`PAUSE`] to [`MAX_PAUSE`] until poll(2) succeeds. It does not end: a producer that accepts
/// no reader any more would have to be started again.
///
/// # Errors
///
/// The source has ended, or the system cannot wait at all.
pub fn accept_loop<S: ConnectionSource>(
    source: &S,
    stop: BorrowedFd<'_>,
    handler: &mut impl AcceptHandler<S::Connection>,
) -> Result<(), AcceptError> {
    let mut ready = Vec::new();
    let mut next_pause = PAUSE;
    loop {
        let waited = wait(source.as_fd(), stop, handler, &mut ready);
        let (failed, time) = match waited {
            Ok(Woken::Stop) => return Ok(()),
            Ok(Woken::Interrupted) => continue,
            Ok(Woken::Ready { source: is_ready }) => {
                next_pause = PAUSE;
                handler.woken(Instant::now(), &ready);
                if !is_ready {
                    continue;
                }
                match source.accept() {
                    Ok(connection) => {
                        handler.accepted(connection);
                        continue;
                    }
                    Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                        return Err(AcceptError::SourceEnded);
                    }
                    Err(error) if concerns_one_connection(&error) => continue,
                    Err(error) => (error, PAUSE),
                }
            }
            Err(errno) => {
                handler.woken(Instant::now(), &ready);
                let time = next_pause;
                next_pause = MAX_PAUSE.min(2 * time);
                (errno.into(), time)
            }
        };
        handler.cannot_accept(&failed);
        if pause(stop, time)? {
            return Ok(());
        }
    }
}

enum Woken {
    Stop,
    Interrupted,
    Ready { source: bool },
}

/// Waits for the stop, the source, and what the handler watches. After an error, no entry of
/// `ready` is true.
fn wait<C>(
    source: BorrowedFd<'_>,
    stop: BorrowedFd<'_>,
    handler: &impl AcceptHandler<C>,
    ready: &mut Vec<bool>,
) -> Result<Woken, Errno> {
    let mut fds =
        vec![PollFd::from_borrowed_fd(stop, PollFlags::IN), PollFd::from_borrowed_fd(source, PollFlags::IN)];
    let timeout = handler.watch(&mut fds).map(poll_timeout);
    ready.clear();
    ready.resize(fds.len() - 2, false);
    match poll(&mut fds, timeout.as_ref()) {
        Ok(_) => {}
        Err(Errno::INTR) => return Ok(Woken::Interrupted),
        Err(errno) => return Err(errno),
    }
    let is_ready = |fd: &PollFd<'_>| !fd.revents().is_empty();
    ready.clear();
    ready.extend(fds[2..].iter().map(is_ready));
    Ok(if is_ready(&fds[0]) { Woken::Stop } else { Woken::Ready { source: is_ready(&fds[1]) } })
}

/// Waits for the stop or for `time`, and says whether the stop came.
fn pause(stop: BorrowedFd<'_>, time: Duration) -> Result<bool, AcceptError> {
    let time = Timespec { tv_sec: time.as_secs().cast_signed(), tv_nsec: time.subsec_nanos().into() };
    match poll(&mut [PollFd::from_borrowed_fd(stop, PollFlags::IN)], Some(&time)) {
        Ok(ready) => Ok(ready > 0),
        Err(Errno::INTR) => Ok(false),
        Err(errno) => Err(AcceptError::Wait(errno)),
    }
}

/// Whether an error of accept(2) concerns the connection that would have come, and not the ones
/// after it: the connection is gone, or there was none. accept(2) lists these under "Error
/// handling".
pub(crate) fn concerns_one_connection(error: &io::Error) -> bool {
    const GONE: [Errno; 13] = [
        Errno::AGAIN,
        Errno::INTR,
        Errno::CONNABORTED,
        Errno::CONNRESET,
        Errno::NOTCONN,
        Errno::NETDOWN,
        Errno::PROTO,
        Errno::NOPROTOOPT,
        Errno::HOSTDOWN,
        Errno::NONET,
        Errno::HOSTUNREACH,
        Errno::OPNOTSUPP,
        Errno::NETUNREACH,
    ];
    match Errno::from_io_error(error) {
        Some(errno) => GONE.contains(&errno),
        None => error.kind() == io::ErrorKind::WouldBlock,
    }
}

#[cfg(test)]
mod tests;
