//! What `cargo doc` shows of a page: the declaration, as it was written.

use std::fmt::Write;

use quote::ToTokens as _;

use crate::layout::ast::{Axis, Holds, LevelKind, Number, Order, Page};

/// The order and the extents.
pub(super) fn declaration(page: &Page) -> String {
    let mut text = format!(" `order({})`", order(&page.order));
    for extent in &page.axes {
        let count = number(&extent.extent);
        let said = match (&extent.axis, extent.axis.key()) {
            (_, Some(key)) => write!(text, ", `{key} = {count}`"),
            (Axis::Own(own), None) => write!(text, ", `axis({} = {count}, tag = {})`", own.word, own.tag),
            (_, None) => Ok(()),
        };
        said.expect("a string takes all");
    }
    for extent in &page.axes {
        let Some(spread) = &extent.spread else { continue };
        let (axis, ranks) = (extent.axis.word(), number(&spread.ranks));
        let said = match &spread.holds {
            Holds::All => write!(text, ", `replicated({axis}, ranks = {ranks})`"),
            Holds::Part(None) => write!(text, ", `sharded({axis}, ranks = {ranks})`"),
            Holds::Part(Some(rank)) => {
                write!(text, ", `sharded({axis}, ranks = {ranks}, rank = {})`", number(rank))
            }
        };
        said.expect("a string takes all");
    }
    let numbers = [("tokens_per_state", &page.tokens_per_state, 1), ("align", &page.align, 1)];
    let tags = [("version", &page.version, 0), ("swizzle", &page.swizzle, 0)];
    for (key, value, unsaid) in numbers.into_iter().chain(tags) {
        if value.value() != Some(unsaid) {
            write!(text, ", `{key} = {}`", number(value)).expect("a string takes all");
        }
    }
    for plane in &page.planes {
        if let (Some(own), Some(field)) = (&plane.order, plane.fields.first()) {
            write!(text, "; from `{}` on `order({})`", field.name, order(own)).expect("a string takes all");
        }
    }
    text.push('.');
    text
}

fn order(order: &Order) -> String {
    let levels = order.levels.iter().map(|level| match &level.kind {
        LevelKind::Axis(axis) => axis.word().into(),
        LevelKind::Strided(axis) => format!("strided({})", axis.word()),
        LevelKind::Regions(axis) => format!("regions({})", axis.word()),
        LevelKind::Planes => "planes".into(),
        LevelKind::StridedPlanes => "strided(planes)".into(),
        LevelKind::RegionPlanes => "regions(planes)".into(),
        LevelKind::Pad(to) => format!("pad({})", number(to)),
    });
    levels.collect::<Vec<String>>().join(", ")
}

fn number(number: &Number) -> String {
    match number {
        Number::Literal { value, .. } => value.to_string(),
        Number::Expr(expr) => expr.to_token_stream().to_string(),
    }
}
