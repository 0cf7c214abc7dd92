//! What rows have in common in every output.

use crate::output::json::{COPY, Row};
use crate::output::numbers::{grouped, time};

/// The headings of a row's cells.
pub(crate) const HEADS: [&str; 9] =
    ["page bytes", "scenario", "op", "rails x proc", "GB/s", "quartiles", "of limit", "p50", "p99"];

/// The cells of a row.
pub(crate) fn cells(row: &Row) -> [String; 9] {
    let limit = row.ratio.bare.or(row.ratio.memcpy);
    let spread = &row.rounds_gb_per_s;
    [
        grouped(row.page_bytes.into()),
        if row.peak { format!("{} (peak)", row.scenario) } else { row.scenario.clone() },
        row.op.to_string(),
        if row.op == COPY {
            format!("{} thread{}", row.rails, if row.rails == 1 { "" } else { "s" })
        } else {
            format!("{} x {}", row.rails, row.processes)
        },
        format!("{:.2}", row.usual()),
        if spread.rounds > 1 { format!("{:.2} to {:.2}", spread.q1, spread.q3) } else { "-".into() },
        limit.map_or("-".into(), |ratio| format!("{:.0} %", 100.0 * ratio)),
        time(row.latency_us.p50),
        time(row.latency_us.p99),
    ]
}

/// The rows of each layout, in order.
pub(crate) fn by_layout(rows: &[Row]) -> impl Iterator<Item = &[Row]> {
    rows.chunk_by(|a, b| a.layout == b.layout)
}

/// The layout's name with the size of its pages.
pub(crate) fn title(row: &Row) -> String {
    format!("{}, {} bytes", row.label(), grouped(row.page_bytes.into()))
}
