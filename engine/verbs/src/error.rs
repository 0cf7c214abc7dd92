//! What goes wrong between a program and its NIC, and what to do about it.

use std::fmt;
use std::io;

use crate::gid::GidKind;
use crate::wire::{LinkLayer, WireError};

/// An errno, told in words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Errno(pub i32);

impl Errno {
    /// Of the call that has just failed.
    #[must_use]
    pub fn last() -> Self {
        Self(io::Error::last_os_error().raw_os_error().unwrap_or(0))
    }
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&io::Error::from_raw_os_error(self.0), f)
    }
}

/// Why there is no rail.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RailError {
    /// libibverbs is not installed.
    #[error(
        "libibverbs.so.1 is not there: install rdma-core's libraries (Debian, Ubuntu: libibverbs1 and \
         ibverbs-providers; Fedora, RHEL: libibverbs)"
    )]
    NoLibrary,
    /// The kernel has no RDMA support loaded.
    #[error(
        "the kernel has no RDMA support loaded: load the NIC's driver and ib_uverbs (modprobe mlx5_ib \
         ib_uverbs), or in a container pass /dev/infiniband and /sys/class/infiniband through"
    )]
    NoKernelSupport,
    /// The list of devices was refused for another reason.
    #[error("the RDMA devices cannot be listed: {0}")]
    List(Errno),
    /// There is none at all.
    #[error(
        "there is no RDMA device: look at `rdma link` and at /dev/infiniband; without a NIC, SoftRoCE makes one \
         (rdma link add rxe0 type rxe netdev eth0)"
    )]
    NoDevice,
    /// None of the ports can be used.
    #[error("none of the RDMA ports can be used: {0}")]
    NoUsablePort(String),
    /// No device of this name.
    #[error("there is no RDMA device `{name}`; there are: {known}")]
    NoSuchDevice {
        /// Asked for.
        name: String,
        /// What there is.
        known: String,
    },
    /// A name that cannot be one.
    #[error("`{0}` names no rail: write a device (mlx5_0), or a device and its port (mlx5_0:2)")]
    Name(String),
    /// Too many or none.
    #[error("{0} rails were asked for; there can be 1 to 16")]
    Count(usize),
    /// A rail has one engine.
    #[error("rail {0} drives another engine already: open it once more")]
    InUse(String),
    /// Another kind of RDMA.
    #[error(
        "{0} speaks iWARP, which needs another way of connecting; RoCE and InfiniBand devices can be used"
    )]
    Iwarp(String),
    /// The device exists and cannot be opened.
    #[error(
        "{device} cannot be opened: {errno}; is /dev/infiniband/uverbs* there and open to this user, and is the \
         provider library of this device installed (Debian: ibverbs-providers)?"
    )]
    Open {
        /// The device.
        device: String,
        /// Why.
        errno: Errno,
    },
    /// A port that the device does not have.
    #[error("{device} has {ports} ports, counted from 1, and no port {port}")]
    NoSuchPort {
        /// The device.
        device: String,
        /// Asked for.
        port: u8,
        /// How many it has.
        ports: u8,
    },
    /// The port is there and carries nothing.
    #[error(
        "port {port} of {device} is {state}, not active: check cable and switch, `ip link set .. up` (RoCE) or \
         the subnet manager (InfiniBand)"
    )]
    PortDown {
        /// The device.
        device: String,
        /// Its port.
        port: u8,
        /// What it is.
        state: &'static str,
    },
    /// An InfiniBand port that no subnet manager has configured.
    #[error("port {port} of {device} has no LID: no subnet manager has seen it (is opensm running?)")]
    NoLid {
        /// The device.
        device: String,
        /// Its port.
        port: u8,
    },
    /// No address.
    #[error(
        "port {port} of {device} has no usable address ({seen}): give its netdev an IP address and set it up, or \
         name a GID by its index (see `rdma link` and /sys/class/infiniband/{device}/ports/{port}/gids)"
    )]
    NoUsableGid {
        /// The device.
        device: String,
        /// Its port.
        port: u8,
        /// What there is, each with its reason.
        seen: String,
    },
    /// No such partition.
    #[error("port {port} of {device} has no partition key at index {index}: see `ibv_devinfo -v`")]
    NoPkey {
        /// The device.
        device: String,
        /// Its port.
        port: u8,
        /// Asked for.
        index: u16,
    },
    /// A query or an allocation that does not fail on a working device.
    #[error("{device}: {call} failed: {errno}{}", hint(*.errno))]
    Call {
        /// The device.
        device: String,
        /// The libibverbs function.
        call: &'static str,
        /// Why.
        errno: Errno,
    },
    /// A thread or descriptor.
    #[error("{what} was not to be had: {errno}; raise ulimit -n or -u")]
    System {
        /// What.
        what: &'static str,
        /// Why.
        errno: Errno,
    },
}

fn hint(errno: Errno) -> &'static str {
    match errno.0 {
        libc::ENOMEM => {
            "; the device is out of resources, or the locked-memory limit is too low: ulimit -l unlimited \
             (systemd: LimitMEMLOCK=infinity, docker: --ulimit memlock=-1)"
        }
        libc::EMFILE | libc::ENFILE => "; raise the limit on open files (ulimit -n)",
        libc::EPERM | libc::EACCES => "; is this user allowed to use /dev/infiniband/uverbs*?",
        _ => "",
    }
}

/// Why memory was not registered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MemoryError {
    /// More than may be locked.
    #[error(
        "{device} may not lock {len} bytes: the limit is {limit}; raise it (ulimit -l unlimited, systemd: \
         LimitMEMLOCK=infinity, docker: --ulimit memlock=-1)"
    )]
    LockedMemory {
        /// The device.
        device: String,
        /// Bytes asked for.
        len: u64,
        /// The limit, in words.
        limit: String,
    },
    /// Refused for another reason.
    #[error("{device} cannot register {len} bytes at {addr:#x}: {errno}{}", memory_hint(*.errno))]
    Refused {
        /// The device.
        device: String,
        /// Where.
        addr: u64,
        /// How much.
        len: u64,
        /// Why.
        errno: Errno,
    },
    /// The device, its driver or the kernel cannot.
    #[error(
        "{device} does not take dma-buf memory ({errno}): it needs Linux 5.12 or newer, rdma-core 34 or newer, and \
         a driver that can (mlx5, irdma, efa; SoftRoCE cannot)"
    )]
    DmabufUnsupported {
        /// The device.
        device: String,
        /// Why.
        errno: Errno,
    },
}

fn memory_hint(errno: Errno) -> &'static str {
    match errno.0 {
        libc::EFAULT => {
            "; the range is not mapped, or not writable (for a GPU's memory: load nvidia-peermem)"
        }
        libc::EINVAL => {
            "; the range is empty, wraps around, or is longer than the device takes (max_mr_size)"
        }
        libc::ENOMEM => "; the device is out of memory regions, or the system out of memory",
        _ => "",
    }
}

impl MemoryError {
    /// Of a registration that was refused with `errno`.
    pub(crate) fn new(device: &str, addr: u64, len: u64, errno: Errno) -> Self {
        let device = device.to_owned();
        let limit = rustix_limit();
        match (errno.0, limit) {
            (libc::ENOMEM | libc::EPERM, Some(limit)) if limit < len => {
                Self::LockedMemory { device, len, limit: format!("{limit} bytes") }
            }
            _ => Self::Refused { device, addr, len, errno },
        }
    }

    /// As the core's error wants it.
    #[must_use]
    pub const fn errno(&self) -> i32 {
        match self {
            Self::LockedMemory { .. } => libc::ENOMEM,
            Self::Refused { errno, .. } | Self::DmabufUnsupported { errno, .. } => errno.0,
        }
    }
}

/// The soft limit on locked memory; `None`: there is none.
fn rustix_limit() -> Option<u64> {
    rustix::process::getrlimit(rustix::process::Resource::Memlock).current
}

/// Why two ends did not become a lane.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LaneError {
    /// No such rail here.
    #[error("there is no rail {rail}: there are {rails}")]
    NoSuchRail {
        /// Asked for.
        rail: u8,
        /// How many there are.
        rails: usize,
    },
    /// What the peer said describes nothing.
    #[error("the peer's end: {0}")]
    Wire(#[from] WireError),
    /// The two ports cannot talk.
    #[error("unreachable: {0}")]
    Unreachable(#[from] Unreachable),
    /// The rail itself.
    #[error(transparent)]
    Rail(#[from] RailError),
    /// A QP could not be made or moved on.
    // A peer is told the first 64 bytes.
    #[error("{rail}: QP to {to}: {errno}{}", step_hint(*.errno))]
    Step {
        /// The rail.
        rail: String,
        /// The state it was to get to.
        to: &'static str,
        /// Why.
        errno: Errno,
    },
    /// The engine's side has ended, or its rail is full.
    #[error(
        "rail {rail} has {lanes} lanes, the most that its queues are made for; close some, or start with a larger cq_entries"
    )]
    RailFull {
        /// The rail.
        rail: u8,
        /// How many.
        lanes: usize,
    },
    /// No random numbers for a PSN.
    #[error("a lane's first packet number is random, and the system gave no random numbers: {0}")]
    Random(getrandom::Error),
}

fn step_hint(errno: Errno) -> &'static str {
    match errno.0 {
        libc::ETIMEDOUT | libc::ENETUNREACH | libc::EHOSTUNREACH => {
            "; the kernel finds no way to the peer's address: check routes and neighbours (ip route get, ip neigh)"
        }
        libc::EINVAL => "; the device refuses the path: MTU, GID index or partition do not fit",
        _ => "",
    }
}

/// Why two ports cannot talk to each other, as far as their addresses tell.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Unreachable {
    /// One is InfiniBand, the other Ethernet.
    #[error("this side is {ours}, the peer {theirs}")]
    LinkLayer {
        /// Here.
        ours: LinkLayer,
        /// There.
        theirs: LinkLayer,
    },
    /// No kind of address in common.
    #[error("no kind of address in common: this side has {ours:?}, the peer {theirs:?}")]
    Kinds {
        /// Here.
        ours: Vec<GidKind>,
        /// There.
        theirs: Vec<GidKind>,
    },
    /// Members of different partitions.
    #[error("this side is in partition {ours:#06x}, the peer in {theirs:#06x}")]
    Partition {
        /// Here.
        ours: u16,
        /// There.
        theirs: u16,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_limit_is_told_as_one_and_anything_else_is_not() {
        let refused = |errno| MemoryError::new("mlx5_0", 4096, 8192, Errno(errno));
        assert!(refused(libc::EFAULT).to_string().contains("not mapped"));
        assert!(refused(libc::EINVAL).to_string().contains("8192 bytes at 0x1000"));
        assert_eq!(refused(libc::EFAULT).errno(), libc::EFAULT);
        match (rustix_limit(), MemoryError::new("mlx5_0", 0, u64::MAX, Errno(libc::ENOMEM))) {
            (Some(limit), error) => {
                assert!(
                    matches!(&error, MemoryError::LockedMemory { limit: said, .. } if said.contains(&limit.to_string()))
                );
                assert!(error.to_string().contains("ulimit -l unlimited"), "{error}");
            }
            (None, error) => assert!(matches!(error, MemoryError::Refused { .. })),
        }
    }

    #[test]
    fn errors_name_what_to_do() {
        let text = RailError::NoLibrary.to_string();
        assert!(text.contains("libibverbs1") && text.contains("install"), "{text}");
        let text = RailError::NoKernelSupport.to_string();
        assert!(text.contains("modprobe"), "{text}");
        let call =
            |errno| RailError::Call { device: "mlx5_0".into(), call: "ibv_create_cq", errno: Errno(errno) };
        assert!(call(libc::ENOMEM).to_string().contains("ulimit -l"));
        assert!(!call(libc::EIO).to_string().contains("ulimit"));
        let step = LaneError::Step { rail: "ra0".into(), to: "RTR", errno: Errno(libc::ETIMEDOUT) };
        assert!(step.to_string().contains("ip neigh"), "{step}");
    }
}
