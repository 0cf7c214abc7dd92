//! The identity of a page, by which two peers compare their pages before bytes move.

use crate::axis::{AxisKind, Spread};
use crate::fingerprint::Fingerprint;
use crate::geometry::{Geometry, MAX_AXES};
use crate::layout::KvLayout;
use crate::text::Text;

/// The identity by which two peers compare pages before bytes move: where every byte is, and which
/// rank's part of the whole the page is.
///
/// A declaration may leave two things to run time: distances (`strided`), and which rank a page
/// belongs to (`sharded` without a rank). Two pages of such a declaration can hold different bytes
/// at the same place. So two peers compare the [`Identity`] of a page for which both are known, and
/// an identity says whether they are: [`Identity::undetermined`]. (A pipeline stage,
/// [`Spread::Stage`], is always known: its first layer is part of the declaration.)
///
/// ```
/// use kvrail_layouts::{Axis, AxisKind, Declaration, ElementKind, FieldDecl, Level, PlaneDecl};
/// use kvrail_layouts::Undetermined;
///
/// // One of 8 tensor-parallel ranks' heads.
/// let declared = Declaration {
///     axes: &[Axis::whole(AxisKind::Token, 16), Axis::sharded(AxisKind::Head, 1, 8)],
///     order: &[Level::Axis(AxisKind::Token), Level::Axis(AxisKind::Head)],
///     planes: &[PlaneDecl::of(&[FieldDecl::new("k", ElementKind::Bf16, 128)])],
///     ..Declaration::EMPTY
/// }
/// .build()?;
/// let any = declared.identity();
/// assert_eq!(any.undetermined(), Some(Undetermined::Rank { axis: AxisKind::Head, ranks: 8 }));
///
/// let zero = declared.at_rank(AxisKind::Head, 0)?.identity();
/// let one = declared.at_rank(AxisKind::Head, 1)?.identity();
/// assert_eq!(one.undetermined(), None);
/// assert_ne!(zero.fingerprint(), one.fingerprint());
/// assert_eq!(zero.fingerprint_of_any_rank(), one.fingerprint_of_any_rank());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Identity {
    fingerprint: Fingerprint,
    any_rank: Fingerprint,
    ranks: [RankOf; MAX_AXES],
    count: usize,
    placed: bool,
}

/// Which part of a sharded axis a page holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RankOf {
    /// The axis.
    pub axis: AxisKind,
    /// How many parts there are.
    pub ranks: u32,
    /// Which part the page holds, below `ranks`; `None` if that is not known yet.
    pub rank: Option<u32>,
}

/// Why a page cannot be compared with another: a number that is known only at run time has not been
/// given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Undetermined {
    /// A stride, or a plane's distance.
    Distance,
    /// The rank along an axis.
    Rank {
        /// The axis.
        axis: AxisKind,
        /// How many ranks there are.
        ranks: u32,
    },
}

impl Undetermined {
    /// The number of this error, listed in docs/errors.md. It never changes its meaning.
    #[must_use]
    pub const fn code(&self) -> u32 {
        match self {
            Self::Distance => 1140,
            Self::Rank { .. } => 1141,
        }
    }
}

impl Undetermined {
    /// The reason, for the layout of this name, and what to do.
    #[must_use]
    pub const fn text(&self, layout: &str) -> Text {
        let text = Text::new().str("`").str(layout).str("` ");
        match *self {
            Self::Distance => text
                .str("has strides or distances that are known only at run time, so two engines that chose them \
                      differently would take each other's bytes for their own: give the numbers to a `Placed` of it, \
                      and make the layout of that (`PageLayout::placed`)"),
            Self::Rank { axis, ranks } => text
                .str("is one of ")
                .num(ranks as u64)
                .str(" ranks along ")
                .axis(axis)
                .str(" and does not say which, so two ranks would take each other's bytes for their own: make the \
                      layout at a rank (`PageLayout::at_rank`), or declare `rank = R`"),
        }
    }
}

impl Identity {
    /// The identity of a geometry.
    #[must_use]
    pub const fn of(geometry: &Geometry) -> Self {
        let fingerprint = Fingerprint::of(geometry);
        let none = RankOf { axis: AxisKind::Layer, ranks: 0, rank: None };
        let mut identity = Self {
            fingerprint,
            any_rank: fingerprint,
            ranks: [none; MAX_AXES],
            count: 0,
            placed: geometry.is_placed(),
        };
        let mut erased = *geometry;
        let mut has_rank = false;
        let mut a = 0;
        while a < geometry.axis_count {
            let axis = &geometry.axes[a];
            if let Spread::Sharded { ranks, rank } = axis.spread {
                identity.ranks[identity.count] = RankOf { axis: axis.kind, ranks, rank };
                identity.count += 1;
                erased.axes[a].spread = Spread::Sharded { ranks, rank: None };
                has_rank = has_rank || rank.is_some();
            }
            a += 1;
        }
        if has_rank {
            identity.any_rank = Fingerprint::of(&erased);
        }
        identity
    }

    /// The identity of the pages of `L`. A layout that leaves a distance or a rank to run time has
    /// none: asking for it is a compile error with the reason.
    #[must_use]
    pub const fn of_layout<L: KvLayout>() -> Self {
        const { Self::of(L::GEOMETRY).must_be_determined(L::NAME) }
        Self::of(L::GEOMETRY)
    }

    #[track_caller]
    const fn must_be_determined(&self, layout: &str) {
        if let Some(why) = self.undetermined() {
            panic!("{}", why.text(layout).as_str());
        }
    }

    /// The fingerprint that two peers compare. It covers strides, distances and ranks.
    #[must_use]
    pub const fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }

    /// The fingerprint of the same page without its ranks, which all ranks have in common.
    #[must_use]
    pub const fn fingerprint_of_any_rank(&self) -> Fingerprint {
        self.any_rank
    }

    /// The sharded axes, sorted by [`AxisKind::number`], and which part of each the page holds.
    #[must_use]
    pub const fn ranks(&self) -> &[RankOf] {
        self.ranks.split_at(self.count).0
    }

    /// The number that is not known yet, if there is one. Such a page must not be compared with
    /// another.
    #[must_use]
    pub const fn undetermined(&self) -> Option<Undetermined> {
        if !self.placed {
            return Some(Undetermined::Distance);
        }
        let mut i = 0;
        while i < self.count {
            if let RankOf { axis, ranks, rank: None } = self.ranks[i] {
                return Some(Undetermined::Rank { axis, ranks });
            }
            i += 1;
        }
        None
    }
}

impl Geometry {
    /// The identity of its pages: [`Identity::of`].
    #[must_use]
    pub const fn identity(&self) -> Identity {
        Identity::of(self)
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use super::*;

    /// The longest texts that are known, with the longest name that a page layout may have.
    #[test]
    fn no_reason_is_cut_off() {
        let name = "n".repeat(64);
        for why in
            [Undetermined::Distance, Undetermined::Rank { axis: AxisKind::Other(u8::MAX), ranks: u32::MAX }]
        {
            let text = why.text(&name);
            assert!(text.as_str().len() < Text::CAPACITY, "{text}");
        }
    }
}
