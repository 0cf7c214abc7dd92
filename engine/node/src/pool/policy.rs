//! Which page makes room for another one.
//!
//! `examples/eviction_trace.rs` compares policies behind [`Policy`]; docs/get.md has its table.

/// The order in which pages are evicted. It knows slots that have pages, and no others.
///
/// `new` gives room for all slots; no other call allocates.
pub(crate) trait Policy {
    /// A policy for slots `0..slots`, none of which has a page.
    fn new(slots: u32) -> Self;

    /// The page of `tag` has come into `slot`, which the policy does not know.
    fn insert(&mut self, slot: u32, tag: u128);

    /// The page in `slot`, which the policy knows, has been used.
    fn touch(&mut self, slot: u32);

    /// The policy forgets `slot`, which it knows.
    fn remove(&mut self, slot: u32);

    /// Chooses a slot and forgets it; `None` if it knows none.
    fn evict(&mut self) -> Option<u32>;
}

/// No slot.
pub(crate) const NONE: u32 = u32::MAX;

/// A list of slots, each of which is in it once or not at all.
#[derive(Debug)]
pub(crate) struct SlotList {
    /// The neighbours of each slot; those of the last place are the ends of the list.
    links: Box<[Links]>,
}

#[derive(Clone, Copy, Debug)]
struct Links {
    older: u32,
    newer: u32,
}

impl SlotList {
    /// An empty list for slots `0..slots`.
    pub(crate) fn new(slots: u32) -> Self {
        Self { links: vec![Links { older: slots, newer: slots }; slots as usize + 1].into() }
    }

    /// The number that stands for the place between the newest slot and the oldest.
    fn ends(&self) -> u32 {
        (self.links.len() - 1) as u32
    }

    fn slot(&self, slot: u32) -> Option<u32> {
        (slot != self.ends()).then_some(slot)
    }

    /// The slot that was put in first, of those that are in the list.
    pub(crate) fn oldest(&self) -> Option<u32> {
        self.slot(self.links[self.ends() as usize].newer)
    }

    /// The slot that was put in next after `slot`, which is in the list.
    pub(crate) fn newer(&self, slot: u32) -> Option<u32> {
        self.slot(self.links[slot as usize].newer)
    }

    /// Puts in `slot`, which is not in the list, as the newest.
    pub(crate) fn push(&mut self, slot: u32) {
        let ends = self.ends();
        let older = self.links[ends as usize].older;
        self.links[slot as usize] = Links { older, newer: ends };
        self.links[older as usize].newer = slot;
        self.links[ends as usize].older = slot;
    }

    /// Takes out `slot`, which is in the list.
    pub(crate) fn take(&mut self, slot: u32) {
        let Links { older, newer } = self.links[slot as usize];
        self.links[older as usize].newer = newer;
        self.links[newer as usize].older = older;
    }
}

/// SIEVE: Zhang et al., "SIEVE is Simpler than LRU" (NSDI 2024). Pages stay in the order in which
/// they came. A hand goes from old to new pages, clears the marks of those that were used since it
/// came by last, and takes the first that has no mark.
#[derive(Debug)]
pub(crate) struct Sieve {
    pages: SlotList,
    used: Box<[bool]>,
    /// The page at which the hand stands, or [`NONE`]: the hand begins at the oldest page.
    hand: u32,
}

/// The most marks that are cleared for one eviction: it bounds the time for which a pool is locked.
/// Then the page at the hand goes, mark or not.
const MOST_STEPS: u32 = 256;

impl Policy for Sieve {
    fn new(slots: u32) -> Self {
        Self { pages: SlotList::new(slots), used: vec![false; slots as usize].into(), hand: NONE }
    }

    fn insert(&mut self, slot: u32, _tag: u128) {
        self.used[slot as usize] = false;
        self.pages.push(slot);
    }

    fn touch(&mut self, slot: u32) {
        self.used[slot as usize] = true;
    }

    fn remove(&mut self, slot: u32) {
        if self.hand == slot {
            self.hand = self.pages.newer(slot).unwrap_or(NONE);
        }
        self.pages.take(slot);
    }

    fn evict(&mut self) -> Option<u32> {
        let mut at = if self.hand == NONE { self.pages.oldest()? } else { self.hand };
        for _ in 0..MOST_STEPS {
            if !std::mem::take(&mut self.used[at as usize]) {
                break;
            }
            at = self.pages.newer(at).or_else(|| self.pages.oldest())?;
        }
        self.hand = at;
        self.remove(at);
        Some(at)
    }
}
