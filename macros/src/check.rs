//! What the items mean, and every mistake in them.
//!
//! A mistake is recorded and the check goes on; what it leaves unknown is not complained about again.

mod order;

use proc_macro2::{Ident, Span};
use syn::ext::IdentExt as _;
use syn::{Data, DeriveInput, Expr, ExprLit, Fields, Lit, Path, Type, parse_quote};

use crate::ast::{Axis, Extent, Field, Number, Order, Page, Plane};
use crate::parse::{Item, Value, items};

/// Mistakes so far.
type Mistakes = Vec<syn::Error>;

const KEYS: &str = "`order(..)`, `layers`, `tokens`, `parts`, `heads`, `tokens_per_state`, `align`, `bytes`, \
                    `version`, `swizzle`, `name`, `crate`";

pub(crate) fn check(input: &DeriveInput) -> Result<Page, Vec<syn::Error>> {
    let mut no = Mistakes::new();
    let head = head(input, &mut no);
    let planes = planes(input, &mut no);
    if let (Some(order), Some(planes)) = (&head.order, &planes) {
        order::check(order, planes, &head.extents, &mut no);
    }
    let states = states(&head, &mut no);
    if let (Some(order), Some(planes), true) = (head.order, planes, no.is_empty()) {
        let here = |value| Number { value, span: input.ident.span() };
        return Ok(Page {
            ident: input.ident.clone(),
            krate: krate(input),
            name: head.name.unwrap_or_else(|| input.ident.unraw().to_string()),
            axes: states,
            order,
            planes,
            tokens_per_state: head.tokens_per_state.unwrap_or(here(1)),
            align: head.align.unwrap_or(here(1)),
            bytes: head.bytes,
            version: head.version.unwrap_or(0),
            swizzle: head.swizzle.unwrap_or(0),
        });
    }
    Err(no)
}

/// The path to `kvrail-layouts`: what `crate = ".."` says, if that can be read.
pub(crate) fn krate(input: &DeriveInput) -> Path {
    items(&input.attrs, &mut Mistakes::new())
        .iter()
        .filter(|item| item.key == "crate")
        .find_map(|item| path(item, &mut Mistakes::new()))
        .unwrap_or_else(|| parse_quote!(::kvrail::layouts))
}

/// What stands on the struct.
#[derive(Default)]
struct Head {
    order: Option<Order>,
    extents: Vec<Extent>,
    tokens_per_state: Option<Number>,
    align: Option<Number>,
    bytes: Option<Number>,
    version: Option<u32>,
    swizzle: Option<u32>,
    name: Option<String>,
}

fn head(input: &DeriveInput, no: &mut Mistakes) -> Head {
    let before = no.len();
    let mut head = Head::default();
    let mut seen = Seen::default();
    for item in items(&input.attrs, no) {
        let key = item.key.to_string();
        if !seen.first(&item.key, no) {
            continue;
        }
        if let Some(axis) = Axis::ALL.into_iter().find(|axis| axis.key() == key) {
            // A count that cannot be read is still a count: nobody shall ask for it again.
            let extent = number(&item, 1, u64::MAX, no);
            head.extents
                .push(Extent { axis, extent: extent.unwrap_or(Number { value: 1, span: item.key.span() }) });
            continue;
        }
        if let Some(axis) = Axis::ALL.into_iter().find(|axis| axis.word() == key) {
            let (count, span) = (axis.key(), item.key.span());
            no.push(syn::Error::new(span, format!("`{key}` is the axis; how many of it is `{count} = N`")));
            head.extents.push(Extent { axis, extent: Number { value: 1, span } });
            continue;
        }
        match key.as_str() {
            "order" => head.order = order::order(&item, no),
            "tokens_per_state" => head.tokens_per_state = number(&item, 1, u64::MAX, no),
            "align" => head.align = number(&item, 1, u64::MAX, no),
            "bytes" => head.bytes = number(&item, 1, u64::MAX, no),
            "version" => head.version = tag(&item, no),
            "swizzle" => head.swizzle = tag(&item, no),
            "name" => head.name = text(&item, no),
            "crate" => drop(path(&item, no)),
            "pad" | "pad_to" => no.push(syn::Error::new(
                item.key.span(),
                "padding is a level of the order, before what it pads: `order(pad(N), ..)` pads each region, \
                 `order(.., pad(N))` each row",
            )),
            "sharded" | "replicated" | "ranks" => no.push(syn::Error::new(
                item.key.span(),
                format!(
                    "`{key}` is part of the model (`Spread`), and not yet of the derive: build a `Declaration`"
                ),
            )),
            "plane" => no.push(syn::Error::new(
                item.key.span(),
                "a plane begins with a field: put `#[kv(plane)]` on that",
            )),
            _ => no.push(unknown(&item.key, KEYS)),
        }
    }
    // An attribute that could not be read may have held the order.
    if !seen.has("order") && no.len() == before {
        no.push(syn::Error::new(
            input.ident.span(),
            "nothing says how the page is ordered: add `#[kv(order(layer, token), layers = N, tokens = N)]`, \
             outermost axis first",
        ));
    }
    head
}

/// Axes in indices: tokens are counted in states.
fn states(head: &Head, no: &mut Mistakes) -> Vec<Extent> {
    let per_state = head.tokens_per_state.map_or(1, |number| number.value).max(1);
    let tokens = head.extents.iter().find(|extent| extent.axis == Axis::Token);
    match (head.tokens_per_state, tokens) {
        (Some(per), None) => no.push(syn::Error::new(
            per.span,
            "`tokens_per_state` needs `tokens = N`, a multiple of it, and `token` in the order",
        )),
        (Some(per), Some(tokens)) if tokens.extent.value % per_state != 0 => {
            let tokens = tokens.extent.value;
            let (less, more) = (tokens - tokens % per_state, tokens.checked_next_multiple_of(per_state));
            no.push(syn::Error::new(
                per.span,
                format!(
                    "{tokens} tokens are no whole number of states of {per_state}; {} would be",
                    match (less, more) {
                        (0, Some(more)) => format!("{more}"),
                        (less, Some(more)) => format!("{less} or {more}"),
                        (less, None) => format!("{less}"),
                    }
                ),
            ));
        }
        _ => {}
    }
    head.extents
        .iter()
        .map(|&Extent { axis, extent: Number { value, span } }| {
            let value = if axis == Axis::Token { value / per_state } else { value };
            Extent { axis, extent: Number { value, span } }
        })
        .collect()
}

fn planes(input: &DeriveInput, no: &mut Mistakes) -> Option<Vec<Plane>> {
    let fields = match &input.data {
        Data::Struct(data) => match &data.fields {
            Fields::Named(fields) => &fields.named,
            Fields::Unnamed(_) | Fields::Unit => {
                no.push(syn::Error::new(
                    input.ident.span(),
                    "a page's fields have names, which its fingerprint holds: `struct Page { latent: [Bf16; 512] }`",
                ));
                return None;
            }
        },
        Data::Enum(data) => {
            no.push(syn::Error::new(data.enum_token.span, "a page is a struct, whose fields are one row"));
            return None;
        }
        Data::Union(data) => {
            no.push(syn::Error::new(data.union_token.span, "a page is a struct, whose fields are one row"));
            return None;
        }
    };
    if let Some(parameter) = input.generics.params.first() {
        no.push(syn::Error::new_spanned(
            parameter,
            "a page is one layout, known in full: take the parameter away, or derive for each value",
        ));
    }
    if fields.is_empty() {
        no.push(syn::Error::new(input.ident.span(), "a page without fields holds nothing"));
    }
    let mut planes: Vec<Plane> = Vec::new();
    let mut names: Vec<String> = Vec::new();
    for field in fields {
        let Some(ident) = &field.ident else { continue };
        let marks = marks(&field.attrs, no);
        let name = marks.name.unwrap_or_else(|| ident.unraw().to_string());
        if names.contains(&name) {
            no.push(syn::Error::new(
                ident.span(),
                format!("two fields are called `{name}`; names tell them apart in the fingerprint"),
            ));
        }
        names.push(name.clone());
        if marks.plane.is_some() || planes.is_empty() {
            let span = marks.plane.unwrap_or(ident.span());
            planes.push(Plane { fields: Vec::new(), order: marks.order, span });
        }
        if let (Some((element, len)), Some(plane)) = (element(&field.ty, ident, no), planes.last_mut()) {
            plane.fields.push(Field { ident: ident.clone(), name, element, len });
        }
    }
    Some(planes)
}

/// What stands on a field.
#[derive(Default)]
struct Marks {
    plane: Option<Span>,
    order: Option<Order>,
    name: Option<String>,
}

fn marks(attributes: &[syn::Attribute], no: &mut Mistakes) -> Marks {
    let mut marks = Marks::default();
    let mut seen = Seen::default();
    let items = items(attributes, no);
    for item in &items {
        if !seen.first(&item.key, no) {
            continue;
        }
        match item.key.to_string().as_str() {
            "plane" => {
                marks.plane = Some(item.key.span());
                if !matches!(item.value, Value::None) {
                    no.push(syn::Error::new(
                        item.key.span(),
                        "`plane` takes nothing: a plane is called by its fields; its own levels are `plane, order(..)`",
                    ));
                }
            }
            "order" => {
                if !items.iter().any(|item| item.key == "plane") {
                    no.push(syn::Error::new(
                        item.key.span(),
                        "levels belong to a plane: write `#[kv(plane, order(..))]` on its first field",
                    ));
                }
                marks.order = order::order(item, no);
            }
            "name" => marks.name = text(item, no),
            _ => no.push(unknown(&item.key, "`plane`, `order(..)`, `name`")),
        }
    }
    marks
}

/// The element type of a field, and the length of the array.
fn element(ty: &Type, field: &Ident, no: &mut Mistakes) -> Option<(Type, Option<Expr>)> {
    match ty {
        Type::Group(group) => element(&group.elem, field, no),
        Type::Paren(paren) => element(&paren.elem, field, no),
        Type::Path(_) | Type::Macro(_) => Some((ty.clone(), None)),
        Type::Array(array) => match &*array.elem {
            Type::Array(inner) => {
                no.push(syn::Error::new_spanned(
                    inner,
                    format!(
                        "`{field}` is an array of arrays: a row's fields have one dimension, the others are \
                         axes: `order(.., head), heads = N`"
                    ),
                ));
                None
            }
            elem => {
                let (elem, _) = element(elem, field, no)?;
                Some((elem, Some(array.len.clone())))
            }
        },
        _ => {
            no.push(syn::Error::new_spanned(
                ty,
                format!("`{field}` is not an element (`F32`) or an array of them (`[Bf16; 64]`)"),
            ));
            None
        }
    }
}

/// Which keys were there.
#[derive(Default)]
struct Seen(Vec<String>);

impl Seen {
    fn has(&self, key: &str) -> bool {
        self.0.iter().any(|seen| seen == key)
    }

    fn first(&mut self, key: &Ident, no: &mut Mistakes) -> bool {
        let word = key.to_string();
        if self.has(&word) {
            no.push(syn::Error::new(key.span(), format!("`{word}` is said twice; say it once")));
            return false;
        }
        self.0.push(word);
        true
    }
}

fn unknown(key: &Ident, known: &str) -> syn::Error {
    syn::Error::new(key.span(), format!("`{key}` is none of {known}"))
}

/// An integer literal from `least` to `most`.
fn number(item: &Item, least: u64, most: u64, no: &mut Mistakes) -> Option<Number> {
    let key = &item.key;
    let literal = match &item.value {
        Value::Expr(Expr::Lit(ExprLit { lit: Lit::Int(literal), .. })) => literal,
        Value::Expr(other) => {
            no.push(syn::Error::new_spanned(
                other,
                format!("`{key}` takes an integer literal, since messages about it come before any constant"),
            ));
            return None;
        }
        Value::None | Value::List(_) => {
            no.push(syn::Error::new(key.span(), format!("`{key}` takes a number: `{key} = N`")));
            return None;
        }
    };
    let span = literal.span();
    match literal.base10_parse::<u64>() {
        Ok(value) if (least..=most).contains(&value) && literal.suffix().is_empty() => {
            Some(Number { value, span })
        }
        Ok(_) if !literal.suffix().is_empty() => {
            no.push(syn::Error::new(span, format!("`{key}` takes a number without a suffix")));
            None
        }
        Ok(value) if value < least => {
            no.push(syn::Error::new(span, format!("`{key}` is at least {least}, not {value}")));
            None
        }
        _ => {
            no.push(syn::Error::new(span, format!("`{key}` is at most {most}")));
            None
        }
    }
}

fn tag(item: &Item, no: &mut Mistakes) -> Option<u32> {
    let number = number(item, 0, u32::MAX.into(), no)?;
    u32::try_from(number.value).ok()
}

fn text(item: &Item, no: &mut Mistakes) -> Option<String> {
    match &item.value {
        Value::Expr(Expr::Lit(ExprLit { lit: Lit::Str(text), .. })) if !text.value().is_empty() => {
            Some(text.value())
        }
        _ => {
            let key = &item.key;
            no.push(syn::Error::new(key.span(), format!("`{key}` takes a string: `{key} = \"..\"`")));
            None
        }
    }
}

fn path(item: &Item, no: &mut Mistakes) -> Option<Path> {
    if let Value::Expr(Expr::Lit(ExprLit { lit: Lit::Str(text), .. })) = &item.value
        && let Ok(path) = text.parse_with(Path::parse_mod_style)
    {
        return Some(path);
    }
    no.push(syn::Error::new(
        item.key.span(),
        "`crate` takes the path of kvrail-layouts, in quotes: `crate = \"::kvrail::layouts\"`",
    ));
    None
}
