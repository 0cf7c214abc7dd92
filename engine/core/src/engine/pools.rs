//! The control path: layouts and plans are added, and what peers have published.

use kvrail_layouts::plan::{CutError, Plan};
use kvrail_layouts::{Geometry, Identity};

use super::state::Engine;
use crate::events::EventSink;
use crate::id::{PeerId, RegionRef};
use crate::layout::{AddLayoutError, LayoutRef, NO_LAYOUT, WHOLE, WholePlan};
use crate::limits::{MAX_PLANS, MAX_RAILS, narrow};
use crate::peer::Forbidden;
use crate::plan::{AddPlanError, ForgetPlanError, PlanRef};
use crate::provider::Provider;
use crate::regions::RemotePlace;
use crate::regions::faults::Faults;
use crate::remote::{OfferError, RegionOffer, RemoteRegion, check_pool};
use crate::time::Time;

impl<P: Provider, E: EventSink> Engine<'_, P, E> {
    /// Adds a copy plan: how pages in another layout land in slots
    /// ([`Batch::read_with`](crate::batch::Batch::read_with)). The plan is cut into work requests
    /// of at most `EngineConfig::chunk_bytes`, with as many pieces as [`Provider::sges`] allows.
    ///
    /// The plan is between pages and slots with all of their regions. A plan that is known already
    /// takes no further place. Plans that differ only in where they begin share most of theirs. A
    /// plan stays known until it is [forgotten](Self::forget_plan).
    ///
    /// # Errors
    ///
    /// The plan cannot be cut into work requests, moves no byte, or the table is full.
    ///
    /// That pages and slots have the layouts of the plan is checked when a page joins a batch:
    /// [`LayoutMismatch`](crate::layout::LayoutMismatch).
    pub fn add_plan(&mut self, plan: &Plan) -> Result<PlanRef, AddPlanError> {
        self.plans.add(plan, &mut self.layouts)
    }

    /// Sets the most plans that are known at a time, at most [`MAX_PLANS`](crate::plan::MAX_PLANS),
    /// which it is by default. Plans that are known stay known.
    pub fn set_max_plans(&mut self, most: usize) {
        self.plans.most = most.min(MAX_PLANS);
    }

    /// Forgets a plan, so that another one can have its place. A plan that was added several times
    /// is forgotten when this has been called as often. Batches in which a page follows it, and
    /// which have not been submitted, are refused by [`submit`](Self::submit) from then on.
    ///
    /// # Errors
    ///
    /// A page in flight follows the plan, it was forgotten already, or it is another engine's.
    pub fn forget_plan(&mut self, plan: PlanRef) -> Result<(), ForgetPlanError> {
        let (in_flight, pages) = (&self.in_flight, &mut self.pages);
        self.plans.forget(plan, |plan| {
            (0..in_flight.groups()).any(|group| {
                let mut from = 0;
                while let Some((batch, next)) = in_flight.next_flying(group, from) {
                    let (first, len) = (pages.first(batch), pages.head(batch).len);
                    if pages.slice(first, len.into()).iter().any(|page| page.plan() == Some(plan)) {
                        return true;
                    }
                    from = next;
                }
                false
            })
        })
    }

    /// As [`add_plan`](Self::add_plan), where each region of a page is published by itself, as a
    /// page with an entry of its own. The plan goes from one region into one: see [`Plan::only`].
    ///
    /// # Errors
    ///
    /// As [`add_plan`](Self::add_plan), or the plan is between several regions.
    pub fn add_region_plan(&mut self, plan: &Plan) -> Result<PlanRef, AddPlanError> {
        self.plans.add_of_region(plan, &mut self.layouts)
    }

    /// Adds the layout of pages with all of their regions, unless it is known.
    ///
    /// # Errors
    ///
    /// The layout leaves a distance or a rank open, a page has more than 2^32 - 1 bytes, or a table
    /// is full.
    pub fn add_page_layout(&mut self, layout: &Geometry) -> Result<LayoutRef, AddPlanError> {
        let identity = Identity::of(layout);
        if layout.regions() == 1 {
            return Ok(self.layouts.add(&identity, 0)?);
        }
        let known = self.layouts.add(&identity, WHOLE)?;
        if self.layouts.whole(known).is_none() {
            let bytes = layout.page_bytes();
            u32::try_from(bytes).map_err(|_| CutError::TooFar(bytes))?;
            // No region is longer than the page.
            let regions = (0..layout.regions()).map(|i| layout.region_bytes(i).unwrap_or(0) as u32);
            let plan = self.plans.add_whole(regions, known.number)?;
            let PlanRef { number, wrs, bytes, .. } = plan;
            self.layouts.set_whole(known, WholePlan { number, wrs, bytes });
        }
        Ok(known)
    }

    /// Adds a layout, unless it is known, for [`RemoteRegion::set_layout`] and
    /// [`Slots::set_layout`](crate::memory::Slots::set_layout). `region` is the number of the
    /// region of a page that they hold; 0 if a page has only one. A layout stays known until the
    /// engine is dropped.
    ///
    /// # Errors
    ///
    /// The layout leaves a distance or a rank open, or the table is full.
    pub fn add_layout(&mut self, layout: &Identity, region: u32) -> Result<LayoutRef, AddLayoutError> {
        self.layouts.add(layout, region)
    }

    /// Adds a region that the peer has published.
    ///
    /// # Errors
    ///
    /// A number of the offer cannot work, the peer is unknown, or the table of remote regions is
    /// full.
    pub fn add_region(&mut self, id: PeerId, offer: &RegionOffer) -> Result<RemoteRegion, OfferError> {
        self.peers.find(id).ok_or(OfferError::NoPeer)?;
        offer.check()?;
        let source = self.add_remotes(id, core::slice::from_ref(offer))?;
        Ok(RemoteRegion {
            peer: id,
            source,
            slots: offer.slots,
            // `check` has found that it is a u32.
            page_bytes: offer.page_bytes as u32,
            base: offer.base,
            stride: offer.stride,
            regions: 1,
            layout: NO_LAYOUT,
            has_table: offer.table.is_some(),
        })
    }

    /// Adds a pool that the peer has published: slots for pages of `layout`, with a region for each
    /// region of a page, in their order. Its publication table, if it has one, is that of region 0.
    ///
    /// A page of it is one page, however many regions it has: it has one location, one entry, and
    /// one result, which is `Ok` if all bytes of all regions arrived before its entry was read and
    /// found as expected. It lands in a slot of the same layout
    /// ([`register_regions`](Self::register_regions)), or in a slot of any layout by a plan.
    ///
    /// # Errors
    ///
    /// A number of an offer cannot work, the regions are not those of the layout, the layout leaves
    /// a distance or a rank open, the peer is unknown, or a table is full.
    pub fn add_pool(
        &mut self,
        id: PeerId,
        layout: &Geometry,
        regions: &[RegionOffer],
    ) -> Result<RemoteRegion, OfferError> {
        self.peers.find(id).ok_or(OfferError::NoPeer)?;
        check_pool(layout, regions)?;
        let known = self.add_page_layout(layout)?;
        let bytes = layout.page_bytes();
        let page_bytes = u32::try_from(bytes).map_err(|_| OfferError::PageBytes(bytes))?;
        let source = self.add_remotes(id, regions)?;
        let first = &regions[0];
        let (base, stride) = if regions.len() == 1 { (first.base, first.stride) } else { (0, 1) };
        Ok(RemoteRegion {
            peer: id,
            source,
            slots: first.slots,
            page_bytes,
            base,
            stride,
            // `add_remotes` has found places for them, at most 65,535.
            regions: narrow(regions.len()),
            layout: known.number,
            has_table: first.table.is_some(),
        })
    }

    /// Notes that a pool, or a region, is gone: its owner has taken it back. Its pages in flight
    /// fail with [`PageError::PoolGone`](crate::error::PageError::PoolGone), what has been posted
    /// goes on, and pages that are submitted later fail in the same way. Its places are free when
    /// the peer is removed. A pool that is gone already, or whose peer is, is no error.
    pub fn remove_pool(&mut self, pool: &RemoteRegion, now: Time) {
        self.sink.check();
        let (first, count) = (usize::from(pool.source.region()), usize::from(pool.regions));
        if pool.source.engine() != self.tag || self.peers.find(pool.peer).is_none() {
            return;
        }
        self.emit_time(now);
        for place in &mut self.regions.remotes[first..first + count] {
            place.faults.take_back();
        }
        let peer = pool.peer.index;
        self.peers[usize::from(peer)].forbidden.insert(Forbidden::GONE);
        self.fail_set_aside_of_peer(peer, now);
    }

    /// Takes places in a row for the regions of a pool, which have been checked. Returns the first.
    fn add_remotes(&mut self, id: PeerId, regions: &[RegionOffer]) -> Result<RegionRef, OfferError> {
        let (limit, needed) = (self.regions.remotes.len(), regions.len());
        let first = self.regions.find_free_remotes(needed).ok_or(OfferError::Full { limit, needed })?;
        if first == self.regions.first_free_remote {
            self.regions.first_free_remote = first + needed;
        }
        for (i, offer) in regions.iter().enumerate() {
            let table = offer.table.as_ref();
            self.regions.remotes[first + i] = RemotePlace {
                used: true,
                next: core::mem::replace(&mut self.peers[id.index()].remotes, narrow(first + i)),
                regions: if i == 0 { narrow(needed) } else { 0 },
                // `check` has found that it is a u32.
                page_bytes: offer.page_bytes as u32,
                base: offer.base,
                stride: offer.stride,
                table: table.map_or(0, |table| table.base),
                keys: offer.keys,
                table_keys: table.map_or([0; MAX_RAILS], |table| table.keys),
                faults: Faults::NONE,
            };
        }
        Ok(RegionRef::new(self.tag, narrow(first), id))
    }
}
