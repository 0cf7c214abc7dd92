//! Parses `pub Name { key: value, .. }`, without the meaning of keys.

use proc_macro2::Ident;
use syn::ext::IdentExt as _;
use syn::parse::{Parse, ParseStream};
use syn::punctuated::Punctuated;
use syn::{Attribute, Token, Visibility, braced, bracketed};

pub(crate) struct Reader {
    pub(crate) attributes: Vec<Attribute>,
    pub(crate) vis: Visibility,
    pub(crate) ident: Ident,
    pub(crate) items: Vec<Item>,
}

/// `key: value`. The value of `page` is a type, that of `pages` a list of types, every other an
/// expression.
pub(crate) struct Item {
    pub(crate) key: Ident,
    pub(crate) value: Value,
}

pub(crate) enum Value {
    Page(syn::Type),
    Pages(Vec<syn::Type>),
    Number(syn::Expr),
}

impl Parse for Reader {
    fn parse(input: ParseStream<'_>) -> syn::Result<Self> {
        let attributes = input.call(Attribute::parse_outer)?;
        let vis = input.parse()?;
        let ident = input.parse()?;
        let items;
        braced!(items in input);
        let items = Punctuated::<Item, Token![,]>::parse_terminated(&items)?.into_iter().collect();
        Ok(Self { attributes, vis, ident, items })
    }
}

impl Parse for Item {
    fn parse(input: ParseStream<'_>) -> syn::Result<Self> {
        let key = input.call(Ident::parse_any)?;
        input.parse::<Token![:]>()?;
        let value = if key == "page" {
            Value::Page(input.parse()?)
        } else if key == "pages" {
            let types;
            bracketed!(types in input);
            Value::Pages(Punctuated::<_, Token![,]>::parse_terminated(&types)?.into_iter().collect())
        } else {
            Value::Number(input.parse()?)
        };
        Ok(Self { key, value })
    }
}
