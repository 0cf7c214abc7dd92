//! A reader of the model: its takings, and its READs of the producer's memory.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use kvrail_core::table::Generation;

use super::super::super::*;
use super::super::rng::SplitMix64;
use super::memory::{Memory, PARTS};
use super::owner::{Producer, REQUESTS};

/// Messages of one direction, each with the time at which it arrives, in order.
pub(super) type Wire = VecDeque<(Instant, HandoverMessage)>;

/// A part that was READ, before the entry is.
#[derive(Debug)]
struct Pulled {
    number: HandoverNumber,
    block: Block,
    found: Generation,
}

#[derive(Debug)]
pub(super) struct Puller {
    pub(super) takings: Takings,
    pub(super) session: SessionId,
    pub(super) to_producer: Wire,
    pub(super) to_reader: Wire,
    /// How much this reader's clock is behind: it stands still while the reader is suspended.
    pub(super) behind: Duration,
    pub(super) asleep_until: Option<Instant>,
    pub(super) numbers: Vec<HandoverNumber>,
    pulled: Vec<Pulled>,
}

impl Puller {
    pub(super) fn new(session: SessionId, behind: Duration) -> Self {
        Self {
            takings: Takings::new(TakingsConfig {
                max_takings: 4,
                max_blocks: 8,
                ..TakingsConfig::default()
            }),
            session,
            to_producer: Wire::new(),
            to_reader: Wire::new(),
            behind,
            asleep_until: None,
            numbers: Vec::new(),
            pulled: Vec::new(),
        }
    }

    /// One random step of the reader, at the time of its own clock. Gives how many parts it
    /// accepted, and how many of them wrongly.
    pub(super) fn step(&mut self, rng: &mut SplitMix64, memory: &Memory, now: Instant) -> (u32, u32) {
        match rng.up_to(15) {
            0 => self.end_one(rng),
            1..=3 => self.take(rng, now),
            4..=10 => self.pull(rng, memory),
            11..=14 => return self.validate(memory),
            _ => {}
        }
        (0, 0)
    }

    /// Ends a taking.
    fn end_one(&mut self, rng: &mut SplitMix64) {
        let which = rng.up_to(self.numbers.len().saturating_sub(1) as u64) as usize;
        let Some(&number) = self.numbers.get(which) else { return };
        let done = rng.up_to(1) == 1 && self.takings.done(number).is_ok();
        if !done {
            self.takings.give_up(number, GiveUpReason::ClientGone).unwrap();
        }
        self.numbers.retain(|&other| other != number);
        // The owner of the takings is done when its last READ has ended.
        self.pulled.retain(|pulled| pulled.number != number);
    }

    /// READs a part that is ready, of each taking that has one.
    fn pull(&mut self, rng: &mut SplitMix64, memory: &Memory) {
        for &number in &self.numbers {
            let blocks = self.takings.blocks(number);
            let at = rng.up_to(blocks.len().saturating_sub(1) as u64) as usize;
            if let Some(&block) = blocks.get(at).filter(|block| block.ready > 0) {
                let part = rng.up_to(u64::from(block.ready).min(PARTS as u64) - 1) as usize;
                let found = memory.slots[block.slot as usize].parts[part];
                self.pulled.push(Pulled { number, block, found });
            }
        }
    }

    fn take(&mut self, rng: &mut SplitMix64, now: Instant) {
        let request = RequestId(rng.up_to(REQUESTS - 1).into());
        let class = if rng.up_to(1) == 0 { Class::Urgent } else { Class::Background };
        let wait = Duration::from_secs([0, 1, 10, 60][rng.up_to(3) as usize]);
        match self.takings.take(request, class, wait, now) {
            Ok(number) => self.numbers.push(number),
            Err(error) => assert!(matches!(error, TakingError::TooMany { open: 4, .. }), "{error}"),
        }
    }

    /// READs the entries of all parts that were READ.
    fn validate(&mut self, memory: &Memory) -> (u32, u32) {
        let (mut accepted, mut wrong) = (0, 0);
        for Pulled { block, found, .. } in self.pulled.drain(..) {
            if memory.slots[block.slot as usize].entry.check(block.expected).is_ok() {
                accepted += 1;
                wrong += u32::from(found != block.expected.generation);
            }
        }
        (accepted, wrong)
    }

    /// A message of the producer arrives; checks the list against that of the owner.
    pub(super) fn receive(&mut self, message: HandoverMessage, producer: &Producer, now: Instant) {
        self.takings.received(message, now).unwrap();
        self.check(producer);
        self.fetch_events();
    }

    pub(super) fn fetch_events(&mut self) {
        while let Some(event) = self.takings.next_event() {
            match event {
                TakingEvent::Ended { number, .. }
                | TakingEvent::TooLong { number, .. }
                | TakingEvent::Unanswered { number } => self.numbers.retain(|&other| other != number),
                TakingEvent::Grown { number, places } => {
                    assert_eq!(places.end as usize, self.takings.blocks(number).len());
                }
                TakingEvent::Ready { number, places, parts } => {
                    let named = &self.takings.blocks(number)[places.start as usize..places.end as usize];
                    assert!(!named.is_empty() && named.iter().all(|block| block.ready == parts));
                }
                _ => {}
            }
        }
    }

    fn check(&self, producer: &Producer) {
        for &number in &self.numbers {
            let blocks = self.takings.blocks(number);
            let Some(id) = producer.takers.get(&(self.session, number)) else {
                assert!(blocks.is_empty());
                continue;
            };
            let owned = &producer.opened[id];
            assert!(blocks.len() <= owned.list.len(), "{id}");
            for (have, of) in blocks.iter().zip(&owned.list) {
                assert_eq!((have.slot, have.expected), (of.slot, of.expected), "{id}");
                assert!(have.ready <= of.ready, "{id}: {} of {} parts", have.ready, of.ready);
            }
        }
    }

    /// Checks that the reader knows all of its open hand-overs, after all messages have arrived.
    pub(super) fn check_all_arrived(&self, producer: &Producer) {
        for &number in &self.numbers {
            let Some(id) = producer.takers.get(&(self.session, number)) else { continue };
            let owned = &producer.opened[id];
            assert!(owned.is_open, "the end of {id} has arrived");
            assert_eq!(self.takings.blocks(number), owned.list, "{id}");
            assert_eq!(self.takings.is_complete(number), owned.complete, "{id}");
        }
    }

    /// Forgets the READs, which a lost connection ends.
    pub(super) fn drop_reads(&mut self) {
        self.pulled.clear();
    }
}
