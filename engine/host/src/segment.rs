//! Memory that its owner shares with other processes: they can read it, and never write it.
//!
//! The owner makes a [`Segment`] and sends its file descriptor to readers. A reader makes a
//! [`SegmentView`] of the descriptor, which checks that the owner cannot take the memory away
//! again.
#![allow(unsafe_code, reason = "bytes that other processes read are accessed through raw pointers")]

use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use kvrail_core::provider::MemoryRange;
use rustix::fs::{self, FallocateFlags, MemfdFlags, Mode, OFlags, SealFlags, SeekFrom};
use rustix::io::Errno;
use static_assertions::{assert_impl_all, assert_not_impl_any};

use crate::mapping::{HUGE_PAGE, Mapping};

/// The seals that a [`SegmentView`] requires, and what each protects from.
///
/// The file cannot change its size: an access beyond its end would kill the reader with SIGBUS. It
/// cannot get holes, which the kernel refuses under a write seal: a hole would be filled from the
/// reader's memory, or kill it.
const SEALS: [(SealFlags, &str); 3] =
    [(SealFlags::SHRINK, "shrinking"), (SealFlags::GROW, "growing"), (SealFlags::FUTURE_WRITE, "writing")];

/// A piece of memory in a sealed memfd: mapped for writing by its owner, readable by other
/// processes.
///
/// Its size can never change, and only this mapping can ever write to it, whatever another process
/// does with the file descriptor. Every page is allocated at once.
///
/// Its content changes through [`write`](Self::write), or through [`as_ptr`](Self::as_ptr) and the
/// owner's own rules. Readers may read at any time; the publication table ([`kvrail_core::table`])
/// tells them whether the bytes were valid.
#[derive(Debug)]
pub struct Segment {
    mapping: Mapping,
    fd: OwnedFd,
}

// Threads share a segment; its memory has one owner.
assert_impl_all!(Segment: Send, Sync);
assert_not_impl_any!(Segment: Clone);
assert_impl_all!(SegmentView: Send, Sync);

/// Why a segment could not be made. Its [`code`](Self::code) is the same for every step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a shared memory segment of {len} bytes could not be made: {step} failed: {errno}{}", hint(*.errno))]
pub struct SegmentError {
    /// Requested bytes.
    pub len: usize,
    /// The system call that failed.
    pub step: &'static str,
    /// Its error.
    pub errno: Errno,
}

impl SegmentError {
    /// A number that never changes its meaning (docs/errors.md).
    #[must_use]
    pub const fn code(&self) -> u32 {
        3000
    }
}

fn hint(errno: Errno) -> &'static str {
    match errno {
        Errno::NOMEM | Errno::NOSPC => "; allocate less, or free memory",
        Errno::INVAL => "; a segment takes 1 byte or more, and Linux 5.1 or later",
        Errno::MFILE | Errno::NFILE => "; raise the limit on open files (ulimit -n)",
        _ => "",
    }
}

/// A range that does not lie within a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{len} bytes at offset {offset} do not lie within the segment of {segment} bytes")]
pub struct OutOfSegment {
    /// Where the range starts.
    pub offset: usize,
    /// Its length in bytes.
    pub len: usize,
    /// The segment's length in bytes.
    pub segment: usize,
}

impl OutOfSegment {
    /// A number that never changes its meaning (docs/errors.md).
    #[must_use]
    pub const fn code(&self) -> u32 {
        3001
    }
}

impl Segment {
    /// Makes a segment of `len` bytes, all zero. `len` is rounded up to whole pages, of 2 MiB if it
    /// is that large.
    ///
    /// # Errors
    ///
    /// `len` is 0, or the system has no memory or file descriptor left.
    pub fn new(len: usize) -> Result<Self, SegmentError> {
        let failed = |step| move |errno| SegmentError { len, step, errno };
        let page = if len >= HUGE_PAGE { HUGE_PAGE } else { rustix::param::page_size() };
        let size = len.checked_next_multiple_of(page).filter(|&size| size > 0);
        let size = size.ok_or(failed("rounding up to pages")(Errno::INVAL))?;
        let fd = fs::memfd_create("kvrail", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)
            .map_err(failed("memfd_create"))?;
        fs::ftruncate(&fd, size as u64).map_err(failed("ftruncate"))?;
        // The file is mapped before it is sealed: FUTURE_WRITE leaves existing mappings writable.
        let mut mapping = Mapping::new(fd.as_fd(), size, true).map_err(failed("mmap"))?;
        // Pages are allocated after the mapping's advice, so that they can be huge pages.
        fs::fallocate(&fd, FallocateFlags::empty(), 0, size as u64).map_err(failed("fallocate"))?;
        let seals = SEALS.iter().fold(SealFlags::SEAL, |seals, &(seal, _)| seals | seal);
        fs::fcntl_add_seals(&fd, seals).map_err(failed("sealing"))?;
        // A page that is allocated but not written yet counts as a hole, which `SegmentView::map`
        // refuses. A kernel before 5.14 cannot populate pages, so `touch` writes them.
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

    /// Its address in the owner's memory: the base of a READ's remote address.
    #[must_use]
    pub fn addr(&self) -> u64 {
        self.as_ptr().addr() as u64
    }

    /// Its address and length.
    #[must_use]
    pub fn range(&self) -> MemoryRange {
        MemoryRange { addr: self.addr(), len: self.len() as u64 }
    }

    /// Its first byte. Valid for reads and writes of [`len`](Self::len) bytes as long as the
    /// segment lives.
    #[must_use]
    pub fn as_ptr(&self) -> *mut u8 {
        self.mapping.as_ptr()
    }

    /// The memfd. A process that has it can map the segment for reading.
    #[must_use]
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Copies `bytes` to `offset`. Each aligned word, and each byte at the two ends, is one atomic
    /// store: if several threads write the same range at the same time, their bytes are mixed.
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
            // SAFETY: `check` found the range within the mapping, which outlives `self`; an
            // AtomicU8 has no alignment or validity to violate, and all safe access to the mapping
            // is atomic.
            let cell = unsafe { AtomicU8::from_ptr(at) };
            cell.store(byte, Ordering::Relaxed);
        };
        for &byte in head {
            store(at, byte);
            at = at.wrapping_add(1);
        }
        for &word in words {
            // SAFETY: as for the bytes; `at` is aligned to 8, for the head ended at such an
            // address.
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

/// A segment of another process, mapped for reading.
///
/// Reading it raises no signal, whatever its owner does: its file cannot shrink and has no holes.
/// The owner may write to it at any time, so its bytes are read through raw pointers only, and
/// never through a reference.
#[derive(Debug)]
pub struct SegmentView {
    mapping: Mapping,
    /// Where the view begins in the mapping, which begins at a page.
    skip: usize,
}

/// Why a file descriptor gives no [`SegmentView`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SegmentViewError {
    /// The file's owner could still change its size or get another writable mapping.
    #[error(
        "the file is not sealed against {missing}, so its owner could kill a reader: share memory by a Segment"
    )]
    Unsealed {
        /// The operation that a missing seal would forbid.
        missing: &'static str,
    },
    /// The file is smaller than its owner says, or has holes.
    #[error("the file has {found} bytes before its end or its first hole, but its owner announced {told}")]
    Size {
        /// Bytes before the file's end or its first hole.
        found: u64,
        /// Bytes that the owner announced.
        told: u64,
    },
    /// fstat(2) or lseek(2) failed.
    #[error("the size of the file could not be found out: {0}")]
    Stat(Errno),
    /// mmap(2) failed.
    #[error("{len} bytes of the file could not be mapped: {errno}")]
    Map {
        /// Bytes to be mapped.
        len: u64,
        /// The error of mmap(2).
        errno: Errno,
    },
}

impl SegmentViewError {
    /// A number that never changes its meaning (docs/errors.md).
    #[must_use]
    pub const fn code(&self) -> u32 {
        match self {
            Self::Unsealed { .. } => 3010,
            Self::Size { .. } => 3011,
            Self::Stat(_) => 3012,
            Self::Map { .. } => 3013,
        }
    }
}

impl SegmentView {
    /// Maps the segment of `len` bytes behind `fd`, which can be closed afterwards. The check for
    /// holes moves the file's position.
    ///
    /// # Errors
    ///
    /// `fd` is no sealed memfd, or holds less than `len` bytes in one piece, or cannot be mapped.
    pub fn map(fd: BorrowedFd<'_>, len: u64) -> Result<Self, SegmentViewError> {
        check_seals(fd)?;
        Self::map_sealed(fd, 0, len)
    }

    /// Maps `len` bytes from `offset` on of a memfd that other code uses as well: its position
    /// stays where it is, for which `/proc` must be mounted. `fd` can be closed afterwards.
    ///
    /// # Errors
    ///
    /// As for [`map`](Self::map).
    pub fn map_at(fd: BorrowedFd<'_>, offset: u64, len: u64) -> Result<Self, SegmentViewError> {
        check_seals(fd)?;
        // Another open file of the same bytes, with a position of its own.
        let path = format!("/proc/thread-self/fd/{}", fd.as_raw_fd());
        let again = fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
        Self::map_sealed(again.map_err(SegmentViewError::Stat)?.as_fd(), offset, len)
    }

    fn map_sealed(fd: BorrowedFd<'_>, offset: u64, len: u64) -> Result<Self, SegmentViewError> {
        let stat = fs::fstat(fd).map_err(SegmentViewError::Stat)?;
        let size = u64::try_from(stat.st_size).unwrap_or(0);
        let too_small = |end: u64| SegmentViewError::Size { found: end.saturating_sub(offset), told: len };
        let end = offset.checked_add(len).ok_or(too_small(size))?;
        if size < end {
            return Err(too_small(size));
        }
        // A first access to a hole takes memory of this process, or raises SIGBUS if no memory is
        // left.
        // The place of the first hole is compared, not the number of blocks: blocks may lie beyond
        // the end.
        let hole = fs::seek(fd, SeekFrom::Hole(offset)).map_err(SegmentViewError::Stat)?;
        if hole < end {
            return Err(too_small(hole));
        }
        let failed = |errno| SegmentViewError::Map { len, errno };
        let skip = offset % rustix::param::page_size() as u64;
        // The remainder of a division by the page size fits a usize.
        let (begin, skip) = (offset - skip, skip as usize);
        let room = usize::try_from(end - begin).map_err(|_| failed(Errno::NOMEM))?;
        let mapping = Mapping::new_at(fd, begin, room, false).map_err(failed)?;
        Ok(Self { mapping, skip })
    }

    /// Enters every page into the page table, so that no access takes a page fault. It takes some
    /// milliseconds for each GiB.
    pub fn populate(&self) {
        // A page that is not entered now is entered when it is first accessed.
        self.mapping.populate(false);
    }

    /// Length in bytes.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "a view is never empty")]
    pub fn len(&self) -> usize {
        self.mapping.len() - self.skip
    }

    /// Its first byte. Valid for reads of [`len`](Self::len) bytes as long as the view lives; the
    /// owner may write to them meanwhile.
    #[must_use]
    pub fn as_ptr(&self) -> *const u8 {
        self.mapping.as_ptr().wrapping_add(self.skip)
    }
}

fn check_seals(fd: BorrowedFd<'_>) -> Result<(), SegmentViewError> {
    // Fails for everything but memory files.
    let seals = fs::fcntl_get_seals(fd).unwrap_or(SealFlags::empty());
    for (seal, missing) in SEALS {
        if !seals.contains(seal) {
            return Err(SegmentViewError::Unsealed { missing });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_process_can_resize_it_or_write_to_it_or_unseal_it() {
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
    fn written_bytes_are_readable_at_any_alignment() {
        let segment = Segment::new(4096).unwrap();
        let reader = Mapping::new(segment.fd(), segment.len(), false).unwrap();
        for (offset, len) in [(0, 0), (0, 1), (3, 2), (1, 30), (8, 16), (4090, 6), (0, 4096)] {
            let bytes: Vec<u8> = (0..len).map(|i| (i * 7 + offset) as u8).collect();
            segment.write(offset, &bytes).unwrap();
            let at = reader.as_ptr().wrapping_add(offset);
            // SAFETY: within the mapping, and no thread writes while this one reads.
            let seen = unsafe { std::slice::from_raw_parts(at, len) };
            assert_eq!(seen, bytes, "{offset} {len}");
        }
        assert!(segment.write(4096, &[0]).is_err());
        assert!(segment.write(usize::MAX, &[0]).is_err());
    }

    #[test]
    fn a_length_of_0_and_one_beyond_memory_are_refused_with_the_length() {
        for len in [0, usize::MAX, usize::MAX / 2] {
            let error = Segment::new(len).unwrap_err();
            assert!(error.to_string().contains(&len.to_string()), "{error}");
        }
    }

    #[test]
    fn a_view_shows_the_segment_and_refuses_a_file_that_its_owner_could_shrink() {
        let segment = Segment::new(8192).unwrap();
        segment.write(8190, b"ab").unwrap();
        let view = SegmentView::map(segment.fd(), 8192).unwrap();
        assert_eq!(view.len(), 8192);
        // SAFETY: the last byte of the view.
        assert_eq!(unsafe { view.as_ptr().wrapping_add(8191).read() }, b'b');
        let too_long = segment.len() as u64 + 1;
        let expected = SegmentViewError::Size { found: too_long - 1, told: too_long };
        assert_eq!(SegmentView::map(segment.fd(), too_long).unwrap_err(), expected);

        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let file = fs::memfd_create("test", flags).unwrap();
        fs::ftruncate(&file, 8192).unwrap();
        for (seal, missing) in SEALS {
            assert_eq!(
                SegmentView::map(file.as_fd(), 8192).unwrap_err(),
                SegmentViewError::Unsealed { missing }
            );
            fs::fcntl_add_seals(&file, seal).unwrap();
        }
        assert_eq!(
            SegmentView::map(file.as_fd(), 8192).unwrap_err(),
            SegmentViewError::Size { found: 0, told: 8192 },
            "it is one hole"
        );
        let pipe = rustix::pipe::pipe().unwrap().0;
        assert!(matches!(SegmentView::map(pipe.as_fd(), 1), Err(SegmentViewError::Unsealed { .. })));
    }
    #[test]
    fn a_part_of_a_file_is_mapped_at_any_offset_and_its_position_stays() {
        let file = fs::memfd_create("test", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap();
        let bytes: Vec<u8> = (0..12_288_u32).map(|i| (i % 251) as u8).collect();
        rustix::io::write(&file, &bytes).unwrap();
        let seals = SEALS.iter().fold(SealFlags::empty(), |seals, &(seal, _)| seals | seal);
        fs::fcntl_add_seals(&file, seals).unwrap();
        fs::seek(&file, SeekFrom::Start(7)).unwrap();
        for (offset, len) in [(0, 12_288), (4096, 10), (5000, 7288), (12_287, 1)] {
            let view = SegmentView::map_at(file.as_fd(), offset, len).unwrap();
            assert_eq!(view.len() as u64, len);
            // SAFETY: the view's first byte.
            assert_eq!(unsafe { view.as_ptr().read() }, bytes[offset as usize]);
            let last = view.as_ptr().wrapping_add(view.len() - 1);
            // SAFETY: the view's last byte.
            assert_eq!(unsafe { last.read() }, bytes[(offset + len - 1) as usize]);
        }
        for (offset, len) in [(0, 12_289), (5000, 7289), (12_288, 1), (u64::MAX, 2)] {
            let error = SegmentView::map_at(file.as_fd(), offset, len).unwrap_err();
            assert!(matches!(error, SegmentViewError::Size { told, .. } if told == len), "{error}");
        }
        assert_eq!(fs::tell(&file).unwrap(), 7);
    }
}
