//! The layouts that we ship.
//!
//! Names say engine, content, order. Each layout's documentation names the engine's release whose
//! code it was compared with; another release may have changed it. Each is checked against its
//! published size here, and index by index against the shape in the engine's source in the tests.

mod deepseek_v4;
mod others;
mod parts;
mod sglang;
mod vllm;

pub use self::deepseek_v4::{
    SglV4Index, SglV4IndexMxfp4, SglV4Window, SglV41, SglV41Fp4, V4C4, V4C128, VllmV4Index, VllmV4IndexMxfp4,
    VllmV4Window, VllmV41, VllmV41Fp4,
};
pub use self::others::{LmcLlama3_8b, LmcMla, TrtllmLlama3_8b};
pub use self::sglang::{
    SglLlama3_8bPageFirst, SglLlama3_8bPageFirstDirect, SglLlama3_8bPageUnified, SglLlama3_70bTp8PageHead,
    SglMlaFp4LayerFirst, SglMlaLayerFirst, SglMlaPageFirst, SglMlaPageFirstDirect, SglMlaPageFirstKvSplit,
    SglV32Fp8PageFirst, SglV32Indexer,
};
pub use self::vllm::{
    SWIZZLE_SCALES_8X4, VllmFp8DsMla, VllmFp8TokenHead, VllmInt8TokenHead, VllmLlama3_8bBlhnc,
    VllmLlama3_8bLbhnc, VllmLlama3_8bLbnhc, VllmMamba, VllmMlaBf16, VllmNvfp4DsMla, VllmNvfp4Gqa,
};

use crate::declaration::{Declaration, FieldDecl, PlaneDecl};
use crate::geometry::Geometry;
use crate::layout::KvLayout;

/// Every layout of an engine that has no parameters: its name and its geometry.
pub fn all() -> impl Iterator<Item = (&'static str, &'static Geometry)> + Clone {
    [sglang::LISTED, vllm::LISTED, deepseek_v4::LISTED, others::LISTED].into_iter().flatten().copied()
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
