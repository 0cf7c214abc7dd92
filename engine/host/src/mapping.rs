//! A mapping of a file, aligned for huge pages.
#![allow(unsafe_code, reason = "mmap and madvise")]

use std::os::fd::BorrowedFd;
use std::ptr::{self, NonNull};

use rustix::io::Errno;
use rustix::mm::{self, Advice, MapFlags, ProtFlags};

/// The size and the alignment of a huge page, in bytes.
pub(crate) const HUGE_PAGE: usize = 2 << 20;

/// A shared mapping of a part of a file. Unmapped when dropped.
#[derive(Debug)]
pub(crate) struct Mapping {
    start: NonNull<u8>,
    len: usize,
}

// SAFETY: a mapping is an address range that this value alone unmaps. Its bytes are accessed
// through raw pointers, and each access has a proof of its own.
unsafe impl Send for Mapping {}
// SAFETY: as above; a `&Mapping` gives its address and length and nothing else.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps the first `len` bytes of `fd`, at a multiple of [`HUGE_PAGE`] if `len` is at least
    /// that.
    ///
    /// Access beyond the end of the file raises SIGBUS: the caller has made sure that the file has
    /// `len` bytes and cannot shrink.
    pub(crate) fn new(fd: BorrowedFd<'_>, len: usize, writable: bool) -> Result<Self, Errno> {
        Self::new_at(fd, 0, len, writable)
    }

    /// Maps `len` bytes of `fd` from `offset` on, a multiple of the page size; else as
    /// [`new`](Self::new).
    pub(crate) fn new_at(fd: BorrowedFd<'_>, offset: u64, len: usize, writable: bool) -> Result<Self, Errno> {
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
        // SAFETY: at .. at + len lies within the range reserved just now, which no other code
        // knows: skip < spare, and room = len + spare.
        let mapped = unsafe { mm::mmap(at, len, protection, MapFlags::SHARED | MapFlags::FIXED, fd, offset) };
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
        // Fails where the kernel has no huge pages for shared memory; small pages do as well.
        // SAFETY: the range is the mapping made above; the advice changes no content.
        let _ = unsafe { mm::madvise(mapped, len, Advice::LinuxHugepage) };
        Ok(Self { start, len })
    }

    /// Enters every page into the page table, so that no READ takes a page fault, and says whether
    /// that worked. A page that is not entered now is entered when it is first accessed.
    pub(crate) fn populate(&self, writable: bool) -> bool {
        let advice = if writable { Advice::LinuxPopulateWrite } else { Advice::LinuxPopulateRead };
        // SAFETY: the range is this mapping; populating changes no content.
        unsafe { mm::madvise(self.start.as_ptr().cast(), self.len, advice) }.is_ok()
    }

    /// Writes a zero into every page of a writable mapping that is new, and so holds zeros already.
    pub(crate) fn touch(&mut self) {
        for at in (0..self.len).step_by(rustix::param::page_size()) {
            let byte = self.start.as_ptr().wrapping_add(at);
            // SAFETY: within the mapping, which is writable and known to its creator alone yet. The
            // write is volatile so that it is not left out: its effect is that the kernel allocates
            // the page.
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

/// Unmaps a range that belongs to the caller. An empty range is left alone.
fn unmap(at: *mut core::ffi::c_void, len: usize) {
    if len > 0 {
        // SAFETY: private to this module, and called for ranges that a `Mapping` owns and that are
        // in use no more. A failure leaves the range mapped, which is a leak and nothing worse.
        let _ = unsafe { mm::munmap(at, len) };
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
            // SAFETY: as above; no other code uses it.
            unsafe { last.write(7) };
        }
    }
}
