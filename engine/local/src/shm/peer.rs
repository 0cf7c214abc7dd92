//! The reader's side: a producer's exports, and READs of them.
#![allow(unsafe_code, reason = "copies out of memory that another process writes to")]

use std::collections::BTreeMap;
use std::os::fd::{AsFd as _, OwnedFd};
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::thread::JoinHandle;

use kvrail_core::provider::Read;
use kvrail_core::verbs_abi::WcStatus;
use kvrail_host::descriptors::OwnerProcess;
use kvrail_host::log_limit::LogLimit;
use kvrail_host::segment::SegmentView;
use kvrail_host::wake::EventFd;
use rustix::io::Errno;
use rustix::net::{self, AddressFamily, RecvFlags, SocketFlags, SocketType};

use super::address::ShmAddress;
use super::board::{Board, Found, Means, Outcome};
use super::connect::{self, Report, ShmConnectError};
use super::live::{LiveView, Standing};
use super::packet::receive;
use super::process::{PeerProcess, ReadFault};
use super::wire::{Probe, Reach};
use crate::copy::{copy, read_file};
use crate::provider::LaneTransport;
use crate::region::ExportedRegion;

/// A producer to which this process is connected, and its exports.
///
/// Clones share one connection, and so do all peers of one address in a process: their lanes use
/// the same mappings. A lane keeps its peer alive.
#[derive(Debug)]
pub struct ShmPeer {
    shared: Arc<Shared>,
    /// The exports that this lane has READ, by rkey in ascending order: the lane's own, so that a
    /// READ takes no lock.
    known: Vec<Arc<Target>>,
    /// Where the last READ's export is in `known`.
    last: usize,
    /// The count of withdrawals when `known` was last looked through.
    withdrawals: u32,
    /// The lane is to fail.
    failing: Arc<AtomicBool>,
}

impl Clone for ShmPeer {
    fn clone(&self) -> Self {
        Self::of(Arc::clone(&self.shared))
    }
}

#[derive(Debug)]
struct Shared {
    targets: Mutex<Targets>,
    live: LiveView,
    probe: Probe,
    pid: i32,
    /// The exporter's process, or the step that failed.
    process: Result<PeerProcess, (&'static str, Errno)>,
    /// Whether this process may read the memory of the exporter's.
    may_read: OnceLock<bool>,
    board: Arc<Board>,
    /// Wakes the connection's thread, which has borrowed it.
    wake: EventFd,
    /// Descriptors come from the connection's thread through it.
    handover: OwnedFd,
    /// The thread's end, which it has borrowed.
    _theirs: OwnedFd,
    watcher: Option<JoinHandle<()>>,
    log: LogLimit,
    owner: OwnerProcess,
}

/// The exports that this process knows, by rkey.
#[derive(Debug, Default)]
struct Targets {
    exports: BTreeMap<u32, Arc<Target>>,
    /// The files among them that are read and not mapped, by the exporter's number.
    files: BTreeMap<u64, Weak<OwnedFd>>,
}

#[derive(Debug)]
struct Target {
    region: ExportedRegion,
    /// The number of its live word.
    slot: u32,
    source: Source,
}

/// Where the bytes come from.
#[derive(Debug)]
enum Source {
    Mapped(Arc<SegmentView>),
    /// A file that its owner could shrink, and where the export begins in it.
    File(Arc<OwnedFd>, u64),
    Process,
}

/// The peers of this process, by address.
static PEERS: Mutex<Vec<(ShmAddress, Weak<Shared>)>> = Mutex::new(Vec::new());

impl ShmPeer {
    /// Connects to the exporter at `address`, and maps its exports. A process that is connected to
    /// it already shares that connection. Blocks for 10 s at most per step, and for 60 s at most
    /// while it learns of the exports.
    ///
    /// # Errors
    ///
    /// No exporter listens there, or another one, or one of another version; or its segments are
    /// not safe to read; or the system does not let this process read memory that is exported.
    pub fn connect(address: &ShmAddress) -> Result<Self, ShmConnectError> {
        if let Some(known) = Self::known(address) {
            return Ok(known);
        }
        let shared = Arc::new(Shared::connect(address)?);
        let mut peers = PEERS.lock().unwrap_or_else(PoisonError::into_inner);
        peers.retain(|(a, shared)| shared.strong_count() > 0 && a != address);
        peers.push((*address, Arc::downgrade(&shared)));
        Ok(Self::of(shared))
    }

    fn known(address: &ShmAddress) -> Option<Self> {
        let peers = PEERS.lock().unwrap_or_else(PoisonError::into_inner);
        let shared = peers.iter().find(|(a, _)| a == address)?.1.upgrade()?;
        // A connection that a parent of this process made has no watcher here.
        Some(Self::of(shared)).filter(|peer| peer.shared.owner.is_current() && peer.is_alive())
    }

    fn of(shared: Arc<Shared>) -> Self {
        let failing = Arc::new(AtomicBool::new(false));
        Self { shared, known: Vec::new(), last: 0, withdrawals: 0, failing }
    }

    /// The exports that this process knows of, in the order of their rkeys, as READs name them.
    /// Exports that were made after the connection are known once a lane has READ them.
    #[must_use]
    pub fn regions(&self) -> Vec<ExportedRegion> {
        self.shared.targets().exports.values().map(|target| target.region).collect()
    }

    /// Whether the connection stands, as far as this process knows.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        !self.shared.board.is_dead()
    }

    /// The export of `rkey`, if this lane has READ it before.
    #[inline]
    fn recall(&mut self, rkey: u32) -> Option<usize> {
        if self.shared.live.withdrawals() != self.withdrawals {
            self.forget_withdrawn();
        }
        if self.known.get(self.last).is_some_and(|target| target.region.rkey == rkey) {
            return Some(self.last);
        }
        self.known.binary_search_by_key(&rkey, |target| target.region.rkey).ok()
    }

    /// The export of `rkey`, if this lane knows it.
    #[inline]
    fn target(&self, rkey: u32) -> Option<&Target> {
        if let Some(last) = self.known.get(self.last)
            && last.region.rkey == rkey
        {
            return Some(last);
        }
        let at = self.known.binary_search_by_key(&rkey, |target| target.region.rkey);
        at.ok().map(|at| &*self.known[at])
    }

    /// The status of a READ of `target` whose bytes have been copied: they are of this export only
    /// if it still stands.
    #[inline]
    fn outcome(&self, target: &Target) -> WcStatus {
        match self.shared.live.standing(target.slot, target.region.rkey) {
            Standing::Live => WcStatus::SUCCESS,
            Standing::Withdrawn => WcStatus::REM_ACCESS_ERR,
            Standing::Ended => WcStatus::RETRY_EXC_ERR,
        }
    }

    /// Lets go of memory that is not exported any more.
    #[cold]
    fn forget_withdrawn(&mut self) {
        let live = &self.shared.live;
        self.withdrawals = live.withdrawals();
        let stands = |target: &Target| live.standing(target.slot, target.region.rkey) == Standing::Live;
        self.known.retain(|target| stands(target));
        self.shared.targets().exports.retain(|_, target| stands(target));
        self.shared.targets().files.retain(|_, file| file.strong_count() > 0);
    }

    /// The export of `rkey`, which this lane READs for the first time.
    #[cold]
    fn learn(&mut self, rkey: u32) -> Result<usize, WcStatus> {
        let target = self.shared.find(rkey, &self.failing)?;
        let at = self.known.partition_point(|known| known.region.rkey < rkey);
        self.known.insert(at, target);
        Ok(at)
    }
}

impl Shared {
    /// Connects on the watcher's thread. The connection is in that thread's descriptor table, so
    /// when this process has died no child of a fork keeps a reader's place at the exporter
    /// occupied.
    fn connect(address: &ShmAddress) -> Result<Self, ShmConnectError> {
        let failed = |step| move |errno| ShmConnectError::System { step, errno };
        let wake = EventFd::new().map_err(failed("eventfd"))?;
        let flags = SocketFlags::CLOEXEC;
        let (handover, theirs) = net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)
            .map_err(failed("socketpair"))?;
        let board = Arc::new(Board::default());
        // SAFETY: the two descriptors are open until the thread has been joined, here or in `drop`.
        let started = unsafe { connect::start(*address, Arc::clone(&board), wake.as_fd(), theirs.as_fd()) };
        let (watcher, reports) = started?;
        let ended = |_| ShmConnectError::Thread(std::io::Error::other("it ended at once"));
        let welcomed = match reports.recv().map_err(ended) {
            Ok(Report::Welcomed { live, probe, pid, pidfd }) => Ok((live, probe, pid, pidfd)),
            Ok(Report::Failed(error)) | Err(error) => Err(error),
            Ok(_) => Err(ShmConnectError::Malformed { what: "it came too late" }),
        };
        let (live, probe, pid, pidfd) = match welcomed {
            Ok(welcomed) => welcomed,
            Err(error) => {
                // The thread ends now, and what it has borrowed must outlive it.
                drop(reports);
                let _ = watcher.join();
                return Err(error);
            }
        };
        let mut this = Self {
            targets: Mutex::default(),
            live,
            probe,
            pid,
            process: Err(("handing descriptors over", Errno::BADF)),
            may_read: OnceLock::new(),
            board,
            wake,
            handover,
            _theirs: theirs,
            watcher: Some(watcher),
            log: LogLimit::new(),
            owner: OwnerProcess::current(),
        };
        // From here on `drop` joins the thread.
        this.process = this.take_process(pidfd);
        this.take_list(reports)?;
        let process = |target: &Arc<Target>| matches!(target.source, Source::Process);
        if this.targets().exports.values().any(process) {
            this.check_process()?;
            let _ = this.may_read.set(true);
        }
        Ok(this)
    }

    /// Takes the exports that the thread reports. The reports end here, since the thread may wait
    /// for one to be taken when it is joined.
    fn take_list(&self, reports: Receiver<Report>) -> Result<(), ShmConnectError> {
        loop {
            match reports.recv() {
                Ok(Report::Found(found)) => self.add(&mut self.targets(), found),
                Ok(Report::Listed) => return Ok(()),
                Ok(Report::Failed(error)) => return Err(error),
                Ok(Report::Welcomed { .. }) => {}
                Err(_) => return Err(ShmConnectError::Thread(std::io::Error::other("it ended at once"))),
            }
        }
    }

    fn targets(&self) -> MutexGuard<'_, Targets> {
        self.targets.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the descriptors of the exporter's process over.
    fn take_process(
        &self,
        pidfd: Result<(), (&'static str, Errno)>,
    ) -> Result<PeerProcess, (&'static str, Errno)> {
        let packet = receive(self.handover.as_fd(), &mut [0], RecvFlags::DONTWAIT);
        let mut fds = packet.map_err(|errno| ("handing descriptors over", errno))?.fds.into_iter();
        pidfd?;
        let (Some(life), Some(pidfd)) = (fds.next(), fds.next()) else {
            return Err(("handing descriptors over", Errno::MFILE));
        };
        Ok(PeerProcess::new(self.pid, pidfd, life))
    }

    /// Whether this process can read the memory of the exporter's process.
    fn check_process(&self) -> Result<(), ShmConnectError> {
        let refused = |step, errno| ShmConnectError::ProcessMemory { pid: self.pid, step, errno };
        let process = self.process.as_ref().map_err(|&(step, errno)| refused(step, errno))?;
        match process.check(self.probe) {
            Ok(true) => Ok(()),
            Ok(false) => Err(ShmConnectError::OtherProcess { pid: self.pid }),
            Err(ReadFault::Refused(errno)) => Err(refused("process_vm_readv", errno)),
            Err(_) => Err(refused("process_vm_readv", Errno::SRCH)),
        }
    }

    /// [`check_process`](Self::check_process), once, for exports that came after the connection.
    #[inline]
    fn may_read_process(&self) -> bool {
        *self.may_read.get_or_init(|| match self.check_process() {
            Ok(()) => true,
            Err(error) => {
                tracing::error!(%error, "a producer's exports cannot be read");
                false
            }
        })
    }

    /// Adds an export that the connection's thread has found.
    fn add(&self, targets: &mut Targets, found: Found) {
        let description = found.description;
        let region = description.region;
        let source = match (found.means, description.reach) {
            (Means::Mapped(view), _) => Source::Mapped(view),
            (Means::Process, _) => Source::Process,
            (Means::FileFollows, Reach::File { file, offset }) => {
                let packet = receive(self.handover.as_fd(), &mut [0], RecvFlags::DONTWAIT);
                let fd = packet.ok().and_then(|packet| packet.fds.into_iter().next());
                let shared = targets.files.get(&file).and_then(Weak::upgrade);
                let Some(fd) = shared.or(fd.map(Arc::new)) else {
                    return self.complain(region, &"this process has no descriptor left for its file");
                };
                targets.files.insert(file, Arc::downgrade(&fd));
                Source::File(fd, offset)
            }
            (Means::FileFollows, _) => return,
            (Means::Unsafe(error), _) => return self.complain(region, &error),
        };
        targets.exports.insert(region.rkey, Arc::new(Target { region, slot: description.slot, source }));
    }

    fn complain(&self, region: ExportedRegion, error: &dyn std::fmt::Display) {
        if let Some(left_out) = self.log.allows() {
            let (rkey, pid) = (region.rkey, self.pid);
            tracing::warn!(rkey, pid, %error, left_out, "an export of a producer cannot be read");
        }
    }

    /// The export of `rkey`. If it is not known, the connection's thread asks the exporter.
    fn find(&self, rkey: u32, failing: &AtomicBool) -> Result<Arc<Target>, WcStatus> {
        let mut outcome = Outcome::Unknown;
        for turn in 0..2 {
            let mut targets = self.targets();
            while let Some(found) = self.board.next_found() {
                self.add(&mut targets, found);
            }
            if let Some(target) = targets.exports.get(&rkey) {
                return Ok(Arc::clone(target));
            }
            drop(targets);
            if turn == 0 {
                outcome = self.board.ask(rkey, failing, || self.wake.signal());
            }
        }
        Err(match outcome {
            Outcome::NoAnswer => WcStatus::RETRY_EXC_ERR,
            Outcome::Found | Outcome::Unknown => WcStatus::REM_ACCESS_ERR,
        })
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // In a child of a fork there is no watcher, and the connection is the parent's.
        if !self.owner.is_current() {
            return;
        }
        self.board.stop();
        self.wake.signal();
        if let Some(watcher) = self.watcher.take() {
            let _ = watcher.join();
        }
    }
}

// SAFETY: `execute` writes by one copy to the local range, and the copy is over when it returns.
unsafe impl LaneTransport for ShmPeer {
    const LABEL: &'static str = "shm";
    const COPIES: bool = true;
    type Interrupt = Arc<AtomicBool>;

    fn interrupt_handle(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.failing)
    }

    /// A copy ends by itself; a READ that waits for the exporter's answer looks at the flag.
    fn interrupt(failing: &Arc<AtomicBool>) {
        failing.store(true, Ordering::Release);
    }

    #[inline]
    fn plain_copy(&self, read: &Read) -> Option<*const u8> {
        // Letting go of withdrawn memory takes a lock and enters the kernel.
        if !self.is_alive() || self.shared.live.withdrawals() != self.withdrawals {
            return None;
        }
        let target = self.target(read.rkey)?;
        let Source::Mapped(view) = &target.source else { return None };
        let offset = target.region.offset(read.remote_addr, read.len)?;
        // A view is as long as its region, so the offset fits a usize. It is mapped read-only, so
        // no registered, writable memory is part of it.
        Some(view.as_ptr().wrapping_add(offset as usize))
    }

    #[inline]
    fn copied(&self, read: &Read) -> WcStatus {
        match self.target(read.rkey) {
            Some(target) => self.outcome(target),
            None => WcStatus::REM_ACCESS_ERR,
        }
    }

    #[inline]
    unsafe fn execute(&mut self, read: &Read) -> WcStatus {
        if !self.is_alive() {
            return WcStatus::RETRY_EXC_ERR;
        }
        let at = match self.recall(read.rkey) {
            Some(at) => at,
            None => match self.learn(read.rkey) {
                Ok(at) => at,
                Err(status) => return status,
            },
        };
        self.last = at;
        let target = &self.known[at];
        let Some(offset) = target.region.offset(read.remote_addr, read.len) else {
            return WcStatus::REM_ACCESS_ERR;
        };
        let (to, len) = (ptr::with_exposed_provenance_mut::<u8>(read.local_addr as usize), read.len as usize);
        match &target.source {
            Source::Mapped(view) => {
                // A view is as long as its region, so the offset fits a usize.
                let from = view.as_ptr().wrapping_add(offset as usize);
                // SAFETY: `to` is valid for writes of len bytes by the caller's promise. `from` is
                // within a view that `self` keeps, whose file cannot shrink or lose pages, so
                // reading raises no signal. They do not overlap: the view is mapped read-only, so
                // no registered, writable range is part of it. The producer may write during the
                // copy; no reference to the bytes is ever made, every value of a byte is valid, and
                // the reader uses the bytes only after the publication table has confirmed them.
                unsafe { copy(from, to, len) };
            }
            Source::File(file, begin) => {
                // SAFETY: as above for `to`.
                if !unsafe { read_file(file, begin.checked_add(offset), to, len) } {
                    return WcStatus::REM_ACCESS_ERR;
                }
            }
            Source::Process => {
                // SAFETY: as above for `to`.
                if let Err(status) = unsafe { self.shared.read_process(read.remote_addr, to, len) } {
                    return status;
                }
            }
        }
        self.outcome(target)
    }
}

impl Shared {
    /// Copies `len` bytes at `addr` of the exporter's process to `to`.
    ///
    /// # Safety
    ///
    /// `to` is valid for writes of `len` bytes until the call returns.
    unsafe fn read_process(&self, addr: u64, to: *mut u8, len: usize) -> Result<(), WcStatus> {
        let Ok(process) = &self.process else { return Err(WcStatus::REM_ACCESS_ERR) };
        if !self.may_read_process() {
            return Err(WcStatus::REM_ACCESS_ERR);
        }
        // SAFETY: the caller's promise.
        unsafe { process.read(addr, to, len) }.map_err(|fault| match fault {
            ReadFault::NotMapped => WcStatus::REM_ACCESS_ERR,
            ReadFault::Gone => WcStatus::RETRY_EXC_ERR,
            ReadFault::Refused(errno) => {
                if let Some(left_out) = self.log.allows() {
                    let pid = self.pid;
                    tracing::warn!(pid, %errno, left_out, "process_vm_readv of a producer is refused");
                }
                WcStatus::RETRY_EXC_ERR
            }
        })
    }
}
