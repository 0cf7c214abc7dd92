//! Axes of the author's own, and how axes are spread over ranks.

use std::rc::Rc;

use proc_macro2::Span;

use super::value::number;
use crate::attribute::{Item, Value, list};
use crate::layout::ast::{Axis, Extent, Number, Own, Spread};
use crate::mistakes::Mistakes;

/// The words of an order that are not axes.
const LEVELS: [&str; 4] = ["planes", "strided", "regions", "pad"];

/// All `axis(word = N, tag = N)` of the struct.
pub(super) fn own(items: &[Item], mistakes: &mut Mistakes) -> Vec<Extent> {
    let mut all: Vec<Extent> = Vec::new();
    for item in items.iter().filter(|item| item.key == "axis") {
        let Some((word, extent, tag)) = one(item, mistakes) else { continue };
        let name = word.key.to_string();
        let span = word.key.span();
        if Axis::KNOWN.iter().any(|axis| axis.word() == name) || LEVELS.contains(&name.as_str()) {
            mistakes.push(syn::Error::new(
                span,
                format!("`{name}` is a word of the order already: call the axis otherwise"),
            ));
            continue;
        }
        let tag = tag.or_else(|| {
            (0..=u8::MAX)
                .find(|tag| !all.iter().any(|e| matches!(&e.axis, Axis::Own(own) if own.tag == *tag)))
                .map(|tag| (tag, span))
        });
        let Some((tag, at)) = tag else { continue };
        let same = all.iter().find_map(|extent| match &extent.axis {
            Axis::Own(own) if own.word == name => {
                Some(syn::Error::new(span, format!("there is an axis `{name}` already")))
            }
            Axis::Own(own) if own.tag == tag => Some(syn::Error::new(
                at,
                format!(
                    "axis `{}` has the tag {tag} already, and tags tell axes apart in the fingerprint",
                    own.word
                ),
            )),
            _ => None,
        });
        mistakes.extend(same);
        all.push(Extent { axis: Axis::Own(Rc::new(Own { word: name, tag })), extent, spread: None });
    }
    all
}

type Tag = Option<(u8, Span)>;

fn one(item: &Item, mistakes: &mut Mistakes) -> Option<(Item, Number, Tag)> {
    let usage =
        "`axis` takes a word for the order, and how many: `axis(tile = 4)`, or `axis(tile = 4, tag = 7)`";
    let Value::List(tokens) = &item.value else {
        mistakes.push(syn::Error::new(item.key.span(), usage));
        return None;
    };
    let items = match list(tokens) {
        Ok(items) => items,
        Err(mistake) => {
            mistakes.push(mistake);
            return None;
        }
    };
    let mut items = items.into_iter();
    let (Some(word), tag, None) = (items.next(), items.next(), items.next()) else {
        mistakes.push(syn::Error::new(item.key.span(), usage));
        return None;
    };
    let tag = match tag {
        None => None,
        Some(tag) if tag.key == "tag" => match number(&tag, 0, u8::MAX.into(), mistakes)? {
            Number::Literal { value, span } => Some((u8::try_from(value).ok()?, span)),
            Number::Expr(expr) => {
                mistakes.push(syn::Error::new_spanned(expr, "`tag` is a literal from 0 to 255"));
                return None;
            }
        },
        Some(other) => {
            mistakes.push(syn::Error::new(other.key.span(), usage));
            return None;
        }
    };
    // A count that cannot be read is still a count, so that it is not reported as missing, too.
    let extent =
        number(&word, 1, u64::MAX, mistakes).unwrap_or(Number::Literal { value: 1, span: word.key.span() });
    Some((word, extent, tag))
}

/// `sharded(axis, ranks = N)`, `sharded(axis, ranks = N, rank = R)`, `replicated(axis, ranks = N)`
/// and `stage(axis, first = N, of = N)`.
pub(super) fn spread(item: &Item, extents: &mut [Extent], mistakes: &mut Mistakes) {
    let key = item.key.to_string();
    let usage = match key.as_str() {
        "sharded" => {
            "`sharded` takes an axis and how many ranks share it: `sharded(head, ranks = 8)`, \
                      or `sharded(head, ranks = 8, rank = 3)` for one rank's"
        }
        "replicated" => {
            "`replicated` takes an axis and how many ranks hold all of it: `replicated(layer, ranks = 8)`"
        }
        _ => {
            "`stage` takes an axis, its first index here, and how many the whole has: \
             `stage(layer, first = 16, of = 61)`"
        }
    };
    let Value::List(tokens) = &item.value else {
        mistakes.push(syn::Error::new(item.key.span(), usage));
        return;
    };
    let items = match list(tokens) {
        Ok(items) => items,
        Err(mistake) => return mistakes.push(mistake),
    };
    let (mut axis, mut given) = (None, Given::default());
    for inner in &items {
        let word = inner.key.to_string();
        match given.place(&key, &word) {
            Some((place, least, most)) => match number(inner, least, most, mistakes) {
                Some(number) => *place = Some(number),
                None => return,
            },
            None if axis.is_none() && matches!(inner.value, Value::None) => axis = Some(&inner.key),
            None => return mistakes.push(syn::Error::new(inner.key.span(), usage)),
        }
    }
    let (Some(word), Some(spread)) = (axis, given.spread(&key)) else {
        return mistakes.push(syn::Error::new(item.key.span(), usage));
    };
    if let Spread::Sharded { ranks, rank: Some(Number::Literal { value: rank, span }) } = &spread
        && let Some(all) = ranks.value()
        && *rank >= all
    {
        return mistakes
            .push(syn::Error::new(*span, format!("rank {rank} of {all} ranks: ranks count from 0")));
    }
    match extents.iter_mut().find(|extent| word == extent.axis.word()) {
        Some(extent) if extent.spread.is_some() => mistakes
            .push(syn::Error::new(word.span(), format!("`{word}` is spread over ranks twice; say it once"))),
        Some(extent) => extent.spread = Some(spread),
        None => mistakes.push(syn::Error::new(
            word.span(),
            match Axis::KNOWN.iter().find(|axis| word == axis.word()) {
                Some(axis) => {
                    format!("nothing says how many `{word}` this page has: add `{}`", axis.how_many())
                }
                None => format!("`{word}` is no axis of this page"),
            },
        )),
    }
}

/// The numbers of one `sharded(..)`, `replicated(..)` or `stage(..)`.
#[derive(Default)]
struct Given {
    ranks: Option<Number>,
    rank: Option<Number>,
    first: Option<Number>,
    of: Option<Number>,
}

impl Given {
    /// Where the number after `word` goes, its least and its largest value; `None` if `key` takes
    /// no such number, or has it already.
    fn place(&mut self, key: &str, word: &str) -> Option<(&mut Option<Number>, u64, u64)> {
        let (place, least, most) = match (key, word) {
            ("sharded" | "replicated", "ranks") => (&mut self.ranks, 1, u32::MAX.into()),
            ("sharded", "rank") => (&mut self.rank, 0, u32::MAX.into()),
            ("stage", "first") => (&mut self.first, 0, u64::MAX),
            ("stage", "of") => (&mut self.of, 1, u64::MAX),
            _ => return None,
        };
        place.is_none().then_some((place, least, most))
    }

    /// What they say together; `None` if a number is missing.
    fn spread(self, key: &str) -> Option<Spread> {
        match key {
            "sharded" => Some(Spread::Sharded { ranks: self.ranks?, rank: self.rank }),
            "replicated" => Some(Spread::Replicated { ranks: self.ranks? }),
            _ => Some(Spread::Stage { first: self.first?, of: self.of? }),
        }
    }
}
