//! Numbers of an expansion: literals in the wanted type, expressions converted from `usize`.

use std::cell::RefCell;

use proc_macro2::{Ident, TokenStream};
use quote::{format_ident, quote, quote_spanned};
use syn::spanned::Spanned as _;
use syn::{Expr, Path};

use crate::layout::ast::Number;

/// The expressions of a declaration. The expansion defines each once, under a name, so that a
/// mistake in an expression is one message.
pub(super) struct Numbers<'a> {
    krate: &'a Path,
    named: RefCell<Vec<&'a Expr>>,
}

impl<'a> Numbers<'a> {
    pub(super) fn new(krate: &'a Path) -> Self {
        Self { krate, named: RefCell::new(Vec::new()) }
    }

    /// As a u64.
    pub(super) fn large(&self, number: &'a Number) -> TokenStream {
        match number {
            Number::Literal { value, .. } => quote!(#value),
            Number::Expr(expr) => {
                let (krate, name) = (self.krate, self.name(expr));
                quote!(#krate::macro_support::number(#name))
            }
        }
    }

    /// As a u32. Literals have been checked to fit.
    pub(super) fn narrow(&self, number: &'a Number) -> TokenStream {
        match number {
            Number::Literal { value, .. } => {
                let value = u32::try_from(*value).unwrap_or(u32::MAX);
                quote!(#value)
            }
            Number::Expr(expr) => {
                let (krate, name) = (self.krate, self.name(expr));
                quote!(#krate::macro_support::small(#name))
            }
        }
    }

    /// Tokens, in states of `per`.
    pub(super) fn states(&self, tokens: &'a Number, per: &'a Number) -> TokenStream {
        match (tokens.value(), per.value()) {
            (_, Some(1)) => self.large(tokens),
            (Some(tokens), Some(per)) => {
                let states = tokens / per.max(1);
                quote!(#states)
            }
            _ => {
                let (krate, tokens, per) = (self.krate, self.large(tokens), self.large(per));
                quote!(#krate::macro_support::states(#tokens, #per))
            }
        }
    }

    /// The name of an expression.
    pub(super) fn name(&self, expr: &'a Expr) -> Ident {
        let mut named = self.named.borrow_mut();
        let at = named.iter().position(|known| std::ptr::eq(*known, expr)).unwrap_or_else(|| {
            named.push(expr);
            named.len() - 1
        });
        numbered(at)
    }

    /// Definitions of all named expressions: as items, or as statements where parameters are in
    /// scope.
    pub(super) fn definitions(&self, items: bool) -> TokenStream {
        let named = self.named.borrow();
        let definitions = named.iter().enumerate().map(|(at, expr)| {
            let name = numbered(at);
            let ty = quote_spanned!(expr.span()=> ::core::primitive::usize);
            match items {
                true => quote!(const #name: #ty = #expr;),
                false => quote!(#[allow(non_snake_case)] let #name: #ty = #expr;),
            }
        });
        quote!(#(#definitions)*)
    }
}

fn numbered(at: usize) -> Ident {
    format_ident!("__KVRAIL_{at}")
}
