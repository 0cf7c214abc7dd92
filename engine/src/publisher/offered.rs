//! A pool that peers can read: its slots, and what keeps its memory readable.

use std::mem;
use std::sync::{Arc, Mutex, PoisonError};

use kvrail_core::provider::{MemoryRange, RailKeys};
use kvrail_core::remote::{RegionOffer, TableOffer};
use kvrail_core::table::{ENTRY_BYTES, Generation};
use kvrail_session::{MAX_REGIONS, OfferedRegion, Pool, PoolId};

use super::error::PublisherError;
use super::exports::{ForeignExports, Needs, PoolExports};
use super::foreign::ForeignMemory;
use super::overlap::Pages;
use super::placing::PlacedRegion;
use super::registering::Registering;
use super::slots::{Maker, PoolSlots, Shape};
use crate::cutting::{Cut, Limit, Row, SlotTooLong, Stretch};
use crate::layout::PageLayout;
use crate::transport::Exporter;

/// A pool of a publisher.
#[derive(Debug)]
pub(super) struct OfferedPool {
    pub(super) id: PoolId,
    pub(super) layout: PageLayout,
    pub(super) slots: Arc<PoolSlots>,
    /// The pages of each region of the layout.
    pub(super) regions: Vec<PlacedRegion>,
    maker: Maker,
    exports: Mutex<Option<PoolExports>>,
}

/// The bytes of a page in each region of its layout.
pub(super) fn parts_of(layout: &PageLayout) -> Vec<u32> {
    // Every region below the count has a length, and all together have the page's, which fits.
    let bytes = |region| layout.geometry().region_bytes(region).unwrap_or(0) as u32;
    (0..layout.regions()).map(bytes).collect()
}

/// How a pool is made readable: by what, and what is readable already.
pub(super) struct Publishing<'a> {
    pub(super) exporter: &'a dyn Exporter,
    pub(super) registering: Registering,
    pub(super) foreign: &'a mut ForeignExports,
    pub(super) id: PoolId,
    pub(super) maker: Maker,
}

/// Ranges of memory, each once, and which of them each piece of a pool uses.
#[derive(Default)]
struct Ranges(Vec<MemoryRange>);

impl Ranges {
    /// The place of `range`, which has one afterwards.
    fn place(&mut self, range: MemoryRange) -> usize {
        // Pieces are at most as many as regions, and the last one is the likely one.
        self.0.iter().rposition(|&known| known == range).unwrap_or_else(|| {
            self.0.push(range);
            self.0.len() - 1
        })
    }
}

/// The keys of one piece of a pool.
struct PieceKeys {
    /// Of each region.
    regions: Vec<RailKeys>,
    table: RailKeys,
}

impl OfferedPool {
    /// A pool of `slots` pages in memory of its own.
    pub(super) fn own(
        publishing: Publishing<'_>,
        layout: PageLayout,
        slots: u32,
    ) -> Result<(Arc<Self>, Pool), PublisherError> {
        let Publishing { exporter, registering, foreign, id, maker } = publishing;
        let page_bytes = layout.page_bytes();
        let refused = PublisherError::Slots { slots, page_bytes };
        let shape = Shape::new(slots, Some(page_bytes)).ok_or(refused)?;
        let slots = registering.near_nics(exporter, id, || PoolSlots::new(id, maker, shape))?;
        let slots = Arc::new(slots);
        let limit = registering.limit(exporter);
        let (segment, mut table) = (Arc::clone(slots.segment()), table_stretch(&slots));
        let (mut regions, mut pages) = (Vec::new(), table);
        if let Some(at) = shape.pages {
            // The regions of a page lie one behind the other in each slot.
            let row = Row { base: segment.addr() + at.offset, stride: at.stride };
            pages = row.stretch(shape.slots);
            let mut base = row.base;
            for page_bytes in parts_of(&layout) {
                let pages = Pages { base, page_bytes, stride: at.stride, slots: shape.slots };
                regions.push(PlacedRegion { memory: None, blocks: row.base, pages });
                base += u64::from(page_bytes);
            }
        }
        // One export of all, if that can be.
        if limit.fits(segment.range()) {
            (pages.whole, table.whole) = (segment.range(), segment.range());
        } else {
            table.whole = table.row.stretch(shape.slots).whole;
        }
        let cut = cut(&layout, shape.slots, &[pages, table], limit)?;
        let mut own = Ranges::default();
        let places: Vec<_> = cut.pieces().map(|piece| own.place(cut.window(&pages, &piece))).collect();
        let tables: Vec<_> = cut.pieces().map(|piece| own.place(cut.window(&table, &piece))).collect();
        let needs = Needs { foreign: Vec::new(), segment, own: own.0 };
        let exports = foreign.make(exporter, &registering, id, &needs).map_err(PublisherError::Transport)?;
        let keys = places.iter().zip(&tables).map(|(&pages, &table)| PieceKeys {
            regions: vec![exports.own[pages].keys; regions.len()],
            table: exports.own[table].keys,
        });
        let keys = keys.collect();
        Self { id, layout, slots, regions, maker, exports: Mutex::new(Some(exports)) }.offer(cut, keys)
    }

    /// A pool of pages at `regions`.
    pub(super) fn foreign(
        publishing: Publishing<'_>,
        layout: PageLayout,
        regions: Vec<PlacedRegion>,
    ) -> Result<(Arc<Self>, Pool), PublisherError> {
        let Publishing { exporter, registering, foreign, id, maker } = publishing;
        let (slots, page_bytes) =
            (regions.first().map_or(0, |region| region.pages.slots), layout.page_bytes());
        let shape = Shape::new(slots, None).ok_or(PublisherError::Slots { slots, page_bytes })?;
        let slots = registering.near_nics(exporter, id, || PoolSlots::new(id, maker, shape))?;
        let slots = Arc::new(slots);
        let table = table_stretch(&slots);
        let parts: Vec<(&ForeignMemory, Stretch)> =
            regions.iter().filter_map(PlacedRegion::stretch).collect();
        let mut stretches: Vec<_> = parts.iter().map(|(_, stretch)| *stretch).collect();
        stretches.push(table);
        let cut = cut(&layout, shape.slots, &stretches, registering.limit(exporter))?;
        let (mut own, mut needed) = (Ranges::default(), Vec::new());
        let tables: Vec<_> = cut.pieces().map(|piece| own.place(cut.window(&table, &piece))).collect();
        for piece in cut.pieces() {
            let windows = parts.iter().map(|&(memory, at)| (memory.clone(), cut.window(&at, &piece)));
            needed.extend(windows);
        }
        let needs = Needs { foreign: needed, segment: Arc::clone(slots.segment()), own: own.0 };
        let exports = foreign.make(exporter, &registering, id, &needs).map_err(PublisherError::Transport)?;
        // Every piece has as many exports as the layout has regions.
        let keys = exports.foreign.chunks(regions.len()).zip(&tables).map(|(pages, &table)| PieceKeys {
            regions: pages.iter().map(|export| export.keys()).collect(),
            table: exports.own[table].keys,
        });
        let keys = keys.collect();
        Self { id, layout, slots, regions, maker, exports: Mutex::new(Some(exports)) }.offer(cut, keys)
    }

    /// The pool with what is offered of it: for each piece one region for each of `regions`, and
    /// one table, which the piece's first region has.
    fn offer(self, cut: Cut, keys: Vec<PieceKeys>) -> Result<(Arc<Self>, Pool), PublisherError> {
        // First, so that an error below releases the memory in its order.
        let pool = Arc::new(self);
        let mut offered = Vec::with_capacity(keys.len() * pool.regions.len());
        let entries = pool.slots.segment().addr();
        for (piece, keys) in cut.pieces().zip(keys) {
            let base = entries + u64::from(piece.start) * ENTRY_BYTES;
            let table = TableOffer { base, keys: keys.table };
            for ((part, region), keys) in (0..).zip(&pool.regions).zip(keys.regions) {
                let Pages { page_bytes, stride, .. } = region.pages;
                // Pages end within the address space.
                let (base, slots) = (region.pages.at(piece.start) as u64, piece.end - piece.start);
                let (page_bytes, table) = (u64::from(page_bytes), (part == 0).then_some(table));
                let offer = RegionOffer { base, page_bytes, stride, slots, keys, table };
                offered.push(OfferedRegion::new(offer)?.of_part(part));
            }
        }
        let offer = Pool::new(pool.id, pool.layout.to_session(), offered)?;
        Ok((pool, offer))
    }

    /// Takes the page of `generation` in `slot` back. A slot that does not exist has none.
    pub(super) fn invalidate_generation(&self, slot: u32, generation: Generation) {
        if let Ok(entry) = self.slots.entry(slot) {
            entry.invalidate_generation(generation);
        }
    }

    /// Makes every slot a miss; then releases the pages, and then the table. In a child of a fork,
    /// whose copy of the pool is the parent's, it does neither.
    pub(super) fn release(&self) {
        let exports = self.exports.lock().unwrap_or_else(PoisonError::into_inner).take();
        if self.maker.is_current() {
            self.slots.invalidate_all();
            drop(exports);
        } else {
            mem::forget(exports);
        }
    }
}

impl Drop for OfferedPool {
    fn drop(&mut self) {
        self.release();
    }
}

/// The publication table at the beginning of a segment, all of which is exported if it can be.
fn table_stretch(slots: &PoolSlots) -> Stretch {
    let segment = slots.segment();
    Stretch { whole: segment.range(), row: Row { base: segment.addr(), stride: ENTRY_BYTES } }
}

/// The pieces of a pool of pages of `layout`, before anything is registered.
fn cut(layout: &PageLayout, slots: u32, stretches: &[Stretch], limit: Limit) -> Result<Cut, PublisherError> {
    let too_long =
        |slot: SlotTooLong| PublisherError::Piece { slot_bytes: slot.stride, limit: limit.bytes() };
    let cut = Cut::new(slots, stretches, limit).map_err(too_long)?;
    let (pieces, parts) = (cut.count(), layout.regions());
    if u64::from(pieces) * u64::from(parts) > MAX_REGIONS as u64 {
        return Err(PublisherError::Pieces { pieces, parts, limit: limit.bytes() });
    }
    Ok(cut)
}
