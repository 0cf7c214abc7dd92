//! The data path: batches, results, sleeping. Nothing here allocates but after an error.

use std::mem::MaybeUninit;
use std::os::fd::AsFd;

use engine::core::batch::{Batch, Class};
use engine::core::error::{PageError, ReadError, SubmitError};
use engine::core::memory::Slot;
use engine::core::plan::PlanRef;
use engine::core::remote::RemotePage;
use engine::core::time::Nanos;
use engine::{BlockError, PeerPool, Reader, ReaderTransport, Ticket, clock};

use super::tables::{Peers, Regions, Tables};
use crate::abi::constants::{
    KVRAIL_BATCH_EARLY, KVRAIL_CLASS_BACKGROUND, KVRAIL_CLASS_URGENT, KVRAIL_OK, KVRAIL_READ_UNVALIDATED,
};
use crate::abi::reader_types::{kvrail_read, kvrail_read_options, kvrail_result};
use crate::error::CapiError;
use crate::publisher::rust_location;

/// The class of this number.
pub(crate) fn class(number: u32) -> Result<Class, CapiError> {
    match number {
        KVRAIL_CLASS_URGENT => Ok(Class::Urgent),
        KVRAIL_CLASS_BACKGROUND => Ok(Class::Background),
        other => {
            let (what, value) = ("priority", other.into());
            Err(CapiError::Value { what, value, allowed: "a KVRAIL_CLASS_ constant" })
        }
    }
}

/// Submits the pages of `reads` as one batch, or none of them.
pub(crate) fn read<T: ReaderTransport>(
    reader: &mut Reader<T>,
    tables: &mut Tables,
    reads: &[kvrail_read],
    options: &kvrail_read_options,
) -> Result<Ticket, CapiError> {
    let mut batch = empty_batch(reader, tables, reads.len(), options)?;
    let Tables { regions, peers, plans, .. } = tables;
    let mut from = Source::default();
    let mut flight = FlightTables { regions, peers, plans };
    for (index, read) in reads.iter().enumerate() {
        if let Err(source) = add(&mut flight, &mut from, &mut batch, read) {
            take_back(flight.regions, &mut batch);
            return Err(CapiError::OfRead { index, source });
        }
    }
    submit(reader, tables, batch, options)
}

/// A batch without pages, which will have `pages`, with what `options` say but the time.
#[inline]
pub(super) fn empty_batch<T: ReaderTransport>(
    reader: &mut Reader<T>,
    tables: &Tables,
    pages: usize,
    options: &kvrail_read_options,
) -> Result<Batch<'static>, CapiError> {
    if pages == 0 {
        return Err(SubmitError::Empty.into());
    }
    if pages > tables.batch {
        return Err(CapiError::TooManyReads { reads: pages, most: tables.batch });
    }
    if options.flags & !KVRAIL_BATCH_EARLY != 0 {
        let (what, value) = ("options.flags", options.flags.into());
        return Err(CapiError::Value { what, value, allowed: "KVRAIL_BATCH_ constants" });
    }
    let class = class(options.priority)?;
    let Some(mut batch) = reader.batch() else {
        return Err(CapiError::Busy { batches: tables.batches });
    };
    batch.set_class(class);
    batch.set_tag(options.tag);
    if options.flags & KVRAIL_BATCH_EARLY != 0 {
        batch.report_pages();
    }
    Ok(batch)
}

/// Submits a batch. Its slots are back in their regions after an error.
#[inline]
pub(super) fn submit<T: ReaderTransport>(
    reader: &mut Reader<T>,
    tables: &mut Tables,
    batch: Batch<'static>,
    options: &kvrail_read_options,
) -> Result<Ticket, CapiError> {
    let timeout = if options.timeout_ns == 0 { tables.timeout } else { Nanos(options.timeout_ns) };
    reader.submit(batch, clock::now() + timeout).map_err(|mut rejected| {
        take_back(&mut tables.regions, &mut rejected.batch);
        rejected.error.into()
    })
}

/// The tables that a batch is filled from.
struct FlightTables<'a> {
    regions: &'a mut Regions,
    peers: &'a Peers,
    plans: &'a [Option<PlanRef>],
}

/// The pool of the page before: mostly it is that of the next page, too.
#[derive(Default)]
struct Source<'a> {
    peer: u32,
    pool: u32,
    known: Option<&'a PeerPool>,
}

/// Adds one page to a batch. Errors are boxed, so that a result is one word.
#[inline]
fn add<'a>(
    tables: &mut FlightTables<'a>,
    from: &mut Source<'a>,
    batch: &mut Batch<'static>,
    read: &kvrail_read,
) -> Result<(), Box<CapiError>> {
    let pool = match from.known {
        Some(pool) if (from.peer, from.pool) == (read.peer, read.location.pool) => pool,
        _ => {
            let pool = tables.peers.get(read.peer).and_then(|peer| peer.pool(read.location.pool))?;
            *from = Source { peer: read.peer, pool: read.location.pool, known: Some(pool) };
            pool
        }
    };
    let plain = read.flags | read.needs | read.part_offset | read.part_bytes | read.plan == 0;
    if !plain {
        return add_special(tables, pool, batch, read);
    }
    let page = match pool.page(rust_location(&read.location)) {
        Ok(page) => page,
        Err(error) => return Err(of_block(error)),
    };
    let place = tables.regions.place(read.region, read.slot);
    let Some(slot) = place.and_then(Option::take) else {
        return Err(Box::new(tables.regions.why_not(read.region, read.slot)));
    };
    match batch.read(page, slot) {
        Ok(()) => Ok(()),
        Err((error, slot)) => Err(refused(tables.regions, slot, error)),
    }
}

/// Adds a page that is read by a plan, in part, while it grows or without validation.
fn add_special(
    tables: &mut FlightTables<'_>,
    pool: &PeerPool,
    batch: &mut Batch<'static>,
    read: &kvrail_read,
) -> Result<(), Box<CapiError>> {
    let page = page(pool, read)?;
    let plan = match read.plan {
        0 => None,
        plan => match tables.plans.get(plan as usize - 1) {
            Some(&Some(known)) => Some(known),
            _ => return Err(Box::new(CapiError::Plan { plan })),
        },
    };
    let place = tables.regions.place(read.region, read.slot);
    let Some(slot) = place.and_then(Option::take) else {
        return Err(Box::new(tables.regions.why_not(read.region, read.slot)));
    };
    let added = match plan {
        None => batch.read(page, slot),
        Some(plan) => batch.read_with(page, slot, plan),
    };
    added.map_err(|(error, slot)| refused(tables.regions, slot, error))
}

#[cold]
fn refused(regions: &mut Regions, slot: Slot, error: ReadError) -> Box<CapiError> {
    regions.put(slot);
    Box::new(error.into())
}

#[cold]
fn of_block(error: BlockError) -> Box<CapiError> {
    Box::new(error.into())
}

/// The page that `read` names.
fn page(pool: &PeerPool, read: &kvrail_read) -> Result<RemotePage, CapiError> {
    let page = match read.flags {
        0 => pool.page(rust_location(&read.location))?,
        KVRAIL_READ_UNVALIDATED => pool.unvalidated(read.location.slot)?,
        other => {
            let (what, value) = ("read.flags", other.into());
            return Err(CapiError::Value { what, value, allowed: "KVRAIL_READ_ constants" });
        }
    };
    let page = match (read.part_offset, read.part_bytes) {
        (0, 0) => page,
        (offset, bytes) => page.part(offset, bytes)?,
    };
    Ok(if read.needs == 0 { page } else { page.needs(read.needs) })
}

/// Takes back the slots of a batch that is not read.
#[cold]
pub(super) fn take_back(regions: &mut Regions, batch: &mut Batch<'static>) {
    for slot in batch.clear() {
        regions.put(slot);
    }
}

/// The status of a page.
#[inline]
pub(super) fn status(result: Result<(), PageError>) -> i32 {
    match result {
        Ok(()) => KVRAIL_OK,
        // Codes have four digits.
        Err(error) => error.code().cast_signed(),
    }
}

/// Writes results to `out`, as many as there are and fit. Returns how many.
pub(crate) fn results<T: ReaderTransport>(
    reader: &mut Reader<T>,
    tables: &mut Tables,
    out: &mut [MaybeUninit<kvrail_result>],
) -> usize {
    let mut count = early(reader, tables, out);
    while count < out.len() {
        let Some(mut done) = tables.draining.take().or_else(|| reader.next_done()) else { break };
        let (ticket, tag, len) = (done.ticket().to_bits(), done.tag(), done.len());
        let mut behind = 0;
        let mut pages = done.pages();
        // Taken before a page is, since a page that is taken leaves the batch.
        while let Some(place) = out.get_mut(count) {
            let Some(page) = pages.next() else { break };
            let (index, status) = (page.index as u32, status(page.result));
            let (region, slot) = tables.regions.put(page.slot);
            place.write(kvrail_result { ticket, tag, index, status, region, slot });
            (count, behind) = (count + 1, page.index + 1);
        }
        drop(pages);
        // Otherwise the batch has no page any more, and its buffer is free.
        if count == out.len() && behind < len {
            tables.draining = Some(done);
        }
    }
    count
}

/// Writes the results of pages that are told before their batch is done.
#[inline]
fn early<T: ReaderTransport>(
    reader: &mut Reader<T>,
    tables: &mut Tables,
    out: &mut [MaybeUninit<kvrail_result>],
) -> usize {
    let mut count = 0;
    while let Some(place) = out.get_mut(count) {
        let Some(arrival) = reader.next_arrival() else { break };
        // No batch of this interface has pages that share a slot, so each has its own.
        let Some(slot) = reader.take_slot(&arrival) else { continue };
        let (region, slot) = tables.regions.put(slot);
        place.write(kvrail_result {
            ticket: arrival.ticket.to_bits(),
            tag: arrival.tag,
            index: arrival.page as u32,
            status: status(arrival.result),
            region,
            slot,
        });
        count += 1;
    }
    count
}

/// Sleeps until there is something to poll for, for `timeout` at most.
pub(crate) fn wait<T: ReaderTransport>(reader: &mut Reader<T>, tables: &Tables, timeout: Nanos) {
    if tables.draining.is_none() {
        reader.wait(clock::now() + timeout);
    }
}

/// Prepares a sleep on the reader's descriptor: how long it may last, or `None` if there is
/// something to do.
pub(crate) fn arm<T: ReaderTransport<Provider: AsFd>>(
    reader: &mut Reader<T>,
    tables: &Tables,
) -> Option<Nanos> {
    if tables.draining.is_some() {
        return None;
    }
    reader.arm().map(clock::nanos)
}
