//! Memory of the caller's that pages land in.
#![allow(unsafe_code, reason = "foreign memory, on the caller's word")]

use engine::core::memory::{Access, DestinationRegion, Slots};
use engine::core::provider::MemoryRange;
use engine::{PageLayout, Reader, ReaderTransport};

use super::tables::Tables;
use crate::abi::reader_types::kvrail_destination;
use crate::error::CapiError;

/// What the slots of a region hold.
#[derive(Debug)]
pub(crate) enum Holds {
    /// Pages of a layout.
    Pages(Box<PageLayout>),
    /// This many bytes, of no layout.
    Bytes(u32),
}

/// Only the caller in C looks at the bytes of slots, so no reference to them is ever made here, and
/// they need not be initialised.
const ACCESS: Access = Access::Device;

/// Registers memory. Returns the number of the region, and how many slots it has.
///
/// # Safety
///
/// As for [`Reader::register_foreign_for`].
pub(crate) unsafe fn register<T: ReaderTransport>(
    reader: &mut Reader<T>,
    tables: &mut Tables,
    holds: Holds,
    given: &[kvrail_destination],
    numa: Option<u8>,
) -> Result<(u32, u32), CapiError> {
    let slots = match holds {
        Holds::Pages(layout) => {
            let regions = given.iter().zip(0..).map(|(given, region)| destination(given, &layout, region));
            let regions = regions.collect::<Result<Vec<_>, _>>()?;
            // SAFETY: the caller's promise is the same.
            unsafe { reader.register_foreign_for(&layout, &regions, ACCESS, numa) }?
        }
        Holds::Bytes(slot_bytes) => {
            let [given] = given else {
                let (what, value) = ("destination_count", given.len() as u64);
                return Err(CapiError::Value { what, value, allowed: "1 for slots of bytes" });
            };
            // SAFETY: the caller's promise is the same.
            unsafe { reader.register_foreign_bytes(range(given)?, slot_bytes, ACCESS, numa) }?
        }
    };
    Ok(tables.regions.add(slots))
}

fn range(given: &kvrail_destination) -> Result<MemoryRange, CapiError> {
    if given.address.is_null() {
        return Err(CapiError::Null { what: "destination.address" });
    }
    let range = MemoryRange { addr: given.address.expose_provenance() as u64, len: given.bytes };
    if range.addr.checked_add(range.len).is_none() {
        let (what, value) = ("destination.bytes", given.bytes);
        return Err(CapiError::Value { what, value, allowed: "memory that ends below 2^64" });
    }
    Ok(range)
}

/// The memory of a region of `layout`.
pub(crate) fn destination(
    given: &kvrail_destination,
    layout: &PageLayout,
    region: u32,
) -> Result<DestinationRegion, CapiError> {
    // A region that the layout lacks is refused by the engine, with the number of those it has.
    let page = layout.geometry().region_bytes(region).unwrap_or(1);
    let stride = if given.stride == 0 { page } else { given.stride };
    Ok(DestinationRegion { range: range(given)?, stride })
}

/// Releases a region none of whose slots is in flight.
pub(crate) fn unregister<T: ReaderTransport>(
    reader: &mut Reader<T>,
    tables: &mut Tables,
    region: u32,
) -> Result<(), CapiError> {
    let slots: Slots = tables.regions.remove(region)?;
    // Its slots are all back, and it is this reader's.
    reader.unregister(slots).map(drop).map_err(|slots| {
        let in_flight = slots.out();
        tables.regions.restore(slots);
        CapiError::RegionBusy { region, in_flight }
    })
}
