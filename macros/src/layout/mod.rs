//! `#[derive(KvLayout)]`: attribute → check → ast → expand.

mod ast;
mod check;
mod expand;
#[cfg(test)]
mod tests;

/// The expansion of the derive. `renamed` is the manifest's name of kvrail, if it is another one.
pub(crate) fn derive(input: &syn::DeriveInput, renamed: Option<&str>) -> proc_macro2::TokenStream {
    let (krate, hint) = check::krate(input, renamed);
    let hint = hint.map(|hint| hint.to_compile_error());
    let expansion = match check::check(input, &krate) {
        Ok(page) => expand::expand(&page),
        Err(mistakes) => expand::stub(input, &krate, &mistakes),
    };
    quote::quote!(#hint #expansion)
}
