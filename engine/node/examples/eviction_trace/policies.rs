//! The policies that were compared, and not taken.

use std::collections::{BTreeMap, HashSet, VecDeque};

use crate::policy::{Policy, SlotList};

/// Evicts the page that was not used for the longest time.
pub(crate) struct Lru(SlotList);

impl Policy for Lru {
    fn new(slots: u32) -> Self {
        Self(SlotList::new(slots))
    }

    fn insert(&mut self, slot: u32, _tag: u128) {
        self.0.push(slot);
    }

    fn touch(&mut self, slot: u32) {
        self.0.take(slot);
        self.0.push(slot);
    }

    fn remove(&mut self, slot: u32) {
        self.0.take(slot);
    }

    fn evict(&mut self) -> Option<u32> {
        self.0.oldest().inspect(|&slot| self.0.take(slot))
    }
}

/// FIFO in which a page that was used since it was put in is put in again: CLOCK.
pub(crate) struct Clock {
    pages: SlotList,
    used: Vec<bool>,
}

impl Policy for Clock {
    fn new(slots: u32) -> Self {
        Self { pages: SlotList::new(slots), used: vec![false; slots as usize] }
    }

    fn insert(&mut self, slot: u32, _tag: u128) {
        self.used[slot as usize] = false;
        self.pages.push(slot);
    }

    fn touch(&mut self, slot: u32) {
        self.used[slot as usize] = true;
    }

    fn remove(&mut self, slot: u32) {
        self.pages.take(slot);
    }

    fn evict(&mut self) -> Option<u32> {
        loop {
            let slot = self.pages.oldest()?;
            self.pages.take(slot);
            if !std::mem::take(&mut self.used[slot as usize]) {
                return Some(slot);
            }
            self.pages.push(slot);
        }
    }
}

/// SIEVE: Zhang et al., "SIEVE is Simpler than LRU" (NSDI 2024). Pages stay in the order in which
/// they came; a hand goes from old to new ones, clears marks, and takes the first without one.
pub(crate) struct Sieve {
    /// Slots by the number of their insertion.
    pages: BTreeMap<u64, u32>,
    numbers: Vec<u64>,
    used: Vec<bool>,
    next: u64,
    /// The hand stands at the first page from this number on.
    hand: u64,
}

impl Policy for Sieve {
    fn new(slots: u32) -> Self {
        let n = slots as usize;
        Self { pages: BTreeMap::new(), numbers: vec![0; n], used: vec![false; n], next: 0, hand: 0 }
    }

    fn insert(&mut self, slot: u32, _tag: u128) {
        (self.used[slot as usize], self.numbers[slot as usize]) = (false, self.next);
        self.pages.insert(self.next, slot);
        self.next += 1;
    }

    fn touch(&mut self, slot: u32) {
        self.used[slot as usize] = true;
    }

    fn remove(&mut self, slot: u32) {
        self.pages.remove(&self.numbers[slot as usize]);
    }

    fn evict(&mut self) -> Option<u32> {
        loop {
            let at = self.pages.range(self.hand..).next().or_else(|| self.pages.first_key_value());
            let (&number, &slot) = at?;
            // Behind the newest page the hand begins again, whatever comes until its next step.
            self.hand = if number + 1 == self.next { 0 } else { number + 1 };
            if !std::mem::take(&mut self.used[slot as usize]) {
                self.remove(slot);
                return Some(slot);
            }
        }
    }
}

/// S3-FIFO: Yang et al., "FIFO queues are all you need for cache eviction" (SOSP 2023). New pages
/// have `NEW` percent of the slots, and go on to the main queue with `USES` uses: 10 and 2 in the
/// paper. It counts up to 3 uses, and remembers as many keys as the main queue has slots.
pub(crate) struct S3Fifo<const NEW: usize, const USES: u8> {
    new: SlotList,
    main: SlotList,
    is_new: Vec<bool>,
    uses: Vec<u8>,
    tags: Vec<u128>,
    new_count: usize,
    new_most: usize,
    ghosts: HashSet<u128>,
    ghost_order: VecDeque<u128>,
    most_ghosts: usize,
}

impl<const NEW: usize, const USES: u8> S3Fifo<NEW, USES> {
    fn put(&mut self, slot: u32, is_new: bool) {
        self.is_new[slot as usize] = is_new;
        self.new_count += usize::from(is_new);
        if is_new { self.new.push(slot) } else { self.main.push(slot) }
    }

    fn remember(&mut self, tag: u128) {
        if self.ghosts.insert(tag) {
            self.ghost_order.push_back(tag);
        }
        while self.ghost_order.len() > self.most_ghosts {
            let old = self.ghost_order.pop_front().expect("there are some");
            self.ghosts.remove(&old);
        }
    }
}

impl<const NEW: usize, const USES: u8> Policy for S3Fifo<NEW, USES> {
    fn new(slots: u32) -> Self {
        let n = slots as usize;
        let new_most = (n * NEW / 100).max(1);
        Self {
            new: SlotList::new(slots),
            main: SlotList::new(slots),
            is_new: vec![false; n],
            uses: vec![0; n],
            tags: vec![0; n],
            new_count: 0,
            new_most,
            ghosts: HashSet::new(),
            ghost_order: VecDeque::new(),
            most_ghosts: n - new_most,
        }
    }

    fn insert(&mut self, slot: u32, tag: u128) {
        (self.uses[slot as usize], self.tags[slot as usize]) = (0, tag);
        // A remembered key stays in the order until it is its turn there.
        let is_new = !self.ghosts.contains(&tag);
        self.put(slot, is_new);
    }

    fn touch(&mut self, slot: u32) {
        let uses = &mut self.uses[slot as usize];
        *uses = (*uses + 1).min(3);
    }

    fn remove(&mut self, slot: u32) {
        if self.is_new[slot as usize] {
            self.new_count -= 1;
            self.new.take(slot);
        } else {
            self.main.take(slot);
        }
    }

    fn evict(&mut self) -> Option<u32> {
        loop {
            let from_new = self.new_count >= self.new_most || self.main.oldest().is_none();
            let slot = if from_new { self.new.oldest() } else { self.main.oldest() }?;
            self.remove(slot);
            let uses = &mut self.uses[slot as usize];
            if from_new && *uses < USES {
                self.remember(self.tags[slot as usize]);
                return Some(slot);
            }
            if !from_new && *uses == 0 {
                return Some(slot);
            }
            *uses = if from_new { 0 } else { *uses - 1 };
            self.put(slot, false);
        }
    }
}

/// The most uses that [`Lfu`] tells apart.
const MOST_USES: usize = 15;

/// Evicts the page with the fewest uses, of several the one that was not used for the longest time.
/// Uses do not age.
pub(crate) struct Lfu {
    by_uses: Vec<SlotList>,
    uses: Vec<usize>,
}

impl Policy for Lfu {
    fn new(slots: u32) -> Self {
        let by_uses = (0..=MOST_USES).map(|_| SlotList::new(slots)).collect();
        Self { by_uses, uses: vec![0; slots as usize] }
    }

    fn insert(&mut self, slot: u32, _tag: u128) {
        self.uses[slot as usize] = 0;
        self.by_uses[0].push(slot);
    }

    fn touch(&mut self, slot: u32) {
        self.remove(slot);
        let uses = &mut self.uses[slot as usize];
        *uses = (*uses + 1).min(MOST_USES);
        self.by_uses[*uses].push(slot);
    }

    fn remove(&mut self, slot: u32) {
        self.by_uses[self.uses[slot as usize]].take(slot);
    }

    fn evict(&mut self) -> Option<u32> {
        let slot = self.by_uses.iter().find_map(SlotList::oldest)?;
        self.remove(slot);
        Some(slot)
    }
}
