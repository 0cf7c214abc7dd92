//! The functions of a reader's peers.
#![allow(unsafe_code, reason = "functions of C")]

use std::ffi::c_char;

use engine::clock;
use engine::core::time::Nanos;

use super::layout_types::kvrail_layout;
use super::publisher_types::{kvrail_keys, kvrail_location};
use super::reader_types::{kvrail_event, kvrail_peer_pool, kvrail_peer_stats, kvrail_reader};
use crate::border::{Caller, enter};
use crate::error::CapiError;
use crate::keys::keys;
use crate::layout::Interned;
use crate::reader::any::each;
use crate::reader::peers::{self, Target};
use crate::reader::room;

/// Where to connect, and for what.
fn target(
    caller: &Caller<'_>,
    address: *const c_char,
    given: *const kvrail_keys,
    layouts: *const *const kvrail_layout,
    count: usize,
) -> Result<Target, CapiError> {
    let layouts = caller.list("layouts", layouts, count)?.iter();
    Ok(Target {
        address: caller.text("address", address)?.parse()?,
        keys: keys(caller, given)?,
        layouts: layouts.map(|&layout| Interned::page("layouts", layout)).collect::<Result<_, _>>()?,
    })
}

/// Connects to the publisher at `address`, for pools of any of the `count` layouts; for none, of
/// the reader's. Blocks, for connect_ms of the configuration at most; batches in flight go on.
///
/// # Safety
///
/// `address` is null, or a text that ends with a zero; `keys` is null for no key, or points to
/// keys; `layouts` is null, or points to `count` layouts; `peer` is null, or points to a place for
/// the peer's number.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvrail_reader_connect(
    reader: *mut kvrail_reader,
    address: *const c_char,
    keys: *const kvrail_keys,
    layouts: *const *const kvrail_layout,
    count: usize,
    peer: *mut u32,
) -> i32 {
    // SAFETY: the caller keeps the promise of this function.
    unsafe {
        enter(|caller| {
            let place = caller.out("peer", peer)?;
            let target = target(caller, address, keys, layouts, count)?;
            place.write(room::with(caller, reader, |body| {
                let tables = &mut body.tables;
                each!(&mut body.any, reader => peers::connect(reader, tables, &target))
            })?);
            Ok(())
        })
    }
}

/// Begins to connect, and returns at once. kvrail_reader_next_event() gives the outcome, with the
/// number `*connecting`.
///
/// # Safety
///
/// As for kvrail_reader_connect().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvrail_reader_begin_connect(
    reader: *mut kvrail_reader,
    address: *const c_char,
    keys: *const kvrail_keys,
    layouts: *const *const kvrail_layout,
    count: usize,
    connecting: *mut u64,
) -> i32 {
    // SAFETY: the caller keeps the promise of this function.
    unsafe {
        enter(|caller| {
            let place = caller.out("connecting", connecting)?;
            let target = target(caller, address, keys, layouts, count)?;
            place.write(room::with(caller, reader, |body| {
                let tables = &mut body.tables;
                each!(&mut body.any, reader => peers::begin_connect(reader, tables, &target))
            })?);
            Ok(())
        })
    }
}

/// Gives up a connect that was begun: it has no outcome any more, and a peer whose outcome was not
/// taken is disconnected. One that has ended is no error.
///
/// # Safety
///
/// As for kvrail_reader_close().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvrail_reader_abandon_connect(reader: *mut kvrail_reader, connecting: u64) -> i32 {
    // SAFETY: the caller keeps the promise of this function.
    unsafe {
        enter(|caller| {
            room::with(caller, reader, |body| {
                let tables = &mut body.tables;
                each!(&mut body.any, reader => peers::abandon(reader, tables, connecting));
                Ok(())
            })
        })
    }
}

/// Ends the session with a peer. Its pages in flight fail.
///
/// # Safety
///
/// As for kvrail_reader_close().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvrail_reader_disconnect(reader: *mut kvrail_reader, peer: u32) -> i32 {
    // SAFETY: the caller keeps the promise of this function.
    unsafe {
        enter(|caller| {
            room::with(caller, reader, |body| {
                let tables = &mut body.tables;
                each!(&mut body.any, reader => peers::disconnect(reader, tables, peer))
            })
        })
    }
}

/// The next event, or KVRAIL_EVENT_NONE. kvrail_reader_poll() takes events in.
///
/// # Safety
///
/// `event` is null, or points to a place for the event.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvrail_reader_next_event(
    reader: *mut kvrail_reader,
    event: *mut kvrail_event,
) -> i32 {
    // SAFETY: the caller keeps the promise of this function.
    unsafe {
        enter(|caller| {
            let place = caller.out("event", event)?;
            place.write(room::with(caller, reader, |body| {
                let tables = &mut body.tables;
                Ok(each!(&mut body.any, reader => peers::next_event(reader, tables)))
            })?);
            Ok(())
        })
    }
}

/// The pools of a peer. `*count` is how many there are, also when only `room` of them fit.
///
/// # Safety
///
/// `pools` is null, or points to places for `room` pools; `count` is null, or points to a place.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvrail_reader_peer_pools(
    reader: *mut kvrail_reader,
    peer: u32,
    pools: *mut kvrail_peer_pool,
    room: usize,
    count: *mut usize,
) -> i32 {
    // SAFETY: the caller keeps the promise of this function.
    unsafe {
        enter(|caller| {
            let (place, pools) = (caller.out("count", count)?, caller.outs("pools", pools, room)?);
            place.write(room::with(caller, reader, |body| peers::pools(&body.tables, peer, pools))?);
            Ok(())
        })
    }
}

/// The pages that a peer has published in the slots from `first` on of a pool, `slots` of them at
/// most, by reading its publication table: a snapshot. Blocks, for `timeout_ns` at most; batches in
/// flight go on. Only pools that the peer had when it was connected are listed.
///
/// # Safety
///
/// `locations` is null, or points to places for `slots` locations; `count` is null, or points to a
/// place for how many there are.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvrail_reader_published(
    reader: *mut kvrail_reader,
    peer: u32,
    pool: u32,
    first: u32,
    slots: u32,
    timeout_ns: u64,
    locations: *mut kvrail_location,
    count: *mut usize,
) -> i32 {
    // SAFETY: the caller keeps the promise of this function.
    unsafe {
        enter(|caller| {
            let (place, mut found) = (caller.out("count", count)?, 0);
            let locations = caller.outs("locations", locations, slots as usize)?;
            room::with(caller, reader, |body| {
                let deadline = clock::now() + Nanos(timeout_ns);
                let mut put = |location| {
                    // There are no more published slots than slots.
                    if let Some(place) = locations.get_mut(found) {
                        place.write(location);
                        found += 1;
                    }
                };
                let (tables, of, range) = (&body.tables, (peer, pool), (first, slots));
                each!(&mut body.any, reader => {
                    peers::published(reader, tables, of, range, deadline, &mut put)
                })
            })?;
            place.write(found);
            Ok(())
        })
    }
}

/// The counters of a peer.
///
/// # Safety
///
/// As for kvrail_reader_rail_stats().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvrail_reader_peer_stats(
    reader: *mut kvrail_reader,
    peer: u32,
    stats: *mut kvrail_peer_stats,
) -> i32 {
    // SAFETY: the caller keeps the promise of this function.
    unsafe {
        enter(|caller| {
            let known = room::with(caller, reader, |body| {
                let tables = &body.tables;
                each!(&body.any, reader => peers::peer_stats(reader, tables, peer))
            })?;
            caller.fill(stats, &known)
        })
    }
}
