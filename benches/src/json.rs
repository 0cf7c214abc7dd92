//! The report for machines: one document per run, `kvrail-bench/2`. docs/measuring.md explains every
//! field.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::Context;
use serde::Serialize;

use crate::catalogue::Named;
use crate::child::Verified;
use crate::cli::{Op, ReadOrder, Verify};
use crate::host::{Host, Watch};
use crate::output::{self, Read};
use crate::window::Tally;

/// The version of the format.
pub(crate) const SCHEMA: &str = "kvrail-bench/2";

/// Where a report goes.
#[derive(Debug)]
pub(crate) enum Sink {
    Stdout,
    File(File, PathBuf),
}

impl Sink {
    /// Opens `path`, `-` for stdout, before the work is done and not after: what cannot be written to is
    /// known at once. What a file holds stays until there is something to put in its place.
    pub(crate) fn open(path: &Path) -> anyhow::Result<Self> {
        if path.as_os_str() == "-" {
            return Ok(Self::Stdout);
        }
        let file = File::options().write(true).create(true).truncate(false).open(path);
        let file = file.with_context(|| {
            format!("cannot write the report to {}; give --json a path that can be written", path.display())
        })?;
        Ok(Self::File(file, path.into()))
    }
}

/// The whole document.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) schema: &'static str,
    pub(crate) created_at: String,
    pub(crate) host: Host,
    pub(crate) meta: Meta,
    pub(crate) results: Vec<Row>,
}

/// What was asked for. What differs from layout to layout is a list in the order of `layout`.
#[derive(Debug, Serialize)]
pub(crate) struct Meta {
    pub(crate) command: &'static str,
    pub(crate) transport: String,
    pub(crate) layout: Vec<&'static str>,
    pub(crate) fingerprint: Vec<String>,
    pub(crate) page_bytes: Vec<u32>,
    pub(crate) synthetic: Vec<bool>,
    pub(crate) batch: Vec<usize>,
    /// Bytes of the pages that go round, per layout.
    pub(crate) working_set: Vec<u64>,
    pub(crate) chunk_bytes: u32,
    pub(crate) rails: Vec<String>,
    pub(crate) lanes_per_rail: u8,
    pub(crate) concurrency: u8,
    pub(crate) processes: u8,
    pub(crate) duration_s: f64,
    pub(crate) warmup_s: f64,
    pub(crate) verify: Verify,
    pub(crate) order: ReadOrder,
}

impl Meta {
    /// Notes the layouts of a run.
    pub(crate) fn of(command: &'static str, transport: &str, layouts: &[Named]) -> Self {
        fn each<T>(layouts: &[Named], what: impl Fn(&Named) -> T) -> Vec<T> {
            layouts.iter().map(what).collect()
        }
        Self {
            command,
            transport: transport.into(),
            layout: each(layouts, |named| named.name),
            fingerprint: each(layouts, |named| named.layout.fingerprint().to_string()),
            page_bytes: each(layouts, |named| named.layout.page_bytes()),
            synthetic: each(layouts, |named| named.layout.synthetic()),
            batch: each(layouts, Named::batch),
            working_set: Vec::new(),
            chunk_bytes: 0,
            rails: Vec::new(),
            lanes_per_rail: 1,
            concurrency: 0,
            processes: 1,
            duration_s: 0.0,
            warmup_s: 0.0,
            verify: Verify::All,
            order: ReadOrder::Turn,
        }
    }
}

/// One line of the ladder.
#[derive(Debug, Serialize)]
pub(crate) struct Row {
    pub(crate) scenario: String,
    pub(crate) layout: &'static str,
    pub(crate) page_bytes: u32,
    pub(crate) op: &'static str,
    /// Of each process; copying threads where nothing is read.
    pub(crate) rails: u8,
    pub(crate) processes: u8,
    pub(crate) concurrency: u8,
    pub(crate) gb_per_s: f64,
    pub(crate) pages_per_s: f64,
    /// `None` for a layout that does not say how many tokens a page has.
    pub(crate) tokens_per_s: Option<f64>,
    pub(crate) latency_us: Latency,
    /// Of the pages asked for, the share that arrived; `None` where nothing is asked for.
    pub(crate) hit_ratio: Option<f64>,
    pub(crate) pages_verified: u64,
    pub(crate) pages_wrong: u64,
    /// Pages that did not arrive, by reason: timed part and verified pass.
    pub(crate) errors: BTreeMap<String, u64>,
    pub(crate) ratio: Ratio,
}

/// From the submission of a batch to its end, in microseconds.
#[derive(Debug, Serialize)]
pub(crate) struct Latency {
    pub p50: f64,
    pub p90: f64,
    pub p99: f64,
    pub p999: f64,
    pub(crate) max: f64,
}

/// Against what the machine can do.
#[derive(Debug, Serialize)]
pub(crate) struct Ratio {
    /// To the `memcpy` row of the same layout and run; `None` where there is none.
    pub(crate) memcpy: Option<f64>,
}

/// What a row was made with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    pub(crate) named: Named,
    pub(crate) op: &'static str,
    pub(crate) rails: u8,
    pub(crate) processes: u8,
    pub(crate) concurrency: u8,
}

impl Row {
    pub(crate) fn new(scenario: &str, shape: Shape, tally: &Tally, verified: Verified) -> Self {
        let Shape { named, op, rails, processes, concurrency } = shape;
        let page_bytes = named.layout.page_bytes();
        let pages_per_s = tally.pages_per_s();
        let us = |quantile| tally.latencies.value_at_quantile(quantile) as f64 / 1e3;
        let mut errors = tally.failed.clone();
        if verified.missing > 0 {
            *errors.entry("missing_in_verified_pass".into()).or_default() += verified.missing;
        }
        Self {
            scenario: scenario.into(),
            layout: named.name,
            page_bytes,
            op,
            rails,
            processes,
            concurrency,
            gb_per_s: pages_per_s * f64::from(page_bytes) / 1e9,
            pages_per_s,
            tokens_per_s: (named.layout.tokens() > 0).then(|| pages_per_s * named.layout.tokens() as f64),
            latency_us: Latency {
                p50: us(0.5),
                p90: us(0.9),
                p99: us(0.99),
                p999: us(0.999),
                max: tally.latencies.max() as f64 / 1e3,
            },
            hit_ratio: if op == Op::Checked.label() { tally.hit_ratio() } else { None },
            pages_verified: verified.compared,
            pages_wrong: verified.wrong,
            errors,
            ratio: Ratio { memcpy: None },
        }
    }
}

/// Puts `text` in the place of what is in `file`, and makes sure that it is there.
fn replace(mut file: &File, text: &[u8]) -> std::io::Result<()> {
    // A device or a pipe has no length to set, and nothing to sync.
    let regular = file.metadata()?.is_file();
    if regular {
        file.set_len(0)?;
    }
    file.write_all(text)?;
    // Some file systems tell only now that they are full.
    if regular { file.sync_all() } else { Ok(()) }
}

impl Report {
    pub(crate) fn new(meta: Meta, results: Vec<Row>, watch: &Watch) -> Self {
        let created_at = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
        Self { schema: SCHEMA, created_at, host: Host::this(watch), meta, results }
    }

    /// To where it shall go.
    pub(crate) fn write(&self, to: Sink) -> anyhow::Result<Read> {
        let mut text = serde_json::to_string_pretty(self)?;
        text.push('\n');
        match to {
            Sink::Stdout => Ok(output::stdout(text.as_bytes())?),
            Sink::File(file, path) => {
                let written = replace(&file, text.as_bytes());
                Ok(output::judged(written, || format!("the report's file {}", path.display()))?)
            }
        }
    }

    /// Pages that were not what they should be, over all rows.
    pub(crate) fn wrong(&self) -> u64 {
        self.results.iter().map(|row| row.pages_wrong).sum()
    }

    /// Pages that did not arrive, over all rows.
    pub(crate) fn failed(&self) -> u64 {
        self.results.iter().flat_map(|row| row.errors.values()).sum()
    }
}
