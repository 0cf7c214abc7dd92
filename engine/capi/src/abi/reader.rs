//! The functions of a reader's life, its memory and its plans.
#![allow(unsafe_code, reason = "functions of C")]

use std::ffi::c_char;

use engine::layouts::Plan;

use super::layout_types::{kvrail_layout, kvrail_range};
use super::reader_types::{
    kvrail_destination, kvrail_rail_stats, kvrail_reader, kvrail_reader_config, kvrail_reader_info,
};
use crate::border::{Caller, enter};
use crate::error::CapiError;
use crate::layout::{Interned, selection};
use crate::reader::any::each;
use crate::reader::memory::{self, Holds};
use crate::reader::{config, peers, room};

/// How many bytes of memory a reader of this configuration takes. It opens no device.
///
/// # Safety
///
/// `config` is null, or points to a configuration whose pointers are null or point to what their
/// fields say; texts end with a zero. `bytes` is null, or points to a place for the result.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvrail_reader_bytes(config: *const kvrail_reader_config, bytes: *mut usize) -> i32 {
    // SAFETY: the caller keeps the promise of this function.
    unsafe {
        enter(|caller| {
            let place = caller.out("bytes", bytes)?;
            let start = config::read(caller, &caller.structure(config)?)?;
            place.write(room::bytes(start.maxima.size()?));
            Ok(())
        })
    }
}

/// Starts a reader in memory of the caller's, at any alignment. Set-up and the control path (this
/// call, connects, registrations) use the heap and some threads as well; the data path does not.
///
/// # Safety
///
/// `config` and `reader` are as for kvrail_reader_bytes(). `memory` is null, or points to `bytes`
/// bytes that can be written, and that nothing else uses from now on until this call has failed or
/// kvrail_reader_close() has returned KVRAIL_OK.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvrail_reader_init(
    config: *const kvrail_reader_config,
    memory: *mut u8,
    bytes: usize,
    reader: *mut *mut kvrail_reader,
) -> i32 {
    let body = |caller: &Caller<'_>| {
        let place = caller.out("reader", reader)?;
        let start = config::read(caller, &caller.structure(config)?)?;
        // SAFETY: the caller keeps the promise of this function.
        place.write(unsafe { room::open(memory, bytes, start) }?);
        Ok(())
    };
    // SAFETY: as above.
    unsafe { enter(body) }
}

/// Ends the reader's sessions, and waits (some seconds at most) until nothing writes into its slots
/// any more. After KVRAIL_OK its memory and that of its slots are the caller's again. After
/// KVRAIL_ERROR_STILL_READING both must stay as they are until the process ends.
///
/// # Safety
///
/// `reader` is null, or points to the memory of a reader, closed or not. So it is for every
/// function here that takes a reader; and one thread at a time calls them for one reader.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvrail_reader_close(reader: *mut kvrail_reader) -> i32 {
    // SAFETY: the caller keeps the promise of this function.
    unsafe { enter(|caller| room::close(caller, reader)) }
}

/// What the reader is and does.
///
/// # Safety
///
/// `info` is null, or points to a structure whose struct_bytes is set, and of which as many bytes
/// can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvrail_reader_query(
    reader: *mut kvrail_reader,
    info: *mut kvrail_reader_info,
) -> i32 {
    // SAFETY: the caller keeps the promise of this function.
    unsafe {
        enter(|caller| {
            let known = room::with(caller, reader, |body| {
                let (tables, any) = (&body.tables, &body.any);
                let (rails, in_flight, chunk_bytes) = each!(any, reader => {
                    (reader.rails(), reader.in_flight(), reader.engine_config().chunk_bytes)
                });
                Ok(kvrail_reader_info {
                    struct_bytes: 0,
                    // All of them are small.
                    rails: rails as u32,
                    in_flight: in_flight as u32,
                    max_batches: tables.batches as u32,
                    max_batch: tables.batch as u32,
                    chunk_bytes,
                })
            })?;
            caller.fill(info, &known)
        })
    }
}

/// The name of a rail.
///
/// # Safety
///
/// `buffer` is null, or points to `bytes` bytes that can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvrail_reader_rail_name(
    reader: *mut kvrail_reader,
    rail: u32,
    buffer: *mut c_char,
    bytes: usize,
) -> i32 {
    // SAFETY: the caller keeps the promise of this function.
    unsafe {
        enter(|caller| {
            room::with(caller, reader, |body| {
                let name = body.tables.rail_names.get(rail as usize).ok_or(CapiError::Value {
                    what: "rail",
                    value: rail.into(),
                    allowed: "a rail of the reader (kvrail_reader_info.rails)",
                })?;
                caller.write_text(buffer, bytes, name)
            })
        })
    }
}

/// Registers memory of the caller's for pages of `layout`, the reader's if it is null. There is one
/// destination for each region of the layout, in the layout's order, and they hold as many slots
/// each. `numa` is the memory's NUMA node, or -1 if it is not known. Slots are named by `*region`
/// and by their numbers from 0 on.
///
/// # Safety
///
/// `destinations` is null, or points to `count` destinations. Until kvrail_reader_unregister() has
/// returned KVRAIL_OK for the region, or kvrail_reader_close() for the reader: their bytes stay
/// mapped and writable; no other region has them; and no thread touches the bytes of a slot between
/// the kvrail_reader_read() into it and its result.
/// `region` and `slots` are null, or point to places for results; `slots` may be null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvrail_reader_register(
    reader: *mut kvrail_reader,
    layout: *const kvrail_layout,
    destinations: *const kvrail_destination,
    count: usize,
    numa: i32,
    region: *mut u32,
    slots: *mut u32,
) -> i32 {
    let body = |caller: &Caller<'_>| {
        let layout = if layout.is_null() { None } else { Some(Interned::page("layout", layout)?) };
        let given = caller.list("destinations", destinations, count)?;
        let holds = |own| Holds::Pages(Box::new(layout.unwrap_or(own)));
        // SAFETY: the caller keeps the promise of this function.
        unsafe { register(caller, reader, holds, given, numa, (region, slots)) }
    };
    // SAFETY: as above.
    unsafe { enter(body) }
}

/// Registers memory of the caller's for slots of `slot_bytes` bytes each, of no layout: for parts
/// of pages, which land nowhere else.
///
/// # Safety
///
/// As for kvrail_reader_register(), for one destination.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvrail_reader_register_bytes(
    reader: *mut kvrail_reader,
    destination: *const kvrail_destination,
    slot_bytes: u32,
    numa: i32,
    region: *mut u32,
    slots: *mut u32,
) -> i32 {
    let body = |caller: &Caller<'_>| {
        let given = caller.list("destination", destination, 1)?;
        let holds = |_| Holds::Bytes(slot_bytes);
        // SAFETY: the caller keeps the promise of this function.
        unsafe { register(caller, reader, holds, given, numa, (region, slots)) }
    };
    // SAFETY: as above.
    unsafe { enter(body) }
}

/// Registers memory.
///
/// # Safety
///
/// As for kvrail_reader_register().
unsafe fn register(
    caller: &Caller<'_>,
    reader: *mut kvrail_reader,
    holds: impl FnOnce(engine::PageLayout) -> Holds,
    given: &[kvrail_destination],
    numa: i32,
    (region, slots): (*mut u32, *mut u32),
) -> Result<(), CapiError> {
    let place = caller.out("region", region)?;
    let count = if slots.is_null() { None } else { Some(caller.out("slots", slots)?) };
    let numa = match numa {
        -1 => None,
        node => Some(u8::try_from(node).map_err(|_| CapiError::Value {
            what: "numa",
            value: node.unsigned_abs().into(),
            allowed: "-1, or a node from 0 to 255",
        })?),
    };
    let (region, slots) = room::with(caller, reader, |body| {
        let (any, tables) = (&mut body.any, &mut body.tables);
        let holds = holds(tables.layout);
        // SAFETY: the caller keeps the promise of this function.
        each!(any, reader => unsafe { memory::register(reader, tables, holds, given, numa) })
    })?;
    place.write(region);
    if let Some(count) = count {
        count.write(slots);
    }
    Ok(())
}

/// Releases a region of which no slot is in flight. After KVRAIL_OK its memory is the caller's.
///
/// # Safety
///
/// As for kvrail_reader_close().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvrail_reader_unregister(reader: *mut kvrail_reader, region: u32) -> i32 {
    // SAFETY: the caller keeps the promise of this function.
    unsafe {
        enter(|caller| {
            room::with(caller, reader, |body| {
                let tables = &mut body.tables;
                each!(&mut body.any, reader => memory::unregister(reader, tables, region))
            })
        })
    }
}

/// Adds a plan, by which pages of `from` land in slots of `into`, without a copy in between.
/// Fields are matched by name; docs/plans.md has the rules. With ranges, only the selected parts
/// are copied, index for index. `*plan` is its number for kvrail_read.plan.
///
/// # Safety
///
/// `from_ranges` and `into_ranges` are null, or point to as many ranges as their counts say; `plan`
/// is null, or points to a place for the number.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvrail_reader_add_plan(
    reader: *mut kvrail_reader,
    from: *const kvrail_layout,
    from_ranges: *const kvrail_range,
    from_count: usize,
    into: *const kvrail_layout,
    into_ranges: *const kvrail_range,
    into_count: usize,
    plan: *mut u32,
) -> i32 {
    // SAFETY: the caller keeps the promise of this function.
    unsafe {
        enter(|caller| {
            let place = caller.out("plan", plan)?;
            let (from, into) =
                (Interned::find("from", from)?.geometry(), Interned::find("into", into)?.geometry());
            let from_ranges = selection(caller.list("from_ranges", from_ranges, from_count)?)?;
            let into_ranges = selection(caller.list("into_ranges", into_ranges, into_count)?)?;
            let made = match (from_count, into_count) {
                (0, _) => Plan::between(from, into, into_ranges)?,
                _ => Plan::of(&from.select(from_ranges)?, &into.select(into_ranges)?)?,
            };
            place.write(room::with(caller, reader, |body| {
                let tables = &mut body.tables;
                each!(&mut body.any, reader => peers::add_plan(reader, tables, &made))
            })?);
            Ok(())
        })
    }
}

/// Forgets a plan that no page in flight follows.
///
/// # Safety
///
/// As for kvrail_reader_close().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvrail_reader_forget_plan(reader: *mut kvrail_reader, plan: u32) -> i32 {
    // SAFETY: the caller keeps the promise of this function.
    unsafe {
        enter(|caller| {
            room::with(caller, reader, |body| {
                let tables = &mut body.tables;
                each!(&mut body.any, reader => peers::forget_plan(reader, tables, plan))
            })
        })
    }
}

/// The counters of a rail.
///
/// # Safety
///
/// `stats` is null, or points to a structure whose struct_bytes is set, and of which as many bytes
/// can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvrail_reader_rail_stats(
    reader: *mut kvrail_reader,
    rail: u32,
    stats: *mut kvrail_rail_stats,
) -> i32 {
    // SAFETY: the caller keeps the promise of this function.
    unsafe {
        enter(|caller| {
            let known = room::with(
                caller,
                reader,
                |body| each!(&body.any, reader => peers::rail_stats(reader, rail)),
            )?;
            caller.fill(stats, &known)
        })
    }
}
