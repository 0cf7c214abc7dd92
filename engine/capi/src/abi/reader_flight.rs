//! The functions of a reader's data path.
#![allow(unsafe_code, reason = "functions of C")]

use engine::Ticket;
use engine::core::time::Nanos;

use super::reader_types::{
    kvrail_batch_result, kvrail_read, kvrail_read_options, kvrail_read_range, kvrail_reader, kvrail_result,
};
use crate::border::enter;
use crate::reader::any::each;
use crate::reader::{flight, ranges, room};

/// Reads `count` pages as one batch: all of them are taken, or none and the error says which one
/// could not be. From now on their slots are in flight, until their results come by
/// kvrail_reader_results().
///
/// # Safety
///
/// `reads` is null, or points to `count` reads; `options` is null, or points to options whose
/// struct_bytes is set; `ticket` is null, or points to a place for the batch's name, and may be
/// null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvrail_reader_read(
    reader: *mut kvrail_reader,
    reads: *const kvrail_read,
    count: usize,
    options: *const kvrail_read_options,
    ticket: *mut u64,
) -> i32 {
    // SAFETY: the caller keeps the promise of this function.
    unsafe {
        enter(|caller| {
            let place = if ticket.is_null() { None } else { Some(caller.out("ticket", ticket)?) };
            let reads = caller.list("reads", reads, count)?;
            let options = caller.structure_or_none(options)?.unwrap_or_default();
            let submitted = room::with(caller, reader, |body| {
                let tables = &mut body.tables;
                each!(&mut body.any, reader => flight::read(reader, tables, reads, &options))
            })?;
            if let Some(place) = place {
                place.write(submitted.to_bits());
            }
            Ok(())
        })
    }
}

/// As kvrail_reader_read(), for pages whose slots follow each other: one range says where many
/// pages are and where they land, which costs a fraction of as many kvrail_read. The pages of all
/// ranges are one batch, in the order of the ranges; all of them are taken, or none and the error
/// says which one could not be. Pages that still grow, parts and plans need kvrail_reader_read().
/// kvrail_reader_next_batch() takes the results of a whole batch, at as little cost.
///
/// # Safety
///
/// `ranges` is null, or points to `range_count` ranges, whose `locations` each are null, or point
/// to `count` locations; they are not needed any more when the call returns. `options` and `ticket`
/// as for kvrail_reader_read().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvrail_reader_read_ranges(
    reader: *mut kvrail_reader,
    ranges: *const kvrail_read_range,
    range_count: usize,
    options: *const kvrail_read_options,
    ticket: *mut u64,
) -> i32 {
    // SAFETY: the caller keeps the promise of this function.
    unsafe {
        enter(|caller| {
            let place = if ticket.is_null() { None } else { Some(caller.out("ticket", ticket)?) };
            let given = caller.list("ranges", ranges, range_count)?;
            let options = caller.structure_or_none(options)?.unwrap_or_default();
            let submitted = room::with(caller, reader, |body| {
                let tables = &mut body.tables;
                each!(&mut body.any, reader => ranges::read(caller, reader, tables, given, &options))
            })?;
            if let Some(place) = place {
                place.write(submitted.to_bits());
            }
            Ok(())
        })
    }
}

/// Takes in completions and news of sessions, and posts more READs. Does not block.
///
/// # Safety
///
/// As for kvrail_reader_close().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvrail_reader_poll(reader: *mut kvrail_reader) -> i32 {
    // SAFETY: the caller keeps the promise of this function.
    unsafe {
        enter(|caller| {
            room::with(caller, reader, |body| {
                each!(&mut body.any, reader => reader.poll());
                Ok(())
            })
        })
    }
}

/// Takes results of pages, `room` of them at most: those of the batches that are done, page by
/// page, and those of early batches as their pages arrive. A batch's place is free when all of its
/// results have been taken. `*count` is how many were written. Give room for a whole batch.
///
/// # Safety
///
/// `results` is null, or points to places for `room` results; `count` is null, or points to a
/// place.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvrail_reader_results(
    reader: *mut kvrail_reader,
    results: *mut kvrail_result,
    room: usize,
    count: *mut usize,
) -> i32 {
    // SAFETY: the caller keeps the promise of this function.
    unsafe {
        enter(|caller| {
            let (place, results) = (caller.out("count", count)?, caller.outs("results", results, room)?);
            place.write(room::with(caller, reader, |body| {
                let tables = &mut body.tables;
                Ok(each!(&mut body.any, reader => flight::results(reader, tables, results)))
            })?);
            Ok(())
        })
    }
}

/// Takes the next batch that is done, whole: it has a result for each page, and all of its slots
/// are the caller's again, also of a batch of which kvrail_reader_results() has given some.
/// `result->pages` is 0 if no batch is done.
///
/// Bit i % 64 of word i / 64 of `failed` is set if page i of the batch did not arrive, and clear if
/// it did; bits beyond the last page are clear. `statuses[i]` becomes the status of page i if it
/// did not arrive, and is left alone if it did. Either may be null, with 0 places, and is left out
/// then. Otherwise it must have places for the whole batch: words for `failed`, pages for
/// `statuses`. If it has not, the error is KVRAIL_ERROR_BUFFER, and the next call gives the batch.
///
/// # Safety
///
/// `result` is null, or points to a place; `failed` is null, or points to places for `words` words;
/// `statuses` is null, or points to places for `room` statuses.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvrail_reader_next_batch(
    reader: *mut kvrail_reader,
    result: *mut kvrail_batch_result,
    failed: *mut u64,
    words: usize,
    statuses: *mut i32,
    room: usize,
) -> i32 {
    // SAFETY: the caller keeps the promise of this function.
    unsafe {
        enter(|caller| {
            let place = caller.out("result", result)?;
            let failed = caller.outs_or_none("failed", failed, words)?;
            let statuses = caller.outs_or_none("statuses", statuses, room)?;
            place.write(room::with(caller, reader, |body| {
                let tables = &mut body.tables;
                each!(&mut body.any, reader => ranges::next_batch(reader, tables, failed, statuses))
            })?);
            Ok(())
        })
    }
}

/// Sleeps until there is something to poll for: half of the outstanding bytes have arrived, a
/// deadline has passed, a peer has something to say; or until `timeout_ns` has passed. With batches
/// in flight it may sleep for up to 10 ms longer. Returns at once while results have not been
/// taken.
///
/// # Safety
///
/// As for kvrail_reader_close().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvrail_reader_wait(reader: *mut kvrail_reader, timeout_ns: u64) -> i32 {
    // SAFETY: the caller keeps the promise of this function.
    unsafe {
        enter(|caller| {
            room::with(caller, reader, |body| {
                let tables = &body.tables;
                each!(&mut body.any, reader => flight::wait(reader, tables, Nanos(timeout_ns)));
                Ok(())
            })
        })
    }
}

/// The file descriptor that epoll(7) or poll(2) waits for, in a program with an event loop of its
/// own: readable once a reader that was armed has something to do, until the next
/// kvrail_reader_poll(). It is the reader's, and stays the same until kvrail_reader_close().
///
/// # Safety
///
/// `fd` is null, or points to a place for the descriptor.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvrail_reader_fd(reader: *mut kvrail_reader, fd: *mut i32) -> i32 {
    // SAFETY: the caller keeps the promise of this function.
    unsafe {
        enter(|caller| {
            let place = caller.out("fd", fd)?;
            place.write(room::with(caller, reader, |body| Ok(body.descriptor()))?);
            Ok(())
        })
    }
}

/// Prepares a sleep on the reader's descriptor. `*may_sleep` is 1 if the program may sleep, for
/// `*timeout_ns` at most, and 0 if there is something to do already. kvrail_reader_poll() follows
/// in both cases, after the sleep or at once. A batch that is read between this call and the sleep
/// makes the descriptor readable; after any other call, arm again.
///
/// # Safety
///
/// `may_sleep` and `timeout_ns` are null, or point to places for results.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvrail_reader_arm(
    reader: *mut kvrail_reader,
    may_sleep: *mut u32,
    timeout_ns: *mut u64,
) -> i32 {
    // SAFETY: the caller keeps the promise of this function.
    unsafe {
        enter(|caller| {
            let (may, most) = (caller.out("may_sleep", may_sleep)?, caller.out("timeout_ns", timeout_ns)?);
            let sleep = room::with(caller, reader, |body| {
                let tables = &body.tables;
                Ok(each!(&mut body.any, reader => flight::arm(reader, tables)))
            })?;
            may.write(sleep.is_some().into());
            most.write(sleep.map_or(0, |sleep| sleep.0));
            Ok(())
        })
    }
}

/// Gives up all pages of a batch that have no result: they fail with KVRAIL_PAGE_WITHDRAWN. Their
/// results come when nothing writes into their slots any more.
///
/// # Safety
///
/// As for kvrail_reader_close().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvrail_reader_withdraw(reader: *mut kvrail_reader, ticket: u64) -> i32 {
    // SAFETY: the caller keeps the promise of this function.
    unsafe {
        enter(|caller| {
            room::with(caller, reader, |body| {
                each!(&mut body.any, reader => reader.withdraw(Ticket::from_bits(ticket)))?;
                Ok(())
            })
        })
    }
}

/// As kvrail_reader_withdraw(), for the page at position `index` of the batch. A page that has its
/// result already keeps it.
///
/// # Safety
///
/// As for kvrail_reader_close().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvrail_reader_withdraw_page(
    reader: *mut kvrail_reader,
    ticket: u64,
    index: u32,
) -> i32 {
    // SAFETY: the caller keeps the promise of this function.
    unsafe {
        enter(|caller| {
            room::with(caller, reader, |body| {
                let (ticket, index) = (Ticket::from_bits(ticket), index as usize);
                each!(&mut body.any, reader => reader.withdraw_page(ticket, index))?;
                Ok(())
            })
        })
    }
}

/// Moves a batch in flight to another class, a KVRAIL_CLASS_ constant.
///
/// # Safety
///
/// As for kvrail_reader_close().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvrail_reader_set_class(
    reader: *mut kvrail_reader,
    ticket: u64,
    priority: u32,
) -> i32 {
    // SAFETY: the caller keeps the promise of this function.
    unsafe {
        enter(|caller| {
            let class = flight::class(priority)?;
            room::with(caller, reader, |body| {
                each!(&mut body.any, reader => reader.set_class(Ticket::from_bits(ticket), class))?;
                Ok(())
            })
        })
    }
}
