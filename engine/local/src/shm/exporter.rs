//! The producer's side: a thread that hands out file descriptors, and one that logs for it.
//!
//! The first has a descriptor table of its own, with the connections in it. So no child of a fork
//! inherits them, and they end with this process: readers notice, whatever its children do.

use std::io::{self, IoSlice};
use std::iter;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::io::Errno;
use rustix::net::{
    self, AddressFamily, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix,
    SocketFlags, SocketType,
};
use rustix::time::Timespec;

use super::address::Address;
use super::hello::{self, MAX_SEGMENTS, PROTOCOL};
use crate::descriptors::{self, Maker};
use crate::hello::{HELLO_BYTES, Refusal};
use crate::log_limit::LogLimit;
use crate::region::Region;
use crate::segment::Segment;

/// How long a client may take to say its hello.
const PATIENCE: Duration = Duration::from_secs(10);

/// Readers at a time.
pub const MAX_CLIENTS: usize = 1024;

/// Connections at a time that have not said hello. Any process of the host can make one: one more sends
/// the oldest away, so that those who stay silent keep neither this process's descriptors nor readers out.
const MAX_NEWCOMERS: usize = 64;

/// Serves [`Segment`]s to readers that know its address. Dropping it ends every connection: the
/// readers take the producer for dead. They do so too when the process dies.
#[derive(Debug)]
pub struct Exporter {
    address: Address,
    regions: Vec<Region>,
    /// Kept open for the thread, which has it borrowed; the segments' descriptors likewise.
    stop: OwnedFd,
    _segments: Vec<Arc<Segment>>,
    thread: Option<JoinHandle<()>>,
    logger: Option<JoinHandle<()>>,
    maker: Maker,
}

/// Why nothing can be exported.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExportError {
    /// Too few or too many segments.
    #[error("{segments} segments were given to one exporter; it takes 1 to {MAX_SEGMENTS}: use larger ones")]
    Segments {
        /// How many were given.
        segments: usize,
    },
    /// The system refused.
    #[error("an exporter could not be started: {step} failed: {errno}")]
    System {
        /// The system call.
        step: &'static str,
        /// Its error.
        errno: Errno,
    },
    /// No random numbers.
    #[error("an exporter needs random numbers for its address, and the system gave none: {0}")]
    Random(getrandom::Error),
    /// No thread.
    #[error("the exporter's thread could not be started; raise the limit on threads (ulimit -u)")]
    Thread(#[source] std::io::Error),
}

impl Exporter {
    /// Listens on an abstract Unix socket with a random name, and serves `segments` from a thread of
    /// its own until it is dropped.
    ///
    /// # Errors
    ///
    /// No segment or more than [`MAX_SEGMENTS`]; or the system refused something.
    pub fn start(segments: Vec<Arc<Segment>>) -> Result<Self, ExportError> {
        if segments.is_empty() || segments.len() > MAX_SEGMENTS {
            return Err(ExportError::Segments { segments: segments.len() });
        }
        let address = Address::random().map_err(ExportError::Random)?;
        let stop = eventfd(0, EventfdFlags::CLOEXEC)
            .map_err(|errno| ExportError::System { step: "eventfd", errno })?;
        let regions: Vec<Region> = segments
            .iter()
            .zip(0..)
            .map(|(s, rkey)| Region { base: s.addr(), len: s.len() as u64, rkey })
            .collect();
        let welcome = hello::welcome(address.answer, &regions);
        let keep = iter::once(stop.as_raw_fd()).chain(segments.iter().map(|s| s.fd().as_raw_fd()));
        let (tell, told) = sync_channel(1);
        let (log, lines) = sync_channel(16);
        let thread = descriptors::spawn("kvrail-exporter", keep.collect(), move |kept, own| {
            let (stop, segments) = (kept[0], &kept[1..]);
            match listen(&address) {
                Err(error) => drop(tell.send(Err(error))),
                Ok(listener) => {
                    let _ = tell.send(Ok(own));
                    Server { listener, stop, address, segments, welcome, clients: Vec::new(), log }.run();
                }
            }
        });
        let mut this = Self {
            address,
            regions,
            stop,
            _segments: segments,
            thread: Some(thread.map_err(ExportError::Thread)?),
            logger: None,
            maker: Maker::this_process(),
        };
        let ended = |_| ExportError::Thread(io::Error::other("it ended at once"));
        if let Err(errno) = told.recv().map_err(ended)?? {
            tracing::warn!(
                %errno,
                "a child of a fork would keep readers from noticing that this process has died: \
                 the system gives a thread no descriptors of its own"
            );
        }
        let logger = std::thread::Builder::new().name("kvrail-exp-log".into()).spawn(move || {
            let limit = LogLimit::new();
            for line in lines {
                if let Some(left_out) = limit.allows() {
                    write_line(&line, left_out);
                }
            }
        });
        this.logger = Some(logger.map_err(ExportError::Thread)?);
        Ok(this)
    }

    /// What a reader connects to.
    #[must_use]
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// The segments, in the order given: base, length and rkey, as READs name them.
    #[must_use]
    pub fn regions(&self) -> &[Region] {
        &self.regions
    }
}

impl Drop for Exporter {
    fn drop(&mut self) {
        // In a child of a fork there are no threads, and the counter is the parent's.
        if !self.maker.is_this_process() {
            return;
        }
        // Fails only if the counter would overflow; it is written once.
        let _ = rustix::io::write(&self.stop, &1_u64.to_ne_bytes());
        for thread in [self.thread.take(), self.logger.take()].into_iter().flatten() {
            let _ = thread.join();
        }
    }
}

/// What the thread has to say. It cannot log itself: a logger's descriptors are not in its table.
enum Line {
    Refused(Refusal),
    NotAccepted(Errno),
    Ends(Errno),
}

fn write_line(line: &Line, left_out: u64) {
    match line {
        Line::Refused(refusal) => tracing::warn!(?refusal, left_out, "refused a reader"),
        Line::NotAccepted(errno) => tracing::warn!(%errno, left_out, "a reader could not be accepted"),
        Line::Ends(errno) => {
            tracing::error!(%errno, "the exporter cannot poll and stops: readers will see it as dead");
        }
    }
}

fn listen(address: &Address) -> Result<OwnedFd, ExportError> {
    let failed = |step| move |errno| ExportError::System { step, errno };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let listener = net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)
        .map_err(failed("socket"))?;
    let name = SocketAddrUnix::new_abstract_name(&address.name).map_err(failed("naming"))?;
    net::bind(&listener, &name).map_err(failed("bind"))?;
    net::listen(&listener, 128).map_err(failed("listen"))?;
    Ok(listener)
}

struct Client {
    fd: OwnedFd,
    /// Until when it must have said hello; `None` when it has.
    until: Option<Instant>,
}

/// What the thread owns. Nothing here waits for a single client: all descriptors are polled, and the
/// messages of a SEQPACKET socket come and go whole.
struct Server<'a> {
    listener: OwnedFd,
    stop: BorrowedFd<'a>,
    address: Address,
    segments: &'a [BorrowedFd<'a>],
    welcome: [u8; hello::REPLY_BYTES],
    clients: Vec<Client>,
    log: SyncSender<Line>,
}

impl Server<'_> {
    /// A line that finds the logger behind is left out: the strangers that cause it may be many.
    fn log(&self, line: Line) {
        let _ = self.log.try_send(line);
    }

    fn run(mut self) {
        loop {
            let Some(ready) = self.poll() else { return };
            let now = Instant::now();
            let mut ready_clients = ready.clients.iter();
            let mut clients = std::mem::take(&mut self.clients);
            let mut served = clients.iter().filter(|c| c.until.is_none()).count();
            clients.retain_mut(|client| {
                let ready = ready_clients.next().is_some_and(|&r| r);
                let before = usize::from(client.until.is_none());
                let stays = if ready {
                    self.serve(client, served < MAX_CLIENTS)
                } else {
                    client.until.is_none_or(|until| now < until)
                };
                served = served - before + usize::from(stays && client.until.is_none());
                stays
            });
            self.clients = clients;
            if ready.listener {
                self.accept(now);
            }
        }
    }

    /// Sleeps until something is to be done. `None`: it is the end.
    fn poll(&self) -> Option<Ready> {
        let mut fds = Vec::with_capacity(2 + self.clients.len());
        fds.push(PollFd::from_borrowed_fd(self.stop, PollFlags::IN));
        fds.push(PollFd::new(&self.listener, PollFlags::IN));
        fds.extend(self.clients.iter().map(|c| PollFd::new(&c.fd, PollFlags::IN)));
        let next = self.clients.iter().filter_map(|c| c.until).min();
        let timeout = next.map(|at| {
            let left = at.saturating_duration_since(Instant::now());
            Timespec { tv_sec: left.as_secs().cast_signed(), tv_nsec: i64::from(left.subsec_nanos()) }
        });
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) => {}
            Err(Errno::INTR) => return Some(Ready { listener: false, clients: Vec::new() }),
            Err(errno) => {
                self.log(Line::Ends(errno));
                return None;
            }
        }
        let ready = |fd: &PollFd<'_>| !fd.revents().is_empty();
        if ready(&fds[0]) {
            return None;
        }
        Some(Ready { listener: ready(&fds[1]), clients: fds[2..].iter().map(ready).collect() })
    }

    fn accept(&mut self, now: Instant) {
        match net::accept_with(&self.listener, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK) {
            Ok(fd) => {
                let mut newcomers = self.clients.iter().enumerate().filter(|(_, c)| c.until.is_some());
                if let Some((oldest, _)) = newcomers.next()
                    && newcomers.count() + 1 == MAX_NEWCOMERS
                {
                    let goes = self.clients.remove(oldest);
                    // It may have hung up.
                    let _ = send(goes.fd.as_fd(), &hello::refuse(Refusal::Crowded), &[]);
                }
                self.clients.push(Client { fd, until: Some(now + PATIENCE) });
            }
            // Gone again, or a signal.
            Err(Errno::AGAIN | Errno::CONNABORTED | Errno::INTR) => {}
            Err(errno) => {
                self.log(Line::NotAccepted(errno));
                // Out of descriptors, most likely: the listener stays ready, so do not spin on it.
                std::thread::sleep(Duration::from_millis(50));
            }
        }
    }

    /// Hears a client that has something to say, or has hung up. Whether to keep it.
    fn serve(&self, client: &mut Client, room: bool) -> bool {
        let mut bytes = [0; HELLO_BYTES + 1];
        let received = match net::recv(&client.fd, &mut bytes, RecvFlags::empty()) {
            Ok((n, _)) => n,
            Err(Errno::AGAIN | Errno::INTR) => return true,
            Err(_) => return false,
        };
        if client.until.is_none() {
            // A connected reader has nothing to say: this is its end, or nonsense.
            return false;
        }
        let judged = match <&[u8; HELLO_BYTES]>::try_from(&bytes[..received]) {
            Ok(hello) => PROTOCOL.check_hello(hello, self.address.token).and(if room {
                Ok(())
            } else {
                Err(Refusal::Full)
            }),
            Err(_) if received == 0 => return false,
            Err(_) => Err(Refusal::Malformed),
        };
        let sent = match judged {
            Ok(()) => send(client.fd.as_fd(), &self.welcome, self.segments),
            Err(refusal) => {
                self.log(Line::Refused(refusal));
                send(client.fd.as_fd(), &hello::refuse(refusal), &[])
            }
        };
        client.until = None;
        // Not accepted, or not told so: it goes.
        judged.is_ok() && sent.is_ok()
    }
}

struct Ready {
    listener: bool,
    clients: Vec<bool>,
}

fn send(to: BorrowedFd<'_>, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> Result<(), Errno> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_SEGMENTS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(Errno::NOBUFS);
    }
    net::sendmsg(to, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL).map(drop)
}
