//! The layouts that can be benchmarked, by name.

use clap::builder::{PossibleValuesParser, TypedValueParser};
use kvrail::PageLayout;
use kvrail::layouts::catalogue::{
    Opaque, SglMlaPageFirst, SglMlaPageFirstDirect, SglV32Fp8PageFirst, SglV32Indexer, TrtllmLlama3_8b, V4C4,
    VllmFp8DsMla, VllmMlaBf16,
};

/// A layout, and what the command line calls it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Named {
    /// On the command line and in reports.
    pub(crate) name: &'static str,
    /// What it is.
    pub(crate) layout: PageLayout,
}

/// All of one region: a page is one range of bytes here. The first two are real pages at the two ends of what engines use.
pub(crate) const LAYOUTS: &[Named] = &[
    Named { name: "sgl_mla_page_first_direct", layout: PageLayout::of::<SglMlaPageFirstDirect>() },
    Named { name: "vllm_fp8_ds_mla", layout: PageLayout::of::<VllmFp8DsMla>() },
    Named { name: "sgl_v32_indexer", layout: PageLayout::of::<SglV32Indexer>() },
    Named { name: "opaque-4k", layout: PageLayout::of::<Opaque<{ 4 << 10 }>>() },
    Named { name: "sgl_mla_page_first", layout: PageLayout::of::<SglMlaPageFirst>() },
    Named { name: "sgl_v32_fp8_page_first", layout: PageLayout::of::<SglV32Fp8PageFirst>() },
    Named { name: "vllm_mla_bf16", layout: PageLayout::of::<VllmMlaBf16>() },
    Named { name: "v4_c4", layout: PageLayout::of::<V4C4>() },
    Named { name: "trtllm_llama3_8b", layout: PageLayout::of::<TrtllmLlama3_8b>() },
    Named { name: "opaque-128k", layout: PageLayout::of::<Opaque<{ 128 << 10 }>>() },
    Named { name: "opaque-1m", layout: PageLayout::of::<Opaque<{ 1 << 20 }>>() },
];

impl Named {
    /// The layout of this name.
    pub(crate) fn find(name: &str) -> Option<Self> {
        LAYOUTS.iter().copied().find(|named| named.name == name)
    }

    /// What reports call it: a made-up page says so.
    pub(crate) fn label(&self) -> String {
        if self.layout.synthetic() { format!("{} (synthetic)", self.name) } else { self.name.into() }
    }

    /// Pages per batch, unless told otherwise: 32, as the system that we compare with; but 8 of the large
    /// ones, which are 36 MB already.
    pub(crate) const fn batch(&self) -> usize {
        if self.layout.page_bytes() > 1 << 20 { 8 } else { 32 }
    }
}

/// Reads a layout's name, and names all of them when it is none.
pub(crate) fn parser() -> impl TypedValueParser<Value = Named> {
    PossibleValuesParser::new(LAYOUTS.iter().map(|named| named.name))
        .try_map(|name| Named::find(&name).ok_or("no such layout"))
}
