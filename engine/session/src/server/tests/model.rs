//! Both ends of sessions, the real ones, driven by random schedules: bytes come in any pieces and
//! late, pools and requests come and go, either side dies and connects again. No byte is lost or
//! changed, so no side may ever find that the other broke the protocol, and when all has been
//! said the two sides know the same.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use kvrail_core::id::RailIndex;
use kvrail_core::table::{EntryValue, Generation};
use kvrail_host::reactor::Connection as _;

use super::bench::Bench;
use super::rig::{Ends, PARTS, Random, keys, known, layout, pool, until};
use crate::error::Cause;
use crate::handover::{
    Block, Class, GiveUpReason, HandoverConfig, HandoverId, HandoverNumber, HandoverOutcome, RequestId,
    TakingEvent, WHOLE_PAGE,
};
use crate::message::{ByeReason, LaneNumber};
use crate::offer::LaneBlob;
use crate::pairing::RailPair;
use crate::pool::PoolId;
use crate::reader::{ReaderDescription, Session, SessionEvent};
use crate::server::ServerConfig;
use crate::server::connection::ReaderConnection;
use crate::test_seeds as seeds;

const SCHEDULES: u64 = 150;
const STEPS: u64 = 400;
const READERS: usize = 3;

/// A connection between a reader and the producer, and what is on its way.
struct Pair {
    session: Session,
    connection: ReaderConnection<Ends>,
    to_producer: VecDeque<u8>,
    to_reader: VecDeque<u8>,
    established: bool,
    /// Lanes that the reader has.
    lanes: BTreeSet<LaneNumber>,
    /// Requests that the reader has taken.
    takings: BTreeMap<HandoverNumber, RequestId>,
}

/// How often something happened in all schedules.
#[derive(Debug, Default)]
struct Tally {
    established: u64,
    deaths: u64,
    lanes: u64,
    changes: u64,
    blocks: u64,
    outcomes: BTreeMap<String, u64>,
}

struct World {
    bench: Bench,
    now: Instant,
    rng: Random,
    pairs: Vec<Option<Pair>>,
    /// The pools that are offered, with the numbers of their layouts.
    pools: BTreeMap<PoolId, u8>,
    next_pool: u32,
    /// Requests that are open, and the length of their lists.
    open: BTreeMap<HandoverId, (RequestId, u32)>,
    next_request: u128,
    tally: Tally,
}

/// A reader knows the layouts 1 and 2; the producer has pools of 1 to 3.
fn reader() -> ReaderDescription {
    let layouts = [known(1), known(2)].concat();
    ReaderDescription { layouts, ..ReaderDescription::new("decode-1".parse().unwrap(), layout(1)) }
}

fn block(slot: u32) -> Block {
    let expected = EntryValue { generation: Generation(u64::from(slot) << 1 | 1), ..EntryValue::default() };
    Block { pool: PoolId(0), slot, expected, ready: 0 }
}

impl World {
    fn new(seed: u64, tally: Tally) -> Self {
        let lease = Duration::from_secs(24 * 60 * 60);
        let handovers = HandoverConfig { lease, ..HandoverConfig::default() };
        let config = ServerConfig { handovers, ..ServerConfig::default() };
        Self {
            bench: Bench::new(config, vec![pool(0, 1, 1)]),
            now: Instant::now(),
            rng: Random(seed),
            pairs: (0..READERS).map(|_| None).collect(),
            pools: BTreeMap::from([(PoolId(0), 1)]),
            next_pool: 1,
            open: BTreeMap::new(),
            next_request: 0,
            tally,
        }
    }

    fn step(&mut self) {
        let at = self.rng.below(READERS as u64) as usize;
        match self.rng.below(20) {
            0..=5 => drop(self.carry(at, false)),
            6 => {
                self.now += Duration::from_millis(self.rng.below(300));
                self.tick(at);
            }
            7 => self.change_pools(),
            8 | 9 => self.lane(at),
            10..=12 => self.own(),
            13..=15 => self.take(at),
            16 if self.rng.below(8) == 0 => self.die(at),
            _ => drop(self.carry(at, false)),
        }
        if self.pairs[at].is_none() {
            let deadline = self.now + Duration::from_secs(3600);
            let session = Session::new("producer".into(), &keys(), 0, reader(), deadline, self.now).unwrap();
            self.pairs[at] = Some(Pair {
                session,
                connection: self.bench.connection(self.now),
                to_producer: VecDeque::new(),
                to_reader: VecDeque::new(),
                established: false,
                lanes: BTreeSet::new(),
                takings: BTreeMap::new(),
            });
        }
    }

    /// Lets both sides of a connection write and read, a part or all of what there is.
    fn carry(&mut self, at: usize, all: bool) -> bool {
        let now = self.now;
        let Some(pair) = &mut self.pairs[at] else { return false };
        let mut out = Vec::new();
        pair.connection.notified(now);
        pair.session.fill(now, &mut out, 1 + self.rng.below(200) as usize);
        pair.to_producer.extend(out.drain(..));
        pair.connection.fill(now, &mut out, 1);
        pair.to_reader.extend(out.drain(..));
        let (left, right) = (pair.to_producer.len(), pair.to_reader.len());
        let mut part = |len: usize| if all { len } else { self.rng.below(len as u64 + 1) as usize };
        let (left, right) = (part(left), part(right));
        let bytes: Vec<_> = pair.to_producer.drain(..left).collect();
        if !bytes.is_empty() {
            pair.connection.received(now, &bytes);
        }
        let bytes: Vec<_> = pair.to_reader.drain(..right).collect();
        if !bytes.is_empty() {
            pair.session.received(now, &bytes);
        }
        self.learn(at);
        left + right > 0
    }

    fn tick(&mut self, at: usize) {
        let now = self.now;
        let Some(pair) = &mut self.pairs[at] else { return };
        if pair.session.due() <= now {
            pair.session.tick(now);
        }
        if pair.connection.due() <= now {
            pair.connection.tick(now);
        }
        self.learn(at);
    }

    /// Takes in what the reader is told.
    fn learn(&mut self, at: usize) {
        let Some(pair) = &mut self.pairs[at] else { return };
        let mut over = false;
        while let Some(event) = pair.session.next_event() {
            match event {
                SessionEvent::Established(_) => {
                    pair.established = true;
                    self.tally.established += 1;
                }
                SessionEvent::OfferChanged(_) => self.tally.changes += 1,
                SessionEvent::Lane(number, Ok(_)) => {
                    pair.lanes.insert(number);
                    self.tally.lanes += 1;
                }
                SessionEvent::Lane(_, Err(_)) | SessionEvent::Takings => {}
                SessionEvent::Ended(why) => {
                    let fair = matches!(why.cause, Cause::Bye(ByeReason::Finished) | Cause::Silence(_));
                    assert!(fair, "a reader found: {why}");
                    over = true;
                }
            }
        }
        while let Some(event) = pair.session.next_taking_event() {
            match event {
                TakingEvent::Ended { number, .. } => drop(pair.takings.remove(&number)),
                TakingEvent::Grown { places, .. } => {
                    self.tally.blocks += u64::from(places.end - places.start)
                }
                TakingEvent::TooLong { .. } | TakingEvent::Unanswered { .. } => panic!("{event:?}"),
                _ => {}
            }
        }
        if over {
            self.die(at);
        }
    }

    /// One of the sides dies, or both do: the connection is gone, and what was on its way.
    fn die(&mut self, at: usize) {
        if let Some(mut pair) = self.pairs[at].take() {
            self.tally.deaths += 1;
            if self.rng.below(2) == 0 {
                pair.connection.ended(self.now, None);
            }
            // A connection that is dropped without a call ends, too.
        }
    }

    fn change_pools(&mut self) {
        let shared = self.bench.shared();
        if self.pools.len() > 1 && self.rng.below(2) == 0 {
            let nth = self.rng.below(self.pools.len() as u64) as usize;
            let id = *self.pools.keys().nth(nth).unwrap();
            assert!(shared.pools.remove(id));
            self.pools.remove(&id);
        } else if self.pools.len() < 8 {
            let (id, number) = (self.next_pool, 1 + self.rng.below(3) as u8);
            self.next_pool += 1;
            let parts = PARTS[self.rng.below(5) as usize];
            shared.pools.add(pool(id, number, parts)).unwrap();
            self.pools.insert(PoolId(id), number);
        }
    }

    fn lane(&mut self, at: usize) {
        let Some(pair) = &mut self.pairs[at] else { return };
        if pair.lanes.len() > 4 {
            let lane = *pair.lanes.first().unwrap();
            pair.lanes.remove(&lane);
            return pair.session.release(&[lane]);
        }
        let (rail, remote_rail) = (RailIndex(0), RailIndex(self.rng.below(3) as u8));
        self.next_request += 1;
        let mut blob = [0; 64];
        blob[..16].copy_from_slice(&self.next_request.to_le_bytes());
        let never = self.now + Duration::from_secs(3600);
        // Before the session is established there is no rail.
        let _ = pair.session.ask(RailPair { rail, remote_rail }, LaneBlob(blob), never);
    }

    /// The owner of the pages does something.
    fn own(&mut self) {
        self.outcomes();
        let handovers = self.bench.shared().handovers.clone();
        let nth = self.rng.below(6) as usize;
        match self.open.iter_mut().nth(nth) {
            None => {
                self.next_request += 1;
                let request = RequestId(self.next_request % 40);
                if let Ok(id) = handovers.open(request) {
                    self.open.insert(id, (request, 0));
                }
            }
            Some((&id, (_, blocks))) => match self.rng.below(12) {
                0 => handovers.abort(id).unwrap(),
                1 => {
                    let _ = handovers.complete(id);
                }
                2..=6 => {
                    let more: Vec<_> = (*blocks..*blocks + self.rng.below(400) as u32).map(block).collect();
                    if handovers.append(id, &more).is_ok() {
                        *blocks += more.len() as u32;
                    }
                }
                parts => {
                    let (start, parts) = (self.rng.below(u64::from(*blocks) + 1) as u32, parts as u32);
                    let parts = if parts == 11 { WHOLE_PAGE } else { parts };
                    // A hand-over that is complete takes nothing more.
                    let _ = handovers.set_ready(id, start..*blocks, parts);
                }
            },
        }
        self.outcomes();
    }

    fn outcomes(&mut self) {
        while let Some(ended) = self.bench.shared().handovers.next_outcome() {
            let (request, blocks) = self.open.remove(&ended.id).expect("an outcome comes once");
            assert_eq!((ended.request, ended.blocks.len()), (request, blocks as usize));
            assert_ne!(ended.outcome, HandoverOutcome::Expired);
            *self.tally.outcomes.entry(format!("{:?}", ended.outcome)).or_default() += 1;
        }
    }

    /// A reader takes a request, or is done with one.
    fn take(&mut self, at: usize) {
        let Some(pair) = &mut self.pairs[at] else { return };
        if pair.established && pair.takings.len() < 4 {
            let request = RequestId(u128::from(self.rng.below(40)));
            let wait = Duration::from_secs(self.rng.below(2) * 50);
            if let Ok(number) = pair.session.take(request, Class::Background, wait, self.now) {
                pair.takings.insert(number, request);
            }
        } else if let Some((&number, _)) = pair.takings.first_key_value() {
            let over = match self.rng.below(2) {
                0 => pair.session.done(number),
                _ => pair.session.give_up(number, GiveUpReason::NoRoom),
            };
            if over.is_ok() {
                pair.takings.remove(&number);
            }
        }
    }

    /// Lets everything that was said arrive, and compares the two sides.
    fn settle(&mut self) {
        until("all is said", || {
            let said = (0..READERS).map(|at| self.carry(at, true)).filter(|&some| some).count() == 0;
            let held: usize = self.pairs.iter().flatten().map(|pair| pair.lanes.len()).sum();
            said && self.bench.ends.ready() == held
        });
        self.outcomes();
        let handovers = self.bench.shared().handovers.clone();
        assert_eq!(handovers.open_count(), self.open.len());
        for pair in self.pairs.iter().flatten().filter(|pair| pair.established) {
            let offer = pair.session.offer().unwrap();
            let known: BTreeMap<_, _> =
                offer.pools.iter().map(|pool| (pool.id(), pool.layout().name)).collect();
            let offered = self.pools.iter().filter(|&(_, &number)| number != 3);
            let offered: BTreeMap<_, _> = offered.map(|(&id, &number)| (id, layout(number).name)).collect();
            assert_eq!(known, offered);
            for (&number, &request) in &pair.takings {
                let blocks = pair.session.blocks(number);
                let open = self.open.values().find(|&&(of, _)| of == request);
                // A request that waits has no blocks.
                assert!(blocks.is_empty() || open.is_some_and(|&(_, all)| blocks.len() == all as usize));
            }
        }
    }
}

#[test]
fn both_ends_agree_whatever_comes_when_and_whichever_dies() {
    let test = "server::tests::model::both_ends_agree_whatever_comes_when_and_whichever_dies";
    let mut sum = Tally::default();
    seeds::each(test, 0..SCHEDULES, |seed| {
        let mut world = World::new(seed, std::mem::take(&mut sum));
        for _ in 0..STEPS {
            world.step();
        }
        world.settle();
        world.pairs.clear();
        until("all lanes are freed", || world.bench.ends.ready() == 0);
        sum = std::mem::take(&mut world.tally);
    });
    println!("{SCHEDULES} schedules: {sum:?}");
    if seeds::number("KVRAIL_SEED").is_none() {
        let Tally { established, deaths, lanes, changes, blocks, outcomes } = sum;
        for (what, count) in [
            ("sessions", established),
            ("deaths", deaths),
            ("lanes", lanes),
            ("changes of the offer", changes),
            ("blocks", blocks / 100),
        ] {
            assert!(count >= SCHEDULES, "{what}: {count} in {SCHEDULES} schedules");
        }
        assert!(outcomes.len() >= 4, "{outcomes:?}");
    }
}
