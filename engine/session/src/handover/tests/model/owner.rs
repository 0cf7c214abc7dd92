//! The producer of the model: its hand-overs, its memory, and what it knows of both.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use super::super::super::*;
use super::super::rng::SplitMix64;
use super::memory::{Broken, Memory, PARTS};

pub(super) const LEASE: Duration = Duration::from_secs(30);
/// Requests of a schedule.
pub(super) const REQUESTS: u64 = 3;

/// One hand-over, as its owner knows it. It is kept after its end, to compare lists with.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) list: Vec<Block>,
    pub(super) complete: bool,
    pub(super) is_open: bool,
    /// The latest time at which its lease may have begun anew.
    pub(super) renewed: Instant,
    /// The latest time at which its lease surely began anew.
    pub(super) surely_renewed: Instant,
}

#[derive(Debug)]
pub(super) struct Producer {
    pub(super) handovers: Handovers,
    pub(super) memory: Memory,
    pub(super) opened: BTreeMap<HandoverId, Opened>,
    /// Those without an outcome.
    open: Vec<HandoverId>,
    /// Which hand-over a number of a session stands for.
    pub(super) takers: BTreeMap<(SessionId, HandoverNumber), HandoverId>,
    broken: Broken,
    /// What a broken owner writes later: slot, and its new entry.
    late: Vec<Block>,
}

impl Producer {
    pub(super) fn new(epoch: u64, broken: Broken) -> Self {
        Self {
            handovers: Handovers::new(HandoverConfig { lease: LEASE, ..HandoverConfig::default() }).unwrap(),
            memory: Memory::new(epoch),
            opened: BTreeMap::new(),
            open: Vec::new(),
            takers: BTreeMap::new(),
            broken,
            late: Vec::new(),
        }
    }

    /// One random step of the owner.
    pub(super) fn step(&mut self, rng: &mut SplitMix64, now: Instant) {
        // A reader hears of it some steps later, so the bytes must be late by some steps, too.
        if !self.late.is_empty() && rng.up_to(9) == 0 {
            self.write_late();
        }
        self.check(now);
        let request = RequestId(rng.up_to(REQUESTS - 1).into());
        let open = self.handovers.of_request(request);
        match (open, rng.up_to(23)) {
            (None, 0) => self.handovers.reject(request, now).unwrap(),
            (None, _) => {
                let id = self.handovers.open(request, now).unwrap();
                let opened = Opened {
                    list: Vec::new(),
                    complete: false,
                    is_open: true,
                    renewed: now,
                    surely_renewed: now,
                };
                assert!(self.opened.insert(id, opened).is_none(), "{id} was opened before");
                self.open.push(id);
            }
            (Some(id), 0) => self.handovers.abort(id, now).unwrap(),
            (Some(id), 1) => {
                let expected = HandoverError::AlreadyOpen { request, id };
                assert_eq!(self.handovers.open(request, now), Err(expected));
                assert_eq!(self.handovers.reject(request, now), Err(expected));
            }
            (Some(id), _) if self.opened[&id].complete => {
                assert!(matches!(self.handovers.complete(id), Err(HandoverError::Completed { .. })));
            }
            (Some(id), 2) => {
                self.handovers.complete(id).unwrap();
                self.opened.get_mut(&id).unwrap().complete = true;
            }
            (Some(id), 3..=9) => self.append(rng, id),
            (Some(id), _) => self.raise(rng, id),
        }
    }

    fn append(&mut self, rng: &mut SplitMix64, id: HandoverId) {
        let list = &mut self.opened.get_mut(&id).unwrap().list;
        let mut added = Vec::new();
        for _ in 0..=rng.up_to(1) {
            if self.broken == Broken::ReuseBeforeOutcome
                && let Some(block) = list.first().copied()
            {
                self.memory.free.push(block.slot);
            }
            let Some(slot) = self.memory.free.pop() else { break };
            let expected = self.memory.fresh();
            let block = Block { pool: PoolId(0), slot, expected, ready: 0 };
            match self.broken {
                Broken::ReuseWithoutInvalidation | Broken::ReuseBeforeOutcome => {
                    self.memory.write(slot, 0..PARTS, expected.generation);
                    self.late.push(block);
                }
                Broken::Nothing | Broken::ReadyBeforeBytes => {
                    self.memory.slots[slot as usize].entry = expected;
                }
            }
            added.push(block);
        }
        self.handovers.append(id, &added).unwrap();
        list.extend(added);
    }

    /// Writes parts of some blocks, and says that they are ready.
    fn raise(&mut self, rng: &mut SplitMix64, id: HandoverId) {
        let list = &mut self.opened.get_mut(&id).unwrap().list;
        let start = rng.up_to(list.len() as u64) as usize;
        let end = if rng.up_to(2) > 0 { list.len() } else { start };
        let start = if rng.up_to(1) > 0 { 0 } else { start };
        let mut parts = 1 + rng.up_to(PARTS as u64 - 1) as u32;
        if rng.up_to(9) == 0 {
            parts = WHOLE_PAGE;
        }
        for block in &mut list[start..end] {
            if block.ready >= parts {
                continue;
            }
            if self.broken == Broken::ReadyBeforeBytes {
                self.late.push(*block);
            } else {
                let to = (parts as usize).min(PARTS);
                self.memory.write(block.slot, block.ready as usize..to, block.expected.generation);
            }
            block.ready = parts;
        }
        self.handovers.set_ready(id, start as u32..end as u32, parts).unwrap();
    }

    fn write_late(&mut self) {
        for block in self.late.drain(..) {
            if self.broken != Broken::ReadyBeforeBytes {
                self.memory.slots[block.slot as usize].entry = block.expected;
            }
            self.memory.write(block.slot, 0..PARTS, block.expected.generation);
        }
    }

    /// Does what is due, takes outcomes, and checks that each hand-over has one and in time.
    pub(super) fn check(&mut self, now: Instant) {
        if self.handovers.due().is_some_and(|at| at <= now) {
            self.handovers.tick(now);
        }
        assert!(self.handovers.due().is_none_or(|at| at > now), "a tick leaves nothing that is due");
        while let Some(EndedHandover { id, outcome, blocks, .. }) = self.handovers.next_outcome() {
            let opened = self.opened.get_mut(&id).expect("an outcome of a hand-over that was opened");
            assert!(opened.is_open, "a second outcome, {outcome:?}, of {id}");
            opened.is_open = false;
            self.open.retain(|&other| other != id);
            assert_eq!(blocks, opened.list, "the owner gets its list back");
            if outcome == HandoverOutcome::Expired {
                assert!(now >= opened.surely_renewed + LEASE, "{id} expired before its lease ended");
            }
            for block in blocks {
                if !matches!(self.broken, Broken::ReuseWithoutInvalidation | Broken::ReuseBeforeOutcome) {
                    self.memory.invalidate(block.slot);
                }
                self.memory.free.push(block.slot);
            }
        }
        for id in &self.open {
            assert!(now < self.opened[id].renewed + LEASE, "{id} is open after the end of its lease");
        }
        let count = self.handovers.open_count();
        assert_eq!(self.open.len(), count, "each hand-over is open or has an outcome");
    }

    /// A message of a reader arrives.
    pub(super) fn receive(&mut self, session: SessionId, message: &HandoverMessage, now: Instant) {
        self.check(now);
        let mut renew = |id: HandoverId, surely: bool| {
            let Some(opened) = self.opened.get_mut(&id).filter(|opened| opened.is_open) else { return };
            opened.renewed = now;
            if surely {
                opened.surely_renewed = now;
            }
        };
        match message {
            HandoverMessage::Take { request, .. } => {
                if let Some(id) = self.handovers.of_request(*request)
                    && !self.takers.values().any(|&taken| taken == id)
                {
                    renew(id, false);
                }
            }
            HandoverMessage::Renew { numbers } => {
                for &number in numbers {
                    renew(self.takers[&(session, number)], true);
                }
            }
            _ => {}
        }
        self.handovers.received(session, message, now).unwrap();
    }

    /// The next message for a session's reader.
    pub(super) fn send(&mut self, session: SessionId, now: Instant) -> Option<HandoverMessage> {
        let message = self.handovers.next_message(session, now)?;
        if let HandoverMessage::Taken { number, .. } = message {
            let id = self.handovers.taken_by(session, number).unwrap();
            assert!(!self.takers.values().any(|&taken| taken == id), "{id} was given to two takers");
            self.takers.insert((session, number), id);
        }
        Some(message)
    }

    /// The connection of a session has ended.
    pub(super) fn lose(&mut self, session: SessionId, now: Instant) {
        self.handovers.session_lost(session, now);
        self.check(now);
        for (_, id) in self
            .takers
            .range((session, HandoverNumber(NonZeroU32::MIN))..)
            .take_while(|((of, _), _)| *of == session)
        {
            assert!(!self.opened[id].is_open, "{id} outlived its session");
        }
    }
}
