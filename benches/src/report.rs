//! The report for people: a table that can be read without having read anything else.

use std::fmt::Write;

use crate::json::Row;

/// Headings, and whether a column is of numbers.
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

/// The ladder; a rule between layouts.
pub(crate) fn table(rows: &[Row]) -> String {
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
    let verified = match (row.op, row.pages_verified, row.pages_wrong) {
        ("copy", ..) => "-".into(),
        (_, 0, 0) => "none".into(),
        (_, good, 0) => format!("{}, 0 wrong", grouped(good)),
        (_, all, wrong) => format!("{}, {} WRONG", grouped(all), grouped(wrong)),
    };
    [
        row.scenario.clone(),
        row.layout.to_owned(),
        format!("{} x {}", row.rails, row.processes),
        format!("{:.2}", row.gb_per_s),
        grouped(row.pages_per_s.round() as u64),
        time(row.latency_us.p50),
        time(row.latency_us.p99),
        row.ratio.memcpy.map_or("-".into(), |ratio| format!("{:.0} %", 100.0 * ratio)),
        verified,
    ]
}

/// 1234567 as 1,234,567.
pub(crate) fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Microseconds in the unit that fits.
fn time(us: f64) -> String {
    if us < 1e3 {
        format!("{us:.0} us")
    } else if us < 1e6 {
        format!("{:.2} ms", us / 1e3)
    } else {
        format!("{:.2} s", us / 1e6)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_as_people_read_them() {
        assert_eq!([0, 999, 1000, 1234567].map(grouped), ["0", "999", "1,000", "1,234,567"]);
        assert_eq!([0.4, 999.0, 1500.0, 2e6].map(time), ["0 us", "999 us", "1.50 ms", "2.00 s"]);
    }
}
