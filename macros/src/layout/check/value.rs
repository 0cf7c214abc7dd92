//! Values of keys: numbers, texts, paths.

use proc_macro2::Ident;
use syn::{Expr, ExprLit, ExprUnary, Lit, Path, UnOp};

use crate::attribute::{Item, Value};
use crate::layout::ast::Number;
use crate::mistakes::Mistakes;

pub(super) fn unknown(key: &Ident, known: &str) -> syn::Error {
    syn::Error::new(key.span(), format!("`{key}` is none of {known}"))
}

/// A number: a literal from `least` to `most`, or an expression, whose value the compiler checks.
pub(super) fn number(item: &Item, least: u64, most: u64, mistakes: &mut Mistakes) -> Option<Number> {
    match &item.value {
        Value::Expr(expr) => number_of(&item.key.to_string(), expr, least, most, mistakes),
        Value::None | Value::List(_) => {
            let key = &item.key;
            mistakes.push(syn::Error::new(key.span(), format!("`{key}` takes a number: `{key} = N`")));
            None
        }
    }
}

/// The number in `expr`, for messages about `key`.
pub(super) fn number_of(
    key: &str,
    expr: &Expr,
    least: u64,
    most: u64,
    mistakes: &mut Mistakes,
) -> Option<Number> {
    let literal = match expr {
        Expr::Lit(ExprLit { lit: Lit::Int(literal), .. }) => literal,
        Expr::Unary(ExprUnary { op: UnOp::Neg(_), .. }) => {
            mistakes.push(syn::Error::new_spanned(
                expr,
                format!("`{key}` is at least {least}, and this is negative"),
            ));
            return None;
        }
        Expr::Lit(_) => {
            mistakes.push(syn::Error::new_spanned(
                expr,
                format!("`{key}` takes a whole number: a literal, a constant `usize` or a const parameter"),
            ));
            return None;
        }
        Expr::Group(group) => return number_of(key, &group.expr, least, most, mistakes),
        _ => return Some(Number::Expr(expr.clone())),
    };
    let span = literal.span();
    match literal.base10_parse::<u64>() {
        Ok(value) if (least..=most).contains(&value) && literal.suffix().is_empty() => {
            Some(Number::Literal { value, span })
        }
        Ok(_) if !literal.suffix().is_empty() => {
            mistakes.push(syn::Error::new(span, format!("`{key}` takes a number without a suffix")));
            None
        }
        Ok(value) if value < least => {
            mistakes.push(syn::Error::new(span, format!("`{key}` is at least {least}, not {value}")));
            None
        }
        _ => {
            mistakes.push(syn::Error::new(span, format!("`{key}` is at most {most}")));
            None
        }
    }
}

/// A number below 2^32.
pub(super) fn small(item: &Item, least: u64, mistakes: &mut Mistakes) -> Option<Number> {
    number(item, least, u32::MAX.into(), mistakes)
}

pub(super) fn text(item: &Item, mistakes: &mut Mistakes) -> Option<String> {
    match &item.value {
        Value::Expr(Expr::Lit(ExprLit { lit: Lit::Str(text), .. })) if !text.value().is_empty() => {
            Some(text.value())
        }
        _ => {
            let key = &item.key;
            mistakes.push(syn::Error::new(key.span(), format!("`{key}` takes a string: `{key} = \"..\"`")));
            None
        }
    }
}

pub(super) fn path(item: &Item, mistakes: &mut Mistakes) -> Option<Path> {
    if let Value::Expr(Expr::Lit(ExprLit { lit: Lit::Str(text), .. })) = &item.value
        && let Ok(path) = text.parse_with(Path::parse_mod_style)
    {
        return Some(path);
    }
    mistakes.push(syn::Error::new(
        item.key.span(),
        "`crate` takes the path of kvrail (or of kvrail-layouts), in quotes: `crate = \"::kvrail\"`",
    ));
    None
}
