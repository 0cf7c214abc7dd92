//! Churn: a producer overwrites the few pages of a small pool as fast as it is told to, and readers
//! get them by key and check every byte.
//!
//! A page says which key and which version it is ([`pattern`](super::pattern)). A page that a
//! reader is given counts as wrong if it is not one page, if it is another key's, or if it is older
//! than one that the same reader has had of that key before: then it was overwritten before it was
//! asked for.

mod adversary;
pub(crate) mod producer;
pub(crate) mod reader;

use std::collections::BTreeMap;

use crate::process::protocol::{Overwritten, Read};

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
