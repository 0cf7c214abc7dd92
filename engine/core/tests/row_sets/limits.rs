//! Sets at the limits of a slot, and sets of memory that cannot be read.

use super::*;

/// The rows of a set are counted in more bits than the length of a slot has.
#[test]
fn a_set_of_4_gib_does_not_fit_the_largest_slot() {
    let mut storage = Box::new(SmallSim::new());
    let mut bytes = memory(1);
    let sim = Sim::new(&mut storage, sim::SimConfig::new(3), &rails(1)).unwrap();
    let owner = Owner::new(&sim, &mut bytes[0], 1);
    let mut state = Box::new(SmallState::new());
    let mut engine = start(&mut state, &sim, EngineConfig { chunk_bytes: 4 << 20, ..CONFIG });
    let peer = engine.add_peer().unwrap();
    let (page_bytes, stride) = (256 << 20, 256 << 20);
    let region = engine.add_region(peer, &RegionOffer { page_bytes, stride, ..owner.offer() }).unwrap();
    let range = MemoryRange { addr: 1 << 40, len: u32::MAX.into() };
    let slot = register_nowhere(&mut engine, range).next().unwrap();
    let mut batch = engine.batch().unwrap();
    let rejected = batch.read_rows_of_unvalidated(&region, &[0; 16], 4 << 20, &[u64::MAX; 16], slot);
    let mut rejected = rejected.unwrap_err();
    let slot_bytes = u32::MAX as usize;
    assert_eq!(rejected.error, ReadError::SlotTooSmall { page_bytes: u32::MAX, slot_bytes });
    // One row less fits.
    let slot = rejected.slots.next().unwrap();
    let rows: [u64; 16] = core::array::from_fn(|page| u64::MAX >> u32::from(page == 15));
    batch.read_rows_of_unvalidated(&region, &[0; 16], 4 << 20, &rows, slot).unwrap();
    drop(batch);
}

/// Some entries of a set have not been asked for when the READ of another one fails. Then none of
/// them is: the set can be moved to the other class and withdrawn, and other pages are read.
#[test]
fn a_set_of_which_an_entry_cannot_be_read_waits_for_no_other_entry() {
    let mut storage = Box::new(SmallSim::new());
    let mut bytes = memory(1);
    let model = sim::SimConfig { retry: Nanos::from_millis(50), ..sim::SimConfig::new(3) };
    let sim = Sim::new(&mut storage, model, &rails(2)).unwrap();
    let owner = Owner::new(&sim, &mut bytes[0], 1);
    let dest = Destination::new(16, PAGE);
    let mut state = Box::new(SmallState::new());
    let mut engine = start(&mut state, &sim, CONFIG);
    let mut slots = dest.register(&mut engine, PAGE);
    let peer = engine.add_peer().unwrap();
    let region = engine.add_region(peer, &owner.offer()).unwrap();
    // One READ at a time on each lane.
    attach(&mut engine, &sim, peer, &owner, 0, 2).unwrap();
    attach_for(&mut engine, &sim, peer, &owner, 1, 2, Class::Background).unwrap();
    let mut batch = engine.batch().unwrap();
    let locations = at(&owner, &[1, 3, 5, 7]);
    batch.read_rows_of(&region, &locations, ROW, &[1; 4], slots.next().unwrap()).unwrap();
    let ticket = engine.submit(batch, sim.now(), LATE).unwrap();
    let step = |engine: &mut Engine<'_, SimRails<'_>>, micros| {
        sim.advance_to(sim.now() + Nanos::from_micros(micros));
        engine.poll(sim.now());
    };
    while engine.rail_stats(RailIndex(0)).unwrap().posted < 5 {
        step(&mut engine, 1);
    }
    // The READ of the first entry is not answered, and that of the second brings a fault.
    sim.apply(Action::RemoteRailDown(owner.peer, RailIndex(0)));
    let (_, lane) = attach(&mut engine, &sim, peer, &owner, 1, 2).unwrap();
    sim.script(lane, Fate::Status { nth: 0, status: WcStatus::REM_ACCESS_ERR }).unwrap();
    (0..10).for_each(|_| step(&mut engine, 500));
    assert_eq!(engine.rail_stats(RailIndex(1)).unwrap().page_faults, 1);
    engine.set_class(ticket, Class::Background, sim.now()).unwrap();
    assert_eq!(engine.withdraw(ticket, sim.now()), Ok(0), "it has failed before");
    sim.apply(Action::RemoteRailUp(owner.peer, RailIndex(0)));
    let mut results = Vec::new();
    settle(&mut engine, &sim, LATE, |done| results.push(done.result(3)));
    assert!(matches!(results[..], [Some(Err(PageError::Fault { .. }))]), "{results:?}");
    let posted = |engine: &Engine<'_, SimRails<'_>>| engine.rail_stats(RailIndex(1)).unwrap().posted;
    assert_eq!(posted(&engine), 1);
    attach(&mut engine, &sim, peer, &owner, 1, 8).unwrap();
    let batch = fill(&mut engine, &owner, &region, &mut slots, 8);
    engine.submit(batch, sim.now(), LATE).unwrap();
    let mut arrived = 0;
    settle(&mut engine, &sim, LATE, |done| arrived += usize::from(done.all_arrived()));
    assert_eq!((arrived, engine.in_flight()), (1, 0));
}

/// Reads these rows of these pages, and returns the result of the last.
fn read_last<'m>(
    engine: &mut Engine<'_, SimRails<'m>>,
    sim: &Sim<'m>,
    (owner, region, slots): (&Owner, &RemoteRegion, &mut Vec<Slot>),
    pages: &[usize],
    rows: &[u64],
) -> Result<(), PageError> {
    let mut batch = engine.batch().unwrap();
    batch.read_rows_of(region, &at(owner, pages), ROW, rows, slots.pop().unwrap()).unwrap();
    engine.submit(batch, sim.now(), LATE).unwrap();
    let mut result = None;
    settle(engine, sim, LATE, |mut done| {
        result = done.result(pages.len() - 1);
        slots.extend(done.pages().map(|page| page.slot));
    });
    assert_eq!(slots.len(), 16);
    result.unwrap()
}

/// Memory that has failed is found in any page of a set, between its first row and its last; and a
/// pool that is gone fails all sets of it.
#[test]
fn a_set_is_set_aside_for_the_rows_of_any_of_its_pages() {
    with_rows(|sim, owner, engine, (peer, region), slots| {
        for _ in 0..3 {
            attach(engine, sim, peer, owner, 0, 32).unwrap();
        }
        // Row 20 of slot 5.
        let failed = FailedRanges { offset: (5 * STRIDE) as u64 + 4_000, len: 1, stride: 1, count: 1 };
        sim.apply(Action::FailMemory(owner.memory, failed));
        let of_20 = 1 << 20;
        let fault = read_last(engine, sim, (owner, &region, slots), &[2, 9, 5], &[1, 1, of_20]);
        assert!(
            matches!(fault, Err(PageError::Fault { remote_addr, len: ROW, .. })
                if remote_addr == BASE + (5 * STRIDE) as u64 + 4_000),
            "{fault:?}"
        );
        for (pages, rows, aside) in [
            ([2, 9, 5], [1, 1, of_20], true),
            ([2, 5, 9], [1, of_20, 1], true),
            ([5, 2, 9], [of_20, 1, 1], true),
            ([2, 9, 5], [1, 1, of_20 >> 1 | of_20 << 1], true),
            ([2, 9, 5], [1, 1, of_20 >> 1], false),
            ([2, 9, 5], [1, 1, of_20 << 1], false),
            ([2, 9, 4], [of_20, of_20, of_20], false),
        ] {
            let result = read_last(engine, sim, (owner, &region, slots), &pages, &rows);
            match aside {
                true => assert!(matches!(result, Err(PageError::SetAside { .. })), "{pages:?} {result:?}"),
                false => assert_eq!(result, Ok(()), "{pages:?} {rows:x?}"),
            }
        }
        engine.remove_pool(&region, sim.now());
        assert_eq!(
            read_last(engine, sim, (owner, &region, slots), &[2, 9, 4], &[1; 3]),
            Err(PageError::PoolGone)
        );
        engine.remove_peer(peer, sim.now()).unwrap();
    });
}
