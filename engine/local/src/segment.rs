//! Memory that other processes may map for reading, and can rely on.
#![allow(unsafe_code, reason = "bytes that other processes read are accessed through raw pointers")]

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use kvrail_core::provider::MemoryRange;
use rustix::fs::{self, FallocateFlags, MemfdFlags, SealFlags};
use rustix::io::Errno;

use crate::mapping::{HUGE_PAGE, Mapping};

/// What a reader insists on, and what each seal is against. The file stays as long as it is (reading
/// beyond its end would kill the reader with SIGBUS), and nobody makes holes in it, which the kernel
/// refuses under a write seal (a hole would be filled from the reader's memory, or kill it).
pub(crate) const READER_SEALS: [(SealFlags, &str); 3] =
    [(SealFlags::SHRINK, "shrinking"), (SealFlags::GROW, "growing"), (SealFlags::FUTURE_WRITE, "writing")];

/// A piece of memory in a sealed memfd: mapped for writing by its owner, readable by peers.
///
/// Its size can never change and nobody but this mapping can ever write to it, whatever a peer does
/// with the file descriptor. Every page is allocated at once.
///
/// What is in it changes by the owner's word alone: through [`write`](Self::write), or through
/// [`as_ptr`](Self::as_ptr) and the owner's own rules. Readers may read at any time; whether what they
/// got was valid is the publication table's affair ([`kvrail_core::table`]).
#[derive(Debug)]
pub struct Segment {
    mapping: Mapping,
    fd: OwnedFd,
}

/// Why a segment could not be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a shared memory segment of {len} bytes could not be made: {step} failed: {errno}{}", hint(*.errno))]
pub struct SegmentError {
    /// Bytes asked for.
    pub len: usize,
    /// The system call.
    pub step: &'static str,
    /// Its error.
    pub errno: Errno,
}

fn hint(errno: Errno) -> &'static str {
    match errno {
        Errno::NOMEM | Errno::NOSPC => "; ask for less, or free memory",
        Errno::INVAL => "; it takes 1 byte or more, and Linux 5.1 or later",
        Errno::MFILE | Errno::NFILE => "; raise the limit on open files (ulimit -n)",
        _ => "",
    }
}

/// A range that does not lie within a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("bytes {offset} to {offset} + {len} are not within a segment of {segment} bytes")]
pub struct OutOfSegment {
    /// Where the range starts.
    pub offset: usize,
    /// Its length in bytes.
    pub len: usize,
    /// The segment's length in bytes.
    pub segment: usize,
}

impl Segment {
    /// Makes a segment of `len` bytes, all zero, rounded up to whole pages (of 2 MiB from that size on).
    ///
    /// # Errors
    ///
    /// `len` is 0, or the system has no memory or file descriptor to give.
    pub fn new(len: usize) -> Result<Self, SegmentError> {
        let failed = |step| move |errno| SegmentError { len, step, errno };
        let page = if len >= HUGE_PAGE { HUGE_PAGE } else { rustix::param::page_size() };
        let size = len.checked_next_multiple_of(page).filter(|&size| size > 0);
        let size = size.ok_or(failed("rounding up to pages")(Errno::INVAL))?;
        let fd = fs::memfd_create("kvrail", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)
            .map_err(failed("memfd_create"))?;
        fs::ftruncate(&fd, size as u64).map_err(failed("ftruncate"))?;
        // Mapped before it is sealed: FUTURE_WRITE spares the mappings that exist.
        let mut mapping = Mapping::new(fd.as_fd(), size, true).map_err(failed("mmap"))?;
        // After the mapping's advice, so that the pages may be huge ones.
        fs::fallocate(&fd, FallocateFlags::empty(), 0, size as u64).map_err(failed("fallocate"))?;
        let seals = READER_SEALS.iter().fold(SealFlags::SEAL, |seals, &(seal, _)| seals | seal);
        fs::fcntl_add_seals(&fd, seals).map_err(failed("sealing"))?;
        // A page that was allocated and never written to is a hole in the eyes of readers, which insist on
        // none. A kernel before 5.14 leaves the writing to us.
        if !mapping.populate(true) {
            mapping.touch();
        }
        Ok(Self { mapping, fd })
    }

    /// Length in bytes, of whole pages.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "a segment is never empty")]
    pub fn len(&self) -> usize {
        self.mapping.len()
    }

    /// Where it is in the owner's memory: what a READ's remote address counts from.
    #[must_use]
    pub fn addr(&self) -> u64 {
        self.as_ptr().addr() as u64
    }

    /// All of it.
    #[must_use]
    pub fn range(&self) -> MemoryRange {
        MemoryRange { addr: self.addr(), len: self.len() as u64 }
    }

    /// Its first byte. Valid for reads and writes of [`len`](Self::len) bytes as long as the segment lives.
    #[must_use]
    pub fn as_ptr(&self) -> *mut u8 {
        self.mapping.as_ptr()
    }

    /// The memfd. Whoever has it can map the segment for reading.
    #[must_use]
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Copies `bytes` to `offset`. Every byte is stored atomically, words where they are aligned, so
    /// threads that write the same bytes at the same time do no worse than mix them.
    ///
    /// # Errors
    ///
    /// The range is not within the segment; nothing has been written.
    pub fn write(&self, offset: usize, bytes: &[u8]) -> Result<(), OutOfSegment> {
        self.check(offset, bytes.len())?;
        let mut at = self.as_ptr().wrapping_add(offset);
        let head = at.align_offset(8).min(bytes.len());
        let (head, rest) = bytes.split_at(head);
        let (words, tail) = rest.as_chunks::<8>();
        let store = |at: *mut u8, byte: u8| {
            // SAFETY: `check` found the range within the mapping, which outlives `self`; an AtomicU8 has
            // no alignment or validity to violate, and all safe access to the mapping is atomic.
            let cell = unsafe { AtomicU8::from_ptr(at) };
            cell.store(byte, Ordering::Relaxed);
        };
        for &byte in head {
            store(at, byte);
            at = at.wrapping_add(1);
        }
        for &word in words {
            // SAFETY: as for the bytes; `at` is aligned to 8, for the head ended at such an address.
            let cell = unsafe { AtomicU64::from_ptr(at.cast()) };
            cell.store(u64::from_ne_bytes(word), Ordering::Relaxed);
            at = at.wrapping_add(8);
        }
        for &byte in tail {
            store(at, byte);
            at = at.wrapping_add(1);
        }
        Ok(())
    }

    fn check(&self, offset: usize, len: usize) -> Result<(), OutOfSegment> {
        match offset.checked_add(len) {
            Some(end) if end <= self.len() => Ok(()),
            _ => Err(OutOfSegment { offset, len, segment: self.len() }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_can_resize_it_or_write_to_it_or_unseal_it() {
        let segment = Segment::new(5000).unwrap();
        assert_eq!(segment.len() % rustix::param::page_size(), 0);
        assert!(fs::ftruncate(segment.fd(), 0).is_err());
        assert!(fs::ftruncate(segment.fd(), 1 << 20).is_err());
        assert_eq!(rustix::io::write(segment.fd(), b"x"), Err(Errno::PERM));
        assert_eq!(Mapping::new(segment.fd(), segment.len(), true).unwrap_err(), Errno::PERM);
        assert!(fs::fcntl_add_seals(segment.fd(), SealFlags::WRITE).is_err());
        let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        assert!(fs::fallocate(segment.fd(), hole, 0, segment.len() as u64).is_err());
        assert!(Mapping::new(segment.fd(), segment.len(), false).is_ok());
    }

    #[test]
    fn what_is_written_is_there_at_any_alignment() {
        let segment = Segment::new(4096).unwrap();
        let reader = Mapping::new(segment.fd(), segment.len(), false).unwrap();
        for (offset, len) in [(0, 0), (0, 1), (3, 2), (1, 30), (8, 16), (4090, 6), (0, 4096)] {
            let bytes: Vec<u8> = (0..len).map(|i| (i * 7 + offset) as u8).collect();
            segment.write(offset, &bytes).unwrap();
            let at = reader.as_ptr().wrapping_add(offset);
            // SAFETY: within the mapping, and nobody writes while this thread reads.
            let seen = unsafe { std::slice::from_raw_parts(at, len) };
            assert_eq!(seen, bytes, "{offset} {len}");
        }
        assert!(segment.write(4096, &[0]).is_err());
        assert!(segment.write(usize::MAX, &[0]).is_err());
    }

    #[test]
    fn no_bytes_and_too_many_are_refused_with_a_reason() {
        for len in [0, usize::MAX, usize::MAX / 2] {
            let error = Segment::new(len).unwrap_err();
            assert!(error.to_string().contains(&len.to_string()), "{error}");
        }
    }
}
