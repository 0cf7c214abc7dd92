//! What kvrail takes of the processors while it has nothing to do, and how soon it begins again.
//!
//! ```text
//! cargo run --release -p kvrail-node --example idle [SECONDS [ROUNDS [READERS/PRODUCERS]]]
//! ```
//!
//! One process has a publisher, a reader that is connected to it over two rails of shared memory,
//! and two nodes: one keeps the embedded directory and a pool, the other has got pages from it.
//! Where it was built with the feature `verbs`, the third argument names RDMA devices instead,
//! those of the readers and those of the producers: `ra0,ra1/rb0,rb1` in the guest of
//! docs/softroce.md. First all of them are idle for so many seconds (10). Prints, for each thread,
//! the share of a core and how often it slept a second. Fails above 1 % of a core for all of them
//! together.
//!
//! Then a request, of one page of 2,304 bytes, meets a reader that sleeps, so many times (2,000).
//! Prints percentiles of the time from `submit` until the reader's thread has taken the batch, and
//! until the submitter, which sleeps meanwhile, has the page. The same for `begin_get` of a key
//! whose record is cached, until the caller has the page.

use std::error::Error;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Wake, Waker};
use std::thread::{Builder, Thread};
use std::time::{Duration, Instant};

use kvrail::core::hub::Outcome;
use kvrail::session::TagSecret;
#[cfg(feature = "verbs")]
use kvrail::verbs;
use kvrail::{
    Bf16, Config, KeyTag, KvLayout, Location, PageLayout, Peer, PeerKey, Publisher, PublisherTransport,
    ReaderTransport, Slot, Storage, Submitter, clock, engine, memory, shm,
};
use kvrail_node::{GetBatch, Key, KeySpace, Namespace, Node, NodeConfig};

mod threads;
use threads::Threads;

/// 8 tokens of one layer of a small MLA: 2,304 bytes.
#[derive(KvLayout)]
#[kv(order(token), tokens = 8)]
#[allow(dead_code, reason = "the fields say what a page is")]
struct Page {
    latent: [Bf16; 128],
    rope: [Bf16; 16],
}
const PAGE: PageLayout = PageLayout::of::<Page>();
const BYTES: usize = PAGE.page_bytes() as usize;

engine! {
    Reader { page: Page, max_rails: 2, max_peers: 1, max_batch: 1, max_batches: 4, max_submitters: 1 }
}
static STORAGE: Storage<Reader> = Storage::new();

/// All threads together may take one part of so many of one core.
const LIMIT: u32 = 100;
/// For how long everything is left alone before the times begin, and between two requests.
const SETTLE: Duration = Duration::from_secs(2);
const PAUSE: Duration = Duration::from_millis(2);
/// Until when a request must be answered.
const PATIENCE: Duration = Duration::from_secs(10);

type Failure = Box<dyn Error + Send + Sync>;

fn main() -> Result<(), Failure> {
    let mut arguments = std::env::args().skip(1).map(|argument| argument.parse::<u64>());
    let seconds = Duration::from_secs(arguments.next().unwrap_or(Ok(10))?);
    let rounds = arguments.next().unwrap_or(Ok(2_000))?;

    match std::env::args().nth(3).as_deref() {
        None => run(seconds, rounds, |_| Ok(shm::publish(2)), |_| Ok(shm::rails(2)?)),
        #[cfg(feature = "verbs")]
        Some(devices) => {
            let (readers, producers) = devices.split_once('/').ok_or("devices: READERS/PRODUCERS")?;
            let of = |side| if side == Side::Readers { readers } else { producers };
            run(seconds, rounds, |side| Ok(verbs::publish(of(side))?), |side| Ok(verbs::rails(of(side))?))
        }
        #[cfg(not(feature = "verbs"))]
        Some(_) => Err("RDMA devices need --features verbs".into()),
    }
}

/// Whose rails are wanted.
#[derive(Clone, Copy, PartialEq)]
enum Side {
    Readers,
    Producers,
}

fn run<P, R>(
    seconds: Duration,
    rounds: u64,
    publish: impl Fn(Side) -> Result<P, Failure>,
    rails: impl Fn(Side) -> Result<R, Failure>,
) -> Result<(), Failure>
where
    P: PublisherTransport,
    R: ReaderTransport<Provider: AsFd> + 'static,
    kvrail::Reader<R>: Send,
    Submitter<R>: Send,
{
    let key = PeerKey::from_bytes([4; 32]);
    let (name, anywhere) = ("producer".parse()?, "127.0.0.1:0".parse()?);
    let producer = Publisher::start(name, PAGE, 4, &anywhere, key.clone(), publish(Side::Producers)?)?;
    let location = producer.write(0, KeyTag(1), |bytes| bytes.fill(7))?;
    let mut reader = Reader::start(STORAGE.take()?, rails(Side::Readers)?, Config::default())?;
    let slot = reader.register(memory::leaked(BYTES)?)?.next().ok_or("a slot")?;
    let peer = reader.connect(&producer.local_addr().into(), &key)?;
    let submitter = reader.submitter().ok_or("a submitter")?;

    let config = NodeConfig::new("owner".parse()?, key.clone()).pool(PAGE, 4).embedded(Vec::new());
    let owner = Node::start(config, publish(Side::Producers)?, || rails(Side::Producers))?;
    let config = NodeConfig::new("getter".parse()?, key).layout(PAGE);
    let config =
        config.embedded(vec![owner.address().ok_or("an address")?]).cache(64, Duration::from_secs(3_600));
    let getter = Node::start(config, publish(Side::Readers)?, || rails(Side::Readers))?;
    let namespace = Namespace { model: "m".into(), layout: PAGE.fingerprint(), shape: "tp 1".into() };
    let page = KeySpace::new(&TagSecret::from_bytes([7; 32]), &namespace)?.key(b"a page")?;
    _ = owner.put(&PAGE, page, &[9; BYTES])?;
    owner.announcer().ok_or("an announcer")?.flush(Instant::now() + PATIENCE)?;

    let loop_state = LoopState::default();
    std::thread::scope(|scope| {
        let other = Builder::new().name("idle-requests".into()).spawn_scoped(scope, || {
            // Set before the submitter is dropped, which wakes the reader for the last time.
            let mut submitter = submitter;
            let _ending = Ending(&loop_state.stop);
            idle(seconds, &loop_state)?;
            ask_reader::<R>(&mut submitter, &peer, location, slot, rounds, &loop_state)?;
            ask_node(&getter, page, rounds)
        })?;
        // A loop as an application has it.
        while !loop_state.stop.load(Ordering::Acquire) {
            reader.wait(clock::within(Duration::from_secs(60)));
            loop_state.returns.fetch_add(1, Ordering::Relaxed);
            reader.poll();
            if reader.in_flight() > 0 {
                let now = clock::now().0;
                _ = loop_state.taken.compare_exchange(0, now, Ordering::Release, Ordering::Relaxed);
            }
        }
        other.join().map_err(|_| "the requesting thread panicked")?
    })
}

/// What the reader's loop tells and is told.
#[derive(Default)]
struct LoopState {
    stop: AtomicBool,
    /// How often `wait` has returned.
    returns: AtomicU64,
    /// When the loop saw a batch in flight, on the clock of [`clock::now`]; 0 before it did.
    taken: AtomicU64,
}

/// Ends the reader's loop when it is dropped, also by a panic.
struct Ending<'a>(&'a AtomicBool);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

fn idle(seconds: Duration, loop_state: &LoopState) -> Result<(), Failure> {
    std::thread::sleep(SETTLE);
    let (before, returns) = (Threads::now()?, loop_state.returns.load(Ordering::Relaxed));
    std::thread::sleep(seconds);
    let (threads, time) = Threads::now()?.since(&before);
    let returns = loop_state.returns.load(Ordering::Relaxed) - returns;
    println!("{:<16} {:>10} {:>10}", "idle thread", "% of core", "sleeps/s");
    let mut all = (Duration::ZERO, 0);
    for thread in threads {
        let (ran, sleeps) = (thread.ran, thread.sleeps);
        all = (all.0 + ran, all.1 + sleeps);
        row(&thread.name, ran, sleeps, time);
    }
    row("all", all.0, all.1, time);
    println!("`wait` of the reader returned {returns} times in {:.1} s", time.as_secs_f64());
    if all.0 > time / LIMIT { Err(format!("idle threads ran for {:?}", all.0).into()) } else { Ok(()) }
}

fn row(name: &str, ran: Duration, sleeps: u64, time: Duration) {
    let time = time.as_secs_f64();
    println!("{name:<16} {:>10.3} {:>10.1}", 100.0 * ran.as_secs_f64() / time, sleeps as f64 / time);
}

/// Wakes the thread that waits for an outcome.
struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

fn ask_reader<R: ReaderTransport>(
    submitter: &mut Submitter<R>,
    peer: &Peer,
    location: Location,
    mut slot: Slot,
    rounds: u64,
    loop_state: &LoopState,
) -> Result<(), Failure> {
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let (mut taken, mut arrived) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        std::thread::sleep(PAUSE);
        let mut batch = submitter.batch().ok_or("a batch")?;
        batch.read(peer.page(location)?, slot).map_err(|(error, _)| error)?;
        loop_state.taken.store(0, Ordering::Relaxed);
        let start = clock::now();
        submitter.submit(batch, clock::within(PATIENCE)).map_err(|error| error.to_string())?;
        let mut done = loop {
            match submitter.next_outcome() {
                Some(Outcome::Done(done)) => break done,
                Some(other) => return Err(format!("{other:?}").into()),
                None if submitter.prepare_sleep(&waker) => std::thread::park_timeout(PATIENCE),
                None => {}
            }
        };
        arrived.push(clock::now().since(start).0);
        // Where the page had arrived before the loop looked, no batch was in flight any more.
        match loop_state.taken.load(Ordering::Acquire) {
            0 => {}
            at => taken.push(at - start.0),
        }
        let page = done.pages().next().ok_or("a page")?;
        page.result()?;
        slot = page.slot;
    }
    percentiles("submit to a sleeping reader, until it is taken", taken);
    percentiles("the same, until the page is there", arrived);
    Ok(())
}

fn ask_node(node: &Node, key: Key, rounds: u64) -> Result<(), Failure> {
    let places = node.register(&PAGE, memory::leaked(BYTES)?)?;
    let mut place = places.take_any();
    let mut batch = GetBatch::with_capacity(1);
    let mut arrived = Vec::new();
    for round in 0..=rounds {
        std::thread::sleep(PAUSE);
        batch.read(key, place.take().ok_or("a destination")?);
        let deadline = Instant::now() + PATIENCE;
        let start = Instant::now();
        let mut handle = node.begin_get(batch, deadline);
        if !handle.wait(deadline + PATIENCE) {
            return Err("a get lasted longer than its deadline".into());
        }
        let time = start.elapsed();
        let Ok((got, counts)) = handle.finish() else { return Err("it was done".into()) };
        if counts.misses > 0 {
            return Err(format!("{:?}", got.results().find_map(Result::err)).into());
        }
        // The first get looks the key up and connects.
        if round > 0 {
            arrived.push(time.as_nanos() as u64);
        }
        batch = got;
        place = batch.take_destinations().next();
    }
    percentiles("begin_get at a sleeping node, until the page is there", arrived);
    Ok(())
}

fn percentiles(what: &str, mut times: Vec<u64>) {
    times.sort_unstable();
    let at = |percent: usize| times[(times.len() * percent / 100).min(times.len() - 1)] as f64 / 1_000.0;
    if times.is_empty() {
        println!("{what}: never seen");
    } else {
        println!("{what}: p50 {:.1} us, p99 {:.1} us, {} times", at(50), at(99), times.len());
    }
}
