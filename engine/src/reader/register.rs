//! Memory that pages land in, and plans by which they land there in another layout.
#![allow(unsafe_code, reason = "foreign memory, on the caller's word")]

use kvrail_core::memory::{Access, DestinationRegion, RegionError, Slot, Slots};
use kvrail_core::plan::{AddPlanError, ForgetPlanError, PlanRef};
#[cfg(feature = "cuda")]
use kvrail_core::provider::DmaBuf;
use kvrail_core::provider::MemoryRange;
use kvrail_layouts::Plan;
#[cfg(feature = "cuda")]
use kvrail_verbs::gpu::DeviceMemory;

use super::Reader;
#[cfg(feature = "cuda")]
use super::device::{DeviceError, Registered};
use crate::layout::PageLayout;
use crate::transport::ReaderTransport;

impl<T: ReaderTransport> Reader<T> {
    /// Makes destination slots, one per page, of memory that lives for ever.
    ///
    /// # Errors
    ///
    /// Memory that holds no page, or that the rails cannot register.
    pub fn register(&mut self, memory: &'static mut [u8]) -> Result<Slots, RegionError> {
        let layout = self.layout;
        self.register_for(&layout, memory)
    }

    /// Makes destination slots for pages of another layout than the reader's: of a peer that was
    /// [connected to as that](Self::connect_to), or in which pages land by a
    /// [plan](Self::add_plan).
    ///
    /// A slot of a layout of several regions has a piece in each, which
    /// [`slot_bytes`](Self::slot_bytes) gives. The memory is divided among the regions, one behind
    /// the other.
    ///
    /// # Errors
    ///
    /// As [`register`](Self::register).
    pub fn register_for(
        &mut self,
        layout: &PageLayout,
        memory: &'static mut [u8],
    ) -> Result<Slots, RegionError> {
        self.engine.register_regions(layout.geometry(), memory)
    }

    /// Makes slots of `slot_bytes` each, of no layout: everything that is read into them is bytes.
    /// For parts of pages ([`RemotePage::part`](kvrail_core::remote::RemotePage::part)), and for
    /// several pages beside each other in a slot
    /// ([`Batch::read_also`](kvrail_core::batch::Batch::read_also)).
    ///
    /// # Errors
    ///
    /// As [`register`](Self::register).
    pub fn register_bytes(
        &mut self,
        memory: &'static mut [u8],
        slot_bytes: u32,
    ) -> Result<Slots, RegionError> {
        self.engine.register(memory, slot_bytes.into())
    }

    /// Adds a plan, by which pages of peers land in slots of another layout
    /// ([`Batch::read_with`](kvrail_core::batch::Batch::read_with)), with no copy in between. Make
    /// the plan from the geometry that the peers publish, at their rank, to the geometry that the
    /// slots were registered for: `read_with` refuses a page or a slot of another layout or rank. A
    /// plan between geometries without a rank goes from each rank to the same rank. Pages and slots
    /// may have several regions.
    ///
    /// # Errors
    ///
    /// The plan moves nothing, or cannot be cut into work requests; or the engine has no place for
    /// another plan.
    pub fn add_plan(&mut self, plan: &Plan) -> Result<PlanRef, AddPlanError> {
        self.engine.add_plan(plan)
    }

    /// Forgets a plan that was added, so that another one can have its place. A plan that was added
    /// several times is forgotten when this has been called as often. Batches that are being
    /// filled, and in which a page follows it, are refused by [`submit`](Self::submit) from then
    /// on.
    ///
    /// # Errors
    ///
    /// A page in flight follows the plan, it was forgotten already, or it is another reader's.
    pub fn forget_plan(&mut self, plan: PlanRef) -> Result<(), ForgetPlanError> {
        self.engine.forget_plan(plan)
    }

    /// Makes destination slots of foreign memory: an inference engine's pool, pinned memory, a
    /// GPU's. `numa` is its node, where known. The reader's layout has one region; for others see
    /// [`register_foreign_for`](Self::register_foreign_for).
    ///
    /// # Errors
    ///
    /// As [`register`](Self::register).
    ///
    /// # Safety
    ///
    /// As for [`register_foreign_for`](Self::register_foreign_for).
    pub unsafe fn register_foreign(
        &mut self,
        range: MemoryRange,
        access: Access,
        numa: Option<u8>,
    ) -> Result<Slots, RegionError> {
        let (layout, stride) = (self.layout, u64::from(self.layout.page_bytes()));
        let region = DestinationRegion { range, stride };
        // SAFETY: the caller's promise is the same.
        unsafe { self.register_foreign_for(&layout, &[region], access, numa) }
    }

    /// Makes destination slots of foreign memory for pages of any layout: K and V objects, a range
    /// a layer, blocks in which several layouts lie side by side. `regions` says where slot 0 of
    /// each region of the layout is, and how far slots are apart; they hold as many slots each.
    ///
    /// # Errors
    ///
    /// The ranges are not those of the layout, overlap, or hold different numbers of slots; or as
    /// [`register`](Self::register).
    ///
    /// # Safety
    ///
    /// Until [`unregister`](Self::unregister) gives the slots' memory back (for ever, if it never
    /// does) the bytes of the slots are valid, belong to the slots alone, and are not unmapped.
    /// With [`Access::Host`] they are readable and writable by the CPU, and initialised.
    pub unsafe fn register_foreign_for(
        &mut self,
        layout: &PageLayout,
        regions: &[DestinationRegion],
        access: Access,
        numa: Option<u8>,
    ) -> Result<Slots, RegionError> {
        // SAFETY: the caller's promise is the same.
        unsafe { self.engine.register_foreign_regions(layout.geometry(), regions, access, numa) }
    }

    /// Makes slots of foreign memory of `slot_bytes` each, of no layout, as
    /// [`register_bytes`](Self::register_bytes) does.
    ///
    /// # Errors
    ///
    /// As [`register`](Self::register).
    ///
    /// # Safety
    ///
    /// As for [`register_foreign_for`](Self::register_foreign_for).
    pub unsafe fn register_foreign_bytes(
        &mut self,
        range: MemoryRange,
        slot_bytes: u32,
        access: Access,
        numa: Option<u8>,
    ) -> Result<Slots, RegionError> {
        // SAFETY: the caller's promise is the same.
        unsafe { self.engine.register_foreign(range, slot_bytes.into(), access, numa) }
    }

    /// The bytes of a slot in region `region` of its layout; `None` if there is no such region, for
    /// device memory, or if the slot is another reader's.
    #[must_use]
    pub fn slot_bytes<'a>(&self, slot: &'a Slot, region: u32) -> Option<&'a [u8]> {
        self.engine.slot_bytes(slot, region)
    }

    /// As [`slot_bytes`](Self::slot_bytes), to be changed.
    #[must_use]
    pub fn slot_bytes_mut<'a>(&self, slot: &'a mut Slot, region: u32) -> Option<&'a mut [u8]> {
        self.engine.slot_bytes_mut(slot, region)
    }

    /// The address of a slot in region `region` of its layout; `None` if there is no such region,
    /// or the slot is another reader's.
    #[must_use]
    pub fn slot_address(&self, slot: &Slot, region: u32) -> Option<u64> {
        self.engine.slot_address(slot, region)
    }

    /// Releases memory whose slots have all come back.
    ///
    /// # Errors
    ///
    /// Some slots have not come back, or they belong to another reader: then `slots` is returned.
    pub fn unregister(&mut self, slots: Slots) -> Result<MemoryRange, Slots> {
        #[cfg(feature = "cuda")]
        let region = slots.region();
        let range = self.engine.unregister(slots)?;
        #[cfg(feature = "cuda")]
        self.devices.retain(|(of, _)| *of != region);
        Ok(range)
    }
}

#[cfg(feature = "cuda")]
impl<T: ReaderTransport> Reader<T> {
    /// Makes destination slots, one per page, of a GPU's memory. They have an address and no bytes.
    ///
    /// The memory is registered as a dmabuf, else as peer memory. The reader keeps a handle of it
    /// until [`unregister`](Self::unregister), or until nothing writes into it any more. A page
    /// that has arrived is visible to kernels that are launched afterwards, and perhaps not to a
    /// kernel that runs already.
    ///
    /// If the reader's layout has several regions, the memory is divided among them, one behind the
    /// other, with as many slots as fit; [`slot_address`](Self::slot_address) says where the pieces
    /// of a slot are. For regions that lie elsewhere see
    /// [`register_device_for`](Self::register_device_for).
    ///
    /// # Errors
    ///
    /// The memory is registered already, holds no page, or is not taken by the rails: the error
    /// says what is missing.
    pub fn register_device(&mut self, memory: &DeviceMemory) -> Result<Slots, DeviceError> {
        let (layout, MemoryRange { mut addr, len: bytes }) = (self.layout, memory.range());
        let geometry = layout.geometry();
        let slot_bytes = geometry.page_bytes();
        let slots = bytes.checked_div(slot_bytes).filter(|&slots| slots > 0);
        let slots = slots.ok_or(RegionError::TooSmall { bytes, slot_bytes })?;
        let mut regions = Vec::new();
        for region in 0..geometry.regions() {
            let stride = geometry.region_bytes(region).unwrap_or(0);
            // All regions together have no more bytes than the memory.
            let range = MemoryRange { addr, len: stride * slots };
            addr += range.len;
            regions.push((memory.clone(), DestinationRegion { range, stride }));
        }
        self.register_device_for(&layout, &regions)
    }

    /// As [`register_device`](Self::register_device), for pages of any layout: `regions` says for
    /// each region of the layout in which memory it is, where slot 0 is there, and how far slots
    /// are apart. One memory may hold several of them: K and V objects, a range a layer, each of an
    /// allocation of its own or side by side.
    ///
    /// # Errors
    ///
    /// As [`register_device`](Self::register_device), a range is not within its memory, or as
    /// [`register_foreign_for`](Self::register_foreign_for).
    pub fn register_device_for(
        &mut self,
        layout: &PageLayout,
        regions: &[(DeviceMemory, DestinationRegion)],
    ) -> Result<Slots, DeviceError> {
        let (mut ranges, mut exports) = (Vec::new(), Vec::new());
        for (region, (memory, at)) in (0..).zip(regions) {
            let (MemoryRange { addr, len }, of) = (at.range, memory.range());
            let offset = addr
                .checked_sub(of.addr)
                .filter(|offset| offset.checked_add(len).is_some_and(|end| end <= of.len));
            let outside = DeviceError::Outside { region, range: at.range, memory: of };
            let offset = offset.ok_or(outside)?;
            ranges.push(*at);
            // The range lies as far behind the beginning of the export as behind that of the
            // memory.
            exports.push(
                memory.dmabuf().map(|DmaBuf { fd, offset: from }| DmaBuf { fd, offset: from + offset }),
            );
        }
        // Ranges that are not those of the layout are refused before a memory is claimed.
        DestinationRegion::slots_of(layout.geometry(), &ranges)?;
        let mut claimed: Vec<Registered> = Vec::new();
        for (memory, _) in regions {
            if claimed.iter().any(|Registered(of)| of.is_same(memory)) {
                continue;
            }
            if !memory.claim() {
                return Err(DeviceError::Registered);
            }
            claimed.push(Registered(memory.clone()));
        }
        let slots = self.register_claimed(layout, &ranges, exports, &claimed)?;
        self.devices.extend(claimed.into_iter().map(|memory| (slots.region(), memory)));
        Ok(slots)
    }

    fn register_claimed(
        &mut self,
        layout: &PageLayout,
        ranges: &[DestinationRegion],
        mut exports: Vec<Option<DmaBuf>>,
        memory: &[Registered],
    ) -> Result<Slots, DeviceError> {
        let mut nodes = memory.iter().map(|Registered(memory)| memory.numa());
        let numa = nodes.next().flatten().filter(|&node| nodes.all(|other| other == Some(node)));
        let is_peer_memory = memory.iter().all(|Registered(memory)| memory.is_peer_memory());
        let geometry = layout.geometry();
        if exports.iter().any(Option::is_some) {
            // SAFETY: claimed, so the slots alone use it, and it stays valid while `devices` has a
            // handle: until it is unregistered, or the engine is gone. The code that made a handle
            // of memory of its own promised the rest.
            match unsafe { self.engine.register_device_regions(geometry, ranges, &exports, numa) } {
                Err(RegionError::Provider(error)) if is_peer_memory => {
                    tracing::info!(%error, "not as a dmabuf: by nvidia-peermem");
                    exports.fill(None);
                }
                Err(RegionError::Provider(error)) => return Err(DeviceError::Refused(error)),
                other => return Ok(other?),
            }
        }
        // SAFETY: as above.
        Ok(unsafe { self.engine.register_device_regions(geometry, ranges, &exports, numa) }?)
    }
}
