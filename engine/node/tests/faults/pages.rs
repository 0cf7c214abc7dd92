//! The layout, the keys, and pages whose bytes their keys tell.

use kvrail::{Bf16, KvLayout, PageLayout, PeerKey};
use kvrail_core::table::KeyTag;
use kvrail_node::Key;

/// 8 tokens of one layer of a small MLA: 2,304 bytes.
#[derive(KvLayout)]
#[kv(order(token), tokens = 8)]
#[allow(dead_code, reason = "a declaration")]
pub(crate) struct Page {
    latent: [Bf16; 128],
    rope: [Bf16; 16],
}

pub(crate) const LAYOUT: PageLayout = PageLayout::of::<Page>();
pub(crate) const PAGE: usize = LAYOUT.page_bytes() as usize;
/// Keys of a producer.
pub(crate) const KEYS: u64 = 64;

pub(crate) fn peer_key() -> PeerKey {
    PeerKey::from_bytes([6; 32])
}

/// Key number `at` of the producer with this number.
pub(crate) fn key(producer: u64, at: u64) -> Key {
    Key(KeyTag(u128::from(producer + 1) << 64 | u128::from(at % KEYS + 1)))
}

/// Writes the page of a key: no two keys have the same, and no byte says what its neighbours are.
pub(crate) fn fill(key: Key, page: &mut [u8]) {
    let mut state = (key.0.0 as u64) ^ ((key.0.0 >> 64) as u64) << 32;
    for bytes in page.chunks_mut(8) {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let word = (state ^ state >> 29).to_le_bytes();
        bytes.copy_from_slice(&word[..bytes.len()]);
    }
}

pub(crate) fn page_of(key: Key) -> Vec<u8> {
    let mut page = vec![0; PAGE];
    fill(key, &mut page);
    page
}
