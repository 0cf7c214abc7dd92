//! Memory that the device and the code under test share.
#![allow(unsafe_code, reason = "memory that is accessed through raw pointers only")]

use std::ptr::NonNull;

/// A block of queue memory, at the alignment that queues have.
#[repr(C, align(4096))]
#[derive(Clone, Copy)]
struct Page([u64; 512]);

/// Words of 64 bits, zero at first, whose address does not change. No reference to them exists.
#[derive(Debug)]
pub(crate) struct Words {
    pages: NonNull<[Page]>,
}

// SAFETY: the words are this value's own; a test or provider that has pointers to them uses them
// from one thread.
unsafe impl Send for Words {}

impl Words {
    /// At least `count` words, and whole pages of them.
    pub(crate) fn new(count: usize) -> Self {
        let pages = vec![Page([0; 512]); count.div_ceil(512).max(1)].into_boxed_slice();
        Self { pages: NonNull::from(Box::leak(pages)) }
    }

    pub(crate) fn first(&self) -> NonNull<u64> {
        self.pages.cast()
    }

    /// Where a word is.
    pub(crate) fn at(&self, index: usize) -> NonNull<u64> {
        assert!(index < self.pages.len() * 512, "word {index} of {} pages", self.pages.len());
        // SAFETY: within the pages, as checked just now.
        unsafe { self.first().add(index) }
    }

    /// A word, as a number of big-endian bytes.
    pub(crate) fn get(&self, index: usize) -> u64 {
        // SAFETY: a live word.
        u64::from_be(unsafe { self.at(index).read_volatile() })
    }

    pub(crate) fn set(&self, index: usize, value: u64) {
        // SAFETY: a live word.
        unsafe { self.at(index).write_volatile(value.to_be()) };
    }

    /// One of the halves of 32 bits, as a number of big-endian bytes.
    pub(crate) fn half(&self, index: usize) -> u32 {
        let word = self.get(index / 2);
        if index.is_multiple_of(2) { (word >> 32) as u32 } else { word as u32 }
    }
}

impl Drop for Words {
    fn drop(&mut self) {
        // SAFETY: from a box, in `new`, and given back once.
        drop(unsafe { Box::from_raw(self.pages.as_ptr()) });
    }
}
