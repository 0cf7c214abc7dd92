//! A connection that sends and receives whole messages, with a deadline for every wait.
//!
//! The socket is non-blocking, and every wait is a poll(2) with a time-out. So a deadline bounds a
//! whole exchange however few bytes a peer sends at a time, and a stop signal ends every wait.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use kvrail_host::wake::{StopSignal, poll_timeout};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::net::sockopt;

use crate::error::Cause;
use crate::message;
use crate::wire::{HEADER, LARGEST, MessageKind};

/// How long a peer may send nothing while a message from it is due.
pub const SILENCE: Duration = Duration::from_secs(10);
/// How often a side of a session sends `Alive`.
pub const BEAT: Duration = Duration::from_secs(2);
/// How long a session may go without a byte from the peer before the peer counts as gone: longer
/// than three [`BEAT`]s. That the connection is open proves nothing: a child of a fork may keep it
/// open after the peer's process has died.
pub const LULL: Duration = Duration::from_secs(8);
/// How long the side that refuses keeps the connection open so that the peer can read the reason.
pub(crate) const LINGER: Duration = Duration::from_secs(1);

/// Probes of an idle connection: a host that died is noticed after 4 + 3 * 2 = 10 seconds.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(4);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(2);
const KEEPALIVE_PROBES: u32 = 3;
/// How long sent bytes may stay unacknowledged. The system's default is some 15 minutes.
const UNACKNOWLEDGED: Duration = Duration::from_secs(10);

/// Why a wait has ended.
#[derive(PartialEq, Eq)]
enum Woken {
    Ready,
    Stopped,
    TimedOut,
}

/// The bytes of one whole message, and its kind, which determines their number.
pub(crate) type Frame = (MessageKind, Vec<u8>);

/// A connection, and the message that is being received.
pub(crate) struct Stream {
    tcp: TcpStream,
    /// Ends every wait, at a producer.
    stop: Option<Arc<StopSignal>>,
    /// How long the peer may send nothing while a message from it is due.
    silence: Duration,
    /// The message that is being received: its first `filled` bytes have come.
    inbox: Box<[u8; LARGEST]>,
    filled: usize,
    /// When the first byte of the message in the inbox came.
    begun: Instant,
    /// When a byte came last, or the connection was made.
    heard: Instant,
}

impl Stream {
    pub(crate) fn new(tcp: TcpStream, silence: Duration, stop: Option<Arc<StopSignal>>) -> io::Result<Self> {
        tcp.set_nonblocking(true)?;
        tcp.set_nodelay(true)?;
        sockopt::set_socket_keepalive(&tcp, true)?;
        sockopt::set_tcp_keepidle(&tcp, KEEPALIVE_IDLE)?;
        sockopt::set_tcp_keepintvl(&tcp, KEEPALIVE_INTERVAL)?;
        sockopt::set_tcp_keepcnt(&tcp, KEEPALIVE_PROBES)?;
        sockopt::set_tcp_user_timeout(&tcp, UNACKNOWLEDGED.as_millis() as u32)?;
        let now = Instant::now();
        Ok(Self { tcp, stop, silence, inbox: Box::new([0; LARGEST]), filled: 0, begun: now, heard: now })
    }

    /// When a byte came last.
    pub(crate) fn heard(&self) -> Instant {
        self.heard
    }

    /// How long the peer may send nothing while a message from it is due.
    pub(crate) fn silence(&self) -> Duration {
        self.silence
    }

    fn wait(&self, flags: PollFlags, until: Option<Instant>) -> io::Result<Woken> {
        let stop = self.stop.as_deref();
        let mut fds = [
            PollFd::new(&self.tcp, flags),
            PollFd::from_borrowed_fd(stop.map_or(self.tcp.as_fd(), AsFd::as_fd), PollFlags::IN),
        ];
        let watched = if stop.is_some() { 2 } else { 1 };
        loop {
            let until = until.map(poll_timeout);
            match poll(&mut fds[..watched], until.as_ref()) {
                Ok(0) => return Ok(Woken::TimedOut),
                Ok(_) if watched == 2 && !fds[1].revents().is_empty() => return Ok(Woken::Stopped),
                Ok(_) => return Ok(Woken::Ready),
                Err(rustix::io::Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }

    /// Waits for the socket, no longer than silence and deadline allow.
    fn await_progress(&self, flags: PollFlags, since: Instant, deadline: Instant) -> Result<(), Cause> {
        let silent = since + self.silence;
        loop {
            match self.wait(flags, Some(silent.min(deadline))).map_err(Cause::Io)? {
                Woken::Ready => return Ok(()),
                Woken::Stopped => return Err(Cause::Stopped),
                Woken::TimedOut if Instant::now() >= deadline => return Err(Cause::Deadline),
                Woken::TimedOut if Instant::now() >= silent => return Err(Cause::Silence(self.silence)),
                // Poll rounds to milliseconds on some kernels.
                Woken::TimedOut => {}
            }
        }
    }

    /// Sends all of `bytes`.
    pub(crate) fn send(&mut self, mut bytes: &[u8], deadline: Instant) -> Result<(), Cause> {
        let mut since = Instant::now();
        while !bytes.is_empty() {
            if Instant::now() >= deadline {
                return Err(Cause::Deadline);
            }
            match self.tcp.write(bytes) {
                Ok(0) => return Err(Cause::Closed),
                Ok(sent) => {
                    bytes = &bytes[sent..];
                    since = Instant::now();
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    self.await_progress(PollFlags::OUT, since, deadline)?;
                }
                Err(e) => return Err(Cause::Io(e)),
            }
        }
        Ok(())
    }

    /// Sends as many bytes as the socket takes without waiting: for a message before the close.
    pub(crate) fn send_now(&mut self, bytes: &[u8]) {
        let _ = self.tcp.write(bytes);
    }

    /// Reads the bytes of the next message that have arrived, and none beyond it.
    fn fill(&mut self) -> Result<Fill, Cause> {
        let mut progressed = false;
        loop {
            let want = if self.filled < HEADER { HEADER } else { message::header(&self.inbox[..])?.bytes() };
            if self.filled == want {
                // The header is whole, and so is the message.
                let kind = message::header(&self.inbox[..])?;
                self.filled = 0;
                return Ok(Fill::Whole((kind, self.inbox[..want].to_vec())));
            }
            match self.tcp.read(&mut self.inbox[self.filled..want]) {
                Ok(0) if self.filled == 0 => return Err(Cause::Closed),
                Ok(0) => return Err(Cause::Truncated { got: self.filled, want }),
                Ok(got) => {
                    self.heard = Instant::now();
                    if self.filled == 0 {
                        self.begun = self.heard;
                    }
                    self.filled += got;
                    progressed = true;
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(Fill::Partly { progressed }),
                Err(e) => return Err(Cause::Io(e)),
            }
        }
    }

    /// The next message, in time.
    pub(crate) fn recv(&mut self, deadline: Instant) -> Result<Frame, Cause> {
        let mut since = Instant::now();
        loop {
            match self.fill()? {
                Fill::Whole(frame) => return Ok(frame),
                Fill::Partly { progressed } => {
                    if progressed {
                        since = Instant::now();
                    }
                    self.await_progress(PollFlags::IN, since, deadline)?;
                }
            }
        }
    }

    /// The next message of a session, if a whole one has come. Does not block.
    ///
    /// # Errors
    ///
    /// The connection's end; a message that was begun and is not whole in the time that a silent
    /// peer has; or not a byte for [`LULL`].
    pub(crate) fn try_recv(&mut self) -> Result<Option<Frame>, Cause> {
        match self.fill()? {
            Fill::Whole(frame) => return Ok(Some(frame)),
            Fill::Partly { .. } if self.filled > 0 && self.begun.elapsed() >= self.silence => {
                return Err(Cause::Silence(self.silence));
            }
            Fill::Partly { .. } => {}
        }
        // The time is checked after reading: this thread may have slept for long while bytes came.
        if self.heard.elapsed() >= LULL { Err(Cause::Silence(LULL)) } else { Ok(None) }
    }

    /// Waits until there is something to read, `wake` is readable, or `until` is past. Whether the
    /// server has stopped.
    pub(crate) fn wait_in_session(&self, wake: BorrowedFd<'_>, until: Instant) -> io::Result<bool> {
        let stop = self.stop.as_deref().map_or(wake, AsFd::as_fd);
        let mut fds = [
            PollFd::new(&self.tcp, PollFlags::IN),
            PollFd::from_borrowed_fd(wake, PollFlags::IN),
            PollFd::from_borrowed_fd(stop, PollFlags::IN),
        ];
        match poll(&mut fds, Some(&poll_timeout(until))) {
            Ok(_) => Ok(self.stop.is_some() && !fds[2].revents().is_empty()),
            Err(rustix::io::Errno::INTR) => Ok(false),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Waits until there is something to read, or `until` is past.
    pub(crate) fn wait_readable(&self, until: Instant) -> io::Result<()> {
        self.wait(PollFlags::IN, Some(until)).map(drop)
    }

    /// The kind's number in a header that was refused, for the refusal.
    pub(crate) fn header_kind(&self) -> u16 {
        if self.filled < HEADER { 0 } else { u16::from_le_bytes([self.inbox[8], self.inbox[9]]) }
    }

    /// Closes the connection for sending.
    pub(crate) fn end(&self) {
        let _ = self.tcp.shutdown(Shutdown::Write);
    }

    /// Reads and drops some of the bytes that have come, and returns whether the peer has closed
    /// its side.
    pub(crate) fn drained(&mut self) -> bool {
        let mut unread = [0; 1024];
        // A bounded number of reads: a peer may send faster than this thread reads.
        for _ in 0..16 {
            match self.tcp.read(&mut unread) {
                Ok(0) => return true,
                Ok(_) => {}
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return e.kind() != io::ErrorKind::WouldBlock,
            }
        }
        false
    }

    /// Closes the connection for sending, and waits until the peer has closed its side or `until`
    /// is past. Closing the socket at once, with bytes unread, would reset the connection, and the
    /// peer could lose the last message.
    pub(crate) fn linger(&mut self, until: Instant) {
        self.end();
        while !self.drained() && Instant::now() < until {
            if !matches!(self.wait(PollFlags::IN, Some(until)), Ok(Woken::Ready)) {
                return;
            }
        }
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.tcp.as_fd()
    }
}

/// What reading from the socket gave.
enum Fill {
    Whole(Frame),
    Partly { progressed: bool },
}
