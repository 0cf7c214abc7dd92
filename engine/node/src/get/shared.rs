//! What all threads of a node's GET path share.

use std::sync::Arc;

use kvrail::session::Epoch;
use kvrail::{NodeName, PageLayout, PeerKeys};

use super::cache::RecordCache;
use super::counters::{Counters, add};
use super::look_up_link::LookUpLink;
use super::owners::OwnerBook;
use super::request::Request;
use crate::directory::Directory;
use crate::metrics::{NodeMetrics, SlowLog};

/// What all threads of a node's GET path share.
#[derive(Debug)]
pub(crate) struct Shared {
    /// The node's number, of all nodes of the process.
    pub(crate) node: u64,
    pub(crate) keys: PeerKeys,
    /// The layouts of the pages that can be read.
    pub(crate) layouts: Vec<PageLayout>,
    pub(crate) zone: NodeName,
    /// The node as an owner, if it has pools of its own.
    pub(crate) own: Option<Epoch>,
    pub(crate) directory: Option<Arc<dyn Directory>>,
    pub(crate) cache: RecordCache,
    pub(crate) owners: OwnerBook,
    pub(crate) counters: Counters,
    pub(crate) look_ups: LookUpLink,
    pub(crate) metrics: Arc<NodeMetrics>,
    pub(crate) slow: SlowLog,
    /// Pages with which a batch of READs is full enough to go.
    pub(crate) batch_pages: usize,
    /// Whether pages are read without validation, by which wrong ones are given out: for tests.
    pub(crate) unvalidated: bool,
}

impl Shared {
    /// Counts the keys of a request whose cached records are stale, before they are looked up once
    /// more.
    pub(crate) fn count_stale(&self, request: &Request) {
        let stale = request.count_to_look_up();
        add(&self.counters.renewed, stale);
        self.metrics.cache_stale(stale);
    }
}
