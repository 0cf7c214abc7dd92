//! The parts of a block list: its head, and runs of pages.

use std::num::NonZeroU32;

use kvrail_core::remote::Location;
use kvrail_core::table::{EntryValue, Generation, KeyTag, Ready};
use kvrail_layouts::Fingerprint;
use zerocopy::IntoBytes;
use zerocopy::little_endian::{U32, U64, U128};

use super::wire;
use crate::offer::Epoch;

/// The values that all pages of a list have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// The layout of the pages.
    pub fingerprint: Fingerprint,
    /// The producer's epoch in which the pages were written.
    pub epoch: Epoch,
    /// The place of the pages' region in the producer's offer, below
    /// [`MAX_REGIONS`](crate::MAX_REGIONS).
    pub region: u16,
    /// The request's number at both nodes.
    pub request: u64,
}

/// One column of a run: values with an even step, or a list of values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Column<T> {
    /// The first value, and the step to the next; the step is 0 in a run of one page.
    Even(T, T),
    Listed(Vec<T>),
}

/// Successive pages of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Run {
    pub(super) count: NonZeroU32,
    /// The step is two's complement; no slot leaves 0 ..= u32::MAX.
    pub(super) slots: Column<u32>,
    /// Every generation is valid; the step is 0.
    pub(super) generations: Column<u64>,
    /// The step is modulo 2^128.
    pub(super) tags: Column<u128>,
    /// The step is 0.
    pub(super) ready: Column<u32>,
}

/// The most pages of a list.
pub(super) const MAX_BLOCKS: usize = 1 << 16;
pub(super) const HEADER: usize = size_of::<wire::Header>();
pub(super) const RUN: usize = size_of::<wire::Run>();
/// Bytes of a page when all its values are listed.
pub(super) const EACH: usize = 4 + 8 + 16 + 4;

impl Run {
    pub(super) fn location(&self, i: u32) -> Location {
        let narrow = |column: &Column<u32>| match column {
            Column::Even(first, step) => first.wrapping_add(step.wrapping_mul(i)),
            Column::Listed(all) => all[i as usize],
        };
        let generation = match &self.generations {
            Column::Even(first, _) => *first,
            Column::Listed(all) => all[i as usize],
        };
        let tag = match &self.tags {
            Column::Even(first, step) => first.wrapping_add(step.wrapping_mul(u128::from(i))),
            Column::Listed(all) => all[i as usize],
        };
        let (generation, tag) = (Generation(generation), KeyTag(tag));
        let ready = Ready(narrow(&self.ready));
        Location { slot: narrow(&self.slots), expected: EntryValue { generation, ready, tag } }
    }

    pub(super) fn bytes(&self) -> usize {
        let listed = |listed: bool, bytes: usize| if listed { bytes * self.count.get() as usize } else { 0 };
        RUN + listed(matches!(self.slots, Column::Listed(_)), 4)
            + listed(matches!(self.generations, Column::Listed(_)), 8)
            + listed(matches!(self.tags, Column::Listed(_)), 16)
            + listed(matches!(self.ready, Column::Listed(_)), 4)
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        let Self { count, slots, generations, tags, ready } = self;
        let (mut listed, mut columns) = (0, Vec::new());
        let (slot, slot_step) = put(slots, wire::SLOTS, &mut listed, |v| columns.extend(v.to_le_bytes()));
        let (generation, _) =
            put(generations, wire::GENERATIONS, &mut listed, |v| columns.extend(v.to_le_bytes()));
        let (tag, tag_step) = put(tags, wire::TAGS, &mut listed, |v| columns.extend(v.to_le_bytes()));
        let (ready, _) = put(ready, wire::READY, &mut listed, |v| columns.extend(v.to_le_bytes()));
        let run = wire::Run {
            count: U32::new(count.get()),
            slot: U32::new(slot),
            slot_step: U32::new(slot_step),
            listed,
            zero: [0; 3],
            generation: U64::new(generation),
            tag: U128::new(tag),
            tag_step: U128::new(tag_step),
            ready: U32::new(ready),
            last: [0; 4],
        };
        out.extend_from_slice(run.as_bytes());
        out.extend_from_slice(&columns);
    }
}

/// The first value and the step of an even column. Of a listed column, gives each value to `each`
/// and sets `bit` in `listed`.
fn put<T: Copy + Default>(column: &Column<T>, bit: u8, listed: &mut u8, each: impl FnMut(T)) -> (T, T) {
    match column {
        Column::Even(first, step) => (*first, *step),
        Column::Listed(all) => {
            *listed |= bit;
            all.iter().copied().for_each(each);
            (T::default(), T::default())
        }
    }
}
