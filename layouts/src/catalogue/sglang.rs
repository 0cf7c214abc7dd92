//! SGLang's pages of MLA and of grouped heads.

use super::parts::{
    FP8_DS_MLA, HEAD, K_THEN_V, LATENT_THEN_ROPE, LAYER, LAYER_REGIONS, MLA, TOKEN, heads, layers, layouts,
    tokens,
};
use crate::axis::{Axis, AxisKind};
use crate::declaration::{Declaration, FieldDecl, Level, PlaneDecl};
use crate::element::{F32, Fp4x2, Ue8m0};

layouts! {
    /// SGLang 0.5.23, host pool in `page_first` order, its default; MLA in bf16 (DeepSeek V3/R1,
    /// Kimi K2): \[T 64, L 61, 512 latent and 64 RoPE\], one object of 4,497,408 bytes. As long as
    /// [`SglMlaPageFirstDirect`], and another page.
    SglMlaPageFirst = "sgl_mla_page_first", 4_497_408 bytes: Declaration {
        axes: &[layers(61), tokens(64)],
        order: &[TOKEN, LAYER],
        planes: MLA,
        ..Declaration::EMPTY
    };
    /// SGLang 0.5.23, host pool in `page_first_direct` order, MLA in bf16 (DeepSeek V3/R1, Kimi
    /// K2): \[L 61, T 64, 512 latent and 64 RoPE\], one object of 4,497,408 bytes. `page_unified`
    /// has the same bytes for MLA.
    SglMlaPageFirstDirect = "sgl_mla_page_first_direct", 4_497_408 bytes: Declaration {
        axes: &[layers(61), tokens(64)],
        order: &[LAYER, TOKEN],
        planes: MLA,
        ..Declaration::EMPTY
    };
    /// SGLang 0.5.23, host and device pools in `layer_first` order, MLA in bf16: a region for each
    /// of 61 layers, of \[T 64, 512 latent and 64 RoPE\], 73,728 bytes each. (In the pool, the same
    /// page of the next layer is one layer of the pool away; where that is known as a number, not
    /// as an address, declare `strided(layer)`.)
    SglMlaLayerFirst = "sgl_mla_layer_first", 61 * 73_728 bytes: Declaration {
        axes: &[layers(61), tokens(64)],
        order: &[LAYER_REGIONS, TOKEN],
        planes: MLA,
        ..Declaration::EMPTY
    };
    /// SGLang 0.5.23, host pool in `page_first_kv_split` order, MLA in bf16: an object of the
    /// latent parts, \[L 61, T 64, 512\], 3,997,696 bytes, and one of RoPE, \[L 61, T 64, 64\],
    /// 499,712 bytes.
    SglMlaPageFirstKvSplit = "sgl_mla_page_first_kv_split", 4_497_408 bytes: Declaration {
        axes: &[layers(61), tokens(64)],
        order: &[Level::RegionPlanes, LAYER, TOKEN],
        planes: LATENT_THEN_ROPE,
        ..Declaration::EMPTY
    };
    /// SGLang 0.5.23, device pool, MLA in fp4: for each of 61 layers a buffer of \[T 64, 288
    /// bytes\], the 512 latent and 64 RoPE values in pairs, and another buffer of \[T 64, 36\]
    /// scales, one per 16 values. 61 regions of 18,432 bytes, then 61 of 2,304.
    SglMlaFp4LayerFirst = "sgl_mla_fp4_layer_first", 61 * 20_736 bytes: Declaration {
        axes: &[layers(61), tokens(64)],
        order: &[Level::RegionPlanes, LAYER_REGIONS, TOKEN],
        planes: &[
            PlaneDecl::of(&[FieldDecl::of::<Fp4x2>("latent", 256), FieldDecl::of::<Fp4x2>("rope", 32)]),
            PlaneDecl::of(&[FieldDecl::of::<Ue8m0>("scales", 36)]),
        ],
        ..Declaration::EMPTY
    };
    /// SGLang 0.5.23, host pool in `page_first` order, DeepSeek V3.2 in FlashMLA's fp8: \[T 64, L
    /// 61, 656 bytes\], where a token is 512 e4m3, their 4 f32 scales, 64 bf16 of RoPE. 2,561,024
    /// bytes.
    SglV32Fp8PageFirst = "sgl_v32_fp8_page_first", 2_561_024 bytes: Declaration {
        axes: &[layers(61), tokens(64)],
        order: &[TOKEN, LAYER],
        planes: FP8_DS_MLA,
        ..Declaration::EMPTY
    };
    /// SGLang 0.5.23, index keys of DeepSeek V3.2's sparse attention, in every order of the host
    /// pool: per layer 64 × 128 fp8 keys, stored as bytes, and behind them, from byte 8,192, 64 × 1
    /// f32 scale. \[L 61, {T × 128, T × 4}\], 515,328 bytes, 8,448 per layer. The nominal shape,
    /// 132 bytes per token, is not what is in memory. Some models have index keys in some layers
    /// only: count those.
    SglV32Indexer = "sgl_v32_indexer", 515_328 bytes: Declaration {
        axes: &[layers(61), tokens(64)],
        order: &[LAYER, Level::Planes, TOKEN],
        planes: &[
            PlaneDecl::of(&[FieldDecl::of::<u8>("keys", 128)]),
            PlaneDecl::of(&[FieldDecl::of::<F32>("scale", 1)]),
        ],
        ..Declaration::EMPTY
    };
    /// SGLang 0.5.23, host pool in `page_first` order, its default, Llama 3 8B: a K and a V object,
    /// each \[T 64, L 32, H 8, 128 bf16\], 4,194,304 bytes each.
    SglLlama3_8bPageFirst = "sgl_llama3_8b_page_first", 2 * 4_194_304 bytes: Declaration {
        axes: &[layers(32), tokens(64), heads(8)],
        order: &[Level::RegionPlanes, TOKEN, LAYER, HEAD],
        planes: K_THEN_V,
        ..Declaration::EMPTY
    };
    /// SGLang 0.5.23, host pool in `page_first_direct` order, Llama 3 8B: a K and a V object, each
    /// \[L 32, T 64, H 8, 128 bf16\], 4,194,304 bytes each.
    SglLlama3_8bPageFirstDirect = "sgl_llama3_8b_page_first_direct", 2 * 4_194_304 bytes: Declaration {
        axes: &[layers(32), tokens(64), heads(8)],
        order: &[Level::RegionPlanes, LAYER, TOKEN, HEAD],
        planes: K_THEN_V,
        ..Declaration::EMPTY
    };
    /// SGLang 0.5.23, host pool in `page_head` order, Llama 3 70B on one of 8 tensor-parallel
    /// ranks: a K and a V object, each \[H 1 of 8, T 64, L 80, 128 bf16\], 1,310,720 bytes each. A
    /// group of heads is contiguous.
    SglLlama3_70bTp8PageHead = "sgl_llama3_70b_tp8_page_head", 2 * 1_310_720 bytes: Declaration {
        axes: &[layers(80), tokens(64), Axis::sharded(AxisKind::Head, 1, 8)],
        order: &[Level::RegionPlanes, HEAD, TOKEN, LAYER],
        planes: K_THEN_V,
        ..Declaration::EMPTY
    };
    /// SGLang 0.5.23, host pool in `page_unified` order with one group of heads, Llama 3 8B: \[L
    /// 32, K and V, T 64, H 8, 128 bf16\], 8,388,608 bytes. With G groups an object is G such pages
    /// one after the other, each of 8 / G heads: declare one of them, `sharded(head, ranks = G)`.
    SglLlama3_8bPageUnified = "sgl_llama3_8b_page_unified", 8_388_608 bytes: Declaration {
        axes: &[layers(32), tokens(64), heads(8)],
        order: &[LAYER, Level::Planes, TOKEN, HEAD],
        planes: K_THEN_V,
        ..Declaration::EMPTY
    };
}
