//! A batch of keys with their destinations, and the results.

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use kvrail_core::time::{Nanos, Time};
use kvrail_host::clock;

use super::counters::add;
use super::destination::Destination;
use super::request::{Progress, Reply, Request, Tally, Times};
use super::shared::Shared;
use crate::key::Key;
use crate::metrics::{SlowRequest, TimeSpent};
use crate::miss::{GetMiss, Hit};

/// How long after its deadline a request that has not come back is given up: its reader is stopped,
/// or is not driven.
const GRACE: Nanos = Nanos::from_millis(100);

/// Keys whose pages are to be got, each with a destination; after that the results. It keeps its
/// memory, so a thread that gets pages again and again uses one again and again.
///
/// ```no_run
/// use std::time::{Duration, Instant};
///
/// use kvrail_node::{Destinations, GetBatch, Key, Node};
///
/// fn read(node: &Node, places: &Destinations, keys: &[Key], batch: &mut GetBatch) {
///     for &key in keys {
///         let Some(place) = places.take_any() else { break };
///         batch.read(key, place);
///     }
///     node.get(batch, Instant::now() + Duration::from_millis(50));
///     for page in batch.take_pages() {
///         match page.result {
///             Ok(_) => println!("key {} is in place", page.index),
///             Err(miss) => println!("key {}: {miss}", page.index),
///         }
///     }
/// }
/// ```
pub struct GetBatch {
    request: Option<Box<Request>>,
}

/// One key of a batch, with its result.
#[derive(Debug)]
#[non_exhaustive]
pub struct GotPage {
    /// The position of its key in the batch.
    pub index: usize,
    /// The destination. `None` if hardware may still write there: then it is free among its
    /// [`Destinations`](crate::Destinations) when nothing writes any more.
    pub destination: Option<Destination>,
    /// Whether the page is in the destination, and why not.
    pub result: Result<Hit, GetMiss>,
}

/// How many keys of a batch are hits and misses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct GetCounts {
    /// Pages that are in their destinations.
    pub hits: usize,
    /// Pages that are not.
    pub misses: usize,
}

impl GetBatch {
    /// An empty batch with room for `keys` keys. It grows where that is not enough.
    #[must_use]
    pub fn with_capacity(keys: usize) -> Self {
        Self { request: Some(Box::new(Request::new(keys))) }
    }

    #[inline]
    fn request(&mut self) -> &mut Request {
        self.request.get_or_insert_with(empty)
    }

    fn known(&self) -> Option<&Request> {
        self.request.as_deref()
    }

    /// Adds a key, whose page is read into `to`.
    #[inline]
    pub fn read(&mut self, key: Key, to: Destination) {
        self.request().push(key.0, to, false);
    }

    /// Adds a key that belongs to the group of the key before: the pages of a group are all hits,
    /// or all misses. So the pages of several pools that belong to the same tokens are had together
    /// or not at all.
    pub fn join(&mut self, key: Key, to: Destination) {
        self.request().push(key.0, to, true);
    }

    /// How many keys it has.
    #[must_use]
    pub fn len(&self) -> usize {
        self.known().map_or(0, |request| request.pages.len())
    }

    /// Whether it has no key.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What became of key number `index`; `None` if there is no such key, or it was not got yet.
    #[must_use]
    pub fn result(&self, index: usize) -> Option<Result<Hit, &GetMiss>> {
        let request = self.known()?;
        match request.pages.get(index)?.progress {
            Progress::Hit(found) => Some(Ok(Hit { found })),
            Progress::Missed(number) => request.misses.get(number as usize).map(Err),
            _ => None,
        }
    }

    /// What became of the keys, in their order, without taking the destinations.
    pub fn results(&self) -> impl Iterator<Item = Result<Hit, &GetMiss>> {
        (0..self.len()).filter_map(|index| self.result(index))
    }

    /// The destination of key number `index`, if it is there.
    #[must_use]
    pub fn destination(&self, index: usize) -> Option<&Destination> {
        self.known()?.pages.get(index)?.destination.as_ref()
    }

    /// Takes the keys out, with destinations and results, so that the batch is empty. A key that
    /// was not got yet is a miss ([`GetMiss::Deadline`]).
    pub fn take_pages(&mut self) -> impl Iterator<Item = GotPage> {
        TakenPages { request: self.request(), next: 0 }
    }

    /// Takes the destinations out, in the order of their keys, so that the batch is empty: for a
    /// caller that has seen the results, or from the [counts](GetCounts) that all are hits. One
    /// into which hardware may still write is left out.
    pub fn take_destinations(&mut self) -> impl Iterator<Item = Destination> {
        let taken = TakenPages { request: self.request(), next: 0 };
        TakenDestinations(taken)
    }

    /// Empties the batch. Its destinations are free again.
    pub fn clear(&mut self) {
        self.request().clear();
    }

    pub(crate) fn into_request(mut self) -> Box<Request> {
        self.take_request()
    }

    pub(crate) fn take_request(&mut self) -> Box<Request> {
        self.request.take().unwrap_or_else(empty)
    }

    pub(crate) fn put_request(&mut self, request: Box<Request>) {
        self.request = Some(request);
    }
}

#[cold]
fn empty() -> Box<Request> {
    Box::new(Request::new(0))
}

impl Default for GetBatch {
    /// An empty batch, which has no memory before the first key is added.
    fn default() -> Self {
        Self { request: None }
    }
}

/// The pages of a batch on their way out. Those that are not taken are dropped with it.
struct TakenPages<'a> {
    request: &'a mut Request,
    next: usize,
}

impl Iterator for TakenPages<'_> {
    type Item = GotPage;

    #[inline]
    fn next(&mut self) -> Option<GotPage> {
        let Request { pages, misses, .. } = &mut *self.request;
        let index = self.next;
        let page = pages.get_mut(index)?;
        self.next = index + 1;
        // Taken in place: to move the whole page out of the batch would cost several times as much.
        let destination = page.destination.take();
        let result = match page.progress {
            Progress::Hit(found) => Ok(Hit { found }),
            Progress::Missed(number) => Err(why(misses, number)),
            _ => Err(GetMiss::Deadline),
        };
        Some(GotPage { index, destination, result })
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = self.request.pages.len() - self.next;
        (left, Some(left))
    }
}

/// The same without the results.
struct TakenDestinations<'a>(TakenPages<'a>);

impl Iterator for TakenDestinations<'_> {
    type Item = Destination;

    #[inline]
    fn next(&mut self) -> Option<Destination> {
        let TakenPages { request, next } = &mut self.0;
        loop {
            let page = request.pages.get_mut(*next)?;
            *next += 1;
            if let Some(destination) = page.destination.take() {
                return Some(destination);
            }
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (0, Some(self.0.request.pages.len() - self.0.next))
    }
}

#[cold]
fn why(misses: &[GetMiss], number: u32) -> GetMiss {
    misses.get(number as usize).cloned().unwrap_or(GetMiss::Deadline)
}

impl Drop for TakenPages<'_> {
    fn drop(&mut self) {
        self.request.clear();
    }
}

impl fmt::Debug for GetBatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GetBatch").field("keys", &self.len()).finish_non_exhaustive()
    }
}

/// Waits for a request to come back, until a moment after its deadline. `None`: it is given up, and
/// its destinations are given back when it comes.
pub(crate) fn wait_for(reply: &Reply, deadline: Time) -> Option<Box<Request>> {
    if let Some(request) = reply.take() {
        return Some(request);
    }
    reply.wake_me();
    let give_up = deadline + GRACE;
    loop {
        if let Some(request) = reply.take() {
            return Some(request);
        }
        let now = clock::now();
        if now >= give_up {
            reply.abandon();
            return None;
        }
        std::thread::park_timeout(std::time::Duration::from_nanos(give_up.since(now).0));
    }
}

/// A request has all of its results: settles its groups, and counts.
pub(crate) fn finish(shared: &Shared, request: &mut Request) -> GetCounts {
    request.settle_groups();
    let Tally { own, cache, directory, bytes } = request.tally;
    let hits = request.tally.hits();
    let missed = request.pages.len() - hits;
    count(shared, request, own.into(), (cache + directory).into(), bytes);
    let counters = &shared.counters;
    add(&counters.gets, 1);
    add(&counters.own_pool, own.into());
    add(&counters.cache, cache.into());
    add(&counters.directory, directory.into());
    if missed > 0 {
        count_misses(shared, request);
    }
    report_slow(shared, request, missed, bytes);
    GetCounts { hits, misses: missed }
}

#[cold]
fn count_misses(shared: &Shared, request: &Request) {
    let mut misses = [0_u64; GetMiss::REASONS];
    for page in &request.pages {
        if let Progress::Missed(number) = page.progress
            && let Some(why) = request.misses.get(number as usize)
        {
            misses[why.reason()] += 1;
            shared.metrics.miss(why.into());
        }
    }
    shared.counters.misses.iter().zip(misses).for_each(|(counter, more)| add(counter, more));
}

/// Counts a request for Prometheus: a few additions for a batch, whatever its pages.
fn count(shared: &Shared, request: &Request, own: u64, read: u64, bytes: u64) {
    let metrics = &shared.metrics;
    metrics.get(request.pages.len() as u64);
    if own > 0 {
        metrics.local_hits(own);
    }
    if read > 0 {
        metrics.hits(read, bytes, clock::now().since(request.times.taken).0);
    }
}

/// Logs a request that took long, and where its time went.
fn report_slow(shared: &Shared, request: &Request, misses: usize, bytes: u64) {
    if !shared.slow.is_on() {
        return;
    }
    let Times { queued, taken, connected, directory, .. } = request.times;
    let (nanos, since) = (std::time::Duration::from_nanos, |to: Time, from: Time| to.since(from).0);
    let now = clock::now();
    let reading = taken.max(connected);
    let spent = TimeSpent {
        queue: nanos(since(taken, queued)),
        directory: nanos(directory),
        connect: nanos(since(connected, taken)),
        read: nanos(if reading == Time::ZERO { 0 } else { since(now, reading) }),
    };
    let pages = u32::try_from(request.pages.len()).unwrap_or(u32::MAX);
    let misses = u32::try_from(misses).unwrap_or(u32::MAX);
    if shared.slow.request(&SlowRequest { pages, misses, bytes }, &spent) {
        shared.metrics.slow_request();
    }
}

/// A `get` that is under way: [`Node::begin_get`](crate::Node::begin_get). Dropping it gives it up:
/// its destinations are free again when nothing writes into them any more.
#[must_use = "a get that is dropped is given up"]
pub struct GetHandle {
    pub(crate) shared: Arc<Shared>,
    /// Where the request comes back; `None` once it has, or was given up.
    pub(crate) reply: Option<Arc<Reply>>,
    pub(crate) deadline: Time,
    pub(crate) keys: usize,
    pub(crate) done: Option<(GetBatch, GetCounts)>,
}

impl GetHandle {
    /// Whether all results are there. They are soon after the deadline at the latest.
    pub fn poll(&mut self) -> bool {
        if let Some(reply) = &self.reply {
            if let Some(request) = reply.take() {
                self.finished(request);
            } else if clock::now() >= self.deadline + GRACE {
                reply.abandon();
                self.finished(Box::new(Request::lost(self.keys, &GetMiss::Deadline)));
            }
        }
        self.done.is_some()
    }

    /// Sleeps until all results are there, or until `until`. Returns whether they are.
    pub fn wait(&mut self, until: Instant) -> bool {
        if let Some(reply) = &self.reply {
            reply.wake_me();
        }
        loop {
            if self.poll() {
                return true;
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            let give_up = (self.deadline + GRACE).since(clock::now()).0;
            std::thread::park_timeout(left.min(std::time::Duration::from_nanos(give_up.max(1))));
        }
    }

    /// The batch with its results, once they are there.
    ///
    /// # Errors
    ///
    /// The handle, if they are not.
    pub fn finish(mut self) -> Result<(GetBatch, GetCounts), Self> {
        if !self.poll() {
            return Err(self);
        }
        self.done.take().ok_or(self)
    }

    fn finished(&mut self, mut request: Box<Request>) {
        // The reply is the batch's again, which may be used once more.
        self.reply = None;
        let counts = finish(&self.shared, &mut request);
        self.done = Some((GetBatch { request: Some(request) }, counts));
    }
}

impl Drop for GetHandle {
    fn drop(&mut self) {
        if let Some(reply) = &self.reply {
            reply.abandon();
        }
    }
}

impl fmt::Debug for GetHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GetHandle")
            .field("keys", &self.keys)
            .field("done", &self.done.is_some())
            .finish_non_exhaustive()
    }
}
