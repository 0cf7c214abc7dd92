//! The report of `churn`: in words, and for machines as one document in the format
//! `kvrail-bench-churn/1`. docs/measuring.md explains every field.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::SystemTime;

use anyhow::bail;
use serde::Serialize;

use crate::output::host::{Host, Watch};
use crate::output::json::Sink;
use crate::output::numbers::grouped;
use crate::output::write;
use crate::process::protocol::{Overwritten, Read};

/// The version of the format.
const SCHEMA: &str = "kvrail-bench-churn/1";

/// The settings of a run.
#[derive(Debug, Serialize)]
pub(crate) struct Settings {
    pub(crate) directory: String,
    pub(crate) layout: &'static str,
    pub(crate) page_bytes: u32,
    pub(crate) pool_pages: u32,
    pub(crate) keys: u32,
    pub(crate) readers: u8,
    pub(crate) pace: u32,
    pub(crate) dir_cache_s: f64,
    pub(crate) validation: bool,
    pub(crate) adversary: bool,
    pub(crate) seed: u64,
    pub(crate) seconds: f64,
    /// Whether a signal ended the run before its end.
    pub(crate) partial: bool,
}

/// The whole document.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    schema: &'static str,
    created_at: String,
    host: Host,
    #[serde(flatten)]
    settings: Settings,
    pages_wrong: u64,
    /// The wrong pages, by how they are wrong.
    wrong: BTreeMap<String, u64>,
    wrong_examples: Vec<String>,
    hits: u64,
    hits_cache: u64,
    hits_directory: u64,
    puts: u64,
    overwrites: u64,
    evictions: u64,
    removed: u64,
    gets: u64,
    misses: BTreeMap<String, u64>,
    look_ups: u64,
    keys_looked_up: u64,
    keys_renewed: u64,
    forged: u64,
}

impl Report {
    pub(crate) fn new(settings: Settings, overwritten: Overwritten, read: Read, watch: &Watch) -> Self {
        Self {
            schema: SCHEMA,
            created_at: humantime::format_rfc3339_seconds(SystemTime::now()).to_string(),
            host: Host::this(watch, false),
            settings,
            pages_wrong: read.pages_wrong(),
            wrong: read.wrong,
            wrong_examples: read.examples,
            hits: read.hits,
            hits_cache: read.hits_cache,
            hits_directory: read.hits_directory,
            puts: overwritten.puts,
            overwrites: overwritten.overwrites,
            evictions: overwritten.evictions,
            removed: overwritten.removed,
            gets: read.gets,
            misses: read.misses,
            look_ups: read.look_ups,
            keys_looked_up: read.keys_looked_up,
            keys_renewed: read.keys_renewed,
            forged: read.forged,
        }
    }

    fn text(&self) -> String {
        let Settings { pool_pages, keys, page_bytes, readers, directory, seconds, dir_cache_s, .. } =
            &self.settings;
        let validation = if self.settings.validation { "" } else { ", WITHOUT VALIDATION" };
        let adversary = if self.settings.adversary { ", whose answers are spoilt" } else { "" };
        let mut text = format!(
            "churn: {keys} keys in a pool of {pool_pages} pages of {} bytes, {readers} readers over shm{validation}, {seconds} s;\n\
             directory {directory}{adversary}, records cached for {dir_cache_s} s\n\n",
            grouped((*page_bytes).into())
        );
        // Writing to a string does not fail.
        let mut line = |name: &str, value: u64, more: String| {
            let _ = writeln!(text, "{:<14} {:>13}{more}", name, grouped(value));
        };
        let list = |counts: &BTreeMap<String, u64>| {
            let all: Vec<_> =
                counts.iter().map(|(name, count)| format!("{name} {}", grouped(*count))).collect();
            if all.is_empty() { String::new() } else { format!("  {}", all.join(", ")) }
        };
        let (cache, directory) = (grouped(self.hits_cache), grouped(self.hits_directory));
        line("hits", self.hits, format!("  every byte checked; cache {cache}, directory {directory}"));
        line("pages wrong", self.pages_wrong, list(&self.wrong));
        line("overwrites", self.overwrites, format!("  of {} pages put", grouped(self.puts)));
        line("misses", self.misses.values().sum(), list(&self.misses));
        line("look-ups", self.look_ups, format!("  for {} keys", grouped(self.keys_looked_up)));
        line("gets", self.gets, String::new());
        if self.settings.adversary {
            line("forged records", self.forged, String::new());
        }
        for example in &self.wrong_examples {
            let _ = writeln!(text, "wrong: {example}");
        }
        if self.settings.partial {
            text.push_str("PARTIAL: the run was stopped before its end.\n");
        }
        text
    }
}

/// Writes the text and the report, and judges the run.
///
/// # Errors
///
/// A page was wrong although pages were validated; or the report cannot be written. A run that was
/// not stopped also fails where nothing was hit or overwritten, so that nothing was shown, and
/// where none was wrong although pages were not validated.
pub(crate) fn deliver(report: &Report, json: Option<Sink>) -> anyhow::Result<()> {
    let text = report.text();
    let told = match json {
        Some(Sink::Stdout) => write::stderr(text.as_bytes()),
        _ => write::stdout(text.as_bytes()),
    };
    let document = serde_json::to_string_pretty(report)? + "\n";
    let written = json.map(|sink| sink.put(&document)).transpose();
    match (report.settings.validation, report.pages_wrong) {
        (true, 1..) => {
            bail!(
                "{} pages differ from what their keys say: do not use this build",
                grouped(report.pages_wrong)
            )
        }
        (false, 0) if !report.settings.partial => bail!(
            "no wrong page was found although none was validated, so this run would find none in any case: give a longer --duration"
        ),
        _ => {}
    }
    if !report.settings.partial && (report.hits == 0 || report.overwrites == 0) {
        bail!(
            "{} hits and {} overwrites show nothing: give a longer --duration, or a lower --pace",
            report.hits,
            report.overwrites
        );
    }
    written?;
    told?;
    Ok(())
}
