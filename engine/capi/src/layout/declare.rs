//! A declaration in C becomes the one that the derive writes.

use engine::layouts::{
    Axis, AxisKind, Declaration, ElementKind, FieldDecl, Level, Placement, PlaneDecl, Selection, Spread,
};

use super::interned::{Interned, kept};
use crate::abi::constants::{
    KVRAIL_AXIS_BLOCK, KVRAIL_AXIS_HEAD, KVRAIL_AXIS_LAYER, KVRAIL_AXIS_OTHER, KVRAIL_AXIS_PART,
    KVRAIL_AXIS_TOKEN, KVRAIL_DISTANCE_PLANE, KVRAIL_DISTANCE_REGION_BYTES, KVRAIL_DISTANCE_STRIDE,
    KVRAIL_ELEMENT_BF16, KVRAIL_ELEMENT_E4M3, KVRAIL_ELEMENT_E5M2, KVRAIL_ELEMENT_F16, KVRAIL_ELEMENT_F32,
    KVRAIL_ELEMENT_FP4X2, KVRAIL_ELEMENT_I8, KVRAIL_ELEMENT_U8, KVRAIL_ELEMENT_UE8M0, KVRAIL_LEVEL_AXIS,
    KVRAIL_LEVEL_PAD, KVRAIL_LEVEL_PLANES, KVRAIL_LEVEL_REGION_PLANES, KVRAIL_LEVEL_REGIONS,
    KVRAIL_LEVEL_STRIDED, KVRAIL_LEVEL_STRIDED_PLANES, KVRAIL_RANK_OPEN, KVRAIL_SPREAD_REPLICATED,
    KVRAIL_SPREAD_SHARDED, KVRAIL_SPREAD_STAGE, KVRAIL_SPREAD_WHOLE,
};
use crate::abi::layout_types::{
    kvrail_axis, kvrail_declaration, kvrail_distance, kvrail_level, kvrail_plane, kvrail_range,
};
use crate::border::Caller;
use crate::error::CapiError;

/// The most parts of each kind that are looked at: no page has as many.
const MOST: usize = 1024;

fn bad(what: &'static str, value: u32, allowed: &'static str) -> CapiError {
    CapiError::Value { what, value: value.into(), allowed }
}

/// The axis of this number.
pub(crate) fn axis_kind(number: u32) -> Result<AxisKind, CapiError> {
    Ok(match number {
        KVRAIL_AXIS_LAYER => AxisKind::Layer,
        KVRAIL_AXIS_TOKEN => AxisKind::Token,
        KVRAIL_AXIS_PART => AxisKind::Part,
        KVRAIL_AXIS_HEAD => AxisKind::Head,
        KVRAIL_AXIS_BLOCK => AxisKind::Block,
        other => match other.checked_sub(KVRAIL_AXIS_OTHER).map(u8::try_from) {
            Some(Ok(tag)) => AxisKind::Other(tag),
            _ => return Err(bad("axis", number, "a KVRAIL_AXIS_ constant")),
        },
    })
}

fn axis(given: &kvrail_axis) -> Result<Axis, CapiError> {
    let &kvrail_axis { kind, spread, extent, ranks, rank, first, of } = given;
    let spread = match spread {
        KVRAIL_SPREAD_WHOLE => Spread::Whole,
        KVRAIL_SPREAD_SHARDED => Spread::Sharded { ranks, rank: (rank != KVRAIL_RANK_OPEN).then_some(rank) },
        KVRAIL_SPREAD_REPLICATED => Spread::Replicated { ranks },
        KVRAIL_SPREAD_STAGE => Spread::Stage { first, of },
        _ => return Err(bad("axis.spread", spread, "a KVRAIL_SPREAD_ constant")),
    };
    Ok(Axis { kind: axis_kind(kind)?, extent, spread })
}

fn level(given: &kvrail_level) -> Result<Level, CapiError> {
    let &kvrail_level { kind, axis, pad } = given;
    Ok(match kind {
        KVRAIL_LEVEL_AXIS => Level::Axis(axis_kind(axis)?),
        KVRAIL_LEVEL_STRIDED => Level::Strided(axis_kind(axis)?),
        KVRAIL_LEVEL_REGIONS => Level::Regions(axis_kind(axis)?),
        KVRAIL_LEVEL_PLANES => Level::Planes,
        KVRAIL_LEVEL_STRIDED_PLANES => Level::StridedPlanes,
        KVRAIL_LEVEL_REGION_PLANES => Level::RegionPlanes,
        KVRAIL_LEVEL_PAD => Level::Pad(pad),
        _ => return Err(bad("level.kind", kind, "a KVRAIL_LEVEL_ constant")),
    })
}

fn element(kind: u32) -> Result<ElementKind, CapiError> {
    Ok(match kind {
        KVRAIL_ELEMENT_U8 => ElementKind::U8,
        KVRAIL_ELEMENT_I8 => ElementKind::I8,
        KVRAIL_ELEMENT_F32 => ElementKind::F32,
        KVRAIL_ELEMENT_F16 => ElementKind::F16,
        KVRAIL_ELEMENT_BF16 => ElementKind::Bf16,
        KVRAIL_ELEMENT_E4M3 => ElementKind::E4m3,
        KVRAIL_ELEMENT_E5M2 => ElementKind::E5m2,
        KVRAIL_ELEMENT_UE8M0 => ElementKind::Ue8m0,
        KVRAIL_ELEMENT_FP4X2 => ElementKind::Fp4x2,
        _ => return Err(bad("field.element", kind, "a KVRAIL_ELEMENT_ constant")),
    })
}

/// At most [`MOST`], so that a wrong number does not cost memory before the checks.
fn few(what: &'static str, count: usize) -> Result<usize, CapiError> {
    if count <= MOST {
        return Ok(count);
    }
    Err(CapiError::Value { what, value: count as u64, allowed: "as many as the list has, at most 1024" })
}

fn levels(
    caller: &Caller<'_>,
    what: &'static str,
    order: *const kvrail_level,
    count: usize,
) -> Result<Vec<Level>, CapiError> {
    caller.list(what, order, few(what, count)?)?.iter().map(level).collect()
}

/// The fields of a plane, and its own order.
type Plane = (Vec<FieldDecl>, Option<Vec<Level>>);

fn plane(caller: &Caller<'_>, given: &kvrail_plane) -> Result<Plane, CapiError> {
    let count = few("plane.field_count", given.field_count)?;
    let fields = caller.list("plane.fields", given.fields, count)?.iter().map(|field| {
        let name = kept(caller.text("field.name", field.name)?)?;
        Ok(FieldDecl::new(name, element(field.element)?, field.count))
    });
    let order = match given.order.is_null() {
        true => None,
        false => Some(levels(caller, "plane.order", given.order, given.order_count)?),
    };
    Ok((fields.collect::<Result<_, CapiError>>()?, order))
}

fn place(placement: Placement, given: &kvrail_distance) -> Result<Placement, CapiError> {
    let (plane, bytes) = (given.plane as usize, given.bytes);
    Ok(match given.kind {
        KVRAIL_DISTANCE_STRIDE => placement.stride(plane, axis_kind(given.axis)?, bytes),
        KVRAIL_DISTANCE_PLANE => placement.plane(plane, bytes),
        KVRAIL_DISTANCE_REGION_BYTES => placement.region_bytes(plane, bytes),
        kind => return Err(bad("distance.kind", kind, "a KVRAIL_DISTANCE_ constant")),
    })
}

/// The layout that `given` declares.
pub(crate) fn declare(
    caller: &Caller<'_>,
    given: &kvrail_declaration,
) -> Result<&'static Interned, CapiError> {
    let name = caller.text("declaration.name", given.name)?;
    let axes =
        caller.list("declaration.axes", given.axes, few("declaration.axis_count", given.axis_count)?)?;
    let axes = axes.iter().map(axis).collect::<Result<Vec<_>, _>>()?;
    let order = levels(caller, "declaration.order", given.order, given.order_count)?;
    let count = few("declaration.plane_count", given.plane_count)?;
    let planes = caller.list("declaration.planes", given.planes, count)?;
    let planes = planes.iter().map(|given| plane(caller, given)).collect::<Result<Vec<_>, _>>()?;
    let planes: Vec<_> =
        planes.iter().map(|(fields, order)| PlaneDecl { fields, order: order.as_deref() }).collect();
    let geometry = Declaration {
        axes: &axes,
        order: &order,
        planes: &planes,
        tokens_per_state: given.tokens_per_state.max(1),
        align: given.align.max(1),
        bytes: (given.bytes != 0).then_some(given.bytes),
        version: given.version,
        swizzle: given.swizzle,
    }
    .build()?;
    let count = few("declaration.distance_count", given.distance_count)?;
    let distances = caller.list("declaration.distances", given.distances, count)?;
    let geometry = match distances {
        [] => geometry,
        some => some.iter().try_fold(geometry.place(), place)?.finish()?,
    };
    Interned::keep(kept(name)?, &geometry, false)
}

/// The part of a page that `ranges` select; all, where there are none.
pub(crate) fn selection(ranges: &[kvrail_range]) -> Result<Selection, CapiError> {
    ranges
        .iter()
        .try_fold(Selection::ALL, |all, range| Ok(all.along(axis_kind(range.axis)?, range.start, range.len)))
}
