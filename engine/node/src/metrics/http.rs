//! An HTTP server with one page: `GET /metrics`.
//!
//! Prometheus asks every few seconds, from one or two addresses. One thread answers one connection
//! after the other; each has a second altogether, and 8 KiB for its request. The server has no
//! other page, no TLS and no log-in: it belongs on an address that only the monitoring reaches.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use kvrail_host::accept::ConnectionSource as _;
use kvrail_host::listener::Listener;
use kvrail_host::wake::StopSignal;
use prometheus_client::registry::Registry;
use rustix::event::{PollFd, PollFlags, poll};

use super::export;
use super::node::NodeMetrics;

/// The most bytes of a request.
const MAX_REQUEST: usize = 8 << 10;
/// How long a connection lasts at most.
const TIME: Duration = Duration::from_secs(1);
/// How long the server waits after it could not accept, most likely for lack of a descriptor.
const PAUSE: Duration = Duration::from_millis(100);

/// Why the metrics are not served.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MetricsError {
    /// The address cannot be listened on.
    #[error("metrics cannot be served at {address}: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The system's reason.
        // A raw name: the text contains the cause, so `source()` must not return it again.
        r#source: io::Error,
    },
    /// The system has no thread or descriptor left.
    #[error("the thread that serves metrics does not start: {0}")]
    Thread(io::Error),
}

impl MetricsError {
    /// A number that never changes its meaning (docs/errors.md).
    #[must_use]
    pub const fn code(&self) -> u32 {
        match self {
            Self::Listen { .. } => 7320,
            Self::Thread(_) => 7321,
        }
    }
}

/// Serves a node's metrics until it is dropped.
#[derive(Debug)]
pub struct MetricsServer {
    address: SocketAddr,
    stop: Arc<StopSignal>,
    thread: Option<JoinHandle<()>>,
}

impl MetricsServer {
    /// Serves `metrics` at `address` (port 0: any free port).
    ///
    /// # Errors
    ///
    /// The system refuses the address, or has no thread left.
    pub fn start(address: SocketAddr, metrics: Arc<NodeMetrics>) -> Result<Self, MetricsError> {
        let mut registry = Registry::default();
        export::register(&mut registry, metrics);
        Self::with_registry(address, registry)
    }

    /// Serves all of a registry, where [`export::register`] has shown a node's counters beside
    /// those of the program.
    ///
    /// # Errors
    ///
    /// The system refuses the address, or has no thread left.
    pub fn with_registry(address: SocketAddr, registry: Registry) -> Result<Self, MetricsError> {
        let listener = Listener::bind(address, "kvrail-mlisten");
        let listener = listener.map_err(|source| MetricsError::Listen { address, source })?;
        let stop = Arc::new(StopSignal::new().map_err(|errno| MetricsError::Thread(errno.into()))?);
        let (address, stops) = (listener.local_addr(), Arc::clone(&stop));
        let thread = std::thread::Builder::new().name("kvrail-metrics".into());
        let thread =
            thread.spawn(move || serve(&listener, &stops, &registry)).map_err(MetricsError::Thread)?;
        Ok(Self { address, stop, thread: Some(thread) })
    }

    /// The address at which it listens, with the port that it got.
    #[must_use]
    pub const fn local_addr(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for MetricsServer {
    fn drop(&mut self) {
        self.stop.raise();
        if let Some(thread) = self.thread.take() {
            // It ends within the time of one connection. A panic of it has been reported already.
            let _ = thread.join();
        }
    }
}

fn serve(listener: &Listener, stop: &StopSignal, registry: &Registry) {
    loop {
        let mut fds = [PollFd::new(listener, PollFlags::IN), PollFd::new(stop, PollFlags::IN)];
        let waited = poll(&mut fds, None);
        let [listening, stopping] = fds.each_ref().map(|fd| !fd.revents().is_empty());
        if stopping {
            return;
        }
        match waited {
            Ok(_) if listening => match listener.accept() {
                // One connection that fails is its own affair.
                Ok((stream, _)) => drop(answer(&stream, registry)),
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => pause(stop),
            },
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(_) => pause(stop),
        }
    }
}

fn pause(stop: &StopSignal) {
    let until = kvrail_host::wake::poll_timeout(Instant::now() + PAUSE);
    let _ = poll(&mut [PollFd::new(&stop.as_fd(), PollFlags::IN)], Some(&until));
}

/// Answers one request.
fn answer(stream: &TcpStream, registry: &Registry) -> io::Result<()> {
    let until = Instant::now() + TIME;
    stream.set_nonblocking(false)?;
    let (status, kind, body) = match request(stream, until)? {
        Asked::Metrics => ("200 OK", export::CONTENT_TYPE, export::text(registry)),
        Asked::OtherPage => ("404 Not Found", "text/plain", "the page is /metrics\n".to_owned()),
        Asked::OtherMethod => ("405 Method Not Allowed", "text/plain", "only GET\n".to_owned()),
        Asked::Nothing => ("400 Bad Request", "text/plain", "no HTTP request\n".to_owned()),
    };
    let length = body.len();
    let answer = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    );
    let mut rest = answer.as_bytes();
    while !rest.is_empty() {
        stream.set_write_timeout(Some(left(until)?))?;
        match (&mut &*stream).write(rest)? {
            0 => return Err(io::ErrorKind::WriteZero.into()),
            written => rest = &rest[written..],
        }
    }
    stream.shutdown(std::net::Shutdown::Write)
}

/// What a request asks for.
#[derive(Debug, PartialEq, Eq)]
enum Asked {
    Metrics,
    OtherPage,
    OtherMethod,
    Nothing,
}

/// The time that is left; an error if there is none.
fn left(until: Instant) -> io::Result<Duration> {
    let left = until.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(left) }
}

/// Reads a request to the end of its head, of which only the first line matters.
fn request(stream: &TcpStream, until: Instant) -> io::Result<Asked> {
    let mut head = [0; MAX_REQUEST];
    let mut length = 0;
    while !head[..length].windows(4).any(|end| end == b"\r\n\r\n") {
        if length == MAX_REQUEST {
            return Ok(Asked::Nothing);
        }
        stream.set_read_timeout(Some(left(until)?))?;
        match (&mut &*stream).read(&mut head[length..])? {
            0 => return Ok(Asked::Nothing),
            more => length += more,
        }
    }
    let line = head[..length].split(|&byte| byte == b'\r').next().unwrap_or_default();
    let mut words = line.split(|&byte| byte == b' ');
    let (method, target, version) = (words.next(), words.next(), words.next());
    if !version.is_some_and(|version| version.starts_with(b"HTTP/1.")) || words.next().is_some() {
        return Ok(Asked::Nothing);
    }
    let path = target.unwrap_or_default().split(|&byte| byte == b'?').next();
    Ok(match (method, path) {
        (Some(b"GET"), Some(b"/metrics")) => Asked::Metrics,
        (Some(b"GET"), _) => Asked::OtherPage,
        _ => Asked::OtherMethod,
    })
}
