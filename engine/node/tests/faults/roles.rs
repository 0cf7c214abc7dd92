//! What the processes do. Each is this test program, started again with one test to run.

use std::io::BufRead as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use kvrail::{Address, shm};
use kvrail_node::{Destinations, GetBatch, Node, NodeConfig};

use crate::pages::{KEYS, LAYOUT, PAGE, key, page_of, peer_key};

/// The variable that has the role: `directory N`, `producer N` or `reader`.
pub(crate) const ROLE: &str = "KVRAIL_TEST_ROLE";
/// The variable that has the addresses of the nodes that keep the directory, with commas.
pub(crate) const DIRECTORY: &str = "KVRAIL_TEST_DIRECTORY";
/// What begins each line that a process has to say: the test harness prints, too.
pub(crate) const SAYS: &str = "it says ";
/// The deadline of every `get`.
pub(crate) const DEADLINE: Duration = Duration::from_millis(300);
/// Pages of a producer's pool: fewer than its keys, so that its slots are overwritten all the time.
const SLOTS: u32 = 48;
/// Classes of times: eight to each doubling, from 1,024 ns on.
pub(crate) const TIMES: usize = 8 * 26;
/// Pages of a batch, and places of a reading thread.
const BATCH: u64 = 8;
const PLACES: usize = 48;

/// The process of a role, until its standard input ends.
#[test]
#[ignore = "the processes that other tests start"]
fn process() {
    let Ok(role) = std::env::var(ROLE) else { return };
    match role.split_once(' ') {
        Some(("producer", number)) => produce(number.parse().unwrap()),
        Some(("directory", number)) => keep_directory(number.parse().unwrap()),
        None if role == "idle" => {
            say("ready");
            std::io::stdin().lock().lines().for_each(drop);
        }
        _ => read(),
    }
}

fn candidates() -> Vec<Address> {
    std::env::var(DIRECTORY).unwrap().split(',').map(|address| address.parse().unwrap()).collect()
}

fn config(name: &str) -> NodeConfig {
    NodeConfig::new(name.parse().unwrap(), peer_key()).layout(LAYOUT).embedded(candidates())
}

fn start(config: NodeConfig) -> Node {
    Node::start(config, shm::publish(1), || shm::rails(1)).unwrap()
}

fn say(text: impl std::fmt::Display) {
    println!("\n{SAYS}{text}");
}

fn keep_directory(number: usize) {
    let address = candidates().swap_remove(number);
    // A node that serves has a pool; this one has no page in it.
    let _node = start(config("directory").pool(LAYOUT, 1).listen(address));
    say("ready");
    std::io::stdin().lock().lines().for_each(drop);
}

fn produce(number: u64) {
    let node = start(config("producer").pool(LAYOUT, SLOTS));
    let put = |at: u64| {
        let key = key(number, at);
        let _ = node.put(&LAYOUT, key, &page_of(key)).unwrap();
    };
    (0..u64::from(SLOTS)).for_each(put);
    say("ready");
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for at in u64::from(SLOTS).. {
                put(at);
                std::thread::sleep(Duration::from_millis(1));
            }
        });
        // Standard input ends with the process that started this one.
        std::io::stdin().lock().lines().for_each(drop);
        std::process::exit(0);
    });
}

/// What a reading thread has done so far.
struct Counts {
    calls: AtomicU64,
    hits: AtomicU64,
    wrong: AtomicU64,
    /// By how many microseconds the latest call missed its deadline, without the time for which its
    /// thread waited for a processor.
    late: AtomicU64,
    /// Calls by the class of their time.
    times: [AtomicU64; TIMES],
}

impl Default for Counts {
    fn default() -> Self {
        let zero = || AtomicU64::new(0);
        let times = std::array::from_fn(|_| zero());
        Self { calls: zero(), hits: zero(), wrong: zero(), late: zero(), times }
    }
}

/// The class of a time.
fn class_of(time: Duration) -> usize {
    let nanos = (time.as_nanos() as u64).max(1 << 10);
    let doublings = nanos.ilog2();
    let eighth = (nanos >> (doublings - 3)) % 8;
    (8 * (doublings as usize - 10) + eighth as usize).min(TIMES - 1)
}

/// The time at which a class ends.
pub(crate) fn end_of_class(class: usize) -> Duration {
    Duration::from_nanos((9 + class as u64 % 8) << (class / 8 + 7))
}

impl Counts {
    fn took(&self, time: Duration, waited: Duration) {
        let late = time.saturating_sub(DEADLINE + waited).as_micros() as u64;
        self.late.fetch_max(late, Ordering::Relaxed);
        self.times[class_of(time)].fetch_add(1, Ordering::Relaxed);
        self.calls.fetch_add(1, Ordering::Relaxed);
    }

    fn say(&self) -> String {
        let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let Self { calls, hits, wrong, late, times } = self;
        let all = [calls, hits, wrong, late].into_iter().chain(times);
        all.map(|count| format!("{} ", of(count))).collect()
    }
}

/// How long the calling thread was ready to run and had no processor, since it began. On a machine
/// with much else to do this can be seconds, which say nothing of the node.
fn waited() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let nanos = text.split(' ').nth(1).and_then(|number| number.parse().ok());
    Duration::from_nanos(nanos.unwrap_or_default())
}

/// Gets the pages of one producer over and over.
fn get_for_ever(node: &Node, producer: u64, places: &Destinations, counts: &Counts) {
    let mut batch = GetBatch::default();
    let mut next = 0;
    loop {
        let mut asked = Vec::new();
        for _ in 0..BATCH {
            // Late pages may keep theirs for a while.
            let Some(mut place) = places.take_any() else { break };
            place.bytes_mut(0).unwrap().fill(0xEE);
            asked.push(key(producer, next));
            batch.read(key(producer, next), place);
            next = (next + 1) % KEYS;
        }
        let (began, waited) = (Instant::now(), waited());
        let got = node.get(&mut batch, began + DEADLINE);
        counts.took(began.elapsed(), self::waited() - waited);
        for page in batch.take_pages() {
            let right =
                |place: kvrail_node::Destination| place.bytes(0) == Some(&page_of(asked[page.index])[..]);
            if page.result.is_ok() && !page.destination.is_some_and(right) {
                counts.wrong.fetch_add(1, Ordering::Relaxed);
            }
        }
        counts.hits.fetch_add(got.hits as u64, Ordering::Relaxed);
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn read() {
    let node = start(config("reader"));
    let counts = [Counts::default(), Counts::default()];
    let places =
        [(); 2].map(|()| node.register(&LAYOUT, kvrail::memory::leaked(PLACES * PAGE).unwrap()).unwrap());
    std::thread::scope(|scope| {
        for producer in 0..2 {
            let (node, places, counts) = (&node, &places[producer], &counts[producer]);
            scope.spawn(move || get_for_ever(node, producer as u64, places, counts));
        }
        say("ready");
        for line in std::io::stdin().lock().lines() {
            assert_eq!(line.unwrap(), "counts");
            say(format!("{}{}", counts[0].say(), counts[1].say()));
        }
        std::process::exit(0);
    });
}
