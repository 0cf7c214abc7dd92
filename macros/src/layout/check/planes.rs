//! The struct: its fields, and where planes begin.

use proc_macro2::{Ident, Span};
use syn::ext::IdentExt as _;
use syn::{Attribute, Data, DeriveInput, Expr, Fields, GenericParam, Type};

use super::order;
use super::value::{text, unknown};
use crate::attribute::{Value, items};
use crate::layout::ast::{Axis, Field, Order, Plane};
use crate::mistakes::{Mistakes, SeenKeys};

/// The constants of `KvLayout`. A field's constant of the same name would hide one.
const TAKEN: [&str; 8] =
    ["NAME", "GEOMETRY", "SYNTHETIC", "PAGE_BYTES", "REGIONS", "TOKENS", "LAYERS", "FINGERPRINT"];

pub(super) fn planes(input: &DeriveInput, own: &[Axis], mistakes: &mut Mistakes) -> Option<Vec<Plane>> {
    let fields = match &input.data {
        Data::Struct(data) => match &data.fields {
            Fields::Named(fields) => &fields.named,
            Fields::Unnamed(_) | Fields::Unit => {
                mistakes.push(syn::Error::new(
                    input.ident.span(),
                    "a page's fields have names, which its fingerprint holds: `struct Page { latent: [Bf16; 512] }`",
                ));
                return None;
            }
        },
        Data::Enum(data) => {
            mistakes
                .push(syn::Error::new(data.enum_token.span, "a page is a struct, whose fields are one row"));
            return None;
        }
        Data::Union(data) => {
            mistakes
                .push(syn::Error::new(data.union_token.span, "a page is a struct, whose fields are one row"));
            return None;
        }
    };
    for parameter in &input.generics.params {
        if let GenericParam::Lifetime(lifetime) = parameter {
            mistakes.push(syn::Error::new_spanned(
                lifetime,
                "a layout borrows nothing: it says where bytes are; take the lifetime away",
            ));
        }
    }
    if fields.is_empty() {
        mistakes.push(syn::Error::new(input.ident.span(), "a page without fields holds nothing"));
    }
    let mut planes: Vec<Plane> = Vec::new();
    let mut names: Vec<String> = Vec::new();
    let mut constants: Vec<String> = Vec::new();
    for field in fields {
        let Some(ident) = &field.ident else { continue };
        let field_items = field_items(&field.attrs, own, mistakes);
        let name = field_items.name.unwrap_or_else(|| ident.unraw().to_string());
        if names.contains(&name) {
            mistakes.push(syn::Error::new(
                ident.span(),
                format!("two fields are called `{name}`; names tell them apart in the fingerprint"),
            ));
        }
        let constant = constant(ident).to_string();
        if TAKEN.contains(&constant.as_str()) {
            let keep = match ident.unraw() == name {
                true => format!("; `#[kv(name = \"{name}\")]` keeps the name in the fingerprint"),
                false => String::new(),
            };
            mistakes.push(syn::Error::new(
                ident.span(),
                format!("the constant of field `{ident}` would hide `KvLayout::{constant}`: call it otherwise{keep}"),
            ));
        } else if constants.contains(&constant) && !names.contains(&name) {
            mistakes.push(syn::Error::new(
                ident.span(),
                format!("two fields would have the constant `{constant}`: let them differ in more than case"),
            ));
        }
        names.push(name.clone());
        constants.push(constant);
        if field_items.plane.is_some() || planes.is_empty() {
            let span = field_items.plane.unwrap_or(ident.span());
            planes.push(Plane { fields: Vec::new(), order: field_items.order, span });
        }
        if let (Some((element, len)), Some(plane)) = (element(&field.ty, ident, mistakes), planes.last_mut())
        {
            let docs = field.attrs.iter().filter(|attribute| attribute.path().is_ident("doc")).cloned();
            plane.fields.push(Field {
                ident: ident.clone(),
                name,
                docs: docs.collect(),
                ty: field.ty.clone(),
                element,
                len,
            });
        }
    }
    Some(planes)
}

/// The constant that the struct gets for a field: `LATENT` for `latent`.
pub(crate) fn constant(field: &Ident) -> Ident {
    Ident::new(&field.unraw().to_string().to_uppercase(), field.span())
}

/// The items on a field.
#[derive(Default)]
struct FieldItems {
    plane: Option<Span>,
    order: Option<Order>,
    name: Option<String>,
}

fn field_items(attributes: &[Attribute], own: &[Axis], mistakes: &mut Mistakes) -> FieldItems {
    let mut field_items = FieldItems::default();
    let mut seen = SeenKeys::default();
    let items = items(attributes, mistakes);
    for item in &items {
        if !seen.first(&item.key, mistakes) {
            continue;
        }
        match item.key.to_string().as_str() {
            "plane" => {
                field_items.plane = Some(item.key.span());
                if !matches!(item.value, Value::None) {
                    mistakes.push(syn::Error::new(
                        item.key.span(),
                        "`plane` takes nothing: a plane is called by its fields; its own levels are `plane, order(..)`",
                    ));
                }
            }
            "order" => {
                if !items.iter().any(|item| item.key == "plane") {
                    mistakes.push(syn::Error::new(
                        item.key.span(),
                        "levels belong to a plane: write `#[kv(plane, order(..))]` on its first field",
                    ));
                }
                field_items.order = order::order(item, own, mistakes);
            }
            "name" => field_items.name = text(item, mistakes),
            _ => mistakes.push(unknown(&item.key, "`plane`, `order(..)`, `name`")),
        }
    }
    field_items
}

/// The element type of a field, and the length of the array.
pub(crate) fn element(ty: &Type, field: &Ident, mistakes: &mut Mistakes) -> Option<(Type, Option<Expr>)> {
    match ty {
        Type::Group(group) => element(&group.elem, field, mistakes),
        Type::Paren(paren) => element(&paren.elem, field, mistakes),
        Type::Path(_) | Type::Macro(_) => Some((ty.clone(), None)),
        Type::Array(array) => match &*array.elem {
            Type::Array(inner) => {
                mistakes.push(syn::Error::new_spanned(
                    inner,
                    format!(
                        "`{field}` is an array of arrays: a row's fields have one dimension, the others are \
                         axes: `order(.., head), heads = N`"
                    ),
                ));
                None
            }
            elem => {
                let (elem, _) = element(elem, field, mistakes)?;
                Some((elem, Some(array.len.clone())))
            }
        },
        _ => {
            mistakes.push(syn::Error::new_spanned(
                ty,
                format!("`{field}` is not an element (`F32`) or an array of them (`[Bf16; 64]`)"),
            ));
            None
        }
    }
}
