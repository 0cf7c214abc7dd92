//! GPU memory as a destination, without a copy through the host (feature `cuda`).
//!
//! A NIC reaches a GPU's memory in one of two ways. Either the memory is exported as a *dmabuf*,
//! which `ibv_reg_dmabuf_mr` takes, or NVIDIA's kernel module `nvidia-peermem` makes plain
//! `ibv_reg_mr` accept the GPU's addresses. [`DeviceMemory`] finds out which way is open, or says
//! what is missing. libcuda is opened at run time: a program with this feature starts on a machine
//! without a GPU.
//!
//! Slots of such memory have an address and no bytes ([`Access::Device`]). A page that has arrived
//! is visible to kernels that are launched afterwards; a kernel that is running already may not see
//! it. That holds where the GPU orders a NIC's writes for its own kernels: its attribute
//! `GPU_DIRECT_RDMA_WRITES_ORDERING` is 100 or more. Memory of another GPU is refused, since
//! nothing here flushes such writes. kvrail cannot ask for the attribute of a dmabuf that other
//! code has exported: the exporter must check it ([`DeviceMemory::from_dmabuf`]).
//!
//! [`Access::Device`]: kvrail_core::memory::Access::Device
//!
//! **No page has been read into a GPU's memory with this code yet**: the tests cover missing
//! drivers, refusals and the arithmetic of pages, against a stand-in for the driver.
#![allow(unsafe_code, reason = "memory of a device, named by address")]

mod cuda;
mod error;
#[cfg(test)]
mod tests;
mod window;

use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use kvrail_core::provider::{DmaBuf, MemoryRange};

use self::cuda::{Cuda, Current};
pub use self::error::{CudaError, GpuError};
use self::window::{Window, congruent};

const LIBRARY: &str = "libcuda.so.1";
/// The directory that exists while `nvidia-peermem` is loaded.
const PEERMEM: &str = "/sys/module/nvidia_peermem";

/// A handle of a GPU's memory, or of another device's that exports dmabufs. Clones are handles of
/// the same memory.
///
/// The memory lives until the last handle is gone; the code that registers it keeps one.
#[derive(Clone, Debug)]
pub struct DeviceMemory(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    range: MemoryRange,
    export: Option<Export>,
    /// Whether a NIC takes its addresses without an export (`nvidia-peermem`).
    peer: bool,
    numa: Option<u8>,
    gpu: Option<Gpu>,
    registered: AtomicBool,
}

#[derive(Debug)]
struct Export {
    fd: OwnedFd,
    offset: u64,
}

#[derive(Debug)]
struct Gpu {
    cuda: Arc<Cuda>,
    context: Current,
    ordinal: i32,
    /// Where the allocation begins, if kvrail made it.
    owned: Option<u64>,
}

impl Drop for Gpu {
    fn drop(&mut self) {
        let Some(addr) = self.owned else { return };
        // SAFETY: allocated by `allocate` in this context. The last handle is gone, and the code
        // that registered the memory kept one until no NIC could write into it.
        let freed = unsafe { self.cuda.free(self.context, addr) };
        if let Err(error) = freed {
            tracing::warn!(gpu = self.ordinal, %error, "device memory was not freed");
        }
    }
}

impl DeviceMemory {
    /// Allocates `len` bytes of GPU `ordinal`'s memory.
    ///
    /// # Errors
    ///
    /// There is no driver, no such GPU, no memory, or no way to hand it to a NIC.
    pub fn allocate(ordinal: i32, len: u64) -> Result<Self, GpuError> {
        Self::allocate_with(Cuda::open(LIBRARY)?, Path::new(PEERMEM), ordinal, len)
    }

    fn allocate_with(cuda: Cuda, peermem: &Path, ordinal: i32, len: u64) -> Result<Self, GpuError> {
        let bytes = usize::try_from(len).ok().filter(|&n| n > 0).ok_or(GpuError::Range { addr: 0, len })?;
        let context = cuda.device(ordinal)?;
        let cuda = Arc::new(cuda);
        let addr = cuda.allocate(context, bytes)?;
        let gpu = Gpu { cuda, context, ordinal, owned: Some(addr) };
        Self::of_gpu(gpu, peermem, MemoryRange { addr, len })
    }

    /// `len` bytes of CUDA device memory at `addr` that other code has allocated, by `cudaMalloc`
    /// for instance.
    ///
    /// # Errors
    ///
    /// There is no driver, it is no device memory, it is not within one allocation, or there is no
    /// way to hand it to a NIC.
    ///
    /// # Safety
    ///
    /// The memory stays allocated while a handle or a registration is left. While it is registered,
    /// only the slots' owner writes to it.
    pub unsafe fn from_raw(addr: u64, len: u64) -> Result<Self, GpuError> {
        Self::from_raw_with(Cuda::open(LIBRARY)?, Path::new(PEERMEM), addr, len)
    }

    fn from_raw_with(cuda: Cuda, peermem: &Path, addr: u64, len: u64) -> Result<Self, GpuError> {
        let end = addr.checked_add(len).filter(|_| len > 0).ok_or(GpuError::Range { addr, len })?;
        let found = cuda.locate(addr)?;
        if addr < found.base || end - found.base > found.size {
            return Err(GpuError::Allocation { addr, len, base: found.base, size: found.size });
        }
        let gpu = Gpu { cuda: Arc::new(cuda), context: found.context, ordinal: found.ordinal, owned: None };
        Self::of_gpu(gpu, peermem, MemoryRange { addr, len })
    }

    /// `len` bytes at `offset` of a dmabuf that other code has exported. Slots and the NIC know
    /// them by the addresses from `iova` on.
    ///
    /// # Errors
    ///
    /// The descriptor is no dmabuf or the dmabuf is too short, or `offset` and `iova` lie at
    /// different places within a host page.
    ///
    /// # Safety
    ///
    /// While the memory is registered, only the slots' owner writes to it. Code on the device that
    /// reads a page sees what a NIC wrote before the host saw the completion: the GPU's attribute
    /// `GPU_DIRECT_RDMA_WRITES_ORDERING` is 100 or more, or the reader flushes first
    /// (`cuFlushGPUDirectRDMAWrites`).
    pub unsafe fn from_dmabuf(fd: OwnedFd, offset: u64, iova: u64, len: u64) -> Result<Self, GpuError> {
        if len == 0 || iova.checked_add(len).is_none() {
            return Err(GpuError::Range { addr: iova, len });
        }
        let page = host_page();
        if !congruent(iova, offset, page) {
            return Err(GpuError::Congruence { offset, iova, page });
        }
        let size =
            rustix::fs::seek(&fd, rustix::fs::SeekFrom::End(0)).map_err(|e| GpuError::DmaBuf(e.into()))?;
        if offset.checked_add(len).is_none_or(|end| end > size) {
            return Err(GpuError::BeyondDmaBuf { offset, len, size });
        }
        Ok(Self(Arc::new(Inner {
            range: MemoryRange { addr: iova, len },
            export: Some(Export { fd, offset }),
            peer: false,
            numa: None,
            gpu: None,
            registered: AtomicBool::new(false),
        })))
    }

    fn of_gpu(gpu: Gpu, peermem: &Path, range: MemoryRange) -> Result<Self, GpuError> {
        let page = host_page();
        let around = Window::around(range.addr, range.len, page);
        let window = around.ok_or(GpuError::Range { addr: range.addr, len: range.len })?;
        let ordered = gpu.cuda.writes_ordered(gpu.ordinal);
        ordered.map_err(|reason| GpuError::Unordered { ordinal: gpu.ordinal, reason })?;
        let export = gpu
            .cuda
            .dmabuf_supported(gpu.ordinal)
            .and_then(|()| gpu.cuda.export(gpu.context, window).map_err(|e| e.to_string()));
        let peer = peermem.exists();
        let export = match export {
            Ok(fd) => Some(Export { fd, offset: window.offset }),
            Err(no_dmabuf) if peer => {
                tracing::info!(gpu = gpu.ordinal, no_dmabuf, "GPU memory goes by nvidia-peermem");
                None
            }
            Err(no_dmabuf) => return Err(GpuError::NoWay { ordinal: gpu.ordinal, no_dmabuf }),
        };
        gpu.cuda.synchronise(range.addr)?;
        let numa = gpu.cuda.numa(gpu.ordinal);
        let registered = AtomicBool::new(false);
        Ok(Self(Arc::new(Inner { range, export, peer, numa, gpu: Some(gpu), registered })))
    }

    /// The addresses that slots have: the GPU's own, or those given to `from_dmabuf`.
    #[must_use]
    pub fn range(&self) -> MemoryRange {
        self.0.range
    }

    /// Whether both are handles of the same memory.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// The NUMA node that the GPU is attached to, where known.
    #[must_use]
    pub fn numa(&self) -> Option<u8> {
        self.0.numa
    }

    /// The export, if there is one. Registering by it is tried first.
    #[must_use]
    pub fn dmabuf(&self) -> Option<DmaBuf> {
        self.0.export.as_ref().map(|e| DmaBuf { fd: e.fd.as_raw_fd(), offset: e.offset })
    }

    /// Whether its addresses can be registered as if they were the host's: `nvidia-peermem` is
    /// loaded.
    #[must_use]
    pub fn is_peer_memory(&self) -> bool {
        self.0.peer
    }

    /// Takes the right to register the memory. Returns `false` if the right is taken already.
    #[must_use]
    pub fn claim(&self) -> bool {
        !self.0.registered.swap(true, Ordering::AcqRel)
    }

    /// Gives the right to register it back. The memory is not registered any more.
    pub fn release(&self) {
        self.0.registered.store(false, Ordering::Release);
    }

    /// Fills all of it with `byte`.
    ///
    /// # Errors
    ///
    /// The driver refuses, or the memory is not CUDA's.
    pub fn fill(&self, byte: u8) -> Result<(), GpuError> {
        let gpu = self.0.gpu.as_ref().ok_or(GpuError::NotCudas)?;
        let MemoryRange { addr, len } = self.0.range;
        // SAFETY: all of this memory and nothing else; only device memory has a `gpu`.
        unsafe { gpu.cuda.fill(gpu.context, addr, len as usize, byte) }?;
        Ok(())
    }

    /// Copies `to.len()` bytes from `addr`, an address of it, to the host.
    ///
    /// # Errors
    ///
    /// The copy leaves the memory, the driver refuses, or the memory is not CUDA's.
    pub fn copy_to_host(&self, addr: u64, to: &mut [u8]) -> Result<(), GpuError> {
        let gpu = self.inside(addr, to.len())?;
        // SAFETY: within this memory, as checked just now.
        unsafe { gpu.cuda.read(gpu.context, addr, to) }?;
        Ok(())
    }

    /// Copies `from` to `addr`, an address of it.
    ///
    /// # Errors
    ///
    /// As [`copy_to_host`](Self::copy_to_host).
    pub fn copy_from_host(&self, addr: u64, from: &[u8]) -> Result<(), GpuError> {
        let gpu = self.inside(addr, from.len())?;
        // SAFETY: within this memory, as checked just now.
        unsafe { gpu.cuda.write(gpu.context, addr, from) }?;
        Ok(())
    }

    fn inside(&self, addr: u64, len: usize) -> Result<&Gpu, GpuError> {
        let MemoryRange { addr: base, len: size } = self.0.range;
        let len = len as u64;
        let offset =
            addr.checked_sub(base).filter(|offset| offset.checked_add(len).is_some_and(|end| end <= size));
        if offset.is_none() {
            return Err(GpuError::Outside { addr, len, base, size });
        }
        self.0.gpu.as_ref().ok_or(GpuError::NotCudas)
    }
}

fn host_page() -> u64 {
    rustix::param::page_size() as u64
}
