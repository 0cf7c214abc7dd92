//! What a pool counts.

/// The numbers of a pool: what is there now, and what happened since it was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct PoolStatistics {
    /// How many slots there are.
    pub slots: u32,
    /// Slots with pages that are there.
    pub pages: u32,
    /// Bytes of these pages.
    pub page_bytes: u64,
    /// Slots whose page is written now.
    pub written: u32,
    /// Slots with pins or local readers.
    pub held: u32,
    /// Pages that were published.
    pub puts: u64,
    /// Bytes of these.
    pub put_bytes: u64,
    /// Puts of a key whose page was there.
    pub already: u64,
    /// Puts of a key whose page another thread was writing.
    pub underway: u64,
    /// Puts that found all slots written or held.
    pub all_held: u64,
    /// Pages that made room for others.
    pub evictions: u64,
    /// Pages that were removed.
    pub removed: u64,
    /// Slots that were taken and given back without a page: a guard was dropped, the key was
    /// removed meanwhile, or the publisher refused the slot.
    pub abandoned: u64,
}
