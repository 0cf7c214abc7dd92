//! Two reports side by side: the ratio of each row, and how sure it is.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::measure::spread::Spread;
use crate::output::artifact::Artifact;
use crate::output::json::{Meta, Report, Row};
use crate::output::numbers::grouped;

/// The headings of a comparison.
pub(crate) const HEADS: [&str; 7] = ["page bytes", "scenario", "op", "before", "after", "ratio", "between"];

/// Two reports cannot be compared.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CompareError {
    /// Something that matters differs.
    #[error(
        "{before} and {after} cannot be compared, because they measured different things: {}; run one of them again with the settings of the other",
        .differences.join("; ")
    )]
    Differ { before: String, after: String, differences: Vec<String> },
    /// They have no row in common.
    #[error(
        "{before} and {after} have no row in common: compare runs of the same command with the same layouts"
    )]
    NothingCommon { before: String, after: String },
}

/// A comparison.
#[derive(Debug)]
pub(crate) struct Comparison {
    before: String,
    after: String,
    pub(crate) rows: Vec<Compared>,
    /// What else differs, and rows that only one of them has.
    pub(crate) notes: Vec<String>,
}

/// A row of both.
#[derive(Debug)]
pub(crate) struct Compared {
    page_bytes: u32,
    scenario: String,
    op: String,
    before: f64,
    after: f64,
    /// The ratio, and the range between the quartiles of both.
    ratio: f64,
    between: Option<(f64, f64)>,
}

impl Comparison {
    /// Compares two reports.
    ///
    /// # Errors
    ///
    /// What they measured differs in something that matters.
    pub(crate) fn of(before: &Artifact, after: &Artifact) -> Result<Self, CompareError> {
        let names = || (before.name.clone(), after.name.clone());
        let differences = differences(&before.report.meta, &after.report.meta);
        if !differences.is_empty() {
            let (before, after) = names();
            return Err(CompareError::Differ { before, after, differences });
        }
        let mut rows = Vec::new();
        let mut notes = host_notes(&before.report, &after.report);
        for row in &before.report.results {
            match after.report.results.iter().find(|other| same(row, other)) {
                Some(other) => rows.push(Compared::of(row, other)),
                None => notes.push(format!("only {} has {} {}", before.name, row.scenario, row.op)),
            }
        }
        for row in &after.report.results {
            if !before.report.results.iter().any(|other| same(other, row)) {
                notes.push(format!("only {} has {} {}", after.name, row.scenario, row.op));
            }
        }
        if rows.is_empty() {
            let (before, after) = names();
            return Err(CompareError::NothingCommon { before, after });
        }
        let (before, after) = names();
        Ok(Self { before, after, rows, notes })
    }

    pub(crate) fn title(&self) -> String {
        format!("{} beside {}", self.after, self.before)
    }
}

impl Compared {
    fn of(before: &Row, after: &Row) -> Self {
        let several = |spread: &Spread| spread.rounds > 1 && spread.q1 > 0.0;
        let (a, b) = (&before.rounds_gb_per_s, &after.rounds_gb_per_s);
        Self {
            page_bytes: before.page_bytes,
            scenario: before.scenario.clone(),
            op: before.op.to_string(),
            before: before.usual(),
            after: after.usual(),
            ratio: after.usual() / before.usual(),
            between: (several(a) && several(b)).then(|| (b.q1 / a.q3, b.q3 / a.q1)),
        }
    }

    pub(crate) fn cells(&self) -> [String; 7] {
        [
            grouped(self.page_bytes.into()),
            self.scenario.clone(),
            self.op.clone(),
            format!("{:.2}", self.before),
            format!("{:.2}", self.after),
            if self.ratio.is_finite() { format!("{:.3}", self.ratio) } else { "-".into() },
            match self.between {
                None => "one round".into(),
                Some((low, high)) if low <= 1.0 && high >= 1.0 => {
                    format!("{low:.3} to {high:.3}: no difference")
                }
                Some((low, high)) => format!("{low:.3} to {high:.3}"),
            },
        ]
    }
}

/// Whether both rows measured the same thing.
fn same(a: &Row, b: &Row) -> bool {
    let key = |row: &Row| {
        let load = row.offered_batches_per_s.map(f64::to_bits);
        let counts = (row.rails, row.processes, row.concurrency, row.batch, row.lanes_per_rail);
        (row.scenario.clone(), row.layout.clone(), row.op.clone(), counts, load)
    };
    key(a) == key(b)
}

/// What matters of the settings and differs.
fn differences(before: &Meta, after: &Meta) -> Vec<String> {
    let settings = |meta: &Meta| {
        [
            ("command", meta.command.to_string()),
            ("transport", meta.transport.clone()),
            ("layout", meta.layout.join(" ")),
            ("fingerprint", meta.fingerprint.join(" ")),
            ("page_bytes", format!("{:?}", meta.page_bytes)),
            ("batch", format!("{:?}", meta.batch)),
            ("working_set", format!("{:?}", meta.working_set)),
            ("chunk_bytes", meta.chunk_bytes.to_string()),
            ("rails", meta.rails.len().to_string()),
            ("lanes_per_rail", meta.lanes_per_rail.to_string()),
            ("concurrency", meta.concurrency.to_string()),
            ("processes", meta.processes.to_string()),
            ("order", format!("{:?}", meta.order).to_lowercase()),
        ]
    };
    let names: BTreeSet<_> = before.settings.keys().chain(after.settings.keys()).collect();
    let none = String::from("not given");
    let of = |meta: &Meta, name: &String| meta.settings.get(name).unwrap_or(&none).clone();
    let pairs = settings(before).into_iter().zip(settings(after));
    let pairs = pairs.map(|((name, before), (_, after))| (name, before, after));
    let more = names.into_iter().map(|name| (&**name, of(before, name), of(after, name)));
    // A report of an earlier version has none of these settings, and says nothing about them.
    let told = !before.settings.is_empty() && !after.settings.is_empty();
    pairs
        .chain(more.filter(|_| told))
        .filter(|(_, before, after)| before != after)
        .map(|(name, before, after)| format!("{name} is {before} in one and {after} in the other"))
        .collect()
}

/// What differs of the machines, which may be what was to be compared.
fn host_notes(before: &Report<Value>, after: &Report<Value>) -> Vec<String> {
    let names = ["cpu", "cores", "kernel", "ram_bytes"];
    let differ = names.iter().filter(|name| before.host[**name] != after.host[**name]);
    differ.map(|name| format!("host.{name}: {} and {}", before.host[*name], after.host[*name])).collect()
}
