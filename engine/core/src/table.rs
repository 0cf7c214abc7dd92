//! The publication table: what makes it impossible to serve a wrong page.
//!
//! A published region has one [`Entry`] per slot, readable by peers. The owner makes a slot's entry
//! invalid before it overwrites the first byte of the slot, and valid again, with a new generation,
//! after the last ([`Entry::publish`]). A reader that has a whole page READs the entry
//! *afterwards*: if it still holds what the reader's location names, no byte of the page can have
//! been overwritten in between.
//!
//! A page can also be published while it grows ([`Entry::begin`]): the entry is valid before the
//! first byte of the page is written, and says how many parts of the page are ready. The owner
//! writes a part, then raises that number, and does not write the part again in this generation. A
//! reader reads only parts that it has *seen* ready, and READs the entry afterwards.
//!
//! # Wire form
//!
//! | bytes | content |
//! |---|---|
//! | 0..8 | generation, u64 little-endian: bit 0 valid, bits 1..32 count, bits 32..64 nonce |
//! | 8..12 | ready parts, u32 little-endian; 2^32 - 1: the whole page |
//! | 12..16 | bytes 0..4 of the generation to which the ready parts belong |
//! | 16..32 | key tag, u128 little-endian |
//!
//! An entry lies at a multiple of its 32 bytes, so in one cache line. The argument below needs
//! less: bytes 0..8 and bytes 8..16 are one word each, which the owner stores whole and a READ
//! brings whole. The words of one READ may be those of different moments, in any order.
//!
//! # Why this is enough
//!
//! The owner's stores, with `|` where [`barrier::device_release`](crate::barrier::device_release)
//! stands, which makes every reader that sees a store behind it see all stores before it:
//!
//! | call | stores |
//! |---|---|
//! | `invalidate` | generation without its valid bit, `|`; bytes of the slot only after it |
//! | `publish` | after the bytes: tag, ready word (whole, new generation), `|`, new generation |
//! | `begin` | tag, ready word (no part, new generation), `|`, new generation |
//! | `set_ready(n)`, `finish` | after the bytes of parts below n: `|`, ready word (n, same) |
//!
//! **Seen ready.** A reader has seen part p of generation G ready if one of these happened before
//! it read the part's bytes: it READ the entry and found a ready word that belongs to G and has
//! more than p parts; or the owner told it so, having stored such a word before. Let s be the
//! moment at which that word was in the entry. The bytes of p were stored before the word, with a
//! barrier in between, so a reader that reads them after s finds them, or later ones.
//!
//! **The proof.** Let the reader have seen part p of G ready at s, let the last byte of p have
//! arrived at t > s, and let the entry have been read at t' > t with the valid generation G.
//! Generations of one slot never repeat, so the entry held G from its publication without
//! interruption until t'. Bytes of another publication are stored only after the entry without G's
//! valid bit is visible, so none of them was visible before t'. In G itself the bytes of p were
//! stored before s and not again. So every byte of p that the reader has belongs to G.
//!
//! A whole page is the case in which all parts are ready. Where it was published by `publish`, its
//! ready word was there before its generation was valid, and the location that named G existed only
//! afterwards: half of a generation is random, it cannot be named in advance. The key tag is
//! compared as well, so that a location with swapped keys is a miss.
//!
//! **Threads of the owner.** One thread at a time has the slot: it publishes, begins and makes
//! parts ready. Another thread may make the entry invalid at any moment. That clears one bit, in
//! one atomic operation, so it brings back no generation that has gone. The thread that has the
//! slot may then store one more ready word of the generation; the entry stays invalid, so no reader
//! accepts the page. Before a thread writes bytes of the next page, it calls `invalidate` itself:
//! its own barrier stands between the two.
//!
//! **Old ready words.** Nothing clears the ready word when a slot is invalidated. A READ that
//! brings the ready word first and the generation much later can so bring the ready parts of one
//! generation and the valid word of the next, whose parts are not written. No order of the owner's
//! stores prevents that. So a ready word says to which generation it belongs, by the generation's
//! count in bytes 12..16, and [`EntryValue::from_bytes`] takes a word of another one for no part
//! ready. (The count returns after 2^31 publications of the slot: a READ does not take that long.)
//! A READ that brings the words in the other order, the generation first and a ready word of a
//! later one, shows no part ready either.
//!
//! The entry that is read *after* the bytes needs none of this: the proof asks for its generation
//! alone. [`EntryValue::check`] compares the ready parts too, because it costs little, and a
//! location that claims more than the entry ever said is found out where the owner is still behind.
//!
//! **What the proof trusts.** The generation in a location needs no trust: a wrong one is a miss.
//! The ready parts of a page that still grows do. A forged location that names a real generation
//! and parts that no reader has seen ready can make a reader read a part while it is written, and
//! accept it if the part is ready by the time of the check. So the ready parts of a location come
//! from the reader's own READ of the entry, or from the owner over an authenticated connection, and
//! from nowhere else. Pages that are published whole are not concerned: none of their bytes is
//! written while their generation can be named.
//!
//! # Order, for devices
//!
//! The argument rests on the order of the owner's stores, and NICs must see that order, not only
//! threads. Raising the number of ready parts is ordered by the same barrier as a publication.
//!
//! One READ may bring the entries of several slots, once the last data byte of all of their pages
//! has arrived. The argument above holds for each entry with the moment at which that entry was
//! read as its t'.

use core::mem::offset_of;
use core::sync::atomic::{AtomicU64, Ordering, fence};

use static_assertions::{assert_eq_size, const_assert_eq};

mod value;
mod words;

pub use self::value::{ENTRY_BYTES, EntryValue, Miss};
pub use self::words::{Generation, KeyTag, Ready};
use crate::barrier::device_release;

/// Stands for the number of a table entry where the page is not validated.
pub(crate) const NO_ENTRY: u32 = u32::MAX;

/// One slot's entry, in the owner's memory, where peers READ it.
///
/// Its methods are the owner's. One thread at a time publishes the slot, begins a page there and
/// makes parts ready. Any thread may make the entry invalid at any moment, and look at it. Bytes
/// that other threads wrote into the slot must have been handed to the publishing thread (by a
/// join, a channel, a lock) before they are published or become ready. A thread that made
/// non-temporal stores ends them with an `sfence` before it hands them on.
#[repr(C, align(32))]
#[derive(Debug, Default)]
pub struct Entry {
    generation: AtomicU64,
    /// [`EntryValue::ready_word`].
    ready: AtomicU64,
    /// The low half first.
    tag: [AtomicU64; 2],
}

assert_eq_size!(Entry, [u8; ENTRY_BYTES as usize]);
const_assert_eq!(align_of::<Entry>(), ENTRY_BYTES as usize);
const_assert_eq!(offset_of!(Entry, generation), 0);
const_assert_eq!(offset_of!(Entry, ready), 8);
const_assert_eq!(offset_of!(Entry, tag), 16);

/// Why the number of ready parts was not raised. The entry is as it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GrowError {
    /// The slot has no valid generation.
    #[error("no page is published in the slot (generation {0}): begin one first")]
    NotPublished(Generation),
    /// Fewer parts would be ready than readers have been told.
    #[error(
        "ready in generation {generation}: {now}; they cannot become {to}, for peers may be reading them: invalidate the slot first"
    )]
    Falls {
        /// The publication.
        generation: Generation,
        /// The parts that are ready.
        now: Ready,
        /// The refused number.
        to: Ready,
    },
    /// These parts are ready already, so no byte of them may be written.
    #[error(
        "ready in generation {generation}: {now} already, and peers may be reading them: write none of their bytes, or invalidate the slot first"
    )]
    AlreadyReady {
        /// The publication.
        generation: Generation,
        /// The parts that are ready.
        now: Ready,
    },
}

impl GrowError {
    /// The number of this error in docs/errors.md, for logs, metrics and callers in other
    /// languages.
    #[must_use]
    pub const fn code(&self) -> u32 {
        match self {
            Self::NotPublished(..) => 2065,
            Self::Falls { .. } => 2066,
            Self::AlreadyReady { .. } => 2067,
        }
    }
}

impl Entry {
    /// A slot that has never been published.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            generation: AtomicU64::new(0),
            ready: AtomicU64::new(0),
            tag: [const { AtomicU64::new(0) }; 2],
        }
    }

    /// Makes the slot invalid for every reader, those included that have read its bytes and not yet
    /// its entry. Call it before the first byte of the slot is overwritten.
    pub fn invalidate(&self) {
        // One operation: a generation that another thread publishes meanwhile is not lost.
        self.generation.fetch_and(Generation::CLEAR_VALID.to_le(), Ordering::Relaxed);
        // The invalid entry is visible, to peers' NICs too, before any byte that is stored from
        // here on.
        device_release();
    }

    /// Makes the slot invalid if it holds the page of `generation`, and says whether it did. A page
    /// of another generation stays as it is, even one that another thread publishes meanwhile.
    pub fn invalidate_generation(&self, generation: Generation) -> bool {
        let (from, to) = (generation.0.to_le(), generation.invalid().0.to_le());
        let held = generation.is_valid()
            && self.generation.compare_exchange(from, to, Ordering::Relaxed, Ordering::Relaxed).is_ok();
        if held {
            // As in `invalidate`.
            device_release();
        }
        held
    }

    /// Publishes the slot's bytes, the whole page, under `tag`, and returns the new generation.
    /// Call it after the last byte has been written. `nonce` is random, fresh each time, and not
    /// known before. The slot has been invalidated before its first byte was written.
    ///
    /// # Panics
    ///
    /// In a debug build, if the slot has not been invalidated.
    pub fn publish(&self, tag: KeyTag, nonce: u32) -> Generation {
        self.announce(tag, nonce, Ready::WHOLE)
    }

    /// Publishes a page of which no part is ready, under `tag`, and returns its generation.
    /// [`set_ready`](Self::set_ready) and [`finish`](Self::finish) make its parts ready. `nonce` is
    /// as in [`publish`](Self::publish). The slot has been invalidated.
    ///
    /// # Panics
    ///
    /// As [`publish`](Self::publish).
    pub fn begin(&self, tag: KeyTag, nonce: u32) -> Generation {
        self.announce(tag, nonce, Ready::NONE)
    }

    fn announce(&self, tag: KeyTag, nonce: u32, ready: Ready) -> Generation {
        let now = self.load();
        debug_assert!(!now.is_valid(), "the slot was invalidated before it is published again");
        let value = EntryValue { generation: now.successor(nonce), ready, tag };
        self.ready.store(value.ready_word().to_le(), Ordering::Relaxed);
        self.tag[0].store((tag.0 as u64).to_le(), Ordering::Relaxed);
        self.tag[1].store(((tag.0 >> 64) as u64).to_le(), Ordering::Relaxed);
        // All bytes stored so far, the ready word and the tag are visible, to peers' NICs too,
        // before the valid entry is.
        device_release();
        self.generation.store(value.generation.0.to_le(), Ordering::Release);
        value.generation
    }

    /// Makes the parts of the page below number `parts` ready. Call it after their bytes have been
    /// written; they must not be written again in this generation.
    ///
    /// # Errors
    ///
    /// The slot is not published, or more parts are ready already: readers may have been told so.
    pub fn set_ready(&self, parts: u32) -> Result<(), GrowError> {
        self.raise(Ready(parts))
    }

    /// Makes the whole page ready. Call it after its last byte has been written.
    ///
    /// # Errors
    ///
    /// The slot is not published.
    pub fn finish(&self) -> Result<(), GrowError> {
        self.raise(Ready::WHOLE)
    }

    /// The content of the entry once `to` parts are ready, if some of them may be written now.
    /// Changes nothing. So an owner learns of a refusal before it writes bytes.
    ///
    /// # Errors
    ///
    /// Those of [`set_ready`](Self::set_ready); or exactly these parts are ready already, and
    /// nothing of them may be written.
    pub fn may_become(&self, to: Ready) -> Result<EntryValue, GrowError> {
        let now = self.snapshot();
        let value = Self::raised(now, to)?;
        if to == now.ready {
            return Err(GrowError::AlreadyReady { generation: now.generation, now: to });
        }
        Ok(value)
    }

    /// `from` with `to` parts ready.
    fn raised(from: EntryValue, to: Ready) -> Result<EntryValue, GrowError> {
        let EntryValue { generation, ready: now, tag } = from;
        if !generation.is_valid() {
            return Err(GrowError::NotPublished(generation));
        }
        if to < now {
            return Err(GrowError::Falls { generation, now, to });
        }
        Ok(EntryValue { generation, ready: to, tag })
    }

    fn raise(&self, to: Ready) -> Result<(), GrowError> {
        let value = Self::raised(self.snapshot(), to)?;
        // All bytes stored so far are visible, to peers' NICs too, before the number that says so.
        device_release();
        self.ready.store(value.ready_word().to_le(), Ordering::Release);
        Ok(())
    }

    /// Makes an entry of the reader's landing area invalid, before the READ that fills it. The
    /// other words need no change: without that READ the entry stays invalid, and with it they are
    /// those of the READ.
    #[inline]
    pub(crate) fn clear(&self) {
        self.generation.store(0, Ordering::Relaxed);
    }

    /// Whether an entry of the landing area is the expected one, as [`EntryValue::check`] compares
    /// them. The ready parts are taken as they stand: their generation matters where parts are
    /// *seen* ready, and not after their bytes.
    // One comparison for three words: this is done for every page, with a value that is read out of
    // the page.
    #[inline(always)]
    pub(crate) fn confirms(&self, expected: &EntryValue) -> bool {
        let (tag, expected_tag) = (self.tag().0, expected.tag.0);
        let other = (tag as u64 ^ expected_tag as u64) | ((tag >> 64) as u64 ^ (expected_tag >> 64) as u64);
        self.load().0 ^ expected.generation.0 | other == 0
            && expected.generation.is_valid()
            && self.ready_word() as u32 >= expected.ready.0
    }

    /// Why an entry of the landing area does not confirm the expected one.
    #[inline(always)]
    pub(crate) fn miss(&self, expected: EntryValue) -> Miss {
        let ready = Ready(self.ready_word() as u32);
        EntryValue { generation: self.load(), ready, tag: self.tag() }.miss(expected)
    }

    /// The slot's generation now.
    #[inline]
    #[must_use]
    pub fn load(&self) -> Generation {
        Generation(u64::from_le(self.generation.load(Ordering::Acquire)))
    }

    #[inline]
    fn ready_word(&self) -> u64 {
        u64::from_le(self.ready.load(Ordering::Relaxed))
    }

    #[inline]
    fn tag(&self) -> KeyTag {
        let [low, high] = [&self.tag[0], &self.tag[1]].map(|word| u64::from_le(word.load(Ordering::Relaxed)));
        KeyTag(u128::from(low) | u128::from(high) << 64)
    }

    /// The content now. If its generation is valid, all of it is of this publication, whatever
    /// another thread of the owner does meanwhile.
    #[must_use]
    pub fn snapshot(&self) -> EntryValue {
        loop {
            let generation = self.load();
            let ready = EntryValue::ready_in(self.ready_word(), generation);
            let tag = self.tag();
            // Before a tag is stored, the entry is made invalid, and a barrier is passed. So a
            // later publication's tag shows a later generation here.
            fence(Ordering::Acquire);
            if self.load() == generation {
                return EntryValue { generation, ready, tag };
            }
        }
    }
}

#[cfg(test)]
mod interleavings;
#[cfg(test)]
mod tests;
