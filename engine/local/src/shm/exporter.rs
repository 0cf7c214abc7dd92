//! The producer's side: segments that readers can map.
//!
//! An exporter has two threads: the first sends file descriptors to readers, the second writes the
//! first one's log lines. The first thread has a descriptor table of its own, which holds the
//! connections. So no child of a fork inherits a connection, and all connections end when this
//! process ends: readers notice that even if a child lives on.
#![allow(unsafe_code, reason = "its thread has a descriptor table of its own")]

use std::io;
use std::iter;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd};
use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::thread::JoinHandle;

use kvrail_host::descriptors::{OwnerProcess, spawn_isolated};
use kvrail_host::log_limit::LogLimit;
use kvrail_host::secret::RandomError;
use kvrail_host::segment::Segment;
use kvrail_host::wake::StopSignal;
use rustix::io::Errno;

use super::address::ShmAddress;
use super::hello::{self, MAX_SEGMENTS};
use super::serve::{LogLine, SegmentServer, SocketListener};
use crate::region::ExportedRegion;

/// Serves [`Segment`]s to readers that know its address. Dropping it ends every connection, and
/// READs of its segments fail from then on, as they do when the process dies.
#[derive(Debug)]
pub struct ShmExporter {
    address: ShmAddress,
    regions: Vec<ExportedRegion>,
    /// `thread` borrows its descriptor.
    stop: StopSignal,
    /// `thread` borrows their descriptors.
    _segments: Vec<Arc<Segment>>,
    thread: Option<JoinHandle<()>>,
    logger: Option<JoinHandle<()>>,
    owner: OwnerProcess,
}

/// Why segments could not be exported.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ShmExportError {
    /// Too few or too many segments.
    #[error(
        "{segments} segments were given to one exporter, which takes 1 to {MAX_SEGMENTS}: use larger segments"
    )]
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
    /// The system has no random numbers to give.
    #[error("the system gave no random numbers for an exporter's address: {0}")]
    Random(RandomError),
    /// The system has no thread to give.
    #[error("the exporter's thread could not be started; raise the limit on threads (ulimit -u)")]
    Thread(#[source] io::Error),
}

impl ShmExportError {
    /// A number that never changes its meaning (docs/errors.md).
    #[must_use]
    pub const fn code(&self) -> u32 {
        match self {
            Self::Segments { .. } => 3130,
            Self::System { .. } => 3131,
            Self::Random(_) => 3132,
            Self::Thread(_) => 3133,
        }
    }
}

impl ShmExporter {
    /// Listens on an abstract Unix socket with a random name, and serves `segments` from a thread
    /// of its own until it is dropped.
    ///
    /// # Errors
    ///
    /// No segment or more than [`MAX_SEGMENTS`]; or the system refused something.
    pub fn start(segments: Vec<Arc<Segment>>) -> Result<Self, ShmExportError> {
        if segments.is_empty() || segments.len() > MAX_SEGMENTS {
            return Err(ShmExportError::Segments { segments: segments.len() });
        }
        let address = ShmAddress::random().map_err(ShmExportError::Random)?;
        let stop = StopSignal::new().map_err(|errno| ShmExportError::System { step: "eventfd", errno })?;
        let regions: Vec<ExportedRegion> = segments
            .iter()
            .zip(0..)
            .map(|(s, rkey)| ExportedRegion { base: s.addr(), len: s.len() as u64, rkey })
            .collect();
        let welcome = hello::welcome(address.answer, &regions);
        let fds = segments.iter().map(|s| s.fd().as_raw_fd());
        let keep = iter::once(stop.as_fd().as_raw_fd()).chain(fds).collect();
        let (sender, receiver) = sync_channel(1);
        let (log, lines) = sync_channel(16);
        let body = move |kept: &[BorrowedFd<'_>], own| match SocketListener::bind(&address) {
            Err(error) => drop(sender.send(Err(error))),
            Ok(listener) => {
                let _ = sender.send(Ok(own));
                SegmentServer::new(address, &kept[1..], welcome, log).run(&listener, kept[0]);
            }
        };
        // SAFETY: `drop` joins the thread before it closes `stop` and the segments. The thread
        // takes in an address, bytes and channels and lets out messages that own no descriptor; it
        // logs nothing.
        let thread = unsafe { spawn_isolated("kvrail-exporter", keep, body) };
        let mut this = Self {
            address,
            regions,
            stop,
            _segments: segments,
            thread: Some(thread.map_err(ShmExportError::Thread)?),
            logger: None,
            owner: OwnerProcess::current(),
        };
        let ended = |_| ShmExportError::Thread(io::Error::other("it ended at once"));
        let bound = receiver.recv().map_err(ended)?;
        let own = bound.map_err(|(step, errno)| ShmExportError::System { step, errno })?;
        if let Err(errno) = own {
            tracing::warn!(
                %errno,
                "a child of a fork would keep readers from noticing that this process has died: \
                 the system gives a thread no descriptor table of its own"
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
        this.logger = Some(logger.map_err(ShmExportError::Thread)?);
        Ok(this)
    }

    /// The address that a reader connects to.
    #[must_use]
    pub fn address(&self) -> &ShmAddress {
        &self.address
    }

    /// The segments, in the order given: base, length and rkey, as READs name them.
    #[must_use]
    pub fn regions(&self) -> &[ExportedRegion] {
        &self.regions
    }
}

impl Drop for ShmExporter {
    fn drop(&mut self) {
        // In a child of a fork there are no threads, and the stop signal is the parent's.
        if !self.owner.is_current() {
            return;
        }
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
            tracing::error!(%error, "the exporter stops: READs of its segments will fail")
        }
    }
}
