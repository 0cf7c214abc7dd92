//! One conformance suite for all directories.
//!
//! A directory's own test file has this file as `mod directory_suite` at its root, implements
//! [`Cluster`] for its servers, and makes a test of each function by `directory_suite!`. Each test
//! starts a cluster of its own, so that it may kill and freeze it.
//!
//! The suite asserts answers and counts. The only times are limits: a call that has a deadline
//! returns, and what is to happen by itself happens within [`SOON`].

// A test file may call a part of the suite only.
#![allow(dead_code, reason = "each directory's tests use what fits them")]

#[path = "directory_faults.rs"]
mod faults;

use std::collections::BTreeSet;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use kvrail::session::{Epoch, PoolId};
use kvrail_core::table::{Generation, KeyTag};
use kvrail_node::directory::MAX_OWNERS;
use kvrail_node::{Directory, DirectoryError, Found, Owner, Record, Renewed};

/// The servers of one directory, started for one test.
pub(crate) trait Cluster {
    /// Another client of this directory, as another node has it. Its lease is 5 seconds at most, so
    /// that a test can wait for the end of one.
    fn client(&self) -> Box<dyn Directory>;

    /// How many messages with look-ups have reached the servers so far, all clients together.
    /// `None`: they cannot be counted.
    fn look_ups(&mut self) -> Option<u64>;

    /// How many parts hold different keys: with 1, every server that answers answers for all keys.
    fn shards(&self) -> usize;

    /// Kills the process of one server (SIGKILL), the one that answers if only one does.
    fn kill_part(&mut self);

    /// Kills the processes of all servers.
    fn kill_all(&mut self);

    /// Starts the dead servers again, at the same addresses, with nothing in memory.
    fn restart(&mut self);

    /// Stops all servers (SIGSTOP): connections stand and new ones are accepted, but no server
    /// answers any more once this has returned.
    fn freeze(&mut self);

    /// Lets stopped servers go on (SIGCONT).
    fn thaw(&mut self);
}

pub(crate) use faults::{
    a_dead_directory_is_an_error_by_the_deadline, a_death_between_look_ups_gives_no_wrong_answer,
    a_frozen_directory_is_an_error_by_the_deadline, a_restarted_directory_is_filled_again,
};

/// Makes a test of each function of the suite: `directory_suite!(start)`, where `start()` is a new
/// [`Cluster`].
#[macro_export]
macro_rules! directory_suite {
    ($start:path) => {
        $crate::directory_suite!($start:
            announced_records_are_found_by_every_client,
            keys_that_nobody_has_are_answered_with_no_owner,
            several_owners_of_a_key_stand_side_by_side,
            an_answer_has_at_most_max_owners_records,
            a_new_generation_takes_the_place_of_the_old_one,
            a_record_that_is_announced_again_is_there_once,
            a_withdrawn_record_is_gone_and_the_others_stay,
            a_withdrawn_old_generation_is_passed_over,
            a_dead_owners_records_expire_and_block_nobody,
            an_owner_that_renews_keeps_its_records,
            an_owner_whose_lease_ran_out_learns_that_its_records_are_lost,
            owners_are_known_by_their_epochs,
            a_batch_of_128_keys_is_one_message_of_each_shard,
            thousands_of_records_and_keys_go_in_one_call,
            threads_of_one_client_do_not_mix_their_answers,
            a_dead_directory_is_an_error_by_the_deadline,
            a_frozen_directory_is_an_error_by_the_deadline,
            a_death_between_look_ups_gives_no_wrong_answer,
            a_restarted_directory_is_filled_again,
        );
    };
    ($start:path: $($name:ident),* $(,)?) => {$(
        #[test]
        fn $name() {
            $crate::directory_suite::$name(&mut $start());
        }
    )*};
}

/// What is to happen by itself happens within this time, on a busy machine, too.
pub(crate) const SOON: Duration = Duration::from_secs(20);
/// The deadline of a call that is to succeed.
const ENOUGH: Duration = Duration::from_secs(10);

/// A deadline for a call that is to succeed.
pub(crate) fn enough() -> Instant {
    Instant::now() + ENOUGH
}

/// A number that no other call of any process has returned: servers may outlive a test.
fn unique() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let process = u64::from(std::process::id()) << 32;
    process | NEXT.fetch_add(1, Ordering::Relaxed)
}

/// A new owner.
pub(crate) fn owner() -> Owner {
    let number = unique();
    Owner {
        epoch: Epoch(NonZeroU64::new(number | 1 << 63).unwrap()),
        node: format!("node-{number}").parse().unwrap(),
        address: format!("10.1.{}.{}:7470", number >> 8 & 0xff, number & 0xff).parse().unwrap(),
        zone: "rack-7".parse().unwrap(),
    }
}

/// `count` new keys.
pub(crate) fn tags(count: usize) -> Vec<KeyTag> {
    // Spread like the keyed hashes that tags are.
    let spread =
        |number: u64| (u128::from(number) + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
    (0..count).map(|_| KeyTag(spread(unique()))).collect()
}

/// The generation number `count` of a slot.
pub(crate) fn generation(count: u64) -> Generation {
    Generation(count << 1 | 1)
}

/// The record of a page of `owner`, whose fields depend on the key and the generation.
pub(crate) fn record(owner: &Owner, tag: KeyTag, generation: Generation) -> Record {
    let slot = (tag.0 >> 64) as u32;
    Record { tag, owner: owner.epoch, pool: PoolId((tag.0 & 3) as u32), slot, generation }
}

/// A record of each key.
pub(crate) fn records(owner: &Owner, tags: &[KeyTag], count: u64) -> Vec<Record> {
    tags.iter().map(|&tag| record(owner, tag, generation(count))).collect()
}

/// Looks keys up until all are answered, since another connection may be being made.
fn look_up(directory: &dyn Directory, tags: &[KeyTag]) -> Found {
    let (limit, mut found) = (Instant::now() + SOON, Found::default());
    loop {
        directory.look_up(tags, enough(), &mut found);
        assert_eq!(found.len(), tags.len());
        let Some(why) = (0..tags.len()).find_map(|key| found.records(key).err()) else { return found };
        assert!(Instant::now() < limit, "no answer: {why:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The records of each key, in the order of their owners.
fn answers(directory: &dyn Directory, tags: &[KeyTag]) -> Vec<Vec<Record>> {
    let found = look_up(directory, tags);
    let sorted = |key| {
        let mut records = found.records(key).unwrap().to_vec();
        records.sort_by_key(|record: &Record| record.owner.0);
        records
    };
    (0..tags.len()).map(sorted).collect()
}

fn each(records: &[Record]) -> Vec<Vec<Record>> {
    records.iter().map(|&record| vec![record]).collect()
}

/// Repeats a call that may fail while a connection is being made.
fn done<T>(what: &str, mut call: impl FnMut(Instant) -> Result<T, DirectoryError>) -> T {
    let limit = Instant::now() + SOON;
    loop {
        match call(enough()) {
            Ok(result) => return result,
            Err(error) => assert!(Instant::now() < limit, "{what}: {error}"),
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

pub(crate) fn announce(directory: &dyn Directory, owner: &Owner, records: &[Record]) {
    done("announce", |deadline| directory.announce(owner, records, deadline));
}

pub(crate) fn withdraw(directory: &dyn Directory, records: &[Record]) {
    done("withdraw", |deadline| directory.withdraw(records, deadline));
}

pub(crate) fn renew(directory: &dyn Directory, owner: &Owner) -> Renewed {
    done("renew", |deadline| directory.renew(owner, deadline))
}

/// Waits until `holds`.
pub(crate) fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let limit = Instant::now() + SOON;
    while !holds() {
        assert!(Instant::now() < limit, "{what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

pub(crate) fn announced_records_are_found_by_every_client(cluster: &mut dyn Cluster) {
    let (first, second) = (cluster.client(), cluster.client());
    let (owner, tags) = (owner(), tags(100));
    let records = records(&owner, &tags, 1);
    announce(&*first, &owner, &records);
    assert_eq!(answers(&*first, &tags), each(&records));
    assert_eq!(answers(&*second, &tags), each(&records));
    // In the order of the question, whatever it is, and a key twice if it is asked for twice.
    let turned: Vec<_> = tags.iter().rev().chain(&tags[..3]).copied().collect();
    let wanted: Vec<_> = records.iter().rev().chain(&records[..3]).copied().collect();
    assert_eq!(answers(&*second, &turned), each(&wanted));
    assert!(!first.describe().is_empty());
}

pub(crate) fn keys_that_nobody_has_are_answered_with_no_owner(cluster: &mut dyn Cluster) {
    let client = cluster.client();
    let (owner, tags) = (owner(), tags(20));
    assert_eq!(answers(&*client, &tags), vec![Vec::new(); 20]);
    let half = records(&owner, &tags[..10], 1);
    announce(&*client, &owner, &half);
    let mut wanted = each(&half);
    wanted.resize(20, Vec::new());
    assert_eq!(answers(&*client, &tags), wanted);
    // Nothing is asked, and nothing answered.
    assert!(look_up(&*client, &[]).is_empty());
    announce(&*client, &owner, &[]);
    withdraw(&*client, &[]);
    assert!(done("owners", |deadline| client.owners(&[], deadline)).is_empty());
}

pub(crate) fn several_owners_of_a_key_stand_side_by_side(cluster: &mut dyn Cluster) {
    let clients = [cluster.client(), cluster.client(), cluster.client()];
    let tags = tags(40);
    let owners = [owner(), owner(), owner()];
    for (at, (client, owner)) in clients.iter().zip(&owners).enumerate() {
        // The first has all keys, the second the last 30, the third the last 20.
        announce(&**client, owner, &records(owner, &tags[10 * at..], 7));
    }
    let of_key = |key: usize| {
        let has = owners.iter().enumerate().filter(|(at, _)| key >= 10 * at);
        has.map(|(_, owner)| record(owner, tags[key], generation(7))).collect()
    };
    let wanted: Vec<Vec<_>> = (0..tags.len()).map(of_key).collect();
    for client in &clients {
        assert_eq!(answers(&**client, &tags), wanted);
    }
}

pub(crate) fn an_answer_has_at_most_max_owners_records(cluster: &mut dyn Cluster) {
    let (client, tags) = (cluster.client(), tags(5));
    let owners: Vec<_> = (0..MAX_OWNERS + 3).map(|_| owner()).collect();
    for owner in &owners {
        announce(&*client, owner, &records(owner, &tags, 1));
    }
    for (answer, &tag) in answers(&*client, &tags).iter().zip(&tags) {
        assert_eq!(answer.len(), MAX_OWNERS);
        let different: BTreeSet<_> = answer.iter().map(|record| record.owner.0).collect();
        assert_eq!(different.len(), MAX_OWNERS);
        for answered in answer {
            let owner = owners.iter().find(|owner| owner.epoch == answered.owner).unwrap();
            assert_eq!(*answered, record(owner, tag, generation(1)));
        }
    }
}

pub(crate) fn a_new_generation_takes_the_place_of_the_old_one(cluster: &mut dyn Cluster) {
    let client = cluster.client();
    let (owner, other, tags) = (owner(), owner(), tags(30));
    let (old, others) = (records(&owner, &tags, 1), records(&other, &tags, 1));
    announce(&*client, &owner, &old);
    announce(&*client, &other, &others);
    let moved = |record: &Record| Record { slot: record.slot ^ 1, generation: generation(2), ..*record };
    let new: Vec<_> = old.iter().map(moved).collect();
    announce(&*client, &owner, &new[..15]);
    let wanted: Vec<_> = [&new[..15], &old[15..]].concat();
    let wanted: Vec<_> = wanted.into_iter().zip(others).map(|(own, other)| vec![own, other]).collect();
    assert_eq!(answers(&*client, &tags), wanted);
}

pub(crate) fn a_record_that_is_announced_again_is_there_once(cluster: &mut dyn Cluster) {
    let client = cluster.client();
    let (owner, tags) = (owner(), tags(30));
    let records = records(&owner, &tags, 1);
    for _ in 0..3 {
        announce(&*client, &owner, &records);
        assert_eq!(answers(&*client, &tags), each(&records));
    }
    // Withdrawn once, it is gone.
    withdraw(&*client, &records);
    assert_eq!(answers(&*client, &tags), vec![Vec::new(); 30]);
}

pub(crate) fn a_withdrawn_record_is_gone_and_the_others_stay(cluster: &mut dyn Cluster) {
    let (first, second) = (cluster.client(), cluster.client());
    let (owner, other, tags) = (owner(), owner(), tags(30));
    let (own, others) = (records(&owner, &tags, 1), records(&other, &tags, 1));
    announce(&*first, &owner, &own);
    announce(&*second, &other, &others);
    withdraw(&*first, &own[..10]);
    let wanted: Vec<_> =
        (0..30).map(|key| if key < 10 { vec![others[key]] } else { vec![own[key], others[key]] }).collect();
    assert_eq!(answers(&*second, &tags), wanted);
    // A withdrawn record can be withdrawn again, and announced again.
    withdraw(&*first, &own[..10]);
    announce(&*first, &owner, &own[..5]);
    withdraw(&*second, &others);
    let wanted: Vec<_> =
        (0..30).map(|key| if (5..10).contains(&key) { vec![] } else { vec![own[key]] }).collect();
    assert_eq!(answers(&*first, &tags), wanted);
}

pub(crate) fn a_withdrawn_old_generation_is_passed_over(cluster: &mut dyn Cluster) {
    let client = cluster.client();
    let (owner, tags) = (owner(), tags(10));
    let (old, new) = (records(&owner, &tags, 1), records(&owner, &tags, 2));
    announce(&*client, &owner, &old);
    announce(&*client, &owner, &new);
    // The slot was written again before its old page was withdrawn.
    withdraw(&*client, &old);
    assert_eq!(answers(&*client, &tags), each(&new));
    withdraw(&*client, &new);
    assert_eq!(answers(&*client, &tags), vec![Vec::new(); 10]);
}

pub(crate) fn a_dead_owners_records_expire_and_block_nobody(cluster: &mut dyn Cluster) {
    let client = cluster.client();
    let tags = tags(20);
    // As many as an answer holds: if they stayed, no other owner would be found.
    let dead: Vec<_> = (0..MAX_OWNERS).map(|_| owner()).collect();
    for owner in &dead {
        announce(&*client, owner, &records(owner, &tags, 1));
    }
    let epochs: Vec<_> = dead.iter().map(|owner| owner.epoch).collect();
    eventually("the records of owners that do not renew expire", || {
        let found = answers(&*client, &tags);
        found.iter().all(Vec::is_empty)
            && done("owners", |deadline| client.owners(&epochs, deadline)).iter().all(Option::is_none)
    });
    let living = owner();
    let wanted = records(&living, &tags, 1);
    announce(&*client, &living, &wanted);
    assert_eq!(answers(&*client, &tags), each(&wanted));
    // A dead owner's withdrawal finds nothing, and changes nothing for other owners.
    withdraw(&*client, &records(&dead[0], &tags, 1));
    assert_eq!(answers(&*client, &tags), each(&wanted));
}

pub(crate) fn an_owner_that_renews_keeps_its_records(cluster: &mut dyn Cluster) {
    let (client, other) = (cluster.client(), cluster.client());
    let (owner, tags) = (owner(), tags(20));
    let records = records(&owner, &tags, 1);
    announce(&*client, &owner, &records);
    let until = Instant::now() + 2 * client.lease();
    while Instant::now() < until {
        std::thread::sleep(client.lease() / 5);
        assert_eq!(renew(&*client, &owner), Renewed::Kept);
        assert_eq!(answers(&*other, &tags), each(&records));
    }
}

pub(crate) fn an_owner_whose_lease_ran_out_learns_that_its_records_are_lost(cluster: &mut dyn Cluster) {
    let client = cluster.client();
    let (owner, tags) = (owner(), tags(20));
    let records = records(&owner, &tags, 1);
    announce(&*client, &owner, &records);
    assert_eq!(renew(&*client, &owner), Renewed::Kept);
    eventually("a lease runs out", || {
        let found = done("owners", |deadline| client.owners(&[owner.epoch], deadline));
        found == [None]
    });
    // A part announced again is not all: the owner learns of that, too.
    announce(&*client, &owner, &records[..5]);
    assert_eq!(renew(&*client, &owner), Renewed::Lost);
    announce(&*client, &owner, &records);
    assert_eq!(renew(&*client, &owner), Renewed::Kept);
    assert_eq!(answers(&*client, &tags), each(&records));
}

pub(crate) fn owners_are_known_by_their_epochs(cluster: &mut dyn Cluster) {
    let (first, second) = (cluster.client(), cluster.client());
    let mut named = owner();
    named.address = "prefill-17.rack-3.example.org:65535".parse().unwrap();
    named.node = "x".repeat(64).parse().unwrap();
    let v6 = Owner { address: "[2001:db8::7]:1".parse().unwrap(), ..owner() };
    let (plain, stranger) = (owner(), owner());
    for owner in [&named, &v6, &plain] {
        announce(&*first, owner, &records(owner, &tags(1), 1));
    }
    let epochs = [plain.epoch, stranger.epoch, named.epoch, v6.epoch];
    let wanted = vec![Some(plain), None, Some(named.clone()), Some(v6)];
    assert_eq!(done("owners", |deadline| second.owners(&epochs, deadline)), wanted);
    // Another address of the same owner takes the place of the old one.
    named.address = "prefill-18.rack-3.example.org:7470".parse().unwrap();
    announce(&*first, &named, &[]);
    assert_eq!(done("owners", |deadline| second.owners(&[named.epoch], deadline)), [Some(named)]);
    // More than fit one message.
    let many: Vec<_> = (0..300).map(|at| epochs[at % 4]).collect();
    let found = done("owners", |deadline| second.owners(&many, deadline));
    assert_eq!(found.len(), 300);
    assert_eq!(found.iter().filter(|owner| owner.is_none()).count(), 75);
}

pub(crate) fn a_batch_of_128_keys_is_one_message_of_each_shard(cluster: &mut dyn Cluster) {
    let client = cluster.client();
    let (owner, tags) = (owner(), tags(128));
    let records = records(&owner, &tags, 1);
    announce(&*client, &owner, &records);
    assert_eq!(answers(&*client, &tags), each(&records));
    let Some(before) = cluster.look_ups() else { return };
    for _ in 0..10 {
        assert_eq!(answers(&*client, &tags), each(&records));
    }
    let messages = cluster.look_ups().expect("they were counted a moment ago") - before;
    assert_eq!(messages, 10 * cluster.shards() as u64);
}

pub(crate) fn thousands_of_records_and_keys_go_in_one_call(cluster: &mut dyn Cluster) {
    let client = cluster.client();
    let (owner, tags) = (owner(), tags(5000));
    let records = records(&owner, &tags, 1);
    announce(&*client, &owner, &records);
    assert_eq!(answers(&*client, &tags), each(&records));
    withdraw(&*client, &records[..4000]);
    let wanted: Vec<_> = (0..5000).map(|key| if key < 4000 { vec![] } else { vec![records[key]] }).collect();
    assert_eq!(answers(&*client, &tags), wanted);
}

pub(crate) fn threads_of_one_client_do_not_mix_their_answers(cluster: &mut dyn Cluster) {
    let client: Arc<dyn Directory> = Arc::from(cluster.client());
    let (owner, tags) = (owner(), tags(64));
    let records = records(&owner, &tags, 1);
    announce(&*client, &owner, &records);
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let (client, tags, records) = (&*client, &tags, &records);
            scope.spawn(move || {
                for round in 0..50 {
                    let from = (thread * 7 + round) % 60;
                    let keys = from..from + 1 + round % 4;
                    assert_eq!(answers(client, &tags[keys.clone()]), each(&records[keys]));
                }
            });
        }
    });
}

/// Does what a node does after a death: renews, and announces all where records are lost, until a
/// renewal says that all are there.
pub(crate) fn refill(directory: &dyn Directory, owner: &Owner, records: &[Record]) {
    eventually("the records are there again", || {
        match directory.renew(owner, Instant::now() + Duration::from_secs(1)) {
            Ok(Renewed::Kept) => true,
            Ok(Renewed::Lost) => {
                // A failure here shows at the next renewal.
                let _ = directory.announce(owner, records, Instant::now() + Duration::from_secs(1));
                false
            }
            Err(_) => false,
        }
    });
}
