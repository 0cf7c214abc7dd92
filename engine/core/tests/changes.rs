//! Batches in flight are withdrawn, whole or page by page, change their class, and report their
//! pages before they are done.
#![allow(missing_docs, reason = "tests")]

mod common;

use common::*;
use kvrail_core::batch::{Class, Done, Ticket};
use kvrail_core::config::EngineConfig;
use kvrail_core::engine::Engine;
use kvrail_core::error::{FlightError, PageError};
use kvrail_core::id::RailIndex;
use kvrail_core::memory::Slots;
use kvrail_core::peer::PeerStats;
use kvrail_core::remote::RemoteRegion;
use kvrail_core::time::{Nanos, Time};
use kvrail_sim::sim::{self, Sim, SimRails};

const LATE: Time = Time(1_000_000_000);

/// Three chunks a page, and room for four READs on the lane.
const CONFIG: EngineConfig = EngineConfig { chunk_bytes: 4096, ..EngineConfig::DEFAULT };

struct Bench<'e, 's, 'm> {
    engine: Engine<'s, SimRails<'m>>,
    sim: &'m Sim<'m>,
    owner: &'e Owner,
    region: RemoteRegion,
    slots: Slots,
    peer: kvrail_core::id::PeerId,
}

/// Runs a scenario with one peer behind one rail, over one lane of `depth`.
fn with_bench(config: EngineConfig, depth: u32, scenario: impl FnOnce(&mut Bench<'_, '_, '_>)) {
    let mut storage = Box::new(SmallSim::new());
    let mut bytes = memory(1);
    let sim = Sim::new(&mut storage, sim::SimConfig::new(1), &rails(1)).unwrap();
    let owner = Owner::new(&sim, &mut bytes[0], 1);
    let dest = Destination::new(64, PAGE);
    let mut state = Box::new(SmallState::new());
    let mut engine = start(&mut state, &sim, config);
    let slots = dest.register(&mut engine, PAGE);
    let (peer, region, _) = connect(&mut engine, &sim, &owner, 1, 1, depth);
    let mut bench = Bench { engine, sim: &sim, owner: &owner, region, slots, peer };
    scenario(&mut bench);
    assert!(sim.violations().is_empty(), "{:?}", sim.violations());
}

impl<'s> Bench<'_, 's, '_> {
    fn submit(&mut self, class: Class, pages: usize, report: bool) -> Ticket {
        let mut batch = fill(&mut self.engine, self.owner, &self.region, &mut self.slots, pages);
        batch.set_class(class);
        if report {
            batch.report_pages();
        }
        self.engine.submit(batch, self.sim.now(), LATE).unwrap()
    }

    fn settle(&mut self) -> Vec<Done<'s>> {
        let mut all = Vec::new();
        settle(&mut self.engine, self.sim, LATE, |done| all.push(done));
        all
    }

    fn stats(&self) -> PeerStats {
        self.engine.peer_stats(self.peer).unwrap()
    }

    fn posted(&self) -> u64 {
        self.engine.rail_stats(RailIndex(0)).unwrap().posted
    }
}

fn results(done: &Done<'_>) -> Vec<Result<(), PageError>> {
    (0..done.len()).map(|page| done.result(page).unwrap()).collect()
}

#[test]
fn a_withdrawn_batch_comes_back_when_its_posted_reads_have_completed_and_posts_no_more() {
    with_bench(CONFIG, 5, |bench| {
        let ticket = bench.submit(Class::Urgent, 8, false);
        let posted = bench.posted();
        assert_eq!(bench.engine.withdraw(ticket, bench.sim.now()), Ok(8));
        assert_eq!(bench.engine.withdraw(ticket, bench.sim.now()), Ok(0), "withdrawn twice");
        bench.engine.poll(bench.sim.now());
        assert!(bench.engine.next_done().is_none(), "READs are under way into its slots");
        let done = bench.settle();
        assert_eq!(results(&done[0]), [Err(PageError::Withdrawn); 8]);
        assert_eq!((bench.posted(), bench.stats().withdrawn), (posted, 8));
        let gone = bench.engine.withdraw(ticket, bench.sim.now());
        assert_eq!(gone, Err(FlightError::NotInFlight(ticket)));
        // Peer and lane go on.
        bench.submit(Class::Urgent, 3, false);
        assert_eq!(results(&bench.settle()[0]), [Ok(()); 3]);
        assert_eq!(bench.engine.rail_stats(RailIndex(0)).unwrap().lanes_failed, 0);
    });
}

#[test]
fn a_batch_of_which_nothing_was_posted_comes_back_at_once() {
    with_bench(CONFIG, 5, |bench| {
        bench.submit(Class::Urgent, 8, false);
        let waits = bench.submit(Class::Urgent, 8, false);
        assert_eq!(bench.engine.withdraw(waits, bench.sim.now()), Ok(8));
        let mut done = bench.engine.next_done().expect("at once");
        assert_eq!((done.ticket(), done.pages().count()), (waits, 8));
        assert_eq!(results(&bench.settle()[0]), [Ok(()); 8]);
    });
}

#[test]
fn a_withdrawn_page_takes_no_other_page_along_and_one_that_has_arrived_keeps_its_result() {
    with_bench(CONFIG, 5, |bench| {
        let ticket = bench.submit(Class::Urgent, 8, true);
        let now = bench.sim.now();
        assert_eq!(bench.engine.withdraw_page(ticket, 6, now), Ok(true));
        assert_eq!(bench.engine.withdraw_page(ticket, 6, now), Ok(false));
        let beyond = FlightError::NoPage { ticket, page: 8, pages: 8 };
        assert_eq!(bench.engine.withdraw_page(ticket, 8, now), Err(beyond));
        while bench.engine.next_arrival().is_none_or(|arrival| arrival.result.is_err()) {
            bench.engine.wait(bench.sim.now(), LATE);
            bench.engine.poll(bench.sim.now());
        }
        assert_eq!(bench.engine.withdraw_page(ticket, 0, bench.sim.now()), Ok(false), "it has arrived");
        let mut want = [Ok(()); 8];
        want[6] = Err(PageError::Withdrawn);
        assert_eq!(results(&bench.settle()[0]), want);
    });
}

#[test]
fn a_slot_of_which_one_page_was_withdrawn_is_not_ok() {
    with_bench(CONFIG, 5, |bench| {
        let mut batch = bench.engine.batch().unwrap();
        let part = |slot| bench.region.page(bench.owner.location(slot)).unwrap().part(0, 2_500).unwrap();
        batch.read(part(0), bench.slots.next().unwrap()).unwrap();
        batch.read_also(part(1), 2_500).unwrap();
        batch.read(part(2), bench.slots.next().unwrap()).unwrap();
        let ticket = bench.engine.submit(batch, bench.sim.now(), LATE).unwrap();
        assert_eq!(bench.engine.withdraw_page(ticket, 1, bench.sim.now()), Ok(true));
        let mut done = bench.settle();
        let pages: Vec<_> = done[0].pages().map(|page| (page.index, page.result)).collect();
        assert_eq!(pages, [(0, Err(PageError::Withdrawn)), (2, Ok(()))]);
    });
}

#[test]
fn a_batch_that_becomes_urgent_passes_those_that_wait_in_the_background() {
    with_bench(CONFIG, 5, |bench| {
        for _ in 0..3 {
            bench.submit(Class::Background, 8, false);
        }
        let last = bench.submit(Class::Background, 8, false);
        bench.engine.set_class(last, Class::Urgent, bench.sim.now()).unwrap();
        bench.engine.set_class(last, Class::Urgent, bench.sim.now()).unwrap();
        let order: Vec<_> = bench.settle().iter().map(Done::ticket).collect();
        assert!(order.iter().position(|ticket| *ticket == last) < Some(2), "{order:?}");
        let gone = bench.engine.set_class(last, Class::Urgent, bench.sim.now());
        assert_eq!(gone, Err(FlightError::NotInFlight(last)));
    });
}

#[test]
fn pages_are_told_as_they_arrive_and_their_slots_come_back_early() {
    with_bench(CONFIG, 5, |bench| {
        let quiet = bench.submit(Class::Urgent, 1, false);
        let ticket = bench.submit(Class::Urgent, 8, true);
        let (mut told, mut done) = (Vec::new(), Vec::new());
        while bench.engine.in_flight() > 0 {
            while let Some(arrival) = bench.engine.next_arrival() {
                assert_eq!((arrival.ticket, arrival.result), (ticket, Ok(())));
                assert_eq!(arrival.slot, 1 + arrival.page);
                told.push(arrival.page);
                if arrival.page % 2 == 0 && bench.engine.in_flight() > 0 {
                    let slot = bench.engine.take_slot(&arrival).expect("it is not shared");
                    assert_eq!(bench.engine.take_slot(&arrival).map(|slot| slot.index()), None);
                    let byte = bench.owner.expected(bench.owner.location(arrival.page));
                    assert!(slot.index() == arrival.slot && all_equal(&slot, PAGE, byte));
                }
            }
            done.extend(bench.engine.next_done());
            bench.engine.wait(bench.sim.now(), LATE);
            bench.engine.poll(bench.sim.now());
        }
        assert!(told.len() >= 4, "{told:?} before the batch was done");
        done.extend(core::iter::from_fn(|| bench.engine.next_done()));
        assert_eq!(done.iter().map(Done::ticket).collect::<Vec<_>>(), [quiet, ticket]);
        let mut done = done.pop().unwrap();
        assert_eq!(results(&done), [Ok(()); 8]);
        let back: Vec<_> = done.pages().map(|page| page.index).collect();
        assert!(back.iter().all(|page| page % 2 == 1 || !told.contains(page)), "{back:?} after {told:?}");
        assert!(bench.engine.next_arrival().is_none(), "a batch that was taken tells nothing more");
        assert!(!bench.engine.has_news());
    });
}

#[test]
fn an_engine_with_news_does_not_sleep() {
    with_bench(CONFIG, 32, |bench| {
        bench.submit(Class::Urgent, 8, true);
        while !bench.engine.has_news() {
            bench.engine.wait(bench.sim.now(), LATE);
            bench.engine.poll(bench.sim.now());
        }
        assert!(bench.engine.in_flight() > 0, "it was woken for the first page");
        let now = bench.sim.now();
        bench.engine.wait(now, now + Nanos::from_millis(1));
        assert_eq!(bench.sim.now(), now);
        bench.settle();
    });
}
