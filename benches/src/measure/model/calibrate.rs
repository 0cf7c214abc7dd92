//! The model of a ladder over shm: what one row measured is put in, and the other rows come out.

use super::machine::{Machine, RAILS, Work};
use crate::cli::common::Op;
use crate::output::json::Row;

/// Steps towards the rate with which the model gives what was measured.
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
        self.gb_per_s / self.row.gb_per_s - 1.0
    }
}

/// Whether the model has such rows: those that read by location.
fn modelled(row: &Row) -> bool {
    [Op::Read.label(), Op::Checked.label()].contains(&&*row.op) && row.gb_per_s > 0.0
}

/// The row that is put in: one rail, of the largest pages.
pub(crate) fn chosen(rows: &[Row]) -> Option<&Row> {
    let one = rows.iter().filter(|row| modelled(row) && row.rails == 1 && row.processes == 1);
    one.max_by_key(|row| (row.page_bytes, row.op == Op::Read.label()))
}

/// The threads that copy at the same time: one for each rail, and each process's own, which copies
/// while it waits; no more than there are cores.
fn copying(row: &Row, cores: usize) -> usize {
    (usize::from(row.processes) * (usize::from(row.rails) + 1)).min(cores).clamp(1, RAILS)
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
        let gb_per_s = gb_per_s(row, rate, cores, wr_ns, validation)?;
        all.push(Predicted { row: row.clone(), gb_per_s });
    }
    Ok((rate, all))
}
