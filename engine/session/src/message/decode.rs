//! How bytes become messages. Parsing never panics, and allocates nothing by a number that it
//! reads: a list has room for the items that came, after their count was compared with its bounds.

use std::mem::offset_of;
use std::num::{NonZeroU32, NonZeroU64};

use kvrail_core::id::{MAX_RAILS, RailIndex};
use kvrail_core::remote::{RegionOffer, TableOffer};
use zerocopy::FromBytes;
use zerocopy::little_endian::U32;

use super::error::{MessageField, ParseError};
use super::fields::{Parts, layout, name, numbers};
use super::kind::MessageKind;
use super::types::{
    ByeReason, Introduction, LaneAnswer, LaneAnswers, LaneAsk, LaneAsks, LaneNumber, LaneRefusal,
    LaneRefusalCode, Message, OfferHead, PoolHead, PoolRegions,
};
use super::wire::{self, ADDITION, Form, HEADER, MANDATORY, MAX_MESSAGE_BYTES, PASS_OVER};
use super::{handover, service};
use crate::offer::{
    Epoch, LaneBlob, MAX_REGIONS, OfferedRegion, RailAddress, RailDescription, TransportKind,
};
use crate::pool::PoolId;
use crate::refusal::Refusal;
use crate::service::ServiceAnswer;

/// Parses `bytes`, which must be one message and nothing else.
///
/// An accepted message is canonical: [`Message::encode`] gives the same bytes again. Exceptions are
/// what a later version may add: additions that may be skipped, kinds that may be passed over, and
/// the number beside an unknown reason of a refusal.
///
/// # Errors
///
/// The bytes are not a message: the error names the field and the numbers.
pub fn parse(bytes: &[u8]) -> Result<Message, ParseError> {
    let got = bytes.len();
    let (header, _) = wire::Header::ref_from_prefix(bytes).map_err(|_| ParseError::Header { got })?;
    let number = header.kind.get();
    let Some(kind) = MessageKind::from_wire(number) else {
        let passed_over = number & PASS_OVER != 0;
        return if passed_over {
            Ok(Message::PassedOver(number))
        } else {
            Err(ParseError::UnknownKind { got: number })
        };
    };
    let (parts, body) = open(bytes, kind)?;
    let message = content(parts)?;
    check_canonical(&message, body)?;
    Ok(message)
}

/// The parts of a message of this kind, and its bytes without its additions.
fn open(bytes: &[u8], kind: MessageKind) -> Result<(Parts<'_>, &[u8]), ParseError> {
    let got = bytes.len();
    let (header, _) = wire::Header::ref_from_prefix(bytes).map_err(|_| ParseError::Header { got })?;
    let (form, count) = (Form::of(kind), usize::from(header.count.get()));
    if count < form.min || count > form.max {
        let field = MessageField::of_message("count");
        return Err(ParseError::Field { kind, field, got: count as u64, want: form.bounds });
    }
    let added = usize::from(header.additions.get());
    let want = form.bytes(count) + added;
    if want > MAX_MESSAGE_BYTES {
        return Err(ParseError::Size { kind, got: want });
    }
    match got {
        _ if got < want => return Err(ParseError::Short { kind, got, want }),
        _ if got > want => return Err(ParseError::Long { kind, got, want }),
        _ => {}
    }
    let (body, additions) = bytes.split_at(want - added);
    check_additions(kind, body.len(), additions)?;
    Ok((Parts::new(kind, body, added), body))
}

/// Parses `bytes` if they are a message of the kind `Answer`, as [`parse`] does: a [`Message`] is
/// long, and answers come often.
pub(crate) fn parse_answer(bytes: &[u8]) -> Option<Result<ServiceAnswer, ParseError>> {
    let kind = MessageKind::Answer;
    let is_one = bytes.first_chunk() == Some(&(kind as u16).to_le_bytes());
    is_one.then(|| {
        let (parts, body) = open(bytes, kind)?;
        check_header(kind, body)?;
        service::answer(parts)
    })
}

/// Checks that `additions` are additions, and that none of them must be understood.
fn check_additions(kind: MessageKind, begin: usize, additions: &[u8]) -> Result<(), ParseError> {
    let mut rest = additions;
    while !rest.is_empty() {
        let cut = |want| {
            let at = begin + additions.len() - rest.len();
            ParseError::AdditionCut { kind, at, got: rest.len(), want }
        };
        let (head, behind) = wire::Addition::ref_from_prefix(rest).map_err(|_| cut(ADDITION))?;
        let length = usize::from(head.length.get());
        let behind = behind.get(length..).ok_or_else(|| cut(ADDITION + length))?;
        let tag = head.tag.get();
        if tag & MANDATORY != 0 {
            return Err(ParseError::AdditionUnknown { kind, tag });
        }
        rest = behind;
    }
    Ok(())
}

/// Checks that a message's bytes are those that this side would have sent, so that no reserved
/// byte has a value.
fn check_canonical(message: &Message, body: &[u8]) -> Result<(), ParseError> {
    let Some(kind) = message.kind() else { return Ok(()) };
    if let Message::Ask(_) | Message::Answer(_) = message {
        // Their parsers check their own reserved bytes, and every content is canonical.
        return check_header(kind, body);
    }
    let mut canonical = Vec::with_capacity(body.len());
    message.encode(&mut canonical);
    // The number of bytes of additions was compared with the length.
    let additions = offset_of!(wire::Header, additions)..offset_of!(wire::Header, zero);
    // The meaning of the number beside an unknown reason is not known either.
    let unknown = matches!(message, Message::Refused(Refusal::Other { .. }));
    let end = if unknown { HEADER + offset_of!(wire::Refused, number) } else { body.len() };
    let mut pairs = body.iter().zip(&canonical).enumerate().take(end);
    match pairs.find(|(at, (got, want))| got != want && !additions.contains(at)) {
        Some((at, (&got, &want))) => Err(ParseError::Stray { kind, at, got, want }),
        None => Ok(()),
    }
}

/// Checks that the reserved part of a header has no value.
fn check_header(kind: MessageKind, body: &[u8]) -> Result<(), ParseError> {
    let zero = offset_of!(wire::Header, zero);
    let stray = body[zero..HEADER].iter().enumerate().find(|&(_, &got)| got != 0);
    stray.map_or(Ok(()), |(place, &got)| Err(ParseError::Stray { kind, at: zero + place, got, want: 0 }))
}

fn content(parts: Parts<'_>) -> Result<Message, ParseError> {
    Ok(match parts.kind {
        MessageKind::Introduction => Message::Introduction(introduction(parts)?),
        MessageKind::Offer => Message::Offer(offer(parts)?),
        MessageKind::Pool => Message::Pool(pool(parts)?),
        MessageKind::Regions => Message::Regions(regions(parts)?),
        MessageKind::Unknown => {
            Message::Unknown(layout(parts.kind, parts.fixed()?, MessageField::of_message)?)
        }
        MessageKind::Offered => Message::Offered,
        MessageKind::Gone => Message::Gone(PoolId(parts.fixed::<wire::Gone>()?.pool.get())),
        MessageKind::Refused => Message::Refused(refusal(parts)?),
        MessageKind::Lanes => Message::Lanes(asks(parts)?),
        MessageKind::LanesReady => Message::LanesReady(answers(parts)?),
        MessageKind::Release => Message::Release(numbers(parts, LaneNumber)?),
        MessageKind::Bye => Message::Bye(ByeReason::from_wire(parts.fixed::<wire::Bye>()?.reason.get())),
        MessageKind::Alive => Message::Alive,
        MessageKind::Take => Message::Handover(handover::take(parts)?),
        MessageKind::Renew => Message::Handover(handover::renew(parts)?),
        MessageKind::Done => Message::Handover(handover::done(parts)?),
        MessageKind::GiveUp => Message::Handover(handover::give_up(parts)?),
        MessageKind::Taken => Message::Handover(handover::taken(parts)?),
        MessageKind::Blocks => Message::Handover(handover::blocks(parts)?),
        MessageKind::Ready => Message::Handover(handover::ready(parts)?),
        MessageKind::Complete => Message::Handover(handover::complete(parts)?),
        MessageKind::Ended => Message::Handover(handover::ended(parts)?),
        MessageKind::Ask => Message::Ask(service::ask(parts)?),
        MessageKind::Answer => Message::Answer(service::answer(parts)?),
    })
}

fn introduction(parts: Parts<'_>) -> Result<Introduction, ParseError> {
    let (read, layouts): (&wire::Introduction, &[wire::Layout]) = (parts.fixed()?, parts.items()?);
    let layouts = layouts
        .iter()
        .enumerate()
        .map(|(index, read)| layout(parts.kind, read, |field| MessageField::of_item("layout", index, field)));
    Ok(Introduction {
        node: name(parts.kind, MessageField::of_message("node"), &read.node)?,
        layouts: layouts.collect::<Result<_, _>>()?,
    })
}

fn offer(parts: Parts<'_>) -> Result<OfferHead, ParseError> {
    let (read, rails): (&wire::Offer, &[wire::Rail]) = (parts.fixed()?, parts.items()?);
    let epoch = NonZeroU64::new(read.epoch.get());
    Ok(OfferHead {
        node: name(parts.kind, MessageField::of_message("node"), &read.node)?,
        epoch: Epoch(epoch.ok_or_else(|| parts.field("epoch", 0_u64, "any other number"))?),
        rails: list(parts, rails.iter().enumerate().map(|(index, read)| rail(parts.kind, index, read)))?,
    })
}

fn rail(kind: MessageKind, index: usize, read: &wire::Rail) -> Result<RailDescription, ParseError> {
    let field = |name| MessageField::of_item("rail", index, name);
    let wrong = |name, got: u8, want| ParseError::Field { kind, field: field(name), got: got.into(), want };
    Ok(RailDescription {
        name: name(kind, field("name"), &read.name)?,
        kind: TransportKind::from_wire(read.kind)
            .ok_or_else(|| wrong("kind", 0, "the number of a transport, at least 1"))?,
        address: RailAddress(read.address),
        nominal_bytes_per_sec: read.nominal_bytes_per_sec.get(),
        numa: match read.numa_known {
            0 => None,
            1 => Some(read.numa),
            got => return Err(wrong("numa_known", got, "0 or 1")),
        },
        lanes: read.lanes.get(),
    })
}

fn pool(parts: Parts<'_>) -> Result<PoolHead, ParseError> {
    let read: &wire::Pool = parts.fixed()?;
    let regions = read.regions.get();
    if regions as usize > MAX_REGIONS {
        return Err(parts.field("regions", regions, "at most 1024"));
    }
    let layout = layout(parts.kind, &read.layout, MessageField::of_message)?;
    Ok(PoolHead { id: PoolId(read.id.get()), layout, regions })
}

fn regions(parts: Parts<'_>) -> Result<PoolRegions, ParseError> {
    let (read, regions): (&wire::Regions, &[wire::Region]) = (parts.fixed()?, parts.items()?);
    let first = read.first.get();
    if (first as usize).saturating_add(regions.len()) > MAX_REGIONS {
        return Err(parts.field("first", first, "at most 1024 less the number of regions"));
    }
    let regions = regions.iter().enumerate().map(|(index, read)| region(parts.kind, index, read));
    Ok(PoolRegions { pool: PoolId(read.pool.get()), first, regions: regions.collect::<Result<_, _>>()? })
}

// The texts above name these numbers.
const _: () = assert!(MAX_REGIONS == 1024 && MAX_RAILS == 16);

fn region(kind: MessageKind, index: usize, read: &wire::Region) -> Result<OfferedRegion, ParseError> {
    let keys = |keys: &[U32; MAX_RAILS]| keys.map(U32::get);
    let offer = RegionOffer {
        base: read.base.get(),
        page_bytes: read.page_bytes.get(),
        stride: read.stride.get(),
        slots: read.slots.get(),
        keys: keys(&read.keys),
        table: match read.has_table {
            0 => None,
            1 => Some(TableOffer { base: read.table_base.get(), keys: keys(&read.table_keys) }),
            got => {
                let field = MessageField::of_item("region", index, "has_table");
                return Err(ParseError::Field { kind, field, got: got.into(), want: "0 or 1" });
            }
        },
    };
    let region = OfferedRegion::new(offer).map(|region| region.of_part(read.part.get()));
    region.map_err(|source| ParseError::Region { kind, index, source })
}

fn refusal(parts: Parts<'_>) -> Result<Refusal, ParseError> {
    let read: &wire::Refused = parts.fixed()?;
    let (reason, number) = (read.reason.get(), read.number.get());
    // 1 and 2 are those for a version and a key.
    if reason <= 2 {
        return Err(parts.field("reason", reason, "one that comes after the handshake, at least 3"));
    }
    let refusal = Refusal::of_message(reason, number);
    match refusal {
        Refusal::Malformed { .. } if u16::try_from(number).is_err() => {
            Err(parts.field("number", number, "a message's kind, below 65536"))
        }
        Refusal::Stopping if number != 0 => Err(parts.field("number", number, "0 for this reason")),
        refusal => Ok(refusal),
    }
}

/// Parts of a lane that its request and its answer have.
struct LaneHead {
    number: LaneNumber,
    rail: RailIndex,
    remote_rail: RailIndex,
}

fn lane(kind: MessageKind, index: usize, read: &wire::Lane) -> Result<LaneHead, ParseError> {
    let field = |name, got: u64, want| {
        let field = MessageField::of_item("lane", index, name);
        ParseError::Field { kind, field, got, want }
    };
    let rail = |name, rail: u8| {
        let known = usize::from(rail) < MAX_RAILS;
        if known { Ok(RailIndex(rail)) } else { Err(field(name, rail.into(), "below 16")) }
    };
    let number = NonZeroU32::new(read.number.get());
    Ok(LaneHead {
        number: LaneNumber(number.ok_or_else(|| field("number", 0, "at least 1"))?),
        rail: rail("rail", read.rail)?,
        remote_rail: rail("remote_rail", read.remote_rail)?,
    })
}

fn exchange(parts: Parts<'_>) -> Result<u32, ParseError> {
    match parts.fixed::<wire::Lanes>()?.exchange.get() {
        0 => Err(parts.field("exchange", 0_u32, "at least 1")),
        exchange => Ok(exchange),
    }
}

fn asks(parts: Parts<'_>) -> Result<LaneAsks, ParseError> {
    let lanes = parts.items::<wire::Lane>()?.iter().enumerate().map(|(index, read)| {
        let LaneHead { number, rail, remote_rail } = lane(parts.kind, index, read)?;
        Ok(LaneAsk { number, rail, remote_rail, blob: LaneBlob(read.blob) })
    });
    Ok(LaneAsks { exchange: exchange(parts)?, lanes: list(parts, lanes)? })
}

fn answers(parts: Parts<'_>) -> Result<LaneAnswers, ParseError> {
    let lanes = parts.items::<wire::Lane>()?.iter().enumerate().map(|(index, read)| {
        let LaneHead { number, rail, remote_rail } = lane(parts.kind, index, read)?;
        let result = match LaneRefusalCode::from_wire(read.status.get()) {
            None => Ok(LaneBlob(read.blob)),
            Some(code) => {
                let field = MessageField::of_item("lane", index, "text");
                Err(LaneRefusal { code, text: name(parts.kind, field, &read.blob)? })
            }
        };
        Ok(LaneAnswer { number, rail, remote_rail, result })
    });
    Ok(LaneAnswers { exchange: exchange(parts)?, lanes: list(parts, lanes)? })
}

/// A list parsed from no more than `N` items is no longer than `N`.
fn list<T, const N: usize>(
    parts: Parts<'_>,
    items: impl Iterator<Item = Result<T, ParseError>>,
) -> Result<heapless::Vec<T, N>, ParseError> {
    let mut list = heapless::Vec::new();
    for item in items {
        let full = |_| parts.field("count", N as u64 + 1, Form::of(parts.kind).bounds);
        list.push(item?).map_err(full)?;
    }
    Ok(list)
}
