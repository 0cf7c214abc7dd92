//! Listing what a peer has published, by reading its publication table.

use std::ops::Range;

use kvrail_core::batch::{Done, Ticket};
use kvrail_core::error::{PageError, ReadError, SubmitError};
use kvrail_core::memory::{RegionError, Slot};
use kvrail_core::remote::{Location, PageRangeError, RemotePage};
use kvrail_core::table::{ENTRY_BYTES, EntryValue};
use kvrail_core::time::Time;

use super::Reader;
use super::peer::Peer;
use crate::clock;
use crate::memory::{AllocateError, leaked};
use crate::transport::ReaderTransport;

/// Bytes of a table that are read at a time: 4,096 entries.
const PART: usize = 4096 * ENTRY_BYTES as usize;

/// The most slots that one call lists: 64 MiB of table, and half as much again for the result. The
/// number of a region's slots is the producer's claim, so it does not bound memory here.
pub const MAX_LISTED: u32 = 1 << 22;

/// Why a publication table was not read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TableError {
    /// The region has no table, or one of more than 4 GiB.
    #[error(
        "the peer's region {region} has no publication table that can be read as a whole: take locations from the producer"
    )]
    None {
        /// Which region.
        region: usize,
    },
    /// More slots than are listed at a time.
    #[error(
        "slots {} to {} of the peer's region {region}, which says that it has {slots}: one call lists 1 to {MAX_LISTED} \
         slots of those that there are; list a part by published_in",
        .asked.start, .asked.end
    )]
    Slots {
        /// Which region.
        region: usize,
        /// Which slots were asked for.
        asked: Range<u32>,
        /// How many the region has, as the producer says.
        slots: u32,
    },
    /// The system gives no memory to read the table into.
    #[error(transparent)]
    Memory(#[from] AllocateError),
    /// The memory could not be registered.
    #[error(transparent)]
    Register(#[from] RegionError),
    /// All batches are in use.
    #[error("all batches are in use: drop what is done first")]
    Busy,
    /// A part of the table cannot be addressed.
    #[error(transparent)]
    Range(#[from] PageRangeError),
    /// A part of the table cannot be put into a batch.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The engine refused.
    #[error(transparent)]
    Submit(#[from] SubmitError),
    /// The table did not arrive.
    #[error("the publication table did not arrive: {0}")]
    Page(PageError),
    /// The table did not arrive in time, and hardware may still write into its slot.
    #[error("the publication table did not arrive in time: try again with a later deadline")]
    Deadline,
}

impl TableError {
    /// A number that never changes its meaning (docs/errors.md).
    #[must_use]
    pub const fn code(&self) -> u32 {
        match self {
            Self::None { .. } => 6050,
            Self::Slots { .. } => 6051,
            Self::Busy => 6052,
            Self::Deadline => 6053,
            Self::Memory(source) => source.code(),
            Self::Register(source) => source.code(),
            Self::Range(source) => source.code(),
            Self::Read(source) => source.code(),
            Self::Submit(source) => source.code(),
            Self::Page(source) => source.code(),
        }
    }
}

impl From<PageError> for TableError {
    fn from(error: PageError) -> Self {
        Self::Page(error)
    }
}

impl<T: ReaderTransport> Reader<T> {
    /// The pages that the peer has published in `region`, in the order of its slots: a snapshot,
    /// which may be out of date at once. The table is read as pages are, one-sidedly; the peer
    /// takes no part in it.
    ///
    /// Blocks, until `deadline` at most. Batches in flight go on meanwhile.
    ///
    /// # Errors
    ///
    /// There is no such region or table, it did not arrive, or it has more than [`MAX_LISTED`]
    /// slots: a part of those is listed by [`published_in`](Self::published_in).
    pub fn published(
        &mut self,
        peer: &Peer,
        region: usize,
        deadline: Time,
    ) -> Result<Vec<Location>, TableError> {
        let slots = peer.regions().get(region).ok_or(TableError::None { region })?.slots();
        self.published_in(peer, region, 0..slots, deadline)
    }

    /// The pages that the peer has published in the slots `slots` of `region`: a part of
    /// [`published`](Self::published).
    ///
    /// # Errors
    ///
    /// As `published`; or no slots, more than [`MAX_LISTED`], or some that the region does not
    /// have.
    pub fn published_in(
        &mut self,
        peer: &Peer,
        region: usize,
        slots: Range<u32>,
        deadline: Time,
    ) -> Result<Vec<Location>, TableError> {
        let none = TableError::None { region };
        let Some(&Some(table)) = peer.tables.get(region) else { return Err(none) };
        let there = peer.regions().get(region).ok_or(none)?.slots();
        if slots.is_empty() || slots.end > there || slots.end - slots.start > MAX_LISTED {
            return Err(TableError::Slots { region, asked: slots, slots: there });
        }
        let table = table.unvalidated(0)?;
        let mut locations = Vec::new();
        let mut first = slots.start;
        while first < slots.end {
            let count = (slots.end - first).min(PART as u32 / ENTRY_BYTES as u32);
            // A table that can be read as a whole has less than 2^32 bytes.
            let part = table.part(first * ENTRY_BYTES as u32, count * ENTRY_BYTES as u32)?;
            let slot = self.fetch(part, deadline)?;
            let bytes = slot.bytes().unwrap_or_default();
            let (entries, _) = bytes[..part.len() as usize].as_chunks::<{ ENTRY_BYTES as usize }>();
            for (entry, number) in entries.iter().zip(first..) {
                let expected = EntryValue::from_bytes(*entry);
                if expected.generation.is_valid() {
                    locations.push(Location { slot: number, expected });
                }
            }
            self.scratch.push(slot);
            first += count;
        }
        Ok(locations)
    }

    /// Reads `page` into a scratch slot, and waits for it.
    fn fetch(&mut self, page: RemotePage, deadline: Time) -> Result<Slot, TableError> {
        let slot = match self.scratch.pop() {
            Some(slot) => slot,
            None => {
                let mut slots = self.engine.register(leaked(PART)?, PART as u64)?;
                slots.next().ok_or(TableError::Deadline)?
            }
        };
        let Some(mut batch) = self.engine.batch() else {
            self.scratch.push(slot);
            return Err(TableError::Busy);
        };
        if let Err((error, slot)) = batch.read(page, slot) {
            self.scratch.push(slot);
            return Err(error.into());
        }
        let ticket = match self.engine.submit(batch, clock::now(), deadline) {
            Ok(ticket) => ticket,
            Err(mut rejected) => {
                self.scratch.extend(rejected.batch.clear());
                return Err(rejected.error.into());
            }
        };
        let Some(mut done) = self.await_batch(ticket, deadline) else {
            self.abandoned.push(ticket);
            // The caller knows no such batch.
            self.overdue.retain(|&overdue| overdue != ticket);
            return Err(TableError::Deadline);
        };
        let page = done.pages().next().ok_or(TableError::Deadline)?;
        match page.result {
            Ok(()) => Ok(page.slot),
            Err(error) => {
                self.scratch.push(page.slot);
                Err(error.into())
            }
        }
    }

    /// Returns `done`, unless its batch is a READ of a table that was given up: the slot of such a
    /// batch goes back to `scratch`.
    pub(super) fn unless_given_up(&mut self, mut done: Done<'static>) -> Option<Done<'static>> {
        let ticket = done.ticket();
        let Some(at) = self.abandoned.iter().position(|&t| t == ticket) else { return Some(done) };
        self.abandoned.swap_remove(at);
        self.scratch.extend(done.pages().map(|page| page.slot));
        None
    }

    /// Polls until the batch of `ticket` is done; other done batches are kept for `next_done`.
    /// `None`: the deadline has passed, and the batch will be done later.
    fn await_batch(&mut self, ticket: Ticket, deadline: Time) -> Option<Done<'static>> {
        loop {
            self.poll();
            while let Some(done) = self.finished() {
                if done.ticket() == ticket {
                    return Some(done);
                }
                if let Some(done) = self.unless_given_up(done) {
                    self.stash.push_back(done);
                }
            }
            self.take_overdue_notices();
            let now = clock::now();
            if now >= deadline {
                return None;
            }
            self.engine.wait(now, deadline);
        }
    }
}
