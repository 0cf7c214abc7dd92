//! Parses `#[kv(..)]` into keys and values, without their meaning. Both macros use it.

use proc_macro2::{Ident, TokenStream};
use syn::ext::IdentExt as _;
use syn::parse::{Parse, ParseStream, Parser as _};
use syn::punctuated::Punctuated;
use syn::{Attribute, Expr, Token, parenthesized};

/// `key`, `key = value` or `key(list)`.
pub(crate) struct Item {
    pub(crate) key: Ident,
    pub(crate) value: Value,
}

pub(crate) enum Value {
    None,
    Expr(Expr),
    List(TokenStream),
}

impl Parse for Item {
    fn parse(input: ParseStream<'_>) -> syn::Result<Self> {
        // Any word: `crate` is a keyword.
        let key = input.call(Ident::parse_any)?;
        let value = if input.peek(Token![=]) {
            input.parse::<Token![=]>()?;
            Value::Expr(input.parse()?)
        } else if input.peek(syn::token::Paren) {
            let list;
            parenthesized!(list in input);
            Value::List(list.parse()?)
        } else {
            Value::None
        };
        Ok(Self { key, value })
    }
}

/// All items of all `#[kv(..)]`. An attribute that cannot be parsed is one mistake; the others are
/// parsed nevertheless.
pub(crate) fn items(attributes: &[Attribute], mistakes: &mut Vec<syn::Error>) -> Vec<Item> {
    let mut items = Vec::new();
    for attribute in attributes.iter().filter(|attribute| attribute.path().is_ident("kv")) {
        match attribute.parse_args_with(Punctuated::<Item, Token![,]>::parse_terminated) {
            Ok(some) => items.extend(some),
            Err(mistake) => mistakes.push(mistake),
        }
    }
    items
}

/// The items of a list.
pub(crate) fn list(tokens: &TokenStream) -> syn::Result<Vec<Item>> {
    let items = Punctuated::<Item, Token![,]>::parse_terminated.parse2(tokens.clone())?;
    Ok(items.into_iter().collect())
}
