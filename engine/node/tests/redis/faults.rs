//! One server of a cluster is frozen or dead: the answers of the others count, in time.

use std::time::{Duration, Instant};

use kvrail_core::table::KeyTag;
use kvrail_node::directory::redis::RedisDirectory;
use kvrail_node::{Directory, DirectoryError, Found, Record, Renewed};

use crate::directory_suite::{announce, enough, eventually, owner, records, refill, renew, tags};
use crate::servers::{Servers, three};
use crate::single::look_up;

/// How long a call may take beyond its deadline: the test machine may be busy.
const SLACK: Duration = Duration::from_secs(3);

/// Looks all keys up with a short deadline: how many keys were answered, with their own records,
/// and how many were not. An answer of another key ends the test.
fn counts(directory: &dyn Directory, tags: &[KeyTag], records: &[Record], time: Duration) -> (usize, usize) {
    let (begun, mut found) = (Instant::now(), Found::default());
    directory.look_up(tags, begun + time, &mut found);
    assert!(begun.elapsed() < time + SLACK);
    assert_eq!(found.len(), tags.len());
    let (mut answered, mut silent) = (0, 0);
    for (key, record) in records.iter().enumerate() {
        match found.records(key) {
            Ok(answer) => {
                assert_eq!(answer, [*record], "key {key}");
                answered += 1;
            }
            Err(why) => {
                let why = why.expect("a server that does not answer has a reason");
                assert!(!matches!(why, DirectoryError::Answer { .. }), "{why}");
                silent += 1;
            }
        }
    }
    (answered, silent)
}

/// How many of the keys are on server number `at`, by that server's own count.
fn keys_on(servers: &Servers, at: usize) -> usize {
    let mut connection = servers.all[at].connection();
    let keys: Vec<String> = redis::cmd("KEYS").arg("kvrail:page:*").query(&mut connection).unwrap();
    keys.len()
}

struct Started {
    servers: Servers,
    directory: RedisDirectory,
    owner: kvrail_node::Owner,
    tags: Vec<KeyTag>,
    records: Vec<Record>,
    first: usize,
}

fn started() -> Option<Started> {
    let servers = three()?;
    // The lease outlasts the test: which owners are alive is not asked here.
    let directory = RedisDirectory::start(servers.config().lease(Duration::from_secs(600)).unwrap()).unwrap();
    let (owner, tags) = (owner(), tags(300));
    let records = records(&owner, &tags, 1);
    announce(&directory, &owner, &records);
    let first = keys_on(&servers, 0);
    assert!((50..150).contains(&first), "{first} of 300 keys on a third of the slots");
    Some(Started { servers, directory, owner, tags, records, first })
}

#[test]
fn a_frozen_server_costs_its_own_keys_only() {
    let Some(Started { servers, directory, owner, tags, records, first }) = started() else { return };
    let time = Duration::from_millis(300);
    std::thread::scope(|scope| {
        let looking: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    // Some of these look-ups are under way when the server stops.
                    let mut partial = 0;
                    let until = Instant::now() + Duration::from_secs(3);
                    while Instant::now() < until || partial == 0 {
                        let (_, silent) = counts(&directory, &tags, &records, time);
                        partial += usize::from(silent == first);
                    }
                    partial
                })
            })
            .collect();
        std::thread::sleep(Duration::from_millis(300));
        servers.all[0].freeze();
        let partial: Vec<_> = looking.into_iter().map(|thread| thread.join().unwrap()).collect();
        assert!(partial.iter().all(|&count| count > 0), "{partial:?}");
    });
    // By now the server is left alone: its keys cost no time.
    let mut found = Found::default();
    eventually("the frozen server is left alone", || {
        directory.look_up(&tags, enough(), &mut found);
        let why = (0..tags.len()).filter_map(|key| found.records(key).err().flatten());
        why.into_iter().any(|why| matches!(why, DirectoryError::BackingOff { .. }))
    });
    // What the frozen server has is not known, so the renewal does not say that all is kept.
    let error = directory.renew(&owner, Instant::now() + time).map(|_| ()).unwrap_err();
    assert!((7020..7030).contains(&error.code()), "{error}");
    // An owner is found on the others.
    assert_eq!(directory.owners(&[owner.epoch], Instant::now() + time).unwrap(), [Some(owner.clone())]);
    servers.all[0].thaw();
    eventually("all keys are found again", || counts(&directory, &tags, &records, time) == (300, 0));
}

#[test]
fn a_dead_server_costs_its_own_keys_only_and_is_filled_again() {
    let Some(Started { mut servers, directory, owner, tags, records, first }) = started() else { return };
    servers.all[0].kill();
    let time = Duration::from_millis(500);
    for _ in 0..20 {
        assert_eq!(counts(&directory, &tags, &records, time), (300 - first, first));
    }
    assert!(directory.announce(&owner, &records, enough()).is_err());
    assert!(directory.renew(&owner, enough()).is_err());
    // A client that learns of the cluster only now, one of whose servers is dead.
    let late = servers.start();
    assert_eq!(counts(&late, &tags, &records, Duration::from_secs(5)), (300 - first, first));
    crate::directory_suite::Cluster::restart(&mut servers);
    // The server came back empty.
    eventually("the loss is noticed", || matches!(directory.renew(&owner, enough()), Ok(Renewed::Lost)));
    refill(&directory, &owner, &records);
    announce(&directory, &owner, &records);
    let found = look_up(&directory, &tags);
    for (key, record) in records.iter().enumerate() {
        assert_eq!(found.records(key).unwrap(), [*record]);
    }
    assert_eq!(renew(&directory, &owner), Renewed::Kept);
}

#[test]
fn a_failed_announcement_is_owed_until_the_owner_has_heard_of_it() {
    let Some(Started { servers, directory, owner, tags: _, records, .. }) = started() else { return };
    assert_eq!(renew(&directory, &owner), Renewed::Kept);
    servers.all[0].freeze();
    let time = Instant::now() + Duration::from_millis(200);
    assert!(directory.announce(&owner, &records, time).is_err());
    // The connection is given up after a second; what was sent may still arrive, or not.
    std::thread::sleep(Duration::from_millis(1500));
    servers.all[0].thaw();
    let mut outcomes = Vec::new();
    eventually("all servers answer a renewal", || {
        outcomes.extend(directory.renew(&owner, enough()).ok());
        !outcomes.is_empty()
    });
    assert_eq!(outcomes, [Renewed::Lost]);
}
