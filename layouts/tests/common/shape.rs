//! Shapes as the engines' sources have them: a list of (axis, extent), outermost first. The offset
//! of an index is the value of a mixed radix number, so a shape has no steps, planes and levels.
#![allow(dead_code, unreachable_pub, reason = "not every test that includes this uses all of it")]

use kvrail_layouts::{AxisKind, Geometry, KvLayout};

/// The offset of a cell of `cell` bytes in a dense array of this shape. Each index of `at` must be
/// used.
pub fn dense(shape: &[(AxisKind, u64)], at: &[(AxisKind, u64)], cell: u64) -> u64 {
    let mut number = 0;
    let mut used = 0;
    for (axis, extent) in shape {
        let digit = match at.iter().find(|(kind, _)| kind == axis) {
            Some((_, index)) => {
                used += 1;
                *index
            }
            None => 0,
        };
        assert!(digit < *extent);
        number = number * extent + digit;
    }
    assert_eq!(used, at.len(), "the shape has all axes");
    number * cell
}

/// Asserts that `field` is where `place` puts it, at every index of the page.
pub fn everywhere<L: KvLayout>(field: &str, place: impl Fn(&[(AxisKind, u64)]) -> (u32, u64)) {
    everywhere_in(L::GEOMETRY, field, place);
}

pub fn everywhere_in(geometry: &Geometry, field: &str, place: impl Fn(&[(AxisKind, u64)]) -> (u32, u64)) {
    let field = geometry.field_named(field).unwrap();
    let axes = geometry.axes();
    let mut index = vec![0; axes.len()];
    loop {
        let found = geometry.offset_of(field, &index).unwrap();
        let at: Vec<_> = axes.iter().zip(&index).map(|(axis, index)| (axis.kind, *index)).collect();
        assert_eq!((found.region, found.offset), place(&at), "{at:?}");
        let Some(turn) = (0..index.len()).rev().find(|a| index[*a] + 1 < axes[*a].extent) else { return };
        index[turn] += 1;
        index[turn + 1..].fill(0);
    }
}

/// `at` without an axis that steps outside of the shape.
pub fn without(at: &[(AxisKind, u64)], axis: AxisKind) -> Vec<(AxisKind, u64)> {
    at.iter().copied().filter(|(kind, _)| *kind != axis).collect()
}

pub fn index(at: &[(AxisKind, u64)], axis: AxisKind) -> u64 {
    at.iter().find(|(kind, _)| *kind == axis).unwrap().1
}
