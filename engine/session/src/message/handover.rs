//! The bytes of hand-over messages.

use std::num::NonZeroU32;
use std::ops::RangeInclusive;
use std::time::Duration;

use kvrail_core::table::{EntryValue, Generation, KeyTag, Ready};
use zerocopy::little_endian::{U16, U32, U64, U128};

use super::error::{MessageField, ParseError};
use super::fields::{Output, Parts, numbers};
use super::kind::MessageKind;
use super::wire;
use crate::handover::{
    Block, Class, EndReason, GiveUpReason, HandoverMessage, HandoverNumber, MAX_LEASE, MAX_WAIT,
    MIN_RENEW_EVERY, RequestId,
};
use crate::pool::PoolId;

pub(super) fn encode(message: &HandoverMessage, out: Output<'_>) {
    let wire_number = |number: &HandoverNumber| U32::new(number.0.get());
    match message {
        HandoverMessage::Take { number, request, class, wait } => out.fixed(&wire::Take {
            number: wire_number(number),
            class: class_to_wire(*class),
            zero: [0; 3],
            wait: write_time(*wait),
            request: U128::new(request.0),
        }),
        HandoverMessage::Renew { numbers } => out.list(&(), numbers.iter().map(wire_number)),
        HandoverMessage::Done { number } => out.fixed(&wire::Done { number: wire_number(number) }),
        HandoverMessage::GiveUp { number, reason } => {
            let reason = U16::new(give_up_to_wire(*reason));
            out.fixed(&wire::Ended { number: wire_number(number), reason, zero: U16::new(0) });
        }
        HandoverMessage::Taken { number, lease, renew_every } => out.fixed(&wire::Taken {
            number: wire_number(number),
            zero: U32::new(0),
            lease: write_time(*lease),
            renew_every: write_time(*renew_every),
        }),
        HandoverMessage::Blocks { number, first, blocks } => {
            let fixed = wire::Blocks { number: wire_number(number), first: U32::new(*first) };
            out.list(&fixed, blocks.iter().map(write_block));
        }
        HandoverMessage::Ready { number, first, count, ready } => out.fixed(&wire::Ready {
            number: wire_number(number),
            first: U32::new(*first),
            blocks: U32::new(*count),
            ready: U32::new(*ready),
        }),
        HandoverMessage::Complete { number, blocks } => {
            out.fixed(&wire::Complete { number: wire_number(number), blocks: U32::new(*blocks) });
        }
        HandoverMessage::Ended { number, reason } => {
            let reason = U16::new(end_to_wire(*reason));
            out.fixed(&wire::Ended { number: wire_number(number), reason, zero: U16::new(0) });
        }
    }
}

/// The parts that are ready are those of the block, and not of its expected entry: the owner's
/// list raises the former.
fn write_block(block: &Block) -> wire::Block {
    wire::Block {
        pool: U32::new(block.pool.0),
        slot: U32::new(block.slot),
        generation: U64::new(block.expected.generation.0),
        tag: U128::new(block.expected.tag.0),
        ready: U32::new(block.ready),
    }
}

pub(super) fn take(parts: Parts<'_>) -> Result<HandoverMessage, ParseError> {
    let read: &wire::Take = parts.fixed()?;
    let class = match read.class {
        1 => Class::Urgent,
        2 => Class::Background,
        got => return Err(parts.field("class", got, "1 (urgent) or 2 (background)")),
    };
    let bounds = Duration::ZERO..=MAX_WAIT;
    Ok(HandoverMessage::Take {
        number: handover_number(parts, read.number)?,
        request: RequestId(read.request.get()),
        class,
        wait: time(parts, "wait", read.wait, bounds, "at most 60 seconds, in nanoseconds")?,
    })
}

pub(super) fn renew(parts: Parts<'_>) -> Result<HandoverMessage, ParseError> {
    Ok(HandoverMessage::Renew { numbers: numbers(parts, HandoverNumber)? })
}

pub(super) fn done(parts: Parts<'_>) -> Result<HandoverMessage, ParseError> {
    let read: &wire::Done = parts.fixed()?;
    Ok(HandoverMessage::Done { number: handover_number(parts, read.number)? })
}

pub(super) fn give_up(parts: Parts<'_>) -> Result<HandoverMessage, ParseError> {
    let read: &wire::Ended = parts.fixed()?;
    let reason = match read.reason.get() {
        1 => GiveUpReason::ClientGone,
        2 => GiveUpReason::NoRoom,
        3 => GiveUpReason::Failed,
        other => GiveUpReason::Other(other),
    };
    Ok(HandoverMessage::GiveUp { number: handover_number(parts, read.number)?, reason })
}

pub(super) fn taken(parts: Parts<'_>) -> Result<HandoverMessage, ParseError> {
    let read: &wire::Taken = parts.fixed()?;
    let number = handover_number(parts, read.number)?;
    let lease = MIN_RENEW_EVERY..=MAX_LEASE;
    let lease = time(parts, "lease", read.lease, lease, "0.1 seconds to 24 hours, in nanoseconds")?;
    let every = MIN_RENEW_EVERY..=lease.saturating_sub(Duration::from_nanos(1));
    let want = "at least 0.1 seconds and less than the lease, in nanoseconds";
    let renew_every = time(parts, "renew_every", read.renew_every, every, want)?;
    Ok(HandoverMessage::Taken { number, lease, renew_every })
}

pub(super) fn blocks(parts: Parts<'_>) -> Result<HandoverMessage, ParseError> {
    let (read, blocks): (&wire::Blocks, &[wire::Block]) = (parts.fixed()?, parts.items()?);
    let number = handover_number(parts, read.number)?;
    let first = read.first.get();
    if first.checked_add(blocks.len() as u32).is_none() {
        return Err(parts.field("first", first, "at most 2^32 - 1 less the number of blocks"));
    }
    let blocks: Result<_, _> =
        blocks.iter().enumerate().map(|(index, read)| block(parts.kind, index, read)).collect();
    Ok(HandoverMessage::Blocks { number, first, blocks: blocks? })
}

fn block(kind: MessageKind, index: usize, read: &wire::Block) -> Result<Block, ParseError> {
    let (generation, ready) = (Generation(read.generation.get()), read.ready.get());
    if !generation.is_valid() {
        let field = MessageField::of_item("block", index, "generation");
        let want = "that of a published page, an odd number";
        return Err(ParseError::Field { kind, field, got: generation.0, want });
    }
    Ok(Block {
        pool: PoolId(read.pool.get()),
        slot: read.slot.get(),
        expected: EntryValue { generation, ready: Ready(ready), tag: KeyTag(read.tag.get()) },
        ready,
    })
}

pub(super) fn ready(parts: Parts<'_>) -> Result<HandoverMessage, ParseError> {
    let read: &wire::Ready = parts.fixed()?;
    let number = handover_number(parts, read.number)?;
    let (first, count) = (read.first.get(), read.blocks.get());
    if count == 0 {
        return Err(parts.field("blocks", count, "at least 1"));
    }
    if first.checked_add(count).is_none() {
        return Err(parts.field("first", first, "at most 2^32 - 1 less the number of blocks"));
    }
    Ok(HandoverMessage::Ready { number, first, count, ready: read.ready.get() })
}

pub(super) fn complete(parts: Parts<'_>) -> Result<HandoverMessage, ParseError> {
    let read: &wire::Complete = parts.fixed()?;
    Ok(HandoverMessage::Complete { number: handover_number(parts, read.number)?, blocks: read.blocks.get() })
}

pub(super) fn ended(parts: Parts<'_>) -> Result<HandoverMessage, ParseError> {
    let read: &wire::Ended = parts.fixed()?;
    let reason = match read.reason.get() {
        1 => EndReason::Aborted,
        2 => EndReason::Rejected,
        3 => EndReason::Unknown,
        4 => EndReason::Expired,
        5 => EndReason::TakenByOther,
        6 => EndReason::TooMany,
        7 => EndReason::Stopping,
        other => EndReason::Other(other),
    };
    Ok(HandoverMessage::Ended { number: handover_number(parts, read.number)?, reason })
}

/// The number of the hand-over that a message is about.
fn handover_number(parts: Parts<'_>, number: U32) -> Result<HandoverNumber, ParseError> {
    let number = NonZeroU32::new(number.get());
    number.map(HandoverNumber).ok_or_else(|| parts.field("number", 0_u32, "at least 1"))
}

/// A time in nanoseconds. The bounds of every time are far below 2^64.
fn write_time(time: Duration) -> U64 {
    U64::new(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX))
}

fn time(
    parts: Parts<'_>,
    field: &'static str,
    nanos: U64,
    bounds: RangeInclusive<Duration>,
    want: &'static str,
) -> Result<Duration, ParseError> {
    let time = Duration::from_nanos(nanos.get());
    if bounds.contains(&time) { Ok(time) } else { Err(parts.field(field, nanos.get(), want)) }
}

// The texts above name these times.
const _: () = {
    assert!(MAX_WAIT.as_secs() == 60 && MAX_LEASE.as_secs() == 24 * 60 * 60);
    assert!(MIN_RENEW_EVERY.as_millis() == 100);
};

const fn class_to_wire(class: Class) -> u8 {
    match class {
        Class::Urgent => 1,
        // A class that this crate does not know comes after the urgent one.
        _ => 2,
    }
}

const fn give_up_to_wire(reason: GiveUpReason) -> u16 {
    match reason {
        GiveUpReason::ClientGone => 1,
        GiveUpReason::NoRoom => 2,
        GiveUpReason::Failed => 3,
        GiveUpReason::Other(reason) => reason,
    }
}

const fn end_to_wire(reason: EndReason) -> u16 {
    match reason {
        EndReason::Aborted => 1,
        EndReason::Rejected => 2,
        EndReason::Unknown => 3,
        EndReason::Expired => 4,
        EndReason::TakenByOther => 5,
        EndReason::TooMany => 6,
        EndReason::Stopping => 7,
        EndReason::Other(reason) => reason,
    }
}
