//! The exporter's thread: describes exports to readers that show the token.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::mpsc::SyncSender;
use std::time::{Duration, Instant};

use kvrail_host::accept::{AcceptError, AcceptHandler, ConnectionSource, accept_loop};
use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;
use rustix::net::{self, AddressFamily, RecvFlags, SocketAddrUnix, SocketFlags, SocketType};
use rustix::pipe::{PipeFlags, pipe_with};

use super::address::ShmAddress;
use super::packet::{receive, send};
use super::table::SharedTable;
use super::wire::{self, ASK_BYTES, Ask, PROTOCOL, Probe};
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

/// An order to the exporter's thread, over a socket: a descriptor can come with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// Take the file over, under this number. It is acknowledged.
    Take(u64),
    /// Close the file of this number.
    Close(u64),
}

const ORDER_BYTES: usize = 9;

impl Order {
    pub(super) fn to_bytes(self) -> [u8; ORDER_BYTES] {
        let (kind, file) = match self {
            Self::Take(file) => (1, file),
            Self::Close(file) => (2, file),
        };
        let mut bytes = [kind; ORDER_BYTES];
        bytes[1..].copy_from_slice(&file.to_ne_bytes());
        bytes
    }

    fn parse(bytes: [u8; ORDER_BYTES]) -> Self {
        let [kind, file @ ..] = bytes;
        let file = u64::from_ne_bytes(file);
        if kind == 1 { Self::Take(file) } else { Self::Close(file) }
    }
}

/// A connected process.
struct Client {
    fd: OwnedFd,
    /// When its hello is due; `None` when the hello has come and been answered.
    hello_due: Option<Instant>,
}

/// What the exporter's thread is given.
pub(super) struct Endowment<'a> {
    pub(super) address: ShmAddress,
    pub(super) probe: Probe,
    pub(super) table: SharedTable,
    /// [`Order`]s come from it.
    pub(super) orders: BorrowedFd<'a>,
    /// The memory of the live words.
    pub(super) live: BorrowedFd<'a>,
    pub(super) ack: SyncSender<Result<(), Errno>>,
    pub(super) log: SyncSender<LogLine>,
}

/// The state of the exporter's thread. The thread never waits for one client: it polls all
/// descriptors, and a message of a SEQPACKET socket is sent and received whole.
pub(super) struct SegmentServer<'a> {
    endowment: Endowment<'a>,
    /// The pipe that ends with this thread: the end that readers get, and the end that no one
    /// writes to.
    life: (OwnedFd, OwnedFd),
    /// The files of exports, by number.
    files: BTreeMap<u64, OwnedFd>,
    /// The connected processes, in the order of arrival.
    clients: Vec<Client>,
}

impl<'a> SegmentServer<'a> {
    /// Called on the exporter's thread, so that the pipe is in its table alone.
    pub(super) fn new(endowment: Endowment<'a>) -> Result<Self, (&'static str, Errno)> {
        let life = pipe_with(PipeFlags::CLOEXEC).map_err(|errno| ("pipe", errno))?;
        Ok(Self { endowment, life, files: BTreeMap::new(), clients: Vec::new() })
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
        let _ = self.endowment.log.try_send(line);
    }

    /// Carries out the orders that have come.
    fn obey(&mut self) {
        let mut bytes = [0; ORDER_BYTES];
        // No order comes after an error, for the exporter has been dropped, or the loop comes back.
        while let Ok(packet) = receive(self.endowment.orders, &mut bytes, RecvFlags::DONTWAIT) {
            if packet.len == 0 {
                return;
            }
            match Order::parse(bytes) {
                Order::Take(file) => {
                    // A descriptor that did not come found no place in this thread's table.
                    let taken = packet.fds.into_iter().next().ok_or(Errno::MFILE);
                    let taken = taken.map(|fd| drop(self.files.insert(file, fd)));
                    let _ = self.endowment.ack.try_send(taken);
                }
                Order::Close(file) => drop(self.files.remove(&file)),
            }
        }
    }

    /// Answers a reader's question.
    fn answer(&self, to: BorrowedFd<'_>, ask: Ask) -> Result<(), Errno> {
        // The table stays locked until the answer is sent: after a withdrawal no answer tells of
        // the export any more.
        let table = self.endowment.table.lock();
        let exports = table.answer(ask);
        let mut fds = Vec::new();
        for file in exports.iter().filter_map(|export| export.file()) {
            // An export is in the table only while its file is here.
            fds.push(self.files.get(&file).ok_or(Errno::BADF)?.as_fd());
        }
        send(to, &wire::answer(ask, &exports), &fds)
    }

    fn hello(&self, bytes: &[u8], room: bool) -> Result<(), HelloRefusal> {
        let bytes = <&[u8; HELLO_BYTES]>::try_from(bytes).map_err(|_| HelloRefusal::Malformed)?;
        PROTOCOL.check_hello(bytes, self.endowment.address.token)?;
        if room { Ok(()) } else { Err(HelloRefusal::Full) }
    }

    /// Receives from a client that has sent something or has closed its end, and returns whether to
    /// keep the client. `room`: whether there is room for one more reader.
    fn serve(&self, client: &mut Client, room: bool) -> bool {
        let mut bytes = [0; HELLO_BYTES + 1];
        let received = match net::recv(&client.fd, &mut bytes, RecvFlags::empty()) {
            Ok((0, _)) => return false,
            Ok((n, _)) => &bytes[..n],
            Err(Errno::AGAIN | Errno::INTR) => return true,
            Err(_) => return false,
        };
        let to = client.fd.as_fd();
        if client.hello_due.take().is_none() {
            let ask = <&[u8; ASK_BYTES]>::try_from(received).ok().and_then(Ask::parse);
            // A process that asks otherwise does not speak this protocol.
            return ask.is_some_and(|ask| self.answer(to, ask).is_ok());
        }
        match self.hello(received, room) {
            Ok(()) => {
                let welcome = wire::welcome(self.endowment.address.answer, self.endowment.probe);
                send(to, &welcome, &[self.endowment.live, self.life.0.as_fd()]).is_ok()
            }
            Err(refusal) => {
                self.log(LogLine::Refused(refusal));
                // Fails if the client has closed its end.
                let _ = send(to, &wire::refuse(refusal), &[]);
                false
            }
        }
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
            let _ = send(displaced.fd.as_fd(), &wire::refuse(HelloRefusal::Crowded), &[]);
        }
        self.clients.push(Client { fd, hello_due: Some(Instant::now() + HELLO_TIMEOUT) });
    }

    fn cannot_accept(&mut self, error: &io::Error) {
        // `io::Error` is not `Clone`: an error of the system is copied by its number.
        let error = error.raw_os_error().map_or_else(|| error.kind().into(), io::Error::from_raw_os_error);
        self.log(LogLine::NotAccepted(error));
    }

    fn watch<'a>(&'a self, fds: &mut Vec<PollFd<'a>>) -> Option<Instant> {
        fds.push(PollFd::from_borrowed_fd(self.endowment.orders, PollFlags::IN));
        fds.extend(self.clients.iter().map(|c| PollFd::new(&c.fd, PollFlags::IN)));
        self.clients.iter().filter_map(|c| c.hello_due).min()
    }

    fn woken(&mut self, now: Instant, ready: &[bool]) {
        let mut ready = ready.iter();
        if ready.next().is_some_and(|&orders| orders) {
            self.obey();
        }
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
