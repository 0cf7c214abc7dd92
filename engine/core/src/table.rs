//! The publication table: what makes it impossible to serve a wrong page.
//!
//! A published region has one [`Entry`] per slot, readable by peers. The owner makes a slot's entry
//! invalid before it overwrites the first byte of the slot, and valid again, with a new generation,
//! after the last. A reader that has a whole page READs the entry *afterwards*: if it still holds
//! the pair that the reader's location names, no byte of the page can have been overwritten in
//! between.
//!
//! # Why this is enough
//!
//! Let a reader's last data byte have arrived at time t, and the entry have been read at t' > t
//! with generation G. Generations of one slot never repeat, so the entry held G from its
//! publication p without interruption until t'. The slot's bytes were written before p and not
//! again before t'. The location that named G existed only after p (half of a generation is random,
//! it cannot be named in advance), and the reader read after it had the location. So every byte
//! belongs to G. The key tag is compared as well, so that a location with swapped keys is a miss.
//! The two words of an entry may be read at different moments; each word is read whole.
//!
//! The argument rests on the order of the owner's stores, and NICs must see that order, not only
//! threads: [`barrier::device_release`](crate::barrier::device_release) stands between the entry
//! and the bytes on both sides.
//!
//! One READ may bring the entries of several slots, once the last data byte of all of their pages
//! has arrived. The argument above holds for each entry with the moment at which that entry was
//! read as its t'.
//!
//! # Wire form
//!
//! | bytes | content |
//! |---|---|
//! | 0..8 | generation, u64 little-endian: bit 0 valid, bits 1..32 count, bits 32..64 nonce |
//! | 8..16 | key tag, u64 little-endian |

use core::fmt;
use core::mem::offset_of;
use core::sync::atomic::{AtomicU64, Ordering};

use static_assertions::{assert_eq_size, const_assert_eq};

use crate::barrier::device_release;

/// Bytes of one table entry.
pub const ENTRY_BYTES: u64 = 16;

/// Stands for the number of a table entry where the page is not validated.
pub(crate) const NO_ENTRY: u32 = u32::MAX;

/// Numbers one publication of a slot. Generation 0 is never published.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Generation(pub u64);

impl Generation {
    const VALID: u64 = 1;

    /// Whether the slot holds a published page.
    #[must_use]
    pub const fn is_valid(self) -> bool {
        self.0 & Self::VALID != 0
    }

    /// How often the slot has been published, modulo 2^31.
    #[must_use]
    pub const fn count(self) -> u32 {
        (self.0 as u32) >> 1
    }

    const fn successor(self, nonce: u32) -> Self {
        let count = (self.count() + 1) & (u32::MAX >> 1);
        Self((nonce as u64) << 32 | (count as u64) << 1 | Self::VALID)
    }

    const fn invalid(self) -> Self {
        Self(self.0 & !Self::VALID)
    }
}

impl fmt::Debug for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = if self.is_valid() { "" } else { " (invalid)" };
        write!(f, "{}:{:08x}{state}", self.count(), self.0 >> 32)
    }
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// A digest of the key whose page a slot holds. Publisher and reader compute it in the same way.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct KeyTag(pub u64);

impl fmt::Debug for KeyTag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// One slot's entry, in the owner's memory, where peers READ it.
#[repr(C, align(16))]
#[derive(Debug, Default)]
pub struct Entry {
    generation: AtomicU64,
    tag: AtomicU64,
}

assert_eq_size!(Entry, [u8; ENTRY_BYTES as usize]);
const_assert_eq!(offset_of!(Entry, generation), 0);
const_assert_eq!(offset_of!(Entry, tag), 8);

impl Entry {
    /// A slot that has never been published.
    #[must_use]
    pub const fn new() -> Self {
        Self { generation: AtomicU64::new(0), tag: AtomicU64::new(0) }
    }

    /// Makes the slot invalid for every reader, those included that have read its bytes and not yet
    /// its entry. Call it before the first byte of the slot is overwritten.
    ///
    /// The caller is the slot's only publisher.
    pub fn invalidate(&self) {
        let now = self.load();
        self.generation.store(now.invalid().0.to_le(), Ordering::Relaxed);
        // The invalid entry is visible, to peers' NICs too, before any byte that is stored from
        // here on.
        device_release();
    }

    /// Publishes the slot's bytes under `tag`, and returns the new generation. Call it after the
    /// last byte has been written. `nonce` is random, fresh each time, and not known before.
    ///
    /// The caller is the slot's only publisher, and has invalidated it before it wrote. Bytes that
    /// other threads wrote into the slot must have been handed to this thread (by a join, a
    /// channel, a lock). A thread that made non-temporal stores ends them with an `sfence` before
    /// it hands them on.
    pub fn publish(&self, tag: KeyTag, nonce: u32) -> Generation {
        let generation = self.load().successor(nonce);
        self.tag.store(tag.0.to_le(), Ordering::Relaxed);
        // All bytes stored so far, and the tag, are visible, to peers' NICs too, before the valid
        // entry is.
        device_release();
        self.generation.store(generation.0.to_le(), Ordering::Release);
        generation
    }

    /// Sets an entry of the reader's landing area to zero, before the READ that fills it.
    pub(crate) fn clear(&self) {
        self.generation.store(0, Ordering::Relaxed);
        self.tag.store(0, Ordering::Relaxed);
    }

    /// The slot's generation now.
    #[must_use]
    pub fn load(&self) -> Generation {
        Generation(u64::from_le(self.generation.load(Ordering::Acquire)))
    }

    /// Generation and tag now. Only the owner sees both of one publication.
    #[must_use]
    pub fn snapshot(&self) -> EntryValue {
        EntryValue { generation: self.load(), tag: KeyTag(u64::from_le(self.tag.load(Ordering::Relaxed))) }
    }
}

/// The content of an entry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EntryValue {
    /// The publication.
    pub generation: Generation,
    /// The digest of the key that was published.
    pub tag: KeyTag,
}

/// Why a page that arrived is not the page that its location names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Miss {
    /// The owner has taken the slot back and not published it again.
    #[error(
        "the owner was overwriting the slot (generation {found}, the location names {expected}): look the key up again"
    )]
    Overwriting {
        /// What the location named.
        expected: Generation,
        /// What the entry held.
        found: Generation,
    },
    /// The slot has been published again since the location was made, or never in this generation.
    #[error(
        "the slot holds generation {found}, the location names {expected}: the location is stale or forged"
    )]
    Generation {
        /// What the location named.
        expected: Generation,
        /// What the entry held.
        found: Generation,
    },
    /// The slot holds another key's page.
    #[error("the slot holds the page of key {found:?}, the location names {expected:?}")]
    Key {
        /// What the location named.
        expected: KeyTag,
        /// What the entry held.
        found: KeyTag,
    },
}

impl Miss {
    /// The number of this error in docs/errors.md, for logs, metrics and callers in other
    /// languages.
    #[must_use]
    pub const fn code(&self) -> u32 {
        match self {
            Self::Overwriting { .. } => 2060,
            Self::Generation { .. } => 2061,
            Self::Key { .. } => 2062,
        }
    }
}

impl EntryValue {
    /// Decodes the wire form.
    #[must_use]
    pub fn from_bytes(bytes: [u8; ENTRY_BYTES as usize]) -> Self {
        let word = |at: usize| {
            let mut w = [0; 8];
            w.copy_from_slice(&bytes[at..at + 8]);
            u64::from_le_bytes(w)
        };
        Self { generation: Generation(word(0)), tag: KeyTag(word(8)) }
    }

    /// Encodes the wire form.
    #[must_use]
    pub fn to_bytes(self) -> [u8; ENTRY_BYTES as usize] {
        let mut out = [0; ENTRY_BYTES as usize];
        out[..8].copy_from_slice(&self.generation.0.to_le_bytes());
        out[8..].copy_from_slice(&self.tag.0.to_le_bytes());
        out
    }

    /// Whether a page read before this entry was read is the one that `expected` names.
    ///
    /// # Errors
    ///
    /// The first difference, as the reason of a miss.
    #[inline]
    pub fn check(self, expected: Self) -> Result<(), Miss> {
        if self == expected && expected.generation.is_valid() {
            return Ok(());
        }
        Err(self.miss(expected))
    }

    #[cold]
    fn miss(self, expected: Self) -> Miss {
        let found = self.generation;
        if found == expected.generation && found.is_valid() {
            Miss::Key { expected: expected.tag, found: self.tag }
        } else if found.is_valid() {
            Miss::Generation { expected: expected.generation, found }
        } else {
            Miss::Overwriting { expected: expected.generation, found }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_location_hits_until_its_slot_is_invalidated() {
        let entry = Entry::new();
        assert!(!entry.load().is_valid());
        entry.invalidate();
        let generation = entry.publish(KeyTag(7), 0xDEAD_BEEF);
        let named = EntryValue { generation, tag: KeyTag(7) };
        assert_eq!(entry.snapshot().check(named), Ok(()));
        let swapped = EntryValue { tag: KeyTag(8), ..named };
        assert_eq!(entry.snapshot().check(swapped), Err(Miss::Key { expected: KeyTag(8), found: KeyTag(7) }));
        entry.invalidate();
        assert!(matches!(entry.snapshot().check(named), Err(Miss::Overwriting { .. })));
        let next = entry.publish(KeyTag(7), 0xDEAD_BEEF);
        assert_ne!(next, generation, "the same nonce gives no generation twice");
        assert!(matches!(entry.snapshot().check(named), Err(Miss::Generation { .. })));
    }

    /// On some processors a fence for threads does not order stores for devices.
    #[test]
    fn both_sides_of_an_overwrite_are_ordered_for_devices() {
        let passed = || crate::barrier::tests::CALLS.get();
        let (entry, before) = (Entry::new(), passed());
        entry.invalidate();
        assert_eq!(passed() - before, 1, "before the first byte");
        entry.publish(KeyTag(1), 2);
        assert_eq!(passed() - before, 2, "after the last byte");
    }

    #[test]
    fn a_location_with_an_invalid_generation_is_a_miss() {
        // A never-published slot and a location of zeros are equal, and still no hit.
        assert!(Entry::new().snapshot().check(EntryValue::default()).is_err());
    }

    #[test]
    fn the_count_wraps_and_stays_valid() {
        let last = Generation((u64::from(u32::MAX)) | 5 << 32);
        let next = last.successor(6);
        assert_eq!((next.count(), next.is_valid()), (0, true));
    }

    #[test]
    fn golden_bytes() {
        let value = EntryValue { generation: Generation(0x1122_3344_0000_0003), tag: KeyTag(0x8899) };
        let bytes = [3, 0, 0, 0, 0x44, 0x33, 0x22, 0x11, 0x99, 0x88, 0, 0, 0, 0, 0, 0];
        assert_eq!(value.to_bytes(), bytes);
        assert_eq!(EntryValue::from_bytes(bytes), value);
    }
}
