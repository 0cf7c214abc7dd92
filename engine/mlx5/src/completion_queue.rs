//! A completion queue: whose each entry is, and how far it has been read.

use crate::barrier;
use crate::cqe::DirectCqe;
use crate::format::{BITS_24, CQE_INVALID};
use crate::memory::CqEntries;

/// An entry that belongs to software: its last word, and the word before, if it is needed.
pub(crate) struct Entry<'q> {
    entries: &'q CqEntries,
    index: u32,
    pub(crate) last: u64,
}

impl Entry<'_> {
    /// The word before the last one.
    #[inline]
    pub(crate) fn before(&self) -> u64 {
        self.entries.load(self.index, 6)
    }
}

/// A completion queue that is read here and nowhere else.
#[derive(Debug)]
pub(crate) struct CompletionQueue {
    entries: CqEntries,
    /// How many entries have been read, modulo 2^32.
    consumer: u32,
    /// How often it was armed.
    arms: u32,
}

impl CompletionQueue {
    pub(crate) const fn new(entries: CqEntries) -> Self {
        Self { entries, consumer: 0, arms: 0 }
    }

    /// How many entries it has.
    #[inline]
    pub(crate) const fn entries(&self) -> u32 {
        self.entries.count()
    }

    /// Whether entry `index`, counted since the queue was made, has been written. The device
    /// changes the owner's bit from one lap of the queue to the next.
    #[inline]
    fn is_written(&self, index: u32) -> bool {
        let owner = self.entries.owner(index);
        let lap = index & self.entries.count() != 0;
        owner >> 4 != CQE_INVALID && (owner & 1 != 0) == lap
    }

    /// The next entry, if the device has written it.
    #[inline]
    pub(crate) fn next(&mut self) -> Option<Entry<'_>> {
        let index = self.consumer;
        if !self.is_written(index) {
            return None;
        }
        barrier::owner_before_entry();
        self.consumer = index.wrapping_add(1);
        let last = self.entries.load(index, 7);
        Some(Entry { entries: &self.entries, index, last })
    }

    /// Gives the entries that have been read back to the device.
    #[inline]
    pub(crate) fn give_back(&mut self) {
        barrier::entries_before_consumer();
        self.entries.consumed(self.consumer);
    }

    /// Makes the entries of a QP's number that are in the queue those of no QP: they are of an
    /// earlier QP of this number, which was destroyed with them unread.
    pub(crate) fn forget(&mut self, qp_num: u32) {
        for offset in 0..self.entries.count() {
            let index = self.consumer.wrapping_add(offset);
            if !self.is_written(index) {
                return;
            }
            barrier::owner_before_entry();
            let last = self.entries.load(index, 7);
            if DirectCqe::qp_num(last) == qp_num {
                self.entries.store(index, 7, last & !(u64::from(BITS_24) << 32));
            }
        }
    }

    /// Arms the queue: its next completion makes the channel readable. Each call but the first
    /// stands for an event that came after the call before. Returns whether it can be armed.
    pub(crate) fn arm(&mut self) -> bool {
        // The sequence number has two bits; the command for any completion is 0.
        let command = (self.arms & 3) << 28 | self.consumer & BITS_24;
        if !self.entries.arm_record(command) {
            return false;
        }
        barrier::record_before_register();
        self.entries.arm_register(command);
        barrier::flush_register();
        self.arms = self.arms.wrapping_add(1);
        true
    }
}
