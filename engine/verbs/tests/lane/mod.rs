//! What the tests over real verbs share: which devices there are, a producer in a process of its
//! own, and a reader that counts every page and compares every byte.
//!
//! In the SoftRoCE guest (`engine/verbs/softroce/run`) a test without devices fails. Elsewhere a
//! test that finds no device says so on stderr, past the test harness, and passes.
#![allow(dead_code, unused_imports, reason = "each test binary uses some of it")]
#![allow(unsafe_code, reason = "transports of its own publish segments, and READs are posted by hand")]

mod bench;
mod fabric;
mod load;
mod producer;

pub(crate) use bench::{Bench, SOURCE};
pub(crate) use fabric::{Broken, Devices, break_rails, dropped_by, rails, said, time_is_the_guests};
pub(crate) use load::{BATCH, FLIGHT, HANGS, Load, Tally};
pub(crate) use producer::{Producer, key, produce_if_told};

use kvrail::PageLayout;
use kvrail::layouts::catalogue::VllmFp8DsMla;

/// 41,984 bytes a page: with [`CHUNK`], three wrs and its validating READ.
pub(crate) const LAYOUT: PageLayout = PageLayout::of::<VllmFp8DsMla>();
pub(crate) const CHUNK: u32 = 16 << 10;
/// How many pages are published.
pub(crate) const SLOTS: u32 = 256;

/// The page in `slot` of a producer that fills its slots from `seed`: no two of them share a word.
pub(crate) fn page(seed: u64, slot: u32) -> Vec<u8> {
    words(seed, slot, LAYOUT.page_bytes() as usize)
}

/// The same of `bytes` bytes, a multiple of 8.
pub(crate) fn words(seed: u64, slot: u32, bytes: usize) -> Vec<u8> {
    let mut state = seed ^ (u64::from(slot) + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let mut page = vec![0; bytes];
    for word in page.chunks_mut(8) {
        // splitmix64 (Steele, Lea, Flood 2014).
        state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        word.copy_from_slice(&(z ^ (z >> 31)).to_le_bytes()[..word.len()]);
    }
    page
}
