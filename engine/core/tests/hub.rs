//! Many threads feed one engine: orders go in, outcomes come back to whoever asked, nothing is lost.
#![allow(missing_docs, reason = "tests")]

mod common;

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use common::*;
use kvrail_core::config::Config;
use kvrail_core::error::SubmitError;
use kvrail_core::hub::{Hub, Mailbox, Outcome};
use kvrail_core::memory::Slot;
use kvrail_core::time::{Nanos, Time};
use kvrail_sim::sim::{self, Sim};

const CONFIG: Config = Config { chunk_bytes: 4096, ..Config::DEFAULT };
const LATE: Time = Time(1_000_000_000);

#[test]
fn a_full_mailbox_gives_the_batch_back() {
    let mut storage = Box::new(SmallSim::new());
    let mut bytes = memory(1);
    let sim = Sim::new(&mut storage, sim::Config::new(1), &rails(1)).unwrap();
    let owner = Owner::new(&sim, &mut bytes[0], 1);
    let dest = Destination::new(8, PAGE);
    let mut state = Box::new(SmallState::new());
    let mut engine = start(&mut state, &sim, CONFIG);
    let mut slots = dest.register(&mut engine, PAGE);
    let (_, region, _) = connect(&mut engine, &sim, &owner, 1, 1, 8);
    let mut mailbox = Mailbox::<4>::new();
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
    assert_eq!((full.in_flight, full.batch.len()), (2, 1), "{full}");
    let mut batch = full.batch;

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

    // Refused by the engine: it comes back by the same way.
    batch.set_tag(9);
    submitter.submit(batch, sim.now()).unwrap();
    hub.turn(&mut engine, sim.now(), |_| ());
    let Some(Outcome::Rejected(rejected)) = submitter.next_outcome() else { panic!("refused") };
    assert!(matches!(rejected.error, SubmitError::DeadlinePassed { .. }));
    assert_eq!((rejected.batch.len(), submitter.in_flight()), (1, 0));
    let mut second = Mailbox::<4>::new();
    assert!(hub.submitter(&engine, &mut second).is_err(), "the hub has one place");
}

/// The model is single-threaded, so the engine stays on this thread; the submitters have their own.
#[test]
fn four_threads_get_back_what_they_sent() {
    const THREADS: usize = 4;
    const ROUNDS: usize = 200;
    let mut storage = Box::new(SmallSim::new());
    let mut bytes = memory(1);
    let sim = Sim::new(&mut storage, sim::Config::new(2), &rails(2)).unwrap();
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
            let (locations, seen, running) = (&locations, &seen, &running);
            scope.spawn(move || {
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
                        submitter.submit(batch, LATE).unwrap();
                        round += 1;
                    }
                    match submitter.next_outcome() {
                        Some(Outcome::Done(mut done)) => {
                            let tag = done.tag();
                            assert_eq!(tag as usize / ROUNDS, thread, "it comes back to whoever asked");
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
                running.fetch_sub(1, Ordering::Release);
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
