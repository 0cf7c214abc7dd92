//! Why a port cannot be opened or used as a rail.

use super::Errno;
use crate::rail::Side;

/// Why a port cannot be opened or used as a rail.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RailError {
    /// libibverbs is not installed.
    #[error(
        "libibverbs.so.1 cannot be opened: install rdma-core's libraries (Debian, Ubuntu: libibverbs1 and \
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
    /// This host has no RDMA device.
    #[error(
        "there is no RDMA device: look at `rdma link` and at /dev/infiniband; without a NIC, SoftRoCE makes one \
         (rdma link add rxe0 type rxe netdev eth0)"
    )]
    NoDevice,
    /// No port of any device can be used. The text has the reason for each port.
    #[error("none of the RDMA ports can be used: {0}")]
    NoUsablePort(String),
    /// There is no device of this name.
    #[error("there is no RDMA device `{name}`; there are: {known}")]
    NoSuchDevice {
        /// The requested name.
        name: String,
        /// The names of the devices that there are.
        known: String,
    },
    /// No RDMA device is on this NUMA node.
    #[error("no RDMA device is on NUMA node {node}; there are: {known}")]
    NoneOnNode {
        /// The requested node.
        node: u8,
        /// The devices that there are, each with its node.
        known: String,
    },
    /// The text is no name of a rail.
    #[error("`{0}` names no rail: write a device (mlx5_0), or a device and its port (mlx5_0:2)")]
    Name(String),
    /// No rail or more than 16 rails were requested.
    #[error("{0} rails were requested: request 1 to 16")]
    Count(usize),
    /// The rail drives an engine already, or has driven one.
    #[error("rail {0} drives another engine already, or has driven one: open the port once more")]
    InUse(String),
    /// The device speaks iWARP.
    #[error(
        "{0} speaks iWARP, which connects in another way than kvrail does: use a RoCE or InfiniBand device"
    )]
    Iwarp(String),
    /// The rail was opened for the other side.
    #[error("rail {rail} was opened as a {side}'s, and cannot be used here: open it for the other side")]
    WrongSide {
        /// The rail.
        rail: String,
        /// The side that it was opened for.
        side: Side,
    },
    /// The device exists and cannot be opened.
    #[error("{device} cannot be opened: {errno}{}", open_hint(*.errno))]
    Open {
        /// The device.
        device: String,
        /// The errno.
        errno: Errno,
    },
    /// An environment variable makes the device's provider library take no locks.
    #[error(
        "{device} cannot be used by several threads while {variable} is 1, and kvrail uses it from two: unset {variable}"
    )]
    SingleThreaded {
        /// The device.
        device: String,
        /// The environment variable.
        variable: &'static str,
    },
    /// The device does not have this port.
    #[error("{device} has {ports} ports, counted from 1, and no port {port}")]
    NoSuchPort {
        /// The device.
        device: String,
        /// The requested port.
        port: u8,
        /// How many ports it has.
        ports: u8,
    },
    /// The port is not active.
    #[error(
        "port {port} of {device} is {state}, not active: check cable and switch, `ip link set .. up` (RoCE) or \
         the subnet manager (InfiniBand)"
    )]
    PortDown {
        /// The device.
        device: String,
        /// Its port.
        port: u8,
        /// The port's state.
        state: &'static str,
    },
    /// No subnet manager has configured the InfiniBand port.
    #[error("port {port} of {device} has no LID: no subnet manager has configured it (is opensm running?)")]
    NoLid {
        /// The device.
        device: String,
        /// Its port.
        port: u8,
    },
    /// The port has no address that can be used.
    #[error(
        "port {port} of {device} has no usable address ({seen}): give its netdev an IP address and set it up, or \
         name a GID by its index (see `rdma link` and /sys/class/infiniband/{device}/ports/{port}/gids)"
    )]
    NoUsableGid {
        /// The device.
        device: String,
        /// Its port.
        port: u8,
        /// The addresses that it has, each with the reason why it cannot be used.
        seen: String,
    },
    /// The port has no partition key at this index.
    #[error("port {port} of {device} has no partition key at index {index}: see `ibv_devinfo -v`")]
    NoPkey {
        /// The device.
        device: String,
        /// Its port.
        port: u8,
        /// The requested index.
        index: u16,
    },
    /// A libibverbs call failed that works on a working device.
    #[error("{device}: {call} failed: {errno}{}", hint(*.errno))]
    Call {
        /// The device.
        device: String,
        /// The libibverbs function.
        call: &'static str,
        /// The errno.
        errno: Errno,
    },
    /// The system gave no thread or no descriptor.
    #[error("the system gave no {what}: {errno}{}", system_hint(*.errno))]
    System {
        /// The thread or descriptor that was requested.
        what: &'static str,
        /// The errno.
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
            Self::NoneOnNode { .. } => 5030,
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
