//! The part of the suite in which servers die, stop and start again.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use kvrail_node::{Directory, DirectoryError, Found, Renewed};

use super::{Cluster, announce, answers, each, enough, eventually, owner, records, refill, renew, tags};

/// How long a call may take beyond its deadline: the test machine may be busy.
const SLACK: Duration = Duration::from_secs(3);

/// Checks that a call with a short deadline returns by it.
fn bounded<T>(what: &str, call: impl FnOnce(Instant) -> T) -> T {
    let begun = Instant::now();
    let time = Duration::from_millis(500);
    let result = call(begun + time);
    let took = begun.elapsed();
    assert!(took < time + SLACK, "{what} took {took:?} with a deadline of {time:?}");
    result
}

/// Checks that no call of `directory` succeeds, and that each returns by its deadline.
fn fails(directory: &dyn Directory) {
    let (owner, tags) = (owner(), tags(128));
    let records = records(&owner, &tags, 1);
    let mut found = Found::default();
    bounded("look_up", |deadline| directory.look_up(&tags, deadline, &mut found));
    assert_eq!(found.len(), tags.len());
    for key in 0..tags.len() {
        let why = found.records(key).expect_err("no server can have answered");
        assert!(why.is_some(), "a directory that is not reached says why");
    }
    let announced = bounded("announce", |deadline| directory.announce(&owner, &records, deadline));
    let withdrawn = bounded("withdraw", |deadline| directory.withdraw(&records, deadline));
    let renewed = bounded("renew", |deadline| directory.renew(&owner, deadline).map(drop));
    let owners = bounded("owners", |deadline| directory.owners(&[owner.epoch], deadline).map(drop));
    for result in [announced, withdrawn, renewed, owners] {
        let error = result.expect_err("no server can have answered");
        assert!((7020..7030).contains(&error.code()), "{error}");
        assert!(!matches!(error, DirectoryError::Answer { .. } | DirectoryError::Refused { .. }), "{error}");
    }
}

pub(crate) fn a_dead_directory_is_an_error_by_the_deadline(cluster: &mut dyn Cluster) {
    let client = cluster.client();
    assert_eq!(answers(&*client, &tags(1)), [Vec::new()]);
    cluster.kill_all();
    // A client that was connected, and one that never was. The first calls may find the connection
    // open.
    let never = cluster.client();
    for _ in 0..3 {
        fails(&*client);
        fails(&*never);
    }
}

pub(crate) fn a_frozen_directory_is_an_error_by_the_deadline(cluster: &mut dyn Cluster) {
    let client = cluster.client();
    let (owner, tags) = (owner(), tags(10));
    let records = records(&owner, &tags, 1);
    announce(&*client, &owner, &records);
    cluster.freeze();
    let never = cluster.client();
    for _ in 0..2 {
        fails(&*client);
        fails(&*never);
    }
    cluster.thaw();
    // An answer that comes late is not taken for that of a later call.
    for client in [client, never] {
        let found = answers(&*client, &tags);
        for (answer, record) in found.iter().zip(&records) {
            assert!(answer.is_empty() || answer == &[*record], "{answer:?}");
        }
        let own = super::owner();
        let new = super::records(&own, &super::tags(10), 3);
        announce(&*client, &own, &new);
        let new_tags: Vec<_> = new.iter().map(|record| record.tag).collect();
        assert_eq!(answers(&*client, &new_tags), each(&new));
    }
}

pub(crate) fn a_death_between_look_ups_gives_no_wrong_answer(cluster: &mut dyn Cluster) {
    let (announcer, client) = (cluster.client(), cluster.client());
    let (owner, tags) = (owner(), tags(256));
    let records = records(&owner, &tags, 1);
    announce(&*announcer, &owner, &records);
    assert_eq!(answers(&*client, &tags), each(&records));
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let looking: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| {
                    let (mut found, mut calls) = (Found::default(), 0_u64);
                    while !stop.load(Ordering::Relaxed) {
                        bounded("look_up", |deadline| client.look_up(&tags, deadline, &mut found));
                        assert_eq!(found.len(), tags.len());
                        for (key, record) in records.iter().enumerate() {
                            let answer = found.records(key).unwrap_or_default();
                            assert!(answer.is_empty() || answer == [*record], "{answer:?} for {record:?}");
                        }
                        calls += 1;
                    }
                    calls
                })
            })
            .collect();
        std::thread::sleep(Duration::from_millis(200));
        cluster.kill_part();
        std::thread::sleep(Duration::from_millis(500));
        cluster.restart();
        eventually("all is found again", || {
            refill(&*announcer, &owner, &records);
            let mut found = Found::default();
            client.look_up(&tags, enough(), &mut found);
            (0..tags.len()).all(|key| found.records(key).is_ok_and(|answer| answer == [records[key]]))
        });
        stop.store(true, Ordering::Relaxed);
        let calls: Vec<_> = looking.into_iter().map(|thread| thread.join().unwrap()).collect();
        assert!(calls.iter().all(|&calls| calls > 0), "{calls:?}");
    });
}

pub(crate) fn a_restarted_directory_is_filled_again(cluster: &mut dyn Cluster) {
    let (announcer, client) = (cluster.client(), cluster.client());
    let (owner, tags) = (owner(), tags(256));
    let records = records(&owner, &tags, 1);
    announce(&*announcer, &owner, &records);
    assert_eq!(renew(&*announcer, &owner), Renewed::Kept);
    cluster.kill_all();
    cluster.restart();
    assert_eq!(answers(&*client, &tags), vec![Vec::new(); 256], "its memory is empty");
    // New pages are announced before the owner has learned of the loss.
    announce(&*announcer, &owner, &records[..10]);
    assert_eq!(renew(&*announcer, &owner), Renewed::Lost);
    announce(&*announcer, &owner, &records);
    // A part of the directory may be reached later than the others, and the owner learns of each.
    eventually("all is found again", || {
        refill(&*announcer, &owner, &records);
        answers(&*client, &tags) == each(&records)
    });
}
