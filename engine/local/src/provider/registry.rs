//! Which local memory the rails may write to.
//!
//! The engine's thread owns the table and checks each READ when it is posted, so workers share
//! nothing of it and a post costs one comparison more. Keys differ from rail to rail and are never
//! given twice in a row: one that is stale, or meant for another rail, is refused as hardware would.

use kvrail_core::id::{MAX_RAILS, RailIndex};
use kvrail_core::provider::{MemoryRange, Read};

/// Registrations that may exist at a time: 12 bits of a key.
pub(crate) const MAX_REGISTRATIONS: usize = 1 << 12;

const RAIL_BITS: u32 = MAX_RAILS.trailing_zeros();
const INDEX_BITS: u32 = MAX_REGISTRATIONS.trailing_zeros();
const LIFE_SHIFT: u32 = RAIL_BITS + INDEX_BITS;

/// A key is life (16 bits), place in the table (12), rail (4), from the high end down.
const fn key(life: u16, index: usize, rail: usize) -> u32 {
    (life as u32) << LIFE_SHIFT | (index as u32) << RAIL_BITS | rail as u32
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    life: u16,
    addr: u64,
    /// 0: free.
    len: u64,
}

/// The table.
#[derive(Debug, Default)]
pub(crate) struct Registry {
    entries: Vec<Entry>,
}

impl Registry {
    /// Enters a range. `None`: the table is full, or the range is empty or wraps around.
    pub(crate) fn register(&mut self, range: MemoryRange) -> Option<[u32; MAX_RAILS]> {
        range.addr.checked_add(range.len).filter(|_| range.len > 0)?;
        let index = match self.entries.iter().position(|e| e.len == 0) {
            Some(index) => index,
            None if self.entries.len() < MAX_REGISTRATIONS => {
                // Lives count from 1: no key of the first registration is a small number.
                self.entries.push(Entry { life: 1, addr: 0, len: 0 });
                self.entries.len() - 1
            }
            None => return None,
        };
        let entry = &mut self.entries[index];
        (entry.addr, entry.len) = (range.addr, range.len);
        Some(std::array::from_fn(|rail| key(entry.life, index, rail)))
    }

    /// Takes a range out. One that is not there is left alone.
    pub(crate) fn deregister(&mut self, range: MemoryRange, keys: &[u32; MAX_RAILS]) {
        let index = (keys[0] >> RAIL_BITS) as usize % MAX_REGISTRATIONS;
        if let Some(entry) = self.entries.get_mut(index)
            && (entry.addr, entry.len, key(entry.life, index, 0)) == (range.addr, range.len, keys[0])
        {
            entry.len = 0;
            entry.life = entry.life.wrapping_add(1);
        }
    }

    /// Whether `read` writes within a range registered under its key on `rail`.
    #[inline]
    pub(crate) fn allows(&self, rail: RailIndex, read: &Read) -> bool {
        let index = (read.lkey >> RAIL_BITS) as usize % MAX_REGISTRATIONS;
        let Some(entry) = self.entries.get(index) else { return false };
        // A free entry has length 0 and allows nothing; len ≥ 1 makes the subtraction below exact.
        let Some(offset) = read.local_addr.checked_sub(entry.addr) else { return false };
        let len = u64::from(read.len);
        read.lkey == key(entry.life, index, rail.get())
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
    fn only_what_lies_within_is_allowed() {
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
    fn a_key_dies_with_its_registration() {
        let mut registry = Registry::default();
        let range = MemoryRange { addr: 1000, len: 100 };
        let old = registry.register(range).unwrap();
        registry.deregister(range, &old);
        assert!(!registry.allows(RailIndex(0), &read(1000, 1, old[0])));
        let new = registry.register(range).unwrap();
        assert!(!registry.allows(RailIndex(0), &read(1000, 1, old[0])));
        assert!(registry.allows(RailIndex(0), &read(1000, 1, new[0])));
        registry.deregister(range, &old);
        assert!(registry.allows(RailIndex(0), &read(1000, 1, new[0])), "a stale release releases nothing");
    }

    #[test]
    fn a_full_table_and_nonsense_are_refused() {
        let mut registry = Registry::default();
        assert_eq!(registry.register(MemoryRange { addr: 1, len: 0 }), None);
        assert_eq!(registry.register(MemoryRange { addr: 2, len: u64::MAX }), None);
        for _ in 0..MAX_REGISTRATIONS {
            assert!(registry.register(MemoryRange { addr: 1, len: 1 }).is_some());
        }
        assert_eq!(registry.register(MemoryRange { addr: 1, len: 1 }), None);
    }
}
