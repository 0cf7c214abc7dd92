//! Churn: a producer overwrites the few pages of a small pool as fast as it is told to, and readers
//! get them by key and check every byte.
//!
//! A page says which key and which version it is ([`pattern`](super::pattern)). A page that a reader
//! is given counts as wrong if it is not one page, if it is another key's, or if it is older than
//! one that the same reader has had of that key before: then it was overwritten before it was asked
//! for.

mod adversary;
pub(crate) mod producer;
pub(crate) mod reader;

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::cli::directory::DirectorySetup;
use crate::process::protocol::ProducerSetup;

/// The settings of a producer that overwrites its pages.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct ChurnProducerSetup {
    pub(crate) producer: ProducerSetup,
    /// Slots of the pool.
    pub(crate) pool_pages: u32,
    /// Keys that are put.
    pub(crate) keys: u64,
    /// How many pages it writes in a second, about.
    pub(crate) pace: u32,
    pub(crate) seed: u64,
}

/// The settings of a reader of such a producer.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct ChurnReaderSetup {
    pub(crate) key: crate::cli::key::Key,
    /// The layout's name in the catalogue.
    pub(crate) layout: String,
    pub(crate) directory: DirectorySetup,
    pub(crate) dir_cache: Duration,
    pub(crate) keys: u64,
    /// Whether pages are validated, as they are in every use but this test.
    pub(crate) validate: bool,
    /// Whether the directory's answers are spoilt on their way.
    pub(crate) adversary: bool,
    /// Longer pages travel in pieces of this size; `None`: what suits the transport.
    pub(crate) chunk_bytes: Option<u32>,
    pub(crate) seed: u64,
}

/// What a producer did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Overwritten {
    /// Pages that were published.
    pub(crate) puts: u64,
    /// Of these, the pages that were written over an earlier one.
    pub(crate) overwrites: u64,
    /// Pages that made room for others.
    pub(crate) evictions: u64,
    /// Pages that were removed.
    pub(crate) removed: u64,
}

/// What a reader got.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Read {
    /// Batches.
    pub(crate) gets: u64,
    /// Pages that were given out, every byte of which was checked.
    pub(crate) hits: u64,
    /// Of these, the pages whose owner the cache of records named.
    pub(crate) hits_cache: u64,
    /// Of these, the pages whose owner the directory named.
    pub(crate) hits_directory: u64,
    /// Hits that are wrong, by how.
    pub(crate) wrong: BTreeMap<String, u64>,
    /// The first of them, in words.
    pub(crate) examples: Vec<String>,
    pub(crate) misses: BTreeMap<String, u64>,
    pub(crate) look_ups: u64,
    pub(crate) keys_looked_up: u64,
    pub(crate) keys_renewed: u64,
    /// Answers of the directory that were spoilt.
    pub(crate) forged: u64,
}

/// The most examples of wrong pages that are kept.
const EXAMPLES: usize = 5;

fn add_all(to: &mut BTreeMap<String, u64>, more: &BTreeMap<String, u64>) {
    more.iter().for_each(|(name, count)| *to.entry(name.clone()).or_default() += count);
}

impl Overwritten {
    pub(crate) const fn add(&mut self, more: &Self) {
        self.puts += more.puts;
        self.overwrites += more.overwrites;
        self.evictions += more.evictions;
        self.removed += more.removed;
    }
}

impl Read {
    pub(crate) fn add(&mut self, more: &Self) {
        self.gets += more.gets;
        self.hits += more.hits;
        self.hits_cache += more.hits_cache;
        self.hits_directory += more.hits_directory;
        add_all(&mut self.wrong, &more.wrong);
        add_all(&mut self.misses, &more.misses);
        self.look_ups += more.look_ups;
        self.keys_looked_up += more.keys_looked_up;
        self.keys_renewed += more.keys_renewed;
        self.forged += more.forged;
        let room = EXAMPLES.saturating_sub(self.examples.len());
        self.examples.extend(more.examples.iter().take(room).cloned());
    }

    /// Hits that are wrong.
    pub(crate) fn pages_wrong(&self) -> u64 {
        self.wrong.values().sum()
    }
}
