//! What an inference engine holds: its pools, its readers, its directory, in one value.

mod config;
mod error;
mod registering;
mod start;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use kvrail::session::{Epoch, PoolId};
use kvrail::{Address, PageLayout, Publisher};
use kvrail_core::time::Time;
use kvrail_host::clock;

#[cfg(feature = "config")]
pub(crate) use self::config::MAX_READERS;
pub use self::config::NodeConfig;
pub use self::error::{NodeError, RegisterMemoryError, UnregisterMemoryError};
use crate::announce::Announcer;
use crate::directory::Found;
use crate::get::batch::{GetBatch, GetCounts, GetHandle, finish, wait_for};
use crate::get::counters::{GetStatistics, add};
use crate::get::find::{ask, find_near, look_up};
use crate::get::link::DriverLinks;
use crate::get::look_up_thread::send;
use crate::get::request::{Request, Route};
use crate::get::shared::Shared;
use crate::hybrid::Bitmap;
use crate::key::Key;
use crate::metrics::NodeMetrics;
use crate::miss::GetMiss;
use crate::pool::{EnginePool, PagePool, PoolStatistics, Put, PutError, PutPlace};

/// Pages by key: those of the node's own pools, and those that it pulls from other nodes.
///
/// Any number of threads share it. [`get`](Self::get) blocks its caller;
/// [`begin_get`](Self::begin_get) is the polled form. Its readers have threads of their own
/// ([`start`](Self::start)), or the caller drives one ([`start_driven`](Self::start_driven)).
///
/// No page is ever given out wrong: what the cache, the directory and other nodes say are hints,
/// and a page counts only when its owner's table confirms it after it has been read.
///
/// Dropping it settles gets that are under way as misses ([`GetMiss::Stopped`]), withdraws its
/// pages from the directory, and ends its sessions. It waits 5 s at most for READs that are under
/// way, [`AnnouncerConfig::stop`](crate::AnnouncerConfig::stop) (1 s) for the withdrawal, and 1 s
/// for look-ups: a call of a directory that does not end by then ends by itself, at its deadline,
/// in a thread that is left behind, and its keys are misses then.
pub struct Node {
    /// Taken first when it is dropped.
    announcer: Option<Announcer>,
    pools: Vec<(PageLayout, PagePool)>,
    engine_pools: Vec<EnginePool>,
    publisher: Option<Arc<Publisher>>,
    shared: Arc<Shared>,
    links: Arc<DriverLinks>,
    registrations: AtomicU32,
    /// How long a reader may take to register memory.
    register_within: Duration,
    threads: Vec<JoinHandle<()>>,
    /// Of the thread that watches those that look keys up.
    watcher: Option<JoinHandle<()>>,
}

/// How long the drop of a node waits for calls to its directory that are under way.
const LAST_LOOK_UP: Duration = Duration::from_secs(1);

static_assertions::assert_impl_all!(Node: Send, Sync);

/// Which of several keys have a page somewhere.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Presence {
    /// A bit for each key, set if an owner is known.
    pub present: Bitmap,
    /// A bit for each key, set if the directory did not answer for it.
    pub unknown: Bitmap,
}

/// A node's numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct NodeStatistics {
    /// Of its reads.
    pub get: GetStatistics,
    /// Of each pool of its own memory.
    pub pools: Vec<PoolStatistics>,
    /// Of each pool of an engine's memory.
    pub engine_pools: Vec<PoolStatistics>,
    /// Threads that look keys up for [`begin_get`](Node::begin_get):
    /// [`NodeConfig::look_up_threads`], and more while these wait for a directory.
    pub look_up_threads: usize,
    /// Pages that wait for its readers, or are being read.
    pub reading: usize,
    /// Readers of other nodes that are connected to it.
    pub connected_readers: usize,
}

impl Node {
    /// Gets the pages of a batch: each into its destination, or a miss with its reason. Blocks
    /// until all are settled, which is soon after `deadline` at the latest. The batch has the
    /// results.
    pub fn get(&self, batch: &mut GetBatch, deadline: Instant) -> GetCounts {
        let keys = batch.len();
        let now = clock::now();
        let deadline = time(now, deadline);
        let request = self.settle_all(batch.take_request(), now, deadline);
        let mut request = request.unwrap_or_else(|| Box::new(Request::lost(keys, &GetMiss::Deadline)));
        let counts = finish(&self.shared, &mut request);
        batch.put_request(request);
        counts
    }

    /// Settles all keys of a request. `None`: it has not come back.
    fn settle_all(&self, mut request: Box<Request>, now: Time, deadline: Time) -> Option<Box<Request>> {
        request.begin(deadline);
        request.route = Route::Caller;
        if find_near(&self.shared, &self.pools, &mut request, now) {
            look_up(&self.shared, &mut request);
        }
        loop {
            if request.unsettled == 0 {
                return Some(request);
            }
            request.times.queued = now;
            let reply = Arc::clone(&request.reply);
            request = match self.links.send(request) {
                Ok(()) => wait_for(&reply, deadline)?,
                Err(refused) => refused,
            };
            if !request.renew_stale() {
                return Some(request);
            }
            self.shared.count_stale(&request);
            look_up(&self.shared, &mut request);
        }
    }

    /// Begins to get the pages of a batch, which is in the handle until all are settled. The
    /// calling thread does not wait for the directory.
    pub fn begin_get(&self, batch: GetBatch, deadline: Instant) -> GetHandle {
        let now = clock::now();
        let deadline = time(now, deadline);
        let keys = batch.len();
        let mut request = batch.into_request();
        request.begin(deadline);
        request.route = Route::LookUpThread;
        let reply = Arc::clone(&request.reply);
        let to_look_up = find_near(&self.shared, &self.pools, &mut request, now);
        if to_look_up && self.shared.directory.is_some() {
            self.shared.look_ups.send(request);
        } else {
            if to_look_up {
                // Without a directory this settles the rest, and does not block.
                look_up(&self.shared, &mut request);
            }
            send(&self.links, request, now);
        }
        GetHandle { shared: Arc::clone(&self.shared), reply: Some(reply), deadline, keys, done: None }
    }

    /// Which of `keys` have a page: in the node's own pools, or somewhere, as the directory says.
    /// It is a hint, as everything that the directory says.
    #[must_use]
    pub fn exists(&self, keys: &[Key], deadline: Instant) -> Presence {
        self.exists_in_pools(&[keys], deadline).pop().unwrap_or_default()
    }

    /// The same for the keys of several pools, with one look-up for all:
    /// [`longest_prefix`](crate::hybrid::longest_prefix) tells what can be restored.
    #[must_use]
    pub fn exists_in_pools(&self, pools: &[&[Key]], deadline: Instant) -> Vec<Presence> {
        let new =
            |keys: &&[Key]| Presence { present: Bitmap::new(keys.len()), unknown: Bitmap::new(keys.len()) };
        let mut presences: Vec<_> = pools.iter().map(new).collect();
        let (mut tags, mut places) = (Vec::new(), Vec::new());
        for (pool, keys) in pools.iter().enumerate() {
            for (at, &key) in keys.iter().enumerate() {
                let own = self.pools.iter().any(|(_, own)| own.contains(key));
                if own || self.engine_pools.iter().any(|own| own.contains(key)) {
                    presences[pool].present.set(at);
                } else {
                    tags.push(key.0);
                    places.push((pool, at));
                }
            }
        }
        if let (Some(directory), false) = (&self.shared.directory, tags.is_empty()) {
            add(&self.shared.counters.look_ups, 1);
            add(&self.shared.counters.keys_looked_up, tags.len() as u64);
            let mut found = Found::default();
            ask(&self.shared, &**directory, (&tags, deadline), &mut found);
            for (key, (pool, at)) in places.into_iter().enumerate() {
                let answer = if key < found.len() { found.records(key) } else { Err(None) };
                let others = |record: &crate::record::Record| Some(record.owner) != self.shared.own;
                match answer {
                    Ok(records) if records.iter().any(others) => presences[pool].present.set(at),
                    Ok(_) => {}
                    Err(_) => presences[pool].unknown.set(at),
                }
            }
        }
        presences
    }

    /// The node's pools in memory of its own, in the order in which they were configured.
    pub fn pools(&self) -> impl ExactSizeIterator<Item = &PagePool> {
        self.pools.iter().map(|(_, pool)| pool)
    }

    /// The node's pools in the memory of an inference engine.
    #[must_use]
    pub fn engine_pools(&self) -> &[EnginePool] {
        &self.engine_pools
    }

    /// The node's first own pool of pages of `layout`.
    #[must_use]
    pub fn pool_of(&self, layout: &PageLayout) -> Option<&PagePool> {
        self.pools.iter().find(|(of, _)| of == layout).map(|(_, pool)| pool)
    }

    /// Stores a page of `layout` in the node's own pool of that layout: [`PagePool::put`].
    ///
    /// # Errors
    ///
    /// As [`PagePool::put`]; or the node has no such pool.
    pub fn put(&self, layout: &PageLayout, key: Key, page: &[u8]) -> Result<Put, PutError> {
        self.pool_to_fill(layout)?.put(key, page)
    }

    /// Hands out a slot of the node's own pool to fill: [`PagePool::put_in_place`].
    ///
    /// # Errors
    ///
    /// As [`put`](Self::put).
    pub fn put_in_place(&self, layout: &PageLayout, key: Key) -> Result<PutPlace<'_>, PutError> {
        self.pool_to_fill(layout)?.put_in_place(key)
    }

    fn pool_to_fill(&self, layout: &PageLayout) -> Result<&PagePool, PutError> {
        self.pool_of(layout).ok_or(PutError::Withdrawn { pool: PoolId(u32::MAX) })
    }

    /// Removes the page of a key from the node's own pools, and what the cache knows of it. Pages
    /// of other owners stay. Returns whether there was one in an own pool.
    pub fn remove(&self, key: Key) -> bool {
        self.shared.cache.forget(key.0);
        let own = self.pools.iter().filter(|(_, pool)| pool.remove(key)).count();
        own + self.engine_pools.iter().filter(|pool| pool.remove(key).is_some()).count() > 0
    }

    /// Removes all pages of the node's own pools, and empties the cache. Returns how many pages
    /// were removed.
    pub fn clear(&self) -> u32 {
        self.clear_cache();
        let own = self.pools.iter().map(|(_, pool)| pool.clear());
        own.chain(self.engine_pools.iter().map(EnginePool::clear)).sum()
    }

    /// Empties the cache of records.
    pub fn clear_cache(&self) {
        self.shared.cache.clear();
    }

    /// The node's numbers.
    #[must_use]
    pub fn statistics(&self) -> NodeStatistics {
        NodeStatistics {
            get: self.shared.counters.read(),
            pools: self.pools.iter().map(|(_, pool)| pool.statistics()).collect(),
            engine_pools: self.engine_pools.iter().map(EnginePool::statistics).collect(),
            look_up_threads: self.shared.look_ups.running(),
            reading: self.links.all().iter().map(|link| link.load()).sum(),
            connected_readers: self.publisher.as_ref().map_or(0, |publisher| publisher.readers()),
        }
    }

    /// The address at which readers and, if it keeps a shard, users of the embedded directory reach
    /// it: if it has pools.
    #[must_use]
    pub fn address(&self) -> Option<Address> {
        self.publisher.as_ref().map(|publisher| publisher.local_addr().into())
    }

    /// What the node counts, for an endpoint of Prometheus among others.
    #[must_use]
    pub fn metrics(&self) -> &Arc<NodeMetrics> {
        &self.shared.metrics
    }

    /// The publisher of the node's pools, if it has any.
    #[must_use]
    pub const fn publisher(&self) -> Option<&Arc<Publisher>> {
        self.publisher.as_ref()
    }

    /// What announces the node's pages, if it has pools and a directory.
    #[must_use]
    pub const fn announcer(&self) -> Option<&Announcer> {
        self.announcer.as_ref()
    }

    /// The epoch of the node as an owner, if it has pools.
    #[must_use]
    pub fn epoch(&self) -> Option<Epoch> {
        self.shared.own
    }
}

/// A deadline on the engine's clock.
fn time(now: Time, deadline: Instant) -> Time {
    now + clock::nanos(deadline.saturating_duration_since(Instant::now()))
}

impl Drop for Node {
    fn drop(&mut self) {
        self.links.all().iter().for_each(|link| link.stop());
        self.shared.look_ups.stop();
        self.announcer = None;
        for thread in self.threads.drain(..) {
            // A thread that panicked has settled its requests.
            let _ = thread.join();
        }
        if let Some(watcher) = self.watcher.take() {
            // A panic of it was printed.
            let _ = watcher.join();
        }
        let until = Instant::now() + LAST_LOOK_UP;
        while self.shared.look_ups.running() > 0 && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(1));
        }
        let left = self.shared.look_ups.running();
        if left > 0 {
            tracing::warn!(left, "look-ups are still under way: their threads end after them");
        }
    }
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Node")
            .field("pools", &self.pools)
            .field("layouts", &self.shared.layouts)
            .field("directory", &self.shared.directory)
            .field("readers", &self.links)
            .finish_non_exhaustive()
    }
}
