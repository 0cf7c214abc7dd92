//! Which local memory the rails may write to.
//!
//! The engine's thread owns the table and checks each READ when it is posted, so workers share none
//! of it, and a post costs a few comparisons more. Keys differ from rail to rail, and a place of
//! the table gives a new key each time: a stale key, or the key of another rail, is refused, as
//! hardware does.

use kvrail_core::id::{MAX_RAILS, RailIndex};
use kvrail_core::provider::{MemoryRange, Read};

/// How many registrations may exist at a time: 12 bits of a key.
pub(crate) const MAX_REGISTRATIONS: usize = 1 << 12;

const RAIL_BITS: u32 = MAX_RAILS.trailing_zeros();
const INDEX_BITS: u32 = MAX_REGISTRATIONS.trailing_zeros();
const GENERATION_SHIFT: u32 = RAIL_BITS + INDEX_BITS;

/// A key holds, from the high end down: a generation (16 bits), the place in the table (12), the
/// rail (4).
const fn key(generation: u16, index: usize, rail: usize) -> u32 {
    (generation as u32) << GENERATION_SHIFT | (index as u32) << RAIL_BITS | rail as u32
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    generation: u16,
    addr: u64,
    /// 0: free.
    len: u64,
}

/// The table of registered ranges.
#[derive(Debug, Default)]
pub(crate) struct Registry {
    entries: Vec<Entry>,
}

impl Registry {
    /// Registers a range and returns its key on each rail. `None`: the table is full, or the range
    /// is empty or wraps around.
    pub(crate) fn register(&mut self, range: MemoryRange) -> Option<[u32; MAX_RAILS]> {
        range.addr.checked_add(range.len).filter(|_| range.len > 0)?;
        let index = match self.entries.iter().position(|e| e.len == 0) {
            Some(index) => index,
            None if self.entries.len() < MAX_REGISTRATIONS => {
                // Generations count from 1, so that no key is a small number.
                self.entries.push(Entry { generation: 1, addr: 0, len: 0 });
                self.entries.len() - 1
            }
            None => return None,
        };
        let entry = &mut self.entries[index];
        (entry.addr, entry.len) = (range.addr, range.len);
        Some(std::array::from_fn(|rail| key(entry.generation, index, rail)))
    }

    /// Removes a range. A range that is not registered under these keys is left alone.
    pub(crate) fn deregister(&mut self, range: MemoryRange, keys: &[u32; MAX_RAILS]) {
        let index = (keys[0] >> RAIL_BITS) as usize % MAX_REGISTRATIONS;
        if let Some(entry) = self.entries.get_mut(index)
            && (entry.addr, entry.len, key(entry.generation, index, 0)) == (range.addr, range.len, keys[0])
        {
            entry.len = 0;
            entry.generation = entry.generation.wrapping_add(1);
        }
    }

    /// Whether `read` writes within a range that is registered under its key on `rail`.
    #[inline]
    pub(crate) fn allows(&self, rail: RailIndex, read: &Read) -> bool {
        let index = (read.lkey >> RAIL_BITS) as usize % MAX_REGISTRATIONS;
        let Some(entry) = self.entries.get(index) else { return false };
        // A free entry has length 0 and allows no READ.
        let Some(offset) = read.local_addr.checked_sub(entry.addr) else { return false };
        let len = u64::from(read.len);
        read.lkey == key(entry.generation, index, rail.get())
            && len <= entry.len
            && offset <= entry.len - len
            && len > 0
    }
}

#[cfg(test)]
mod tests {
    use kvrail_core::id::{LaneId, WrId};

    use super::*;

    fn read(local_addr: u64, len: u32, lkey: u32) -> Read {
        let wr_id = WrId::new(LaneId::new(0, 0), 0);
        Read { wr_id, remote_addr: 0, local_addr, len, rkey: 0, lkey, signaled: true }
    }

    #[test]
    fn a_read_is_allowed_only_within_its_range() {
        let mut registry = Registry::default();
        let keys = registry.register(MemoryRange { addr: 1000, len: 100 }).unwrap();
        let rail = RailIndex(3);
        for (addr, len, allowed) in [
            (1000, 100, true),
            (1099, 1, true),
            (1000, 101, false),
            (1001, 100, false),
            (999, 1, false),
            (1100, 1, false),
            (u64::MAX, 1, false),
            (1000, 0, false),
        ] {
            assert_eq!(registry.allows(rail, &read(addr, len, keys[3])), allowed, "{addr} {len}");
        }
        assert!(!registry.allows(rail, &read(1000, 1, keys[2])), "the key of another rail");
        assert!(!registry.allows(rail, &read(1000, 1, keys[3] + 16)), "a key never given");
    }

    #[test]
    fn a_key_is_refused_after_its_registration_has_ended() {
        let mut registry = Registry::default();
        let range = MemoryRange { addr: 1000, len: 100 };
        let old = registry.register(range).unwrap();
        registry.deregister(range, &old);
        assert!(!registry.allows(RailIndex(0), &read(1000, 1, old[0])));
        let new = registry.register(range).unwrap();
        assert!(!registry.allows(RailIndex(0), &read(1000, 1, old[0])));
        assert!(registry.allows(RailIndex(0), &read(1000, 1, new[0])));
        registry.deregister(range, &old);
        assert!(
            registry.allows(RailIndex(0), &read(1000, 1, new[0])),
            "deregistering a stale key changes nothing"
        );
    }

    #[test]
    fn a_full_table_and_impossible_ranges_are_refused() {
        let mut registry = Registry::default();
        assert_eq!(registry.register(MemoryRange { addr: 1, len: 0 }), None);
        assert_eq!(registry.register(MemoryRange { addr: 2, len: u64::MAX }), None);
        for _ in 0..MAX_REGISTRATIONS {
            assert!(registry.register(MemoryRange { addr: 1, len: 1 }).is_some());
        }
        assert_eq!(registry.register(MemoryRange { addr: 1, len: 1 }), None);
    }
}
