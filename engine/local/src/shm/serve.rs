//! The exporter's thread: sends file descriptors to readers that show the token.

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::mpsc::SyncSender;
use std::time::{Duration, Instant};

use kvrail_host::accept::{AcceptError, AcceptHandler, ConnectionSource, accept_loop};
use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;
use rustix::net::{
    self, AddressFamily, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix,
    SocketFlags, SocketType,
};

use super::address::ShmAddress;
use super::hello::{self, MAX_SEGMENTS, PROTOCOL};
use crate::hello::{HELLO_BYTES, HelloRefusal};

/// How long a client may take to send its hello.
const HELLO_TIMEOUT: Duration = Duration::from_secs(10);

/// Readers that one exporter serves at a time.
pub const MAX_READERS: usize = 1024;

/// How many connections may exist at a time whose hello has not come. Any process of the host can
/// make one. A further connection displaces the oldest, so that such connections neither use up
/// this process's descriptors nor keep readers out.
const MAX_HANDSHAKES: usize = 64;

/// A log line, which the exporter's thread passes to the logging thread. The exporter's thread
/// cannot log: a logger's descriptors are not in its table.
pub(super) enum LogLine {
    Refused(HelloRefusal),
    NotAccepted(io::Error),
    Ended(AcceptError),
}

/// The listening socket: abstract, SEQPACKET.
pub(super) struct SocketListener(OwnedFd);

impl SocketListener {
    /// Listens at the name in `address`. On failure: the step, and the system's reason.
    pub(super) fn bind(address: &ShmAddress) -> Result<Self, (&'static str, Errno)> {
        let failed = |step| move |errno| (step, errno);
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let listener = net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)
            .map_err(failed("socket"))?;
        let name = SocketAddrUnix::new_abstract_name(&address.name).map_err(failed("naming"))?;
        net::bind(&listener, &name).map_err(failed("bind"))?;
        net::listen(&listener, 128).map_err(failed("listen"))?;
        Ok(Self(listener))
    }
}

impl AsFd for SocketListener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl ConnectionSource for SocketListener {
    type Connection = OwnedFd;

    fn accept(&self) -> io::Result<OwnedFd> {
        Ok(net::accept_with(&self.0, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK)?)
    }
}

/// A connected process.
struct Client {
    fd: OwnedFd,
    /// When its hello is due; `None` when the hello has come and been answered.
    hello_due: Option<Instant>,
}

/// The state of the exporter's thread. The thread never waits for one client: it polls all
/// descriptors, and a message of a SEQPACKET socket is sent and received whole.
pub(super) struct SegmentServer<'a> {
    pub(super) address: ShmAddress,
    pub(super) segments: &'a [BorrowedFd<'a>],
    pub(super) welcome: [u8; hello::REPLY_BYTES],
    pub(super) log: SyncSender<LogLine>,
    /// The connected processes, in the order of arrival.
    clients: Vec<Client>,
}

impl<'a> SegmentServer<'a> {
    pub(super) fn new(
        address: ShmAddress,
        segments: &'a [BorrowedFd<'a>],
        welcome: [u8; hello::REPLY_BYTES],
        log: SyncSender<LogLine>,
    ) -> Self {
        Self { address, segments, welcome, log, clients: Vec::new() }
    }

    /// Serves until `stop` is readable.
    pub(super) fn run(mut self, listener: &SocketListener, stop: BorrowedFd<'_>) {
        if let Err(error) = accept_loop(listener, stop, &mut self) {
            self.log(LogLine::Ended(error));
        }
    }

    /// Passes a line on. A line is left out while the logging thread is behind: remote processes
    /// can cause any number of lines.
    fn log(&self, line: LogLine) {
        let _ = self.log.try_send(line);
    }

    /// Receives from a client that has sent something or has closed its end, and returns whether to
    /// keep the client. `room`: whether there is room for one more reader.
    fn serve(&self, client: &mut Client, room: bool) -> bool {
        let mut bytes = [0; HELLO_BYTES + 1];
        let received = match net::recv(&client.fd, &mut bytes, RecvFlags::empty()) {
            Ok((n, _)) => n,
            Err(Errno::AGAIN | Errno::INTR) => return true,
            Err(_) => return false,
        };
        if client.hello_due.is_none() {
            // A reader sends nothing after its hello: the connection has ended, or the process does
            // not speak this protocol.
            return false;
        }
        let verdict = match <&[u8; HELLO_BYTES]>::try_from(&bytes[..received]) {
            Ok(hello) => PROTOCOL.check_hello(hello, self.address.token).and(if room {
                Ok(())
            } else {
                Err(HelloRefusal::Full)
            }),
            Err(_) if received == 0 => return false,
            Err(_) => Err(HelloRefusal::Malformed),
        };
        let sent = match verdict {
            Ok(()) => send(client.fd.as_fd(), &self.welcome, self.segments),
            Err(refusal) => {
                self.log(LogLine::Refused(refusal));
                send(client.fd.as_fd(), &hello::refuse(refusal), &[])
            }
        };
        client.hello_due = None;
        verdict.is_ok() && sent.is_ok()
    }
}

impl AcceptHandler<OwnedFd> for SegmentServer<'_> {
    fn accepted(&mut self, fd: OwnedFd) {
        let mut silent = self.clients.iter().enumerate().filter(|(_, c)| c.hello_due.is_some());
        if let Some((oldest, _)) = silent.next()
            && silent.count() + 1 == MAX_HANDSHAKES
        {
            let displaced = self.clients.remove(oldest);
            // Fails if the client has closed its end.
            let _ = send(displaced.fd.as_fd(), &hello::refuse(HelloRefusal::Crowded), &[]);
        }
        self.clients.push(Client { fd, hello_due: Some(Instant::now() + HELLO_TIMEOUT) });
    }

    fn cannot_accept(&mut self, error: &io::Error) {
        // `io::Error` is not `Clone`: an error of the system is copied by its number.
        let error = error.raw_os_error().map_or_else(|| error.kind().into(), io::Error::from_raw_os_error);
        self.log(LogLine::NotAccepted(error));
    }

    fn watch<'a>(&'a self, fds: &mut Vec<PollFd<'a>>) -> Option<Instant> {
        fds.extend(self.clients.iter().map(|c| PollFd::new(&c.fd, PollFlags::IN)));
        self.clients.iter().filter_map(|c| c.hello_due).min()
    }

    fn woken(&mut self, now: Instant, ready: &[bool]) {
        let mut ready = ready.iter();
        let mut clients = std::mem::take(&mut self.clients);
        let mut readers = clients.iter().filter(|c| c.hello_due.is_none()).count();
        clients.retain_mut(|client| {
            let is_ready = ready.next().is_some_and(|&r| r);
            let before = usize::from(client.hello_due.is_none());
            let stays = if is_ready {
                self.serve(client, readers < MAX_READERS)
            } else {
                client.hello_due.is_none_or(|due| now < due)
            };
            readers = readers - before + usize::from(stays && client.hello_due.is_none());
            stays
        });
        self.clients = clients;
    }
}

/// Sends one message, with copies of `fds`.
fn send(to: BorrowedFd<'_>, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> Result<(), Errno> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_SEGMENTS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(Errno::NOBUFS);
    }
    net::sendmsg(to, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL).map(drop)
}
