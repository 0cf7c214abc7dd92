//! The axes of a page, and which rank holds which part of one.

/// What an axis counts.
///
/// Indices are always given in the order of this list, whatever the order in memory, so that code
/// written for one layout addresses every other. A page without heads simply has no such axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum AxisKind {
    /// Transformer layers.
    Layer,
    /// Token states. One state stands for [`Geometry::tokens_per_state`] tokens, one in most
    /// formats.
    ///
    /// [`Geometry::tokens_per_state`]: crate::Geometry::tokens_per_state
    Token,
    /// K and V (index 0 is K) where both have the same shape and element type.
    Part,
    /// KV heads.
    Head,
    /// Blocks of tokens, where one page has several of an engine's.
    Block,
    /// Anything else, told apart by a number of the author's choice: tiles, chunks of an element
    /// dimension that another axis splits.
    Other(u8),
}

impl AxisKind {
    /// The number under which the axis enters a fingerprint, and by which axes are sorted.
    #[must_use]
    pub const fn number(self) -> u64 {
        match self {
            Self::Layer => 1,
            Self::Token => 2,
            Self::Part => 3,
            Self::Head => 4,
            Self::Block => 5,
            Self::Other(tag) => 256 + tag as u64,
        }
    }

    /// The axis as a declaration spells it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Layer => "layer",
            Self::Token => "token",
            Self::Part => "part",
            Self::Head => "head",
            Self::Block => "block",
            Self::Other(_) => "other",
        }
    }

    pub(crate) const fn same(self, other: Self) -> bool {
        self.number() == other.number()
    }
}

impl core::fmt::Display for AxisKind {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(self.name())?;
        match self {
            Self::Other(tag) => write!(f, "#{tag}"),
            _ => Ok(()),
        }
    }
}

/// How the whole of an axis is spread over the ranks of a group (tensor-parallel ranks for heads,
/// pipeline ranks for layers).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(
    clippy::exhaustive_enums,
    reason = "each decides what a rank holds: code that names not all of them is wrong"
)]
pub enum Spread {
    /// This page holds all of the axis. Nothing is said about other ranks.
    Whole,
    /// The axis is cut into `ranks` equal parts, of which this page holds one. The axis's extent is
    /// that part's.
    Sharded {
        /// How many parts there are; at least 1.
        ranks: u32,
        /// Which part this is, below `ranks`; `None` in a declaration that all ranks share. See
        /// [`Geometry::at_rank`](crate::Geometry::at_rank).
        rank: Option<u32>,
    },
    /// Each of `ranks` ranks holds all of the axis (MLA's one latent head): read it from any.
    Replicated {
        /// How many hold it; at least 1.
        ranks: u32,
    },
    /// This page holds a range of the whole, which need not be one of equal parts: the layers of a
    /// pipeline stage, 16 of 61 on the first of four stages and 15 on the others. The axis's extent
    /// is the range's.
    Stage {
        /// The first index of the whole that this page holds.
        first: u64,
        /// How many indices the whole has; at least `first` and the extent together.
        of: u64,
    },
}

/// One axis of a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Axis {
    /// The thing that it counts.
    pub kind: AxisKind,
    /// How many of it this page holds; indices are below. At least 1.
    pub extent: u64,
    /// How the whole is spread over ranks.
    pub spread: Spread,
}

impl Axis {
    /// An axis that this page holds whole.
    #[must_use]
    pub const fn whole(kind: AxisKind, extent: u64) -> Self {
        Self { kind, extent, spread: Spread::Whole }
    }

    /// The part of an axis that one of `ranks` ranks holds; `extent` is the part's, not the
    /// whole's.
    #[must_use]
    pub const fn sharded(kind: AxisKind, extent: u64, ranks: u32) -> Self {
        Self { kind, extent, spread: Spread::Sharded { ranks, rank: None } }
    }

    /// An axis of which each of `ranks` ranks holds all.
    #[must_use]
    pub const fn replicated(kind: AxisKind, extent: u64, ranks: u32) -> Self {
        Self { kind, extent, spread: Spread::Replicated { ranks } }
    }

    /// The `extent` indices from `first` on of an axis that has `of` indices in all.
    #[must_use]
    pub const fn stage(kind: AxisKind, first: u64, extent: u64, of: u64) -> Self {
        Self { kind, extent, spread: Spread::Stage { first, of } }
    }
}
