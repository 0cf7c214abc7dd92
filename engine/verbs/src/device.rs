//! Devices: found, opened, asked what they can do.
#![allow(unsafe_code, reason = "libibverbs")]

use std::ffi::{CStr, OsStr};
use std::fmt;
use std::ptr::NonNull;

use rdma_mummy_sys as sys;

use crate::error::{Errno, RailError};
use crate::sysfs;

/// The names of this host's RDMA devices, sorted.
///
/// # Errors
///
/// The library or the kernel's support is missing, or there is none.
pub fn devices() -> Result<Vec<String>, RailError> {
    let list = List::new()?;
    let mut names: Vec<String> = list.names().map(|(name, _)| name).collect();
    if names.is_empty() {
        return Err(RailError::NoDevice);
    }
    names.sort_by_key(|name| natural(name));
    Ok(names)
}

/// `mlx5_10` after `mlx5_9`.
fn natural(name: &str) -> (String, u64) {
    let stem = name.trim_end_matches(|c: char| c.is_ascii_digit());
    (stem.into(), name[stem.len()..].parse().unwrap_or(0))
}

/// What `ibv_get_device_list` returned.
struct List {
    list: NonNull<*mut sys::ibv_device>,
    count: usize,
}

impl List {
    fn new() -> Result<Self, RailError> {
        let mut count = 0;
        // SAFETY: a local to write the count to. Without the library the stub fails and touches nothing.
        let list = unsafe { sys::ibv_get_device_list(&raw mut count) };
        let Some(list) = NonNull::new(list) else { return Err(list_error(Errno::last())) };
        Ok(Self { list, count: usize::try_from(count).unwrap_or(0) })
    }

    fn names(&self) -> impl Iterator<Item = (String, NonNull<sys::ibv_device>)> {
        // SAFETY: libibverbs returned an array of `count` pointers, which lives until `self` is dropped.
        let devices = unsafe { std::slice::from_raw_parts(self.list.as_ptr(), self.count) };
        devices.iter().filter_map(|&device| {
            let device = NonNull::new(device)?;
            // SAFETY: a device of the list.
            let name = unsafe { sys::ibv_get_device_name(device.as_ptr()) };
            if name.is_null() {
                return None;
            }
            // SAFETY: a C string in the device, which lives as long as the list.
            let name = unsafe { CStr::from_ptr(name) };
            Some((name.to_string_lossy().into_owned(), device))
        })
    }
}

impl Drop for List {
    fn drop(&mut self) {
        // SAFETY: from ibv_get_device_list, freed once. Devices that were opened stay.
        unsafe { sys::ibv_free_device_list(self.list.as_ptr()) };
    }
}

/// What takes libmlx5's locks away for a whole process, which then must have one thread.
const SINGLE_THREADED: &str = "MLX5_SINGLE_THREADED";

/// Whether the device's provider library takes no locks, `setting` being the value of
/// [`SINGLE_THREADED`].
fn lockless(driver: Driver, setting: Option<&OsStr>) -> bool {
    driver == Driver::Mlx5 && setting.is_some_and(|value| value == "1")
}

fn list_error(errno: Errno) -> RailError {
    match errno.0 {
        libc::EOPNOTSUPP => RailError::NoLibrary,
        libc::ENOSYS => RailError::NoKernelSupport,
        _ => RailError::List(errno),
    }
}

/// What a device is, for reports and for what it is known not to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Driver {
    /// The kernel's software RoCE.
    SoftRoce,
    /// Another device without hardware.
    Software,
    /// NVIDIA ConnectX from ConnectIB on.
    Mlx5,
    /// Anything else.
    Hardware,
}

impl Driver {
    /// What reports must say of figures taken on it, if anything.
    #[must_use]
    pub const fn caveat(self) -> Option<&'static str> {
        match self {
            Self::SoftRoce => Some("SoftRoCE (rxe): software, says nothing about hardware"),
            Self::Software => Some("a software device: says nothing about hardware"),
            Self::Mlx5 | Self::Hardware => None,
        }
    }
}

/// An opened device. Closed when dropped, after everything that was made from it.
pub(crate) struct Context {
    raw: NonNull<sys::ibv_context>,
    pub(crate) name: String,
    pub(crate) driver: Driver,
    pub(crate) caps: Caps,
}

/// What a device allows, as far as rails care.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Caps {
    pub(crate) ports: u8,
    pub(crate) max_qp_wr: u32,
    pub(crate) max_cqe: u32,
    /// Pieces of one work request.
    pub(crate) max_sge: u32,
    /// READs in flight that one QP may have as the reader.
    pub(crate) init_depth: u8,
    /// READs in flight that one QP may be asked for.
    pub(crate) dest_depth: u8,
}

// SAFETY: libibverbs contexts may be used from any thread, and from several at a time.
unsafe impl Send for Context {}
// SAFETY: as above.
unsafe impl Sync for Context {}

impl Context {
    pub(crate) fn open(name: &str) -> Result<Self, RailError> {
        let list = List::new()?;
        let known: Vec<_> = list.names().collect();
        let Some((_, device)) = known.iter().find(|(known, _)| known == name) else {
            if known.is_empty() {
                return Err(RailError::NoDevice);
            }
            let known: Vec<_> = known.into_iter().map(|(name, _)| name).collect();
            return Err(RailError::NoSuchDevice { name: name.into(), known: known.join(", ") });
        };
        // SAFETY: a device of the list, which lives until the end of this function.
        let transport = unsafe { (*device.as_ptr()).transport_type };
        if transport == sys::ibv_transport_type::IBV_TRANSPORT_IWARP {
            return Err(RailError::Iwarp(name.into()));
        }
        let driver = sysfs::driver(name);
        if lockless(driver, std::env::var_os(SINGLE_THREADED).as_deref()) {
            return Err(RailError::SingleThreaded { device: name.into(), variable: SINGLE_THREADED });
        }
        // SAFETY: as above; an opened device keeps what it needs of the list.
        let raw = unsafe { sys::ibv_open_device(device.as_ptr()) };
        let Some(raw) = NonNull::new(raw) else {
            return Err(RailError::Open { device: name.into(), errno: Errno::last() });
        };
        let mut this = Self {
            raw,
            name: name.into(),
            driver,
            caps: Caps { ports: 0, max_qp_wr: 0, max_cqe: 0, max_sge: 0, init_depth: 0, dest_depth: 0 },
        };
        this.caps = this.query()?;
        Ok(this)
    }

    fn query(&self) -> Result<Caps, RailError> {
        // SAFETY: integers and arrays of integers, for which zero is a value.
        let mut attr: sys::ibv_device_attr = unsafe { std::mem::zeroed() };
        // SAFETY: an open context, and a local to write to.
        let errno = unsafe { sys::ibv_query_device(self.as_ptr(), &raw mut attr) };
        self.check("ibv_query_device", errno)?;
        let positive = |n: i32| u32::try_from(n).unwrap_or(0);
        let depth = |n: i32| u8::try_from(n.clamp(0, 255)).unwrap_or(0);
        Ok(Caps {
            ports: attr.phys_port_cnt,
            max_qp_wr: positive(attr.max_qp_wr),
            max_cqe: positive(attr.max_cqe),
            max_sge: positive(attr.max_sge),
            init_depth: depth(attr.max_qp_init_rd_atom),
            dest_depth: depth(attr.max_qp_rd_atom),
        })
    }

    pub(crate) const fn raw(&self) -> NonNull<sys::ibv_context> {
        self.raw
    }

    pub(crate) const fn as_ptr(&self) -> *mut sys::ibv_context {
        self.raw.as_ptr()
    }

    /// The descriptor that async events are read from.
    pub(crate) fn async_fd(&self) -> i32 {
        // SAFETY: an open context.
        unsafe { (*self.as_ptr()).async_fd }
    }

    /// The function behind `ibv_post_send`.
    pub(crate) fn post_send(&self) -> Option<PostSend> {
        // SAFETY: an open context, whose table does not change after it has been opened.
        unsafe { (*self.as_ptr()).ops.post_send }
    }

    /// The function behind `ibv_poll_cq`.
    pub(crate) fn poll_cq(&self) -> Option<PollCq> {
        // SAFETY: as above.
        unsafe { (*self.as_ptr()).ops.poll_cq }
    }

    /// An error if a call that returns an errno did not return 0.
    pub(crate) fn check(&self, call: &'static str, errno: i32) -> Result<(), RailError> {
        if errno == 0 { Ok(()) } else { Err(self.error(call, Errno(errno.abs()))) }
    }

    /// The pointer, or the error of a call that returns one and sets errno.
    pub(crate) fn some<T>(&self, call: &'static str, pointer: *mut T) -> Result<NonNull<T>, RailError> {
        NonNull::new(pointer).ok_or_else(|| self.error(call, Errno::last()))
    }

    pub(crate) fn error(&self, call: &'static str, errno: Errno) -> RailError {
        RailError::Call { device: self.name.clone(), call, errno }
    }
}

/// `ibv_post_send`, as the context's table has it.
pub(crate) type PostSend =
    unsafe extern "C" fn(*mut sys::ibv_qp, *mut sys::ibv_send_wr, *mut *mut sys::ibv_send_wr) -> i32;
/// `ibv_poll_cq`, as the context's table has it.
pub(crate) type PollCq = unsafe extern "C" fn(*mut sys::ibv_cq, i32, *mut sys::ibv_wc) -> i32;

impl Drop for Context {
    fn drop(&mut self) {
        // SAFETY: opened once, closed once; what was made from it holds an Arc on its rail, and is gone.
        let errno = unsafe { sys::ibv_close_device(self.as_ptr()) };
        if errno != 0 {
            tracing::warn!(device = %self.name, errno, "a device did not close");
        }
    }
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, driver, caps, .. } = self;
        f.debug_struct("Context").field("name", name).field("driver", driver).field("caps", caps).finish()
    }
}

/// Whether a `fork` endangers registered memory, and what was done about it.
///
/// From Linux 5.12 on a child gets copies of pinned pages, and nothing needs to be done. Before, a page that is
/// registered and touched by the parent after a `fork` becomes another page, and the NIC writes into the old
/// one; `ibv_fork_init`, called before the first registration, prevents that at a price for huge pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ForkSafety {
    /// The kernel copies pinned pages.
    Unneeded,
    /// `ibv_fork_init` is in effect.
    Initialized,
    /// A process that forks must not have registered memory (or call `ibv_fork_init` first).
    Unsafe,
    /// This libibverbs cannot tell.
    Unknown,
}

/// Asks libibverbs.
#[must_use]
pub fn fork_safety() -> ForkSafety {
    // SAFETY: takes nothing, and reads a static of the library.
    let status = unsafe { sys::ibv_is_fork_initialized() };
    // An enum in the header; read as a number.
    match status as u32 {
        0 => ForkSafety::Unsafe,
        1 => ForkSafety::Initialized,
        2 => ForkSafety::Unneeded,
        _ => ForkSafety::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whatever this host has: libibverbs or not, devices or not. What comes out is typed.
    #[test]
    fn what_is_missing_is_told_by_type() {
        match devices() {
            Ok(names) => assert!(!names.is_empty()),
            Err(RailError::NoLibrary | RailError::NoKernelSupport | RailError::NoDevice) => {}
            Err(other) => panic!("{other}"),
        }
        match Context::open("no_such_device").map(|_| ()) {
            Err(
                RailError::NoLibrary
                | RailError::NoKernelSupport
                | RailError::NoDevice
                | RailError::NoSuchDevice { .. },
            ) => {}
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn errnos_of_the_list_are_told_apart() {
        assert!(matches!(list_error(Errno(95)), RailError::NoLibrary));
        assert!(matches!(list_error(Errno(38)), RailError::NoKernelSupport));
        assert!(matches!(list_error(Errno(1)), RailError::List(Errno(1))));
    }

    /// The control thread destroys QPs while the engine's thread polls their queue.
    #[test]
    fn a_device_whose_library_was_told_to_take_no_locks_is_refused() {
        let one = Some(OsStr::new("1"));
        assert!(lockless(Driver::Mlx5, one));
        assert!(!lockless(Driver::SoftRoce, one) && !lockless(Driver::Hardware, one));
        // As libmlx5 reads it: anything but "1" is no.
        for setting in [None, Some(OsStr::new("0")), Some(OsStr::new("")), Some(OsStr::new("yes"))] {
            assert!(!lockless(Driver::Mlx5, setting), "{setting:?}");
        }
        let error = RailError::SingleThreaded { device: "mlx5_0".into(), variable: SINGLE_THREADED };
        assert!(error.to_string().contains("unset MLX5_SINGLE_THREADED"), "{error}");
    }

    #[test]
    fn names_are_in_the_order_people_count() {
        let mut names = ["mlx5_10", "mlx5_9", "irdma0", "mlx5_bond_0"];
        names.sort_by_key(|n| natural(n));
        assert_eq!(names, ["irdma0", "mlx5_9", "mlx5_10", "mlx5_bond_0"]);
    }
}
