//! The ladder as text: a table with the size of a page beside every number, what each rail carried,
//! and what to doubt.

use std::fmt::Write;

use crate::measure::processes::Process;
use crate::measure::rung::Rung;
use crate::output::grid::grid;
use crate::output::json::{COPY, RailFigure, Report, Row};
use crate::output::numbers::{grouped, time};
use crate::output::verdict::BEYOND;

/// The row with processes of their own for each rail.
pub(crate) const GROUPS: &str = "rail groups";

/// Which counters of a port tell of trouble, or of the bytes that crossed it: words in their names.
const TOLD: [&str; 9] =
    ["_bytes", "cnp", "pause", "ecn", "retr", "timeout", "discard", "out_of_sequence", "error"];

/// The whole text.
pub(crate) fn text(document: &Report) -> String {
    let (host, meta) = (&document.host, &document.meta);
    let mut text = format!(
        "kvrail ladder over {}.\n{}, {}, Linux {}.\n\n",
        meta.transport,
        host.cpu,
        host.share(),
        host.kernel
    );
    text += &table(&document.results);
    text += &per_rail(&document.results);
    text.push('\n');
    for bare in &document.bare {
        // Writing to a string does not fail.
        let _ = writeln!(
            text,
            "{}, the bare limit of one rail: {:.2} GB/s with messages of {} bytes.",
            bare.program,
            bare.gb_per_s,
            grouped(bare.bytes)
        );
    }
    text += &document.noise.map_or(String::new(), |noise| noise.line());
    for note in &document.notes {
        let _ = writeln!(text, "{note}");
    }
    for row in &document.results {
        for warning in &row.warnings {
            let _ = writeln!(text, "WARNING: {}, {} {}: {warning}", row.label(), row.scenario, row.op);
        }
    }
    if document.results.iter().any(|row| row.ratio.memcpy > Some(BEYOND)) {
        text += "More than memcpy: the machine is busy with something else, so shares of the limit prove nothing.\n";
    }
    if document.partial {
        text += "PARTIAL: the run ended early; rows are missing or short.\n";
    }
    text + &host.throttled()
}

/// The rows. Between layouts is an empty line.
fn table(rows: &[Row]) -> String {
    const HEADS: [&str; 9] = ["bytes", "scenario", "op", "rails", "GB/s", "+-", "limit", "p50", "p99"];
    let mut text = String::new();
    let mut rest = rows;
    while let Some(first) = rest.first() {
        let (these, others) = rest.split_at(rest.iter().take_while(|row| row.layout == first.layout).count());
        rest = others;
        let wrong: u64 = these.iter().map(|row| row.pages_wrong).sum();
        let verified: u64 = these.iter().map(|row| row.pages_verified).sum();
        let wrong = if wrong == 0 { "0 wrong".into() } else { format!("{} WRONG", grouped(wrong)) };
        let label = first.label();
        let _ = writeln!(text, "{label}: {} pages compared byte for byte, {wrong}", grouped(verified));
        text += &grid(&HEADS, &these.iter().map(cells).collect::<Vec<_>>());
        text.push('\n');
    }
    text
}

fn cells(row: &Row) -> Vec<String> {
    let limit = row.ratio.bare.or(row.ratio.memcpy);
    vec![
        grouped(row.page_bytes.into()),
        row.scenario.clone(),
        row.op.to_string(),
        if row.op == COPY {
            format!("{} thr", row.rails)
        } else {
            format!("{}x{}", row.rails, row.processes)
        },
        format!("{:.2}", row.usual()),
        format!("{:.0} %", 100.0 * row.rounds_gb_per_s.relative()),
        limit.map_or("-".into(), |ratio| format!("{:.0} %", 100.0 * ratio)),
        time(row.latency_us.p50),
        time(row.latency_us.p99),
    ]
}

/// What each rail carried, of the rows with several of them.
fn per_rail(rows: &[Row]) -> String {
    let mut cells = Vec::new();
    for row in rows.iter().filter(|row| row.per_rail.len() > 1) {
        for figure in &row.per_rail {
            cells.push(vec![
                grouped(row.page_bytes.into()),
                format!("{} {}", row.scenario, row.op),
                figure.process.to_string(),
                figure.rail.clone(),
                format!("{:.2}", figure.gb_per_s),
                counters(figure),
            ]);
        }
    }
    let heads = ["bytes", "row", "process", "rail", "GB/s", "counters of its port"];
    if cells.is_empty() { String::new() } else { grid(&heads, &cells) }
}

fn counters(figure: &RailFigure) -> String {
    let told = figure.counters.iter().filter(|(name, _)| TOLD.iter().any(|word| name.contains(word)));
    let told: Vec<_> = told.map(|(name, by)| format!("{name} +{}", grouped(*by))).collect();
    if told.is_empty() { "-".into() } else { told.join(", ") }
}

/// Which processes would run, and where. The operations of a row have the same processes.
pub(crate) fn plan(rungs: &[Rung], placements: &[String]) -> String {
    let first = |at: &usize| *at == 0 || rungs[at - 1].scenario != rungs[*at].scenario;
    let rungs = (0..rungs.len()).filter(first).map(|at| &rungs[at]);
    placed(rungs.flat_map(|rung| cells_of(&rung.scenario, &rung.processes)).collect(), placements)
}

/// Which processes of a row would run, and where.
pub(crate) fn processes(row: &str, processes: &[Process], placements: &[String]) -> String {
    placed(cells_of(row, processes), placements)
}

fn cells_of(row: &str, processes: &[Process]) -> Vec<Vec<String>> {
    let cells = |(number, process): (usize, &Process)| {
        let cpus = process.cpus.as_ref().map_or("any", |cpus| cpus.list());
        let rails = process.rails.to_string().replace(',', " ");
        vec![row.into(), (number + 1).to_string(), rails, cpus.into()]
    };
    processes.iter().enumerate().map(cells).collect()
}

fn placed(cells: Vec<Vec<String>>, placements: &[String]) -> String {
    let mut text = grid(&["row", "process", "rails", "CPUs"], &cells);
    if !placements.is_empty() {
        text += &format!("\n{}\n", placements.join("\n"));
    }
    text
}
