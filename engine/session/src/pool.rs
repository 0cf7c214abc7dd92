//! Pools: a producer's regions of one layout, and the offer of all that a reader knows.

use std::collections::BTreeMap;
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

/// A producer's regions of one layout. It has been checked: the regions can hold the layout's
/// pages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pool {
    id: PoolId,
    layout: Layout,
    regions: Vec<OfferedRegion>,
}

impl Pool {
    /// The pool `id` of `regions` that hold pages of `layout`.
    ///
    /// # Errors
    ///
    /// The regions cannot hold pages of the layout, or are too many.
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

    /// Its regions, in the producer's order.
    #[must_use]
    pub fn regions(&self) -> &[OfferedRegion] {
        &self.regions
    }
}

/// Why a pool cannot be offered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PoolError {
    /// A region holds a part that the layout does not have.
    #[error(
        "region {index} holds part {part} of each page, but the layout has {parts} parts, counted from 0"
    )]
    Part {
        /// Which region.
        index: usize,
        /// Its part.
        part: u16,
        /// The layout's parts.
        parts: u16,
    },
    /// The same part has two sizes.
    #[error(
        "region {index} has {region} bytes of part {part} of each page, but an earlier region has {earlier}"
    )]
    PartBytes {
        /// Which region.
        index: usize,
        /// Its part.
        part: u16,
        /// Its bytes of each page.
        region: u64,
        /// An earlier region's bytes of that part.
        earlier: u64,
    },
    /// The sizes of the parts do not add up to a page.
    #[error(
        "the regions hold {present} of {parts} parts, {sum} bytes of each page, but the layout's pages have {layout}"
    )]
    Page {
        /// How many parts the regions hold.
        present: usize,
        /// How many parts the layout has.
        parts: u16,
        /// The sum of the held parts' bytes.
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
            Self::PartBytes { .. } => 4051,
            Self::Page { .. } => 4052,
            Self::TooMany { .. } => 4053,
            Self::DuplicateId { .. } => 4054,
            Self::TooManyPools { .. } => 4055,
            Self::TooManyOffered { .. } => 4056,
        }
    }
}

/// Checks that regions can be the layout's: they are not too many, each part has one size, and the
/// sizes add up to a page if all parts are there, to less otherwise.
pub(crate) fn check_regions(layout: &Layout, regions: &[OfferedRegion]) -> Result<(), PoolError> {
    if regions.len() > MAX_REGIONS {
        return Err(PoolError::TooMany { count: regions.len() });
    }
    let (bytes, parts) = (layout.page_bytes.get(), layout.parts.get());
    // No more entries than regions.
    let mut sizes = BTreeMap::new();
    for (index, offered) in regions.iter().enumerate() {
        let (offer, part) = (offered.offer(), offered.part());
        if part >= parts {
            return Err(PoolError::Part { index, part, parts });
        }
        let region = offer.page_bytes;
        let earlier = *sizes.entry(part).or_insert(region);
        if earlier != region {
            return Err(PoolError::PartBytes { index, part, region, earlier });
        }
    }
    // 1024 sizes below 2^32.
    let sum = sizes.values().sum::<u64>();
    let present = sizes.len();
    let fits = if present == usize::from(parts) { sum == bytes } else { sum < bytes };
    if fits { Ok(()) } else { Err(PoolError::Page { present, parts, sum, layout: bytes }) }
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
    use kvrail_core::remote::RegionOffer;
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

    fn region(part: u16, page_bytes: u64) -> OfferedRegion {
        let offer = RegionOffer {
            base: 0,
            page_bytes,
            stride: page_bytes,
            slots: 1,
            keys: [0; MAX_RAILS],
            table: None,
        };
        OfferedRegion::new(offer).unwrap().of_part(part)
    }

    #[test]
    fn parts_add_up_to_a_page() {
        let check = |parts, regions: &[(u16, u64)]| {
            let regions: Vec<_> = regions.iter().map(|&(part, bytes)| region(part, bytes)).collect();
            check_regions(&layout(100, parts), &regions)
        };
        assert_eq!(check(1, &[(0, 100), (0, 100)]), Ok(()));
        assert_eq!(check(1, &[]), Ok(()));
        // Two pools, of which the second has not published all its parts yet.
        assert_eq!(check(3, &[(0, 40), (2, 20), (1, 40), (0, 40)]), Ok(()));
        assert_eq!(check(3, &[(2, 20)]), Ok(()));
        let page = |present, parts, sum| Err(PoolError::Page { present, parts, sum, layout: 100 });
        assert_eq!(check(1, &[(0, 99)]), page(1, 1, 99));
        assert_eq!(check(2, &[(0, 100)]), page(1, 2, 100));
        assert_eq!(check(2, &[(0, 50), (1, 51)]), page(2, 2, 101));
        assert_eq!(check(2, &[(0, 50), (2, 50)]), Err(PoolError::Part { index: 1, part: 2, parts: 2 }));
        assert_eq!(
            check(2, &[(1, 50), (0, 50), (1, 49)]),
            Err(PoolError::PartBytes { index: 2, part: 1, region: 49, earlier: 50 })
        );
    }
}
