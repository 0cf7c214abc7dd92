//! The model of a ladder over shm: what one row measured is put in, beside the plain copies of each
//! size of pages, and the other rows come out.

use super::machine::{Machine, RAILS, Work};
use crate::cli::common::Op;
use crate::measure::ladder::MEMCPY;
use crate::output::json::Row;

/// Steps towards the rate with which the model gives what was measured.
const STEPS: usize = 4;
/// The longest READ over shm that two threads share: 16 pieces of 32 KiB.
const DIVIDED: u32 = 512 << 10;
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
        self.gb_per_s / self.row.gb_per_s - 1.0
    }
}

/// Whether the model has such rows: those that read by location.
fn modelled(row: &Row) -> bool {
    [Op::Read.label(), Op::Checked.label()].contains(&&*row.op) && row.gb_per_s > 0.0
}

/// The row that is put in: one process over the most rails, of the largest pages.
pub(crate) fn chosen(rows: &[Row]) -> Option<&Row> {
    let one = rows.iter().filter(|row| modelled(row) && row.processes == 1);
    one.max_by_key(|row| (row.page_bytes, row.rails, row.op == Op::Read.label()))
}

/// The threads that copy at the same time, which are no more than cores: one for each rail, and
/// each process's own. That one helps where a core is left for it, with READs that are divided.
fn copying(row: &Row, cores: usize) -> usize {
    let read = row.page_bytes.min(row.chunk_bytes.max(4096));
    let rails = usize::from(row.rails);
    let helps = cores > rails && read <= DIVIDED;
    (usize::from(row.processes) * (rails + usize::from(helps))).min(cores).clamp(1, RAILS)
}

/// The rate of a plain copy of the same pages, which the ladder has measured; 1 where it has not.
fn plain_copy(rows: &[Row], of: &Row) -> f64 {
    let same = rows.iter().find(|row| row.scenario == MEMCPY && row.layout == of.layout);
    same.map_or(1.0, |row| row.gb_per_s).max(f64::MIN_POSITIVE)
}

/// What the model gives for a row, where each copying thread has this rate.
fn gb_per_s(row: &Row, rate: f64, cores: usize, wr_ns: f64, validation: f64) -> anyhow::Result<f64> {
    let machine = Machine {
        rails: vec![rate; copying(row, cores)],
        remote: None,
        wr_ns,
        page_ns: if row.op == Op::Checked.label() { validation } else { 0.0 },
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

/// The rate of a copying thread, and all rows as the model gives them with that rate.
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
    let mut rate = from.gb_per_s / copying(from, cores) as f64;
    for _ in 0..STEPS {
        rate *= from.gb_per_s / gb_per_s(from, rate, cores, wr_ns, validation)?;
    }
    let mut all = Vec::new();
    for row in rows.iter().filter(|row| modelled(row)) {
        // How fast a thread copies depends on the size of what it copies.
        let rate = rate * plain_copy(rows, row) / plain_copy(rows, from);
        let gb_per_s = gb_per_s(row, rate, cores, wr_ns, validation)?;
        all.push(Predicted { row: row.clone(), gb_per_s });
    }
    Ok((rate, all))
}
