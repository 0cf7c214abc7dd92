//! What an author writes down, and the one place where it is checked.
//!
//! A page is told from the outside in. `order` lists its levels, outermost first: axes, where the
//! planes split, where bytes are padded, what lives in a region of its own. The innermost thing is a
//! row: the fields of a plane, one after the other.
//!
//! ```
//! use kvrail_layouts::{Axis, AxisKind, Declaration, ElementKind, FieldDecl, Level, PlaneDecl};
//!
//! // DeepSeek V4, 64 states of 4 tokens, one layer: {64 × 576, 64 × 8, padded up to a multiple of 576}.
//! let v4 = Declaration {
//!     axes: &[Axis::whole(AxisKind::Token, 64)],
//!     order: &[Level::Pad(576), Level::Planes, Level::Axis(AxisKind::Token)],
//!     planes: &[
//!         PlaneDecl::of(&[
//!             FieldDecl::new("latent", ElementKind::E4m3, 448),
//!             FieldDecl::new("rope", ElementKind::Bf16, 64),
//!         ]),
//!         PlaneDecl::of(&[
//!             FieldDecl::new("scales", ElementKind::Ue8m0, 7),
//!             FieldDecl::new("unused", ElementKind::U8, 1),
//!         ]),
//!     ],
//!     tokens_per_state: 4,
//!     ..Declaration::EMPTY
//! };
//! let geometry = v4.build().unwrap();
//! assert_eq!(geometry.page_bytes(), 37_440); // 37,376 and 64 of padding
//! ```

use crate::axis::{Axis, AxisKind, Spread};
use crate::element::{Element, ElementKind};
use crate::geometry::{Field, Geometry, MAX_AXES, MAX_FIELDS, MAX_PLANES, MAX_REGIONS, Step};
use crate::refusal::{Refusals, Spot, Why};
use crate::text::same;

/// No page is larger: offsets and lengths stay below the largest `isize` of a 64-bit machine.
const MAX_BYTES: u64 = i64::MAX as u64;

/// One level of a page's order.
///
/// Region levels come first; then those that take bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// One block per index of the axis, densely one after the other.
    Axis(AxisKind),
    /// One block per index of the axis, at a distance known only at run time
    /// ([`Placement::stride`](crate::Placement::stride)). Sizes count it as if it were dense.
    Strided(AxisKind),
    /// One region per index of the axis.
    Regions(AxisKind),
    /// The planes, densely one after the other; the levels that follow are within each plane.
    Planes,
    /// As `Planes`, at distances known only at run time
    /// ([`Placement::plane`](crate::Placement::plane)).
    StridedPlanes,
    /// Each plane in a region of its own.
    RegionPlanes,
    /// What follows, padded up to a multiple of this many bytes (any number from 1). As the last
    /// level it pads the row, as the first the region.
    Pad(u64),
}

/// One field of a row: `count` elements of one kind, densely.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FieldDecl {
    /// What the field is called. Unique in a page, and part of its fingerprint: two fields of one
    /// shape, such as K and V, are told apart by nothing else.
    pub name: &'static str,
    /// What its elements are.
    pub kind: ElementKind,
    /// How many there are in a row; at least 1.
    pub count: u64,
}

impl FieldDecl {
    /// A field of `count` elements of this kind.
    #[must_use]
    pub const fn new(name: &'static str, kind: ElementKind, count: u64) -> Self {
        Self { name, kind, count }
    }

    /// A field of `count` elements of this type.
    #[must_use]
    pub const fn of<E: Element>(name: &'static str, count: usize) -> Self {
        Self::new(name, E::KIND, count as u64)
    }
}

/// Rows of the same fields, one for each index of the plane's axes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlaneDecl<'a> {
    /// The fields of one row, in the order of their bytes; at least one.
    pub fields: &'a [FieldDecl],
    /// The plane's own levels, in place of those that follow `planes` in the page's order. It need
    /// not name every axis: a field has the same bytes for all indices of an axis it lacks.
    pub order: Option<&'a [Level]>,
}

impl<'a> PlaneDecl<'a> {
    /// A plane in the page's order.
    #[must_use]
    pub const fn of(fields: &'a [FieldDecl]) -> Self {
        Self { fields, order: None }
    }
}

/// A page as its author tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Declaration<'a> {
    /// The axes, in any order, each kind once.
    pub axes: &'a [Axis],
    /// The page's levels, outermost first.
    pub order: &'a [Level],
    /// The planes; one, where a page has no planes to speak of.
    pub planes: &'a [PlaneDecl<'a>],
    /// How many tokens one index of the token axis stands for; at least 1.
    pub tokens_per_state: u64,
    /// What the address of every region is a multiple of, any number from 1. Every region's length
    /// must be one too, so that pages can follow each other.
    pub align: u64,
    /// The page's size, if the author wants it checked.
    pub bytes: Option<u64>,
    /// The author's version of the meaning of the bytes.
    pub version: u32,
    /// A tag for a platform's permutation of bytes within the page; 0 for none.
    pub swizzle: u32,
}

impl Declaration<'_> {
    /// Nothing, with the defaults: for `..Declaration::EMPTY`.
    pub const EMPTY: Self = Declaration {
        axes: &[],
        order: &[],
        planes: &[],
        tokens_per_state: 1,
        align: 1,
        bytes: None,
        version: 0,
        swizzle: 0,
    };

    /// The geometry, checked.
    ///
    /// # Errors
    ///
    /// All that is wrong, each at its [`Spot`].
    pub const fn build(&self) -> Result<Geometry, Refusals> {
        let mut refusals = Refusals::none();
        let geometry = self.work(&mut refusals);
        match geometry {
            Some(geometry) if refusals.is_empty() => Ok(geometry),
            _ => Err(refusals),
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
            Err(refusals) => match refusals.first() {
                Some(refusal) => panic!("{}", refusal.text().as_str()),
                None => unreachable!(),
            },
        }
    }

    const fn work(&self, no: &mut Refusals) -> Option<Geometry> {
        let mut geometry = Geometry::EMPTY;
        geometry.tokens_per_state = self.tokens_per_state;
        geometry.align = self.align;
        geometry.version = self.version;
        geometry.swizzle = self.swizzle;
        if self.tokens_per_state == 0 {
            no.push(Spot::TokensPerState, Why::ZeroTokensPerState);
        }
        if self.align == 0 {
            no.push(Spot::Align, Why::ZeroAlign);
        }
        self.axes(&mut geometry, no);
        let mut walk = Walk::START;
        self.rows(&mut geometry, &mut walk, no);
        if !no.is_empty() {
            return None;
        }
        self.levels(&mut geometry, &mut walk, no);
        self.unused(&geometry, no);
        if !no.is_empty() {
            return None;
        }
        self.sizes(&geometry, no);
        Some(geometry)
    }

    /// Takes the axes over, sorted by code.
    const fn axes(&self, geometry: &mut Geometry, no: &mut Refusals) {
        let mut i = 0;
        while i < self.axes.len() {
            let axis = self.axes[i];
            if i >= MAX_AXES {
                no.push(Spot::Axis(i), too_many("axes", MAX_AXES, self.axes.len()));
                return;
            }
            if axis.extent == 0 {
                no.push(Spot::Axis(i), Why::ZeroExtent { axis: axis.kind });
            }
            if geometry.axis_index(axis.kind).is_some() {
                no.push(Spot::Axis(i), Why::SameAxisTwice { axis: axis.kind });
            }
            match axis.spread {
                Spread::Sharded { ranks, rank: Some(rank) } if rank >= ranks => {
                    no.push(Spot::Axis(i), Why::Ranks { ranks, rank: Some(rank) });
                }
                Spread::Sharded { ranks: 0, .. } | Spread::Replicated { ranks: 0 } => {
                    no.push(Spot::Axis(i), Why::Ranks { ranks: 0, rank: None });
                }
                _ => {}
            }
            let mut at = geometry.axis_count;
            while at > 0 && geometry.axes[at - 1].kind.code() > axis.kind.code() {
                geometry.axes[at] = geometry.axes[at - 1];
                at -= 1;
            }
            geometry.axes[at] = axis;
            geometry.axis_count += 1;
            i += 1;
        }
    }

    /// Lays out each plane's row.
    const fn rows(&self, geometry: &mut Geometry, walk: &mut Walk, no: &mut Refusals) {
        if self.planes.is_empty() {
            no.push(Spot::Order, Why::NoFields);
        }
        let mut p = 0;
        while p < self.planes.len() {
            if p >= MAX_PLANES {
                no.push(Spot::Plane(p), too_many("planes", MAX_PLANES, self.planes.len()));
                return;
            }
            let fields = self.planes[p].fields;
            if fields.is_empty() {
                no.push(Spot::Plane(p), Why::NoFields);
            }
            let mut row = 0;
            let mut f = 0;
            while f < fields.len() {
                let field = fields[f];
                let at = Spot::Field(geometry.field_count);
                if geometry.field_count >= MAX_FIELDS {
                    no.push(at, too_many("fields", MAX_FIELDS, geometry.field_count + 1));
                    return;
                }
                if field.count == 0 {
                    no.push(at, Why::ZeroCount { field: field.name });
                }
                let mut other = 0;
                while other < geometry.field_count {
                    if same(geometry.fields[other].name, field.name) {
                        no.push(at, Why::SameFieldTwice { field: field.name });
                    }
                    other += 1;
                }
                geometry.fields[geometry.field_count] =
                    Field { name: field.name, kind: field.kind, count: field.count, plane: p, offset: row };
                geometry.field_count += 1;
                row = match bounded(field.count.checked_mul(field.kind.bytes())) {
                    Some(bytes) if row <= MAX_BYTES - bytes => row + bytes,
                    _ => {
                        no.push(at, Why::Overflow);
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
    const fn levels(&self, geometry: &mut Geometry, walk: &mut Walk, no: &mut Refusals) {
        let split = self.split(no);
        let inner = if split < self.order.len() { split + 1 } else { split };
        let mut p = 0;
        while p < self.planes.len() {
            match self.planes[p].order {
                None => {
                    let mut i = self.order.len();
                    while i > inner {
                        i -= 1;
                        walk.level(geometry, p, self.order[i], Spot::Level(i), no);
                    }
                }
                Some(_) if split == self.order.len() => {
                    no.push(Spot::Plane(p), Why::OrderWithoutPlanes);
                }
                Some(own) => {
                    let mut i = own.len();
                    while i > 0 {
                        i -= 1;
                        walk.level(geometry, p, own[i], Spot::PlaneLevel(p, i), no);
                    }
                }
            }
            p += 1;
        }
        if split < self.order.len() {
            walk.join(geometry, self.order[split], Spot::Level(split), no);
        }
        let mut i = split;
        while i > 0 {
            i -= 1;
            let mut p = 0;
            while p < self.planes.len() {
                walk.level(geometry, p, self.order[i], Spot::Level(i), no);
                p += 1;
            }
        }
        walk.finish(geometry);
    }

    /// Where the order splits into planes; its length if nowhere.
    const fn split(&self, no: &mut Refusals) -> usize {
        let mut split = self.order.len();
        let mut i = 0;
        while i < self.order.len() {
            if let Level::Planes | Level::StridedPlanes | Level::RegionPlanes = self.order[i] {
                if split < self.order.len() {
                    no.push(Spot::Level(i), Why::PlanesTwice);
                } else {
                    split = i;
                }
            }
            i += 1;
        }
        if split == self.order.len() && self.planes.len() > 1 {
            no.push(Spot::Order, Why::PlanesMissing { planes: self.planes.len() as u64 });
        }
        split
    }

    /// Refuses axes that no plane goes along: all their indices would have the same bytes.
    const fn unused(&self, geometry: &Geometry, no: &mut Refusals) {
        let mut i = 0;
        while i < self.axes.len() {
            let Axis { kind: axis, extent, .. } = self.axes[i];
            let mut used = false;
            let mut p = 0;
            while p < geometry.plane_count {
                if let Some(a) = geometry.axis_index(axis) {
                    used = used || !matches!(geometry.planes[p].steps[a], Step::Shared);
                }
                p += 1;
            }
            if !used {
                no.push(Spot::Axis(i), Why::UnusedAxis { axis, extent });
            }
            i += 1;
        }
    }

    /// The checks that speak of the finished page.
    const fn sizes(&self, geometry: &Geometry, no: &mut Refusals) {
        let Some(actual) = geometry.checked_page_bytes() else {
            no.push(Spot::Order, Why::Overflow);
            return;
        };
        if let Some(expected) = self.bytes
            && expected != actual
        {
            no.push(Spot::Bytes, Why::Bytes { expected, actual });
        }
        let mut p = 0;
        while p < geometry.plane_count {
            let region = geometry.planes[p].region_bytes;
            if !region.is_multiple_of(self.align) {
                no.push(Spot::Align, Why::Align { align: self.align, region });
            }
            p += 1;
        }
    }
}

/// How far the walk from the row outwards has come, for each plane.
struct Walk {
    /// Bytes of what has been walked.
    size: [u64; MAX_PLANES],
    /// Regions of what has been walked; 0 until the first level that makes some.
    regions: [u32; MAX_PLANES],
}

impl Walk {
    const START: Self = Self { size: [0; MAX_PLANES], regions: [0; MAX_PLANES] };

    const fn level(&mut self, geometry: &mut Geometry, p: usize, level: Level, at: Spot, no: &mut Refusals) {
        match level {
            Level::Axis(axis) | Level::Strided(axis) => {
                let Some(a) = fresh(geometry, p, axis, at, no) else { return };
                if self.regions[p] > 0 {
                    return no.push(at, Why::RegionsInside);
                }
                geometry.planes[p].steps[a] = match level {
                    Level::Strided(_) => Step::Runtime,
                    _ => Step::Bytes(self.size[p]),
                };
                match bounded(self.size[p].checked_mul(geometry.axes[a].extent)) {
                    Some(size) => self.size[p] = size,
                    None => no.push(at, Why::Overflow),
                }
            }
            Level::Pad(0) => no.push(at, Why::ZeroPad),
            Level::Pad(_) if self.regions[p] > 0 => no.push(at, Why::RegionsInside),
            Level::Pad(to) => match bounded(self.size[p].checked_next_multiple_of(to)) {
                Some(size) => self.size[p] = size,
                None => no.push(at, Why::Overflow),
            },
            Level::Regions(axis) => {
                let Some(a) = fresh(geometry, p, axis, at, no) else { return };
                let inner = if self.regions[p] == 0 { 1 } else { self.regions[p] };
                geometry.planes[p].steps[a] = Step::Regions(inner);
                let all = geometry.axes[a].extent.saturating_mul(inner as u64);
                self.set_regions(p, all, at, no);
            }
            // Reported by `split`, as a second one.
            Level::Planes | Level::StridedPlanes | Level::RegionPlanes => {}
        }
    }

    const fn set_regions(&mut self, p: usize, all: u64, at: Spot, no: &mut Refusals) {
        if all > MAX_REGIONS as u64 {
            no.push(at, Why::TooMany { what: "regions", max: MAX_REGIONS as u64, found: all });
        } else {
            // Not above MAX_REGIONS, which is an u32.
            self.regions[p] = all as u32;
        }
    }

    /// Puts the planes beside each other.
    const fn join(&mut self, geometry: &mut Geometry, level: Level, at: Spot, no: &mut Refusals) {
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
                        no.push(at, Why::RegionsUnderPlanes);
                    }
                    let strided = matches!(level, Level::StridedPlanes) && p > 0;
                    geometry.planes[p].offset = if strided { None } else { Some(bytes) };
                    bytes = match bounded(self.size[p].checked_add(bytes)) {
                        Some(bytes) => bytes,
                        None => return no.push(at, Why::Overflow),
                    };
                }
            }
            p += 1;
        }
        let mut p = 0;
        while p < geometry.plane_count {
            match level {
                Level::RegionPlanes => self.set_regions(p, regions, at, no),
                _ => self.size[p] = bytes,
            }
            p += 1;
        }
    }

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
const fn fresh(geometry: &Geometry, p: usize, axis: AxisKind, at: Spot, no: &mut Refusals) -> Option<usize> {
    let Some(a) = geometry.axis_index(axis) else {
        no.push(at, Why::UnknownAxis { axis });
        return None;
    };
    if !matches!(geometry.planes[p].steps[a], Step::Shared) {
        no.push(at, Why::RepeatedAxis { axis });
        return None;
    }
    Some(a)
}

const fn too_many(what: &'static str, max: usize, found: usize) -> Why {
    Why::TooMany { what, max: max as u64, found: found as u64 }
}

const fn bounded(bytes: Option<u64>) -> Option<u64> {
    match bytes {
        Some(bytes) if bytes <= MAX_BYTES => Some(bytes),
        _ => None,
    }
}
