//! Layouts of `kvrail_layouts::catalogue`, as a user declares them. Its `cargo check` is what
//! docs/performance.md measures; its tests hold each against the one that is shipped. The module
//! `releases` has the other layouts of the catalogue.
//!
//! A user names `kvrail` only, and needs no `crate = ".."`.

#![allow(missing_debug_implementations, reason = "a declaration is never printed")]

use kvrail_layouts::{Bf16, E4m3, F32, Ue8m0};
use kvrail_macros::KvLayout;

/// DeepSeek's MLA, `page_first`.
#[derive(KvLayout)]
#[kv(crate = "kvrail_layouts", order(token, layer), layers = 61, tokens = 64, bytes = 4_497_408)]
pub struct SglMlaPageFirst {
    latent: [Bf16; 512],
    rope: [Bf16; 64],
}

/// DeepSeek's MLA, `page_first_direct`.
#[derive(KvLayout)]
#[kv(crate = "kvrail_layouts", order(layer, token), layers = 61, tokens = 64, bytes = 4_497_408)]
pub struct SglMlaPageFirstDirect {
    latent: [Bf16; 512],
    rope: [Bf16; 64],
}

/// DeepSeek's MLA, `layer_first`.
#[derive(KvLayout)]
#[kv(crate = "kvrail_layouts", order(regions(layer), token), layers = 61, tokens = 64)]
#[kv(bytes = 4_497_408)]
pub struct SglMlaLayerFirst {
    latent: [Bf16; 512],
    rope: [Bf16; 64],
}

/// DeepSeek V3.2 in FlashMLA's fp8, `page_first`.
#[derive(KvLayout)]
#[kv(crate = "kvrail_layouts", order(token, layer), layers = 61, tokens = 64, bytes = 2_561_024)]
pub struct SglV32Fp8PageFirst {
    latent: [E4m3; 512],
    scales: [F32; 4],
    rope: [Bf16; 64],
}

/// DeepSeek V3.2's index keys.
#[derive(KvLayout)]
#[kv(crate = "kvrail_layouts", order(layer, planes, token), layers = 61, tokens = 64)]
#[kv(bytes = 515_328)]
pub struct SglV32Indexer {
    keys: [u8; 128],
    #[kv(plane)]
    scale: F32,
}

/// FlashMLA's fp8, one layer.
#[derive(KvLayout)]
#[kv(crate = "kvrail_layouts", order(token), tokens = 64, bytes = 41_984)]
pub struct VllmFp8DsMla {
    latent: [E4m3; 512],
    scales: [F32; 4],
    rope: [Bf16; 64],
}

/// MLA in bf16, one layer.
#[derive(KvLayout)]
#[kv(crate = "kvrail_layouts", order(token), tokens = 64, bytes = 73_728)]
pub struct VllmMlaBf16 {
    latent: [Bf16; 512],
    rope: [Bf16; 64],
}

/// DeepSeek V4, a state per 4 tokens.
#[derive(KvLayout)]
#[kv(crate = "kvrail_layouts", order(layer, pad(576), planes, token))]
#[kv(layers = 21, tokens = 256, tokens_per_state = 4, bytes = 786_240)]
pub struct V4C4 {
    latent: [E4m3; 448],
    rope: [Bf16; 64],
    #[kv(plane, order(token, pad(8)))]
    scales: [Ue8m0; 7],
}

/// Llama 3 8B, K and V objects, `page_first_direct`.
#[derive(KvLayout)]
#[kv(crate = "kvrail_layouts", order(regions(planes), layer, token, head))]
#[kv(layers = 32, tokens = 64, heads = 8, bytes = 8_388_608)]
pub struct SglLlama3_8bPageFirstDirect {
    k: [Bf16; 128],
    #[kv(plane)]
    v: [Bf16; 128],
}

/// Llama 3 70B on one of 8 ranks, K and V objects, `page_head`.
#[derive(KvLayout)]
#[kv(crate = "kvrail_layouts", order(regions(planes), head, token, layer))]
#[kv(layers = 80, tokens = 64, heads = 1, sharded(head, ranks = 8), bytes = 2_621_440)]
pub struct SglLlama3_70bTp8PageHead {
    k: [Bf16; 128],
    #[kv(plane)]
    v: [Bf16; 128],
}

/// Llama 3 8B, K then V per token and head, a region per layer.
#[derive(KvLayout)]
#[kv(crate = "kvrail_layouts", order(regions(layer), head, token))]
#[kv(layers = 32, tokens = 16, heads = 8, bytes = 2_097_152)]
pub struct VllmLlama3_8bLbhnc {
    k: [Bf16; 128],
    v: [Bf16; 128],
}

/// Llama 3 8B, K and V of each layer one after the other.
#[derive(KvLayout)]
#[kv(crate = "kvrail_layouts", order(layer, planes, head, token))]
#[kv(layers = 32, tokens = 32, heads = 8, bytes = 4_194_304)]
pub struct TrtllmLlama3_8b {
    k: [Bf16; 128],
    #[kv(plane)]
    v: [Bf16; 128],
}

/// Bytes without structure.
#[derive(KvLayout)]
#[kv(crate = "kvrail_layouts", order())]
pub struct Opaque<const BYTES: usize> {
    bytes: [u8; BYTES],
}

#[cfg(test)]
mod releases;

#[cfg(test)]
mod tests {
    use kvrail_layouts::{KvLayout, catalogue};

    pub(crate) fn same<A: KvLayout, B: KvLayout>() {
        assert_eq!(A::GEOMETRY, B::GEOMETRY, "{}", B::NAME);
        assert_eq!(A::FINGERPRINT, B::FINGERPRINT, "{}", B::NAME);
        assert_eq!(A::PAGE_BYTES, B::PAGE_BYTES, "{}", B::NAME);
    }

    macro_rules! same {
        ($($name:ident $(<$n:literal>)?),* $(,)?) => {
            $(same::<super::$name $(<$n>)?, catalogue::$name $(<$n>)?>();)*
        };
    }

    /// The derive writes a declaration down; it must be the one that is shipped.
    #[test]
    fn the_derive_gives_what_is_shipped() {
        same!(
            SglMlaPageFirst,
            SglMlaPageFirstDirect,
            SglMlaLayerFirst,
            SglV32Fp8PageFirst,
            SglV32Indexer,
            VllmFp8DsMla,
            VllmMlaBf16,
            V4C4,
            SglLlama3_8bPageFirstDirect,
            SglLlama3_70bTp8PageHead,
            VllmLlama3_8bLbhnc,
            TrtllmLlama3_8b,
            Opaque<131_072>,
            Opaque<1_048_576>,
        );
    }
}
