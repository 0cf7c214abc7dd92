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

/// A producer's slots for pages of one layout, in one piece or in several. A piece is a range of
/// the pool's slots: one region for each part of the layout, and the publication table of these
/// slots. Slots are numbered through all pieces. It has been checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pool {
    id: PoolId,
    layout: Layout,
    regions: Vec<OfferedRegion>,
}

impl Pool {
    /// The pool `id` of `regions` that hold pages of `layout`, piece after piece. Region `i` of a
    /// piece holds part `i` of each page, and region 0 of a piece has the publication table of the
    /// piece's slots.
    ///
    /// # Errors
    ///
    /// A piece does not have one region for each part, in their order; its regions have different
    /// numbers of slots; its first region has no table, or another one has; its bytes do not add up
    /// to a page; or the slots of all pieces cannot be numbered.
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

    /// Its regions, piece after piece, those of a piece in the order of the layout's parts: at
    /// least one.
    #[must_use]
    pub fn regions(&self) -> &[OfferedRegion] {
        &self.regions
    }

    /// The regions of each piece, at least one piece. The regions of a piece have as many slots.
    pub fn pieces(&self) -> impl ExactSizeIterator<Item = &[OfferedRegion]> {
        self.regions.chunks_exact(self.layout.parts.get().into())
    }
}

/// Why a pool cannot be offered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PoolError {
    /// There are no regions, or their number is no multiple of the layout's parts.
    #[error(
        "the pool has {count} regions, but pages of its layout have {parts} parts: each piece of a pool has one region for each part"
    )]
    Regions {
        /// How many regions.
        count: usize,
        /// The layout's parts.
        parts: u16,
    },
    /// The regions are not in the order of the parts that they hold.
    #[error(
        "region {index} holds part {part} of each page: in a pool of pieces of {parts} parts, counted from 0, it has to hold part {}", index % usize::from(*parts).max(1)
    )]
    Part {
        /// Which region.
        index: usize,
        /// Its part.
        part: u16,
        /// The layout's parts.
        parts: u16,
    },
    /// A region has another number of slots than the first one of its piece.
    #[error(
        "region {index} has {slots} slots, but the first of its piece has {first}: a slot has a place in every region of a piece"
    )]
    Slots {
        /// Which region.
        index: usize,
        /// Its slots.
        slots: u32,
        /// The slots of the piece's first region.
        first: u32,
    },
    /// The first region of a piece has no table.
    #[error(
        "region {index} begins a piece of the pool and has no publication table: give it that of the piece's slots"
    )]
    NoTable {
        /// Which region.
        index: usize,
    },
    /// A region that is not the first one of its piece has a table.
    #[error(
        "region {index} has a publication table: the first region of a piece has the only one, which is for the {parts} regions of the piece"
    )]
    SecondTable {
        /// Which region.
        index: usize,
        /// How many regions a piece has.
        parts: u16,
    },
    /// The slots of all pieces are more than can be numbered.
    #[error(
        "the pieces of the pool have {slots} slots: at most 4294967295 can be numbered; make several pools of them"
    )]
    Numbers {
        /// The slots of all pieces.
        slots: u64,
    },
    /// The sizes of the parts do not add up to a page.
    #[error(
        "the {parts} regions of a piece hold {sum} bytes of each page, but the layout's pages have {layout}"
    )]
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
            Self::NoTable { .. } => 4058,
            Self::SecondTable { .. } => 4059,
            Self::Slots { .. } => 4049,
            Self::Numbers { .. } => 4051,
        }
    }
}

/// Checks that a pool of a layout of `parts` parts can have `count` regions.
///
/// # Errors
///
/// More than [`MAX_REGIONS`], none, or pieces that are not whole.
pub(crate) const fn check_count(count: usize, parts: u16) -> Result<(), PoolError> {
    if count > MAX_REGIONS {
        return Err(PoolError::TooMany { count });
    }
    if count == 0 || parts == 0 || !count.is_multiple_of(parts as usize) {
        return Err(PoolError::Regions { count, parts });
    }
    Ok(())
}

/// Checks that regions are a pool of the layout: whole pieces, with slots that can be numbered.
fn check_regions(layout: &Layout, regions: &[OfferedRegion]) -> Result<(), PoolError> {
    let parts = layout.parts.get();
    check_count(regions.len(), parts)?;
    let pieces = regions.chunks_exact(parts.into());
    let firsts = (0..).step_by(parts.into());
    // 1024 numbers below 2^32.
    let mut slots: u64 = 0;
    for (piece, first) in pieces.zip(firsts) {
        slots += u64::from(check_piece(layout, piece, first)?);
    }
    if u32::try_from(slots).is_ok() { Ok(()) } else { Err(PoolError::Numbers { slots }) }
}

/// Checks the regions of one piece, of which the first is number `at` of the pool: they hold the
/// parts in their order, which together have the bytes of a page; they have as many slots; and the
/// first has the only table. Two tables for one page could disagree about what is in it. Returns
/// the number of slots.
fn check_piece(layout: &Layout, piece: &[OfferedRegion], at: usize) -> Result<u32, PoolError> {
    let (bytes, parts) = (layout.page_bytes.get(), layout.parts.get());
    // A layout has a part.
    let first = piece.first().map_or(0, |region| region.offer().slots);
    for (place, offered) in piece.iter().enumerate() {
        let (offer, part, index) = (offered.offer(), offered.part(), at + place);
        if usize::from(part) != place {
            return Err(PoolError::Part { index, part, parts });
        }
        if offer.slots != first {
            return Err(PoolError::Slots { index, slots: offer.slots, first });
        }
        match (place, &offer.table) {
            (0, None) => return Err(PoolError::NoTable { index }),
            (1.., Some(_)) => return Err(PoolError::SecondTable { index, parts }),
            _ => {}
        }
    }
    // 1024 sizes below 2^32.
    let sum = piece.iter().map(|region| region.offer().page_bytes).sum::<u64>();
    if sum == bytes { Ok(first) } else { Err(PoolError::Page { parts, sum, layout: bytes }) }
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

    fn check(parts: u16, regions: &[(u16, u64)]) -> Result<(), PoolError> {
        let regions: Vec<_> = regions.iter().map(|&(part, bytes)| region(part, bytes)).collect();
        check_regions(&layout(100, parts), &regions)
    }

    #[test]
    fn a_piece_has_each_part_once_and_in_its_order() {
        assert_eq!(check(1, &[(0, 100)]), Ok(()));
        assert_eq!(check(3, &[(0, 40), (1, 40), (2, 20)]), Ok(()));
        let regions = |count, parts| Err(PoolError::Regions { count, parts });
        assert_eq!(check(1, &[]), regions(0, 1));
        assert_eq!(check(3, &[(0, 40), (1, 40)]), regions(2, 3), "a part is missing");
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
    fn a_pool_in_pieces_has_whole_ones() {
        assert_eq!(check(1, &[(0, 100), (0, 100)]), Ok(()));
        assert_eq!(check(2, &[(0, 50), (1, 50), (0, 50), (1, 50)]), Ok(()));
        // As many as a pool may have.
        let full: Vec<_> = (0..MAX_REGIONS as u16).map(|region| (region % 2, 50)).collect();
        assert_eq!(check(2, &full), Ok(()));
        let regions = |count, parts| Err(PoolError::Regions { count, parts });
        assert_eq!(check(2, &[(0, 50), (1, 50), (0, 50)]), regions(3, 2), "the second has no part 1");
        let part = |index, part, parts| Err(PoolError::Part { index, part, parts });
        assert_eq!(check(2, &[(0, 50), (0, 50), (1, 50), (1, 50)]), part(1, 0, 2), "part by part");
        assert_eq!(check(2, &[(0, 50), (1, 50), (1, 50), (0, 50)]), part(2, 1, 2));
        let page = PoolError::Page { parts: 2, sum: 99, layout: 100 };
        assert_eq!(check(2, &[(0, 50), (1, 50), (0, 50), (1, 49)]), Err(page));
        let error = check(2, &[(0, 50), (1, 50), (0, 50), (2, 50)]).unwrap_err();
        assert!(error.to_string().ends_with("it has to hold part 1"), "{error}");
    }

    /// The check of two pieces of three regions, whose offers `change` has changed.
    fn check_changed(change: &dyn Fn(usize, &mut RegionOffer)) -> Result<(), PoolError> {
        let regions = (0..6).map(|index| {
            let part = index % 3;
            let mut offer = offer(part, 50);
            change(usize::from(index), &mut offer);
            OfferedRegion::new(offer).unwrap().of_part(part)
        });
        check_regions(&layout(150, 3), &regions.collect::<Vec<_>>())
    }

    #[test]
    fn a_piece_has_one_table_and_as_many_slots_in_each_region() {
        let table = Some(TableOffer { base: 0, keys: [0; MAX_RAILS] });
        assert_eq!(check_changed(&|_, _| ()), Ok(()));
        assert_eq!(check_changed(&|_, offer| offer.table = None), Err(PoolError::NoTable { index: 0 }));
        for (without, with) in [(0, 1), (0, 2), (3, 4), (3, 5)] {
            let none = |at, offer: &mut RegionOffer| offer.table = offer.table.filter(|_| at != without);
            assert_eq!(check_changed(&none), Err(PoolError::NoTable { index: without }));
            let second = |at, offer: &mut RegionOffer| {
                if at == with {
                    offer.table = table;
                }
            };
            assert_eq!(check_changed(&second), Err(PoolError::SecondTable { index: with, parts: 3 }));
            let fewer = |at, offer: &mut RegionOffer| offer.slots -= u32::from(at == with);
            assert_eq!(check_changed(&fewer), Err(PoolError::Slots { index: with, slots: 6, first: 7 }));
        }
        // One piece may have other slots than another.
        assert_eq!(check_changed(&|at, offer| offer.slots = if at < 3 { 7 } else { 5 }), Ok(()));
    }

    #[test]
    fn the_slots_of_all_pieces_are_numbered() {
        const HALF: u32 = 1 << 31;
        let slots = |last| {
            check_changed(&move |at, offer: &mut RegionOffer| offer.slots = if at < 3 { HALF } else { last })
        };
        assert_eq!(slots(HALF - 1), Ok(()));
        assert_eq!(slots(HALF), Err(PoolError::Numbers { slots: 1 << 32 }));
    }
}
