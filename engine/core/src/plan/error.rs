//! Why a plan is not taken, or not forgotten.

use kvrail_layouts::plan::CutError;

use crate::layout::AddLayoutError;

/// Why an engine does not take a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AddPlanError {
    /// The plan cannot be cut into work requests.
    #[error(transparent)]
    Cut(#[from] CutError),
    /// The plan moves no byte.
    #[error("the plan moves no byte")]
    Empty,
    /// The engine cannot learn the layout that the plan reads or writes.
    #[error(transparent)]
    Layout(#[from] AddLayoutError),
    /// The plan goes between too many pairs of regions that are not alike.
    #[error(
        "the plan goes between regions in more than {limit} rows of pairs that are alike: divide it by layers"
    )]
    Rows {
        /// The most rows of one plan.
        limit: usize,
    },
    /// The engine's table of plans is full.
    #[error(
        "the engine knows {plans} plans with {rows} rows of regions and {lists} lists of runs already, and has no place for this one, in its storage or within max_plans: add fewer plans, or forget some"
    )]
    Full {
        /// How many plans are known.
        plans: usize,
        /// How many rows of regions they take.
        rows: usize,
        /// How many lists of runs they take.
        lists: usize,
    },
}

impl AddPlanError {
    /// The number of this error in docs/errors.md, for logs, metrics and callers in other
    /// languages.
    #[must_use]
    pub const fn code(&self) -> u32 {
        match self {
            Self::Cut(error) => error.code(),
            Self::Empty => 2170,
            Self::Layout(error) => error.code(),
            Self::Full { .. } => 2171,
            Self::Rows { .. } => 2174,
        }
    }
}

/// Why a plan is not forgotten.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ForgetPlanError {
    /// The plan was forgotten already, or is another engine's.
    #[error("the engine knows no such plan: it was forgotten already, or is another engine's")]
    Unknown,
    /// A page in flight follows it.
    #[error("a page in flight follows the plan: forget it when the page's batch is done")]
    InFlight,
}

impl ForgetPlanError {
    /// The number of this error in docs/errors.md, for logs, metrics and callers in other
    /// languages.
    #[must_use]
    pub const fn code(&self) -> u32 {
        match self {
            Self::Unknown => 2172,
            Self::InFlight => 2173,
        }
    }
}
