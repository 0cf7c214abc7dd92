//! Why memory is not registered.

use kvrail_core::provider::MemoryRange;

use super::Errno;
use crate::mr::locked::Locked;

/// Why a device did not register memory.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MrError {
    /// The process may not lock so much memory.
    #[error(
        "{device} may not lock {len} bytes more: this process may lock {limit} bytes and has locked {}. {} raise the \
         limit (ulimit -l unlimited, systemd: LimitMEMLOCK=infinity, docker: --ulimit memlock=-1)",
        pinned.map_or("an unknown number".into(), |bytes| bytes.to_string()), remedy(*rails, *len)
    )]
    LockedMemory {
        /// The device.
        device: String,
        /// Bytes to be registered.
        len: u64,
        /// On how many rails they were to be registered: each rail locks the memory again.
        rails: usize,
        /// Bytes that the process may lock.
        limit: u64,
        /// Bytes that the process has locked, where known.
        pinned: Option<u64>,
    },
    /// The device refused the registration for another reason.
    #[error("{device} cannot register {len} bytes at {addr:#x}: {errno}{}", memory_hint(*.errno))]
    Refused {
        /// The device.
        device: String,
        /// Where the memory begins.
        addr: u64,
        /// Its length in bytes.
        len: u64,
        /// The device's reason.
        errno: Errno,
    },
    /// The range is longer than one region of the device may be.
    #[error(
        "{device} registers at most {limit} bytes at once, and {len} bytes at {addr:#x} lie in pages of the host that \
         are longer: register them in parts (max_mr_size of the device, or VerbsConfig::max_mr_bytes)"
    )]
    TooLong {
        /// The device.
        device: String,
        /// Where the memory begins.
        addr: u64,
        /// Its length in bytes.
        len: u64,
        /// The most bytes of one region.
        limit: u64,
    },
    /// The device made a shorter region than it was asked for. The region has been released.
    #[error(
        "{device} registered {registered} of {len} bytes at {addr:#x}: its driver shortens long regions; register the \
         memory in parts (PublisherConfig::piece_bytes, VerbsConfig::max_mr_bytes)"
    )]
    Shortened {
        /// The device.
        device: String,
        /// Where the memory begins.
        addr: u64,
        /// Its length in bytes.
        len: u64,
        /// The length of the region that was made.
        registered: u64,
    },
    /// The device, its driver or the kernel takes no dma-buf memory.
    #[error(
        "{device} does not take dma-buf memory ({errno}): it needs Linux 5.12 or newer, rdma-core 34 or newer, and \
         a driver that can (mlx5, irdma, efa; SoftRoCE cannot)"
    )]
    DmabufUnsupported {
        /// The device.
        device: String,
        /// Its reason.
        errno: Errno,
    },
}

fn memory_hint(errno: Errno) -> &'static str {
    match errno.0 {
        libc::EFAULT => {
            "; the range is not mapped, or not writable (for a GPU's memory: load nvidia-peermem)"
        }
        libc::EINVAL => "; the range is empty or wraps around, or the device does not take so long a range",
        libc::ENOMEM => "; the device is out of memory regions, or the system out of memory",
        _ => "",
    }
}

/// The beginning of the remedy for a limit of locked memory that `rails` registrations of `len`
/// bytes exceed.
fn remedy(rails: usize, len: u64) -> String {
    if rails < 2 {
        return "To go on,".into();
    }
    let all = len.saturating_mul(rails as u64);
    format!("Each of {rails} rails locks the memory again, {all} bytes in all: use fewer rails, or")
}

impl MrError {
    /// The error of `range`, which was to be registered on `rails` rails and which `device` refused
    /// with `errno`.
    pub(crate) fn new(device: &str, range: MemoryRange, rails: usize, errno: Errno) -> Self {
        Self::explained(device, range, rails, errno, Locked::of_this_process())
    }

    pub(super) fn explained(
        device: &str,
        range: MemoryRange,
        rails: usize,
        errno: Errno,
        locked: Locked,
    ) -> Self {
        let device = device.to_owned();
        let MemoryRange { addr, len } = range;
        // EPERM comes from a limit of 0 bytes.
        let refused = matches!(errno.0, libc::ENOMEM | libc::EPERM).then(|| locked.refuses(len, rails));
        match refused.flatten() {
            Some(limit) => Self::LockedMemory { device, len, rails, limit, pinned: locked.pinned },
            None => Self::Refused { device, addr, len, errno },
        }
    }

    /// The errno that `kvrail_core::provider::RegisterError` carries.
    #[must_use]
    pub const fn errno(&self) -> i32 {
        match self {
            Self::LockedMemory { .. } => libc::ENOMEM,
            Self::TooLong { .. } | Self::Shortened { .. } => libc::EMSGSIZE,
            Self::Refused { errno, .. } | Self::DmabufUnsupported { errno, .. } => errno.0,
        }
    }

    /// The code of this error: see `docs/errors.md`.
    #[must_use]
    pub const fn code(&self) -> u32 {
        match self {
            Self::LockedMemory { .. } => 5040,
            Self::Refused { .. } => 5041,
            Self::DmabufUnsupported { .. } => 5042,
            Self::TooLong { .. } => 5043,
            Self::Shortened { .. } => 5044,
        }
    }
}

/// Which rail refused a registration, and why.
#[derive(Debug, thiserror::Error)]
#[error("rail {rail}: {reason}")]
pub struct VerbsRegionError {
    /// The rail's number.
    pub rail: u8,
    /// Why it refused.
    pub reason: MrError,
}

impl VerbsRegionError {
    /// The code of the reason: see `docs/errors.md`.
    #[must_use]
    pub const fn code(&self) -> u32 {
        self.reason.code()
    }
}
