//! A plan for some tokens of a page: a list of ranges.

use crate::axis::AxisKind;
use crate::geometry::{Geometry, MAX_FIELDS};
use crate::plan::error::PlanError;
use crate::plan::lists::Plan;
use crate::plan::matching::Blocks;
use crate::selection::{Selection, SelectionError};

impl Plan {
    /// As [`between`](Self::between), for several ranges of tokens, as (first, count): the tokens
    /// of these numbers go into the destination at the same numbers, all others stay as they are.
    ///
    /// A range takes as many lists as the whole page does: one where the fields of a row lie side
    /// by side, two where K and V are apart. A plan holds 16 lists. A caller with more ranges makes
    /// a plan for some of them at a time. For one range, the filled part of a last page, select it:
    /// `Selection::ALL.tokens(0, n)` with [`between`](Self::between).
    ///
    /// ```
    /// use kvrail_layouts::catalogue::{SglMlaPageFirst, SglMlaPageFirstDirect};
    /// use kvrail_layouts::{KvLayout, Plan, Selection};
    ///
    /// let (source, destination) = (SglMlaPageFirst::GEOMETRY, SglMlaPageFirstDirect::GEOMETRY);
    /// let ranges = [(3, 1), (7, 5), (40, 8)];
    /// let plan = Plan::between_tokens(source, destination, &ranges, Selection::ALL)?;
    /// assert_eq!(plan.bytes(), 14 * 61 * 1_152);
    /// # Ok::<(), kvrail_layouts::PlanError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As [`between`](Self::between); the ranges overlap or are not in ascending order; there is no
    /// range, or there are more than a plan holds.
    pub const fn between_tokens(
        source: &Geometry,
        destination: &Geometry,
        ranges: &[(u64, u64)],
        selection: Selection,
    ) -> Result<Self, PlanError> {
        let mut plan: Option<Self> = None;
        let mut reason = PlanError::Destination(SelectionError::Empty { axis: AxisKind::Token });
        let mut end = 0;
        let mut i = 0;
        while i < ranges.len() {
            let (first, count) = ranges[i];
            if first < end {
                return Err(PlanError::Ranges { first, end });
            }
            end = first.saturating_add(count);
            let some = selection.tokens(first, count);
            // What all tokens share is brought once, with the first range.
            match Self::within(source, destination, Blocks::Within(&[]), some, plan.is_some()) {
                Ok(more) => match plan {
                    None => plan = Some(more),
                    Some(before) => match before.and(&more) {
                        Ok(both) => plan = Some(both),
                        Err(error) => return Err(error),
                    },
                },
                // The source may hold other tokens.
                Err(error @ PlanError::Apart { axis: AxisKind::Token, .. }) => reason = error,
                Err(error) => return Err(error),
            }
            i += 1;
        }
        match plan {
            Some(plan) => Ok(plan),
            None => Err(reason),
        }
    }

    /// This plan and another one between the same pages, which writes other bytes.
    const fn and(mut self, more: &Self) -> Result<Self, PlanError> {
        let mut i = 0;
        while i < more.count {
            if self.count == MAX_FIELDS {
                return Err(PlanError::TooMany);
            }
            self.lists[self.count] = more.lists[i];
            self.count += 1;
            i += 1;
        }
        Ok(self)
    }
}
