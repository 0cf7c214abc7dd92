//! Gives the items their meaning, and finds every mistake that tokens show.

use proc_macro2::Span;
use syn::{Attribute, Expr, ExprLit, Lit, Path};

use super::ast::{Key, Reader};
use super::parse::{self, Value};
use crate::attribute::{Value as AttributeValue, items};
use crate::mistakes::{Mistakes, SeenKeys};

pub(crate) fn check(reader: &parse::Reader, krate: &Path) -> Result<Reader, Mistakes> {
    let mut mistakes = Mistakes::new();
    let bare = given(&reader.attributes, &mut mistakes).bare;
    let docs: Vec<Attribute> =
        reader.attributes.iter().filter(|attribute| !attribute.path().is_ident("kv")).cloned().collect();
    for attribute in &docs {
        if !["doc", "cfg", "allow", "expect"].iter().any(|known| attribute.path().is_ident(known)) {
            mistakes.push(syn::Error::new_spanned(
                attribute,
                "a reader takes documentation, lints, `#[kv(crate = \"..\")]` and `#[kv(bare)]`, no other \
                 attribute",
            ));
        }
    }
    let mut page = None;
    let mut pages = Vec::new();
    let mut numbers: Vec<Option<Expr>> = vec![None; Key::ALL.len()];
    let mut seen = SeenKeys::default();
    for item in &reader.items {
        let word = item.key.to_string();
        if !seen.first(&item.key, &mut mistakes) {
            continue;
        }
        let key = Key::ALL.into_iter().find(|(_, known)| *known == word).map(|(key, _)| key);
        match (&item.value, key) {
            (Value::Page(of), _) => page = Some(of.clone()),
            (Value::Pages(of), _) => pages.clone_from(of),
            (Value::Number(value), Some(key)) => {
                number(&word, key, value, &mut mistakes);
                numbers[key as usize] = Some(value.clone());
            }
            (Value::Number(_), None) => mistakes.push(unknown(&word, item.key.span())),
        }
    }
    if bare {
        for (key, word, why) in [
            (Key::Submitters, "max_submitters", "has no submitters: put a `kvrail::core::hub` before it"),
            (Key::Plans, "max_plans", "takes as many plans as its storage has places for"),
        ] {
            if let Some(number) = &numbers[key as usize] {
                mistakes.push(syn::Error::new_spanned(
                    number,
                    format!("a bare engine {why}; leave `{word}` out"),
                ));
            }
        }
    }
    let given = |key: Key| numbers[key as usize].is_some();
    if let (true, false) = (given(Key::MaxSges), given(Key::Plan)) {
        mistakes.push(syn::Error::new_spanned(
            &numbers[Key::MaxSges as usize],
            "`max_sges` bounds the pieces of a plan, and no plan is given: add `plan: RESHARD`",
        ));
    }
    if page.is_none() && !seen.has("page") {
        mistakes.push(syn::Error::new(
            reader.ident.span(),
            "no page is given: add `page: Mla`, a type that derives KvLayout",
        ));
    }
    match page {
        Some(page) if mistakes.is_empty() => {
            let (vis, ident, krate) = (reader.vis.clone(), reader.ident.clone(), krate.clone());
            Ok(Reader { docs, vis, ident, krate, bare, page, pages, numbers })
        }
        _ => Err(mistakes),
    }
}

/// Refuses a literal that is not a number. The compiler checks the values of other expressions.
fn number(word: &str, key: Key, value: &Expr, mistakes: &mut Mistakes) {
    if key == Key::Plan {
        return;
    }
    if let Expr::Lit(ExprLit { lit, .. }) = value
        && !matches!(lit, Lit::Int(_))
    {
        mistakes.push(syn::Error::new_spanned(value, format!("`{word}` takes a number: `{word}: 64`")));
    }
}

fn unknown(word: &str, span: Span) -> syn::Error {
    // A key without its `max_` gets a message of its own.
    let meant =
        Key::ALL.iter().map(|(_, known)| *known).find(|known| known.strip_prefix("max_") == Some(word));
    if let Some(meant) = meant {
        let text = format!(
            "`{word}` is no key, because the number in use is set at run time; its bound is `{meant}`"
        );
        return syn::Error::new(span, text);
    }
    let known: Vec<_> = Key::ALL.iter().map(|(_, known)| format!("`{known}`")).collect();
    syn::Error::new(span, format!("`{word}` is none of `page`, `pages`, {}", known.join(", ")))
}

/// The path of kvrail: the one that `crate = ".."` gives, and a mistake if it is missing and kvrail
/// is renamed.
pub(super) fn krate(reader: &parse::Reader, renamed: Option<&str>) -> (Path, Option<syn::Error>) {
    match given(&reader.attributes, &mut Mistakes::new()).krate {
        Some(path) => (path, None),
        None => crate::krate::default_path(renamed, &reader.ident),
    }
}

/// What `#[kv(..)]` says.
#[derive(Default)]
struct Given {
    krate: Option<Path>,
    bare: bool,
}

/// Whether the declaration is of a bare engine.
pub(super) fn bare(reader: &parse::Reader) -> bool {
    given(&reader.attributes, &mut Mistakes::new()).bare
}

fn given(attributes: &[Attribute], mistakes: &mut Mistakes) -> Given {
    let mut given = Given::default();
    for item in items(attributes, mistakes) {
        match (item.key.to_string().as_str(), &item.value) {
            ("bare", AttributeValue::None) => given.bare = true,
            ("crate", AttributeValue::Expr(Expr::Lit(ExprLit { lit: Lit::Str(text), .. })))
                if text.parse_with(Path::parse_mod_style).is_ok() =>
            {
                given.krate = text.parse_with(Path::parse_mod_style).ok();
            }
            ("bare", _) => {
                mistakes.push(syn::Error::new(item.key.span(), "`bare` takes no value: `#[kv(bare)]`"));
            }
            ("crate", _) => mistakes.push(syn::Error::new(
                item.key.span(),
                "`crate` takes the path of kvrail, in quotes: `crate = \"::kvrail\"`",
            )),
            (other, _) => {
                let text = format!("`{other}` is neither `crate = \"..\"` nor `bare`");
                mistakes.push(syn::Error::new(item.key.span(), text));
            }
        }
    }
    given
}
