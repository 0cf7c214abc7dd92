//! The report for people: a table that needs no other reading.

use std::fmt::Write;

use crate::output::json::{COPY, Row};
use crate::output::numbers::{grouped, time};

/// The headings, and whether a column holds numbers.
const COLUMNS: [(&str, bool); 9] = [
    ("scenario", false),
    ("layout", false),
    ("rails x proc", true),
    ("GB/s", true),
    ("pages/s", true),
    ("p50", true),
    ("p99", true),
    ("of memcpy", true),
    ("verified pages", true),
];

/// The table of these rows, with a rule between layouts.
pub(crate) fn of(rows: &[Row]) -> String {
    let cells: Vec<[String; 9]> = rows.iter().map(cells).collect();
    let mut widths = COLUMNS.map(|(name, _)| name.len());
    for row in &cells {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    line(&mut text, &widths, &COLUMNS.map(|(name, _)| name.to_owned()));
    let rule = "-".repeat(widths.iter().sum::<usize>() + 2 * (widths.len() - 1));
    for (at, row) in cells.iter().enumerate() {
        if at == 0 || rows[at].layout != rows[at - 1].layout {
            text.push_str(&rule);
            text.push('\n');
        }
        line(&mut text, &widths, row);
    }
    text
}

fn line(text: &mut String, widths: &[usize; 9], cells: &[String; 9]) {
    let mut one = String::new();
    for ((width, cell), (_, number)) in widths.iter().zip(cells).zip(COLUMNS) {
        let width = *width;
        // Writing to a string does not fail.
        let _ = if number { write!(one, "{cell:>width$}  ") } else { write!(one, "{cell:<width$}  ") };
    }
    text.push_str(one.trim_end());
    text.push('\n');
}

#[expect(clippy::cast_sign_loss, reason = "a rate is not negative")]
fn cells(row: &Row) -> [String; 9] {
    let verified = match (&*row.op, row.pages_verified, row.pages_wrong) {
        (COPY, ..) => "-".into(),
        (_, 0, 0) => "none".into(),
        (_, good, 0) => format!("{}, 0 wrong", grouped(good)),
        (_, all, wrong) => format!("{}, {} WRONG", grouped(all), grouped(wrong)),
    };
    [
        if row.peak { format!("{} (peak)", row.scenario) } else { row.scenario.clone() },
        row.label(),
        format!("{} x {}", row.rails, row.processes),
        format!("{:.2}", row.usual()),
        grouped(row.usual_pages().round() as u64),
        time(row.latency_us.p50),
        time(row.latency_us.p99),
        row.ratio.memcpy.map_or("-".into(), |ratio| format!("{:.0} %", 100.0 * ratio)),
        verified,
    ]
}

/// The spread of the rounds of each row, and what became of an offered load, as lines.
pub(crate) fn spreads(rows: &[Row]) -> String {
    let mut text = String::from("\n");
    for row in rows {
        let rounds = &row.rounds_gb_per_s;
        // Writing to a string does not fail.
        let _ = match rounds.rounds {
            0 | 1 => writeln!(text, "{}, {}: one round, so no spread", row.scenario, row.layout),
            count => writeln!(
                text,
                "{}, {}: {count} rounds, median {:.2} GB/s, quartiles {:.2} and {:.2}, from {:.2} to {:.2}",
                row.scenario, row.layout, rounds.median, rounds.q1, rounds.q3, rounds.min, rounds.max
            ),
        };
        if let Some(offered) = row.offered_batches_per_s {
            let reached = row.pages_per_s / row.batch as f64 / f64::from(row.processes);
            let _ = writeln!(
                text,
                "  offered: {offered} batches/s of each process; done: {reached:.1}; latencies are from the intended start"
            );
        }
    }
    text
}

/// How many of the pages that were asked for by key came, and why others did not, as lines.
pub(crate) fn hits(rows: &[Row]) -> String {
    let mut text = String::new();
    for row in rows.iter().filter(|row| row.by_key()) {
        let ratio = row.hit_ratio.unwrap_or(0.0);
        let reasons = row.errors.iter().map(|(reason, pages)| format!("; {reason} {}", grouped(*pages)));
        // Writing to a string does not fail.
        let _ = writeln!(text, "\n{}: hits {:.2} %{}", row.op, 100.0 * ratio, reasons.collect::<String>());
    }
    text
}
