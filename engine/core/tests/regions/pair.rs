//! Pages of two layouts, of five regions and of one, in pools of two peers: joined, in parts,
//! withdrawn and moved between classes, under random faults, and beside everything that a caller
//! may give wrong. Each wrong use has its typed error, and the pages of others do not notice.

use kvrail_core::batch::{Batch, Class, Ticket};
use kvrail_core::config::EngineConfig;

use kvrail_core::error::{FlightError, PageError, ReadError};
use kvrail_core::id::RailIndex;
use kvrail_core::layout::LayoutMismatch;
use kvrail_core::memory::{Access, DestinationRegion, RegionError, Slot};
use kvrail_core::plan::{ForgetPlanError, PlanRef};
use kvrail_core::provider::MemoryRange;
use kvrail_core::remote::{Location, OfferError, RemoteRegion};
use kvrail_core::time::{Nanos, Time};
use kvrail_layouts::{Plan, Selection};
use kvrail_sim::sim::{self, Faults, Odds, Sim};

use crate::CONFIG;
use crate::common::{self, Destination, Owner, Rng, SmallSim, SmallState, all_equal, start};
use crate::pool::*;

/// Schedules of one run, unless `KVRAIL_SCHEDULES` is set.
const SCHEDULES: u64 = 40;

/// What one page was asked for.
struct Asked {
    /// `None` until the batch has been submitted.
    ticket: Option<Ticket>,
    at: usize,
    /// Pages of one group are good together.
    group: usize,
    slot: (usize, usize),
    wanted: Wanted,
}

#[derive(Clone, Copy)]
enum Wanted {
    /// A page of five regions: its place in the pool, and its publication.
    Latent(usize, u32),
    /// A page of one region, of which every byte is this.
    Index(u8),
    /// A location of the one pool, asked of the other: whatever is there, it is no page.
    Nothing,
}

#[derive(Default)]
struct Tally {
    good: u32,
    pairs: u32,
    failed: u32,
    withdrawn: u32,
    arrived_before: u32,
    twice: u32,
    refused: u32,
    strays: u32,
    lanes_failed: u64,
}

fn faults(rng: &mut Rng) -> Faults {
    let mut odds = |percent, most: u64| {
        if rng.chance(percent) { Odds::per_million(rng.below(most) as u32) } else { Odds::NEVER }
    };
    Faults {
        wr: odds(60, 8_000),
        statuses: Faults::EVERY_STATUS,
        lost: odds(25, 10_000),
        incomplete: odds(30, 20_000),
        prefix: odds(25, 20_000),
        unknown: odds(25, 20_000),
        drain_lost: odds(25, 300_000),
        drain_refused: odds(25, 300_000),
        close_hangs: Odds::NEVER,
        announced: odds(25, 1_000_000),
    }
}

#[test]
fn pages_of_two_layouts_and_peers_survive_faults_and_every_wrong_use_has_its_error() {
    let only = common::seeds::number("KVRAIL_SEED");
    let count = common::seeds::number("KVRAIL_SCHEDULES").unwrap_or(SCHEDULES);
    let mut sum = Tally::default();
    for seed in only.map_or(0..count, |seed| seed..seed + 1) {
        schedule(seed, &mut sum);
    }
    let Tally { good, pairs, failed, withdrawn, arrived_before, twice, refused, strays, lanes_failed } = sum;
    println!(
        "{good} good, {pairs} pairs, {failed} failed, {withdrawn} withdrawn, {arrived_before} had arrived, {twice} twice, {refused} refused, {strays} strays, {lanes_failed} lanes failed"
    );
    if only.is_none() {
        assert!(good > 300 && pairs > 50 && failed > 50 && withdrawn > 20 && arrived_before > 5);
        assert!(twice > 20 && refused > 50 && strays > 10 && lanes_failed > 20);
    }
}

/// Wrong uses that concern no batch.
fn refuse_once(
    engine: &mut Small<'_, '_>,
    peer: kvrail_core::id::PeerId,
    spare: &Destination,
    rng: &mut Rng,
    tally: &mut Tally,
) {
    let free = engine.places_free();
    let mut offers = Pool::offers();
    match rng.below(5) {
        0 => {
            offers.truncate(1 + rng.below(4) as usize);
            let refused = engine.add_pool(peer, &by_region(), &offers).unwrap_err();
            assert_eq!(refused, OfferError::Regions { offered: offers.len(), layout: 5 });
        }
        1 => {
            offers[2].table = offers[0].table;
            let refused = engine.add_pool(peer, &by_region(), &offers).unwrap_err();
            assert_eq!(refused, OfferError::SecondTable { region: 2 });
        }
        2 => {
            offers[3].slots -= 1;
            let refused = engine.add_pool(peer, &by_region(), &offers).unwrap_err();
            let (slots, first) = (SLOTS as u32 - 1, SLOTS as u32);
            assert_eq!(refused, OfferError::Uneven { region: 3, slots, first });
        }
        way => {
            // Ranges of which two share a byte, or of which one is a byte short of a whole slot.
            let each = 2 * LAYER as u64;
            let mut regions: Vec<_> = (0..LAYERS as u64)
                .map(|i| DestinationRegion {
                    range: MemoryRange { addr: spare.range.addr + i * each, len: each },
                    stride: LAYER as u64,
                })
                .collect();
            let expected = if way == 3 {
                regions[2].range.addr -= 1;
                RegionError::Overlap { first: 1, second: 2 }
            } else {
                regions[4].range.len -= 1;
                RegionError::Uneven { region: 4, slots: 1, first: 2 }
            };
            // SAFETY: it is refused.
            let refused =
                unsafe { engine.register_foreign_regions(&by_region(), &regions, Access::Host, None) };
            assert_eq!(refused.unwrap_err(), expected);
        }
    }
    assert_eq!(engine.places_free(), free, "a refused offer leaves nothing behind");
    tally.refused += 1;
}

/// Adds a page in a wrong way, which must change nothing and give the slot back.
fn read_wrongly(
    batch: &mut Batch<'_>,
    regions: (&RemoteRegion, &RemoteRegion),
    pool: &Pool,
    index: &Owner,
    slots: (&mut Vec<Slot>, &mut Vec<Slot>),
    plan: PlanRef,
    rng: &mut Rng,
) -> bool {
    let before = batch.len();
    let latent = regions.0.page(pool.location(3)).unwrap();
    let small = regions.1.page(index.location(2)).unwrap();
    match rng.below(4) {
        // Another layout, without a plan.
        0 => {
            let Some(slot) = slots.1.pop() else { return false };
            let (error, slot) = batch.read(latent, slot).unwrap_err();
            assert!(matches!(error, ReadError::Layout(LayoutMismatch::NoPlan { .. })), "{error}");
            slots.1.push(slot);
        }
        // A plan of one pair for the page, and then for the slot, of another.
        1 => {
            let Some(slot) = slots.1.pop() else { return false };
            let (error, slot) = batch.read_with(small, slot, plan).unwrap_err();
            assert!(matches!(error, ReadError::Layout(LayoutMismatch::Source { .. })), "{error}");
            slots.1.push(slot);
        }
        2 => {
            let Some(slot) = slots.1.pop() else { return false };
            let (error, slot) = batch.read_with(latent, slot, plan).unwrap_err();
            assert!(matches!(error, ReadError::Layout(LayoutMismatch::Destination { .. })), "{error}");
            slots.1.push(slot);
        }
        // A location of the larger pool.
        _ => {
            let location = Location { slot: SLOTS as u32 + rng.below(4) as u32, ..index.location(0) };
            assert!(regions.0.page(location).is_err());
        }
    }
    assert_eq!(batch.len(), before);
    true
}

#[allow(clippy::too_many_lines)]
fn schedule(seed: u64, tally: &mut Tally) {
    let mut rng = Rng(seed ^ 0x0A1_2B3C);
    let mut storage = Box::new(SmallSim::new());
    let (mut memory, mut small) = (Pool::memory(), common::memory(1));
    let config = sim::SimConfig {
        retry: Nanos::from_micros(300),
        pieces: 1 + rng.below(4) as u8,
        late_bytes: rng.chance(50),
        faults: faults(&mut rng),
        ..sim::SimConfig::new(seed)
    };
    let sim = Sim::new(&mut storage, config, &common::rails(2)).unwrap();
    let mut pool = Pool::new(&sim, &mut memory);
    let mut index = Owner::new(&sim, &mut small[0], 7);
    let dest = dest_of_regions();
    let (dest_small, spare) = (Destination::new(SLOTS, common::PAGE), Destination::new(2, PAGE));
    let mut state = Box::new(SmallState::new());
    let config = EngineConfig {
        stall: Nanos::from_millis(2),
        set_aside: Nanos::from_micros(500),
        run_chunks: 1 + rng.below(6) as u32,
        ..CONFIG
    };
    let mut engine = start(&mut state, &sim, config);
    let mut latents: Vec<Slot> = slots_of_regions(&mut engine, &dest).collect();
    let mut smalls = dest_small.register(&mut engine, common::PAGE);
    let small_layout = engine.add_layout(&common::by_token().identity(), 0).unwrap();
    smalls.set_layout(small_layout).unwrap();
    let mut smalls: Vec<Slot> = smalls.collect();
    let all = (latents.len(), smalls.len());
    let peer = engine.add_peer().unwrap();
    let region = engine.add_pool(peer, &by_region(), &Pool::offers()).unwrap();
    let (other, other_region, _) = common::connect(&mut engine, &sim, &index, 2, 1, 8);
    for rail in [0, 1] {
        attach(&mut engine, &sim, peer, pool.peer, rail).unwrap();
    }
    let plan = |engine: &mut Small<'_, '_>, to, part| {
        engine.add_plan(&Plan::between(&by_region(), &to, part).unwrap()).unwrap()
    };
    let [head, tail] = [(0, 2), (2, 3)]
        .map(|(first, count)| plan(&mut engine, by_region(), Selection::ALL.layers(first, count)));
    let end = Time(2_000_000);
    let mut asked: Vec<Asked> = Vec::new();
    let mut groups: Vec<Option<bool>> = Vec::new();
    let mut done_tickets: Vec<Ticket> = Vec::new();
    let mut nonce = 1_000;
    while sim.now() < end || engine.in_flight() > 0 {
        if sim.now() < end {
            let slot = rng.below(SLOTS as u64) as usize;
            match rng.below(30) {
                0 => pool.begin(&sim, slot, 1..2),
                1 => index.invalidate(&sim, slot),
                2..=5 => {
                    nonce += 1;
                    pool.publish(&sim, slot);
                    index.publish(&sim, slot, nonce);
                }
                _ => {}
            }
            if rng.chance(10) {
                refuse_once(&mut engine, peer, &spare, &mut rng, tally);
            }
            if let Some(mut batch) = engine.batch() {
                let (begin, mut follows) = (asked.len(), false);
                if rng.chance(50) {
                    batch.report_pages();
                }
                batch.set_class(if rng.chance(50) { Class::Background } else { Class::Urgent });
                for _ in 0..rng.below(5) {
                    if rng.chance(25)
                        && read_wrongly(
                            &mut batch,
                            (&region, &other_region),
                            &pool,
                            &index,
                            (&mut latents, &mut smalls),
                            head,
                            &mut rng,
                        )
                    {
                        tally.refused += 1;
                    }
                    let (Some(one), Some(two)) = (latents.pop(), smalls.pop()) else { break };
                    let (from, group) = (rng.below(SLOTS as u64) as usize, groups.len());
                    groups.push(None);
                    let mut note = |slot: &Slot, at, wanted| {
                        let slot = (slot.region().index(), slot.index());
                        asked.push(Asked { ticket: None, at, group, slot, wanted });
                    };
                    // A location of the other pool, now and then.
                    let stray = rng.chance(10);
                    let location = if stray { index.location(from) } else { pool.location(from) };
                    let wanted = if stray { Wanted::Nothing } else { Wanted::Latent(from, pool.count(from)) };
                    note(&one, batch.len(), wanted);
                    let page = region.page(location).unwrap();
                    if rng.chance(50) {
                        batch.read(page, one).unwrap();
                    } else {
                        follows = true;
                        batch.read_with(page, one, head).unwrap();
                        batch.read_also_with(page, tail).unwrap();
                    }
                    let location = index.location(from);
                    note(&two, batch.len(), Wanted::Index(index.expected(location)));
                    batch.join(other_region.page(location).unwrap(), two).unwrap();
                    tally.strays += u32::from(stray);
                }
                if !batch.is_empty() {
                    let late = Nanos::from_micros(if rng.chance(10) { 100 } else { 50_000 });
                    let ticket = engine.submit(batch, sim.now(), sim.now() + late).unwrap();
                    asked[begin..].iter_mut().for_each(|one| one.ticket = Some(ticket));
                    if follows {
                        assert_eq!(engine.forget_plan(head), Err(ForgetPlanError::InFlight));
                    }
                }
            }
            withdraw_somehow(&mut engine, &asked, &done_tickets, &sim, &mut rng, tally);
        }
        engine.wait(sim.now(), sim.now() + Nanos::from_micros(20));
        engine.poll(sim.now());
        while engine.next_arrival().is_some() {}
        while engine.next_overdue().is_some() {}
        while let Some(mut done) = engine.next_done() {
            let ticket = done.ticket();
            done_tickets.push(ticket);
            for page in done.pages() {
                let key = (page.slot.region().index(), page.slot.index());
                let at = asked.iter().position(|of| of.slot == key && of.ticket == Some(ticket)).unwrap();
                let of = asked.remove(at);
                assert_eq!(of.at, page.index);
                let ok = page.result.is_ok();
                let together = *groups[of.group].get_or_insert(ok);
                assert_eq!(together, ok, "seed {seed}: pages of one key differ");
                let right = match of.wanted {
                    Wanted::Latent(from, count) => !ok || is_whole(&engine, &page.slot, from, count),
                    Wanted::Index(byte) => !ok || all_equal(&page.slot, common::PAGE, byte),
                    Wanted::Nothing => !ok,
                };
                assert!(right, "seed {seed}: a wrong page");
                (tally.good, tally.failed) = (tally.good + u32::from(ok), tally.failed + u32::from(!ok));
                tally.withdrawn += u32::from(page.result == Err(PageError::Withdrawn));
                match of.wanted {
                    Wanted::Index(_) => {
                        tally.pairs += u32::from(ok);
                        smalls.push(page.slot);
                    }
                    _ => latents.push(page.slot),
                }
            }
        }
        while let Some(wanted) = engine.next_wanted_lane(sim.now()) {
            let owner = if wanted.peer == other { index.peer } else { pool.peer };
            if attach(&mut engine, &sim, wanted.peer, owner, wanted.rail.0).is_none() {
                engine.lane_unavailable(wanted, sim.now());
            }
        }
        assert!(sim.now() < Time(5_000_000_000), "seed {seed}: a batch never ends");
    }
    assert_eq!((latents.len(), smalls.len()), all, "seed {seed}: slots are lost");
    assert!(sim.violations().is_empty(), "seed {seed}: {:?}", sim.violations());
    tally.lanes_failed +=
        (0..2).map(|rail| engine.rail_stats(RailIndex(rail)).unwrap().lanes_failed).sum::<u64>();
}

/// Withdraws a batch twice, a page of it, or a batch that is done already.
fn withdraw_somehow(
    engine: &mut Small<'_, '_>,
    asked: &[Asked],
    done: &[Ticket],
    sim: &Sim<'_>,
    rng: &mut Rng,
    tally: &mut Tally,
) {
    let now = sim.now();
    if let Some(&ticket) = done.last()
        && rng.chance(3)
    {
        assert!(matches!(engine.withdraw(ticket, now), Err(FlightError::NotInFlight(_))));
        tally.twice += 1;
    }
    if asked.is_empty() || !rng.chance(3) {
        return;
    }
    let of = &asked[rng.below(asked.len() as u64) as usize];
    let ticket = of.ticket.expect("a batch in flight");
    match rng.below(4) {
        0 => {
            if engine.withdraw(ticket, now).is_ok() {
                // All of its pages have their final results, or the batch is done.
                assert_eq!(engine.withdraw(ticket, now).unwrap_or(0), 0);
                tally.twice += 1;
            }
        }
        1 | 2 => match engine.withdraw_page(ticket, of.at, now) {
            Ok(true) => assert_ne!(engine.withdraw_page(ticket, of.at, now), Ok(true)),
            Ok(false) => tally.arrived_before += 1,
            Err(error) => assert!(matches!(error, FlightError::NotInFlight(_)), "{error}"),
        },
        _ => {
            let far = engine.withdraw_page(ticket, 10_000, now).unwrap_err();
            assert!(!matches!(far, FlightError::NoPage { page, .. } if page != 10_000), "{far}");
            tally.refused += 1;
        }
    }
}
