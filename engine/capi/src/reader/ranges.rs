//! The data path in bulk: pages of one peer into consecutive slots, and the results of whole
//! batches. Nothing here allocates but after an error.

use std::mem::MaybeUninit;

use engine::core::batch::{Batch, RejectedPages};
use engine::core::memory::SlotRange;
use engine::core::remote::RemoteRegion;
use engine::{Location, PeerPool, Reader, ReaderTransport, Ticket};

use super::flight::{empty_batch, status, submit, take_back};
use super::tables::{KnownPeer, Scratch, Tables};
use crate::abi::constants::KVRAIL_READ_UNVALIDATED;
use crate::abi::publisher_types::kvrail_location;
use crate::abi::reader_types::{kvrail_batch_result, kvrail_read_options, kvrail_read_range};
use crate::border::Caller;
use crate::error::CapiError;
use crate::publisher::rust_location;

/// Submits the pages of `ranges` as one batch, or none of them.
pub(crate) fn read<T: ReaderTransport>(
    caller: &Caller<'_>,
    reader: &mut Reader<T>,
    tables: &mut Tables,
    ranges: &[kvrail_read_range],
    options: &kvrail_read_options,
) -> Result<Ticket, CapiError> {
    let pages = ranges.iter().fold(0_usize, |pages, range| pages.saturating_add(range.count));
    let mut batch = empty_batch(reader, tables, pages, options)?;
    for (at, range) in ranges.iter().enumerate() {
        if let Err((page, source)) = add(caller, tables, &mut batch, range) {
            take_back(&mut tables.regions, &mut batch);
            return Err(CapiError::OfPage { range: at, page, source: Box::new(source) });
        }
    }
    submit(reader, tables, batch, options)
}

/// Adds the pages of one range to a batch. An error has the position of a page in the range. Pages
/// before it may have joined the batch; the slots of the others are back in their region.
#[inline]
fn add(
    caller: &Caller<'_>,
    tables: &mut Tables,
    batch: &mut Batch<'static>,
    range: &kvrail_read_range,
) -> Result<(), (usize, CapiError)> {
    let of_range = |error| (0, error);
    let locations = caller.list("range.locations", range.locations, range.count).map_err(of_range)?;
    let validated = match range.flags {
        0 => true,
        KVRAIL_READ_UNVALIDATED => false,
        other => {
            let (what, value) = ("range.flags", other.into());
            return Err((0, CapiError::Value { what, value, allowed: "KVRAIL_READ_ constants" }));
        }
    };
    let Tables { regions, peers, scratch, .. } = tables;
    let peer = peers.get(range.peer).map_err(of_range)?;
    let mut slots = regions.take_range(range.region, range.first_slot, range.count)?;
    let mut added = 0;
    while let Some(first) = locations.get(added) {
        let failed = match Piece::of(peer, first) {
            Err(error) => (0, error),
            Ok(piece) => {
                let joined = match validated {
                    true => piece.add(batch, scratch, &locations[added..], &mut slots),
                    false => piece.add_unvalidated(batch, scratch, &locations[added..], &mut slots),
                };
                match joined {
                    Ok(pages) => {
                        added += pages;
                        continue;
                    }
                    Err(RejectedPages { slots, page, error }) => {
                        regions.put_range(slots);
                        (page, error.into())
                    }
                }
            }
        };
        regions.put_range(slots);
        let (page, error) = failed;
        return Err((added + page, error));
    }
    Ok(())
}

/// A piece of a peer's pool: the engine reads pages of one by one call.
struct Piece<'a> {
    region: &'a RemoteRegion,
    pool: u32,
    /// The number within the pool of the piece's first slot.
    first: u32,
}

impl<'a> Piece<'a> {
    /// The piece that has the page at `location`.
    #[inline]
    fn of(peer: &'a KnownPeer, location: &kvrail_location) -> Result<Self, CapiError> {
        let pool: &PeerPool = peer.pool(location.pool)?;
        let (region, slot) = pool.region_of(location.slot)?;
        Ok(Self { region, pool: location.pool, first: location.slot - slot })
    }

    /// The number within the piece of the slot of `location`, if the page is one of the piece.
    #[inline]
    fn slot(&self, location: &kvrail_location) -> Option<u32> {
        let slot = location.slot.wrapping_sub(self.first);
        if location.pool == self.pool && slot < self.region.slots() { Some(slot) } else { None }
    }

    /// Adds the pages of `locations`, as far as they are of this piece and the scratch has room,
    /// into the first of `slots`, which are the batch's then. Returns how many.
    #[inline]
    fn add(
        &self,
        batch: &mut Batch<'static>,
        scratch: &mut Scratch,
        locations: &[kvrail_location],
        slots: &mut SlotRange,
    ) -> Result<usize, RejectedPages> {
        let mut pages = 0;
        for (place, location) in scratch.locations.iter_mut().zip(locations) {
            let Some(slot) = self.slot(location) else { break };
            *place = Location { slot, ..rust_location(location) };
            pages += 1;
        }
        let behind = slots.split_off(pages);
        let taken = std::mem::replace(slots, behind);
        batch.read_many(self.region, &scratch.locations[..pages], taken).map(|()| pages)
    }

    /// As [`add`](Self::add), without validation.
    fn add_unvalidated(
        &self,
        batch: &mut Batch<'static>,
        scratch: &mut Scratch,
        locations: &[kvrail_location],
        slots: &mut SlotRange,
    ) -> Result<usize, RejectedPages> {
        let mut pages = 0;
        for (place, location) in scratch.slots.iter_mut().zip(locations) {
            let Some(slot) = self.slot(location) else { break };
            *place = slot;
            pages += 1;
        }
        let behind = slots.split_off(pages);
        let taken = std::mem::replace(slots, behind);
        batch.read_many_unvalidated(self.region, &scratch.slots[..pages], taken).map(|()| pages)
    }
}

/// Takes the next batch that is done, and puts its slots back. `failed` has a bit for each page,
/// which is set if the page did not arrive; `statuses` gets the statuses of these pages alone. Both
/// may be missing. `None` if no batch is done.
pub(crate) fn next_batch<T: ReaderTransport>(
    reader: &mut Reader<T>,
    tables: &mut Tables,
    failed: Option<&mut [MaybeUninit<u64>]>,
    statuses: Option<&mut [MaybeUninit<i32>]>,
) -> Result<kvrail_batch_result, CapiError> {
    let Some(mut done) = tables.draining.take().or_else(|| reader.next_done()) else {
        return Ok(kvrail_batch_result::default());
    };
    let pages = done.len();
    let words = pages.div_ceil(64);
    let room = [
        (words, failed.as_ref().map(|places| places.len())),
        (pages, statuses.as_ref().map(|places| places.len())),
    ];
    for (needed, given) in room {
        if let Some(given) = given.filter(|given| *given < needed) {
            // The next call gives it.
            tables.draining = Some(done);
            return Err(CapiError::Buffer { needed, given });
        }
    }
    for (at, word) in failed.unwrap_or_default().iter_mut().take(words).enumerate() {
        word.write(done.failed_bits(at));
    }
    let statuses = statuses.unwrap_or_default();
    let mut count = 0;
    for (page, error) in done.failures() {
        if let Some(place) = statuses.get_mut(page) {
            place.write(status(Err(error)));
        }
        count += 1;
    }
    let (ticket, tag) = (done.ticket().to_bits(), done.tag());
    while let Some(range) = done.take_range() {
        tables.regions.put_range(range.slots);
    }
    // A batch has fewer than 2^16 pages.
    Ok(kvrail_batch_result { ticket, tag, pages: pages as u32, failed: count })
}
