//! How messages become bytes.

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromZeros, IntoBytes};

use super::fields::{Output, write_layout};
use super::kind::MessageKind;
use super::types::{LaneAnswer, LaneAsk, Message};
use super::wire::{self, Header};
use super::{handover, service};
use crate::offer::{OfferedRegion, RailDescription};
use crate::refusal::Refusal;
use crate::service::ServiceAsk;

impl Message {
    /// Appends its bytes to `out`: at most 65,519.
    ///
    /// A message that was passed over becomes a header of its kind, since its content was not kept.
    ///
    /// # Panics
    ///
    /// If a list is longer than its bound, or shorter.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let Some(kind) = self.kind() else {
            if let Self::PassedOver(kind) = self {
                out.extend_from_slice(Header::of(*kind, 0).as_bytes());
            }
            return;
        };
        let out = Output { kind, bytes: out };
        match self {
            Self::Introduction(introduction) => {
                let fixed = wire::Introduction { node: *introduction.node.field() };
                out.list(&fixed, introduction.layouts.iter().map(write_layout));
            }
            Self::Offer(head) => {
                let fixed = wire::Offer { node: *head.node.field(), epoch: U64::new(head.epoch.0.get()) };
                out.list(&fixed, head.rails.iter().map(write_rail));
            }
            Self::Pool(head) => {
                let (id, regions) = (U32::new(head.id.0), U32::new(head.regions));
                out.fixed(&wire::Pool { id, regions, layout: write_layout(&head.layout) });
            }
            Self::Regions(regions) => {
                let (pool, first) = (U32::new(regions.pool.0), U32::new(regions.first));
                out.list(&wire::Regions { pool, first }, regions.regions.iter().map(write_region));
            }
            Self::Unknown(layout) => out.fixed(&write_layout(layout)),
            Self::Gone(pool) => out.fixed(&wire::Gone { pool: U32::new(pool.0) }),
            Self::Refused(refusal) => out.fixed(&write_refusal(*refusal)),
            Self::Lanes(asks) => {
                let fixed = wire::Lanes { exchange: U32::new(asks.exchange) };
                out.list(&fixed, asks.lanes.iter().map(write_ask));
            }
            Self::LanesReady(answers) => {
                let fixed = wire::Lanes { exchange: U32::new(answers.exchange) };
                out.list(&fixed, answers.lanes.iter().map(write_answer));
            }
            Self::Release(numbers) => {
                out.list(&(), numbers.iter().map(|number| U32::new(number.0.get())));
            }
            Self::Bye(reason) => {
                out.fixed(&wire::Bye { reason: U16::new(reason.to_wire()), zero: [0; 6] });
            }
            Self::Handover(message) => handover::encode(message, out),
            Self::Ask(ask) => service::encode_ask(ask, out),
            Self::Answer(answer) => service::encode_answer(answer, out),
            Self::Offered | Self::Alive | Self::PassedOver(_) => out.fixed(&()),
        }
    }
}

/// Appends the bytes of [`Message::Ask`], which is long for a value that moves often.
///
/// # Panics
///
/// If the content is longer than its bound.
pub(crate) fn encode_ask(ask: &ServiceAsk, out: &mut Vec<u8>) {
    service::encode_ask(ask, Output { kind: MessageKind::Ask, bytes: out });
}

/// The greeting carries refusals for a version or a key. A peer that gets one as a message ends the
/// session.
fn write_refusal(refusal: Refusal) -> wire::Refused {
    let (reason, number) = refusal.to_wire();
    wire::Refused { reason: U16::new(reason), zero: [0; 6], number: U64::new(number) }
}

fn write_rail(rail: &RailDescription) -> wire::Rail {
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

fn write_region(region: &OfferedRegion) -> wire::Region {
    let offer = region.offer();
    let mut out = wire::Region {
        base: U64::new(offer.base),
        page_bytes: U64::new(offer.page_bytes),
        stride: U64::new(offer.stride),
        slots: U32::new(offer.slots),
        part: U16::new(region.part()),
        keys: offer.keys.map(U32::new),
        ..wire::Region::new_zeroed()
    };
    if let Some(table) = offer.table {
        out.has_table = 1;
        out.table_base = U64::new(table.base);
        out.table_keys = table.keys.map(U32::new);
    }
    out
}

fn write_ask(lane: &LaneAsk) -> wire::Lane {
    wire::Lane {
        number: U32::new(lane.number.0.get()),
        rail: lane.rail.0,
        remote_rail: lane.remote_rail.0,
        status: U16::new(0),
        blob: lane.blob.0,
    }
}

fn write_answer(lane: &LaneAnswer) -> wire::Lane {
    let (status, blob) = match &lane.result {
        Ok(blob) => (0, blob.0),
        Err(refusal) => (refusal.code.to_wire(), *refusal.text.field()),
    };
    wire::Lane {
        number: U32::new(lane.number.0.get()),
        rail: lane.rail.0,
        remote_rail: lane.remote_rail.0,
        status: U16::new(status),
        blob,
    }
}
