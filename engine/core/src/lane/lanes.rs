//! All lanes of an engine, and their rings of records of outstanding wrs.

use core::ops::{Index, IndexMut};

use super::record::{Record, place};
use super::{Lane, LaneState, NO_LANE};
use crate::id::LaneId;

/// The places of lanes, each with a ring of `depth` records.
///
/// Invariants: the record of every wr from a lane's `tail` to its `head` is in the lane's ring, at
/// the place that the wr's sequence number names, or covered by one before it ([`Record::count`]).
/// No place below `first_free` is free. `dying` is the number of lanes that are neither free nor
/// up.
#[derive(Debug)]
pub(crate) struct Lanes<'s, L> {
    pub(crate) all: &'s mut [Lane<L>],
    pub(crate) records: &'s mut [Record],
    pub(crate) depth: u32,
    pub(crate) first_free: usize,
    pub(crate) dying: u32,
}

impl<L> Index<usize> for Lanes<'_, L> {
    type Output = Lane<L>;

    #[inline]
    fn index(&self, lane: usize) -> &Lane<L> {
        &self.all[lane]
    }
}

impl<L> IndexMut<usize> for Lanes<'_, L> {
    #[inline]
    fn index_mut(&mut self, lane: usize) -> &mut Lane<L> {
        &mut self.all[lane]
    }
}

impl<'s, L> Lanes<'s, L> {
    pub(crate) const fn new(all: &'s mut [Lane<L>], records: &'s mut [Record], depth: u32) -> Self {
        Self { all, records, depth, first_free: 0, dying: 0 }
    }

    pub(crate) const fn len(&self) -> usize {
        self.all.len()
    }

    #[inline]
    pub(crate) fn get_mut(&mut self, lane: usize) -> Option<&mut Lane<L>> {
        self.all.get_mut(lane)
    }

    /// The record of wr `seq` of a lane.
    #[inline]
    pub(crate) fn record(&mut self, lane: usize, seq: u32) -> &mut Record {
        &mut self.records[place(lane, seq, self.depth)]
    }

    /// The first free place.
    pub(crate) fn find_free(&self) -> Option<usize> {
        let free = self.all[self.first_free..].iter().position(|lane| lane.state == LaneState::Free);
        free.map(|at| at + self.first_free)
    }

    /// The place of the lane named `id`, unless that lane is gone.
    pub(crate) fn find(&self, id: LaneId) -> Option<usize> {
        let lane = self.all.get(id.index())?;
        (lane.id == id && lane.state != LaneState::Free).then_some(id.index())
    }

    /// Gives each outstanding wr of a lane a record of its own, since the wrs of a failed lane end
    /// in different ways.
    pub(crate) fn split_records(&mut self, lane: usize) {
        let (mut seq, head) = (self.all[lane].tail, self.all[lane].head);
        while seq != head {
            let run = *self.record(lane, seq);
            for i in 0..u32::from(run.count) {
                let wr = if i == 0 { run } else { run.behind(i) };
                *self.record(lane, seq) = wr.alone();
                seq = seq.wrapping_add(1);
            }
        }
    }
}

/// The lane after `at` in its circle; `None` when the circle comes round to `first`.
#[inline]
pub(crate) fn next_in_circle<L>(lanes: &[Lane<L>], at: u16, first: u16) -> Option<u16> {
    let next = lanes[usize::from(at)].next;
    (next != first && next != NO_LANE).then_some(next)
}
