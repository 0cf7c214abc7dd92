//! Readers that `engine!` has declared, in statics, and the threads that feed one.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use kvrail::core::hub::Outcome;
use kvrail::core::table::KeyTag;
use kvrail::layouts::Bf16;
use kvrail::{
    Config, KvLayout, PageLayout, PeerKey, Publisher, StartError, Storage, StorageTaken, clock, engine,
    memory, shm, tcp,
};

#[derive(KvLayout)]
#[kv(order(layer, token), layers = 4, tokens = 16)]
struct Page {
    latent: [Bf16; 512],
}
const PAGE: PageLayout = PageLayout::of::<Page>();
const SLOTS: u32 = 16;

engine! {
    /// Two rails, two peers, small batches.
    pub Small { page: Page, max_rails: 2, max_peers: 2, max_depth: 32, max_batch: 4, max_batches: 8, chunk: 8192 }
}
engine! {
    Fed { page: Page, max_rails: 1, max_peers: 1, max_batch: 4, max_submitters: 2, deadline_ms: 7_000 }
}
engine! { pub Large { page: Page, max_peers: 1024, max_lanes: 16_384, max_batches: 4_096 } }

fn producer(key: &PeerKey) -> (Publisher, Vec<kvrail::core::remote::Location>) {
    let (name, anywhere) = ("p".parse().unwrap(), "127.0.0.1:0".parse().unwrap());
    let mut producer = Publisher::start(name, PAGE, SLOTS, &anywhere, key.clone(), shm::publish(2)).unwrap();
    let write = |slot: u32| {
        let tag = KeyTag(u64::from(slot) + 1);
        producer.write(slot, tag, |bytes| bytes.fill(slot as u8 + 1)).unwrap()
    };
    let locations = (0..SLOTS).map(write).collect();
    (producer, locations)
}

#[test]
fn a_declared_reader_reads_from_a_static_within_its_maxima() {
    static STORAGE: Storage<Small> = Storage::new();
    let key = PeerKey::from_hex(&"5a".repeat(32)).unwrap();
    let (producer, locations) = producer(&key);
    let rails = shm::rails(2).unwrap();
    let mut reader = Small::start(STORAGE.take().unwrap(), rails, Config::default()).unwrap();
    assert_eq!(STORAGE.take().unwrap_err(), StorageTaken);
    assert_eq!(*reader.layout(), PAGE);
    assert_eq!(reader.engine_config().chunk_bytes, 8192);
    let mut slots =
        reader.register(memory::leaked(8 * PAGE.page_bytes() as usize).unwrap()).unwrap().collect::<Vec<_>>();
    // Lanes over shared memory have 128 places; the reader uses the 32 that it was declared with.
    let peer = reader.connect(&producer.local_addr().into(), &key).unwrap();

    let mut batches: Vec<_> = std::iter::from_fn(|| reader.batch()).collect();
    assert_eq!(batches.len(), 8);
    let mut batch = batches.pop().unwrap();
    assert_eq!(batch.capacity(), 4);
    for &location in &locations[..4] {
        batch.read(peer.page(location).unwrap(), slots.pop().unwrap()).unwrap();
    }
    let deadline = reader.deadline();
    let ticket = reader.submit(batch, deadline).unwrap();
    let mut done = loop {
        reader.poll();
        match reader.next_done() {
            Some(done) => break done,
            None => reader.wait(deadline),
        }
    };
    assert_eq!(done.ticket(), ticket);
    for page in done.pages() {
        page.result().unwrap();
        assert!(page.slot.bytes().unwrap().iter().all(|&byte| byte == page.index as u8 + 1));
    }
}

#[test]
fn more_rails_than_declared_are_refused_and_any_rails_will_do() {
    static ONE: Storage<Small> = Storage::new();
    static TWO: Storage<Small> = Storage::new();
    let refused = Small::start(ONE.take().unwrap(), shm::rails(3).unwrap(), Config::default());
    assert!(matches!(refused, Err(StartError::TooManyRails { rails: 3, max: 2 })), "{refused:?}");
    // The same storage, whatever the rails.
    let reader: Small<tcp::TcpRails> =
        Small::start(TWO.take().unwrap(), tcp::rails(2).unwrap(), Config::default()).unwrap();
    assert_eq!(reader.rails(), 2);
}

#[test]
fn a_large_state_is_no_part_of_the_program() {
    static STORAGE: Storage<Large> = Storage::new();
    const { assert!(Large::STATE_BYTES > 100 << 20) };
    let file = std::fs::metadata(std::env::current_exe().unwrap()).unwrap().len();
    assert!(file < Large::STATE_BYTES as u64 / 2, "{file} bytes of program, {} of state", Large::STATE_BYTES);
    let small_stack = std::thread::Builder::new().stack_size(512 << 10);
    let start = || Large::start(STORAGE.take().unwrap(), shm::rails(1).unwrap(), Config::default()).unwrap();
    let rails = small_stack.spawn(move || start().rails()).unwrap().join().unwrap();
    assert_eq!(rails, 1);
}

#[test]
fn each_thread_that_feeds_a_reader_gets_its_own_batches_back() {
    static STORAGE: Storage<Fed> = Storage::new();
    const ROUNDS: u64 = 200;
    let key = PeerKey::from_hex(&"5a".repeat(32)).unwrap();
    let (producer, locations) = producer(&key);
    let mut reader = Fed::start(STORAGE.take().unwrap(), shm::rails(1).unwrap(), Config::default()).unwrap();
    let mut slots: Vec<_> =
        reader.register(memory::leaked(12 * PAGE.page_bytes() as usize).unwrap()).unwrap().collect();
    let peer = reader.connect(&producer.local_addr().into(), &key).unwrap();
    let submitters = [reader.submitter().unwrap(), reader.submitter().unwrap()];
    assert!(reader.submitter().is_none());
    let stop = AtomicBool::new(false);

    std::thread::scope(|scope| {
        let feeders: Vec<_> = submitters
            .into_iter()
            .enumerate()
            .map(|(who, mut submitter)| {
                let (mut slots, peer) = (slots.split_off(slots.len() - 4), peer.clone());
                let locations = &locations[4 * who..][..4];
                scope.spawn(move || {
                    for round in 0..ROUNDS {
                        let tag = (who as u64) << 32 | round;
                        let mut batch = submitter.batch().unwrap();
                        batch.set_tag(tag);
                        for &location in locations {
                            batch.read(peer.page(location).unwrap(), slots.pop().unwrap()).unwrap();
                        }
                        submitter.submit(batch, clock::within(Duration::from_secs(20))).unwrap();
                        let mut done = loop {
                            match submitter.next_outcome() {
                                Some(Outcome::Done(done)) => break done,
                                Some(other) => panic!("{other:?}"),
                                None => std::thread::yield_now(),
                            }
                        };
                        assert_eq!(done.tag(), tag);
                        for page in done.pages() {
                            page.result().unwrap();
                            let byte = (4 * who + page.index) as u8 + 1;
                            assert!(page.slot.bytes().unwrap().iter().all(|&found| found == byte));
                            slots.push(page.slot);
                        }
                        assert_eq!(slots.len(), 4);
                    }
                })
            })
            .collect();
        // The reader's own thread reads, too, and drives everything.
        let (stop, mut own) = (&stop, 0);
        let watch = scope.spawn(move || {
            feeders.into_iter().for_each(|feeder| feeder.join().unwrap());
            stop.store(true, Ordering::Release);
        });
        while !stop.load(Ordering::Acquire) || reader.in_flight() > 0 {
            if slots.len() == 4 && !stop.load(Ordering::Acquire) {
                let mut batch = reader.batch().unwrap();
                for &location in &locations[12..] {
                    batch.read(peer.page(location).unwrap(), slots.pop().unwrap()).unwrap();
                }
                let deadline = reader.deadline();
                reader.submit(batch, deadline).unwrap();
            }
            reader.poll();
            while let Some(mut done) = reader.next_done() {
                assert_eq!(done.tag(), 0);
                for page in done.pages() {
                    page.result().unwrap();
                    assert!(page.slot.bytes().unwrap().iter().all(|&found| found == 13 + page.index as u8));
                    slots.push(page.slot);
                }
                own += 1;
            }
            reader.wait(clock::within(Duration::from_millis(2)));
        }
        watch.join().unwrap();
        assert!(own > 0);
    });
    assert_eq!(reader.in_flight(), 0);
}
