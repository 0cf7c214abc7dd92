//! A shard: the service that keeps records in memory and answers look-ups.

use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use kvrail::session::{Asker, Epoch, Service, ServiceError};

use super::table::Table;
use super::wire::{self, Lease, LookUpAnswer, Question};

/// Limits of a shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShardConfig {
    /// Records at a time, 2^32 - 1 at most; each takes about 60 bytes. Default: 4,000,000.
    pub max_records: usize,
    /// Owners at a time, each with about 500 bytes. Default: 16,384.
    pub max_owners: usize,
}

impl Default for ShardConfig {
    fn default() -> Self {
        Self { max_records: 4_000_000, max_owners: 16_384 }
    }
}

/// Keeps records in memory and answers look-ups: a service of a node's server.
///
/// ```
/// use std::sync::Arc;
/// use kvrail::session::ServerConfig;
/// use kvrail_node::directory::embedded::{DIRECTORY_SERVICE, EmbeddedShard, ShardConfig};
///
/// let shard = Arc::new(EmbeddedShard::new(ShardConfig::default()));
/// let config = ServerConfig::default().service(DIRECTORY_SERVICE, shard);
/// ```
pub struct EmbeddedShard {
    config: ShardConfig,
    state: Mutex<State>,
}

struct State {
    table: Table,
    look_ups: u64,
}

impl EmbeddedShard {
    /// A shard without records.
    #[must_use]
    pub fn new(config: ShardConfig) -> Self {
        let max_owners = config.max_owners.min(u32::MAX as usize);
        let table = Table::new(config.max_records, max_owners);
        Self { config, state: Mutex::new(State { table, look_ups: 0 }) }
    }

    /// A lock that no thread takes for long: one server's thread asks, and threads of the node that
    /// has the shard.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many records it keeps, those included whose owner's lease has run out and that were not
    /// removed yet.
    #[must_use]
    pub fn records(&self) -> usize {
        self.lock().table.len()
    }

    /// How many questions who has the pages of some keys it has answered; heartbeats, which have no
    /// keys, do not count.
    #[must_use]
    pub fn look_ups(&self) -> u64 {
        self.lock().look_ups
    }

    fn look_up(&self, tags: &[kvrail_core::table::KeyTag], now: Instant, answer: &mut Vec<u8>) {
        let mut state = self.lock();
        let state = &mut *state;
        state.look_ups += u64::from(!tags.is_empty());
        state.table.tidy(now);
        let mut out = LookUpAnswer::begin(tags.len(), answer);
        for (key, &tag) in tags.iter().enumerate() {
            out.key(key, state.table.places(tag, now));
        }
    }

    fn owners(&self, epochs: &[Epoch], now: Instant, answer: &mut Vec<u8>) {
        let mut state = self.lock();
        state.table.tidy(now);
        wire::write_owners(epochs.iter().map(|&epoch| state.table.owner(epoch, now)), answer);
    }

    fn too_many_owners(&self) -> ServiceError {
        ServiceError::new(&format!("it knows {} owners, its limit", self.config.max_owners))
    }
}

impl Service for EmbeddedShard {
    fn answer(&self, asker: &Asker, ask: &[u8], answer: &mut Vec<u8>) -> Result<(), ServiceError> {
        let question = Question::parse(ask).map_err(|error| ServiceError::new(&error.to_string()))?;
        let now = asker.now;
        match question {
            Question::LookUp(tags) => self.look_up(&tags, now, answer),
            Question::Owners(epochs) => self.owners(&epochs, now, answer),
            Question::Announce(Lease { owner, lease }, records) => {
                let announced = self.lock().table.announce(Lease { owner, lease }, &records, now);
                wire::write_announced(announced.ok_or_else(|| self.too_many_owners())?, answer);
            }
            Question::Withdraw(records) => {
                let mut state = self.lock();
                state.table.tidy(now);
                let gone = records.iter().filter(|record| state.table.withdraw(record)).count();
                wire::write_withdrawn(gone as u32, answer);
            }
            Question::Renew(lease) => {
                let renewed = self.lock().table.renew(lease, now);
                wire::write_renewed(renewed.ok_or_else(|| self.too_many_owners())?, answer);
            }
        }
        Ok(())
    }
}

impl fmt::Debug for EmbeddedShard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EmbeddedShard")
            .field("config", &self.config)
            .field("records", &self.records())
            .finish_non_exhaustive()
    }
}
