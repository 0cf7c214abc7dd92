//! Memory that is longer than a rail registers at once.
#![allow(missing_docs, reason = "tests")]
#![allow(unsafe_code, reason = "storage and destination memory are the test's, and outlive the engine")]

use std::cell::Cell;

use kvrail_core::config::EngineConfig;
use kvrail_core::engine::Engine;
use kvrail_core::id::{LaneId, MAX_RAILS, RailIndex, WrId};
use kvrail_core::memory::{Access, DestinationRegion, RegionError};
use kvrail_core::provider::{
    Commit, DmaBuf, MemoryRange, Post, Provider, ProviderEvent, RailInfo, RailKeys, Read, RegisterError,
    WaitFor, Wake,
};
use kvrail_core::storage::EngineStorage;
use kvrail_core::verbs_abi::Wc;
use kvrail_layouts::KvLayout;
use kvrail_layouts::catalogue::VllmFp8DsMla;

const LIMIT: u64 = 8192;

/// One rail that registers [`LIMIT`] bytes at once, and counts what is registered.
struct Short<'a>(&'a Cell<i32>);

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
unsafe impl Provider for Short<'_> {
    const CHAIN: usize = 1;
    type Unopened = ();
    type Lane = ();
    type OpenError = std::convert::Infallible;
    type Post<'a>
        = NoPost
    where
        Self: 'a;
    type Waker = NoWaker;

    fn rails(&self) -> usize {
        1
    }
    fn rail(&self, _: RailIndex) -> RailInfo {
        RailInfo { nominal_bytes_per_sec: 1_000_000_000, numa: None, cq_entries: 16 }
    }
    fn max_region_bytes(&self) -> u64 {
        LIMIT
    }
    fn register(&mut self, range: MemoryRange) -> Result<RailKeys, RegisterError> {
        assert!(range.len <= LIMIT, "{range:?} was to be registered");
        self.0.set(self.0.get() + 1);
        Ok([0; MAX_RAILS])
    }
    fn register_dmabuf(&mut self, range: MemoryRange, _: DmaBuf) -> Result<RailKeys, RegisterError> {
        self.register(range)
    }
    fn deregister(&mut self, _: MemoryRange, _: &RailKeys) {
        self.0.set(self.0.get() - 1);
    }
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
fn memory_that_a_rail_cannot_register_at_once_is_refused_and_parts_of_it_are_not() {
    let registered = Cell::new(0);
    let mut storage = Box::new(EngineStorage::<1, 1, 4, 8, 1, 1>::new());
    // SAFETY: the storage is declared before the engine, and nothing is forgotten.
    let mut engine =
        unsafe { Engine::start_scoped(&mut *storage, Short(&registered), EngineConfig::DEFAULT) }.unwrap();
    // The engine has memory of its own.
    let begin = registered.replace(0);
    let memory: &'static mut [u8] = Box::leak(vec![0; 2 * LIMIT as usize].into_boxed_slice());
    let addr = memory.as_mut_ptr().expose_provenance() as u64;
    let range = |from: u64, len| MemoryRange { addr: addr + from, len };
    let too_long = |bytes| Some(RegionError::TooLong { bytes, limit: LIMIT });
    let dmabuf = DmaBuf { fd: 0, offset: 0 };

    // SAFETY: the bytes live for ever, and nothing else uses them; nothing is written.
    let foreign = unsafe { engine.register_foreign(range(0, LIMIT + 1), 64, Access::Host, None) };
    assert_eq!(foreign.err(), too_long(LIMIT + 1));
    // SAFETY: as above.
    let device = unsafe { engine.register_dmabuf(range(0, 2 * LIMIT), dmabuf, 64, None) };
    let error = device.unwrap_err();
    assert_eq!((Some(error), error.code()), (too_long(2 * LIMIT), 2168));
    assert!(error.to_string().contains("at most 8192 at once: register them in parts"), "{error}");
    assert_eq!(registered.get(), 0);

    let halves = [0, LIMIT].map(|from| {
        // SAFETY: as above; the two have no byte in common.
        unsafe { engine.register_foreign(range(from, LIMIT), 64, Access::Host, None) }.unwrap()
    });
    assert_eq!(registered.get(), 2);
    for slots in halves {
        engine.unregister(slots).unwrap();
    }

    // A layout's region is registered by itself.
    let layout = VllmFp8DsMla::GEOMETRY;
    let stride = VllmFp8DsMla::PAGE_BYTES;
    let region = DestinationRegion { range: range(0, stride), stride };
    // SAFETY: the range is refused before anything could use it.
    let slots = unsafe { engine.register_foreign_regions(layout, &[region], Access::Host, None) };
    assert_eq!(slots.err(), too_long(stride));
    assert_eq!(registered.get(), 0);
    registered.set(begin);
}
