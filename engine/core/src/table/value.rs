//! The content of an entry, its wire form, and the check that a page is the one that its location
//! names.

use super::words::{Generation, KeyTag, Ready};

/// Bytes of one table entry.
pub const ENTRY_BYTES: u64 = 32;

/// The content of an entry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EntryValue {
    /// The publication.
    pub generation: Generation,
    /// The parts that are ready in this publication. In a location: the parts that have been *seen*
    /// ready, in the owner's entry or by the owner's word. More than that must never stand there
    /// (the table's [proof](super) rests on it); less only makes parts unreadable.
    pub ready: Ready,
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
    /// The slot holds the page, and fewer of its parts are ready than are needed. The owner's entry
    /// never shows that after it has shown these parts ready, so the location was wrong.
    #[error(
        "in the owner's entry ready: {found}; needed: {needed}: the location says more than the owner ever said"
    )]
    NotReady {
        /// The needed parts.
        needed: Ready,
        /// What the entry held.
        found: Ready,
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
            Self::NotReady { .. } => 2063,
        }
    }
}

impl EntryValue {
    /// The word beside the generation: the ready parts, and the generation's count, to which they
    /// belong.
    pub(super) const fn ready_word(self) -> u64 {
        self.ready.0 as u64 | self.generation.0 << 32
    }

    /// The ready parts in a word that was read beside `generation`: none, if the word belongs to
    /// another publication.
    pub(super) const fn ready_in(word: u64, generation: Generation) -> Ready {
        // The high half of the word, and the low half of the generation.
        if (word >> 32) as u32 == generation.0 as u32 { Ready(word as u32) } else { Ready::NONE }
    }

    /// Decodes the wire form.
    #[must_use]
    pub fn from_bytes(bytes: [u8; ENTRY_BYTES as usize]) -> Self {
        let word = |at: usize| {
            let mut w = [0; 8];
            w.copy_from_slice(&bytes[at..at + 8]);
            u64::from_le_bytes(w)
        };
        let generation = Generation(word(0));
        let tag = KeyTag(u128::from(word(16)) | u128::from(word(24)) << 64);
        Self { generation, ready: Self::ready_in(word(8), generation), tag }
    }

    /// Encodes the wire form.
    #[must_use]
    pub fn to_bytes(self) -> [u8; ENTRY_BYTES as usize] {
        let mut out = [0; ENTRY_BYTES as usize];
        out[..8].copy_from_slice(&self.generation.0.to_le_bytes());
        out[8..16].copy_from_slice(&self.ready_word().to_le_bytes());
        out[16..].copy_from_slice(&self.tag.0.to_le_bytes());
        out
    }

    /// Whether a page read before this entry was read is the one that `expected` names, with all
    /// parts that `expected` has as ready.
    ///
    /// # Errors
    ///
    /// The first difference, as the reason of a miss.
    #[inline]
    pub fn check(self, expected: Self) -> Result<(), Miss> {
        let same = self.generation == expected.generation && self.tag == expected.tag;
        if same && expected.generation.is_valid() && self.ready >= expected.ready {
            return Ok(());
        }
        Err(self.miss(expected))
    }

    #[cold]
    fn miss(self, expected: Self) -> Miss {
        let found = self.generation;
        if !found.is_valid() {
            Miss::Overwriting { expected: expected.generation, found }
        } else if found != expected.generation {
            Miss::Generation { expected: expected.generation, found }
        } else if self.tag != expected.tag {
            Miss::Key { expected: expected.tag, found: self.tag }
        } else {
            Miss::NotReady { needed: expected.ready, found: self.ready }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::ToString;

    const VALUE: EntryValue = EntryValue {
        generation: Generation(0x1122_3344_0000_0003),
        ready: Ready(5),
        tag: KeyTag(0x0102_0304_0506_0708_090a_0b0c_0d0e_0f10),
    };

    #[test]
    fn golden_bytes() {
        let bytes = [
            3, 0, 0, 0, 0x44, 0x33, 0x22, 0x11, 5, 0, 0, 0, 3, 0, 0, 0, //
            16, 15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1,
        ];
        assert_eq!(VALUE.to_bytes(), bytes);
        assert_eq!(EntryValue::from_bytes(bytes), VALUE);
    }

    #[test]
    fn ready_parts_of_another_publication_are_none() {
        let mut bytes = VALUE.to_bytes();
        bytes[12] = 1;
        assert_eq!(EntryValue::from_bytes(bytes), EntryValue { ready: Ready::NONE, ..VALUE });
    }

    #[test]
    fn more_parts_may_be_ready_than_are_needed_and_never_fewer() {
        for (found, needed, hit) in [(5, 5, true), (6, 5, true), (u32::MAX, 5, true), (4, 5, false)] {
            let ready = |parts| EntryValue { ready: Ready(parts), ..VALUE };
            let result = ready(found).check(ready(needed));
            let not_ready = Miss::NotReady { needed: Ready(needed), found: Ready(found) };
            assert_eq!(result, if hit { Ok(()) } else { Err(not_ready) });
        }
        let growing = VALUE.check(EntryValue { ready: Ready::WHOLE, ..VALUE }).unwrap_err();
        assert_eq!(growing.code(), 2063);
        let text = "in the owner's entry ready: 5 parts; needed: the whole page";
        assert!(growing.to_string().starts_with(text), "{growing}");
    }

    #[test]
    fn a_location_with_an_invalid_generation_is_a_miss() {
        // A never-published slot and a location of zeros are equal, and still no hit.
        assert!(EntryValue::default().check(EntryValue::default()).is_err());
    }
}
