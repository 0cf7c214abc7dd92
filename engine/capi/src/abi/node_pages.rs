//! The functions of a node that have batches of keys: put, get, exists, remove.
#![allow(unsafe_code, reason = "functions of C")]

use super::node_types::{
    kvrail_ended_get, kvrail_get_counts, kvrail_group_page, kvrail_node, kvrail_page_keys, kvrail_put_counts,
};
use crate::border::enter;
use crate::node::{self, Groups, Keys, Wanted, until};

/// Stores pages in the node's own pool of the space's layout. `pages` has the address of each
/// region of each page: those of page 0 first. `statuses[i]` gets KVRAIL_OK if page i is stored or
/// was there already, KVRAIL_PUT_UNDERWAY if another thread is storing it, or why it is not stored.
/// It waits for nothing: where the pool is full, it evicts pages.
///
/// # Safety
///
/// `keys` is null, or points to keys whose pointers are null or point to what their fields say.
/// `pages` is null, or points to as many addresses as the keys times the regions of the layout,
/// each of as many bytes as the region has, which are not written during the call. `statuses` is
/// null, or points to a place for each key; `counts` is null, or points to a place for the result.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvrail_node_put(
    node: *mut kvrail_node,
    space: u32,
    keys: *const kvrail_page_keys,
    pages: *const *const u8,
    statuses: *mut i32,
    counts: *mut kvrail_put_counts,
) -> i32 {
    // SAFETY: the caller keeps the promise of this function.
    unsafe {
        enter(|caller| {
            let counts = caller.out("counts", counts)?;
            let keys = Keys::parse(caller, keys)?;
            let statuses = caller.outs("statuses", statuses, keys.len())?;
            let put = |open: &node::Open| open.put(caller, space, &keys, pages, statuses);
            counts.write(node::with(node, put)?);
            Ok(())
        })
    }
}

/// Stores the pages in these places of registered memory: as kvrail_node_put(), from place
/// `indices[i]` for key i. A place is used by one call at a time.
///
/// # Safety
///
/// As for kvrail_node_put(). `indices` is null, or points to a number for each key. The bytes of
/// the places are not written during the call.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvrail_node_put_places(
    node: *mut kvrail_node,
    space: u32,
    keys: *const kvrail_page_keys,
    places: u32,
    indices: *const u32,
    statuses: *mut i32,
    counts: *mut kvrail_put_counts,
) -> i32 {
    // SAFETY: the caller keeps the promise of this function.
    unsafe {
        enter(|caller| {
            let counts = caller.out("counts", counts)?;
            let keys = Keys::parse(caller, keys)?;
            let indices = caller.list("indices", indices, keys.len())?;
            let statuses = caller.outs("statuses", statuses, keys.len())?;
            let from = Wanted { space, keys: &keys, places, indices };
            counts.write(node::with(node, |open| open.put_places(&from, statuses))?);
            Ok(())
        })
    }
}

/// Gets pages into places of registered memory: that of key i into place `indices[i]`. Blocks until
/// all have results, which is 0.1 seconds after `timeout_ns` at the latest. `statuses[i]` gets
/// KVRAIL_OK if the page is in its place, whole and the right one, or why it is not; then the bytes
/// of the place are unspecified. kvrail_last_error() has the text of the first miss.
///
/// Every place is free, and named once; otherwise the call fails with KVRAIL_ERROR_PLACE_BUSY.
///
/// # Safety
///
/// `keys` is null, or points to keys whose pointers are null or point to what their fields say.
/// `indices` and `statuses` are null, or point to a number, and to a place for one, for each key.
/// `counts` is null, or points to a place for the result.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvrail_node_get(
    node: *mut kvrail_node,
    space: u32,
    keys: *const kvrail_page_keys,
    places: u32,
    indices: *const u32,
    timeout_ns: u64,
    statuses: *mut i32,
    counts: *mut kvrail_get_counts,
) -> i32 {
    // SAFETY: the caller keeps the promise of this function.
    unsafe {
        enter(|caller| {
            let counts = caller.out("counts", counts)?;
            let keys = Keys::parse(caller, keys)?;
            let indices = caller.list("indices", indices, keys.len())?;
            let statuses = caller.outs("statuses", statuses, keys.len())?;
            let to = Wanted { space, keys: &keys, places, indices };
            counts.write(node::with(node, |open| open.get(&to, until(timeout_ns), statuses))?);
            Ok(())
        })
    }
}

/// Gets groups of pages, all or nothing: as kvrail_node_get(), and the pages of a group are all
/// hits or all misses. A group is a row of keys, each of a space and with a place of its own, such
/// as the pages that several pools of a hybrid model have for the same tokens. `pages` has a page
/// for each key. A page that was found in a group of which another page is a miss has the status
/// KVRAIL_MISS_GROUP, and the bytes of its place are unspecified.
///
/// # Safety
///
/// `keys` is null, or points to keys whose pointers are null or point to what their fields say.
/// `pages` and `statuses` are null, or point to a page, and to a place for a number, for each key.
/// `counts` is null, or points to a place for the result.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvrail_node_get_groups(
    node: *mut kvrail_node,
    keys: *const kvrail_page_keys,
    pages: *const kvrail_group_page,
    timeout_ns: u64,
    statuses: *mut i32,
    counts: *mut kvrail_get_counts,
) -> i32 {
    // SAFETY: the caller keeps the promise of this function.
    unsafe {
        enter(|caller| {
            let counts = caller.out("counts", counts)?;
            let keys = Keys::parse(caller, keys)?;
            let pages = caller.list("pages", pages, keys.len())?;
            let statuses = caller.outs("statuses", statuses, keys.len())?;
            let to = Groups { keys: &keys, pages };
            counts.write(node::with(node, |open| open.get_groups(&to, until(timeout_ns), statuses))?);
            Ok(())
        })
    }
}

/// Begins to get groups of pages, as kvrail_node_get_groups(), and does not wait: the ticket and
/// the tag are those of kvrail_node_begin_get(), and kvrail_node_end_get() has the results.
///
/// # Safety
///
/// As for kvrail_node_get_groups(). `ticket` is null, or points to a place for the result. The
/// places of the pages are the library's as kvrail_node_begin_get() says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvrail_node_begin_get_groups(
    node: *mut kvrail_node,
    keys: *const kvrail_page_keys,
    pages: *const kvrail_group_page,
    timeout_ns: u64,
    tag: u64,
    ticket: *mut u64,
) -> i32 {
    // SAFETY: the caller keeps the promise of this function.
    unsafe {
        enter(|caller| {
            let place = caller.out("ticket", ticket)?;
            let keys = Keys::parse(caller, keys)?;
            let pages = caller.list("pages", pages, keys.len())?;
            let to = Groups { keys: &keys, pages };
            let begin = |open: &node::Open| open.begin_get_groups(&to, until(timeout_ns), tag);
            place.write(node::with(node, begin)?);
            Ok(())
        })
    }
}

/// Begins to get pages, as kvrail_node_get(), and does not wait. `*ticket` gets the number by which
/// kvrail_node_end_get() asks for the results; `tag` is a number of the caller's, which
/// kvrail_node_ended() gives back.
///
/// # Safety
///
/// As for kvrail_node_get(). The places are the library's until the results were taken, or the get
/// was abandoned and kvrail_node_settle() has found them free.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvrail_node_begin_get(
    node: *mut kvrail_node,
    space: u32,
    keys: *const kvrail_page_keys,
    places: u32,
    indices: *const u32,
    timeout_ns: u64,
    tag: u64,
    ticket: *mut u64,
) -> i32 {
    // SAFETY: the caller keeps the promise of this function.
    unsafe {
        enter(|caller| {
            let place = caller.out("ticket", ticket)?;
            let keys = Keys::parse(caller, keys)?;
            let indices = caller.list("indices", indices, keys.len())?;
            let to = Wanted { space, keys: &keys, places, indices };
            place.write(node::with(node, |open| open.begin_get(&to, until(timeout_ns), tag))?);
            Ok(())
        })
    }
}

/// The results of a get that was begun, as kvrail_node_get() gives them, and the end of its ticket.
/// Waits for them up to `timeout_ns`; 0 only looks. KVRAIL_ERROR_UNDERWAY: they are not there yet,
/// and nothing has changed. `count` is the number of keys of the get.
///
/// # Safety
///
/// `statuses` is null, or points to `count` places; `counts` is null, or points to a place.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvrail_node_end_get(
    node: *mut kvrail_node,
    ticket: u64,
    timeout_ns: u64,
    statuses: *mut i32,
    count: usize,
    counts: *mut kvrail_get_counts,
) -> i32 {
    // SAFETY: the caller keeps the promise of this function.
    unsafe {
        enter(|caller| {
            let counts = caller.out("counts", counts)?;
            let statuses = caller.outs("statuses", statuses, count)?;
            counts.write(node::with(node, |open| open.end_get(ticket, until(timeout_ns), statuses))?);
            Ok(())
        })
    }
}

/// Gives up a get that was begun: its ticket ends, and its places are free as soon as nothing
/// writes into them any more.
#[unsafe(no_mangle)]
pub extern "C" fn kvrail_node_abandon_get(node: *mut kvrail_node, ticket: u64) -> i32 {
    // SAFETY: no pointer is followed.
    unsafe { enter(|_| node::with(node, |open| open.abandon_get(ticket))) }
}

/// A descriptor for poll(2) and epoll(7): it is readable while kvrail_node_ended() has gets to
/// name. It is the node's, which closes it.
///
/// # Safety
///
/// `fd` is null, or points to a place for the result.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvrail_node_fd(node: *mut kvrail_node, fd: *mut i32) -> i32 {
    // SAFETY: the caller keeps the promise of this function.
    unsafe {
        enter(|caller| {
            let place = caller.out("fd", fd)?;
            place.write(node::with(node, |open| open.fd())?);
            Ok(())
        })
    }
}

/// The gets that were begun and have ended since they were last asked for, each once, at most
/// `capacity`. `*count` gets how many. Those that stay unnamed keep the descriptor readable.
///
/// # Safety
///
/// `gets` is null, or points to `capacity` places; `count` is null, or points to a place.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvrail_node_ended(
    node: *mut kvrail_node,
    gets: *mut kvrail_ended_get,
    capacity: usize,
    count: *mut usize,
) -> i32 {
    // SAFETY: the caller keeps the promise of this function.
    unsafe {
        enter(|caller| {
            let count = caller.out("count", count)?;
            let places = caller.outs("gets", gets, capacity)?;
            count.write(node::with(node, |open| open.ended(places))?);
            Ok(())
        })
    }
}

/// Which keys have pages: in the node's own pools, or somewhere, as the directory says, which is a
/// hint. `statuses[i]` gets KVRAIL_OK if key i has a page, 7200 if none is known, or 7202 if the
/// directory did not answer for it by `timeout_ns`. `*leading` gets how many keys from the first on
/// have pages without a gap.
///
/// # Safety
///
/// `keys` is null, or points to keys whose pointers are null or point to what their fields say.
/// `statuses` is null, or points to a place for each key; `leading` is null, or points to a place.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvrail_node_exists(
    node: *mut kvrail_node,
    space: u32,
    keys: *const kvrail_page_keys,
    timeout_ns: u64,
    statuses: *mut i32,
    leading: *mut usize,
) -> i32 {
    // SAFETY: the caller keeps the promise of this function.
    unsafe {
        enter(|caller| {
            let leading = caller.out("leading", leading)?;
            let keys = Keys::parse(caller, keys)?;
            let statuses = caller.outs("statuses", statuses, keys.len())?;
            let exists = |open: &node::Open| open.exists(space, &keys, until(timeout_ns), statuses);
            leading.write(node::with(node, exists)?);
            Ok(())
        })
    }
}

/// Removes pages from the node's own pools: each is a miss for every reader when this returns.
/// Pages of other nodes stay. `*removed` gets how many there were.
///
/// # Safety
///
/// `keys` is null, or points to keys whose pointers are null or point to what their fields say.
/// `removed` is null, or points to a place for the result.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvrail_node_remove(
    node: *mut kvrail_node,
    space: u32,
    keys: *const kvrail_page_keys,
    removed: *mut usize,
) -> i32 {
    // SAFETY: the caller keeps the promise of this function.
    unsafe {
        enter(|caller| {
            let place = caller.out("removed", removed)?;
            let keys = Keys::parse(caller, keys)?;
            place.write(node::with(node, |open| open.remove(space, &keys))?);
            Ok(())
        })
    }
}
