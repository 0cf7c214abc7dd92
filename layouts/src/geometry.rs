//! Where every byte of a page is, as plain constant data.

use crate::axis::{Axis, AxisKind, Spread};
use crate::declaration::error::{DeclarationError, DeclarationErrorKind, Spot};
use crate::element::ElementKind;
use crate::text::same;

/// Most axes of a page. Five kinds are known to engines; the rest is for `Other`.
pub const MAX_AXES: usize = 8;
/// Most planes of a page. DeepSeek's have two.
pub const MAX_PLANES: usize = 8;
/// Most fields of a page. FlashMLA's token has three.
pub const MAX_FIELDS: usize = 16;
/// Most regions of a page. 61 layers, K and V apart, are 122.
pub const MAX_REGIONS: u32 = 4096;

/// How one index of an axis moves a plane's row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(
    clippy::exhaustive_enums,
    reason = "each decides addresses: a reader that names not all of them reads wrong bytes"
)]
pub enum AxisStep {
    /// By nothing: the plane lacks the axis, and its bytes are the same for all indices.
    Shared,
    /// This many bytes, within the region.
    Bytes(u64),
    /// This many regions on.
    Regions(u32),
    /// A number of bytes that is known only at run time: see [`Placement`](crate::Placement).
    Runtime,
}

/// Rows of the same fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Plane {
    pub(crate) region: u32,
    pub(crate) offset: Option<u64>,
    pub(crate) row: u64,
    pub(crate) region_bytes: u64,
    pub(crate) steps: [AxisStep; MAX_AXES],
}

impl Plane {
    /// The region of its first row, counted from 0.
    #[must_use]
    pub const fn region(&self) -> u32 {
        self.region
    }

    /// The offset of its first row in that region, in bytes; `None` if known only at run time.
    #[must_use]
    pub const fn offset(&self) -> Option<u64> {
        self.offset
    }

    /// Bytes of the fields of one row, without padding.
    #[must_use]
    pub const fn row_bytes(&self) -> u64 {
        self.row
    }

    /// Bytes of each region that it has rows in.
    #[must_use]
    pub const fn region_bytes(&self) -> u64 {
        self.region_bytes
    }
}

/// A run of elements in each row of a plane.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Field {
    pub(crate) name: &'static str,
    pub(crate) kind: ElementKind,
    pub(crate) count: u64,
    pub(crate) plane: usize,
    pub(crate) offset: u64,
}

impl Field {
    /// The field's name.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// The kind of its elements.
    #[must_use]
    pub const fn kind(&self) -> ElementKind {
        self.kind
    }

    /// Elements in one row; at least 1, and dense.
    #[must_use]
    pub const fn count(&self) -> u64 {
        self.count
    }

    /// Bytes in one row.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.count * self.kind.bytes()
    }

    /// The index of its plane in [`Geometry::planes`].
    #[must_use]
    pub const fn plane(&self) -> usize {
        self.plane
    }

    /// Its offset in the plane's row, in bytes.
    #[must_use]
    pub const fn row_offset(&self) -> u64 {
        self.offset
    }
}

/// Where every byte of a page is, as plain constant data that cannot be wrong.
///
/// It comes from [`Declaration::build`] or [`Placement::finish`], and from nowhere else.
/// It is flat: nesting, padding and order have become an offset for each field and a step for each
/// axis of each plane. It promises:
///
/// - every element of every field lies within its region, and no two of them overlap;
/// - all sums and products that address them fit in 63 bits;
/// - axes are sorted by [`AxisKind::number`], each kind once, no extent 0.
///
/// [`Declaration::build`]: crate::Declaration::build
/// [`Placement::finish`]: crate::Placement::finish
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Geometry {
    pub(crate) axes: [Axis; MAX_AXES],
    pub(crate) axis_count: usize,
    pub(crate) planes: [Plane; MAX_PLANES],
    pub(crate) plane_count: usize,
    pub(crate) fields: [Field; MAX_FIELDS],
    pub(crate) field_count: usize,
    pub(crate) regions: u32,
    pub(crate) tokens_per_state: u64,
    pub(crate) align: u64,
    pub(crate) version: u32,
    pub(crate) swizzle: u32,
}

impl Geometry {
    /// The value that [`Declaration::build`](crate::Declaration::build) starts from. It breaks
    /// every promise of a geometry.
    pub(crate) const EMPTY: Self = Self {
        axes: [Axis::whole(AxisKind::Layer, 1); MAX_AXES],
        axis_count: 0,
        planes: [Plane {
            region: 0,
            offset: Some(0),
            row: 0,
            region_bytes: 0,
            steps: [AxisStep::Shared; MAX_AXES],
        }; MAX_PLANES],
        plane_count: 0,
        fields: [Field { name: "", kind: ElementKind::U8, count: 0, plane: 0, offset: 0 }; MAX_FIELDS],
        field_count: 0,
        regions: 1,
        tokens_per_state: 1,
        align: 1,
        version: 0,
        swizzle: 0,
    };

    /// The axes, sorted by [`AxisKind::number`]: the order in which indices are given.
    #[must_use]
    pub const fn axes(&self) -> &[Axis] {
        self.axes.split_at(self.axis_count).0
    }

    /// The planes.
    #[must_use]
    pub const fn planes(&self) -> &[Plane] {
        self.planes.split_at(self.plane_count).0
    }

    /// The fields, plane by plane. A field's index here is how every call names it.
    #[must_use]
    pub const fn fields(&self) -> &[Field] {
        self.fields.split_at(self.field_count).0
    }

    /// The index of the field of this name.
    #[must_use]
    pub const fn field_named(&self, name: &str) -> Option<usize> {
        let mut f = 0;
        while f < self.field_count {
            if same(self.fields[f].name, name) {
                return Some(f);
            }
            f += 1;
        }
        None
    }

    /// The index of an axis in [`axes`](Self::axes), if the page has it.
    #[must_use]
    pub const fn axis_index(&self, kind: AxisKind) -> Option<usize> {
        let mut a = 0;
        while a < self.axis_count {
            if self.axes[a].kind.same(kind) {
                return Some(a);
            }
            a += 1;
        }
        None
    }

    /// The extent of an axis; 1 if the page lacks it.
    #[must_use]
    pub const fn extent(&self, kind: AxisKind) -> u64 {
        match self.axis_index(kind) {
            Some(a) => self.axes[a].extent,
            None => 1,
        }
    }

    /// How a plane's rows move along an axis (indices into [`planes`](Self::planes) and
    /// [`axes`](Self::axes)); `None` if there is no such plane or axis.
    #[must_use]
    pub const fn step(&self, plane: usize, axis: usize) -> Option<AxisStep> {
        if plane < self.plane_count && axis < self.axis_count {
            Some(self.planes[plane].steps[axis])
        } else {
            None
        }
    }

    /// How many regions a page has; at least 1.
    #[must_use]
    pub const fn regions(&self) -> u32 {
        self.regions
    }

    /// Bytes of a region, padding included; `None` if there is no such region.
    ///
    /// While strides are missing (see [`is_placed`](Self::is_placed)) these are the bytes that
    /// the region would have if they were dense.
    #[must_use]
    pub const fn region_bytes(&self, region: u32) -> Option<u64> {
        let mut p = 0;
        while p < self.plane_count {
            if self.has_rows_in(p, region) {
                return Some(self.planes[p].region_bytes);
            }
            p += 1;
        }
        None
    }

    /// Bytes of all regions of a page, padding included.
    #[must_use]
    pub const fn page_bytes(&self) -> u64 {
        match self.checked_page_bytes() {
            Some(bytes) => bytes,
            // Refused when it was built.
            None => unreachable!(),
        }
    }

    pub(crate) const fn checked_page_bytes(&self) -> Option<u64> {
        let mut bytes: u64 = 0;
        let mut region = 0;
        while region < self.regions {
            match self.region_bytes(region) {
                Some(more) if more <= i64::MAX as u64 - bytes => bytes += more,
                Some(_) => return None,
                // Regions are dense by construction.
                None => unreachable!(),
            }
            region += 1;
        }
        Some(bytes)
    }

    /// Bytes of a page that belong to a field: its size without padding.
    #[must_use]
    pub const fn payload_bytes(&self) -> u64 {
        let mut bytes = 0;
        let mut p = 0;
        while p < self.plane_count {
            let mut rows = 1;
            let mut a = 0;
            while a < self.axis_count {
                if !matches!(self.planes[p].steps[a], AxisStep::Shared) {
                    rows *= self.axes[a].extent;
                }
                a += 1;
            }
            bytes += rows * self.planes[p].row;
            p += 1;
        }
        bytes
    }

    /// The longest step in bytes along an axis of more than one index; 0 if there is none. Steps
    /// that are known only at run time do not count. A consumer with 32-bit strides (FlashInfer
    /// counts elements in a u32) compares it with its own limit; a geometry has no such limit.
    #[must_use]
    pub const fn largest_step(&self) -> u64 {
        let mut largest = 0;
        let mut p = 0;
        while p < self.plane_count {
            let mut a = 0;
            while a < self.axis_count {
                if let AxisStep::Bytes(step) = self.planes[p].steps[a]
                    && self.axes[a].extent > 1
                    && step > largest
                {
                    largest = step;
                }
                a += 1;
            }
            p += 1;
        }
        largest
    }

    /// Bytes of the longest region. A consumer with 32-bit lengths (LMCache's are i32) compares it
    /// with its own limit.
    #[must_use]
    pub const fn largest_region(&self) -> u64 {
        let mut largest = 0;
        let mut p = 0;
        while p < self.plane_count {
            if self.planes[p].region_bytes > largest {
                largest = self.planes[p].region_bytes;
            }
            p += 1;
        }
        largest
    }

    /// Tokens of a page: the token axis's extent × [`tokens_per_state`](Self::tokens_per_state); 0
    /// if the page does not say (no token axis).
    #[must_use]
    pub const fn tokens(&self) -> u64 {
        match self.axis_index(AxisKind::Token) {
            Some(a) => self.axes[a].extent.saturating_mul(self.tokens_per_state),
            None => 0,
        }
    }

    /// Tokens that one index of the token axis stands for; at least 1.
    #[must_use]
    pub const fn tokens_per_state(&self) -> u64 {
        self.tokens_per_state
    }

    /// Every region's address is a multiple of this; any number from 1.
    #[must_use]
    pub const fn align(&self) -> u64 {
        self.align
    }

    /// The author's version of the meaning of the bytes.
    #[must_use]
    pub const fn version(&self) -> u32 {
        self.version
    }

    /// The tag of a platform's permutation of bytes; 0 for none.
    #[must_use]
    pub const fn swizzle(&self) -> u32 {
        self.swizzle
    }

    /// Whether every stride and distance is known: whether it is ready to be addressed.
    #[must_use]
    pub const fn is_placed(&self) -> bool {
        let mut p = 0;
        while p < self.plane_count {
            if self.planes[p].offset.is_none() {
                return false;
            }
            let mut a = 0;
            while a < self.axis_count {
                if matches!(self.planes[p].steps[a], AxisStep::Runtime) {
                    return false;
                }
                a += 1;
            }
            p += 1;
        }
        true
    }

    /// The same page as this rank holds it.
    ///
    /// The bytes lie in the same places and mean others, so the fingerprint differs from that of
    /// every other rank.
    ///
    /// # Errors
    ///
    /// The axis does not exist or is not sharded, or there are not so many ranks.
    pub const fn at_rank(mut self, axis: AxisKind, rank: u32) -> Result<Self, DeclarationError> {
        let Some(a) = self.axis_index(axis) else {
            return Err(DeclarationError { at: Spot::Order, why: DeclarationErrorKind::NotSharded { axis } });
        };
        match self.axes[a].spread {
            Spread::Sharded { ranks, .. } if rank < ranks => {
                self.axes[a].spread = Spread::Sharded { ranks, rank: Some(rank) };
                Ok(self)
            }
            Spread::Sharded { ranks, .. } => Err(DeclarationError {
                at: Spot::Axis(a),
                why: DeclarationErrorKind::Ranks { ranks, rank: Some(rank) },
            }),
            Spread::Whole | Spread::Replicated { .. } | Spread::Stage { .. } => {
                Err(DeclarationError { at: Spot::Axis(a), why: DeclarationErrorKind::NotSharded { axis } })
            }
        }
    }

    /// Whether a plane has rows in a region: whether the region is its first plus a sum of steps.
    pub(crate) const fn has_rows_in(&self, plane: usize, region: u32) -> bool {
        let plane = &self.planes[plane];
        if region < plane.region {
            return false;
        }
        let mut rest = region - plane.region;
        // Steps are nested, so the largest remaining step decides the largest part of the rest.
        let mut below = u32::MAX;
        loop {
            let mut largest = 0;
            let mut extent = 0;
            let mut a = 0;
            while a < self.axis_count {
                if let AxisStep::Regions(step) = plane.steps[a]
                    && step < below
                    && (step > largest || (step == largest && self.axes[a].extent > extent))
                {
                    (largest, extent) = (step, self.axes[a].extent);
                }
                a += 1;
            }
            if largest == 0 {
                return rest == 0;
            }
            // Axes of extent 1 may share a step with a longer one, and add nothing.
            if (rest / largest) as u64 >= extent {
                return false;
            }
            rest %= largest;
            below = largest;
        }
    }
}
