//! The functions that the expansion of `#[derive(KvLayout)]` calls.
//!
//! The derive knows tokens but no sizes; [`Declaration::build`](crate::Declaration::build) knows
//! sizes but no tokens. Both know a [`Spot`]. The derive emits one constant for each spot, with the
//! span of the spot's token; the constant panics if the declaration has a mistake there. So each
//! mistake is reported on its token, and only there.

use crate::declaration::error::{DeclarationErrorKind, DeclarationErrors, Spot, zero_extent};
use crate::declaration::{Declaration, FieldDecl, PlaneDecl};
use crate::element::ElementKind;
use crate::field::FieldOf;
use crate::geometry::{Geometry, MAX_AXES};
use crate::text::Text;

/// Does nothing if the declaration has no mistake at `at`.
///
/// # Panics
///
/// With the mistake's text, if it has one. In a constant, that is a compile error at the call.
#[track_caller]
pub const fn accept(built: &Result<Geometry, DeclarationErrors>, at: Spot) {
    if let Err(errors) = built
        && let Some(error) = errors.at(at)
    {
        panic!("{}", error.text().as_str());
    }
}

/// As [`accept`], at an axis that the author calls `word`.
///
/// # Panics
///
/// As `accept`.
#[track_caller]
pub const fn accept_axis(built: &Result<Geometry, DeclarationErrors>, axis: usize, word: &str) {
    if let Err(errors) = built
        && let Some(error) = errors.at(Spot::Axis(axis))
        && let DeclarationErrorKind::ZeroExtent { .. } = error.why
    {
        panic!("{}", zero_extent(Text::new().str(word)).as_str());
    }
    accept(built, Spot::Axis(axis));
}

/// Does nothing if `tokens` are whole states of `per` tokens. A `per` of 0 is another mistake,
/// which is reported elsewhere.
///
/// # Panics
///
/// If they are not, with the nearest numbers that are.
#[track_caller]
pub const fn accept_states(tokens: u64, per: u64) {
    if per == 0 || tokens.is_multiple_of(per) {
        return;
    }
    let text = Text::new().num(tokens).str(" tokens are no whole number of states of ").num(per).str("; ");
    let less = tokens - tokens % per;
    let text = match (less, less.checked_add(per)) {
        (0, Some(more)) => text.num(more),
        (less, Some(more)) => text.num(less).str(" or ").num(more),
        (less, None) => text.num(less),
    };
    panic!("{}", text.str(" would be").as_str());
}

/// The extent of a token axis: how many states `tokens` are. For a `per` of 0, which is refused
/// elsewhere, it is `tokens`.
#[must_use]
pub const fn states(tokens: u64, per: u64) -> u64 {
    match tokens.checked_div(per) {
        Some(states) => states,
        None => tokens,
    }
}

/// A number that the author wrote as an expression: a `usize`, as lengths of arrays are.
#[must_use]
pub const fn number(number: usize) -> u64 {
    number as u64
}

/// A number that the author wrote as an expression and that must be below 2^32; [`accept_small`]
/// reports a larger one.
#[must_use]
pub const fn small(number: usize) -> u32 {
    if number as u64 > u32::MAX as u64 { u32::MAX } else { number as u32 }
}

/// Does nothing if a number is below 2^32.
///
/// # Panics
///
/// If it is not.
#[track_caller]
pub const fn accept_small(number: usize) {
    if number as u64 > u32::MAX as u64 {
        let text = Text::new().num(number as u64).str(" is too large; say at most 4294967295");
        panic!("{}", text.as_str());
    }
}

/// The field of this number, as the derive counts them.
#[must_use]
pub const fn field<L, E>(index: usize) -> FieldOf<L, E> {
    FieldOf::numbered(index)
}

/// Compares the geometry with what the compiler knows: each field is as long as its type, begins
/// where the fields before it in its row end, and its last row ends within its region. Does nothing
/// after mistakes.
///
/// # Panics
///
/// If they differ. That is a mistake in this crate, not the author's.
pub const fn cross_check(built: &Result<Geometry, DeclarationErrors>, sizes: &[usize]) {
    let Ok(geometry) = built else { return };
    assert!(sizes.len() == geometry.field_count, "kvrail: the derive counted other fields");
    let mut row = 0;
    let mut f = 0;
    while f < sizes.len() {
        let field = &geometry.fields[f];
        if f > 0 && geometry.fields[f - 1].plane != field.plane {
            row = 0;
        }
        assert!(field.bytes() == sizes[f] as u64, "kvrail: the compiler finds another size of a field");
        assert!(field.offset == row, "kvrail: a field is not where those before it end");
        row += sizes[f] as u64;
        assert!(row <= geometry.planes[field.plane].region_bytes, "kvrail: a row is longer than its region");
        if geometry.is_placed() {
            let mut last = [0; MAX_AXES];
            let mut a = 0;
            while a < geometry.axis_count {
                last[a] = geometry.axes[a].extent - 1;
                a += 1;
            }
            let (last, _) = last.split_at(geometry.axis_count);
            match geometry.offset_of(f, last) {
                Ok(place) => assert!(
                    place.offset + sizes[f] as u64 <= geometry.planes[field.plane].region_bytes,
                    "kvrail: the last row of a field ends outside of its region"
                ),
                Err(_) => panic!("kvrail: the last row of a field has no place"),
            }
        }
        f += 1;
    }
}

/// The geometry; or, after mistakes that [`accept`] reports, the geometry of a page of one byte, so
/// that uses of the layout are not reported as well.
#[must_use]
pub const fn geometry_or_stub(built: &Result<Geometry, DeclarationErrors>) -> Geometry {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalogue::SglV32Indexer;
    use crate::layout::KvLayout;

    const BUILT: Result<Geometry, DeclarationErrors> = Ok(*SglV32Indexer::GEOMETRY);

    #[test]
    fn the_compilers_sizes_are_the_declared_ones() {
        cross_check(&BUILT, &[128, 4]);
    }

    #[test]
    #[should_panic = "another size"]
    fn a_field_of_another_size_is_found() {
        cross_check(&BUILT, &[128, 8]);
    }

    #[test]
    #[should_panic = "counted other fields"]
    fn a_field_too_many_is_found() {
        cross_check(&BUILT, &[128, 4, 1]);
    }

    #[test]
    #[should_panic = "ends outside of its region"]
    fn a_row_beyond_its_region_is_found() {
        let mut wrong = *SglV32Indexer::GEOMETRY;
        wrong.planes[1].region_bytes -= 1;
        cross_check(&Ok(wrong), &[128, 4]);
    }

    #[test]
    #[should_panic = "not where those before it end"]
    fn a_field_that_is_elsewhere_is_found() {
        let mut wrong = *SglV32Indexer::GEOMETRY;
        wrong.fields[1].offset = 4;
        cross_check(&Ok(wrong), &[128, 4]);
    }

    #[test]
    #[should_panic = "252 tokens are no whole number of states of 8; 248 or 256 would be"]
    fn tokens_are_whole_states() {
        accept_states(256, 8);
        accept_states(250, 0);
        accept_states(252, 8);
    }
}
