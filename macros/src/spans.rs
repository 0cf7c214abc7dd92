//! Tokens of an expansion, moved to where a message is to be shown.

use proc_macro2::{Delimiter, Group, Ident, Span, TokenStream, TokenTree};
use quote::quote;

/// The call of `function` (a path and a name) with `arguments`, all of it at `span`: the panic of a
/// constant is shown from the first to the last token of the call, so every token needs the
/// author's span.
pub(crate) fn call_at(span: Span, path: TokenStream, function: &str, arguments: TokenStream) -> TokenStream {
    let function = Ident::new(function, span);
    let path = respanned(quote!(#path::#function), span);
    let mut group = TokenTree::from(Group::new(Delimiter::Parenthesis, respanned(arguments, span)));
    group.set_span(span);
    quote!(#path #group)
}

/// The tokens, where the author's token is.
///
/// A span also decides what a name means: in `macro_rules!` the author's token may come from the
/// call, and the expansion from the definition. So names that the expansion itself gives keep the
/// meaning of the expansion: in a page with parameters they are variables, which the meaning
/// distinguishes.
fn respanned(tokens: TokenStream, span: Span) -> TokenStream {
    tokens
        .into_iter()
        .map(|mut token| {
            match &token {
                TokenTree::Ident(ident) if ident.to_string().starts_with("__KVRAIL") => {
                    token.set_span(Span::call_site().located_at(span));
                }
                _ => token.set_span(span),
            }
            token
        })
        .collect()
}
