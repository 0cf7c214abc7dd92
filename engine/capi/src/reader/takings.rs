//! The reader's side of hand-overs.

use std::collections::BTreeMap;
use std::mem::MaybeUninit;
use std::time::Duration;

use engine::core::id::PeerId;
use engine::session::handover::{Class, EndReason, GiveUpReason, RequestId, TakingEvent};
use engine::{Peer, Reader, ReaderTransport, Taking};

use crate::abi::constants::{
    KVRAIL_END_ABORTED, KVRAIL_END_EXPIRED, KVRAIL_END_REJECTED, KVRAIL_END_STOPPING,
    KVRAIL_END_TAKEN_BY_OTHER, KVRAIL_END_TOO_MANY, KVRAIL_END_UNKNOWN, KVRAIL_GIVE_UP_CLIENT_GONE,
    KVRAIL_GIVE_UP_FAILED, KVRAIL_GIVE_UP_NO_ROOM, KVRAIL_TAKING_COMPLETE, KVRAIL_TAKING_ENDED,
    KVRAIL_TAKING_GROWN, KVRAIL_TAKING_LEASE_RAN_OUT, KVRAIL_TAKING_READY, KVRAIL_TAKING_TAKEN,
    KVRAIL_TAKING_TOO_LONG, KVRAIL_TAKING_UNANSWERED,
};
use crate::abi::handover_types::kvrail_taking_event;
use crate::abi::publisher_types::kvrail_location;
use crate::error::CapiError;
use crate::publisher::handover::c_block;

/// The requests that were taken, by the numbers that the caller has.
#[derive(Default)]
pub(crate) struct Takings {
    last: u64,
    open: BTreeMap<u64, Taking>,
}

impl Takings {
    fn get(&self, taking: u64) -> Result<&Taking, CapiError> {
        self.open.get(&taking).ok_or(CapiError::Taking { taking })
    }

    fn number(&self, taking: &Taking) -> Option<u64> {
        self.open.iter().find_map(|(&number, known)| (known == taking).then_some(number))
    }

    /// Forgets what was taken from a peer that is gone.
    pub(crate) fn forget(&mut self, peer: PeerId) {
        self.open.retain(|_, taking| taking.peer() != peer);
    }
}

/// Takes a request from a peer. Returns the number of what was taken.
pub(crate) fn take<T: ReaderTransport>(
    reader: &mut Reader<T>,
    takings: &mut Takings,
    peer: &Peer,
    request: RequestId,
    class: Class,
    wait: Duration,
) -> Result<u64, CapiError> {
    let taking = reader.take(peer, request, class, wait)?;
    takings.last += 1;
    takings.open.insert(takings.last, taking);
    Ok(takings.last)
}

/// The next event of a request that was taken.
pub(crate) fn next_event<T: ReaderTransport>(
    reader: &mut Reader<T>,
    takings: &mut Takings,
) -> kvrail_taking_event {
    while let Some((taking, event)) = reader.next_taking_event() {
        // A request that the caller has done with, or given up, has no number any more.
        let Some(number) = takings.number(&taking) else { continue };
        if let Some(event) = translate(number, &event) {
            if matches!(event.kind, KVRAIL_TAKING_ENDED | KVRAIL_TAKING_TOO_LONG | KVRAIL_TAKING_UNANSWERED) {
                takings.open.remove(&number);
            }
            return event;
        }
    }
    kvrail_taking_event::default()
}

/// An event in C; `None` for one of a later version, which has no number here yet.
fn translate(taking: u64, event: &TakingEvent) -> Option<kvrail_taking_event> {
    let plain = |kind| kvrail_taking_event { taking, kind, ..kvrail_taking_event::default() };
    Some(match event {
        TakingEvent::Taken { .. } => plain(KVRAIL_TAKING_TAKEN),
        TakingEvent::Grown { places, .. } => kvrail_taking_event {
            first: places.start,
            count: places.end - places.start,
            ..plain(KVRAIL_TAKING_GROWN)
        },
        TakingEvent::Ready { places, parts, .. } => kvrail_taking_event {
            first: places.start,
            count: places.end - places.start,
            parts: *parts,
            ..plain(KVRAIL_TAKING_READY)
        },
        TakingEvent::Complete { .. } => plain(KVRAIL_TAKING_COMPLETE),
        TakingEvent::LeaseRanOut { .. } => plain(KVRAIL_TAKING_LEASE_RAN_OUT),
        TakingEvent::Ended { reason, .. } => {
            kvrail_taking_event { reason: end_reason(*reason), ..plain(KVRAIL_TAKING_ENDED) }
        }
        TakingEvent::TooLong { .. } => plain(KVRAIL_TAKING_TOO_LONG),
        TakingEvent::Unanswered { .. } => plain(KVRAIL_TAKING_UNANSWERED),
        _ => return None,
    })
}

fn end_reason(reason: EndReason) -> u32 {
    match reason {
        EndReason::Aborted => KVRAIL_END_ABORTED,
        EndReason::Rejected => KVRAIL_END_REJECTED,
        EndReason::Unknown => KVRAIL_END_UNKNOWN,
        EndReason::Expired => KVRAIL_END_EXPIRED,
        EndReason::TakenByOther => KVRAIL_END_TAKEN_BY_OTHER,
        EndReason::TooMany => KVRAIL_END_TOO_MANY,
        EndReason::Stopping => KVRAIL_END_STOPPING,
        EndReason::Other(reason) => reason.into(),
        // A reason of a later version of the session, which has no number here yet.
        _ => 0,
    }
}

/// The reason that a caller in C gives.
pub(crate) fn give_up_reason(reason: u32) -> Result<GiveUpReason, CapiError> {
    match reason {
        KVRAIL_GIVE_UP_CLIENT_GONE => Ok(GiveUpReason::ClientGone),
        KVRAIL_GIVE_UP_NO_ROOM => Ok(GiveUpReason::NoRoom),
        KVRAIL_GIVE_UP_FAILED => Ok(GiveUpReason::Failed),
        other => {
            let allowed = "a KVRAIL_GIVE_UP_ constant";
            Err(CapiError::Value { what: "reason", value: other.into(), allowed })
        }
    }
}

/// Writes the pages of a request from place `first` of its list on. Returns how many.
pub(crate) fn blocks<T: ReaderTransport>(
    reader: &Reader<T>,
    takings: &Takings,
    taking: u64,
    first: u32,
    out: &mut [MaybeUninit<kvrail_location>],
) -> Result<usize, CapiError> {
    let room = u32::try_from(out.len()).unwrap_or(u32::MAX);
    let blocks = reader.blocks(takings.get(taking)?, first..first.saturating_add(room));
    for (place, block) in out.iter_mut().zip(&blocks) {
        place.write(c_block(block));
    }
    Ok(blocks.len())
}

/// Says that this side has what it wants of a request.
pub(crate) fn done<T: ReaderTransport>(
    reader: &mut Reader<T>,
    takings: &mut Takings,
    taking: u64,
) -> Result<(), CapiError> {
    reader.done(takings.get(taking)?)?;
    takings.open.remove(&taking);
    Ok(())
}

/// Says that this side wants no more of a request.
pub(crate) fn give_up<T: ReaderTransport>(
    reader: &mut Reader<T>,
    takings: &mut Takings,
    taking: u64,
    reason: GiveUpReason,
) -> Result<(), CapiError> {
    reader.give_up(takings.get(taking)?, reason)?;
    takings.open.remove(&taking);
    Ok(())
}
