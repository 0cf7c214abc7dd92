//! Why a declaration is refused, and at which of its tokens.
//!
//! The messages are written here once, for the compiler (the derive puts each on its token) and for
//! a program that builds a [`Declaration`](crate::Declaration) itself.

use crate::axis::AxisKind;
use crate::text::Text;

/// The part of a declaration that an error is about. Numbers count from 0, in the declaration's
/// order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Spot {
    /// The axis of this number in [`Declaration::axes`](crate::Declaration::axes).
    Axis(usize),
    /// How the axis of this number is spread over ranks.
    Spread(usize),
    /// The order as a whole.
    Order,
    /// This level of the order.
    Level(usize),
    /// This plane as a whole.
    Plane(usize),
    /// This level (second) of this plane's own order (first).
    PlaneLevel(usize, usize),
    /// The field of this number, counted through all planes.
    Field(usize),
    /// `tokens_per_state`.
    TokensPerState,
    /// `align`.
    Align,
    /// `bytes`.
    Bytes,
}

impl Spot {
    const fn same(self, other: Self) -> bool {
        match (self, other) {
            (Self::Axis(a), Self::Axis(b))
            | (Self::Spread(a), Self::Spread(b))
            | (Self::Level(a), Self::Level(b))
            | (Self::Plane(a), Self::Plane(b))
            | (Self::Field(a), Self::Field(b)) => a == b,
            (Self::PlaneLevel(a, i), Self::PlaneLevel(b, j)) => a == b && i == j,
            (Self::Order, Self::Order)
            | (Self::TokensPerState, Self::TokensPerState)
            | (Self::Align, Self::Align)
            | (Self::Bytes, Self::Bytes) => true,
            _ => false,
        }
    }
}

/// What is wrong. [`DeclarationError::text`] says it with the numbers and a remedy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
#[allow(missing_docs, reason = "a field is the thing or the number that its variant's line names")]
pub enum DeclarationErrorKind {
    /// There are more axes, planes, fields or regions than a page may have.
    TooMany { what: &'static str, max: u64, found: u64 },
    /// A plane has no field.
    NoFields,
    /// An axis has extent 0.
    ZeroExtent { axis: AxisKind },
    /// An axis has two extents.
    SameAxisTwice { axis: AxisKind },
    /// A rank was given for an axis that is not sharded.
    NotSharded { axis: AxisKind },
    /// The rank is not below the number of ranks, or there are 0 ranks.
    Ranks { ranks: u32, rank: Option<u32> },
    /// The order names an axis without an extent.
    UnknownAxis { axis: AxisKind },
    /// The order goes along an axis twice.
    RepeatedAxis { axis: AxisKind },
    /// An axis has an extent and no place in the order.
    UnusedAxis { axis: AxisKind, extent: u64 },
    /// A field has 0 elements.
    ZeroCount { field: &'static str },
    /// Two fields have one name.
    SameFieldTwice { field: &'static str },
    /// Padding to a multiple of 0.
    ZeroPad,
    /// Alignment to a multiple of 0.
    ZeroAlign,
    /// A state stands for 0 tokens.
    ZeroTokensPerState,
    /// The order splits into planes twice.
    PlanesTwice,
    /// There are several planes, and the order does not split into planes.
    PlanesMissing { planes: u64 },
    /// A plane has an order of its own, and the page's order does not split into planes.
    OrderWithoutPlanes,
    /// A region level lies within the bytes of a region.
    RegionsInside,
    /// Planes that share a region have regions of their own.
    RegionsUnderPlanes,
    /// The page has 2^63 bytes or more.
    Overflow,
    /// The page has another size than the declared one, in bytes.
    Bytes { expected: u64, actual: u64 },
    /// The bytes of a region are no multiple of the alignment.
    Align { align: u64, region: u64 },
    /// A range of an axis ends beyond the whole of it.
    Stage { axis: AxisKind, first: u64, count: u64, of: u64 },
}

impl DeclarationErrorKind {
    /// The number of this error, listed in docs/errors.md. It never changes its meaning.
    #[must_use]
    pub const fn code(&self) -> u32 {
        match self {
            Self::TooMany { .. } => 1000,
            Self::NoFields => 1001,
            Self::ZeroExtent { .. } => 1002,
            Self::SameAxisTwice { .. } => 1003,
            Self::NotSharded { .. } => 1004,
            Self::Ranks { .. } => 1005,
            Self::UnknownAxis { .. } => 1006,
            Self::RepeatedAxis { .. } => 1007,
            Self::UnusedAxis { .. } => 1008,
            Self::ZeroCount { .. } => 1009,
            Self::SameFieldTwice { .. } => 1010,
            Self::ZeroPad => 1011,
            Self::ZeroAlign => 1012,
            Self::ZeroTokensPerState => 1013,
            Self::PlanesTwice => 1014,
            Self::PlanesMissing { .. } => 1015,
            Self::OrderWithoutPlanes => 1016,
            Self::RegionsInside => 1017,
            Self::RegionsUnderPlanes => 1018,
            Self::Overflow => 1019,
            Self::Bytes { .. } => 1020,
            Self::Align { .. } => 1021,
            Self::Stage { .. } => 1022,
        }
    }
}

/// One mistake, at its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeclarationError {
    /// The place of the mistake.
    pub at: Spot,
    /// The mistake.
    pub why: DeclarationErrorKind,
}

impl DeclarationError {
    /// The number of [`why`](Self::why).
    #[must_use]
    pub const fn code(&self) -> u32 {
        self.why.code()
    }

    /// The mistake in the author's words, with the numbers that disagree and those that would fit.
    #[must_use]
    pub const fn text(&self) -> Text {
        let text = Text::new();
        match self.why {
            DeclarationErrorKind::TooMany { what, max, found } => {
                text.num(found).str(" ").str(what).str(", and a page has at most ").num(max)
            }
            DeclarationErrorKind::NoFields => text.str("a plane without fields holds nothing; declare a field"),
            DeclarationErrorKind::ZeroExtent { axis } => zero_extent(Text::new().axis(axis)),
            DeclarationErrorKind::SameAxisTwice { axis } => {
                text.str("axis `").axis(axis).str("` has two extents; say one")
            }
            DeclarationErrorKind::Ranks { ranks, rank: Some(rank) } => {
                text.str("rank ").num(rank as u64).str(" of ").num(ranks as u64).str(" ranks: ranks count from 0")
            }
            DeclarationErrorKind::Ranks { ranks, rank: None } => {
                text.str("an axis spread over ").num(ranks as u64).str(" ranks; say at least 1")
            }
            DeclarationErrorKind::NotSharded { axis } => text
                .str("axis `")
                .axis(axis)
                .str("` is not sharded on this page, so no rank has a part of it; declare it sharded, or give no rank"),
            DeclarationErrorKind::UnknownAxis { axis } => text
                .str("the order names axis `").axis(axis).str("`, which has no extent; say how many"),
            DeclarationErrorKind::RepeatedAxis { axis } => {
                text.str("the order goes along axis `").axis(axis).str("` twice")
            }
            DeclarationErrorKind::UnusedAxis { axis, extent } => text
                .str("axis `").axis(axis).str("` has ").num(extent)
                .str(" indices and no place in the order; name it there"),
            DeclarationErrorKind::ZeroCount { field } => {
                text.str("field `").str(field).str("` has 0 elements; leave it out, or say at least 1")
            }
            DeclarationErrorKind::SameFieldTwice { field } => {
                text.str("two fields are called `").str(field).str("`; names tell them apart in the fingerprint")
            }
            DeclarationErrorKind::ZeroPad => text.str("no size is a multiple of 0; pad to at least 1"),
            DeclarationErrorKind::ZeroAlign => text.str("no address is a multiple of 0; align to at least 1"),
            DeclarationErrorKind::ZeroTokensPerState => text.str("a state stands for at least 1 token, not 0"),
            DeclarationErrorKind::PlanesTwice => text.str("the order splits into planes twice; a page has one level of planes"),
            DeclarationErrorKind::PlanesMissing { planes } => text
                .str("there are ").num(planes)
                .str(" planes, and the order does not say where they split: put `planes` before the axes that each has for itself"),
            DeclarationErrorKind::OrderWithoutPlanes => text
                .str("a plane has an order of its own only below `planes` in the page's order, and there is none"),
            DeclarationErrorKind::RegionsInside => text
                .str("a region cannot lie inside of a region's bytes: put `regions(..)` before every other level"),
            DeclarationErrorKind::RegionsUnderPlanes => text
                .str("planes that share a region cannot have regions of their own: write `regions(planes)`, or put `regions(..)` before `planes`"),
            DeclarationErrorKind::Overflow => text.str("the page outgrows 2^63 bytes here"),
            DeclarationErrorKind::Bytes { expected, actual } => {
                text
                .str("the page has ").num(actual).str(" bytes, and `bytes` says ").num(expected)
                .str("; correct one of the two")
            }
            DeclarationErrorKind::Stage { axis, first, count, of } => text
                .str("the page holds ").num(count).str(" of axis `").axis(axis).str("` from ").num(first)
                .str(" on, and the whole has ").num(of).str(": first and count are at most that together"),
            DeclarationErrorKind::Align { align, region } => {
                let text = text
                    .str("a region of ").num(region).str(" bytes is no multiple of align = ").num(align)
                    .str(", so the next page would be misaligned");
                match region.checked_next_multiple_of(align) {
                    Some(fits) => text
                        .str("; pad(").num(align).str(") before the axes would make it ").num(fits),
                    None => text,
                }
            }
        }
    }
}

impl core::fmt::Display for DeclarationError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.pad(self.text().as_str())
    }
}

impl core::error::Error for DeclarationError {}

/// The text about an extent of 0, for an axis that the author calls `axis`.
pub(crate) const fn zero_extent(axis: Text) -> Text {
    Text::new().str("axis `").str(axis.as_str()).str("` has extent 0; leave it out, or say at least 1")
}

/// All that is wrong with a declaration, at most one for each [`Spot`], the first
/// [`DeclarationErrors::CAPACITY`] of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeclarationErrors {
    list: [Option<DeclarationError>; Self::CAPACITY],
    len: usize,
}

impl DeclarationErrors {
    /// How many are kept.
    pub const CAPACITY: usize = 16;

    pub(crate) const fn none() -> Self {
        Self { list: [None; Self::CAPACITY], len: 0 }
    }

    pub(crate) const fn push(&mut self, at: Spot, why: DeclarationErrorKind) {
        if self.len < Self::CAPACITY && self.at(at).is_none() {
            self.list[self.len] = Some(DeclarationError { at, why });
            self.len += 1;
        }
    }

    /// The number of the first mistake; 0 if there is none.
    #[must_use]
    pub const fn code(&self) -> u32 {
        match self.first() {
            Some(error) => error.code(),
            None => u32::MIN,
        }
    }

    /// Whether nothing is wrong.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The first that was found.
    #[must_use]
    pub const fn first(&self) -> Option<DeclarationError> {
        self.list[0]
    }

    /// The mistake at `at`, if there is one.
    #[must_use]
    pub const fn at(&self, at: Spot) -> Option<DeclarationError> {
        let mut i = 0;
        while i < self.len {
            if let Some(error) = self.list[i]
                && error.at.same(at)
            {
                return Some(error);
            }
            i += 1;
        }
        None
    }

    /// All of them, in the order in which they were found.
    pub fn iter(&self) -> impl Iterator<Item = DeclarationError> + '_ {
        self.list.iter().flatten().copied()
    }
}

impl core::fmt::Display for DeclarationErrors {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        for (i, error) in self.iter().enumerate() {
            write!(f, "{}{error}", if i == 0 { "" } else { "; " })?;
        }
        Ok(())
    }
}

impl core::error::Error for DeclarationErrors {}
