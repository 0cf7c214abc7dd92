//! The one formula: where a field's elements are.
//!
//! `address = base[region] + offset[field] + Σ index · stride`, and some axes step from region to
//! region instead. Everything is u64; a consumer with 32-bit limits checks them where it is.

use crate::axis::AxisKind;
use crate::geometry::{AxisStep, Geometry};

/// Where something begins: a region of the page, and an offset in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Place {
    /// The region, counted from 0.
    pub region: u32,
    /// Bytes from the region's beginning.
    pub offset: u64,
}

/// Why a field has no such place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OffsetError {
    /// The page has fewer fields.
    #[error("there is no field {field}: the page has {fields}")]
    Field {
        /// The index that was given.
        field: usize,
        /// How many fields there are.
        fields: usize,
    },
    /// Not one index per axis.
    #[error("`{field}` was given {found} indices, and the page has {expected} axes (see `Geometry::axes`)")]
    Indices {
        /// The field's name.
        field: &'static str,
        /// How many axes the page has.
        expected: usize,
        /// How many indices were given.
        found: usize,
    },
    /// An index that is not below its axis's extent.
    #[error("`{field}`: {axis} {index} is out of range, the page has {extent}")]
    Index {
        /// The field's name.
        field: &'static str,
        /// The axis.
        axis: AxisKind,
        /// The index that was given.
        index: u64,
        /// The axis's extent, which the index must be below.
        extent: u64,
    },
    /// An element that is not below the field's count.
    #[error("`{field}`: element {element} is out of range, a row has {count}")]
    Element {
        /// The field's name.
        field: &'static str,
        /// The element that was given.
        element: u64,
        /// The field's count, which the element must be below.
        count: u64,
    },
    /// A stride or distance is known only at run time, and has not been given.
    #[error("`{field}` has strides that are known only at run time: give them to `Geometry::place` first")]
    Unplaced {
        /// The field's name.
        field: &'static str,
    },
}

impl OffsetError {
    /// The number of this error, listed in docs/errors.md. It never changes its meaning.
    #[must_use]
    pub const fn code(&self) -> u32 {
        match self {
            Self::Field { .. } => 1040,
            Self::Indices { .. } => 1041,
            Self::Index { .. } => 1042,
            Self::Element { .. } => 1043,
            Self::Unplaced { .. } => 1044,
        }
    }
}

impl Geometry {
    /// Where a field's run begins: its first element, at one index per axis.
    ///
    /// `field` is an index into [`fields`](Self::fields); `indices` are in the order of
    /// [`axes`](Self::axes), whatever the order in memory. An index along an axis that the field
    /// lacks must be in range, and moves nothing.
    ///
    /// # Errors
    ///
    /// The field, an index or the number of indices is out of range, or a stride is still unknown.
    pub const fn offset_of(&self, field: usize, indices: &[u64]) -> Result<Place, OffsetError> {
        if field >= self.field_count {
            return Err(OffsetError::Field { field, fields: self.field_count });
        }
        let field = &self.fields[field];
        let name = field.name;
        if indices.len() != self.axis_count {
            let (expected, found) = (self.axis_count, indices.len());
            return Err(OffsetError::Indices { field: name, expected, found });
        }
        let plane = &self.planes[field.plane];
        let Some(offset) = plane.offset else {
            return Err(OffsetError::Unplaced { field: name });
        };
        let mut place = Place { region: plane.region, offset: offset + field.offset };
        let mut a = 0;
        while a < indices.len() {
            let (axis, index) = (&self.axes[a], indices[a]);
            if index >= axis.extent {
                let (axis, extent) = (axis.kind, axis.extent);
                return Err(OffsetError::Index { field: name, axis, index, extent });
            }
            match plane.steps[a] {
                AxisStep::Shared => {}
                // A geometry's sums fit: building it has checked that.
                AxisStep::Bytes(step) => place.offset += index * step,
                AxisStep::Regions(step) => place.region += index as u32 * step,
                AxisStep::Runtime => return Err(OffsetError::Unplaced { field: name }),
            }
            a += 1;
        }
        Ok(place)
    }

    /// Where one element of a field is. See [`offset_of`](Self::offset_of).
    ///
    /// # Errors
    ///
    /// As `offset_of`, or the element is not in the row.
    pub const fn offset_of_element(
        &self,
        field: usize,
        indices: &[u64],
        element: u64,
    ) -> Result<Place, OffsetError> {
        match self.offset_of(field, indices) {
            Ok(Place { region, offset }) => {
                let field = &self.fields[field];
                if element >= field.count {
                    let (field, count) = (field.name, field.count);
                    return Err(OffsetError::Element { field, element, count });
                }
                Ok(Place { region, offset: offset + element * field.kind.bytes() })
            }
            Err(error) => Err(error),
        }
    }
}
