//! Destination memory that is longer than a rail registers at once: it is registered in pieces, and
//! each piece gives slots of its own.
#![allow(unsafe_code, reason = "foreign memory, on the caller's word")]

use std::ops::Range;
use std::time::Instant;

use kvrail_core::memory::{Access, DestinationRegion, RegionError, Slots};
use kvrail_core::provider::MemoryRange;

use super::Reader;
use crate::cutting::{Cut, Limit, Row, SlotTooLong, Stretch};
use crate::layout::PageLayout;
use crate::transport::ReaderTransport;

impl<T: ReaderTransport> Reader<T> {
    /// Makes destination slots as [`register`](Self::register) does, of memory that may be longer
    /// than a rail registers at once: in pieces of at most `piece_bytes`, or of what the rails
    /// register at once if that is less. `u64::MAX` leaves it to the rails. No slot lies in two
    /// pieces. Where it costs little, pieces end between pages of the host.
    ///
    /// Each piece has `Slots` of its own. A batch may name slots of any of them. Over RDMA as many
    /// pieces are registered at a time as the reader has rails, each on all of them. The log says
    /// once a second how far the registration is, and its rate at the end.
    ///
    /// # Errors
    ///
    /// As [`register`](Self::register); or one slot alone is longer than a piece may be, or there
    /// are more pieces than the engine has places for (256 for all memory together). Nothing stays
    /// registered then.
    pub fn register_in_pieces(
        &mut self,
        memory: &'static mut [u8],
        piece_bytes: u64,
    ) -> Result<Vec<Slots>, RegionError> {
        let layout = self.layout;
        let (bytes, slot_bytes) = (memory.len() as u64, layout.geometry().page_bytes());
        let slots = bytes.checked_div(slot_bytes).filter(|&slots| slots > 0);
        let slots = slots.ok_or(RegionError::TooSmall { bytes, slot_bytes })?;
        let slots = u32::try_from(slots).map_err(|_| RegionError::TooMany { slots })?;
        let row = Row { base: memory.as_ptr().expose_provenance() as u64, stride: slot_bytes };
        let cut = self.cut(slots, &[row.stretch(slots)], piece_bytes)?;
        let mut rest = memory;
        // The regions of a piece lie in it one behind the other.
        let ranges_of = |piece: &Range<u32>| {
            let slots = u64::from(piece.end - piece.start);
            let mut addr = row.base + u64::from(piece.start) * slot_bytes;
            let regions = (0..layout.regions()).filter_map(|region| layout.geometry().region_bytes(region));
            let range = |bytes: u64| {
                let len = slots * bytes;
                addr += len;
                MemoryRange { addr: addr - len, len }
            };
            regions.map(range).collect()
        };
        self.register_each(&cut, ranges_of, |reader, piece| {
            // All pieces together have no more slots than the memory.
            let len = (u64::from(piece.end - piece.start) * slot_bytes) as usize;
            let (part, after) = std::mem::take(&mut rest).split_at_mut(len);
            rest = after;
            reader.register_for(&layout, part)
        })
    }

    /// Makes destination slots of foreign memory as
    /// [`register_foreign_for`](Self::register_foreign_for) does, in pieces as
    /// [`register_in_pieces`](Self::register_in_pieces). The ranges of all regions are cut at the
    /// same slots.
    ///
    /// # Errors
    ///
    /// As these two.
    ///
    /// # Safety
    ///
    /// As for [`register_foreign_for`](Self::register_foreign_for), until the slots of all pieces
    /// have been given back.
    pub unsafe fn register_foreign_in_pieces(
        &mut self,
        layout: &PageLayout,
        regions: &[DestinationRegion],
        access: Access,
        numa: Option<u8>,
        piece_bytes: u64,
    ) -> Result<Vec<Slots>, RegionError> {
        // Of the whole ranges: pieces by themselves would hide two ranges that overlap.
        let slots = DestinationRegion::slots_of(layout.geometry(), regions)?;
        let stretches: Vec<Stretch> = regions
            .iter()
            .map(|at| Stretch { whole: at.range, row: Row { base: at.range.addr, stride: at.stride } })
            .collect();
        let cut = self.cut(slots, &stretches, piece_bytes)?;
        let parts_of = |piece: &Range<u32>| -> Vec<DestinationRegion> {
            regions.iter().map(|region| part(region, piece, slots)).collect()
        };
        let ranges_of = |piece: &Range<u32>| parts_of(piece).iter().map(|part| part.range).collect();
        self.register_each(&cut, ranges_of, |reader, piece| {
            let parts = parts_of(&piece);
            // SAFETY: the caller promises the whole ranges, of which these are parts with slots of
            // their own.
            unsafe { reader.register_foreign_for(layout, &parts, access, numa) }
        })
    }

    fn cut(&self, slots: u32, stretches: &[Stretch], piece_bytes: u64) -> Result<Cut, RegionError> {
        let limit = piece_bytes.min(self.engine.max_region_bytes());
        let too_long = |slot: SlotTooLong| RegionError::TooLong { bytes: slot.stride, limit };
        Cut::new(slots, stretches, Limit::new(limit)).map_err(too_long)
    }

    /// Registers each piece; `ranges_of` gives the ranges of a piece that the rails register, and
    /// `register` its slots. The rails register the ranges of all pieces first, several at the same
    /// time where they have a use for that.
    fn register_each(
        &mut self,
        cut: &Cut,
        ranges_of: impl Fn(&Range<u32>) -> Vec<MemoryRange>,
        mut register: impl FnMut(&mut Self, Range<u32>) -> Result<Slots, RegionError>,
    ) -> Result<Vec<Slots>, RegionError> {
        let ranges: Vec<MemoryRange> = cut.pieces().flat_map(|piece| ranges_of(&piece)).collect();
        let began = Instant::now();
        self.engine.register_ahead(&ranges)?;
        let mut made = Vec::new();
        let result = cut.pieces().try_for_each(|piece| {
            made.push(register(self, piece)?);
            Ok(())
        });
        if let Err(error) = result {
            // In their order; no slot of these has been given out.
            made.into_iter().for_each(|slots| _ = self.unregister(slots));
            self.engine.release_ahead();
            return Err(error);
        }
        let left = self.engine.release_ahead();
        debug_assert_eq!(left, 0, "ranges of pieces are those that are registered");
        let bytes = ranges.iter().fold(0, |sum: u64, range| sum.saturating_add(range.len));
        let seconds = began.elapsed().as_secs_f64();
        let gb_per_s = format_args!("{:.1}", bytes as f64 / 1e9 / seconds.max(1e-9)).to_string();
        let seconds = format_args!("{seconds:.3}").to_string();
        tracing::info!(pieces = made.len(), bytes, %seconds, %gb_per_s, "destinations registered");
        Ok(made)
    }
}

/// The slots `piece` of a range that holds `slots`.
fn part(region: &DestinationRegion, piece: &Range<u32>, slots: u32) -> DestinationRegion {
    let DestinationRegion { range, stride } = *region;
    let before = stride * u64::from(piece.start);
    let addr = range.addr + before;
    // Behind the last slot there may be less than a stride. Bytes beyond its stride hold no slot,
    // and the cut has not counted them.
    let all = stride * u64::from(piece.end - piece.start);
    let len = if piece.end == slots { all.min(range.len - before) } else { all };
    DestinationRegion { range: MemoryRange { addr, len }, stride }
}
