//! The reader's side: a producer's segments, mapped for reading.
#![allow(unsafe_code, reason = "copies out of memory that another process writes to")]

use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread::JoinHandle;
use std::time::Duration;

use kvrail_core::provider::Read;
use kvrail_core::verbs_abi::WcStatus;
use kvrail_host::descriptors::{OwnerProcess, spawn_isolated};
use kvrail_host::segment::{SegmentView, SegmentViewError};
use kvrail_host::wake::StopSignal;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    self, AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendFlags,
    SocketAddrUnix, SocketFlags, SocketType,
};

use super::address::{ShmAddress, VERSION};
use super::copy::copy;
use super::hello::{self, MAX_SEGMENTS, PROTOCOL, REPLY_BYTES};
use super::serve::MAX_READERS;
use crate::hello::ReplyError;
use crate::provider::LaneTransport;
use crate::region::ExportedRegion;

/// How long each step of the handshake may take.
const STEP_TIMEOUT: Duration = Duration::from_secs(10);

/// A producer to which this process is connected, and its segments, mapped for reading.
///
/// Clones share one connection, and so do all peers of one address in a process: their lanes use
/// the same mappings. A lane keeps its peer alive.
#[derive(Clone, Debug)]
pub struct ShmPeer(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    regions: Vec<ExportedRegion>,
    /// The segments, in the order of `regions`: a segment's place is its rkey.
    mappings: Vec<SegmentView>,
    /// The connection has ended: the producer has died or has dropped its exporter.
    dead: Arc<AtomicBool>,
    /// Ends the watcher, which has borrowed it.
    stop: StopSignal,
    watcher: Option<JoinHandle<()>>,
    owner: OwnerProcess,
}

/// The segments that the watcher's thread hands over when it has connected. They own no descriptor.
type MappedSegments = (Vec<ExportedRegion>, Vec<SegmentView>);

/// Why there is no connection to a producer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ShmConnectError {
    /// No exporter listens at the address.
    #[error(
        "no exporter listens at this address: its process has ended, or runs in another network namespace"
    )]
    NotListening,
    /// The system refused something, or a step took longer than 10 s.
    #[error("no connection to the exporter: {step} failed: {errno}")]
    System {
        /// The step.
        step: &'static str,
        /// Its error; `EAGAIN` for a time-out.
        errno: Errno,
    },
    /// The exporter speaks another version.
    #[error(
        "the exporter speaks version {theirs}, this side speaks version {ours}: run the same release on both sides"
    )]
    Version {
        /// The exporter's version.
        theirs: u16,
        /// This side's version.
        ours: u16,
    },
    /// The exporter does not accept the token.
    #[error(
        "the exporter refused the address's token: the address is wrong, or comes from an earlier exporter"
    )]
    Refused,
    /// The exporter serves as many readers as it can.
    #[error(
        "the exporter serves {MAX_READERS} reader processes already, which is its limit: use another producer"
    )]
    Full,
    /// Other connections displaced this one before it was answered.
    #[error("too many processes connect to the exporter at the same time: try again")]
    Crowded,
    /// The process that listens there does not know the answer that the address holds.
    #[error("the process that listens at this address is not the exporter that made the address")]
    Impostor,
    /// The reply is not a reply of this protocol.
    #[error("the exporter's reply is malformed ({what}): does another program use this address?")]
    Malformed {
        /// What is wrong with it.
        what: &'static str,
    },
    /// A segment is not safe to read, or could not be mapped.
    #[error("segment {segment} cannot be read: {source}")]
    Segment {
        /// Its number.
        segment: usize,
        /// What is wrong with it.
        // A raw name: the text contains the cause, so `source()` must not return it again.
        r#source: SegmentViewError,
    },
    /// The system gave no thread to watch the connection.
    #[error(
        "the thread that watches the exporter could not be started; raise the limit on threads (ulimit -u)"
    )]
    Thread(#[source] std::io::Error),
}

impl ShmConnectError {
    /// A number that never changes its meaning (docs/errors.md).
    #[must_use]
    pub const fn code(&self) -> u32 {
        match self {
            Self::NotListening => 3140,
            Self::System { .. } => 3141,
            Self::Version { .. } => 3142,
            Self::Refused => 3143,
            Self::Full => 3144,
            Self::Crowded => 3145,
            Self::Impostor => 3146,
            Self::Malformed { .. } => 3147,
            Self::Thread(_) => 3148,
            Self::Segment { source, .. } => source.code(),
        }
    }
}

/// The peers of this process, by address.
static PEERS: Mutex<Vec<(ShmAddress, Weak<Shared>)>> = Mutex::new(Vec::new());

impl ShmPeer {
    /// Connects to the exporter at `address` and maps its segments. A process that is connected to
    /// it already shares that connection. Blocks for 10 s at most per step.
    ///
    /// # Errors
    ///
    /// No exporter listens there, or another one, or one of another version; or its segments are
    /// not safe to read.
    pub fn connect(address: &ShmAddress) -> Result<Self, ShmConnectError> {
        if let Some(known) = Self::known(address) {
            return Ok(known);
        }
        let peer = Self(Arc::new(Shared::connect(address)?));
        let mut peers = PEERS.lock().unwrap_or_else(PoisonError::into_inner);
        peers.retain(|(a, shared)| shared.strong_count() > 0 && a != address);
        peers.push((*address, Arc::downgrade(&peer.0)));
        Ok(peer)
    }

    fn known(address: &ShmAddress) -> Option<Self> {
        let peers = PEERS.lock().unwrap_or_else(PoisonError::into_inner);
        let shared = peers.iter().find(|(a, _)| a == address)?.1.upgrade()?;
        // A connection that a parent of this process made has no watcher here.
        Some(Self(shared)).filter(|peer| peer.0.owner.is_current() && peer.is_alive())
    }

    /// The segments, as READs name them.
    #[must_use]
    pub fn regions(&self) -> &[ExportedRegion] {
        &self.0.regions
    }

    /// Whether the connection stands, as far as this process knows.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        !self.0.dead.load(Ordering::Acquire)
    }
}

impl Shared {
    /// Connects on the watcher's thread. The connection is in that thread's descriptor table, so
    /// when this process has died no child of a fork keeps a reader's place at the exporter
    /// occupied.
    fn connect(address: &ShmAddress) -> Result<Self, ShmConnectError> {
        let stop = StopSignal::new().map_err(|errno| ShmConnectError::System { step: "eventfd", errno })?;
        let dead = Arc::new(AtomicBool::new(false));
        let (sender, receiver) = sync_channel::<Result<MappedSegments, ShmConnectError>>(1);
        let (address, watched) = (*address, Arc::clone(&dead));
        let keep = vec![stop.as_fd().as_raw_fd()];
        let body = move |kept: &[BorrowedFd<'_>], _: Result<(), Errno>| {
            let (socket, mapped) = match connect_and_map(&address) {
                Ok(mapped) => mapped,
                Err(error) => return drop(sender.send(Err(error))),
            };
            let _ = sender.send(Ok(mapped));
            watch(&socket, kept[0]);
            watched.store(true, Ordering::Release);
        };
        // SAFETY: `stop` is open until the thread has been joined, here or in `drop`. The thread
        // takes in an address, a flag and a channel and lets out mappings, which own no descriptor;
        // it logs nothing.
        let watcher = unsafe { spawn_isolated("kvrail-watcher", keep, body) };
        let watcher = watcher.map_err(ShmConnectError::Thread)?;
        let ended = |_| ShmConnectError::Thread(std::io::Error::other("it ended at once"));
        let (regions, mappings) = match receiver.recv().map_err(ended).flatten() {
            Ok(mapped) => mapped,
            Err(error) => {
                // The thread ends now, and `stop` must outlive it.
                let _ = watcher.join();
                return Err(error);
            }
        };
        let owner = OwnerProcess::current();
        Ok(Self { regions, mappings, dead, stop, watcher: Some(watcher), owner })
    }

    /// The address in this process of `len` bytes from `addr` of the segment `rkey`. `None`: they
    /// do not lie within a segment.
    #[inline]
    fn find(&self, rkey: u32, addr: u64, len: u32) -> Option<*const u8> {
        let index = usize::try_from(rkey).ok()?;
        let (region, mapping) = (self.regions.get(index)?, self.mappings.get(index)?);
        let offset = region.offset(addr, len)?;
        // A mapping is as long as its region, so the offset fits a usize.
        Some(mapping.as_ptr().wrapping_add(offset as usize))
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // In a child of a fork there is no watcher, and the connection is the parent's.
        if !self.owner.is_current() {
            return;
        }
        self.stop.raise();
        if let Some(watcher) = self.watcher.take() {
            let _ = watcher.join();
        }
    }
}

/// Connects to the exporter and maps its segments, on the watcher's thread.
fn connect_and_map(address: &ShmAddress) -> Result<(OwnedFd, MappedSegments), ShmConnectError> {
    let failed = |step| move |errno| ShmConnectError::System { step, errno };
    let socket = net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
        .map_err(failed("socket"))?;
    for direction in [Timeout::Send, Timeout::Recv] {
        // The send time-out bounds connect(2), too, which waits while the exporter's queue is full.
        set_socket_timeout(&socket, direction, Some(STEP_TIMEOUT)).map_err(failed("setting a time-out"))?;
    }
    let name = SocketAddrUnix::new_abstract_name(&address.name).map_err(failed("naming"))?;
    net::connect(&socket, &name).map_err(|errno| match errno {
        Errno::CONNREFUSED => ShmConnectError::NotListening,
        errno => failed("connect")(errno),
    })?;
    net::send(&socket, &PROTOCOL.hello(address.token), SendFlags::NOSIGNAL)
        .map_err(failed("sending the hello"))?;
    let (reply, fds) = receive(&socket)?;
    let regions = hello::check_reply(&reply, address.answer).map_err(|error| match error {
        ReplyError::Version { theirs } => ShmConnectError::Version { theirs, ours: VERSION },
        ReplyError::Refused => ShmConnectError::Refused,
        ReplyError::Full => ShmConnectError::Full,
        ReplyError::Crowded => ShmConnectError::Crowded,
        ReplyError::Impostor => ShmConnectError::Impostor,
        ReplyError::Malformed => ShmConnectError::Malformed { what: "a field has an impossible value" },
    })?;
    if fds.len() != regions.len() {
        return Err(ShmConnectError::Malformed {
            what: "the numbers of segments and of file descriptors differ",
        });
    }
    let mappings = fds.iter().zip(&regions).map(|(fd, region)| {
        let failed = |source| ShmConnectError::Segment { segment: region.rkey as usize, source };
        SegmentView::map(fd.as_fd(), region.len).map_err(failed)
    });
    let mappings = mappings.collect::<Result<_, _>>()?;
    Ok((socket, (regions, mappings)))
}

/// Waits for the end of the connection, or for `stop`. A message counts as the end, too: an
/// exporter sends none at this point.
fn watch(socket: &OwnedFd, stop: BorrowedFd<'_>) {
    let mut fds = [PollFd::new(socket, PollFlags::IN), PollFd::from_borrowed_fd(stop, PollFlags::IN)];
    while poll(&mut fds, None) == Err(Errno::INTR) {}
}

/// Receives the reply, and the descriptors that came with it.
fn receive(socket: &OwnedFd) -> Result<([u8; REPLY_BYTES], Vec<OwnedFd>), ShmConnectError> {
    let mut bytes = [0; REPLY_BYTES];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_SEGMENTS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut slices = [IoSliceMut::new(&mut bytes)];
    let message = net::recvmsg(socket, &mut slices, &mut control, RecvFlags::CMSG_CLOEXEC)
        .map_err(|errno| ShmConnectError::System { step: "waiting for the reply", errno })?;
    let mut fds = Vec::new();
    for part in control.drain() {
        // The system delivers no more descriptors than `space` has room for: 16.
        if let RecvAncillaryMessage::ScmRights(rights) = part {
            fds.extend(rights);
        }
    }
    if message.bytes == 0 {
        return Err(ShmConnectError::Malformed { what: "the connection ended before it came" });
    }
    if message.bytes != REPLY_BYTES || message.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC) {
        return Err(ShmConnectError::Malformed { what: "its length is wrong" });
    }
    Ok((bytes, fds))
}

// SAFETY: `execute` writes by one copy to the local range, and the copy is over when it returns.
unsafe impl LaneTransport for ShmPeer {
    const LABEL: &'static str = "shm";
    type Interrupt = ();

    fn interrupt_handle(&self) {}

    /// A copy ends by itself.
    fn interrupt((): &()) {}

    #[inline]
    unsafe fn execute(&mut self, read: &Read) -> WcStatus {
        if !self.is_alive() {
            return WcStatus::RETRY_EXC_ERR;
        }
        let Some(from) = self.0.find(read.rkey, read.remote_addr, read.len) else {
            return WcStatus::REM_ACCESS_ERR;
        };
        let to = ptr::with_exposed_provenance_mut::<u8>(read.local_addr as usize);
        // SAFETY: `to` is valid for writes of len bytes by the caller's promise. `from` is within a
        // view that `self` keeps, whose file cannot shrink or lose pages, so reading raises no
        // signal. They do not overlap: the view is mapped read-only, so no registered, writable
        // range is part of it. The producer may write during the copy; no reference to the bytes is
        // ever made, every value of a byte is valid, and the reader uses the bytes only after the
        // publication table has confirmed them.
        unsafe { copy(from, to, read.len as usize) };
        WcStatus::SUCCESS
    }
}
