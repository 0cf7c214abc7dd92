//! What an embedded directory is given, and why it does not start.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use kvrail::session::{Epoch, PeerKeys};
use kvrail::{Address, NodeName};

use super::shard::EmbeddedShard;
use super::wire::{MAX_LEASE, MIN_LEASE};

/// What an embedded directory is given.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct EmbeddedConfig {
    /// The addresses of the nodes that may host a shard, the same ones in the same order on all
    /// nodes of the group.
    pub candidates: Vec<Address>,
    /// The keys of the group.
    pub keys: PeerKeys,
    /// This node's name, for the logs of the shards.
    pub node: NodeName,
    /// How long an owner's records stay after it was last heard of, 0.1 seconds to an hour.
    /// Default: 3 seconds, so an owner renews each second.
    pub lease: Duration,
    /// How often a shard is asked whether it lives, and for how long it may say nothing. Default: a
    /// second.
    pub heartbeat: Duration,
    /// How long the making of one session may take. Default: a second.
    pub connect: Duration,
    /// The shard that this process has, by its server's epoch.
    pub(crate) own: Option<(Epoch, Arc<EmbeddedShard>)>,
}

impl EmbeddedConfig {
    /// The usual times.
    #[must_use]
    pub fn new(candidates: Vec<Address>, keys: impl Into<PeerKeys>, node: NodeName) -> Self {
        Self {
            candidates,
            keys: keys.into(),
            node,
            lease: Duration::from_secs(3),
            heartbeat: Duration::from_secs(1),
            connect: Duration::from_secs(1),
            own: None,
        }
    }

    /// The same, with another lease.
    #[must_use]
    pub const fn lease(mut self, lease: Duration) -> Self {
        self.lease = lease;
        self
    }

    pub(super) fn check(&self) -> Result<(), EmbeddedError> {
        if self.candidates.is_empty() {
            return Err(EmbeddedError::NoCandidates);
        }
        if self.lease < MIN_LEASE || self.lease > MAX_LEASE {
            return Err(EmbeddedError::Lease { lease: self.lease });
        }
        Ok(())
    }
}

/// Why an embedded directory did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EmbeddedError {
    /// The list of candidates is empty.
    #[error("no candidate is given: give the address of at least one node that hosts a shard")]
    NoCandidates,
    /// The lease is out of its bounds.
    #[error("a lease of {lease:?}: give 0.1 seconds to an hour")]
    Lease {
        /// The lease.
        lease: Duration,
    },
    /// The system has no thread or file descriptor left.
    #[error("cannot start the directory's threads: {0}")]
    Thread(io::Error),
}

impl EmbeddedError {
    /// A number that never changes its meaning (docs/errors.md).
    #[must_use]
    pub const fn code(&self) -> u32 {
        match self {
            Self::NoCandidates => 7040,
            Self::Lease { .. } => 7041,
            Self::Thread(_) => 7042,
        }
    }
}
