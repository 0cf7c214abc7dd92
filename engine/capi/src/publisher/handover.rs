//! The producer's side of hand-overs.

use std::mem::MaybeUninit;
use std::time::{Duration, Instant};

use engine::session::PoolId;
use engine::session::handover::{Block, EndedHandover, HandoverId, HandoverOutcome, RequestId};

use super::{Open, c_location, rust_location, with};
use crate::abi::constants::{
    KVRAIL_GIVE_UP_CLIENT_GONE, KVRAIL_GIVE_UP_FAILED, KVRAIL_GIVE_UP_NO_ROOM, KVRAIL_HANDOVER_ABORTED,
    KVRAIL_HANDOVER_DONE, KVRAIL_HANDOVER_EXPIRED, KVRAIL_HANDOVER_GIVEN_UP, KVRAIL_HANDOVER_SESSION_LOST,
    KVRAIL_HANDOVER_STOPPED,
};
use crate::abi::handover_types::{kvrail_ended_handover, kvrail_request_id};
use crate::abi::publisher_types::{kvrail_location, kvrail_publisher};
use crate::error::CapiError;

/// The longest wait: a day.
pub(crate) const LONGEST: Duration = Duration::from_hours(24);
/// How long a wait keeps a publisher from being closed.
const STEP: Duration = Duration::from_millis(100);

impl From<kvrail_request_id> for RequestId {
    fn from(request: kvrail_request_id) -> Self {
        Self(u128::from(request.high) << 64 | u128::from(request.low))
    }
}

impl From<RequestId> for kvrail_request_id {
    fn from(RequestId(request): RequestId) -> Self {
        Self { low: request as u64, high: (request >> 64) as u64 }
    }
}

/// Opens the hand-over of a request. Returns its number.
pub(crate) fn open(open: &Open, request: RequestId) -> Result<u64, CapiError> {
    Ok(open.publisher().handovers().open(request)?.to_bits())
}

/// Adds pages at the end of the list.
pub(crate) fn append(open: &Open, handover: u64, locations: &[kvrail_location]) -> Result<(), CapiError> {
    let block = |given: &kvrail_location| {
        let location = rust_location(given);
        Block {
            pool: PoolId(given.pool),
            slot: location.slot,
            expected: location.expected,
            ready: given.ready,
        }
    };
    let blocks: Vec<_> = locations.iter().map(block).collect();
    Ok(open.publisher().handovers().append(HandoverId::from_bits(handover), &blocks)?)
}

/// Says how many parts may be read of the pages at `count` places of the list.
pub(crate) fn set_ready(
    open: &Open,
    handover: u64,
    first: u32,
    count: u32,
    parts: u32,
) -> Result<(), CapiError> {
    let places = first..first.saturating_add(count);
    Ok(open.publisher().handovers().set_ready(HandoverId::from_bits(handover), places, parts)?)
}

/// Says that the list grows no more.
pub(crate) fn complete(open: &Open, handover: u64) -> Result<(), CapiError> {
    Ok(open.publisher().handovers().complete(HandoverId::from_bits(handover))?)
}

/// Ends a hand-over whose request is no longer computed.
pub(crate) fn abort(open: &Open, handover: u64) -> Result<(), CapiError> {
    Ok(open.publisher().handovers().abort(HandoverId::from_bits(handover))?)
}

/// Says that a request will not be opened.
pub(crate) fn reject(open: &Open, request: RequestId) -> Result<(), CapiError> {
    Ok(open.publisher().handovers().reject(request)?)
}

/// The next hand-over that has ended. Waits until `until` at the latest, in steps: between two of
/// them the publisher can be closed.
pub(crate) fn next_ended(
    handle: *const kvrail_publisher,
    until: Instant,
) -> Result<Option<EndedHandover>, CapiError> {
    loop {
        let step = until.min(Instant::now() + STEP);
        let found = with(handle, |open| {
            let kept = open.kept_ended().pop_front();
            Ok(kept.or_else(|| open.publisher().wait_ended_handover(step)))
        })?;
        if found.is_some() || Instant::now() >= until {
            return Ok(found);
        }
    }
}

/// Writes the pages of a hand-over's list. Where they do not fit, the publisher keeps the hand-over
/// for the next call.
pub(crate) fn write_blocks(
    handle: *const kvrail_publisher,
    ended: EndedHandover,
    places: &mut [MaybeUninit<kvrail_location>],
) -> Result<(), CapiError> {
    let (needed, given) = (ended.blocks.len(), places.len());
    if given < needed {
        with(handle, |open| {
            open.kept_ended().push_front(ended);
            Ok(())
        })?;
        return Err(CapiError::Buffer { needed, given });
    }
    for (place, block) in places.iter_mut().zip(&ended.blocks) {
        place.write(c_block(block));
    }
    Ok(())
}

/// A block as a location, of which `ready` says what may be read.
pub(crate) fn c_block(block: &Block) -> kvrail_location {
    let Block { pool, slot, expected, ready } = *block;
    kvrail_location { ready, ..c_location(pool.0, engine::Location { slot, expected }) }
}

/// A hand-over that has ended, for a caller in C.
pub(crate) fn c_ended(ended: &EndedHandover) -> kvrail_ended_handover {
    use engine::session::handover::GiveUpReason::{ClientGone, Failed, NoRoom, Other};
    let (outcome, reason) = match ended.outcome {
        HandoverOutcome::Done => (KVRAIL_HANDOVER_DONE, 0),
        HandoverOutcome::GivenUp(reason) => {
            let reason = match reason {
                ClientGone => KVRAIL_GIVE_UP_CLIENT_GONE,
                NoRoom => KVRAIL_GIVE_UP_NO_ROOM,
                Failed => KVRAIL_GIVE_UP_FAILED,
                Other(reason) => reason.into(),
                // A reason of a later version of the session, which has no number here yet.
                _ => 0,
            };
            (KVRAIL_HANDOVER_GIVEN_UP, reason)
        }
        HandoverOutcome::Aborted => (KVRAIL_HANDOVER_ABORTED, 0),
        HandoverOutcome::Expired => (KVRAIL_HANDOVER_EXPIRED, 0),
        HandoverOutcome::SessionLost => (KVRAIL_HANDOVER_SESSION_LOST, 0),
        HandoverOutcome::Stopped => (KVRAIL_HANDOVER_STOPPED, 0),
        // An outcome of a later version of the session, which has no number here yet.
        _ => (0, 0),
    };
    let (handover, request) = (ended.id.to_bits(), ended.request.into());
    kvrail_ended_handover { handover, request, outcome, reason, blocks: ended.blocks.len() }
}
