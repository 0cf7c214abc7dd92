//! How readers are told of the pools.

use std::collections::BTreeMap;
use std::time::Instant;

use super::bench::{Bench, Talk};
use super::rig::{PARTS, Random, Rig, known, layout, pool, region};
use crate::message::{Message, MessageKind};
use crate::offer::{Layout, OfferedRegion};
use crate::offered::{OfferNews, OfferReader};
use crate::pool::{MAX_POOLS, Offer, OfferChange, Pool, PoolError, PoolId};
use crate::server::ServerConfig;
use crate::server::pools::{Announcer, OfferedPools};

fn kinds(messages: &[Message]) -> Vec<MessageKind> {
    messages.iter().map(|message| message.kind().unwrap()).collect()
}

fn offer(talk: &mut Talk, known: &[Layout], now: Instant) -> (OfferReader, Offer) {
    let mut reader = OfferReader::new(known.to_vec());
    let mut all = talk.hear(now).into_iter().map(|message| reader.received(message).unwrap());
    let Some(Some(OfferNews::Complete(offer))) = all.find(Option::is_some) else { panic!("no offer") };
    assert!(all.all(|news| news.is_none()));
    drop(all);
    (reader, offer)
}

#[test]
fn an_offer_has_the_pools_that_the_reader_knows_and_names_the_other_layouts_once() {
    let pools = vec![pool(3, 2, 1), pool(1, 1, 1), pool(2, 4, 200), pool(7, 2, 1), pool(9, 3, 1)];
    let (bench, now) = (Bench::new(ServerConfig::default(), pools), Instant::now());
    // Known under another name.
    let ours = Layout { name: "our_own_mla".parse().unwrap(), ..layout(1) };
    let known = [vec![ours, layout(8)], known(4)].concat();
    let mut talk = bench.introduced(now, &known);
    let (_, offer) = offer(&mut talk, &known, now);
    assert_eq!((offer.producer.as_str(), offer.epoch), ("prefill-1", bench.epoch()));
    assert_eq!(offer.rails, super::rig::rails(3));
    let ids: Vec<_> = offer.pools.iter().map(|pool| (pool.id().0, *pool.layout())).collect();
    let theirs = *pool(2, 4, 200).layout();
    assert_eq!(ids, [(1, layout(1)), (2, theirs)], "with the producer's name for the layout");
    assert_eq!(offer.pools[1].regions(), (0..200).map(region).collect::<Vec<OfferedRegion>>());
    assert_eq!(offer.unknown, [layout(2), layout(3)]);
    assert!(talk.hear(now).is_empty());
}

#[test]
fn a_layout_of_equal_size_and_another_fingerprint_is_unknown() {
    let (bench, now) = (Bench::new(ServerConfig::default(), vec![pool(0, 1, 1)]), Instant::now());
    let other_rank = Layout { fingerprint: crate::Fingerprint::from_bytes([7; 16]), ..layout(1) };
    let mut talk = bench.introduced(now, &[other_rank]);
    let (_, offer) = offer(&mut talk, &[other_rank], now);
    assert_eq!((offer.pools, offer.unknown), (vec![], vec![layout(1)]));
}

#[test]
fn one_call_gives_one_message() {
    let (bench, now) = (Bench::new(ServerConfig::default(), vec![pool(0, 1, 130)]), Instant::now());
    let mut talk = bench.introduced(now, &known(1));
    let mut all = Vec::new();
    loop {
        let some = talk.fill(now);
        assert!(some.len() <= 1);
        if some.is_empty() {
            break;
        }
        all.extend(some);
    }
    use MessageKind::{Offer, Offered, Pool, Regions};
    assert_eq!(kinds(&all), [Offer, Pool, Regions, Regions, Regions, Offered]);
}

#[test]
fn sessions_are_told_of_pools_that_come_and_go() {
    let rig = Rig::new();
    let mut reader = rig.dial();
    let (mut offers, _) = reader.introduce(&known(1));
    let mut change = |reader: &mut super::reader::FakeReader| loop {
        if let Some(news) = offers.received(reader.hear()).unwrap() {
            let OfferNews::Change(change) = news else { panic!("{news:?}") };
            return change;
        }
    };
    rig.server.add_pool(pool(1, 1, 70)).unwrap();
    assert_eq!(change(&mut reader), OfferChange::Came(pool(1, 1, 70)));
    rig.server.add_pool(pool(2, 5, 1)).unwrap();
    assert_eq!(change(&mut reader), OfferChange::Unknown(layout(5)));
    rig.server.add_pool(pool(3, 5, 1)).unwrap();
    assert!(rig.server.remove_pool(PoolId(2)) && rig.server.remove_pool(PoolId(0)));
    assert!(!rig.server.remove_pool(PoolId(0)));
    assert_eq!(change(&mut reader), OfferChange::Gone(PoolId(0)));
    rig.server.add_pool(pool(4, 1, 1)).unwrap();
    assert_eq!(change(&mut reader), OfferChange::Came(pool(4, 1, 1)));
}

#[test]
fn a_pool_that_goes_while_its_regions_are_sent_is_completed_first() {
    let (bench, now) =
        (Bench::new(ServerConfig::default(), vec![pool(0, 1, 300), pool(1, 1, 1)]), Instant::now());
    let mut talk = bench.introduced(now, &known(1));
    let mut said: Vec<_> = (0..3).flat_map(|_| talk.fill(now)).collect();
    use MessageKind::{Gone, Offer, Offered, Pool, Regions};
    assert_eq!(kinds(&said), [Offer, Pool, Regions]);
    let pools = &bench.shared().pools;
    assert!(pools.remove(PoolId(0)) && pools.remove(PoolId(1)));
    pools.add(super::rig::pool(2, 1, 1)).unwrap();
    kvrail_host::reactor::Connection::notified(&mut talk.connection, now);
    said.extend(talk.hear(now));
    // The second pool had not begun, and is not offered any more.
    let rest = [Regions, Regions, Regions, Regions, Offered, Gone, Pool, Regions];
    assert_eq!(kinds(&said)[3..], rest);
    let mut reader = OfferReader::new(known(1));
    let changes = said.into_iter().filter_map(|message| reader.received(message).unwrap()).count();
    assert_eq!(changes, 3);
}

#[test]
fn numbers_and_sizes_of_pools_have_limits() {
    let rig = Rig::new();
    assert_eq!(rig.server.add_pool(pool(0, 1, 1)), Err(PoolError::DuplicateId { id: PoolId(0) }));
    rig.server.remove_pool(PoolId(0));
    assert_eq!(rig.server.add_pool(pool(0, 1, 1)), Err(PoolError::DuplicateId { id: PoolId(0) }));
    for id in 1..=16 {
        rig.server.add_pool(pool(id, 2, 1024)).unwrap();
    }
    let error = rig.server.add_pool(pool(17, 2, 1)).unwrap_err();
    assert_eq!(error, PoolError::TooManyOffered { id: PoolId(17), count: 16_385 });
    for id in 2..=16 {
        assert!(rig.server.remove_pool(PoolId(id)));
    }
    for id in 17..17 + MAX_POOLS as u32 - 1 {
        rig.server.add_pool(pool(id, 1, 1)).unwrap();
    }
    let error = rig.server.add_pool(pool(300, 2, 1)).unwrap_err();
    assert_eq!(error, PoolError::TooManyPools { id: PoolId(300) });
    let mut reader = rig.dial();
    let (_, offer) = reader.introduce(&[known(1), known(2)].concat());
    assert_eq!(offer.pools.len(), MAX_POOLS);
    let again = OfferedPools::new(vec![pool(1, 1, 1), pool(1, 1, 1)]);
    assert_eq!(again.err(), Some(PoolError::DuplicateId { id: PoolId(1) }));
}

/// A server whose pools come and go at random, and readers that take messages at random: each
/// accepts every message, and knows what the server offers once it has taken all.
#[test]
fn every_reader_learns_what_is_offered_however_slowly_it_reads() {
    struct Reader {
        announcer: Announcer,
        offers: OfferReader,
        pools: BTreeMap<PoolId, Pool>,
        known: Vec<Layout>,
    }

    impl Reader {
        /// Takes one message; `false` if no message waits.
        fn takes(&mut self, server: &OfferedPools) -> bool {
            let head = || crate::OfferHead {
                node: "prefill-1".parse().unwrap(),
                epoch: crate::Epoch(std::num::NonZeroU64::MIN),
                rails: super::rig::rails(1),
            };
            let Some(message) = self.announcer.next(server, head) else { return false };
            match self.offers.received(message).unwrap() {
                Some(OfferNews::Complete(offer)) => {
                    self.pools = offer.pools.into_iter().map(|pool| (pool.id(), pool)).collect();
                }
                Some(OfferNews::Change(OfferChange::Came(pool))) => {
                    assert!(self.pools.insert(pool.id(), pool).is_none());
                }
                Some(OfferNews::Change(OfferChange::Gone(id))) => assert!(self.pools.remove(&id).is_some()),
                Some(OfferNews::Change(OfferChange::Unknown(_))) | None => {}
            }
            true
        }
    }

    crate::test_seeds::each("every_reader_learns", 0..30, |seed| {
        let mut random = Random(seed);
        let mut below = |n: u64| random.below(n);
        let server = OfferedPools::new(vec![]).unwrap();
        let mut offered = BTreeMap::new();
        let mut readers = Vec::new();
        let mut next = 0;
        for _ in 0..400 {
            match below(8) {
                0 | 1 => {
                    let pool = pool(next, below(4) as u8, PARTS[below(5) as usize]);
                    next += 1;
                    server.add(pool.clone()).unwrap();
                    offered.insert(pool.id(), pool);
                }
                2 if !offered.is_empty() => {
                    let at = below(offered.len() as u64) as usize;
                    let id = *offered.keys().nth(at).unwrap();
                    assert!(server.remove(id) && offered.remove(&id).is_some());
                }
                3 if readers.len() < 10 => {
                    let known: Vec<_> = (0..4).filter(|_| below(2) == 0).flat_map(known).collect();
                    readers.push(Reader {
                        announcer: Announcer::new(known.clone()),
                        offers: OfferReader::new(known.clone()),
                        pools: BTreeMap::new(),
                        known,
                    });
                }
                _ if !readers.is_empty() => {
                    let at = below(readers.len() as u64) as usize;
                    while below(6) > 0 && readers[at].takes(&server) {}
                }
                _ => {}
            }
        }
        for reader in &mut readers {
            while reader.takes(&server) {}
            assert!(!reader.announcer.has_more(&server));
            let mut expected = offered.clone();
            expected.retain(|_, pool| reader.known.iter().any(|known| known.same_bytes(pool.layout())));
            assert_eq!(reader.pools, expected);
        }
    });
}
