//! The producer's slots: their bytes, part by part, and their table entries.

use kvrail_core::table::{EntryValue, Generation, KeyTag, Ready};

/// Slots of the pool.
pub(super) const SLOTS: usize = 10;
/// Parts of a page.
pub(super) const PARTS: usize = 3;

/// Which rule the owner breaks on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Broken {
    Nothing,
    /// It overwrites slots of an ended hand-over while their entries are still valid.
    ReuseWithoutInvalidation,
    /// It does so with slots of a hand-over that is open.
    ReuseBeforeOutcome,
    /// It says that parts are ready, and writes them later.
    ReadyBeforeBytes,
}

/// One slot.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Slot {
    pub(super) entry: EntryValue,
    /// The generation whose bytes each part holds.
    pub(super) parts: [Generation; PARTS],
}

/// All slots of one life of the producer.
#[derive(Debug)]
pub(super) struct Memory {
    pub(super) slots: [Slot; SLOTS],
    pub(super) free: Vec<u32>,
    published: u64,
    epoch: u64,
}

impl Memory {
    pub(super) fn new(epoch: u64) -> Self {
        let slots = [Slot::default(); SLOTS];
        Self { slots, free: (0..SLOTS as u32).collect(), published: 0, epoch }
    }

    /// A value that no entry has held in any life of the producer.
    pub(super) fn fresh(&mut self) -> EntryValue {
        self.published += 1;
        let generation = Generation(self.epoch << 32 | self.published << 1 | 1);
        EntryValue { generation, ready: Ready(0), tag: KeyTag(self.published.into()) }
    }

    pub(super) fn invalidate(&mut self, slot: u32) {
        self.slots[slot as usize].entry.generation.0 &= !1;
    }

    pub(super) fn write(&mut self, slot: u32, parts: std::ops::Range<usize>, generation: Generation) {
        self.slots[slot as usize].parts[parts].fill(generation);
    }
}
