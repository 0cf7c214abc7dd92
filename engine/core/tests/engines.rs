//! A process cannot start more engines than it can tell apart. The test has a process of its own,
//! since it uses up all numbers of engines.
#![allow(missing_docs, reason = "tests")]
#![allow(unsafe_code, reason = "storage and destination memory are the test's, and outlive the engine")]

use kvrail_core::config::EngineConfig;
use kvrail_core::engine::Engine;
use kvrail_core::error::ReadError;
use kvrail_core::id::{LaneId, MAX_RAILS, RailIndex, WrId};
use kvrail_core::memory::Access;
use kvrail_core::provider::{
    Commit, MemoryRange, Post, Provider, ProviderEvent, RailInfo, RailKeys, Read, RegisterError, WaitFor,
    Wake,
};
use kvrail_core::remote::RegionOffer;
use kvrail_core::storage::EngineStorage;
use kvrail_core::verbs_abi::Wc;

const CONFIG: EngineConfig = EngineConfig::DEFAULT;

/// One rail on which no READ ever completes.
#[derive(Debug)]
struct Nothing;

#[derive(Clone, Copy, Debug)]
struct NoWaker;

impl Wake for NoWaker {
    fn wake(&self) {}
}

struct NoPost;

impl Post for NoPost {
    fn read(&mut self, _: Read) {}

    fn commit(self) -> Commit {
        Commit::All
    }
}

// SAFETY: nothing is ever written, and no READ is reported as completed.
unsafe impl Provider for Nothing {
    const CHAIN: usize = 1;
    type Unopened = ();
    type Lane = ();
    type OpenError = std::convert::Infallible;
    type Post<'a> = NoPost;
    type Waker = NoWaker;

    fn rails(&self) -> usize {
        1
    }
    fn rail(&self, _: RailIndex) -> RailInfo {
        RailInfo { nominal_bytes_per_sec: 1_000_000_000, numa: None, cq_entries: 16 }
    }
    fn register(&mut self, _: MemoryRange) -> Result<RailKeys, RegisterError> {
        Ok([0; MAX_RAILS])
    }
    fn deregister(&mut self, _: MemoryRange, _: &RailKeys) {}
    fn open(&mut self, _: LaneId, _: RailIndex, (): ()) -> Result<(), Self::OpenError> {
        Ok(())
    }

    unsafe fn begin<'a>(&'a mut self, _: &'a mut ()) -> NoPost {
        NoPost
    }
    fn poll(&mut self, _: RailIndex, _: &mut [Wc]) -> usize {
        0
    }
    fn fail(&mut self, _: &mut ()) {}
    fn drain(&mut self, _: &mut (), _: WrId) -> Result<(), i32> {
        Ok(())
    }
    fn close(&mut self, (): ()) {}
    fn next_event(&mut self) -> Option<ProviderEvent> {
        None
    }
    fn wait(&mut self, _: WaitFor) {}
    fn waker(&self) -> NoWaker {
        NoWaker
    }
}

#[test]
fn no_two_engines_of_a_process_have_the_same_number() {
    type Tiny = EngineStorage<1, 1, 1, 2, 1, 1>;
    let offer =
        RegionOffer { base: 0, page_bytes: 64, stride: 64, slots: 1, keys: [0; MAX_RAILS], table: None };
    let mut bytes = [0_u8; 64];
    let range = MemoryRange { addr: bytes.as_mut_ptr().expose_provenance() as u64, len: 64 };
    let (mut one, mut two) = (Box::new(Tiny::new()), Box::new(Tiny::new()));
    // SAFETY: the storage is declared before the engine, and nothing is forgotten.
    let mut first = unsafe { Engine::start_scoped(&mut *one, Nothing, CONFIG) }.unwrap();
    let peer = first.add_peer().unwrap();
    let page = first.add_region(peer, &offer).unwrap().unvalidated(0).unwrap();
    for i in 0..70_000 {
        // SAFETY: as above.
        let Ok(mut engine) = (unsafe { Engine::start_scoped(&mut *two, Nothing, CONFIG) }) else { return };
        // SAFETY: `bytes` outlives the engine, and nothing reads it.
        let mut slots = unsafe { engine.register_foreign(range, 64, Access::Host, None) }.unwrap();
        let refused = engine.batch().unwrap().read(page, slots.next().unwrap());
        assert!(matches!(refused, Err((ReadError::OtherEngine(_), _))), "engine {i} takes it: {refused:?}");
    }
}
