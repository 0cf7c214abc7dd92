//! The reader's side: one connection per lane.
#![allow(unsafe_code, reason = "the kernel is told to write to registered memory")]

use std::io::{self, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::fd::AsRawFd as _;
use std::ptr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use kvrail_core::provider::Read;
use kvrail_core::verbs_abi::WcStatus;
use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromZeros as _, IntoBytes as _};

use super::address::{TcpAddress, VERSION};
use super::serve::MAX_LANES;
use super::wire::{PROTOCOL, Request, Response, read_until};
use crate::hello::{ReplyError, ReplyHead};
use crate::provider::LaneTransport;

/// How long a READ waits for the next byte before the path counts as dead.
pub const STALL: Duration = Duration::from_secs(2);

/// How long each step of the handshake may take.
const STEP_TIMEOUT: Duration = Duration::from_secs(10);

/// A connection to a [`TcpServer`](super::TcpServer), for one lane.
#[derive(Debug)]
pub struct TcpConnection {
    stream: Arc<TcpStream>,
}

/// Why there is no connection to a server.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TcpConnectError {
    /// The system refused something, or a step took longer than 10 s.
    #[error("no connection to the server at {socket}: {step} failed: {source}")]
    System {
        /// The server's address.
        socket: SocketAddr,
        /// The step.
        step: &'static str,
        /// The system's reason.
        // A raw name: the text contains the cause, so `source()` must not return it again.
        r#source: io::Error,
    },
    /// The server speaks another version.
    #[error(
        "the server at {socket} speaks version {theirs}, this side version {ours}: run the same release on both sides"
    )]
    Version {
        /// The server's address.
        socket: SocketAddr,
        /// The server's version.
        theirs: u16,
        /// This side's version.
        ours: u16,
    },
    /// The server does not accept the token.
    #[error(
        "the server at {socket} refused the token: the address is wrong, or comes from an earlier server"
    )]
    Refused {
        /// The server's address.
        socket: SocketAddr,
    },
    /// The server serves as many lanes as it can.
    #[error(
        "the server at {socket} serves {MAX_LANES} lanes already, its limit: make fewer lanes per rail, or use \
         another producer"
    )]
    Full {
        /// The server's address.
        socket: SocketAddr,
    },
    /// Other connections displaced this one before it was answered.
    #[error("too many readers connect to the server at {socket} at the same time: try again")]
    Crowded {
        /// The server's address.
        socket: SocketAddr,
    },
    /// The process that listens there does not know the answer that the address holds.
    #[error("the process that listens at {socket} is not the server that made the address")]
    Impostor {
        /// The server's address.
        socket: SocketAddr,
    },
    /// The reply is not a reply of this protocol.
    #[error("the process that listens at {socket} is not a kvrail server: its reply is malformed")]
    Malformed {
        /// The server's address.
        socket: SocketAddr,
    },
}

impl TcpConnectError {
    /// A number that never changes its meaning (docs/errors.md).
    #[must_use]
    pub const fn code(&self) -> u32 {
        match self {
            Self::System { .. } => 3170,
            Self::Version { .. } => 3171,
            Self::Refused { .. } => 3172,
            Self::Full { .. } => 3173,
            Self::Crowded { .. } => 3174,
            Self::Impostor { .. } => 3175,
            Self::Malformed { .. } => 3176,
        }
    }
}

impl TcpConnection {
    /// Connects to the server at `address`. Blocks for 10 s at most per step.
    ///
    /// # Errors
    ///
    /// No server listens there, or another one, or one of another version.
    pub fn open(address: &TcpAddress) -> Result<Self, TcpConnectError> {
        let socket = address.socket;
        let failed = |step| move |source| TcpConnectError::System { socket, step, source };
        let stream = TcpStream::connect_timeout(&socket, STEP_TIMEOUT).map_err(failed("connecting"))?;
        stream.set_nodelay(true).map_err(failed("setting TCP_NODELAY"))?;
        stream.set_write_timeout(Some(STALL)).map_err(failed("setting a time-out"))?;
        (&stream).write_all(&PROTOCOL.hello(address.token)).map_err(failed("sending the hello"))?;
        let mut head = ReplyHead::new_zeroed();
        read_until(&stream, head.as_mut_bytes(), Instant::now() + STEP_TIMEOUT)
            .map_err(failed("waiting for the reply"))?;
        PROTOCOL.check_reply(&head, address.answer).map_err(|error| match error {
            ReplyError::Version { theirs } => TcpConnectError::Version { socket, theirs, ours: VERSION },
            ReplyError::Refused => TcpConnectError::Refused { socket },
            ReplyError::Full => TcpConnectError::Full { socket },
            ReplyError::Crowded => TcpConnectError::Crowded { socket },
            ReplyError::Impostor => TcpConnectError::Impostor { socket },
            ReplyError::Malformed => TcpConnectError::Malformed { socket },
        })?;
        stream.set_read_timeout(Some(STALL)).map_err(failed("setting a time-out"))?;
        Ok(Self { stream: Arc::new(stream) })
    }

    /// Sends the request, and returns the response, which says whether the bytes follow.
    fn request(&self, read: &Read) -> io::Result<Response> {
        let (addr, len, rkey) = (U64::new(read.remote_addr), U32::new(read.len), U32::new(read.rkey));
        (&*self.stream).write_all(Request { addr, len, rkey }.as_bytes())?;
        self.response()
    }

    fn response(&self) -> io::Result<Response> {
        let mut response = Response::new_zeroed();
        io::Read::read_exact(&mut &*self.stream, response.as_mut_bytes())?;
        Ok(response)
    }
}

/// Receives into `len` bytes at `at`. Fails when no byte comes for [`STALL`], and when the whole
/// takes longer than 10 s and one second per MiB.
///
/// # Safety
///
/// The range is valid for writes until the call returns.
unsafe fn receive(stream: &TcpStream, mut at: *mut u8, mut len: usize) -> io::Result<()> {
    let deadline = Instant::now() + STEP_TIMEOUT + Duration::from_secs(len as u64 >> 20);
    while len > 0 {
        // SAFETY: at .. at + len is the part of the caller's range that is not filled yet.
        let got = unsafe { libc::recv(stream.as_raw_fd(), at.cast(), len, 0) };
        match usize::try_from(got) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(got) => {
                at = at.wrapping_add(got);
                len -= got;
            }
            Err(_) => match io::Error::last_os_error() {
                error if error.kind() == io::ErrorKind::Interrupted => {}
                error => return Err(error),
            },
        }
        if len > 0 && Instant::now() > deadline {
            return Err(io::ErrorKind::TimedOut.into());
        }
    }
    Ok(())
}

// SAFETY: `execute` writes by `receive` alone. `receive` gets the local range and no more, and the
// kernel writes nothing after it has returned.
unsafe impl LaneTransport for TcpConnection {
    const LABEL: &'static str = "tcp (functional only)";
    type Interrupt = Arc<TcpStream>;

    fn interrupt_handle(&self) -> Arc<TcpStream> {
        Arc::clone(&self.stream)
    }

    fn interrupt(stream: &Arc<TcpStream>) {
        let _ = stream.shutdown(Shutdown::Both);
    }

    unsafe fn execute(&mut self, read: &Read) -> WcStatus {
        match self.request(read) {
            Err(_) => return WcStatus::RETRY_EXC_ERR,
            Ok(Response::DATA) => {}
            Ok(Response::ACCESS) => return WcStatus::REM_ACCESS_ERR,
            Ok(_) => return WcStatus::BAD_RESP_ERR,
        }
        let to = ptr::with_exposed_provenance_mut(read.local_addr as usize);
        // SAFETY: the local range is valid for writes by the caller's promise.
        if unsafe { receive(&self.stream, to, read.len as usize) }.is_err() {
            return WcStatus::RETRY_EXC_ERR;
        }
        match self.response() {
            Err(_) => WcStatus::RETRY_EXC_ERR,
            Ok(Response::DATA) => WcStatus::SUCCESS,
            Ok(Response::ACCESS) => WcStatus::REM_ACCESS_ERR,
            Ok(_) => WcStatus::BAD_RESP_ERR,
        }
    }
}
