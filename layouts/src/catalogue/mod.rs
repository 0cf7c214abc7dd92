//! The layouts that we ship.
//!
//! Each is checked against its published size here, and element by element against nested loops in
//! the tests. Shapes are from the engines' public sources; the names say engine, content, order.

use crate::axis::{Axis, AxisKind};
use crate::declaration::{Declaration, FieldDecl, Level, PlaneDecl};
use crate::element::{Bf16, E4m3, F32, Ue8m0};
use crate::geometry::Geometry;
use crate::layout::KvLayout;

const LAYER: Level = Level::Axis(AxisKind::Layer);
const TOKEN: Level = Level::Axis(AxisKind::Token);
const HEAD: Level = Level::Axis(AxisKind::Head);

const fn layers(extent: u64) -> Axis {
    Axis::whole(AxisKind::Layer, extent)
}

const fn tokens(extent: u64) -> Axis {
    Axis::whole(AxisKind::Token, extent)
}

const fn heads(extent: u64) -> Axis {
    Axis::whole(AxisKind::Head, extent)
}

/// DeepSeek's MLA in bf16, 1,152 bytes per token and layer.
const MLA: &[PlaneDecl<'static>] =
    &[PlaneDecl::of(&[FieldDecl::of::<Bf16>("latent", 512), FieldDecl::of::<Bf16>("rope", 64)])];
/// FlashMLA's fp8 token, 656 bytes: a scale for each 128 of the latent part.
const FP8_DS_MLA: &[PlaneDecl<'static>] = &[PlaneDecl::of(&[
    FieldDecl::of::<E4m3>("latent", 512),
    FieldDecl::of::<F32>("scales", 4),
    FieldDecl::of::<Bf16>("rope", 64),
])];
const K: FieldDecl = FieldDecl::of::<Bf16>("k", 128);
const V: FieldDecl = FieldDecl::of::<Bf16>("v", 128);
/// K and V apart, heads of 128. Two fields rather than the axis `part`: so a view finds each by its
/// name.
const K_THEN_V: &[PlaneDecl<'static>] = &[PlaneDecl::of(&[K]), PlaneDecl::of(&[V])];

macro_rules! layouts {
    ($($(#[$doc:meta])* $layout:ident = $name:literal, $count:literal $(* $each:literal)? bytes: $declaration:expr;)*) => {
        $(
            $(#[$doc])*
            #[derive(Clone, Copy, Debug)]
            pub struct $layout;

            impl KvLayout for $layout {
                const NAME: &'static str = $name;
                const GEOMETRY: &'static Geometry =
                    &Declaration { bytes: Some($count $(* $each)?), ..$declaration }.expect();
            }

            const _: () = assert!($layout::PAGE_BYTES == $count $(* $each)?);
        )*
    };
}

layouts! {
    /// SGLang's host pool in `page_first` order, MLA in bf16 (DeepSeek V3/R1, Kimi K2): \[T 64, L
    /// 61, 512 latent and 64 RoPE\], one object of 4,497,408 bytes. As long as
    /// [`SglMlaPageFirstDirect`], and another page.
    SglMlaPageFirst = "sgl_mla_page_first", 4_497_408 bytes: Declaration {
        axes: &[layers(61), tokens(64)],
        order: &[TOKEN, LAYER],
        planes: MLA,
        ..Declaration::EMPTY
    };
    /// SGLang's host pool in `page_first_direct` order, MLA in bf16 (DeepSeek V3/R1, Kimi K2):
    /// \[L 61, T 64, 512 latent and 64 RoPE\], one object of 4,497,408 bytes.
    SglMlaPageFirstDirect = "sgl_mla_page_first_direct", 4_497_408 bytes: Declaration {
        axes: &[layers(61), tokens(64)],
        order: &[LAYER, TOKEN],
        planes: MLA,
        ..Declaration::EMPTY
    };
    /// SGLang's host and device pools in `layer_first` order, MLA in bf16: a region for each of 61
    /// layers, of \[T 64, 512 latent and 64 RoPE\], 73,728 bytes each. (In the pool, the same page
    /// of the next layer is one layer of the pool away; where that is known as a number, not as an
    /// address, declare `strided(layer)`.)
    SglMlaLayerFirst = "sgl_mla_layer_first", 61 * 73_728 bytes: Declaration {
        axes: &[layers(61), tokens(64)],
        order: &[Level::Regions(AxisKind::Layer), TOKEN],
        planes: MLA,
        ..Declaration::EMPTY
    };
    /// SGLang's host pool in `page_first` order, DeepSeek V3.2 in FlashMLA's fp8: \[T 64, L 61, 656
    /// bytes\], where a token is 512 e4m3, their 4 f32 scales, 64 bf16 of RoPE. 2,561,024 bytes.
    SglV32Fp8PageFirst = "sgl_v32_fp8_page_first", 2_561_024 bytes: Declaration {
        axes: &[layers(61), tokens(64)],
        order: &[TOKEN, LAYER],
        planes: FP8_DS_MLA,
        ..Declaration::EMPTY
    };
    /// SGLang's index keys of DeepSeek V3.2's sparse attention: per layer 64 × 128 fp8 keys, stored
    /// as bytes, and behind them, from byte 8,192, 64 × 1 f32 scale. \[L 61, {T × 128, T × 4}\],
    /// 515,328 bytes, 8,448 per layer. The nominal shape, 132 bytes per token, is not what is in
    /// memory.
    SglV32Indexer = "sgl_v32_indexer", 515_328 bytes: Declaration {
        axes: &[layers(61), tokens(64)],
        order: &[LAYER, Level::Planes, TOKEN],
        planes: &[
            PlaneDecl::of(&[FieldDecl::of::<u8>("keys", 128)]),
            PlaneDecl::of(&[FieldDecl::of::<F32>("scale", 1)]),
        ],
        ..Declaration::EMPTY
    };
    /// vLLM's FlashMLA fp8 pool (`fp8_ds_mla`, DeepSeek V3.2), one layer: \[T 64, 656 bytes\],
    /// where a token is 512 e4m3, their 4 f32 scales (one per 128), 64 bf16 of RoPE. 41,984 bytes.
    VllmFp8DsMla = "vllm_fp8_ds_mla", 41_984 bytes: Declaration {
        axes: &[tokens(64)],
        order: &[TOKEN],
        planes: FP8_DS_MLA,
        ..Declaration::EMPTY
    };
    /// vLLM's MLA pool in bf16, one layer: \[T 64, 512 latent and 64 RoPE\], 73,728 bytes.
    VllmMlaBf16 = "vllm_mla_bf16", 73_728 bytes: Declaration {
        axes: &[tokens(64)],
        order: &[TOKEN],
        planes: MLA,
        ..Declaration::EMPTY
    };
    /// DeepSeek V4's compressed pages, one state per 4 tokens (C4): per layer 64 states × (448 e4m3
    /// and 64 bf16 of RoPE), then 64 × (7 ue8m0 scales, one per 64, and 1 byte of padding), 37,376
    /// bytes, padded up to 37,440, a multiple of 576. 21 layers, 786,240 bytes.
    V4C4 = "v4_c4", 786_240 bytes: Declaration {
        axes: &[layers(21), tokens(64)],
        order: &[LAYER, Level::Pad(576), Level::Planes, TOKEN],
        planes: &[
            PlaneDecl::of(&[FieldDecl::of::<E4m3>("latent", 448), FieldDecl::of::<Bf16>("rope", 64)]),
            PlaneDecl {
                fields: &[FieldDecl::of::<Ue8m0>("scales", 7)],
                order: Some(&[TOKEN, Level::Pad(8)]),
            },
        ],
        tokens_per_state: 4,
        ..Declaration::EMPTY
    };
    /// SGLang's host pool in `page_first_direct` order, Llama 3 8B: a K and a V object, each \[L
    /// 32, T 64, H 8, 128 bf16\], 4,194,304 bytes each.
    SglLlama3_8bPageFirstDirect = "sgl_llama3_8b_page_first_direct", 2 * 4_194_304 bytes: Declaration {
        axes: &[layers(32), tokens(64), heads(8)],
        order: &[Level::RegionPlanes, LAYER, TOKEN, HEAD],
        planes: K_THEN_V,
        ..Declaration::EMPTY
    };
    /// SGLang's host pool in `page_head` order, Llama 3 70B on one of 8 tensor-parallel ranks: a K
    /// and a V object, each \[H 1 of 8, T 64, L 80, 128 bf16\], 1,310,720 bytes each. A group of
    /// heads is contiguous.
    SglLlama3_70bTp8PageHead = "sgl_llama3_70b_tp8_page_head", 2 * 1_310_720 bytes: Declaration {
        axes: &[layers(80), tokens(64), Axis::sharded(AxisKind::Head, 1, 8)],
        order: &[Level::RegionPlanes, HEAD, TOKEN, LAYER],
        planes: K_THEN_V,
        ..Declaration::EMPTY
    };
    /// vLLM's fused pool in HND order (LBHNC), Llama 3 8B: a region for each of 32 layers, of \[H
    /// 8, T 16, 128 of K, then 128 of V, bf16\], 65,536 bytes each.
    VllmLlama3_8bLbhnc = "vllm_llama3_8b_lbhnc", 32 * 65_536 bytes: Declaration {
        axes: &[layers(32), tokens(16), heads(8)],
        order: &[Level::Regions(AxisKind::Layer), HEAD, TOKEN],
        planes: &[PlaneDecl::of(&[K, V])],
        ..Declaration::EMPTY
    };
    /// TensorRT-LLM's pool, Llama 3 8B: \[L 32, K and V, H 8, T 32, 128 bf16\], 4,194,304 bytes.
    TrtllmLlama3_8b = "trtllm_llama3_8b", 4_194_304 bytes: Declaration {
        axes: &[layers(32), tokens(32), heads(8)],
        order: &[LAYER, Level::Planes, HEAD, TOKEN],
        planes: K_THEN_V,
        ..Declaration::EMPTY
    };
}

/// `BYTES` bytes without structure.
///
/// **Synthetic**: no engine has such a page. "128 KiB" and "1 MiB" are conventions of benchmarks,
/// and a report that uses them must say so ([`KvLayout::SYNTHETIC`]). `BYTES` of 0 does not
/// compile.
#[derive(Clone, Copy, Debug)]
pub struct Opaque<const BYTES: usize>;

impl<const BYTES: usize> KvLayout for Opaque<BYTES> {
    const NAME: &'static str = "opaque (synthetic)";
    const GEOMETRY: &'static Geometry = &Declaration {
        planes: &[PlaneDecl::of(&[FieldDecl::of::<u8>("bytes", BYTES)])],
        ..Declaration::EMPTY
    }
    .expect();
    const SYNTHETIC: bool = true;
}
