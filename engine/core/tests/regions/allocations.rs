//! Nothing on the data path allocates, whatever the pages are: of several regions, by plans into
//! one region, in parts, joined, reported early, withdrawn, of another class, over lanes that fail
//! and lanes that are made when they are wanted.

use kvrail_core::batch::{Class, Ticket};
use kvrail_core::config::EngineConfig;
use kvrail_core::id::RailIndex;
use kvrail_core::memory::Slot;
use kvrail_core::time::{Nanos, Time};
use kvrail_core::verbs_abi::WcStatus;
use kvrail_layouts::{Plan, Selection};
use kvrail_sim::sim::{self, Fate, Sim};

use crate::CONFIG;
use crate::common::{self, Destination, Rng, SmallSim, SmallState, start};
use crate::heap::heap_calls;
use crate::pool::*;

#[test]
fn pages_of_several_regions_make_no_heap_call() {
    let mut rng = Rng(7);
    let mut storage = Box::new(SmallSim::new());
    let mut memory = Pool::memory();
    let config = sim::SimConfig { retry: Nanos::from_micros(300), ..sim::SimConfig::new(7) };
    let sim = Sim::new(&mut storage, config, &common::rails(2)).unwrap();
    let pool = Pool::new(&sim, &mut memory);
    let (dest, other) = (dest_of_regions(), Destination::new(SLOTS, PAGE));
    let mut state = Box::new(SmallState::new());
    let config = EngineConfig { stall: Nanos::from_millis(2), ..CONFIG };
    let mut engine = start(&mut state, &sim, config);
    let mut several: Vec<Slot> = slots_of_regions(&mut engine, &dest).collect();
    let mut one: Vec<Slot> = other.register(&mut engine, PAGE).collect();
    let peer = engine.add_peer().unwrap();
    let region = engine.add_pool(peer, &by_region(), &Pool::offers()).unwrap();
    let lanes = [0, 0, 1, 1].map(|rail| attach(&mut engine, &sim, peer, pool.peer, rail).unwrap());
    let gather = Plan::between(&by_region(), &by_token(), Selection::ALL).unwrap();
    let gather = engine.add_plan(&gather).unwrap();
    let [front, back] = [(0, 2), (2, 3)].map(|(first, count)| {
        let part = Selection::ALL.layers(first, count);
        engine.add_plan(&Plan::between(&by_region(), &by_region(), part).unwrap()).unwrap()
    });
    let status = WcStatus::RETRY_EXC_ERR;
    sim.script(lanes[0], Fate::Status { nth: 10, status }).unwrap();
    sim.script(lanes[1], Fate::Prefix { nth: 3, accepted: 1, errno: 12 }).unwrap();
    sim.script(lanes[2], Fate::Lost { nth: 20 }).unwrap();
    sim.script(lanes[3], Fate::Incomplete { nth: 30 }).unwrap();

    let end = Time(20_000_000);
    let mut last: Option<Ticket> = None;
    let (mut arrived, mut failed, mut told, mut withdrawn, mut made) = (0, 0, 0, 0, 0);
    let (calls, ()) = heap_calls(|| {
        while sim.now() < end || engine.in_flight() > 0 {
            while sim.now() < end
                && let Some(mut batch) = engine.batch()
            {
                if rng.chance(50) {
                    batch.report_pages();
                }
                batch.set_class(if rng.chance(50) { Class::Background } else { Class::Urgent });
                for at in 0..6 {
                    let page = region.page(pool.location((at + rng.below(3) as usize) % SLOTS)).unwrap();
                    match rng.below(5) {
                        0 if let Some(slot) = one.pop() => batch.read_with(page, slot, gather).unwrap(),
                        1 if let Some(slot) = several.pop() => {
                            batch.read_with(page, slot, front).unwrap();
                            batch.read_also_with(page, back).unwrap();
                        }
                        2 if !batch.is_empty()
                            && let Some(slot) = several.pop() =>
                        {
                            batch.join(page, slot).unwrap();
                        }
                        _ => {
                            let Some(slot) = several.pop() else { break };
                            batch.read(page, slot).unwrap();
                        }
                    }
                }
                if batch.is_empty() {
                    break;
                }
                let late = Nanos::from_micros(if rng.chance(10) { 50 } else { 100_000 });
                last = engine.submit(batch, sim.now(), sim.now() + late).ok();
            }
            if let Some(ticket) = last.take().filter(|_| rng.chance(30)) {
                match rng.below(3) {
                    0 => withdrawn += u32::from(engine.withdraw(ticket, sim.now()).is_ok()),
                    1 => withdrawn += u32::from(engine.withdraw_page(ticket, 0, sim.now()).is_ok()),
                    _ => _ = engine.set_class(ticket, Class::Urgent, sim.now()),
                }
            }
            engine.wait(sim.now(), sim.now() + Nanos::from_micros(20));
            engine.poll(sim.now());
            while let Some(arrival) = engine.next_arrival() {
                told += 1;
                if let Some(slot) = engine.take_slot(&arrival) {
                    (if slot.len() == PAGE { &mut one } else { &mut several }).push(slot);
                }
            }
            while engine.next_overdue().is_some() {}
            while let Some(mut done) = engine.next_done() {
                for page in done.pages() {
                    arrived += u32::from(page.result.is_ok());
                    failed += u32::from(page.result.is_err());
                    (if page.slot.len() == PAGE { &mut one } else { &mut several }).push(page.slot);
                }
            }
            while let Some(wanted) = engine.next_wanted_lane(sim.now()) {
                match attach(&mut engine, &sim, wanted.peer, pool.peer, wanted.rail.0) {
                    Some(_) => made += 1,
                    None => engine.lane_unavailable(wanted, sim.now()),
                }
            }
        }
    });
    assert_eq!(calls, 0, "heap calls on the data path");
    let lost: u64 = (0..2).map(|r| engine.rail_stats(RailIndex(r)).unwrap().lanes_failed).sum();
    assert!(
        arrived > 200 && failed > 10 && told > 50 && withdrawn > 10 && made > 0 && lost >= 3,
        "{arrived} arrived, {failed} failed, {told} told, {withdrawn} withdrawn, {made} lanes made, {lost} lost"
    );
    assert!(sim.violations().is_empty(), "{:?}", sim.violations());
}
