//! The rows of a plan: consecutive pairs of regions that are alike.

use kvrail_layouts::plan::{Cut, CutList};

/// The most rows of one plan.
pub(super) const MAX_ROWS: usize = 256;

/// Consecutive pairs of regions, each one region of a page and one of a slot, that have the same
/// lists of runs. From pair to pair each number grows by its step, modulo 2^16 or 2^32.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PairRow {
    /// The lists of runs of each pair: the first of the table, and how many.
    lists: (u16, u16),
    /// The work requests of the row: its first, one past its last, and how many each pair has.
    first: u32,
    end: u32,
    wrs: u32,
    /// The bytes of every work request, if they all have the same; otherwise 0.
    equal: u32,
    /// Whether each pair has one work request of one piece, which begins where the pair does.
    plain: bool,
    /// Of its first pair.
    pair: Pair,
    step: Pair,
}

/// A region of a page, a region of a slot, and where the lists begin in each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pair {
    pub(crate) from: u16,
    pub(crate) to: u16,
    pub(crate) source: u32,
    pub(crate) destination: u32,
}

impl Pair {
    const ZERO: Self = Self { from: 0, to: 0, source: 0, destination: 0 };

    #[inline]
    pub(crate) const fn plus(self, step: Self) -> Self {
        Self {
            from: self.from.wrapping_add(step.from),
            to: self.to.wrapping_add(step.to),
            source: self.source.wrapping_add(step.source),
            destination: self.destination.wrapping_add(step.destination),
        }
    }

    const fn minus(self, other: Self) -> Self {
        Self {
            from: self.from.wrapping_sub(other.from),
            to: self.to.wrapping_sub(other.to),
            source: self.source.wrapping_sub(other.source),
            destination: self.destination.wrapping_sub(other.destination),
        }
    }

    #[inline]
    pub(crate) const fn times(self, n: u32) -> Self {
        Self {
            from: self.from.wrapping_mul(n as u16),
            to: self.to.wrapping_mul(n as u16),
            source: self.source.wrapping_mul(n),
            destination: self.destination.wrapping_mul(n),
        }
    }
}

impl PairRow {
    pub(crate) const NONE: Self = Self {
        lists: (0, 0),
        first: 0,
        end: 0,
        wrs: 1,
        equal: 0,
        plain: false,
        pair: Pair::ZERO,
        step: Pair::ZERO,
    };

    /// The places of its lists.
    pub(super) fn lists(&self) -> core::ops::Range<usize> {
        let (first, count) = (usize::from(self.lists.0), usize::from(self.lists.1));
        first..first + count
    }

    #[inline]
    pub(super) const fn span(&self) -> (u16, u16) {
        self.lists
    }

    #[inline]
    pub(super) const fn end(&self) -> u32 {
        self.end
    }

    #[inline]
    pub(super) const fn first(&self) -> u32 {
        self.first
    }

    #[inline]
    pub(super) const fn is_plain(&self) -> bool {
        self.plain
    }

    #[inline]
    pub(super) const fn first_pair(&self) -> Pair {
        self.pair
    }

    #[inline]
    pub(super) const fn step(&self) -> Pair {
        self.step
    }

    const fn pairs(&self) -> u32 {
        (self.end - self.first) / self.wrs
    }

    /// Work requests of each pair.
    #[inline]
    pub(super) const fn wrs(&self) -> u32 {
        self.wrs
    }

    /// The pair of work request `wr`, how many pairs follow it, and the number of the work request
    /// within the pair.
    pub(super) const fn at(&self, wr: u32) -> (Pair, u32, u32) {
        let wr = wr - self.first;
        let (number, within) = (wr / self.wrs, wr % self.wrs);
        (self.pair.plus(self.step.times(number)), self.pairs() - 1 - number, within)
    }

    /// The bytes of work request `wr` of the plan, which is of this row, and how many from it on
    /// are known to have that length; at least 1. `lists` are the row's.
    #[inline]
    pub(super) fn equal_wrs(&self, lists: &[CutList], wr: u32) -> (u32, u32) {
        if self.equal != 0 {
            return (self.equal, self.end - wr);
        }
        CutList::equal_wrs(lists, (wr - self.first) % self.wrs)
    }
}

/// The rows of a plan that is being added.
#[derive(Debug)]
pub(super) struct Rows {
    rows: heapless::Vec<PairRow, MAX_ROWS>,
}

impl Rows {
    pub(super) const fn new() -> Self {
        Self { rows: heapless::Vec::new() }
    }

    pub(super) fn all(&self) -> &[PairRow] {
        &self.rows
    }

    /// How many work requests they are.
    pub(super) fn wrs(&self) -> u32 {
        self.rows.last().map_or(0, PairRow::end)
    }

    /// How many lists of runs they take.
    pub(super) fn lists(&self) -> usize {
        let first = |at: usize| !self.rows[..at].iter().any(|row| row.lists == self.rows[at].lists);
        let counts = self.rows.iter().enumerate().filter(|(at, _)| first(*at));
        counts.map(|(_, row)| usize::from(row.lists.1)).sum()
    }

    /// Adds a pair of regions: `lists` is the place of the lists of `cut`, and the two of them
    /// begin at the bytes `at` of the regions `pair`. Fails if there is no room for another row.
    pub(super) fn push(
        &mut self,
        cut: &Cut,
        lists: (u16, u16),
        pair: (u16, u16),
        at: (u32, u32),
    ) -> Result<(), ()> {
        let (wrs, first) = (cut.wrs(), self.wrs());
        let pair = Pair { from: pair.0, to: pair.1, source: at.0, destination: at.1 };
        let end = first.checked_add(wrs).ok_or(())?;
        if let Some(row) = self.rows.last_mut()
            && (row.lists, row.wrs) == (lists, wrs)
        {
            let pairs = row.pairs();
            let last = row.pair.plus(row.step.times(pairs - 1));
            let step = pair.minus(last);
            if pairs == 1 || step == row.step {
                (row.step, row.end) = (step, end);
                return Ok(());
            }
        }
        let (len, all) = CutList::equal_wrs(cut.lists(), 0);
        let equal = if all >= wrs { len } else { 0 };
        let mut place = None;
        let wr = cut.cursor(0).next(|offset, _| place = Some(offset));
        let plain = wrs == 1 && wr.is_some_and(|wr| (wr.source, wr.pieces) == (0, 1)) && place == Some(0);
        let row = PairRow { lists, first, end, wrs, equal, plain, pair, step: Pair::ZERO };
        self.rows.push(row).map_err(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kvrail_layouts::plan::Limits;

    #[test]
    fn pairs_that_are_alike_are_one_row() {
        let cut = Cut::of_bytes(1000, Limits { sges: 1, bytes: 400 }).unwrap();
        let mut rows = Rows::new();
        for layer in 0..61 {
            rows.push(&cut, (5, 1), (layer, 0), (0, 1000 * u32::from(layer))).unwrap();
        }
        for layer in 0..3 {
            rows.push(&cut, (6, 1), (layer, 60 - layer), (7, 0)).unwrap();
        }
        assert_eq!((rows.all().len(), rows.wrs()), (2, 64 * 3));
        let [first, second] = rows.all() else { unreachable!() };
        let (pair, behind, within) = first.at(3 * 60 + 2);
        assert_eq!((pair.from, pair.to, pair.destination, behind, within), (60, 0, 60_000, 0, 2));
        let (pair, behind, within) = second.at(3 * 62);
        assert_eq!((pair.from, pair.to, pair.source, behind, within), (1, 59, 7, 1, 0));
        assert_eq!(pair.plus(second.step()), Pair { from: 2, to: 58, source: 7, destination: 0 });
        assert_eq!(first.equal_wrs(cut.lists(), 3), (400, 2));
        assert_eq!(first.equal_wrs(cut.lists(), 5), (200, 1));
    }

    #[test]
    fn a_plan_of_more_rows_than_there_may_be_is_refused() {
        let cut = Cut::of_bytes(1000, Limits { sges: 1, bytes: 4000 }).unwrap();
        let mut rows = Rows::new();
        for number in 0..MAX_ROWS as u16 {
            rows.push(&cut, (number, 1), (0, 0), (0, 0)).unwrap();
        }
        assert_eq!(rows.push(&cut, (0, 1), (0, 0), (0, 0)), Err(()));
        assert_eq!(rows.all()[7].equal_wrs(cut.lists(), 7), (1000, 1));
    }
}
