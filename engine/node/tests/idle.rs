//! Threads that have nothing to do sleep: a publisher, a reader and two nodes wake up a few times a
//! second, all of them together. Counted, not timed: a thread that looks again every 100 ms would
//! be seen.
#![allow(missing_docs, reason = "tests")]

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use kvrail::session::TagSecret;
use kvrail::{Bf16, Config, KeyTag, KvLayout, PageLayout, PeerKey, Publisher, Storage};
use kvrail::{clock, engine, memory, shm};
use kvrail_node::{GetBatch, KeySpace, Namespace, Node, NodeConfig};

#[path = "../examples/idle/threads.rs"]
mod threads;
use threads::{Activity, Threads};

/// 8 tokens of one layer of a small MLA: 2,304 bytes.
#[derive(KvLayout)]
#[kv(order(token), tokens = 8)]
#[allow(dead_code)]
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

const WINDOW: Duration = Duration::from_secs(4);
const LIMIT: Duration = Duration::from_secs(30);
/// How often a thread may go to sleep in a second. The announcer asks its directory twice a second,
/// which wakes the threads of both sessions and of the look-ups up to five times; a thread that
/// looks again every 100 ms sleeps ten times.
const EACH: f64 = 8.0;
/// The same of all threads together: some 19 to 22 times.
const ALL: f64 = 32.0;

/// Which threads sleep more often than they may in `time`, with what they did.
fn restless(threads: &[Activity], time: Duration) -> Vec<String> {
    let seconds = time.as_secs_f64();
    let rate = |sleeps: u64| sleeps as f64 / seconds;
    let each = threads.iter().filter(|thread| rate(thread.sleeps) > EACH);
    let mut found: Vec<_> =
        each.map(|thread| format!("{}: {:.1} sleeps a second", thread.name, rate(thread.sleeps))).collect();
    let all = rate(threads.iter().map(|thread| thread.sleeps).sum());
    if all > ALL {
        found.push(format!("all: {all:.1} sleeps a second of {threads:?}"));
    }
    found
}

#[test]
fn threads_that_have_nothing_to_do_sleep() {
    let key = PeerKey::from_bytes([4; 32]);
    let (name, anywhere) = ("producer".parse().unwrap(), "127.0.0.1:0".parse().unwrap());
    let producer = Publisher::start(name, PAGE, 4, &anywhere, key.clone(), shm::publish(2)).unwrap();
    let location = producer.write(0, KeyTag(1), |bytes| bytes.fill(7)).unwrap();
    let rails = shm::rails(2).unwrap();
    let mut reader = Reader::start(STORAGE.take().unwrap(), rails, Config::default()).unwrap();
    let slot = reader.register(memory::leaked(BYTES).unwrap()).unwrap().next().unwrap();
    let peer = reader.connect(&producer.local_addr().into(), &key).unwrap();
    // Everything has been used once.
    let mut batch = reader.batch().unwrap();
    batch.read(peer.page(location).unwrap(), slot).unwrap();
    let deadline = clock::within(LIMIT);
    reader.submit(batch, deadline).unwrap();
    let mut done = loop {
        reader.poll();
        match reader.next_done() {
            Some(done) => break done,
            None => reader.wait(deadline),
        }
    };
    done.pages().next().unwrap().result().unwrap();

    let config = NodeConfig::new("owner".parse().unwrap(), key.clone()).pool(PAGE, 4).embedded(Vec::new());
    let owner = Node::start(config, shm::publish(2), || shm::rails(2)).unwrap();
    let config = NodeConfig::new("getter".parse().unwrap(), key).layout(PAGE);
    let config = config.embedded(vec![owner.address().unwrap()]);
    let getter = Node::start(config, shm::publish(2), || shm::rails(2)).unwrap();
    let namespace = Namespace { model: "m".into(), layout: PAGE.fingerprint(), shape: "tp 1".into() };
    let page = KeySpace::new(&TagSecret::from_bytes([7; 32]), &namespace).unwrap().key(b"a page").unwrap();
    _ = owner.put(&PAGE, page, &[9; BYTES]).unwrap();
    owner.announcer().unwrap().flush(Instant::now() + LIMIT).unwrap();
    let places = getter.register(&PAGE, memory::leaked(BYTES).unwrap()).unwrap();
    let mut batch = GetBatch::with_capacity(1);
    batch.read(page, places.take_any().unwrap());
    let counts = getter.get(&mut batch, Instant::now() + LIMIT);
    assert_eq!(counts.misses, 0, "{:?}", batch.results().find_map(Result::err));

    let (stop, returns) = (AtomicBool::new(false), AtomicU64::new(0));
    let submitter = reader.submitter().unwrap();
    let (threads, time, returned) = std::thread::scope(|scope| {
        let watch = scope.spawn(|| {
            // Ends last of all, and wakes the reader by that.
            let _submitter = submitter;
            // What follows the last get: lanes that settle, acknowledgements.
            std::thread::sleep(Duration::from_secs(2));
            let (before, returned) = (Threads::now().unwrap(), returns.load(Ordering::Relaxed));
            std::thread::sleep(WINDOW);
            let (threads, time) = Threads::now().unwrap().since(&before);
            let returned = returns.load(Ordering::Relaxed) - returned;
            stop.store(true, Ordering::Release);
            (threads, time, returned)
        });
        while !stop.load(Ordering::Acquire) {
            reader.wait(clock::within(LIMIT));
            returns.fetch_add(1, Ordering::Relaxed);
            reader.poll();
        }
        watch.join().unwrap()
    });
    // The other test of this process has threads, too.
    let of_kvrail: Vec<_> = threads.into_iter().filter(|thread| thread.name.starts_with("kvrail-")).collect();
    assert!(of_kvrail.len() >= 8, "threads of publisher, readers and nodes were looked at: {of_kvrail:?}");
    let found = restless(&of_kvrail, time);
    assert!(found.is_empty(), "in {time:?}:\n{}", found.join("\n"));
    assert!(returned as f64 <= EACH * time.as_secs_f64(), "`wait` returned {returned} times in {time:?}");
}

/// What the bound is for: it sees a thread that looks again every 100 ms.
#[test]
fn a_thread_that_polls_is_seen() {
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let polling = std::thread::Builder::new().name("test-polling".into());
        let polling = polling.spawn_scoped(scope, || {
            while !stop.load(Ordering::Acquire) {
                std::thread::sleep(Duration::from_millis(100));
            }
        });
        polling.unwrap();
        let before = Threads::now().unwrap();
        let found = loop {
            std::thread::sleep(Duration::from_secs(1));
            let (threads, _) = Threads::now().unwrap().since(&before);
            let polling: Vec<_> =
                threads.into_iter().filter(|thread| thread.name == "test-polling").collect();
            if polling[0].sleeps >= 10 {
                // However slow this machine is: as if it had been a second.
                break restless(&polling, Duration::from_secs(1));
            }
        };
        stop.store(true, Ordering::Release);
        assert_eq!(found.len(), 1, "{found:?}");
    });
}
