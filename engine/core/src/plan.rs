//! The table of copy plans of an engine: how a page in one layout lands in a slot of another.
//!
//! A plan is cut into work requests once, when it is added. A page may have several regions, and so
//! may a slot: a plan is a few *rows* of pairs of regions, each from one region of the page into
//! one of the slot. A row holds consecutive pairs that are alike, so 61 layers of a region each are
//! one row. Plans and rows that differ only in where they begin share one list of runs.

mod error;
pub(crate) mod lives;
mod rows;
mod walk;

use kvrail_layouts::plan::{Cut, CutError, CutList, Limits, Plan};

pub use self::error::{AddPlanError, ForgetPlanError};
use self::lives::{Epoch, PlanLives};
use self::rows::{MAX_ROWS, Rows};
pub(crate) use self::rows::{Pair, PairRow};
pub(crate) use self::walk::Walk;
use crate::layout::{Layouts, PlanLayouts, WHOLE};
use crate::limits::narrow;
pub use crate::limits::{MAX_PLANS, MAX_SGES};
use crate::regions::find_row;

/// A plan that an engine knows. It is plain data: copy it to the threads that fill batches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlanRef {
    pub(crate) engine: u16,
    pub(crate) number: u16,
    /// The epoch in which the number became this plan's.
    pub(crate) since: Epoch,
    pub(crate) layouts: PlanLayouts,
    pub(crate) wrs: u32,
    pub(crate) bytes: u32,
    /// The bytes of the remote page at which the plan begins and ends. Of a plan between several
    /// regions the first is 0, and the second is that of the region in which it ends last.
    pub(crate) source: u32,
    pub(crate) source_end: u32,
    /// The byte of the slot at which the plan ends: of its longest region, if it has several.
    pub(crate) destination_end: u32,
}

impl PlanRef {
    /// How many work requests one page takes: its places in the send queues of lanes.
    #[must_use]
    pub const fn wrs(&self) -> u32 {
        self.wrs
    }

    /// How many bytes of a slot one page writes.
    #[must_use]
    pub const fn bytes(&self) -> u32 {
        self.bytes
    }

    /// The least length of a remote page in bytes, or of each of its regions that the plan reads.
    #[must_use]
    pub const fn source_bytes(&self) -> u32 {
        self.source_end
    }

    /// The least length of a slot in bytes, or of each of its regions that the plan writes.
    #[must_use]
    pub const fn slot_bytes(&self) -> u32 {
        self.destination_end
    }
}

/// One plan of the table: its `count` rows from `first` on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PlanPlace {
    first: u16,
    count: u16,
    /// How often it was added and not forgotten; 0 for a free place, which nothing names.
    uses: u32,
    /// The epoch in which the place was taken.
    since: Epoch,
    /// Whether the plan is that of whole pages of a layout, which is never forgotten. It counts as
    /// one use.
    kept: bool,
    /// Whether pages that it reads have several regions.
    gathers: bool,
    /// The bytes of each work request, if the plan is one row of pairs with one plain work request
    /// each; otherwise 0.
    plain: u32,
    /// Then its work requests.
    wrs: u32,
}

impl PlanPlace {
    pub(crate) const FREE: Self = Self {
        first: 0,
        count: 0,
        uses: 0,
        since: Epoch::FIRST,
        kept: false,
        gathers: false,
        plain: 0,
        wrs: 0,
    };

    fn rows(&self) -> core::ops::Range<usize> {
        usize::from(self.first)..usize::from(self.first) + usize::from(self.count)
    }
}

/// The plans of an engine.
#[derive(Debug)]
pub(crate) struct Plans<'s> {
    places: &'s mut [PlanPlace],
    rows: &'s mut [PairRow],
    lists: &'s mut [CutList],
    pub(crate) lives: &'s PlanLives,
    /// The most plans: all places, unless fewer were declared.
    pub(crate) most: usize,
    /// The first row and the first list that were never used.
    fresh_row: usize,
    fresh_list: usize,
    pub(crate) limits: Limits,
    engine: u16,
}

/// A plan as it is being added.
#[derive(Clone, Copy, Debug, Default)]
struct Sums {
    bytes: u32,
    source_end: u32,
    destination_end: u32,
}

impl<'s> Plans<'s> {
    pub(crate) fn new(
        places: &'s mut [PlanPlace],
        rows: &'s mut [PairRow],
        lists: &'s mut [CutList],
        lives: &'s PlanLives,
        limits: Limits,
        engine: u16,
    ) -> Self {
        let most = places.len();
        Self { places, rows, lists, lives, most, fresh_row: 0, fresh_list: 0, limits, engine }
    }

    /// Adds a plan between two regions that are pages and slots by themselves, unless the table has
    /// it.
    pub(crate) fn add_of_region(
        &mut self,
        plan: &Plan,
        layouts: &mut Layouts<'_>,
    ) -> Result<PlanRef, AddPlanError> {
        let cut = plan.cut(self.limits)?;
        if cut.wrs() == 0 {
            return Err(AddPlanError::Empty);
        }
        // A plan that can be cut has one source region and one destination region.
        let (from, to) = plan.between_regions().ok_or(CutError::Regions)?;
        let reads = layouts.learn(plan.source(), from)?.number;
        let writes = layouts.learn(plan.destination(), to)?.number;
        let layouts = PlanLayouts { reads, writes, gathers: false, scatters: false };
        let (based, source, destination) = cut.rebased();
        let mut rows = Rows::new();
        let span = self.span_of(&based, &rows)?;
        rows.push(&based, span, (0, 0), (0, destination))
            .map_err(|()| AddPlanError::Rows { limit: MAX_ROWS })?;
        let number = self.place(&rows, false)?;
        let (source_end, destination_end) = (cut.source_end(), cut.destination_end());
        Ok(PlanRef {
            engine: self.engine,
            number,
            since: self.places[usize::from(number)].since,
            layouts,
            wrs: cut.wrs(),
            bytes: cut.bytes(),
            source,
            source_end,
            destination_end,
        })
    }

    /// Adds a plan between whole pages and slots, unless the table has it.
    pub(crate) fn add(&mut self, plan: &Plan, layouts: &mut Layouts<'_>) -> Result<PlanRef, AddPlanError> {
        let (sources, destinations) = plan.regions();
        if sources == 1 && destinations == 1 {
            return self.add_of_region(plan, layouts);
        }
        let region = |regions| if regions == 1 { 0 } else { WHOLE };
        let reads = layouts.learn(plan.source(), region(sources))?.number;
        let writes = layouts.learn(plan.destination(), region(destinations))?.number;
        let layouts = PlanLayouts { reads, writes, gathers: sources > 1, scatters: destinations > 1 };
        let fresh = self.fresh_list;
        let together = self.rows_of_pairs(plan, false);
        let lists = together.as_ref().map_or(usize::MAX, |(rows, _)| rows.lists());
        // Where the fields of a row land apart, as in a slot of K before V, they move by other
        // distances from pair to pair. Then no two pairs are alike, but each field by itself is.
        if lists <= plan.lists().len() {
            let (rows, sums) = together?;
            return self.finish(&rows, sums, layouts);
        }
        // Lists that no plan has are free.
        self.fresh_list = fresh;
        let apart = self.rows_of_pairs(plan, true);
        let by_list = apart.as_ref().is_ok_and(|(rows, _)| rows.lists() < lists);
        self.fresh_list = fresh;
        let (rows, sums) = self.rows_of_pairs(plan, by_list)?;
        self.finish(&rows, sums, layouts)
    }

    /// The rows of a plan between several regions: with all lists of a pair in one row, or with a
    /// row for each list.
    fn rows_of_pairs(&mut self, plan: &Plan, by_list: bool) -> Result<(Rows, Sums), AddPlanError> {
        let (sources, destinations) = plan.regions();
        let (mut rows, mut sums) = (Rows::new(), Sums::default());
        for list in 0..if by_list { plan.lists().len() } else { 1 } {
            let list = if by_list { plan.only_list(list) } else { None };
            let some = list.as_ref().unwrap_or(plan);
            for from in 0..sources {
                for to in 0..destinations {
                    let Some(pair) = some.only(from, to) else { continue };
                    let cut = pair.cut(self.limits)?;
                    self.add_pair(&mut rows, &mut sums, &cut, (from, to))?;
                }
            }
        }
        Ok((rows, sums))
    }

    /// Adds the plan that brings every byte of each region to the same place of the same region,
    /// for pages and slots of one layout, whose regions have these lengths.
    pub(crate) fn add_whole(
        &mut self,
        regions: impl Iterator<Item = u32>,
        layout: u8,
    ) -> Result<PlanRef, AddPlanError> {
        let (mut rows, mut sums) = (Rows::new(), Sums::default());
        for (region, bytes) in (0..).zip(regions) {
            let cut = Cut::of_bytes(bytes, self.limits)?;
            self.add_pair(&mut rows, &mut sums, &cut, (region, region))?;
        }
        let layouts = PlanLayouts { reads: layout, writes: layout, gathers: true, scatters: true };
        let plan = self.finish(&rows, sums, layouts)?;
        self.places[usize::from(plan.number)].kept = true;
        Ok(plan)
    }

    /// Adds what goes from one region into another to a plan.
    fn add_pair(
        &mut self,
        rows: &mut Rows,
        sums: &mut Sums,
        cut: &Cut,
        (from, to): (u32, u32),
    ) -> Result<(), AddPlanError> {
        if cut.wrs() == 0 {
            return Ok(());
        }
        let bytes = sums.bytes.checked_add(cut.bytes());
        sums.bytes = bytes.ok_or(CutError::TooFar(u64::from(sums.bytes) + u64::from(cut.bytes())))?;
        sums.source_end = sums.source_end.max(cut.source_end());
        sums.destination_end = sums.destination_end.max(cut.destination_end());
        let (based, source, destination) = cut.rebased();
        let span = self.span_of(&based, rows)?;
        // A page has at most some thousand regions.
        let pair = (narrow(from as usize), narrow(to as usize));
        rows.push(&based, span, pair, (source, destination))
            .map_err(|()| AddPlanError::Rows { limit: MAX_ROWS })
    }

    fn finish(&mut self, rows: &Rows, sums: Sums, layouts: PlanLayouts) -> Result<PlanRef, AddPlanError> {
        let wrs = rows.wrs();
        if wrs == 0 {
            return Err(AddPlanError::Empty);
        }
        if wrs > kvrail_layouts::plan::MAX_WRS {
            return Err(CutError::TooMany(wrs.into()).into());
        }
        let number = self.place(rows, layouts.gathers)?;
        let Sums { bytes, source_end, destination_end } = sums;
        let (engine, since) = (self.engine, self.places[usize::from(number)].since);
        Ok(PlanRef { engine, number, since, layouts, wrs, bytes, source: 0, source_end, destination_end })
    }

    /// Forgets a plan that was added once more than it was forgotten. When it has been forgotten as
    /// often as it was added, its place is free. `in_flight` says whether a page in flight follows
    /// a plan.
    pub(crate) fn forget(
        &mut self,
        plan: PlanRef,
        in_flight: impl FnOnce(u16) -> bool,
    ) -> Result<(), ForgetPlanError> {
        let PlanRef { engine, number, since, .. } = plan;
        let known = engine == self.engine && since != Epoch::LAST && self.lives.is_same(number, since);
        let place = self.places.get_mut(usize::from(number)).filter(|place| known && place.uses > 0);
        let place = place.ok_or(ForgetPlanError::Unknown)?;
        if place.kept && place.uses == 1 {
            // The one use is the layout's.
            return Err(ForgetPlanError::Unknown);
        }
        if place.uses == 1 {
            if in_flight(number) {
                return Err(ForgetPlanError::InFlight);
            }
            self.lives.forget(number);
        }
        place.uses -= 1;
        Ok(())
    }

    /// The places in use.
    fn used(&self) -> impl Iterator<Item = &PlanPlace> {
        self.places.iter().filter(|place| place.uses > 0)
    }

    /// The rows of all plans.
    fn used_rows(&self) -> impl Iterator<Item = &PairRow> {
        self.used().flat_map(|place| &self.rows[place.rows()])
    }

    fn full(&self) -> AddPlanError {
        let lists = |at: &usize| self.used_rows().any(|row| row.lists().contains(at));
        AddPlanError::Full {
            plans: self.used().count(),
            rows: self.used_rows().count(),
            lists: (0..self.lists.len()).filter(lists).count(),
        }
    }

    /// The place of these lists of runs in the table, which gets them if it has them not. `rows`
    /// are those of the plan that is being added.
    fn span_of(&mut self, cut: &Cut, rows: &Rows) -> Result<(u16, u16), AddPlanError> {
        let lists = cut.lists();
        let used = || self.used_rows().chain(rows.all());
        if let Some(span) = used().map(PairRow::span).find(|span| self.lists_of(*span) == lists) {
            return Ok(span);
        }
        let is_used = |at: usize| used().any(|row| row.lists().contains(&at));
        let first = match self.fresh_list {
            fresh if fresh + lists.len() <= self.lists.len() => Some(fresh),
            _ => find_row(self.lists.len(), lists.len(), is_used),
        };
        let first = first.ok_or_else(|| self.full())?;
        self.fresh_list = self.fresh_list.max(first + lists.len());
        self.lists[first..first + lists.len()].copy_from_slice(lists);
        Ok((narrow(first), narrow(lists.len())))
    }

    /// The number of the plan of these rows, which gets one if it has none.
    fn place(&mut self, rows: &Rows, gathers: bool) -> Result<u16, AddPlanError> {
        let rows = rows.all();
        let same = |place: &PlanPlace| {
            place.uses > 0 && place.gathers == gathers && self.rows[place.rows()] == *rows
        };
        if let Some(number) = self.places.iter().position(same) {
            self.places[number].uses = self.places[number].uses.saturating_add(1);
            return Ok(narrow(number));
        }
        let is_used = |at: usize| self.used().any(|place| place.rows().contains(&at));
        let first = match self.fresh_row {
            fresh if fresh + rows.len() <= self.rows.len() => Some(fresh),
            _ => find_row(self.rows.len(), rows.len(), is_used),
        };
        let first = first.ok_or_else(|| self.full())?;
        let free = self.places.iter().position(|place| place.uses == 0);
        let number = free.filter(|_| self.used().count() < self.most).ok_or_else(|| self.full())?;
        self.rows[first..first + rows.len()].copy_from_slice(rows);
        self.fresh_row = self.fresh_row.max(first + rows.len());
        let (plain, wrs) = match rows {
            [row] if row.is_plain() => (row.equal_wrs(&[], 0).0, row.end()),
            _ => (0, 0),
        };
        let (since, count) = (self.lives.now(), narrow(rows.len()));
        self.places[number] =
            PlanPlace { first: narrow(first), count, uses: 1, since, kept: false, gathers, plain, wrs };
        Ok(narrow(number))
    }

    #[inline]
    fn lists_of(&self, (first, count): (u16, u16)) -> &[CutList] {
        &self.lists[usize::from(first)..][..usize::from(count)]
    }

    #[inline]
    fn rows_of(&self, place: &PlanPlace) -> &[PairRow] {
        &self.rows[place.rows()]
    }

    /// Bytes of work request `wr` of a plan, and how many work requests from it on are known to
    /// have that length; at least 1.
    #[inline]
    pub(crate) fn equal_wrs(&self, plan: u16, wr: u32) -> (u32, u32) {
        let place = &self.places[usize::from(plan)];
        if place.plain != 0 {
            return (place.plain, place.wrs - wr);
        }
        let rows = self.rows_of(place);
        let Some(row) = rows.iter().find(|row| wr < row.end()) else { return (0, 0) };
        row.equal_wrs(self.lists_of(row.span()), wr)
    }

    /// The region of the remote page in which work request `wr` of a plan reads, where it starts
    /// there, and its length.
    #[cold]
    pub(crate) fn chunk(&self, plan: u16, wr: u32) -> (u16, u64, u32) {
        let mut walk = self.walk(plan, wr);
        let pair = walk.pair();
        walk.next(|_, _| ()).map_or((0, 0, 0), |wr| (pair.from, wr.source.into(), wr.len))
    }

    /// A walk over a plan's work requests, from number `wr` on.
    #[inline]
    pub(crate) fn walk(&self, plan: u16, wr: u32) -> Walk<'_> {
        Walk::new(self.rows_of(&self.places[usize::from(plan)]), self.lists, wr)
    }

    /// The bytes of each work request and their number, if the plan is one row of pairs with one
    /// plain work request each, from several regions.
    #[inline]
    pub(crate) fn plain(&self, plan: u16) -> Option<(u32, u32)> {
        let place = &self.places[usize::from(plan)];
        (place.plain != 0 && place.gathers).then_some((place.plain, place.wrs))
    }

    /// The pairs of a plan from work request `wr` on, if it is one row of pairs with one plain work
    /// request each.
    #[inline]
    pub(crate) fn plain_pairs(&self, plan: u16, wr: u32) -> Option<(Pair, Pair)> {
        let place = &self.places[usize::from(plan)];
        if place.plain == 0 {
            return None;
        }
        let row = &self.rows[usize::from(place.first)];
        let (first, step) = (row.first_pair(), row.step());
        Some((if wr == 0 { first } else { first.plus(step.times(wr)) }, step))
    }

    /// Whether pages that a plan reads have several regions.
    #[inline]
    pub(crate) fn gathers(&self, plan: u16) -> bool {
        self.places[usize::from(plan)].gathers
    }
}
