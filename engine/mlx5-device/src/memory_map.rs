//! The memory that READs go between: what each key gives access to.
#![allow(unsafe_code, reason = "carries READs out: writes where a descriptor says")]

use std::ptr;

/// The device's tables of keys, at both ends.
#[derive(Debug, Default)]
pub struct MemoryMap {
    /// Whether READs move bytes. Otherwise every READ succeeds and moves none.
    moves: bool,
    /// The memory of the other end: key, address, bytes.
    remote: Vec<(u32, u64, &'static [u8])>,
    /// Registered local memory: key, address, length.
    local: Vec<(u32, u64, u64)>,
    keys: u32,
}

impl MemoryMap {
    /// A map by which READs move bytes.
    #[must_use]
    pub fn moving() -> Self {
        Self { moves: true, ..Self::default() }
    }

    /// A map by which every READ succeeds, and none moves a byte.
    #[must_use]
    pub fn still() -> Self {
        Self::default()
    }

    /// Makes `bytes` readable at `address` with this key.
    pub fn publish(&mut self, rkey: u32, address: u64, bytes: &'static [u8]) {
        self.remote.push((rkey, address, bytes));
    }

    pub(crate) fn register(&mut self, address: u64, len: u64) -> u32 {
        self.keys += 1;
        let key = self.keys << 8 | 0x5A;
        self.local.push((key, address, len));
        key
    }

    pub(crate) fn deregister(&mut self, key: u32) {
        self.local.retain(|(known, ..)| *known != key);
    }

    /// The bytes of a READ, if the other end lets it have them.
    pub(crate) fn remote(&self, rkey: u32, address: u64, len: u64) -> Option<&'static [u8]> {
        if !self.moves {
            return Some(&[]);
        }
        let found = self.remote.iter().filter(|(key, ..)| *key == rkey);
        found.into_iter().find_map(|(_, base, bytes)| {
            let from = usize::try_from(address.checked_sub(*base)?).ok()?;
            bytes.get(from..from.checked_add(usize::try_from(len).ok()?)?)
        })
    }

    /// Whether a piece of local memory may be written with this key.
    pub(crate) fn may_write(&self, lkey: u32, address: u64, len: u64) -> bool {
        let within = |base: u64, size: u64| {
            address >= base && address - base <= size && len <= size - (address - base)
        };
        !self.moves || self.local.iter().any(|(key, base, size)| *key == lkey && within(*base, *size))
    }

    /// Writes `bytes` to a piece of local memory that may be written.
    pub(crate) fn write(&self, lkey: u32, address: u64, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        assert!(self.may_write(lkey, address, bytes.len() as u64), "looked up before");
        let to = ptr::with_exposed_provenance_mut::<u8>(address as usize);
        // SAFETY: the memory is registered, and the caller that posted the READ promised that it
        // may be written now (`Provider::begin`); the source is memory of the other end.
        unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), to, bytes.len()) };
    }
}
