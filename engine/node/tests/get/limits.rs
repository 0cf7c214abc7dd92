//! What happens at the limits of a reader's thread: of its requests, and of the owners it
//! remembers.

use std::sync::Arc;
use std::time::{Duration, Instant};

use kvrail::shm;
use kvrail_node::{Node, Record};

use crate::directory::TestDirectory;
use crate::group::*;

#[test]
fn a_driver_does_not_sleep_while_requests_wait_that_it_has_room_for() {
    // A driver works on 1,024 requests at a time.
    const ACTIVE: usize = 1_024;
    let directory = Arc::new(TestDirectory::default());
    let (node, mut driver) =
        Node::start_driven(config("driven", &directory), shm::publish(1), shm::rails(1).unwrap()).unwrap();
    let memory = kvrail::memory::leaked((ACTIVE + 8) * BYTES).unwrap();
    let places = std::thread::scope(|scope| {
        let registering = scope.spawn(|| node.register(&PAGE, memory).unwrap());
        while !registering.is_finished() {
            driver.poll();
            driver.wait(within(10));
        }
        registering.join().unwrap()
    });
    // An owner that takes the connection, and never says a word.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let owner = producer("owner", &directory, 1);
    put(&owner, [1]);
    let records = directory.of(key(1).0);
    drop(owner);
    directory.set(key(1).0, &records);
    directory.owner(kvrail_node::Owner {
        epoch: records[0].owner,
        node: "silent".parse().unwrap(),
        address: silent.local_addr().unwrap().into(),
        zone: kvrail::NodeName::lossy(""),
    });
    let deadline = within(2_000);
    let handles: Vec<_> = (0..ACTIVE + 8).map(|_| node.begin_get(batch(&places, [1]), deadline)).collect();
    while driver.requests() < ACTIVE || node.statistics().reading < ACTIVE + 8 {
        driver.poll();
        assert!(Instant::now() < deadline, "{driver:?}");
    }
    while Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(10));
    }
    driver.poll();
    assert_eq!((driver.requests(), node.statistics().reading), (0, 8), "the first ones were given up");
    assert_eq!(driver.arm(), None, "eight requests wait");
    driver.poll();
    driver.poll();
    assert_eq!(node.statistics().reading, 0);
    drop(handles);
    assert_eq!(places.free() as usize, ACTIVE + 8);
}

#[test]
fn an_owner_is_connected_once_when_others_are_forgotten_for_want_of_room() {
    // A reader's thread remembers 1,024 owners.
    const OWNERS: u64 = 1_024;
    let directory = Arc::new(TestDirectory::default());
    let (owner, reader) = (producer("owner", &directory, 1), reader(&directory));
    put(&owner, [0]);
    let real = directory.of(key(0).0)[0];
    // Owners whose address no directory knows.
    for number in 1..=OWNERS {
        let epoch = kvrail::session::Epoch(std::num::NonZeroU64::new(number).unwrap());
        directory.set(key(number).0, &[Record { tag: key(number).0, owner: epoch, ..real }]);
    }
    let places = places(&reader, OWNERS as usize);
    let results = get(&reader, &places, 1..OWNERS, 20_000);
    assert!(labels(&results).iter().all(|&label| label == "unreachable"), "{results:?}");
    let results = get(&reader, &places, [0, OWNERS], 20_000);
    assert_eq!(labels(&results), ["directory", "unreachable"]);
    assert_eq!(owner.statistics().connected_readers, 1);
}
