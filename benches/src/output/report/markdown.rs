//! Reports as Markdown.

use std::collections::BTreeSet;

use super::rows::{HEADS, by_layout, cells, title};
use crate::output::artifact::Artifact;
use crate::output::json::COPY;
use crate::output::report::compare::Comparison;

/// What the columns mean.
const EXPLAINED: &str = "GB/s are medians of the rounds, of which half lie between the quartiles; of limit: the share of \
    a plain copy, or of the bare limit; p50 and p99: from the submission of a batch to its end";

/// A cell without what Markdown would read as the end of it.
fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace(['\n', '\r'], " ")
}

/// Rows of cells under their headings.
fn table(heads: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
    let mut text = line(&heads.iter().map(|head| (*head).to_owned()).collect::<Vec<_>>());
    text += &line(&vec!["---".to_owned(); heads.len()]);
    for row in rows {
        text += &line(&row.iter().map(|text| cell(text)).collect::<Vec<_>>());
    }
    text
}

/// The words about a run: machine, settings, limits, notes.
pub(crate) fn about(artifact: &Artifact) -> Vec<String> {
    let report = &artifact.report;
    let host = &report.host;
    let text = |name: &str| host[name].as_str().unwrap_or("unknown").to_owned();
    // A sweep has several.
    let read = report.results.iter().filter(|row| row.op != COPY);
    let in_flight: BTreeSet<u8> = read.map(|row| row.concurrency).collect();
    let in_flight: Vec<_> = in_flight.iter().map(u8::to_string).collect();
    let mut lines = vec![
        format!(
            "{} over {}, {}, {} cores, Linux {}, {}",
            report.meta.command,
            report.meta.transport,
            text("cpu"),
            host["cores"],
            text("kernel"),
            report.created_at
        ),
        format!(
            "rails {}, batches in flight {}, verified: {:?}",
            report.meta.rails.join(" "),
            if in_flight.is_empty() { report.meta.concurrency.to_string() } else { in_flight.join(" ") },
            report.meta.verify
        )
        .to_lowercase(),
    ];
    let several = report.results.iter().any(|row| row.rounds_gb_per_s.rounds > 1);
    if several {
        lines.push(EXPLAINED.into());
    }
    if report.partial {
        lines.push("PARTIAL: the run was stopped before its end; rows are missing or short".into());
    }
    for bare in &report.bare {
        lines.push(format!(
            "{}: {:.2} GB/s of one rail with messages of {} bytes",
            bare.program, bare.gb_per_s, bare.bytes
        ));
    }
    lines.extend(report.noise.map(|noise| noise.line().trim_end().to_owned()));
    lines.extend(report.notes.iter().cloned());
    for row in &report.results {
        lines.extend(row.warnings.iter().map(|text| format!("WARNING: {} {}: {text}", row.scenario, row.op)));
    }
    lines
}

/// All reports.
pub(crate) fn text(artifacts: &[Artifact], comparison: Option<&Comparison>) -> String {
    let mut text = String::new();
    if let Some(comparison) = comparison {
        text += &format!("# {}\n\n", cell(&comparison.title()));
        let rows = comparison.rows.iter().map(|row| row.cells().into());
        text += &table(&super::compare::HEADS, rows);
        text.push('\n');
        for note in &comparison.notes {
            text += &format!("- {note}\n");
        }
        text.push('\n');
    }
    for artifact in artifacts {
        text += &format!("# {}\n\n", cell(&artifact.name));
        for line in about(artifact) {
            text += &format!("- {line}\n");
        }
        for rows in by_layout(&artifact.report.results) {
            text += &format!("\n## {}\n\n", title(&rows[0]));
            text += &table(&HEADS, rows.iter().map(|row| cells(row).into()));
        }
        text.push('\n');
    }
    text
}
