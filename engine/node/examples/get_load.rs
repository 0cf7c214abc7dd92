//! Many threads that call `get`, open loop, at half of the capacity: do any wait for long, and does
//! each get its share?
//!
//! ```text
//! cargo run --release -p kvrail-node --example get_load [THREADS [SECONDS [KEYS [ROUNDS]]]]
//! ```
//!
//! First all threads (64) get batches (32 cached keys of 2,304 bytes) as fast as they can: that is
//! the capacity. Then each begins a batch at fixed times that together are half of it, whether its
//! earlier ones were late or not; a batch's latency counts from the time at which it should have
//! begun. Prints percentiles, and the slowest thread's throughput at capacity over the fastest's.
//!
//! Then the same load without kvrail: the threads sleep and wake at the same times, and give a
//! number to one thread, which computes for as long as a batch took at capacity and wakes them.
//! What is late there is late because of the processors and the kernel. The two take turns, and
//! each says how much of the processors other programs had meanwhile: a round with much of that
//! says nothing.

use std::error::Error;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Barrier, mpsc};
use std::thread::Thread;
use std::time::{Duration, Instant};

use kvrail::session::TagSecret;
use kvrail::{Bf16, KvLayout, PageLayout, PeerKey, memory, shm};
use kvrail_node::{
    Destination, Destinations, Directory, GetBatch, Key, KeySpace, Namespace, Node, NodeConfig,
};

mod common;
use common::MapDirectory;

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
const PAGES: usize = 256;

type Failure = Box<dyn Error + Send + Sync>;

/// One calling thread.
struct Caller {
    held: Vec<Destination>,
    keys: Vec<Key>,
    batch: GetBatch,
}

impl Caller {
    fn new(places: &Destinations, keys: Vec<Key>) -> Self {
        let held = keys.iter().filter_map(|_| places.take_any()).collect();
        Self { held, batch: GetBatch::with_capacity(keys.len()), keys }
    }

    fn get(&mut self, node: &Node) {
        for &key in &self.keys {
            self.batch.read(key, self.held.pop().expect("a destination"));
        }
        let counts = node.get(&mut self.batch, Instant::now() + Duration::from_secs(10));
        assert_eq!(counts.misses, 0, "{:?}", self.batch.results().find_map(Result::err));
        self.held.extend(self.batch.take_destinations());
    }
}

fn main() -> Result<(), Failure> {
    let mut arguments = std::env::args().skip(1).map(|argument| argument.parse::<usize>());
    let threads = arguments.next().unwrap_or(Ok(64))?;
    let seconds = Duration::from_secs(arguments.next().unwrap_or(Ok(5))? as u64);
    let keys_per_batch = arguments.next().unwrap_or(Ok(32))?;
    let rounds = arguments.next().unwrap_or(Ok(3))?;
    let peer_key = PeerKey::from_bytes([4; 32]);
    let directory = Arc::new(MapDirectory::default());
    let config = NodeConfig::new("owner".parse()?, peer_key.clone()).pool(PAGE, PAGES as u32);
    let config = config.directory(Arc::clone(&directory) as Arc<dyn Directory>);
    let owner = Node::start(config, shm::publish(1), || shm::rails(1))?;
    let namespace = Namespace { model: "m".into(), layout: PAGE.fingerprint(), shape: "tp 1".into() };
    let space = KeySpace::new(&TagSecret::from_bytes([7; 32]), &namespace)?;
    let mut keys = Vec::new();
    for number in 0..PAGES as u64 {
        keys.push(space.key(&number.to_le_bytes())?);
        let _ = owner.put(&PAGE, keys[number as usize], &[number as u8; BYTES])?;
    }
    owner.announcer().ok_or("no announcer")?.flush(Instant::now() + Duration::from_secs(5))?;
    let config = NodeConfig::new("reader".parse()?, peer_key).layout(PAGE);
    let config = config.directory(directory).cache(1 << 16, Duration::from_secs(36_000));
    let node = Node::start(config, shm::publish(1), || shm::rails(1))?;
    let places = node.register(&PAGE, memory::leaked(threads * keys_per_batch * BYTES)?)?;
    let callers = (0..threads).map(|thread| {
        let keys = (0..keys_per_batch).map(|n| keys[(thread * 7 + n) % PAGES]).collect();
        Caller::new(&places, keys)
    });
    let mut callers: Vec<_> = callers.collect();
    callers.iter_mut().for_each(|caller| caller.get(&node));

    // As fast as they can.
    let barrier = Barrier::new(threads);
    let counts: Vec<u64> = each(&mut callers, |caller, _| {
        barrier.wait();
        let until = Instant::now() + seconds;
        let mut count = 0;
        while Instant::now() < until {
            caller.get(&node);
            count += 1;
        }
        count
    });
    let capacity = counts.iter().sum::<u64>() as f64 / seconds.as_secs_f64();
    let (least, most) = (counts.iter().min().unwrap_or(&0), counts.iter().max().unwrap_or(&1));
    println!(
        "{threads} threads, {keys_per_batch} keys a batch: {capacity:.0} batches/s, {:.0} keys/s; slowest thread {:.2} of the fastest",
        capacity * keys_per_batch as f64,
        *least as f64 / *most as f64
    );

    // Open loop, at half of that.
    let between = Duration::from_secs_f64(threads as f64 / (capacity / 2.0));
    let stand_in = StandIn::start(Duration::from_secs_f64(1.0 / capacity));
    for _ in 0..rounds {
        open_loop("get", &mut callers, (between, seconds), |caller| caller.get(&node));
        open_loop("without kvrail", &mut callers, (between, seconds), |_| stand_in.call());
    }
    Ok(())
}

/// Has each caller do `work` at fixed times, and prints how late the ends were.
fn open_loop(
    what: &str,
    callers: &mut [Caller],
    (between, seconds): (Duration, Duration),
    work: impl Fn(&mut Caller) + Sync,
) {
    let threads = callers.len();
    let barrier = Barrier::new(threads);
    let before = Ticks::now();
    let mut latencies: Vec<Duration> = each(callers, |caller, thread| {
        barrier.wait();
        let began = Instant::now();
        let mut latencies = Vec::new();
        for n in 0.. {
            // Threads begin one after the other, not all at once.
            let due = began + between.mul_f64(n as f64 + thread as f64 / threads as f64);
            if due >= began + seconds {
                break;
            }
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            work(caller);
            latencies.push(due.elapsed());
        }
        latencies
    })
    .concat();
    let others = Ticks::now().others_since(&before);
    latencies.sort_unstable();
    let at = |percent: usize| latencies[(latencies.len() - 1) * percent / 100].as_micros();
    println!(
        "at half of it, {what}: {} batches, p50 {} us, p95 {} us, p99 {} us, longest {} us; p99 is {:.1} times p50; others {others:.0} %",
        latencies.len(),
        at(50),
        at(95),
        at(99),
        at(100),
        at(99) as f64 / at(50).max(1) as f64
    );
}

/// What the kernel says of the processors' time, in its own unit.
struct Ticks {
    /// Of all processors together, and the part in which they had nothing to do.
    all: u64,
    idle: u64,
    /// Of this process.
    own: u64,
}

impl Ticks {
    /// The numbers of now; zeros where the kernel does not say them.
    fn now() -> Self {
        let numbers = |text: &str| -> Vec<u64> {
            // Some that are not of interest are negative, and keep their places.
            let words = text.split_whitespace().filter_map(|word| word.parse::<i64>().ok());
            words.map(|number| u64::try_from(number).unwrap_or(0)).collect()
        };
        let machine = std::fs::read_to_string("/proc/stat").unwrap_or_default();
        let machine = numbers(machine.lines().next().unwrap_or_default());
        let own = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
        // Behind the name, which may be anything, and the letter of the state.
        let own = numbers(own.rsplit_once(") ").map_or("", |(_, rest)| rest));
        let at = |numbers: &[u64], place: usize| numbers.get(place).copied().unwrap_or(0);
        // The guests' time, behind the first eight, is in the users' already.
        Self {
            all: machine.iter().take(8).sum(),
            idle: at(&machine, 3) + at(&machine, 4),
            own: at(&own, 10) + at(&own, 11),
        }
    }

    /// What other programs had since then, in percent of all processors.
    fn others_since(&self, before: &Self) -> f64 {
        let all = self.all - before.all;
        let mine = self.own - before.own + self.idle - before.idle;
        100.0 * all.saturating_sub(mine) as f64 / all.max(1) as f64
    }
}

/// One thread that computes for others, and wakes them.
struct StandIn {
    calls: mpsc::Sender<(Thread, Arc<AtomicBool>)>,
}

impl StandIn {
    fn start(work: Duration) -> Self {
        let (calls, taken) = mpsc::channel::<(Thread, Arc<AtomicBool>)>();
        std::thread::spawn(move || {
            while let Ok((caller, done)) = taken.recv() {
                let begun = Instant::now();
                while begun.elapsed() < work {}
                done.store(true, Ordering::Release);
                caller.unpark();
            }
        });
        Self { calls }
    }

    fn call(&self) {
        let done = Arc::new(AtomicBool::new(false));
        // The thread lives as long as this.
        let _ = self.calls.send((std::thread::current(), Arc::clone(&done)));
        while !done.load(Ordering::Acquire) {
            std::thread::park();
        }
    }
}

/// Has each caller do `work` in a thread of its own.
fn each<R: Send>(callers: &mut [Caller], work: impl Fn(&mut Caller, usize) -> R + Sync) -> Vec<R> {
    std::thread::scope(|scope| {
        let work = &work;
        let run = |(thread, caller)| scope.spawn(move || work(caller, thread));
        let running: Vec<_> = callers.iter_mut().enumerate().map(run).collect();
        running.into_iter().map(|thread| thread.join().expect("no caller panics")).collect()
    })
}
