//! Everything that can be done to batches of pages of several regions, in random order.

use kvrail_core::batch::{Class, DonePage, Ticket};
use kvrail_core::config::EngineConfig;
use kvrail_core::engine::LaneSpec;
use kvrail_core::error::SubmitError;
use kvrail_core::id::{PeerId, RailIndex};
use kvrail_core::memory::{Slot, SlotRange};
use kvrail_core::plan::PlanRef;
use kvrail_core::time::{Nanos, Time};
use kvrail_core::verbs_abi::WcStatus;
use kvrail_layouts::{Plan, Selection};
use kvrail_sim::sim::{self, Action, Fate, Sim};

use crate::CONFIG;
use crate::common::{self, Destination, Rng, SmallSim, SmallState, start};
use crate::pool::*;

struct Asked {
    ticket: Option<Ticket>,
    at: usize,
    /// Pages of one group are good together.
    group: usize,
    slot: (u16, usize),
    from: usize,
    count: u32,
    validated: bool,
    withdrawn: bool,
    joined: bool,
}

fn lane<'m>(
    engine: &mut Small<'_, 'm>,
    sim: &Sim<'m>,
    peer: PeerId,
    owner: sim::PeerHandle,
    rail: u8,
    class: Class,
    depth: u32,
) -> Option<sim::LaneHandle> {
    let spec = sim::SimLaneSpec { sq_entries: depth, rd_atomic: 4 };
    let lane = sim.connect(RailIndex(rail), owner, RailIndex(rail), spec).ok()?.for_class(class);
    let key = lane.handle();
    let spec = LaneSpec { rail: RailIndex(rail), remote_rail: rail, depth };
    engine.attach(peer, spec, lane, sim.now()).ok().map(|_| key)
}

#[test]
fn whatever_is_asked_for_nothing_is_lost_and_no_page_is_wrong() {
    let (mut all, mut told, mut taken, mut shared) = (0, 0, 0, 0);
    let (first, seeds): (u64, u64) = match std::env::var("STORM") {
        Ok(range) => {
            let (a, b) = range.split_once('-').unwrap();
            (a.parse().unwrap(), b.parse().unwrap())
        }
        Err(_) => (0, 12),
    };
    for seed in first..seeds {
        let (a, b, c, d) = storm(seed);
        (all, told, taken, shared) = (all + a, told + b, taken + c, shared + d);
    }
    println!("{all} good, {told} told, {taken} taken early, {shared} of them shared or joined");
    assert!(all > 100 && told > 50 && taken > 10 && shared > 5);
}

#[allow(clippy::too_many_lines)]
fn storm(seed: u64) -> (u32, u32, u32, u32) {
    let mut rng = Rng(seed ^ 0xB4EA_4E40);
    let mut storage = Box::new(SmallSim::new());
    let mut memory = Pool::memory();
    let config = sim::SimConfig {
        retry: Nanos::from_micros(300),
        pieces: 4,
        sges: [1, 2, 3, 4, 5][seed as usize % 5],
        read_overhead: [0, 64, 512][seed as usize % 3],
        ..sim::SimConfig::new(seed)
    };
    let sim = Sim::new(&mut storage, config, &common::rails(2)).unwrap();
    let mut pool = Pool::new(&sim, &mut memory);
    let (dest, other) = (dest_of_regions(), Destination::new(SLOTS, PAGE));
    let mut state = Box::new(SmallState::new());
    let chunk_bytes = [4096, 8192, 16_384][rng.below(3) as usize];
    // Short runs part the regions of a page; long ones hold those of several pages.
    let (run_chunks, depth) = if rng.chance(50) { (3, 8) } else { (10 + rng.below(20) as u32, 32) };
    let signal_wrs = 1 + rng.below(12) as u32;
    let config = EngineConfig { stall: Nanos::from_millis(2), run_chunks, chunk_bytes, signal_wrs, ..CONFIG };
    let mut engine = start(&mut state, &sim, config);
    let mut several: Vec<Slot> = slots_of_regions(&mut engine, &dest).collect();
    let mut one: Vec<Slot> = other.register(&mut engine, PAGE).collect();
    let (all_several, all_one) = (several.len(), one.len());
    let mut peer = engine.add_peer().unwrap();
    // Handles of pools that are gone stay with the caller.
    let mut region = engine.add_pool(peer, &by_region(), &Pool::offers()).unwrap();
    let (mut stale, mut up) = (vec![region], true);
    let mut lanes = Vec::new();
    let divided = rng.chance(50);
    for rail in [0, 0, 1, 1] {
        let class = if divided && lanes.len() % 2 == 1 { Class::Background } else { Class::Urgent };
        lanes.push(lane(&mut engine, &sim, peer, pool.peer, rail, class, depth).unwrap());
    }
    let token = Plan::between(&by_region(), &by_token(), Selection::ALL).unwrap();
    let layer = Plan::between(&by_region(), &by_layer(), Selection::ALL).unwrap();
    let halves: Vec<Plan> = [(0, 2), (2, 3)]
        .into_iter()
        .map(|(first, count)| {
            Plan::between(&by_region(), &by_region(), Selection::ALL.layers(first, count)).unwrap()
        })
        .collect();
    let status = WcStatus::RETRY_EXC_ERR;
    sim.script(lanes[0], Fate::Status { nth: 1 + rng.below(40), status }).unwrap();
    sim.script(lanes[1], Fate::Prefix { nth: 3, accepted: 1, errno: 12 }).unwrap();
    sim.script(lanes[2], Fate::Lost { nth: 1 + rng.below(40) }).unwrap();
    sim.script(lanes[3], Fate::Incomplete { nth: 1 + rng.below(60) }).unwrap();
    let down = 500_000 + rng.below(2_000_000);
    sim.at(Time(down), Action::RailDown { rail: RailIndex(1), told: rng.chance(50) }).unwrap();
    sim.at(Time(down + 1_000_000), Action::RailUp { rail: RailIndex(1), told: true }).unwrap();
    let end = Time(4_000_000);
    let (mut good, mut told, mut taken, mut shared) = (0, 0, 0, 0);
    let mut asked: Vec<Asked> = Vec::new();
    let mut groups: Vec<Option<bool>> = Vec::new();
    let mut bad_groups: Vec<usize> = Vec::new();
    while sim.now() < end || engine.in_flight() > 0 {
        if sim.now() < end {
            // The owner takes the pool back and offers another one at its place, or the peer is
            // connected anew.
            if up && rng.chance(1) {
                engine.remove_pool(&region, sim.now());
                stale.push(region);
                match engine.add_pool(peer, &by_region(), &Pool::offers()) {
                    Ok(again) if rng.chance(50) => region = again,
                    _ => {
                        engine.remove_peer(peer, sim.now()).unwrap();
                        up = false;
                    }
                }
            }
            if !up && let Ok(new) = engine.add_peer() {
                // The places of peers that are leaving are not free yet.
                match engine.add_pool(new, &by_region(), &Pool::offers()) {
                    Err(_) => engine.remove_peer(new, sim.now()).unwrap(),
                    Ok(again) => {
                        (peer, region, up) = (new, again, true);
                        for rail in [0, 1] {
                            let _ = lane(&mut engine, &sim, peer, pool.peer, rail, Class::Urgent, depth);
                        }
                    }
                }
            }
            let region = match rng.chance(10) {
                true => stale[rng.below(stale.len() as u64) as usize],
                false => region,
            };
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
                let mut plans: Vec<PlanRef> = Vec::new();
                let report = rng.chance(60);
                if report {
                    batch.report_pages();
                }
                batch.set_class(if rng.chance(50) { Class::Background } else { Class::Urgent });
                let begin = asked.len();
                let mut at = 0;
                // Half of the batches have whole pages of the pool alone.
                let of_pool = rng.chance(50);
                if of_pool && rng.chance(50) {
                    // In bulk: as many slots as follow each other.
                    several.sort_by_key(Slot::index);
                    let mut locations = Vec::new();
                    let mut range: Option<SlotRange> = None;
                    while locations.len() < 6
                        && let Some(slot) = several.pop()
                    {
                        let (key, mut one) = ((slot.region().index() as u16, slot.index()), slot.into());
                        if let Some(behind) = range.take()
                            && let Err(behind) = SlotRange::join(&mut one, behind)
                        {
                            range = Some(behind);
                            several.extend(one);
                            break;
                        }
                        range = Some(one);
                        let from = rng.below(SLOTS as u64) as usize;
                        locations.insert(0, pool.location(from));
                        groups.push(None);
                        asked.push(Asked {
                            ticket: None,
                            at: 0,
                            group: 0,
                            slot: key,
                            from,
                            count: pool.count(from),
                            validated: true,
                            withdrawn: false,
                            joined: false,
                        });
                    }
                    if let Some(range) = range {
                        batch.read_many(&region, &locations, range).unwrap();
                    }
                    at = locations.len();
                    // The slots were taken from the last one on.
                    asked[begin..].reverse();
                    let first_group = groups.len() - at;
                    let bulk = asked[begin..].iter_mut().enumerate();
                    bulk.for_each(|(i, of)| (of.at, of.group) = (i, first_group + i));
                }
                for _ in 0..rng.below(8) {
                    // Pages that stand side by side at their owner, as well: one READ brings their
                    // entries.
                    let from = match asked.last() {
                        Some(last) if at > 0 && rng.chance(60) => (last.from + 1) % SLOTS,
                        _ => rng.below(SLOTS as u64) as usize,
                    };
                    let validated = rng.chance(80);
                    let page = match validated {
                        true => region.page(pool.location(from)).unwrap(),
                        false => region.unvalidated(from as u32).unwrap(),
                    };
                    let way = if of_pool { 2 } else { rng.below(4) };
                    let Some(slot) = (if way < 2 { &mut one } else { &mut several }).pop() else { break };
                    let join = at > 0 && rng.chance(if of_pool { 10 } else { 40 });
                    let group = if join { groups.len() - 1 } else { groups.len() };
                    if !join {
                        groups.push(None);
                    } else if let Some(last) = asked.last_mut() {
                        last.joined = true;
                    }
                    asked.push(Asked {
                        ticket: None,
                        at,
                        group,
                        slot: (slot.region().index() as u16, slot.index()),
                        from,
                        count: pool.count(from),
                        validated,
                        withdrawn: false,
                        joined: join,
                    });
                    let mut plan = |engine: &mut Small<'_, '_>, plan: &Plan| {
                        let plan = engine.add_plan(plan).unwrap();
                        plans.push(plan);
                        plan
                    };
                    at += 1;
                    match way {
                        0 | 1 => {
                            let plan = plan(&mut engine, if way == 0 { &token } else { &layer });
                            if join {
                                batch.join_with(page, slot, plan).unwrap();
                            } else {
                                batch.read_with(page, slot, plan).unwrap();
                            }
                            asked.last_mut().unwrap().validated |= way == 2;
                            if way == 1 {
                                // Marks the layout that is expected.
                                asked.last_mut().unwrap().count |= 1 << 31;
                            }
                        }
                        2 => {
                            if join {
                                batch.join(page, slot).unwrap()
                            } else {
                                batch.read(page, slot).unwrap()
                            }
                        }
                        _ => {
                            let first = plan(&mut engine, &halves[0]);
                            if join {
                                batch.join_with(page, slot, first).unwrap();
                            } else {
                                batch.read_with(page, slot, first).unwrap();
                            }
                            let second = plan(&mut engine, &halves[1]);
                            batch.read_also_with(page, second).unwrap();
                            at += 1;
                            asked.last_mut().unwrap().joined = true;
                        }
                    }
                }
                if batch.is_empty() {
                    drop(batch);
                } else {
                    let late = Nanos::from_micros(if rng.chance(20) { 100 } else { 100_000 });
                    match engine.submit(batch, sim.now(), sim.now() + late) {
                        Ok(ticket) => asked[begin..].iter_mut().for_each(|one| one.ticket = Some(ticket)),
                        Err(mut rejected) => {
                            assert!(matches!(rejected.error, SubmitError::PeerGone { .. }), "{rejected}");
                            asked.truncate(begin);
                            for slot in rejected.batch.clear() {
                                (if slot.len() == PAGE { &mut one } else { &mut several }).push(slot);
                            }
                        }
                    }
                }
                for plan in plans {
                    // In flight, or forgotten, or added by another page too.
                    let _ = engine.forget_plan(plan);
                }
            }
            if !asked.is_empty() && rng.chance(30) {
                let which = rng.below(asked.len() as u64) as usize;
                let ticket = asked[which].ticket.unwrap();
                let now = sim.now();
                match rng.below(5) {
                    0 => _ = engine.withdraw(ticket, now),
                    1 | 2 => _ = engine.withdraw_page(ticket, asked[which].at, now),
                    3 => _ = engine.set_class(ticket, Class::Urgent, now),
                    _ => _ = engine.set_class(ticket, Class::Background, now),
                }
                let _ = asked[which].withdrawn;
            }
        }
        engine.wait(sim.now(), sim.now() + Nanos::from_micros(20));
        engine.poll(sim.now());
        let right = |engine: &Small<'_, '_>, slot: &Slot, asked: &Asked| {
            let (from, count) = (asked.from, asked.count & !(1 << 31));
            if !asked.validated {
                return true;
            }
            match (slot.len() == PAGE, asked.count >> 31) {
                (true, 0) => is_gathered(slot, &by_token(), from, count),
                (true, _) => is_gathered(slot, &by_layer(), from, count),
                _ => is_whole(engine, slot, from, count),
            }
        };
        while let Some(arrival) = engine.next_arrival() {
            told += 1;
            if rng.chance(50) {
                continue;
            }
            let Some(slot) = engine.take_slot(&arrival) else { continue };
            taken += 1;
            let key = (slot.region().index() as u16, slot.index());
            let at = asked.iter().position(|of| of.slot == key && of.ticket == Some(arrival.ticket)).unwrap();
            let of = asked.remove(at);
            assert_eq!(of.at, arrival.page, "seed {seed}: the page that has the slot");
            shared += u32::from(of.joined);
            match groups[of.group] {
                None => groups[of.group] = Some(arrival.result.is_ok()),
                Some(ok) if ok != arrival.result.is_ok() => bad_groups.push(of.group),
                _ => {}
            }
            if arrival.result.is_ok() {
                good += 1;
                assert!(right(&engine, &slot, &of), "seed {seed}: taken early, slot {}", of.from);
            }
            (if slot.len() == PAGE { &mut one } else { &mut several }).push(slot);
        }
        while let Some(mut done) = engine.next_done() {
            let ticket = done.ticket();
            let mut pages = Vec::new();
            if rng.chance(50) {
                while let Some(range) = done.take_range() {
                    let results = (range.first..).map(|index| done.result(index).unwrap());
                    let slots = (range.first..).zip(range.slots).zip(results);
                    pages.extend(slots.map(|((index, slot), result)| DonePage { index, slot, result }));
                }
            }
            pages.extend(done.pages());
            for page in pages {
                let key = (page.slot.region().index() as u16, page.slot.index());
                let at = asked.iter().position(|of| of.slot == key && of.ticket == Some(ticket)).unwrap();
                let of = asked.remove(at);
                assert_eq!(of.at, page.index);
                match groups[of.group] {
                    None => groups[of.group] = Some(page.result.is_ok()),
                    Some(ok) if ok != page.result.is_ok() => bad_groups.push(of.group),
                    _ => {}
                }
                if page.result.is_ok() {
                    good += 1;
                    assert!(right(&engine, &page.slot, &of), "seed {seed}: slot {}", of.from);
                }
                (if page.slot.len() == PAGE { &mut one } else { &mut several }).push(page.slot);
            }
        }
        assert!(bad_groups.is_empty(), "seed {seed}: joined pages differ");
        while engine.next_overdue().is_some() {}
        while let Some(wanted) = engine.next_wanted_lane(sim.now()) {
            let (rail, class) = (wanted.rail.0, wanted.class);
            if lane(&mut engine, &sim, wanted.peer, pool.peer, rail, class, depth).is_none() {
                engine.lane_unavailable(wanted, sim.now());
            }
        }
        assert!(sim.now() < Time(5_000_000_000), "seed {seed}: a batch never ends");
    }
    assert_eq!((several.len(), one.len()), (all_several, all_one), "seed {seed}: slots are lost");
    assert!(sim.violations().is_empty(), "seed {seed}: {:?}", sim.violations());
    (good, told, taken, shared)
}
