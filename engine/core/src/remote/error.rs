//! Why a region has no such page.

/// Why a region has no such page, or a page no such part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PageRangeError {
    /// The slot is beyond the region.
    #[error("slot {slot} is beyond the remote region, whose {slots} slots end with {}", slots - 1)]
    Slot {
        /// The requested slot.
        slot: u32,
        /// How many slots the region has.
        slots: u32,
    },
    /// The region has no publication table, so the location cannot be checked.
    #[error("the peer published no table for this region: its pages can only be read unvalidated")]
    NoTable,
    /// The page has several regions, so its bytes have no place in a row.
    #[error(
        "a page of {regions} regions is no row of bytes: make a plan from a selection of it, and read by that"
    )]
    Regions {
        /// How many regions it has.
        regions: u16,
    },
    /// The part is empty, or ends beyond its page.
    #[error("bytes {offset}..{} are empty or beyond a page of {page_bytes} bytes", *offset as u64 + *len as u64)]
    Part {
        /// Where the part starts in the page.
        offset: u32,
        /// Bytes of the part.
        len: u32,
        /// Bytes of the page.
        page_bytes: u32,
    },
}

impl PageRangeError {
    /// The number of this error in docs/errors.md, for logs, metrics and callers in other
    /// languages.
    #[must_use]
    pub const fn code(&self) -> u32 {
        match self {
            Self::Slot { .. } => 2200,
            Self::NoTable => 2201,
            Self::Part { .. } => 2202,
            Self::Regions { .. } => 2203,
        }
    }
}
