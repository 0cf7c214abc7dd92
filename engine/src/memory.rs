//! Destination memory that is fit for large transfers.
#![allow(unsafe_code, reason = "mmap")]

use std::ptr;

use rustix::io::Errno;
use rustix::mm::{self, Advice, MapFlags, ProtFlags};

/// What huge pages want to begin at.
const HUGE: usize = 2 << 20;

/// No memory of that size was to be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{bytes} bytes of memory were not to be had: {errno}; ask for less, or free memory")]
pub struct AllocateError {
    /// Bytes asked for.
    pub bytes: usize,
    /// The system's reason.
    pub errno: Errno,
}

/// `bytes` of zeroed memory in huge pages where the system gives some, never freed: what
/// [`Reader::register`](crate::Reader::register) takes.
///
/// It is for memory that serves a process as long as it lives. Who has a pool already registers that.
///
/// # Errors
///
/// `bytes` is 0, or more than the system gives.
pub fn leaked(bytes: usize) -> Result<&'static mut [u8], AllocateError> {
    let failed = |errno| AllocateError { bytes, errno };
    let room = bytes.checked_add(HUGE).filter(|_| bytes > 0).ok_or(failed(Errno::INVAL))?;
    // SAFETY: a new private mapping at an address of the kernel's choice touches nothing that exists.
    let start = unsafe {
        mm::mmap_anonymous(ptr::null_mut(), room, ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE)
    }
    .map_err(failed)?;
    // The mapping has HUGE bytes to spare, and what is not touched costs nothing.
    let at = start.wrapping_byte_add(start.addr().wrapping_neg() % HUGE);
    // Refused where the kernel has no huge pages; then they are small ones.
    // SAFETY: at .. at + bytes lies within the mapping made above; the advice changes no content.
    let _ = unsafe { mm::madvise(at, bytes, Advice::LinuxHugepage) };
    // SAFETY: `bytes` bytes, readable, writable, zero, mapped for ever, known to nobody else.
    Ok(unsafe { std::slice::from_raw_parts_mut(at.cast(), bytes) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_aligned_zero_and_writable() {
        let memory = leaked(3 << 20).unwrap();
        assert_eq!((memory.len(), memory.as_ptr().addr() % HUGE), (3 << 20, 0));
        assert!(memory.iter().all(|&b| b == 0));
        memory[(3 << 20) - 1] = 7;
        assert_eq!(leaked(0).unwrap_err().errno, Errno::INVAL);
        assert!(leaked(usize::MAX).is_err());
    }
}
