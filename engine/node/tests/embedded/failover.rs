//! What happens to look-ups when the shard that is asked dies, stops, and comes back.

use std::time::{Duration, Instant};

use kvrail_core::table::KeyTag;
use kvrail_node::{Directory, Found, Record, Renewed};

use crate::directory_suite::{announce, enough, eventually, owner, records, refill, renew, tags};
use crate::shards::Shards;

/// How many keys are found where they were announced.
fn hits(directory: &dyn Directory, tags: &[KeyTag], records: &[Record]) -> usize {
    let mut found = Found::default();
    directory.look_up(tags, enough(), &mut found);
    (0..tags.len()).filter(|&key| found.records(key).is_ok_and(|answer| answer == [records[key]])).count()
}

#[test]
fn the_standby_has_all_records_when_the_first_shard_dies() {
    let mut shards = Shards::start(3);
    let (announcer, reader) = (shards.directory(), shards.directory());
    let (owner, tags) = (owner(), tags(1000));
    let records = records(&owner, &tags, 1);
    announce(&announcer, &owner, &records);
    assert_eq!(renew(&announcer, &owner), Renewed::Kept);
    assert_eq!(hits(&reader, &tags, &records), 1000);
    shards.kill(0);
    // At once, without any renewal: the standby is asked in the same call.
    assert_eq!(hits(&reader, &tags, &records), 1000);
    // The third candidate becomes the standby: the owner learns that records are missing there.
    let lost = || renew(&announcer, &owner) == Renewed::Lost;
    eventually("the owner learns of the new standby", lost);
    announce(&announcer, &owner, &records);
    assert_eq!(renew(&announcer, &owner), Renewed::Kept);
    shards.kill(1);
    assert_eq!(hits(&reader, &tags, &records), 1000);
}

#[test]
fn two_addresses_of_one_shard_leave_room_for_a_standby() {
    let mut shards = Shards::start(2);
    let mut config = shards.config();
    // The first shard has a second address.
    config.candidates.insert(1, config.candidates[0].clone());
    let start = || kvrail_node::directory::embedded::EmbeddedDirectory::start(config.clone()).unwrap();
    let (announcer, reader) = (start(), start());
    let (owner, tags) = (owner(), tags(1000));
    let records = records(&owner, &tags, 1);
    announce(&announcer, &owner, &records);
    assert_eq!(renew(&announcer, &owner), Renewed::Kept);
    assert_eq!(hits(&reader, &tags, &records), 1000);
    shards.kill(0);
    assert_eq!(hits(&reader, &tags, &records), 1000);
}

#[test]
fn a_shard_that_comes_back_empty_is_looked_up_at_when_owners_have_filled_it() {
    let mut shards = Shards::start(2);
    let (announcer, reader) = (shards.directory(), shards.directory());
    let (owner, tags) = (owner(), tags(500));
    let records = records(&owner, &tags, 1);
    announce(&announcer, &owner, &records);
    assert_eq!(hits(&reader, &tags, &records), 500);
    shards.kill(0);
    assert_eq!(hits(&reader, &tags, &records), 500);
    shards.restart_one(0);
    // The owner renews as a node does. Meanwhile no look-up misses, also when it moves back.
    let (begun, mut renewals) = (Instant::now(), 0);
    let mut first_again = 0;
    while begun.elapsed() < Duration::from_secs(6) {
        if renew(&announcer, &owner) == Renewed::Lost {
            announce(&announcer, &owner, &records);
        }
        renewals += 1;
        assert_eq!(hits(&reader, &tags, &records), 500, "after {renewals} renewals");
        first_again = shards.look_ups_of(0);
        std::thread::sleep(Duration::from_millis(100));
    }
    assert!(first_again > 0, "the first candidate is looked up at again");
}

#[test]
fn a_stopped_shard_is_left_for_the_standby() {
    let mut shards = Shards::start(2);
    let (announcer, reader) = (shards.directory(), shards.directory());
    let (owner, tags) = (owner(), tags(500));
    let records = records(&owner, &tags, 1);
    announce(&announcer, &owner, &records);
    assert_eq!(hits(&reader, &tags, &records), 500);
    let answered = shards.look_ups_of(0);
    assert!(answered > 0, "the first candidate is looked up at");
    shards.freeze_one(0);
    let mut found = Found::default();
    // Owners renew meanwhile, with short deadlines.
    let limit = Instant::now() + Duration::from_secs(20);
    let mut calls = 0;
    loop {
        let soon = Instant::now() + Duration::from_millis(200);
        let _ = announcer.renew(&owner, soon);
        reader.look_up(&tags, Instant::now() + Duration::from_millis(200), &mut found);
        if (0..500).all(|key| found.records(key).is_ok_and(|answer| answer == [records[key]])) {
            break;
        }
        calls += 1;
        assert!(Instant::now() < limit, "{calls} calls, and no answer of the standby");
    }
}

#[test]
fn a_look_up_under_way_at_a_shard_that_stops_is_answered_by_the_standby() {
    let shards = Shards::start(2);
    let (announcer, reader) = (shards.directory(), shards.directory());
    let (owner, tags) = (owner(), tags(500));
    let records = records(&owner, &tags, 1);
    announce(&announcer, &owner, &records);
    assert_eq!(hits(&reader, &tags, &records), 500);
    shards.freeze_one(0);
    // More time than this test may take: only giving the stopped shard up ends the wait for it.
    let an_hour = Instant::now() + Duration::from_secs(3600);
    std::thread::scope(|scope| {
        let look_ups: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    let mut found = Found::default();
                    reader.look_up(&tags, an_hour, &mut found);
                    (0..500).filter(|&key| found.records(key).is_ok_and(|one| one == [records[key]])).count()
                })
            })
            .collect();
        for look_up in look_ups {
            assert_eq!(look_up.join().unwrap(), 500);
        }
    });
    assert_eq!(reader.owners(&[owner.epoch], an_hour).unwrap(), [Some(owner)]);
}

#[test]
fn a_stopped_shard_with_as_many_questions_as_it_may_have_keeps_no_other_look_up_waiting() {
    let shards = Shards::start(2);
    let announcer = shards.directory();
    // This client gives no shard up while the test runs, and has a standby soon.
    let mut config = shards.config().lease(Duration::from_millis(100));
    config.heartbeat = Duration::from_secs(6);
    let reader = kvrail_node::directory::embedded::EmbeddedDirectory::start(config).unwrap();
    let (owner, tags) = (owner(), tags(2048));
    let records = records(&owner, &tags, 1);
    announce(&announcer, &owner, &records);
    assert_eq!(hits(&reader, &tags, &records), 2048);
    std::thread::sleep(Duration::from_millis(200));
    shards.freeze_one(0);
    let until = Instant::now() + Duration::from_secs(5);
    std::thread::scope(|scope| {
        // 16 questions of 128 keys each.
        for _ in 0..16 {
            scope.spawn(|| reader.look_up(&tags, until, &mut Found::default()));
        }
        std::thread::sleep(Duration::from_millis(500));
        announcer.renew(&owner, enough()).ok();
        let mut found = Found::default();
        reader.look_up(&tags[..10], Instant::now() + Duration::from_secs(4), &mut found);
        for (key, record) in records[..10].iter().enumerate() {
            assert_eq!(found.records(key).map_err(|why| format!("{why:?}")).unwrap(), [*record]);
        }
    });
}

#[test]
fn nodes_with_different_first_candidates_meet_at_a_common_one() {
    let shards = Shards::start(2);
    let both = shards.directory();
    // This node reaches the second candidate only.
    let mut config = shards.config();
    config.candidates.remove(0);
    let second = kvrail_node::directory::embedded::EmbeddedDirectory::start(config).unwrap();
    let (owner, other, tags) = (owner(), owner(), tags(10));
    let (own, others) = (records(&owner, &tags[..5], 1), records(&other, &tags[5..], 1));
    announce(&both, &owner, &own);
    announce(&second, &other, &others);
    assert_eq!(hits(&second, &tags[..5], &own), 5, "it finds what was announced to both");
    assert_eq!(hits(&both, &tags[5..], &others), 0, "what is at the second alone is a miss");
    assert_eq!(hits(&both, &tags[..5], &own), 5);
    refill(&both, &owner, &own);
}
