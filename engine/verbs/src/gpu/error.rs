//! Why device memory cannot be read into.

use std::io;

/// A call of CUDA's driver API that failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{call} failed: {name} ({code})")]
pub struct CudaError {
    /// The call.
    pub call: &'static str,
    /// Its `CUresult`.
    pub code: i32,
    /// The driver's name for it.
    pub name: String,
}

/// Why device memory cannot be allocated, or cannot be handed to a NIC.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GpuError {
    /// There is no CUDA driver.
    #[error("CUDA cannot be opened: {reason}; GPU memory needs NVIDIA's driver, which brings libcuda.so.1")]
    NoLibrary {
        /// The loader's reason.
        reason: String,
    },
    /// The driver is older than CUDA's present calling conventions.
    #[error("libcuda.so.1 has no {symbol}: install a driver of 2017 or later (CUDA 9)")]
    OldLibrary {
        /// The function that it lacks.
        symbol: &'static str,
    },
    /// A call of the driver failed.
    #[error(transparent)]
    Cuda(#[from] CudaError),
    /// There is no GPU of this number.
    #[error(
        "there is no GPU {ordinal}: CUDA shows {count}, counted from 0; see nvidia-smi and CUDA_VISIBLE_DEVICES"
    )]
    NoDevice {
        /// The requested GPU.
        ordinal: i32,
        /// How many GPUs there are.
        count: i32,
    },
    /// The address is not a GPU's.
    #[error(
        "{addr:#x} is not device memory of CUDA (memory type {kind}, device memory is 2): register host memory as such"
    )]
    NotDevice {
        /// The address.
        addr: u64,
        /// Its `CUmemorytype`, or 0 where the driver does not know the address.
        kind: u32,
    },
    /// The range is empty, or reaches beyond the address space.
    #[error("{len} bytes at {addr:#x} are empty or reach beyond the address space")]
    Range {
        /// Its start.
        addr: u64,
        /// Its length.
        len: u64,
    },
    /// The range is not within one allocation.
    #[error(
        "{len} bytes at {addr:#x} do not lie within one allocation: the one at {base:#x} has {size} bytes; register each allocation by itself"
    )]
    Allocation {
        /// Start of the range.
        addr: u64,
        /// Its length.
        len: u64,
        /// Start of the allocation.
        base: u64,
        /// Its size.
        size: u64,
    },
    /// Neither dmabuf nor peer memory is available.
    #[error(
        "GPU {ordinal}'s memory cannot be handed to a NIC: it cannot be exported as a dmabuf ({no_dmabuf}), and nvidia-peermem is not loaded. Either is enough: NVIDIA's open kernel modules with Linux 5.12 or later, or `modprobe nvidia-peermem`"
    )]
    NoWay {
        /// The GPU.
        ordinal: i32,
        /// Why it cannot be exported as a dmabuf.
        no_dmabuf: String,
    },
    /// The GPU does not order a NIC's writes: a kernel could read a page before it is there.
    #[error(
        "GPU {ordinal} does not order what a NIC writes into its memory before the completion that the host sees ({reason}): a kernel could read a page before it is there. Use another GPU, or read into host memory"
    )]
    Unordered {
        /// The GPU.
        ordinal: i32,
        /// What the driver said.
        reason: String,
    },
    /// The address and the offset lie at different places within a host page.
    #[error(
        "offset {offset:#x} of the dmabuf cannot appear at {iova:#x}: both must lie at the same place within a page of {page} bytes"
    )]
    Congruence {
        /// Place in the dmabuf.
        offset: u64,
        /// The address that the NIC is to know it by.
        iova: u64,
        /// The size of this host's pages.
        page: u64,
    },
    /// The dmabuf is too short.
    #[error("{len} bytes at offset {offset} reach beyond the dmabuf, which has {size}")]
    BeyondDmaBuf {
        /// Place in the dmabuf.
        offset: u64,
        /// Bytes from there on.
        len: u64,
        /// Its size.
        size: u64,
    },
    /// The file descriptor is no dmabuf.
    #[error("the file descriptor cannot be used as a dmabuf: {0}")]
    DmaBuf(#[source] io::Error),
    /// A copy reaches beyond the memory.
    #[error("{len} bytes at {addr:#x} are not within this memory, which is {size} bytes at {base:#x}")]
    Outside {
        /// Start of the copy.
        addr: u64,
        /// Its length.
        len: u64,
        /// Start of the memory.
        base: u64,
        /// Its size.
        size: u64,
    },
    /// The memory is not CUDA's, so CUDA cannot copy it.
    #[error("memory that came as a dmabuf cannot be copied here: its exporter can")]
    NotCudas,
}

impl CudaError {
    /// The code of this error in kvrail, whatever CUDA's is: see `docs/errors.md`.
    #[must_use]
    pub const fn code(&self) -> u32 {
        5100
    }
}

impl GpuError {
    /// The code of this error, or of the one inside: see `docs/errors.md`.
    #[must_use]
    pub const fn code(&self) -> u32 {
        match self {
            Self::NoLibrary { .. } => 5101,
            Self::OldLibrary { .. } => 5102,
            Self::Cuda(error) => error.code(),
            Self::NoDevice { .. } => 5103,
            Self::NotDevice { .. } => 5104,
            Self::Range { .. } => 5105,
            Self::Allocation { .. } => 5106,
            Self::NoWay { .. } => 5107,
            Self::Unordered { .. } => 5108,
            Self::Congruence { .. } => 5109,
            Self::BeyondDmaBuf { .. } => 5110,
            Self::DmaBuf(_) => 5111,
            Self::Outside { .. } => 5112,
            Self::NotCudas => 5113,
        }
    }
}
