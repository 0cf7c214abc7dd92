//! From fields to the longest pieces. A field on both sides is one strided copy. A copy absorbs the
//! dimensions that are dense on both sides, and joins copies that follow directly, until nothing
//! changes.

use crate::address::Place;
use crate::axis::AxisKind;
use crate::geometry::{AxisStep, MAX_AXES, Plane};
use crate::plan::error::PlanError;
use crate::selection::Selected;

/// How far one index moves on one side.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Stride {
    pub(super) bytes: u64,
    pub(super) regions: u32,
}

impl Stride {
    pub(super) const NONE: Self = Self { bytes: 0, regions: 0 };

    const fn same(self, other: Self) -> bool {
        self.bytes == other.bytes && self.regions == other.regions
    }
}

/// One axis along which a copy repeats.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Dim {
    pub(super) extent: u64,
    pub(super) source: Stride,
    pub(super) destination: Stride,
}

impl Dim {
    pub(super) const NONE: Self = Self { extent: 1, source: Stride::NONE, destination: Stride::NONE };

    const fn same(&self, other: &Self) -> bool {
        self.extent == other.extent
            && self.source.same(other.source)
            && self.destination.same(other.destination)
    }
}

/// `len` bytes that are contiguous on both sides, repeated along dimensions above 1.
#[derive(Clone, Copy)]
pub(super) struct StridedCopy {
    pub(super) source: Place,
    pub(super) destination: Place,
    pub(super) len: u64,
    pub(super) dims: [Dim; MAX_AXES],
    pub(super) count: usize,
}

/// One side of an axis: where its selection starts, how long it is, how the field's rows move.
struct Side {
    start: u64,
    len: u64,
    step: AxisStep,
}

impl StridedCopy {
    pub(super) const NONE: Self = Self {
        source: Place { region: 0, offset: 0 },
        destination: Place { region: 0, offset: 0 },
        len: 0,
        dims: [Dim::NONE; MAX_AXES],
        count: 0,
    };

    /// A field of the source into a field of the destination. A side that tells K and V apart by an
    /// axis, where the other has fields for them, is held at index `part.0` (source) or `part.1`
    /// (destination).
    pub(super) const fn of(
        source: &Selected<'_>,
        from: usize,
        destination: &Selected<'_>,
        to: usize,
        part: (Option<u64>, Option<u64>),
    ) -> Result<Self, PlanError> {
        let (s, d) = (source.geometry(), destination.geometry());
        let (fs, fd) = (&s.fields[from], &d.fields[to]);
        let (ps, pd) = (&s.planes[fs.plane], &d.planes[fd.plane]);
        let mut copy = Self { len: fd.bytes(), ..Self::NONE };
        copy.source = origin(ps, fs.offset);
        copy.destination = origin(pd, fd.offset);
        // The destination's axes, then those that only the source has.
        let mut i = 0;
        while i < d.axis_count + s.axis_count {
            let kind = if i < d.axis_count { d.axes[i].kind } else { s.axes[i - d.axis_count].kind };
            let at = s.axis_index(kind);
            let skip = i >= d.axis_count && d.axis_index(kind).is_some();
            i += 1;
            if skip {
                continue;
            }
            let a = side(source, ps, at, if is_part(kind) { part.0 } else { None });
            let b = side(destination, pd, d.axis_index(kind), if is_part(kind) { part.1 } else { None });
            if a.len != b.len {
                let (source_len, destination) = (a.len, b.len);
                return Err(PlanError::Extent { axis: kind, source_len, destination });
            }
            let (from, to) = (stride(a.step), stride(b.step));
            copy.source = moved(copy.source, from, a.start);
            copy.destination = moved(copy.destination, to, b.start);
            if a.len == 1 || (matches!(a.step, AxisStep::Shared) && matches!(b.step, AxisStep::Shared)) {
                continue;
            }
            if matches!(b.step, AxisStep::Shared) {
                return Err(PlanError::Merged { field: fd.name, axis: kind, extent: b.len });
            }
            // Above 1 on both sides, so both have the axis: there are no more of these than axes of
            // a page.
            copy.dims[copy.count] = Dim { extent: a.len, source: from, destination: to };
            copy.count += 1;
        }
        copy.shrink();
        Ok(copy)
    }

    /// Absorbs into the length every dimension that is dense on both sides, from the inside out.
    pub(super) const fn shrink(&mut self) {
        let mut i = 0;
        while i < self.count {
            let Dim { extent, source, destination } = self.dims[i];
            let dense = source.regions == 0
                && destination.regions == 0
                && source.bytes == self.len
                && destination.bytes == self.len;
            if dense {
                self.len *= extent;
                self.remove(i);
                i = 0;
            } else {
                i += 1;
            }
        }
    }

    pub(super) const fn remove(&mut self, at: usize) {
        self.count -= 1;
        let mut i = at;
        while i < self.count {
            self.dims[i] = self.dims[i + 1];
            i += 1;
        }
        self.dims[self.count] = Dim::NONE;
    }

    /// Whether `next` follows directly on both sides, for all indices.
    pub(super) const fn continues(&self, next: &Self) -> bool {
        if self.count != next.count
            || self.source.region != next.source.region
            || self.destination.region != next.destination.region
            || self.source.offset + self.len != next.source.offset
            || self.destination.offset + self.len != next.destination.offset
        {
            return false;
        }
        let mut i = 0;
        while i < self.count {
            if !self.dims[i].same(&next.dims[i]) {
                return false;
            }
            i += 1;
        }
        true
    }
}

const fn is_part(kind: AxisKind) -> bool {
    matches!(kind, AxisKind::Part)
}

/// Where a field's first row begins.
const fn origin(plane: &Plane, offset: u64) -> Place {
    match plane.offset {
        Some(begin) => Place { region: plane.region, offset: begin + offset },
        // A selection is made of a placed geometry.
        None => unreachable!(),
    }
}

/// One side of an axis; a side that is held at an index has length 1.
const fn side(page: &Selected<'_>, plane: &Plane, axis: Option<usize>, held: Option<u64>) -> Side {
    let Some(a) = axis else { return Side { start: 0, len: 1, step: AxisStep::Shared } };
    let (Some(start), Some(len)) = (page.start(a), page.extent(a)) else { unreachable!() };
    match held {
        Some(index) => Side { start: index, len: 1, step: plane.steps[a] },
        None => Side { start, len, step: plane.steps[a] },
    }
}

/// How far one index moves.
const fn stride(step: AxisStep) -> Stride {
    match step {
        AxisStep::Shared => Stride::NONE,
        AxisStep::Bytes(bytes) => Stride { bytes, regions: 0 },
        AxisStep::Regions(regions) => Stride { bytes: 0, regions },
        // A selection is made of a placed geometry.
        AxisStep::Runtime => unreachable!(),
    }
}

/// `place`, moved by `times` strides. The sums fit: building the geometry has checked them, and a
/// selection lies within.
pub(super) const fn moved(place: Place, by: Stride, times: u64) -> Place {
    Place { region: place.region + by.regions * times as u32, offset: place.offset + by.bytes * times }
}

/// Joins copies that follow each other directly, until none does. Returns how many are left.
pub(super) const fn join(copies: &mut [StridedCopy], mut count: usize) -> usize {
    let mut i = 0;
    while i < count {
        let mut k = 0;
        let mut joined = false;
        while k < count && !joined {
            if k != i && copies[i].continues(&copies[k]) {
                copies[i].len += copies[k].len;
                copies[i].shrink();
                count -= 1;
                copies[k] = copies[count];
                joined = true;
            }
            k += 1;
        }
        // A longer copy may continue any other.
        i = if joined { 0 } else { i + 1 };
    }
    count
}
