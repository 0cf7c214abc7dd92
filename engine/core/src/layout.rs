//! The table of layouts of an engine, and the check that a page may land in a slot: bytes land
//! where the slot's layout has them, or not at all.
//!
//! A layout is learnt once, at set-up ([`Engine::add_layout`](crate::engine::Engine::add_layout)),
//! and has a number from then on. Remote regions, slots and plans carry such numbers, and filling a
//! batch compares them. Threads that fill batches share the table, and look a layout up only where
//! two numbers differ.

mod error;
mod whole;

use core::fmt;
use core::sync::atomic::{AtomicU64, Ordering};

use kvrail_layouts::{AxisKind, Fingerprint, Identity, RankOf, Undetermined};

pub use self::error::SetLayoutError;
pub(crate) use self::whole::WholePlan;
use crate::limits::LAYOUTS;

/// Stands for the number of a layout where none was set.
pub(crate) const NO_LAYOUT: u8 = 0;

/// Stands for the number of a region where a page with all of its regions is meant.
pub(crate) const WHOLE: u32 = u32::MAX;

/// The most sharded axes of a layout: a page has no more axes.
const AXES: usize = kvrail_layouts::MAX_AXES;

/// A layout that an engine knows. It is plain data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LayoutRef {
    pub(crate) engine: u16,
    pub(crate) number: u8,
    /// Whether it is that of pages with all of their several regions.
    pub(crate) of_regions: bool,
}

/// The layouts that a plan reads and writes, by their numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PlanLayouts {
    pub(crate) reads: u8,
    pub(crate) writes: u8,
    /// Whether pages of the one have several regions.
    pub(crate) gathers: bool,
    /// Whether slots of the other have several regions.
    pub(crate) scatters: bool,
}

/// Why an engine does not learn a layout.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AddLayoutError {
    /// A distance or a rank of the layout is not known, so it cannot be compared with another.
    #[error("{}", .0.text("the layout"))]
    Undetermined(Undetermined),
    /// The engine's table of layouts is full.
    #[error("the engine knows {limit} layouts already, the most that it tells apart: add fewer")]
    Full {
        /// The most layouts of an engine.
        limit: usize,
    },
}

impl AddLayoutError {
    /// The number of this error in docs/errors.md, for logs, metrics and callers in other
    /// languages.
    #[must_use]
    pub const fn code(&self) -> u32 {
        match self {
            Self::Undetermined(error) => error.code(),
            Self::Full { .. } => 2120,
        }
    }
}

/// Why a page may not land in a slot, or not by this plan. Fingerprints are those of
/// [`Identity::fingerprint`]; `None` stands for a page without a layout.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LayoutMismatch {
    /// Page and slot have different layouts, and the page was read without a plan.
    #[error(
        "the page has {}, the slot has the layout with fingerprint {slot}: no byte is known to be in its place; read \
         the page by a plan (`read_with`), or into a slot of its own layout",
        Said(page)
    )]
    NoPlan {
        /// The page's layout.
        page: Option<Fingerprint>,
        /// The slot's.
        slot: Fingerprint,
    },
    /// The plan reads pages of another layout than the page's.
    #[error(
        "the plan reads pages of the layout with fingerprint {plan}, the page has {}: make the plan from the \
         geometry that this peer publishes",
        Said(page)
    )]
    Source {
        /// The layout that the plan reads.
        plan: Fingerprint,
        /// The page's layout.
        page: Option<Fingerprint>,
    },
    /// The plan writes pages of another layout than the slot's.
    #[error(
        "the plan writes pages of the layout with fingerprint {plan}, the slot has the one with fingerprint {slot}: \
         register the slots for what the plan writes"
    )]
    Destination {
        /// The layout that the plan writes.
        plan: Fingerprint,
        /// The slot's layout.
        slot: Fingerprint,
    },
    /// The plan reads or writes another rank's part.
    #[error(
        "the plan is for the {end} of rank {plan} along {axis}, and this {end} is rank {found}'s: make a plan for rank {found}"
    )]
    Rank {
        /// `page` or `slot`.
        end: &'static str,
        /// The axis along which the ranks differ.
        axis: AxisKind,
        /// The plan's rank.
        plan: u32,
        /// The rank of the page or slot.
        found: u32,
    },
    /// Page and slot belong to different ranks.
    #[error(
        "the page is rank {page}'s along {axis}, the slot rank {slot}'s: they hold different parts; connect to rank \
         {slot}, or read by a plan from the one rank to the other"
    )]
    Ranks {
        /// The axis along which the ranks differ.
        axis: AxisKind,
        /// The page's rank.
        page: u32,
        /// The slot's rank.
        slot: u32,
    },
    /// Pages of the layout have several regions, and page and slot are different ones of these.
    /// `u32::MAX` stands for all regions.
    #[error(
        "the page is {} of its layout, the slot is {}: they hold different parts; read {} into this slot",
        RegionOf(page),
        RegionOf(slot),
        RegionOf(slot)
    )]
    Regions {
        /// The page's region.
        page: u32,
        /// The slot's region.
        slot: u32,
    },
    /// Pages of the layout have several regions, and the plan is for another one. `u32::MAX` stands
    /// for all regions.
    #[error(
        "the plan is for {} of its layout, and this {end} is {}: make a plan for {}",
        RegionOf(plan),
        RegionOf(found),
        RegionOf(found)
    )]
    Region {
        /// `page` or `slot`.
        end: &'static str,
        /// The plan's region.
        plan: u32,
        /// The region of the page or slot.
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

/// Writes the layout of a page in words.
struct Said<'a>(&'a Option<Fingerprint>);

impl fmt::Display for Said<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(fingerprint) => write!(f, "the layout with fingerprint {fingerprint}"),
            None => f.write_str("no layout (it is a part of a page, or its region's layout was not set)"),
        }
    }
}

/// Writes which region of a page is meant.
struct RegionOf<'a>(&'a u32);

impl fmt::Display for RegionOf<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            &WHOLE => f.write_str("the whole page"),
            region => write!(f, "region {region}"),
        }
    }
}

/// The fields of a layout that are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Known {
    fingerprint: Fingerprint,
    any_rank: Fingerprint,
    region: u32,
    /// Of each sharded axis its code, and the rank plus 1; 0 stands for a rank that a plan leaves
    /// open.
    ranks: [Option<(u16, u32)>; AXES],
}

const WORDS: usize = 5 + AXES;

/// The place of one layout: a [`Known`] as words that several threads may load. The place is
/// written before its number is given out, and never again.
#[derive(Debug)]
pub(crate) struct LayoutPlace {
    known: [AtomicU64; WORDS],
    /// A [`WholePlan`]; 0 where pages have one region. It is written before a page or a slot of
    /// several regions is given out.
    whole: AtomicU64,
}

impl LayoutPlace {
    pub(crate) fn free() -> Self {
        Self { known: [const { AtomicU64::new(0) }; WORDS], whole: AtomicU64::new(0) }
    }

    /// Relaxed loads see what was written: a thread gets the number of a place from the thread that
    /// wrote the place, by a hand-over that orders the two.
    fn load(&self) -> [u64; WORDS] {
        core::array::from_fn(|i| self.known[i].load(Ordering::Relaxed))
    }
}

impl Known {
    fn of(identity: &Identity, region: u32) -> Self {
        let mut ranks = [None; AXES];
        for (to, RankOf { axis, rank, .. }) in ranks.iter_mut().zip(identity.ranks()) {
            // Codes are below 512. A rank is below the number of ranks, a u32, so 1 can be added.
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

    /// The code of each sharded axis, and this layout's rank along it, if known.
    fn ranks(&self) -> impl Iterator<Item = (u16, Option<u32>)> {
        self.ranks.into_iter().flatten().map(|(code, rank)| (code, rank.checked_sub(1)))
    }

    fn rank(&self, axis: u16) -> Option<u32> {
        self.ranks().find(|(code, _)| *code == axis).and_then(|(_, rank)| rank)
    }

    /// An axis along which both ranks are known and differ, and these two ranks.
    fn other_rank(&self, other: &Self) -> Option<(AxisKind, u32, u32)> {
        self.ranks().find_map(|(code, rank)| {
            let (mine, theirs) = (rank?, other.rank(code)?);
            (mine != theirs).then(|| (axis(code), mine, theirs))
        })
    }
}

/// The axis with this code.
fn axis(code: u16) -> AxisKind {
    let named = [AxisKind::Layer, AxisKind::Token, AxisKind::Part, AxisKind::Head, AxisKind::Block];
    let known = named.into_iter().find(|axis| axis.number() == u64::from(code));
    // The codes of an author's own axes begin at 256.
    known.unwrap_or(AxisKind::Other(code as u8))
}

/// The engine's access to the table, which alone adds layouts.
#[derive(Debug)]
pub(crate) struct Layouts<'s> {
    table: LayoutTable<'s>,
    /// How many are known.
    known: usize,
    engine: u16,
}

/// The access of the threads that fill batches, which only look layouts up.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LayoutTable<'s>(&'s [LayoutPlace; LAYOUTS]);

impl<'s> Layouts<'s> {
    pub(crate) fn new(places: &'s [LayoutPlace; LAYOUTS], engine: u16) -> Self {
        Self { table: LayoutTable(places), known: 0, engine }
    }

    pub(crate) fn table(&self) -> LayoutTable<'s> {
        self.table
    }

    /// Adds the layout of region `region` of pages of this `identity`, unless the table has it.
    pub(crate) fn add(&mut self, identity: &Identity, region: u32) -> Result<LayoutRef, AddLayoutError> {
        match identity.undetermined() {
            Some(why) => Err(AddLayoutError::Undetermined(why)),
            None => self.learn(identity, region),
        }
    }

    /// As [`add`](Self::add), for a layout that a plan reads or writes: its ranks may be open.
    pub(crate) fn learn(&mut self, identity: &Identity, region: u32) -> Result<LayoutRef, AddLayoutError> {
        let words = Known::of(identity, region).to_words();
        let at = match self.table.0[..self.known].iter().position(|place| place.load() == words) {
            Some(at) => at,
            None => {
                let limit = self.table.0.len();
                let place = self.table.0.get(self.known).ok_or(AddLayoutError::Full { limit })?;
                for (to, word) in place.known.iter().zip(words) {
                    to.store(word, Ordering::Relaxed);
                }
                place.whole.store(0, Ordering::Relaxed);
                self.known += 1;
                self.known - 1
            }
        };
        debug_assert!(at < LAYOUTS, "the table has LAYOUTS places");
        Ok(LayoutRef { engine: self.engine, number: at as u8 + 1, of_regions: region == WHOLE })
    }
}

impl Layouts<'_> {
    /// The plan by which whole pages of the layout land, if it was set.
    pub(crate) fn whole(&self, layout: LayoutRef) -> Option<WholePlan> {
        self.table.whole(layout.number)
    }

    /// Sets the plan by which whole pages of the layout land.
    pub(crate) fn set_whole(&self, layout: LayoutRef, plan: WholePlan) {
        if let Some(place) = self.table.0.get(usize::from(layout.number).wrapping_sub(1)) {
            place.whole.store(plan.to_word(), Ordering::Relaxed);
        }
    }
}

impl LayoutTable<'_> {
    /// The plan by which whole pages of layout `number` land; `None` where they have one region.
    pub(crate) fn whole(&self, number: u8) -> Option<WholePlan> {
        let place = self.0.get(usize::from(number).checked_sub(1)?)?;
        WholePlan::from_word(place.whole.load(Ordering::Relaxed))
    }

    fn known(&self, number: u8) -> Option<Known> {
        let at = usize::from(number).checked_sub(1)?;
        Some(Known::from_words(&self.0.get(at)?.load()))
    }

    /// Why a page may not land in a slot that has another layout.
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

    /// Checks that `plan` brings a page of layout `page` into a slot of layout `slot`. It is called
    /// where the numbers are not both those of the plan: the slot has no layout, or the plan leaves
    /// ranks open.
    #[cold]
    pub(crate) fn follows(&self, plan: PlanLayouts, page: u8, slot: u8) -> Result<(), LayoutMismatch> {
        let (Some(source), Some(destination)) = (self.known(plan.reads), self.known(plan.writes)) else {
            // Unreachable: the layouts of a plan are learnt before the plan is.
            return Ok(());
        };
        let page = self.known(page).ok_or(LayoutMismatch::Source { plan: source.fingerprint, page: None })?;
        let other = LayoutMismatch::Source { plan: source.fingerprint, page: Some(page.fingerprint) };
        same("page", &source, &page, other)?;
        if plan.gathers && page != source {
            // Where a plan goes between several regions, it is followed with the very ranks that it
            // was made for.
            return Err(other);
        }
        // Slots of no layout take any bytes.
        let Some(slot) = self.known(slot) else { return Ok(()) };
        let other = LayoutMismatch::Destination { plan: destination.fingerprint, slot: slot.fingerprint };
        same("slot", &destination, &slot, other)?;
        if plan.scatters && slot != destination {
            return Err(other);
        }
        // Where a plan leaves the rank open at both ends, page and slot must be of one rank.
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

/// Checks that a page or slot has the layout that a plan has at this end. A rank that the plan
/// leaves open matches every rank.
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
