//! The demo's text, in 80 columns: how much was read and whether the targets are met; then the rows
//! of each layout; and at last what the columns mean.

use std::fmt::Write;

use bytesize::ByteSize;

use crate::measure::ladder::{LIBC, MEMCPY};
use crate::measure::lap::STEADY;
use crate::measure::rung::MANY;
use crate::output::grid::{grid, wrapped};
use crate::output::json::{COPY, Report, Row};
use crate::output::numbers::{grouped, time};

/// The share of memcpy that many rails should give: for pages of 1 MiB and more, and for smaller
/// ones.
const TARGETS: (f64, f64) = (0.90, 0.80);

/// The columns of a terminal.
pub(crate) const WIDTH: usize = 80;

/// The whole text.
pub(crate) fn text(document: &Report, many: u8) -> String {
    let (host, meta) = (&document.host, &document.meta);
    let mut text = format!(
        "kvrail pulls KV-cache pages out of another process's memory, one-sidedly ({}):\n\n",
        meta.transport
    );
    for row in document.results.iter().filter(|row| row.scenario == MANY) {
        text += &paragraph("  ", &verdict(row, host.throttled_times > 0));
    }
    text += &paragraph("  ", &compared(&document.results));
    for row in document.results.iter().filter(|row| row.scenario == MEMCPY) {
        text += &restless(row).map_or(String::new(), |line| paragraph("  ", &line));
    }
    text += &paragraph("", &host.throttled());
    if document.partial {
        text += "  PARTIAL: the run was stopped before its end; rows are missing or short.\n";
    }
    text += "\nOne host is not a fabric: this shows what the engine leaves of the machine's own\n\
             copying speed, and says nothing about a NIC.\n";
    text += &paragraph("", &format!("{}, {}, Linux {}.", host.cpu, host.share(), host.kernel));
    let sets = meta.layout.iter().zip(&meta.working_set).zip(meta.page_bytes.iter().zip(&meta.batch));
    for ((name, bytes), (page, batch)) in sets {
        let rows = document.results.iter().filter(|row| row.layout == *name);
        // Writing to a string does not fail.
        let _ = write!(
            text,
            "\n{name}:\n  pages of {} bytes, {} of them in turn, batches of {batch}\n{}",
            grouped((*page).into()),
            ByteSize::b(*bytes).display().iec(),
            table(rows)
        );
    }
    text.push('\n');
    text += &paragraph(
        "",
        &format!(
            "GB/s and shares of memcpy are medians of the rounds, in which all rows took turns; +- is the distance of their quartiles. \
             memcpy, the limit: {many} threads copy the same pages by the rails' own copy routine, in the pieces that a rail gets: \
             from 256 KiB on with stores around the cache, below by the C library's memcpy. {LIBC}: by the C library's alone, where \
             that differs. {} batches are in flight. p50, p99: from submit to the end of a batch. Every page is checked against the \
             producer's publication table when it has been read.",
            meta.concurrency
        ),
    );
    text
}

/// Words in lines that fit the terminal, each after `indent`.
fn paragraph(indent: &str, words: &str) -> String {
    let words = words.trim_end();
    if words.is_empty() {
        return String::new();
    }
    if indent.len() + words.chars().count() <= WIDTH {
        return format!("{indent}{words}\n");
    }
    let lines = wrapped(words, WIDTH - indent.len() - 2);
    // What follows the first line of several stands below its words.
    let rest = if indent.is_empty() { "" } else { "  " };
    let lines = lines.iter().enumerate();
    lines.map(|(at, line)| format!("{indent}{}{line}\n", if at > 0 { rest } else { "" })).collect()
}

/// How many pages were compared after the timed part.
fn compared(rows: &[Row]) -> String {
    let sum = |of: fn(&Row) -> u64| rows.iter().map(of).sum::<u64>();
    let (compared, wrong) = (sum(|row| row.pages_verified), sum(|row| row.pages_wrong));
    match (compared, wrong) {
        (0, 0) => "No page was compared byte for byte (--verify off).".into(),
        (_, 0) => format!("Every byte of {} pages was compared: 0 wrong.", grouped(compared)),
        _ => format!(
            "{} of {} pages that were compared byte for byte are WRONG.",
            grouped(wrong),
            grouped(compared)
        ),
    }
}

/// What a plain copy that was not steady means; `None` where it was.
fn restless(memcpy: &Row) -> Option<String> {
    let rounds = &memcpy.rounds_gb_per_s;
    (rounds.rounds > 1 && rounds.relative() > STEADY).then(|| {
        format!(
            "A plain copy of these {}-byte pages varied by {:.0} % over its {} rounds: something else uses the machine, so read the shares with care.",
            grouped(memcpy.page_bytes.into()),
            100.0 * rounds.relative(),
            rounds.rounds
        )
    })
}

/// The rows of a layout.
fn table<'a>(rows: impl Iterator<Item = &'a Row>) -> String {
    const HEADS: [&str; 8] = ["scenario", "rails", "GB/s", "+-", "pages/s", "p50", "p99", "of memcpy"];
    grid(&HEADS, &rows.map(cells).collect::<Vec<_>>())
}

#[expect(clippy::cast_sign_loss, reason = "a rate is not negative")]
fn cells(row: &Row) -> Vec<String> {
    vec![
        row.scenario.clone(),
        match (row.op == COPY, row.processes) {
            (true, _) => format!("{} thread{}", row.rails, if row.rails == 1 { "" } else { "s" }),
            (false, 1) => row.rails.to_string(),
            (false, processes) => format!("{} x {processes}", row.rails),
        },
        format!("{:.2}", row.usual()),
        format!("{:.0} %", 100.0 * row.rounds_gb_per_s.relative()),
        grouped(row.usual_pages().round() as u64),
        time(row.latency_us.p50),
        time(row.latency_us.p99),
        row.ratio.memcpy.map_or("-".into(), |ratio| format!("{:.0} %", 100.0 * ratio)),
    ]
}

/// A ratio above this is more than noise. Then other programs have taken the cores, and a plain
/// copy lost more by that than a reader, which has one thread more.
pub(crate) const BEYOND: f64 = 1.05;

/// The judgement in words. `throttled`: a CPU quota has stopped the run, so other programs need not
/// be the cause.
fn judged(ratio: f64, target: f64, throttled: bool) -> &'static str {
    match (ratio > BEYOND, ratio >= target, throttled) {
        (true, _, false) => {
            "more than there can be: the machine is busy with something else, so this proves nothing"
        }
        (true, _, true) => "more than there can be: a CPU quota stopped the run, so this proves nothing",
        (false, true, _) => "met",
        (false, false, false) => "MISSED (is the machine busy with something else?)",
        (false, false, true) => "MISSED (a CPU quota stopped the run)",
    }
}

/// What a row with many rails gives, and whether that meets its target.
fn verdict(row: &Row, throttled: bool) -> String {
    let target = if row.page_bytes >= 1 << 20 { TARGETS.0 } else { TARGETS.1 };
    let ratio = row.ratio.memcpy.unwrap_or(0.0);
    let met = judged(ratio, target, throttled);
    // Rounded to two places, a share that misses its target by less than that would look like it.
    let places = if ratio < target && (100.0 * ratio).round() >= (100.0 * target).round() { 4 } else { 2 };
    format!(
        "{}-byte pages, {} rails: {:.2} GB/s, {ratio:.places$} of memcpy. Target {target:.2}: {met}.",
        grouped(row.page_bytes.into()),
        row.rails,
        row.usual()
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::json::Ratio;
    use serde_json::json;

    #[test]
    fn an_impossible_ratio_is_not_called_met() {
        let judged = |ratio| super::judged(ratio, 0.9, false);
        assert_eq!((judged(0.9), judged(BEYOND)), ("met", "met"));
        assert!(judged(0.89).starts_with("MISSED"));
        assert!(judged(1.14).contains("proves nothing"));
    }

    /// A row whose rounds have this median.
    fn row(median: f64) -> Row {
        let latency = json!({"p50": 1.0, "p90": 1.0, "p99": 1.0, "p999": 1.0, "max": 1.0});
        let rounds = json!({"rounds": 3, "min": 0.0, "q1": 0.0, "median": median, "q3": 9.0, "max": 9.0});
        let row = json!({
            "scenario": "1-rail", "layout": "opaque-1m", "page_bytes": 1 << 20, "op": "checked",
            "rails": 1, "processes": 1, "concurrency": 6, "gb_per_s": 1.5, "pages_per_s": 0.0,
            "tokens_per_s": null, "rounds_gb_per_s": rounds, "latency_us": latency,
            "hit_ratio": null, "pages_verified": 0, "pages_wrong": 0, "errors": {},
            "ratio": {"memcpy": 0.5},
        });
        serde_json::from_value::<Row>(row).unwrap()
    }

    #[test]
    fn a_row_of_which_most_rounds_saw_no_end_of_a_batch_has_its_mean() {
        assert_eq!((&*cells(&row(0.0))[2], &*cells(&row(2.5))[2]), ("1.50", "2.50"));
        assert!(verdict(&row(0.0), false).contains(": 1.50 GB/s, "), "{}", verdict(&row(0.0), false));
    }

    #[test]
    fn a_verdict_is_one_line_also_of_a_fast_machine() {
        let fast = Row { ratio: Ratio { memcpy: Some(1.0), bare: None }, ..row(222.28) };
        let line = paragraph("  ", &verdict(&Row { page_bytes: 4_497_408, ..fast }, false));
        assert!(line.ends_with("met.\n") && line.lines().count() == 1 && line.len() <= WIDTH + 1, "{line}");
    }

    #[test]
    fn a_share_that_is_missed_does_not_read_like_its_target() {
        let verdict = |share| {
            let row = Row { ratio: Ratio { memcpy: Some(share), bare: None }, ..row(2.5) };
            super::verdict(&row, false)
        };
        assert!(verdict(0.8961).contains("0.8961 of memcpy. Target 0.90: MISSED"), "{}", verdict(0.8961));
        assert!(verdict(0.8949).contains(" 0.89 of memcpy. Target 0.90: MISSED"), "{}", verdict(0.8949));
        assert!(verdict(0.9).contains(" 0.90 of memcpy. Target 0.90: met"), "{}", verdict(0.9));
    }

    #[test]
    fn the_docs_name_the_targets() {
        let docs = include_str!("../../../docs/measuring.md");
        let (large, small) = TARGETS;
        let told = format!("{large:.2} of `memcpy` for pages of 1 MiB and more, {small:.2} for smaller ones");
        assert!(docs.contains(&told), "docs/measuring.md does not say: {told}");
    }

    #[test]
    fn a_quota_is_not_called_a_busy_machine() {
        for ratio in [0.5, 1.5] {
            let [free, held_up] = [false, true].map(|throttled| judged(ratio, 0.9, throttled));
            assert!(free.contains("busy") && !free.contains("quota"), "{free}");
            assert!(held_up.contains("CPU quota") && !held_up.contains("busy"), "{held_up}");
        }
    }
}
