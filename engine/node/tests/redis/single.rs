//! What the suite does not ask of every directory: log-ins, expiry in the servers, scripts, and
//! restarts with an older state.

use std::time::{Duration, Instant};

use kvrail_node::directory::redis::{RedisConfig, RedisConfigError, RedisDirectory};
use kvrail_node::{Directory, DirectoryError, Found, Renewed};

use crate::directory_suite::{SOON, announce, enough, eventually, owner, records, renew, tags};
use crate::servers::{LEASE, one, one_with, three};

/// Looks keys up once, with enough time.
pub(crate) fn look_up(directory: &dyn Directory, tags: &[kvrail_core::table::KeyTag]) -> Found {
    let mut found = Found::default();
    directory.look_up(tags, enough(), &mut found);
    found
}

#[test]
fn urls_are_parsed_and_passwords_are_never_shown() {
    let good = [
        ("redis://10.0.0.5", "redis://10.0.0.5:6379"),
        ("redis://user:se%40cret@host:7000/3", "redis://host:7000"),
        ("valkey://:secret@[::1]:7000", "redis://[::1]:7000"),
        ("redis-cluster://user:secret@a:1,b:2,c", "redis-cluster://a:1,b:2,c:6379"),
    ];
    for (url, shown) in good {
        let config = RedisConfig::new(url).unwrap();
        let debug = format!("{config:?}");
        assert!(debug.contains(shown) && !debug.contains("cret"), "{debug}");
        assert_eq!(RedisDirectory::start(config).unwrap().describe(), shown);
    }
    for url in [
        "10.0.0.5",
        "http://secret@a",
        "redis://",
        "redis://:secret@",
        "redis://a,b",
        "redis://a:notaport",
        "redis://a:70000",
        "redis://a/notadatabase",
        "redis://secret@a?protocol=resp3",
        "redis-cluster://a,,b",
        "redis-cluster://a/1",
    ] {
        let error = RedisConfig::new(url).unwrap_err();
        assert!(matches!(error, RedisConfigError::Url { .. }), "{url}: {error:?}");
        assert_eq!(error.code(), 7300);
        assert!(!error.to_string().contains("secret"), "{error}");
    }
    let many = format!("redis-cluster://{}", vec!["a"; 33].join(","));
    assert!(RedisConfig::new(&many).is_err());
    assert_eq!(RedisConfig::new("rediss://a").is_ok(), cfg!(feature = "redis-tls"));
    let config = || RedisConfig::new("redis://a").unwrap();
    for prefix in ["", "{a}", "a b", "a:b", &"x".repeat(65)] {
        assert!(matches!(config().prefix(prefix), Err(RedisConfigError::Prefix { .. })), "{prefix}");
    }
    assert!(config().prefix("group-7.kv_cache").is_ok());
    assert!(matches!(config().lease(Duration::ZERO), Err(RedisConfigError::Time { .. })));
    assert!(config().timeouts(Duration::ZERO, Duration::from_secs(1)).is_err());
    assert!(config().refresh(Duration::ZERO).is_err());
}

#[test]
fn a_log_in_is_by_password_or_by_user() {
    let Some(servers) =
        one_with(&["--requirepass", "all p@ss", "--user", "node", "on", ">n0de", "~kvrail:*", "+@all"])
    else {
        return;
    };
    let port = servers.all[0].port;
    let (owner, tags) = (owner(), tags(3));
    let records = records(&owner, &tags, 1);
    for login in [":all%20p%40ss@", "node:n0de@"] {
        let config = RedisConfig::new(&format!("redis://{login}127.0.0.1:{port}")).unwrap();
        let directory = RedisDirectory::start(config).unwrap();
        announce(&directory, &owner, &records);
        let found = look_up(&directory, &tags);
        assert_eq!(found.records(2).unwrap(), &records[2..]);
    }
    for login in ["", ":wrong@", "node:wrong@", "other:n0de@"] {
        let config = RedisConfig::new(&format!("redis://{login}127.0.0.1:{port}")).unwrap();
        let directory = RedisDirectory::start(config).unwrap();
        let error = directory.announce(&owner, &records, enough()).unwrap_err();
        assert!(matches!(error, DirectoryError::Refused { .. }), "{login}: {error}");
        assert!(!error.to_string().contains("wrong"), "{error}");
        let found = look_up(&directory, &tags);
        assert!(found.records(0).is_err(), "{login}");
    }
}

#[test]
fn a_user_that_may_only_read_finds_what_others_announce() {
    let user = "--user reader on >r ~kvrail:* -@all +hrandfield +pttl +get";
    let user: Vec<_> = user.split(' ').collect();
    let Some(servers) = one_with(&user) else { return };
    let (owner, tags) = (owner(), tags(3));
    let records = records(&owner, &tags, 1);
    announce(&servers.start(), &owner, &records);
    let config = RedisConfig::new(&format!("redis://reader:r@127.0.0.1:{}", servers.all[0].port)).unwrap();
    let directory = RedisDirectory::start(config).unwrap();
    assert_eq!(look_up(&directory, &tags).records(1).unwrap(), &records[1..2]);
    assert_eq!(directory.owners(&[owner.epoch], enough()).unwrap(), [Some(owner.clone())]);
    let error = directory.announce(&owner, &records, enough()).unwrap_err();
    assert!(matches!(error, DirectoryError::Refused { .. }), "{error}");
}

#[test]
fn the_user_of_the_documentation_may_do_all_that_is_needed() {
    let page = include_str!("../../../../docs/directory.md");
    let from = page.find("user kvrail on >password").unwrap();
    let user = page[from..].split("```").next().unwrap();
    let user: Vec<_> = std::iter::once("--user").chain(user.split_whitespace().skip(1)).collect();
    let Some(servers) = one_with(&user) else { return };
    let url = format!("redis://kvrail:password@127.0.0.1:{}", servers.all[0].port);
    let directory = RedisDirectory::start(RedisConfig::new(&url).unwrap()).unwrap();
    let (owner, tags) = (owner(), tags(3));
    let records = records(&owner, &tags, 1);
    // Three announcements take all ways through the script.
    let other = crate::directory_suite::owner();
    directory.announce(&owner, &records, enough()).unwrap();
    directory.announce(&other, &crate::directory_suite::records(&other, &tags, 1), enough()).unwrap();
    directory.announce(&owner, &records, enough()).unwrap();
    assert_eq!(renew(&directory, &owner), Renewed::Kept);
    assert_eq!(look_up(&directory, &tags).records(2).unwrap().len(), 2);
    directory.withdraw(&records, enough()).unwrap();
    assert_eq!(look_up(&directory, &tags).records(2).unwrap().len(), 1);
    assert_eq!(directory.owners(&[owner.epoch], enough()).unwrap(), [Some(owner.clone())]);
    let mut connection = servers.all[0].connection();
    redis::cmd("SCRIPT").arg("FLUSH").exec(&mut connection).unwrap();
    directory.announce(&owner, &records, enough()).unwrap();
}

#[test]
fn everything_in_the_server_goes_away_by_itself() {
    let Some(servers) = one() else { return };
    let config = servers.config().prefix("mine").unwrap().lease(LEASE).unwrap();
    let config = config.refresh(Duration::from_secs(1)).unwrap();
    let directory = RedisDirectory::start(config).unwrap();
    for _ in 0..3 {
        let (owner, tags) = (owner(), tags(20));
        announce(&directory, &owner, &records(&owner, &tags, 1));
    }
    let mut connection = servers.all[0].connection();
    let keys: Vec<String> = redis::cmd("KEYS").arg("*").query(&mut connection).unwrap();
    assert_eq!(keys.len(), 3 + 60);
    for key in keys {
        assert!(key.starts_with("mine:"), "{key}");
        let ms: i64 = redis::cmd("PTTL").arg(&key).query(&mut connection).unwrap();
        assert!((1..=5000).contains(&ms), "{key} stays for {ms} ms");
    }
    eventually("nothing is left", || {
        let left: u64 = redis::cmd("DBSIZE").query(&mut connection).unwrap();
        left == 0
    });
}

#[test]
fn fields_of_dead_owners_go_away_although_a_living_one_announces_the_key_again() {
    let Some(servers) = one() else { return };
    let config = servers.config().lease(Duration::from_millis(500)).unwrap();
    let directory = RedisDirectory::start(config.refresh(Duration::from_secs(1)).unwrap()).unwrap();
    let (dead, living, tags) = (owner(), owner(), tags(1));
    announce(&directory, &dead, &records(&dead, &tags, 1));
    let mut connection = servers.all[0].connection();
    let keys: Vec<String> = redis::cmd("KEYS").arg("kvrail:page:*").query(&mut connection).unwrap();
    let [key] = &keys[..] else { panic!("{keys:?}") };
    eventually("the field of the dead owner goes away", || {
        announce(&directory, &living, &records(&living, &tags, 1));
        let fields: u64 = redis::cmd("HLEN").arg(key).query(&mut connection).unwrap();
        fields == 1
    });
    assert_eq!(look_up(&directory, &tags).records(0).unwrap(), records(&living, &tags, 1));
}

#[test]
fn an_owner_is_told_to_announce_all_again_every_so_often() {
    let Some(servers) = one() else { return };
    let directory = RedisDirectory::start(servers.config().refresh(Duration::from_secs(1)).unwrap()).unwrap();
    let (owner, tags) = (owner(), tags(3));
    announce(&directory, &owner, &records(&owner, &tags, 1));
    eventually("a renewal says that records may be lost", || renew(&directory, &owner) == Renewed::Lost);
    assert_eq!(renew(&directory, &owner), Renewed::Kept);
}

#[test]
fn scripts_that_the_server_has_forgotten_are_sent_again() {
    let Some(servers) = one() else { return };
    let directory = servers.start();
    let (owner, tags) = (owner(), tags(2));
    let records = records(&owner, &tags, 1);
    announce(&directory, &owner, &records[..1]);
    let mut connection = servers.all[0].connection();
    redis::cmd("SCRIPT").arg("FLUSH").exec(&mut connection).unwrap();
    // At once, without an error in between.
    directory.announce(&owner, &records, enough()).unwrap();
    redis::cmd("SCRIPT").arg("FLUSH").exec(&mut connection).unwrap();
    directory.withdraw(&records[..1], enough()).unwrap();
    let found = look_up(&directory, &tags);
    assert_eq!((found.records(0).unwrap().len(), found.records(1).unwrap()), (0, &records[1..]));
}

#[test]
fn a_flushed_server_and_one_with_an_older_state_are_noticed() {
    let Some(mut servers) = one() else { return };
    let directory = RedisDirectory::start(servers.config().lease(Duration::from_secs(60)).unwrap()).unwrap();
    let (owner, tags) = (owner(), tags(10));
    let records = records(&owner, &tags, 1);
    announce(&directory, &owner, &records[..5]);
    assert_eq!(renew(&directory, &owner), Renewed::Kept);
    let mut connection = servers.all[0].connection();
    redis::cmd("FLUSHALL").exec(&mut connection).unwrap();
    assert_eq!(renew(&directory, &owner), Renewed::Lost);
    announce(&directory, &owner, &records[..5]);
    assert_eq!(renew(&directory, &owner), Renewed::Kept);
    // The entry of the owner survives with half of the records.
    redis::cmd("SAVE").exec(&mut connection).unwrap();
    announce(&directory, &owner, &records[5..]);
    servers.all[0].kill();
    assert!(servers.all[0].start());
    eventually("the server answers again", || directory.owners(&[owner.epoch], enough()).is_ok());
    assert_eq!(directory.owners(&[owner.epoch], enough()).unwrap(), [Some(owner.clone())]);
    let found = look_up(&directory, &tags);
    assert_eq!(found.records(0).unwrap(), &records[..1]);
    assert!(found.records(9).unwrap().is_empty());
    assert_eq!(renew(&directory, &owner), Renewed::Lost);
}

#[test]
fn one_lost_server_of_a_cluster_is_noticed() {
    let Some(servers) = three() else { return };
    let directory = servers.start();
    let (owner, tags) = (owner(), tags(60));
    let records = records(&owner, &tags, 1);
    announce(&directory, &owner, &records);
    assert_eq!(renew(&directory, &owner), Renewed::Kept);
    for server in &servers.all {
        redis::cmd("FLUSHALL").exec(&mut server.connection()).unwrap();
        assert_eq!(renew(&directory, &owner), Renewed::Lost);
        announce(&directory, &owner, &records);
        assert_eq!(renew(&directory, &owner), Renewed::Kept);
    }
    let found = look_up(&directory, &tags);
    for (key, record) in records.iter().enumerate() {
        assert_eq!(found.records(key).unwrap(), [*record]);
    }
}

#[test]
fn records_of_another_owner_are_not_announced() {
    let directory = RedisDirectory::start(RedisConfig::new("redis://127.0.0.1:1").unwrap()).unwrap();
    let (own, other, tags) = (owner(), owner(), tags(1));
    let error = directory.announce(&own, &records(&other, &tags, 1), enough()).unwrap_err();
    assert!(matches!(error, DirectoryError::Refused { .. }), "{error}");
}

#[test]
fn a_thread_of_another_runtime_may_call_and_drop_it() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap();
    runtime.block_on(async {
        let directory = RedisDirectory::start(RedisConfig::new("redis://127.0.0.1:1").unwrap()).unwrap();
        let begun = Instant::now();
        assert!(look_up(&directory, &tags(1)).records(0).is_err());
        assert!(begun.elapsed() < SOON);
        drop(directory);
    });
}
