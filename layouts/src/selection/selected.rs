//! A selection, and the selected part of a page: the selection before and after it has been checked
//! against a page.

use crate::axis::AxisKind;
use crate::geometry::{AxisStep, Geometry, MAX_AXES, MAX_FIELDS};

/// A part of a page: a range along each axis that it names, and all of every other axis; the fields
/// that it names, or all.
///
/// A selection knows no page. [`Geometry::select`] checks it against one and gives a [`Selected`],
/// which is addressable; its [`byte_ranges`](Selected::byte_ranges) are the contiguous bytes, as
/// few and as long as possible.
///
/// ```
/// use kvrail_layouts::{KvLayout, Selection, catalogue::SglMlaPageFirstDirect};
///
/// // [L, T, 576]: two layers are one run of bytes; four tokens of each layer are 61 runs.
/// let page = SglMlaPageFirstDirect::GEOMETRY;
/// let layers = page.select(Selection::ALL.layers(10, 2))?;
/// let mut ranges = layers.byte_ranges();
/// assert_eq!(ranges.next().map(|s| (s.offset, s.len)), Some((737_280, 147_456)));
/// assert_eq!(ranges.next(), None);
/// assert_eq!(page.select(Selection::ALL.tokens(0, 4))?.byte_ranges().count(), 61);
/// # Ok::<(), kvrail_layouts::SelectionError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Selection {
    along: [Option<Along>; MAX_AXES],
    fields: [Option<&'static str>; MAX_FIELDS],
    /// More axes or fields were named than any page has.
    too_many: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Along {
    axis: AxisKind,
    start: u64,
    len: u64,
    /// Counted in tokens, not in the states that are the token axis's indices.
    tokens: bool,
}

impl Selection {
    /// All of a page. The methods below narrow it.
    pub const ALL: Self = Self { along: [None; MAX_AXES], fields: [None; MAX_FIELDS], too_many: false };

    /// This selection, narrowed to `len` indices of an axis from `start`. A later range of one axis
    /// replaces an earlier one.
    #[must_use]
    pub const fn along(self, axis: AxisKind, start: u64, len: u64) -> Self {
        self.set(Along { axis, start, len, tokens: false })
    }

    /// This selection, narrowed to `len` layers from `start`.
    #[must_use]
    pub const fn layers(self, start: u64, len: u64) -> Self {
        self.along(AxisKind::Layer, start, len)
    }

    /// This selection, narrowed to `len` tokens from token `start`. Where a state stands for
    /// several tokens, both must be whole states.
    #[must_use]
    pub const fn tokens(self, start: u64, len: u64) -> Self {
        self.set(Along { axis: AxisKind::Token, start, len, tokens: true })
    }

    /// This selection, narrowed to `len` heads from `start`, counted within the part that the page
    /// holds.
    #[must_use]
    pub const fn heads(self, start: u64, len: u64) -> Self {
        self.along(AxisKind::Head, start, len)
    }

    /// This selection, narrowed to this field and the others that are named in the same way.
    #[must_use]
    pub const fn field(mut self, name: &'static str) -> Self {
        let mut f = 0;
        while f < MAX_FIELDS {
            if self.fields[f].is_none() {
                self.fields[f] = Some(name);
                return self;
            }
            f += 1;
        }
        self.too_many = true;
        self
    }

    const fn set(mut self, along: Along) -> Self {
        let mut a = 0;
        while a < MAX_AXES {
            match self.along[a] {
                Some(before) if !before.axis.same(along.axis) => {}
                _ => {
                    self.along[a] = Some(along);
                    return self;
                }
            }
            a += 1;
        }
        self.too_many = true;
        self
    }

    /// The selected range along an axis of this extent, as (start, len) in its indices. `per` is
    /// the number of tokens that an index of the token axis stands for.
    const fn range(&self, axis: AxisKind, extent: u64, per: u64) -> Result<(u64, u64), SelectionError> {
        let mut a = 0;
        while a < MAX_AXES {
            if let Some(along) = self.along[a]
                && along.axis.same(axis)
            {
                let Along { start, len, tokens, .. } = along;
                if !tokens || per == 1 {
                    return within(axis, start, len, extent);
                }
                if !start.is_multiple_of(per) || !len.is_multiple_of(per) {
                    return Err(SelectionError::HalfState { start, len, tokens_per_state: per });
                }
                return within(axis, start / per, len / per, extent);
            }
            a += 1;
        }
        Ok((0, extent))
    }
}

impl Default for Selection {
    fn default() -> Self {
        Self::ALL
    }
}

const fn within(axis: AxisKind, start: u64, len: u64, extent: u64) -> Result<(u64, u64), SelectionError> {
    if len == 0 {
        return Err(SelectionError::Empty { axis });
    }
    match start.checked_add(len) {
        Some(end) if end <= extent => Ok((start, len)),
        _ => Err(SelectionError::Range { axis, start, len, extent }),
    }
}

/// Why a selection is no part of a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SelectionError {
    /// An axis that the page lacks.
    #[error("the selection goes along {axis}, and the page has no such axis")]
    NoAxis {
        /// The axis.
        axis: AxisKind,
    },
    /// A range beyond the axis.
    #[error("{len} of {axis} from {start} are selected, and the page has {extent}")]
    Range {
        /// The axis.
        axis: AxisKind,
        /// The first index.
        start: u64,
        /// How many.
        len: u64,
        /// The axis's extent.
        extent: u64,
    },
    /// A range of nothing.
    #[error("0 of {axis} are selected: select at least 1, or leave the axis out for all of it")]
    Empty {
        /// The axis.
        axis: AxisKind,
    },
    /// Tokens that are no whole states.
    #[error(
        "{len} tokens from {start} are selected, and a state stands for {tokens_per_state} tokens: \
         begin and end at a multiple of that"
    )]
    HalfState {
        /// The first token.
        start: u64,
        /// How many tokens.
        len: u64,
        /// The page's tokens per state.
        tokens_per_state: u64,
    },
    /// A field that the page lacks.
    #[error("the selection names field `{field}`, and the page has no such field")]
    NoField {
        /// The name.
        field: &'static str,
    },
    /// More axes or fields than any page has.
    #[error(
        "the selection names more axes or fields than the {MAX_AXES} and {MAX_FIELDS} of the largest page"
    )]
    TooMany,
    /// Strides or distances that are still unknown.
    #[error("the page has strides that are known only at run time: give them to `Geometry::place` first")]
    Unplaced,
}

impl SelectionError {
    /// The number of this error, listed in docs/errors.md. It never changes its meaning.
    #[must_use]
    pub const fn code(&self) -> u32 {
        match self {
            Self::NoAxis { .. } => 1050,
            Self::Range { .. } => 1051,
            Self::Empty { .. } => 1052,
            Self::HalfState { .. } => 1053,
            Self::NoField { .. } => 1054,
            Self::TooMany => 1055,
            Self::Unplaced => 1056,
        }
    }
}

/// A selection of a page, checked: every index is in range, every stride known.
#[derive(Clone, Copy, Debug)]
pub struct Selected<'g> {
    geometry: &'g Geometry,
    pub(super) start: [u64; MAX_AXES],
    pub(super) len: [u64; MAX_AXES],
    /// A bit for each field.
    fields: u32,
}

impl Geometry {
    /// The part of this page that a selection means.
    ///
    /// # Errors
    ///
    /// The page lacks a selected axis, field or index; a range is empty; tokens are no whole
    /// states; or a stride is still unknown.
    pub const fn select(&self, selection: Selection) -> Result<Selected<'_>, SelectionError> {
        if selection.too_many {
            return Err(SelectionError::TooMany);
        }
        if !self.is_placed() {
            return Err(SelectionError::Unplaced);
        }
        let mut selected = Selected { geometry: self, start: [0; MAX_AXES], len: [1; MAX_AXES], fields: 0 };
        let mut i = 0;
        while i < MAX_AXES {
            if let Some(Along { axis, .. }) = selection.along[i]
                && self.axis_index(axis).is_none()
            {
                return Err(SelectionError::NoAxis { axis });
            }
            i += 1;
        }
        let mut a = 0;
        while a < self.axis_count {
            let axis = &self.axes[a];
            let per = if axis.kind.same(AxisKind::Token) { self.tokens_per_state } else { 1 };
            match selection.range(axis.kind, axis.extent, per) {
                Ok((start, len)) => (selected.start[a], selected.len[a]) = (start, len),
                Err(error) => return Err(error),
            }
            a += 1;
        }
        let mut named = 0;
        while named < MAX_FIELDS {
            let Some(field) = selection.fields[named] else { break };
            match self.field_named(field) {
                Some(f) => selected.fields |= 1 << f,
                None => return Err(SelectionError::NoField { field }),
            }
            named += 1;
        }
        if named == 0 {
            selected.fields = (1 << self.field_count) - 1;
        }
        Ok(selected)
    }
}

impl<'g> Selected<'g> {
    /// The page it is a part of.
    #[must_use]
    pub const fn geometry(&self) -> &'g Geometry {
        self.geometry
    }

    /// The first index along the axis of this number in [`Geometry::axes`]; `None` if there is
    /// none.
    #[must_use]
    pub const fn start(&self, axis: usize) -> Option<u64> {
        if axis < self.geometry.axis_count { Some(self.start[axis]) } else { None }
    }

    /// How many indices along the axis of this number, at least 1; `None` if there is no such axis.
    #[must_use]
    pub const fn extent(&self, axis: usize) -> Option<u64> {
        if axis < self.geometry.axis_count { Some(self.len[axis]) } else { None }
    }

    /// Whether the field of this number is part of it.
    #[must_use]
    pub const fn has_field(&self, field: usize) -> bool {
        field < self.geometry.field_count && self.fields & (1 << field) != 0
    }

    /// Its bytes, without padding. A field that lacks an axis has its bytes once, however long the
    /// range along that axis is.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        let mut bytes = 0;
        let mut f = 0;
        while f < self.geometry.field_count {
            if self.has_field(f) {
                let field = &self.geometry.fields[f];
                let mut rows = 1;
                let mut a = 0;
                while a < self.geometry.axis_count {
                    if !matches!(self.geometry.planes[field.plane].steps[a], AxisStep::Shared) {
                        rows *= self.len[a];
                    }
                    a += 1;
                }
                bytes += rows * field.bytes();
            }
            f += 1;
        }
        bytes
    }
}
