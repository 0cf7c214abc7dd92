//! The storage of an engine: it adds nothing to a program's file, passes over no stack, and serves
//! any provider.
#![allow(unsafe_code, reason = "storage in a box of the test's")]

use std::mem::MaybeUninit;

use kvrail_core::config::{EngineConfig, EngineConfigError};
use kvrail_core::engine::{Engine, EngineStartError, LaneSpec};
use kvrail_core::events::{EngineEvent, EventSink};
use kvrail_core::id::{LaneId, PeerId, RailIndex};
use kvrail_core::storage::{EngineStorage, StaticStartError, StaticStorage};
use kvrail_core::time::Time;
use kvrail_core::verbs_abi::ChainStorage;
use kvrail_sim::null::{Cq, Cqe, NullParts, NullRails, Qp, Wqe};
use kvrail_sim::sim::{self, RailSpec, Sim};

/// 110 MB.
type Large = EngineStorage<1024, 2048, 16_384, 128, 4_096, 256>;

static LARGE: StaticStorage<Large> = StaticStorage::new(Large::new());

fn null<'m>(
    chain: &'m mut ChainStorage<32>,
    queues: (&'m mut [Cq; 1], &'m mut [Cqe; 64], &'m mut [Qp; 2], &'m mut [Wqe; 32]),
) -> NullRails<'m, 32> {
    let (cqs, cqes, qps, wqes) = queues;
    NullRails::new(NullParts { cqs, cqes, qps, wqes }, chain).unwrap()
}

#[test]
fn a_large_static_adds_nothing_to_the_program_file() {
    const { assert!(Large::BYTES > 100 << 20) };
    let file = std::fs::metadata(std::env::current_exe().unwrap()).unwrap().len();
    assert!(file < Large::BYTES as u64 / 2, "{file} bytes of program for {} of storage", Large::BYTES);
    // The static is used, so that the linker keeps it.
    assert_eq!(LARGE.take().map(|storage| std::mem::size_of_val(storage)), Some(Large::BYTES));
    assert!(LARGE.take().is_none());
}

#[test]
fn a_large_box_passes_over_no_stack() {
    let starter = std::thread::Builder::new().stack_size(256 << 10).spawn(|| {
        let mut room = Box::<Large>::new_uninit();
        let storage = Large::in_place(&mut room);
        let mut chain = ChainStorage::new();
        let (mut cqs, mut cqes, mut qps, mut wqes) =
            ([Cq::NEW; 1], [Cqe::NEW; 64], [Qp::NEW; 2], [Wqe::NEW; 32]);
        let rails = null(&mut chain, (&mut cqs, &mut cqes, &mut qps, &mut wqes));
        // SAFETY: the storage is declared before the engine, which is not forgotten.
        let mut engine = unsafe { Engine::start_scoped(storage, rails, EngineConfig::DEFAULT) }.unwrap();
        assert_eq!(engine.capacity(), (4_096, 256));
        assert_eq!(engine.batches_free(), 4_096);
        engine.add_peer().unwrap();
        engine.poll(Time(1));
    });
    starter.unwrap().join().unwrap();
}

/// Starts an engine in `storage`, adds a peer with a lane, and returns the ids of both.
fn once<const LANES: usize>(
    storage: &mut EngineStorage<2, 2, LANES, 16, 2, 4>,
    earlier: &[PeerId],
) -> PeerId {
    let mut chain = ChainStorage::new();
    let (mut cqs, mut cqes, mut qps, mut wqes) = ([Cq::NEW; 1], [Cqe::NEW; 64], [Qp::NEW; 2], [Wqe::NEW; 32]);
    let rails = null(&mut chain, (&mut cqs, &mut cqes, &mut qps, &mut wqes));
    // SAFETY: the storage outlives the call, and with it the engine, which is not forgotten.
    let mut engine = unsafe { Engine::start_scoped(storage, rails, EngineConfig::DEFAULT) }.unwrap();
    let peer = engine.add_peer().unwrap();
    let spec = LaneSpec { rail: RailIndex(0), remote_rail: 0, depth: 16 };
    engine.attach(peer, spec, (), Time(1)).unwrap();
    for &earlier_peer in earlier {
        assert!(engine.peer_stats(earlier_peer).is_none(), "{earlier_peer:?} of an earlier engine is known");
    }
    peer
}

/// A storage in which an engine did not start can be used for another one.
#[test]
fn a_start_that_fails_leaves_the_storage_to_the_next() {
    static STORAGE: StaticStorage<EngineStorage<2, 2, 2, 16, 2, 4>> =
        StaticStorage::new(EngineStorage::new());
    let bad = EngineConfig { run_chunks: 0, ..EngineConfig::DEFAULT };
    let refused = STORAGE.start(sim_rails(), bad).unwrap_err();
    assert_eq!(
        refused,
        StaticStartError::Engine(EngineStartError::Config(EngineConfigError::Zero("run_chunks")))
    );
    let mut engine = STORAGE.start(sim_rails(), EngineConfig::DEFAULT).unwrap();
    assert!(engine.add_peer().is_ok());
    assert_eq!(STORAGE.start(sim_rails(), EngineConfig::DEFAULT).unwrap_err(), StaticStartError::Taken);
    assert!(STORAGE.take().is_none());
}

/// An engine in a static reports to the sink that it was started with; one that does not start
/// leaves the storage to the next.
#[test]
fn an_engine_in_a_static_has_its_events() {
    #[derive(Debug, Default)]
    struct Attached(Vec<LaneId>);
    impl EventSink for Attached {
        fn event(&mut self, event: EngineEvent) {
            if let EngineEvent::LaneAttached { lane, .. } = event {
                self.0.push(lane);
            }
        }
    }
    static STORAGE: StaticStorage<EngineStorage<2, 2, 2, 16, 2, 4>> =
        StaticStorage::new(EngineStorage::new());
    let null = || {
        let chain = Box::leak(Box::new(ChainStorage::new()));
        let (cqs, cqes) = (Box::leak(Box::new([Cq::NEW; 1])), Box::leak(Box::new([Cqe::NEW; 64])));
        let (qps, wqes) = (Box::leak(Box::new([Qp::NEW; 2])), Box::leak(Box::new([Wqe::NEW; 32])));
        null(chain, (cqs, cqes, qps, wqes))
    };
    let bad = EngineConfig { run_chunks: 0, ..EngineConfig::DEFAULT };
    let refused = STORAGE.start_with_events(null(), bad, Attached::default()).unwrap_err();
    assert_eq!(
        refused,
        StaticStartError::Engine(EngineStartError::Config(EngineConfigError::Zero("run_chunks")))
    );
    let mut engine = STORAGE.start_with_events(null(), EngineConfig::DEFAULT, Attached::default()).unwrap();
    let peer = engine.add_peer().unwrap();
    let spec = LaneSpec { rail: RailIndex(0), remote_rail: 0, depth: 16 };
    let lane = engine.attach(peer, spec, (), Time(1)).unwrap();
    assert_eq!(engine.events().0, [lane]);
    let taken = STORAGE.start_with_events(null(), EngineConfig::DEFAULT, Attached::default());
    assert_eq!(taken.unwrap_err(), StaticStartError::Taken);
}

/// Rails that live for ever.
fn sim_rails() -> kvrail_sim::sim::SimRails<'static> {
    let memory = Box::leak(Box::new(sim::SimStorage::<1, 1, 8, 32, 64>::new()));
    let spec = [RailSpec { cq_entries: 64, ..RailSpec::GBITS_400 }];
    Box::leak(Box::new(Sim::new(memory, sim::SimConfig::new(1), &spec).unwrap())).rails()
}

#[test]
fn ids_of_an_earlier_engine_never_match_in_a_later_one_over_the_same_storage() {
    let mut room = Box::new(MaybeUninit::uninit());
    let storage = EngineStorage::<2, 2, 2, 16, 2, 4>::in_place(&mut room);
    let mut peers = vec![once(storage, &[])];
    for _ in 0..3 {
        let peer = once(storage, &peers);
        peers.push(peer);
        // Another provider, whose lanes are of another size, in the same places.
        let mut memory = Box::new(sim::SimStorage::<1, 1, 8, 32, 64>::new());
        let sim = Sim::new(
            &mut memory,
            sim::SimConfig::new(1),
            &[RailSpec { cq_entries: 64, ..RailSpec::GBITS_400 }],
        )
        .unwrap();
        // SAFETY: the storage is declared before the engine, which is not forgotten.
        let mut engine =
            unsafe { Engine::start_scoped(storage, sim.rails(), EngineConfig::DEFAULT) }.unwrap();
        assert_eq!((engine.in_flight(), engine.batches_free(), engine.lanes_dying()), (0, 2, 0));
        let peer = engine.add_peer().unwrap();
        assert!(!peers.contains(&peer));
        peers.push(peer);
    }
}
