//! A peer's published memory: the offer, which is checked once, and the regions and pages that it
//! becomes, which later steps trust.

mod error;

use kvrail_layouts::Geometry;

pub use self::error::PageRangeError;
use crate::error::ReadError;
use crate::id::{PeerId, RegionRef};
use crate::layout::{LayoutRef, NO_LAYOUT, SetLayoutError};
use crate::plan::{AddPlanError, PlanRef};
use crate::provider::RailKeys;
use crate::table::{ENTRY_BYTES, EntryValue, NO_ENTRY, Ready};

/// A peer's description of one published region. Addresses are the peer's own; there is one key for
/// each rail of the peer.
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
    /// Where the region's publication table is. Without one no page can be validated.
    pub table: Option<TableOffer>,
}

/// Where a region's publication table is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TableOffer {
    /// Where the entry of slot 0 starts; a multiple of [`ENTRY_BYTES`].
    pub base: u64,
    /// The remote key on each of the peer's rails.
    pub keys: RailKeys,
}

/// Why an offer is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OfferError {
    /// A page must have at least one byte, and no more than a work request can name.
    #[error("the peer offers pages of {0} bytes: 1 to 4294967295 can be read")]
    PageBytes(u64),
    /// The region has no slot.
    #[error("the peer offers a region of 0 slots")]
    NoSlots,
    /// The slots would overlap.
    #[error("the peer offers slots {stride} bytes apart for pages of {page_bytes} bytes: they would overlap")]
    Stride {
        /// Bytes from one slot to the next.
        stride: u64,
        /// Bytes of a page.
        page_bytes: u64,
    },
    /// The region or its table ends beyond the address space.
    #[error("the peer offers {slots} slots, {stride} bytes apart, from {base:#x}: they end beyond 2^64")]
    Wraps {
        /// Address of the first slot or entry.
        base: u64,
        /// Bytes from one to the next.
        stride: u64,
        /// How many slots.
        slots: u32,
    },
    /// The table is not aligned, so that an entry could be read in two parts.
    #[error("the peer offers a publication table at {0:#x}, which is no multiple of {ENTRY_BYTES}")]
    TableAlignment(u64),
    /// The engine's table of remote regions is full.
    #[error(
        "this engine's storage holds {limit} remote regions, and {needed} more in a row do not fit: remove a peer, or give the storage more regions"
    )]
    Full {
        /// The most remote regions of the storage.
        limit: usize,
        /// How many were to be added.
        needed: usize,
    },
    /// The pool has another number of regions than its layout.
    #[error(
        "the peer offers {offered} regions for a layout whose pages have {layout}: it must offer each once"
    )]
    Regions {
        /// How many were offered.
        offered: usize,
        /// How many the layout has.
        layout: u32,
    },
    /// A region has other bytes of each page than the layout.
    #[error("the peer offers {offered} bytes of each page in region {region}, the layout has {layout} there")]
    RegionBytes {
        /// Which region.
        region: u32,
        /// The offered bytes.
        offered: u64,
        /// The layout's.
        layout: u64,
    },
    /// Regions of one pool have different numbers of slots.
    #[error("the peer offers {slots} slots in region {region} of a pool, and {first} in region 0")]
    Uneven {
        /// Which region.
        region: u32,
        /// Its slots.
        slots: u32,
        /// Those of region 0.
        first: u32,
    },
    /// A region that is not the first of its pool has a publication table.
    #[error(
        "the peer offers a second publication table, with region {region}: a pool has one, with region 0"
    )]
    SecondTable {
        /// Which region.
        region: u32,
    },
    /// The engine cannot learn the layout.
    #[error(transparent)]
    Layout(#[from] AddPlanError),
    /// The peer was removed, or is another engine's.
    #[error("the peer was removed, or is another engine's: add it first")]
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
            Self::Regions { .. } => 2197,
            Self::RegionBytes { .. } => 2198,
            Self::Uneven { .. } => 2199,
            Self::SecondTable { .. } => 2205,
            Self::Layout(error) => error.code(),
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
    /// The first number that cannot work.
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

/// Checks that `regions` are one pool of pages of `layout`.
pub(crate) fn check_pool(layout: &Geometry, regions: &[RegionOffer]) -> Result<(), OfferError> {
    let (offered, expected) = (regions.len(), layout.regions());
    if offered != expected as usize {
        return Err(OfferError::Regions { offered, layout: expected });
    }
    let first = regions.first().map_or(0, |region| region.slots);
    for (region, offer) in (0..).zip(regions) {
        offer.check()?;
        let (offered, layout) = (offer.page_bytes, layout.region_bytes(region).unwrap_or(0));
        if offered != layout {
            return Err(OfferError::RegionBytes { region, offered, layout });
        }
        if offer.slots != first {
            return Err(OfferError::Uneven { region, slots: offer.slots, first });
        }
        if region > 0 && offer.table.is_some() {
            return Err(OfferError::SecondTable { region });
        }
    }
    Ok(())
}

/// A region of a peer, or a pool whose pages have several regions, which names the pages in it. It
/// is plain data: copy it to the threads that fill batches.
#[derive(Clone, Copy, Debug)]
pub struct RemoteRegion {
    pub(crate) peer: PeerId,
    /// The first of its regions.
    pub(crate) source: RegionRef,
    pub(crate) slots: u32,
    /// Bytes of a page, in all of its regions.
    pub(crate) page_bytes: u32,
    /// Where slot 0 starts, and bytes from one slot to the next. Where a page has several regions
    /// its address is the number of its slot: 0 and 1.
    pub(crate) base: u64,
    pub(crate) stride: u64,
    /// How many regions a page has.
    pub(crate) regions: u16,
    /// The engine's number of the layout of its pages.
    pub(crate) layout: u8,
    pub(crate) has_table: bool,
}

/// Where a page is, and in which publication. It is a hint, from a directory or a block list for
/// instance; a page counts only if the owner's table agrees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Location {
    /// The slot within the region.
    pub slot: u32,
    /// The generation and key tag under which the page was published, and how many of its parts
    /// have been seen ready in this generation: by a READ of the owner's entry, or as the owner
    /// said so. The number of ready parts is the one thing in a location that must be true
    /// ([`table`](crate::table)).
    pub expected: EntryValue,
}

/// One page, or part of one, of a peer: within bounds by construction.
#[derive(Clone, Copy, Debug)]
pub struct RemotePage {
    pub(crate) addr: u64,
    pub(crate) len: u32,
    /// Number of the slot's table entry, or [`NO_ENTRY`].
    pub(crate) entry: u32,
    /// With the parts that have been seen ready; all, if the page is not validated.
    pub(crate) expected: EntryValue,
    /// The parts that will be read.
    needs: Ready,
    pub(crate) source: RegionRef,
    /// The engine's number of its layout; [`NO_LAYOUT`] for a part of a page.
    pub(crate) layout: u8,
    /// How many regions it has. With several, `addr` is the number of its slot.
    pub(crate) regions: u16,
    /// Whether it has all bytes of the page.
    whole: bool,
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

    /// Bytes of a page, in all of its regions.
    #[must_use]
    pub const fn page_bytes(&self) -> u32 {
        self.page_bytes
    }

    /// How many regions a page has.
    #[must_use]
    pub const fn regions(&self) -> u16 {
        self.regions
    }

    /// Sets the layout of the region's pages. From then on they land only in slots of the same
    /// layout, or by plans that read pages of this layout. Copies of this value that were made
    /// before keep having no layout.
    ///
    /// # Errors
    ///
    /// The layout is another engine's, its pages have several regions, or the region has another
    /// layout already.
    pub fn set_layout(&mut self, layout: LayoutRef) -> Result<(), SetLayoutError> {
        if layout.engine != self.source.engine() {
            return Err(SetLayoutError::OtherEngine);
        }
        if layout.of_regions {
            return Err(SetLayoutError::SeveralRegions);
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
            needs: Ready::WHOLE,
            source: self.source,
            layout: self.layout,
            regions: self.regions,
            whole: true,
        })
    }

    /// The page at `location`, validated after it has been read. Of a page that still grows only
    /// parts can be read ([`RemotePage::needs`]).
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

    /// The bytes of `slot`, which are read without validation: nothing proves that they are one
    /// page, or which, or that none is missing (a false success just before a lane fails is
    /// believed, docs/failure.md). Use it for memory that does not change, and for measuring.
    ///
    /// # Errors
    ///
    /// A slot beyond the region.
    #[inline]
    pub fn unvalidated(&self, slot: u32) -> Result<RemotePage, PageRangeError> {
        self.at(slot, NO_ENTRY, EntryValue { ready: Ready::WHOLE, ..EntryValue::default() })
    }
}

impl RemotePage {
    /// Bytes to be read.
    #[must_use]
    pub const fn len(&self) -> u32 {
        self.len
    }

    /// Always false: no page is empty.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// `len` bytes from `offset` of this page, validated as the whole is.
    ///
    /// A part has no layout, since its bytes are not where the page's layout has them; it lands
    /// only in slots without a layout. To read a part that keeps its meaning, make a plan from a
    /// selection of the page.
    ///
    /// # Errors
    ///
    /// The part is empty or ends beyond the page, or the page has several regions.
    pub fn part(self, offset: u32, len: u32) -> Result<Self, PageRangeError> {
        if self.regions > 1 {
            return Err(PageRangeError::Regions { regions: self.regions });
        }
        let error = PageRangeError::Part { offset, len, page_bytes: self.len };
        let end = offset.checked_add(len).ok_or(error)?;
        if len == 0 || end > self.len {
            return Err(error);
        }
        let layout = if len == self.len { self.layout } else { NO_LAYOUT };
        let whole = self.whole && len == self.len;
        Ok(Self { addr: self.addr + u64::from(offset), len, layout, whole, ..self })
    }

    /// Says that the READ needs only the parts of the page below number `parts` to be ready: it
    /// reads bytes of these parts and no others. So parts of a page that still grows can be read,
    /// by a plan or by [`part`](Self::part). 0 counts as 1, since every READ reads some part.
    ///
    /// A batch takes the page only if the location has seen these parts ready. Which bytes belong
    /// to which part is agreed on by publisher and reader: with too low a number, bytes that are
    /// being written could be taken for ready ones.
    #[must_use]
    pub const fn needs(self, parts: u32) -> Self {
        Self { needs: Ready(if parts == 0 { 1 } else { parts }), ..self }
    }

    /// Checks that all parts that will be read have been seen ready. `planned`: the page is read by
    /// a plan.
    #[inline]
    pub(crate) fn check_ready(&self, planned: bool) -> Result<(), ReadError> {
        if self.expected.ready == Ready::WHOLE { Ok(()) } else { self.check_growing(planned) }
    }

    #[cold]
    fn check_growing(&self, planned: bool) -> Result<(), ReadError> {
        let seen = self.expected.ready;
        // Without a plan, all bytes of a whole page are read.
        let needed = if self.whole && !planned { Ready::WHOLE } else { self.needs };
        if seen < needed { Err(ReadError::NotReady { needed, seen }) } else { Ok(()) }
    }

    /// The page moved to where `plan` begins to read. The page has been found long enough for the
    /// plan.
    pub(crate) const fn part_of(self, plan: PlanRef) -> Self {
        // The plan begins before it ends, within the page.
        self.behind(plan.source as u64)
    }

    /// The page moved by so many bytes, which lie within it.
    pub(crate) const fn behind(self, bytes: u64) -> Self {
        Self { addr: self.addr + bytes, ..self }
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
        assert_eq!(refuse(RegionOffer { table: table(16), ..OFFER }), OfferError::TableAlignment(16));
        assert!(matches!(refuse(RegionOffer { table: table(!31), ..OFFER }), OfferError::Wraps { .. }));
        // The last byte may be the last of the address space.
        let last = RegionOffer { base: u64::MAX - 9 * 128 - 100, table: None, ..OFFER };
        assert_eq!(last.check(), Ok(()));
    }
}
