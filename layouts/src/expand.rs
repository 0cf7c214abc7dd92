//! What the expansion of `#[derive(KvLayout)]` calls.
//!
//! The derive knows tokens, and no sizes; [`Declaration::build`](crate::Declaration::build) knows
//! sizes, and no tokens. A [`Spot`] is what both know. The derive asks about every spot, in a constant
//! that has the spot's token for its span, so that each mistake is reported there and only there.

use crate::declaration::{Declaration, FieldDecl, PlaneDecl};
use crate::element::ElementKind;
use crate::geometry::Geometry;
use crate::refusal::{Refusals, Spot};

/// Nothing, if the declaration is right at `at`.
///
/// # Panics
///
/// With the mistake, if it is not. Called in a constant, that is a compile error at the call.
#[track_caller]
pub const fn accept(built: &Result<Geometry, Refusals>, at: Spot) {
    if let Err(refusals) = built
        && let Some(refusal) = refusals.at(at)
    {
        panic!("{}", refusal.text().as_str());
    }
}

/// The geometry; or, after mistakes that [`accept`] reports, that of a page of one byte, so that what
/// uses the layout is not reported as well.
#[must_use]
pub const fn geometry_or_stub(built: &Result<Geometry, Refusals>) -> Geometry {
    match built {
        Ok(geometry) => *geometry,
        Err(_) => STUB,
    }
}

/// A page of one byte, for a declaration that has been refused.
pub const STUB: Geometry = Declaration {
    planes: &[PlaneDecl::of(&[FieldDecl::new("refused", ElementKind::U8, 1)])],
    ..Declaration::EMPTY
}
.expect();
