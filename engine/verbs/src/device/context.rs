//! An opened device, and its limits.
#![allow(unsafe_code, reason = "libibverbs")]

use std::ffi::OsStr;
use std::fmt;
use std::ptr::NonNull;

use rdma_mummy_sys as sys;

use super::driver::Driver;
use super::list::DeviceList;
use super::sysfs;
use crate::error::{Errno, RailError};

/// The environment variable that makes libmlx5 take no locks, for programs with one thread.
const SINGLE_THREADED: &str = "MLX5_SINGLE_THREADED";

/// Whether the device's provider library takes no locks, `setting` being the value of
/// [`SINGLE_THREADED`].
fn lockless(driver: Driver, setting: Option<&OsStr>) -> bool {
    driver == Driver::Mlx5 && setting.is_some_and(|value| value == "1")
}

/// An opened device. Everything that is made from it holds an `Arc` of its rail, so it closes last.
pub(crate) struct Context {
    raw: NonNull<sys::ibv_context>,
    pub(crate) name: String,
    pub(crate) driver: Driver,
    pub(crate) caps: Caps,
}

/// The limits of a device that rails use.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Caps {
    pub(crate) ports: u8,
    pub(crate) max_qp_wr: u32,
    pub(crate) max_cqe: u32,
    /// Pieces of memory in one READ.
    pub(crate) max_sge: u32,
    /// Bytes of one memory region. 0: the device does not say.
    pub(crate) max_mr_size: u64,
    /// READs in flight that one QP may have as the reader.
    pub(crate) init_depth: u8,
    /// READs in flight that one QP may answer.
    pub(crate) dest_depth: u8,
}

// SAFETY: libibverbs contexts may be used from any thread, and from several at a time.
unsafe impl Send for Context {}
// SAFETY: as above.
unsafe impl Sync for Context {}

impl Context {
    /// Opens the device `name`, and asks for its limits.
    pub(crate) fn open(name: &str) -> Result<Self, RailError> {
        let list = DeviceList::new()?;
        let known: Vec<_> = list.devices().collect();
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
        // SAFETY: as above; an opened device does not need the list any more.
        let raw = unsafe { sys::ibv_open_device(device.as_ptr()) };
        let Some(raw) = NonNull::new(raw) else {
            return Err(RailError::Open { device: name.into(), errno: Errno::last() });
        };
        let mut this = Self {
            raw,
            name: name.into(),
            driver,
            caps: Caps {
                ports: 0,
                max_qp_wr: 0,
                max_cqe: 0,
                max_sge: 0,
                max_mr_size: 0,
                init_depth: 0,
                dest_depth: 0,
            },
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
            max_sge: sges_of_reads(attr.max_sge, attr.max_sge_rd),
            max_mr_size: attr.max_mr_size,
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

    /// The descriptor that asynchronous events are read from.
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

    /// The error of a call that returns an errno, unless it returned 0.
    pub(crate) fn check(&self, call: &'static str, errno: i32) -> Result<(), RailError> {
        if errno == 0 { Ok(()) } else { Err(self.error(call, Errno(errno.abs()))) }
    }

    /// The pointer, or the error of a call that returns null and sets errno.
    pub(crate) fn some<T>(&self, call: &'static str, pointer: *mut T) -> Result<NonNull<T>, RailError> {
        NonNull::new(pointer).ok_or_else(|| self.error(call, Errno::last()))
    }

    pub(crate) fn error(&self, call: &'static str, errno: Errno) -> RailError {
        RailError::Call { device: self.name.clone(), call, errno }
    }
}

/// The most pieces of memory in one READ of a device with these limits. Some devices (EFA, iWARP)
/// take fewer for a READ (`max_sge_rd`) than for other work requests (`max_sge`). A device
/// that does not say has 0 there.
fn sges_of_reads(max_sge: i32, max_sge_rd: i32) -> u32 {
    let most = if max_sge_rd > 0 { max_sge.min(max_sge_rd) } else { max_sge };
    u32::try_from(most).unwrap_or(0)
}

/// `ibv_post_send`, as the context's table has it.
pub(crate) type PostSend =
    unsafe extern "C" fn(*mut sys::ibv_qp, *mut sys::ibv_send_wr, *mut *mut sys::ibv_send_wr) -> i32;
/// `ibv_poll_cq`, as the context's table has it.
pub(crate) type PollCq = unsafe extern "C" fn(*mut sys::ibv_cq, i32, *mut sys::ibv_wc) -> i32;

impl Drop for Context {
    fn drop(&mut self) {
        // SAFETY: opened once, closed once. Objects made from it hold an Arc of the rail that owns
        // this context, so they have been destroyed.
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

#[cfg(test)]
mod tests {
    use super::super::list::devices;
    use super::*;

    /// Runs on any host, with libibverbs and devices or without them.
    #[test]
    fn a_missing_library_driver_or_device_has_an_error_of_its_own() {
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
    fn a_read_has_no_more_pieces_than_the_device_takes_for_reads() {
        for (limits, most) in [((30, 30), 30), ((32, 1), 1), ((13, 32), 13), ((16, 0), 16), ((-1, 0), 0)] {
            assert_eq!(sges_of_reads(limits.0, limits.1), most, "{limits:?}");
        }
    }

    /// The control thread destroys QPs while the engine's thread polls their queue.
    #[test]
    fn a_device_whose_library_takes_no_locks_is_refused() {
        let one = Some(OsStr::new("1"));
        assert!(lockless(Driver::Mlx5, one));
        assert!(!lockless(Driver::SoftRoce, one) && !lockless(Driver::Hardware, one));
        // libmlx5 takes its locks for any value but "1".
        for setting in [None, Some(OsStr::new("0")), Some(OsStr::new("")), Some(OsStr::new("yes"))] {
            assert!(!lockless(Driver::Mlx5, setting), "{setting:?}");
        }
        let error = RailError::SingleThreaded { device: "mlx5_0".into(), variable: SINGLE_THREADED };
        assert!(error.to_string().contains("unset MLX5_SINGLE_THREADED"), "{error}");
    }
}
