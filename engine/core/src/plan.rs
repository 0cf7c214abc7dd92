//! The table of copy plans of an engine: how a page in one layout lands in a slot of another.
//!
//! A plan is cut into work requests once, when it is added. Plans that differ only in where they
//! begin share one list of runs.

use kvrail_layouts::plan::{Cursor, Cut, CutError, CutList, Limits, Plan};

use crate::layout::{AddLayoutError, Layouts, PlanLayouts};
pub use crate::limits::MAX_SGES;
use crate::limits::narrow;

/// A plan that an engine knows. It is plain data: copy it to the threads that fill batches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlanRef {
    pub(crate) engine: u16,
    pub(crate) number: u16,
    pub(crate) layouts: PlanLayouts,
    pub(crate) wrs: u32,
    pub(crate) bytes: u32,
    /// The bytes of the remote page at which the plan begins and ends.
    pub(crate) source: u32,
    pub(crate) source_end: u32,
    /// The byte of the slot at which the plan ends.
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

    /// The least length of a remote page, in bytes.
    #[must_use]
    pub const fn source_bytes(&self) -> u32 {
        self.source_end
    }

    /// The least length of a slot, in bytes.
    #[must_use]
    pub const fn slot_bytes(&self) -> u32 {
        self.destination_end
    }
}

/// Why an engine does not take a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AddPlanError {
    /// The plan cannot be cut into work requests.
    #[error(transparent)]
    Cut(#[from] CutError),
    /// The plan moves no byte.
    #[error("the plan moves no byte")]
    Empty,
    /// The engine cannot learn the layout that the plan reads or writes.
    #[error(transparent)]
    Layout(#[from] AddLayoutError),
    /// The engine's table of plans is full.
    #[error(
        "the engine knows {plans} plans with {lists} lists of runs already, and its storage has no place for this one: add fewer plans"
    )]
    Full {
        /// How many plans are known.
        plans: usize,
        /// How many lists of runs they take.
        lists: usize,
    },
}

impl AddPlanError {
    /// The number of this error in docs/errors.md, for logs, metrics and callers in other
    /// languages.
    #[must_use]
    pub const fn code(&self) -> u32 {
        match self {
            Self::Cut(error) => error.code(),
            Self::Empty => 2170,
            Self::Layout(error) => error.code(),
            Self::Full { .. } => 2171,
        }
    }
}

/// One plan of the table: its `count` lists from `first` on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PlanPlace {
    first: u16,
    count: u16,
    /// The byte of the slot at which the plan begins.
    destination: u32,
}

impl PlanPlace {
    pub(crate) const FREE: Self = Self { first: 0, count: 0, destination: 0 };
}

/// The plans of an engine.
#[derive(Debug)]
pub(crate) struct Plans<'s> {
    places: &'s mut [PlanPlace],
    lists: &'s mut [CutList],
    /// How many places are in use, and how many lists.
    known: usize,
    listed: usize,
    pub(crate) limits: Limits,
    engine: u16,
}

impl<'s> Plans<'s> {
    pub(crate) fn new(
        places: &'s mut [PlanPlace],
        lists: &'s mut [CutList],
        limits: Limits,
        engine: u16,
    ) -> Self {
        Self { places, lists, known: 0, listed: 0, limits, engine }
    }

    /// Adds a plan to the table, unless the table has it.
    pub(crate) fn add(&mut self, plan: &Plan, layouts: &mut Layouts<'_>) -> Result<PlanRef, AddPlanError> {
        let cut = plan.cut(self.limits)?;
        if cut.wrs() == 0 {
            return Err(AddPlanError::Empty);
        }
        // A plan that can be cut has one source region and one destination region.
        let (from, to) = plan.between_regions().ok_or(CutError::Regions)?;
        let reads = layouts.learn(plan.source(), from)?.number;
        let writes = layouts.learn(plan.destination(), to)?.number;
        let (based, source, destination) = cut.rebased();
        let full = AddPlanError::Full { plans: self.known, lists: self.listed };
        let span = match self.find(based.lists()) {
            Some(span) => span,
            None => self.store(&based).ok_or(full)?,
        };
        let (first, count) = span;
        let same =
            |place: &PlanPlace| (place.first, place.count, place.destination) == (first, count, destination);
        let number = match self.places[..self.known].iter().position(same) {
            Some(number) => number,
            None => {
                *self.places.get_mut(self.known).ok_or(full)? = PlanPlace { first, count, destination };
                self.known += 1;
                self.known - 1
            }
        };
        Ok(PlanRef {
            engine: self.engine,
            number: narrow(number),
            layouts: PlanLayouts { reads, writes },
            wrs: cut.wrs(),
            bytes: cut.bytes(),
            source,
            source_end: cut.source_end(),
            destination_end: cut.destination_end(),
        })
    }

    fn find(&self, lists: &[CutList]) -> Option<(u16, u16)> {
        let known = self.places[..self.known].iter();
        known.map(|place| (place.first, place.count)).find(|span| self.span(*span) == lists)
    }

    fn store(&mut self, cut: &Cut) -> Option<(u16, u16)> {
        let lists = cut.lists();
        let room = self.lists.get_mut(self.listed..self.listed + lists.len())?;
        // Lists are stored only if there is a place for their plan, too.
        self.places.get(self.known)?;
        room.copy_from_slice(lists);
        let span = (narrow(self.listed), narrow(lists.len()));
        self.listed += lists.len();
        Some(span)
    }

    #[inline]
    fn span(&self, (first, count): (u16, u16)) -> &[CutList] {
        &self.lists[usize::from(first)..][..usize::from(count)]
    }

    /// Bytes of work request `wr` of a plan, and how many work requests from it on are known to
    /// have that length; at least 1.
    #[inline]
    pub(crate) fn equal_wrs(&self, plan: u16, wr: u32) -> (u32, u32) {
        let place = self.places[usize::from(plan)];
        CutList::equal_wrs(self.span((place.first, place.count)), wr)
    }

    /// Where work request `wr` of a plan starts in the remote page, and its length.
    #[cold]
    pub(crate) fn chunk(&self, plan: u16, wr: u32) -> (u64, u32) {
        let wr = self.walk(plan, wr).0.next(|_, _| ());
        wr.map_or((0, 0), |wr| (wr.source.into(), wr.len))
    }

    /// An iterator over a plan's work requests from `wr` on, and the byte of the slot at which the
    /// plan begins.
    #[inline]
    pub(crate) fn walk(&self, plan: u16, wr: u32) -> (Cursor<'_>, u32) {
        let place = self.places[usize::from(plan)];
        (Cursor::new(self.span((place.first, place.count)), wr), place.destination)
    }
}
