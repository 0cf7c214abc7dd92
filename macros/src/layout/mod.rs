//! `#[derive(KvLayout)]`: attribute → check → ast → expand.

mod ast;
mod check;
mod expand;
#[cfg(test)]
mod tests;

/// What the derive writes, where kvrail may have been renamed.
pub(crate) fn derive(input: &syn::DeriveInput, renamed: Option<&str>) -> proc_macro2::TokenStream {
    let (krate, hint) = check::krate(input, renamed);
    let hint = hint.map(|hint| hint.to_compile_error());
    let expansion = match check::check(input, &krate) {
        Ok(page) => expand::expand(&page),
        Err(mistakes) => expand::stub(input, &krate, &mistakes),
    };
    quote::quote!(#hint #expansion)
}
