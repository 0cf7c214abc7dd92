//! The server's threads: one accepts connections, and each connection has one that answers its
//! requests in order.
#![allow(unsafe_code, reason = "the kernel is told to read published memory")]

use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::ptr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use kvrail_host::accept::{AcceptHandler, accept_loop};
use kvrail_host::handshakes::{HandshakePlace, Handshakes};
use kvrail_host::listener::Listener;
use kvrail_host::log_limit::LogLimit;
use kvrail_host::wake::StopSignal;
use rustix::net::{SendFlags, sockopt};
use zerocopy::IntoBytes as _;

use super::address::TcpAddress;
use super::exports::{Exports, Sending};
use super::wire::{PROTOCOL, Request, Response, read_until};
use crate::hello::{HELLO_BYTES, HelloRefusal};

/// How long a reader may take to send its hello, or to receive a reply or requested bytes.
const STEP_TIMEOUT: Duration = Duration::from_secs(10);

/// Lanes that one server serves at a time, each a connection with a thread.
pub const MAX_LANES: usize = 1024;

/// How many connections may exist at a time whose hello has not come.
const MAX_HANDSHAKES: usize = 64;
/// Threads of connections, including displaced connections that are about to end.
const MAX_THREADS: usize = MAX_LANES + 2 * MAX_HANDSHAKES;

/// Bytes that one system call sends. Between two of them a withdrawal is noticed.
const PIECE: usize = 256 << 10;

/// The state that all connections share.
pub(super) struct ServerState {
    address: TcpAddress,
    exports: Arc<Exports>,
    /// Connections whose hello was accepted.
    lanes: AtomicUsize,
    max_lanes: usize,
    /// For lines that any process that reaches the port can cause.
    log: LogLimit,
}

impl ServerState {
    pub(super) fn new(address: TcpAddress, exports: Arc<Exports>, max_lanes: usize) -> Self {
        Self { address, exports, lanes: AtomicUsize::new(0), max_lanes, log: LogLimit::new() }
    }
}

/// The state of the thread that accepts connections.
pub(super) struct ServerThread {
    handshakes: Arc<Handshakes>,
    served: Arc<ServerState>,
    /// Each connection's thread owns its stream, so the stream is closed when the thread ends and
    /// not when this list is looked at next.
    connections: Vec<(Weak<TcpStream>, JoinHandle<()>)>,
}

impl ServerThread {
    pub(super) fn new(served: ServerState) -> Self {
        Self {
            handshakes: Handshakes::new(MAX_HANDSHAKES),
            served: Arc::new(served),
            connections: Vec::new(),
        }
    }

    /// Serves until `stop` is raised, and returns when all connections have ended.
    pub(super) fn run(mut self, listener: &Listener, stop: &StopSignal) {
        if let Err(error) = accept_loop(listener, stop.as_fd(), &mut self) {
            tracing::error!(%error, "the TCP server stops");
        }
        for (stream, _) in &self.connections {
            // A stream that cannot be upgraded has been closed already.
            let _ = stream.upgrade().map(|stream| stream.shutdown(Shutdown::Both));
        }
        for (_, thread) in self.connections {
            let _ = thread.join();
        }
    }
}

impl AcceptHandler<(TcpStream, SocketAddr)> for ServerThread {
    fn accepted(&mut self, (stream, from): (TcpStream, SocketAddr)) {
        self.connections.retain(|(_, thread)| !thread.is_finished());
        let log = |why: &str| {
            if let Some(left_out) = self.served.log.allows() {
                tracing::warn!(%from, why, left_out, "refused a reader");
            }
        };
        if self.connections.len() >= MAX_THREADS {
            return log("the threads of displaced connections have not ended yet");
        }
        // A connection that this one displaces ends by itself.
        let place = match self.handshakes.admit(from.ip(), &stream) {
            Ok((place, _)) => place,
            Err(error) => return log(&error.to_string()),
        };
        let stream = Arc::new(stream);
        let (served, handle) = (Arc::clone(&self.served), Arc::downgrade(&stream));
        let thread = std::thread::Builder::new().name("kvrail-tcp-conn".into()).spawn(move || {
            if let Err(error) = served.serve(&stream, place) {
                tracing::debug!(%from, %error, "a connection has ended");
            }
        });
        match thread {
            Ok(thread) => self.connections.push((handle, thread)),
            Err(error) => log(&format!("no thread: {error}")),
        }
    }

    fn cannot_accept(&mut self, error: &io::Error) {
        if let Some(left_out) = self.served.log.allows() {
            tracing::warn!(
                %error, left_out,
                "a reader could not be accepted; if descriptors are short raise the limit (ulimit -n)"
            );
        }
    }
}

impl ServerState {
    /// Serves one connection to its end.
    fn serve(&self, connection: &Arc<TcpStream>, place: HandshakePlace) -> io::Result<()> {
        let mut stream: &TcpStream = connection;
        stream.set_nonblocking(false)?;
        stream.set_nodelay(true)?;
        stream.set_write_timeout(Some(STEP_TIMEOUT))?;
        let mut hello = [0; HELLO_BYTES];
        let heard = read_until(stream, &mut hello, Instant::now() + STEP_TIMEOUT);
        let verdict = match heard {
            Err(_) if place.was_displaced() => Err(HelloRefusal::Crowded),
            Err(error) => return Err(error),
            Ok(()) => PROTOCOL.check_hello(&hello, self.address.token),
        };
        let verdict =
            verdict.and_then(|()| LaneCount::one_more(&self.lanes, self.max_lanes).ok_or(HelloRefusal::Full));
        // The handshake is over, with or without success.
        drop(place);
        let _lane = match verdict {
            Ok(lane) => lane,
            Err(refusal) => {
                if let Some(left_out) = self.log.allows() {
                    tracing::warn!(?refusal, left_out, "refused a reader");
                }
                // A peer that does not speak the protocol gets no answer.
                if refusal != HelloRefusal::Malformed {
                    stream.write_all(PROTOCOL.refuse(refusal).as_bytes())?;
                }
                return Ok(());
            }
        };
        stream.write_all(PROTOCOL.welcome(self.address.answer, 0).as_bytes())?;
        // A lane may be idle for long. TCP keepalive ends the connection if the reader's machine is
        // gone.
        stream.set_read_timeout(None)?;
        sockopt::set_tcp_keepidle(stream, STEP_TIMEOUT)?;
        sockopt::set_tcp_keepintvl(stream, STEP_TIMEOUT)?;
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
            match self.exports.begin(request.rkey.get(), addr, len, connection) {
                Some(sending) => {
                    rustix::net::send(
                        stream,
                        Response::DATA.as_bytes(),
                        SendFlags::NOSIGNAL | SendFlags::MORE,
                    )?;
                    let whole = send_memory(stream, &sending)?;
                    drop(sending);
                    let end = if whole { Response::DATA } else { Response::ACCESS };
                    stream.write_all(end.as_bytes())?;
                }
                None => stream.write_all(Response::ACCESS.as_bytes())?,
            }
        }
    }
}

/// One of the lanes, counted until it is dropped.
struct LaneCount<'a>(&'a AtomicUsize);

impl<'a> LaneCount<'a> {
    fn one_more(lanes: &'a AtomicUsize, max: usize) -> Option<Self> {
        let more = |now| (now < max).then_some(now + 1);
        lanes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok().then_some(Self(lanes))
    }
}

impl Drop for LaneCount<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Sends the bytes, and says whether all of them are bytes of the export. The bytes of memory that
/// is not mapped, or that the owner waits for, are sent as zeros, so that the end of the response
/// can say so.
fn send_memory(stream: &TcpStream, sending: &Sending<'_>) -> io::Result<bool> {
    static ZEROS: [u8; 4096] = [0; 4096];
    let mut at = ptr::with_exposed_provenance::<u8>(sending.addr as usize);
    let mut left = sending.len as usize;
    let mut whole = true;
    while left > 0 {
        whole &= !sending.is_withdrawn();
        let (from, len) = if whole { (at, left.min(PIECE)) } else { (ZEROS.as_ptr(), left.min(ZEROS.len())) };
        let flags = libc::MSG_NOSIGNAL | libc::MSG_MORE;
        // SAFETY: the kernel alone follows the pointer, to memory of this process, and fails with
        // EFAULT where none is mapped. So the call would be sound for any address. The bytes are an
        // export's, and are not withdrawn while `sending` lives. A write of another thread
        // meanwhile is no data race of this program.
        let sent = unsafe { libc::send(stream.as_raw_fd(), from.cast(), len, flags) };
        match usize::try_from(sent) {
            Ok(sent) => {
                at = at.wrapping_add(sent);
                left -= sent;
            }
            Err(_) => match io::Error::last_os_error() {
                error if error.kind() == io::ErrorKind::Interrupted => {}
                error if error.raw_os_error() == Some(libc::EFAULT) && whole => whole = false,
                error => return Err(error),
            },
        }
    }
    Ok(whole)
}
