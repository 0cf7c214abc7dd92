//! Layouts that an engine knows: what remote pages and slots are said to hold, so that bytes land
//! where the slot's layout has them, or not at all.
//!
//! A layout is learnt once, at set-up ([`Engine::add_layout`](crate::engine::Engine::add_layout)),
//! and has a number from then on. Remote regions, slots and plans carry such numbers, and filling a
//! batch compares numbers. The table of what they stand for is shared with the threads that fill
//! batches; it is looked at where numbers differ.

use core::fmt;
use core::sync::atomic::{AtomicU64, Ordering};

use kvrail_layouts::{AxisKind, Fingerprint, Identity, RankOf, Undetermined};

use crate::limits::LAYOUTS;

/// The number of no layout: bytes about which nothing was said.
pub(crate) const NO_LAYOUT: u8 = 0;

/// Sharded axes of a layout: as many as a page has axes.
const AXES: usize = kvrail_layouts::MAX_AXES;

/// A layout that an engine knows. Plain data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LayoutRef {
    pub(crate) engine: u16,
    pub(crate) number: u8,
}

/// The layouts that a plan reads and writes, by their numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PlanLayouts {
    pub(crate) reads: u8,
    pub(crate) writes: u8,
}

/// Why an engine does not learn a layout.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AddLayoutError {
    /// A distance or a rank is not known, so the layout cannot be compared with another.
    #[error("{}", .0.text("the layout"))]
    Undetermined(Undetermined),
    /// The table is full.
    #[error("{limit} layouts are known already, the most that an engine tells apart")]
    Full {
        /// The maximum.
        limit: usize,
    },
}

impl AddLayoutError {
    /// The number of this error in docs/errors.md, for logs, metrics and callers in other
    /// languages.
    #[must_use]
    pub const fn code(&self) -> u32 {
        match self {
            Self::Undetermined(_) => 2121,
            Self::Full { .. } => 2120,
        }
    }
}

/// Why a region cannot be said to hold pages of a layout.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SetLayoutError {
    /// Region and layout must be of one engine.
    #[error("the layout is known to another engine than the one that the region belongs to")]
    OtherEngine,
    /// It was said before.
    #[error("the region holds pages of another layout already: a region has one")]
    Another,
    /// Slots that have been given out would not know it.
    #[error("{given} slots have been given out already: say the layout before the first one")]
    Given {
        /// How many.
        given: usize,
    },
}

impl SetLayoutError {
    /// The number of this error in docs/errors.md, for logs, metrics and callers in other
    /// languages.
    #[must_use]
    pub const fn code(&self) -> u32 {
        match self {
            Self::OtherEngine => 2130,
            Self::Another => 2131,
            Self::Given { .. } => 2132,
        }
    }
}

/// Why a page does not belong into a slot, or not by this plan. Fingerprints are those of
/// [`Identity::fingerprint`]; `None` is a region about whose layout nothing was said.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LayoutMismatch {
    /// Two layouts, and no plan.
    #[error(
        "the page is of {}, the slot of the layout with fingerprint {slot}: no byte is known to be in its place; read \
         the page by a plan (`read_with`), or into a slot of its own layout",
        Said(page)
    )]
    NoPlan {
        /// The page's layout.
        page: Option<Fingerprint>,
        /// The slot's.
        slot: Fingerprint,
    },
    /// The plan reads other pages.
    #[error(
        "the plan reads pages of the layout with fingerprint {plan}, the page is of {}: make the plan from the \
         geometry that this peer publishes",
        Said(page)
    )]
    Source {
        /// What the plan reads.
        plan: Fingerprint,
        /// The page's layout.
        page: Option<Fingerprint>,
    },
    /// The plan writes other pages.
    #[error(
        "the plan writes pages of the layout with fingerprint {plan}, the slot is of the one with fingerprint {slot}: \
         register the slots for what the plan writes"
    )]
    Destination {
        /// What the plan writes.
        plan: Fingerprint,
        /// The slot's layout.
        slot: Fingerprint,
    },
    /// The plan is for another rank.
    #[error("the plan is for the {end} of rank {plan} along {axis}, this {end} is rank {found}'s")]
    Rank {
        /// `page` or `slot`.
        end: &'static str,
        /// The axis.
        axis: AxisKind,
        /// The plan's.
        plan: u32,
        /// The page's or slot's.
        found: u32,
    },
    /// The page is one rank's and the slot another's.
    #[error(
        "the page is rank {page}'s along {axis}, the slot rank {slot}'s: they hold different parts; connect to rank \
         {slot}, or read by a plan from the one rank to the other"
    )]
    Ranks {
        /// The axis.
        axis: AxisKind,
        /// The page's.
        page: u32,
        /// The slot's.
        slot: u32,
    },
    /// A page has several regions, and these are two of them.
    #[error(
        "the page is region {page} of each page of its layout, the slot region {slot}: they hold different parts"
    )]
    Regions {
        /// The page's.
        page: u32,
        /// The slot's.
        slot: u32,
    },
    /// A page has several regions, and the plan is for another one.
    #[error("the plan is for region {plan} of each {end}, this is region {found}")]
    Region {
        /// `page` or `slot`.
        end: &'static str,
        /// The plan's.
        plan: u32,
        /// The page's or slot's.
        found: u32,
    },
}

impl LayoutMismatch {
    /// The number of this error in docs/errors.md, for logs, metrics and callers in other
    /// languages.
    #[must_use]
    pub const fn code(&self) -> u32 {
        match self {
            Self::NoPlan { .. } => 2140,
            Self::Source { .. } => 2141,
            Self::Destination { .. } => 2142,
            Self::Rank { .. } => 2143,
            Self::Ranks { .. } => 2144,
            Self::Regions { .. } => 2145,
            Self::Region { .. } => 2146,
        }
    }
}

/// A layout in words.
struct Said<'a>(&'a Option<Fingerprint>);

impl fmt::Display for Said<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(fingerprint) => write!(f, "the layout with fingerprint {fingerprint}"),
            None => f.write_str("no layout (a part of a page, or of a region of which none was said)"),
        }
    }
}

/// What a number stands for, in words that several threads may read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Known {
    fingerprint: Fingerprint,
    any_rank: Fingerprint,
    region: u32,
    /// Of each sharded axis its code, and the rank plus 1; 0 for a rank that the plan leaves open.
    ranks: [Option<(u16, u32)>; AXES],
}

const WORDS: usize = 5 + AXES;

/// The place of one layout. It is written before its number is known to anybody, and never again.
#[derive(Debug)]
pub(crate) struct LayoutPlace([AtomicU64; WORDS]);

impl LayoutPlace {
    pub(crate) fn free() -> Self {
        Self([const { AtomicU64::new(0) }; WORDS])
    }

    /// A thread gets the number of a place from the thread that wrote the place, by a hand-over
    /// that orders the two. So relaxed loads see what was written.
    fn load(&self) -> [u64; WORDS] {
        core::array::from_fn(|i| self.0[i].load(Ordering::Relaxed))
    }
}

impl Known {
    fn of(identity: &Identity, region: u32) -> Self {
        let mut ranks = [None; AXES];
        for (to, RankOf { axis, rank, .. }) in ranks.iter_mut().zip(identity.ranks()) {
            // Codes are below 512. A rank is below a number of ranks, which is a u32.
            *to = Some((axis.number() as u16, rank.map_or(0, |rank| rank + 1)));
        }
        let (fingerprint, any_rank) = (identity.fingerprint(), identity.fingerprint_of_any_rank());
        Self { fingerprint, any_rank, region, ranks }
    }

    fn to_words(self) -> [u64; WORDS] {
        let halves = |print: Fingerprint| {
            let n = u128::from_le_bytes(print.to_bytes());
            [n as u64, (n >> 64) as u64]
        };
        let ([a, b], [c, d]) = (halves(self.fingerprint), halves(self.any_rank));
        let mut words = [0; WORDS];
        words[..5].copy_from_slice(&[a, b, c, d, self.region.into()]);
        for (word, rank) in words[5..].iter_mut().zip(self.ranks) {
            // No axis has the code 0.
            *word = rank.map_or(0, |(code, rank)| u64::from(code) << 32 | u64::from(rank));
        }
        words
    }

    fn from_words(words: &[u64; WORDS]) -> Self {
        let print = |low: u64, high: u64| {
            Fingerprint::from_bytes((u128::from(high) << 64 | u128::from(low)).to_le_bytes())
        };
        let mut ranks = [None; AXES];
        for (to, &word) in ranks.iter_mut().zip(&words[5..]) {
            *to = (word != 0).then_some(((word >> 32) as u16, word as u32));
        }
        Self {
            fingerprint: print(words[0], words[1]),
            any_rank: print(words[2], words[3]),
            region: words[4] as u32,
            ranks,
        }
    }

    /// The sharded axes, and this layout's rank along each, if said.
    fn ranks(&self) -> impl Iterator<Item = (u16, Option<u32>)> {
        self.ranks.into_iter().flatten().map(|(code, rank)| (code, rank.checked_sub(1)))
    }

    fn rank(&self, axis: u16) -> Option<u32> {
        self.ranks().find(|(code, _)| *code == axis).and_then(|(_, rank)| rank)
    }

    /// An axis along which both say a rank, and another one.
    fn other_rank(&self, other: &Self) -> Option<(AxisKind, u32, u32)> {
        self.ranks().find_map(|(code, rank)| {
            let (mine, theirs) = (rank?, other.rank(code)?);
            (mine != theirs).then(|| (axis(code), mine, theirs))
        })
    }
}

/// The axis of this code.
fn axis(code: u16) -> AxisKind {
    let named = [AxisKind::Layer, AxisKind::Token, AxisKind::Part, AxisKind::Head, AxisKind::Block];
    let known = named.into_iter().find(|axis| axis.number() == u64::from(code));
    // The codes of an author's own axes begin at 256.
    known.unwrap_or(AxisKind::Other(code as u8))
}

/// The layouts of an engine: its own hand on the table.
#[derive(Debug)]
pub(crate) struct Layouts<'s> {
    table: LayoutTable<'s>,
    /// How many are known.
    known: usize,
    engine: u16,
}

/// The table, as the threads that fill batches use it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LayoutTable<'s>(&'s [LayoutPlace; LAYOUTS]);

impl<'s> Layouts<'s> {
    pub(crate) fn new(places: &'s [LayoutPlace; LAYOUTS], engine: u16) -> Self {
        Self { table: LayoutTable(places), known: 0, engine }
    }

    pub(crate) fn table(&self) -> LayoutTable<'s> {
        self.table
    }

    /// Learns what pages are of which `region` is one, unless it is known.
    pub(crate) fn add(&mut self, identity: &Identity, region: u32) -> Result<LayoutRef, AddLayoutError> {
        match identity.undetermined() {
            Some(why) => Err(AddLayoutError::Undetermined(why)),
            None => self.learn(identity, region),
        }
    }

    /// The same of what a plan reads or writes, whose ranks may be open.
    pub(crate) fn learn(&mut self, identity: &Identity, region: u32) -> Result<LayoutRef, AddLayoutError> {
        let words = Known::of(identity, region).to_words();
        let at = match self.table.0[..self.known].iter().position(|place| place.load() == words) {
            Some(at) => at,
            None => {
                let limit = self.table.0.len();
                let place = self.table.0.get(self.known).ok_or(AddLayoutError::Full { limit })?;
                for (to, word) in place.0.iter().zip(words) {
                    to.store(word, Ordering::Relaxed);
                }
                self.known += 1;
                self.known - 1
            }
        };
        // Places are at most LAYOUTS.
        Ok(LayoutRef { engine: self.engine, number: at as u8 + 1 })
    }
}

impl LayoutTable<'_> {
    fn known(&self, number: u8) -> Option<Known> {
        let at = usize::from(number).checked_sub(1)?;
        Some(Known::from_words(&self.0.get(at)?.load()))
    }

    /// Why a page does not belong into a slot whose layout is said, and another.
    #[cold]
    pub(crate) fn unlike(&self, page: u8, slot: u8) -> LayoutMismatch {
        let (page, slot) = (self.known(page), self.known(slot));
        if let (Some(page), Some(slot)) = (&page, &slot)
            && page.any_rank == slot.any_rank
        {
            if let Some((axis, page, slot)) = page.other_rank(slot) {
                return LayoutMismatch::Ranks { axis, page, slot };
            }
            return LayoutMismatch::Regions { page: page.region, slot: slot.region };
        }
        let none = Fingerprint::from_bytes([0; 16]);
        LayoutMismatch::NoPlan {
            page: page.map(|page| page.fingerprint),
            slot: slot.map_or(none, |slot| slot.fingerprint),
        }
    }

    /// Whether a plan takes such a page into such a slot, whose numbers are not both the plan's
    /// own: because the slot's layout was not said, or because the plan leaves ranks open.
    #[cold]
    pub(crate) fn follows(&self, plan: PlanLayouts, page: u8, slot: u8) -> Result<(), LayoutMismatch> {
        let (Some(source), Some(destination)) = (self.known(plan.reads), self.known(plan.writes)) else {
            // A plan's numbers are known before the plan is.
            return Ok(());
        };
        let page = self.known(page).ok_or(LayoutMismatch::Source { plan: source.fingerprint, page: None })?;
        let other = LayoutMismatch::Source { plan: source.fingerprint, page: Some(page.fingerprint) };
        same("page", &source, &page, other)?;
        // Slots of no layout take any bytes.
        let Some(slot) = self.known(slot) else { return Ok(()) };
        let other = LayoutMismatch::Destination { plan: destination.fingerprint, slot: slot.fingerprint };
        same("slot", &destination, &slot, other)?;
        // Where the plan leaves the rank of both ends open, it is one and the same.
        let open = |end: &Known, code| end.ranks().any(|(of, rank)| of == code && rank.is_none());
        for (code, rank) in page.ranks() {
            if let (Some(page), Some(slot)) = (rank, slot.rank(code))
                && page != slot
                && open(&source, code)
                && open(&destination, code)
            {
                return Err(LayoutMismatch::Ranks { axis: axis(code), page, slot });
            }
        }
        Ok(())
    }
}

/// Whether a page or slot is what a plan has at that end, at whichever rank that leaves open.
fn same(end: &'static str, plan: &Known, found: &Known, other: LayoutMismatch) -> Result<(), LayoutMismatch> {
    if plan.any_rank != found.any_rank {
        return Err(other);
    }
    if let Some((axis, plan, found)) = plan.other_rank(found) {
        return Err(LayoutMismatch::Rank { end, axis, plan, found });
    }
    if plan.region != found.region {
        return Err(LayoutMismatch::Region { end, plan: plan.region, found: found.region });
    }
    Ok(())
}
