//! A peer's published memory, checked once into types that later steps trust.

use crate::id::{PeerId, RegionRef};
use crate::layout::{LayoutRef, NO_LAYOUT, SetLayoutError};
use crate::plan::PlanRef;
use crate::provider::RailKeys;
use crate::table::{ENTRY_BYTES, EntryValue, NO_ENTRY};

/// What a peer says of one published region. Addresses are the peer's own, keys are per rail of the
/// peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RegionOffer {
    /// Where slot 0 starts.
    pub base: u64,
    /// Bytes of a page.
    pub page_bytes: u64,
    /// Bytes from one slot to the next, at least `page_bytes`.
    pub stride: u64,
    /// How many slots.
    pub slots: u32,
    /// The remote key on each of the peer's rails.
    pub keys: RailKeys,
    /// Its publication table, without which no page can be validated.
    pub table: Option<TableOffer>,
}

/// Where a region's publication table is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TableOffer {
    /// Where the entry of slot 0 starts; a multiple of 16.
    pub base: u64,
    /// The remote key on each of the peer's rails.
    pub keys: RailKeys,
}

/// Why an offer is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OfferError {
    /// A page must hold something, and no more than a work request can name.
    #[error("the peer offers pages of {0} bytes: 1 to 4294967295 can be read")]
    PageBytes(u64),
    /// No slots.
    #[error("the peer offers a region of 0 slots")]
    NoSlots,
    /// Slots overlap.
    #[error("the peer offers slots {stride} bytes apart for pages of {page_bytes} bytes: they would overlap")]
    Stride {
        /// Distance of two slots.
        stride: u64,
        /// One page.
        page_bytes: u64,
    },
    /// The region or its table ends beyond the address space.
    #[error("the peer offers {slots} slots, {stride} bytes apart, from {base:#x}: they end beyond 2^64")]
    Wraps {
        /// Start.
        base: u64,
        /// Distance.
        stride: u64,
        /// How many.
        slots: u32,
    },
    /// Entries must be read whole.
    #[error("the peer offers a publication table at {0:#x}, which is no multiple of 16")]
    TableAlignment(u64),
    /// The engine's table is full.
    #[error("{limit} remote regions are known already, the most that this engine's storage holds")]
    Full {
        /// The maximum.
        limit: usize,
    },
    /// The peer is not, or no longer, connected.
    #[error("the peer is not connected")]
    NoPeer,
}

impl OfferError {
    /// The number of this error in docs/errors.md, for logs, metrics and callers in other
    /// languages.
    #[must_use]
    pub const fn code(&self) -> u32 {
        match self {
            Self::PageBytes(..) => 2190,
            Self::NoSlots => 2191,
            Self::Stride { .. } => 2192,
            Self::Wraps { .. } => 2193,
            Self::TableAlignment(..) => 2194,
            Self::Full { .. } => 2195,
            Self::NoPeer => 2196,
        }
    }
}

impl RegionOffer {
    fn end_of(base: u64, stride: u64, last: u64, slots: u32) -> Option<u64> {
        base.checked_add(stride.checked_mul(u64::from(slots - 1))?)?.checked_add(last)
    }

    /// Checks every number once.
    ///
    /// # Errors
    ///
    /// The first that cannot be.
    pub fn check(&self) -> Result<(), OfferError> {
        if self.page_bytes == 0 || u32::try_from(self.page_bytes).is_err() {
            return Err(OfferError::PageBytes(self.page_bytes));
        }
        if self.slots == 0 {
            return Err(OfferError::NoSlots);
        }
        if self.stride < self.page_bytes {
            return Err(OfferError::Stride { stride: self.stride, page_bytes: self.page_bytes });
        }
        let wraps = |base, stride| OfferError::Wraps { base, stride, slots: self.slots };
        Self::end_of(self.base, self.stride, self.page_bytes, self.slots)
            .ok_or(wraps(self.base, self.stride))?;
        if let Some(table) = &self.table {
            if table.base % ENTRY_BYTES != 0 {
                return Err(OfferError::TableAlignment(table.base));
            }
            Self::end_of(table.base, ENTRY_BYTES, ENTRY_BYTES, self.slots)
                .ok_or(wraps(table.base, ENTRY_BYTES))?;
        }
        Ok(())
    }
}

/// A region of a connected peer: the handle from which pages are named. Plain data, to be copied to
/// whichever thread fills batches.
#[derive(Clone, Copy, Debug)]
pub struct RemoteRegion {
    pub(crate) peer: PeerId,
    pub(crate) source: RegionRef,
    pub(crate) slots: u32,
    pub(crate) page_bytes: u32,
    pub(crate) base: u64,
    pub(crate) stride: u64,
    /// What its pages are, by the engine's number.
    pub(crate) layout: u8,
    pub(crate) has_table: bool,
}

/// Where a page is, and what makes it that page: a hint from a directory or a block list, believed
/// only when the owner's table agrees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Location {
    /// The slot within the region.
    pub slot: u32,
    /// The generation and key tag under which it was published.
    pub expected: EntryValue,
}

/// Why a page cannot be named.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PageRangeError {
    /// Beyond the region.
    #[error("slot {slot} of a remote region that has {slots}: the last is {}", slots - 1)]
    Slot {
        /// What was asked for.
        slot: u32,
        /// How many there are.
        slots: u32,
    },
    /// The location cannot be checked.
    #[error("the peer published no table for this region: its pages can only be read unvalidated")]
    NoTable,
    /// A part beyond its page.
    #[error("bytes {offset}..{} of a page of {page_bytes} bytes", *offset as u64 + *len as u64)]
    Part {
        /// Start of the part.
        offset: u32,
        /// Its length.
        len: u32,
        /// The page.
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
        }
    }
}

/// One page, or part of one, of a peer: within bounds by construction.
#[derive(Clone, Copy, Debug)]
pub struct RemotePage {
    pub(crate) addr: u64,
    pub(crate) len: u32,
    /// Number of the slot's table entry, or [`NO_ENTRY`].
    pub(crate) entry: u32,
    pub(crate) expected: EntryValue,
    pub(crate) source: RegionRef,
    /// What it is, or is a part of, by the engine's number.
    pub(crate) layout: u8,
}

impl RemoteRegion {
    /// The peer that owns it.
    #[must_use]
    pub const fn peer(&self) -> PeerId {
        self.peer
    }

    /// How many slots it has.
    #[must_use]
    pub const fn slots(&self) -> u32 {
        self.slots
    }

    /// Bytes of a page.
    #[must_use]
    pub const fn page_bytes(&self) -> u32 {
        self.page_bytes
    }

    /// Says what its pages are: then they go only into slots of the same layout, or by plans that
    /// read such pages. Copies that were made before know nothing of it.
    ///
    /// # Errors
    ///
    /// A layout that another engine knows, or a region that has another one already.
    pub fn set_layout(&mut self, layout: LayoutRef) -> Result<(), SetLayoutError> {
        if layout.engine != self.source.engine() {
            return Err(SetLayoutError::OtherEngine);
        }
        if self.layout != NO_LAYOUT && self.layout != layout.number {
            return Err(SetLayoutError::Another);
        }
        self.layout = layout.number;
        Ok(())
    }

    #[inline]
    fn at(&self, slot: u32, entry: u32, expected: EntryValue) -> Result<RemotePage, PageRangeError> {
        if slot >= self.slots {
            return Err(PageRangeError::Slot { slot, slots: self.slots });
        }
        Ok(RemotePage {
            // Checked by RegionOffer::check for the last slot, so for every one.
            addr: self.base.wrapping_add(self.stride.wrapping_mul(u64::from(slot))),
            len: self.page_bytes,
            entry,
            expected,
            source: self.source,
            layout: self.layout,
        })
    }

    /// The page at `location`, validated after it has been read.
    ///
    /// # Errors
    ///
    /// A slot beyond the region, or a region without a table.
    #[inline]
    pub fn page(&self, location: Location) -> Result<RemotePage, PageRangeError> {
        if !self.has_table {
            return Err(PageRangeError::NoTable);
        }
        self.at(location.slot, location.slot, location.expected)
    }

    /// Whatever is in `slot`: nothing proves that it is one page, or which. For memory that does
    /// not change, and for measuring.
    ///
    /// # Errors
    ///
    /// A slot beyond the region.
    #[inline]
    pub fn unvalidated(&self, slot: u32) -> Result<RemotePage, PageRangeError> {
        self.at(slot, NO_ENTRY, EntryValue::default())
    }
}

impl RemotePage {
    /// Bytes to be read.
    #[must_use]
    pub const fn len(&self) -> u32 {
        self.len
    }

    /// Whether there is nothing to read; never, since an empty page is not made.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// `len` bytes from `offset` of this page, validated as the whole is.
    ///
    /// They are bytes of no layout, since none of them is where the page's layout has it: they go
    /// into slots of no layout. What is to keep its meaning goes by a plan of a selection.
    ///
    /// # Errors
    ///
    /// An empty part, or one that ends beyond the page.
    pub fn part(self, offset: u32, len: u32) -> Result<Self, PageRangeError> {
        let error = PageRangeError::Part { offset, len, page_bytes: self.len };
        let end = offset.checked_add(len).ok_or(error)?;
        if len == 0 || end > self.len {
            return Err(error);
        }
        let layout = if len == self.len { self.layout } else { NO_LAYOUT };
        Ok(Self { addr: self.addr + u64::from(offset), len, layout, ..self })
    }

    /// What a plan reads of this page, which has been found long enough for it.
    pub(crate) const fn part_of(self, plan: PlanRef) -> Self {
        // The plan begins before it ends, within the page.
        Self { addr: self.addr + plan.source as u64, ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::MAX_RAILS;

    const OFFER: RegionOffer = RegionOffer {
        base: 0x1000,
        page_bytes: 100,
        stride: 128,
        slots: 10,
        keys: [0; MAX_RAILS],
        table: Some(TableOffer { base: 0x9000, keys: [0; MAX_RAILS] }),
    };

    #[test]
    fn every_number_of_an_offer_is_checked() {
        assert_eq!(OFFER.check(), Ok(()));
        let refuse = |offer: RegionOffer| offer.check().unwrap_err();
        assert_eq!(refuse(RegionOffer { page_bytes: 0, ..OFFER }), OfferError::PageBytes(0));
        assert_eq!(refuse(RegionOffer { page_bytes: 1 << 32, ..OFFER }), OfferError::PageBytes(1 << 32));
        assert_eq!(refuse(RegionOffer { slots: 0, ..OFFER }), OfferError::NoSlots);
        assert!(matches!(refuse(RegionOffer { stride: 99, ..OFFER }), OfferError::Stride { .. }));
        assert!(matches!(refuse(RegionOffer { base: u64::MAX - 1000, ..OFFER }), OfferError::Wraps { .. }));
        assert!(matches!(refuse(RegionOffer { stride: u64::MAX / 2, ..OFFER }), OfferError::Wraps { .. }));
        let table = |base| Some(TableOffer { base, keys: [0; MAX_RAILS] });
        assert_eq!(refuse(RegionOffer { table: table(8), ..OFFER }), OfferError::TableAlignment(8));
        assert!(matches!(refuse(RegionOffer { table: table(!15), ..OFFER }), OfferError::Wraps { .. }));
        // The last byte may be the last of the address space.
        let last = RegionOffer { base: u64::MAX - 9 * 128 - 100, table: None, ..OFFER };
        assert_eq!(last.check(), Ok(()));
    }
}
