//! Why one page cannot be copied into another.

use crate::axis::AxisKind;
use crate::element::ElementKind;
use crate::geometry::MAX_FIELDS;
use crate::selection::SelectionError;
use crate::text::Text;

/// Why there is no plan. Where arithmetic is needed (quantisation, another tiling of scales, a
/// permutation of bytes) a kernel has to do it; the error names the field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PlanError {
    /// The source has no such part.
    Source(SelectionError),
    /// The destination has no such part.
    Destination(SelectionError),
    /// The authors have given the bytes different meanings.
    Version {
        /// The source's.
        source_version: u32,
        /// The destination's.
        destination: u32,
    },
    /// One index of the token axis is not as many tokens here as there.
    TokensPerState {
        /// The source's.
        source_tokens: u64,
        /// The destination's.
        destination: u64,
    },
    /// A platform permutes bytes within the page: no part of it can be found.
    Swizzle {
        /// The source's tag; 0 for none.
        source_tag: u32,
        /// The destination's.
        destination: u32,
    },
    /// The destination wants a field that the source lacks.
    NoField {
        /// The field.
        field: &'static str,
    },
    /// The source has a field that the destination has no place for.
    LeftOver {
        /// The field.
        field: &'static str,
    },
    /// Different element kinds: a conversion, not a copy.
    ElementKind {
        /// The field, as the destination calls it.
        field: &'static str,
        /// The source's.
        source_kind: ElementKind,
        /// The destination's.
        destination: ElementKind,
    },
    /// Rows of different lengths: another tiling, not a copy.
    Count {
        /// The field, as the destination calls it.
        field: &'static str,
        /// The source's.
        source_count: u64,
        /// The destination's.
        destination: u64,
    },
    /// The destination keeps one copy of bytes that differ along an axis at the source.
    Merged {
        /// The field.
        field: &'static str,
        /// The axis.
        axis: AxisKind,
        /// Indices selected.
        extent: u64,
    },
    /// Ranges that do not match, index for index.
    Extent {
        /// The axis.
        axis: AxisKind,
        /// Of the source; 1 if it lacks the axis.
        source_len: u64,
        /// Of the destination; 1 if it lacks the axis.
        destination: u64,
    },
    /// The extents differ, and nothing says that the pages are parts of one whole.
    Unrelated {
        /// The axis.
        axis: AxisKind,
        /// The source's extent; 1 if it lacks the axis.
        source_extent: u64,
        /// The destination's; 1 if it lacks the axis.
        destination: u64,
    },
    /// Shards of different wholes.
    Wholes {
        /// The axis.
        axis: AxisKind,
        /// The source's.
        source_total: u64,
        /// The destination's.
        destination: u64,
    },
    /// No index of one page is an index of the other.
    Apart {
        /// The axis.
        axis: AxisKind,
        /// First index of the source, counted over all ranks and blocks.
        source_start: u64,
        /// One past its last.
        source_end: u64,
        /// First index wanted.
        start: u64,
        /// One past the last.
        end: u64,
    },
    /// A block number that the larger page has no room for, or extents that are no multiples.
    Block {
        /// The axis.
        axis: AxisKind,
        /// The number that was given.
        block: u64,
        /// Extent of the smaller page.
        smaller: u64,
        /// Extent of the larger.
        larger: u64,
    },
    /// More lists of runs than a plan holds.
    TooMany,
    /// Ranges of tokens that overlap, or are not in ascending order.
    Ranges {
        /// The first token of a range.
        first: u64,
        /// One past the last token of the range before it.
        end: u64,
    },
    /// A block number that no row of tokens reaches.
    FarBlock {
        /// The number that was given.
        block: u64,
        /// Indices of the token axis in each block.
        extent: u64,
    },
}

impl PlanError {
    /// The number of this error, listed in docs/errors.md. It never changes its meaning.
    #[must_use]
    pub const fn code(&self) -> u32 {
        match self {
            Self::Source(error) | Self::Destination(error) => error.code(),
            Self::Version { .. } => 1110,
            Self::TokensPerState { .. } => 1111,
            Self::Swizzle { .. } => 1112,
            Self::NoField { .. } => 1113,
            Self::LeftOver { .. } => 1114,
            Self::ElementKind { .. } => 1115,
            Self::Count { .. } => 1116,
            Self::Merged { .. } => 1117,
            Self::Extent { .. } => 1118,
            Self::Unrelated { .. } => 1119,
            Self::Wholes { .. } => 1120,
            Self::Apart { .. } => 1121,
            Self::Block { .. } => 1122,
            Self::TooMany => 1123,
            Self::Ranges { .. } => 1124,
            Self::FarBlock { .. } => 1125,
        }
    }
}

impl PlanError {
    /// The reason in words. For a wrong selection the [`SelectionError`] inside has the details.
    #[must_use]
    pub const fn text(&self) -> Text {
        let text = Text::new();
        match *self {
            Self::Source(_) => text.str("the source lacks what is selected of it"),
            Self::Destination(_) => text.str("the destination lacks what is selected of it"),
            Self::Version { source_version, destination } => text
                .str("the source is version ")
                .num(source_version as u64)
                .str(" of its layout, the destination version ")
                .num(destination as u64)
                .str(": the same bytes mean different things, convert them"),
            Self::TokensPerState { source_tokens, destination } => text
                .str("one state stands for ")
                .num(source_tokens)
                .str(" tokens at the source and for ")
                .num(destination)
                .str(" at the destination: no copy makes one from the other"),
            Self::Swizzle { source_tag, destination } => text
                .str("swizzled pages (source tag ")
                .num(source_tag as u64)
                .str(", destination tag ")
                .num(destination as u64)
                .str(") cannot be cut up: read them whole, without a plan, where the layouts are equal"),
            Self::NoField { field } => {
                text.str("the destination wants `").str(field).str("`, and the source has or selects no such field")
            }
            Self::LeftOver { field } => text
                .str("the source has `")
                .str(field)
                .str("`, and the destination no such field: name those that are wanted in the selection, if others may be lost"),
            Self::ElementKind { field, source_kind, destination } => text
                .str("`")
                .str(field)
                .str("` is ")
                .str(source_kind.name())
                .str(" at the source and ")
                .str(destination.name())
                .str(" at the destination: quantisation is a kernel's work"),
            Self::Count { field, source_count, destination } => text
                .str("`")
                .str(field)
                .str("` has ")
                .num(source_count)
                .str(" elements in a row at the source and ")
                .num(destination)
                .str(" at the destination: re-tiling is a kernel's work"),
            Self::Merged { field, axis, extent } => text
                .str("`")
                .str(field)
                .str("` differs along ")
                .str(axis.name())
                .str(" at the source, and the destination keeps it once for all ")
                .num(extent),
            Self::Extent { axis, source_len, destination } => text
                .num(source_len)
                .str(" of ")
                .str(axis.name())
                .str(" are selected of the source and ")
                .num(destination)
                .str(" of the destination"),
            Self::Unrelated { axis, source_extent, destination } => text
                .str("the source has ")
                .num(source_extent)
                .str(" of ")
                .str(axis.name())
                .str(", the destination ")
                .num(destination)
                .str(": say of which rank each is (Geometry::at_rank), which stage (Axis::stage), or which block of the larger the smaller is (Plan::between_blocks)"),
            Self::Wholes { axis, source_total, destination } => text
                .str("all ranks together hold ")
                .num(source_total)
                .str(" of ")
                .str(axis.name())
                .str(" at the source and ")
                .num(destination)
                .str(" at the destination"),
            Self::Apart { axis, source_start, source_end, start, end } => text
                .str("along ")
                .str(axis.name())
                .str(" the source holds ")
                .num(source_start)
                .str("..")
                .num(source_end)
                .str(", wanted are ")
                .num(start)
                .str("..")
                .num(end)
                .str(": they have nothing in common"),
            Self::Block { axis, block, smaller, larger } => text
                .str("along ")
                .str(axis.name())
                .str(" there is no block ")
                .num(block)
                .str(" of ")
                .num(smaller)
                .str(" in a page of ")
                .num(larger),
            Self::TooMany => text
                .str("the plan is more than ")
                .num(MAX_FIELDS as u64)
                .str(" lists of runs: plan some of the fields, or some of the token ranges, at a time"),
            Self::Ranges { first, end } => text
                .str("a range of tokens begins at ")
                .num(first)
                .str(", and the one before it ends at ")
                .num(end)
                .str(": give ranges that do not overlap, in ascending order"),
            Self::FarBlock { block, extent } => text
                .str("block ")
                .num(block)
                .str(" of ")
                .num(extent)
                .str(" ends beyond 2^63: number blocks from the first token on"),
        }
    }

    #[track_caller]
    pub(super) const fn fail(&self) -> ! {
        panic!("{}", self.text().as_str())
    }
}

impl core::fmt::Display for PlanError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Source(error) => write!(f, "the source: {error}"),
            Self::Destination(error) => write!(f, "the destination: {error}"),
            _ => f.write_str(self.text().as_str()),
        }
    }
}

impl core::error::Error for PlanError {}

/// Why a plan cannot be cut into work requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CutError {
    /// A limit is 0.
    #[error(
        "a work request of at most {bytes} bytes in at most {sges} pieces holds nothing: give 1 or more of both"
    )]
    Limits {
        /// Bytes of a work request.
        bytes: u32,
        /// Pieces of a work request.
        sges: u32,
    },
    /// The plan goes between several regions; work requests go from one region into one slot.
    #[error("the plan goes between several regions: cut what is between two of them (`Plan::only`)")]
    Regions,
    /// The plan reaches farther than a slot or a published page can.
    #[error("the plan reaches to byte {0}: pages and slots end before 4294967296")]
    TooFar(u64),
    /// There are more work requests than a page may have.
    #[error(
        "the plan is {0} work requests, and a page has at most 524288: allow more bytes or pieces in each"
    )]
    TooMany(u64),
}

impl CutError {
    /// The number of this error, listed in docs/errors.md. It never changes its meaning.
    #[must_use]
    pub const fn code(&self) -> u32 {
        match self {
            Self::Limits { .. } => 1130,
            Self::Regions => 1131,
            Self::TooFar(_) => 1132,
            Self::TooMany(_) => 1133,
        }
    }
}
