//! The configuration of a reader, and why it does not start.

use std::time::Duration;

use kvrail_core::config::EngineConfig;
use kvrail_layouts::Fingerprint;
use kvrail_session::{Name, NodeName};

use super::state::MAX_PEERS;

/// The configuration of a reader.
#[derive(Clone, Debug)]
pub struct Config {
    /// The reader's name, for the logs and errors of its peers.
    pub node: NodeName,
    /// How many lanes lead from each rail to each peer, at least 1. A NIC wants two or more; for
    /// rails that are threads one is enough.
    pub lanes_per_rail: usize,
    /// When the lanes to a peer are made.
    pub lanes: MakeLanes,
    /// How many lanes lead over each rail at a time, unless all are made at connect: 0 for as many
    /// as the reader's storage and the rail's completion queue have room for, which are the most in
    /// any case. A peer that needs lanes when all are there gets those of the peer that was read
    /// from the longest ago, of those with nothing in flight.
    pub lanes_budget: usize,
    /// How many peers the reader has places for: 64 by default, and 1,024 if this is more than 64,
    /// which is the most. One that [`engine!`](crate::engine) declares has as many as its
    /// `max_peers`, whatever is said here.
    pub peers: usize,
    /// After how long without a READ the lanes of a peer are given back, with
    /// [`MakeLanes::OnDemand`].
    pub lane_idle: Duration,
    /// How long connecting to a producer may take, a day at most.
    pub connect: Duration,
    /// The engine's configuration; `None` takes the one that suits the rails. It must agree with
    /// the numbers that [`engine!`](crate::engine) declares (`chunk`, `rail_bytes`, `rail_wrs`).
    pub engine: Option<EngineConfig>,
}

impl Default for Config {
    /// The name `reader-<process id>`, one lane per rail, [`MakeLanes::Auto`], as many lanes as
    /// there is room for, 64 peers, lanes given back after a minute, ten seconds to connect, and
    /// the engine's configuration that suits the rails.
    fn default() -> Self {
        Self {
            node: Name::lossy(&format!("reader-{}", std::process::id())),
            lanes_per_rail: 1,
            lanes: MakeLanes::Auto,
            lanes_budget: 0,
            peers: MAX_PEERS,
            lane_idle: Duration::from_mins(1),
            connect: Duration::from_secs(10),
            engine: None,
        }
    }
}

/// When a reader makes the lanes to its peers.
///
/// A lane is a QP at both ends, with a place in a completion queue. Making one takes the control
/// path some messages and system calls, so a batch to a peer without lanes waits that long, within
/// its deadline: pages that get no lane in time fail with
/// [`PageError::NoLane`](crate::PageError::NoLane).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum MakeLanes {
    /// At connect while there is room for them, on demand otherwise. They are given back when
    /// another peer needs them, and not for being idle.
    #[default]
    Auto,
    /// At connect, which fails if none can be made, and kept while the peer is there.
    AtConnect,
    /// When a page of the peer is first read, and given back after
    /// [`lane_idle`](Config::lane_idle), or when another peer needs them.
    OnDemand,
}

/// Why a reader does not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// [`Config::lanes_per_rail`] is 0.
    #[error("lanes_per_rail is 0: it must be at least 1")]
    NoLanes,
    /// [`Config::lanes_budget`] is less than the lanes of one peer.
    #[error(
        "lanes_budget is {budget}, and each peer has {lanes} lanes on a rail (lanes_per_rail): allow at least as many, or 0 for as many as there is room for"
    )]
    Budget {
        /// The configured budget.
        budget: usize,
        /// Lanes of one peer on each rail.
        lanes: usize,
    },
    /// [`Config::peers`] is more than a reader can have places for.
    #[error(
        "the reader is to have places for {peers} peers, and can have {max}: give fewer, start several readers, or declare one of your own numbers with `engine!`"
    )]
    TooManyPeers {
        /// The configured number.
        peers: usize,
        /// The most.
        max: usize,
    },
    /// There are more rails than the reader was declared for.
    #[error("{rails} rails, and the reader was declared with max_rails: {max}: declare more, or give fewer")]
    TooManyRails {
        /// How many there are.
        rails: usize,
        /// How many it was declared with.
        max: usize,
    },
    /// A field of [`Config::engine`] is not the number that `engine!` declared and checked.
    #[error(
        "`engine!` declares {key}: {number}, and Config::engine has {field} = {configured}: give it the declared \
         number, or leave `{key}` out of the declaration"
    )]
    NotAsDeclared {
        /// The field's name in `engine!`.
        key: &'static str,
        /// The declared number.
        number: u64,
        /// The field's name in the engine's configuration.
        field: &'static str,
        /// The configured number.
        configured: u64,
    },
    /// In chunks of [`Config::engine`] a full batch does not fit the send queues that `engine!`
    /// declared.
    #[error(
        "in chunks of {chunk_bytes} bytes (Config::engine) a batch of max_batch pages is {wrs} wrs, and the lanes that \
         `engine!` declares hold {room}: raise chunk_bytes, max_lanes or max_depth, or lower max_batch"
    )]
    BatchTooLong {
        /// The configured chunk, in bytes.
        chunk_bytes: u32,
        /// wrs of a full batch.
        wrs: u64,
        /// wrs that the send queues of all lanes hold.
        room: u64,
    },
    /// The pages are not the declared ones, at any rank.
    #[error(
        "the reader was declared for pages of `{name}` (fingerprint {expected} at any rank), and is to be started for \
         `{given}` ({found}): start it for the declared page"
    )]
    OtherPage {
        /// The declared layout's name.
        name: &'static str,
        /// The declared layout's fingerprint at any rank.
        expected: Fingerprint,
        /// The given layout's name.
        given: &'static str,
        /// The given layout's fingerprint at any rank.
        found: Fingerprint,
    },
    /// The engine refuses its configuration or its rails.
    #[error(transparent)]
    Engine(#[from] kvrail_core::engine::EngineStartError),
}

impl StartError {
    /// A number that never changes its meaning (docs/errors.md).
    #[must_use]
    pub const fn code(&self) -> u32 {
        match self {
            Self::NoLanes => 6000,
            Self::Budget { .. } => 6005,
            Self::TooManyPeers { .. } => 6006,
            Self::TooManyRails { .. } => 6001,
            Self::NotAsDeclared { .. } => 6002,
            Self::BatchTooLong { .. } => 6003,
            Self::OtherPage { .. } => 6004,
            Self::Engine(source) => source.code(),
        }
    }
}
