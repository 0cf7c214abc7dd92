//! The devices of this host.
#![allow(unsafe_code, reason = "libibverbs")]

use std::ffi::CStr;
use std::ptr::NonNull;

use rdma_mummy_sys as sys;

use crate::error::{Errno, RailError};

/// The names of this host's RDMA devices, sorted.
///
/// # Errors
///
/// libibverbs or the kernel's RDMA support is missing, or there is no device.
pub fn devices() -> Result<Vec<String>, RailError> {
    let list = DeviceList::new()?;
    let mut names: Vec<String> = list.devices().map(|(name, _)| name).collect();
    if names.is_empty() {
        return Err(RailError::NoDevice);
    }
    names.sort_by_key(|name| natural(name));
    Ok(names)
}

/// A sort key by which `mlx5_10` comes after `mlx5_9`.
fn natural(name: &str) -> (String, u64) {
    let stem = name.trim_end_matches(|c: char| c.is_ascii_digit());
    (stem.into(), name[stem.len()..].parse().unwrap_or(0))
}

/// The array that `ibv_get_device_list` returned.
pub(super) struct DeviceList {
    list: NonNull<*mut sys::ibv_device>,
    count: usize,
}

impl DeviceList {
    pub(super) fn new() -> Result<Self, RailError> {
        let mut count = 0;
        // SAFETY: a local to write the count to. Without the library the stub fails and touches
        // nothing.
        let list = unsafe { sys::ibv_get_device_list(&raw mut count) };
        let Some(list) = NonNull::new(list) else { return Err(list_error(Errno::last())) };
        Ok(Self { list, count: usize::try_from(count).unwrap_or(0) })
    }

    /// Each device with its name. The pointers are valid while the list is.
    pub(super) fn devices(&self) -> impl Iterator<Item = (String, NonNull<sys::ibv_device>)> {
        // SAFETY: libibverbs returned an array of `count` pointers, which lives until `self` is
        // dropped.
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

impl Drop for DeviceList {
    fn drop(&mut self) {
        // SAFETY: from ibv_get_device_list, freed once. Devices that were opened stay.
        unsafe { sys::ibv_free_device_list(self.list.as_ptr()) };
    }
}

fn list_error(errno: Errno) -> RailError {
    match errno.0 {
        libc::EOPNOTSUPP => RailError::NoLibrary,
        libc::ENOSYS => RailError::NoKernelSupport,
        _ => RailError::List(errno),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_library_and_missing_kernel_support_are_told_apart() {
        assert!(matches!(list_error(Errno(95)), RailError::NoLibrary));
        assert!(matches!(list_error(Errno(38)), RailError::NoKernelSupport));
        assert!(matches!(list_error(Errno(1)), RailError::List(Errno(1))));
    }

    #[test]
    fn device_names_are_sorted_by_their_numbers() {
        let mut names = ["mlx5_10", "mlx5_9", "irdma0", "mlx5_bond_0"];
        names.sort_by_key(|n| natural(n));
        assert_eq!(names, ["irdma0", "mlx5_9", "mlx5_10", "mlx5_bond_0"]);
    }
}
