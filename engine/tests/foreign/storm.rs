//! Pools that come and go over the same memory, and readers that keep handles and locations of all
//! of them, withdraw what they read, change its class, hang up and connect again. A page is right
//! or it is an error, and every slot comes back.
//!
//! `KVRAIL_STRESS_SECONDS=60` runs for a minute. How long it runs decides only how much is tried.

use std::collections::{BTreeMap, HashMap};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use kvrail::core::batch::{Class, Ticket};
use kvrail::core::time::Nanos;
use kvrail::session::PoolId;
use kvrail::{
    Config, ForeignMemory, ForeignPool, ForeignRegion, KeyTag, Location, MakeLanes, PageError, PageLayout,
    Peer, PeerPool, Publisher, Reader, ReaderEvent, ReaderTransport, Slot, clock, memory, shm, tcp,
};

use super::rig::{BESIDE, BLOCK, EngineMemory, INDEX, LATENT, key, pool, publisher};

const LIMIT: Duration = Duration::from_secs(120);
const BLOCKS: u64 = 12;
const LAYOUTS: [PageLayout; 2] = [LATENT, INDEX];
/// Slots of each layout that a reader has.
const SLOTS: usize = 16;

struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % limit
    }

    fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }
}

/// A page that was published, and the byte that it consists of.
#[derive(Clone, Copy)]
struct Published {
    pool: PoolId,
    layout: usize,
    location: Location,
    byte: u8,
}

/// What the threads share.
#[derive(Default)]
struct Known {
    published: Mutex<Vec<Published>>,
    over: AtomicBool,
}

struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// An engine whose pools come and go.
struct Engine<'a> {
    publisher: &'a Publisher,
    memory: &'a EngineMemory,
    foreign: ForeignMemory,
    known: &'a Known,
    random: Random,
    /// The pools: layout, first block and blocks.
    pools: BTreeMap<PoolId, (usize, u64, u64)>,
    byte: u8,
    tag: u128,
}

impl Engine<'_> {
    fn at(layout: usize, block: u64) -> u64 {
        block * BLOCK + if layout == 1 { BESIDE } else { 0 }
    }

    fn run(&mut self) {
        while !self.known.over.load(Ordering::Relaxed) {
            match self.random.below(400) {
                0..6 => self.add(),
                6..9 => self.withdraw(),
                _ => self.publish(),
            }
            if self.random.one_in(8) {
                std::thread::sleep(Duration::from_micros(300));
            }
        }
        while !self.pools.is_empty() {
            self.withdraw();
        }
    }

    fn add(&mut self) {
        let (layout, first) = (self.random.below(2), self.random.below(BLOCKS as usize - 2) as u64);
        let blocks = 1 + self.random.below((BLOCKS - first) as usize) as u64;
        let taken =
            |&(of, from, n): &(usize, u64, u64)| of == layout && from < first + blocks && first < from + n;
        if self.pools.values().any(taken) {
            return;
        }
        let region = ForeignRegion::new(&self.foreign)
            .bytes(first * BLOCK..(first + blocks) * BLOCK)
            .stride(BLOCK)
            .offset(if layout == 1 { BESIDE } else { 0 });
        let id = self.publisher.add_foreign_pool(ForeignPool::new(LAYOUTS[layout]).region(region)).unwrap();
        self.pools.insert(id, (layout, first, blocks));
    }

    fn any(&mut self) -> Option<(PoolId, (usize, u64, u64))> {
        let at = self.random.below(self.pools.len().max(1));
        self.pools.iter().nth(at).map(|(&id, &of)| (id, of))
    }

    fn publish(&mut self) {
        let Some((pool, (layout, first, blocks))) = self.any() else { return };
        let slot = self.random.below(blocks as usize) as u32;
        let slots = self.publisher.pool(pool).unwrap().foreign().unwrap();
        self.byte = self.byte.wrapping_add(1);
        self.tag += 1;
        let guard = slots.overwrite(slot, KeyTag(self.tag)).unwrap();
        let bytes = u64::from(LAYOUTS[layout].page_bytes());
        self.memory.fill_at(Self::at(layout, first + u64::from(slot)), bytes, self.byte);
        if self.random.one_in(10) {
            return drop(guard);
        }
        let location = guard.publish();
        let mut published = self.known.published.lock().unwrap();
        if published.len() > 200 {
            published.drain(..100);
        }
        published.push(Published { pool, layout, location, byte: self.byte });
    }

    fn withdraw(&mut self) {
        let Some((pool, (layout, first, blocks))) = self.any() else { return };
        self.publisher.withdraw(pool, Instant::now() + LIMIT).unwrap();
        self.pools.remove(&pool);
        // The engine uses its memory for something else.
        let bytes = u64::from(LAYOUTS[layout].page_bytes());
        (first..first + blocks).for_each(|block| {
            self.memory.fill_at(Self::at(layout, block), bytes / 2, 0xEE);
            self.memory.fill_at(Self::at(layout, block) + bytes / 2, bytes - bytes / 2, 0xDD);
        });
    }
}

/// A page in flight: what it is, and whether it is joined to the page before.
type Flying = (Published, bool);

#[derive(Debug, Default)]
struct Counts {
    right: usize,
    errors: BTreeMap<&'static str, usize>,
    sessions: usize,
    pools: usize,
}

struct Storming<'a, N: ReaderTransport> {
    reader: Reader<N>,
    peer: Option<Peer>,
    publisher: &'a Publisher,
    known: &'a Known,
    random: Random,
    handles: HashMap<PoolId, PeerPool>,
    free: [Vec<Slot>; 2],
    flying: HashMap<Ticket, Vec<Flying>>,
    counts: Counts,
}

impl<N: ReaderTransport> Storming<'_, N> {
    fn connect(&mut self) {
        let peer = self.reader.connect_for(&self.publisher.local_addr().into(), key(), &LAYOUTS).unwrap();
        self.handles.extend(peer.pools().iter().map(|pool| (pool.id(), pool.clone())));
        self.peer = Some(peer);
        self.counts.sessions += 1;
    }

    fn events(&mut self) {
        while let Some(event) = self.reader.next_event() {
            match event {
                ReaderEvent::PoolCame { peer, pool } => {
                    if self.peer.as_ref().is_some_and(|of| of.id() == peer) {
                        self.handles.insert(pool.id(), pool);
                        self.counts.pools += 1;
                    }
                }
                ReaderEvent::PoolGone { .. } => {}
                // So many have come and gone: another session has places.
                ReaderEvent::PoolRefused { .. } => {
                    if let Some(peer) = self.peer.take() {
                        self.reader.disconnect(&peer);
                    }
                }
                other => panic!("{other:?}"),
            }
        }
    }

    fn submit(&mut self) {
        let pages: Vec<_> = {
            let published = self.known.published.lock().unwrap();
            let count = 1 + self.random.below(6);
            let recent = published.len().saturating_sub(if self.random.one_in(4) { 200 } else { 12 });
            let from = |random: &mut Random| recent + random.below((published.len() - recent).max(1));
            (0..count).filter_map(|_| published.get(from(&mut self.random)).copied()).collect()
        };
        let Some(mut batch) = self.reader.batch() else { return };
        let mut flying: Vec<Flying> = Vec::new();
        for page in pages {
            let Some(handle) = self.handles.get(&page.pool) else { continue };
            let Some(slot) = self.free[page.layout].pop() else { continue };
            let remote = handle.page(page.location).unwrap();
            let joins = !flying.is_empty() && self.random.one_in(3);
            let put = if joins { batch.join(remote, slot) } else { batch.read(remote, slot) };
            match put {
                Ok(()) => flying.push((page, joins)),
                Err((error, slot)) => panic!("{error} {slot:?}"),
            }
        }
        if self.random.one_in(2) {
            batch.report_pages();
        }
        if self.random.one_in(3) {
            batch.set_class(Class::Background);
        }
        let within = Duration::from_micros(200 << self.random.below(10));
        match self.reader.submit(batch, clock::within(within)) {
            Ok(ticket) => drop(self.flying.insert(ticket, flying)),
            Err(mut rejected) => {
                *self.counts.errors.entry("rejected").or_default() += 1;
                for (slot, (page, _)) in rejected.batch.clear().zip(flying) {
                    self.free[page.layout].push(slot);
                }
            }
        }
    }

    fn change(&mut self) {
        let at = self.random.below(self.flying.len().max(1));
        let Some(&ticket) = self.flying.keys().nth(at) else { return };
        let pages = self.flying[&ticket].len();
        let class = if self.random.one_in(2) { Class::Urgent } else { Class::Background };
        match self.random.below(6) {
            0 => _ = self.reader.withdraw(ticket),
            1 | 2 => _ = self.reader.withdraw_page(ticket, self.random.below(pages)),
            _ => _ = self.reader.set_class(ticket, class),
        }
    }

    fn landed(&mut self, page: Published, result: Result<(), PageError>, slot: Slot) {
        let what = match result {
            Ok(()) => {
                let bytes = slot.bytes().unwrap();
                assert!(bytes.iter().all(|&byte| byte == page.byte), "{:?}: a wrong page", page.location);
                self.counts.right += 1;
                "none"
            }
            Err(PageError::Miss(_)) => "miss",
            Err(PageError::PoolGone) => "pool gone",
            Err(PageError::PeerGone) => "peer gone",
            Err(PageError::Withdrawn) => "withdrawn",
            Err(PageError::Fault { .. }) => "fault",
            Err(PageError::SetAside { .. }) => "set aside",
            Err(PageError::Deadline { .. } | PageError::NoLane { .. }) => "late",
            Err(other) => panic!("{other}"),
        };
        *self.counts.errors.entry(what).or_default() += 1;
        self.free[page.layout].push(slot);
    }

    fn take(&mut self) {
        self.reader.poll();
        while let Some(arrival) = self.reader.next_arrival() {
            if self.random.one_in(2)
                && let Some(slot) = self.reader.take_slot(&arrival)
            {
                let page = self.flying[&arrival.ticket][arrival.page].0;
                self.landed(page, arrival.result, slot);
            }
        }
        while self.reader.next_overdue().is_some() {}
        while let Some(mut done) = self.reader.next_done() {
            let flying = self.flying.remove(&done.ticket()).unwrap();
            let results: Vec<_> = (0..done.len()).map(|at| done.result(at).unwrap().is_ok()).collect();
            for at in 1..results.len() {
                assert!(!flying[at].1 || results[at] == results[at - 1], "joined: {results:?}");
            }
            for page in done.pages() {
                self.landed(flying[page.index].0, page.result, page.slot);
            }
        }
        self.events();
    }

    fn run(mut self, until: Instant, right: usize) -> Counts {
        let begun = Instant::now();
        while Instant::now() < until || self.counts.right < right {
            assert!(begun.elapsed() < LIMIT, "{:?}", self.counts);
            if self.peer.is_none() {
                self.connect();
            }
            self.take();
            match self.random.below(400) {
                0 => {
                    // Whatever is in flight fails, and its slots come back.
                    if let Some(peer) = self.peer.take() {
                        self.reader.disconnect(&peer);
                    }
                    self.handles.retain(|_, _| self.random.one_in(2));
                }
                1..150 => self.submit(),
                150..200 => self.change(),
                _ => self.reader.wait(clock::now() + Nanos(100_000)),
            }
        }
        if let Some(peer) = self.peer.take() {
            self.reader.disconnect(&peer);
        }
        while !self.flying.is_empty() {
            assert!(begun.elapsed() < 2 * LIMIT, "{} batches do not come back", self.flying.len());
            self.take();
        }
        assert_eq!(self.free.each_ref().map(Vec::len), [SLOTS; 2], "slots are lost");
        self.counts
    }
}

fn storm<N: ReaderTransport>(publisher: &Publisher, rails: fn() -> N, seed: u64) {
    let memories = &[EngineMemory::of(BLOCKS), EngineMemory::of(BLOCKS)];
    let known = Known::default();
    std::thread::scope(|scope| {
        let _ends = Ends(&known.over);
        let known = &known;
        // Each has memory of its own, and they share the publisher.
        for (number, memory) in (0..).zip(memories) {
            let (foreign, random) = (memory.foreign(), Random(seed.rotate_left(number)));
            scope.spawn(move || {
                let (pools, byte, tag) = (BTreeMap::new(), 0, u128::from(number) << 64);
                Engine { publisher, memory, foreign, known, random, pools, byte, tag }.run();
            });
        }
        let readers = [1, 2].map(|number| {
            scope.spawn(move || {
                let rails = rails();
                let mut engine = rails.engine_config();
                // A pool that has gone is read again and again, and so are lanes made anew.
                engine.set_aside = Nanos::from_millis(5);
                engine.backoff_min = Nanos::from_millis(1);
                // One of them gives its lanes back all the time.
                let lanes = if number == 1 { MakeLanes::Auto } else { MakeLanes::OnDemand };
                let lane_idle = Duration::from_millis(1);
                let config = Config { engine: Some(engine), lanes, lane_idle, ..Config::default() };
                let mut reader = Reader::start(LATENT, rails, config).unwrap();
                reader.add_layout(&INDEX).unwrap();
                let free = LAYOUTS.each_ref().map(|layout| {
                    let memory = memory::leaked(SLOTS * layout.page_bytes() as usize).unwrap();
                    reader.register_for(layout, memory).unwrap().collect()
                });
                let random = Random(seed.rotate_left(number * 13) ^ 0x9E37_79B9);
                let (handles, flying, counts) = (HashMap::new(), HashMap::new(), Counts::default());
                let peer = None;
                let storming =
                    Storming { reader, peer, publisher, known, random, handles, free, flying, counts };
                let seconds = std::env::var("KVRAIL_STRESS_SECONDS").map_or(2, |text| text.parse().unwrap());
                storming.run(Instant::now() + Duration::from_secs(seconds), 50)
            })
        });
        for reader in readers {
            println!("{:?}", reader.join().unwrap());
        }
    });
}

/// Another seed in each run: the time of day.
fn seed() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let seed = now.as_nanos() as u64 | 1;
    println!("seed {seed}");
    seed
}

#[test]
fn handles_of_pools_that_are_gone_bring_no_wrong_page_and_lose_no_slot_over_shm() {
    let fixed = EngineMemory::of(1);
    let publisher = publisher(&[pool(LATENT, &fixed.foreign())], shm::publish(1)).unwrap();
    storm(&publisher, || shm::rails(1).unwrap(), seed());
}

#[test]
fn handles_of_pools_that_are_gone_bring_no_wrong_page_and_lose_no_slot_over_tcp() {
    let fixed = EngineMemory::of(1);
    let over = tcp::publish("127.0.0.1".parse().unwrap(), 2);
    let publisher = publisher(&[pool(LATENT, &fixed.foreign())], over).unwrap();
    storm(&publisher, || tcp::rails(2).unwrap(), seed());
}
