//! Pools: a producer's regions of one layout, and the offer of all that a reader knows.

use std::fmt;

use crate::name::NodeName;
use crate::offer::{Epoch, Layout, MAX_REGIONS, OfferedRegion, RailList};

/// The most pools that one producer offers.
pub const MAX_POOLS: usize = 256;
/// The most layouts that one reader knows.
pub const MAX_LAYOUTS: usize = 128;
/// The most regions of all pools that one producer offers to one reader.
pub const MAX_OFFERED_REGIONS: usize = 16_384;

/// A pool of the producer. The producer numbers its pools, upwards for example, and uses no number
/// twice in one epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PoolId(pub u32);

impl fmt::Display for PoolId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "pool {}", self.0)
    }
}

/// A producer's slots for pages of one layout: one region for each part of the layout, and one
/// publication table. It has been checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pool {
    id: PoolId,
    layout: Layout,
    regions: Vec<OfferedRegion>,
}

impl Pool {
    /// The pool `id` of `regions` that hold pages of `layout`: region `i` holds part `i` of each
    /// page, and the first region has the pool's publication table.
    ///
    /// # Errors
    ///
    /// There is not one region for each part, in their order; they have different numbers of slots;
    /// the first has no table, or another one has; or their bytes do not add up to a page.
    pub fn new(id: PoolId, layout: Layout, regions: Vec<OfferedRegion>) -> Result<Self, PoolError> {
        check_regions(&layout, &regions)?;
        Ok(Self { id, layout, regions })
    }

    /// Its number.
    #[must_use]
    pub const fn id(&self) -> PoolId {
        self.id
    }

    /// The layout of its pages.
    #[must_use]
    pub const fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Its regions, in the order of the layout's parts: at least one. All have as many slots.
    #[must_use]
    pub fn regions(&self) -> &[OfferedRegion] {
        &self.regions
    }
}

/// Why a pool cannot be offered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PoolError {
    /// There are fewer regions than the layout has parts, or more.
    #[error(
        "the pool has {count} regions, but pages of its layout have {parts} parts, each of which is in a region of its own"
    )]
    Regions {
        /// How many regions.
        count: usize,
        /// The layout's parts.
        parts: u16,
    },
    /// The regions are not in the order of the parts that they hold.
    #[error(
        "region {index} holds part {part} of each page: of {parts} parts, counted from 0, it has to hold part {index}"
    )]
    Part {
        /// Which region.
        index: usize,
        /// Its part.
        part: u16,
        /// The layout's parts.
        parts: u16,
    },
    /// A region has another number of slots than the first one.
    #[error("region {index} has {slots} slots, but region 0 has {first}: a slot has a place in every region")]
    Slots {
        /// Which region.
        index: usize,
        /// Its slots.
        slots: u32,
        /// The slots of the first region.
        first: u32,
    },
    /// The first region has no table.
    #[error("no region of the pool has a publication table: region 0 has the pool's")]
    NoTable,
    /// A region that is not the first one has a table.
    #[error(
        "region {index} has a publication table: region 0 has the only one, which is for all {count} regions"
    )]
    SecondTable {
        /// Which region.
        index: usize,
        /// How many regions there are.
        count: usize,
    },
    /// The sizes of the parts do not add up to a page.
    #[error("the {parts} regions hold {sum} bytes of each page, but the layout's pages have {layout}")]
    Page {
        /// How many parts the layout has.
        parts: u16,
        /// The sum of the parts' bytes.
        sum: u64,
        /// Bytes of a page of the layout.
        layout: u64,
    },
    /// There are too many regions.
    #[error("{count} regions are too many: offer at most {MAX_REGIONS}")]
    TooMany {
        /// How many there are.
        count: usize,
    },
    /// The pool's number was used before.
    #[error("the number of {id} was used before: give every pool of an epoch a number of its own")]
    DuplicateId {
        /// The number.
        id: PoolId,
    },
    /// There are as many pools as there may be.
    #[error("{id} is one more than the {MAX_POOLS} pools that a producer may offer: take one back first")]
    TooManyPools {
        /// The pool that has no place.
        id: PoolId,
    },
    /// All pools together have too many regions.
    #[error("with {id}, all pools have {count} regions: offer at most {MAX_OFFERED_REGIONS}")]
    TooManyOffered {
        /// The pool that has no place.
        id: PoolId,
        /// The regions of all pools, with those of this one.
        count: usize,
    },
}

impl PoolError {
    /// A number that never changes its meaning (docs/errors.md).
    #[must_use]
    pub const fn code(&self) -> u32 {
        match self {
            Self::Part { .. } => 4050,
            Self::Page { .. } => 4052,
            Self::TooMany { .. } => 4053,
            Self::DuplicateId { .. } => 4054,
            Self::TooManyPools { .. } => 4055,
            Self::TooManyOffered { .. } => 4056,
            Self::Regions { .. } => 4057,
            Self::NoTable => 4058,
            Self::SecondTable { .. } => 4059,
            Self::Slots { .. } => 4049,
        }
    }
}

/// Checks that regions are a pool of the layout: one for each part, in their order, which together
/// have the bytes of a page; as many slots in each; and one table, which the first region has. Two
/// tables for one page could disagree about what is in it.
fn check_regions(layout: &Layout, regions: &[OfferedRegion]) -> Result<(), PoolError> {
    let (bytes, parts, count) = (layout.page_bytes.get(), layout.parts.get(), regions.len());
    if count > MAX_REGIONS {
        return Err(PoolError::TooMany { count });
    }
    if count != usize::from(parts) {
        return Err(PoolError::Regions { count, parts });
    }
    // A layout has a part.
    let first = regions.first().map_or(0, |region| region.offer().slots);
    for (index, offered) in regions.iter().enumerate() {
        let (offer, part) = (offered.offer(), offered.part());
        if usize::from(part) != index {
            return Err(PoolError::Part { index, part, parts });
        }
        if offer.slots != first {
            return Err(PoolError::Slots { index, slots: offer.slots, first });
        }
        match (index, &offer.table) {
            (0, None) => return Err(PoolError::NoTable),
            (1.., Some(_)) => return Err(PoolError::SecondTable { index, count }),
            _ => {}
        }
    }
    // 1024 sizes below 2^32.
    let sum = regions.iter().map(|region| region.offer().page_bytes).sum::<u64>();
    if sum == bytes { Ok(()) } else { Err(PoolError::Page { parts, sum, layout: bytes }) }
}

/// What a producer offers to one reader when the session begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    /// The producer's name.
    pub producer: NodeName,
    /// The producer's epoch.
    pub epoch: Epoch,
    /// Its rails. A region's keys are in the order of the rails.
    pub rails: RailList,
    /// The pools whose layouts the reader knows, at most [`MAX_POOLS`].
    pub pools: Vec<Pool>,
    /// The layouts of the other pools, each once, at most [`MAX_POOLS`].
    pub unknown: Vec<Layout>,
}

/// A change of what a producer offers, during a session.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum OfferChange {
    /// A pool whose layout the reader knows has come.
    Came(Pool),
    /// A pool that was offered has gone: nothing of it may be read any more.
    Gone(PoolId),
    /// A pool has come whose layout the reader does not know.
    Unknown(Layout),
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::num::{NonZeroU16, NonZeroU64};

    use kvrail_core::id::MAX_RAILS;
    use kvrail_core::remote::{RegionOffer, TableOffer};
    use kvrail_layouts::Fingerprint;

    fn layout(page_bytes: u64, parts: u16) -> Layout {
        Layout {
            name: "test".parse().unwrap(),
            fingerprint: Fingerprint::from_bytes([0; 16]),
            any_rank: Fingerprint::from_bytes([0; 16]),
            page_bytes: NonZeroU64::new(page_bytes).unwrap(),
            parts: NonZeroU16::new(parts).unwrap(),
        }
    }

    fn offer(part: u16, page_bytes: u64) -> RegionOffer {
        RegionOffer {
            base: 0,
            page_bytes,
            stride: page_bytes,
            slots: 7,
            keys: [0; MAX_RAILS],
            table: (part == 0).then_some(TableOffer { base: 0, keys: [0; MAX_RAILS] }),
        }
    }

    fn region(part: u16, page_bytes: u64) -> OfferedRegion {
        OfferedRegion::new(offer(part, page_bytes)).unwrap().of_part(part)
    }

    #[test]
    fn a_pool_has_each_part_once_and_in_its_order() {
        let check = |parts, regions: &[(u16, u64)]| {
            let regions: Vec<_> = regions.iter().map(|&(part, bytes)| region(part, bytes)).collect();
            check_regions(&layout(100, parts), &regions)
        };
        assert_eq!(check(1, &[(0, 100)]), Ok(()));
        assert_eq!(check(3, &[(0, 40), (1, 40), (2, 20)]), Ok(()));
        let regions = |count, parts| Err(PoolError::Regions { count, parts });
        assert_eq!(check(1, &[]), regions(0, 1));
        assert_eq!(check(1, &[(0, 100), (0, 100)]), regions(2, 1));
        assert_eq!(check(3, &[(0, 40), (1, 40)]), regions(2, 3), "a part is missing");
        assert_eq!(check(2, &[(0, 50), (1, 50), (0, 50), (1, 50)]), regions(4, 2));
        let part = |index, part, parts| Err(PoolError::Part { index, part, parts });
        assert_eq!(check(2, &[(1, 50), (0, 50)]), part(0, 1, 2));
        assert_eq!(check(2, &[(0, 50), (0, 50)]), part(1, 0, 2));
        assert_eq!(check(2, &[(0, 50), (2, 50)]), part(1, 2, 2));
        let page = |parts, sum| Err(PoolError::Page { parts, sum, layout: 100 });
        assert_eq!(check(1, &[(0, 99)]), page(1, 99));
        assert_eq!(check(2, &[(0, 50), (1, 51)]), page(2, 101));
        let many: Vec<_> = (0..=MAX_REGIONS as u16).map(|part| (part, 1)).collect();
        assert_eq!(check(2, &many), Err(PoolError::TooMany { count: MAX_REGIONS + 1 }));
    }

    #[test]
    fn a_pool_has_one_table_and_as_many_slots_in_each_region() {
        let check = |change: &dyn Fn(usize, &mut RegionOffer)| {
            let regions = (0..3).map(|part| {
                let mut offer = offer(part, 50);
                change(usize::from(part), &mut offer);
                OfferedRegion::new(offer).unwrap().of_part(part)
            });
            check_regions(&layout(150, 3), &regions.collect::<Vec<_>>())
        };
        let table = Some(TableOffer { base: 0, keys: [0; MAX_RAILS] });
        assert_eq!(check(&|_, _| ()), Ok(()));
        assert_eq!(check(&|_, offer| offer.table = None), Err(PoolError::NoTable));
        let second = |at, offer: &mut RegionOffer| offer.table = if at < 2 { table } else { None };
        assert_eq!(check(&second), Err(PoolError::SecondTable { index: 1, count: 3 }));
        let moved = |at, offer: &mut RegionOffer| offer.table = if at == 2 { table } else { None };
        assert_eq!(check(&moved), Err(PoolError::NoTable));
        let fewer = |at, offer: &mut RegionOffer| offer.slots -= u32::from(at == 2);
        assert_eq!(check(&fewer), Err(PoolError::Slots { index: 2, slots: 6, first: 7 }));
    }
}
