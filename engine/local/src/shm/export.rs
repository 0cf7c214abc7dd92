//! One export: memory that readers can read until it is dropped.

use std::collections::BTreeMap;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use kvrail_core::provider::MemoryRange;
use kvrail_host::descriptors::OwnerProcess;
use kvrail_host::exported::{Backing, ExportedMemory};
use rustix::io::Errno;

use super::live::LiveWords;
use super::packet::send;
use super::serve::Order;
use super::table::{NoPlace, SharedTable};
use super::wire::{Description, Reach};
use crate::region::{ExportedRegion, MAX_EXPORTS};

/// How long the exporter's thread may take to take a descriptor over.
const TAKE_OVER: Duration = Duration::from_secs(10);

/// Memory that readers can read. Dropping it withdraws it: no READ that begins afterwards succeeds,
/// and none that has begun takes what is written afterwards for bytes of this export.
///
/// Readers that have mapped the memory keep it until their lanes carry out another READ of this
/// exporter, or are closed; the memory of a segment is freed only then.
#[derive(Debug)]
pub struct ShmExport {
    exports: Arc<Exports>,
    description: Description,
    /// The key of its file in [`Channel::files`].
    file: Option<usize>,
    _memory: ExportedMemory,
}

/// Why memory could not be exported.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ShmExportError {
    /// There are as many exports as there can be.
    #[error(
        "the exporter has {MAX_EXPORTS} exports, its limit: withdraw some, export larger pieces, or start another \
         exporter"
    )]
    Exports,
    /// The system refused.
    #[error("memory could not be exported: {step} failed: {errno}{}", hint(*.errno))]
    System {
        /// The step.
        step: &'static str,
        /// Its error.
        errno: Errno,
    },
    /// An empty range, or one that wraps around.
    #[error("an export of {} bytes at {:#x} is empty or wraps around", range.len, range.addr)]
    Range {
        /// The range.
        range: MemoryRange,
    },
    /// The range does not lie within its file.
    #[error(
        "an export of {} bytes from byte {offset} of its file does not lie within the file's {file} bytes", range.len
    )]
    File {
        /// The range.
        range: MemoryRange,
        /// Where it begins in the file.
        offset: u64,
        /// The bytes of the file.
        file: u64,
    },
    /// The memory of a device.
    #[error(
        "an export of {} bytes at {:#x} is a device's memory, which shm cannot read: publish it over verbs, or \
         export host memory", range.len, range.addr
    )]
    Device {
        /// The range.
        range: MemoryRange,
    },
    /// This process is a child of a fork.
    #[error(
        "this process is a child of the one that started the exporter, and readers cannot read it: start an exporter \
         here"
    )]
    Forked,
    /// The exporter has been dropped, or its thread has ended.
    #[error("the exporter has ended: start another one")]
    Ended,
    /// Every rkey has been used.
    #[error("the exporter has made 2^32 - 2 exports in its life, and has no key left: start another one")]
    Rkeys,
    /// The exporter's thread shares the process's descriptor table.
    #[error(
        "host memory cannot be exported by its address alone: the system gives a thread no descriptor table of its \
         own ({errno}), so readers could not tell whether this process has called exec. Export a Segment or a memfd, \
         or run on Linux 5.9 or later"
    )]
    NoTable {
        /// The error of unshare(2).
        errno: Errno,
    },
}

impl ShmExportError {
    /// A number that never changes its meaning (docs/errors.md).
    #[must_use]
    pub const fn code(&self) -> u32 {
        match self {
            Self::Exports => 3130,
            Self::System { .. } => 3134,
            Self::Range { .. } => 3135,
            Self::File { .. } => 3136,
            Self::Device { .. } => 3137,
            Self::Forked => 3138,
            Self::Ended => 3139,
            Self::Rkeys => 3128,
            Self::NoTable { .. } => 3129,
        }
    }
}

fn hint(errno: Errno) -> &'static str {
    match errno {
        Errno::MFILE | Errno::NFILE | Errno::TOOMANYREFS => {
            "; raise the limit on open files (ulimit -n), or export several pieces of one file"
        }
        _ => "",
    }
}

/// What an exporter and its exports share.
#[derive(Debug)]
pub(super) struct Exports {
    table: SharedTable,
    live: LiveWords,
    /// The probe, at the address that readers are told.
    _probe: Box<[u8; 16]>,
    /// Whether the exporter's thread has a descriptor table of its own.
    own_table: Result<(), Errno>,
    owner: OwnerProcess,
    channel: Mutex<Channel>,
}

/// The way to the exporter's thread.
#[derive(Debug)]
struct Channel {
    orders: OwnedFd,
    acks: Receiver<Result<(), Errno>>,
    /// The files that the thread has: number and count of exports, by the address of the file's
    /// owner, which lives as long as its exports.
    files: BTreeMap<usize, (u64, usize)>,
    last_file: u64,
    /// The exporter has been dropped, or an order was not acknowledged.
    ended: bool,
}

impl Exports {
    pub(super) fn new(
        table: SharedTable,
        live: LiveWords,
        probe: Box<[u8; 16]>,
        own_table: Result<(), Errno>,
        owner: OwnerProcess,
        orders: OwnedFd,
        acks: Receiver<Result<(), Errno>>,
    ) -> Self {
        let channel = Channel { orders, acks, files: BTreeMap::new(), last_file: 0, ended: false };
        Self { table, live, _probe: probe, own_table, owner, channel: Mutex::new(channel) }
    }

    fn channel(&self) -> std::sync::MutexGuard<'_, Channel> {
        self.channel.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Withdraws all exports, and takes no new one.
    pub(super) fn end(&self) {
        let mut channel = self.channel();
        channel.ended = true;
        for export in self.table.lock().remove_all().values() {
            self.live.end(export.slot);
        }
    }
}

impl Channel {
    /// The number under which the thread has the file of `owner`. It gets a copy of `fd` if it does
    /// not have it.
    fn acquire(&mut self, owner: usize, fd: BorrowedFd<'_>) -> Result<u64, ShmExportError> {
        if let Some((file, count)) = self.files.get_mut(&owner) {
            *count += 1;
            return Ok(*file);
        }
        let file = self.last_file + 1;
        let failed = |errno| ShmExportError::System { step: "passing the file on", errno };
        send(self.orders.as_fd(), &Order::Take(file).to_bytes(), &[fd]).map_err(failed)?;
        match self.acks.recv_timeout(TAKE_OVER) {
            Ok(taken) => taken.map_err(failed)?,
            Err(error) => {
                // A late acknowledgement must not be taken for that of another order.
                self.ended = true;
                return Err(match error {
                    RecvTimeoutError::Timeout => failed(Errno::TIMEDOUT),
                    RecvTimeoutError::Disconnected => ShmExportError::Ended,
                });
            }
        }
        self.last_file = file;
        self.files.insert(owner, (file, 1));
        Ok(file)
    }

    fn release(&mut self, owner: usize) {
        let Some((file, count)) = self.files.get_mut(&owner) else { return };
        *count -= 1;
        if *count == 0 {
            // Fails only when the thread has ended, and its descriptors with it.
            let _ = send(self.orders.as_fd(), &Order::Close(*file).to_bytes(), &[]);
            self.files.remove(&owner);
        }
    }
}

impl ShmExport {
    pub(super) fn new(exports: &Arc<Exports>, memory: ExportedMemory) -> Result<Self, ShmExportError> {
        let range @ MemoryRange { addr, len } = memory.range();
        if !exports.owner.is_current() {
            return Err(ShmExportError::Forked);
        }
        if addr.checked_add(len).is_none() || len == 0 {
            return Err(ShmExportError::Range { range });
        }
        let (fd, owner, offset) = match memory.backing() {
            Backing::Segment(segment) => (Some(segment.fd()), Arc::as_ptr(segment).addr(), 0),
            Backing::SegmentPart { segment, offset } => {
                (Some(segment.fd()), Arc::as_ptr(segment).addr(), *offset)
            }
            Backing::File { file, offset } => (Some(file.as_fd()), Arc::as_ptr(file).addr(), *offset),
            Backing::Host => (None, 0, 0),
            _ => return Err(ShmExportError::Device { range }),
        };
        let whole_segment = matches!(memory.backing(), Backing::Segment(_));
        match (fd, exports.own_table) {
            (Some(fd), _) if !whole_segment => check_file(fd, range, offset)?,
            (None, Err(errno)) => return Err(ShmExportError::NoTable { errno }),
            _ => {}
        }
        let mut channel = exports.channel();
        if channel.ended {
            return Err(ShmExportError::Ended);
        }
        let file = fd.map(|fd| channel.acquire(owner, fd)).transpose()?;
        let reach = match file {
            None => Reach::Process,
            Some(file) if whole_segment => Reach::Segment { file },
            Some(file) => Reach::File { file, offset },
        };
        let mut table = exports.table.lock();
        let description = match table.reserve(addr, len, reach) {
            Ok(Some(description)) => description,
            refused => {
                drop(table);
                if file.is_some() {
                    channel.release(owner);
                }
                return Err(match refused {
                    Err(NoPlace::Full) => ShmExportError::Exports,
                    Err(NoPlace::NoRkey) => ShmExportError::Rkeys,
                    Ok(_) => ShmExportError::Range { range },
                });
            }
        };
        // Live before a reader can learn of it.
        exports.live.set(description.slot, description.region.rkey);
        table.enter(description);
        drop(table);
        drop(channel);
        let file = file.map(|_| owner);
        Ok(Self { exports: Arc::clone(exports), description, file, _memory: memory })
    }

    /// Base, length and rkey, as READs name the memory.
    #[must_use]
    pub fn region(&self) -> ExportedRegion {
        self.description.region
    }
}

impl Drop for ShmExport {
    fn drop(&mut self) {
        // In a child of a fork the live words are the parent's.
        if !self.exports.owner.is_current() {
            return;
        }
        let mut channel = self.exports.channel();
        // While the table is locked no reader is told of an export, and its slot is not reused.
        let mut table = self.exports.table.lock();
        // The exporter's end has withdrawn all exports already.
        if table.remove(&self.description) {
            self.exports.live.clear(self.description.slot);
        }
        drop(table);
        if let Some(owner) = self.file {
            channel.release(owner);
        }
    }
}

/// Whether `range` lies within its file from `offset` on.
fn check_file(fd: BorrowedFd<'_>, range: MemoryRange, offset: u64) -> Result<(), ShmExportError> {
    let stat = rustix::fs::fstat(fd).map_err(|errno| ShmExportError::System { step: "fstat", errno })?;
    let file = u64::try_from(stat.st_size).unwrap_or(0);
    match offset.checked_add(range.len) {
        Some(end) if end <= file => Ok(()),
        _ => Err(ShmExportError::File { range, offset, file }),
    }
}
