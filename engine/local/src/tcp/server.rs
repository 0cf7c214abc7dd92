//! The producer's side: a thread per connection that answers requests in order.
#![allow(unsafe_code, reason = "the kernel reads published memory on our word")]

use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::ptr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use kvrail_core::provider::MemoryRange;
use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::net::{SendFlags, sockopt};
use zerocopy::IntoBytes as _;

use super::address::Address;
use super::wire::{PROTOCOL, Request, Response, read_until};
use crate::descriptors::Maker;
use crate::hello::{HELLO_BYTES, Refusal};
use crate::listener::Listener;
use crate::log_limit::LogLimit;
use crate::newcomers::{Newcomers, Place as NewcomersPlace};
use crate::region::Region;
use crate::segment::Segment;

/// The most exports of one server.
pub const MAX_EXPORTS: usize = 16;

/// Time for the hello, and for a reader to take what was sent.
const PATIENCE: Duration = Duration::from_secs(10);

/// Lanes that one server serves at a time, each a connection with a thread.
pub const MAX_LANES: usize = 1024;

/// Connections at a time that have not said the right hello.
const MAX_NEWCOMERS: usize = 64;
/// Threads: those of newcomers that were sent away and are about to end included.
const MAX_THREADS: usize = MAX_LANES + 2 * MAX_NEWCOMERS;

/// Memory that a server publishes.
#[derive(Debug)]
pub struct Export {
    range: MemoryRange,
    /// What keeps it alive, unless the caller does.
    _owner: Option<Arc<Segment>>,
}

impl Export {
    /// A segment, which the server keeps alive.
    #[must_use]
    pub fn segment(segment: Arc<Segment>) -> Self {
        Self { range: segment.range(), _owner: Some(segment) }
    }

    /// Any memory.
    ///
    /// # Safety
    ///
    /// Until the server has been dropped, `range` is mapped, and its bytes may become known to every
    /// reader that has the address. It may be written to meanwhile.
    #[must_use]
    pub unsafe fn memory(range: MemoryRange) -> Self {
        Self { range, _owner: None }
    }
}

/// Answers READs of what it publishes. Functional only: see [the module](super). Dropping it ends
/// every connection, and nothing is read any more.
#[derive(Debug)]
pub struct Server {
    address: Address,
    regions: Vec<Region>,
    stop: Arc<OwnedFd>,
    thread: Option<JoinHandle<()>>,
    maker: Maker,
}

/// Why nothing can be served.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// Too few or too many exports.
    #[error("{exports} exports were given to one server; it takes 1 to {MAX_EXPORTS}: use larger ones")]
    Exports {
        /// How many were given.
        exports: usize,
    },
    /// An empty range, or one that wraps around.
    #[error("export {index} is {} bytes at {:#x}: no range of memory", range.len, range.addr)]
    Range {
        /// Which.
        index: usize,
        /// What was given.
        range: MemoryRange,
    },
    /// The address to listen at is no place for readers to connect to.
    #[error("a server cannot listen at {bind}: name the address of the interface that readers shall use")]
    Unspecified {
        /// What was given.
        bind: SocketAddr,
    },
    /// The system refused.
    #[error("a server could not be started at {bind}: {step} failed: {source}")]
    System {
        /// Where.
        bind: SocketAddr,
        /// What failed.
        step: &'static str,
        /// The system's reason.
        // Raw: the text has it, so it is no source beside the text.
        r#source: io::Error,
    },
    /// No random numbers.
    #[error("a server needs random numbers for its address, and the system gave none: {0}")]
    Random(getrandom::Error),
}

impl Server {
    /// Listens at `bind` (port 0: one of the system's choice) and serves `exports` until it is dropped.
    ///
    /// # Errors
    ///
    /// No export or more than [`MAX_EXPORTS`], one that is no range; an unspecified IP address; or the
    /// system refused something.
    pub fn start(bind: SocketAddr, exports: Vec<Export>) -> Result<Self, ServeError> {
        Self::start_for(bind, exports, MAX_LANES)
    }

    fn start_for(bind: SocketAddr, exports: Vec<Export>, max_lanes: usize) -> Result<Self, ServeError> {
        if exports.is_empty() || exports.len() > MAX_EXPORTS {
            return Err(ServeError::Exports { exports: exports.len() });
        }
        if bind.ip().is_unspecified() {
            return Err(ServeError::Unspecified { bind });
        }
        let regions = exports.iter().zip(0..).map(|(export, rkey)| {
            let range @ MemoryRange { addr: base, len } = export.range;
            let bad = ServeError::Range { index: rkey as usize, range };
            base.checked_add(len).filter(|_| len > 0).ok_or(bad)?;
            Ok(Region { base, len, rkey })
        });
        let regions = regions.collect::<Result<Vec<_>, _>>()?;
        let failed = |step| move |source| ServeError::System { bind, step, source };
        let listener = Listener::bind(bind, "kvrail-tcp-listen").map_err(failed("listening"))?;
        let address = Address::random(listener.local_addr()).map_err(ServeError::Random)?;
        let stop = eventfd(0, EventfdFlags::CLOEXEC).map_err(|e| failed("eventfd")(e.into()))?;
        let stop = Arc::new(stop);
        let shared = Arc::new(Served {
            address,
            regions: regions.clone(),
            _exports: exports,
            lanes: AtomicUsize::new(0),
            max_lanes,
            log: LogLimit::new(),
        });
        let acceptor = Acceptor {
            listener,
            newcomers: Newcomers::new(MAX_NEWCOMERS),
            stop: Arc::clone(&stop),
            served: shared,
            connections: Vec::new(),
        };
        let thread = std::thread::Builder::new()
            .name("kvrail-tcp-serve".into())
            .spawn(move || acceptor.run())
            .map_err(failed("starting a thread"))?;
        Ok(Self { address, regions, stop, thread: Some(thread), maker: Maker::this_process() })
    }

    /// What a reader connects to.
    #[must_use]
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// The exports, in the order given: base, length and rkey, as READs name them.
    #[must_use]
    pub fn regions(&self) -> &[Region] {
        &self.regions
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // In a child of a fork there is no thread, and the counter is the parent's.
        if !self.maker.is_this_process() {
            return;
        }
        // Fails only if the counter would overflow; it is written once.
        let _ = rustix::io::write(&self.stop, &1_u64.to_ne_bytes());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// What all connections share.
struct Served {
    address: Address,
    regions: Vec<Region>,
    _exports: Vec<Export>,
    /// Connections that have said the right hello.
    lanes: AtomicUsize,
    max_lanes: usize,
    /// For what strangers can cause.
    log: LogLimit,
}

struct Acceptor {
    listener: Listener,
    newcomers: Arc<Newcomers>,
    stop: Arc<OwnedFd>,
    served: Arc<Served>,
    /// The thread has the stream, which is closed when the thread ends and not when this is looked at.
    connections: Vec<(Weak<TcpStream>, JoinHandle<()>)>,
}

impl Acceptor {
    fn run(mut self) {
        loop {
            let mut fds =
                [PollFd::new(&self.stop, PollFlags::IN), PollFd::new(&self.listener, PollFlags::IN)];
            match poll(&mut fds, None) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(errno) => {
                    tracing::error!(%errno, "the TCP server cannot poll and stops");
                    break;
                }
            }
            if !fds[0].revents().is_empty() {
                break;
            }
            match self.listener.accept() {
                Ok((stream, from)) => self.take(stream, from),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                    tracing::error!("the thread that listens has ended, and the TCP server stops");
                    break;
                }
                Err(error) => {
                    if let Some(left_out) = self.served.log.allows() {
                        tracing::warn!(%error, left_out, "a reader could not be accepted");
                    }
                    // Out of descriptors, most likely: more may be waiting, so do not spin on them.
                    std::thread::sleep(Duration::from_millis(50));
                }
            }
        }
        for (stream, _) in &self.connections {
            // Gone already, then.
            let _ = stream.upgrade().map(|stream| stream.shutdown(Shutdown::Both));
        }
        for (_, thread) in self.connections {
            let _ = thread.join();
        }
    }

    fn take(&mut self, stream: TcpStream, from: SocketAddr) {
        self.connections.retain(|(_, thread)| !thread.is_finished());
        let log = |why: &str| {
            if let Some(left_out) = self.served.log.allows() {
                tracing::warn!(%from, why, left_out, "refused a reader");
            }
        };
        if self.connections.len() >= MAX_THREADS {
            return log("others that were sent away are not gone yet");
        }
        // A newcomer that has to go for this one notices by itself.
        let place = match self.newcomers.admit(from.ip(), &stream) {
            Ok((place, _)) => place,
            Err(error) => return log(&error.to_string()),
        };
        let stream = Arc::new(stream);
        let (served, reached) = (Arc::clone(&self.served), Arc::downgrade(&stream));
        let thread = std::thread::Builder::new().name("kvrail-tcp-conn".into()).spawn(move || {
            if let Err(error) = served.serve(&stream, place) {
                tracing::debug!(%from, %error, "a connection has ended");
            }
        });
        match thread {
            Ok(thread) => self.connections.push((reached, thread)),
            Err(error) => log(&format!("no thread: {error}")),
        }
    }
}

impl Served {
    /// Serves one connection to its end.
    fn serve(&self, mut stream: &TcpStream, place: NewcomersPlace) -> io::Result<()> {
        stream.set_nonblocking(false)?;
        stream.set_nodelay(true)?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let mut hello = [0; HELLO_BYTES];
        let heard = read_until(stream, &mut hello, Instant::now() + PATIENCE);
        let judged = match heard {
            Err(_) if place.sent_away() => Err(Refusal::Crowded),
            Err(error) => return Err(error),
            Ok(()) => PROTOCOL.check_hello(&hello, self.address.token),
        };
        let judged =
            judged.and_then(|()| Counted::one_more(&self.lanes, self.max_lanes).ok_or(Refusal::Full));
        // It has shown that it may be here, or goes.
        drop(place);
        let _lane = match judged {
            Ok(lane) => lane,
            Err(refusal) => {
                if let Some(left_out) = self.log.allows() {
                    tracing::warn!(?refusal, left_out, "refused a reader");
                }
                // What does not speak the protocol gets no answer.
                if refusal != Refusal::Malformed {
                    stream.write_all(PROTOCOL.refuse(refusal).as_bytes())?;
                }
                return Ok(());
            }
        };
        stream.write_all(PROTOCOL.welcome(self.address.answer, 0).as_bytes())?;
        // A lane may be idle for long. Whether its machine is still there is the system's to find out.
        stream.set_read_timeout(None)?;
        sockopt::set_tcp_keepidle(stream, PATIENCE)?;
        sockopt::set_tcp_keepintvl(stream, PATIENCE)?;
        sockopt::set_tcp_keepcnt(stream, 3)?;
        sockopt::set_socket_keepalive(stream, true)?;
        loop {
            let mut bytes = [0; size_of::<Request>()];
            match stream.read_exact(&mut bytes) {
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
                other => other?,
            }
            let request: Request = zerocopy::transmute!(bytes);
            let (addr, len) = (request.addr.get(), request.len.get());
            let region = self.regions.get(request.rkey.get() as usize);
            match region.and_then(|region| region.offset(addr, len)) {
                Some(_) => {
                    rustix::net::send(
                        stream,
                        Response::DATA.as_bytes(),
                        SendFlags::NOSIGNAL | SendFlags::MORE,
                    )?;
                    send_memory(stream, MemoryRange { addr, len: u64::from(len) })?;
                }
                None => stream.write_all(Response::ACCESS.as_bytes())?,
            }
        }
    }
}

/// One of the lanes, until it is dropped.
struct Counted<'a>(&'a AtomicUsize);

impl<'a> Counted<'a> {
    fn one_more(lanes: &'a AtomicUsize, max: usize) -> Option<Self> {
        let more = |now| (now < max).then_some(now + 1);
        lanes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok().then_some(Self(lanes))
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Sends `range`, which lies within an export.
fn send_memory(stream: &TcpStream, range: MemoryRange) -> io::Result<()> {
    let mut at = ptr::with_exposed_provenance::<u8>(range.addr as usize);
    let mut left = range.len as usize;
    while left > 0 {
        // SAFETY: at .. at + left lies within an export, which is mapped until the server has been
        // dropped: a segment by its Arc, other memory by its owner's promise; the server's drop joins
        // this thread. The kernel reads the bytes: other threads may write to them meanwhile without
        // there being a data race of this program.
        let sent = unsafe { libc::send(stream.as_raw_fd(), at.cast(), left, libc::MSG_NOSIGNAL) };
        match usize::try_from(sent) {
            Ok(sent) => {
                at = at.wrapping_add(sent);
                left -= sent;
            }
            Err(_) => match io::Error::last_os_error() {
                error if error.kind() == io::ErrorKind::Interrupted => {}
                error => return Err(error),
            },
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tcp::{ConnectError, Connection};

    #[test]
    fn one_lane_too_many_is_told_so_and_has_a_place_when_another_goes() {
        let segment = Arc::new(Segment::new(4096).unwrap());
        let bind = "127.0.0.1:0".parse().unwrap();
        let server = Server::start_for(bind, vec![Export::segment(segment)], 2).unwrap();
        let open = || Connection::open(server.address());
        let (first, _second) = (open().unwrap(), open().unwrap());
        let error = open().unwrap_err();
        assert!(matches!(error, ConnectError::Full { .. }), "{error}");
        drop(first);
        let begun = Instant::now();
        while let Err(error) = open() {
            assert!(begun.elapsed() < PATIENCE, "{error}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}
