//! Another program writes into the same servers: whatever it writes, no answer is of another key.

use kvrail::session::Epoch;
use kvrail_core::table::KeyTag;
use kvrail_node::directory::redis::RedisDirectory;
use kvrail_node::{Directory, Owner, Record};

use crate::directory_suite::{Cluster as _, announce, enough, owner, records, tags};
use crate::servers::{Servers, one, three};
use crate::single::look_up;

fn page_key(tag: KeyTag) -> String {
    format!("kvrail:page:{:032x}", tag.0)
}

fn field(epoch: Epoch) -> String {
    format!("{:016x}", epoch.0)
}

/// A server with pages of one owner.
struct Shared {
    servers: Servers,
    connection: redis::Connection,
    directory: RedisDirectory,
    owner: Owner,
    tags: Vec<KeyTag>,
    records: Vec<Record>,
}

impl Shared {
    fn new(count: usize) -> Option<Self> {
        let servers = one()?;
        let (connection, directory) = (servers.all[0].connection(), servers.start());
        let (owner, tags) = (owner(), tags(count));
        let records = records(&owner, &tags, 1);
        announce(&directory, &owner, &records);
        Some(Self { servers, connection, directory, owner, tags, records })
    }

    /// Puts a value into the owner's field of a key.
    fn put(&mut self, key: usize, value: &[u8]) {
        let mut command = redis::cmd("HSET");
        command.arg(page_key(self.tags[key])).arg(field(self.owner.epoch)).arg(value);
        command.exec(&mut self.connection).unwrap();
    }

    fn get(&mut self, key: usize) -> Vec<u8> {
        let mut command = redis::cmd("HGET");
        command.arg(page_key(self.tags[key])).arg(field(self.owner.epoch));
        command.query(&mut self.connection).unwrap()
    }

    /// Checks that these keys have no answer, and all others their own, for a client that has
    /// announced them and for another.
    fn check(&self, gone: &[usize]) {
        let other = self.servers.client();
        for directory in [&self.directory as &dyn Directory, &*other] {
            let found = look_up(directory, &self.tags);
            for (key, record) in self.records.iter().enumerate() {
                let answer = found.records(key).unwrap();
                let wanted: &[Record] = if gone.contains(&key) { &[] } else { &[*record] };
                assert_eq!(answer, wanted, "key {key}");
            }
        }
    }
}

#[test]
fn values_that_are_swapped_between_keys_are_no_answers() {
    let Some(mut shared) = Shared::new(6) else { return };
    let (first, second) = (shared.get(0), shared.get(1));
    shared.put(0, &second);
    shared.put(1, &first);
    // A whole key in the place of another.
    let (from, to) = (page_key(shared.tags[2]), page_key(shared.tags[3]));
    redis::cmd("COPY").arg(from).arg(to).arg("REPLACE").exec(&mut shared.connection).unwrap();
    shared.check(&[0, 1, 3]);
    // The owner repairs it by announcing its records again.
    announce(&shared.directory, &shared.owner, &shared.records);
    shared.check(&[]);
}

#[test]
fn forged_records_are_no_answers() {
    let Some(mut shared) = Shared::new(12) else { return };
    let good = shared.get(0);
    let with = |at: usize, byte: u8| {
        let mut forged = good.clone();
        forged[at] = byte;
        forged
    };
    shared.put(0, b"");
    shared.put(0, &good[..47]);
    let own = |shared: &mut Shared, key: usize| shared.get(key);
    let value = own(&mut shared, 1);
    shared.put(1, &value[..48]);
    let value = own(&mut shared, 2);
    shared.put(2, &[&value[..], b"x"].concat());
    let value = own(&mut shared, 3);
    shared.put(3, &[&value[..], &[b'9'; 1000]].concat());
    // Another tag, version, reserved byte, and an even generation, each in its own key.
    shared.put(4, &with(0, !good[0]));
    for (key, at, change) in [(5, 40, 0x40), (6, 47, 1), (7, 24, 1)] {
        let mut value = own(&mut shared, key);
        value[at] ^= change;
        shared.put(key, &value);
    }
    // Another owner than the field's: that owner could never withdraw it.
    let mut value = own(&mut shared, 8);
    value[16] ^= 0xff;
    shared.put(8, &value);
    // Other kinds of values.
    redis::cmd("SET").arg(page_key(shared.tags[9])).arg("text").exec(&mut shared.connection).unwrap();
    redis::cmd("DEL").arg(page_key(shared.tags[10])).exec(&mut shared.connection).unwrap();
    redis::cmd("RPUSH").arg(page_key(shared.tags[10])).arg(&value).exec(&mut shared.connection).unwrap();
    shared.check(&[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10]);
    // Withdrawing what is not there, or is no record, harms nothing.
    shared.directory.withdraw(&shared.records[..11], enough()).unwrap();
    announce(&shared.directory, &shared.owner, &shared.records);
    shared.check(&[]);
}

#[test]
fn thousands_of_forged_owners_of_a_key_block_nobody() {
    let Some(mut shared) = Shared::new(3) else { return };
    let value = shared.get(0);
    let mut forged = redis::cmd("HSET");
    forged.arg(page_key(shared.tags[0]));
    for number in 1..=5000_u64 {
        let mut value = value.clone();
        value[16..24].copy_from_slice(&number.to_le_bytes());
        forged.arg(format!("{number:016x}")).arg(value);
    }
    forged.exec(&mut shared.connection).unwrap();
    // The owners do not exist, so none of their records is an answer.
    let found = look_up(&shared.directory, &shared.tags);
    for (key, record) in shared.records.iter().enumerate() {
        let answer = found.records(key).unwrap();
        assert!(answer.iter().all(|found| found == record), "{answer:?}");
        assert_eq!(answer.len(), usize::from(key > 0 || !answer.is_empty()));
    }
    // A living owner that announces the key makes an end of them.
    announce(&shared.directory, &shared.owner, &shared.records);
    shared.check(&[]);
}

#[test]
fn forged_owners_are_unknown() {
    let Some(mut shared) = Shared::new(1) else { return };
    let key = format!("kvrail:owner:{:016x}:{{0}}", shared.owner.epoch.0);
    let good: String = redis::cmd("GET").arg(&key).query(&mut shared.connection).unwrap();
    let lines: Vec<_> = good.split('\n').map(str::to_owned).collect();
    assert_eq!(lines.len(), 5);
    let with = |line: usize, text: &str| {
        let mut lines = lines.clone();
        text.clone_into(&mut lines[line]);
        lines.join("\n")
    };
    let forged = [
        String::new(),
        "\u{0}".to_owned(),
        lines[..4].join("\n"),
        format!("{good}\nmore"),
        format!("{good}{}", "x".repeat(2000)),
        with(0, "2"),
        with(1, "00000000000000ff"),
        with(1, "0"),
        with(2, "no address"),
        with(2, "10.0.0.1:70000"),
        with(3, ""),
        with(4, &"z".repeat(65)),
    ];
    for text in forged {
        redis::cmd("SET").arg(&key).arg(&text).exec(&mut shared.connection).unwrap();
        assert_eq!(shared.directory.owners(&[shared.owner.epoch], enough()).unwrap(), [None], "{text:?}");
    }
    redis::cmd("DEL").arg(&key).exec(&mut shared.connection).unwrap();
    redis::cmd("RPUSH").arg(&key).arg("list").exec(&mut shared.connection).unwrap();
    assert_eq!(shared.directory.owners(&[shared.owner.epoch], enough()).unwrap(), [None]);
}

/// The server of a slot, by the test's own question.
fn home(servers: &Servers, key: &str) -> usize {
    let mut connection = servers.all[0].connection();
    let slot: u32 = redis::cmd("CLUSTER").arg("KEYSLOT").arg(key).query(&mut connection).unwrap();
    (0..3).find(|at| slot < (at + 1) * 16_384 / 3).unwrap() as usize
}

#[test]
fn keys_that_move_to_another_server_are_found_on_the_way_and_after_it() {
    let Some(servers) = three() else { return };
    let directory = servers.start();
    let (owner, tags) = (owner(), tags(30));
    let records = records(&owner, &tags, 1);
    announce(&directory, &owner, &records);
    let all_there = |what: &str| {
        let found = look_up(&directory, &tags);
        for (key, record) in records.iter().enumerate() {
            assert_eq!(found.records(key).expect(what), [*record], "{what}: key {key}");
        }
    };
    all_there("before");
    let key = page_key(tags[7]);
    let from = home(&servers, &key);
    let to = (from + 1) % 3;
    let (source, target) = (&servers.all[from], &servers.all[to]);
    let (source_id, target_id) = (source.cluster_id(), target.cluster_id());
    let slot: u32 = redis::cmd("CLUSTER").arg("KEYSLOT").arg(&key).query(&mut source.connection()).unwrap();
    let set = |server: &crate::servers::RedisServer, what: &str, id: &str| {
        let mut command = redis::cmd("CLUSTER");
        command.arg("SETSLOT").arg(slot).arg(what).arg(id).exec(&mut server.connection()).unwrap();
    };
    set(target, "IMPORTING", &source_id);
    set(source, "MIGRATING", &target_id);
    all_there("nothing has moved yet");
    let mut migrate = redis::cmd("MIGRATE");
    migrate.arg("127.0.0.1").arg(target.port).arg(&key).arg(0).arg(5000);
    migrate.exec(&mut source.connection()).unwrap();
    all_there("the key has moved, the slot has not: ASK");
    // A record of a key on the way can be withdrawn and announced.
    directory.withdraw(&records[7..8], enough()).unwrap();
    assert!(look_up(&directory, &tags[7..8]).records(0).unwrap().is_empty());
    directory.announce(&owner, &records[7..8], enough()).unwrap();
    all_there("announced on the way");
    set(target, "NODE", &target_id);
    set(source, "NODE", &target_id);
    all_there("the slot has moved: MOVED");
    all_there("and the map is known");
}
