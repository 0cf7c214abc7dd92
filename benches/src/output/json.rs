//! The report for machines: one document per run, in the format `kvrail-bench/3`. docs/measuring.md
//! explains every field.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::catalogue::NamedLayout;
use crate::cli::common::{Op, ReadOrder, Transport, Verify};
use crate::machine::carries::Limit;
use crate::measure::spread::Spread;
use crate::measure::window::{Resident, Tally};
use crate::output::host::{Host, Watch};
use crate::output::numbers::grouped;
use crate::output::write::{self, Delivery};
use crate::process::protocol::Verified;

/// The version of the format.
pub(crate) const SCHEMA: &str = "kvrail-bench/3";

/// The `op` of rows that copy pages and read none.
pub(crate) const COPY: &str = "copy";

/// Where a report goes.
#[derive(Debug)]
pub(crate) enum Sink {
    /// To stdout.
    Stdout,
    /// To an open file, with its path.
    File(File, PathBuf),
}

impl Sink {
    /// Opens the path of `--json`, `-` for stdout. This is done before the work, so that a path
    /// that cannot be written is an error at once. The file keeps its content until there is a
    /// report to replace it.
    pub(crate) fn open(path: &Path) -> anyhow::Result<Self> {
        Self::open_for("--json", path)
    }

    /// Opens the path that an option gives, `-` for stdout.
    pub(crate) fn open_for(option: &str, path: &Path) -> anyhow::Result<Self> {
        if path.as_os_str() == "-" {
            return Ok(Self::Stdout);
        }
        let file = File::options().write(true).create(true).truncate(false).open(path);
        let file = file.with_context(|| {
            format!("cannot write to {}; give {option} the path of a writable file", path.display())
        })?;
        Ok(Self::File(file, path.into()))
    }

    /// Writes the whole report.
    pub(crate) fn put(self, text: &str) -> anyhow::Result<Delivery> {
        match self {
            Self::Stdout => Ok(write::stdout(text.as_bytes())?),
            Self::File(file, path) => {
                let written = replace(&file, text.as_bytes());
                Ok(write::delivery(written, || format!("the report's file {}", path.display()))?)
            }
        }
    }
}

/// The whole document. `H` is what its host block is read as.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Report<H = Host> {
    pub(crate) schema: Cow<'static, str>,
    pub(crate) created_at: String,
    /// Whether the run was stopped before its end, so that rows are missing or short.
    #[serde(default)]
    pub(crate) partial: bool,
    pub(crate) host: H,
    pub(crate) meta: Meta,
    pub(crate) results: Vec<Row>,
    /// The limits that another program measured, one for each size of its messages.
    #[serde(default)]
    pub(crate) bare: Vec<BareLimit>,
    /// How much the machine itself varied in the rounds of the run; `None` where that was not
    /// measured.
    #[serde(default)]
    pub(crate) noise: Option<Noise>,
    /// What a reader of the figures should know.
    #[serde(default)]
    pub(crate) notes: Vec<String>,
}

/// The settings of the run. A setting that differs between layouts is a list in the order of
/// `layout`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Meta {
    pub(crate) command: Cow<'static, str>,
    pub(crate) transport: String,
    pub(crate) layout: Vec<Cow<'static, str>>,
    pub(crate) fingerprint: Vec<String>,
    pub(crate) page_bytes: Vec<u32>,
    pub(crate) synthetic: Vec<bool>,
    pub(crate) batch: Vec<usize>,
    /// Bytes of the pages that are read over and over, per layout.
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
    /// Settings that only some runs have, by the names of their arguments.
    #[serde(default)]
    pub(crate) settings: BTreeMap<String, String>,
}

/// The arguments with these names that were given.
pub(crate) fn given<const N: usize>(settings: [(&str, Option<String>); N]) -> BTreeMap<String, String> {
    settings.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect()
}

impl Meta {
    /// The settings that follow from the layouts, and defaults for the others.
    pub(crate) fn of(command: &'static str, transport: &str, layouts: &[NamedLayout]) -> Self {
        fn each<T>(layouts: &[NamedLayout], what: impl Fn(&NamedLayout) -> T) -> Vec<T> {
            layouts.iter().map(what).collect()
        }
        Self {
            command: command.into(),
            transport: transport.into(),
            layout: each(layouts, |named| named.name.into()),
            fingerprint: each(layouts, |named| named.layout.fingerprint().to_string()),
            page_bytes: each(layouts, |named| named.layout.page_bytes()),
            synthetic: each(layouts, |named| named.layout.synthetic()),
            batch: each(layouts, NamedLayout::batch),
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
            settings: BTreeMap::new(),
        }
    }
}

/// One line of the ladder.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Row {
    pub(crate) scenario: String,
    pub(crate) layout: Cow<'static, str>,
    pub(crate) page_bytes: u32,
    /// Whether no engine has such pages.
    #[serde(default)]
    pub(crate) synthetic: bool,
    pub(crate) op: Cow<'static, str>,
    /// Rails of each process. Of a row that copies: threads.
    pub(crate) rails: u8,
    pub(crate) processes: u8,
    pub(crate) concurrency: u8,
    /// Pages of a batch.
    #[serde(default)]
    pub(crate) batch: usize,
    /// 0 where no engine reads.
    #[serde(default)]
    pub(crate) chunk_bytes: u32,
    #[serde(default)]
    pub(crate) lanes_per_rail: u8,
    /// The batches that each process should have begun in a second; `None`: as many as it could.
    #[serde(default)]
    pub(crate) offered_batches_per_s: Option<f64>,
    pub(crate) gb_per_s: f64,
    pub(crate) pages_per_s: f64,
    /// How long all windows were that all workers had in common, in seconds.
    #[serde(default)]
    pub(crate) counted_s: f64,
    /// `None` for a layout whose pages have no tokens.
    pub(crate) tokens_per_s: Option<f64>,
    /// GB/s of the rounds.
    #[serde(default)]
    pub(crate) rounds_gb_per_s: Spread,
    pub(crate) latency_us: Latency,
    /// The share of the requested pages that arrived; `None` where none is validated.
    pub(crate) hit_ratio: Option<f64>,
    pub(crate) pages_verified: u64,
    pub(crate) pages_wrong: u64,
    /// Pages that did not arrive, by reason, in the timed part and in the comparison.
    pub(crate) errors: BTreeMap<String, u64>,
    pub(crate) ratio: Ratio,
    /// What each rail of each process carried; empty where it is not known.
    #[serde(default)]
    pub(crate) per_rail: Vec<RailFigure>,
    /// The memory of all its processes after the first round, and after the last; `None` where that
    /// is not known.
    #[serde(default)]
    pub(crate) memory: Option<[Resident; 2]>,
    /// Whether no other row of its layout, of several, has more GB/s.
    #[serde(default)]
    pub(crate) peak: bool,
    /// What is wrong with these figures.
    #[serde(default)]
    pub(crate) warnings: Vec<String>,
}

/// The time from the submission of a batch to its end, in microseconds.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Latency {
    pub(crate) p50: f64,
    pub(crate) p90: f64,
    pub(crate) p99: f64,
    pub(crate) p999: f64,
    pub(crate) max: f64,
}

/// A row in proportion to the limits of the machine.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Ratio {
    /// Its pages per second over those of the `memcpy` row of the same layout and run; `None` where
    /// there is no such row.
    pub(crate) memcpy: Option<f64>,
    /// Its GB/s over those of `bare`, times the rails that the row has; `None` where `bare` is
    /// empty.
    #[serde(default)]
    pub(crate) bare: Option<f64>,
}

/// What a rail carried.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct RailFigure {
    /// The rail's name.
    pub(crate) rail: String,
    /// The number of the process, from 1.
    pub(crate) process: usize,
    /// Its share of what the process read, in GB/s of pages.
    pub(crate) gb_per_s: f64,
    /// The CPUs to which the process was bound; `None`: it was not.
    #[serde(default)]
    pub(crate) cpus: Option<String>,
    /// By how much the counters of its port rose over the row's rounds, by their names in sysfs.
    #[serde(default)]
    pub(crate) counters: BTreeMap<String, u64>,
}

/// What a program of another origin gets out of one rail.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct BareLimit {
    /// The program's name.
    pub(crate) program: String,
    /// The command line.
    pub(crate) command: String,
    /// The size of its messages.
    pub(crate) bytes: u64,
    pub(crate) gb_per_s: f64,
}

/// How much the machine itself varied: the same work in every round, without kvrail.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Noise {
    /// Rounds of an empty loop in a millisecond.
    pub(crate) empty_loop_per_ms: Spread,
    /// A thread's `memcpy`, in GB/s.
    pub(crate) memcpy_gb_per_s: Spread,
}

/// The settings of one row.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    pub(crate) named: NamedLayout,
    pub(crate) op: &'static str,
    pub(crate) rails: u8,
    pub(crate) processes: u8,
    pub(crate) concurrency: u8,
    /// Pages of a batch.
    pub(crate) batch: usize,
    /// 0 where no engine reads.
    pub(crate) chunk_bytes: u32,
    pub(crate) lanes_per_rail: u8,
    /// Batches of each process in a second; `None`: as many as it can.
    pub(crate) offered: Option<f64>,
}

impl Row {
    pub(crate) fn new(scenario: &str, shape: Shape, tally: &Tally, verified: Verified) -> Self {
        let Shape { named, op, rails, processes, concurrency, .. } = shape;
        let page_bytes = named.layout.page_bytes();
        let pages_per_s = tally.pages_per_s();
        // Where it is only asked which pages exist, none moves.
        let page_gb = if op == Op::Exists.label() { 0.0 } else { f64::from(page_bytes) / 1e9 };
        let us = |quantile| tally.latencies.value_at_quantile(quantile) as f64 / 1e3;
        let mut errors = tally.failed.clone();
        if verified.missing > 0 {
            *errors.entry("missing_in_verified_pass".into()).or_default() += verified.missing;
        }
        Self {
            scenario: scenario.into(),
            layout: named.name.into(),
            page_bytes,
            synthetic: named.layout.synthetic(),
            op: op.into(),
            rails,
            processes,
            concurrency,
            batch: shape.batch,
            chunk_bytes: shape.chunk_bytes,
            lanes_per_rail: shape.lanes_per_rail,
            offered_batches_per_s: shape.offered,
            gb_per_s: pages_per_s * page_gb,
            pages_per_s,
            counted_s: tally.time.as_secs_f64(),
            tokens_per_s: (named.layout.tokens() > 0).then(|| pages_per_s * named.layout.tokens() as f64),
            rounds_gb_per_s: Spread::of(&tally.rates).times(page_gb),
            latency_us: Latency {
                p50: us(0.5),
                p90: us(0.9),
                p99: us(0.99),
                p999: us(0.999),
                max: tally.latencies.max() as f64 / 1e3,
            },
            hit_ratio: if op == Op::Read.label() || op == COPY { None } else { tally.hit_ratio() },
            pages_verified: verified.compared,
            pages_wrong: verified.wrong,
            errors,
            ratio: Ratio::default(),
            per_rail: Vec::new(),
            memory: tally.memory,
            peak: false,
            warnings: Vec::new(),
        }
    }

    /// Notes what its rails cannot have carried, by the `host.environment` of its report. Processes
    /// that share a rail share what it carries.
    pub(crate) fn doubt(&mut self, environment: &Value) {
        let mut rails = BTreeMap::<&str, f64>::new();
        for figure in &self.per_rail {
            *rails.entry(&figure.rail).or_default() += figure.gb_per_s;
        }
        let complaint = |(rail, gb): (&str, f64)| Limit::of(environment, rail)?.complaint(rail, gb);
        self.warnings = rails.into_iter().filter_map(complaint).collect();
    }

    /// Whether its pages were asked for by their keys.
    pub(crate) fn by_key(&self) -> bool {
        [Op::Get.label(), Op::Exists.label()].contains(&&*self.op)
    }

    /// GB/s as they are shown, beside the quartiles: the median of the rounds, of which a few may
    /// have been disturbed. Where a busy machine let no batch end in most of them, it is the mean,
    /// which the batches of the others have.
    pub(crate) fn usual(&self) -> f64 {
        let median = self.rounds_gb_per_s.median;
        if median > 0.0 { median } else { self.gb_per_s }
    }

    /// Pages per second, as [`Row::usual`]. Where none moves, it is the mean.
    pub(crate) fn usual_pages(&self) -> f64 {
        if self.rounds_gb_per_s.median > 0.0 {
            self.usual() * 1e9 / f64::from(self.page_bytes)
        } else {
            self.pages_per_s
        }
    }

    /// The layout's name, with a remark where no engine has such pages.
    pub(crate) fn label(&self) -> String {
        if self.synthetic { format!("{} (synthetic)", self.layout) } else { self.layout.to_string() }
    }
}

/// Marks the row of each layout that has the most GB/s, where there are several.
pub(crate) fn mark_peaks(rows: &mut [Row]) {
    for chunk in rows.chunk_by_mut(|a, b| a.layout == b.layout) {
        let several = chunk.len() > 1;
        if let Some(peak) = chunk.iter_mut().max_by(|a, b| a.usual().total_cmp(&b.usual())) {
            peak.peak = several;
        }
    }
}

/// Replaces the content of `file` by `text`, and syncs it.
fn replace(mut file: &File, text: &[u8]) -> std::io::Result<()> {
    // A device or a pipe has no length, and cannot be synced.
    let regular = file.metadata()?.is_file();
    if regular {
        file.set_len(0)?;
    }
    file.write_all(text)?;
    // Some file systems report only here that they are full.
    if regular { file.sync_all() } else { Ok(()) }
}

impl Report {
    pub(crate) fn new(meta: Meta, results: Vec<Row>, watch: &Watch) -> Self {
        let created_at = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
        // A label may say more: "verbs on rxe".
        let host = Host::this(watch, meta.transport.starts_with(Transport::Verbs.label()));
        Self {
            schema: SCHEMA.into(),
            created_at,
            partial: false,
            host,
            meta,
            results,
            bare: Vec::new(),
            noise: None,
            notes: Vec::new(),
        }
    }

    /// Notes at each row what its rails cannot have carried.
    pub(crate) fn doubt(&mut self) {
        let facts = serde_json::to_value(&self.host.environment).unwrap_or_default();
        self.results.iter_mut().for_each(|row| row.doubt(&facts));
    }

    /// Writes the table and the report, and judges the run: a wrong page is a failure, and so is a
    /// page that did not arrive.
    pub(crate) fn deliver(&self, table: &str, json: Option<Sink>) -> anyhow::Result<()> {
        // The report is written even if the table cannot be.
        let table = match json {
            Some(Sink::Stdout) => write::stderr(table.as_bytes()),
            _ => write::stdout(table.as_bytes()),
        };
        let written = json.map(|sink| self.write(sink)).transpose();
        let (wrong, failed) = (self.wrong(), self.failed());
        if wrong > 0 {
            bail!("{} pages differ from what was written: do not use this build", grouped(wrong));
        }
        // By key a page may be missing; by location it was there.
        if failed > 0 && !self.results.iter().all(|row| row.by_key() && row.hit_ratio > Some(0.0)) {
            bail!(
                "{} pages did not arrive; `errors` in the --json report gives the reasons",
                grouped(failed)
            );
        }
        written?;
        table?;
        Ok(())
    }

    fn write(&self, to: Sink) -> anyhow::Result<Delivery> {
        to.put(&(serde_json::to_string_pretty(self)? + "\n"))
    }

    /// Pages that differ from what was written, over all rows.
    fn wrong(&self) -> u64 {
        self.results.iter().map(|row| row.pages_wrong).sum()
    }

    /// Pages that did not arrive, over all rows.
    fn failed(&self) -> u64 {
        self.results.iter().flat_map(|row| row.errors.values()).sum()
    }
}
