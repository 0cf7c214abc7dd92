//! The places of a node that pages by key land in.

use anyhow::Context;
use kvrail_node::{Destination, Key};

use crate::measure::pattern::{self, Wrong};

const NO_BYTES: &str = "a place of the host's memory has no bytes";

/// Overwrites a place, so that the bytes that are compared later must have arrived since.
pub(crate) fn wipe(place: &mut Destination) -> anyhow::Result<()> {
    for region in 0..place.layout().regions() {
        place.bytes_mut(region).context(NO_BYTES)?.fill(pattern::WIPED);
    }
    Ok(())
}

/// The version of the page of `key` that is in a place, or why the place does not hold that page.
pub(crate) fn check(place: &Destination, key: Key) -> anyhow::Result<Result<u64, Wrong>> {
    let regions = 0..place.layout().regions() as usize;
    pattern::check_parts(regions.map(|region| place.bytes(region as u32)), key.0.0).context(NO_BYTES)
}
