//! Keys change while sessions go on: each side has one key, or two, or another one.

use kvrail_session::{Cause, PeerKeys, Refusal, ServerConfig, ServerEvent, connect};

use super::rig::*;

const OLD: u8 = 1;
const NEW: u8 = 2;

/// The keys of one side from before the rotation to after it.
fn stages() -> [PeerKeys; 4] {
    [
        PeerKeys::one(key(OLD)),
        PeerKeys::rotating(key(OLD), key(NEW)),
        PeerKeys::rotating(key(NEW), key(OLD)),
        PeerKeys::one(key(NEW)),
    ]
}

fn producer(keys: PeerKeys) -> Rig {
    Rig::start(keys, ServerConfig::default(), vec![pool(1, 1, 3)], Ends::default())
}

/// How many dials a reader in `reader` needs with a producer in `producer`; `None`: it cannot
/// connect.
fn dials(reader: usize, producer: usize) -> Option<usize> {
    let known = |key: u8| match producer {
        0 => key == OLD,
        3 => key == NEW,
        _ => true,
    };
    let order: &[u8] = [&[OLD][..], &[OLD, NEW], &[NEW, OLD], &[NEW]][reader];
    order.iter().position(|&key| known(key)).map(|tried| tried + 1)
}

#[test]
fn sides_that_have_a_key_in_common_connect_in_every_stage_of_a_rotation() {
    for (at, keys) in stages().into_iter().enumerate() {
        let rig = producer(keys);
        for (stage, keys) in stages().into_iter().enumerate() {
            let result = connect(&rig.address().into(), keys, reader(), soon());
            let what = format!("reader in stage {stage}, producer in stage {at}");
            let Some(dials) = dials(stage, at) else {
                let error = result.unwrap_err();
                let Cause::Refused { refusal: Refusal::Key(ids), .. } = &error.cause else {
                    panic!("{what}: {error}")
                };
                let (ours, theirs) = if stage == 0 { (OLD, NEW) } else { (NEW, OLD) };
                assert_eq!((ids.ours, ids.theirs), (key(ours).id(), key(theirs).id()), "{what}");
                let failure = rig.failure();
                assert_eq!(failure.refusal().copied(), error.refusal().map(|r| r.flip()), "{what}");
                continue;
            };
            let session = result.unwrap_or_else(|error| panic!("{what}: {error}"));
            assert_eq!(session.offer().pools.len(), 1);
            for _ in 1..dials {
                let failure = rig.failure();
                assert!(matches!(failure.refusal(), Some(Refusal::Key(_))), "{what}: {failure}");
            }
            assert!(matches!(rig.event(), ServerEvent::Opened { .. }), "{what}");
            drop(session);
            rig.closed();
        }
    }
}

/// One side goes through all its stages, and then the other one does: at no time is a reader kept
/// out, provided that the new key is known to all before the old one is taken from one.
#[test]
fn either_side_may_be_rolled_out_first() {
    // (reader's stage, producer's stage), step by step.
    let producers_first = [(0, 0), (0, 1), (1, 1), (2, 1), (3, 1), (3, 2), (3, 3)];
    let readers_first = [(0, 0), (1, 0), (1, 1), (1, 2), (1, 3), (2, 3), (3, 3)];
    for steps in [producers_first, readers_first] {
        for (reading, producing) in steps {
            let rig = producer(stages()[producing].clone());
            let session = connect(&rig.address().into(), stages()[reading].clone(), reader(), soon());
            assert!(session.is_ok(), "reader in stage {reading}, producer in stage {producing}");
        }
    }
}

#[test]
fn a_side_without_a_key_and_one_with_a_key_refuse_each_other() {
    for (producing, reading) in
        [(PeerKeys::none(), PeerKeys::one(key(OLD))), (PeerKeys::one(key(OLD)), PeerKeys::none())]
    {
        let rig = producer(producing);
        let error = connect(&rig.address().into(), reading, reader(), soon()).unwrap_err();
        assert!(error.to_string().contains("no key"), "{error}");
        assert!(rig.failure().to_string().contains("no key"));
    }
    let rig = producer(PeerKeys::none());
    connect(&rig.address().into(), PeerKeys::none(), reader(), soon()).unwrap();
}
