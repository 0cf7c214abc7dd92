//! The layouts of the catalogue that came with vLLM 0.33.0, SGLang 0.5.23 and LMCache 0.5.6, as a
//! user declares them, against those that are shipped. They are tests only, so that what is
//! measured in docs/performance.md stays the same.

use kvrail_layouts::catalogue;
use kvrail_layouts::{Bf16, E4m3, F32, Fp4x2, Ue8m0};
use kvrail_macros::KvLayout;

use crate::tests::same;

macro_rules! pages {
    ($($(#[$kv:meta])* $name:ident { $($(#[$field_kv:meta])* $field:ident: $ty:ty),* })*) => {
        $(
            #[derive(KvLayout)]
            #[kv(crate = "kvrail_layouts")]
            $(#[$kv])*
            #[allow(dead_code, reason = "only its geometry is compared")]
            struct $name { $($(#[$field_kv])* $field: $ty),* }
        )*

        #[test]
        fn the_derive_gives_what_is_shipped() {
            $(same::<$name, catalogue::$name>();)*
        }
    };
}

pages! {
    #[kv(order(regions(planes), layer, token), layers = 61, tokens = 64, bytes = 4_497_408)]
    SglMlaPageFirstKvSplit { latent: [Bf16; 512], #[kv(plane)] rope: [Bf16; 64] }

    #[kv(order(regions(planes), regions(layer), token), layers = 61, tokens = 64, bytes = 61 * 20_736)]
    SglMlaFp4LayerFirst { latent: [Fp4x2; 256], rope: [Fp4x2; 32], #[kv(plane)] scales: [Ue8m0; 36] }

    #[kv(order(regions(planes), token, layer, head))]
    #[kv(layers = 32, tokens = 64, heads = 8, bytes = 8_388_608)]
    SglLlama3_8bPageFirst { k: [Bf16; 128], #[kv(plane)] v: [Bf16; 128] }

    #[kv(order(layer, planes, token, head), layers = 32, tokens = 64, heads = 8, bytes = 8_388_608)]
    SglLlama3_8bPageUnified { k: [Bf16; 128], #[kv(plane)] v: [Bf16; 128] }

    #[kv(order(token), tokens = 64, swizzle = 84, bytes = 22_528)]
    VllmNvfp4DsMla { latent: [Fp4x2; 256], rope: [E4m3; 64], scales: [E4m3; 32] }

    #[kv(order(regions(layer), token, head), layers = 32, tokens = 16, heads = 8, bytes = 2_097_152)]
    VllmLlama3_8bLbnhc { k: [Bf16; 128], v: [Bf16; 128] }

    #[kv(order(layer, head, token), layers = 32, tokens = 16, heads = 8, bytes = 2_097_152)]
    VllmLlama3_8bBlhnc { k: [Bf16; 128], v: [Bf16; 128] }

    #[kv(order(token, head), tokens = 16, heads = 8, bytes = 33_792)]
    VllmFp8TokenHead { k: [E4m3; 128], k_scale: F32, v: [E4m3; 128], v_scale: F32 }

    #[kv(order(token, head), tokens = 16, heads = 8, bytes = 33_792)]
    VllmInt8TokenHead { k: [i8; 128], k_scale: F32, v: [i8; 128], v_scale: F32 }

    #[kv(order(planes, head, token), tokens = 16, heads = 8, bytes = 18_432)]
    VllmNvfp4Gqa {
        k: [Fp4x2; 64],
        #[kv(plane)] k_scales: [E4m3; 8],
        #[kv(plane)] v: [Fp4x2; 64],
        #[kv(plane)] v_scales: [E4m3; 8]
    }

    #[kv(order(layer, pad(576), planes, token))]
    #[kv(layers = 20, tokens = 256, tokens_per_state = 128, bytes = 34_560)]
    V4C128 { latent: [E4m3; 448], rope: [Bf16; 64], #[kv(plane, order(token, pad(8)))] scales: [Ue8m0; 7] }

    #[kv(order(layer, pad(576), planes, token))]
    #[kv(layers = 21, tokens = 256, tokens_per_state = 4, bytes = 181_440)]
    VllmV4Index { keys: [u8; 128], #[kv(plane)] scale: F32 }

    #[kv(order(layer, pad(576), planes, token))]
    #[kv(layers = 21, tokens = 256, tokens_per_state = 4, bytes = 96_768)]
    VllmV4IndexMxfp4 { keys: [Fp4x2; 64], #[kv(plane)] scales: [Ue8m0; 4] }

    #[kv(order(planes, token), tokens = 256, tokens_per_state = 4, bytes = 8_448)]
    SglV4Index { keys: [u8; 128], #[kv(plane)] scale: F32 }

    #[kv(order(planes, token), tokens = 256, tokens_per_state = 4, bytes = 4_352)]
    SglV4IndexMxfp4 { keys: [Fp4x2; 64], #[kv(plane)] scales: [Ue8m0; 4] }

    #[kv(order(pad(576), planes, token), tokens = 64, bytes = 37_440)]
    VllmV4Window {
        latent: [E4m3; 448],
        rope: [Bf16; 64],
        #[kv(plane, order(token, pad(8)))] scales: [Ue8m0; 7]
    }

    #[kv(order(pad(576), planes, token), tokens = 256, bytes = 149_760)]
    SglV4Window {
        latent: [E4m3; 448],
        rope: [Bf16; 64],
        #[kv(plane, order(token, pad(8)))] scales: [Ue8m0; 7]
    }

    #[kv(order(token), tokens = 64, bytes = 33_792)]
    VllmV41 { latent: [E4m3; 512], scales: [Ue8m0; 16] }

    #[kv(order(planes, token), tokens = 64, bytes = 33_792)]
    SglV41 { latent: [E4m3; 512], #[kv(plane)] scales: [Ue8m0; 16] }

    #[kv(order(token), tokens = 256, tokens_per_state = 2, bytes = 36_864)]
    VllmV41Fp4 { latent: [Fp4x2; 256], scales: [E4m3; 32] }

    #[kv(order(planes, token), tokens = 256, tokens_per_state = 2, bytes = 36_864)]
    SglV41Fp4 { latent: [Fp4x2; 256], #[kv(plane)] scales: [E4m3; 32] }

    #[kv(order(planes, layer, token, head), layers = 32, tokens = 256, heads = 8, bytes = 33_554_432)]
    LmcLlama3_8b { k: [Bf16; 128], #[kv(plane)] v: [Bf16; 128] }

    #[kv(order(layer, token), layers = 61, tokens = 256, bytes = 17_989_632)]
    LmcMla { latent: [Bf16; 512], rope: [Bf16; 64] }
}

/// A state of a state-space layer in a page of attention.
#[derive(KvLayout)]
#[kv(crate = "kvrail_layouts", order(pad(PAGE)), bytes = PAGE)]
#[allow(dead_code, reason = "only its geometry is compared")]
struct VllmMamba<const STATE: usize, const PAGE: usize> {
    state: [u8; STATE],
}

#[test]
fn a_state_is_padded_to_a_page() {
    same::<VllmMamba<1_000, 4_096>, catalogue::VllmMamba<1_000, 4_096>>();
}
