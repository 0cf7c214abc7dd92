//! The parts of a block list: its head, and runs of pages.

use std::num::NonZeroU32;

use kvrail_core::remote::Location;
use kvrail_core::table::{EntryValue, Generation, KeyTag};
use kvrail_layouts::Fingerprint;
use zerocopy::IntoBytes;
use zerocopy::little_endian::{U32, U64};

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
    /// The step is modulo 2^64.
    pub(super) tags: Column<u64>,
}

/// The most pages of a list.
pub(super) const MAX_BLOCKS: usize = 1 << 16;
pub(super) const HEADER: usize = size_of::<wire::Header>();
pub(super) const RUN: usize = size_of::<wire::Run>();
/// Bytes of a page when all its values are listed.
pub(super) const EACH: usize = 4 + 8 + 8;

impl Run {
    pub(super) fn location(&self, i: u32) -> Location {
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

    pub(super) fn bytes(&self) -> usize {
        let listed = |listed: bool, bytes: usize| if listed { bytes * self.count.get() as usize } else { 0 };
        RUN + listed(matches!(self.slots, Column::Listed(_)), 4)
            + listed(matches!(self.generations, Column::Listed(_)), 8)
            + listed(matches!(self.tags, Column::Listed(_)), 8)
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
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
