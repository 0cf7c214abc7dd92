//! `order(..)`: its words, and whether they make one page.

use syn::{Expr, Ident};

use super::value::{number_of, unknown};
use crate::attribute::{Item, Value, list};
use crate::layout::ast::{Axis, Extent, Level, LevelKind, Order, Plane};
use crate::mistakes::Mistakes;

/// The words of an order, the author's own axes included.
fn words(own: &[Axis]) -> String {
    format!("{}, `planes`, `strided(..)`, `regions(..)`, `pad(N)`", axes(own))
}

fn axes(own: &[Axis]) -> String {
    let own = own.iter().filter(|axis| matches!(axis, Axis::Own(_)));
    let words: Vec<_> = Axis::KNOWN.iter().chain(own).map(|axis| format!("`{}`", axis.word())).collect();
    words.join(", ")
}

const PAD: &str = "`pad` takes a number of bytes: `pad(576)`";

/// The levels of an `order(..)`; `None` if one of them could not be parsed, so that its absence is
/// not reported as another mistake.
pub(super) fn order(item: &Item, own: &[Axis], mistakes: &mut Mistakes) -> Option<Order> {
    let span = item.key.span();
    let Value::List(tokens) = &item.value else {
        mistakes.push(syn::Error::new(span, "`order` takes levels, outermost first: `order(layer, token)`"));
        return None;
    };
    let words = match list(tokens) {
        Ok(words) => words,
        Err(mistake) => {
            mistakes.push(mistake);
            return None;
        }
    };
    let before = mistakes.len();
    let levels = words.iter().filter_map(|word| level(word, own, mistakes)).collect();
    (mistakes.len() == before).then_some(Order { levels, span })
}

fn level(word: &Item, own: &[Axis], mistakes: &mut Mistakes) -> Option<Level> {
    let span = word.key.span();
    let name = word.key.to_string();
    let kind = match (name.as_str(), &word.value) {
        ("planes", Value::None) => LevelKind::Planes,
        ("strided", Value::List(inner)) => match inside(word, inner, own, mistakes)? {
            Inside::Axis(axis) => LevelKind::Strided(axis),
            Inside::Planes => LevelKind::StridedPlanes,
        },
        ("regions", Value::List(inner)) => match inside(word, inner, own, mistakes)? {
            Inside::Axis(axis) => LevelKind::Regions(axis),
            Inside::Planes => LevelKind::RegionPlanes,
        },
        ("pad", Value::List(inner)) => {
            let number = match syn::parse2::<Expr>(inner.clone()) {
                Ok(to) => number_of("pad", &to, 1, u64::MAX, mistakes),
                Err(_) => {
                    mistakes.push(match inner.is_empty() {
                        true => syn::Error::new(span, PAD),
                        false => syn::Error::new_spanned(inner, PAD),
                    });
                    None
                }
            };
            LevelKind::Pad(number?)
        }
        ("strided" | "regions", _) => {
            mistakes
                .push(syn::Error::new(span, format!("`{name}` takes an axis or `planes`: `{name}(layer)`")));
            return None;
        }
        ("pad", _) => {
            mistakes.push(syn::Error::new(span, PAD));
            return None;
        }
        (_, value) => match (axis(&word.key, own), value) {
            (Some(axis), Value::None) => LevelKind::Axis(axis),
            (Some(axis), _) => {
                mistakes.push(syn::Error::new(
                    span,
                    format!("an axis stands alone in the order; how many is `{}`", axis.how_many()),
                ));
                return None;
            }
            (None, _) => {
                mistakes.push(unknown(&word.key, &words(own)));
                return None;
            }
        },
    };
    Some(Level { kind, span })
}

fn axis(word: &Ident, own: &[Axis]) -> Option<Axis> {
    Axis::KNOWN.iter().chain(own).find(|axis| word == axis.word()).cloned()
}

enum Inside {
    Axis(Axis),
    Planes,
}

/// The axis or the planes in the parentheses of `strided(..)` or `regions(..)`.
fn inside(
    word: &Item,
    tokens: &proc_macro2::TokenStream,
    own: &[Axis],
    mistakes: &mut Mistakes,
) -> Option<Inside> {
    let name = &word.key;
    let items = list(tokens).unwrap_or_default();
    if let [Item { key, value: Value::None }] = items.as_slice() {
        if key == "planes" {
            return Some(Inside::Planes);
        }
        if let Some(axis) = axis(key, own) {
            return Some(Inside::Axis(axis));
        }
        mistakes.push(unknown(key, &format!("{}, `planes`", axes(own))));
        return None;
    }
    mistakes
        .push(syn::Error::new(name.span(), format!("`{name}` takes one axis, or `planes`: `{name}(layer)`")));
    None
}

/// Whether the levels, planes and extents make one page.
pub(super) fn check(order: &Order, planes: &[Plane], extents: &[Extent], mistakes: &mut Mistakes) {
    let split = split(order, planes, mistakes);
    let (outer, inner) = match split {
        Some(at) => order.levels.split_at(at),
        None => (order.levels.as_slice(), [].as_slice()),
    };
    let mut path = Path { extents, seen: Vec::new(), mistakes };
    for plane in planes {
        // The split itself stays in front of the plane's own levels: it decides about regions.
        match (&plane.order, inner) {
            (Some(own), [split, ..]) => path.walk(outer.iter().chain([split]).chain(&own.levels)),
            _ => path.walk(outer.iter().chain(inner)),
        }
    }
    let own = planes.iter().filter_map(|plane| plane.order.as_ref());
    let levels: Vec<&Level> = own.chain([order]).flat_map(|order| &order.levels).collect();
    for Extent { axis, extent, .. } in extents {
        if !levels.iter().any(|level| level.kind.axis() == Some(axis)) {
            let (key, word) = (axis.key().unwrap_or("axis"), axis.word());
            mistakes.push(syn::Error::new(
                extent.span(),
                format!("`{key}` says how many, and `{word}` has no place in the order: name it there"),
            ));
        }
    }
}

/// Which level splits into planes.
fn split(order: &Order, planes: &[Plane], mistakes: &mut Mistakes) -> Option<usize> {
    let mut splits = order.levels.iter().enumerate().filter(|(_, level)| level.kind.splits());
    let first = splits.next();
    for (_, again) in splits {
        mistakes.push(syn::Error::new(
            again.span,
            "the order splits into planes twice; a page has one level of planes",
        ));
    }
    match (first, planes) {
        (Some((_, level)), [_]) => mistakes.push(syn::Error::new(
            level.span,
            "the order splits into planes, and no field begins a second one: put `#[kv(plane)]` on it",
        )),
        (None, [_, second, ..]) => mistakes.push(syn::Error::new(
            second.span,
            "a plane begins here, and the order does not say where planes split: put `planes` before the axes \
             that each has for itself, as in `order(layer, planes, token)`",
        )),
        _ => {}
    }
    for plane in planes {
        if let Some(own) = &plane.order {
            if first.is_none() && planes.len() == 1 {
                mistakes.push(syn::Error::new(
                    own.span,
                    "the page has one plane, so its levels are the page's: write them into the struct's `order(..)`",
                ));
            }
            for level in own.levels.iter().filter(|level| level.kind.splits()) {
                mistakes.push(syn::Error::new(level.span, "a plane cannot split into planes again"));
            }
        }
    }
    first.map(|(at, _)| at)
}

/// The levels of one plane from the outermost, for each plane in turn.
struct Path<'a> {
    extents: &'a [Extent],
    /// Levels that have been reported: planes share the outer ones.
    seen: Vec<*const Level>,
    mistakes: &'a mut Mistakes,
}

impl Path<'_> {
    fn walk<'l>(&mut self, levels: impl Iterator<Item = &'l Level>) {
        let mut axes = Vec::new();
        let mut bytes = false;
        for level in levels {
            if level.kind.makes_regions() && bytes {
                self.refuse(
                    level,
                    "a region cannot lie inside of a region's bytes: put it first in the order".into(),
                );
            }
            bytes |= !level.kind.makes_regions();
            let Some(axis) = level.kind.axis() else { continue };
            let (word, how_many) = (axis.word(), axis.how_many());
            if axes.contains(&axis) {
                self.refuse(level, format!("the order goes along `{word}` twice"));
            } else if !self.extents.iter().any(|extent| extent.axis == *axis) {
                self.refuse(
                    level,
                    format!("`{word}` is in the order, and nothing says how many: add `{how_many}`"),
                );
            }
            axes.push(axis);
        }
    }

    /// Reports a mistake at a level, unless one has been reported there.
    fn refuse(&mut self, level: &Level, message: String) {
        if !self.seen.contains(&std::ptr::from_ref(level)) {
            self.seen.push(std::ptr::from_ref(level));
            self.mistakes.push(syn::Error::new(level.span, message));
        }
    }
}
