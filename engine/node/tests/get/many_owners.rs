//! One reader of more owners than a reader has places for by default.

use std::sync::Arc;
use std::time::Duration;

use kvrail::session::PoolId;
use kvrail::{NodeName, Publisher, shm};
use kvrail_node::{Node, Owner, Record};

use crate::directory::TestDirectory;
use crate::group::*;

const OWNERS: u64 = 100;

/// Owners with a page each: owner `n` has the page of key `n`. They are no whole nodes, which have
/// threads that nothing here needs.
fn owners(directory: &TestDirectory) -> Vec<Publisher> {
    let owner = |number| {
        let name: NodeName = format!("owner-{number}").parse().unwrap();
        let at = "127.0.0.1:0".parse().unwrap();
        let publisher = Publisher::start(name, PAGE, 1, &at, peer_key(), shm::publish(1)).unwrap();
        let key = key(number);
        let fill = |to: &mut [u8]| to.copy_from_slice(&page_of(key, BYTES));
        let location = publisher.write(0, key.0, fill).unwrap();
        let (owner, generation) = (publisher.epoch(), location.expected.generation);
        directory.set(key.0, &[Record { tag: key.0, owner, pool: PoolId(0), slot: 0, generation }]);
        let address = publisher.local_addr().into();
        directory.owner(Owner { epoch: owner, node: name, address, zone: NodeName::lossy("") });
        publisher
    };
    (0..OWNERS).map(owner).collect()
}

fn connected(owners: &[Publisher]) -> usize {
    owners.iter().map(Publisher::readers).sum()
}

fn got_by(node: &Node) {
    let places = places(node, OWNERS as usize);
    for _ in 0..2 {
        let results = get(node, &places, 0..OWNERS, 60_000);
        assert!(results.iter().all(Result::is_ok), "{results:?}");
    }
}

#[test]
fn a_hundred_owners_are_read_from_and_all_stay_connected() {
    let directory = Arc::new(TestDirectory::default());
    let owners = owners(&directory);
    let node = reader(&directory);
    got_by(&node);
    assert_eq!(connected(&owners), OWNERS as usize);
}

#[test]
fn with_fewer_places_than_owners_each_has_its_turn() {
    const PLACES: usize = 10;
    let directory = Arc::new(TestDirectory::default());
    let owners = owners(&directory);
    let node = start(config("reader", &directory).peers(PLACES));
    got_by(&node);
    // An owner notices a little later that its session was ended.
    let until = within(60_000);
    while connected(&owners) > PLACES {
        assert!(std::time::Instant::now() < until, "{} owners stay connected", connected(&owners));
        std::thread::sleep(Duration::from_millis(2));
    }
    assert_eq!(connected(&owners), PLACES);
}
