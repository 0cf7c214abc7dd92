//! How bytes become messages. Parsing never panics, and allocates nothing by a number that it
//! reads: counts are compared with the fixed length of their array first.

use std::num::{NonZeroU16, NonZeroU32, NonZeroU64};

use heapless::Vec;
use kvrail_core::id::{MAX_RAILS, RailIndex};
use kvrail_core::remote::{RegionOffer, TableOffer};
use kvrail_layouts::Fingerprint;
use zerocopy::little_endian::U32;
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

use super::encode::code;
use super::error::ParseError;
use super::types::{
    ByeReason, Greeting, LaneAnswer, LaneAnswers, LaneAsk, LaneAsks, LaneNumber, LaneRefusal,
    LaneRefusalCode, Message, OfferHead,
};
use crate::key::KeyId;
use crate::name::{Name, NodeName};
use crate::offer::{
    Epoch, LaneBlob, Layout, MAX_REGIONS, OfferedRegion, RailAddress, RailDescription, TransportKind,
};
use crate::refusal::{Both, Reason, Refusal, Role, Versions};
use crate::wire::{self, HEADER, MAC, MAGIC, MessageKind};

/// The kind of the message that begins with `bytes`, from its header alone.
///
/// # Errors
///
/// Fewer than 16 bytes, or no header of this version of the protocol.
pub(crate) fn header(bytes: &[u8]) -> Result<MessageKind, ParseError> {
    let short = ParseError::Short { got: bytes.len(), want: HEADER };
    let (header, _) = wire::Header::ref_from_prefix(bytes).map_err(|_| short)?;
    if header.magic != MAGIC {
        return Err(ParseError::Magic { got: header.magic });
    }
    let got = header.kind.get();
    let kind = MessageKind::from_wire(got).ok_or(ParseError::UnknownKind { got })?;
    let (got, want) = (header.version.get(), kind.version());
    if got != want {
        return Err(ParseError::Version { kind, got, want });
    }
    let (got, want) = (header.bytes.get(), kind.bytes());
    if usize::try_from(got) != Ok(want) {
        return Err(ParseError::Size { kind, got, want });
    }
    Ok(kind)
}

/// Parses `bytes`, which must be one message and nothing else. Its MAC is not checked.
///
/// An accepted message is canonical: [`Message::encode`] gives the same bytes again, the MAC aside
/// (and aside from refusals for a reason that this version does not know).
///
/// # Errors
///
/// The bytes are not a message: the error names the field and the numbers.
pub fn parse(bytes: &[u8]) -> Result<Message, ParseError> {
    let kind = header(bytes)?;
    let (got, want) = (bytes.len(), kind.bytes());
    if got > want {
        return Err(ParseError::Long { got, want });
    }
    let message = match kind {
        MessageKind::Hello => Message::Hello(greeting(kind, &whole::<wire::Hello>(bytes)?.greeting)?),
        MessageKind::Challenge => {
            let read = &whole::<wire::Challenge>(bytes)?.greeting;
            Message::Challenge(greeting(kind, read)?, read.chosen.get())
        }
        MessageKind::Refused => Message::Refused(Box::new(refusal(whole(bytes)?)?)),
        MessageKind::Propose => Message::Propose(layout(kind, &whole::<wire::Propose>(bytes)?.layout)?),
        MessageKind::Offer => Message::Offer(offer(whole(bytes)?)?),
        MessageKind::Regions => regions(whole(bytes)?)?,
        MessageKind::Lanes => Message::Lanes(asks(whole(bytes)?)?),
        MessageKind::LanesReady => Message::LanesReady(answers(whole(bytes)?)?),
        MessageKind::Release => release(whole(bytes)?)?,
        MessageKind::Bye => Message::Bye(ByeReason::from_wire(whole::<wire::Bye>(bytes)?.reason.get())),
        MessageKind::Alive => {
            whole::<wire::Alive>(bytes)?;
            Message::Alive
        }
    };
    if let Message::Refused(refusal) = &message
        && matches!(refusal.reason, Reason::Other { .. })
    {
        return Ok(message);
    }
    let canonical = message.encode();
    let body = kind.mac_at().unwrap_or(want);
    match (0..body).find(|&at| bytes[at] != canonical[at]) {
        Some(at) => Err(ParseError::Stray { kind, at, got: bytes[at], want: canonical[at] }),
        None => Ok(message),
    }
}

fn whole<T>(bytes: &[u8]) -> Result<&T, ParseError>
where
    T: FromBytes + KnownLayout + Immutable + Unaligned,
{
    T::ref_from_bytes(bytes).map_err(|_| ParseError::Short { got: bytes.len(), want: size_of::<T>() })
}

fn field(kind: MessageKind, field: &'static str, got: impl Into<u64>, want: &'static str) -> ParseError {
    ParseError::Field { kind, field, got: got.into(), want }
}

/// The first `count` of a message's list.
fn counted<'a, T>(
    kind: MessageKind,
    list: &'a [T],
    count: u8,
    want: &'static str,
) -> Result<&'a [T], ParseError> {
    list.get(..count.into()).ok_or_else(|| field(kind, "count", count, want))
}

/// A list parsed from no more than `N` things is no longer than `N`.
fn list<T, const N: usize>(
    kind: MessageKind,
    items: impl Iterator<Item = Result<T, ParseError>>,
) -> Result<Vec<T, N>, ParseError> {
    let mut list = Vec::new();
    for item in items {
        let full = |_| field(kind, "count", N as u64 + 1, "no more than the list holds");
        list.push(item?).map_err(full)?;
    }
    Ok(list)
}

fn name<const N: usize>(
    kind: MessageKind,
    field: &'static str,
    bytes: &[u8; N],
) -> Result<Name<N>, ParseError> {
    Name::from_field(bytes).map_err(|source| ParseError::Name { kind, field, source })
}

fn versions(kind: MessageKind, min: u64, max: u64) -> Result<Versions, ParseError> {
    let narrow = |n: u64| u16::try_from(n).ok();
    narrow(min)
        .zip(narrow(max))
        .and_then(|(min, max)| Versions::new(min, max))
        .ok_or_else(|| field(kind, "versions", min, "the lowest, at least 1 and at most the highest"))
}

fn role(kind: MessageKind, code: u64) -> Result<Role, ParseError> {
    u8::try_from(code)
        .ok()
        .and_then(Role::from_wire)
        .ok_or_else(|| field(kind, "role", code, "1 for a reader, 2 for a producer"))
}

fn greeting(kind: MessageKind, read: &wire::Greeting) -> Result<Greeting, ParseError> {
    Ok(Greeting {
        versions: versions(kind, read.min.get().into(), read.max.get().into())?,
        role: role(kind, read.role.into())?,
        key_id: KeyId(read.key_id),
        nonce: read.nonce,
        node: name(kind, "node", &read.node)?,
    })
}

fn layout(kind: MessageKind, read: &wire::LayoutField) -> Result<Layout, ParseError> {
    let page_bytes = NonZeroU64::new(read.page_bytes.get());
    Ok(Layout {
        name: name(kind, "layout", &read.name)?,
        fingerprint: Fingerprint::from_bytes(read.fingerprint),
        page_bytes: page_bytes.ok_or_else(|| field(kind, "page_bytes", 0_u64, "at least 1"))?,
        parts: NonZeroU16::new(read.parts.get()).ok_or_else(|| field(kind, "parts", 0_u64, "at least 1"))?,
    })
}

fn refusal(read: &wire::Refused) -> Result<Refusal, ParseError> {
    const KIND: MessageKind = MessageKind::Refused;
    let node = |bytes: &[u8; 64]| -> Result<Option<NodeName>, ParseError> {
        if *bytes == [0; 64] { Ok(None) } else { name(KIND, "node", bytes).map(Some) }
    };
    // The sender's own values are `theirs` for the recipient.
    let (theirs, ours) = (&read.mine, &read.yours);
    let number = theirs.first.get();
    let message_kind = || u16::try_from(number).map_err(|_| field(KIND, "first", number, "below 65536"));
    let reason = match read.code.get() {
        code::VERSION => {
            let range = |side: &wire::Side| versions(KIND, side.first.get(), side.second.get());
            Reason::Version(Both { ours: range(ours)?, theirs: range(theirs)? })
        }
        code::KEY => {
            let id = |side: &wire::Side| KeyId(side.first.get().to_be_bytes());
            Reason::Key(Both { ours: id(ours), theirs: id(theirs) })
        }
        code::LAYOUT => {
            Reason::Layout(Both { ours: layout(KIND, &ours.layout)?, theirs: layout(KIND, &theirs.layout)? })
        }
        code::ROLE => Reason::Role(Both {
            ours: role(KIND, ours.first.get())?,
            theirs: role(KIND, theirs.first.get())?,
        }),
        code::FORGED => Reason::Forged { kind: message_kind()? },
        code::MALFORMED => Reason::Malformed { kind: message_kind()? },
        code::TOO_MANY_HANDSHAKES => Reason::TooManyHandshakes { limit: number },
        code::TOO_MANY_SESSIONS => Reason::TooManySessions { limit: number },
        code::STOPPING => Reason::Stopping,
        code => Reason::Other { code },
    };
    Ok(Refusal { nodes: Both { ours: node(&ours.node)?, theirs: node(&theirs.node)? }, reason })
}

fn rail(read: &wire::Rail) -> Result<RailDescription, ParseError> {
    const KIND: MessageKind = MessageKind::Offer;
    Ok(RailDescription {
        name: name(KIND, "rail.name", &read.name)?,
        kind: TransportKind::from_wire(read.kind)
            .ok_or_else(|| field(KIND, "rail.kind", 0_u8, "the number of a transport, at least 1"))?,
        address: RailAddress(read.address),
        nominal_bytes_per_sec: read.nominal_bytes_per_sec.get(),
        numa: match read.numa_known {
            0 => None,
            1 => Some(read.numa),
            got => return Err(field(KIND, "rail.numa_known", got, "0 or 1")),
        },
        lanes: read.lanes.get(),
    })
}

fn offer(read: &wire::Offer) -> Result<OfferHead, ParseError> {
    const KIND: MessageKind = MessageKind::Offer;
    let epoch = NonZeroU64::new(read.epoch.get());
    let regions = read.regions.get();
    if regions as usize > MAX_REGIONS {
        return Err(field(KIND, "regions", regions, "at most 1024"));
    }
    let rails = counted(KIND, &read.rail, read.rails, "at most 16 rails")?;
    Ok(OfferHead {
        layout: layout(KIND, &read.layout)?,
        epoch: Epoch(epoch.ok_or_else(|| field(KIND, "epoch", 0_u64, "anything else"))?),
        regions,
        rails: list(KIND, rails.iter().map(rail))?,
    })
}

// The texts above name these numbers.
const _: () = assert!(MAX_REGIONS == 1024 && MAX_RAILS == 16);

fn region(index: usize, read: &wire::Region) -> Result<OfferedRegion, ParseError> {
    const KIND: MessageKind = MessageKind::Regions;
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
            got => return Err(field(KIND, "region.has_table", got, "0 or 1")),
        },
    };
    let region = OfferedRegion::new(offer).map(|region| region.of_part(read.part.get()));
    region.map_err(|source| ParseError::Region { kind: KIND, index, source })
}

fn regions(read: &wire::Regions) -> Result<Message, ParseError> {
    let regions = counted(MessageKind::Regions, &read.region, read.count, "at most 16 regions")?;
    let parsed = regions.iter().enumerate().map(|(index, read)| region(index, read));
    Ok(Message::Regions { first: read.first.get(), regions: list(MessageKind::Regions, parsed)? })
}

fn lane_number(kind: MessageKind, number: U32) -> Result<LaneNumber, ParseError> {
    NonZeroU32::new(number.get()).map(LaneNumber).ok_or_else(|| field(kind, "number", 0_u32, "at least 1"))
}

fn rail_index(kind: MessageKind, rail: u8) -> Result<RailIndex, ParseError> {
    if usize::from(rail) >= MAX_RAILS {
        return Err(field(kind, "rail", rail, "below 16"));
    }
    Ok(RailIndex(rail))
}

fn asks(read: &wire::Lanes) -> Result<LaneAsks, ParseError> {
    const KIND: MessageKind = MessageKind::Lanes;
    let lanes = counted(KIND, &read.lane, read.count, "at most 64 lanes")?.iter().map(|lane| {
        Ok(LaneAsk {
            number: lane_number(KIND, lane.number)?,
            rail: rail_index(KIND, lane.rail)?,
            remote_rail: rail_index(KIND, lane.remote_rail)?,
            blob: LaneBlob(lane.blob),
        })
    });
    Ok(LaneAsks { exchange: read.exchange.get(), lanes: list(KIND, lanes)? })
}

fn answers(read: &wire::Lanes) -> Result<LaneAnswers, ParseError> {
    const KIND: MessageKind = MessageKind::LanesReady;
    let lanes = counted(KIND, &read.lane, read.count, "at most 64 lanes")?.iter().map(|lane| {
        Ok(LaneAnswer {
            number: lane_number(KIND, lane.number)?,
            rail: rail_index(KIND, lane.rail)?,
            remote_rail: rail_index(KIND, lane.remote_rail)?,
            result: match LaneRefusalCode::from_wire(lane.status.get()) {
                None => Ok(LaneBlob(lane.blob)),
                Some(code) => Err(LaneRefusal { code, text: name(KIND, "text", &lane.blob)? }),
            },
        })
    });
    Ok(LaneAnswers { exchange: read.exchange.get(), lanes: list(KIND, lanes)? })
}

fn release(read: &wire::Release) -> Result<Message, ParseError> {
    let numbers = counted(MessageKind::Release, &read.number, read.count, "at most 64 lanes")?;
    let parsed = numbers.iter().map(|&number| lane_number(MessageKind::Release, number));
    Ok(Message::Release(list(MessageKind::Release, parsed)?))
}

// A message that is shorter than its MAC would have no body to compare.
const _: () = assert!(size_of::<wire::Alive>() > MAC);
