//! A peer with a published pool, which overwrites its pages by the rules of the publication table.

use std::sync::LazyLock;

use kvrail_core::id::MAX_RAILS;
use kvrail_core::provider::RailKeys;
use kvrail_core::remote::{Location, RegionOffer, TableOffer};
use kvrail_core::table::{ENTRY_BYTES, EntryValue, Generation, KeyTag, Ready};
use kvrail_sim::sim::{MemoryHandle, PeerHandle, Sim};

/// Bytes of a page: two chunks of at most 4,096.
pub(super) const PAGE: usize = 6000;
pub(super) const STRIDE: usize = 6144;
/// Pages of a pool.
pub(super) const SLOTS: usize = 6;
/// Where the table begins in the published memory.
pub(super) const TABLE: usize = SLOTS * STRIDE;
/// Bytes of published memory.
pub(super) const BYTES: usize = TABLE + SLOTS * ENTRY_BYTES as usize;

/// Random bytes. The pages of all publications are cut from it, each from another byte on, so that
/// two pages differ nearly everywhere, and so do two chunks of one page.
static NOISE: LazyLock<Box<[u8]>> = LazyLock::new(|| {
    let mut state = 7_u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    (0..PAGE + 1024).map(|_| next()).collect()
});

/// The bytes of a publication.
pub(super) fn content(owner: u8, slot: usize, count: u32) -> &'static [u8] {
    let from = usize::from(owner) * 397 + slot * 61 + count as usize * 17;
    &NOISE[from % 1024..][..PAGE]
}

/// A peer's pages, its table, and what they should hold.
pub(super) struct Owner {
    pub(super) peer: PeerHandle,
    pub(super) memory: MemoryHandle,
    number: u8,
    entries: [EntryValue; SLOTS],
    /// How often each slot was published.
    counts: [u32; SLOTS],
}

impl Owner {
    pub(super) fn new<'m>(sim: &Sim<'m>, number: u8, bytes: &'m mut [u8]) -> Self {
        let peer = sim.add_peer().expect("room for the peer");
        let memory = sim.publish(peer, base(number), bytes, keys(number)).expect("room for its memory");
        let mut owner = Self { peer, memory, number, entries: Default::default(), counts: [0; SLOTS] };
        (0..SLOTS).for_each(|slot| owner.publish(sim, slot));
        owner
    }

    pub(super) fn offer(&self) -> RegionOffer {
        let table = TableOffer { base: base(self.number) + TABLE as u64, keys: keys(self.number) };
        RegionOffer {
            base: base(self.number),
            page_bytes: PAGE as u64,
            stride: STRIDE as u64,
            slots: SLOTS as u32,
            keys: keys(self.number),
            table: Some(table),
        }
    }

    fn write_entry(&self, sim: &Sim<'_>, slot: usize) {
        let at = TABLE + slot * ENTRY_BYTES as usize;
        let bytes = self.entries[slot].to_bytes();
        sim.with_memory(self.memory, |memory| memory[at..at + bytes.len()].copy_from_slice(&bytes));
    }

    /// The first step of overwriting: makes the entry invalid.
    pub(super) fn invalidate(&mut self, sim: &Sim<'_>, slot: usize) {
        let entry = &mut self.entries[slot];
        entry.generation = Generation(entry.generation.0 & !1);
        self.write_entry(sim, slot);
    }

    /// The second step: writes bytes of the next publication. The entry is invalid.
    pub(super) fn scribble(&mut self, sim: &Sim<'_>, slot: usize, from: usize, to: usize) {
        assert!(!self.entries[slot].generation.is_valid());
        let next = content(self.number, slot, self.counts[slot] + 1);
        let at = slot * STRIDE;
        sim.with_memory(self.memory, |memory| memory[at + from..at + to].copy_from_slice(&next[from..to]));
    }

    /// Overwrites a page: all steps.
    pub(super) fn publish(&mut self, sim: &Sim<'_>, slot: usize) {
        self.invalidate(sim, slot);
        self.scribble(sim, slot, 0, PAGE);
        self.counts[slot] += 1;
        let generation = Generation(u64::from(self.counts[slot]) << 1 | 1);
        let tag =
            KeyTag(u128::from(self.number) << 100 | (slot as u128) << 64 | u128::from(self.counts[slot]));
        self.entries[slot] = EntryValue { generation, ready: Ready::WHOLE, tag };
        self.write_entry(sim, slot);
    }

    /// Whether the page can be read now.
    pub(super) fn is_valid(&self, slot: usize) -> bool {
        self.entries[slot].generation.is_valid()
    }

    /// The page's location, as it is now.
    pub(super) fn location(&self, slot: usize) -> Location {
        Location { slot: slot as u32, expected: self.entries[slot] }
    }

    /// The bytes that a page must have that was read at `location` and validated.
    pub(super) fn expected(&self, location: Location) -> &'static [u8] {
        content(self.number, location.slot as usize, location.expected.generation.count())
    }
}

fn base(owner: u8) -> u64 {
    0x7000_0000 + (u64::from(owner) << 40)
}

fn keys(owner: u8) -> RailKeys {
    assert!(usize::from(owner) < MAX_RAILS);
    std::array::from_fn(|rail| (1 + u32::from(owner)) * 100 + rail as u32)
}
