//! The limits of both sides of a hand-over.

use std::time::Duration;

use super::error::HandoverConfigError;
use super::types::{MAX_LEASE, MIN_RENEW_EVERY};

/// The limits of a producer's hand-overs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HandoverConfig {
    /// How long the pages stay after the reader last renewed, or, before a reader has taken them,
    /// after the request was opened. Default: 30 seconds.
    pub lease: Duration,
    /// How often a reader should renew; at most half of the lease. Default: 5 seconds.
    pub renew_every: Duration,
    /// Hand-overs at a time; one counts until its outcome has been fetched. Default: 4096.
    pub max_open: u32,
    /// Blocks of one request. Default: 65,536.
    pub max_blocks: u32,
    /// Unknown requests for which one session waits at a time. Default: 1024.
    pub max_waiting: u32,
    /// `Ended` messages that one session may leave unread while it takes more. Default: 2048.
    pub max_unread: u32,
    /// Rejected, aborted and expired requests whose later takers are told at once. Beyond these the
    /// oldest is forgotten. Default: 65,536.
    pub max_remembered: u32,
}

impl Default for HandoverConfig {
    fn default() -> Self {
        Self {
            lease: Duration::from_secs(30),
            renew_every: Duration::from_secs(5),
            max_open: 4096,
            max_blocks: 65_536,
            max_waiting: 1024,
            max_unread: 2048,
            max_remembered: 65_536,
        }
    }
}

impl HandoverConfig {
    /// Whether a reader can keep the leases that this gives.
    pub(super) fn check(&self) -> Result<(), HandoverConfigError> {
        let Self { lease, renew_every, .. } = *self;
        if lease > MAX_LEASE || renew_every < MIN_RENEW_EVERY || renew_every > lease / 2 {
            return Err(HandoverConfigError::Lease { lease, renew_every });
        }
        for (name, value) in
            [("max_open", self.max_open), ("max_blocks", self.max_blocks), ("max_unread", self.max_unread)]
        {
            if value == 0 {
                return Err(HandoverConfigError::Zero { name });
            }
        }
        Ok(())
    }
}

/// The limits of a reader's takings in one session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TakingsConfig {
    /// Takings at a time; one that the producer has ended counts until that event has been
    /// fetched. Default: 1024.
    pub max_takings: u32,
    /// Blocks of one request. Default: 65,536.
    pub max_blocks: u32,
    /// How long after the end of its `wait` a taking may go without an answer. Default: 30 seconds.
    pub answer_within: Duration,
}

impl Default for TakingsConfig {
    fn default() -> Self {
        Self { max_takings: 1024, max_blocks: 65_536, answer_within: Duration::from_secs(30) }
    }
}
