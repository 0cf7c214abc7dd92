//! A piece of memory that a producer publishes, as READs name it.

/// The most exports of one producer at a time, over either transport: the keys and the values of
/// 128 layers of 32 pools.
pub const MAX_EXPORTS: usize = 8192;

/// A piece of a producer's memory that readers can read: address, length and key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExportedRegion {
    /// Address of its first byte in the producer's memory.
    pub base: u64,
    /// Length in bytes.
    pub len: u64,
    /// Its rkey, the same on every rail. It is never 0, and a producer gives it to no other export
    /// in its life.
    pub rkey: u32,
}

impl ExportedRegion {
    /// A region, if it has bytes, does not wrap around, and has a key.
    pub(crate) const fn new(base: u64, len: u64, rkey: u32) -> Option<Self> {
        if len == 0 || rkey == 0 || base.checked_add(len).is_none() {
            return None;
        }
        Some(Self { base, len, rkey })
    }

    /// The offset of `addr` in the region, if `len` bytes from there lie within the region.
    #[inline]
    pub(crate) fn offset(&self, addr: u64, len: u32) -> Option<u64> {
        let offset = addr.checked_sub(self.base)?;
        let end = offset.checked_add(u64::from(len))?;
        (end <= self.len).then_some(offset)
    }
}

/// Gives out rkeys, each once.
#[derive(Debug)]
pub(crate) struct Rkeys {
    next: u32,
}

impl Rkeys {
    pub(crate) const fn new() -> Self {
        Self { next: 1 }
    }

    /// An rkey that was never given out. `None`: all have been given out.
    pub(crate) fn give(&mut self) -> Option<u32> {
        let rkey = self.next;
        self.next = rkey.checked_add(1)?;
        Some(rkey)
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

    #[test]
    fn a_region_has_bytes_and_a_key_and_does_not_wrap_around() {
        assert!(ExportedRegion::new(4096, 1, 1).is_some());
        for (base, len, rkey) in [(4096, 0, 1), (4096, 1, 0), (u64::MAX, 1, 1), (2, u64::MAX - 1, 1)] {
            assert_eq!(ExportedRegion::new(base, len, rkey), None, "{base} {len} {rkey}");
        }
    }

    #[test]
    fn keys_are_given_once_and_then_no_more() {
        let mut keys = Rkeys { next: u32::MAX - 1 };
        assert_eq!((keys.give(), keys.give(), keys.give()), (Some(u32::MAX - 1), None, None));
        assert_eq!(Rkeys::new().give(), Some(1));
    }
}
