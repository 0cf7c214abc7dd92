//! The control path: memory is registered as destination.

use core::ptr::NonNull;

use kvrail_layouts::Geometry;

use super::state::Engine;
use crate::events::EventSink;
use crate::id::RegionId;
use crate::limits::{LOCAL_PIECES, narrow};
use crate::memory::region::{DestinationRegion, RegionError, RegionShape, Slots, check_regions};
use crate::memory::slot::{Access, Slot};
use crate::provider::{DmaBuf, MemoryRange, Provider, RailKeys, RegisterError};
use crate::regions::{LocalPiece, LocalPlace};

impl<P: Provider, E: EventSink> Engine<'_, P, E> {
    /// Registers memory that lives for ever as destination, in slots of `slot_bytes` bytes.
    ///
    /// # Errors
    ///
    /// The memory holds no slot, the table of regions is full, or the provider cannot register the
    /// memory.
    pub fn register(&mut self, memory: &'static mut [u8], slot_bytes: u64) -> Result<Slots, RegionError> {
        let range =
            MemoryRange { addr: memory.as_mut_ptr().expose_provenance() as u64, len: memory.len() as u64 };
        let base = NonNull::from(memory).cast();
        self.region(range, base, slot_bytes, Access::Host, None, |provider| provider.register(range))
    }

    /// Registers memory that lives for ever as destination, in slots for pages of `layout`, which
    /// may have several regions. The memory is divided into the regions, one behind the other, with
    /// as many slots as fit.
    ///
    /// # Errors
    ///
    /// As [`register_foreign_regions`](Self::register_foreign_regions).
    #[allow(unsafe_code, reason = "memory that lives for ever is promised")]
    pub fn register_regions(
        &mut self,
        layout: &Geometry,
        memory: &'static mut [u8],
    ) -> Result<Slots, RegionError> {
        let (bytes, slot_bytes) = (memory.len() as u64, layout.page_bytes());
        let slots = bytes.checked_div(slot_bytes).filter(|slots| *slots > 0);
        let slots = slots.ok_or(RegionError::TooSmall { bytes, slot_bytes })?;
        let base = memory.as_mut_ptr().expose_provenance() as u64;
        let mut regions = heapless::Vec::<DestinationRegion, LOCAL_PIECES>::new();
        let mut addr = base;
        for region in 0..layout.regions() {
            let stride = layout.region_bytes(region).unwrap_or(0);
            // All regions together have no more bytes than the memory.
            let range = MemoryRange { addr, len: stride * slots };
            addr += range.len;
            let (needed, limit) = (layout.regions() as usize, LOCAL_PIECES);
            let full = RegionError::Pieces { needed, limit };
            regions.push(DestinationRegion { range, stride }).map_err(|_| full)?;
        }
        // SAFETY: the memory is borrowed exclusively and for ever, and is initialised; the regions
        // lie within it, one behind the other.
        unsafe { self.register_foreign_regions(layout, &regions, Access::Host, None) }
    }

    /// Registers foreign memory as destination, in slots for pages of `layout`, with a range for
    /// each region of a page, in their order. A page lands in one slot, whose pieces are at the
    /// same number in each range. `numa` is the memory's NUMA node, if known.
    ///
    /// # Errors
    ///
    /// The ranges are not those of the layout: too few or too many, of different numbers of slots,
    /// overlapping, or with slots that overlap; the layout leaves a distance or a rank open; a
    /// table is full; or the provider cannot register the memory.
    ///
    /// # Safety
    ///
    /// As for [`register_foreign`](Self::register_foreign), of the slots' pieces. Bytes between the
    /// pieces may belong to others.
    #[allow(unsafe_code, reason = "the caller's promise is in the signature")]
    pub unsafe fn register_foreign_regions(
        &mut self,
        layout: &Geometry,
        regions: &[DestinationRegion],
        access: Access,
        numa: Option<u8>,
    ) -> Result<Slots, RegionError> {
        // SAFETY: the caller's promise is the same.
        unsafe { self.register_ranges(layout, regions, &[], access, numa) }
    }

    /// As [`register_foreign_regions`](Self::register_foreign_regions), of memory of another
    /// device, whose slots give addresses and no bytes. `exports` has for each range the dmabuf
    /// that holds it, with the byte at which the range begins, or `None` where the rails know the
    /// device's addresses as they are. READs address the memory by the addresses of the ranges.
    ///
    /// # Errors
    ///
    /// As [`register_foreign_regions`](Self::register_foreign_regions); there are not as many
    /// exports as ranges; or the rails cannot register such memory, with errno 95.
    ///
    /// # Safety
    ///
    /// As for [`register_dmabuf`](Self::register_dmabuf), of the slots' pieces.
    #[allow(unsafe_code, reason = "the caller's promise is in the signature")]
    pub unsafe fn register_device_regions(
        &mut self,
        layout: &Geometry,
        regions: &[DestinationRegion],
        exports: &[Option<DmaBuf>],
        numa: Option<u8>,
    ) -> Result<Slots, RegionError> {
        if exports.len() != regions.len() {
            return Err(RegionError::Regions { given: exports.len(), layout: layout.regions() });
        }
        // SAFETY: the caller's promise is the same.
        unsafe { self.register_ranges(layout, regions, exports, Access::Device, numa) }
    }

    /// Registers a range for each region of a layout, as a part of the dmabuf that `exports` has
    /// for it, if it has one.
    ///
    /// # Safety
    ///
    /// As for [`register_foreign_regions`](Self::register_foreign_regions).
    #[allow(unsafe_code, reason = "the caller's promise is in the signature")]
    unsafe fn register_ranges(
        &mut self,
        layout: &Geometry,
        regions: &[DestinationRegion],
        exports: &[Option<DmaBuf>],
        access: Access,
        numa: Option<u8>,
    ) -> Result<Slots, RegionError> {
        let shape = check_regions(layout, regions)?;
        // Before anything is registered.
        regions.iter().try_for_each(|region| self.check_length(region.range))?;
        let known = self.add_page_layout(layout)?;
        let limit = self.regions.locals.len();
        let place =
            self.regions.locals.iter().position(|local| !local.used).ok_or(RegionError::Full { limit })?;
        let base = NonNull::new(core::ptr::with_exposed_provenance_mut(regions[0].range.addr as usize));
        let base = base.ok_or(RegionError::TooSmall { bytes: 0, slot_bytes: shape.slot_bytes.into() })?;
        let near = self.near(numa);
        self.regions.locals[place] = if let [region] = regions {
            let keys = self.register_range(region.range, exports.first())?;
            LocalPlace { used: true, near, keys, ..LocalPlace::FREE }
        } else {
            let first = self.register_pieces(layout, regions, exports)?;
            let keys = self.regions.pieces[first].keys;
            let (first_piece, pieces) = (narrow(first), narrow(regions.len()));
            LocalPlace { used: true, first_piece, pieces, near, keys }
        };
        let batch = layout.page_bytes().saturating_mul(self.pages.pool().pages_per_batch() as u64);
        self.rails.may_carry(batch, &self.config);
        let region = RegionId(narrow(place));
        // SAFETY: the caller promises the ranges until `unregister`, and `check_regions` has found
        // that the shape is theirs.
        let slots = unsafe { Slots::new(base, regions[0].range, shape, region, self.tag, access) };
        Ok(slots.of_layout(known))
    }

    /// Registers the ranges of a region whose slots have several pieces, and returns the place of
    /// the first.
    fn register_pieces(
        &mut self,
        layout: &Geometry,
        regions: &[DestinationRegion],
        exports: &[Option<DmaBuf>],
    ) -> Result<usize, RegionError> {
        let limit = LOCAL_PIECES;
        let needed = regions.len();
        let first = self.regions.find_free_pieces(needed).ok_or(RegionError::Pieces { needed, limit })?;
        for (i, region) in regions.iter().enumerate() {
            match self.register_range(region.range, exports.get(i)) {
                Ok(keys) => {
                    // `check_regions` has found that it is a u32.
                    let slot_bytes = layout.region_bytes(i as u32).unwrap_or(0) as u32;
                    let DestinationRegion { range, stride } = *region;
                    self.regions.pieces[first + i] =
                        LocalPiece { used: true, slot_bytes, range, stride, keys };
                }
                Err(error) => {
                    self.free_pieces(first, i);
                    return Err(error.into());
                }
            }
        }
        Ok(first)
    }

    /// Registers one range: as a part of `export`, if there is one.
    fn register_range(
        &mut self,
        range: MemoryRange,
        export: Option<&Option<DmaBuf>>,
    ) -> Result<RailKeys, RegisterError> {
        match export {
            Some(&Some(dmabuf)) => self.provider.register_dmabuf(range, dmabuf),
            _ => self.provider.register(range),
        }
    }

    /// Deregisters `count` pieces from `first` on, and frees their places.
    fn free_pieces(&mut self, first: usize, count: usize) {
        for piece in &mut self.regions.pieces[first..first + count] {
            self.provider.deregister(piece.range, &piece.keys);
            *piece = LocalPiece::FREE;
        }
    }

    /// The address of a slot's piece in region `region` of its layout; `None` if there is no such
    /// region, or the slot is another engine's.
    #[must_use]
    pub fn slot_address(&self, slot: &Slot, region: u32) -> Option<u64> {
        self.slot_piece(slot, region).map(|(addr, _)| addr)
    }

    /// The bytes of a slot's piece in region `region` of its layout; `None` if there is no such
    /// region, for device memory, or if the slot is another engine's.
    #[must_use]
    #[allow(unsafe_code, reason = "the pieces of a slot are its bytes")]
    pub fn slot_bytes<'a>(&self, slot: &'a Slot, region: u32) -> Option<&'a [u8]> {
        slot.bytes()?;
        let (addr, len) = self.slot_piece(slot, region)?;
        // SAFETY: the piece belongs to the slot alone, as its first bytes do, and is valid and
        // initialised for as long: while the slot exists its region is not unregistered.
        Some(unsafe { core::slice::from_raw_parts(core::ptr::with_exposed_provenance(addr as usize), len) })
    }

    /// As [`slot_bytes`](Self::slot_bytes), to be changed.
    #[must_use]
    #[allow(unsafe_code, reason = "the pieces of a slot are its bytes")]
    pub fn slot_bytes_mut<'a>(&self, slot: &'a mut Slot, region: u32) -> Option<&'a mut [u8]> {
        slot.bytes()?;
        let (addr, len) = self.slot_piece(slot, region)?;
        let first = core::ptr::with_exposed_provenance_mut(addr as usize);
        // SAFETY: as in `slot_bytes`; `&mut Slot` makes the view exclusive.
        Some(unsafe { core::slice::from_raw_parts_mut(first, len) })
    }

    fn slot_piece(&self, slot: &Slot, region: u32) -> Option<(u64, usize)> {
        let of = slot.slot_region();
        if of.engine() != self.tag {
            return None;
        }
        match self.regions.pieces_of(of.region().index()) {
            [] => (region == 0).then(|| (slot.address(), slot.len())),
            pieces => {
                let piece = pieces.get(region as usize)?;
                Some((piece.slot(slot.piece_index()), piece.slot_bytes as usize))
            }
        }
    }

    /// Rails on a NUMA node; all rails if the node is not known.
    fn near(&self, numa: Option<u8>) -> u16 {
        let mut near = 0;
        for (i, rail) in self.rails.iter().enumerate() {
            if numa.is_none() || rail.info.numa == numa {
                near |= 1 << i;
            }
        }
        near
    }

    /// Registers foreign memory (pinned, a GPU's, an inference engine's own pool) as destination.
    /// `numa` is the memory's NUMA node, if known: rails of the same node are preferred.
    ///
    /// # Errors
    ///
    /// As [`register`](Self::register).
    ///
    /// # Safety
    ///
    /// From now on, and until [`unregister`](Self::unregister) gives the range back, the memory is
    /// valid, belongs to the slots alone, and is not unmapped. With [`Access::Host`] it is readable
    /// and writable by the CPU, and initialised.
    #[allow(unsafe_code, reason = "the caller's promise is in the signature")]
    pub unsafe fn register_foreign(
        &mut self,
        range: MemoryRange,
        slot_bytes: u64,
        access: Access,
        numa: Option<u8>,
    ) -> Result<Slots, RegionError> {
        let base = NonNull::new(core::ptr::with_exposed_provenance_mut(range.addr as usize));
        let base = base.ok_or(RegionError::TooSmall { bytes: 0, slot_bytes })?;
        self.region(range, base, slot_bytes, access, numa, |provider| provider.register(range))
    }

    /// Registers memory of another device, exported as a dmabuf, as destination. Its slots give an
    /// address and no bytes. READs address the memory by the addresses of `range`; `numa` is the
    /// device's NUMA node, if known.
    ///
    /// # Errors
    ///
    /// As [`register`](Self::register); errno 95 is that of rails that cannot register such memory.
    ///
    /// # Safety
    ///
    /// From now on, and until [`unregister`](Self::unregister) gives the range back, the memory is
    /// valid and belongs to the slots alone.
    #[allow(unsafe_code, reason = "the caller's promise is in the signature")]
    pub unsafe fn register_dmabuf(
        &mut self,
        range: MemoryRange,
        dmabuf: DmaBuf,
        slot_bytes: u64,
        numa: Option<u8>,
    ) -> Result<Slots, RegionError> {
        let base = NonNull::new(core::ptr::with_exposed_provenance_mut(range.addr as usize));
        let base = base.ok_or(RegionError::TooSmall { bytes: 0, slot_bytes })?;
        self.region(range, base, slot_bytes, Access::Device, numa, |p| p.register_dmabuf(range, dmabuf))
    }

    fn region(
        &mut self,
        range: MemoryRange,
        base: NonNull<u8>,
        slot_bytes: u64,
        access: Access,
        numa: Option<u8>,
        register: impl FnOnce(&mut P) -> Result<RailKeys, RegisterError>,
    ) -> Result<Slots, RegionError> {
        let shape = RegionShape::check(range.len, slot_bytes)?;
        self.check_length(range)?;
        let limit = self.regions.locals.len();
        let place =
            self.regions.locals.iter().position(|local| !local.used).ok_or(RegionError::Full { limit })?;
        let keys = register(&mut self.provider)?;
        let near = self.near(numa);
        self.regions.locals[place] = LocalPlace { used: true, near, keys, ..LocalPlace::FREE };
        let batch = slot_bytes.saturating_mul(self.pages.pool().pages_per_batch() as u64);
        self.rails.may_carry(batch, &self.config);
        let region = RegionId(narrow(place));
        // SAFETY: `register` has the memory exclusively and for ever; `register_foreign`'s caller
        // promises the same until `unregister`. The shape was checked just now.
        #[allow(unsafe_code, reason = "the slots of memory that was promised")]
        Ok(unsafe { Slots::new(base, range, shape, region, self.tag, access) })
    }

    /// Registers ranges at the same time that are to be registered one by one right after: see
    /// [`Provider::register_ahead`]. Then call [`release_ahead`](Self::release_ahead).
    ///
    /// # Errors
    ///
    /// A range is too long, or the provider cannot register it; nothing stays registered then.
    pub fn register_ahead(&mut self, ranges: &[MemoryRange]) -> Result<(), RegionError> {
        ranges.iter().try_for_each(|&range| self.check_length(range))?;
        Ok(self.provider.register_ahead(ranges)?)
    }

    /// Releases what was registered ahead and is in no region, and returns how many ranges that
    /// were.
    pub fn release_ahead(&mut self) -> usize {
        self.provider.release_ahead()
    }

    /// The most bytes of one registration, on every rail. Longer memory is registered in parts.
    #[must_use]
    pub fn max_region_bytes(&self) -> u64 {
        self.provider.max_region_bytes()
    }

    /// Checks that one registration can have the range.
    fn check_length(&self, range: MemoryRange) -> Result<(), RegionError> {
        let (bytes, limit) = (range.len, self.provider.max_region_bytes());
        if bytes > limit { Err(RegionError::TooLong { bytes, limit }) } else { Ok(()) }
    }

    /// Releases a region of which no slot is out, and returns its range: the first of them, if it
    /// has several.
    ///
    /// # Errors
    ///
    /// The slots, untouched, if some are still out or the region is another engine's.
    pub fn unregister(&mut self, slots: Slots) -> Result<MemoryRange, Slots> {
        if slots.engine() != self.tag || slots.out() != 0 {
            return Err(slots);
        }
        let local = &mut self.regions.locals[slots.region().index()];
        let LocalPlace { first_piece, pieces, keys, .. } = core::mem::replace(local, LocalPlace::FREE);
        match pieces {
            0 => self.provider.deregister(slots.range(), &keys),
            _ => self.free_pieces(first_piece.into(), pieces.into()),
        }
        Ok(slots.range())
    }
}
