//! Memory of this process into which READs write: how it is allocated in huge pages, and how it is
//! checked before it is registered.
#![allow(unsafe_code, reason = "mmap and madvise")]

use std::ptr;

use kvrail_core::provider::MemoryRange;
use rustix::io::Errno;
use rustix::mm::{self, Advice, MapFlags, ProtFlags};

use crate::mapping::HUGE_PAGE;

/// Memory could not be allocated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{bytes} bytes of memory could not be allocated: {errno}; allocate less, or free memory")]
pub struct AllocateError {
    /// Requested bytes.
    pub bytes: usize,
    /// The error of mmap(2); `EINVAL` for a request of 0 bytes.
    pub errno: Errno,
}

impl AllocateError {
    /// A number that never changes its meaning (docs/errors.md).
    #[must_use]
    pub const fn code(&self) -> u32 {
        3020
    }
}

/// Allocates `bytes` of zeroed memory, in huge pages where the system has some, and never frees it.
///
/// It is for memory that a process uses as long as it runs, such as the slots that a reader
/// registers. An application that has a pool of its own registers that pool instead.
///
/// # Errors
///
/// `bytes` is 0, or the system has less memory.
pub fn leaked(bytes: usize) -> Result<&'static mut [u8], AllocateError> {
    let failed = |errno| AllocateError { bytes, errno };
    let room = bytes.checked_add(HUGE_PAGE).filter(|_| bytes > 0).ok_or(failed(Errno::INVAL))?;
    // SAFETY: a new private mapping at an address of the kernel's choice touches nothing that
    // exists.
    let start = unsafe {
        mm::mmap_anonymous(ptr::null_mut(), room, ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE)
    }
    .map_err(failed)?;
    // The mapping has HUGE_PAGE bytes to spare. Pages that are never accessed take no memory.
    let at = start.wrapping_byte_add(start.addr().wrapping_neg() % HUGE_PAGE);
    // Fails where the kernel has no huge pages; small pages do as well.
    // SAFETY: at .. at + bytes lies within the mapping made above; the advice changes no content.
    let _ = unsafe { mm::madvise(at, bytes, Advice::LinuxHugepage) };
    // SAFETY: `bytes` bytes, readable, writable, zero, mapped for ever, known to no other code.
    Ok(unsafe { std::slice::from_raw_parts_mut(at.cast(), bytes) })
}

/// Makes sure that every page of `range` is present and writable, as registering memory with
/// hardware does. The content stays as it is.
///
/// # Errors
///
/// `EFAULT`: the range is not mapped, or not all of it, or not writable.
pub fn populate_for_write(range: MemoryRange) -> Result<(), Errno> {
    let efault = Errno::FAULT;
    let page = rustix::param::page_size();
    let start = usize::try_from(range.addr).map_err(|_| efault)?;
    let len = usize::try_from(range.len).map_err(|_| efault)?;
    let end = start.checked_add(len).and_then(|end| end.checked_next_multiple_of(page)).ok_or(efault)?;
    let first = start - start % page;
    // The address comes from the caller, and the kernel alone follows the pointer.
    let at = ptr::with_exposed_provenance_mut(first);
    // SAFETY: populating changes neither content nor mappings. It does what writing each page's own
    // content back to it would do, and fails where no write is possible.
    match unsafe { mm::madvise(at, end - first, Advice::LinuxPopulateWrite) } {
        // The range, or part of it, is not mapped.
        Err(Errno::NOMEM | Errno::FAULT) => Err(efault),
        // EINVAL: a kernel before 5.14, or device memory, which needs no populating.
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leaked_memory_is_aligned_zero_and_writable() {
        let memory = leaked(3 << 20).unwrap();
        assert_eq!((memory.len(), memory.as_ptr().addr() % HUGE_PAGE), (3 << 20, 0));
        assert!(memory.iter().all(|&b| b == 0));
        memory[(3 << 20) - 1] = 7;
        assert_eq!(leaked(0).unwrap_err().errno, Errno::INVAL);
        assert!(leaked(usize::MAX).is_err());
    }

    #[test]
    fn a_range_that_is_not_mapped_cannot_be_populated() {
        let buffer = vec![1u8; 10_000];
        let range = |addr, len| MemoryRange { addr, len };
        assert_eq!(populate_for_write(range(buffer.as_ptr().addr() as u64, 10_000)), Ok(()));
        assert!(buffer.iter().all(|&b| b == 1), "the content is left alone");
        assert_eq!(populate_for_write(range(4096, 1)), Err(Errno::FAULT));
        assert_eq!(populate_for_write(range(u64::MAX, 2)), Err(Errno::FAULT));
    }
}
