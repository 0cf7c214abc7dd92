//! Ranges of places in a list of blocks: which places have changed, and how many parts are ready
//! where. Their cost is by the number of ranges, not of places.

use std::collections::BTreeMap;
use std::ops::Range;

use super::types::Block;

/// A set of places, as ranges that do not touch each other.
#[derive(Debug, Default)]
pub(super) struct Places {
    ends: BTreeMap<u32, u32>,
}

impl Places {
    /// Adds a range, and joins it with the ranges that it overlaps or touches.
    pub(super) fn add(&mut self, range: Range<u32>) {
        if range.is_empty() {
            return;
        }
        let Range { mut start, mut end } = range;
        while let Some((&other, &other_end)) = self.ends.range(..=end).next_back()
            && other_end >= start
        {
            start = start.min(other);
            end = end.max(other_end);
            self.ends.remove(&other);
        }
        self.ends.insert(start, end);
    }

    /// Takes the places of a range out.
    pub(super) fn remove(&mut self, range: Range<u32>) {
        while let Some((&start, &end)) = self.ends.range(..range.end).next_back()
            && end > range.start
            && !range.is_empty()
        {
            self.ends.remove(&start);
            if range.end < end {
                self.ends.insert(range.end, end);
            }
            if start < range.start {
                self.ends.insert(start, range.start);
            }
        }
    }

    /// The range with the lowest places.
    pub(super) fn first(&self) -> Option<Range<u32>> {
        self.ends.first_key_value().map(|(&start, &end)| start..end)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }
}

/// How many parts are ready at each place, as runs of equal counts.
#[derive(Debug, Default)]
pub(super) struct ReadyRuns {
    /// The first place of each run, and its count. Neighbours differ.
    runs: BTreeMap<u32, u32>,
    places: u32,
}

impl ReadyRuns {
    /// Adds one place.
    pub(super) fn push(&mut self, parts: u32) {
        if self.runs.last_key_value().is_none_or(|(_, &last)| last != parts) {
            self.runs.insert(self.places, parts);
        }
        self.places += 1;
    }

    /// The run that holds a place, and its count.
    pub(super) fn at(&self, place: u32) -> Option<(Range<u32>, u32)> {
        if place >= self.places {
            return None;
        }
        let (&start, &parts) = self.runs.range(..=place).next_back()?;
        let end = self.runs.range(place + 1..).next().map_or(self.places, |(&next, _)| next);
        Some((start..end, parts))
    }

    /// Raises the counts of the range that are below `parts`, and gives the places that rose.
    pub(super) fn raise(&mut self, range: Range<u32>, parts: u32) -> Places {
        let mut raised = Places::default();
        if range.is_empty() || range.end > self.places {
            return raised;
        }
        self.split(range.start);
        self.split(range.end);
        let mut place = range.start;
        while place < range.end
            && let Some((run, have)) = self.at(place)
        {
            if have < parts {
                self.runs.insert(run.start, parts);
                raised.add(run.clone());
            }
            self.join(run.start);
            place = run.end;
        }
        self.join(range.end);
        raised
    }

    /// Writes the counts into the blocks of the list.
    pub(super) fn write(&self, blocks: &mut [Block]) {
        for (&start, &parts) in &self.runs {
            let Some((run, _)) = self.at(start) else { continue };
            for block in blocks.get_mut(run.start as usize..run.end as usize).unwrap_or_default() {
                block.ready = parts;
            }
        }
    }

    /// Begins a run at the place.
    fn split(&mut self, place: u32) {
        if let Some((run, parts)) = self.at(place)
            && run.start < place
        {
            self.runs.insert(place, parts);
        }
    }

    /// Ends the run's being one of its own if the run before it has the same count.
    fn join(&mut self, place: u32) {
        let before = self.runs.range(..place).next_back().map(|(_, &parts)| parts);
        if before.is_some() && before == self.runs.get(&place).copied() {
            self.runs.remove(&place);
        }
    }
}
