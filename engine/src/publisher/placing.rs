//! The checks of a foreign pool: every number of its regions is checked once, here.

use kvrail_core::provider::MemoryRange;
use kvrail_session::PoolId;

use super::error::ForeignPoolError;
use super::foreign::{ForeignMemory, ForeignRegion};
use super::overlap::Pages;
use crate::cutting::{Row, Stretch};

/// The pages of a region, in memory that other pools may have pages in.
#[derive(Clone, Debug)]
pub(super) struct PlacedRegion {
    /// `None`: memory of the publisher's own, which nothing else is in.
    pub(super) memory: Option<ForeignMemory>,
    /// Where the first of the strides begins in which the pages lie.
    pub(super) blocks: u64,
    pub(super) pages: Pages,
}

impl PlacedRegion {
    /// The foreign memory, and how it can be cut: between strides, so that pools whose pages lie
    /// beside each other in the same strides are cut alike.
    pub(super) fn stretch(&self) -> Option<(&ForeignMemory, Stretch)> {
        let memory = self.memory.as_ref()?;
        let row = Row { base: self.blocks, stride: self.pages.stride };
        Some((memory, Stretch { whole: memory.range(), row }))
    }
}

/// Where the pages of a foreign pool are, whose pages have regions of these sizes.
///
/// # Errors
///
/// The first number that cannot be.
pub(super) fn place(parts: &[u32], regions: &[ForeignRegion]) -> Result<Vec<PlacedRegion>, ForeignPoolError> {
    if regions.len() != parts.len() {
        return Err(ForeignPoolError::Regions { given: regions.len(), layout: parts.len() });
    }
    let mut placed: Vec<PlacedRegion> = Vec::with_capacity(regions.len());
    for (region, (given, &page_bytes)) in regions.iter().zip(parts).enumerate() {
        let pages = place_region(region, given, page_bytes)?;
        if let Some(first) = placed.first()
            && first.pages.slots != pages.slots
        {
            return Err(ForeignPoolError::Slots { region, slots: pages.slots, first: first.pages.slots });
        }
        let blocks = pages.base - given.offset;
        placed.push(PlacedRegion { memory: Some(given.memory.clone()), blocks, pages });
    }
    Ok(placed)
}

fn place_region(region: usize, given: &ForeignRegion, page_bytes: u32) -> Result<Pages, ForeignPoolError> {
    let MemoryRange { addr, len: memory } = given.memory.range();
    if memory == 0 || addr.checked_add(memory).is_none() {
        return Err(ForeignPoolError::Range { region, addr, len: memory });
    }
    let (from, to) = (given.bytes.start, given.bytes.end);
    if from >= to || to > memory {
        return Err(ForeignPoolError::Outside { region, from, to, memory });
    }
    let (page, offset) = (u64::from(page_bytes), given.offset);
    let stride = given.stride.unwrap_or(page);
    if stride < page {
        return Err(ForeignPoolError::Stride { region, stride, page });
    }
    if offset > stride - page {
        return Err(ForeignPoolError::Offset { region, offset, page, stride });
    }
    let (bytes, tail) = (to - from, (to - from) % stride);
    if tail > 0 {
        return Err(ForeignPoolError::Tail { region, bytes, stride, tail });
    }
    let slots = bytes / stride;
    let slots = u32::try_from(slots).map_err(|_| ForeignPoolError::TooManySlots { region, slots })?;
    // Within the memory, which does not wrap.
    Ok(Pages { base: addr + from + offset, page_bytes, stride, slots })
}

/// Checks that no page of `pool` shares a byte with another page of the pool, or of `others`.
///
/// # Errors
///
/// Two pages share bytes. Each would be covered by a table of its own, and neither table would tell
/// of what is written by way of the other.
pub(super) fn check_apart<'a>(
    pool: PoolId,
    placed: &[PlacedRegion],
    others: impl Iterator<Item = (PoolId, &'a [PlacedRegion])>,
) -> Result<(), ForeignPoolError> {
    let number = |pool, regions: &'a [PlacedRegion]| {
        regions.iter().enumerate().map(move |(region, other)| (pool, region, other))
    };
    let others: Vec<_> = others.flat_map(|(pool, regions)| number(pool, regions)).collect();
    for (region, one) in placed.iter().enumerate() {
        let before = placed[..region].iter().enumerate().map(|(at, other)| (pool, at, other));
        for (other_pool, other_region, other) in others.iter().copied().chain(before) {
            let one_space = match (&one.memory, &other.memory) {
                (Some(one), Some(other)) => one.shares_addresses(other),
                _ => true,
            };
            if !one_space {
                continue;
            }
            if let Some((slot, other_slot)) = one.pages.overlap(&other.pages) {
                return Err(ForeignPoolError::Overlap {
                    page: (pool, region, slot),
                    at: one.pages.at(slot) as u64,
                    other: (other_pool, other_region, other_slot),
                    other_at: other.pages.at(other_slot) as u64,
                });
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
