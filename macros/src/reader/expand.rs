//! A legal declaration, written down: the type, its numbers, and a question for each of them.

use proc_macro2::{Span, TokenStream};
use quote::{ToTokens as _, quote, quote_spanned};
use syn::Path;
use syn::spanned::Spanned as _;

use super::ast::{Key, Reader};
use super::parse;
use crate::spans::call_at;

pub(crate) fn expand(reader: &Reader) -> TokenStream {
    let Reader { docs, vis, ident, krate, page, .. } = reader;
    let maxima = maxima(reader);
    let questions = questions(reader);
    let about = about(reader);
    let blank = (!docs.is_empty()).then(|| quote!(#[doc = ""]));
    let declared = quote!(#krate::macro_support);
    let numbers = quote!(#ident::<#krate::shm::ShmRails>::__MAXIMA);
    let state = quote! {
        #declared::State<
            { #numbers.peers },
            { #numbers.regions },
            { #numbers.lanes },
            { #numbers.depth },
            { #numbers.batches },
            { #numbers.batch },
            { #numbers.submitters },
            { #declared::mail(#numbers.submitters, #numbers.batches) },
        >
    };
    let item = item(&quote!(#(#docs)* #blank #(#[doc = #about])*), reader);
    quote! {
        #item
        const _: () = {
            impl #ident<#krate::shm::ShmRails> {
                #[doc(hidden)]
                const __MAXIMA: #declared::Maxima = #maxima;
                /// Bytes of a reader's whole state, the rails' own aside: the size of its `Storage`.
                #vis const STATE_BYTES: ::core::primitive::usize =
                    ::core::mem::size_of::<#krate::Storage<#ident>>();
            }
            #[automatically_derived]
            impl<T: #krate::ReaderTransport> #declared::Declared for #ident<T> {
                type State = #state;
                const PAGE: #declared::DeclaredPage = #declared::DeclaredPage::of::<#page>();
                const MAXIMA: #declared::Maxima = #numbers;
            }
            #questions
        };
    }
}

/// The type, and what it can do whatever its numbers are.
fn item(docs: &TokenStream, reader: &Reader) -> TokenStream {
    let Reader { vis, ident, krate, page, .. } = reader;
    let declared = quote!(#krate::macro_support);
    quote! {
        #docs
        #vis struct #ident<T: #krate::ReaderTransport = #krate::shm::ShmRails> {
            reader: #krate::Reader<T>,
        }
        #[allow(dead_code)]
        impl<T: #krate::ReaderTransport> #ident<T> {
            /// Starts a reader over `rails` in the state of a `Storage`. Does not compile for a
            /// page whose rank is known at run time: then it is `start_as`.
            ///
            /// # Errors
            ///
            /// More rails than declared, figures that cannot work or that are not the declared
            /// ones. The storage can be taken again.
            #vis fn start(
                state: #krate::TakenStorage<<Self as #declared::Declared>::State>,
                rails: T,
                config: #krate::Config,
            ) -> ::core::result::Result<Self, #krate::StartError> {
                Self::start_as(state, #krate::PageLayout::of::<#page>(), rails, config)
            }

            /// The same for the declared page at a rank: `PageLayout::at_rank`.
            ///
            /// # Errors
            ///
            /// As `start`, or the pages of another layout.
            #vis fn start_as(
                state: #krate::TakenStorage<<Self as #declared::Declared>::State>,
                layout: #krate::PageLayout,
                rails: T,
                config: #krate::Config,
            ) -> ::core::result::Result<Self, #krate::StartError> {
                match #declared::start::<Self, T>(state, layout, rails, config) {
                    ::core::result::Result::Ok(reader) => ::core::result::Result::Ok(Self { reader }),
                    ::core::result::Result::Err(error) => ::core::result::Result::Err(error),
                }
            }

            /// When a batch is due that is submitted now and may take what the declaration allows.
            #[must_use]
            #vis fn deadline(&self) -> #krate::core::time::Time {
                let milliseconds = <Self as #declared::Declared>::MAXIMA.deadline_ms;
                #krate::clock::within(::core::time::Duration::from_millis(milliseconds as ::core::primitive::u64))
            }
        }
        #[automatically_derived]
        impl<T: #krate::ReaderTransport> ::core::ops::Deref for #ident<T> {
            type Target = #krate::Reader<T>;
            fn deref(&self) -> &Self::Target {
                &self.reader
            }
        }
        #[automatically_derived]
        impl<T: #krate::ReaderTransport> ::core::ops::DerefMut for #ident<T> {
            fn deref_mut(&mut self) -> &mut Self::Target {
                &mut self.reader
            }
        }
        #[automatically_derived]
        impl<T: #krate::ReaderTransport> ::core::fmt::Debug for #ident<T> {
            fn fmt(&self, f: &mut ::core::fmt::Formatter<'_>) -> ::core::fmt::Result {
                ::core::fmt::Debug::fmt(&self.reader, f)
            }
        }
    }
}

/// The mistakes, and a type, so that what uses it is not reported as well.
pub(crate) fn stub(reader: &parse::Reader, krate: Path, mistakes: &[syn::Error]) -> TokenStream {
    let mistakes = mistakes.iter().map(syn::Error::to_compile_error);
    let stub = Reader {
        docs: Vec::new(),
        vis: reader.vis.clone(),
        ident: reader.ident.clone(),
        page: syn::parse_quote!(#krate::layouts::catalogue::Opaque<4096>),
        krate,
        numbers: Vec::new(),
    };
    let stub = expand(&Reader { docs: vec![syn::parse_quote!(#[allow(missing_docs)])], ..stub });
    quote!(#(#mistakes)* #stub)
}

fn about(reader: &Reader) -> Vec<String> {
    let page = reader.page.to_token_stream().to_string().replace(' ', "");
    let mut lines = vec![
        format!(
            " Pulls pages of `{page}` out of peers' memory: a `Reader` whose maxima are known at compile time."
        ),
        String::new(),
        " | maximum | |".into(),
        " |---|---|".into(),
    ];
    for (key, word) in Key::ALL {
        if let (Some(number), true) = (reader.number(key), key != Key::Plan) {
            lines.push(format!(" | `{word}` | {} |", number.to_token_stream()));
        }
    }
    if lines.len() == 4 {
        lines.truncate(1);
    }
    lines.push(String::new());
    lines.push(
        " It lives in a `Storage`, whole; what is in use is a run-time figure below the maxima.".into(),
    );
    lines
}

fn maxima(reader: &Reader) -> TokenStream {
    let krate = &reader.krate;
    let declared = quote!(#krate::macro_support);
    let page = &reader.page;
    let or =
        |key: Key, default: TokenStream| reader.number(key).map_or(default, quote::ToTokens::to_token_stream);
    let maybe = |key: Key| match reader.number(key) {
        Some(number) => quote!(::core::option::Option::Some(#number)),
        None => quote!(::core::option::Option::None),
    };
    let (rails, peers) = (or(Key::Rails, quote!(8)), or(Key::Peers, quote!(64)));
    let regions = or(Key::Regions, quote!(#declared::regions(#peers)));
    let lanes = or(Key::Lanes, quote!(#declared::lanes(#peers, #rails)));
    let (depth, batch) = (or(Key::Depth, quote!(128)), or(Key::Batch, quote!(256)));
    let (batches, submitters) = (or(Key::Batches, quote!(64)), or(Key::Submitters, quote!(0)));
    let deadline_ms = or(Key::DeadlineMs, quote!(1000));
    let (chunk, rail_bytes, rail_wrs) = (maybe(Key::Chunk), maybe(Key::RailBytes), maybe(Key::RailWrs));
    quote! {
        #declared::Maxima {
            rails: #rails,
            peers: #peers,
            regions: #regions,
            lanes: #lanes,
            depth: #depth,
            batch: #batch,
            batches: #batches,
            submitters: #submitters,
            chunk: #chunk,
            rail_bytes: #rail_bytes,
            rail_wrs: #rail_wrs,
            deadline_ms: #deadline_ms,
            page: <#page as #krate::layouts::KvLayout>::PAGE_BYTES as ::core::primitive::usize,
        }
    }
}

/// A constant for each number that can be wrong, on its token.
fn questions(reader: &Reader) -> TokenStream {
    let (krate, ident) = (&reader.krate, &reader.ident);
    let maxima = quote!(&#ident::<#krate::shm::ShmRails>::__MAXIMA);
    let ask = |call: &str, arguments: TokenStream, span: Span| {
        let question = call_at(span, quote!(#krate::macro_support), call, arguments);
        quote_spanned!(span=> const _: () = #question;)
    };
    let simple = [
        ("accept_rails", Key::Rails),
        ("accept_peers", Key::Peers),
        ("accept_regions", Key::Regions),
        ("accept_lanes", Key::Lanes),
        ("accept_depth", Key::Depth),
        ("accept_batch", Key::Batch),
        ("accept_batches", Key::Batches),
        ("accept_submitters", Key::Submitters),
        ("accept_rail_bytes", Key::RailBytes),
        ("accept_rail_wrs", Key::RailWrs),
        ("accept_deadline", Key::DeadlineMs),
    ];
    let mut questions: TokenStream =
        simple.into_iter().map(|(call, key)| ask(call, maxima.clone(), reader.span(key))).collect();
    let page = &reader.page;
    let geometry = quote!(<#page as #krate::layouts::KvLayout>::GEOMETRY);
    questions.extend(ask("accept_page", geometry.clone(), page.span()));
    // mlx5 takes messages of 1 GiB, and no NIC less (max_msg_sz).
    let message = match reader.number(Key::MaxMessage) {
        Some(message) => quote!(#message),
        None => quote!(1 << 30),
    };
    questions.extend(ask("accept_chunk", quote!(#maxima, #message), reader.span(Key::Chunk)));
    if let Some(cq) = reader.number(Key::MaxCq) {
        questions.extend(ask("accept_cq", quote!(#maxima, #cq), reader.span(Key::MaxCq)));
    }
    if let Some(plan) = reader.number(Key::Plan) {
        // What the core's descriptors have room for (`kvrail_core::plan::MAX_SGES`).
        let sges = match reader.number(Key::MaxSges) {
            Some(sges) => quote!(#sges),
            None => quote!(32),
        };
        questions.extend(ask("accept_plan_of", quote!(#geometry, &#plan), plan.span()));
        let span = reader.number(Key::MaxSges).map_or(plan.span(), |sges| sges.span());
        questions.extend(ask("accept_plan", quote!(#maxima, &#plan, #sges), span));
    }
    questions
}
