//! The layouts that this program takes by name: one line each.

use clap::builder::{PossibleValuesParser, TypedValueParser};
use kvrail::PageLayout;
use kvrail::layouts::catalogue::{
    LmcLlama3_8b, LmcMla, Opaque, SglLlama3_8bPageFirst, SglLlama3_8bPageFirstDirect,
    SglLlama3_8bPageUnified, SglLlama3_70bTp8PageHead, SglMlaFp4LayerFirst, SglMlaLayerFirst,
    SglMlaPageFirst, SglMlaPageFirstDirect, SglMlaPageFirstKvSplit, SglV4Index, SglV4IndexMxfp4, SglV4Window,
    SglV32Fp8PageFirst, SglV32Indexer, SglV41, SglV41Fp4, TrtllmLlama3_8b, V4C4, V4C128, VllmFp8DsMla,
    VllmFp8TokenHead, VllmInt8TokenHead, VllmLlama3_8bBlhnc, VllmLlama3_8bLbhnc, VllmLlama3_8bLbnhc,
    VllmMlaBf16, VllmNvfp4DsMla, VllmNvfp4Gqa, VllmV4Index, VllmV4IndexMxfp4, VllmV4Window, VllmV41,
    VllmV41Fp4,
};
use kvrail::layouts::{AxisKind, Geometry, KvLayout};

/// A layout that ships with kvrail.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shipped {
    /// Its name on the command line and in reports.
    pub(crate) name: &'static str,
    /// Where its bytes are.
    pub(crate) geometry: &'static Geometry,
    /// The layout as `serve` and `drive` take it.
    page: PageLayout,
}

/// A layout, and its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NamedLayout {
    /// Its name on the command line and in reports.
    pub(crate) name: &'static str,
    /// The layout itself.
    pub(crate) layout: PageLayout,
}

/// Every layout, real pages first.
pub(crate) const SHIPPED: &[Shipped] = &[
    shipped::<SglMlaPageFirst>(SglMlaPageFirst::NAME),
    shipped::<SglMlaPageFirstDirect>(SglMlaPageFirstDirect::NAME),
    shipped::<SglMlaLayerFirst>(SglMlaLayerFirst::NAME),
    shipped::<SglMlaPageFirstKvSplit>(SglMlaPageFirstKvSplit::NAME),
    shipped::<SglMlaFp4LayerFirst>(SglMlaFp4LayerFirst::NAME),
    shipped::<SglV32Fp8PageFirst>(SglV32Fp8PageFirst::NAME),
    shipped::<SglV32Indexer>(SglV32Indexer::NAME),
    shipped::<SglLlama3_8bPageFirst>(SglLlama3_8bPageFirst::NAME),
    shipped::<SglLlama3_8bPageFirstDirect>(SglLlama3_8bPageFirstDirect::NAME),
    at_rank::<SglLlama3_70bTp8PageHead>(AxisKind::Head, 0),
    shipped::<SglLlama3_8bPageUnified>(SglLlama3_8bPageUnified::NAME),
    shipped::<VllmFp8DsMla>(VllmFp8DsMla::NAME),
    shipped::<VllmMlaBf16>(VllmMlaBf16::NAME),
    shipped::<VllmNvfp4DsMla>(VllmNvfp4DsMla::NAME),
    shipped::<VllmLlama3_8bLbnhc>(VllmLlama3_8bLbnhc::NAME),
    shipped::<VllmLlama3_8bLbhnc>(VllmLlama3_8bLbhnc::NAME),
    shipped::<VllmLlama3_8bBlhnc>(VllmLlama3_8bBlhnc::NAME),
    shipped::<VllmFp8TokenHead>(VllmFp8TokenHead::NAME),
    shipped::<VllmInt8TokenHead>(VllmInt8TokenHead::NAME),
    shipped::<VllmNvfp4Gqa>(VllmNvfp4Gqa::NAME),
    shipped::<V4C4>(V4C4::NAME),
    shipped::<V4C128>(V4C128::NAME),
    shipped::<VllmV4Index>(VllmV4Index::NAME),
    shipped::<VllmV4IndexMxfp4>(VllmV4IndexMxfp4::NAME),
    shipped::<SglV4Index>(SglV4Index::NAME),
    shipped::<SglV4IndexMxfp4>(SglV4IndexMxfp4::NAME),
    shipped::<VllmV4Window>(VllmV4Window::NAME),
    shipped::<SglV4Window>(SglV4Window::NAME),
    shipped::<VllmV41>(VllmV41::NAME),
    shipped::<SglV41>(SglV41::NAME),
    shipped::<VllmV41Fp4>(VllmV41Fp4::NAME),
    shipped::<SglV41Fp4>(SglV41Fp4::NAME),
    shipped::<LmcLlama3_8b>(LmcLlama3_8b::NAME),
    shipped::<LmcMla>(LmcMla::NAME),
    shipped::<TrtllmLlama3_8b>(TrtllmLlama3_8b::NAME),
    shipped::<Opaque<{ 4 << 10 }>>("opaque-4k"),
    shipped::<Opaque<{ 128 << 10 }>>("opaque-128k"),
    shipped::<Opaque<{ 1 << 20 }>>("opaque-1m"),
];

/// The layouts of the demo: a large real page (4.5 MB) and a small one (42 KB).
pub(crate) const OF_THE_DEMO: [NamedLayout; 2] = [
    NamedLayout { name: SglMlaPageFirstDirect::NAME, layout: PageLayout::of::<SglMlaPageFirstDirect>() },
    NamedLayout { name: VllmFp8DsMla::NAME, layout: PageLayout::of::<VllmFp8DsMla>() },
];

/// The layouts of the ladder: those of the demo, and the sizes of the published baseline.
pub(crate) const OF_THE_LADDER: [NamedLayout; 4] = [
    OF_THE_DEMO[0],
    OF_THE_DEMO[1],
    NamedLayout { name: "opaque-128k", layout: PageLayout::of::<Opaque<{ 128 << 10 }>>() },
    NamedLayout { name: "opaque-1m", layout: PageLayout::of::<Opaque<{ 1 << 20 }>>() },
];

const fn shipped<L: KvLayout>(name: &'static str) -> Shipped {
    Shipped { name, geometry: L::GEOMETRY, page: PageLayout::of::<L>() }
}

/// A layout that leaves its rank to run time, at this one. It is listed as it was declared.
const fn at_rank<L: KvLayout>(axis: AxisKind, rank: u32) -> Shipped {
    let Ok(page) = PageLayout::at_rank::<L>(axis, rank) else { panic!("the layout has no such rank") };
    Shipped { name: L::NAME, geometry: L::GEOMETRY, page }
}

impl NamedLayout {
    /// All layouts, as `serve` and `drive` take them.
    fn all() -> impl Iterator<Item = Self> {
        SHIPPED.iter().map(|&Shipped { name, page, .. }| Self { name, layout: page })
    }

    /// The layout called `name`.
    pub(crate) fn find(name: &str) -> Option<Self> {
        Self::all().find(|named| named.name == name)
    }

    /// The name with a remark where no engine has such pages.
    pub(crate) fn label(&self) -> String {
        if self.layout.synthetic() { format!("{} (synthetic)", self.name) } else { self.name.into() }
    }

    /// Pages per batch by default: 32; 8 where a page is larger than 1 MiB, because 8 pages of the
    /// demo's large layout are 36 MB already.
    pub(crate) const fn batch(&self) -> usize {
        if self.layout.page_bytes() > 1 << 20 { 8 } else { 32 }
    }
}

/// Parses the name of a layout, for commands that move pages. The error lists all of them.
pub(crate) fn named_layout() -> impl TypedValueParser<Value = NamedLayout> {
    PossibleValuesParser::new(NamedLayout::all().map(|named| named.name))
        .try_map(|name| NamedLayout::find(&name).ok_or("no such layout"))
}

/// Parses the name of a layout, for commands that describe it. The error lists all of them.
pub(crate) fn any_layout() -> impl TypedValueParser<Value = Shipped> {
    PossibleValuesParser::new(SHIPPED.iter().map(|shipped| shipped.name))
        .try_map(|name| SHIPPED.iter().copied().find(|shipped| shipped.name == name).ok_or("no such layout"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The list here, the catalogue, and the table in docs/layouts.md have the same layouts.
    #[test]
    fn the_catalogue_is_listed_whole_here_and_in_the_documentation() {
        let shipped = SHIPPED.iter().map(|shipped| (shipped.name, shipped.geometry));
        let listed: Vec<_> = shipped.filter(|(name, _)| !name.starts_with("opaque")).collect();
        assert_eq!(listed, kvrail::layouts::catalogue::all().collect::<Vec<_>>());
        let docs = include_str!("../../docs/layouts.md");
        for (name, geometry) in listed {
            let row = docs.lines().find(|line| line.contains(&format!("| {name} |")));
            let row = row.unwrap_or_else(|| panic!("docs/layouts.md has no row of {name}"));
            let bytes = crate::output::numbers::grouped(geometry.page_bytes());
            assert!(row.contains(&geometry.fingerprint().to_string()), "{row}");
            assert!(row.contains(&format!("| {bytes} | {} |", geometry.regions())), "{row}");
        }
    }

    #[test]
    fn every_name_finds_its_own_layout() {
        for &Shipped { name, geometry, page } in SHIPPED {
            let found = NamedLayout::find(name);
            assert_eq!(found.map(|named| named.layout), Some(page), "{name}");
            assert_eq!(u64::from(page.page_bytes()), geometry.page_bytes(), "{name}");
        }
        for named in OF_THE_LADDER {
            assert_eq!(NamedLayout::find(named.name), Some(named));
        }
    }
}
