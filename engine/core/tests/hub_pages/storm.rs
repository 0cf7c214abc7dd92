//! Three submitters and the engine's own thread, over rails with the faults of the model.
//! Submitters withdraw batches, look for outcomes now and then, and are dropped with pages
//! anywhere.

use std::collections::{BTreeMap, BTreeSet};

use kvrail_core::batch::{Class, DonePage, Ticket};
use kvrail_core::config::EngineConfig;
use kvrail_core::hub::{Hub, Mailbox, Outcome, SendError};
use kvrail_core::memory::Slot;
use kvrail_core::time::{Nanos, Time};
use kvrail_sim::sim::{self, Delay, Faults, Odds, Sim};

use crate::CONFIG;
use crate::common::seeds::each;
use crate::common::*;

/// A batch on its way: what lands in each slot. The pages behind the first of a slot share it.
struct Sent {
    ticket: Ticket,
    reports: bool,
    /// What each page's slot must hold. A page that shares the slot of the page before is told with
    /// it, and has `None` from the beginning.
    parts: Vec<Option<Part>>,
}

/// The number of a slot, and the bytes that must be in it.
#[derive(Clone, Copy)]
struct Part {
    slot: usize,
    expected: Expected,
}

#[derive(Clone, Copy)]
enum Expected {
    /// This byte throughout.
    Page(u8),
    /// 2,500 bytes of either page.
    Parts(u8, u8),
}

#[derive(Default)]
struct Tally {
    told: usize,
    with_batch: usize,
    good: usize,
    bad: usize,
    orphans: usize,
    refused: usize,
}

/// A page has come back, early or with its batch: its slot holds what it should.
fn take(sent: &mut Sent, page: DonePage, tally: &mut Tally, home: &mut Vec<Slot>) {
    let part = sent.parts[page.index].take().expect("a page is told once");
    assert_eq!(part.slot, page.slot.index());
    if page.result.is_ok() {
        let bytes = page.slot.bytes().unwrap();
        let right = |bytes: &[u8], expected| bytes.iter().all(|&byte| byte == expected);
        assert!(
            match part.expected {
                Expected::Page(byte) => right(&bytes[..PAGE], byte),
                Expected::Parts(one, two) => right(&bytes[..2_500], one) && right(&bytes[2_500..5_000], two),
            },
            "a page is wrong"
        );
        tally.good += 1;
    } else {
        tally.bad += 1;
    }
    home.push(page.slot);
}

#[allow(clippy::too_many_lines, reason = "one loop with everything that may happen in it")]
fn schedule(seed: u64, tally: &mut Tally) {
    let mut rng = Rng(seed ^ 0x51ED_270B);
    let mut storage = Box::new(SmallSim::new());
    let mut bytes = memory(1);
    let odds = |of: u32| Odds::per_million(of);
    let config = sim::SimConfig {
        retry: Nanos::from_micros(300),
        pieces: 3,
        close: Delay::between(Nanos(0), Nanos::from_micros(500)),
        late_bytes: rng.chance(50),
        read_overhead: [0, 512, 64][seed as usize % 3],
        faults: Faults {
            wr: odds(1_500),
            statuses: Faults::EVERY_STATUS,
            lost: odds(2_000),
            incomplete: odds(1_000),
            prefix: odds(5_000),
            unknown: odds(2_000),
            drain_lost: odds(100_000),
            ..Faults::NONE
        },
        ..sim::SimConfig::new(seed)
    };
    let sim = Sim::new(&mut storage, config, &rails(2)).unwrap();
    let mut owner = Owner::new(&sim, &mut bytes[0], 1);
    let all = 48;
    let dest = Destination::new(all, PAGE);
    let mut state = Box::new(SmallState::new());
    let config = EngineConfig {
        stall: Nanos::from_micros(800),
        set_aside: Nanos::from_micros(20),
        backoff_min: Nanos::from_micros(20),
        ..CONFIG
    };
    let mut engine = start(&mut state, &sim, config);
    let mut free: Vec<Slot> = dest.register(&mut engine, PAGE).collect();
    let (_, region, _) = connect(&mut engine, &sim, &owner, 2, 2, 6);
    let mut boxes: Vec<_> = (0..3).map(|_| Mailbox::<8, 16>::with_room_for_pages()).collect();
    let mut hub = Hub::<3>::new();
    let mut submitters: Vec<_> =
        boxes.iter_mut().map(|mailbox| Some(hub.submitter(&engine, mailbox).unwrap())).collect();
    let mut hands: Vec<Vec<Slot>> = (0..3).map(|_| free.drain(..12).collect()).collect();
    let mut sent: Vec<BTreeMap<u64, Sent>> = (0..3).map(|_| BTreeMap::new()).collect();
    let (mut orphans, mut wanted_orphans, mut own_out, mut next_tag) = (Vec::new(), 0, 0, 0_u64);
    let mut own = Vec::new();
    let end = Time(6_000_000);
    while sim.now() < end || engine.in_flight() > 0 || sent.iter().any(|sent| !sent.is_empty()) {
        let going_on = sim.now() < end;
        if going_on && rng.chance(10) {
            let slot = rng.below(SLOTS as u64) as usize;
            owner.invalidate(&sim, slot);
            owner.publish(&sim, slot, rng.next() as u32);
        }
        for at in 0..3 {
            let Some(submitter) = &mut submitters[at] else { continue };
            if going_on
                && rng.chance(40)
                && hands[at].len() >= 6
                && let Some(mut batch) = submitter.batch()
            {
                next_tag += 1;
                batch.set_tag(next_tag);
                let reports = rng.chance(70);
                if reports {
                    batch.report_pages();
                }
                batch.set_class(if rng.chance(30) { Class::Background } else { Class::Urgent });
                let mut parts = Vec::new();
                for _ in 0..1 + rng.below(6) {
                    let (from, behind) = (rng.below(SLOTS as u64) as usize, rng.below(SLOTS as u64) as usize);
                    let [page, other] = [from, behind].map(|at| region.page(owner.location(at)).unwrap());
                    let [one, two] = [from, behind].map(|at| owner.expected(owner.location(at)));
                    let slot = hands[at].pop().unwrap();
                    let index = slot.index();
                    let mut expected = Expected::Page(one);
                    let mut shared = false;
                    match rng.below(5) {
                        0 if !batch.is_empty() => batch.join(page, slot).unwrap(),
                        1 if batch.len() + 6 < batch.capacity() => {
                            batch.read(page.part(0, 2_500).unwrap(), slot).unwrap();
                            batch.read_also(other.part(0, 2_500).unwrap(), 2_500).unwrap();
                            (expected, shared) = (Expected::Parts(one, two), true);
                        }
                        2 if batch.len() + 6 < batch.capacity() => {
                            let locations = [from, behind].map(|at| owner.location(at));
                            batch
                                .read_rows_of(&region, &locations, 500, &[0b11111, 0b1_1101_1000], slot)
                                .unwrap();
                            (expected, shared) = (Expected::Parts(one, two), true);
                        }
                        _ => batch.read(page, slot).unwrap(),
                    }
                    parts.push(Some(Part { slot: index, expected }));
                    if shared {
                        parts.push(None);
                    }
                }
                let late = if rng.chance(10) { Nanos(1 + rng.below(30_000)) } else { Nanos::from_millis(20) };
                match submitter.submit(batch, sim.now() + late) {
                    Ok(ticket) => {
                        sent[at].insert(next_tag, Sent { ticket, reports, parts });
                    }
                    Err(error) => {
                        assert!(
                            matches!(error, SendError::NoRoom { .. } | SendError::Full { .. }),
                            "{error}"
                        );
                        tally.refused += usize::from(matches!(error, SendError::NoRoom { .. }));
                        hands[at].extend(error.into_batch().clear());
                    }
                }
            }
            if rng.chance(1)
                && let Some((_, one)) = sent[at].iter().next()
            {
                // It may be on its way back.
                let _ = match rng.below(4) {
                    0 => submitter.withdraw(one.ticket),
                    page => submitter.withdraw_page(one.ticket, page as usize),
                };
            }
            // Not every submitter looks each time.
            let looks = if going_on { rng.below(6) } else { 64 };
            for _ in 0..looks {
                match submitter.next_outcome() {
                    Some(Outcome::Page(ticket, tag, page)) => {
                        let of = sent[at].get_mut(&tag).expect("a page comes in front of its batch");
                        assert!(of.reports && of.ticket == ticket);
                        tally.told += 1;
                        take(of, page, tally, &mut hands[at]);
                    }
                    Some(Outcome::Done(mut done)) => {
                        let mut of = sent[at].remove(&done.tag()).expect("a batch is done once");
                        for page in done.pages() {
                            tally.with_batch += 1;
                            take(&mut of, page, tally, &mut hands[at]);
                        }
                        assert!(of.parts.iter().all(Option::is_none), "a page was not told");
                    }
                    Some(Outcome::Overdue(..)) => {}
                    Some(other) => panic!("{other:?}"),
                    None => break,
                }
            }
            if going_on && rng.chance(1) && rng.chance(10) {
                let lost = |sent: &Sent| sent.parts.iter().flatten().count();
                wanted_orphans += sent[at].values().map(lost).sum::<usize>();
                sent[at].clear();
                submitters[at] = None;
            }
        }
        if going_on
            && rng.chance(10)
            && free.len() >= 4
            && let Some(mut batch) = engine.batch()
        {
            batch.report_pages();
            for _ in 0..4 {
                let page = region.page(owner.location(rng.below(SLOTS as u64) as usize)).unwrap();
                batch.read(page, free.pop().unwrap()).unwrap();
            }
            own.push(engine.submit(batch, sim.now(), sim.now() + Nanos::from_millis(20)).unwrap());
            own_out += 4;
        }
        hub.turn(&mut engine, sim.now(), |outcome| match outcome {
            Outcome::Orphan(slot) => orphans.push(slot),
            Outcome::Done(mut done) => {
                assert!(own.contains(&done.ticket()));
                for page in done.pages() {
                    own_out -= 1;
                    free.push(page.slot);
                }
            }
            Outcome::Overdue(..) => {}
            other => panic!("{other:?}"),
        });
        while let Some(arrival) = engine.next_arrival() {
            assert!(own.contains(&arrival.ticket), "the own thread is told its own pages");
            if let Some(slot) = engine.take_slot(&arrival) {
                own_out -= 1;
                free.push(slot);
            }
        }
        while let Some(wanted) = engine.next_wanted_lane(sim.now()) {
            if attach_for(&mut engine, &sim, wanted.peer, &owner, wanted.rail.0, 6, wanted.class).is_none() {
                engine.lane_unavailable(wanted, sim.now());
            }
        }
        engine.wait(sim.now(), sim.now() + Nanos::from_micros(10));
        assert!(sim.now() < Time(2_000_000_000), "a batch never ends");
    }
    hub.turn(&mut engine, sim.now(), |outcome| match outcome {
        Outcome::Orphan(slot) => orphans.push(slot),
        other => panic!("{other:?}"),
    });
    assert_eq!((orphans.len(), own_out), (wanted_orphans, 0), "what a dropped submitter had, each slot once");
    let slots = free.iter().chain(&orphans).chain(hands.iter().flatten());
    let places: Vec<_> = slots.map(Slot::index).collect();
    assert_eq!(places.len(), all, "no slot is lost or there twice");
    assert_eq!(places.into_iter().collect::<BTreeSet<_>>().len(), all);
    assert!(sim.violations().is_empty(), "{:?}", sim.violations());
    tally.orphans += wanted_orphans;
}

#[test]
fn with_random_faults_every_page_is_told_once_and_every_slot_comes_back_once() {
    let mut tally = Tally::default();
    let all = each("with_random_faults", 0..60, |seed| schedule(seed, &mut tally));
    let Tally { told, with_batch, good, bad, orphans, refused } = tally;
    println!(
        "{told} told early, {with_batch} with their batch; {good} good, {bad} not; {orphans} orphans, {refused} refused"
    );
    if !all {
        return;
    }
    assert!(told > 1_000 && with_batch > 1_000 && good > 1_000 && bad > 100 && orphans > 10 && refused > 10);
}
