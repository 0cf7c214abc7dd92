//! The documentation of a page: its declaration, as the author wrote it.

use quote::ToTokens as _;

use crate::layout::ast::{Axis, LevelKind, Number, Order, Page, Spread};

/// Bytes of a line, about.
const LINE: usize = 85;

/// The order, the extents and the rest, in lines that are not too long.
pub(super) fn declaration(page: &Page) -> Vec<String> {
    let mut terms = vec![format!("`order({})`", order(&page.order))];
    for extent in &page.axes {
        let count = number(&extent.extent);
        match (&extent.axis, extent.axis.key()) {
            (_, Some(key)) => terms.push(format!("`{key} = {count}`")),
            (Axis::Own(own), None) => {
                terms.push(format!("`axis({} = {count}, tag = {})`", own.word, own.tag))
            }
            (_, None) => {}
        }
    }
    for extent in &page.axes {
        let Some(spread) = &extent.spread else { continue };
        let axis = extent.axis.word();
        terms.push(match spread {
            Spread::Replicated { ranks } => format!("`replicated({axis}, ranks = {})`", number(ranks)),
            Spread::Sharded { ranks, rank: None } => format!("`sharded({axis}, ranks = {})`", number(ranks)),
            Spread::Sharded { ranks, rank: Some(rank) } => {
                format!("`sharded({axis}, ranks = {}, rank = {})`", number(ranks), number(rank))
            }
            Spread::Stage { first, of } => {
                format!("`stage({axis}, first = {}, of = {})`", number(first), number(of))
            }
        });
    }
    let numbers = [("tokens_per_state", &page.tokens_per_state, 1), ("align", &page.align, 1)];
    let tags = [("version", &page.version, 0), ("swizzle", &page.swizzle, 0)];
    for (key, value, default) in numbers.into_iter().chain(tags) {
        if value.value() != Some(default) {
            terms.push(format!("`{key} = {}`", number(value)));
        }
    }
    for plane in &page.planes {
        if let (Some(own), Some(field)) = (&plane.order, plane.fields.first()) {
            terms.push(format!("from `{}` on `order({})`", field.name, order(own)));
        }
    }
    lines(&terms)
}

/// One sentence of these terms.
fn lines(terms: &[String]) -> Vec<String> {
    let mut lines = Vec::new();
    let mut line = String::new();
    for (i, term) in terms.iter().enumerate() {
        if !line.is_empty() && line.len() + term.len() > LINE {
            lines.push(std::mem::take(&mut line));
        }
        line = format!("{line} {term}{}", if i + 1 < terms.len() { "," } else { "." });
    }
    lines.push(line);
    lines
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
