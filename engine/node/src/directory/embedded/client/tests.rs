//! A node asks its own shard by a call, and the shards of others over sessions.

use std::num::NonZeroU64;

use kvrail::session::{PoolId, ServerConfig};
use kvrail::{KvLayout, PageLayout, PeerKey, Publisher, PublisherConfig, shm};
use kvrail_core::table::Generation;

use super::super::shard::ShardConfig;
use super::*;

#[derive(KvLayout)]
#[kv(order(token), tokens = 1)]
#[allow(dead_code, reason = "a declaration")]
struct Tiny {
    bytes: [u8; 64],
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(30)
}

fn shard() -> Arc<EmbeddedShard> {
    Arc::new(EmbeddedShard::new(ShardConfig::default()))
}

#[test]
fn the_shard_of_this_process_is_asked_without_its_session() {
    let key = PeerKey::from_bytes([3; 32]);
    // Two shards, so that it is seen which of them was asked.
    let (served, own) = (shard(), shard());
    let server = ServerConfig::default().service(DIRECTORY_SERVICE, Arc::<EmbeddedShard>::clone(&served));
    let config =
        PublisherConfig::new("host".parse().unwrap()).server(server).pool(PageLayout::of::<Tiny>(), 1);
    let listen = "127.0.0.1:0".parse().unwrap();
    let publisher = Publisher::start_pools(config, &listen, key.clone(), shm::publish(1)).unwrap();
    let here = publisher.epoch();
    let another = Epoch(NonZeroU64::new(here.0.get() ^ 2).unwrap_or(here.0));
    for (epoch, asked, other) in [(here, &own, &served), (another, &served, &own)] {
        let mut config =
            EmbeddedConfig::new(vec![publisher.local_addr().into()], key.clone(), "client".parse().unwrap());
        config.own = Some((epoch, Arc::clone(&own)));
        let directory = EmbeddedDirectory::start(config).unwrap();
        let owner = Owner {
            epoch: Epoch(NonZeroU64::MIN),
            node: "owner".parse().unwrap(),
            address: "10.0.0.1:7470".parse().unwrap(),
            zone: "?".parse().unwrap(),
        };
        let record = |tag| Record {
            tag: KeyTag(tag),
            owner: owner.epoch,
            pool: PoolId(0),
            slot: 5,
            generation: Generation(3),
        };
        // More than one question of each kind.
        let records: Vec<_> = (0..2 * MAX_RECORDS as u128 + 1).map(record).collect();
        let (known, looked_up) = (other.records(), other.look_ups());
        directory.announce(&owner, &records, soon()).unwrap();
        assert_eq!(asked.records(), records.len());
        assert_eq!(directory.renew(&owner, soon()).unwrap(), Renewed::Kept);
        let tags: Vec<_> = (0..2 * MAX_KEYS as u128).map(KeyTag).collect();
        let mut found = Found::default();
        directory.look_up(&tags, soon(), &mut found);
        for (key, tag) in tags.iter().enumerate() {
            assert_eq!(found.records(key).unwrap(), &records[tag.0 as usize..][..1]);
        }
        let owners = directory.owners(&[owner.epoch, another], soon()).unwrap();
        assert_eq!(owners, [Some(owner), None]);
        directory.withdraw(&records, soon()).unwrap();
        assert_eq!((asked.records(), asked.look_ups() > 0), (0, true));
        assert_eq!((other.records(), other.look_ups()), (known, looked_up));
    }
}
