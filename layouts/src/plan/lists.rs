//! A plan: lists of runs between two pages.

use crate::address::Place;
use crate::axis::AxisKind;
use crate::geometry::{Geometry, MAX_FIELDS};
use crate::identity::Identity;
use crate::plan::cut::{Cut, Limits};
use crate::plan::error::{CutError, PlanError};
use crate::plan::matching::{self, Blocks, Extent};
use crate::plan::runs::RunList;
use crate::selection::{Selected, Selection};

/// The READs that bring a page of one layout into a page of another, and the identity of both
/// layouts. See the [module](crate::plan).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Plan {
    pub(super) lists: [RunList; MAX_FIELDS],
    pub(super) count: usize,
    source_regions: u32,
    destination_regions: u32,
    source: Identity,
    destination: Identity,
}

/// Bytes that are contiguous on both sides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PlanPiece {
    /// Where they are read.
    pub source: Place,
    /// Where they are written.
    pub destination: Place,
    /// How many, at least 1.
    pub len: u64,
}

/// Bytes that are contiguous at the source and land in one piece or more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run<'p> {
    list: &'p RunList,
    /// The first of its pieces, among all of the list.
    first: u64,
}

impl Plan {
    /// From a page of `source` into the selected part of a page of `destination`, as much of it as
    /// the source holds.
    ///
    /// Two pages of sharded axes are of the ranks that [`Geometry::at_rank`] has given them.
    ///
    /// # Errors
    ///
    /// A field cannot be copied, which the error names; the pages have nothing in common, or are
    /// not known to be parts of one whole; or the destination lacks the selected part.
    pub const fn between(
        source: &Geometry,
        destination: &Geometry,
        selection: Selection,
    ) -> Result<Self, PlanError> {
        Self::between_blocks(source, destination, &[], selection)
    }

    /// As [`between`](Self::between), where one page holds several of the other along some axes:
    /// pages of 16 tokens and of 64, pages of one layer and of all. `blocks` gives for each such
    /// axis the number of the smaller page within the larger one, counted from 0.
    ///
    /// # Errors
    ///
    /// As [`between`](Self::between); or the larger page has no such block.
    pub const fn between_blocks(
        source: &Geometry,
        destination: &Geometry,
        blocks: &[(AxisKind, u64)],
        selection: Selection,
    ) -> Result<Self, PlanError> {
        Self::within(source, destination, Blocks::Within(blocks), selection, false)
    }

    /// With `rest`, only the fields that go along the token axis.
    pub(super) const fn within(
        source: &Geometry,
        destination: &Geometry,
        blocks: Blocks<'_>,
        selection: Selection,
        rest: bool,
    ) -> Result<Self, PlanError> {
        match matching::meet(source, destination, blocks, selection) {
            Ok((from, to)) if rest => Self::new(&from, &to, Extent::PerToken),
            Ok((from, to)) if matching::is_partial(&to) => Self::new(&from, &to, Extent::Some),
            Ok((from, to)) => Self::new(&from, &to, Extent::All),
            Err(error) => Err(error),
        }
    }

    /// All of one selection into all of the other: along each axis the first selected index into
    /// the first, and so on.
    ///
    /// # Errors
    ///
    /// A field cannot be copied, which the error names; ranges have different lengths; or one side
    /// lacks a selected field.
    pub const fn of(source: &Selected<'_>, destination: &Selected<'_>) -> Result<Self, PlanError> {
        Self::new(source, destination, Extent::All)
    }

    pub(super) const fn new(
        source: &Selected<'_>,
        destination: &Selected<'_>,
        extent: Extent,
    ) -> Result<Self, PlanError> {
        let copies = match matching::copies(source, destination, extent) {
            Ok(copies) => copies,
            Err(error) => return Err(error),
        };
        let mut plan = Self {
            lists: [RunList::NONE; MAX_FIELDS],
            count: copies.count,
            source_regions: source.geometry().regions,
            destination_regions: destination.geometry().regions,
            source: Identity::of(source.geometry()),
            destination: Identity::of(destination.geometry()),
        };
        let mut i = 0;
        while i < copies.count {
            plan.lists[i] = RunList::of(copies.all[i]);
            i += 1;
        }
        Ok(plan)
    }

    /// The plan, for two pages that are known to have one.
    ///
    /// # Panics
    ///
    /// With the reason why the pages have no plan; in a constant, that is a compile error.
    #[must_use]
    #[track_caller]
    pub const fn expect(plan: Result<Self, PlanError>) -> Self {
        match plan {
            Ok(plan) => plan,
            Err(error) => error.fail(),
        }
    }

    /// Its lists of runs.
    #[must_use]
    pub const fn lists(&self) -> &[RunList] {
        self.lists.split_at(self.count).0
    }

    /// How many pieces there are in all runs.
    #[must_use]
    pub const fn pieces(&self) -> u64 {
        let (mut n, mut i) = (0, 0);
        while i < self.count {
            n += self.lists[i].runs() * self.lists[i].pieces();
            i += 1;
        }
        n
    }

    /// How many remote runs: the work requests of a device without limits.
    #[must_use]
    pub const fn runs(&self) -> u64 {
        let (mut n, mut i) = (0, 0);
        while i < self.count {
            n += self.lists[i].runs();
            i += 1;
        }
        n
    }

    /// Bytes that are written.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        let (mut n, mut i) = (0, 0);
        while i < self.count {
            n += self.lists[i].bytes();
            i += 1;
        }
        n
    }

    /// Bytes of the longest piece.
    #[must_use]
    pub const fn longest_piece(&self) -> u64 {
        let (mut most, mut i) = (0, 0);
        while i < self.count {
            most = if self.lists[i].piece > most { self.lists[i].piece } else { most };
            i += 1;
        }
        most
    }

    /// Bytes of the shortest piece. Below some 4 KiB a kernel gathers faster than READs do; the
    /// caller decides.
    #[must_use]
    pub const fn shortest_piece(&self) -> u64 {
        let (mut least, mut i) = (u64::MAX, 0);
        while i < self.count {
            least = if self.lists[i].piece < least { self.lists[i].piece } else { least };
            i += 1;
        }
        least
    }

    /// Bytes of the longest remote run.
    #[must_use]
    pub const fn longest_run(&self) -> u64 {
        let (mut most, mut i) = (0, 0);
        while i < self.count {
            let run = self.lists[i].run_bytes();
            most = if run > most { run } else { most };
            i += 1;
        }
        most
    }

    /// The most pieces of one run: the sges that a work request would need for it whole.
    #[must_use]
    pub const fn sges(&self) -> u64 {
        let (mut most, mut i) = (0, 0);
        while i < self.count {
            let pieces = self.lists[i].pieces();
            most = if pieces > most { pieces } else { most };
            i += 1;
        }
        most
    }

    /// Which pages it reads: an engine compares this with the page before it follows the plan. A
    /// plan that was made for pages without a rank reads pages of any rank.
    #[must_use]
    pub const fn source(&self) -> &Identity {
        &self.source
    }

    /// Which pages it writes, as [`source`](Self::source).
    #[must_use]
    pub const fn destination(&self) -> &Identity {
        &self.destination
    }

    /// The one region of a source page that it reads, and the one of a destination page that it
    /// writes; `None` if there are several on either side, or if it moves nothing.
    #[must_use]
    pub const fn between_regions(&self) -> Option<(u32, u32)> {
        if self.count == 0 {
            return None;
        }
        let (source, destination) = (self.lists[0].source.region, self.lists[0].destination.region);
        let mut i = 0;
        while i < self.count {
            let list = &self.lists[i];
            let same = list.source.region == source && list.destination.region == destination;
            if !same || !list.is_in_one_region() {
                return None;
            }
            i += 1;
        }
        Some((source, destination))
    }

    /// Regions of a source page, and of a destination page.
    #[must_use]
    pub const fn regions(&self) -> (u32, u32) {
        (self.source_regions, self.destination_regions)
    }

    /// The part of it that goes from one region of the source into one region of the destination,
    /// if there is one: a work request goes from one published page into one slot.
    #[must_use]
    pub const fn only(&self, source: u32, destination: u32) -> Option<Self> {
        let mut only = Self { lists: [RunList::NONE; MAX_FIELDS], count: 0, ..*self };
        let mut i = 0;
        while i < self.count {
            if let Some(list) = self.lists[i].only(source, destination) {
                only.lists[only.count] = list;
                only.count += 1;
            }
            i += 1;
        }
        if only.count == 0 { None } else { Some(only) }
    }

    /// The part of it that is list `number` of [`lists`](Self::lists); `None` beyond.
    #[must_use]
    pub const fn only_list(&self, number: usize) -> Option<Self> {
        if number >= self.count {
            return None;
        }
        let mut only = Self { lists: [RunList::NONE; MAX_FIELDS], count: 1, ..*self };
        only.lists[0] = self.lists[number];
        Some(only)
    }

    /// Remote run `number` of [`runs`](Self::runs); `None` beyond.
    #[must_use]
    pub const fn run(&self, mut number: u64) -> Option<Run<'_>> {
        let mut i = 0;
        while i < self.count {
            let list = &self.lists[i];
            if number < list.runs() {
                return Some(Run { list, first: number * list.pieces() });
            }
            number -= list.runs();
            i += 1;
        }
        None
    }

    /// All its pieces, in the order of their runs.
    pub fn iter(&self) -> impl Iterator<Item = PlanPiece> + Clone + use<'_> {
        self.lists().iter().flat_map(|list| (0..list.runs() * list.pieces()).map(|n| list.at(n)))
    }

    /// Cuts it into work requests, for a slice of [`CutList`](super::CutList)s.
    ///
    /// # Errors
    ///
    /// A limit is 0; a side has several regions (see [`only`](Self::only)); or the plan reaches
    /// beyond 2^32 bytes or has more than [`MAX_WRS`](super::MAX_WRS) work requests.
    pub const fn cut(&self, limits: Limits) -> Result<Cut, CutError> {
        Cut::of(self.lists(), limits)
    }
}

impl RunList {
    /// Piece `number`, counted over all runs; there are `runs() * pieces()`.
    const fn at(&self, number: u64) -> PlanPiece {
        let (source, destination) = self.places(number);
        PlanPiece { source, destination, len: self.piece }
    }
}

impl Run<'_> {
    /// Where it is read.
    #[must_use]
    pub const fn source(&self) -> Place {
        self.list.at(self.first).source
    }

    /// Its bytes.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.list.run_bytes()
    }

    /// How many pieces it lands in.
    #[must_use]
    pub const fn pieces(&self) -> u64 {
        self.list.pieces()
    }

    /// One of them, in the order of the source; `None` beyond.
    #[must_use]
    pub const fn piece(&self, number: u64) -> Option<PlanPiece> {
        if number < self.list.pieces() { Some(self.list.at(self.first + number)) } else { None }
    }
}

impl core::fmt::Display for Plan {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let many = |n: u64| if n == 1 { "" } else { "s" };
        for (i, list) in self.lists().iter().enumerate() {
            let (runs, pieces) = (list.runs(), list.pieces());
            let (n, and) = (runs * pieces, if i == 0 { "" } else { "; " });
            write!(f, "{and}{n} piece{} of {} bytes", many(n), list.piece_bytes())?;
            if pieces > 1 {
                write!(f, ", in {runs} run{} of {}", many(runs), list.run_bytes())?;
            }
        }
        Ok(())
    }
}
