//! `layout`: describes the layouts that ship with kvrail.

use kvrail::layouts::AxisKind;

use crate::catalogue::{SHIPPED, Shipped, any_layout};
use crate::output::picture::svg;
use crate::output::write;
use crate::process::stop;

/// Describe the layouts that ship with kvrail: all in a list, one in words, or one as a picture.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The layout to describe. Without it all layouts are listed.
    #[arg(value_parser = any_layout())]
    name: Option<Shipped>,
    /// Draw the layout: an SVG on stdout.
    #[arg(long, requires = "name")]
    svg: bool,
}

/// Prints the list, a description or a picture.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    stop::end_process_1_on_signals()?;
    let text = match args.name {
        None => list(),
        Some(Shipped { name, geometry, .. }) if args.svg => svg::picture(name, geometry),
        Some(Shipped { name, geometry, .. }) => format!("{name}: {geometry}\n"),
    };
    write::stdout(text.as_bytes())?;
    Ok(())
}

fn list() -> String {
    let mut text = format!(
        "{:<32} {:>11} {:>7} {:>6} {:>6}  fingerprint\n",
        "layout", "bytes", "regions", "layers", "tokens"
    );
    for Shipped { name, geometry, .. } in SHIPPED {
        let tokens = match geometry.tokens() {
            0 => "-".into(),
            tokens => tokens.to_string(),
        };
        text += &format!(
            "{name:<32} {:>11} {:>7} {:>6} {tokens:>6}  {}\n",
            geometry.page_bytes(),
            geometry.regions(),
            geometry.extent(AxisKind::Layer),
            geometry.fingerprint(),
        );
    }
    text
}
