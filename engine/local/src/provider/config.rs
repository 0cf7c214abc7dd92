//! How large rails are, checked once.

use std::io;

use kvrail_core::id::MAX_RAILS;

/// The most entries of a rail's completion queue.
pub const MAX_CQ_ENTRIES: u32 = 1 << 20;

/// How many rails, and how large their queues are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LocalConfig {
    /// LocalProvider, 1 to 16, each with a worker thread. More than the machine has cores to copy with is
    /// waste.
    pub rails: usize,
    /// READs that may be outstanding on one lane, at least 1. One more entry is there for a drain.
    pub sq_entries: u32,
    /// Completion queue entries of one rail, at most [`MAX_CQ_ENTRIES`]. A rail has room for
    /// `cq_entries / (sq_entries + 1)` lanes, at most 65,535.
    pub cq_entries: u32,
    /// What the scheduler believes of a rail before it has measured. The default is what one core of
    /// the two-core machine that the figures in docs/performance.md come from copies while the other
    /// copies too; all rails are alike, so only the proportion to rails of another kind matters.
    pub nominal_bytes_per_sec: u64,
}

impl Default for LocalConfig {
    fn default() -> Self {
        Self { rails: 2, sq_entries: 128, cq_entries: 8_192, nominal_bytes_per_sec: 7_000_000_000 }
    }
}

/// What follows from a [`LocalConfig`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) lanes: usize,
    pub(crate) command_ring: usize,
    pub(crate) completion_ring: usize,
    pub(crate) notice_ring: usize,
}

impl LocalConfig {
    pub(crate) fn check(&self) -> Result<Limits, LocalStartError> {
        let Self { rails, sq_entries, cq_entries, .. } = *self;
        if rails == 0 || rails > MAX_RAILS {
            return Err(LocalStartError::LocalProvider { rails });
        }
        if sq_entries == 0 || sq_entries >= cq_entries || cq_entries > MAX_CQ_ENTRIES {
            return Err(LocalStartError::Queues { sq_entries, cq_entries });
        }
        let entries = cq_entries as usize;
        let lanes = (entries / (sq_entries as usize + 1)).min(usize::from(u16::MAX));
        Ok(Limits {
            lanes,
            // Every outstanding wr, and of each lane its opening, failing and closing.
            command_ring: entries + 3 * lanes,
            completion_ring: entries,
            // Of each lane: failed by itself, failed on demand, closed.
            notice_ring: 3 * lanes,
        })
    }
}

/// Why rails could not be started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LocalStartError {
    /// Too few or too many.
    #[error("{rails} rails were asked for; there can be 1 to {MAX_RAILS}")]
    LocalProvider {
        /// How many were asked for.
        rails: usize,
    },
    /// Queues that hold no lane, or are too large.
    #[error(
        "a send queue of {sq_entries} and a completion queue of {cq_entries} entries do not go together: \
         take 1 or more for the first, more than that and at most {MAX_CQ_ENTRIES} for the second"
    )]
    Queues {
        /// Asked for, per lane.
        sq_entries: u32,
        /// Asked for, per rail.
        cq_entries: u32,
    },
    /// The system gave no thread.
    #[error("the worker thread of rail {rail} could not be started; raise the limit on threads (ulimit -u)")]
    Thread {
        /// Whose worker.
        rail: usize,
        /// The system's reason.
        source: io::Error,
    },
}

/// Why a lane could not be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LocalOpenError {
    /// There is no such rail.
    #[error("rail {rail} does not exist: there are {rails}")]
    NoSuchRail {
        /// Asked for.
        rail: u8,
        /// How many there are.
        rails: usize,
    },
    /// Its completion queue has no room for another lane.
    #[error(
        "rail {rail} has its {lanes} lanes of {sq_entries} READs each, all that a completion queue of \
         {cq_entries} entries holds; close lanes, or start with a larger cq_entries"
    )]
    RailFull {
        /// Asked for.
        rail: u8,
        /// Lanes there are places for.
        lanes: usize,
        /// Per lane.
        sq_entries: u32,
        /// Per rail.
        cq_entries: u32,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_work_is_refused() {
        let with = |rails, sq_entries, cq_entries| LocalConfig {
            rails,
            sq_entries,
            cq_entries,
            ..LocalConfig::default()
        };
        assert_eq!(LocalConfig::default().check().unwrap().lanes, 63);
        assert_eq!(with(1, 1, 2).check().unwrap().lanes, 1);
        assert_eq!(with(16, 1, MAX_CQ_ENTRIES).check().unwrap().lanes, 65_535);
        for bad in [with(0, 1, 2), with(17, 1, 2)] {
            assert!(matches!(bad.check(), Err(LocalStartError::LocalProvider { .. })));
        }
        for bad in [with(1, 0, 2), with(1, 2, 2), with(1, u32::MAX, u32::MAX), with(1, 1, MAX_CQ_ENTRIES + 1)]
        {
            assert!(matches!(bad.check(), Err(LocalStartError::Queues { .. })));
        }
    }
}
