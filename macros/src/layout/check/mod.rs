//! Gives the items their meaning, and finds every mistake in them.
//!
//! A mistake is recorded and the check goes on. A value that stays unknown because of it is not
//! reported as another mistake.

mod axes;
mod order;
mod planes;
mod value;

use syn::ext::IdentExt as _;
use syn::{
    DeriveInput, GenericParam, Generics, Path, PredicateType, Type, TypeParamBound, WherePredicate,
    parse_quote,
};

use crate::attribute::items;
use crate::krate;
use crate::layout::ast::{Axis, Extent, Number, Order, Page};
use crate::mistakes::{Mistakes, SeenKeys};
pub(crate) use planes::{constant, element};
use value::{number, path, small, text, unknown};

const KEYS: &str = "`order(..)`, `layers`, `tokens`, `parts`, `heads`, `blocks`, `axis(..)`, `sharded(..)`, \
                    `replicated(..)`, `stage(..)`, `tokens_per_state`, `align`, `bytes`, `version`, `swizzle`, `name`, `crate`";

pub(crate) fn check(input: &DeriveInput, krate: &Path) -> Result<Page, Vec<syn::Error>> {
    let mut mistakes = Mistakes::new();
    let head = head(input, &mut mistakes);
    let own: Vec<Axis> = head.extents.iter().map(|extent| extent.axis.clone()).collect();
    let planes = planes::planes(input, &own, &mut mistakes);
    if let (Some(order), Some(planes)) = (&head.order, &planes) {
        order::check(order, planes, &head.extents, &mut mistakes);
    }
    states(&head, &mut mistakes);
    if let (Some(order), Some(planes), true) = (head.order, planes, mistakes.is_empty()) {
        let here = |value| Number::Literal { value, span: input.ident.span() };
        return Ok(Page {
            ident: input.ident.clone(),
            vis: input.vis.clone(),
            generics: generics(input, krate),
            krate: krate.clone(),
            name: head.name.unwrap_or_else(|| input.ident.unraw().to_string()),
            axes: head.extents,
            order,
            planes,
            tokens_per_state: head.tokens_per_state.unwrap_or(here(1)),
            align: head.align.unwrap_or(here(1)),
            bytes: head.bytes,
            version: head.version.unwrap_or(here(0)),
            swizzle: head.swizzle.unwrap_or(here(0)),
        });
    }
    Err(mistakes)
}

/// The path of kvrail-layouts' items: `layouts` in the path that `crate = ".."` gives, and a
/// mistake if that path is missing and kvrail is renamed.
pub(crate) fn krate(input: &DeriveInput, renamed: Option<&str>) -> (Path, Option<syn::Error>) {
    let given = items(&input.attrs, &mut Mistakes::new())
        .iter()
        .filter(|item| item.key == "crate")
        .find_map(|item| path(item, &mut Mistakes::new()));
    let (path, hint) = match given {
        Some(path) => (path, None),
        None => krate::default_path(renamed, &input.ident),
    };
    (parse_quote!(#path::layouts), hint)
}

/// The struct's parameters, with the bound `Element` on each type: fields are made of them. The
/// bound stands where the type's other bounds stand, because a lint asks for one place.
pub(crate) fn generics(input: &DeriveInput, krate: &Path) -> Generics {
    let mut generics = input.generics.clone();
    let element: TypeParamBound = parse_quote!(#krate::Element);
    for parameter in generics.params.iter_mut() {
        let GenericParam::Type(parameter) = parameter else { continue };
        let ident = &parameter.ident;
        let bounded = generics.where_clause.iter_mut().flat_map(|clause| &mut clause.predicates).find_map(
            |predicate| match predicate {
                WherePredicate::Type(PredicateType { bounded_ty: Type::Path(ty), bounds, .. })
                    if ty.path.is_ident(ident) =>
                {
                    Some(bounds)
                }
                _ => None,
            },
        );
        match bounded {
            Some(bounds) if parameter.bounds.is_empty() => bounds.push(element.clone()),
            _ => parameter.bounds.push(element.clone()),
        }
    }
    generics
}

/// The items on the struct.
#[derive(Default)]
struct Head {
    order: Option<Order>,
    extents: Vec<Extent>,
    tokens_per_state: Option<Number>,
    align: Option<Number>,
    bytes: Option<Number>,
    version: Option<Number>,
    swizzle: Option<Number>,
    name: Option<String>,
}

fn head(input: &DeriveInput, mistakes: &mut Mistakes) -> Head {
    let before = mistakes.len();
    let mut head = Head::default();
    let mut seen = SeenKeys::default();
    let items = items(&input.attrs, mistakes);
    // An order may name the author's own axes before they are declared.
    head.extents = axes::own(&items, mistakes);
    let own: Vec<Axis> = head.extents.iter().map(|extent| extent.axis.clone()).collect();
    let mut spreads = Vec::new();
    for item in &items {
        let key = item.key.to_string();
        match key.as_str() {
            "axis" => continue,
            // Checked after all extents are known, wherever they stand.
            "sharded" | "replicated" | "stage" => {
                spreads.push(item);
                continue;
            }
            _ => {}
        }
        if !seen.first(&item.key, mistakes) {
            continue;
        }
        let span = item.key.span();
        if let Some(axis) = Axis::KNOWN.into_iter().find(|axis| axis.key() == Some(key.as_str())) {
            // A count that cannot be read is still a count, so that it is not reported as missing,
            // too.
            let extent = number(item, 1, u64::MAX, mistakes).unwrap_or(Number::Literal { value: 1, span });
            head.extents.push(Extent { axis, extent, spread: None });
            continue;
        }
        if let Some(axis) = Axis::KNOWN.into_iter().find(|axis| axis.word() == key) {
            let message = format!("`{key}` is the axis; how many of it is `{}`", axis.how_many());
            mistakes.push(syn::Error::new(span, message));
            let extent = Number::Literal { value: 1, span };
            head.extents.push(Extent { axis, extent, spread: None });
            continue;
        }
        match key.as_str() {
            "order" => head.order = order::order(item, &own, mistakes),
            "tokens_per_state" => head.tokens_per_state = number(item, 1, u64::MAX, mistakes),
            "align" => head.align = number(item, 1, u64::MAX, mistakes),
            "bytes" => head.bytes = number(item, 1, u64::MAX, mistakes),
            "version" => head.version = small(item, 0, mistakes),
            "swizzle" => head.swizzle = small(item, 0, mistakes),
            "name" => head.name = text(item, mistakes),
            "crate" => drop(path(item, mistakes)),
            "pad" | "pad_to" => mistakes.push(syn::Error::new(
                span,
                "padding is a level of the order, before what it pads: `order(pad(N), ..)` pads each region, \
                 `order(.., pad(N))` each row",
            )),
            "ranks" | "rank" => mistakes.push(syn::Error::new(
                span,
                format!(
                    "`{key}` belongs to an axis: `sharded(head, ranks = N)` or `replicated(head, ranks = N)`"
                ),
            )),
            "plane" => mistakes
                .push(syn::Error::new(span, "a plane begins with a field: put `#[kv(plane)]` on that")),
            _ => mistakes.push(unknown(&item.key, KEYS)),
        }
    }
    for item in spreads {
        axes::spread(item, &mut head.extents, mistakes);
    }
    // An attribute that could not be parsed may have held the order.
    if !seen.has("order") && mistakes.len() == before {
        mistakes.push(syn::Error::new(
            input.ident.span(),
            "nothing says how the page is ordered: add `#[kv(order(layer, token), layers = N, tokens = N)]`, \
             outermost axis first",
        ));
    }
    head
}

/// Checks that tokens are whole states, where both numbers are literals.
fn states(head: &Head, mistakes: &mut Mistakes) {
    let Some(per_state) = &head.tokens_per_state else { return };
    let Some(tokens) = head.extents.iter().find(|extent| extent.axis == Axis::Token) else {
        mistakes.push(syn::Error::new(
            per_state.span(),
            "`tokens_per_state` needs `tokens = N`, a multiple of it, and `token` in the order",
        ));
        return;
    };
    let (Some(per), Some(tokens)) = (per_state.value(), tokens.extent.value()) else { return };
    if tokens % per == 0 {
        return;
    }
    let (less, more) = (tokens - tokens % per, tokens.checked_next_multiple_of(per));
    let fits = match (less, more) {
        (0, Some(more)) => format!("{more}"),
        (less, Some(more)) => format!("{less} or {more}"),
        (less, None) => format!("{less}"),
    };
    mistakes.push(syn::Error::new(
        per_state.span(),
        format!("{tokens} tokens are no whole number of states of {per}; {fits} would be"),
    ));
}
