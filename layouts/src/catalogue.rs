//! The layouts that we ship.
//!
//! Each is checked against its published size here, and element by element against nested loops in
//! the tests. Shapes are from the engines' public sources; the names say engine, content, order.

use crate::axis::{Axis, AxisKind};
use crate::declaration::{Declaration, FieldDecl, Level, PlaneDecl};
use crate::element::{Bf16, E4m3, F32};
use crate::geometry::Geometry;
use crate::layout::KvLayout;

const LAYER: Level = Level::Axis(AxisKind::Layer);
const TOKEN: Level = Level::Axis(AxisKind::Token);
const LAYERS_61: Axis = Axis::whole(AxisKind::Layer, 61);
const TOKENS_64: Axis = Axis::whole(AxisKind::Token, 64);

macro_rules! layouts {
    ($($(#[$doc:meta])* $layout:ident = $name:literal, $bytes:literal bytes: $declaration:expr;)*) => {
        $(
            $(#[$doc])*
            #[derive(Clone, Copy, Debug)]
            pub struct $layout;

            impl KvLayout for $layout {
                const NAME: &'static str = $name;
                const GEOMETRY: &'static Geometry =
                    &Declaration { bytes: Some($bytes), ..$declaration }.expect();
            }

            const _: () = assert!($layout::PAGE_BYTES == $bytes);
        )*
    };
}

layouts! {
    /// SGLang's host pool in `page_first_direct` order, MLA in bf16 (DeepSeek V3/R1, Kimi K2):
    /// \[L 61, T 64, 512 latent and 64 RoPE\], one object of 4,497,408 bytes.
    SglMlaPageFirstDirect = "sgl_mla_page_first_direct", 4_497_408 bytes: Declaration {
        axes: &[LAYERS_61, TOKENS_64],
        order: &[LAYER, TOKEN],
        planes: &[PlaneDecl::of(&[FieldDecl::of::<Bf16>("latent", 512), FieldDecl::of::<Bf16>("rope", 64)])],
        ..Declaration::EMPTY
    };
    /// vLLM's FlashMLA fp8 pool (`fp8_ds_mla`, DeepSeek V3.2), one layer: \[T 64, 656 bytes\], where a
    /// token is 512 e4m3, their 4 f32 scales (one per 128), 64 bf16 of RoPE. 41,984 bytes.
    VllmFp8DsMla = "vllm_fp8_ds_mla", 41_984 bytes: Declaration {
        axes: &[TOKENS_64],
        order: &[TOKEN],
        planes: &[PlaneDecl::of(&[
            FieldDecl::of::<E4m3>("latent", 512),
            FieldDecl::of::<F32>("scales", 4),
            FieldDecl::of::<Bf16>("rope", 64),
        ])],
        ..Declaration::EMPTY
    };
    /// SGLang's index keys of DeepSeek V3.2's sparse attention: per layer 64 × 128 fp8 keys, stored as
    /// bytes, and behind them, from byte 8,192, 64 × 1 f32 scale. \[L 61, {T × 128, T × 4}\], 515,328
    /// bytes, 8,448 per layer. The nominal shape, 132 bytes per token, is not what is in memory.
    SglV32Indexer = "sgl_v32_indexer", 515_328 bytes: Declaration {
        axes: &[LAYERS_61, TOKENS_64],
        order: &[LAYER, Level::Planes, TOKEN],
        planes: &[
            PlaneDecl::of(&[FieldDecl::of::<u8>("keys", 128)]),
            PlaneDecl::of(&[FieldDecl::of::<F32>("scale", 1)]),
        ],
        ..Declaration::EMPTY
    };
}

/// `BYTES` bytes without structure.
///
/// **Synthetic**: no engine has such a page. "128 KiB" and "1 MiB" are conventions of benchmarks, and
/// a report that uses them must say so ([`KvLayout::SYNTHETIC`]). `BYTES` of 0 does not compile.
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
