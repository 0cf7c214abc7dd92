//! Plans that an engine knows: how pages in one layout land in slots of another.

use kvrail_layouts::plan::{Cursor, Cut, CutError, CutList, Limits, Plan};

use crate::layout::{AddLayoutError, Layouts, PlanLayouts};
pub use crate::limits::MAX_SGES;
use crate::limits::narrow;

/// A plan that an engine knows. Plain data, to be copied to whichever thread fills batches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlanRef {
    pub(crate) engine: u16,
    pub(crate) number: u16,
    pub(crate) layouts: PlanLayouts,
    pub(crate) wrs: u32,
    pub(crate) bytes: u32,
    /// Where in the remote page it begins, and ends.
    pub(crate) source: u32,
    pub(crate) source_end: u32,
    /// Where in the slot it ends.
    pub(crate) destination_end: u32,
}

impl PlanRef {
    /// Work requests of one page: what it takes of a lane's send queue, all in all.
    #[must_use]
    pub const fn wrs(&self) -> u32 {
        self.wrs
    }

    /// Bytes that one page writes.
    #[must_use]
    pub const fn bytes(&self) -> u32 {
        self.bytes
    }

    /// The least that a remote page must have, in bytes.
    #[must_use]
    pub const fn source_bytes(&self) -> u32 {
        self.source_end
    }

    /// The least that a slot must have, in bytes.
    #[must_use]
    pub const fn slot_bytes(&self) -> u32 {
        self.destination_end
    }
}

/// Why an engine does not take a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AddPlanError {
    /// It is no list of work requests.
    #[error(transparent)]
    Cut(#[from] CutError),
    /// It moves nothing.
    #[error("the plan moves no byte")]
    Empty,
    /// What it reads or writes is one layout more than an engine tells apart.
    #[error(transparent)]
    Layout(#[from] AddLayoutError),
    /// The table is full.
    #[error(
        "{plans} plans of {lists} lists of runs are known already, the most that this engine's storage holds"
    )]
    Full {
        /// Plans known.
        plans: usize,
        /// Lists known.
        lists: usize,
    },
}

impl AddPlanError {
    /// The number of this error in docs/errors.md, for logs, metrics and callers in other
    /// languages.
    #[must_use]
    pub const fn code(&self) -> u32 {
        match self {
            Self::Cut(_) => 2172,
            Self::Empty => 2170,
            Self::Layout(error) => error.code(),
            Self::Full { .. } => 2171,
        }
    }
}

/// One plan's place.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PlanPlace {
    first: u16,
    count: u16,
    /// Where in the slot it begins.
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
    /// How many of each are in use.
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

    /// Learns a plan, unless it is known.
    pub(crate) fn add(&mut self, plan: &Plan, layouts: &mut Layouts<'_>) -> Result<PlanRef, AddPlanError> {
        let cut = plan.cut(self.limits)?;
        if cut.wrs() == 0 {
            return Err(AddPlanError::Empty);
        }
        // A plan that has been cut goes between two regions.
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
        // A place is taken with the lists, or not at all.
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

    /// Bytes of one work request of a plan, and of how many from it on at least.
    #[inline]
    pub(crate) fn equal_wrs(&self, plan: u16, wr: u32) -> (u32, u32) {
        let place = self.places[usize::from(plan)];
        CutList::equal_wrs(self.span((place.first, place.count)), wr)
    }

    /// Start in the remote page and length of one work request of a plan.
    #[cold]
    pub(crate) fn chunk(&self, plan: u16, wr: u32) -> (u64, u32) {
        let wr = self.walk(plan, wr).0.next(|_, _| ());
        wr.map_or((0, 0), |wr| (wr.source.into(), wr.len))
    }

    /// A walk over a plan's work requests from `wr` on; and where in the slot the plan begins.
    #[inline]
    pub(crate) fn walk(&self, plan: u16, wr: u32) -> (Cursor<'_>, u32) {
        let place = self.places[usize::from(plan)];
        (Cursor::new(self.span((place.first, place.count)), wr), place.destination)
    }
}
