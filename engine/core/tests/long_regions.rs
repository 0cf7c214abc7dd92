//! Memory that is longer than a rail registers at once, and memory of a device that is registered
//! region by region.
#![allow(missing_docs, reason = "tests")]
#![allow(unsafe_code, reason = "storage and destination memory are the test's, and outlive the engine")]

use std::cell::{Cell, RefCell};

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
use kvrail_layouts::catalogue::VllmFp8DsMla;
use kvrail_layouts::{Axis, AxisKind, Declaration, ElementKind, FieldDecl, KvLayout, Level, PlaneDecl};

const LIMIT: u64 = 8192;

/// One rail that registers [`LIMIT`] bytes at once, counts what is registered, and notes what came
/// as a dmabuf. It refuses dmabufs of the descriptor -1.
struct Short<'a>(&'a Cell<i32>, &'a RefCell<Vec<(MemoryRange, DmaBuf)>>);

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
    fn register_dmabuf(&mut self, range: MemoryRange, dmabuf: DmaBuf) -> Result<RailKeys, RegisterError> {
        if dmabuf.fd == -1 {
            return Err(RegisterError { rail: 0, range, errno: 95 });
        }
        self.1.borrow_mut().push((range, dmabuf));
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
    let (registered, exported) = (Cell::new(0), RefCell::new(Vec::new()));
    let mut storage = Box::new(EngineStorage::<1, 1, 4, 8, 1, 1>::new());
    // SAFETY: the storage is declared before the engine, and nothing is forgotten.
    let mut engine =
        unsafe { Engine::start_scoped(&mut *storage, Short(&registered, &exported), EngineConfig::DEFAULT) }
            .unwrap();
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

/// Memory of a device as the test's stand-in has it: no GPU is needed, since nothing is read into
/// it.
#[test]
fn each_region_of_a_devices_memory_is_registered_by_its_own_export() {
    let (registered, exported) = (Cell::new(0), RefCell::new(Vec::new()));
    let mut storage = Box::new(EngineStorage::<1, 1, 4, 8, 1, 1>::new());
    let short = Short(&registered, &exported);
    // SAFETY: the storage is declared before the engine, and nothing is forgotten.
    let mut engine = unsafe { Engine::start_scoped(&mut *storage, short, EngineConfig::DEFAULT) }.unwrap();
    let begin = registered.replace(0);
    // Two layers of 4 tokens of 64 bytes, a region for each.
    let layout = Declaration {
        axes: &[Axis::whole(AxisKind::Layer, 2), Axis::whole(AxisKind::Token, 4)],
        order: &[Level::Regions(AxisKind::Layer), Level::Axis(AxisKind::Token)],
        planes: &[PlaneDecl::of(&[FieldDecl::new("row", ElementKind::U8, 64)])],
        ..Declaration::EMPTY
    }
    .expect();
    let layout = &layout;
    assert_eq!((layout.regions(), layout.region_bytes(1)), (2, Some(256)));
    let at = |addr, len, stride| DestinationRegion { range: MemoryRange { addr, len }, stride };
    let regions = [at(1 << 46, 4 * 256, 256), at(1 << 45, 4 * 2048, 2048)];
    let dmabuf = |fd, offset| Some(DmaBuf { fd, offset });
    // SAFETY: nothing is ever written there.
    let mut register = |exports: &[Option<DmaBuf>]| unsafe {
        engine.register_device_regions(layout, &regions, exports, None)
    };
    let error = register(&[dmabuf(7, 0)]).unwrap_err();
    assert_eq!(error, RegionError::Regions { given: 1, layout: 2 });
    // The second region is refused: the first does not stay registered.
    let error = register(&[dmabuf(7, 0), dmabuf(-1, 0)]).unwrap_err();
    assert!(matches!(error, RegionError::Provider(RegisterError { errno: 95, .. })), "{error}");
    assert_eq!((registered.get(), exported.borrow_mut().drain(..).count()), (0, 1));

    // One by a dmabuf, one by its addresses.
    let mut slots = register(&[dmabuf(7, 8192), None]).unwrap();
    assert_eq!(registered.get(), 2);
    assert_eq!(*exported.borrow(), [(regions[0].range, DmaBuf { fd: 7, offset: 8192 })]);
    assert_eq!((slots.total(), slots.slot_bytes()), (4, 256));
    let mut slot = slots.nth(2).unwrap();
    assert!(slot.bytes_mut().is_none() && engine.slot_bytes(&slot, 1).is_none());
    let places = [0, 1, 2].map(|region| engine.slot_address(&slot, region));
    assert_eq!(places, [Some((1 << 46) + 512), Some((1 << 45) + 4096), None]);
    // Two slots before it were given out and dropped: the region stays registered.
    assert!(slots.put(slot).is_ok() && engine.unregister(slots).is_err());
    registered.set(begin + registered.get());
}
