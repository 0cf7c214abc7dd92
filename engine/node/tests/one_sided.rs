//! Look-ups from tables that a reader has read, of a producer that takes no part in them.

use std::time::{Duration, Instant};

use kvrail::{Bf16, Config, KeyTag, KvLayout, PageLayout, PeerKey, Publisher, Reader, clock, memory, shm};
use kvrail_node::directory::one_sided::{OneSidedConfig, OneSidedTables};
use kvrail_node::{Directory, Found, Owner};

#[derive(KvLayout)]
#[kv(order(layer, token), layers = 2, tokens = 16)]
struct Latent {
    latent: [Bf16; 64],
}

const LATENT: PageLayout = PageLayout::of::<Latent>();
const SLOTS: u32 = 16;

#[test]
fn what_a_producer_has_published_is_found_and_read() {
    let key = PeerKey::from_bytes([0x5a; 32]);
    let (name, listen) = ("prefill-0".parse().unwrap(), "127.0.0.1:0".parse().unwrap());
    let producer = Publisher::start(name, LATENT, SLOTS, &listen, key.clone(), shm::publish(1)).unwrap();
    for slot in 0..4 {
        producer.write(slot, KeyTag(100 + u128::from(slot)), |page| page.fill(slot as u8 + 1)).unwrap();
    }
    let mut reader = Reader::start(LATENT, shm::rails(1).unwrap(), Config::default()).unwrap();
    let mut slots = reader.register(memory::leaked(4 * LATENT.page_bytes() as usize).unwrap()).unwrap();
    let address = producer.local_addr().into();
    let peer = reader.connect(&address, &key).unwrap();
    let owner = Owner { epoch: peer.epoch(), node: name, address, zone: "?".parse().unwrap() };

    let config = OneSidedConfig { refresh: Duration::from_millis(1), ..OneSidedConfig::default() };
    let tables = OneSidedTables::new(config);
    let pool = peer.pools()[0].id();
    tables.add(&owner, pool, SLOTS).unwrap();
    // Reads the tables that are wanted, as a node's reading thread does. Returns how many.
    let feed = |reader: &mut Reader<_>| {
        let mut read = 0;
        while let Some(wanted) = tables.wanted(Instant::now()) {
            let soon = clock::within(Duration::from_secs(10));
            let published = reader.published_in(&peer, 0, 0..wanted.slots, soon).unwrap();
            tables.publish(wanted.owner, wanted.pool, published, Instant::now());
            read += 1;
        }
        read
    };
    let look_up = |tag| {
        let mut found = Found::default();
        tables.look_up(&[KeyTag(tag)], Instant::now(), &mut found);
        found.records(0).unwrap().to_vec()
    };
    assert_eq!(look_up(102), [], "nothing was read yet");
    assert!(feed(&mut reader) > 0);
    let records = look_up(102);
    assert_eq!((records.len(), records[0].owner, records[0].pool), (1, owner.epoch, pool));
    assert_eq!(look_up(99), []);
    assert_eq!(tables.owners(&[owner.epoch], Instant::now()).unwrap(), [Some(owner)]);

    // The location that was found is that of the page.
    let mut batch = reader.batch().unwrap();
    batch.read(peer.page(records[0].location()).unwrap(), slots.next().unwrap()).map_err(drop).unwrap();
    let deadline = clock::within(Duration::from_secs(10));
    assert!(reader.submit(batch, deadline).is_ok());
    let mut bytes = None;
    while bytes.is_none() {
        reader.poll();
        if let Some(mut done) = reader.next_done() {
            for page in done.pages() {
                page.result().unwrap();
                bytes = page.slot.bytes().map(<[u8]>::to_vec);
            }
        }
        if bytes.is_none() {
            reader.wait(deadline);
        }
    }
    assert!(bytes.unwrap().iter().all(|&byte| byte == 3));

    // A page that was written anew has another key: the next image says so.
    producer.write(2, KeyTag(777), |page| page.fill(9)).unwrap();
    let limit = Instant::now() + Duration::from_secs(20);
    while look_up(777).is_empty() {
        assert!(Instant::now() < limit, "the table is read again");
        feed(&mut reader);
    }
    assert_eq!(look_up(102), []);
    assert_eq!(look_up(777)[0].slot, 2);
}
