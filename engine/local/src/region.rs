//! A piece of memory that a producer publishes, as READs name it.

/// A piece of a producer's memory that readers can read: address, length and key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExportedRegion {
    /// Address of its first byte in the producer's memory.
    pub base: u64,
    /// Length in bytes.
    pub len: u64,
    /// Its rkey, the same on every rail.
    pub rkey: u32,
}

impl ExportedRegion {
    /// The offset of `addr` in the region, if `len` bytes from there lie within the region.
    #[inline]
    pub(crate) fn offset(&self, addr: u64, len: u32) -> Option<u64> {
        let offset = addr.checked_sub(self.base)?;
        let end = offset.checked_add(u64::from(len))?;
        (end <= self.len).then_some(offset)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_has_an_offset_only_if_it_lies_within() {
        let region = ExportedRegion { base: 1000, len: 100, rkey: 0 };
        assert_eq!(region.offset(1000, 100), Some(0));
        assert_eq!(region.offset(1099, 1), Some(99));
        for (addr, len) in [(999, 1), (1000, 101), (1099, 2), (1101, 0), (u64::MAX, u32::MAX), (0, u32::MAX)]
        {
            assert_eq!(region.offset(addr, len), None, "{addr} {len}");
        }
    }
}
