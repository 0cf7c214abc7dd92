//! What a directory is told of pools, while it works, fails, forgets and freezes.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use kvrail::session::PoolId;
use kvrail::{Bf16, KeyTag, KvLayout, PageLayout, Publisher, shm};
use kvrail_node::{AnnounceError, Announcer, AnnouncerConfig, PagePool, Put, Record};

use crate::directory::{Mood, TestDirectory, owner};
use crate::rig::{Chance, key, peer_key, soon};

/// A page of 64 bytes, of which there can be many.
#[derive(KvLayout)]
#[kv(order(layer, token), layers = 1, tokens = 1)]
#[allow(dead_code, reason = "a declaration")]
struct Small {
    latent: [Bf16; 32],
}

/// Longer than any test: where leases matter, tests say so.
const LEASE: Duration = Duration::from_secs(600);

struct Node {
    directory: Arc<TestDirectory>,
    pool: PagePool,
    announcer: Announcer,
}

fn small_pool(slots: u32) -> (Arc<Publisher>, PagePool) {
    let (name, listen) = ("producer".parse().unwrap(), "127.0.0.1:0".parse().unwrap());
    let layout = PageLayout::of::<Small>();
    let publisher = Publisher::start(name, layout, slots, &listen, peer_key(), shm::publish(1)).unwrap();
    let publisher = Arc::new(publisher);
    let pool = PagePool::open(Arc::clone(&publisher), PoolId(0)).unwrap();
    (publisher, pool)
}

/// A node of a pool of `slots` slots, whose calls to its directory take `call` at most.
fn node(slots: u32, lease: Duration, call: Duration) -> Node {
    let (publisher, pool) = small_pool(slots);
    let directory = TestDirectory::new(lease);
    let mut config = AnnouncerConfig::default();
    config.call = call;
    config.first_wait = Duration::from_millis(1);
    config.longest_wait = Duration::from_millis(20);
    let announcer = Announcer::start(directory.clone(), owner(&publisher), config).unwrap();
    assert!(pool.announce_by(&announcer));
    assert!(!pool.announce_by(&announcer), "it has one already");
    Node { directory, pool, announcer }
}

const CALL: Duration = Duration::from_secs(5);

impl Node {
    fn put(&self, number: u128) -> Record {
        match self.pool.put_with(key(number), |page| page.fill(1)) {
            Ok(Put::Stored(record) | Put::Already(record)) => record,
            other => panic!("{other:?}"),
        }
    }

    /// The records of those of the first `keys` keys whose pages are there.
    fn there(&self, keys: u128) -> HashMap<KeyTag, Record> {
        (0..keys)
            .filter_map(|number| self.pool.record(key(number)))
            .map(|record| (record.tag, record))
            .collect()
    }

    /// Tells the directory everything; then it knows the pages that are there, and no others.
    fn check(&self, keys: u128) {
        self.announcer.flush(soon()).unwrap();
        let (known, there) = (self.directory.state().records.clone(), self.there(keys));
        assert_eq!((known.len(), there.len()), (there.len(), self.pool.statistics().pages as usize));
        assert!(known == there, "the directory knows other records");
        let told = self.announcer.statistics();
        assert_eq!((told.pending, told.last_error.is_none()), (0, true), "{told:?}");
    }
}

#[test]
fn pages_that_are_put_one_behind_the_other_take_no_call_each() {
    const KEYS: u128 = 400;
    let node = node(KEYS as u32, LEASE, CALL);
    node.announcer.flush(soon()).unwrap();
    let before = node.directory.state().calls;
    let began = Instant::now();
    for number in 0..KEYS {
        node.put(number);
        // As long as a large page is copied, so that the announcer could be told of each.
        std::thread::sleep(Duration::from_micros(100));
    }
    node.check(KEYS);
    // One call in a millisecond, and those of the flush.
    let (most, calls) = (began.elapsed().as_millis() as u64 + 8, node.directory.state().calls - before);
    assert!(calls <= most, "{calls} calls, and {most} milliseconds");
}

#[test]
fn the_directory_is_told_of_ten_thousand_pages_in_batches() {
    const KEYS: u128 = 10_000;
    let node = node(KEYS as u32, LEASE, CALL);
    (0..KEYS).for_each(|number| _ = node.put(number));
    node.check(KEYS);
    let (calls, largest) = {
        let state = node.directory.state();
        (state.calls, state.largest)
    };
    assert!(largest <= 512 && calls >= 20, "{calls} calls, up to {largest} records");
    (0..KEYS).step_by(2).for_each(|number| assert!(node.pool.remove(key(number))));
    node.check(KEYS);
    let told = node.announcer.statistics();
    assert_eq!((told.announced, told.withdrawn, told.failures), (10_000, 5_000, 0), "{told:?}");
    assert!(told.last_success.is_some());
    // All are announced again when the directory has lost them.
    node.directory.forget();
    node.directory.set(Mood::Fails);
    node.put(0);
    node.directory.wait_for("a failure", |state| state.calls > calls + 20);
    node.directory.set(Mood::Works);
    node.check(KEYS);
    assert!(node.announcer.statistics().lost >= 2);
    // At the end all are withdrawn.
    let Node { directory, announcer, pool } = node;
    announcer.stop(soon()).unwrap();
    assert_eq!(directory.state().records.len(), 0);
    assert!(pool.contains(key(1)), "the pool goes on");
    assert!(matches!(pool.put_with(key(2), |page| page.fill(1)), Ok(Put::Stored(_))));
}

#[test]
fn a_directory_that_is_away_keeps_no_put_waiting_and_is_told_what_is_there_when_it_is_back() {
    for mood in [Mood::Fails, Mood::LosesAnswers, Mood::Frozen] {
        let node = node(16, LEASE, Duration::from_millis(100));
        (0..16).for_each(|number| _ = node.put(number));
        node.check(100);
        node.directory.set(mood);
        let mut chance = Chance(7);
        // The number of changes is bounded by the slots, whatever happens, and nothing is lost.
        for _ in 0..5_000 {
            let number = chance.below(100).into();
            if chance.below(3) == 0 {
                _ = node.pool.remove(key(number))
            } else {
                _ = node.put(number)
            }
            assert!(node.announcer.statistics().pending <= 16 + 512);
        }
        let calls = node.directory.state().calls;
        node.directory.wait_for("tries", |state| state.calls > calls + 4);
        let told = node.announcer.statistics();
        assert!(told.failures > 0 && told.last_error.is_some() && told.pending > 0, "{mood:?}: {told:?}");
        let flushed = node.announcer.flush(Instant::now() + Duration::from_millis(20));
        assert!(matches!(flushed, Err(AnnounceError::Pending { why: Some(_), .. })), "{mood:?}: {flushed:?}");
        node.directory.set(Mood::Works);
        node.check(100);
    }
}

#[test]
fn a_page_that_came_and_went_while_the_directory_was_away_is_not_announced() {
    let node = node(4, LEASE, Duration::from_millis(50));
    node.put(0);
    node.check(10);
    node.directory.set(Mood::Frozen);
    // The batch that is under way when the directory freezes.
    node.put(1);
    let calls = node.directory.state().calls;
    node.directory.wait_for("a frozen call", |state| state.calls > calls);
    for number in 2..1_000 {
        node.put(number);
        assert!(node.pool.remove(key(number)));
    }
    node.directory.set(Mood::Works);
    node.check(1_000);
    let told = node.announcer.statistics();
    assert_eq!((told.announced, told.withdrawn), (2, 0), "pages 0 and 1");
}

#[test]
fn the_lease_is_renewed_and_a_directory_that_forgot_the_owner_is_told_everything_again() {
    let node = node(8, Duration::from_millis(60), CALL);
    (0..8).for_each(|number| _ = node.put(number));
    node.check(8);
    let renewals = node.directory.state().renewals;
    node.directory.wait_for("renewals", |state| state.renewals > renewals + 3);
    node.directory.forget();
    node.directory.wait_for("all records again", |state| state.records.len() == 8);
    node.check(8);
    let told = node.announcer.statistics();
    assert_eq!((told.failures, told.lost), (0, 2), "at the start, and when it had forgotten: {told:?}");
}

#[test]
fn a_pool_that_ends_is_withdrawn() {
    let Node { directory, pool, announcer } = node(8, LEASE, CALL);
    (0..8).for_each(|number| _ = pool.put_with(key(number), |page| page.fill(1)).unwrap());
    announcer.flush(soon()).unwrap();
    assert_eq!(directory.state().records.len(), 8);
    drop(pool);
    announcer.flush(soon()).unwrap();
    assert_eq!((directory.state().records.len(), announcer.statistics().pending), (0, 0));
}

#[test]
fn an_announcer_ends_by_its_deadline_though_the_directory_is_frozen() {
    let Node { directory, pool, announcer } = node(8, LEASE, Duration::from_millis(200));
    _ = pool.put_with(key(1), |page| page.fill(1)).unwrap();
    announcer.flush(soon()).unwrap();
    directory.set(Mood::Frozen);
    let stopped = announcer.stop(Instant::now() + Duration::from_millis(100));
    let Err(AnnounceError::Pending { pending: 1, .. }) = stopped else { panic!("{stopped:?}") };
    // The pool goes on without it.
    _ = pool.put_with(key(2), |page| page.fill(1)).unwrap();
    assert!(pool.contains(key(1)) && pool.contains(key(2)));
}
