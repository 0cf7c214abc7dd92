//! Many threads feed one engine: each batch comes back to the thread that submitted it, and none is
//! lost.
#![allow(missing_docs, reason = "tests")]

mod common;

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use common::*;
use kvrail_core::batch::Class;
use kvrail_core::config::EngineConfig;
use kvrail_core::error::SubmitError;
use kvrail_core::hub::{Hub, HubSubmitter, Mailbox, OrderError, Outcome, SendError};
use kvrail_core::memory::Slot;
use kvrail_core::time::{Nanos, Time};
use kvrail_sim::sim::{self, Sim};

const CONFIG: EngineConfig = EngineConfig { chunk_bytes: 4096, ..EngineConfig::DEFAULT };
const LATE: Time = Time(1_000_000_000);

#[test]
fn a_full_mailbox_gives_the_batch_back() {
    let mut storage = Box::new(SmallSim::new());
    let mut bytes = memory(1);
    let sim = Sim::new(&mut storage, sim::SimConfig::new(1), &rails(1)).unwrap();
    let owner = Owner::new(&sim, &mut bytes[0], 1);
    let dest = Destination::new(8, PAGE);
    let mut state = Box::new(SmallState::new());
    let mut engine = start(&mut state, &sim, CONFIG);
    let mut slots = dest.register(&mut engine, PAGE);
    let (_, region, _) = connect(&mut engine, &sim, &owner, 1, 1, 8);
    let (mut mailbox, mut second) = (Mailbox::<4>::new(), Mailbox::<4>::new());
    let mut hub = Hub::<1>::new();
    let mut submitter = hub.submitter(&engine, &mut mailbox).unwrap();

    for tag in 0..2 {
        let mut batch = submitter.batch().unwrap();
        batch.set_tag(tag);
        batch.read(region.page(owner.location(0)).unwrap(), slots.next().unwrap()).unwrap();
        submitter.submit(batch, LATE).unwrap();
    }
    let mut batch = submitter.batch().unwrap();
    batch.read(region.page(owner.location(0)).unwrap(), slots.next().unwrap()).unwrap();
    let full = submitter.submit(batch, LATE).unwrap_err();
    assert!(matches!(full, SendError::Full { in_flight: 2, .. }), "{full}");
    let mut batch = full.into_batch();
    assert_eq!(batch.len(), 1);

    let mut tags = Vec::new();
    while tags.len() < 2 {
        hub.turn(&mut engine, sim.now(), |_| panic!("the engine's own thread asked for nothing"));
        while let Some(outcome) = submitter.next_outcome() {
            let Outcome::Done(mut done) = outcome else { panic!("{outcome:?}") };
            assert!(done.pages().all(|page| page.result.is_ok()));
            tags.push(done.tag());
        }
        engine.wait(sim.now(), LATE);
    }
    assert_eq!(tags, [0, 1]);

    // The engine refuses the batch, which comes back by the same mailbox.
    batch.set_tag(9);
    submitter.submit(batch, sim.now()).unwrap();
    hub.turn(&mut engine, sim.now(), |_| ());
    let Some(Outcome::Rejected(rejected)) = submitter.next_outcome() else { panic!("refused") };
    assert!(matches!(rejected.error, SubmitError::DeadlinePassed { .. }));
    assert_eq!((rejected.batch.len(), submitter.in_flight()), (1, 0));
    assert!(hub.submitter(&engine, &mut second).is_err(), "the hub has one place");
}

/// Counts a thread as running until it ends, also by a panic.
struct Running<'a>(&'a AtomicUsize);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Release);
    }
}

/// The model is single-threaded, so the engine stays on this thread; the submitters have their own.
#[test]
fn four_threads_get_their_own_batches_back() {
    const THREADS: usize = 4;
    const ROUNDS: usize = 200;
    let mut storage = Box::new(SmallSim::new());
    let mut bytes = memory(1);
    let sim = Sim::new(&mut storage, sim::SimConfig::new(2), &rails(2)).unwrap();
    let owner = Owner::new(&sim, &mut bytes[0], 1);
    let dest = Destination::new(4 * THREADS, PAGE);
    let mut state = Box::new(SmallState::new());
    let mut engine = start(&mut state, &sim, CONFIG);
    let mut slots = dest.register(&mut engine, PAGE);
    let (_, region, _) = connect(&mut engine, &sim, &owner, 2, 1, 16);
    let locations: Vec<_> =
        (0..SLOTS).map(|i| (owner.location(i), owner.expected(owner.location(i)))).collect();
    let mut mailboxes: Vec<_> = (0..THREADS).map(|_| Mailbox::<4>::new()).collect();
    let mut hub = Hub::<THREADS>::new();
    let seen = Mutex::new(HashMap::<u64, usize>::new());
    let running = AtomicUsize::new(THREADS);

    std::thread::scope(|scope| {
        for (thread, mailbox) in mailboxes.iter_mut().enumerate() {
            let mut submitter = hub.submitter(&engine, mailbox).unwrap();
            let mut own: Vec<Slot> = slots.by_ref().take(4).collect();
            let (locations, seen, running) = (&locations, &seen, Running(&running));
            scope.spawn(move || {
                let _running = running;
                let mut round = 0;
                while round < ROUNDS || submitter.in_flight() > 0 {
                    let wanted = round < ROUNDS && own.len() >= 2 && submitter.in_flight() < 2;
                    if let Some(mut batch) = wanted.then(|| submitter.batch()).flatten() {
                        let tag = (thread * ROUNDS + round) as u64;
                        batch.set_tag(tag);
                        for i in 0..2 {
                            let (location, _) = locations[(tag as usize + i) % SLOTS];
                            batch.read(region.page(location).unwrap(), own.pop().unwrap()).unwrap();
                        }
                        // Model time goes on while the operating system does not run a thread.
                        submitter.submit(batch, Time::NEVER).unwrap();
                        round += 1;
                    }
                    match submitter.next_outcome() {
                        Some(Outcome::Done(mut done)) => {
                            let tag = done.tag();
                            assert_eq!(
                                tag as usize / ROUNDS,
                                thread,
                                "a batch comes back to the thread that submitted it"
                            );
                            for page in done.pages() {
                                page.result().unwrap();
                                let (_, byte) = locations[(tag as usize + page.index) % SLOTS];
                                assert!(all_equal(&page.slot, PAGE, byte));
                                own.push(page.slot);
                            }
                            *seen.lock().unwrap().entry(tag).or_default() += 1;
                        }
                        Some(other) => panic!("{other:?}"),
                        None => std::thread::yield_now(),
                    }
                }
            });
        }
        while running.load(Ordering::Acquire) > 0 {
            hub.turn(&mut engine, sim.now(), |_| ());
            engine.wait(sim.now(), sim.now() + Nanos::from_micros(50));
            std::thread::yield_now();
        }
    });
    let seen = seen.into_inner().unwrap();
    assert_eq!(seen.len(), THREADS * ROUNDS);
    assert!(seen.values().all(|&n| n == 1), "each batch comes back once");
    assert!(sim.violations().is_empty(), "{:?}", sim.violations());
}

#[test]
fn slots_of_a_dropped_submitter_come_back_and_its_batches_are_free_again() {
    let mut storage = Box::new(SmallSim::new());
    let mut bytes = memory(1);
    let sim = Sim::new(&mut storage, sim::SimConfig::new(1), &rails(1)).unwrap();
    let owner = Owner::new(&sim, &mut bytes[0], 1);
    let dest = Destination::new(8, PAGE);
    let mut state = Box::new(SmallState::new());
    let mut engine = start(&mut state, &sim, CONFIG);
    let mut slots: Vec<Slot> = dest.register(&mut engine, PAGE).collect();
    let (_, region, _) = connect(&mut engine, &sim, &owner, 1, 1, 8);
    let batches = engine.batches_free();
    // It is dropped while batches are done and not taken, in the engine, on their way to it, and
    // refused by it.
    for (turns, deadline) in [(0, LATE), (1, LATE), (60, LATE), (0, Time(1))] {
        let mut mailbox = Mailbox::<8>::new();
        let mut hub = Hub::<1>::new();
        let mut submitter = hub.submitter(&engine, &mut mailbox).unwrap();
        for _ in 0..3 {
            let mut batch = submitter.batch().unwrap();
            for _ in 0..2 {
                batch.read(region.page(owner.location(0)).unwrap(), slots.pop().unwrap()).unwrap();
            }
            submitter.submit(batch, deadline).unwrap();
        }
        for _ in 0..turns {
            hub.turn(&mut engine, sim.now(), |_| panic!("no submitter is gone yet"));
            engine.wait(sim.now(), sim.now() + Nanos::from_micros(20));
        }
        drop(submitter);
        let mut home = Vec::new();
        for _ in 0..100 {
            hub.turn(&mut engine, sim.now(), |outcome| match outcome {
                Outcome::Orphan(slot) => home.push(slot),
                other => panic!("{other:?}"),
            });
            engine.wait(sim.now(), sim.now() + Nanos::from_micros(20));
        }
        assert_eq!((home.len(), engine.in_flight(), engine.batches_free()), (6, 0, batches), "{turns} turns");
        slots.extend(home);
    }
}

#[test]
fn a_submitter_learns_that_its_hub_was_dropped() {
    let mut storage = Box::new(SmallSim::new());
    let mut bytes = memory(1);
    let sim = Sim::new(&mut storage, sim::SimConfig::new(1), &rails(1)).unwrap();
    let owner = Owner::new(&sim, &mut bytes[0], 1);
    let dest = Destination::new(8, PAGE);
    let mut state = Box::new(SmallState::new());
    let mut mailbox = Mailbox::<8>::new();
    let mut engine = start(&mut state, &sim, CONFIG);
    let mut slots = dest.register(&mut engine, PAGE);
    let (_, region, _) = connect(&mut engine, &sim, &owner, 1, 1, 8);
    let mut hub = Hub::<1>::new();
    let mut submitter = hub.submitter(&engine, &mut mailbox).unwrap();
    for number in 0..3 {
        let mut batch = submitter.batch().unwrap();
        batch.set_tag(number);
        batch.read(region.page(owner.location(0)).unwrap(), slots.next().unwrap()).unwrap();
        submitter.submit(batch, LATE).unwrap();
        // The first batch is done, the second in the engine, the third on its way to it.
        match number {
            0 => {
                for _ in 0..60 {
                    hub.turn(&mut engine, sim.now(), |_| panic!("nothing is the own thread's"));
                    engine.wait(sim.now(), sim.now() + Nanos::from_micros(20));
                }
            }
            1 => drop(hub.turn(&mut engine, sim.now(), |_| panic!("nothing is the own thread's"))),
            _ => {}
        }
    }
    let mut spare = submitter.batch().unwrap();
    spare.read(region.page(owner.location(0)).unwrap(), slots.next().unwrap()).unwrap();
    drop(hub);
    assert!(submitter.is_orphaned() && submitter.batch().is_none());
    let refused = submitter.submit(spare, LATE).unwrap_err();
    assert!(matches!(refused, SendError::ReaderGone { .. }), "{refused}");
    assert_eq!(refused.into_batch().len(), 1);
    let Some(Outcome::Done(done)) = submitter.next_outcome() else { panic!("the first was done") };
    assert_eq!(done.tag(), 0);
    let Some(Outcome::Rejected(mut rejected)) = submitter.next_outcome() else {
        panic!("the third comes back")
    };
    assert_eq!((rejected.error, rejected.batch.clear().count()), (SubmitError::EngineGone, 1));
    assert!(matches!(submitter.next_outcome(), Some(Outcome::ReaderGone(1))));
    assert!(submitter.next_outcome().is_none() && submitter.in_flight() == 0);
}

/// A hub is dropped with batches not yet taken by the engine, in it, and done and not taken;
/// another takes its place, over the same mailbox. The new submitter is told its own outcomes and
/// those left in the mailbox, which count as on their way, and the engine's own thread those of
/// batches that were in the engine.
#[test]
fn a_second_hub_over_the_same_mailbox_counts_only_what_its_submitter_sends() {
    let mut storage = Box::new(SmallSim::new());
    let mut bytes = memory(1);
    let sim = Sim::new(&mut storage, sim::SimConfig::new(1), &rails(1)).unwrap();
    let owner = Owner::new(&sim, &mut bytes[0], 1);
    let dest = Destination::new(12, PAGE);
    let mut state = Box::new(SmallState::new());
    let mut mailbox = Mailbox::<4>::new();
    let mut engine = start(&mut state, &sim, CONFIG);
    let mut slots: Vec<Slot> = dest.register(&mut engine, PAGE).collect();
    let (_, region, _) = connect(&mut engine, &sim, &owner, 1, 1, 8);
    let send = |submitter: &mut HubSubmitter<'_, '_, _>, slots: &mut Vec<Slot>, tag| {
        let mut batch = submitter.batch().unwrap();
        batch.set_tag(tag);
        batch.read(region.page(owner.location(0)).unwrap(), slots.pop().unwrap()).unwrap();
        submitter.submit(batch, LATE).unwrap();
    };
    for turns in [0, 1, 60] {
        {
            let mut hub = Hub::<1>::new();
            let mut submitter = hub.submitter(&engine, &mut mailbox).unwrap();
            (0..2).for_each(|_| send(&mut submitter, &mut slots, 0));
            for _ in 0..turns {
                hub.turn(&mut engine, sim.now(), |_| panic!("nothing is the own thread's"));
                engine.wait(sim.now(), sim.now() + Nanos::from_micros(20));
            }
        }
        let mut hub = Hub::<1>::new();
        let mut submitter = hub.submitter(&engine, &mut mailbox).unwrap();
        assert_eq!(submitter.in_flight(), if turns == 1 { 0 } else { 2 }, "{turns} turns");
        let (mut own, mut told, mut sent) = (0, [0; 2], 0);
        for _ in 0..200 {
            if sent < 2 && submitter.in_flight() < 2 {
                send(&mut submitter, &mut slots, 1);
                sent += 1;
            }
            hub.turn(&mut engine, sim.now(), |outcome| {
                let Outcome::Done(mut done) = outcome else { panic!("{outcome:?}") };
                assert_eq!(done.tag(), 0);
                own += 1;
                slots.extend(done.pages().map(|page| page.slot));
            });
            engine.wait(sim.now(), sim.now() + Nanos::from_micros(20));
            while let Some(outcome) = submitter.next_outcome() {
                let Outcome::Done(mut done) = outcome else { panic!("{outcome:?}") };
                told[done.tag() as usize] += 1;
                slots.extend(done.pages().map(|page| page.slot));
            }
        }
        let (with_engine, in_mailbox) = if turns == 1 { (2, 0) } else { (0, 2) };
        assert_eq!((own, told), (with_engine, [in_mailbox, 2]), "{turns} turns");
        assert_eq!((submitter.in_flight(), slots.len()), (0, 12), "{turns} turns");
    }
}

#[test]
fn a_submitter_withdraws_its_own_batches_and_no_others() {
    let mut storage = Box::new(SmallSim::new());
    let mut bytes = memory(1);
    let sim = Sim::new(&mut storage, sim::SimConfig::new(1), &rails(1)).unwrap();
    let owner = Owner::new(&sim, &mut bytes[0], 1);
    let dest = Destination::new(64, PAGE);
    let mut state = Box::new(SmallState::new());
    let mut engine = start(&mut state, &sim, CONFIG);
    let mut slots = dest.register(&mut engine, PAGE);
    let (_, region, _) = connect(&mut engine, &sim, &owner, 1, 1, 4);
    let (mut mailbox, mut second) = (Mailbox::<4>::new(), Mailbox::<4>::new());
    let mut hub = Hub::<2>::new();
    let mut one = hub.submitter(&engine, &mut mailbox).unwrap();
    let mut two = hub.submitter(&engine, &mut second).unwrap();
    let mut read = |of: &mut HubSubmitter<'_, '_, _>| {
        let mut batch = of.batch().unwrap();
        for slot in 0..4 {
            batch.read(region.page(owner.location(slot)).unwrap(), slots.next().unwrap()).unwrap();
        }
        of.submit(batch, LATE).unwrap()
    };
    let (mine, theirs, page) = (read(&mut one), read(&mut two), read(&mut one));
    one.withdraw(mine).unwrap();
    one.withdraw(theirs).unwrap();
    assert_eq!(one.withdraw(theirs), Err(OrderError::Full { orders: 4 }));
    hub.turn(&mut engine, sim.now(), |_| panic!("the engine's own thread asked for nothing"));
    one.withdraw_page(page, 3).unwrap();
    one.withdraw_page(page, 4).unwrap();
    two.set_class(theirs, Class::Background).unwrap();
    let (mut left, mut got) = (3, HashMap::new());
    while left > 0 {
        hub.turn(&mut engine, sim.now(), |_| panic!("the engine's own thread asked for nothing"));
        for submitter in [&mut one, &mut two] {
            while let Some(outcome) = submitter.next_outcome() {
                let Outcome::Done(mut done) = outcome else { panic!("{outcome:?}") };
                let ok: Vec<_> = done.pages().map(|page| page.result.is_ok()).collect();
                got.insert(done.ticket(), ok);
                left -= 1;
            }
        }
        engine.wait(sim.now(), LATE);
    }
    assert_eq!(got[&mine], [false; 4]);
    assert_eq!(got[&theirs], [true; 4]);
    assert_eq!(got[&page], [true, true, true, false]);
    drop(hub);
    assert_eq!(one.withdraw(mine), Err(OrderError::ReaderGone));
}

/// Wakes a thread that sleeps until an outcome comes.
struct Unpark(std::thread::Thread);

impl std::task::Wake for Unpark {
    fn wake(self: std::sync::Arc<Self>) {
        self.0.unpark();
    }
}

#[test]
fn a_submitter_sleeps_until_an_outcome_comes_or_the_hub_ends() {
    const BATCHES: usize = 200;
    let mut storage = Box::new(SmallSim::new());
    let mut bytes = memory(1);
    let sim = Sim::new(&mut storage, sim::SimConfig::new(1), &rails(1)).unwrap();
    let owner = Owner::new(&sim, &mut bytes[0], 1);
    let dest = Destination::new(1, PAGE);
    let mut state = Box::new(SmallState::new());
    let mut engine = start(&mut state, &sim, CONFIG);
    let mut slots = dest.register(&mut engine, PAGE);
    let (_, region, _) = connect(&mut engine, &sim, &owner, 1, 1, 8);
    let mut mailbox = Mailbox::<2>::new();
    let mut hub = Hub::<1>::new();
    let mut submitter = hub.submitter(&engine, &mut mailbox).unwrap();
    let page = region.page(owner.location(0)).unwrap();
    let (first, done) = (slots.next().unwrap(), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        let done = &done;
        scope.spawn(move || {
            let waker = std::sync::Arc::new(Unpark(std::thread::current())).into();
            let mut slot = Some(first);
            while let Some(into) = slot.take() {
                let mut batch = submitter.batch().unwrap();
                batch.read(page, into).unwrap();
                if let Err(gone) = submitter.submit(batch, LATE) {
                    assert!(matches!(gone, SendError::ReaderGone { .. }), "{gone}");
                    return;
                }
                let outcome = loop {
                    if let Some(outcome) = submitter.next_outcome() {
                        break outcome;
                    }
                    if submitter.prepare_sleep(&waker) {
                        std::thread::park();
                    }
                };
                if let Outcome::Done(mut batch) = outcome {
                    slot = batch.pages().next().map(|page| page.slot);
                    done.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
        while done.load(Ordering::Relaxed) < BATCHES {
            hub.turn(&mut engine, sim.now(), |_| panic!("the engine's own thread asked for nothing"));
            if engine.in_flight() > 0 {
                engine.wait(sim.now(), sim.now() + Nanos::from_micros(10));
            } else {
                std::thread::yield_now();
            }
        }
        // The submitter sleeps, or is about to, with a batch on its way or not.
        drop(hub);
    });
}
