//! How a declaration becomes a geometry: first the rows, then level by level outwards. All checks
//! of a declaration are here.

use super::{Declaration, Level};
use crate::axis::{Axis, AxisKind, Spread};
use crate::declaration::error::{DeclarationErrorKind, DeclarationErrors, Spot};
use crate::geometry::{AxisStep, Field, Geometry, MAX_AXES, MAX_FIELDS, MAX_PLANES, MAX_REGIONS};
use crate::text::same;

/// No page is larger: offsets and lengths stay below the largest `isize` of a 64-bit machine.
const MAX_BYTES: u64 = i64::MAX as u64;

impl Declaration<'_> {
    /// The geometry, checked.
    ///
    /// # Errors
    ///
    /// All mistakes, each at its [`Spot`](crate::Spot).
    #[allow(
        clippy::result_large_err,
        reason = "no heap to put it on; it is made once, mostly in the compiler"
    )]
    pub const fn build(&self) -> Result<Geometry, DeclarationErrors> {
        let mut errors = DeclarationErrors::none();
        let geometry = self.lay_out(&mut errors);
        match geometry {
            Some(geometry) if errors.is_empty() => Ok(geometry),
            _ => Err(errors),
        }
    }

    /// The geometry, for a declaration that is known to be right.
    ///
    /// # Panics
    ///
    /// With the first mistake, if there is one; in a constant, that is a compile error.
    #[must_use]
    #[track_caller]
    pub const fn expect(&self) -> Geometry {
        match self.build() {
            Ok(geometry) => geometry,
            Err(errors) => match errors.first() {
                Some(error) => panic!("{}", error.text().as_str()),
                None => unreachable!(),
            },
        }
    }

    /// The geometry, or `None` and the reasons in `errors`.
    const fn lay_out(&self, errors: &mut DeclarationErrors) -> Option<Geometry> {
        let mut geometry = Geometry::EMPTY;
        geometry.tokens_per_state = self.tokens_per_state;
        geometry.align = self.align;
        geometry.version = self.version;
        geometry.swizzle = self.swizzle;
        if self.tokens_per_state == 0 {
            errors.push(Spot::TokensPerState, DeclarationErrorKind::ZeroTokensPerState);
        }
        if self.align == 0 {
            errors.push(Spot::Align, DeclarationErrorKind::ZeroAlign);
        }
        self.sort_axes(&mut geometry, errors);
        self.check_padding(errors);
        let mut walk = Walk::START;
        self.rows(&mut geometry, &mut walk, errors);
        if !errors.is_empty() {
            return None;
        }
        self.levels(&mut geometry, &mut walk, errors);
        if !errors.is_empty() {
            return None;
        }
        // Only after the walk: an axis whose level was refused would be reported as unused, too.
        self.unused(&geometry, errors);
        if !errors.is_empty() {
            return None;
        }
        self.sizes(&geometry, errors);
        Some(geometry)
    }

    /// Copies the axes, sorted by number.
    const fn sort_axes(&self, geometry: &mut Geometry, errors: &mut DeclarationErrors) {
        let mut i = 0;
        while i < self.axes.len() {
            let axis = self.axes[i];
            if i >= MAX_AXES {
                errors.push(Spot::Axis(i), too_many("axes", MAX_AXES, self.axes.len()));
                return;
            }
            if axis.extent == 0 {
                errors.push(Spot::Axis(i), DeclarationErrorKind::ZeroExtent { axis: axis.kind });
            }
            if geometry.axis_index(axis.kind).is_some() {
                errors.push(Spot::Axis(i), DeclarationErrorKind::SameAxisTwice { axis: axis.kind });
            }
            match axis.spread {
                Spread::Sharded { ranks, rank: Some(rank) } if rank >= ranks => {
                    errors.push(Spot::Spread(i), DeclarationErrorKind::Ranks { ranks, rank: Some(rank) });
                }
                Spread::Sharded { ranks: 0, .. } | Spread::Replicated { ranks: 0 } => {
                    errors.push(Spot::Spread(i), DeclarationErrorKind::Ranks { ranks: 0, rank: None });
                }
                Spread::Stage { first, of } if first > of || axis.extent > of - first => {
                    let (axis, count) = (axis.kind, axis.extent);
                    errors.push(Spot::Spread(i), DeclarationErrorKind::Stage { axis, first, count, of });
                }
                _ => {}
            }
            let mut at = geometry.axis_count;
            while at > 0 && geometry.axes[at - 1].kind.number() > axis.kind.number() {
                geometry.axes[at] = geometry.axes[at - 1];
                at -= 1;
            }
            geometry.axes[at] = axis;
            geometry.axis_count += 1;
            i += 1;
        }
    }

    /// Refuses padding to a multiple of 0, which does not depend on axes and rows.
    const fn check_padding(&self, errors: &mut DeclarationErrors) {
        let mut i = 0;
        while i < self.order.len() {
            if let Level::Pad(0) = self.order[i] {
                errors.push(Spot::Level(i), DeclarationErrorKind::ZeroPad);
            }
            i += 1;
        }
        let mut p = 0;
        while p < self.planes.len() {
            if let Some(own) = self.planes[p].order {
                let mut i = 0;
                while i < own.len() {
                    if let Level::Pad(0) = own[i] {
                        errors.push(Spot::PlaneLevel(p, i), DeclarationErrorKind::ZeroPad);
                    }
                    i += 1;
                }
            }
            p += 1;
        }
    }

    /// Lays out each plane's row.
    const fn rows(&self, geometry: &mut Geometry, walk: &mut Walk, errors: &mut DeclarationErrors) {
        if self.planes.is_empty() {
            errors.push(Spot::Order, DeclarationErrorKind::NoFields);
        }
        let mut p = 0;
        while p < self.planes.len() {
            if p >= MAX_PLANES {
                errors.push(Spot::Plane(p), too_many("planes", MAX_PLANES, self.planes.len()));
                return;
            }
            let fields = self.planes[p].fields;
            if fields.is_empty() {
                errors.push(Spot::Plane(p), DeclarationErrorKind::NoFields);
            }
            let mut row = 0;
            let mut f = 0;
            while f < fields.len() {
                let field = fields[f];
                let at = Spot::Field(geometry.field_count);
                if geometry.field_count >= MAX_FIELDS {
                    errors.push(at, too_many("fields", MAX_FIELDS, geometry.field_count + 1));
                    return;
                }
                if field.count == 0 {
                    errors.push(at, DeclarationErrorKind::ZeroCount { field: field.name });
                }
                let mut other = 0;
                while other < geometry.field_count {
                    if same(geometry.fields[other].name, field.name) {
                        errors.push(at, DeclarationErrorKind::SameFieldTwice { field: field.name });
                    }
                    other += 1;
                }
                geometry.fields[geometry.field_count] =
                    Field { name: field.name, kind: field.kind, count: field.count, plane: p, offset: row };
                geometry.field_count += 1;
                row = match bounded(field.count.checked_mul(field.kind.bytes())) {
                    Some(bytes) if row <= MAX_BYTES - bytes => row + bytes,
                    _ => {
                        errors.push(at, DeclarationErrorKind::Overflow);
                        return;
                    }
                };
                f += 1;
            }
            geometry.planes[p].row = row;
            walk.size[p] = row;
            geometry.plane_count += 1;
            p += 1;
        }
    }

    /// Walks the levels, innermost first, and gives every axis its step.
    const fn levels(&self, geometry: &mut Geometry, walk: &mut Walk, errors: &mut DeclarationErrors) {
        let split = self.split(errors);
        let inner = if split < self.order.len() { split + 1 } else { split };
        let mut p = 0;
        while p < self.planes.len() {
            match self.planes[p].order {
                None => {
                    let mut i = self.order.len();
                    while i > inner {
                        i -= 1;
                        walk.level(geometry, p, self.order[i], Spot::Level(i), errors);
                    }
                }
                Some(_) if split == self.order.len() => {
                    errors.push(Spot::Plane(p), DeclarationErrorKind::OrderWithoutPlanes);
                }
                Some(own) => {
                    let mut i = own.len();
                    while i > 0 {
                        i -= 1;
                        walk.level(geometry, p, own[i], Spot::PlaneLevel(p, i), errors);
                    }
                }
            }
            p += 1;
        }
        if split < self.order.len() {
            walk.join(geometry, self.order[split], Spot::Level(split), errors);
        }
        let mut i = split;
        while i > 0 {
            i -= 1;
            let mut p = 0;
            while p < self.planes.len() {
                walk.level(geometry, p, self.order[i], Spot::Level(i), errors);
                p += 1;
            }
        }
        walk.finish(geometry);
    }

    /// Where the order splits into planes; its length if nowhere.
    const fn split(&self, errors: &mut DeclarationErrors) -> usize {
        let mut split = self.order.len();
        let mut i = 0;
        while i < self.order.len() {
            if let Level::Planes | Level::StridedPlanes | Level::RegionPlanes = self.order[i] {
                if split < self.order.len() {
                    errors.push(Spot::Level(i), DeclarationErrorKind::PlanesTwice);
                } else {
                    split = i;
                }
            }
            i += 1;
        }
        if split == self.order.len() && self.planes.len() > 1 {
            errors
                .push(Spot::Order, DeclarationErrorKind::PlanesMissing { planes: self.planes.len() as u64 });
        }
        split
    }

    /// Refuses axes that no plane goes along: all their indices would have the same bytes.
    const fn unused(&self, geometry: &Geometry, errors: &mut DeclarationErrors) {
        let mut i = 0;
        while i < self.axes.len() {
            let Axis { kind: axis, extent, .. } = self.axes[i];
            let mut used = false;
            let mut p = 0;
            while p < geometry.plane_count {
                if let Some(a) = geometry.axis_index(axis) {
                    used = used || !matches!(geometry.planes[p].steps[a], AxisStep::Shared);
                }
                p += 1;
            }
            if !used {
                errors.push(Spot::Axis(i), DeclarationErrorKind::UnusedAxis { axis, extent });
            }
            i += 1;
        }
    }

    /// Checks the finished page: its size, and the alignment of its regions.
    const fn sizes(&self, geometry: &Geometry, errors: &mut DeclarationErrors) {
        let Some(actual) = geometry.checked_page_bytes() else {
            errors.push(Spot::Order, DeclarationErrorKind::Overflow);
            return;
        };
        if let Some(expected) = self.bytes
            && expected != actual
        {
            errors.push(Spot::Bytes, DeclarationErrorKind::Bytes { expected, actual });
        }
        let mut p = 0;
        while p < geometry.plane_count {
            let region = geometry.planes[p].region_bytes;
            if !region.is_multiple_of(self.align) {
                errors.push(Spot::Align, DeclarationErrorKind::Align { align: self.align, region });
            }
            p += 1;
        }
    }
}

/// How far the walk from the row outwards has come, for each plane.
struct Walk {
    /// Bytes of the walked levels, for each plane.
    size: [u64; MAX_PLANES],
    /// Regions of the walked levels; 0 until the first level that makes regions.
    regions: [u32; MAX_PLANES],
}

impl Walk {
    const START: Self = Self { size: [0; MAX_PLANES], regions: [0; MAX_PLANES] };

    /// Takes the next level of plane `p` into its size and its steps.
    const fn level(
        &mut self,
        geometry: &mut Geometry,
        p: usize,
        level: Level,
        at: Spot,
        errors: &mut DeclarationErrors,
    ) {
        match level {
            Level::Axis(axis) | Level::Strided(axis) => {
                let Some(a) = unwalked_axis(geometry, p, axis, at, errors) else { return };
                if self.regions[p] > 0 {
                    return errors.push(at, DeclarationErrorKind::RegionsInside);
                }
                geometry.planes[p].steps[a] = match level {
                    Level::Strided(_) => AxisStep::Runtime,
                    _ => AxisStep::Bytes(self.size[p]),
                };
                match bounded(self.size[p].checked_mul(geometry.axes[a].extent)) {
                    Some(size) => self.size[p] = size,
                    None => errors.push(at, DeclarationErrorKind::Overflow),
                }
            }
            // `check_padding` has reported it, and the walk has not begun.
            Level::Pad(0) => {}
            Level::Pad(_) if self.regions[p] > 0 => errors.push(at, DeclarationErrorKind::RegionsInside),
            Level::Pad(to) => match bounded(self.size[p].checked_next_multiple_of(to)) {
                Some(size) => self.size[p] = size,
                None => errors.push(at, DeclarationErrorKind::Overflow),
            },
            Level::Regions(axis) => {
                let Some(a) = unwalked_axis(geometry, p, axis, at, errors) else { return };
                let inner = if self.regions[p] == 0 { 1 } else { self.regions[p] };
                geometry.planes[p].steps[a] = AxisStep::Regions(inner);
                let all = geometry.axes[a].extent.saturating_mul(inner as u64);
                self.set_regions(p, all, at, errors);
            }
            // `split` has reported a second split.
            Level::Planes | Level::StridedPlanes | Level::RegionPlanes => {}
        }
    }

    const fn set_regions(&mut self, p: usize, all: u64, at: Spot, errors: &mut DeclarationErrors) {
        if all > MAX_REGIONS as u64 {
            errors.push(
                at,
                DeclarationErrorKind::TooMany { what: "regions", max: MAX_REGIONS as u64, found: all },
            );
        } else {
            // Not above MAX_REGIONS, which is a u32.
            self.regions[p] = all as u32;
        }
    }

    /// Puts the planes beside each other.
    const fn join(
        &mut self,
        geometry: &mut Geometry,
        level: Level,
        at: Spot,
        errors: &mut DeclarationErrors,
    ) {
        let mut bytes = 0;
        let mut regions: u64 = 0;
        let mut p = 0;
        while p < geometry.plane_count {
            match level {
                Level::RegionPlanes => {
                    // Not above MAX_PLANES * MAX_REGIONS.
                    geometry.planes[p].region = regions as u32;
                    regions += if self.regions[p] == 0 { 1 } else { self.regions[p] as u64 };
                }
                _ => {
                    if self.regions[p] > 0 {
                        errors.push(at, DeclarationErrorKind::RegionsUnderPlanes);
                    }
                    let strided = matches!(level, Level::StridedPlanes) && p > 0;
                    geometry.planes[p].offset = if strided { None } else { Some(bytes) };
                    bytes = match bounded(self.size[p].checked_add(bytes)) {
                        Some(bytes) => bytes,
                        None => return errors.push(at, DeclarationErrorKind::Overflow),
                    };
                }
            }
            p += 1;
        }
        let mut p = 0;
        while p < geometry.plane_count {
            match level {
                Level::RegionPlanes => self.set_regions(p, regions, at, errors),
                _ => self.size[p] = bytes,
            }
            p += 1;
        }
    }

    /// Writes the sizes of regions into the geometry.
    const fn finish(&self, geometry: &mut Geometry) {
        let mut p = 0;
        while p < geometry.plane_count {
            geometry.planes[p].region_bytes = self.size[p];
            p += 1;
        }
        geometry.regions = if self.regions[0] == 0 { 1 } else { self.regions[0] };
    }
}

/// The index of an axis that plane `p` does not go along yet.
const fn unwalked_axis(
    geometry: &Geometry,
    p: usize,
    axis: AxisKind,
    at: Spot,
    errors: &mut DeclarationErrors,
) -> Option<usize> {
    let Some(a) = geometry.axis_index(axis) else {
        errors.push(at, DeclarationErrorKind::UnknownAxis { axis });
        return None;
    };
    if !matches!(geometry.planes[p].steps[a], AxisStep::Shared) {
        errors.push(at, DeclarationErrorKind::RepeatedAxis { axis });
        return None;
    }
    Some(a)
}

const fn too_many(what: &'static str, max: usize, found: usize) -> DeclarationErrorKind {
    DeclarationErrorKind::TooMany { what, max: max as u64, found: found as u64 }
}

/// `bytes`, if a page can have so many.
const fn bounded(bytes: Option<u64>) -> Option<u64> {
    match bytes {
        Some(bytes) if bytes <= MAX_BYTES => Some(bytes),
        _ => None,
    }
}
