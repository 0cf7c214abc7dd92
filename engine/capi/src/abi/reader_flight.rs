//! The functions of a reader's data path.
#![allow(unsafe_code, reason = "functions of C")]

use engine::Ticket;
use engine::core::time::Nanos;

use super::reader_types::{kvrail_read, kvrail_read_options, kvrail_reader, kvrail_result};
use crate::border::enter;
use crate::reader::any::each;
use crate::reader::{flight, room};

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
