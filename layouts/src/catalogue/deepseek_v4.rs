//! Pages of DeepSeek V4 and V4.1.
//!
//! vLLM keeps the layers of one kind side by side in a block, so its pages have a layer axis.
//! SGLang keeps a buffer for each layer, so its pages have one layer.

use super::parts::{LAYER, TOKEN, layers, layouts, tokens};
use crate::declaration::{Declaration, FieldDecl, Level, PlaneDecl};
use crate::element::{Bf16, E4m3, F32, Fp4x2, Ue8m0};

/// A state of V4, 584 bytes in two planes: 448 e4m3 and 64 bf16 of RoPE; 7 scales, one per 64, and
/// 1 byte of padding.
const V4: &[PlaneDecl<'static>] = &[
    PlaneDecl::of(&[FieldDecl::of::<E4m3>("latent", 448), FieldDecl::of::<Bf16>("rope", 64)]),
    PlaneDecl { fields: &[FieldDecl::of::<Ue8m0>("scales", 7)], order: Some(&[TOKEN, Level::Pad(8)]) },
];
/// The index key of a state, as bytes, and its scale in a plane of its own.
const INDEX: &[PlaneDecl<'static>] =
    &[PlaneDecl::of(&[FieldDecl::of::<u8>("keys", 128)]), PlaneDecl::of(&[FieldDecl::of::<F32>("scale", 1)])];
/// The same in fp4: 128 values in pairs, and 4 scales, one per 32.
const INDEX_MXFP4: &[PlaneDecl<'static>] = &[
    PlaneDecl::of(&[FieldDecl::of::<Fp4x2>("keys", 64)]),
    PlaneDecl::of(&[FieldDecl::of::<Ue8m0>("scales", 4)]),
];
/// V4.1 in fp8: 512 values, and 16 scales, one per 32.
const V41_DATA: FieldDecl = FieldDecl::of::<E4m3>("latent", 512);
const V41_SCALES: FieldDecl = FieldDecl::of::<Ue8m0>("scales", 16);
/// V4.1 in fp4: 512 values in pairs, and 32 scales, one per 16.
const V41_FP4_DATA: FieldDecl = FieldDecl::of::<Fp4x2>("latent", 256);
const V41_FP4_SCALES: FieldDecl = FieldDecl::of::<E4m3>("scales", 32);

layouts! {
    /// vLLM 0.33.0 and SGLang 0.5.23, compressed pages of V4, one state per 4 tokens (C4): per
    /// layer 64 states × (448 e4m3 and 64 bf16 of RoPE), then 64 × (7 ue8m0 scales, one per 64, and
    /// 1 byte of padding), 37,376 bytes, padded up to 37,440, a multiple of 576. 21 layers, 786,240
    /// bytes.
    V4C4 = "v4_c4", 786_240 bytes: Declaration {
        axes: &[layers(21), tokens(64)],
        order: &[LAYER, Level::Pad(576), Level::Planes, TOKEN],
        planes: V4,
        tokens_per_state: 4,
        ..Declaration::EMPTY
    };
    /// vLLM 0.33.0 and SGLang 0.5.23, compressed pages of V4, one state per 128 tokens (C128): per
    /// layer 2 states, 1,168 bytes as in [`V4C4`], padded up to 1,728, a multiple of 576. 20
    /// layers, 34,560 bytes.
    V4C128 = "v4_c128", 34_560 bytes: Declaration {
        axes: &[layers(20), tokens(2)],
        order: &[LAYER, Level::Pad(576), Level::Planes, TOKEN],
        planes: V4,
        tokens_per_state: 128,
        ..Declaration::EMPTY
    };
    /// vLLM 0.33.0, index keys of V4 in fp8, one per 4 tokens: per layer 64 × 128 keys, stored as
    /// bytes, then 64 f32 scales, 8,448 bytes, padded up to 8,640, a multiple of 576. 21 layers,
    /// 181,440 bytes.
    VllmV4Index = "vllm_v4_index", 181_440 bytes: Declaration {
        axes: &[layers(21), tokens(64)],
        order: &[LAYER, Level::Pad(576), Level::Planes, TOKEN],
        planes: INDEX,
        tokens_per_state: 4,
        ..Declaration::EMPTY
    };
    /// vLLM 0.33.0, index keys of V4 in MXFP4, one per 4 tokens: per layer 64 × 64 pairs of e2m1,
    /// then 64 × 4 ue8m0 scales, 4,352 bytes, padded up to 4,608, a multiple of 576. 21 layers,
    /// 96,768 bytes.
    VllmV4IndexMxfp4 = "vllm_v4_index_mxfp4", 96_768 bytes: Declaration {
        axes: &[layers(21), tokens(64)],
        order: &[LAYER, Level::Pad(576), Level::Planes, TOKEN],
        planes: INDEX_MXFP4,
        tokens_per_state: 4,
        ..Declaration::EMPTY
    };
    /// SGLang 0.5.23, index keys of V4 in fp8, one layer: as [`VllmV4Index`] without padding, 8,448
    /// bytes.
    SglV4Index = "sgl_v4_index", 8_448 bytes: Declaration {
        axes: &[tokens(64)],
        order: &[Level::Planes, TOKEN],
        planes: INDEX,
        tokens_per_state: 4,
        ..Declaration::EMPTY
    };
    /// SGLang 0.5.23, index keys of V4 in MXFP4, one layer: as [`VllmV4IndexMxfp4`] without
    /// padding, 4,352 bytes.
    SglV4IndexMxfp4 = "sgl_v4_index_mxfp4", 4_352 bytes: Declaration {
        axes: &[tokens(64)],
        order: &[Level::Planes, TOKEN],
        planes: INDEX_MXFP4,
        tokens_per_state: 4,
        ..Declaration::EMPTY
    };
    /// vLLM 0.33.0, sliding window of V4, one layer: 64 tokens of the form of [`V4C4`], a state for
    /// each, padded up to 37,440 bytes. As long as a layer of `V4C4`, whose states are 4 tokens
    /// each.
    VllmV4Window = "vllm_v4_window", 37_440 bytes: Declaration {
        axes: &[tokens(64)],
        order: &[Level::Pad(576), Level::Planes, TOKEN],
        planes: V4,
        ..Declaration::EMPTY
    };
    /// SGLang 0.5.23, sliding window of V4, one layer: 256 tokens of the form of [`V4C4`], a state
    /// for each, padded up to 149,760 bytes, a multiple of 576.
    SglV4Window = "sgl_v4_window", 149_760 bytes: Declaration {
        axes: &[tokens(256)],
        order: &[Level::Pad(576), Level::Planes, TOKEN],
        planes: V4,
        ..Declaration::EMPTY
    };
    /// vLLM 0.33.0, V4.1 in fp8 on SM100, one layer: \[T 64, 528 bytes\], where a token is 512 e4m3
    /// and then their 16 ue8m0 scales, one per 32. 33,792 bytes. As long as [`SglV41`], and another
    /// page. SGLang 0.5.23 has this order where `SGLANG_DSV4_KV_LAYOUT` is `v41_new`.
    VllmV41 = "vllm_v41", 33_792 bytes: Declaration {
        axes: &[tokens(64)],
        order: &[TOKEN],
        planes: &[PlaneDecl::of(&[V41_DATA, V41_SCALES])],
        ..Declaration::EMPTY
    };
    /// SGLang 0.5.23, V4.1 in fp8 on SM100, one layer: \[T 64, 512 e4m3\], then \[T 64, 16 ue8m0
    /// scales\]. 33,792 bytes. As long as [`VllmV41`], and another page.
    SglV41 = "sgl_v41", 33_792 bytes: Declaration {
        axes: &[tokens(64)],
        order: &[Level::Planes, TOKEN],
        planes: &[PlaneDecl::of(&[V41_DATA]), PlaneDecl::of(&[V41_SCALES])],
        ..Declaration::EMPTY
    };
    /// vLLM 0.33.0, V4.1 in fp4 on SM100, one layer, a state per 2 tokens: \[128 states, 288
    /// bytes\], where a state is 512 e2m1 in pairs and then their 32 e4m3 scales, one per 16.
    /// 36,864 bytes. As long as [`SglV41Fp4`], and another page.
    VllmV41Fp4 = "vllm_v41_fp4", 36_864 bytes: Declaration {
        axes: &[tokens(128)],
        order: &[TOKEN],
        planes: &[PlaneDecl::of(&[V41_FP4_DATA, V41_FP4_SCALES])],
        tokens_per_state: 2,
        ..Declaration::EMPTY
    };
    /// SGLang 0.5.23, V4.1 in fp4 on SM100, one layer, a state per 2 tokens: \[128 states, 256
    /// pairs of e2m1\], then \[128 states, 32 e4m3 scales\]. 36,864 bytes. As long as
    /// [`VllmV41Fp4`], and another page.
    SglV41Fp4 = "sgl_v41_fp4", 36_864 bytes: Declaration {
        axes: &[tokens(128)],
        order: &[Level::Planes, TOKEN],
        planes: &[PlaneDecl::of(&[V41_FP4_DATA]), PlaneDecl::of(&[V41_FP4_SCALES])],
        tokens_per_state: 2,
        ..Declaration::EMPTY
    };
}
