//! Strides and distances that are known only at run time.

use core::marker::PhantomData;

use crate::axis::AxisKind;
use crate::declaration::error::DeclarationError;
use crate::fingerprint::Fingerprint;
use crate::geometry::{AxisStep, Geometry, MAX_PLANES};
use crate::layout::KvLayout;
use crate::overlap::Comb;

/// Why run-time numbers do not make a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PlacementError {
    /// A plane was named that does not exist.
    #[error("there is no plane {plane}: the page has {planes}")]
    Plane {
        /// The index that was given.
        plane: usize,
        /// How many planes there are.
        planes: usize,
    },
    /// A field was named that does not exist.
    #[error("there is no field `{field}`")]
    Field {
        /// The name that was given.
        field: &'static str,
    },
    /// A stride that the declaration fixes, or an axis that the page lacks.
    #[error("plane {plane} is not declared to have a run-time stride along {axis}, so none can be given")]
    FixedStride {
        /// The plane.
        plane: usize,
        /// The axis.
        axis: AxisKind,
    },
    /// A plane offset that the declaration fixes.
    #[error("plane {plane} is not declared to be at a run-time distance, so none can be given")]
    FixedPlane {
        /// The plane.
        plane: usize,
    },
    /// A run-time stride that was not given.
    #[error("plane {plane} needs its stride along {axis}: give it by `Placement::stride`")]
    MissingStride {
        /// The plane.
        plane: usize,
        /// The axis.
        axis: AxisKind,
    },
    /// A run-time distance that was not given.
    #[error("plane {plane} needs its offset: give it by `Placement::plane`")]
    MissingPlane {
        /// The plane.
        plane: usize,
    },
    /// Rows of one plane overlap.
    #[error("rows of plane {plane} overlap, or interleave in a way that is not nested")]
    RowsOverlap {
        /// The plane.
        plane: usize,
    },
    /// Two planes overlap.
    #[error("planes {first} and {second} overlap, or interleave in a way that is not nested")]
    PlanesOverlap {
        /// One plane.
        first: usize,
        /// The other.
        second: usize,
    },
    /// A plane ends beyond its region.
    #[error("plane {plane} ends at {end}, beyond its region of {region} bytes")]
    OutOfRegion {
        /// The plane.
        plane: usize,
        /// Where it ends, in bytes from the region's beginning.
        end: u64,
        /// The region's bytes.
        region: u64,
    },
    /// Two sizes for the same region, by way of two planes in it.
    #[error("one region was given {first} bytes and {second} bytes: give it one size")]
    RegionBytes {
        /// One size.
        first: u64,
        /// The other.
        second: u64,
    },
    /// A region that is no multiple of the declared alignment.
    #[error(
        "a region of {region} bytes is no multiple of align = {align}: give it more bytes, or declare less"
    )]
    Align {
        /// The region's bytes.
        region: u64,
        /// The declared alignment.
        align: u64,
    },
    /// The placement was begun from another page's geometry.
    #[error("these numbers were given to another page's geometry, not to this layout's")]
    Foreign,
    /// An address or a size beyond 63 bits.
    #[error("plane {plane} outgrows 2^63 bytes")]
    Overflow {
        /// The plane.
        plane: usize,
    },
}

impl PlacementError {
    /// The number of this error, listed in docs/errors.md. It never changes its meaning.
    #[must_use]
    pub const fn code(&self) -> u32 {
        match self {
            Self::Plane { .. } => 1070,
            Self::Field { .. } => 1071,
            Self::FixedStride { .. } => 1072,
            Self::FixedPlane { .. } => 1073,
            Self::MissingStride { .. } => 1074,
            Self::MissingPlane { .. } => 1075,
            Self::RowsOverlap { .. } => 1076,
            Self::PlanesOverlap { .. } => 1077,
            Self::OutOfRegion { .. } => 1078,
            Self::RegionBytes { .. } => 1079,
            Self::Align { .. } => 1080,
            Self::Foreign => 1081,
            Self::Overflow { .. } => 1082,
        }
    }
}

/// Strides and distances that are known only at run time, on their way into a [`Geometry`];
/// [`finish`](Self::finish) checks them.
///
/// A pool's layer stride depends on how many pages the pool has; V may lie behind all of K. The
/// declaration marks such a number ([`Level::Strided`], [`Level::StridedPlanes`]); here it is
/// given, and the result is a [`Geometry`] like any other, checked once and addressed without
/// checks.
///
/// ```
/// use kvrail_layouts::{Axis, AxisKind, Declaration, ElementKind, FieldDecl, Level, PlaneDecl};
///
/// // A device pool of 1,000 pages, layer first: 61 layers of [T, 576], each a pool apart.
/// let declared = Declaration {
///     axes: &[Axis::whole(AxisKind::Layer, 61), Axis::whole(AxisKind::Token, 64)],
///     order: &[Level::Strided(AxisKind::Layer), Level::Axis(AxisKind::Token)],
///     planes: &[PlaneDecl::of(&[FieldDecl::new("latent", ElementKind::Bf16, 576)])],
///     ..Declaration::EMPTY
/// }
/// .build()?;
/// let placed = declared.place().stride_of("latent", AxisKind::Layer, 1_000 * 73_728).finish()?;
/// assert_eq!(placed.offset_of(0, &[2, 1])?.offset, 2 * 73_728_000 + 1_152);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// [`Level::Strided`]: crate::Level::Strided
/// [`Level::StridedPlanes`]: crate::Level::StridedPlanes
///
/// Each setter keeps the first mistake for `finish` to report.
#[derive(Clone, Copy, Debug)]
#[must_use = "a placement does nothing until `finish`"]
pub struct Placement {
    geometry: Geometry,
    region_bytes: [Option<u64>; MAX_PLANES],
    wrong: Option<PlacementError>,
}

impl Geometry {
    /// Begins to give this page the numbers that its declaration leaves to run time.
    pub const fn place(self) -> Placement {
        Placement { geometry: self, region_bytes: [None; MAX_PLANES], wrong: None }
    }
}

impl Placement {
    /// The distance between two indices of an axis in a plane, in bytes.
    pub const fn stride(mut self, plane: usize, axis: AxisKind, bytes: u64) -> Self {
        if plane >= self.geometry.plane_count {
            return self.refuse(PlacementError::Plane { plane, planes: self.geometry.plane_count });
        }
        match self.geometry.axis_index(axis) {
            Some(a) if matches!(self.geometry.planes[plane].steps[a], AxisStep::Runtime) => {
                self.geometry.planes[plane].steps[a] = AxisStep::Bytes(bytes);
                self
            }
            _ => self.refuse(PlacementError::FixedStride { plane, axis }),
        }
    }

    /// As [`stride`](Self::stride), in the plane that this field is in.
    pub const fn stride_of(self, field: &'static str, axis: AxisKind, bytes: u64) -> Self {
        match self.geometry.field_named(field) {
            Some(f) => {
                let plane = self.geometry.fields[f].plane;
                self.stride(plane, axis, bytes)
            }
            None => self.refuse(PlacementError::Field { field }),
        }
    }

    /// As [`stride`](Self::stride), in every plane whose stride along this axis is left to run
    /// time.
    pub const fn strides(mut self, axis: AxisKind, bytes: u64) -> Self {
        let mut given = false;
        let mut plane = 0;
        while plane < self.geometry.plane_count {
            if let Some(a) = self.geometry.axis_index(axis)
                && matches!(self.geometry.planes[plane].steps[a], AxisStep::Runtime)
            {
                self.geometry.planes[plane].steps[a] = AxisStep::Bytes(bytes);
                given = true;
            }
            plane += 1;
        }
        if given { self } else { self.refuse(PlacementError::FixedStride { plane: 0, axis }) }
    }

    /// As [`plane`](Self::plane), of the plane that this field is in.
    pub const fn plane_of(self, field: &'static str, offset: u64) -> Self {
        match self.geometry.field_named(field) {
            Some(f) => {
                let plane = self.geometry.fields[f].plane;
                self.plane(plane, offset)
            }
            None => self.refuse(PlacementError::Field { field }),
        }
    }

    /// Where a plane begins, in bytes from its region's beginning.
    pub const fn plane(mut self, plane: usize, offset: u64) -> Self {
        if plane >= self.geometry.plane_count {
            return self.refuse(PlacementError::Plane { plane, planes: self.geometry.plane_count });
        }
        if self.geometry.planes[plane].offset.is_some() {
            return self.refuse(PlacementError::FixedPlane { plane });
        }
        self.geometry.planes[plane].offset = Some(offset);
        self
    }

    /// Bytes of each region that a plane has rows in, and with it those of the planes that share
    /// them. Without it a region has what the declaration gives it, or, where its rows go beyond
    /// that, ends with the last of them, padded to the alignment.
    pub const fn region_bytes(mut self, plane: usize, bytes: u64) -> Self {
        if plane >= self.geometry.plane_count {
            return self.refuse(PlacementError::Plane { plane, planes: self.geometry.plane_count });
        }
        self.region_bytes[plane] = Some(bytes);
        self
    }

    /// Keeps the first mistake.
    const fn refuse(mut self, wrong: PlacementError) -> Self {
        if self.wrong.is_none() {
            self.wrong = Some(wrong);
        }
        self
    }

    /// The page, addressable.
    ///
    /// # Errors
    ///
    /// A number is missing, or was given where the declaration fixes it; rows or planes overlap;
    /// something ends outside of its region or beyond 63 bits.
    pub const fn finish(self) -> Result<Geometry, PlacementError> {
        if let Some(wrong) = self.wrong {
            return Err(wrong);
        }
        let mut now = self.geometry;
        let mut plane = 0;
        while plane < now.plane_count {
            now.planes[plane].region_bytes = match self.region_of(plane) {
                Ok(bytes) => bytes,
                Err(wrong) => return Err(wrong),
            };
            plane += 1;
        }
        match check(&now) {
            Ok(()) => Ok(now),
            Err(wrong) => Err(wrong),
        }
    }

    /// Bytes of the regions that a plane has rows in.
    const fn region_of(&self, plane: usize) -> Result<u64, PlacementError> {
        let geometry = &self.geometry;
        let mut given = None;
        let mut bytes = geometry.planes[plane].region_bytes;
        let mut other = 0;
        while other < geometry.plane_count {
            if shares_regions(geometry, plane, other) {
                match (given, self.region_bytes[other]) {
                    (Some(first), Some(second)) if first != second => {
                        return Err(PlacementError::RegionBytes { first, second });
                    }
                    (None, some) => given = some,
                    _ => {}
                }
                if let Some(wrong) = missing(geometry, other) {
                    return Err(wrong);
                }
                let end = match Comb::of(geometry, other) {
                    Some(comb) => comb.end(),
                    None => None,
                };
                let Some(end) = end else {
                    return Err(PlacementError::Overflow { plane: other });
                };
                let Some(end) = end.checked_next_multiple_of(geometry.align) else {
                    return Err(PlacementError::Overflow { plane: other });
                };
                bytes = if end > bytes { end } else { bytes };
            }
            other += 1;
        }
        Ok(match given {
            Some(given) => given,
            None => bytes,
        })
    }
}

/// Checks the promises of a geometry. [`Declaration::build`](crate::Declaration::build) keeps the
/// same promises by construction.
const fn check(geometry: &Geometry) -> Result<(), PlacementError> {
    let mut plane = 0;
    while plane < geometry.plane_count {
        if let Some(wrong) = missing(geometry, plane) {
            return Err(wrong);
        }
        let Some(comb) = Comb::of(geometry, plane) else {
            return Err(PlacementError::Overflow { plane });
        };
        let Some(end) = comb.end() else {
            return Err(PlacementError::Overflow { plane });
        };
        if !comb.is_nested() {
            return Err(PlacementError::RowsOverlap { plane });
        }
        let region = geometry.planes[plane].region_bytes;
        if end > region {
            return Err(PlacementError::OutOfRegion { plane, end, region });
        }
        if !region.is_multiple_of(geometry.align) {
            return Err(PlacementError::Align { region, align: geometry.align });
        }
        let mut other = 0;
        while other < plane {
            if shares_regions(geometry, plane, other)
                && let Some(first) = Comb::of(geometry, other)
                && !comb.is_clear_of(first)
            {
                return Err(PlacementError::PlanesOverlap { first: other, second: plane });
            }
            other += 1;
        }
        plane += 1;
    }
    match geometry.checked_page_bytes() {
        Some(_) => Ok(()),
        None => Err(PlacementError::Overflow { plane: 0 }),
    }
}

/// The first run-time number of a plane that has not been given.
const fn missing(geometry: &Geometry, plane: usize) -> Option<PlacementError> {
    if geometry.planes[plane].offset.is_none() {
        return Some(PlacementError::MissingPlane { plane });
    }
    let mut a = 0;
    while a < geometry.axis_count {
        if matches!(geometry.planes[plane].steps[a], AxisStep::Runtime) {
            return Some(PlacementError::MissingStride { plane, axis: geometry.axes[a].kind });
        }
        a += 1;
    }
    None
}

/// Whether two planes have rows in the same regions. They share all or none: planes are put either
/// beside each other in the same regions, or each in its own.
const fn shares_regions(geometry: &Geometry, a: usize, b: usize) -> bool {
    geometry.planes[a].region == geometry.planes[b].region
}

/// Whether `placed` is `declaration` with its run-time numbers given, and nothing else changed.
fn is_placement_of(placed: &Geometry, declaration: &Geometry) -> bool {
    let mut erased = *placed;
    for (plane, was) in erased.planes.iter_mut().zip(&declaration.planes) {
        plane.region_bytes = was.region_bytes;
        plane.offset = plane.offset.filter(|_| was.offset.is_some());
        for (step, was) in plane.steps.iter_mut().zip(&was.steps) {
            if *was == AxisStep::Runtime {
                *step = AxisStep::Runtime;
            }
        }
    }
    erased == *declaration
}

/// A layout whose run-time numbers have been given, ranks included: a [`Geometry`] that is known to
/// be `L`'s. Of a layout that leaves nothing to run time it is `Placed::<L>::new(|page| page)`.
pub struct Placed<L> {
    geometry: Geometry,
    fingerprint: Fingerprint,
    layout: PhantomData<fn() -> L>,
}

impl<L: KvLayout> Placed<L> {
    /// Gives `L` its numbers: `Placed::<L>::new(|page| page.stride_of("k", AxisKind::Layer,
    /// bytes))`.
    ///
    /// # Errors
    ///
    /// As [`Placement::finish`]; or `numbers` returned a placement of another geometry.
    pub fn new(numbers: impl FnOnce(Placement) -> Placement) -> Result<Self, PlacementError> {
        let geometry = numbers(L::GEOMETRY.place()).finish()?;
        if !is_placement_of(&geometry, L::GEOMETRY) {
            return Err(PlacementError::Foreign);
        }
        Ok(Self { geometry, fingerprint: Fingerprint::of(&geometry), layout: PhantomData })
    }

    /// The same page as this rank holds it: [`Geometry::at_rank`].
    ///
    /// # Errors
    ///
    /// The axis does not exist or is not sharded, or there are not so many ranks.
    pub const fn at_rank(self, axis: AxisKind, rank: u32) -> Result<Self, DeclarationError> {
        match self.geometry.at_rank(axis, rank) {
            Ok(geometry) => {
                Ok(Self { geometry, fingerprint: Fingerprint::of(&geometry), layout: PhantomData })
            }
            Err(refusal) => Err(refusal),
        }
    }

    /// The geometry, addressable.
    #[must_use]
    pub const fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    /// The fingerprint of this placement. Peers that agree on it agree on every byte.
    #[must_use]
    pub const fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }
}

impl<L> Clone for Placed<L> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<L> Copy for Placed<L> {}

// By hand: a layout is a declaration, and need not be printable itself.
impl<L: KvLayout> core::fmt::Debug for Placed<L> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Placed").field("layout", &L::NAME).field("geometry", &self.geometry).finish()
    }
}
