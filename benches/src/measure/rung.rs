//! The rows that read: how many processes each of them has, and with which rails.

use crate::cli::common::Op;
use crate::cli::rails::Rails;
use crate::measure::processes::Process;

/// The row of pages that are got by their keys.
const GET: &str = "get";
/// The row whose share of `memcpy` is judged.
pub(crate) const MANY: &str = "n-rails";

/// A row that reads: one process, or several that read at the same time.
#[derive(Clone, Debug)]
pub(crate) struct Rung {
    pub(crate) scenario: String,
    pub(crate) op: Op,
    pub(crate) processes: Vec<Process>,
    /// Whether it reads into the memory of the GPU.
    pub(crate) gpu: bool,
}

impl Rung {
    /// A row of `processes` processes. Each has `rails` rails, which are a count and not names.
    pub(crate) fn counted(scenario: &str, op: Op, processes: u8, rails: u8) -> Self {
        let process = Process { rails: Rails::Count(rails), count: rails, cpus: None };
        let processes = vec![process; processes.into()];
        Self { scenario: scenario.into(), op, processes, gpu: false }
    }
}

/// The rows of the demo that read; `many`: rails, or processes, of those with many of them.
pub(crate) fn rungs_of_the_demo(many: u8) -> Vec<Rung> {
    vec![
        Rung::counted("1-rail", Op::Checked, 1, 1),
        Rung::counted(MANY, Op::Checked, 1, many),
        Rung::counted(GET, Op::Get, 1, many),
        Rung::counted("n-processes", Op::Checked, many, 1),
    ]
}
