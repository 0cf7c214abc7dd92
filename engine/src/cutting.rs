//! How a pool is cut into pieces, where its memory is longer than one registration may be. Cuts are
//! between slots, so no page lies in two registrations.

use std::ops::Range;

use kvrail_core::provider::MemoryRange;

/// A piece of this many times the slots that have whole pages is made shorter by less than one of
/// them, so that it ends between two pages.
const ROUNDED: u64 = 8;

/// Where the slots of a pool are, at equal distances: slot `i` has the `stride` bytes from `base +
/// i * stride` on. All of them end within the address space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) base: u64,
    /// At least 1.
    pub(crate) stride: u64,
}

impl Row {
    /// The bytes of these slots.
    fn range(&self, slots: &Range<u32>) -> MemoryRange {
        let addr = self.base + self.stride * u64::from(slots.start);
        MemoryRange { addr, len: self.stride * u64::from(slots.end - slots.start) }
    }

    /// All of its slots, as memory by itself.
    pub(crate) fn stretch(self, slots: u32) -> Stretch {
        Stretch { whole: self.range(&(0..slots)), row: self }
    }

    /// How many slots in a row have whole pages of the host, if their number is a multiple of this
    /// one. `None` if slot 0 begins within a page.
    fn page_step(&self, page: u64) -> Option<u64> {
        // Pages of the host are powers of two, so the greatest common divisor is one.
        let common = 1 << self.stride.trailing_zeros().min(page.trailing_zeros());
        self.base.is_multiple_of(page).then_some(page / common)
    }
}

/// Memory that is exported whole if it is not too long, and else in pieces of the row of slots that
/// lies in it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stretch {
    pub(crate) whole: MemoryRange,
    pub(crate) row: Row,
}

/// How long one export may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limit {
    /// Bytes, counted in whole pages of the host, since those are what is pinned.
    bytes: u64,
    /// Bytes of a page of the host.
    page: u64,
}

impl Limit {
    pub(crate) fn new(bytes: u64) -> Self {
        Self { bytes, page: rustix::param::page_size() as u64 }
    }

    pub(crate) const fn bytes(self) -> u64 {
        self.bytes
    }

    /// Whether one export can have all of `range`.
    pub(crate) fn fits(self, range: MemoryRange) -> bool {
        let (addr, page) = (u128::from(range.addr), u128::from(self.page));
        let end = (addr + u128::from(range.len)).next_multiple_of(page);
        self.bytes == u64::MAX || end - addr / page * page <= u128::from(self.bytes)
    }
}

/// The pieces of a pool: ranges of equally many slots, of which the last may have fewer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cut {
    slots: u32,
    /// Slots of a piece: at least 1.
    each: u32,
    limit: Limit,
}

/// One slot of a row is longer than an export may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SlotTooLong {
    /// Bytes of the slot.
    pub(crate) stride: u64,
}

impl Cut {
    /// Cuts `slots` slots, at least 1, which have a part in each of `stretches`. Where it costs
    /// little, cuts are between pages of the host, so that each of these is pinned once.
    ///
    /// # Errors
    ///
    /// One slot is longer than an export may be.
    pub(crate) fn new(slots: u32, stretches: &[Stretch], limit: Limit) -> Result<Self, SlotTooLong> {
        let whole = limit.bytes / limit.page * limit.page;
        // Slots that begin anywhere in a page take up to a page less one byte more at each end.
        let least = (whole + 1).saturating_sub(limit.page);
        let cut = stretches.iter().filter(|stretch| !limit.fits(stretch.whole));
        let rows = || cut.clone().map(|stretch| (stretch.row, stretch.row.page_step(limit.page)));
        let (mut most, mut anywhere) = (u64::from(slots), u64::from(slots));
        // All steps are powers of two, so the largest is a multiple of the others.
        let mut step = 1;
        for (Row { stride, .. }, own_step) in rows() {
            let room = if own_step.is_some() { whole } else { least };
            (most, anywhere) = (most.min(room / stride), anywhere.min(least / stride));
            step = own_step.unwrap_or(1).max(step);
        }
        if most < u64::from(slots) && most >= ROUNDED * step {
            most -= most % step;
        }
        let fits = |(row, own_step): (Row, Option<u64>)| {
            own_step.is_some_and(|step| most.is_multiple_of(step)) || most <= least / row.stride
        };
        // The last piece may have any number of slots, and begins between two pages if the others
        // do. At most `slots`.
        let each = if most >= u64::from(slots) || rows().all(fits) { most } else { anywhere } as u32;
        let longest = || rows().map(|(row, _)| row.stride).max().unwrap_or(0);
        if each == 0 { Err(SlotTooLong { stride: longest() }) } else { Ok(Self { slots, each, limit }) }
    }

    /// How many pieces there are.
    pub(crate) const fn count(&self) -> u32 {
        self.slots.div_ceil(self.each)
    }

    /// The slots of each piece.
    pub(crate) fn pieces(self) -> impl Iterator<Item = Range<u32>> {
        (0..self.count()).map(move |piece| {
            let first = piece * self.each;
            first..first.saturating_add(self.each).min(self.slots)
        })
    }

    /// The memory that is exported for the slots of one piece in a stretch.
    pub(crate) fn window(&self, stretch: &Stretch, piece: &Range<u32>) -> MemoryRange {
        if self.limit.fits(stretch.whole) { stretch.whole } else { stretch.row.range(piece) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: u64 = 4096;

    fn limit(bytes: u64) -> Limit {
        Limit { bytes, page: PAGE }
    }

    fn stretch(base: u64, stride: u64, slots: u32) -> Stretch {
        Row { base, stride }.stretch(slots)
    }

    #[test]
    fn what_fits_is_exported_whole() {
        let memory = stretch(PAGE, 1000, 50);
        for bytes in [13 * PAGE, u64::MAX] {
            let cut = Cut::new(50, &[memory], limit(bytes)).unwrap();
            assert_eq!((cut.count(), cut.pieces().next()), (1, Some(0..50)));
            assert_eq!(cut.window(&memory, &(0..50)), memory.whole);
        }
        // Whole pages of the host count.
        assert_eq!(Cut::new(50, &[memory], limit(13 * PAGE - 1)).unwrap().count(), 2);
    }

    #[test]
    fn cuts_are_between_pages_of_the_host_where_that_is_possible() {
        // 32 slots of 128 bytes are a page.
        let cut = Cut::new(100, &[stretch(PAGE, 128, 100)], limit(2 * PAGE)).unwrap();
        assert_eq!(cut.pieces().collect::<Vec<_>>(), [0..64, 64..100]);
        // The second row is shorter than a cut would be.
        let rows = [stretch(PAGE, 128, 100), stretch(1 << 40, 32, 100)];
        assert_eq!(Cut::new(100, &rows, limit(2 * PAGE)).unwrap().count(), 2);
        // It begins within a page: two pages less a byte may be lost at the ends.
        let cut = Cut::new(100, &[stretch(PAGE + 64, 128, 100)], limit(3 * PAGE)).unwrap();
        assert_eq!(cut.pieces().next(), Some(0..64));
        // The second row has room for a page of the host that two pieces share.
        let cut =
            Cut::new(900, &[stretch(PAGE, 128, 900), stretch(1 << 40, 72, 900)], limit(5 * PAGE)).unwrap();
        assert_eq!(cut.pieces().next(), Some(0..160));
        let cut = Cut::new(900, &[stretch(PAGE, 100, 900)], limit(5 * PAGE)).unwrap();
        assert_eq!(cut.pieces().next(), Some(0..163));
        let cut = Cut::new(90_000, &[stretch(PAGE, 96, 90_000)], limit(100 * PAGE)).unwrap();
        assert_eq!(cut.pieces().next(), Some(0..4224), "33 times 128 slots, of which 4266 fit");
        // A whole number of pages has more slots than a piece may.
        let cut = Cut::new(100, &[stretch(PAGE, 3000, 100)], limit(4 * PAGE)).unwrap();
        assert_eq!(cut.pieces().next(), Some(0..4));
    }

    #[test]
    fn a_slot_that_is_too_long_is_refused() {
        let error = |base, stride, bytes| Cut::new(9, &[stretch(base, stride, 9)], limit(bytes)).err();
        assert_eq!(error(PAGE, 2 * PAGE, 2 * PAGE - 1), Some(SlotTooLong { stride: 2 * PAGE }));
        assert_eq!(error(PAGE, 2 * PAGE, 2 * PAGE), None);
        assert_eq!(error(PAGE + 1, 2 * PAGE, 2 * PAGE), Some(SlotTooLong { stride: 2 * PAGE }));
        assert_eq!(error(PAGE, 1, 0), Some(SlotTooLong { stride: 1 }));
        assert_eq!(error(PAGE, 1, PAGE - 1), Some(SlotTooLong { stride: 1 }));
    }

    #[test]
    fn pieces_have_every_slot_once_and_fit_whatever_the_numbers() {
        let mut seed: u64 = 0x9E37_79B9_7F4A_7C15;
        let mut below = |limit: u64| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (seed >> 33) % limit
        };
        let mut several = 0;
        for _ in 0..20_000 {
            let slots = below(300) as u32 + 1;
            let mut any = || {
                let stride = if below(2) == 0 { below(9000) + 1 } else { 64 * (below(200) + 1) };
                let base = if below(2) == 0 { below(1 << 20) } else { PAGE * below(1 << 10) };
                stretch(base, stride, slots)
            };
            let stretches = [any(), any(), any()];
            let limit = limit(below(40 * PAGE));
            let Ok(cut) = Cut::new(slots, &stretches, limit) else {
                let longest = stretches.iter().map(|s| s.row.stride).max().unwrap();
                assert!(longest + 2 * PAGE > limit.bytes, "{stretches:?} {limit:?}");
                continue;
            };
            let mut next = 0;
            for piece in cut.pieces() {
                assert!(piece.start == next && piece.end > next, "{cut:?}");
                next = piece.end;
                for stretch in &stretches {
                    let window = cut.window(stretch, &piece);
                    assert!(limit.fits(window), "{cut:?} {stretch:?} {window:?}");
                    let own = stretch.row.range(&piece);
                    assert!(window.addr <= own.addr, "{cut:?} {stretch:?}");
                    assert!(own.addr + own.len <= window.addr + window.len, "{cut:?} {stretch:?}");
                }
            }
            assert_eq!(next, slots, "{cut:?}");
            several += u32::from(cut.count() > 1);
        }
        assert!(several > 5000, "{several} of 20000 were cut");
    }
}
