//! `report`: Markdown, charts and a page of the reports that earlier runs wrote.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

use crate::output::artifact;
use crate::output::json::Sink;
use crate::output::report::charts;
use crate::output::report::compare::Comparison;
use crate::output::report::{html, markdown};
use crate::process::stop;

/// Draw what demo, ladder and drive wrote with --json: tables as Markdown, charts, and a page that
/// needs no network.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The reports.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Compare the second of two reports with the first: ratios, and how sure they are.
    #[arg(long)]
    compare: bool,
    /// Write the tables as Markdown to this file; `-`, the default, for stdout.
    #[arg(long, value_name = "FILE", default_value = "-")]
    markdown: PathBuf,
    /// Write one page with tables and charts to this file; `-` for stdout.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Write each chart to this folder, as SVG.
    #[arg(long, value_name = "DIR")]
    svg: Option<PathBuf>,
    /// Take reports of runs that were stopped, as far as they go.
    #[arg(long)]
    partial: bool,
}

/// Reads the reports, and writes what was asked for.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    stop::end_process_1_on_signals()?;
    let stdout = Path::new("-");
    if args.html.as_deref() == Some(stdout) && args.markdown == stdout {
        bail!("--html -: the Markdown goes to stdout; give --markdown a file, too");
    }
    let mut artifacts = Vec::with_capacity(args.files.len());
    for file in &args.files {
        let mut artifact = artifact::read(file, args.partial)?;
        // A report says what its own machine could carry, also if an earlier version wrote it.
        let facts = artifact.report.host["environment"].clone();
        artifact.report.results.iter_mut().for_each(|row| row.doubt(&facts));
        artifacts.push(artifact);
    }
    let comparison = match (args.compare, &artifacts[..]) {
        (false, _) => None,
        (true, [before, after]) => Some(Comparison::of(before, after)?),
        (true, given) => bail!("--compare: give two reports, not {}", given.len()),
    };
    if args.html.is_some() || args.svg.is_some() {
        let charts = artifacts.iter().map(charts::all).collect::<Result<Vec<_>, _>>()?;
        if let Some(path) = &args.html {
            Sink::open_for("--html", path)?.put(&html::page(&artifacts, &charts, comparison.as_ref()))?;
        }
        if let Some(folder) = &args.svg {
            fs::create_dir_all(folder)
                .with_context(|| format!("--svg: cannot make the folder {}", folder.display()))?;
            for chart in charts.iter().flatten() {
                let path = folder.join(format!("{}.svg", chart.name));
                Sink::open_for("--svg", &path)?.put(&chart.svg)?;
            }
        }
    }
    Sink::open_for("--markdown", &args.markdown)?.put(&markdown::text(&artifacts, comparison.as_ref()))?;
    Ok(())
}
