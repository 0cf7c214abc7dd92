//! The exports of a server, and which connections send their bytes at the moment.

use std::collections::BTreeMap;
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use kvrail_core::provider::MemoryRange;
use kvrail_host::descriptors::OwnerProcess;
use kvrail_host::exported::{Backing, ExportedMemory};

use crate::region::{ExportedRegion, MAX_EXPORTS, Rkeys};

/// How long a withdrawal waits for bytes that are being sent. Then it ends their connections.
const GRACE: Duration = Duration::from_secs(1);

/// Memory that readers can read over TCP. Dropping it withdraws it: when the drop has returned, the
/// server's threads read none of its bytes any more. A drop waits for bytes that are being sent, up
/// to a second; it then ends the connection of a reader that does not take them.
#[derive(Debug)]
pub struct TcpExported {
    exports: Arc<Exports>,
    region: ExportedRegion,
    /// Keeps the memory of a segment or a file.
    _memory: ExportedMemory,
}

/// Why memory could not be exported over TCP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TcpExportError {
    /// There are as many exports as there can be.
    #[error(
        "the server has {MAX_EXPORTS} exports, its limit: withdraw some, export larger pieces, or start another server"
    )]
    Exports,
    /// An empty range, or one that wraps around.
    #[error("an export of {} bytes at {:#x} is empty or wraps around", range.len, range.addr)]
    Range {
        /// The range.
        range: MemoryRange,
    },
    /// The memory of a device.
    #[error(
        "an export of {} bytes at {:#x} is a device's memory, which tcp cannot read: publish it over verbs, or export \
         host memory", range.len, range.addr
    )]
    Device {
        /// The range.
        range: MemoryRange,
    },
    /// This process is a child of a fork.
    #[error(
        "this process is a child of the one that started the server, whose threads are not here: start a server here"
    )]
    Forked,
    /// Every rkey has been used.
    #[error("the server has made 2^32 - 2 exports in its life, and has no key left: start another one")]
    Rkeys,
}

impl TcpExportError {
    /// A number that never changes its meaning (docs/errors.md).
    #[must_use]
    pub const fn code(&self) -> u32 {
        match self {
            Self::Exports => 3160,
            Self::Range { .. } => 3161,
            Self::Device { .. } => 3165,
            Self::Forked => 3166,
            Self::Rkeys => 3167,
        }
    }
}

/// The table of exports, which the server, its exports and its threads share.
#[derive(Debug)]
pub(super) struct Exports {
    state: Mutex<State>,
    /// A thread has ended a response.
    sent: Condvar,
    owner: OwnerProcess,
}

#[derive(Debug)]
struct State {
    rkeys: Rkeys,
    exports: BTreeMap<u32, Export>,
}

#[derive(Debug)]
struct Export {
    region: ExportedRegion,
    withdrawn: Arc<AtomicBool>,
    /// The connections that send bytes of it at the moment.
    senders: Vec<Arc<TcpStream>>,
}

impl Exports {
    pub(super) fn new() -> Arc<Self> {
        let state = State { rkeys: Rkeys::new(), exports: BTreeMap::new() };
        Arc::new(Self { state: Mutex::new(state), sent: Condvar::new(), owner: OwnerProcess::current() })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn export(self: &Arc<Self>, memory: ExportedMemory) -> Result<TcpExported, TcpExportError> {
        let range @ MemoryRange { addr, len } = memory.range();
        if !self.owner.is_current() {
            return Err(TcpExportError::Forked);
        }
        match memory.backing() {
            Backing::Segment(_) | Backing::SegmentPart { .. } | Backing::File { .. } | Backing::Host => {}
            _ => return Err(TcpExportError::Device { range }),
        }
        let mut state = self.lock();
        if state.exports.len() >= MAX_EXPORTS {
            return Err(TcpExportError::Exports);
        }
        let rkey = state.rkeys.give().ok_or(TcpExportError::Rkeys)?;
        let region = ExportedRegion::new(addr, len, rkey).ok_or(TcpExportError::Range { range })?;
        let export = Export { region, withdrawn: Arc::default(), senders: Vec::new() };
        state.exports.insert(rkey, export);
        drop(state);
        Ok(TcpExported { exports: Arc::clone(self), region, _memory: memory })
    }

    /// Begins to send `len` bytes from `addr` of the export `rkey`. `None`: they do not lie within
    /// an export that stands.
    pub(super) fn begin<'a>(
        &'a self,
        rkey: u32,
        addr: u64,
        len: u32,
        stream: &'a Arc<TcpStream>,
    ) -> Option<Sending<'a>> {
        let mut state = self.lock();
        let export = state.exports.get_mut(&rkey)?;
        export.region.offset(addr, len)?;
        if export.withdrawn.load(Ordering::Relaxed) {
            return None;
        }
        export.senders.push(Arc::clone(stream));
        let withdrawn = Arc::clone(&export.withdrawn);
        Some(Sending { exports: self, rkey, stream, withdrawn, addr, len })
    }
}

/// Bytes that are being sent. Until it is dropped their memory is not withdrawn.
pub(super) struct Sending<'a> {
    exports: &'a Exports,
    rkey: u32,
    stream: &'a Arc<TcpStream>,
    withdrawn: Arc<AtomicBool>,
    /// The bytes, which lie within the export.
    pub(super) addr: u64,
    pub(super) len: u32,
}

impl Sending<'_> {
    /// Whether the owner waits for the bytes' memory.
    pub(super) fn is_withdrawn(&self) -> bool {
        self.withdrawn.load(Ordering::Relaxed)
    }
}

impl Drop for Sending<'_> {
    fn drop(&mut self) {
        let mut state = self.exports.lock();
        if let Some(export) = state.exports.get_mut(&self.rkey) {
            // A connection sends one response at a time.
            export.senders.retain(|sender| !Arc::ptr_eq(sender, self.stream));
            if export.senders.is_empty() {
                self.exports.sent.notify_all();
            }
        }
    }
}

impl TcpExported {
    /// Base, length and rkey, as READs name the memory.
    #[must_use]
    pub fn region(&self) -> ExportedRegion {
        self.region
    }
}

impl Drop for TcpExported {
    fn drop(&mut self) {
        // In a child of a fork no thread sends.
        if !self.exports.owner.is_current() {
            return;
        }
        let rkey = self.region.rkey;
        let mut state = self.exports.lock();
        if let Some(export) = state.exports.get(&rkey) {
            export.withdrawn.store(true, Ordering::Relaxed);
        }
        let busy = |state: &mut State| state.exports.get(&rkey).is_some_and(|e| !e.senders.is_empty());
        let waited = self.exports.sent.wait_timeout_while(state, GRACE, busy);
        state = waited.unwrap_or_else(PoisonError::into_inner).0;
        for sender in state.exports.get(&rkey).into_iter().flat_map(|export| &export.senders) {
            // The thread's send(2) ends now, and the thread with it.
            let _ = sender.shutdown(Shutdown::Both);
        }
        let waited = self.exports.sent.wait_while(state, busy);
        state = waited.unwrap_or_else(PoisonError::into_inner);
        state.exports.remove(&rkey);
    }
}
