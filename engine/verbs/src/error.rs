//! What goes wrong between a program and its NIC, and what to do about it.

use std::fmt;
use std::io;

use kvrail_core::provider::MemoryRange;

use crate::gid::GidKind;
use crate::locked::Locked;
use crate::rail::Side;
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
    /// A rail that was opened for the other side.
    #[error("rail {rail} was opened as a {side}'s, which cannot be used here: open it for the other side")]
    WrongSide {
        /// The rail.
        rail: String,
        /// What it was opened for.
        side: Side,
    },
    /// The device exists and cannot be opened.
    #[error("{device} cannot be opened: {errno}{}", open_hint(*.errno))]
    Open {
        /// The device.
        device: String,
        /// Why.
        errno: Errno,
    },
    /// The environment takes the provider library's locks away.
    #[error(
        "{device} cannot be used by several threads while {variable} is 1, and kvrail uses it from two: unset {variable}"
    )]
    SingleThreaded {
        /// The device.
        device: String,
        /// The environment's variable.
        variable: &'static str,
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
    #[error("{what} was not to be had: {errno}{}", system_hint(*.errno))]
    System {
        /// What.
        what: &'static str,
        /// Why.
        errno: Errno,
    },
}

fn open_hint(errno: Errno) -> &'static str {
    match errno.0 {
        libc::EMFILE | libc::ENFILE => "; raise the limit on open files (ulimit -n)",
        libc::ENOMEM => "; the system is out of memory, or this process's control group is",
        _ => {
            "; is /dev/infiniband/uverbs* there and open to this user, and is the provider library of this device \
             installed (Debian: ibverbs-providers)?"
        }
    }
}

fn system_hint(errno: Errno) -> &'static str {
    match errno.0 {
        libc::EMFILE | libc::ENFILE => "; raise the limit on open files (ulimit -n)",
        libc::EAGAIN => "; raise the limit on threads (ulimit -u; in a container, its limit on pids)",
        libc::ENOMEM => "; the system is out of memory, or this process's control group is",
        _ => "",
    }
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
        "{device} may not lock {len} bytes more: this process may lock {limit} bytes and has locked {}. {} raise the \
         limit (ulimit -l unlimited, systemd: LimitMEMLOCK=infinity, docker: --ulimit memlock=-1)",
        pinned.map_or("an unknown number".into(), |bytes| bytes.to_string()), again(*rails, *len)
    )]
    LockedMemory {
        /// The device.
        device: String,
        /// Bytes asked for.
        len: u64,
        /// On how many rails: each locks the memory again.
        rails: usize,
        /// Bytes that the process may lock.
        limit: u64,
        /// Bytes that it has locked, where known.
        pinned: Option<u64>,
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

/// What the memory is counted as, where that is more than once.
fn again(rails: usize, len: u64) -> String {
    if rails < 2 {
        return "To go on,".into();
    }
    let all = len.saturating_mul(rails as u64);
    format!("Each of {rails} rails locks the memory again, {all} bytes in all: use fewer rails, or")
}

impl MemoryError {
    /// Of memory that was to be registered on `rails` rails, one of which refused it with `errno`.
    pub(crate) fn new(device: &str, range: MemoryRange, rails: usize, errno: Errno) -> Self {
        Self::explained(device, range, rails, errno, Locked::of_this_process())
    }

    fn explained(device: &str, range: MemoryRange, rails: usize, errno: Errno, locked: Locked) -> Self {
        let device = device.to_owned();
        let MemoryRange { addr, len } = range;
        // EPERM: a limit of nothing at all.
        let refused = matches!(errno.0, libc::ENOMEM | libc::EPERM).then(|| locked.refuses(len, rails));
        match refused.flatten() {
            Some(limit) => Self::LockedMemory { device, len, rails, limit, pinned: locked.pinned },
            None => Self::Refused { device, addr, len, errno },
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
    Wire(WireError),
    /// The two ports cannot talk.
    #[error("unreachable: {0}")]
    Unreachable(Unreachable),
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

// Their texts are part of this one's, so they are not its sources: who prints a chain prints each
// text once.
impl From<WireError> for LaneError {
    fn from(error: WireError) -> Self {
        Self::Wire(error)
    }
}

impl From<Unreachable> for LaneError {
    fn from(error: Unreachable) -> Self {
        Self::Unreachable(error)
    }
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
        const GIB: u64 = 1 << 30;
        let range = MemoryRange { addr: 4096, len: 3 * GIB };
        let refused = |errno, limit, pinned| {
            let locked = Locked { limit, pinned: Some(pinned) };
            MemoryError::explained("mlx5_1", range, 4, Errno(errno), locked)
        };
        // The first rail had room, the second has not.
        let error = refused(libc::ENOMEM, Some(4 * GIB), 3 * GIB);
        assert_eq!(error.errno(), libc::ENOMEM);
        let text = error.to_string();
        for part in ["mlx5_1", "3221225472 bytes more", "may lock 4294967296", "has locked 3221225472"] {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert!(text.contains("4 rails") && text.contains("12884901888 bytes in all"), "{text}");
        assert!(text.contains("ulimit -l unlimited") && !text.contains("memory regions"), "{text}");
        // There is room under the limit, or none: it is the device.
        for limit in [Some(4 * GIB), None] {
            let text = refused(libc::ENOMEM, limit, 0).to_string();
            assert!(text.contains("out of memory regions") && !text.contains("ulimit"), "{text}");
        }
        assert!(matches!(refused(libc::EPERM, Some(0), 0), MemoryError::LockedMemory { limit: 0, .. }));
        // Another errno is another reason, however low the limit.
        let error = refused(libc::EFAULT, Some(0), 0);
        assert!(error.to_string().contains("not mapped") && error.errno() == libc::EFAULT, "{error}");
        assert!(refused(libc::EINVAL, Some(0), 0).to_string().contains("3221225472 bytes at 0x1000"));
    }

    #[test]
    fn a_hint_is_of_the_errno_that_came() {
        let open = |errno| RailError::Open { device: "mlx5_0".into(), errno: Errno(errno) }.to_string();
        assert!(open(libc::EMFILE).contains("ulimit -n") && !open(libc::EMFILE).contains("provider library"));
        assert!(open(libc::ENOENT).contains("provider library"));
        let system = |errno| RailError::System { what: "a thing", errno: Errno(errno) }.to_string();
        assert!(system(libc::EMFILE).contains("ulimit -n"));
        assert!(system(libc::EAGAIN).contains("ulimit -u"));
        assert!(!system(libc::EBADF).contains("ulimit"));
        let side = RailError::WrongSide { rail: "mlx5_0".into(), side: Side::Producer }.to_string();
        assert!(side.contains("producer's") && !side.contains("another engine"), "{side}");
    }

    /// Whoever prints an error with its sources prints no text twice.
    #[test]
    fn an_error_whose_text_has_its_reason_has_no_source() {
        use std::error::Error as _;
        let reason = MemoryError::DmabufUnsupported { device: "rxe0".into(), errno: Errno(95) };
        let region = crate::mr::RegionError { rail: 1, reason };
        assert!(region.to_string().contains("dma-buf") && region.source().is_none(), "{region}");
        let unreachable = Unreachable::Partition { ours: 1, theirs: 2 };
        for error in [LaneError::from(WireError::Format(9)), LaneError::from(unreachable)] {
            assert!(error.source().is_none(), "{error}");
        }
        let rail = LaneError::from(RailError::NoDevice);
        assert_eq!(rail.to_string(), RailError::NoDevice.to_string(), "this one is the reason");
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
