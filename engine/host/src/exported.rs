//! Memory that a producer lets peers read: where it is, and by what a transport can reach it.
#![allow(unsafe_code, reason = "foreign memory, on the caller's word")]

use std::os::fd::OwnedFd;
use std::sync::Arc;

use kvrail_core::provider::{DmaBuf, MemoryRange};

use crate::segment::Segment;

/// Memory that a producer lets peers read. Peers name its bytes by the addresses of
/// [`range`](Self::range), whatever the memory is backed by.
#[derive(Clone, Debug)]
pub struct ExportedMemory {
    range: MemoryRange,
    backing: Backing,
}

/// By what a transport can reach exported memory.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Backing {
    /// A segment of this process, whole.
    Segment(Arc<Segment>),
    /// Bytes of a segment of this process from `offset` on.
    SegmentPart {
        /// The segment.
        segment: Arc<Segment>,
        /// Where the range begins in it.
        offset: u64,
    },
    /// Bytes of a file in memory (a memfd) from `offset` on, which the process has mapped at the
    /// range's address.
    File {
        /// The file.
        file: Arc<OwnedFd>,
        /// Where the range begins in it.
        offset: u64,
    },
    /// Host memory of this process that is known by its address alone.
    Host,
    /// A device's memory, exported as a dmabuf.
    Dmabuf {
        /// Keeps the descriptor of `dmabuf` open.
        file: Arc<OwnedFd>,
        /// The descriptor, and where the range begins in it.
        dmabuf: DmaBuf,
    },
    /// A device's memory that is known by its address alone (peer memory).
    Device,
}

impl ExportedMemory {
    /// All of a segment.
    #[must_use]
    pub fn segment(segment: Arc<Segment>) -> Self {
        Self { range: segment.range(), backing: Backing::Segment(segment) }
    }

    /// Memory that somebody else owns, at the addresses of `range`.
    ///
    /// # Safety
    ///
    /// Until no exporter has this value or a copy of it any more, `range` is mapped memory of this
    /// process (or of the device, for device memory), and `backing` describes the same bytes. Who
    /// writes to them, and when, is the owner's affair: a transport only reads.
    #[must_use]
    pub const unsafe fn foreign(range: MemoryRange, backing: Backing) -> Self {
        Self { range, backing }
    }

    /// A part of the memory, named by its addresses, to be exported by itself. `None` if it has no
    /// bytes, or bytes outside the memory. All of the memory is the memory itself.
    #[must_use]
    pub fn part(&self, range: MemoryRange) -> Option<Self> {
        let whole = self.range;
        let skipped = range.addr.checked_sub(whole.addr)?;
        if range.len == 0 || whole.len.checked_sub(skipped)? < range.len {
            return None;
        }
        if range == whole {
            return Some(self.clone());
        }
        let backing = match &self.backing {
            Backing::Segment(segment) => {
                Backing::SegmentPart { segment: Arc::clone(segment), offset: skipped }
            }
            Backing::SegmentPart { segment, offset } => {
                Backing::SegmentPart { segment: Arc::clone(segment), offset: offset.checked_add(skipped)? }
            }
            Backing::File { file, offset } => {
                Backing::File { file: Arc::clone(file), offset: offset.checked_add(skipped)? }
            }
            Backing::Host => Backing::Host,
            Backing::Dmabuf { file, dmabuf } => {
                let dmabuf = DmaBuf { offset: dmabuf.offset.checked_add(skipped)?, ..*dmabuf };
                Backing::Dmabuf { file: Arc::clone(file), dmabuf }
            }
            Backing::Device => Backing::Device,
        };
        // Bytes of memory that was promised, and the same bytes of what backs it.
        Some(Self { range, backing })
    }

    /// The addresses by which peers name the bytes.
    #[must_use]
    pub const fn range(&self) -> MemoryRange {
        self.range
    }

    /// By what a transport can reach the bytes.
    #[must_use]
    pub const fn backing(&self) -> &Backing {
        &self.backing
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RANGE: MemoryRange = MemoryRange { addr: 0x10_0000, len: 0x4000 };

    fn offset(memory: &ExportedMemory) -> u64 {
        match memory.backing() {
            Backing::Segment(_) | Backing::Host | Backing::Device => 0,
            Backing::SegmentPart { offset, .. } | Backing::File { offset, .. } => *offset,
            Backing::Dmabuf { dmabuf, .. } => dmabuf.offset,
        }
    }

    #[test]
    fn a_part_has_the_same_bytes_of_what_backs_the_memory() {
        let file = Arc::new(OwnedFd::from(std::fs::File::open("/dev/null").unwrap()));
        let dmabuf = DmaBuf { fd: 9, offset: 0x7000 };
        let backings = [
            (Backing::Host, [0, 0]),
            (Backing::Device, [0, 0]),
            (Backing::File { file: Arc::clone(&file), offset: 0x3000 }, [0x4000, 0x4800]),
            (Backing::Dmabuf { file, dmabuf }, [0x8000, 0x8800]),
        ];
        for (backing, want) in backings {
            // SAFETY: it is exported nowhere.
            let memory = unsafe { ExportedMemory::foreign(RANGE, backing) };
            let part = memory.part(MemoryRange { addr: RANGE.addr + 0x1000, len: 0x3000 }).unwrap();
            let inner = part.part(MemoryRange { addr: RANGE.addr + 0x1800, len: 0x800 }).unwrap();
            assert_eq!([offset(&part), offset(&inner)], want);
            assert_eq!(inner.range(), MemoryRange { addr: RANGE.addr + 0x1800, len: 0x800 });
            for (addr, len) in [(0, 0), (0x4000, 1), (0x3000, 0x1001), (1, u64::MAX)] {
                assert!(memory.part(MemoryRange { addr: RANGE.addr + addr, len }).is_none(), "{addr} {len}");
            }
            assert!(memory.part(MemoryRange { addr: RANGE.addr - 1, len: 2 }).is_none());
        }
    }

    #[test]
    fn a_part_of_a_segment_keeps_it() {
        let segment = Arc::new(Segment::new(0x3000).unwrap());
        let memory = ExportedMemory::segment(Arc::clone(&segment));
        let MemoryRange { addr, len } = segment.range();
        let whole = memory.part(segment.range()).unwrap();
        assert!(matches!(whole.backing(), Backing::Segment(_)), "all of it is the memory itself");
        let part = memory.part(MemoryRange { addr: addr + 0x1000, len: len - 0x1000 }).unwrap();
        let inner = part.part(MemoryRange { addr: addr + 0x2000, len: 0x1000 }).unwrap();
        assert_eq!([offset(&part), offset(&inner)], [0x1000, 0x2000]);
        drop((memory, whole, part));
        assert_eq!(Arc::strong_count(&segment), 2);
        drop(inner);
        assert_eq!(Arc::strong_count(&segment), 1);
    }
}
