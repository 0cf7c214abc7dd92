//! The bounds of the core, and the one function that narrows a number to the 16 bits that these
//! bounds allow.
//!
//! Numbers of peers, lanes, batches, pages and regions travel in links, queues and `wr_id`s as 16
//! bits. [`EngineStorage`](crate::storage::EngineStorage) checks its maxima against the bounds
//! below when it is compiled, so every place number fits, and `narrow` is where a number becomes a
//! `u16`.

use static_assertions::const_assert;

/// The most rails that one engine drives. Keys are kept per rail in fixed arrays of this length,
/// and rail sets are bit masks of 16 bits.
pub const MAX_RAILS: usize = 16;
const_assert!(MAX_RAILS == u16::BITS as usize);

/// Priority classes: urgent and background.
pub(crate) const CLASSES: usize = 2;

/// The most peers, lanes or remote regions of a storage, and the most pages of a batch. The next
/// number, `u16::MAX`, stands for "none" in links.
pub(crate) const MAX_PLACES: usize = u16::MAX as usize - 1;

/// Batches are kept in groups of 64, one bit of a word each.
pub(crate) const GROUP: usize = u64::BITS as usize;
/// The most groups of batches of a storage.
pub(crate) const MAX_GROUPS: usize = 256;
/// The most batches of a storage.
pub(crate) const MAX_BATCHES: usize = GROUP * MAX_GROUPS;
const_assert!(MAX_BATCHES <= MAX_PLACES);

/// The most pages of a storage. The three numbers above it mark "none" and "in no list" in links.
pub(crate) const MAX_PAGES: usize = u32::MAX as usize - 3;

/// The most work requests that a storage keeps outstanding on one lane.
pub(crate) const MAX_DEPTH: usize = 1 << 16;

/// The most chunks of one page: their number fits the 19 bits that a slot's flags have for it.
pub(crate) const MAX_CHUNKS: u32 = 1 << 19;

/// The most rows of a page that one READ of rows may span: they are the bits of a word.
pub const MAX_ROWS: u32 = u64::BITS;

/// The most local regions of one engine: their numbers fit the 8 bits that a slot has for its
/// region.
pub(crate) const LOCAL_REGIONS: usize = 256;
const_assert!(LOCAL_REGIONS <= 1 << u8::BITS);

/// The most layouts of one engine: numbers from 1 to this fit the 8 bits that a slot has for its
/// layout.
pub(crate) const LAYOUTS: usize = 255;
const_assert!(LAYOUTS <= u8::MAX as usize);

/// The most regions of local memory, over all local regions of one engine: a slot of a layout of
/// several regions has one piece in each.
pub(crate) const LOCAL_PIECES: usize = 1_024;

/// The most plans of one engine: one for each of 126 layers and 8 ranks fit.
pub(crate) const PLANS: usize = MAX_PLANS;
/// The most rows of pairs of regions, over all plans of one engine.
pub(crate) const PLAN_ROWS: usize = 2 * PLANS;
/// The most lists of runs, over all plans of one engine. Plans that differ only in where they begin
/// share their list.
pub(crate) const PLAN_LISTS: usize = 96;
/// The most plans that an engine knows at a time. Their numbers, from 1 to this, fit the 10 bits
/// that a slot's flags have for a plan.
pub const MAX_PLANS: usize = (1 << 10) - 1;
const_assert!(PLANS <= MAX_PLANS);

/// The most local pieces of a work request, whatever the device would take.
pub const MAX_SGES: u32 = 32;

/// The most bytes that a provider's part of a lane
/// ([`Provider::Lane`](crate::provider::Provider::Lane)) may take. A provider that needs more keeps
/// it behind a pointer. Starting an engine with a larger one does not compile.
pub const LANE_BYTES: usize = 176;

/// `n` as 16 bits: the number of a place, or a count of at most that many things.
///
/// # Panics
///
/// In debug builds, where `n` does not fit: a bug of the engine, whose storage has no such place.
#[inline(always)]
pub(crate) const fn narrow(n: usize) -> u16 {
    debug_assert!(n <= u16::MAX as usize, "a number of the engine's fits 16 bits");
    n as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_place_number_survives_narrowing() {
        for n in [0, 1, MAX_BATCHES - 1, MAX_PLACES] {
            assert_eq!(usize::from(narrow(n)), n);
        }
    }

    #[test]
    #[cfg(debug_assertions)]
    #[should_panic(expected = "fits 16 bits")]
    fn a_number_that_would_be_cut_off_is_a_bug_that_debug_builds_find() {
        narrow(usize::from(u16::MAX) + 1);
    }
}
