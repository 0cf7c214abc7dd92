//! vLLM's pages of MLA and of grouped heads, and the page of a state-space layer.

use super::parts::{
    FP8_DS_MLA, HEAD, K_WITH_V, LAYER, LAYER_REGIONS, MLA, TOKEN, heads, layers, layouts, tokens,
};
use crate::declaration::{Declaration, FieldDecl, Level, PlaneDecl};
use crate::element::{E4m3, F32, Fp4x2};
use crate::geometry::Geometry;
use crate::layout::KvLayout;

/// The swizzle of pages whose 32 scales of a token are stored as the transpose of 8 × 4: the scale
/// of block `s` of 16 values is byte `8 * (s % 4) + s / 4`.
pub const SWIZZLE_SCALES_8X4: u32 = 84;

layouts! {
    /// vLLM 0.33.0, FlashMLA fp8 pool (`fp8_ds_mla`, DeepSeek V3.2), one layer: \[T 64, 656
    /// bytes\], where a token is 512 e4m3, their 4 f32 scales (one per 128), 64 bf16 of RoPE.
    /// 41,984 bytes.
    VllmFp8DsMla = "vllm_fp8_ds_mla", 41_984 bytes: Declaration {
        axes: &[tokens(64)],
        order: &[TOKEN],
        planes: FP8_DS_MLA,
        ..Declaration::EMPTY
    };
    /// vLLM 0.33.0, MLA pool in bf16, one layer: \[T 64, 512 latent and 64 RoPE\], 73,728 bytes.
    VllmMlaBf16 = "vllm_mla_bf16", 73_728 bytes: Declaration {
        axes: &[tokens(64)],
        order: &[TOKEN],
        planes: MLA,
        ..Declaration::EMPTY
    };
    /// vLLM 0.33.0, FlashMLA fp4 pool (`nvfp4_ds_mla`, DeepSeek V3.2 on SM100), one layer: \[T 64,
    /// 352 bytes\], where a token is 512 e2m1 in pairs, 64 e4m3 of RoPE, and 32 e4m3 scales, one
    /// per 16 latent values, in an order of their own ([`SWIZZLE_SCALES_8X4`]). 22,528 bytes.
    VllmNvfp4DsMla = "vllm_nvfp4_ds_mla", 22_528 bytes: Declaration {
        axes: &[tokens(64)],
        order: &[TOKEN],
        planes: &[PlaneDecl::of(&[
            FieldDecl::of::<Fp4x2>("latent", 256),
            FieldDecl::of::<E4m3>("rope", 64),
            FieldDecl::of::<E4m3>("scales", 32),
        ])],
        swizzle: SWIZZLE_SCALES_8X4,
        ..Declaration::EMPTY
    };
    /// vLLM 0.33.0, pool in LBNHC order (its default, also called NHD), Llama 3 8B: a region for
    /// each of 32 layers, of \[T 16, H 8, 128 of K, then 128 of V, bf16\], 65,536 bytes each.
    VllmLlama3_8bLbnhc = "vllm_llama3_8b_lbnhc", 32 * 65_536 bytes: Declaration {
        axes: &[layers(32), tokens(16), heads(8)],
        order: &[LAYER_REGIONS, TOKEN, HEAD],
        planes: K_WITH_V,
        ..Declaration::EMPTY
    };
    /// vLLM 0.33.0, pool in LBHNC order (also called HND), Llama 3 8B: a region for each of 32
    /// layers, of \[H 8, T 16, 128 of K, then 128 of V, bf16\], 65,536 bytes each.
    VllmLlama3_8bLbhnc = "vllm_llama3_8b_lbhnc", 32 * 65_536 bytes: Declaration {
        axes: &[layers(32), tokens(16), heads(8)],
        order: &[LAYER_REGIONS, HEAD, TOKEN],
        planes: K_WITH_V,
        ..Declaration::EMPTY
    };
    /// vLLM 0.33.0, pool in BLHNC order, Llama 3 8B: all layers of a block are together, \[L 32, H
    /// 8, T 16, 128 of K, then 128 of V, bf16\], 2,097,152 bytes.
    VllmLlama3_8bBlhnc = "vllm_llama3_8b_blhnc", 2_097_152 bytes: Declaration {
        axes: &[layers(32), tokens(16), heads(8)],
        order: &[LAYER, HEAD, TOKEN],
        planes: K_WITH_V,
        ..Declaration::EMPTY
    };
    /// vLLM 0.33.0, pool with a scale per token and head (`fp8_per_token_head`), one layer in LBNHC
    /// order, 8 heads of 128: \[T 16, H 8, {128 e4m3 of K, its f32 scale, 128 e4m3 of V, its f32
    /// scale}\], 33,792 bytes.
    VllmFp8TokenHead = "vllm_fp8_token_head", 33_792 bytes: Declaration {
        axes: &[tokens(16), heads(8)],
        order: &[TOKEN, HEAD],
        planes: &[PlaneDecl::of(&[
            FieldDecl::of::<E4m3>("k", 128),
            FieldDecl::of::<F32>("k_scale", 1),
            FieldDecl::of::<E4m3>("v", 128),
            FieldDecl::of::<F32>("v_scale", 1),
        ])],
        ..Declaration::EMPTY
    };
    /// vLLM 0.33.0, as [`VllmFp8TokenHead`] with signed bytes (`int8_per_token_head`).
    VllmInt8TokenHead = "vllm_int8_token_head", 33_792 bytes: Declaration {
        axes: &[tokens(16), heads(8)],
        order: &[TOKEN, HEAD],
        planes: &[PlaneDecl::of(&[
            FieldDecl::of::<i8>("k", 128),
            FieldDecl::of::<F32>("k_scale", 1),
            FieldDecl::of::<i8>("v", 128),
            FieldDecl::of::<F32>("v_scale", 1),
        ])],
        ..Declaration::EMPTY
    };
    /// vLLM 0.33.0, pool in fp4 (`nvfp4`), one layer in LBHNC order, which trtllm-gen needs on
    /// SM100; 8 heads of 128. Four planes: K's data, \[H 8, T 16, 64 pairs of e2m1\], and its
    /// scales, \[H 8, T 16, 8 e4m3\], one per 16 values; then V's. 18,432 bytes.
    VllmNvfp4Gqa = "vllm_nvfp4_gqa", 18_432 bytes: Declaration {
        axes: &[tokens(16), heads(8)],
        order: &[Level::Planes, HEAD, TOKEN],
        planes: &[
            PlaneDecl::of(&[FieldDecl::of::<Fp4x2>("k", 64)]),
            PlaneDecl::of(&[FieldDecl::of::<E4m3>("k_scales", 8)]),
            PlaneDecl::of(&[FieldDecl::of::<Fp4x2>("v", 64)]),
            PlaneDecl::of(&[FieldDecl::of::<E4m3>("v_scales", 8)]),
        ],
        ..Declaration::EMPTY
    };
}

/// vLLM 0.33.0, the state of a state-space layer (Mamba) that shares a pool with attention: `STATE`
/// bytes without a structure that other engines would know, padded up to `PAGE` bytes, the page of
/// the attention layers. `STATE` above `PAGE` does not compile.
#[derive(Clone, Copy, Debug)]
pub struct VllmMamba<const STATE: usize, const PAGE: usize>;

impl<const STATE: usize, const PAGE: usize> KvLayout for VllmMamba<STATE, PAGE> {
    const NAME: &'static str = "vllm_mamba";
    const GEOMETRY: &'static Geometry = &Declaration {
        order: &[Level::Pad(PAGE as u64)],
        planes: &[PlaneDecl::of(&[FieldDecl::of::<u8>("state", STATE)])],
        bytes: Some(PAGE as u64),
        ..Declaration::EMPTY
    }
    .expect();
}
