//! Pages of memory: mapping them, and making sure that they are there.
#![allow(unsafe_code, reason = "mmap and madvise")]

use std::os::fd::BorrowedFd;
use std::ptr::{self, NonNull};

use kvrail_core::provider::MemoryRange;
use rustix::io::Errno;
use rustix::mm::{self, Advice, MapFlags, ProtFlags};

/// What huge pages want to begin at.
pub(crate) const HUGE_PAGE: usize = 2 << 20;

/// A shared mapping of a file, from its start. Unmapped when dropped.
#[derive(Debug)]
pub(crate) struct Mapping {
    start: NonNull<u8>,
    len: usize,
}

// SAFETY: a mapping is an address range that this value alone unmaps; access goes through raw
// pointers under rules of their users.
unsafe impl Send for Mapping {}
// SAFETY: as above; `&Mapping` only tells where it is.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps `len` bytes of `fd`, at a multiple of [`HUGE_PAGE`] if they are as long as one.
    ///
    /// Touching pages beyond the end of the file raises SIGBUS: the caller has made sure that the
    /// file is as long and stays so.
    pub(crate) fn new(fd: BorrowedFd<'_>, len: usize, writable: bool) -> Result<Self, Errno> {
        let mut protection = ProtFlags::READ;
        protection.set(ProtFlags::WRITE, writable);
        let spare = if len >= HUGE_PAGE { HUGE_PAGE } else { 0 };
        let room = len.checked_add(spare).ok_or(Errno::NOMEM)?;
        // SAFETY: a new mapping at an address of the kernel's choice touches nothing that exists.
        let reserved = unsafe {
            mm::mmap_anonymous(
                ptr::null_mut(),
                room,
                ProtFlags::empty(),
                MapFlags::PRIVATE | MapFlags::NORESERVE,
            )
        }?;
        let skip = if spare == 0 { 0 } else { reserved.addr().wrapping_neg() % HUGE_PAGE };
        let at = reserved.wrapping_byte_add(skip);
        // SAFETY: at .. at + len lies within the range reserved just now, which nobody else knows:
        // skip < spare, and room = len + spare.
        let mapped = unsafe { mm::mmap(at, len, protection, MapFlags::SHARED | MapFlags::FIXED, fd, 0) };
        let mapped = match mapped {
            Ok(mapped) => mapped,
            Err(errno) => {
                unmap(reserved, room);
                return Err(errno);
            }
        };
        unmap(reserved, skip);
        // The kernel maps whole pages, so the tail begins at the next one.
        let end = len.next_multiple_of(rustix::param::page_size());
        unmap(mapped.wrapping_byte_add(end), (room - skip).saturating_sub(end));
        let start = NonNull::new(mapped.cast()).ok_or(Errno::NOMEM)?;
        // Ignored where the kernel has no huge pages for shared memory.
        // SAFETY: the range is the mapping made above; the advice changes no content.
        let _ = unsafe { mm::madvise(mapped, len, Advice::LinuxHugepage) };
        Ok(Self { start, len })
    }

    /// Enters every page into the page table, so that no READ has to stop for it. Best effort: what
    /// is not entered now is when it is touched. Whether all were.
    pub(crate) fn populate(&self, writable: bool) -> bool {
        let advice = if writable { Advice::LinuxPopulateWrite } else { Advice::LinuxPopulateRead };
        // SAFETY: the range is this mapping; populating changes no content.
        unsafe { mm::madvise(self.start.as_ptr().cast(), self.len, advice) }.is_ok()
    }

    /// Writes a zero into every page of a writable mapping that is new, and so holds nothing else.
    pub(crate) fn touch(&mut self) {
        for at in (0..self.len).step_by(rustix::param::page_size()) {
            let byte = self.start.as_ptr().wrapping_add(at);
            // SAFETY: within the mapping, which the caller can write to and nobody else knows yet. Volatile,
            // for what counts is that the page is written to.
            unsafe { byte.write_volatile(0) };
        }
    }

    pub(crate) fn as_ptr(&self) -> *mut u8 {
        self.start.as_ptr()
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        unmap(self.start.as_ptr().cast(), self.len);
    }
}

/// Unmaps a range that belongs to the caller; nothing for an empty one.
fn unmap(at: *mut core::ffi::c_void, len: usize) {
    if len > 0 {
        // SAFETY: private to this module, and called for ranges that `Mapping` owns and nobody uses
        // any more. A failure leaves the range mapped, which harms nobody.
        let _ = unsafe { mm::munmap(at, len) };
    }
}

/// Makes sure that every page of `range` exists, as registering with hardware does. The errno when
/// it is not mapped.
pub(crate) fn populate_for_write(range: MemoryRange) -> Result<(), i32> {
    let efault = Errno::FAULT.raw_os_error();
    let page = rustix::param::page_size();
    let start = usize::try_from(range.addr).map_err(|_| efault)?;
    let len = usize::try_from(range.len).map_err(|_| efault)?;
    let end = start.checked_add(len).and_then(|end| end.checked_next_multiple_of(page)).ok_or(efault)?;
    let first = start - start % page;
    // Exposed or not, the address comes from the caller; only the kernel follows the pointer.
    let at = ptr::with_exposed_provenance_mut(first);
    // SAFETY: populating changes neither content nor what is mapped: it does what a write to each
    // page that writes what was there would do, and fails where none is possible.
    match unsafe { mm::madvise(at, end - first, Advice::LinuxPopulateWrite) } {
        // Nothing mapped there, or not all of it.
        Err(Errno::NOMEM | Errno::FAULT) => Err(efault),
        // EINVAL: a kernel before 5.14, or device memory, which needs no populating.
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_mappings_begin_where_huge_pages_do() {
        let fd = rustix::fs::memfd_create("test", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
        rustix::fs::ftruncate(&fd, 5 << 20).unwrap();
        use std::os::fd::AsFd as _;
        for len in [4096, HUGE_PAGE, HUGE_PAGE + 5, 5 << 20] {
            let mut mapping = Mapping::new(fd.as_fd(), len, true).unwrap();
            mapping.touch();
            assert!(rustix::fs::seek(&fd, rustix::fs::SeekFrom::Hole(0)).unwrap() >= len as u64);
            mapping.populate(true);
            assert!(len < HUGE_PAGE || mapping.as_ptr().addr().is_multiple_of(HUGE_PAGE));
            // SAFETY: the last byte of a live, writable mapping.
            let last = unsafe { mapping.as_ptr().add(len - 1) };
            // SAFETY: as above; nobody else uses it.
            unsafe { last.write(7) };
        }
    }

    #[test]
    fn what_is_not_mapped_cannot_be_populated() {
        let buffer = vec![1u8; 10_000];
        let range = |addr, len| MemoryRange { addr, len };
        assert_eq!(populate_for_write(range(buffer.as_ptr().addr() as u64, 10_000)), Ok(()));
        assert!(buffer.iter().all(|&b| b == 1), "the content is left alone");
        assert_eq!(populate_for_write(range(4096, 1)), Err(14));
        assert_eq!(populate_for_write(range(u64::MAX, 2)), Err(14));
    }
}
