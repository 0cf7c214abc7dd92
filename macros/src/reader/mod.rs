//! `engine!`: parse → check → ast → expand, as the derive does it.

pub(crate) mod ast;
mod check;
mod expand;
mod parse;
#[cfg(test)]
mod tests;

use proc_macro2::TokenStream;
use syn::Token;
use syn::parse::Parser as _;
use syn::punctuated::Punctuated;

/// The declarations, one type each.
pub(crate) fn engine(input: TokenStream, renamed: Option<&str>) -> TokenStream {
    let several = Punctuated::<parse::Reader, Token![;]>::parse_terminated;
    let readers = match syn::parse2::<parse::Reader>(input.clone()) {
        Ok(reader) => vec![reader],
        Err(mistake) => match several.parse2(input) {
            Ok(readers) if !readers.is_empty() => readers.into_iter().collect(),
            _ => return mistake.to_compile_error(),
        },
    };
    readers
        .iter()
        .map(|reader| {
            let (krate, hint) = check::krate(reader, renamed);
            let hint = hint.map(|hint| hint.to_compile_error());
            let expansion = match check::check(reader, &krate) {
                Ok(legal) => expand::expand(&legal),
                Err(mistakes) => expand::stub(reader, krate, &mistakes),
            };
            quote::quote!(#hint #expansion)
        })
        .collect()
}
