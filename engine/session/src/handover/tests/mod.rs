//! Each rule of a hand-over by name, and both sides against a model of the memory.

mod leases;
mod messages;
mod model;
mod owner;
mod ranges;
mod reader;
mod rng;
mod sessions;

use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use kvrail_core::table::{EntryValue, Generation, KeyTag, Ready};

use super::*;

const URGENT: Class = Class::Urgent;
const REQUEST: RequestId = RequestId(7);
const A: SessionId = SessionId(1);
const B: SessionId = SessionId(2);

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn number(number: u32) -> HandoverNumber {
    HandoverNumber(NonZeroU32::new(number).unwrap())
}

fn blocks(slots: std::ops::Range<u32>, ready: u32) -> Vec<Block> {
    let expected = |slot| EntryValue {
        generation: Generation(u64::from(slot) << 1 | 1),
        ready: Ready(0),
        tag: KeyTag(9),
    };
    slots.map(|slot| Block { pool: PoolId(3), slot, expected: expected(slot), ready }).collect()
}

/// A producer with two sessions, and a time.
fn producer() -> (Handovers, Instant) {
    producer_of(HandoverConfig::default())
}

fn producer_of(config: HandoverConfig) -> (Handovers, Instant) {
    let mut producer = Handovers::new(config).unwrap();
    producer.add_session(A);
    producer.add_session(B);
    (producer, Instant::now())
}

/// Takes `REQUEST` for session `A` as number 1.
fn take(producer: &mut Handovers, now: Instant) {
    producer.take(A, number(1), REQUEST, URGENT, secs(10), now).unwrap();
}

fn said(producer: &mut Handovers, session: SessionId, now: Instant) -> Vec<HandoverMessage> {
    std::iter::from_fn(|| producer.next_message(session, now)).collect()
}

fn ended(at: u32, reason: EndReason) -> HandoverMessage {
    HandoverMessage::Ended { number: number(at), reason }
}

fn taken(at: u32) -> HandoverMessage {
    HandoverMessage::Taken { number: number(at), lease: secs(30), renew_every: secs(5) }
}

fn outcomes(producer: &mut Handovers) -> Vec<(HandoverId, HandoverOutcome, usize)> {
    std::iter::from_fn(|| producer.next_outcome())
        .map(|ended| (ended.id, ended.outcome, ended.blocks.len()))
        .collect()
}
