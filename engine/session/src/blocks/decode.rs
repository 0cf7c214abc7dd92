//! How bytes become a block list. Parsing never panics, and allocates nothing by a number that it
//! reads.

use std::num::{NonZeroU32, NonZeroU64};

use kvrail_core::table::Generation;
use kvrail_layouts::Fingerprint;
use zerocopy::little_endian::{U32, U64, U128};
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

use super::run::{Column, EACH, HEADER, Head, MAX_BLOCKS, RUN, Run};
use super::wire;
use crate::offer::{Epoch, MAX_REGIONS};

/// Why bytes are no block list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BlockListError {
    /// The bytes are shorter than a header.
    #[error("{got} bytes are no block list: its header has {HEADER} bytes")]
    Short {
        /// How many there are.
        got: usize,
    },
    /// The bytes are something else.
    #[error("the bytes are not a block list: they begin with {got:02x?}")]
    Magic {
        /// The first bytes.
        got: [u8; 8],
    },
    /// The list has another version.
    #[error("the block list has version {got}, and this side reads version {want}: run the same release on both sides", want = wire::VERSION)]
    Version {
        /// Its version.
        got: u16,
    },
    /// There are more or fewer bytes than the header says.
    #[error("the block list says that it has {said} bytes, and {got} bytes came")]
    Size {
        /// The header's number.
        said: u32,
        /// How many there are.
        got: usize,
    },
    /// There are no pages or too many; or there are no runs, or more runs than pages.
    #[error("the block list says {pages} pages and {runs} runs: it can have 1 to {max} pages, and at most as many runs", max = MAX_BLOCKS)]
    Count {
        /// Pages.
        pages: u32,
        /// Runs.
        runs: u32,
    },
    /// The region's number is higher than an offer has.
    #[error("the block list names region {0}: an offer has at most {MAX_REGIONS}, counted from 0")]
    Region(u16),
    /// The epoch is 0.
    #[error("the block list has epoch 0, which no producer has")]
    Epoch,
    /// The bytes end within a run.
    #[error("the block list ends {missing} bytes before the end of its run {run}")]
    Truncated {
        /// The run's number, from 0.
        run: u32,
        /// How many bytes are missing.
        missing: usize,
    },
    /// The runs have more or fewer pages than the header says.
    #[error("the first {runs} runs have {named} pages, but the block list says {pages}")]
    Pages {
        /// The header's number.
        pages: u32,
        /// Pages of the runs so far.
        named: u64,
        /// How many runs were read.
        runs: u32,
    },
    /// A run has no page.
    #[error("run {run} has no page")]
    EmptyRun {
        /// Which run.
        run: u32,
    },
    /// A value that must be zero is not.
    #[error("run {run} has {what} where the value must be 0")]
    Stray {
        /// Which run.
        run: u32,
        /// What it has.
        what: &'static str,
    },
    /// The slots of a run leave the range of slots.
    #[error("run {run} has {count} slots from {slot} by steps of {step}, which leave 0..2^32")]
    Slots {
        /// Which run.
        run: u32,
        /// Its first slot.
        slot: u32,
        /// Its step.
        step: i32,
        /// How many pages it has.
        count: u32,
    },
    /// A page has a generation that no page can have.
    #[error("run {run} has a page of generation {generation}, in which no page is ever published")]
    Generation {
        /// Which run.
        run: u32,
        /// The generation.
        generation: Generation,
    },
    /// Bytes follow the last run.
    #[error("{extra} bytes follow the last run of the block list")]
    Extra {
        /// How many.
        extra: usize,
    },
}

impl BlockListError {
    /// A number that never changes its meaning (docs/errors.md).
    #[must_use]
    pub const fn code(&self) -> u32 {
        match self {
            Self::Short { .. } => 4150,
            Self::Magic { .. } => 4151,
            Self::Version { .. } => 4152,
            Self::Size { .. } => 4153,
            Self::Count { .. } => 4154,
            Self::Region(_) => 4155,
            Self::Epoch => 4156,
            Self::Truncated { .. } => 4157,
            Self::Pages { .. } => 4158,
            Self::EmptyRun { .. } => 4159,
            Self::Stray { .. } => 4160,
            Self::Slots { .. } => 4161,
            Self::Generation { .. } => 4162,
            Self::Extra { .. } => 4163,
        }
    }
}

/// The parts of a block list.
pub(super) struct Parsed {
    pub(super) head: Head,
    pub(super) count: u32,
    pub(super) runs: Vec<Run>,
}

pub(super) fn parse(bytes: &[u8]) -> Result<Parsed, BlockListError> {
    let got = bytes.len();
    let (header, mut rest) =
        wire::Header::ref_from_prefix(bytes).map_err(|_| BlockListError::Short { got })?;
    if header.magic != wire::MAGIC {
        return Err(BlockListError::Magic { got: header.magic });
    }
    if header.version.get() != wire::VERSION {
        return Err(BlockListError::Version { got: header.version.get() });
    }
    let said = header.bytes.get();
    if usize::try_from(said) != Ok(got) {
        return Err(BlockListError::Size { said, got });
    }
    let (pages, count) = (header.count.get(), header.runs.get());
    if pages == 0 || pages as usize > MAX_BLOCKS || count == 0 || count > pages {
        return Err(BlockListError::Count { pages, runs: count });
    }
    let region = header.region.get();
    if usize::from(region) >= MAX_REGIONS {
        return Err(BlockListError::Region(region));
    }
    let epoch = NonZeroU64::new(header.epoch.get()).ok_or(BlockListError::Epoch)?;
    // Room for no more runs than the bytes can hold, whatever the header says.
    let mut runs = Vec::with_capacity((rest.len() / RUN).min(count as usize));
    let mut named = 0;
    for number in 0..count {
        let run = take_run(&mut rest, number)?;
        named += u64::from(run.count.get());
        if named > u64::from(pages) {
            return Err(BlockListError::Pages { pages, named, runs: number + 1 });
        }
        runs.push(run);
    }
    if named != u64::from(pages) {
        return Err(BlockListError::Pages { pages, named, runs: count });
    }
    if !rest.is_empty() {
        return Err(BlockListError::Extra { extra: rest.len() });
    }
    let fingerprint = Fingerprint::from_bytes(header.fingerprint);
    let head = Head { fingerprint, epoch: Epoch(epoch), region, request: header.request.get() };
    Ok(Parsed { head, count: pages, runs })
}

fn take_run(rest: &mut &[u8], number: u32) -> Result<Run, BlockListError> {
    let truncated = |missing| BlockListError::Truncated { run: number, missing };
    let (run, behind) = wire::Run::ref_from_prefix(rest).map_err(|_| truncated(RUN - rest.len()))?;
    let count = NonZeroU32::new(run.count.get()).ok_or(BlockListError::EmptyRun { run: number })?;
    let stray = |what| BlockListError::Stray { run: number, what };
    let columns = wire::SLOTS | wire::GENERATIONS | wire::TAGS | wire::READY;
    if run.zero != [0; 3] || run.last != [0; 4] || run.listed & !columns != 0 {
        return Err(stray("bits"));
    }
    *rest = behind;
    let n = count.get() as usize;
    let lists = |bit| run.listed & bit != 0;
    let one = n == 1;
    let slots = if lists(wire::SLOTS) {
        if run.slot.get() != 0 || run.slot_step.get() != 0 {
            return Err(stray("a slot beside a list of them"));
        }
        Column::Listed(take::<U32>(rest, n).map_err(truncated)?.iter().map(|slot| slot.get()).collect())
    } else {
        let (slot, step) = (run.slot.get(), run.slot_step.get());
        if one && step != 0 {
            return Err(stray("a step between slots"));
        }
        let last = i64::from(slot) + i64::from(step.cast_signed()) * (i64::from(count.get()) - 1);
        if u32::try_from(last).is_err() {
            let (step, count) = (step.cast_signed(), count.get());
            return Err(BlockListError::Slots { run: number, slot, step, count });
        }
        Column::Even(slot, step)
    };
    let generations = if lists(wire::GENERATIONS) {
        if run.generation.get() != 0 {
            return Err(stray("a generation beside a list of them"));
        }
        Column::Listed(take::<U64>(rest, n).map_err(truncated)?.iter().map(|g| g.get()).collect())
    } else {
        Column::Even(run.generation.get(), 0)
    };
    let named = match &generations {
        Column::Even(first, _) => std::slice::from_ref(first),
        Column::Listed(all) => all,
    };
    if let Some(&no) = named.iter().find(|&&generation| !Generation(generation).is_valid()) {
        return Err(BlockListError::Generation { run: number, generation: Generation(no) });
    }
    let tags = if lists(wire::TAGS) {
        if run.tag.get() != 0 || run.tag_step.get() != 0 {
            return Err(stray("a key tag beside a list of them"));
        }
        Column::Listed(take::<U128>(rest, n).map_err(truncated)?.iter().map(|tag| tag.get()).collect())
    } else {
        if one && run.tag_step.get() != 0 {
            return Err(stray("a step between key tags"));
        }
        Column::Even(run.tag.get(), run.tag_step.get())
    };
    let ready = if lists(wire::READY) {
        if run.ready.get() != 0 {
            return Err(stray("a number of ready parts beside a list of them"));
        }
        Column::Listed(take::<U32>(rest, n).map_err(truncated)?.iter().map(|ready| ready.get()).collect())
    } else {
        Column::Even(run.ready.get(), 0)
    };
    Ok(Run { count, slots, generations, tags, ready })
}

/// Takes `n` values from the front of `rest`. `Err`: how many bytes are missing.
fn take<'b, T>(rest: &mut &'b [u8], n: usize) -> Result<&'b [T], usize>
where
    T: FromBytes + Immutable + KnownLayout + Unaligned,
{
    // At most u32::MAX values of 16 bytes.
    let bytes = n * size_of::<T>();
    let Some((front, behind)) = rest.split_at_checked(bytes) else { return Err(bytes - rest.len()) };
    *rest = behind;
    <[T]>::ref_from_bytes(front).map_err(|_| bytes)
}

const _: () = assert!(EACH == 2 * size_of::<U32>() + size_of::<U64>() + size_of::<U128>());
