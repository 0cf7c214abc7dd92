//! What blocks while lanes are made: each job runs on a worker's thread.

use std::sync::Arc;

use kvrail_core::id::{MAX_RAILS, RailIndex};
use kvrail_session::{
    LaneBlob, LaneDialer, LaneEndError, NothingInCommon, RailDescription, RailList, RailPair,
};

/// A dialer whose ends of lanes may move from thread to thread.
pub(crate) trait SessionDialer:
    LaneDialer<UnopenedLane: Send, Pending: Send> + Send + Sized + 'static
{
}

impl<D: LaneDialer<UnopenedLane: Send, Pending: Send> + Send + 'static> SessionDialer for D {}

/// Makes a dialer, on any thread.
pub(crate) type DialerMaker<D> = Arc<dyn Fn() -> D + Send + Sync>;

/// The workers' key of jobs that concern all rails of a reader.
const ALL_RAILS: u32 = MAX_RAILS as u32;
/// The workers' key of jobs that resolve names.
pub(super) const RESOLVING: u32 = ALL_RAILS + 1;
/// How many keys there are beside one for each rail.
pub(super) const OTHER_KEYS: usize = 2;

/// A job that may block.
pub(super) enum Job<D: LaneDialer> {
    /// Find out which rails go together.
    Pair { producer: Box<RailList> },
    /// Find another rail of the producer for `rail`, where no lane to those in `tried` was made.
    Instead { rail: RailIndex, tried: Vec<RailIndex>, producer: Box<RailList> },
    /// Make this end of a lane.
    Prepare { rail: RailIndex, remote: Box<RailDescription> },
    /// Connect this end of a lane to the producer's end.
    Connect { rail: RailIndex, end: Box<PreparedEnd<D>>, remote: Box<RailDescription>, blob: LaneBlob },
    /// Drop one end of a lane that is of no use, which may block as well.
    Discard { rail: RailIndex, _end: Discarded<D> },
}

/// This end of a lane whose other end is not known yet, and the dialer that made it.
pub(super) struct PreparedEnd<D: LaneDialer> {
    dialer: D,
    pending: D::Pending,
}

/// One end of a lane that is of no use.
pub(super) enum Discarded<D: LaneDialer> {
    Prepared { _end: Box<PreparedEnd<D>> },
    Connected { _lane: D::UnopenedLane },
}

/// How a job has ended.
pub(super) enum JobResult<D: LaneDialer> {
    Paired(Result<Vec<RailPair>, NothingInCommon>),
    Instead(RailIndex, Option<RailIndex>),
    Prepared(RailIndex, Result<(Box<PreparedEnd<D>>, LaneBlob), LaneEndError>),
    Connected(RailIndex, Result<D::UnopenedLane, LaneEndError>),
    /// A lane of this rail was not wanted any more when its job's turn came.
    Skipped(RailIndex),
    /// An end was dropped.
    Discarded,
}

impl<D: LaneDialer> Job<D> {
    /// The workers' key: what the job may hang on.
    pub(super) const fn key(&self) -> u32 {
        match self {
            Self::Pair { .. } | Self::Instead { .. } => ALL_RAILS,
            Self::Prepare { rail, .. } | Self::Connect { rail, .. } | Self::Discard { rail, .. } => {
                rail.0 as u32
            }
        }
    }

    /// The rail of the lane that the job is a step of; `None` for another job.
    pub(super) const fn lane(&self) -> Option<RailIndex> {
        match self {
            Self::Prepare { rail, .. } | Self::Connect { rail, .. } => Some(*rail),
            Self::Pair { .. } | Self::Instead { .. } | Self::Discard { .. } => None,
        }
    }

    /// Runs it.
    pub(super) fn run(self, dialers: &DialerMaker<D>) -> JobResult<D> {
        match self {
            Self::Pair { producer } => JobResult::Paired(dialers().pair(&producer)),
            Self::Instead { rail, tried, producer } => {
                JobResult::Instead(rail, dialers().instead(rail, &tried, &producer))
            }
            Self::Prepare { rail, remote } => {
                let mut dialer = dialers();
                let prepared = dialer.prepare(rail, &remote);
                let prepared =
                    prepared.map(|(pending, blob)| (Box::new(PreparedEnd { dialer, pending }), blob));
                JobResult::Prepared(rail, prepared)
            }
            Self::Connect { rail, end, remote, blob } => {
                let PreparedEnd { mut dialer, pending } = *end;
                JobResult::Connected(rail, dialer.connect(pending, &remote, &blob))
            }
            Self::Discard { .. } => JobResult::Discarded,
        }
    }

    /// What is left of the job where its session has ended: to drop an end.
    pub(super) fn into_discard(self) -> Option<Self> {
        match self {
            Self::Connect { rail, end, .. } => {
                Some(Self::Discard { rail, _end: Discarded::Prepared { _end: end } })
            }
            Self::Discard { .. } => Some(self),
            Self::Pair { .. } | Self::Instead { .. } | Self::Prepare { .. } => None,
        }
    }

    /// The result where the job's lane, or its session, is not wanted any more.
    pub(super) fn skip(self) -> JobResult<D> {
        self.lane().map_or(JobResult::Discarded, JobResult::Skipped)
    }
}
