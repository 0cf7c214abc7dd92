//! Submitters are told pages before their batch is done: each page once, with its slot, in front of
//! its batch, and none is lost with a submitter or a hub that ends.
#![allow(missing_docs, reason = "tests")]

#[path = "../common/mod.rs"]
mod common;
mod storm;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use common::*;
use kvrail_core::batch::{Batch, DonePage, Ticket};
use kvrail_core::config::EngineConfig;
use kvrail_core::engine::Engine;
use kvrail_core::hub::{Hub, HubSubmitter, Mailbox, Outcome, SendError};
use kvrail_core::memory::Slot;
use kvrail_core::provider::Wake;
use kvrail_core::remote::RemoteRegion;
use kvrail_core::time::{Nanos, Time};
use kvrail_sim::sim::{self, Sim, SimRails};

const CONFIG: EngineConfig = EngineConfig { chunk_bytes: 4096, ..EngineConfig::DEFAULT };
const LATE: Time = Time(1_000_000_000);

/// A batch of `pages` pages from slot 0 of the owner on, which reports them.
fn filled<'s, W: Wake>(
    submitter: &mut HubSubmitter<'s, '_, W>,
    (owner, region): (&Owner, &RemoteRegion),
    slots: &mut Vec<Slot>,
    pages: usize,
) -> Batch<'s> {
    let mut batch = submitter.batch().unwrap();
    batch.report_pages();
    batch.set_tag(pages as u64);
    for slot in 0..pages {
        batch.read(region.page(owner.location(slot)).unwrap(), slots.pop().unwrap()).unwrap();
    }
    batch
}

/// Submits such a batch.
fn send<W: Wake>(
    submitter: &mut HubSubmitter<'_, '_, W>,
    from: (&Owner, &RemoteRegion),
    slots: &mut Vec<Slot>,
    pages: usize,
) -> Ticket {
    let batch = filled(submitter, from, slots, pages);
    submitter.submit(batch, LATE).unwrap()
}

/// A turn of the hub, in which the engine's own thread gets slots and batches alone, and half a
/// microsecond.
fn turn<'s>(
    engine: &mut Engine<'s, SimRails<'_>>,
    hub: &mut Hub<'s, '_, 1>,
    sim: &Sim<'_>,
    own: &mut Vec<Slot>,
) {
    hub.turn(engine, sim.now(), |outcome| match outcome {
        Outcome::Orphan(slot) => own.push(slot),
        Outcome::Page(.., page) => own.push(page.slot),
        Outcome::Done(mut done) => own.extend(done.pages().map(|page| page.slot)),
        other => panic!("{other:?}"),
    });
    engine.wait(sim.now(), sim.now() + Nanos(500));
}

#[test]
fn a_submitter_is_told_pages_as_they_come_each_once_in_front_of_its_batch() {
    let mut storage = Box::new(SmallSim::new());
    let mut bytes = memory(1);
    let sim = Sim::new(&mut storage, sim::SimConfig::new(1), &rails(1)).unwrap();
    let owner = Owner::new(&sim, &mut bytes[0], 1);
    let dest = Destination::new(16, PAGE);
    let mut state = Box::new(SmallState::new());
    let mut engine = start(&mut state, &sim, CONFIG);
    let mut slots: Vec<Slot> = dest.register(&mut engine, PAGE).collect();
    let (_, region, _) = connect(&mut engine, &sim, &owner, 1, 1, 5);
    let mut mailbox = Mailbox::<4, 16>::with_room_for_pages();
    let mut hub = Hub::<1>::new();
    let mut submitter = hub.submitter(&engine, &mut mailbox).unwrap();
    let ticket = send(&mut submitter, (&owner, &region), &mut slots, 8);
    // The engine's own thread has a batch that reports its pages, too.
    let mut batch = engine.batch().unwrap();
    batch.report_pages();
    for slot in 0..2 {
        batch.read(region.page(owner.location(slot)).unwrap(), slots.pop().unwrap()).unwrap();
    }
    let own = engine.submit(batch, sim.now(), LATE).unwrap();

    let (mut told, mut own_told) = (Vec::new(), 0);
    let done = loop {
        hub.turn(&mut engine, sim.now(), |outcome| assert!(matches!(outcome, Outcome::Done(_))));
        while let Some(arrival) = engine.next_arrival() {
            assert_eq!(arrival.ticket, own, "a page of the submitter's is told the submitter alone");
            own_told += 1;
        }
        match submitter.next_outcome() {
            Some(Outcome::Page(of, tag, DonePage { index, slot, result })) => {
                assert_eq!((of, tag, result, submitter.in_flight()), (ticket, 8, Ok(()), 1));
                assert!(all_equal(&slot, PAGE, owner.expected(owner.location(index))));
                told.push(index);
            }
            Some(Outcome::Done(done)) => break done,
            Some(other) => panic!("{other:?}"),
            None => engine.wait(sim.now(), LATE),
        }
    };
    assert!(told.len() >= 4 && own_told > 0, "{told:?} before the batch was done");
    let mut done = done;
    assert!((0..8).all(|page| done.result(page) == Some(Ok(()))));
    told.extend(done.pages().map(|page| page.index));
    told.sort_unstable();
    assert_eq!(told, [0, 1, 2, 3, 4, 5, 6, 7], "each once");
    assert!(sim.violations().is_empty(), "{:?}", sim.violations());
}

#[test]
fn a_batch_whose_pages_have_no_room_in_the_mailbox_comes_back_with_the_numbers() {
    let mut storage = Box::new(SmallSim::new());
    let mut bytes = memory(1);
    let sim = Sim::new(&mut storage, sim::SimConfig::new(1), &rails(1)).unwrap();
    let owner = Owner::new(&sim, &mut bytes[0], 1);
    let dest = Destination::new(24, PAGE);
    let mut state = Box::new(SmallState::new());
    let mut engine = start(&mut state, &sim, CONFIG);
    let mut slots: Vec<Slot> = dest.register(&mut engine, PAGE).collect();
    let (_, region, _) = connect(&mut engine, &sim, &owner, 1, 1, 5);
    let (mut mailbox, mut none) = (Mailbox::<8, 16>::with_room_for_pages(), Mailbox::<8>::new());
    let mut hub = Hub::<2>::new();
    let mut submitter = hub.submitter(&engine, &mut mailbox).unwrap();
    let mut without = hub.submitter(&engine, &mut none).unwrap();
    let from = (&owner, &region);
    let batch = filled(&mut without, from, &mut slots, 1);
    let refused = without.submit(batch, LATE).unwrap_err();
    assert!(matches!(refused, SendError::NoRoom { pages: 1, due: 0, room: 0, .. }), "{refused}");

    let five = filled(&mut submitter, from, &mut slots, 5);
    submitter.submit(five, LATE).unwrap();
    let four = filled(&mut submitter, from, &mut slots, 4);
    let refused = submitter.submit(four, LATE).unwrap_err();
    assert!(matches!(refused, SendError::NoRoom { pages: 4, due: 5, room: 8, .. }), "{refused}");
    assert_eq!(refused.code(), 2104);
    for number in ["4 pages", "5 of other batches", "holds 8"] {
        assert!(refused.to_string().contains(number), "{refused}");
    }
    let four = refused.into_batch();
    assert_eq!(four.len(), 4);
    // There is room again as soon as enough pages have been taken; no page is told of a batch that
    // the engine refuses, and its room is free again.
    let (mut taken, mut four, mut refusals) = (0, Some(four), 0);
    while taken < 9 {
        hub.turn(&mut engine, sim.now(), |_| panic!("the engine's own thread asked for nothing"));
        let mut more = 0;
        match submitter.next_outcome() {
            Some(Outcome::Page(..)) => more = 1,
            Some(Outcome::Done(mut done)) => more = done.pages().count(),
            Some(Outcome::Rejected(mut rejected)) => {
                assert_eq!(rejected.batch.clear().count(), 3);
                refusals += 1;
            }
            Some(other) => panic!("{other:?}"),
            None => engine.wait(sim.now(), LATE),
        }
        taken += more;
        if taken >= 1
            && let Some(batch) = four.take()
        {
            submitter.submit(batch, LATE).expect("four are due, and there is room for eight");
        }
        if taken == 8 && more == 1 && refusals == 0 {
            let late = filled(&mut submitter, from, &mut slots, 3);
            submitter.submit(late, sim.now()).unwrap();
        }
    }
    for _ in 0..2 {
        hub.turn(&mut engine, sim.now(), |_| ());
        while let Some(outcome) = submitter.next_outcome() {
            refusals += usize::from(matches!(outcome, Outcome::Rejected(_)));
        }
    }
    assert_eq!((refusals, submitter.in_flight()), (1, 0));
    let eight = filled(&mut submitter, from, &mut slots, 8);
    submitter.submit(eight, LATE).expect("all room is free again");
}

/// Two pages in one slot, and two that are joined: what a submitter is told of them is what the
/// batch would say.
#[test]
fn pages_that_belong_together_are_told_when_all_of_them_have_their_results() {
    for whole in [true, false] {
        let mut storage = Box::new(SmallSim::new());
        let mut bytes = memory(1);
        let sim = Sim::new(&mut storage, sim::SimConfig::new(1), &rails(1)).unwrap();
        let mut owner = Owner::new(&sim, &mut bytes[0], 1);
        let dest = Destination::new(8, PAGE);
        let mut state = Box::new(SmallState::new());
        let mut engine = start(&mut state, &sim, CONFIG);
        let mut slots: Vec<Slot> = dest.register(&mut engine, PAGE).collect();
        let (_, region, _) = connect(&mut engine, &sim, &owner, 1, 1, 5);
        let mut mailbox = Mailbox::<4, 16>::with_room_for_pages();
        let mut hub = Hub::<1>::new();
        let mut submitter = hub.submitter(&engine, &mut mailbox).unwrap();
        let mut batch = submitter.batch().unwrap();
        batch.report_pages();
        let part = |slot| region.page(owner.location(slot)).unwrap().part(0, 2_500).unwrap();
        let page = |slot| region.page(owner.location(slot)).unwrap();
        batch.read(part(0), slots.pop().unwrap()).unwrap();
        batch.read_also(part(1), 2_500).unwrap();
        batch.read(page(2), slots.pop().unwrap()).unwrap();
        batch.join(page(3), slots.pop().unwrap()).unwrap();
        for slot in 4..7 {
            batch.read(page(slot), slots.pop().unwrap()).unwrap();
        }
        let expected: Vec<_> = (0..4).map(|slot| owner.expected(owner.location(slot))).collect();
        if !whole {
            owner.invalidate(&sim, 1);
            owner.invalidate(&sim, 3);
        }
        submitter.submit(batch, LATE).unwrap();
        let (mut told, mut back) = (BTreeMap::new(), 0);
        let mut done = loop {
            hub.turn(&mut engine, sim.now(), |_| panic!("nothing is the own thread's"));
            match submitter.next_outcome() {
                Some(Outcome::Page(.., DonePage { index, slot, result })) => {
                    if result.is_ok() && index == 0 {
                        assert!(all_equal(&slot, 2_500, expected[0]));
                        assert!(slot.bytes().unwrap()[2_500..5_000].iter().all(|&b| b == expected[1]));
                    } else if result.is_ok() && index < 4 {
                        assert!(all_equal(&slot, PAGE, expected[index]));
                    }
                    assert!(told.insert(index, result.is_ok()).is_none());
                }
                Some(Outcome::Done(done)) => break done,
                Some(other) => panic!("{other:?}"),
                None => engine.wait(sim.now(), LATE),
            }
        };
        assert!(told.contains_key(&0) && told.contains_key(&2) && told.contains_key(&3), "{told:?}");
        for page in done.pages() {
            back += 1;
            assert!(told.insert(page.index, page.result.is_ok()).is_none());
        }
        assert!(back < 4, "most were told before");
        let want = [(0, whole), (2, whole), (3, whole), (4, true), (5, true), (6, true)];
        assert!(told.into_iter().eq(want), "a page that shares its slot is told with the first");
        assert!(sim.violations().is_empty(), "{:?}", sim.violations());
    }
}

/// The pages that a submitter was told and has not taken are orphans when it is dropped, and belong
/// to the next submitter when its hub is.
#[test]
fn pages_in_the_mailbox_outlive_the_submitter_and_the_hub() {
    let mut storage = Box::new(SmallSim::new());
    let mut bytes = memory(1);
    let sim = Sim::new(&mut storage, sim::SimConfig::new(1), &rails(1)).unwrap();
    let owner = Owner::new(&sim, &mut bytes[0], 1);
    let dest = Destination::new(16, PAGE);
    let mut state = Box::new(SmallState::new());
    let mut mailbox = Mailbox::<4, 16>::with_room_for_pages();
    let mut engine = start(&mut state, &sim, CONFIG);
    let mut slots: Vec<Slot> = dest.register(&mut engine, PAGE).collect();
    let (_, region, _) = connect(&mut engine, &sim, &owner, 1, 1, 5);
    let pages = 12;
    // The first hub ends while pages are in the mailbox and in the engine.
    let mut own = Vec::new();
    {
        let mut hub = Hub::<1>::new();
        let mut submitter = hub.submitter(&engine, &mut mailbox).unwrap();
        send(&mut submitter, (&owner, &region), &mut slots, pages);
        let mut told = 0;
        while told < 2 {
            turn(&mut engine, &mut hub, &sim, &mut own);
            if let Some(Outcome::Page(.., page)) = submitter.next_outcome() {
                told += 1;
                slots.push(page.slot);
            }
        }
        // More are told, and stay in the mailbox.
        for _ in 0..30 {
            turn(&mut engine, &mut hub, &sim, &mut own);
        }
        assert!(own.is_empty() && engine.in_flight() == 1);
    }
    // Without a hub the engine still sleeps, and at the latest in the second attempt.
    for _ in 0..2 {
        engine.wait(sim.now(), sim.now() + Nanos(1));
    }
    let mut hub = Hub::<1>::new();
    let mut submitter = hub.submitter(&engine, &mut mailbox).unwrap();
    assert_eq!(submitter.in_flight(), 0, "the batch is in the engine, and its end is the own thread's");
    let left: Vec<Slot> = core::iter::from_fn(|| match submitter.next_outcome()? {
        Outcome::Page(.., page) => Some(page.slot),
        other => panic!("{other:?}"),
    })
    .collect();
    assert!(!left.is_empty());
    slots.extend(left);
    while engine.in_flight() > 0 {
        turn(&mut engine, &mut hub, &sim, &mut own);
    }
    turn(&mut engine, &mut hub, &sim, &mut own);
    slots.append(&mut own);
    assert_eq!(slots.len(), 16);

    // All room of the mailbox is free for the second hub. Its submitter ends with pages untaken.
    send(&mut submitter, (&owner, &region), &mut slots, pages);
    for _ in 0..12 {
        turn(&mut engine, &mut hub, &sim, &mut own);
    }
    assert!(own.is_empty());
    drop(submitter);
    for _ in 0..200 {
        turn(&mut engine, &mut hub, &sim, &mut own);
    }
    assert_eq!((own.len(), engine.in_flight(), slots.len()), (pages, 0, 4), "each slot once");
    let places: BTreeSet<_> = own.iter().chain(&slots).map(Slot::index).collect();
    assert_eq!(places.len(), 16);
}

/// Wakes a thread that sleeps until an outcome comes.
struct Unpark(std::thread::Thread);

impl std::task::Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

#[test]
fn a_submitter_sleeps_until_the_first_page_comes() {
    const BATCHES: usize = 100;
    let mut storage = Box::new(SmallSim::new());
    let mut bytes = memory(1);
    let sim = Sim::new(&mut storage, sim::SimConfig::new(1), &rails(1)).unwrap();
    let owner = Owner::new(&sim, &mut bytes[0], 1);
    let dest = Destination::new(6, PAGE);
    let mut state = Box::new(SmallState::new());
    let mut engine = start(&mut state, &sim, CONFIG);
    let slots: Vec<Slot> = dest.register(&mut engine, PAGE).collect();
    let (_, region, _) = connect(&mut engine, &sim, &owner, 1, 1, 4);
    let mut mailbox = Mailbox::<2, 8>::with_room_for_pages();
    let mut hub = Hub::<1>::new();
    let mut submitter = hub.submitter(&engine, &mut mailbox).unwrap();
    let pages: Vec<_> = (0..6)
        .map(|i| (region.page(owner.location(i)).unwrap(), owner.expected(owner.location(i))))
        .collect();
    let (running, early) = (AtomicUsize::new(1), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        let (running, early) = (&running, &early);
        scope.spawn(move || {
            let waker = Arc::new(Unpark(std::thread::current())).into();
            let mut slots = slots;
            for _ in 0..BATCHES {
                let mut batch = submitter.batch().unwrap();
                batch.report_pages();
                for ((page, _), slot) in pages.iter().zip(slots.drain(..)) {
                    batch.read(*page, slot).unwrap();
                }
                submitter.submit(batch, Time::NEVER).unwrap();
                let mut take = |page: DonePage| {
                    page.result().unwrap();
                    assert!(all_equal(&page.slot, PAGE, pages[page.index].1));
                    slots.push(page.slot);
                };
                loop {
                    match submitter.next_outcome() {
                        Some(Outcome::Page(.., page)) => {
                            early.fetch_add(1, Ordering::Relaxed);
                            take(page);
                        }
                        Some(Outcome::Done(mut done)) => break done.pages().for_each(take),
                        Some(other) => panic!("{other:?}"),
                        None if submitter.prepare_sleep(&waker) => std::thread::park(),
                        None => {}
                    }
                }
            }
            running.store(0, Ordering::Release);
        });
        while running.load(Ordering::Acquire) > 0 {
            hub.turn(&mut engine, sim.now(), |_| panic!("the engine's own thread asked for nothing"));
            if engine.in_flight() > 0 {
                engine.wait(sim.now(), sim.now() + Nanos::from_micros(10));
            } else {
                std::thread::yield_now();
            }
        }
    });
    assert!(early.into_inner() > BATCHES, "most pages were told early");
}
