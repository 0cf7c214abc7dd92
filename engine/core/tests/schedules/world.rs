//! The state of a schedule: an engine, its peers and their owners, the batches in flight, and the
//! checks of their results.
#![allow(unreachable_pub, reason = "a module of one test program")]

use std::ops::Range;

use kvrail_core::batch::{Batch, Class, Ticket};
use kvrail_core::engine::Engine;
use kvrail_core::error::PageError;
use kvrail_core::events::LaneWanted;
use kvrail_core::id::PeerId;
use kvrail_core::memory::Slot;
use kvrail_core::plan::PlanRef;
use kvrail_core::provider::MemoryRange;
use kvrail_core::remote::{Location, RemotePage, RemoteRegion};
use kvrail_core::time::{Nanos, Time};
use kvrail_sim::sim::{Sim, SimRails};

use crate::common::*;
use crate::trace::Trace;

pub const OWNERS: usize = 2;

/// A batch in flight, and the expected bytes of its slots.
pub struct Flying {
    pub ticket: Ticket,
    pub submitted: Time,
    pub deadline: Time,
    pub told: bool,
    pub pages: Vec<Part>,
    pub slots: Vec<usize>,
    /// Whether the batch, or which of its pages, was withdrawn.
    pub withdrawn: Withdrawn,
    /// The results of pages that were told before the batch was done.
    pub told_pages: Vec<Option<Result<(), PageError>>>,
    pub reports: bool,
}

/// What of a batch was withdrawn.
#[derive(Default)]
pub struct Withdrawn {
    pub all: bool,
    pub pages: Vec<usize>,
}

/// A page of a batch: the place of the slot that it lands in, the bytes that it fills there, and
/// their value.
pub struct Part {
    pub first: usize,
    pub location: Location,
    pub tokens: Range<usize>,
    pub layer_major: bool,
    /// Of rows that joined with those of other pages: where they land.
    pub in_set: Option<Range<usize>>,
    pub expected: u8,
    /// Whether it was read without validation, so that its bytes may be any.
    pub unvalidated: bool,
}

impl Part {
    /// Whether its bytes are there.
    pub fn is_in(&self, slot: &Slot) -> bool {
        if self.unvalidated {
            return true;
        }
        let bytes = slot.bytes().unwrap();
        if let Some(rows) = &self.in_set {
            return bytes[rows.clone()].iter().all(|&b| b == self.expected);
        }
        let rows = bytes[..PAGE].chunks(500).enumerate();
        rows.filter(|(row, _)| {
            let token = if self.layer_major { row % 4 } else { row / 5 };
            self.tokens.contains(&token)
        })
        .all(|(_, row)| row.iter().all(|&b| b == self.expected))
    }
}

#[derive(Default)]
pub struct Tally {
    pub hits: u64,
    pub shared: u64,
    pub turned: u64,
    pub unvalidated: u64,
    pub misses: u64,
    pub faults: u64,
    pub late: u64,
    pub gone: u64,
    pub aside: u64,
    pub removed: u64,
    pub added: u64,
    pub reposted: u64,
    pub lanes_failed: u64,
    pub stale: u64,
    pub detours: u64,
    pub withdrawn: u64,
    pub told: u64,
    pub taken: u64,
    /// Of these, slots that several pages share.
    pub taken_shared: u64,
    pub incomplete: u64,
    pub released: u64,
    pub bulk: u64,
    /// Slots with the rows of several pages that joined in one call.
    pub sets: u64,
}

pub struct World<'s, 'm, 't> {
    pub sim: &'m Sim<'m>,
    pub engine: Engine<'s, SimRails<'m>, &'t mut Trace>,
    pub owners: Vec<Owner>,
    pub peers: Vec<Option<(PeerId, RemoteRegion)>>,
    pub free: Vec<Slot>,
    pub flying: Vec<Option<Flying>>,
    pub plans: [PlanRef; 3],
    /// Whether no owner overwrites anything, so that no page may be a miss.
    pub calm: bool,
    /// Deadlines are multiples of this: of 1, or of a number so large that many are equal.
    pub grain: u64,
    /// Entries of the send queues of lanes.
    pub depth: u32,
    /// How many lanes in a hundred are made for background work.
    pub background: u64,
    pub rng: Rng,
    pub tally: Tally,
}

pub fn range(slot: &Slot) -> MemoryRange {
    MemoryRange { addr: slot.address(), len: slot.len() as u64 }
}

impl World<'_, '_, '_> {
    pub fn submit(&mut self) {
        let Some(mut batch) = self.engine.batch() else { return };
        let tag = self.flying.len();
        batch.set_tag(tag as u64);
        let mut pages: Vec<Part> = Vec::new();
        let mut slots = Vec::new();
        if self.rng.chance(30) {
            self.fill_in_bulk(&mut batch, &mut pages, &mut slots);
        } else if self.rng.chance(50) {
            self.fill_uniform(&mut batch, &mut pages, &mut slots);
        }
        if self.rng.chance(30) {
            self.fill_sets(&mut batch, &mut pages, &mut slots);
        }
        // None where all are alike.
        let others = if pages.is_empty() || self.rng.chance(20) { 1 + self.rng.below(9) } else { 0 };
        for _ in 0..others {
            if batch.len() + 4 > batch.capacity() {
                break;
            }
            let Some((page, location, expected)) = self.page() else { continue };
            let Some(slot) = self.free.pop() else { break };
            assert!(self.sim.unprotect(range(&slot)));
            slots.push(slot.index());
            let first = pages.len();
            let part = |tokens, layer_major| Part {
                first,
                location,
                tokens,
                layer_major,
                in_set: None,
                expected,
                unvalidated: false,
            };
            let all = "every page fits its slot";
            match self.rng.below(8) {
                // A page without a plan, by a plan, the halves of two pages in one slot, or rows of
                // one page or of two.
                0..3 => {
                    batch.read(page, slot).expect(all);
                    pages.push(part(0..4, false));
                }
                3 => {
                    batch.read_with(page, slot, self.plans[0]).expect(all);
                    pages.push(part(0..4, true));
                }
                4 => {
                    batch.read_with(page, slot, self.plans[1]).expect(all);
                    pages.push(part(0..2, true));
                    if let Some((page, location, expected)) = self.page() {
                        batch.read_also_with(page, self.plans[2]).expect(all);
                        let tokens = 2..4;
                        pages.push(Part {
                            first,
                            location,
                            tokens,
                            layer_major: true,
                            in_set: None,
                            expected,
                            unvalidated: false,
                        });
                    }
                }
                5 => {
                    batch.read_rows(page, self.token_of_rows(), slot).expect(all);
                    pages.push(part(0..1, false));
                    if let Some((page, location, expected)) = self.page().filter(|_| self.rng.chance(50)) {
                        batch.read_rows_also(page, self.token_of_rows(), 2_500).expect(all);
                        let tokens = 1..2;
                        pages.push(Part { tokens, location, expected, ..part(0..1, false) });
                    }
                }
                _ => {
                    batch.read(page.part(0, 2_500).unwrap(), slot).expect(all);
                    pages.push(part(0..1, false));
                    for token in 1..4 {
                        let Some((page, location, expected)) = self.page() else { continue };
                        let tokens = token..token + 1;
                        batch.read_also(page.part(5_000, 2_500).unwrap(), token as u32 * 2_500).expect(all);
                        let layer_major = false;
                        pages.push(Part {
                            first,
                            location,
                            tokens,
                            layer_major,
                            in_set: None,
                            expected,
                            unvalidated: false,
                        });
                        if batch.len() == batch.capacity() {
                            break;
                        }
                    }
                }
            }
        }
        if self.rng.chance(25) {
            batch.set_class(Class::Background);
        }
        let reports = self.rng.chance(30);
        if reports {
            batch.report_pages();
        }
        let now = self.sim.now();
        let late = (now + Nanos::from_micros(20 + self.rng.below(4_000))).0;
        let deadline = Time(late - late % self.grain + self.grain);
        match self.engine.submit(batch, now, deadline) {
            Ok(ticket) => {
                let (withdrawn, told_pages) = (Withdrawn::default(), vec![None; pages.len()]);
                self.flying.push(Some(Flying {
                    ticket,
                    submitted: now,
                    deadline,
                    told: false,
                    pages,
                    slots,
                    withdrawn,
                    told_pages,
                    reports,
                }));
            }
            Err(mut rejected) => {
                self.take_back(&mut rejected.batch);
            }
        }
    }

    /// Fills a batch with uniform pages, mostly of one owner and of consecutive slots: validated,
    /// unvalidated, or some of each.
    pub fn fill_uniform(&mut self, batch: &mut Batch<'_>, pages: &mut Vec<Part>, slots: &mut Vec<usize>) {
        let mut which = self.rng.below(OWNERS as u64) as usize;
        let unvalidated = [0, 0, 100, 100, 30][self.rng.below(5) as usize];
        let mut at = self.rng.below(SLOTS as u64) as usize;
        for _ in 0..1 + self.rng.below(batch.capacity() as u64) {
            let Some((_, region)) = self.peers[which] else { return };
            let Some(slot) = self.free.pop() else { return };
            assert!(self.sim.unprotect(range(&slot)));
            slots.push(slot.index());
            let location = self.owners[which].location(at);
            let unvalidated = self.rng.chance(unvalidated);
            let page = if unvalidated {
                region.unvalidated(at as u32).unwrap()
            } else {
                region.page(location).unwrap()
            };
            batch.read(page, slot).expect("every page fits its slot");
            let expected = self.owners[which].expected(location);
            pages.push(Part {
                first: pages.len(),
                location,
                tokens: 0..4,
                layer_major: false,
                in_set: None,
                expected,
                unvalidated,
            });
            at = if self.rng.chance(15) { self.rng.below(SLOTS as u64) as usize } else { (at + 1) % SLOTS };
            which = if self.rng.chance(10) { OWNERS - 1 - which } else { which };
        }
    }

    /// Some page of some owner that is connected, and what it consists of.
    pub fn page(&mut self) -> Option<(RemotePage, Location, u8)> {
        let which = self.rng.below(OWNERS as u64) as usize;
        let (_, region) = self.peers[which]?;
        let location = self.owners[which].location(self.rng.below(SLOTS as u64) as usize);
        Some((region.page(location).unwrap(), location, self.owners[which].expected(location)))
    }

    /// The owner overwrites a slot, in steps with model time between them.
    pub fn evict(&mut self) {
        if self.calm {
            return;
        }
        let which = self.rng.below(OWNERS as u64) as usize;
        let slot = self.rng.below(SLOTS as u64) as usize;
        self.owners[which].invalidate(self.sim, slot);
        for _ in 0..self.rng.below(3) {
            let (a, b) = (self.rng.below(PAGE as u64) as usize, self.rng.below(PAGE as u64) as usize);
            self.owners[which].scribble(self.sim, slot, a.min(b), a.max(b));
            self.pass(self.rng.clone().below(4_000));
        }
        if self.rng.chance(90) {
            let nonce = self.rng.next() as u32;
            self.owners[which].publish(self.sim, slot, nonce);
        }
    }

    pub fn pass(&mut self, nanos: u64) {
        self.sim.advance_to(self.sim.now() + Nanos(nanos));
        self.poll();
    }

    pub fn poll(&mut self) {
        let now = self.sim.now();
        self.engine.poll(now);
        while let Some(ticket) = self.engine.next_overdue() {
            let flying = self.flying.iter_mut().flatten().find(|flying| flying.ticket == ticket);
            flying.expect("a batch in flight").told = true;
        }
        if self.rng.chance(80) {
            self.take_reports();
        }
        while let Some(mut done) = self.engine.next_done() {
            let flying = self.flying[done.tag() as usize].take().expect("a batch is done once");
            assert_eq!(done.len(), flying.pages.len());
            let mut back = Vec::new();
            let results: Vec<_> = (0..done.len()).map(|i| done.result(i).unwrap()).collect();
            for (i, told) in flying.told_pages.iter().enumerate() {
                if let Some(told) = told {
                    assert_eq!(*told, results[i], "page {i} has the result that was told");
                }
            }
            for page in self.take_pages(&mut done) {
                let parts = || (0..).zip(&flying.pages).filter(|(_, part)| part.first == page.index);
                match page.result {
                    Ok(()) => {
                        for (i, part) in parts() {
                            assert!(
                                part.is_in(&page.slot),
                                "page {i} of {:?} is served wrong: not {} throughout",
                                part.location,
                                part.expected
                            );
                            assert_eq!(
                                results[i],
                                Ok(()),
                                "the result of a slot is Ok if all of its pages arrived"
                            );
                            self.tally.shared += u64::from(i != page.index);
                            self.tally.turned += u64::from(part.layer_major);
                            self.tally.unvalidated += u64::from(part.unvalidated);
                        }
                        self.tally.hits += 1;
                        self.tally.sets += u64::from(parts().filter(|(_, p)| p.in_set.is_some()).count() > 1);
                    }
                    Err(PageError::Miss(miss)) => {
                        assert!(!self.calm, "a miss though no owner overwrote a page: {miss}");
                        self.tally.misses += 1;
                    }
                    Err(PageError::Fault { .. }) => self.tally.faults += 1,
                    Err(PageError::Deadline { .. } | PageError::NoLane { .. }) => {
                        assert!(now >= flying.deadline);
                        self.tally.late += 1;
                    }
                    Err(PageError::PeerGone) => self.tally.gone += 1,
                    Err(PageError::Withdrawn) => {
                        let pages = &flying.withdrawn.pages;
                        let asked = parts().any(|(i, _)| pages.contains(&i));
                        assert!(flying.withdrawn.all || asked, "a page that was not withdrawn");
                        self.tally.withdrawn += 1;
                    }
                    Err(PageError::SetAside { until, .. }) => {
                        assert!(until > flying.submitted, "the set-aside time had passed");
                        self.tally.aside += 1;
                    }
                    Err(error) => panic!("a reason that this test does not know: {error}"),
                }
                back.push(page.slot.index());
                self.sim.protect(range(&page.slot)).unwrap();
                self.free.push(page.slot);
            }
            assert_eq!(back, flying.slots, "each slot comes back once, in the order of the batch");
        }
        // Each batch that is late has been reported by now: by its result above, or as overdue.
        for flying in self.flying.iter().flatten() {
            assert!(
                flying.told || now < flying.deadline,
                "the deadline {:?} passed unreported at {now:?}",
                flying.deadline
            );
        }
    }

    /// The class of a new lane.
    pub fn class(&mut self) -> Class {
        if self.rng.chance(self.background) { Class::Background } else { Class::Urgent }
    }

    pub fn mend(&mut self) {
        while let Some(wanted) = self.engine.next_wanted_lane(self.sim.now()) {
            let LaneWanted { peer, rail, class, .. } = wanted;
            // Now and then the lane is not of the requested class.
            let class = if self.rng.chance(90) { class } else { self.class() };
            let which = self.peers.iter().position(|p| p.is_some_and(|(id, _)| id == peer)).unwrap();
            let owner = &self.owners[which];
            let made = attach_for(&mut self.engine, self.sim, peer, owner, rail.0, self.depth, class);
            if made.is_none() {
                self.engine.lane_unavailable(wanted, self.sim.now());
            }
        }
        self.serve_on_demand();
    }

    /// Makes lanes to peers that have work and none, and now and then takes those of an idle peer
    /// back.
    fn serve_on_demand(&mut self) {
        while let Some(peer) = self.engine.next_unserved_peer(self.sim.now()) {
            let which = self.peers.iter().position(|p| p.is_some_and(|(id, _)| id == peer)).unwrap();
            let (class, rail) = (self.class(), self.rng.below(3) as u8);
            let owner = &self.owners[which];

            let made = attach_for(&mut self.engine, self.sim, peer, owner, rail, self.depth, class);
            if made.is_none() {
                self.engine.first_lanes_unavailable(peer, self.sim.now());
            }
        }
        let which = self.rng.below(4 * OWNERS as u64) as usize;
        if let Some(&Some((peer, _))) = self.peers.get(which) {
            let lanes = self.engine.release_lanes(peer, self.sim.now());
            assert!(lanes == 0 || self.engine.lanes_to(peer) == 0);
            self.tally.released += lanes as u64;
        }
    }

    /// Removes a peer in the middle of everything, or adds a removed one again, with the lanes that
    /// can be connected.
    pub fn come_and_go(&mut self) {
        let which = self.rng.below(OWNERS as u64) as usize;
        if self.peers[which].is_some() && self.rng.chance(85) {
            return;
        }
        if let Some((peer, _)) = self.peers[which].take() {
            self.engine.remove_peer(peer, self.sim.now()).unwrap();
            self.tally.removed += 1;
            return;
        }
        let Ok(peer) = self.engine.add_peer() else { return };
        let Ok(mut region) = self.engine.add_region(peer, &self.owners[which].offer()) else {
            self.engine.remove_peer(peer, self.sim.now()).unwrap();
            return;
        };
        // Known since the first peers were connected.
        region.set_layout(self.engine.add_layout(&by_token().identity(), 0).unwrap()).unwrap();
        for rail in 0..3 {
            for _ in 0..1 + self.rng.below(2) {
                let (class, owner) = (self.class(), &self.owners[which]);
                let _ = attach_for(&mut self.engine, self.sim, peer, owner, rail, self.depth, class);
            }
        }
        self.peers[which] = Some((peer, region));
        self.tally.added += 1;
    }
}
