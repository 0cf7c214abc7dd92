//! The functions of the producer's side.
#![allow(unsafe_code, reason = "functions of C")]

use std::ffi::c_char;
use std::time::{Duration, Instant};

use engine::Location;
use engine::session::PoolId;

use super::publisher_types::{
    kvrail_key_tag, kvrail_location, kvrail_memory, kvrail_pool, kvrail_publisher, kvrail_publisher_config,
    kvrail_slot_bytes,
};
use crate::border::{Caller, enter};
use crate::error::CapiError;
use crate::publisher::foreign::{self, Way};
use crate::publisher::{self, Open, Pool, c_location};

/// The longest wait: a day.
const LONGEST: Duration = Duration::from_hours(24);

/// A handle of host memory of the caller's. Over shared memory, readers of this host read it by
/// process_vm_readv(2). Give one handle for all pools that have pages in the memory.
///
/// # Safety
///
/// From the call that publishes the memory until kvrail_publisher_withdraw() has succeeded for
/// every pool in it, or the publisher is closed: the memory stays mapped, and the bytes of a slot
/// are written only between kvrail_publisher_begin() and kvrail_publisher_publish() or
/// kvrail_publisher_abandon() of this slot; of a page that grows only bytes that are not ready yet.
/// If that is broken, a reader can take a mixture of two pages for a page.
/// `memory` is null, or points to a place for the result.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvrail_memory_host(
    address: *mut u8,
    bytes: u64,
    memory: *mut *mut kvrail_memory,
) -> i32 {
    // SAFETY: the caller keeps the promise of this function.
    unsafe { new_memory(address.expose_provenance() as u64, bytes, Way::Host, memory) }
}

/// A handle of memory of the caller's that a file holds (a memfd), which is mapped at `address`.
/// Its first byte is the file's byte `offset`. The descriptor is duplicated. Readers of this host
/// map the file, which is faster than reading by the address.
///
/// # Safety
///
/// As for kvrail_memory_host(), and the file holds the memory. `fd` stays open during the call.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvrail_memory_file(
    fd: i32,
    offset: u64,
    address: *mut u8,
    bytes: u64,
    memory: *mut *mut kvrail_memory,
) -> i32 {
    // SAFETY: the caller keeps the promise of this function.
    unsafe { new_memory(address.expose_provenance() as u64, bytes, Way::File { fd, offset }, memory) }
}

/// A handle of a device's memory, which a dmabuf holds from its byte `offset` on. Peers name the
/// bytes by the addresses from `address` on, which has the same place within a page of the host as
/// `offset`. The descriptor is duplicated. For RDMA rails.
///
/// # Safety
///
/// As for kvrail_memory_host(), for the bytes in the dmabuf. `fd` stays open during the call.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvrail_memory_dmabuf(
    fd: i32,
    offset: u64,
    address: u64,
    bytes: u64,
    memory: *mut *mut kvrail_memory,
) -> i32 {
    // SAFETY: the caller keeps the promise of this function.
    unsafe { new_memory(address, bytes, Way::Dmabuf { fd, offset }, memory) }
}

/// # Safety
///
/// As the functions of C ask for.
unsafe fn new_memory(address: u64, bytes: u64, way: Way, memory: *mut *mut kvrail_memory) -> i32 {
    let body = |caller: &Caller<'_>| {
        let place = caller.out("memory", memory)?;
        // SAFETY: the caller keeps the promise of the function of C.
        place.write(unsafe { foreign::memory(address, bytes, way) }?);
        Ok(())
    };
    // SAFETY: as above.
    unsafe { enter(body) }
}

/// Gives a handle of memory back. Publishers that have pools in the memory keep it published.
#[unsafe(no_mangle)]
pub extern "C" fn kvrail_memory_release(memory: *mut kvrail_memory) -> i32 {
    // SAFETY: no pointer is followed.
    unsafe { enter(|_| foreign::release(memory)) }
}

/// Starts a publisher: registers its pools, and serves readers that have its key and want one of
/// its layouts. Its threads run until kvrail_publisher_close().
///
/// # Safety
///
/// `config` is null, or points to a configuration whose pointers are null or point to what their
/// fields say; texts end with a zero. `publisher` is null, or points to a place for the result.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvrail_publisher_start(
    config: *const kvrail_publisher_config,
    publisher: *mut *mut kvrail_publisher,
) -> i32 {
    // SAFETY: the caller keeps the promise of this function.
    unsafe {
        enter(|caller| {
            let place = caller.out("publisher", publisher)?;
            let config = caller.structure(config)?;
            place.write(publisher::opened(publisher::start(caller, &config)?)?);
            Ok(())
        })
    }
}

/// Makes every page a miss, ends all sessions, and releases the memory. Waits for calls of this
/// publisher that are under way in other threads. When it has returned KVRAIL_OK, nothing reads the
/// caller's memory any more. A child of a fork has a copy of its parent's publisher, which this
/// forgets: the publisher goes on in the parent.
#[unsafe(no_mangle)]
pub extern "C" fn kvrail_publisher_close(publisher: *mut kvrail_publisher) -> i32 {
    // SAFETY: no pointer is followed.
    unsafe { enter(|_| publisher::close(publisher)) }
}

/// Offers another pool, to the readers of all sessions too.
///
/// # Safety
///
/// `pool` is null, or points to a pool whose pointers are null or point to what their fields say.
/// `number` is null, or points to a place for the pool's number.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvrail_publisher_add_pool(
    publisher: *mut kvrail_publisher,
    pool: *const kvrail_pool,
    number: *mut u32,
) -> i32 {
    // SAFETY: the caller keeps the promise of this function.
    unsafe {
        enter(|caller| {
            let place = caller.out("number", number)?;
            let pool = publisher::pool(caller, &caller.value("pool", pool)?)?;
            let id = publisher::with(publisher, |open| {
                Ok(match pool {
                    Pool::Own(layout, slots) => open.publisher().add_pool(layout, slots)?,
                    Pool::Foreign(pool) => open.publisher().add_foreign_pool(pool)?,
                })
            })?;
            place.write(id.0);
            Ok(())
        })
    }
}

/// Takes a pool back: every page of it is a miss, readers are told, and its memory is released.
/// Waits up to `timeout_ns` for slots that have been begun. When it has returned KVRAIL_OK, nothing
/// reads the pool's memory any more.
#[unsafe(no_mangle)]
pub extern "C" fn kvrail_publisher_withdraw(
    publisher: *mut kvrail_publisher,
    pool: u32,
    timeout_ns: u64,
) -> i32 {
    // SAFETY: no pointer is followed.
    unsafe {
        enter(|_| {
            let until = Instant::now() + Duration::from_nanos(timeout_ns).min(LONGEST);
            publisher::with(publisher, |open| Ok(open.publisher().withdraw(PoolId(pool), until)?))
        })
    }
}

/// The address that readers connect to, with the port that the system chose for port 0.
///
/// # Safety
///
/// `buffer` is null, or points to `bytes` bytes that can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvrail_publisher_address(
    publisher: *mut kvrail_publisher,
    buffer: *mut c_char,
    bytes: usize,
) -> i32 {
    // SAFETY: the caller keeps the promise of this function.
    unsafe {
        enter(|caller| {
            let address = publisher::with(publisher, |open| Ok(open.publisher().local_addr().to_string()))?;
            caller.write_text(buffer, bytes, &address)
        })
    }
}

/// How many readers are connected.
///
/// # Safety
///
/// `readers` is null, or points to a place for the result.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvrail_publisher_readers(
    publisher: *mut kvrail_publisher,
    readers: *mut u64,
) -> i32 {
    // SAFETY: the caller keeps the promise of this function.
    unsafe {
        enter(|caller| {
            let place = caller.out("readers", readers)?;
            place.write(publisher::with(publisher, |open| Ok(open.publisher().readers() as u64))?);
            Ok(())
        })
    }
}

/// Takes a slot to write a page into it, which is published under `tag`. From now on every reader
/// misses the slot's earlier page, so call it before the first byte is written, and before a kernel
/// that writes one is launched. It ends with kvrail_publisher_publish() or
/// kvrail_publisher_abandon(), by any thread.
///
/// # Safety
///
/// `tag` is null, or points to a tag. `bytes` is null, or points to a place for the bytes of the
/// slot, which are written no more once the slot is published or abandoned.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvrail_publisher_begin(
    publisher: *mut kvrail_publisher,
    pool: u32,
    slot: u32,
    tag: *const kvrail_key_tag,
    bytes: *mut kvrail_slot_bytes,
) -> i32 {
    // SAFETY: the caller keeps the promise of this function.
    unsafe {
        enter(|caller| {
            let tag = caller.value("tag", tag)?.into();
            // A caller with memory of its own need not ask for it.
            let place = if bytes.is_null() { None } else { Some(caller.out("bytes", bytes)?) };
            let found = publisher::with(publisher, |open| open.begin(pool, slot, tag))?;
            if let Some(place) = place {
                place.write(kvrail_slot_bytes { address: found.address, bytes: found.bytes });
            }
            Ok(())
        })
    }
}

/// Publishes the page in a slot that was begun while it is still written: no part of it is ready
/// yet, and kvrail_publisher_set_ready() makes parts ready. What a part is, is agreed on with the
/// readers.
///
/// # Safety
///
/// `location` is null, or points to a place for the page's location.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvrail_publisher_grow(
    publisher: *mut kvrail_publisher,
    pool: u32,
    slot: u32,
    location: *mut kvrail_location,
) -> i32 {
    // SAFETY: the caller keeps the promise of this function.
    unsafe { enter(|caller| locate(caller, publisher, pool, location, |open| open.grow(pool, slot))) }
}

/// Makes all parts below number `parts` ready of a page that grows. Their bytes are written, as
/// kvrail_publisher_publish() asks for, and are not written again before the slot is begun again.
///
/// # Safety
///
/// `location` is null, or points to a place for the page's location.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvrail_publisher_set_ready(
    publisher: *mut kvrail_publisher,
    pool: u32,
    slot: u32,
    parts: u32,
    location: *mut kvrail_location,
) -> i32 {
    // SAFETY: the caller keeps the promise of this function.
    unsafe {
        enter(|caller| locate(caller, publisher, pool, location, |open| open.set_ready(pool, slot, parts)))
    }
}

/// Publishes the whole page in a slot that was begun, and ends its writing. All bytes are written,
/// and visible to the devices and processes that read them: other threads that wrote have handed
/// their bytes to this one by a lock or a join, and ended non-temporal stores with sfence; copies
/// and kernels of a GPU are complete, and the host knows.
///
/// # Safety
///
/// `location` is null, or points to a place for the page's location.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvrail_publisher_publish(
    publisher: *mut kvrail_publisher,
    pool: u32,
    slot: u32,
    location: *mut kvrail_location,
) -> i32 {
    // SAFETY: the caller keeps the promise of this function.
    unsafe { enter(|caller| locate(caller, publisher, pool, location, |open| open.publish(pool, slot))) }
}

/// Writes the location that `find` finds.
fn locate(
    caller: &Caller<'_>,
    handle: *mut kvrail_publisher,
    pool: u32,
    location: *mut kvrail_location,
    find: impl FnOnce(&Open) -> Result<Location, CapiError>,
) -> Result<(), CapiError> {
    // First, since nothing may have happened where the place is missing.
    let place = caller.out("location", location)?;
    place.write(c_location(pool, publisher::with(handle, find)?));
    Ok(())
}

/// Ends the writing of a slot that was begun without publishing it: it stays a miss. A page that
/// grows is taken back with its ready parts.
#[unsafe(no_mangle)]
pub extern "C" fn kvrail_publisher_abandon(publisher: *mut kvrail_publisher, pool: u32, slot: u32) -> i32 {
    // SAFETY: no pointer is followed.
    unsafe { enter(|_| publisher::with(publisher, |open| open.abandon(pool, slot))) }
}

/// Takes the page in a slot back: from now on every reader misses it. A page that grows is ended by
/// that. A slot that was begun and does not grow can still be published.
#[unsafe(no_mangle)]
pub extern "C" fn kvrail_publisher_invalidate(publisher: *mut kvrail_publisher, pool: u32, slot: u32) -> i32 {
    // SAFETY: no pointer is followed.
    unsafe {
        enter(|_| publisher::with(publisher, |open| open.with_pool(pool, |pool| Ok(pool.invalidate(slot)?))))
    }
}

/// The location of the page in a slot. `*published` is 1 if there is one, else 0.
///
/// # Safety
///
/// `location` and `published` are null, or point to places for results.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvrail_publisher_location(
    publisher: *mut kvrail_publisher,
    pool: u32,
    slot: u32,
    location: *mut kvrail_location,
    published: *mut u32,
) -> i32 {
    // SAFETY: the caller keeps the promise of this function.
    unsafe {
        enter(|caller| {
            let (place, is) = (caller.out("location", location)?, caller.out("published", published)?);
            let find = |open: &Open| open.with_pool(pool, |pool| Ok(pool.location(slot)?));
            let found = publisher::with(publisher, find)?;
            place.write(found.map_or_else(kvrail_location::default, |found| c_location(pool, found)));
            is.write(found.is_some().into());
            Ok(())
        })
    }
}
