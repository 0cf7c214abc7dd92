//! The block list of a request: which pages a prefill node has written for it, in the form in which a decode
//! node is told.
//!
//! A [`BlockList`] is locations (slot, generation, key tag) of one region, in the order of the request's
//! tokens. On the wire it is runs: what goes on evenly is said once, what does not is listed. 1,024 pages
//! of evenly spaced slots, of one generation and of evenly spaced tags, are 96 bytes;
//! [`BlockList::MAX_BYTES`] is the most, 20 bytes a page when nothing is even.
//!
//! ```
//! use kvrail_core::remote::Location;
//! use kvrail_core::table::{EntryValue, Generation, KeyTag};
//! use kvrail_session::blocks::{BlockList, Head};
//! use kvrail_session::{Epoch, Fingerprint};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let pages: Vec<Location> = (0..1_024)
//!     .map(|i| Location {
//!         slot: 7 + 2 * i,
//!         expected: EntryValue { generation: Generation(0xBEEF_0000_0003), tag: KeyTag(900 + u64::from(i)) },
//!     })
//!     .collect();
//! let head = Head { fingerprint: Fingerprint::from_bytes([1; 16]), epoch: Epoch(5.try_into()?), region: 0, request: 42 };
//! let bytes = BlockList::new(head, &pages)?.encode();
//! assert_eq!(bytes.len(), 96);
//! let list = BlockList::parse(&bytes)?;
//! assert_eq!(list.head().request, 42);
//! assert!(list.locations().eq(pages));
//! # Ok(())
//! # }
//! ```
//!
//! A list is a hint: it is read as any location is, and a page that is not, or no longer, the one it names
//! is a miss. Nothing in it is trusted but to be what it says; it carries no MAC of its own, and travels
//! over an authenticated connection where that matters.

mod compress;
mod decode;
#[cfg(test)]
mod tests;
mod wire;

use std::num::NonZeroU32;

use kvrail_core::remote::Location;
use kvrail_core::table::{EntryValue, Generation, KeyTag};
use kvrail_layouts::Fingerprint;
use zerocopy::IntoBytes;
use zerocopy::little_endian::{U16, U32, U64};

pub use self::decode::BlockListError;
use crate::offer::{Epoch, MAX_REGIONS};

/// What is said once of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// The layout of the pages.
    pub fingerprint: Fingerprint,
    /// The life of the producer in which they were written.
    pub epoch: Epoch,
    /// Which of the regions in the producer's offer they are in, below [`MAX_REGIONS`].
    pub region: u16,
    /// The request, as prefill and decode call it.
    pub request: u64,
}

/// One column of a run: values that go on evenly, or a list of them.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Column<T> {
    /// First, and the step to the next; a run of one has step 0.
    Even(T, T),
    Listed(Vec<T>),
}

/// Pages in a row.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Run {
    count: NonZeroU32,
    /// The step is two's complement; no slot leaves 0 ..= u32::MAX.
    slots: Column<u32>,
    /// Valid ones; the step is 0.
    generations: Column<u64>,
    /// The step is modulo 2^64.
    tags: Column<u64>,
}

/// The pages of one request in one region, in order: at least one, at most [`MAX_BLOCKS`](Self::MAX_BLOCKS).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockList {
    head: Head,
    count: u32,
    runs: Vec<Run>,
}

/// Why locations are no list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NoList {
    /// None, or too many.
    #[error("a block list of {0} pages: it names 1 to {max}", max = BlockList::MAX_BLOCKS)]
    Count(usize),
    /// A location of no page.
    #[error("page {page} is named in generation {generation}, which no page is ever published in")]
    Generation {
        /// Its position.
        page: usize,
        /// The generation.
        generation: Generation,
    },
    /// A region that no offer has.
    #[error("region {0}: an offer has at most {MAX_REGIONS}")]
    Region(u16),
}

impl BlockList {
    /// The most pages of a list: a million tokens in pages of 16.
    pub const MAX_BLOCKS: usize = 1 << 16;
    /// The most bytes of a list: one run, with everything listed.
    pub const MAX_BYTES: usize = HEADER + RUN + EACH * Self::MAX_BLOCKS;

    /// The list of these pages, in as few bytes as there can be.
    ///
    /// # Errors
    ///
    /// No pages, too many, or one that can be none.
    pub fn new(head: Head, pages: &[Location]) -> Result<Self, NoList> {
        if usize::from(head.region) >= MAX_REGIONS {
            return Err(NoList::Region(head.region));
        }
        if pages.is_empty() || pages.len() > Self::MAX_BLOCKS {
            return Err(NoList::Count(pages.len()));
        }
        if let Some(page) = pages.iter().position(|page| !page.expected.generation.is_valid()) {
            return Err(NoList::Generation { page, generation: pages[page].expected.generation });
        }
        // At most MAX_BLOCKS.
        Ok(Self { head, count: pages.len() as u32, runs: compress::runs(pages) })
    }

    /// What is said once.
    #[must_use]
    pub const fn head(&self) -> &Head {
        &self.head
    }

    /// How many pages it names, at least 1.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.count as usize
    }

    /// Whether it names none; never.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        false
    }

    /// The pages, in order.
    pub fn locations(&self) -> impl Iterator<Item = Location> + '_ {
        self.runs.iter().flat_map(|run| (0..run.count.get()).map(|i| run.location(i)))
    }

    /// Its bytes, at most [`MAX_BYTES`](Self::MAX_BYTES).
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let bytes = HEADER + self.runs.iter().map(Run::bytes).sum::<usize>();
        let mut out = Vec::with_capacity(bytes);
        let Head { fingerprint, epoch, region, request } = self.head;
        let header = wire::Header {
            magic: wire::MAGIC,
            version: U16::new(wire::VERSION),
            region: U16::new(region),
            // Runs are no more than pages, and both fit MAX_BYTES.
            bytes: U32::new(bytes as u32),
            count: U32::new(self.count),
            runs: U32::new(self.runs.len() as u32),
            fingerprint: fingerprint.to_bytes(),
            epoch: U64::new(epoch.0.get()),
            request: U64::new(request),
        };
        out.extend_from_slice(header.as_bytes());
        for run in &self.runs {
            run.encode(&mut out);
        }
        out
    }

    /// The list that `bytes` are: all of them and no more. [`encode`](Self::encode) gives the same again.
    ///
    /// # Errors
    ///
    /// What is wrong, with the numbers.
    pub fn parse(bytes: &[u8]) -> Result<Self, BlockListError> {
        decode::parse(bytes)
    }
}

const HEADER: usize = size_of::<wire::Header>();
const RUN: usize = size_of::<wire::Run>();
/// Bytes of a page when all of it is listed.
const EACH: usize = 4 + 8 + 8;

impl Run {
    fn location(&self, i: u32) -> Location {
        let slot = match &self.slots {
            Column::Even(first, step) => first.wrapping_add(step.wrapping_mul(i)),
            Column::Listed(all) => all[i as usize],
        };
        let wide = |column: &Column<u64>| match column {
            Column::Even(first, step) => first.wrapping_add(step.wrapping_mul(u64::from(i))),
            Column::Listed(all) => all[i as usize],
        };
        let (generation, tag) = (Generation(wide(&self.generations)), KeyTag(wide(&self.tags)));
        Location { slot, expected: EntryValue { generation, tag } }
    }

    fn bytes(&self) -> usize {
        let listed = |listed: bool, bytes: usize| if listed { bytes * self.count.get() as usize } else { 0 };
        RUN + listed(matches!(self.slots, Column::Listed(_)), 4)
            + listed(matches!(self.generations, Column::Listed(_)), 8)
            + listed(matches!(self.tags, Column::Listed(_)), 8)
    }

    fn encode(&self, out: &mut Vec<u8>) {
        let Self { count, slots, generations, tags } = self;
        let (mut listed, mut columns) = (0, Vec::new());
        let (mut even, mut wide) = ((0, 0), [(0, 0); 2]);
        match slots {
            Column::Even(first, step) => even = (*first, *step),
            Column::Listed(all) => {
                listed |= wire::SLOTS;
                columns.extend(all.iter().flat_map(|slot| slot.to_le_bytes()));
            }
        }
        for (i, (column, bit)) in
            [(generations, wire::GENERATIONS), (tags, wire::TAGS)].into_iter().enumerate()
        {
            match column {
                Column::Even(first, step) => wide[i] = (*first, *step),
                Column::Listed(all) => {
                    listed |= bit;
                    columns.extend(all.iter().flat_map(|value| value.to_le_bytes()));
                }
            }
        }
        let run = wire::Run {
            count: U32::new(count.get()),
            slot: U32::new(even.0),
            slot_step: U32::new(even.1),
            listed,
            zero: [0; 3],
            generation: U64::new(wide[0].0),
            tag: U64::new(wide[1].0),
            tag_step: U64::new(wide[1].1),
        };
        out.extend_from_slice(run.as_bytes());
        out.extend_from_slice(&columns);
    }
}
