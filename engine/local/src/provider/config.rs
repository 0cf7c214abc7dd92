//! How many rails there are and how large their queues are, checked once.

use std::io;

use kvrail_core::id::MAX_RAILS;

/// The largest completion queue of a rail, in entries.
pub const MAX_CQ_ENTRIES: u32 = 1 << 20;

/// How many rails there are, and how large their queues are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LocalConfig {
    /// Rails, 1 to 16, each with a worker thread. More rails than the machine has cores to copy
    /// with gain nothing.
    pub rails: usize,
    /// READs that may be outstanding on one lane, at least 1. A lane has one more entry, for a
    /// drain.
    pub sq_entries: u32,
    /// Completion queue entries of one rail, at most [`MAX_CQ_ENTRIES`]. A rail has room for
    /// `cq_entries / (sq_entries + 1)` lanes, at most 65,535.
    pub cq_entries: u32,
    /// The speed of a rail, in bytes per second, that the scheduler assumes until it has measured
    /// the rail. The default is what one core of the two-core machine of docs/performance.md copies
    /// while the other core copies, too. All rails of this provider are equally fast, so the value
    /// matters only beside rails of another kind.
    pub nominal_bytes_per_sec: u64,
    /// Bytes of READs of up to 8 KiB that a commit may copy itself while the rail's worker sleeps,
    /// counted for each rail from one poll to the next; 0: none. To copy a small page costs less
    /// than to wake another thread. It applies to shared memory that is mapped, where a READ is a
    /// plain copy.
    pub own_bytes: u32,
    /// Whether the engine's thread copies beside the rails' threads while it waits, if the machine
    /// has a core for it beside theirs. It applies where `own_bytes` does.
    pub copy_while_waiting: bool,
}

impl Default for LocalConfig {
    fn default() -> Self {
        Self {
            rails: 2,
            sq_entries: 128,
            cq_entries: 8_192,
            nominal_bytes_per_sec: 7_000_000_000,
            own_bytes: 64 << 10,
            copy_while_waiting: true,
        }
    }
}

/// The sizes that follow from a [`LocalConfig`], for one rail.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Places for lanes.
    pub(crate) lanes: usize,
    /// Items for which each of the three rings has room.
    pub(crate) command_ring: usize,
    pub(crate) completion_ring: usize,
    pub(crate) notice_ring: usize,
}

impl LocalConfig {
    /// Checks the configuration, and works out the sizes that follow from it.
    pub(crate) fn check(&self) -> Result<Limits, LocalStartError> {
        let Self { rails, sq_entries, cq_entries, .. } = *self;
        if rails == 0 || rails > MAX_RAILS {
            return Err(LocalStartError::Rails { rails });
        }
        if sq_entries == 0 || sq_entries >= cq_entries || cq_entries > MAX_CQ_ENTRIES {
            return Err(LocalStartError::Queues { sq_entries, cq_entries });
        }
        let entries = cq_entries as usize;
        let lanes = (entries / (sq_entries as usize + 1)).min(usize::from(u16::MAX));
        Ok(Limits {
            lanes,
            // Every outstanding wr, and three commands of each lane: open, fail, close.
            command_ring: entries + 3 * lanes,
            completion_ring: entries,
            // Three notices of each lane: failed by itself, failed on demand, closed.
            notice_ring: 3 * lanes,
        })
    }
}

/// Why rails could not be started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LocalStartError {
    /// Too few or too many rails.
    #[error("{rails} rails were requested: request 1 to {MAX_RAILS}")]
    Rails {
        /// The requested number.
        rails: usize,
    },
    /// The queues have no room for a lane, or are too large.
    #[error(
        "a send queue of {sq_entries} and a completion queue of {cq_entries} entries do not go together: \
         take 1 or more for the first, more than that and at most {MAX_CQ_ENTRIES} for the second"
    )]
    Queues {
        /// Requested entries of a lane's send queue.
        sq_entries: u32,
        /// Requested entries of a rail's completion queue.
        cq_entries: u32,
    },
    /// The system gave no worker thread.
    #[error("the worker thread of rail {rail} could not be started; raise the limit on threads (ulimit -u)")]
    Thread {
        /// The rail.
        rail: usize,
        /// The system's reason.
        source: io::Error,
    },
    /// The system gave no descriptor for the engine to sleep on.
    #[error("no descriptor (eventfd) to sleep on; raise the limit on open files (ulimit -n)")]
    Descriptor {
        /// The system's reason.
        source: io::Error,
    },
}

impl LocalStartError {
    /// A number that never changes its meaning (docs/errors.md).
    #[must_use]
    pub const fn code(&self) -> u32 {
        match self {
            Self::Rails { .. } => 3110,
            Self::Queues { .. } => 3111,
            Self::Thread { .. } => 3112,
            Self::Descriptor { .. } => 3113,
        }
    }
}

/// Why a lane could not be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LocalOpenError {
    /// The rail does not exist.
    #[error("rail {rail} does not exist: there are {rails}, counted from 0")]
    NoSuchRail {
        /// The requested rail.
        rail: u8,
        /// The number of rails.
        rails: usize,
    },
    /// The rail's completion queue has no room for another lane.
    #[error(
        "rail {rail} has {lanes} lanes of {sq_entries} READs each, and its completion queue of {cq_entries} entries \
         has room for no more: close lanes, or start with a larger cq_entries"
    )]
    RailFull {
        /// The requested rail.
        rail: u8,
        /// The number of lanes for which it has room.
        lanes: usize,
        /// Send queue entries of a lane.
        sq_entries: u32,
        /// Completion queue entries of the rail.
        cq_entries: u32,
    },
}

impl LocalOpenError {
    /// A number that never changes its meaning (docs/errors.md).
    #[must_use]
    pub const fn code(&self) -> u32 {
        match self {
            Self::NoSuchRail { .. } => 3120,
            Self::RailFull { .. } => 3121,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn impossible_sizes_are_refused() {
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
            assert!(matches!(bad.check(), Err(LocalStartError::Rails { .. })));
        }
        for bad in [with(1, 0, 2), with(1, 2, 2), with(1, u32::MAX, u32::MAX), with(1, 1, MAX_CQ_ENTRIES + 1)]
        {
            assert!(matches!(bad.check(), Err(LocalStartError::Queues { .. })));
        }
    }
}
