//! Pools whose pages somebody else owns: where the pages are.
#![allow(unsafe_code, reason = "foreign memory, on the caller's word")]

use std::ops::Range;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::sync::Arc;

use kvrail_core::provider::{DmaBuf, MemoryRange};
use kvrail_host::exported::{Backing, ExportedMemory};
#[cfg(feature = "cuda")]
use kvrail_verbs::gpu::DeviceMemory;

use crate::layout::PageLayout;

/// Memory that somebody else owns, an inference engine's pool for example, and that a
/// [`Publisher`](crate::Publisher) publishes without a copy. Clones are handles of the same memory:
/// a publisher registers it once for all pools that have pages in it.
///
/// # The promise
///
/// Every constructor is `unsafe`, and asks for the same promise, for as long as the memory is
/// published: from the call that starts the publisher or adds the pool until
/// [`Publisher::withdraw`](crate::Publisher::withdraw) has succeeded for every pool that has pages
/// in the memory, or the publisher has been dropped.
///
/// 1. The memory is mapped (a device's: allocated) all the time, at the same addresses, and the
///    file or dmabuf that was named holds these bytes.
/// 2. Bytes of a slot are written only while a guard of this slot exists, and of a page that grows
///    only bytes that are not ready yet. They are complete, and visible to the transport, when they
///    are published: [`ForeignSlotGuard`](crate::ForeignSlotGuard) says what that takes.
///
/// If the first promise is broken, READs fail or bring whatever is mapped there. If the second is
/// broken, a reader can take a mixture of two pages for a page: nothing else can tell it.
#[derive(Clone, Debug)]
pub struct ForeignMemory(Arc<Ways>);

#[derive(Debug)]
struct Ways {
    /// At least one, all with the same range. They are tried in this order.
    ways: Vec<ExportedMemory>,
    /// Its addresses are those of this process, which no other memory has.
    of_process: bool,
    #[cfg(feature = "cuda")]
    device: Option<DeviceMemory>,
}

impl ForeignMemory {
    /// # Safety
    ///
    /// The promise of [`ForeignMemory`], for each of `backings`.
    unsafe fn of(range: MemoryRange, backings: Vec<Backing>, of_process: bool) -> Ways {
        // SAFETY: the promise of `ForeignMemory` covers the time until the publisher has dropped
        // what it exported, and it keeps `Ways` no longer than its caller wants it to.
        let way = |backing| unsafe { ExportedMemory::foreign(range, backing) };
        let ways = backings.into_iter().map(way).collect();
        Ways {
            ways,
            of_process,
            #[cfg(feature = "cuda")]
            device: None,
        }
    }

    /// Host memory of this process, known by its address alone. Over shared memory, readers of this
    /// host read it by `process_vm_readv`.
    ///
    /// # Safety
    ///
    /// [The promise](Self#the-promise), for `range`.
    #[must_use]
    pub unsafe fn host(range: MemoryRange) -> Self {
        // SAFETY: the caller's promise is the same.
        Self(Arc::new(unsafe { Self::of(range, vec![Backing::Host], true) }))
    }

    /// Memory in a file (a memfd) that the caller has mapped at `range`, whose first byte is the
    /// file's byte `offset`.
    ///
    /// # Safety
    ///
    /// [The promise](Self#the-promise), for `range`.
    #[must_use]
    pub unsafe fn file(file: OwnedFd, offset: u64, range: MemoryRange) -> Self {
        let backing = Backing::File { file: Arc::new(file), offset };
        // SAFETY: the caller's promise is the same.
        Self(Arc::new(unsafe { Self::of(range, vec![backing], true) }))
    }

    /// A device's memory, which a dmabuf holds from its byte `offset` on. Peers name the bytes by
    /// the addresses of `range`, whose first has the same place within a host page as `offset`.
    ///
    /// # Safety
    ///
    /// [The promise](Self#the-promise), for the bytes in the dmabuf.
    #[must_use]
    pub unsafe fn dmabuf(file: OwnedFd, offset: u64, range: MemoryRange) -> Self {
        let dmabuf = DmaBuf { fd: file.as_raw_fd(), offset };
        let backing = Backing::Dmabuf { file: Arc::new(file), dmabuf };
        // SAFETY: the caller's promise is the same.
        Self(Arc::new(unsafe { Self::of(range, vec![backing], false) }))
    }

    /// A GPU's memory: as a dmabuf, else as peer memory. A handle of it is kept. No reader of this
    /// process can have it registered at the same time.
    ///
    /// # Errors
    ///
    /// The descriptor of its dmabuf cannot be duplicated.
    ///
    /// # Safety
    ///
    /// [The promise](Self#the-promise). The handle that is kept sees to the first part of it.
    #[cfg(feature = "cuda")]
    pub unsafe fn device(memory: &DeviceMemory) -> std::io::Result<Self> {
        let mut backings = Vec::with_capacity(2);
        if let Some(DmaBuf { fd, offset }) = memory.dmabuf() {
            // SAFETY: `memory` keeps it open during this call.
            let borrowed = unsafe { std::os::fd::BorrowedFd::borrow_raw(fd) };
            let file = Arc::new(borrowed.try_clone_to_owned()?);
            backings.push(Backing::Dmabuf { dmabuf: DmaBuf { fd: file.as_raw_fd(), offset }, file });
        }
        if memory.is_peer_memory() || backings.is_empty() {
            backings.push(Backing::Device);
        }
        // SAFETY: the handle keeps the memory, and the caller promised the rest.
        let ways = unsafe { Self::of(memory.range(), backings, false) };
        Ok(Self(Arc::new(Ways { device: Some(memory.clone()), ..ways })))
    }

    /// Where it is, as peers name its bytes.
    #[must_use]
    pub fn range(&self) -> MemoryRange {
        self.0.ways[0].range()
    }

    /// The ways by which a transport may reach `part` of it, in the order in which they are tried.
    pub(super) fn ways(&self, part: MemoryRange) -> impl Iterator<Item = ExportedMemory> {
        self.0.ways.iter().filter_map(move |way| way.part(part))
    }

    /// A way that is not open, and what would open it.
    #[cfg(feature = "cuda")]
    pub(super) fn missing_way(&self) -> Option<&'static str> {
        let closed = self.0.device.as_ref().is_some_and(|device| !device.is_peer_memory());
        closed.then_some("nvidia-peermem is not loaded, which is the other way (`modprobe nvidia-peermem`)")
    }

    /// A way that is not open, and what would open it.
    #[cfg(not(feature = "cuda"))]
    #[expect(clippy::unused_self, reason = "with the feature cuda it looks at the device")]
    pub(super) const fn missing_way(&self) -> Option<&'static str> {
        None
    }

    /// The device whose memory it is, to be claimed for as long as it is registered.
    #[cfg(feature = "cuda")]
    pub(super) fn claimed_device(&self) -> Option<&DeviceMemory> {
        self.0.device.as_ref()
    }

    /// A number that no other memory has while a handle of this one exists.
    pub(super) fn address(&self) -> usize {
        Arc::as_ptr(&self.0).addr()
    }

    /// Whether both are handles of the same memory.
    pub(super) fn same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Whether equal addresses of the two mean the same bytes. Addresses of a dmabuf are the
    /// caller's choice, so they say nothing about other memory.
    pub(super) fn shares_addresses(&self, other: &Self) -> bool {
        self.same(other) || (self.0.of_process && other.0.of_process)
    }
}

/// Where one region of a foreign pool's pages is: one page a slot, at equal distances.
///
/// Without more, the memory is one page after another. [`stride`](Self::stride) and
/// [`offset`](Self::offset) are for pages that lie side by side in blocks: each stride of the
/// memory is one block, and the page lies at `offset` in it. Pages of other layouts may lie beside
/// it in the same blocks, as pools of their own.
#[derive(Clone, Debug)]
#[must_use = "it is a part of a ForeignPool"]
pub struct ForeignRegion {
    pub(super) memory: ForeignMemory,
    /// Which bytes of the memory.
    pub(super) bytes: Range<u64>,
    pub(super) stride: Option<u64>,
    pub(super) offset: u64,
}

impl ForeignRegion {
    /// All of `memory`, one page after another.
    pub fn new(memory: &ForeignMemory) -> Self {
        Self { memory: memory.clone(), bytes: 0..memory.range().len, stride: None, offset: 0 }
    }

    /// Takes only these bytes of the memory, counted from its first.
    pub fn bytes(self, bytes: Range<u64>) -> Self {
        Self { bytes, ..self }
    }

    /// Sets the bytes from one slot to the next, at least those of a page.
    pub fn stride(self, stride: u64) -> Self {
        Self { stride: Some(stride), ..self }
    }

    /// Sets where in each stride the page begins.
    pub fn offset(self, offset: u64) -> Self {
        Self { offset, ..self }
    }
}

/// A pool whose pages somebody else owns, for
/// [`PublisherConfig::foreign_pool`](crate::PublisherConfig::foreign_pool) and
/// [`Publisher::add_foreign_pool`](crate::Publisher::add_foreign_pool). It has as many slots as its
/// regions have strides.
#[derive(Clone, Debug)]
#[must_use = "it publishes nothing by itself"]
pub struct ForeignPool {
    pub(super) layout: PageLayout,
    pub(super) regions: Vec<ForeignRegion>,
}

impl ForeignPool {
    /// A pool for pages of `layout`, which has no region yet.
    pub const fn new(layout: PageLayout) -> Self {
        Self { layout, regions: Vec::new() }
    }

    /// Adds the next region of the layout, in the layout's order: the keys and then the values, for
    /// instance, or layer after layer.
    pub fn region(mut self, region: ForeignRegion) -> Self {
        self.regions.push(region);
        self
    }
}
