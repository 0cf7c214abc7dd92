//! Live words: which exports stand, in memory that readers have mapped.
//!
//! Each export has a word that holds its rkey for as long as it is exported. A reader looks at the
//! word after it has read the bytes. If the word still held the rkey, the export had not been
//! withdrawn when the bytes were read, so they were bytes of this export: the owner uses the memory
//! for something else only after the withdrawal has returned, and rkeys are not used twice.
//!
//! The order is that of a seqlock. The owner clears the word, then a fence, then writes other
//! bytes. The reader reads bytes, then a fence, then the word. If the reader got one of the other
//! bytes, it sees the cleared word.
#![allow(unsafe_code, reason = "words that another process writes or reads")]

use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicU32, Ordering, fence};

use kvrail_host::segment::{Segment, SegmentError, SegmentView, SegmentViewError};

use crate::region::MAX_EXPORTS;

/// In the word of an export whose exporter has ended. It is no rkey.
const ENDED: u32 = u32::MAX;

/// Whether an export stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    Live,
    /// It was withdrawn.
    Withdrawn,
    /// Its exporter was dropped.
    Ended,
}

/// The count of withdrawals, and a word for each export.
const WORDS: usize = 1 + MAX_EXPORTS;
const BYTES: usize = 4 * WORDS;

/// The exporter's side.
#[derive(Debug)]
pub(super) struct LiveWords(Segment);

impl LiveWords {
    pub(super) fn new() -> Result<Self, SegmentError> {
        Segment::new(BYTES).map(Self)
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.0.fd()
    }

    /// Makes the export live.
    pub(super) fn set(&self, slot: u32, rkey: u32) {
        self.word(1 + slot as usize).store(rkey, Ordering::Release);
    }

    /// Withdraws the export: what this thread stores from here on is not taken for bytes of it.
    pub(super) fn clear(&self, slot: u32) {
        self.replace(slot, 0);
    }

    /// The same for an export whose exporter ends.
    pub(super) fn end(&self, slot: u32) {
        self.replace(slot, ENDED);
    }

    fn replace(&self, slot: u32, value: u32) {
        self.word(1 + slot as usize).store(value, Ordering::Release);
        self.word(0).fetch_add(1, Ordering::Release);
        fence(Ordering::SeqCst);
    }

    fn word(&self, index: usize) -> &AtomicU32 {
        assert!(index < WORDS, "word {index} of {WORDS}");
        let at = self.0.as_ptr().cast::<u32>().wrapping_add(index);
        // SAFETY: within the segment, which is WORDS words long or longer, begins at a page, and
        // lives as long as `self`. This process accesses it by atomics only.
        unsafe { AtomicU32::from_ptr(at) }
    }
}

/// A reader's side.
#[derive(Debug)]
pub(super) struct LiveView(SegmentView);

impl LiveView {
    pub(super) fn map(fd: BorrowedFd<'_>) -> Result<Self, SegmentViewError> {
        SegmentView::map(fd, BYTES as u64).map(Self)
    }

    /// Whether the export stands. The bytes that this thread has read so far, by itself or by a
    /// system call, were read before the answer.
    #[inline]
    pub(super) fn standing(&self, slot: u32, rkey: u32) -> Standing {
        // A full fence: an acquire fence orders atomic loads alone.
        fence(Ordering::SeqCst);
        match self.word(1 + slot as usize) {
            word if word == rkey => Standing::Live,
            ENDED => Standing::Ended,
            _ => Standing::Withdrawn,
        }
    }

    /// How many exports have been withdrawn.
    #[inline]
    pub(super) fn withdrawals(&self) -> u32 {
        self.word(0)
    }

    #[inline]
    fn word(&self, index: usize) -> u32 {
        assert!(index < WORDS, "word {index} of {WORDS}");
        let at = self.0.as_ptr().cast::<u32>().wrapping_add(index);
        // SAFETY: within the view, which is WORDS words long, begins at a page, and lives as long
        // as `self`. Another process writes the word, so the read is volatile: one load of four
        // aligned bytes, of which every value is valid.
        unsafe { at.read_volatile() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_view_sees_what_is_live_and_counts_what_is_not() {
        let words = LiveWords::new().unwrap();
        let view = LiveView::map(words.fd()).unwrap();
        let last = MAX_EXPORTS as u32 - 1;
        words.set(0, 7);
        words.set(last, 8);
        let seen = || [(0, 7), (last, 8), (0, 8), (1, 7)].map(|(slot, rkey)| view.standing(slot, rkey));
        use Standing::{Ended, Live, Withdrawn};
        assert_eq!(seen(), [Live, Live, Withdrawn, Withdrawn]);
        assert_eq!(view.withdrawals(), 0);
        words.clear(0);
        assert_eq!(seen(), [Withdrawn, Live, Withdrawn, Withdrawn]);
        words.end(last);
        assert_eq!(seen(), [Withdrawn, Ended, Withdrawn, Withdrawn]);
        assert_eq!(view.withdrawals(), 2);
    }
}
