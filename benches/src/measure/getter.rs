//! The process that gets pages by their keys, as an inference engine does: callers, each a thread,
//! hand batches of keys to a node and wait for the pages.

use std::collections::VecDeque;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use kvrail::{PageLayout, clock, memory};
use kvrail_node::{Destination, Destinations, GetBatch, GetMiss, Key, Node, NodeConfig};

use crate::catalogue::NamedLayout;
use crate::cli::common::{ReadOrder, Verify};
use crate::cli::rails::Rails;
use crate::measure::clock::sleep_until;
use crate::measure::directory;
use crate::measure::keys::PageKeys;
use crate::measure::metrics::{Metrics, serve_metrics};
use crate::measure::node::{Over, Started};
use crate::measure::schedule::Schedule;
use crate::measure::window::{Count, Counter, Failed, Recorder, Sample, Span};
use crate::measure::worker::{resident_bytes, share, wanted};
use crate::measure::{pattern, place};
use crate::process::protocol::{GetterSetup, Order, Ready, Reply, Verified, receive, send};

/// How long a batch may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long the directory may take to be reached, and to know the pages.
const FIND: Duration = Duration::from_secs(10);
/// The least and the most records of a cache: 4 MiB and 64 MiB.
const CACHE_RECORDS: [usize; 2] = [1 << 16, 1 << 20];
/// Records of a cache for each page. It has buckets of four, none of which may get five keys, or
/// these would push each other out: with a key in every fourth bucket hardly any does.
const RECORDS_OF_A_PAGE: usize = 16;

/// Records of the cache of a reader that gets so many pages; `None`: their number is
/// not known.
pub(crate) fn cache_records(pages: Option<u64>) -> usize {
    let [least, most] = CACHE_RECORDS;
    let pages = pages.map_or(most, |pages| usize::try_from(pages).unwrap_or(most));
    pages.saturating_mul(RECORDS_OF_A_PAGE).clamp(least, most)
}

/// The getter's main function.
pub(crate) fn child(setup: &GetterSetup) -> anyhow::Result<()> {
    let worker = &setup.worker;
    let named = NamedLayout::find(&worker.layout)
        .with_context(|| format!("no layout is called {}", worker.layout))?;
    let started = start(setup, named.layout)?;
    let metrics = setup.metrics.map(|address| serve_metrics(address, started.node.metrics())).transpose()?;
    let keys = shared_keys(setup, &started.node, named.layout)?;
    let page_bytes = named.layout.page_bytes() as usize;
    let batch = usize::from(worker.batch).min(keys.len());
    let callers = usize::from(worker.concurrency);
    // As many places as pages, as a reader by locations has them.
    let places = if setup.exists { 0 } else { keys.len().max(batch * callers) };
    send(&Reply::Connected { host_bytes: (places * page_bytes) as u64 })?;
    match receive()? {
        Some(Order::Register) => {}
        Some(order) => bail!("a getter registers its memory first, and was told: {order:?}"),
        None => return Ok(()),
    }
    let places = match places {
        0 => None,
        places => Some(started.node.register(&named.layout, memory::leaked(places * page_bytes)?)?),
    };
    let alone = worker.alone && callers == 1;
    let schedule = Schedule::new(worker.load, callers);
    let callers = (0..callers).map(|number| Caller {
        next: number * keys.len() / callers,
        batch: GetBatch::with_capacity(batch),
        asked: Vec::with_capacity(batch),
        destinations: take_share(places.as_ref(), number, callers),
        recorder: Recorder::new(alone),
        schedule,
    });
    let mut counter = Counter::new();
    let mut getter =
        Getter { callers: callers.collect(), node: &started.node, keys, batch, verify: worker.verify };
    send(&Reply::Ready(Ready {
        transport: started.label.clone(),
        rails: started.rails.clone(),
        chunk_bytes: started.chunk_bytes,
        pages: getter.keys.len() as u32,
        metrics: metrics.as_ref().map(Metrics::address),
    }))?;
    while let Some(order) = receive()? {
        let reply = match order {
            Order::Round { start, warmup, duration, .. } => {
                Reply::Ran(getter.round(start, warmup, duration)?)
            }
            Order::Count(span) => {
                let count = counter.count(getter.callers.iter().map(|caller| &caller.recorder), span);
                Reply::Counted(Count { resident: resident_bytes(), ..count })
            }
            Order::Verify => Reply::Verified(getter.verify()?),
            Order::Register | Order::Churn(_) => {
                bail!("a getter registers its memory once, and was told: {order:?}")
            }
        };
        send(&reply)?;
        if let Reply::Counted(count) = reply {
            counter.give_back(count);
        }
    }
    Ok(())
}

fn start(setup: &GetterSetup, layout: PageLayout) -> anyhow::Result<Started> {
    let worker = &setup.worker;
    let name = format!("kvrail-bench-{}", std::process::id()).parse()?;
    let key = worker.key.peer_key()?;
    // It publishes nothing, so one rail is enough.
    let publish = match &worker.rails {
        Rails::Count(_) => Rails::Count(1),
        ports @ Rails::Ports(_) => ports.clone(),
    };
    let over = Over {
        transport: worker.transport,
        listen: "127.0.0.1:0",
        publish: &publish,
        read: &worker.rails,
        verbs: &worker.verbs,
        lanes_per_rail: worker.lanes_per_rail,
        chunk_bytes: worker.chunk_bytes,
    };
    let directory = directory::of_reader(&setup.directory, &key, name, layout, &over)?;
    let config = NodeConfig::new(name, key)
        .layout(layout)
        .directory(directory)
        .cache(setup.cache_records, setup.dir_cache)
        .readers(setup.readers.into())
        .batch_pages(worker.batch.into());
    over.start(config)
}

/// The keys of this process's pages.
fn shared_keys(setup: &GetterSetup, node: &Node, layout: PageLayout) -> anyhow::Result<Vec<Key>> {
    let keys = PageKeys::of(&layout)?;
    let page_bytes = layout.page_bytes();
    let pages = match setup.worker.working_set {
        Some(bytes) => ((bytes / u64::from(page_bytes)) as usize).max(1),
        None => published(node, &keys)?,
    };
    let mut numbers: Vec<_> = share(wanted(pages, &setup.worker, page_bytes), &setup.worker).collect();
    if setup.worker.order == ReadOrder::Shuffled {
        pattern::shuffle(&mut numbers);
    }
    numbers.into_iter().map(|number| keys.key(number as u64)).collect()
}

/// How many pages the directory knows: their numbers are 0 and those that follow.
fn published(node: &Node, keys: &PageKeys) -> anyhow::Result<usize> {
    let until = Instant::now() + FIND;
    let known = |numbers: &[u64]| -> anyhow::Result<Vec<bool>> {
        let keys = numbers.iter().map(|&number| keys.key(number)).collect::<Result<Vec<_>, _>>()?;
        loop {
            let found = node.exists(&keys, until);
            if found.unknown.count() == 0 {
                return Ok((0..keys.len()).map(|at| found.present.get(at)).collect());
            }
            if Instant::now() >= until {
                bail!(
                    "the directory did not answer within {FIND:?}: is `kvrail-bench serve` running, with the same --directory and key?"
                );
            }
            thread::sleep(Duration::from_millis(50));
        }
    };
    // Numbers are u32.
    let doubled: Vec<u64> = (0..32).map(|bit| 1 << bit).collect();
    let (mut there, mut absent) = (0, 1 << 32);
    if !known(&[0])?[0] {
        bail!(
            "the directory knows no page of this layout: start `kvrail-bench serve` with the same --directory and --layout"
        );
    }
    for (number, known) in doubled.iter().zip(known(&doubled)?) {
        if known && *number > there {
            there = *number;
        } else if !known {
            absent = absent.min(*number);
        }
    }
    while there + 1 < absent {
        let middle = there.midpoint(absent);
        if known(&[middle])?[0] { there = middle } else { absent = middle }
    }
    Ok(there as usize + 1)
}

/// The places of one caller of several.
fn take_share(places: Option<&Destinations>, number: usize, callers: usize) -> VecDeque<Destination> {
    let Some(places) = places else { return VecDeque::new() };
    let count = places.count() as usize;
    (number * count / callers..(number + 1) * count / callers)
        .filter_map(|at| places.take(at as u32))
        .collect()
}

/// A thread that gets pages.
struct Caller {
    /// The index of the key that is asked for next.
    next: usize,
    batch: GetBatch,
    asked: Vec<Key>,
    /// A queue, so that destinations take turns as sources do.
    destinations: VecDeque<Destination>,
    recorder: Recorder,
    schedule: Schedule,
}

struct Getter<'a> {
    callers: Vec<Caller>,
    node: &'a Node,
    keys: Vec<Key>,
    /// Keys of a batch.
    batch: usize,
    verify: Verify,
}

impl Getter<'_> {
    /// The timed part: every caller gets batches until the end of the window.
    fn round(&mut self, start: u64, warmup: u64, duration: u64) -> anyhow::Result<Span> {
        let window = Span { from: start + warmup, to: start + warmup + duration };
        let (node, keys, batch) = (self.node, &self.keys[..], self.batch);
        let spans = thread::scope(|scope| {
            let mut threads = Vec::with_capacity(self.callers.len());
            let callers = self.callers.len();
            for (number, caller) in self.callers.iter_mut().enumerate() {
                caller.recorder.start(window);
                caller.schedule.start(start, number, callers);
                let work = move || {
                    sleep_until(start);
                    let began = clock::now().0;
                    while clock::now().0 < window.to {
                        // The window may end before the next call should begin.
                        let next = caller.schedule.next().map(|at| at.min(window.to));
                        next.into_iter().for_each(sleep_until);
                        let Some(began) = caller.schedule.begin(clock::now().0) else { continue };
                        caller.call(node, keys, batch, began)?;
                    }
                    anyhow::Ok(caller.recorder.finish(began, clock::now().0))
                };
                let spawned = thread::Builder::new().name("bench-get".into()).spawn_scoped(scope, work);
                threads.push(spawned.context("cannot start a thread that gets pages")?);
            }
            let joined = threads.into_iter().map(|thread| {
                thread.join().map_err(|_| anyhow::anyhow!("a thread that gets pages has panicked"))?
            });
            joined.collect::<anyhow::Result<Vec<_>>>()
        })?;
        Ok(Span::common(spans).unwrap_or(Span { from: window.to, to: window.to }))
    }

    /// Gets every n-th page once and compares it with what the producer wrote.
    fn verify(&mut self) -> anyhow::Result<Verified> {
        let mut verified = Verified::default();
        let (Some(step), Some(caller)) = (self.verify.step(), self.callers.first_mut()) else {
            return Ok(verified);
        };
        if caller.destinations.is_empty() {
            return Ok(verified);
        }
        let keys: Vec<_> = self.keys.iter().copied().step_by(step).collect();
        let batch = self.batch.min(caller.destinations.len());
        for keys in keys.chunks(batch) {
            for &key in keys {
                let mut to =
                    caller.destinations.pop_front().context("no place is free, although nothing is got")?;
                // It may hold the requested page already, from the timed part.
                place::wipe(&mut to)?;
                caller.batch.read(key, to);
            }
            self.node.get(&mut caller.batch, Instant::now() + PATIENCE);
            for page in caller.batch.take_pages() {
                let to = page.destination.context("a page did not come, and its place is still in use")?;
                if page.result.is_err() {
                    verified.missing += 1;
                } else {
                    verified.compared += 1;
                    let checked = place::check(&to, keys[page.index])?;
                    verified.wrong += u64::from(checked.is_err());
                }
                caller.destinations.push_back(to);
            }
        }
        Ok(verified)
    }
}

impl Caller {
    /// Gets one batch, or asks which of its keys exist if there is no memory for pages. `began` is
    /// when it should have begun.
    fn call(&mut self, node: &Node, keys: &[Key], batch: usize, began: u64) -> anyhow::Result<()> {
        let exists = self.destinations.is_empty();
        self.asked.clear();
        for _ in 0..batch {
            let key = keys[self.next];
            self.next = if self.next + 1 == keys.len() { 0 } else { self.next + 1 };
            if exists {
                self.asked.push(key);
            } else {
                let to = self.destinations.pop_front().context("the place of a late page is still in use")?;
                self.batch.read(key, to);
            }
        }
        let deadline = Instant::now() + PATIENCE;
        let mut failed = Failed::default();
        let pages = if exists {
            let found = node.exists(&self.asked, deadline);
            let (present, unknown) = (found.present.count() as u32, found.unknown.count() as u32);
            (failed.directory, failed.miss) = (unknown, batch as u32 - present - unknown);
            present
        } else {
            node.get(&mut self.batch, deadline).hits as u32
        };
        let at = clock::now().0;
        if !exists {
            for page in self.batch.take_pages() {
                if let Err(miss) = page.result {
                    *reason(&mut failed, &miss) += 1;
                }
                self.destinations.extend(page.destination);
            }
        }
        self.recorder.record(&Sample { at, took: at - began, pages, failed });
        Ok(())
    }
}

/// The count that a miss belongs to.
const fn reason<'a>(failed: &'a mut Failed, miss: &GetMiss) -> &'a mut u32 {
    match miss {
        GetMiss::NoOwner | GetMiss::NotStored | GetMiss::Stale(_) | GetMiss::Restarted { .. } => {
            &mut failed.miss
        }
        GetMiss::NoPool { .. } | GetMiss::NoSlot { .. } => &mut failed.miss,
        GetMiss::Directory(_) => &mut failed.directory,
        GetMiss::Deadline => &mut failed.deadline,
        GetMiss::Unreachable { .. } | GetMiss::OwnerLost { .. } => &mut failed.peer_gone,
        // `Layout`, `Read`, and what later versions add.
        _ => &mut failed.fault,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cache_has_room_for_its_keys_and_not_more_than_that() {
        let of = |pages| cache_records(Some(pages));
        assert_eq!([of(0), of(119), of(12_788), of(u64::MAX)], [1 << 16, 1 << 16, 204_608, 1 << 20]);
        assert_eq!(cache_records(None), 1 << 20);
    }
}
