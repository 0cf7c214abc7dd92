//! A walk over the work requests of a plan, from pair of regions to pair.

use kvrail_layouts::plan::{Cursor, CutList, Row, Wr};

use super::rows::{Pair, PairRow};

/// A walk over the work requests of a plan in their order. Its start divides; its steps do not.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Walk<'p> {
    /// The rows from the current one on.
    rows: &'p [PairRow],
    /// The lists of runs of all plans.
    lists: &'p [CutList],
    pair: Pair,
    /// Pairs of the row behind this one.
    behind: u32,
    /// Work requests left in the pair.
    left: u32,
    cursor: Cursor<'p>,
}

/// Pairs of regions with one work request each, which begins where the pair does.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PlainPairs {
    pub(crate) first: Pair,
    pub(crate) step: Pair,
    pub(crate) count: u32,
}

impl<'p> Walk<'p> {
    /// A walk over the work requests of `rows`, from number `wr` on. `lists` are those of all
    /// plans.
    pub(super) fn new(rows: &'p [PairRow], lists: &'p [CutList], wr: u32) -> Self {
        static NONE: PairRow = PairRow::NONE;
        let at = rows.iter().position(|row| wr < row.end()).unwrap_or(rows.len());
        let rows = &rows[at..];
        let row = rows.first().unwrap_or(&NONE);
        let (pair, behind, within) = row.at(if rows.is_empty() { 0 } else { wr });
        let left = if rows.is_empty() { 0 } else { row.wrs() - within };
        Self { rows, lists, pair, behind, left, cursor: Cursor::new(lists_of(row, lists), within) }
    }

    /// The pair of regions of the next work request.
    #[inline]
    pub(crate) const fn pair(&self) -> Pair {
        self.pair
    }

    /// How many work requests of the pair are left, the next one counted.
    #[inline]
    pub(crate) const fn left_in_pair(&self) -> u32 {
        self.left
    }

    /// The next work request, with offsets within its regions, or `None` at the end.
    #[inline]
    pub(crate) fn next(&mut self, mut piece: impl FnMut(u32, u32)) -> Option<Wr> {
        let Pair { source, destination, .. } = self.pair;
        let wr = self.cursor.next(|offset, len| piece(offset.wrapping_add(destination), len))?;
        self.advance(1);
        Some(Wr { source: wr.source.wrapping_add(source), ..wr })
    }

    /// As [`Cursor::row`], within the pair.
    #[inline]
    pub(crate) fn row(&mut self, most: u32) -> Option<Row> {
        let Pair { source, destination, .. } = self.pair;
        let row = self.cursor.row(most)?;
        self.advance(row.count);
        let source = row.source.wrapping_add(source);
        Some(Row { source, destination: row.destination.wrapping_add(destination), ..row })
    }

    /// The next pairs, `most` at most, if they have one work request each; the walk moves past
    /// them. `None` if the next pair has more. With one pair left, [`row`](Self::row) does as well.
    #[inline]
    pub(crate) fn plain_pairs(&mut self, most: u32) -> Option<PlainPairs> {
        let row = self.rows.first().filter(|row| row.is_plain())?;
        let (first, step, count) = (self.pair, row.step(), most.min(self.behind + 1));
        self.behind -= count - 1;
        self.pair = first.plus(step.times(count - 1));
        self.left = 0;
        self.next_pair();
        Some(PlainPairs { first, step, count })
    }

    #[inline]
    fn advance(&mut self, n: u32) {
        self.left -= n;
        if self.left == 0 {
            self.next_pair();
        }
    }

    /// Moves to the next pair of the row, or to the next row.
    #[inline(never)]
    fn next_pair(&mut self) {
        let Some((row, later)) = self.rows.split_first() else { return };
        if self.behind > 0 {
            self.behind -= 1;
            self.pair = self.pair.plus(row.step());
        } else {
            self.rows = later;
            let Some(row) = later.first() else { return };
            (self.pair, self.behind, _) = row.at(row.first());
        }
        let row = &self.rows[0];
        self.left = row.wrs();
        self.cursor = Cursor::new(lists_of(row, self.lists), 0);
    }
}

fn lists_of<'p>(row: &PairRow, lists: &'p [CutList]) -> &'p [CutList] {
    let (first, count) = row.span();
    &lists[usize::from(first)..][..usize::from(count)]
}
