//! The producer's side: memory that readers can read.
//!
//! An exporter has two threads: the first describes exports to readers and sends them file
//! descriptors, the second writes the first one's log lines. The first thread has a descriptor
//! table of its own, which holds the connections. So no child of a fork inherits a connection, and
//! all connections end when this process ends: readers notice that even if a child lives on.
#![allow(unsafe_code, reason = "its thread has a descriptor table of its own")]

use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::thread::JoinHandle;

use kvrail_host::descriptors::{OwnerProcess, spawn_isolated};
use kvrail_host::exported::ExportedMemory;
use kvrail_host::log_limit::LogLimit;
use kvrail_host::secret::{RandomError, random_bytes};
use kvrail_host::segment::SegmentError;
use kvrail_host::wake::StopSignal;
use rustix::io::Errno;
use rustix::net::{self, AddressFamily, SocketFlags, SocketType};

use super::address::ShmAddress;
use super::export::{Exports, ShmExport, ShmExportError};
use super::live::LiveWords;
use super::serve::{Endowment, LogLine, SegmentServer, SocketListener};
use super::table::SharedTable;
use super::wire::Probe;

/// Serves memory to readers that know its address. Dropping it ends every connection, and READs of
/// its exports fail from then on, as they do when the process dies.
#[derive(Debug)]
pub struct ShmExporter {
    address: ShmAddress,
    exports: Arc<Exports>,
    /// `thread` borrows its descriptor.
    stop: StopSignal,
    /// The thread's end of its orders' socket, which it has borrowed.
    _orders: OwnedFd,
    thread: Option<JoinHandle<()>>,
    logger: Option<JoinHandle<()>>,
    owner: OwnerProcess,
}

/// Why an exporter could not be started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ShmStartError {
    /// The system refused.
    #[error("an exporter could not be started: {step} failed: {errno}")]
    System {
        /// The system call.
        step: &'static str,
        /// Its error.
        errno: Errno,
    },
    /// The system has no random numbers to give.
    #[error("the system gave no random numbers for an exporter's address: {0}")]
    Random(RandomError),
    /// The system has no thread to give.
    #[error("the exporter's thread could not be started; raise the limit on threads (ulimit -u)")]
    Thread(#[source] io::Error),
    /// The words that say what is exported have no memory.
    #[error("an exporter could not be started: {0}")]
    Segment(SegmentError),
}

impl ShmStartError {
    /// A number that never changes its meaning (docs/errors.md).
    #[must_use]
    pub const fn code(&self) -> u32 {
        match self {
            Self::System { .. } => 3131,
            Self::Random(_) => 3132,
            Self::Thread(_) => 3133,
            Self::Segment(error) => error.code(),
        }
    }
}

impl ShmExporter {
    /// Listens on an abstract Unix socket with a random name, and serves from a thread of its own
    /// until it is dropped. There is no export yet: see [`export`](Self::export).
    ///
    /// # Errors
    ///
    /// The system refused something.
    pub fn start() -> Result<Self, ShmStartError> {
        let failed = |step| move |errno| ShmStartError::System { step, errno };
        let address = ShmAddress::random().map_err(ShmStartError::Random)?;
        let probe = Box::new(random_bytes().map_err(ShmStartError::Random)?);
        let told_probe = Probe { addr: probe.as_ptr().expose_provenance() as u64, value: *probe };
        let stop = StopSignal::new().map_err(failed("eventfd"))?;
        let live = LiveWords::new().map_err(ShmStartError::Segment)?;
        let flags = SocketFlags::CLOEXEC;
        let (orders, theirs) = net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)
            .map_err(failed("socketpair"))?;
        let keep = [stop.as_fd(), theirs.as_fd(), live.fd()].map(|fd| fd.as_raw_fd()).to_vec();
        let table = SharedTable::new();
        let (sender, receiver) = sync_channel(1);
        let (log, lines) = sync_channel(16);
        let (ack, acks) = sync_channel(1);
        let shared = table.clone();
        let body = move |kept: &[BorrowedFd<'_>], own| {
            let &[stop, orders, live] = kept else { return };
            let endowment = Endowment { address, probe: told_probe, table: shared, orders, live, ack, log };
            let begun = SocketListener::bind(&address)
                .and_then(|listener| Ok((listener, SegmentServer::new(endowment)?)));
            match begun {
                Err(error) => drop(sender.send(Err(error))),
                Ok((listener, server)) => {
                    let _ = sender.send(Ok(own));
                    server.run(&listener, stop);
                }
            }
        };
        // SAFETY: `drop` joins the thread before it closes `stop`, the orders' socket and the live
        // words. The thread takes in addresses, a table and channels, none of which owns a
        // descriptor, and lets out messages that own none; it logs nothing.
        let thread = unsafe { spawn_isolated("kvrail-exporter", keep, body) };
        let thread = thread.map_err(ShmStartError::Thread)?;
        let ended = |_| ShmStartError::Thread(io::Error::other("it ended at once"));
        let own = match receiver.recv().map_err(ended) {
            Ok(Ok(own)) => own,
            failed => {
                // The thread ends now, and what it has borrowed must outlive it.
                let _ = thread.join();
                let (step, errno) = failed?.err().unwrap_or(("starting", Errno::IO));
                return Err(ShmStartError::System { step, errno });
            }
        };
        if let Err(errno) = own {
            tracing::warn!(
                %errno,
                "a child of a fork would keep readers from noticing that this process has died: \
                 the system gives a thread no descriptor table of its own"
            );
        }
        let owner = OwnerProcess::current();
        let exports = Exports::new(table, live, probe, own, owner, orders, acks);
        let (exports, thread) = (Arc::new(exports), Some(thread));
        let mut this = Self { address, exports, stop, _orders: theirs, thread, logger: None, owner };
        let logger = std::thread::Builder::new().name("kvrail-exp-log".into()).spawn(move || {
            let limit = LogLimit::new();
            for line in lines {
                if let Some(left_out) = limit.allows() {
                    write_line(&line, left_out);
                }
            }
        });
        this.logger = Some(logger.map_err(ShmStartError::Thread)?);
        Ok(this)
    }

    /// The address that a reader connects to.
    #[must_use]
    pub fn address(&self) -> &ShmAddress {
        &self.address
    }

    /// Lets readers read `memory`, until the returned value is dropped. Readers that are connected
    /// already learn of it when they first READ it.
    ///
    /// A segment, or a file whose seals allow it, is mapped by readers. Another file is read by
    /// pread(2). Host memory is read by process_vm_readv(2), which needs the system's permission: a
    /// reader that has none learns it when it connects.
    ///
    /// # Errors
    ///
    /// The memory is a device's, or no range, or not within its file; there are
    /// [`MAX_EXPORTS`](crate::MAX_EXPORTS) already; this process is a child of the one that started
    /// the exporter; or the system refused something.
    pub fn export(&self, memory: ExportedMemory) -> Result<ShmExport, ShmExportError> {
        ShmExport::new(&self.exports, memory)
    }

    /// Lets any process of the same user read this process's memory, where the Yama security module
    /// forbids that to all but a process's ancestors (`/proc/sys/kernel/yama/ptrace_scope` is 1).
    /// It does nothing where Yama is absent.
    ///
    /// Host memory that was exported by its address alone can then be read, and so can all other
    /// memory of this process: any process of the user can attach to it as a debugger does. That is
    /// why no export does it by itself.
    ///
    /// # Errors
    ///
    /// The system refused.
    pub fn permit_any_reader(&self) -> Result<(), ShmExportError> {
        // SAFETY: the call changes who may trace this process, and reads and writes no memory.
        let result = unsafe { libc::prctl(libc::PR_SET_PTRACER, libc::PR_SET_PTRACER_ANY, 0, 0, 0) };
        let errno = Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::IO);
        match (result, errno) {
            // Without Yama the system does not know the request.
            (0, _) | (_, Errno::INVAL) => Ok(()),
            (_, errno) => Err(ShmExportError::System { step: "PR_SET_PTRACER", errno }),
        }
    }
}

impl Drop for ShmExporter {
    fn drop(&mut self) {
        // In a child of a fork there are no threads, and the stop signal is the parent's.
        if !self.owner.is_current() {
            return;
        }
        self.exports.end();
        self.stop.raise();
        for thread in [self.thread.take(), self.logger.take()].into_iter().flatten() {
            let _ = thread.join();
        }
    }
}

fn write_line(line: &LogLine, left_out: u64) {
    match line {
        LogLine::Refused(refusal) => tracing::warn!(?refusal, left_out, "refused a reader"),
        LogLine::NotAccepted(error) => {
            tracing::warn!(
                %error, left_out,
                "a reader could not be accepted; if descriptors are short raise the limit (ulimit -n)"
            );
        }
        LogLine::Ended(error) => {
            tracing::error!(%error, "the exporter stops: READs of its exports will fail")
        }
    }
}
