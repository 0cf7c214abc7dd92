//! Pools of several layouts, which come and go.

use std::collections::BTreeMap;
use std::time::Duration;

use kvrail_session::{
    ConnectedSession, MAX_OFFERED_REGIONS, MAX_REGIONS, Offer, OfferChange, Pool, PoolError, PoolId,
    ReaderDescription, ServerConfig, connect,
};

use super::rig::*;

fn reader_of(layouts: &[u8]) -> ReaderDescription {
    ReaderDescription { layouts: layouts.iter().flat_map(|&byte| known(byte)).collect(), ..reader() }
}

fn connect_as(rig: &Rig, layouts: &[u8]) -> ConnectedSession {
    connect(&rig.address().into(), key(5), reader_of(layouts), soon()).unwrap()
}

fn ids(offer: &Offer) -> Vec<u32> {
    let mut ids: Vec<_> = offer.pools.iter().map(|pool| pool.id().0).collect();
    ids.sort_unstable();
    ids
}

#[test]
fn a_reader_is_offered_the_pools_whose_layouts_it_knows_and_told_of_the_other_layouts() {
    let pools = vec![pool(1, 1, 3), pool(2, 2, 1), pool(3, 1, 1), pool(4, 3, 3), pool(5, 3, 3)];
    let rig = Rig::with(ServerConfig::default(), pools.clone());
    let unknown = |session: &ConnectedSession| {
        let mut all: Vec<_> = session.offer().unknown.iter().map(|l| l.fingerprint.to_bytes()[0]).collect();
        all.sort_unstable();
        all.dedup();
        all
    };
    for (known, offered, others) in [
        (&[1][..], &[1, 3][..], &[2, 3][..]),
        (&[3, 2], &[2, 4, 5], &[1]),
        (&[1, 2, 3], &[1, 2, 3, 4, 5], &[]),
        (&[7], &[], &[1, 2, 3]),
    ] {
        let session = connect_as(&rig, known);
        assert_eq!(ids(session.offer()), offered);
        assert_eq!(unknown(&session), others);
        for pool in &session.offer().pools {
            assert!(pools.contains(pool), "{pool:?}");
        }
    }
}

#[test]
fn a_layout_is_known_by_its_bytes_and_not_by_its_name() {
    let rig = Rig::with(ServerConfig::default(), vec![pool(1, 1, 1)]);
    let ours = kvrail_session::Layout { name: "our_own_mla".parse().unwrap(), ..layout(1) };
    let reader = ReaderDescription { layouts: vec![ours], ..reader() };
    let session = connect(&rig.address().into(), key(5), reader, soon()).unwrap();
    // The offer has the producer's name for the layout.
    assert_eq!(session.offer().pools[0].layout(), &layout(1));
}

#[test]
fn a_thousand_regions_arrive_in_their_order() {
    let many = MAX_REGIONS as u32;
    let pools = vec![pool(1, 1, 1000), pool(2, 1, 65), pool(3, 2, 1000), pool(4, 1, many)];
    let rig = Rig::with(ServerConfig::default(), pools.clone());
    let mut session = connect_as(&rig, &[1]);
    assert_eq!(session.offer().pools, [pools[0].clone(), pools[1].clone(), pools[3].clone()]);
    rig.server.add_pool(pool(5, 1, 1000)).unwrap();
    let mut change = None;
    until("the pool has come", || {
        change = session.next_change();
        change.is_some()
    });
    assert_eq!(change, Some(OfferChange::Came(pool(5, 1, 1000))));
}

#[test]
fn as_many_regions_as_there_may_be_arrive_and_no_more_are_offered() {
    let full = (MAX_OFFERED_REGIONS / MAX_REGIONS) as u32;
    let pools: Vec<_> = (1..=full).map(|id| pool(id, 1, MAX_REGIONS as u32)).collect();
    let rig = Rig::with(ServerConfig::default(), pools.clone());
    let session = connect_as(&rig, &[1]);
    assert_eq!(session.offer().pools, pools);
    let error = rig.server.add_pool(pool(100, 1, 1)).unwrap_err();
    assert!(matches!(error, PoolError::TooManyOffered { .. }), "{error}");
    assert!(rig.server.remove_pool(PoolId(3)));
    rig.server.add_pool(pool(100, 1, 1024)).unwrap();
}

/// A small generator, so that a run can be repeated.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }
}

/// Readers with different layouts follow 300 changes: what each was told adds up to what it is
/// offered, and in the end to what the producer has.
#[test]
fn readers_follow_pools_that_come_and_go() {
    let rig = Rig::with(ServerConfig::default(), vec![pool(1, 1, 3), pool(2, 2, 70)]);
    let knows: [&[u8]; 3] = [&[1], &[2, 3], &[1, 2, 3, 4]];
    let mut readers = knows.map(|known| {
        let session = connect_as(&rig, known);
        let told: BTreeMap<PoolId, Pool> =
            session.offer().pools.iter().map(|pool| (pool.id(), pool.clone())).collect();
        (known, session, told)
    });
    let mut random = Random(0x5eed);
    let mut offered: BTreeMap<u32, Pool> =
        [pool(1, 1, 3), pool(2, 2, 70)].map(|pool| (pool.id().0, pool)).into();
    for id in 3..303 {
        if offered.len() > 20 || (random.below(3) == 0 && !offered.is_empty()) {
            let which = *offered.keys().nth(random.below(offered.len() as u64) as usize).unwrap();
            offered.remove(&which);
            assert!(rig.server.remove_pool(PoolId(which)));
            assert!(!rig.server.remove_pool(PoolId(which)), "it is gone");
        } else {
            let new = pool(id, 1 + random.below(4) as u8, PARTS[random.below(4) as usize]);
            offered.insert(id, new.clone());
            rig.server.add_pool(new.clone()).unwrap();
            assert_eq!(rig.server.add_pool(new), Err(PoolError::DuplicateId { id: PoolId(id) }));
        }
        for (_, session, told) in &mut readers {
            if random.below(2) == 0 {
                follow(session, told);
            }
        }
        if random.below(8) == 0 {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    for (known, session, told) in &mut readers {
        let fingerprints: Vec<_> = known.iter().map(|&byte| layout(byte).fingerprint).collect();
        let want: BTreeMap<PoolId, Pool> = offered
            .values()
            .filter(|pool| fingerprints.contains(&pool.layout().fingerprint))
            .map(|pool| (pool.id(), pool.clone()))
            .collect();
        until("the reader has caught up", || {
            follow(session, told);
            *told == want
        });
        assert!(session.is_alive());
    }
}

/// Notes the changes that a reader was told of.
fn follow(session: &mut ConnectedSession, told: &mut BTreeMap<PoolId, Pool>) {
    while let Some(change) = session.next_change() {
        match change {
            OfferChange::Came(pool) => assert!(told.insert(pool.id(), pool).is_none(), "it came twice"),
            OfferChange::Gone(id) => drop(told.remove(&id).expect("it was offered")),
            OfferChange::Unknown(_) => {}
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(told.keys().map(|id| id.0).collect::<Vec<_>>(), ids(session.offer()));
}
