//! A block list: how it is made, read and encoded.

use kvrail_core::remote::Location;
use kvrail_core::table::Generation;
use zerocopy::IntoBytes;
use zerocopy::little_endian::{U16, U32, U64};

use super::decode::{BlockListError, Parsed, parse};
use super::run::{EACH, HEADER, Head, MAX_BLOCKS, RUN, Run};
use super::{compress, wire};
use crate::offer::MAX_REGIONS;

/// The pages of one request in one region, in order: at least one, at most
/// [`MAX_BLOCKS`](Self::MAX_BLOCKS).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockList {
    head: Head,
    count: u32,
    runs: Vec<Run>,
}

/// Why locations cannot be made into a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NoList {
    /// There are no pages, or too many.
    #[error("{0} pages were given for a block list, which names 1 to {max}", max = BlockList::MAX_BLOCKS)]
    Count(usize),
    /// A location has a generation that no page can have.
    #[error("page {page} has generation {generation}, in which no page is ever published")]
    Generation {
        /// The page's position in the list.
        page: usize,
        /// The generation.
        generation: Generation,
    },
    /// The region's number is higher than an offer has.
    #[error("there is no region {0}: an offer has at most {MAX_REGIONS}, counted from 0")]
    Region(u16),
}

impl NoList {
    /// A number that never changes its meaning (docs/errors.md).
    #[must_use]
    pub const fn code(&self) -> u32 {
        match self {
            Self::Count(_) => 4170,
            Self::Generation { .. } => 4171,
            Self::Region(_) => 4172,
        }
    }
}

impl BlockList {
    /// The most pages of a list: a million tokens in pages of 16.
    pub const MAX_BLOCKS: usize = MAX_BLOCKS;
    /// The most bytes of a list: one run in which every value is listed.
    pub const MAX_BYTES: usize = HEADER + RUN + EACH * Self::MAX_BLOCKS;

    /// The list of these pages, in as few bytes as possible.
    ///
    /// # Errors
    ///
    /// There are no pages or too many, a generation is invalid, or the region's number is too high.
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

    /// The values that all pages have in common.
    #[must_use]
    pub const fn head(&self) -> &Head {
        &self.head
    }

    /// How many pages it names, at least 1.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.count as usize
    }

    /// Whether it names no page: never.
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

    /// Parses `bytes`, which must be one list and nothing else. [`encode`](Self::encode) gives the
    /// same bytes again.
    ///
    /// # Errors
    ///
    /// The bytes are not a list: the error names the run and the numbers.
    pub fn parse(bytes: &[u8]) -> Result<Self, BlockListError> {
        parse(bytes).map(|Parsed { head, count, runs }| Self { head, count, runs })
    }
}
