//! A pool that peers can read: its slots, and what keeps its memory readable.

use std::mem;
use std::sync::{Arc, Mutex, PoisonError};

use kvrail_core::id::MAX_RAILS;
use kvrail_core::provider::RailKeys;
use kvrail_core::remote::{RegionOffer, TableOffer};
use kvrail_core::table::Generation;
use kvrail_host::exported::ExportedMemory;
use kvrail_session::{OfferedRegion, Pool, PoolId};

use super::error::PublisherError;
use super::foreign::ForeignMemory;
use super::overlap::Pages;
use super::placing::PlacedRegion;
use super::slots::{Maker, PoolSlots, Shape};
use crate::layout::PageLayout;
use crate::transport::{Export, Exporter, TransportError};

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

/// What keeps a pool readable. Dropped in this order: a page that can be read has a table that says
/// whether it is valid.
#[derive(Debug)]
struct PoolExports {
    _pages: Vec<Arc<ForeignExport>>,
    _table: Export,
}

/// Foreign memory that peers can read, for all pools that have pages in it.
#[derive(Debug)]
pub(super) struct ForeignExport {
    // Dropped in this order.
    export: Export,
    _claim: Claimed,
    pub(super) memory: ForeignMemory,
}

impl ForeignExport {
    /// Makes `memory` readable, in the first of its ways that the transport takes.
    pub(super) fn new(exporter: &dyn Exporter, memory: &ForeignMemory) -> Result<Self, TransportError> {
        let claim = Claimed::new(memory)?;
        let mut refused = Vec::new();
        for way in memory.ways() {
            match exporter.export(way.clone()) {
                Ok(export) => return Ok(Self { export, _claim: claim, memory: memory.clone() }),
                Err(error) => refused.push(error),
            }
        }
        // Each way needs something else, so the text has what every one of them lacks.
        let mut texts: Vec<_> = refused.iter().map(ToString::to_string).collect();
        texts.extend(memory.missing_way().map(Into::into));
        match refused.pop() {
            Some(only) if texts.len() == 1 => Err(only),
            _ => Err(texts.join("; and ").into()),
        }
    }
}

/// A device's memory is registered once: as pages to be read, or as slots that are written.
#[derive(Debug)]
struct Claimed(#[cfg(feature = "cuda")] Option<kvrail_verbs::gpu::DeviceMemory>);

#[cfg(feature = "cuda")]
impl Claimed {
    fn new(memory: &ForeignMemory) -> Result<Self, TransportError> {
        let device = memory.claimed_device();
        if device.is_some_and(|device| !device.claim()) {
            return Err(
                "the device memory is registered already, here or with a reader: release it there first"
                    .into(),
            );
        }
        Ok(Self(device.cloned()))
    }
}

#[cfg(feature = "cuda")]
impl Drop for Claimed {
    fn drop(&mut self) {
        if let Some(device) = &self.0 {
            device.release();
        }
    }
}

#[cfg(not(feature = "cuda"))]
impl Claimed {
    #[expect(clippy::unnecessary_wraps, reason = "with the feature cuda it can fail")]
    const fn new(_: &ForeignMemory) -> Result<Self, TransportError> {
        Ok(Self())
    }
}

/// The bytes of a page in each region of its layout.
pub(super) fn parts_of(layout: &PageLayout) -> Vec<u32> {
    // Every region below the count has a length, and all together have the page's, which fits.
    let bytes = |region| layout.geometry().region_bytes(region).unwrap_or(0) as u32;
    (0..layout.regions()).map(bytes).collect()
}

impl OfferedPool {
    /// A pool of `slots` pages in memory of its own.
    pub(super) fn own(
        exporter: &dyn Exporter,
        (id, maker): (PoolId, Maker),
        layout: PageLayout,
        slots: u32,
    ) -> Result<(Arc<Self>, Pool), PublisherError> {
        let page_bytes = layout.page_bytes();
        let refused = PublisherError::Slots { slots, page_bytes };
        let shape = Shape::new(slots, Some(page_bytes)).ok_or(refused)?;
        let (slots, table) = Self::table(exporter, id, maker, shape)?;
        let mut regions = Vec::new();
        if let Some(at) = shape.pages {
            // The regions of a page lie one behind the other in each slot.
            let mut base = slots.segment().addr() + at.offset;
            for page_bytes in parts_of(&layout) {
                let pages = Pages { base, page_bytes, stride: at.stride, slots: shape.slots };
                regions.push(PlacedRegion { memory: None, pages });
                base += u64::from(page_bytes);
            }
        }
        let keys = vec![table.keys; regions.len()];
        Self::offer(
            (id, maker),
            layout,
            slots,
            regions,
            &keys,
            PoolExports { _pages: Vec::new(), _table: table },
        )
    }

    /// A pool of pages at `regions`, which `exports` make readable.
    pub(super) fn foreign(
        exporter: &dyn Exporter,
        (id, maker): (PoolId, Maker),
        layout: PageLayout,
        regions: Vec<PlacedRegion>,
        exports: Vec<Arc<ForeignExport>>,
    ) -> Result<(Arc<Self>, Pool), PublisherError> {
        let (slots, page_bytes) =
            (regions.first().map_or(0, |region| region.pages.slots), layout.page_bytes());
        let shape = Shape::new(slots, None).ok_or(PublisherError::Slots { slots, page_bytes })?;
        let (slots, table) = Self::table(exporter, id, maker, shape)?;
        let keys: Vec<_> = exports.iter().map(|memory| memory.export.keys).collect();
        Self::offer(
            (id, maker),
            layout,
            slots,
            regions,
            &keys,
            PoolExports { _pages: exports, _table: table },
        )
    }

    fn table(
        exporter: &dyn Exporter,
        id: PoolId,
        maker: Maker,
        shape: Shape,
    ) -> Result<(Arc<PoolSlots>, Export), PublisherError> {
        let slots = PoolSlots::new(id, maker, shape)?;
        let memory = ExportedMemory::segment(Arc::clone(slots.segment()));
        let export = exporter.export(memory).map_err(PublisherError::Transport)?;
        Ok((Arc::new(slots), export))
    }

    /// The pool with what is offered of it: one region for each of `regions`, and one table, which
    /// the first region has.
    fn offer(
        (id, maker): (PoolId, Maker),
        layout: PageLayout,
        slots: Arc<PoolSlots>,
        regions: Vec<PlacedRegion>,
        keys: &[RailKeys],
        exports: PoolExports,
    ) -> Result<(Arc<Self>, Pool), PublisherError> {
        let table_keys: [u32; MAX_RAILS] = exports._table.keys;
        let table = TableOffer { base: slots.segment().addr(), keys: table_keys };
        let exports = Mutex::new(Some(exports));
        // First, so that an error below releases the memory in its order.
        let pool = Arc::new(Self { id, layout, slots, regions, maker, exports });
        let offered = (0..).zip(&pool.regions).zip(keys).map(|((part, region), &keys)| {
            let Pages { base, page_bytes, stride, slots } = region.pages;
            let (page_bytes, table) = (u64::from(page_bytes), (part == 0).then_some(table));
            Ok(OfferedRegion::new(RegionOffer { base, page_bytes, stride, slots, keys, table })?
                .of_part(part))
        });
        let offered = offered.collect::<Result<Vec<_>, PublisherError>>()?;
        let offer = Pool::new(id, layout.to_session(), offered)?;
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

#[cfg(test)]
mod tests;
