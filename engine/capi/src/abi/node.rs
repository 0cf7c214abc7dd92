//! The functions of a node's life, of its memory, and of an engine's own pools.
#![allow(unsafe_code, reason = "functions of C")]

use std::ffi::c_char;

use super::layout_types::kvrail_layout;
use super::node_types::{kvrail_node, kvrail_node_config, kvrail_node_stats, kvrail_page_keys};
use super::reader_types::kvrail_destination;
use crate::border::{Caller, enter};
use crate::node::{self, until};

/// Starts a node. Its threads run until kvrail_node_close().
///
/// # Safety
///
/// `config` is null, or points to a configuration whose pointers are null or point to what their
/// fields say; texts end with a zero. `node` is null, or points to a place for the result.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvrail_node_start(
    config: *const kvrail_node_config,
    node: *mut *mut kvrail_node,
) -> i32 {
    // SAFETY: the caller keeps the promise of this function.
    unsafe {
        enter(|caller| {
            let place = caller.out("node", node)?;
            let config = caller.structure(config)?;
            place.write(node::opened(node::start(caller, &config)?)?);
            Ok(())
        })
    }
}

/// Ends a node: gets that are under way become misses, every page of its pools is a miss for
/// others, and its sessions end. Waits for calls of this node that are under way in other threads,
/// and then takes some seconds at most. After KVRAIL_OK nothing uses the caller's memory any more.
/// After KVRAIL_ERROR_STILL_READING the node is closed as well, and the memory that was registered
/// by kvrail_node_register() must stay until the process ends: hardware may still write there.
/// A child of a fork has a copy of its parent's node, which this forgets: the node goes on in the
/// parent.
#[unsafe(no_mangle)]
pub extern "C" fn kvrail_node_close(node: *mut kvrail_node) -> i32 {
    // SAFETY: no pointer is followed.
    unsafe { enter(|_| node::close(node)) }
}

/// The address at which other nodes reach it, with the port that the system chose. A node without
/// pools has none, and the text is empty.
///
/// # Safety
///
/// `buffer` is null, or points to `bytes` bytes that can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvrail_node_address(
    node: *mut kvrail_node,
    buffer: *mut c_char,
    bytes: usize,
) -> i32 {
    // SAFETY: the caller keeps the promise of this function.
    unsafe {
        enter(|caller| {
            let address = node::with(node, |open| {
                Ok(open.node().address().map_or_else(String::new, |address| address.to_string()))
            })?;
            caller.write_text(buffer, bytes, &address)
        })
    }
}

/// A space of keys for pages of `layout`, by a number that put, get and the others take. Pages of
/// two spaces never meet, whatever their keys are: `model` is the model and its revision, and
/// `shape` what else keeps keys apart, such as the element type or "tp 2 of 8". Nodes find each
/// other's pages where layout, model and shape are the same. Asked for again, it is the same
/// number.
///
/// # Safety
///
/// `model` and `shape` are null, or texts that end with a zero; a null `shape` is an empty one.
/// `space` is null, or points to a place for the result.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvrail_node_space(
    node: *mut kvrail_node,
    layout: *const kvrail_layout,
    model: *const c_char,
    shape: *const c_char,
    space: *mut u32,
) -> i32 {
    // SAFETY: the caller keeps the promise of this function.
    unsafe {
        enter(|caller| {
            let place = caller.out("space", space)?;
            let model = caller.text("model", model)?;
            let shape = caller.text_or_none("shape", shape)?.unwrap_or("");
            place.write(node::with(node, |open| open.space(layout, model, shape))?);
            Ok(())
        })
    }
}

/// Registers memory that pages of `layout` land in: one destination for each region of the layout.
/// Place number i of the memory is the i-th page of it, and kvrail_node_get() names places by these
/// numbers. `numa` is the memory's NUMA node, or -1. `*count` gets how many places there are.
///
/// # Safety
///
/// Until kvrail_node_unregister() or kvrail_node_close() has returned KVRAIL_OK, the memory stays
/// mapped, readable and writable by the CPU, and no other registration has it: a page that lands by
/// one of two would overwrite one that landed by the other. From a get of a place until its
/// result, the place is the library's; and until kvrail_node_settle() says that it is settled, if
/// the get said that it is not. `destinations` is null, or points to `destination_count`
/// destinations; `places` and `count` are null, or point to places for results.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvrail_node_register(
    node: *mut kvrail_node,
    layout: *const kvrail_layout,
    destinations: *const kvrail_destination,
    destination_count: usize,
    numa: i32,
    places: *mut u32,
    count: *mut u32,
) -> i32 {
    let body = |caller: &Caller<'_>| {
        let (number, places_found) = (caller.out("places", places)?, caller.out("count", count)?);
        let given = caller.list("destinations", destinations, destination_count)?;
        let numa = node::numa(numa)?;
        // SAFETY: the caller keeps the promise of this function.
        let register = |open: &node::Open| unsafe { open.register(layout, given, numa) };
        let found = node::with(node, register)?;
        number.write(found.0);
        places_found.write(found.1);
        Ok(())
    };
    // SAFETY: as above.
    unsafe { enter(body) }
}

/// Releases registered memory, all of whose places must be free. Where several threads call it at
/// once for the same memory, one of them releases it, and the others wait for the outcome.
///
/// KVRAIL_OK: nothing uses the memory any more. KVRAIL_ERROR_PLACE_BUSY: a place, which the text
/// names, is not free, and nothing has changed. KVRAIL_ERROR_PLACES: it was never registered, or
/// was released before. KVRAIL_ERROR_STILL_READING, from then on at every call: a reader did not
/// release it, and the memory must stay until the process ends; its places are never free again.
/// A get that is begun while this runs may be refused with KVRAIL_ERROR_PLACE_BUSY.
#[unsafe(no_mangle)]
pub extern "C" fn kvrail_node_unregister(node: *mut kvrail_node, places: u32) -> i32 {
    // SAFETY: no pointer is followed.
    unsafe { enter(|_| node::with(node, |open| open.unregister(places))) }
}

/// Waits up to `timeout_ns` until each of these places is free: no get uses it, and no hardware
/// writes into it. KVRAIL_ERROR_PLACE_BUSY names the first that is not.
///
/// # Safety
///
/// `indices` is null, or points to `count` numbers of places.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvrail_node_settle(
    node: *mut kvrail_node,
    places: u32,
    indices: *const u32,
    count: usize,
    timeout_ns: u64,
) -> i32 {
    // SAFETY: the caller keeps the promise of this function.
    unsafe {
        enter(|caller| {
            let indices = caller.list("indices", indices, count)?;
            node::with(node, |open| open.settle(places, indices, until(timeout_ns)))
        })
    }
}

/// Waits up to `timeout_ns` until the directory has been told of every page that was put or removed
/// before. A put waits for no directory, so other nodes find its page a moment later.
#[unsafe(no_mangle)]
pub extern "C" fn kvrail_node_flush(node: *mut kvrail_node, timeout_ns: u64) -> i32 {
    // SAFETY: no pointer is followed.
    unsafe { enter(|_| node::with(node, |open| open.flush(until(timeout_ns)))) }
}

/// Removes all pages of the node's pools, and forgets who has which page. `*removed` gets how many
/// pages were removed.
///
/// # Safety
///
/// `removed` is null, or points to a place for the result.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvrail_node_clear(node: *mut kvrail_node, removed: *mut u64) -> i32 {
    // SAFETY: the caller keeps the promise of this function.
    unsafe {
        enter(|caller| {
            let place = caller.out("removed", removed)?;
            place.write(node::with(node, |open| Ok(u64::from(open.node().clear())))?);
            Ok(())
        })
    }
}

/// The node's numbers.
///
/// # Safety
///
/// `stats` is null, or points to a structure that can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvrail_node_query(node: *mut kvrail_node, stats: *mut kvrail_node_stats) -> i32 {
    // SAFETY: the caller keeps the promise of this function.
    unsafe {
        enter(|caller| {
            let found = node::with(node, |open| Ok(node::stats(open.node())))?;
            caller.fill(stats, &found)
        })
    }
}

/// Makes the pages in these slots of a pool of the caller's memory misses for every reader. Call it
/// before the first byte of a slot is written, and before a kernel that writes one is launched.
///
/// # Safety
///
/// `slots` is null, or points to `count` numbers of slots.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvrail_node_begin_slots(
    node: *mut kvrail_node,
    pool: u32,
    slots: *const u32,
    count: usize,
) -> i32 {
    // SAFETY: the caller keeps the promise of this function.
    unsafe {
        enter(|caller| {
            let slots = caller.list("slots", slots, count)?;
            node::with(node, |open| open.begin_slots(pool, slots))
        })
    }
}

/// Publishes the pages that the caller has written into slots of a pool of its own memory, each
/// under its key. `statuses[i]` gets KVRAIL_OK, also where another slot has the page of the key
/// already, or why page i is not published. What kvrail_publisher_publish() asks for holds for the
/// bytes.
///
/// # Safety
///
/// `keys` is null, or points to keys whose pointers are null or point to what their fields say.
/// `slots` and `statuses` are null, or point to a number, and to a place for one, for each key.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvrail_node_publish_slots(
    node: *mut kvrail_node,
    pool: u32,
    space: u32,
    keys: *const kvrail_page_keys,
    slots: *const u32,
    statuses: *mut i32,
) -> i32 {
    // SAFETY: the caller keeps the promise of this function.
    unsafe {
        enter(|caller| {
            let keys = node::Keys::parse(caller, keys)?;
            let slots = caller.list("slots", slots, keys.len())?;
            let statuses = caller.outs("statuses", statuses, keys.len())?;
            let publish = |open: &node::Open| open.publish_slots(pool, space, &keys, slots, statuses);
            node::with(node, publish)
        })
    }
}
