//! Random schedules of faults: whatever happens, a good page has the bytes of one publication.

use kvrail_core::batch::Batch;
use kvrail_core::config::EngineConfig;
use kvrail_core::id::{RailIndex, RegionId};
use kvrail_core::memory::Slot;
use kvrail_core::plan::PlanRef;
use kvrail_core::remote::RemoteRegion;
use kvrail_core::time::{Nanos, Time};
use kvrail_core::verbs_abi::WcStatus;
use kvrail_layouts::{Plan, Selection};
use kvrail_sim::sim::{self, Action, Fate, Sim};

use crate::CONFIG;
use crate::common::{self, Destination, Rng, SmallSim, SmallState, start};
use crate::pool::*;

/// Pages of several regions into slots of several, of one, and of one into several, while lanes
/// fail, rails go, and the owner overwrites: a good page has the bytes of one publication.
#[test]
fn every_byte_of_every_region_lands_in_its_place_while_lanes_fail() {
    let (mut good, mut missed) = (0, 0);
    for seed in 0..6 {
        let (g, m) = schedule(seed);
        (good, missed) = (good + g, missed + m);
    }
    assert!(good > 200 && missed > 5, "{good} good, {missed} missed");
}

fn schedule(seed: u64) -> (u32, u32) {
    let mut rng = Rng(seed);
    let mut storage = Box::new(SmallSim::new());
    let mut memory = Pool::memory();
    let config = sim::SimConfig { retry: Nanos::from_micros(300), ..sim::SimConfig::new(seed) };
    let sim = Sim::new(&mut storage, config, &common::rails(2)).unwrap();
    let mut pool = Pool::new(&sim, &mut memory);
    let (dest, other) = (dest_of_regions(), Destination::new(SLOTS, PAGE));
    let mut state = Box::new(SmallState::new());
    let chunk_bytes = [4096, 8192, 16_384][rng.below(3) as usize];
    let config = EngineConfig { stall: Nanos::from_millis(2), run_chunks: 3, chunk_bytes, ..CONFIG };
    let mut engine = start(&mut state, &sim, config);
    let mut several: Vec<Slot> = slots_of_regions(&mut engine, &dest).collect();
    let mut one: Vec<Slot> = other.register(&mut engine, PAGE).collect();
    let peer = engine.add_peer().unwrap();
    let region = engine.add_pool(peer, &by_region(), &Pool::offers()).unwrap();
    let mut lanes = Vec::new();
    for rail in [0, 0, 1, 1] {
        lanes.push(attach(&mut engine, &sim, peer, pool.peer, rail).unwrap());
    }
    let plan = Plan::between(&by_region(), &by_token(), Selection::ALL).unwrap();
    let gather = engine.add_plan(&plan).unwrap();
    let halves = [(0, 2), (2, 3)].map(|(first, count)| {
        let part = Selection::ALL.layers(first, count);
        engine.add_plan(&Plan::between(&by_region(), &by_region(), part).unwrap()).unwrap()
    });
    let status = WcStatus::RETRY_EXC_ERR;
    sim.script(lanes[0], Fate::Status { nth: 1 + rng.below(40), status }).unwrap();
    sim.script(lanes[1], Fate::Prefix { nth: 3, accepted: 1, errno: 12 }).unwrap();
    sim.script(lanes[2], Fate::Lost { nth: 1 + rng.below(40) }).unwrap();
    let down = 500_000 + rng.below(2_000_000);
    sim.at(Time(down), Action::RailDown { rail: RailIndex(1), told: rng.chance(50) }).unwrap();
    sim.at(Time(down + 1_000_000), Action::RailUp { rail: RailIndex(1), told: true }).unwrap();
    let end = Time(4_000_000);
    let (mut good, mut missed) = (0, 0);
    let mut asked = Asked::new();
    while sim.now() < end || engine.in_flight() > 0 {
        if sim.now() < end {
            let slot = rng.below(SLOTS as u64) as usize;
            match rng.below(4) {
                0 => pool.publish(&sim, slot),
                1 => {
                    let layer = rng.below(LAYERS as u64) as usize;
                    pool.begin(&sim, slot, layer..layer + 1);
                }
                _ => {}
            }
            if let Some(mut batch) = engine.batch() {
                fill(
                    &mut batch,
                    &mut rng,
                    &(region, &pool),
                    [&mut several, &mut one],
                    [gather, halves[0], halves[1]],
                    &mut asked,
                );
                if !batch.is_empty() {
                    engine.submit(batch, sim.now(), sim.now() + Nanos::from_millis(100)).unwrap();
                }
            }
        }
        engine.wait(sim.now(), sim.now() + Nanos::from_micros(20));
        engine.poll(sim.now());
        while let Some(mut done) = engine.next_done() {
            for page in done.pages() {
                let key = (page.slot.region(), page.slot.index());
                let at = asked.iter().position(|(of, ..)| *of == key).unwrap();
                let (_, from, count) = asked.swap_remove(at);
                let is_one = page.slot.len() == PAGE;
                if page.result.is_ok() {
                    good += 1;
                    let right = match is_one {
                        true => is_gathered(&page.slot, &by_token(), from, count),
                        false => is_whole(&engine, &page.slot, from, count),
                    };
                    assert!(right, "seed {seed}: slot {from} of publication {count}");
                } else {
                    missed += 1;
                }
                (if is_one { &mut one } else { &mut several }).push(page.slot);
            }
        }
        while engine.next_overdue().is_some() {}
        while let Some(wanted) = engine.next_wanted_lane(sim.now()) {
            if attach(&mut engine, &sim, wanted.peer, pool.peer, wanted.rail.0).is_none() {
                engine.lane_unavailable(wanted, sim.now());
            }
        }
    }
    assert!(sim.violations().is_empty(), "seed {seed}: {:?}", sim.violations());
    (good, missed)
}

/// What was asked for in which slot: the slot, the page's place in the pool, its publication.
type Asked = Vec<((RegionId, usize), usize, u32)>;

/// Fills a batch with pages in a random way each.
fn fill(
    batch: &mut Batch<'_>,
    rng: &mut Rng,
    (region, pool): &(RemoteRegion, &Pool),
    [several, one]: [&mut Vec<Slot>; 2],
    [gather, first, second]: [PlanRef; 3],
    asked: &mut Asked,
) {
    for _ in 0..rng.below(4) {
        let from = rng.below(SLOTS as u64) as usize;
        let page = region.page(pool.location(from)).unwrap();
        let way = rng.below(3);
        let Some(slot) = (if way == 0 { &mut *one } else { &mut *several }).pop() else { return };
        asked.push(((slot.region(), slot.index()), from, pool.count(from)));
        match way {
            0 => batch.read_with(page, slot, gather).unwrap(),
            1 => batch.read(page, slot).unwrap(),
            _ => {
                // Some layers of the page, and then the others.
                batch.read_with(page, slot, first).unwrap();
                batch.read_also_with(page, second).unwrap();
            }
        }
    }
}
