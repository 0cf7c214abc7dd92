//! Pages that join a batch in one call, slots that come back in ranges, and rows of pages.
#![allow(unreachable_pub, reason = "a module of one test program")]

use kvrail_core::batch::{Batch, Done, DonePage};
use kvrail_core::error::ReadError;
use kvrail_core::memory::{Slot, SlotRange};
use kvrail_core::remote::Location;
use kvrail_core::rows::Rows;
use kvrail_core::table::Ready;

use crate::common::*;
use crate::world::{OWNERS, Part, World, range};

impl World<'_, '_, '_> {
    /// Rows of a page, which together have as many bytes as a token.
    pub fn token_of_rows(&mut self) -> Rows {
        let mut mask = 0_u64;
        while mask.count_ones() < 5 {
            mask |= 1 << self.rng.below(20);
        }
        Rows::of_mask(500, 0, mask).unwrap()
    }

    /// Fills a batch by calls that read many pages each.
    pub fn fill_in_bulk(&mut self, batch: &mut Batch<'_>, pages: &mut Vec<Part>, slots: &mut Vec<usize>) {
        for _ in 0..1 + self.rng.below(3) {
            let which = self.rng.below(OWNERS as u64) as usize;
            let Some((_, region)) = self.peers[which] else { return };
            let Some(mut to) = self.range(batch.capacity() - batch.len()) else { return };
            let unvalidated = self.rng.chance(40);
            let mut at = self.rng.below(SLOTS as u64) as usize;
            let locations: Vec<Location> = (0..to.len())
                .map(|_| {
                    let location = self.owners[which].location(at);
                    let jumps = self.rng.chance(15);
                    at = if jumps { self.rng.below(SLOTS as u64) as usize } else { (at + 1) % SLOTS };
                    location
                })
                .collect();
            let from: Vec<u32> = locations.iter().map(|location| location.slot).collect();
            if self.rng.chance(20) {
                to = self.refused(batch, which, &locations, to);
            }
            for i in 0..to.len() {
                slots.push(to.first() + i);
            }
            match unvalidated {
                true => batch.read_many_unvalidated(&region, &from, to).expect("the pages fit"),
                false => batch.read_many(&region, &locations, to).expect("the pages fit"),
            }
            for location in locations {
                let expected = self.owners[which].expected(location);
                let (first, tokens, layer_major) = (pages.len(), 0..4, false);
                let in_set = None;
                pages.push(Part { first, location, tokens, layer_major, in_set, expected, unvalidated });
                self.tally.bulk += 1;
            }
        }
    }

    /// Fills a batch by calls that read rows of several pages into one slot each.
    pub fn fill_sets(&mut self, batch: &mut Batch<'_>, pages: &mut Vec<Part>, slots: &mut Vec<usize>) {
        for _ in 0..1 + self.rng.below(3) {
            let which = self.rng.below(OWNERS as u64) as usize;
            let Some((_, region)) = self.peers[which] else { return };
            // Those of 100 bytes are in two words.
            let row = [100, 250, 500][self.rng.below(3) as usize];
            let (in_page, words) = (PAGE / row, (PAGE / row).div_ceil(64));
            let most = (batch.capacity() - batch.len()) / words;
            if most == 0 {
                return;
            }
            let Some(slot) = self.free.pop() else { return };
            assert!(self.sim.unprotect(range(&slot)));
            slots.push(slot.index());
            let (unvalidated, dense, first) = (self.rng.chance(30), self.rng.below(6), pages.len());
            let (mut locations, mut rows, mut at) = (Vec::new(), Vec::new(), 0);
            let mut place = self.rng.below(SLOTS as u64) as usize;
            for _ in 0..1 + self.rng.below(most as u64) {
                place = if self.rng.chance(30) { self.rng.below(SLOTS as u64) as usize } else { place + 1 };
                let location = self.owners[which].location(place % SLOTS);
                let expected = self.owners[which].expected(location);
                locations.push(location);
                for word in 0..words {
                    let bits = (0..dense).fold(self.rng.next(), |bits, _| bits & self.rng.next());
                    let mut bits = bits & u64::MAX >> (64 - (in_page - 64 * word).min(64));
                    if first == pages.len() && bits == 0 {
                        bits = 1;
                    }
                    let end = at + row * bits.count_ones() as usize;
                    let fits = bits != 0 && end <= PAGE;
                    rows.push(if fits { bits } else { 0 });
                    if fits {
                        let (tokens, layer_major, in_set) = (0..0, false, Some(at..end));
                        pages.push(Part {
                            first,
                            location,
                            tokens,
                            layer_major,
                            in_set,
                            expected,
                            unvalidated,
                        });
                        at = end;
                    }
                }
            }
            let from: Vec<u32> = locations.iter().map(|location| location.slot).collect();
            match unvalidated {
                true => batch.read_rows_of_unvalidated(&region, &from, row as u32, &rows, slot),
                false => batch.read_rows_of(&region, &locations, row as u32, &rows, slot),
            }
            .expect("the rows fit");
            assert_eq!(batch.len(), pages.len());
            // Another page may share the slot.
            if at + 2_500 <= PAGE
                && batch.len() < batch.capacity()
                && self.rng.chance(30)
                && let Some((page, location, expected)) = self.page()
            {
                batch.read_rows_also(page, self.token_of_rows(), at as u32).expect("the rows fit");
                let (tokens, layer_major, in_set) = (0..0, false, Some(at..at + 2_500));
                pages.push(Part {
                    first,
                    location,
                    tokens,
                    layer_major,
                    in_set,
                    expected,
                    unvalidated: false,
                });
            }
        }
    }

    /// At most `most` consecutive slots of those that are free.
    fn range(&mut self, most: usize) -> Option<SlotRange> {
        if most == 0 || self.free.is_empty() {
            return None;
        }
        self.free.sort_by_key(Slot::index);
        let at = self.rng.below(self.free.len() as u64) as usize;
        let mut whole = SlotRange::from(self.free.remove(at));
        while whole.len() < most && at < self.free.len() {
            if let Err(mut other) = whole.join(SlotRange::from(self.free.remove(at))) {
                self.free.insert(at, other.next().expect("one slot"));
                break;
            }
        }
        // Some of them stay free.
        let rest = whole.split_off(1 + self.rng.below(whole.len() as u64) as usize);
        self.free.extend(rest);
        let mut checked = whole.split_off(0);
        for i in 0..checked.len() {
            let bytes = checked.bytes_mut(i).expect("host memory");
            let (addr, len) = (bytes.as_ptr().expose_provenance() as u64, bytes.len() as u64);
            assert!(self.sim.unprotect(kvrail_core::provider::MemoryRange { addr, len }));
        }
        Some(checked)
    }

    /// A call that is refused gives the slots back, and leaves the batch as it was.
    fn refused(
        &mut self,
        batch: &mut Batch<'_>,
        which: usize,
        locations: &[Location],
        slots: SlotRange,
    ) -> SlotRange {
        let (Some((_, region)), mut wrong) = (self.peers[which], locations.to_vec()) else { return slots };
        let (first, len, before) = (slots.first(), slots.len(), batch.len());
        let at = self.rng.below(wrong.len() as u64) as usize;
        let rejected = match self.rng.below(3) {
            0 => {
                wrong[at].slot = SLOTS as u32;
                batch.read_many(&region, &wrong, slots).unwrap_err()
            }
            1 => {
                wrong[at].expected.ready = Ready::NONE;
                batch.read_many(&region, &wrong, slots).unwrap_err()
            }
            _ => {
                wrong.push(wrong[0]);
                let rejected = batch.read_many(&region, &wrong, slots).unwrap_err();
                assert_eq!(rejected.error, ReadError::SlotCount { pages: len + 1, slots: len });
                rejected
            }
        };
        assert!(rejected.page == at || matches!(rejected.error, ReadError::SlotCount { .. }));
        assert_eq!((rejected.slots.first(), rejected.slots.len(), batch.len()), (first, len, before));
        rejected.slots
    }

    /// Takes the pages of a done batch: one by one, in ranges, or some of each.
    pub fn take_pages(&mut self, done: &mut Done<'_>) -> Vec<DonePage> {
        let failed: Vec<_> =
            (0..done.len()).filter_map(|i| Some((i, done.result(i).unwrap().err()?))).collect();
        assert_eq!(done.failures().collect::<Vec<_>>(), failed);
        assert_eq!(done.all_arrived(), failed.is_empty());
        let bits = failed.iter().fold(0, |bits, (at, _)| bits | 1 << at);
        assert_eq!((done.failed_bits(0), done.failed_bits(1), done.failed_bits(usize::MAX)), (bits, 0, 0));
        let mut pages = Vec::new();
        if self.rng.chance(60) {
            while let Some(range) = done.take_range() {
                for (slot, index) in range.slots.zip(range.first..) {
                    pages.push(DonePage { index, slot, result: done.result(index).unwrap() });
                }
                if self.rng.chance(10) {
                    break;
                }
            }
        }
        pages.extend(done.pages());
        assert!(done.take_range().is_none() && done.pages().next().is_none());
        pages
    }

    /// Takes the slots of a batch that was refused.
    pub fn take_back(&mut self, batch: &mut Batch<'_>) {
        let slots: Vec<Slot> = match self.rng.chance(50) {
            true => batch.clear().collect(),
            false => batch.clear_ranges().flatten().collect(),
        };
        for slot in slots {
            self.sim.protect(range(&slot)).unwrap();
            self.free.push(slot);
        }
    }
}
