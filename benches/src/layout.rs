//! The layouts that are shipped: which there are, what each is, and a picture of it.

mod svg;
mod zoom;

use anyhow::anyhow;
use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use kvrail::KvLayout;
use kvrail::layouts::Geometry;
use kvrail::layouts::catalogue::{
    Opaque, SglLlama3_8bPageFirstDirect, SglLlama3_70bTp8PageHead, SglMlaLayerFirst, SglMlaPageFirst,
    SglMlaPageFirstDirect, SglV32Fp8PageFirst, SglV32Indexer, TrtllmLlama3_8b, V4C4, VllmFp8DsMla,
    VllmLlama3_8bLbhnc, VllmMlaBf16,
};

use crate::output;

#[derive(Debug, Args)]
pub(crate) struct LayoutArgs {
    /// The layout to describe; a list of all of them without one.
    #[arg(value_parser = parser())]
    name: Option<Shipped>,
    /// As a picture, an SVG on stdout.
    #[arg(long, requires = "name")]
    svg: bool,
}

/// A layout as a value.
#[derive(Clone, Copy, Debug)]
struct Shipped {
    name: &'static str,
    geometry: &'static Geometry,
}

const fn shipped<L: KvLayout>(name: &'static str) -> Shipped {
    Shipped { name, geometry: L::GEOMETRY }
}

/// A real page, which is called what the catalogue calls it.
const fn real<L: KvLayout>() -> Shipped {
    shipped::<L>(L::NAME)
}

const ALL: &[Shipped] = &[
    real::<SglMlaPageFirst>(),
    real::<SglMlaPageFirstDirect>(),
    real::<SglMlaLayerFirst>(),
    real::<SglV32Fp8PageFirst>(),
    real::<SglV32Indexer>(),
    real::<VllmFp8DsMla>(),
    real::<VllmMlaBf16>(),
    real::<V4C4>(),
    real::<SglLlama3_8bPageFirstDirect>(),
    real::<SglLlama3_70bTp8PageHead>(),
    real::<VllmLlama3_8bLbhnc>(),
    real::<TrtllmLlama3_8b>(),
    shipped::<Opaque<{ 128 << 10 }>>("opaque-128k"),
    shipped::<Opaque<{ 1 << 20 }>>("opaque-1m"),
];

fn parser() -> impl TypedValueParser<Value = Shipped> {
    PossibleValuesParser::new(ALL.iter().map(|layout| layout.name)).try_map(|name| {
        ALL.iter().copied().find(|layout| layout.name == name).ok_or_else(|| anyhow!("no such layout"))
    })
}

/// Prints the list, a dump or a picture.
pub(crate) fn run(args: &LayoutArgs) -> anyhow::Result<()> {
    let text = match args.name {
        None => list(),
        Some(Shipped { name, geometry }) if args.svg => svg::picture(name, geometry),
        Some(Shipped { name, geometry }) => format!("{name}: {geometry}\n"),
    };
    output::stdout(text.as_bytes())?;
    Ok(())
}

fn list() -> String {
    let mut text = format!(
        "{:<32} {:>11} {:>7} {:>6} {:>6}  fingerprint\n",
        "layout", "bytes", "regions", "layers", "tokens"
    );
    for Shipped { name, geometry } in ALL {
        let tokens = match geometry.tokens() {
            0 => "-".into(),
            tokens => tokens.to_string(),
        };
        text += &format!(
            "{name:<32} {:>11} {:>7} {:>6} {tokens:>6}  {}\n",
            geometry.page_bytes(),
            geometry.regions(),
            geometry.extent(kvrail::layouts::AxisKind::Layer),
            geometry.fingerprint(),
        );
    }
    text
}
