//! The functions of hand-overs: a producer hands the pages of a request over to one reader, while
//! it still computes them.
#![allow(unsafe_code, reason = "functions of C")]

use std::time::{Duration, Instant};

use super::handover_types::{kvrail_ended_handover, kvrail_request_id, kvrail_taking_event};
use super::publisher_types::{kvrail_location, kvrail_publisher};
use super::reader_types::kvrail_reader;
use crate::border::enter;
use crate::publisher::{self, handover};
use crate::reader::any::each;
use crate::reader::{flight, room, takings};

/// Opens the hand-over of a request. Its lease begins. The first reader that takes the request, now
/// or later, gets it.
///
/// # Safety
///
/// `request` is null, or points to a request; `handover` is null, or points to a place for the
/// result.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvrail_handover_open(
    publisher: *mut kvrail_publisher,
    request: *const kvrail_request_id,
    handover: *mut u64,
) -> i32 {
    // SAFETY: the caller keeps the promise of this function.
    unsafe {
        enter(|caller| {
            let place = caller.out("handover", handover)?;
            let request = caller.value("request", request)?.into();
            place.write(publisher::with(publisher, |open| handover::open(open, request))?);
            Ok(())
        })
    }
}

/// Adds pages at the end of the list of a hand-over, by the locations that kvrail_publisher_grow(),
/// kvrail_publisher_set_ready() or kvrail_publisher_publish() gave. The parts that are ready in a
/// location may be read already. All of them are added, or none. Until the hand-over has ended
/// their slots are not begun.
///
/// # Safety
///
/// `locations` is null, or points to `count` locations.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvrail_handover_append(
    publisher: *mut kvrail_publisher,
    handover: u64,
    locations: *const kvrail_location,
    count: usize,
) -> i32 {
    // SAFETY: the caller keeps the promise of this function.
    unsafe {
        enter(|caller| {
            let locations = caller.list("locations", locations, count)?;
            publisher::with(publisher, |open| handover::append(open, handover, locations))
        })
    }
}

/// Says that of each of the `count` pages from place `first` of the list on, at least `parts` parts
/// may be read; KVRAIL_WHOLE_PAGE for all of them. Call it after kvrail_publisher_set_ready() or
/// kvrail_publisher_publish() of these pages.
#[unsafe(no_mangle)]
pub extern "C" fn kvrail_handover_set_ready(
    publisher: *mut kvrail_publisher,
    handover: u64,
    first: u32,
    count: u32,
    parts: u32,
) -> i32 {
    // SAFETY: no pointer is followed.
    unsafe {
        enter(|_| publisher::with(publisher, |open| handover::set_ready(open, handover, first, count, parts)))
    }
}

/// Says that the list grows no more, and neither do the parts that are ready.
#[unsafe(no_mangle)]
pub extern "C" fn kvrail_handover_complete(publisher: *mut kvrail_publisher, handover: u64) -> i32 {
    // SAFETY: no pointer is followed.
    unsafe { enter(|_| publisher::with(publisher, |open| handover::complete(open, handover))) }
}

/// Ends a hand-over because its request is no longer computed. Its reader is told. The end comes by
/// kvrail_handover_next_ended() like any other.
#[unsafe(no_mangle)]
pub extern "C" fn kvrail_handover_abort(publisher: *mut kvrail_publisher, handover: u64) -> i32 {
    // SAFETY: no pointer is followed.
    unsafe { enter(|_| publisher::with(publisher, |open| handover::abort(open, handover))) }
}

/// Says that a request will not be opened. Readers that wait for it are told at once.
///
/// # Safety
///
/// `request` is null, or points to a request.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvrail_handover_reject(
    publisher: *mut kvrail_publisher,
    request: *const kvrail_request_id,
) -> i32 {
    // SAFETY: the caller keeps the promise of this function.
    unsafe {
        enter(|caller| {
            let request = caller.value("request", request)?.into();
            publisher::with(publisher, |open| handover::reject(open, request))
        })
    }
}

/// The next hand-over that has ended, whichever side ended it: each one that was opened comes once.
/// Waits for it, `timeout_ns` at most; `ended->handover` is 0 if no hand-over ended. From now on
/// the pages of its list are misses, and their slots can be begun.
///
/// `blocks` gets the pages of the list. If it has less room than `ended->blocks`, the call answers
/// KVRAIL_ERROR_BUFFER, and the next one has the same hand-over again. With a null pointer the list
/// is not given: for callers that know it.
///
/// # Safety
///
/// `ended` is null, or points to a place for the result; `blocks` is null, or points to places for
/// `room` locations.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvrail_handover_next_ended(
    publisher: *mut kvrail_publisher,
    timeout_ns: u64,
    ended: *mut kvrail_ended_handover,
    blocks: *mut kvrail_location,
    room: usize,
) -> i32 {
    // SAFETY: the caller keeps the promise of this function.
    unsafe {
        enter(|caller| {
            let place = caller.out("ended", ended)?;
            let blocks = if blocks.is_null() { None } else { Some(caller.outs("blocks", blocks, room)?) };
            let until = Instant::now() + Duration::from_nanos(timeout_ns).min(handover::LONGEST);
            let found = handover::next_ended(publisher, until)?;
            place.write(found.as_ref().map_or_else(kvrail_ended_handover::default, handover::c_ended));
            match (found, blocks) {
                (Some(found), Some(blocks)) => handover::write_blocks(publisher, found, blocks),
                _ => Ok(()),
            }
        })
    }
}

/// Takes a request from a peer: the peer hands its pages over to this reader. The peer waits up to
/// `wait_ns` for a request that it does not know yet, a minute at most. Does not block:
/// kvrail_reader_next_taking_event() says what comes of it. The reader renews the lease by itself,
/// as long as kvrail_reader_poll() is called.
///
/// # Safety
///
/// `request` is null, or points to a request; `taking` is null, or points to a place for the
/// number of what was taken.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvrail_reader_take(
    reader: *mut kvrail_reader,
    peer: u32,
    request: *const kvrail_request_id,
    priority: u32,
    wait_ns: u64,
    taking: *mut u64,
) -> i32 {
    // SAFETY: the caller keeps the promise of this function.
    unsafe {
        enter(|caller| {
            let place = caller.out("taking", taking)?;
            let request = caller.value("request", request)?.into();
            let (class, wait) = (flight::class(priority)?, Duration::from_nanos(wait_ns));
            place.write(room::with(caller, reader, |body| {
                let tables = &mut body.tables;
                let (peer, takings) = (&tables.peers.get(peer)?.peer, &mut tables.takings);
                each!(&mut body.any, reader => takings::take(reader, takings, peer, request, class, wait))
            })?);
            Ok(())
        })
    }
}

/// The next event of a request that was taken; its kind is KVRAIL_TAKING_NONE if nothing happened.
/// kvrail_reader_poll() takes events in. Events of one request are merged until they are fetched,
/// so each says the newest state. When a peer is lost (KVRAIL_EVENT_LOST) or disconnected, all that
/// was taken from it is over without an event of its own.
///
/// # Safety
///
/// `event` is null, or points to a place for the event.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvrail_reader_next_taking_event(
    reader: *mut kvrail_reader,
    event: *mut kvrail_taking_event,
) -> i32 {
    // SAFETY: the caller keeps the promise of this function.
    unsafe {
        enter(|caller| {
            let place = caller.out("event", event)?;
            place.write(room::with(caller, reader, |body| {
                let takings = &mut body.tables.takings;
                Ok(each!(&mut body.any, reader => takings::next_event(reader, takings)))
            })?);
            Ok(())
        })
    }
}

/// The pages of a request from place `first` of its list on, as far as they are known: `*count`
/// locations, at most `room`. A page whose `ready` is not KVRAIL_WHOLE_PAGE is read with
/// kvrail_read.needs at most `ready`.
///
/// # Safety
///
/// `locations` is null, or points to places for `room` locations; `count` is null, or points to a
/// place.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvrail_reader_blocks(
    reader: *mut kvrail_reader,
    taking: u64,
    first: u32,
    locations: *mut kvrail_location,
    room: usize,
    count: *mut usize,
) -> i32 {
    // SAFETY: the caller keeps the promise of this function.
    unsafe {
        enter(|caller| {
            let (place, places) = (caller.out("count", count)?, caller.outs("locations", locations, room)?);
            place.write(room::with(caller, reader, |body| {
                let takings = &body.tables.takings;
                each!(&body.any, reader => takings::blocks(reader, takings, taking, first, places))
            })?);
            Ok(())
        })
    }
}

/// This side has what it wants of a request, and reads no more of its pages. Call it when all
/// batches that read them have their results. From now on `taking` names nothing.
///
/// # Safety
///
/// As for kvrail_reader_close().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvrail_reader_done(reader: *mut kvrail_reader, taking: u64) -> i32 {
    // SAFETY: the caller keeps the promise of this function.
    unsafe {
        enter(|caller| {
            room::with(caller, reader, |body| {
                let takings = &mut body.tables.takings;
                each!(&mut body.any, reader => takings::done(reader, takings, taking))
            })
        })
    }
}

/// This side wants no more of a request, for `reason`, a KVRAIL_GIVE_UP_ constant. From now on
/// `taking` names nothing.
///
/// # Safety
///
/// As for kvrail_reader_close().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvrail_reader_give_up(reader: *mut kvrail_reader, taking: u64, reason: u32) -> i32 {
    // SAFETY: the caller keeps the promise of this function.
    unsafe {
        enter(|caller| {
            let reason = takings::give_up_reason(reason)?;
            room::with(caller, reader, |body| {
                let takings = &mut body.tables.takings;
                each!(&mut body.any, reader => takings::give_up(reader, takings, taking, reason))
            })
        })
    }
}
