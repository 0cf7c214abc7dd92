//! Many readers of one producer over shared memory, all at once: each reads its page or is refused
//! by name, within its deadline.

use std::sync::Barrier;
use std::time::{Duration, Instant};

use kvrail::layouts::catalogue::VllmFp8DsMla;
use kvrail::{Config, ConnectError, KeyTag, PageLayout, PeerKey, Publisher, Reader, clock, memory, shm};

const LAYOUT: PageLayout = PageLayout::of::<VllmFp8DsMla>();
const SLOTS: u32 = 16;
/// How long a reader may take for its connection, and as long again for its page.
const DEADLINE: Duration = Duration::from_secs(60);

/// What became of one reader.
enum End {
    Served,
    Refused(ConnectError),
}

/// Connects one reader, waits until all others have done so too, and reads a page.
fn read_one(publisher: &Publisher, location: kvrail::Location, byte: u8, all: &Barrier) -> End {
    let begun = Instant::now();
    let config = Config { connect: DEADLINE, ..Config::default() };
    let key = PeerKey::from_bytes([3; 32]);
    let mut reader = Reader::start(LAYOUT, shm::rails(1).unwrap(), config).unwrap();
    // A producer bounds how many handshakes are under way, and says so: "try again shortly".
    let peer = loop {
        match reader.connect(&publisher.local_addr().into(), &key) {
            Err(error) if begun.elapsed() < DEADLINE / 2 => {
                assert!(error.code() > 0 && !error.to_string().is_empty(), "{error:?}");
                std::thread::sleep(Duration::from_millis(100));
            }
            end => break end,
        }
    };
    let took = begun.elapsed();
    assert!(took < DEADLINE + Duration::from_secs(5), "a connect took {took:?}");
    all.wait();
    let peer = match peer {
        Ok(peer) => peer,
        Err(error) => return End::Refused(error),
    };
    let slot = reader.register(memory::leaked(LAYOUT.page_bytes() as usize).unwrap()).unwrap().next();
    let mut batch = reader.batch().unwrap();
    batch.read(peer.page(location).unwrap(), slot.unwrap()).unwrap();
    let until = clock::within(DEADLINE);
    reader.submit(batch, until).unwrap();
    let mut done = loop {
        reader.poll();
        match reader.next_done() {
            Some(done) => break done,
            None => reader.wait(until),
        }
        assert!(clock::now() < clock::within(Duration::ZERO).max(until), "nothing is done in time");
    };
    let page = done.pages().next().unwrap();
    let (result, event) = (page.result(), reader.next_event());
    assert_eq!(result, Ok(()), "{event:?}");
    assert!(page.slot.bytes().unwrap().iter().all(|&b| b == byte), "a wrong page");
    End::Served
}

fn readers_of_one_producer(readers: usize) {
    let (name, listen) = ("producer".parse().unwrap(), "127.0.0.1:0".parse().unwrap());
    let key = PeerKey::from_bytes([3; 32]);
    let publisher = Publisher::start(name, LAYOUT, SLOTS, &listen, &key, shm::publish(1)).unwrap();
    let write = |slot: u32| publisher.write(slot, KeyTag(1), |page| page.fill(slot as u8 + 1)).unwrap();
    let locations: Vec<_> = (0..SLOTS).map(write).collect();
    let all = Barrier::new(readers);
    let ends: Vec<End> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..readers)
            .map(|at| {
                let (publisher, all) = (&publisher, &all);
                let at = at % locations.len();
                let location = locations[at];
                scope.spawn(move || read_one(publisher, location, at as u8 + 1, all))
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let served = ends.iter().filter(|end| matches!(end, End::Served)).count();
    for end in &ends {
        if let End::Refused(error) = end {
            // By name: its text says what to do, and its code does not change.
            assert!(error.code() > 0 && !error.to_string().is_empty(), "{error:?}");
            println!("refused: {error}");
        }
    }
    println!("{served} of {readers} readers were served");
    assert!(served * 10 >= readers * 9, "{served} of {readers}");
}

#[test]
fn each_of_fifty_readers_of_one_producer_is_served() {
    readers_of_one_producer(50);
}

/// The long form. Producers bound handshakes, so readers are told to try again, and do.
#[test]
#[ignore = "takes 4,000 threads and 16,000 descriptors, some ten seconds: run it with `--ignored`"]
fn each_of_a_thousand_readers_of_one_producer_is_served() {
    readers_of_one_producer(1_000);
}
