//! A replica takes the place of its primary, and does not know what the primary was told last.

use std::sync::Arc;
use std::time::{Duration, Instant};

use kvrail::shm;
use kvrail_node::directory::redis::RedisDirectory;
use kvrail_node::{Destinations, GetBatch, Node, NodeConfig};

use crate::directory_suite::{enough, eventually};
use crate::pages::{LAYOUT, PAGE, key, page_of, peer_key};
use crate::servers::{RedisServer, Servers, one};

/// Pages of the owner's pool.
const SLOTS: u32 = 4;

fn start(servers: &Servers, name: &str, slots: u32) -> Node {
    let directory = Arc::new(RedisDirectory::start(servers.config()).unwrap());
    let config = NodeConfig::new(name.parse().unwrap(), peer_key()).layout(LAYOUT).directory(directory);
    let config = if slots > 0 { config.pool(LAYOUT, slots) } else { config };
    Node::start(config, shm::publish(1), || shm::rails(1)).unwrap()
}

fn put(node: &Node, keys: std::ops::Range<u64>) {
    for at in keys {
        let _ = node.put(&LAYOUT, key(0, at), &page_of(key(0, at))).unwrap();
    }
}

/// Gets keys, and checks every byte of the hits.
fn get(node: &Node, places: &Destinations, keys: std::ops::Range<u64>) -> Vec<&'static str> {
    let (mut batch, time) = (GetBatch::default(), Duration::from_secs(5));
    for at in keys.clone() {
        let mut place = places.take_any().expect("a free place");
        place.bytes_mut(0).unwrap().fill(0xEE);
        batch.read(key(0, at), place);
    }
    let began = Instant::now();
    node.get(&mut batch, began + time);
    assert!(began.elapsed() < time + Duration::from_secs(3), "a call took {:?}", began.elapsed());
    let label = |(at, page): (u64, kvrail_node::GotPage)| match page.result {
        Ok(_) => {
            let right =
                page.destination.is_some_and(|place| place.bytes(0) == Some(&page_of(key(0, at))[..]));
            assert!(right, "key {at} has wrong bytes");
            "hit"
        }
        Err(miss) => miss.label(),
    };
    keys.zip(batch.take_pages()).map(label).collect()
}

/// The pages that a server knows.
fn pages(server: &RedisServer) -> Vec<String> {
    let mut keys: Vec<String> =
        redis::cmd("KEYS").arg("kvrail:page:*").query(&mut server.connection()).unwrap();
    keys.sort();
    keys
}

#[test]
fn a_withdrawal_that_a_fail_over_loses_is_a_miss() {
    let Some(mut servers) = one() else { return };
    let address = servers.all[0].port.to_string();
    let replica = RedisServer::new(false, &["--replicaof", "127.0.0.1", &address]);
    let (owner, reader) = (start(&servers, "owner", SLOTS), start(&servers, "reader", 0));
    let places = reader.register(&LAYOUT, kvrail::memory::leaked(8 * PAGE).unwrap()).unwrap();
    put(&owner, 0..4);
    owner.announcer().unwrap().flush(enough()).unwrap();
    assert_eq!(get(&reader, &places, 0..4), ["hit"; 4]);
    let first = pages(&servers.all[0]);
    eventually("the replica has all records", || pages(&replica) == first);
    // From now on the replica hears of nothing: where its primary should be no process listens.
    redis::cmd("REPLICAOF").arg("127.0.0.1").arg(1).exec(&mut replica.connection()).unwrap();
    // Every page is evicted for another one, and withdrawn.
    put(&owner, 4..8);
    owner.announcer().unwrap().flush(enough()).unwrap();
    let second = pages(&servers.all[0]);
    assert!(second.len() == 4 && second.iter().all(|page| !first.contains(page)), "{first:?}, {second:?}");
    assert_eq!(pages(&replica), first, "the replica has not heard of the withdrawals");
    servers.all[0].kill();
    redis::cmd("REPLICAOF").arg("NO").arg("ONE").exec(&mut replica.connection()).unwrap();
    let take_over =
        || redis::cmd("CONFIG").arg("SET").arg("port").arg(&address).exec(&mut replica.connection());
    eventually("the replica has the primary's address", || take_over().is_ok());
    reader.clear_cache();
    let mut labels = Vec::new();
    eventually("the replica answers", || {
        labels = get(&reader, &places, 0..8);
        !labels.contains(&"directory")
    });
    assert_eq!(labels[..4], ["stale"; 4], "the lost withdrawals: {labels:?}");
    // What was announced last was lost, too, unless it has been announced again by now.
    assert!(labels[4..].iter().all(|label| ["no_owner", "hit"].contains(label)), "{labels:?}");
    // The replica is a directory as its primary was.
    put(&owner, 8..10);
    eventually("new pages are found", || {
        let _ = owner.announcer().unwrap().flush(enough());
        get(&reader, &places, 8..10) == ["hit"; 2]
    });
}
