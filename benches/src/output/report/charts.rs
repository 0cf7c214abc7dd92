//! Which charts a report has: the ladder, throughput over concurrency, what each rail carried, and
//! latencies.

use super::bars::{self, Bar, Group};
use super::canvas::{DrawError, SERIES};
use super::lines::{self, Scale, Series};
use super::rows::{by_layout, title};
use crate::measure::ladder::MEMCPY;
use crate::output::artifact::Artifact;
use crate::output::json::{COPY, RailFigure, Row};
use crate::output::numbers::grouped;

/// The most charts of a report, so that a page stays small.
const MOST: usize = 16;
/// The most bars that each rail has one of.
const RAILS: usize = 32;

/// A chart.
#[derive(Debug)]
pub(crate) struct Chart {
    /// A name for a file.
    pub(crate) name: String,
    /// What it shows, in a sentence.
    pub(crate) caption: String,
    pub(crate) svg: String,
}

/// All charts of a report.
pub(crate) fn all(artifact: &Artifact) -> Result<Vec<Chart>, DrawError> {
    let rows = &artifact.report.results;
    let mut charts = Vec::new();
    let mut add = |kind: &str, layout: &str, caption: String, svg: String| {
        let parts = [artifact.name.as_str(), kind, layout];
        let name = parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("-");
        charts.push(Chart { name, caption, svg });
    };
    if let Some((caption, svg)) = concurrency(rows)? {
        add("concurrency", "", caption, svg);
    }
    for rows in by_layout(rows) {
        let Some(first) = rows.first() else { continue };
        if let Some((caption, svg)) = ladder(rows)? {
            add("ladder", &first.layout, caption, svg);
        }
        if let Some((caption, svg)) = rails(rows)? {
            add("rails", &first.layout, caption, svg);
        }
        if let Some((caption, svg)) = latency(rows)? {
            add("latency", &first.layout, caption, svg);
        }
    }
    charts.truncate(MOST);
    Ok(charts)
}

type Drawn = Option<(String, String)>;

/// The rows of one layout by scenario, a bar for each operation. Sweeps have none.
fn ladder(rows: &[Row]) -> Result<Drawn, DrawError> {
    let read: Vec<_> =
        rows.iter().filter(|row| row.op != COPY && !row.scenario.starts_with("drive")).collect();
    let Some(first) = read.first() else { return Ok(None) };
    let mut ops: Vec<String> = Vec::new();
    let mut groups: Vec<Group> = Vec::new();
    for row in &read {
        let series = ops.iter().position(|op| row.op == *op).unwrap_or_else(|| {
            ops.push(row.op.to_string());
            ops.len() - 1
        });
        let label = row.scenario.replace("rail groups", "groups");
        let spread = row.rounds_gb_per_s;
        let range = (spread.rounds > 1).then_some((spread.q1, spread.q3));
        let bar = Bar { series, value: row.usual(), range };
        match groups.iter_mut().find(|group| group.label == label) {
            Some(group) => group.bars.push(bar),
            None => groups.push(Group { label, bars: vec![bar] }),
        }
    }
    let limit = rows.iter().find(|row| row.scenario == MEMCPY).map(|row| (row.usual(), MEMCPY));
    let caption = format!(
        "GB/s of each row of the ladder, pages of {}. Thin lines: half of the rounds lie within.{}",
        title(first),
        limit.map_or("", |_| " The line across is a plain copy of the same pages.")
    );
    Ok(Some((caption, bars::draw(&format!("GB/s: {}", title(first)), &ops, &groups, limit)?)))
}

/// GB/s over the batches in flight, a line for each layout, of the rows of a sweep.
fn concurrency(rows: &[Row]) -> Result<Drawn, DrawError> {
    let swept: Vec<_> = rows.iter().filter(|row| row.scenario.starts_with("drive")).collect();
    let by_key = swept.iter().any(|row| row.by_key());
    let mut places: Vec<u8> = swept.iter().map(|row| row.concurrency).collect();
    places.sort_unstable();
    places.dedup();
    if places.len() < 2 {
        return Ok(None);
    }
    let mut lines: Vec<Series> = Vec::new();
    for row in swept {
        let name = format!("{} bytes", grouped(row.page_bytes.into()));
        let place = places.iter().position(|&place| place == row.concurrency).unwrap_or(0);
        let at = lines.iter().position(|line| line.name == name).unwrap_or_else(|| {
            lines.push(Series { name, values: vec![None; places.len()] });
            lines.len() - 1
        });
        // Of several batch sizes, chunks and lanes the best.
        let best = &mut lines[at].values[place];
        *best = Some(best.unwrap_or(0.0).max(row.usual()));
    }
    let places: Vec<_> = places.iter().map(u8::to_string).collect();
    // By key, each thread that calls waits for its batch.
    let over = if by_key { "calling threads" } else { "batches in flight" };
    let svg = lines::draw(&format!("GB/s over {over}"), &places, &lines, Scale::Rate)?;
    Ok(Some((format!("GB/s over the {over} of each process, a line for each size of pages."), svg)))
}

/// What each rail carried, of the row with the most rails.
fn rails(rows: &[Row]) -> Result<Drawn, DrawError> {
    let most = rows.iter().max_by_key(|row| (row.per_rail.len(), row.op == "checked"));
    let Some(row) = most.filter(|row| row.per_rail.len() > 1) else { return Ok(None) };
    let several = row.processes > 1;
    let group = |figure: &RailFigure| Group {
        label: match (row.per_rail.len(), several) {
            (0..=4, true) => format!("{} #{}", figure.rail, figure.process),
            (0..=8, false) => figure.rail.trim_start_matches("mlx5_").into(),
            (0..=16, true) => format!("#{}", figure.process),
            _ => String::new(),
        },
        bars: vec![Bar { series: 0, value: figure.gb_per_s, range: None }],
    };
    let groups: Vec<_> = row.per_rail.iter().take(RAILS).map(group).collect();
    let what = format!("{} {}", row.scenario, row.op);
    let svg = bars::draw(&format!("GB/s of each rail: {what}"), &[], &groups, None)?;
    let caption =
        format!("What each rail of each process carried, in GB/s: {what}, pages of {}.", title(row));
    Ok(Some((caption, svg)))
}

/// The percentiles of the rows of one layout.
fn latency(rows: &[Row]) -> Result<Drawn, DrawError> {
    let line = |row: &Row| {
        let latency = row.latency_us;
        let values = [latency.p50, latency.p90, latency.p99, latency.p999, latency.max];
        let name = row.scenario.strip_prefix("drive ").unwrap_or(&row.scenario);
        Series { name: format!("{name} {}", row.op), values: values.into_iter().map(Some).collect() }
    };
    // Rows that are validated say most; of others there would be too many.
    let checked = rows.iter().filter(|row| row.op == "checked");
    let mut lines: Vec<_> = checked.map(line).take(SERIES.len()).collect();
    if lines.is_empty() {
        lines = rows.iter().filter(|row| row.op != COPY).map(line).take(SERIES.len()).collect();
    }
    let Some(row) = rows.first().filter(|_| !lines.is_empty()) else { return Ok(None) };
    let places = ["p50", "p90", "p99", "p99.9", "max"].map(String::from);
    let svg = lines::draw(&format!("Latency of a batch: {}", title(row)), &places, &lines, Scale::Time)?;
    Ok(Some((format!("Time from the submission of a batch to its end, pages of {}.", title(row)), svg)))
}
