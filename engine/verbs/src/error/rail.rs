//! Why a port does not become a rail.

use super::Errno;
use crate::rail::Side;

/// Why a port is no rail, or cannot be used as one.
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

impl RailError {
    /// The code of this error: see `docs/errors.md`.
    #[must_use]
    pub const fn code(&self) -> u32 {
        match self {
            Self::NoLibrary => 5010,
            Self::NoKernelSupport => 5011,
            Self::List(_) => 5012,
            Self::NoDevice => 5013,
            Self::NoUsablePort(_) => 5014,
            Self::NoSuchDevice { .. } => 5015,
            Self::Name(_) => 5016,
            Self::Count(_) => 5017,
            Self::InUse(_) => 5018,
            Self::Iwarp(_) => 5019,
            Self::WrongSide { .. } => 5020,
            Self::Open { .. } => 5021,
            Self::SingleThreaded { .. } => 5022,
            Self::NoSuchPort { .. } => 5023,
            Self::PortDown { .. } => 5024,
            Self::NoLid { .. } => 5025,
            Self::NoUsableGid { .. } => 5026,
            Self::NoPkey { .. } => 5027,
            Self::Call { .. } => 5028,
            Self::System { .. } => 5029,
        }
    }
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
