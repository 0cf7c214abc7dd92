//! A page of any layout in one region, in another order.

use crate::layouts::{Declaration, FieldDecl, Geometry, Level, PlaneDecl};

/// Pages of `of` in one region without padding: each field by itself, and its axes turned round.
pub(crate) const fn packed(of: &Geometry) -> Geometry {
    const NONE: FieldDecl = FieldDecl::of::<u8>("none", 1);
    let mut fields = [NONE; 16];
    let count = of.fields().len();
    let mut i = 0;
    while i < count {
        let field = &of.fields()[i];
        fields[i] = FieldDecl::new(field.name(), field.kind(), field.count());
        i += 1;
    }
    let mut planes = [const { PlaneDecl::of(&[]) }; 16];
    let mut i = 0;
    while i < count {
        planes[i] = PlaneDecl::of(std::slice::from_ref(&fields[i]));
        i += 1;
    }
    let mut order = [Level::Planes; 17];
    let axes = of.axes();
    let mut i = 0;
    while i < axes.len() {
        order[i + 1] = Level::Axis(axes[axes.len() - 1 - i].kind);
        i += 1;
    }
    // One plane needs no level.
    let order = order.split_at(axes.len() + 1).0.split_at(if count == 1 { 1 } else { 0 }).1;
    Declaration {
        axes,
        order,
        planes: planes.split_at(count).0,
        tokens_per_state: of.tokens_per_state(),
        version: of.version(),
        swizzle: of.swizzle(),
        ..Declaration::EMPTY
    }
    .expect()
}
