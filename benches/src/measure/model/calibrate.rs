//! The model of a ladder over shm: what one row measured is put in, beside the plain copies of each
//! size of pages by each number of threads, and the other rows come out. No row that is predicted
//! has a part in its prediction.

use anyhow::Context as _;

use super::machine::{Machine, RAILS, Work};
use crate::cli::common::Op;
use crate::measure::ladder::LIBC;
use crate::output::json::{COPY, Row};

/// Steps towards the share with which the model gives what was measured.
const STEPS: usize = 4;
/// Batches of a run.
const BATCHES: usize = 200;
/// What a thread of a copying rail takes to begin, in nanoseconds.
const RTT_NS: u64 = 1000;

/// A row of the ladder, as measured and as the model gives it.
#[derive(Clone, Debug)]
pub(crate) struct Predicted {
    pub(crate) row: Row,
    pub(crate) gb_per_s: f64,
}

impl Predicted {
    /// The model's value over the measured one, less 1.
    pub(crate) fn error(&self) -> f64 {
        self.gb_per_s / measured(&self.row) - 1.0
    }
}

/// What a row measured: the median of its rounds, of which a few may have been disturbed.
pub(crate) fn measured(row: &Row) -> f64 {
    if row.rounds_gb_per_s.rounds > 0 { row.rounds_gb_per_s.median } else { row.gb_per_s }
}

/// Whether a row gets its pages by key. The model has none of what callers and a node cost.
pub(crate) fn by_key(row: &Row) -> bool {
    row.op == Op::Get.label()
}

/// Whether the model has such rows.
fn modelled(row: &Row) -> bool {
    (by_key(row) || [Op::Read.label(), Op::Checked.label()].contains(&&*row.op)) && measured(row) > 0.0
}

/// Checks that a row has numbers that a ladder can have. The model has memory for the pages of all
/// batches, and rails with that rate.
fn plausible(row: &Row) -> anyhow::Result<()> {
    let bytes = u64::from(row.page_bytes) * row.batch.max(1) as u64 * u64::from(row.concurrency.max(1));
    for (what, value, least, most) in [
        ("GB/s", measured(row), 1e-6, 1e5),
        ("pages of a batch", row.batch as f64, 0.0, 256.0),
        ("bytes of a page", row.page_bytes.into(), 64.0, 1e9),
        ("bytes in flight", bytes as f64, 64.0, 64e9),
        ("rails", row.rails.into(), 1.0, 16.0),
        ("processes", row.processes.into(), 1.0, 128.0),
    ] {
        anyhow::ensure!(
            (least..=most).contains(&value),
            "{what}: {value} is not between {least} and {most}; give the file that `ladder --json` wrote"
        );
    }
    let chunk = row.chunk_bytes;
    anyhow::ensure!(
        chunk == 0 || chunk.is_power_of_two() && chunk >= 4096,
        "bytes of a chunk: {chunk} is no power of two from 4096 on; give the file that `ladder --json` wrote"
    );
    Ok(())
}

/// The row that is put in: one process over the most rails, of the largest pages.
pub(crate) fn chosen(rows: &[Row]) -> Option<&Row> {
    let one = rows.iter().filter(|row| modelled(row) && !by_key(row) && row.processes == 1);
    one.max_by_key(|row| (row.page_bytes, row.rails, row.op == Op::Read.label()))
}

/// The threads of a row that copy at the same time, and whether there are more of them than cores,
/// so that no core is idle while one of them waits.
///
/// One thread of each rail copies. So does a process's own while it waits, where there are more
/// cores than the process has rails, as the rails of shm do it. A process that gets pages by key
/// sleeps elsewhere.
fn copying(row: &Row, cores: usize) -> (usize, bool) {
    let rails = usize::from(row.rails);
    let helps = cores > rails && !by_key(row);
    let threads = usize::from(row.processes) * (rails + usize::from(helps));
    (threads.min(cores).clamp(1, RAILS), helps && threads > cores)
}

/// GB/s of a plain copy of the same pages by so many threads together, from the ladder's own rows:
/// that of as many threads, or what lies on the line between the two neighbours of that number, or
/// that of the most. Where the ladder has none, each thread copies 1 GB/s.
fn plain_copy(rows: &[Row], of: &Row, threads: usize) -> f64 {
    let copies = rows.iter().filter(|row| row.op == COPY && row.scenario != LIBC && row.layout == of.layout);
    // A busy machine may have let none end in most rounds.
    let copies = copies.filter(|row| measured(row) > 0.0);
    let mut copies: Vec<_> = copies.map(|row| (f64::from(row.rails), measured(row))).collect();
    copies.sort_by(|a, b| a.0.total_cmp(&b.0));
    let threads = threads as f64;
    let above = copies.partition_point(|copy| copy.0 < threads);
    let gb_per_s = match (above.checked_sub(1).map(|below| copies[below]), copies.get(above)) {
        (_, Some(&(n, gb))) if n <= threads => gb,
        (Some((few, less)), Some(&(many, more))) => less + (more - less) * (threads - few) / (many - few),
        (None, Some(&(n, gb))) => gb * threads / n,
        (Some((_, gb)), None) => gb,
        (None, None) => threads,
    };
    gb_per_s.max(f64::MIN_POSITIVE)
}

/// What the model gives for a row, where a copying thread has this share of what a thread of a
/// plain copy has.
fn gb_per_s(
    rows: &[Row],
    row: &Row,
    share: f64,
    cores: usize,
    wr_ns: f64,
    validation: f64,
) -> anyhow::Result<f64> {
    let (threads, never_idle) = copying(row, cores);
    let share = if never_idle { 1.0 } else { share };
    let rate = share * plain_copy(rows, row, threads) / threads as f64;
    let machine = Machine {
        rails: vec![rate; threads],
        remote: None,
        wr_ns,
        page_ns: if row.op == Op::Read.label() { 0.0 } else { validation },
        rtt_ns: RTT_NS,
        chunk_bytes: row.chunk_bytes.max(4096),
    };
    let work = Work {
        page_bytes: row.page_bytes.into(),
        batch: row.batch.max(1),
        concurrency: Some(usize::from(row.concurrency)),
        dead: None,
    };
    Ok(machine.read(work, BATCHES)?.gb_per_s)
}

/// The share of a plain copy that a copying thread has where a core may be idle, so that the model
/// gives what the row `from` measured; and all rows as the model gives them with that share.
///
/// # Errors
///
/// A row does not fit the model.
pub(crate) fn predict(
    rows: &[Row],
    from: &Row,
    cores: usize,
    wr_ns: f64,
    validation: f64,
) -> anyhow::Result<(f64, Vec<Predicted>)> {
    for row in rows.iter().filter(|row| modelled(row) || row.op == COPY && measured(row) > 0.0) {
        plausible(row).with_context(|| format!("the row \"{} {}\"", row.scenario, row.op))?;
    }
    let model = |row: &Row, share| gb_per_s(rows, row, share, cores, wr_ns, validation);
    let mut share = 1.0;
    for _ in 0..STEPS {
        share *= measured(from) / model(from, share)?;
    }
    let mut all = Vec::new();
    for row in rows.iter().filter(|row| modelled(row)) {
        all.push(Predicted { row: row.clone(), gb_per_s: model(row, share)? });
    }
    Ok((share, all))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::model::with_room;
    use serde_json::json;

    fn row(scenario: &str, op: &str, rails: u8, processes: u8, page_bytes: u32, gb_per_s: f64) -> Row {
        let latency = json!({"p50": 0.0, "p90": 0.0, "p99": 0.0, "p999": 0.0, "max": 0.0});
        let row = json!({
            "scenario": scenario, "layout": format!("opaque-{page_bytes}"), "page_bytes": page_bytes,
            "op": op, "rails": rails, "processes": processes, "concurrency": 6, "batch": 8,
            "chunk_bytes": 1 << 20, "gb_per_s": gb_per_s, "pages_per_s": 0.0, "tokens_per_s": null,
            "latency_us": latency, "hit_ratio": null, "pages_verified": 0, "pages_wrong": 0, "errors": {},
            "ratio": {"memcpy": null},
        });
        serde_json::from_value(row).unwrap()
    }

    #[test]
    fn a_plain_copy_is_that_of_as_many_threads() {
        let copy = |threads, gb| row("memcpy", "copy", threads, 1, 4096, gb);
        let other = row("memcpy", "copy", 1, 1, 8192, 99.0);
        let libc = row(LIBC, "copy", 1, 1, 4096, 99.0);
        let rows = [copy(4, 22.0), copy(1, 10.0), copy(2, 16.0), copy(3, 0.0), other, libc];
        let of = |threads| plain_copy(&rows, &rows[0], threads);
        assert_eq!([1, 2, 3, 4, 8].map(of), [10.0, 16.0, 19.0, 22.0, 22.0]);
        let without_one = |threads| plain_copy(&rows[..1], &rows[0], threads);
        assert_eq!([2, 4].map(without_one), [11.0, 22.0], "each of fewer threads has the same");
        assert_eq!(plain_copy(&[], &rows[0], 3), 3.0);
    }

    #[test]
    fn a_row_is_predicted_from_a_copy_by_as_many_threads_as_its_cores_have() {
        // Two threads that copy large pages share a memory that one thread nearly fills.
        let large = 4 << 20;
        let rows = [
            row("memcpy", "copy", 2, 1, large, 20.0),
            row("memcpy-1", "copy", 1, 1, large, 18.0),
            row("1 rail", "read", 1, 1, large, 1.0),
            row("1 rail", "get", 1, 1, large, 1.0),
            row("2 rails", "read", 2, 1, large, 19.0),
            row("rail groups", "read", 1, 2, large, 1.0),
        ];
        let from = chosen(&rows).unwrap();
        assert_eq!(from.scenario, "2 rails");
        let (share, all) = with_room(|| predict(&rows, from, 2, 10.0, 5.0)).unwrap();
        assert!((share - 0.95).abs() < 0.02, "{share}");
        let given: Vec<_> = all.iter().map(|predicted| predicted.gb_per_s).collect();
        // The process's own thread copies beside the rail's, unless it gets by key; then one thread
        // has the memory for itself. More threads than cores leave no core idle.
        for (gb, right) in given.iter().zip([19.0, 17.1, 19.0, 20.0]) {
            assert!((gb / right - 1.0).abs() < 0.03, "{given:?}");
        }
    }

    #[test]
    fn what_a_row_measured_itself_has_no_part_in_its_prediction() {
        let of = |gb| {
            let rows = [
                row("memcpy", "copy", 2, 1, 4 << 20, 20.0),
                row("1 rail", "read", 1, 1, 4 << 20, gb),
                row("2 rails", "read", 2, 1, 4 << 20, 19.0),
            ];
            with_room(|| predict(&rows, &rows[2], 2, 10.0, 5.0)).unwrap().1[0].gb_per_s
        };
        assert_eq!(of(1.0), of(100.0));
    }
}
