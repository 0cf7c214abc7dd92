//! How messages become bytes. Encoding cannot fail: the types are bounded.

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromZeros, IntoBytes};

use super::types::{Greeting, LaneAnswers, LaneAsks, Message, OfferHead};
use crate::name::NodeName;
use crate::offer::{Layout, OfferedRegion, RailDescription};
use crate::refusal::{Both, Reason, Refusal};
use crate::wire::{self, Header, MessageKind};

impl Message {
    /// The message's bytes: [`MessageKind::bytes`] of them, its MAC zero.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let header = Header::new(self.kind());
        match self {
            Self::Hello(greeting) => {
                wire::Hello { header, greeting: encode_greeting(greeting, 0) }.as_bytes().to_vec()
            }
            Self::Challenge(greeting, chosen) => {
                let greeting = encode_greeting(greeting, *chosen);
                wire::Challenge { header, greeting, mac: [0; 32] }.as_bytes().to_vec()
            }
            Self::Refused(refusal) => encode_refusal(header, refusal),
            Self::Propose(layout) => {
                wire::Propose { header, layout: encode_layout(layout), mac: [0; 32] }.as_bytes().to_vec()
            }
            Self::Offer(head) => encode_offer(header, head),
            Self::Regions { first, regions } => encode_regions(header, *first, regions),
            Self::Lanes(asks) => encode_asks(header, asks),
            Self::LanesReady(answers) => encode_answers(header, answers),
            Self::Release(numbers) => {
                let mut out = wire::Release { header, ..wire::Release::new_zeroed() };
                out.count = numbers.len() as u8;
                for (to, number) in out.number.iter_mut().zip(numbers.iter()) {
                    *to = number.0.get().into();
                }
                out.as_bytes().to_vec()
            }
            Self::Bye(reason) => {
                wire::Bye { header, reason: U16::new(reason.to_wire()), zero: [0; 6], mac: [0; 32] }
                    .as_bytes()
                    .to_vec()
            }
            Self::Alive => wire::Alive { header, mac: [0; 32] }.as_bytes().to_vec(),
        }
    }
}

// Counts fit a byte: no list of a message is longer than 64.
const _: () = assert!(crate::offer::MAX_LANES <= 255 && wire::REGIONS <= 255);
const _: () = assert!(kvrail_core::id::MAX_RAILS <= 255);

fn encode_greeting(greeting: &Greeting, chosen: u16) -> wire::Greeting {
    wire::Greeting {
        min: U16::new(greeting.versions.min()),
        max: U16::new(greeting.versions.max()),
        chosen: U16::new(chosen),
        role: greeting.role.to_wire(),
        zero: 0,
        key_id: greeting.key_id.0,
        nonce: greeting.nonce,
        node: *greeting.node.field(),
    }
}

fn encode_layout(layout: &Layout) -> wire::LayoutField {
    wire::LayoutField {
        name: *layout.name.field(),
        fingerprint: layout.fingerprint.to_bytes(),
        page_bytes: U64::new(layout.page_bytes.get()),
        parts: U16::new(layout.parts.get()),
        zero: [0; 6],
    }
}

/// The numbers of the reasons. A number never changes its meaning.
pub(super) mod code {
    pub(crate) const VERSION: u16 = 1;
    pub(crate) const KEY: u16 = 2;
    pub(crate) const LAYOUT: u16 = 3;
    pub(crate) const ROLE: u16 = 4;
    pub(crate) const FORGED: u16 = 5;
    pub(crate) const MALFORMED: u16 = 6;
    pub(crate) const TOO_MANY_HANDSHAKES: u16 = 7;
    pub(crate) const TOO_MANY_SESSIONS: u16 = 8;
    pub(crate) const STOPPING: u16 = 9;
}

/// A refusal is held as its recipient sees it, and written as its sender does: `mine` is "theirs".
fn encode_refusal(header: Header, refusal: &Refusal) -> Vec<u8> {
    let Refusal { nodes, reason } = refusal;
    let side = |node: Option<NodeName>| {
        let mut side = wire::Side::new_zeroed();
        if let Some(node) = node {
            side.node = *node.field();
        }
        side
    };
    let (mut mine, mut yours) = (side(nodes.theirs), side(nodes.ours));
    let mut numbers = |pair: Both<(u64, u64)>| {
        (mine.first, mine.second) = (pair.theirs.0.into(), pair.theirs.1.into());
        (yours.first, yours.second) = (pair.ours.0.into(), pair.ours.1.into());
    };
    let only = |theirs: u64| Both { ours: (0, 0), theirs: (theirs, 0) };
    let code = match *reason {
        Reason::Version(Both { ours, theirs }) => {
            let range = |v: crate::Versions| (u64::from(v.min()), u64::from(v.max()));
            numbers(Both { ours: range(ours), theirs: range(theirs) });
            code::VERSION
        }
        Reason::Key(Both { ours, theirs }) => {
            let id = |id: crate::KeyId| (u64::from_be_bytes(id.0), 0);
            numbers(Both { ours: id(ours), theirs: id(theirs) });
            code::KEY
        }
        Reason::Layout(Both { ours, theirs }) => {
            mine.layout = encode_layout(&theirs);
            yours.layout = encode_layout(&ours);
            code::LAYOUT
        }
        Reason::Role(Both { ours, theirs }) => {
            let role = |role: crate::Role| (u64::from(role.to_wire()), 0);
            numbers(Both { ours: role(ours), theirs: role(theirs) });
            code::ROLE
        }
        Reason::Forged { kind } => {
            numbers(only(kind.into()));
            code::FORGED
        }
        Reason::Malformed { kind } => {
            numbers(only(kind.into()));
            code::MALFORMED
        }
        Reason::TooManyHandshakes { limit } => {
            numbers(only(limit));
            code::TOO_MANY_HANDSHAKES
        }
        Reason::TooManySessions { limit } => {
            numbers(only(limit));
            code::TOO_MANY_SESSIONS
        }
        Reason::Stopping => code::STOPPING,
        Reason::Other { code } => code,
    };
    wire::Refused { header, code: U16::new(code), zero: [0; 6], mine, yours, mac: [0; 32] }
        .as_bytes()
        .to_vec()
}

fn encode_rail(rail: &RailDescription) -> wire::Rail {
    wire::Rail {
        name: *rail.name.field(),
        kind: rail.kind.to_wire(),
        numa_known: rail.numa.is_some().into(),
        numa: rail.numa.unwrap_or(0),
        zero: 0,
        lanes: U32::new(rail.lanes),
        nominal_bytes_per_sec: U64::new(rail.nominal_bytes_per_sec),
        address: rail.address.0,
    }
}

fn encode_offer(header: Header, head: &OfferHead) -> Vec<u8> {
    let mut out = wire::Offer {
        header,
        layout: encode_layout(&head.layout),
        epoch: U64::new(head.epoch.0.get()),
        regions: U32::new(head.regions),
        rails: head.rails.len() as u8,
        ..wire::Offer::new_zeroed()
    };
    for (to, rail) in out.rail.iter_mut().zip(head.rails.iter()) {
        *to = encode_rail(rail);
    }
    out.as_bytes().to_vec()
}

fn encode_regions(header: Header, first: u32, regions: &[OfferedRegion]) -> Vec<u8> {
    let mut out = wire::Regions {
        header,
        first: U32::new(first),
        count: regions.len() as u8,
        ..wire::Regions::new_zeroed()
    };
    for (to, region) in out.region.iter_mut().zip(regions) {
        let offer = region.offer();
        to.base = offer.base.into();
        to.page_bytes = offer.page_bytes.into();
        to.stride = offer.stride.into();
        to.slots = offer.slots.into();
        to.part = region.part().into();
        to.keys = offer.keys.map(U32::new);
        if let Some(table) = offer.table {
            to.has_table = 1;
            to.table_base = table.base.into();
            to.table_keys = table.keys.map(U32::new);
        }
    }
    out.as_bytes().to_vec()
}

fn encode_asks(header: Header, asks: &LaneAsks) -> Vec<u8> {
    let mut out = wire::Lanes {
        header,
        exchange: U32::new(asks.exchange),
        count: asks.lanes.len() as u8,
        ..wire::Lanes::new_zeroed()
    };
    for (to, lane) in out.lane.iter_mut().zip(asks.lanes.iter()) {
        *to = wire::Lane {
            number: U32::new(lane.number.0.get()),
            rail: lane.rail.0,
            remote_rail: lane.remote_rail.0,
            status: U16::new(0),
            blob: lane.blob.0,
        };
    }
    out.as_bytes().to_vec()
}

fn encode_answers(header: Header, answers: &LaneAnswers) -> Vec<u8> {
    let mut out = wire::Lanes {
        header,
        exchange: U32::new(answers.exchange),
        count: answers.lanes.len() as u8,
        ..wire::Lanes::new_zeroed()
    };
    for (to, lane) in out.lane.iter_mut().zip(answers.lanes.iter()) {
        let (status, blob) = match &lane.result {
            Ok(blob) => (0, blob.0),
            Err(refusal) => (refusal.code.to_wire(), *refusal.text.field()),
        };
        *to = wire::Lane {
            number: U32::new(lane.number.0.get()),
            rail: lane.rail.0,
            remote_rail: lane.remote_rail.0,
            status: U16::new(status),
            blob,
        };
    }
    out.as_bytes().to_vec()
}

impl MessageKind {
    /// Where its MAC begins, if it has one.
    pub(crate) const fn mac_at(self) -> Option<usize> {
        match self {
            Self::Hello => None,
            _ => Some(self.bytes() - wire::MAC),
        }
    }
}
