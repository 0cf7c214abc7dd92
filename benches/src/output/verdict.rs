//! The demo's text: the table, an explanation of its columns, and whether the targets are met.

use std::fmt::Write;

use bytesize::ByteSize;

use crate::measure::ladder::{LIBC, MANY};
use crate::output::json::{Report, Row};
use crate::output::numbers::grouped;
use crate::output::table;

/// The share of memcpy that many rails should give: for pages of 1 MiB and more, and for smaller
/// ones.
const TARGETS: (f64, f64) = (0.90, 0.80);

/// The table of a run, with an explanation of its columns, and the verdict.
pub(crate) fn text(document: &Report, many: u8) -> String {
    let (host, meta) = (&document.host, &document.meta);
    let mut text = format!(
        "kvrail demo: KV-cache pages pulled out of another process's memory, one-sidedly, over {}.\n\
         {}, {}, Linux {}.\n\
         One host is not a fabric: this shows what the engine leaves of the machine's own copying speed,\n\
         and says nothing about a NIC.\n\n",
        meta.transport,
        host.cpu,
        host.share(),
        host.kernel,
    );
    text.push_str(&table::of(&document.results));
    let sets = meta.layout.iter().zip(&meta.working_set).zip(meta.page_bytes.iter().zip(&meta.batch));
    text.push('\n');
    for ((name, bytes), (page, batch)) in sets {
        // Writing to a string does not fail.
        let _ = writeln!(
            text,
            "{name}: pages of {} bytes, {} of them in turn, batches of {batch}, {} batches in flight.",
            grouped((*page).into()),
            ByteSize::b(*bytes).display().iec(),
            meta.concurrency,
        );
    }
    let _ = writeln!(
        text,
        "memcpy, the limit: {many} threads copy the same pages with the rails' own copy routine, in the pieces that a\n\
         rail gets: from 256 KiB on with stores around the cache, below by the C library's memcpy. {LIBC}: by the\n\
         C library's alone, where that differs.\n\
         p50, p99: from submit to the end of a batch. Every page read is checked against the producer's publication\n\
         table; verified pages are compared byte for byte as well.\n"
    );
    for row in document.results.iter().filter(|row| row.scenario == MANY) {
        text.push_str(&verdict(row, host.throttled_times > 0));
    }
    text.push_str(&host.throttled());
    text
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

/// Whether a row with many rails meets its target, as a line of text.
fn verdict(row: &Row, throttled: bool) -> String {
    let target = if row.page_bytes >= 1 << 20 { TARGETS.0 } else { TARGETS.1 };
    let ratio = row.ratio.memcpy.unwrap_or(0.0);
    let met = judged(ratio, target, throttled);
    format!(
        "{}: {} rails give {ratio:.2} of memcpy; the target is {target:.2}: {met}.\n",
        row.layout, row.rails
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_impossible_ratio_is_not_called_met() {
        let judged = |ratio| super::judged(ratio, 0.9, false);
        assert_eq!((judged(0.9), judged(BEYOND)), ("met", "met"));
        assert!(judged(0.89).starts_with("MISSED"));
        assert!(judged(1.14).contains("proves nothing"));
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
