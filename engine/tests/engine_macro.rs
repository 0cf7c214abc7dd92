//! Readers that `engine!` has declared, in statics, and the threads that feed one.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use kvrail::core::config::EngineConfig;
use kvrail::core::hub::Outcome;
use kvrail::core::table::KeyTag;
use kvrail::layouts::Bf16;
use kvrail::macro_support::Declared;
use kvrail::{
    Config, KvLayout, PageLayout, Peer, PeerKey, Publisher, Reader, StartError, Storage, StorageTaken,
    Submitter, TakenStorage, clock, engine, memory, shm, tcp,
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
    let producer = Publisher::start(name, PAGE, SLOTS, &anywhere, key.clone(), shm::publish(2)).unwrap();
    let write = |slot: u32| {
        let tag = KeyTag(u128::from(slot) + 1);
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
fn more_rails_than_declared_are_refused_and_rails_of_every_transport_are_taken() {
    static STORAGE: Storage<Small> = Storage::new();
    let refused = Small::start(STORAGE.take().unwrap(), shm::rails(3).unwrap(), Config::default());
    assert!(matches!(refused, Err(StartError::TooManyRails { rails: 3, max: 2 })), "{refused:?}");
    // The same storage serves other rails.
    let reader: Small<tcp::TcpRails> =
        Small::start(STORAGE.take().unwrap(), tcp::rails(2).unwrap(), Config::default()).unwrap();
    assert_eq!(reader.rails(), 2);
}

/// A start that fails at each of its steps leaves the storage to the next one, and a drop as well.
#[test]
fn a_storage_is_used_up_only_by_a_reader_that_starts() {
    static STORAGE: Storage<Small> = Storage::new();
    let start = |config| Small::start(STORAGE.take().unwrap(), shm::rails(1).unwrap(), config);
    let no_lanes = start(Config { lanes_per_rail: 0, ..Config::default() });
    assert!(matches!(no_lanes, Err(StartError::NoLanes)), "{no_lanes:?}");
    let configured = |engine| Config { engine: Some(engine), ..Config::default() };
    let good = EngineConfig { chunk_bytes: 8192, ..EngineConfig::DEFAULT };
    let refused = start(configured(EngineConfig { run_chunks: 0, ..good }));
    assert!(matches!(refused, Err(StartError::Engine(_))), "{refused:?}");
    let taken = STORAGE.take().unwrap();
    assert_eq!(STORAGE.take().unwrap_err(), StorageTaken, "a storage is taken once at a time");
    drop(taken);
    let reader = start(configured(good)).unwrap();
    assert_eq!(STORAGE.take().unwrap_err(), StorageTaken);
    drop(reader);
    assert_eq!(STORAGE.take().unwrap_err(), StorageTaken, "a reader's storage is its own for ever");
}

#[test]
fn a_configuration_that_contradicts_the_declaration_is_refused_with_both_numbers() {
    static STORAGE: Storage<Small> = Storage::new();
    static FED: Storage<Fed> = Storage::new();
    let configured = |chunk_bytes| Config {
        engine: Some(EngineConfig { chunk_bytes, ..EngineConfig::DEFAULT }),
        ..Config::default()
    };
    let refused =
        Small::start(STORAGE.take().unwrap(), shm::rails(1).unwrap(), configured(4096)).unwrap_err();
    assert!(matches!(
        refused,
        StartError::NotAsDeclared { key: "chunk", number: 8192, configured: 4096, .. }
    ));
    assert!(
        refused.to_string().contains("chunk: 8192") && refused.to_string().contains("chunk_bytes = 4096")
    );
    let reader = Small::start(STORAGE.take().unwrap(), shm::rails(1).unwrap(), configured(8192)).unwrap();
    assert_eq!(reader.engine_config().chunk_bytes, 8192);
    // Where no chunk was declared, a full batch must fit as well: 4 pages of 16 chunks are 64
    // wrs.
    let refused =
        Narrow::start(NARROW.take().unwrap(), shm::rails(1).unwrap(), configured(4096)).unwrap_err();
    let room = StartError::BatchTooLong { chunk_bytes: 4096, wrs: 64, room: 62 };
    assert_eq!(refused.to_string(), room.to_string());
    assert!(Narrow::start(NARROW.take().unwrap(), shm::rails(1).unwrap(), configured(8192)).is_ok());
    assert!(Fed::start(FED.take().unwrap(), shm::rails(1).unwrap(), configured(4096)).is_ok());
}

engine! { Narrow { page: Page, max_rails: 1, max_peers: 1, max_lanes: 2, max_depth: 32, max_batch: 4, max_batches: 2 } }
static NARROW: Storage<Narrow> = Storage::new();

/// A reader goes to the thread that drives it, whether that is the one that started it or not.
#[test]
fn a_reader_may_go_to_another_thread() {
    fn is_send<T: Send>() {}
    is_send::<Reader<shm::ShmRails>>();
    is_send::<Reader<tcp::TcpRails>>();
    #[cfg(feature = "verbs")]
    is_send::<Reader<kvrail::verbs::VerbsRails>>();
    is_send::<Small>();
    is_send::<Small<tcp::TcpRails>>();
    is_send::<TakenStorage<<Small as Declared>::State>>();
    is_send::<Submitter<shm::ShmRails>>();
    is_send::<Peer>();
    is_send::<Publisher>();
    let key = PeerKey::from_hex(&"5a".repeat(32)).unwrap();
    let (producer, locations) = producer(&key);
    let mut reader = Reader::start(PAGE, shm::rails(1).unwrap(), Config::default()).unwrap();
    let mut slots = reader.register(memory::leaked(PAGE.page_bytes() as usize).unwrap()).unwrap();
    let peer = reader.connect(&producer.local_addr().into(), &key).unwrap();
    // Connected here, driven and dropped there.
    let driver = std::thread::spawn(move || {
        let mut batch = reader.batch().unwrap();
        batch.read(peer.page(locations[3]).unwrap(), slots.next().unwrap()).unwrap();
        let until = clock::within(Duration::from_secs(20));
        reader.submit(batch, until).unwrap();
        loop {
            reader.poll();
            if let Some(mut done) = reader.next_done() {
                let page = done.pages().next().unwrap();
                page.result().unwrap();
                break page.slot.bytes().unwrap().iter().all(|&byte| byte == 4);
            }
            reader.wait(until);
        }
    });
    assert!(driver.join().unwrap());
}

#[test]
fn a_large_state_adds_nothing_to_the_programs_file() {
    static STORAGE: Storage<Large> = Storage::new();
    const { assert!(Large::STATE_BYTES > 100 << 20) };
    assert_eq!(Large::STATE_BYTES, size_of::<Storage<Large>>());
    assert_eq!(Small::STATE_BYTES, size_of::<Storage<Small>>());
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
            .map(|(number, mut submitter)| {
                let (mut slots, peer) = (slots.split_off(slots.len() - 4), peer.clone());
                let locations = &locations[4 * number..][..4];
                scope.spawn(move || {
                    for round in 0..ROUNDS {
                        let tag = (number as u64) << 32 | round;
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
                            let byte = (4 * number + page.index) as u8 + 1;
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

#[test]
fn a_submitter_and_its_reader_learn_of_each_others_end() {
    static STORAGE: Storage<Fed> = Storage::new();
    let key = PeerKey::from_hex(&"5a".repeat(32)).unwrap();
    let (producer, locations) = producer(&key);
    let mut reader = Fed::start(STORAGE.take().unwrap(), shm::rails(1).unwrap(), Config::default()).unwrap();
    let mut slots =
        reader.register(memory::leaked(4 * PAGE.page_bytes() as usize).unwrap()).unwrap().collect::<Vec<_>>();
    let peer = reader.connect(&producer.local_addr().into(), &key).unwrap();
    let (mut kept, mut dropped) = (reader.submitter().unwrap(), reader.submitter().unwrap());
    let until = clock::within(Duration::from_secs(20));
    let mut batch = dropped.batch().unwrap();
    for location in &locations[..3] {
        batch.read(peer.page(*location).unwrap(), slots.pop().unwrap()).unwrap();
    }
    dropped.submit(batch, until).unwrap();
    drop(dropped);
    let start = std::time::Instant::now();
    let mut returned = 0;
    while returned < 3 {
        assert!(start.elapsed() < Duration::from_secs(20), "{returned} slots came back");
        reader.poll();
        assert!(reader.next_done().is_none(), "the batch was another thread's");
        returned += std::iter::from_fn(|| reader.next_orphan()).count();
        reader.wait(clock::within(Duration::from_millis(2)));
    }

    // A batch that the reader has not taken when it ends comes back.
    let mut batch = kept.batch().unwrap();
    batch.read(peer.page(locations[0]).unwrap(), slots.pop().unwrap()).unwrap();
    kept.submit(batch, until).unwrap();
    drop(reader);
    let Some(Outcome::Rejected(mut rejected)) = kept.next_outcome() else { panic!("the reader is gone") };
    assert_eq!(rejected.batch.clear().count(), 1);
    assert!(kept.is_orphaned() && kept.batch().is_none() && kept.next_outcome().is_none());
}
