//! The expansion of a legal declaration: the type, its numbers, and a check of each number.

use proc_macro2::{Span, TokenStream};
use quote::{ToTokens as _, quote, quote_spanned};
use syn::Path;
use syn::spanned::Spanned as _;

use super::ast::{Key, Reader};
use super::{check, parse};
use crate::spans::call_at;

pub(crate) fn expand(reader: &Reader) -> TokenStream {
    if reader.bare {
        return bare(reader);
    }
    let Reader { docs, vis, ident, krate, page, .. } = reader;
    let maxima = maxima(reader);
    let checks = checks(reader);
    let doc_lines = doc_lines(reader);
    let blank = (!docs.is_empty()).then(|| quote!(#[doc = ""]));
    let support = quote!(#krate::macro_support);
    let numbers = numbers(reader);
    let state = quote! {
        #support::State<
            { #numbers.peers },
            { #numbers.regions },
            { #numbers.lanes },
            { #numbers.depth },
            { #numbers.batches },
            { #numbers.batch },
            { #numbers.submitters },
            { #support::mail(#numbers.submitters, #numbers.batches) },
            {
                let mail = #support::mail(#numbers.submitters, #numbers.batches);
                #support::news(mail, #numbers.submitters, #numbers.batches, #numbers.batch)
            },
        >
    };
    let item = item(&quote!(#(#docs)* #blank #(#[doc = #doc_lines])*), reader);
    quote! {
        #item
        const _: () = {
            impl #ident<#krate::shm::ShmRails> {
                #[doc(hidden)]
                const __MAXIMA: #support::Maxima = #maxima;
                /// Bytes of a reader's whole state, without the rails' own: the size of its
                /// `Storage`.
                #vis const STATE_BYTES: ::core::primitive::usize =
                    ::core::mem::size_of::<#krate::Storage<#ident>>();
            }
            #[automatically_derived]
            impl<T: #krate::ReaderTransport> #support::Declared for #ident<T> {
                type State = #state;
                const PAGE: #support::DeclaredPage = #support::DeclaredPage::of::<#page>();
                const MAXIMA: #support::Maxima = #numbers;
            }
            #checks
        };
    }
}

/// An engine without a reader around it: a type that names its numbers, and starts one.
fn bare(reader: &Reader) -> TokenStream {
    let Reader { docs, vis, ident, krate, .. } = reader;
    let maxima = maxima(reader);
    let checks = checks(reader);
    let doc_lines = doc_lines(reader);
    let blank = (!docs.is_empty()).then(|| quote!(#[doc = ""]));
    let support = quote!(#krate::macro_support);
    let numbers = numbers(reader);
    let state = quote! {
        #krate::core::storage::EngineStorage<
            { #numbers.peers },
            { #numbers.regions },
            { #numbers.lanes },
            { #numbers.depth },
            { #numbers.batches },
            { #numbers.batch },
        >
    };
    quote! {
        #(#docs)* #blank #(#[doc = #doc_lines])*
        #[derive(Clone, Copy, Debug)]
        #vis struct #ident;
        const _: () = {
            #[allow(dead_code)]
            impl #ident {
                #[doc(hidden)]
                const __MAXIMA: #support::Maxima = #maxima;
                /// Bytes of an engine's whole state, without the rails' own: the size of its
                /// `bare::BareStorage`.
                #vis const STATE_BYTES: ::core::primitive::usize =
                    ::core::mem::size_of::<#krate::bare::BareStorage<#ident>>();

                /// Room for one engine, for a `static` of the type `bare::BareStorage`.
                #[must_use]
                #vis const fn storage() -> #krate::bare::BareStorage<#ident> {
                    #krate::core::storage::StaticStorage::new(#krate::core::storage::EngineStorage::new())
                }

                /// Starts an engine over the rails of `provider` in `storage`. The declared numbers
                /// replace those of `config`.
                ///
                /// # Errors
                ///
                /// More rails than declared, a storage that has been taken, or numbers in `config`
                /// that cannot work. Unless it was taken, the storage can be taken again.
                #vis fn start<P: #krate::core::provider::Provider>(
                    storage: &'static #krate::bare::BareStorage<#ident>,
                    provider: P,
                    config: #krate::core::config::EngineConfig,
                ) -> ::core::result::Result<
                    #krate::core::engine::Engine<'static, P>,
                    #krate::bare::BareStartError,
                > {
                    let config = #support::bare_config(&Self::__MAXIMA, &provider, config)?;
                    ::core::result::Result::Ok(storage.start(provider, config)?)
                }

                /// The deadline of a batch that is submitted at `now`: the declared time from then.
                #[must_use]
                #vis fn deadline(now: #krate::core::time::Time) -> #krate::core::time::Time {
                    now + #krate::core::time::Nanos::from_millis(
                        Self::__MAXIMA.deadline_ms as ::core::primitive::u64,
                    )
                }
            }
            #[automatically_derived]
            impl #krate::bare::DeclaredEngine for #ident {
                type State = #state;
            }
            #checks
        };
    }
}

/// The constant that holds the declared numbers.
fn numbers(reader: &Reader) -> TokenStream {
    let Reader { ident, krate, .. } = reader;
    if reader.bare { quote!(#ident::__MAXIMA) } else { quote!(#ident::<#krate::shm::ShmRails>::__MAXIMA) }
}

/// The type, and the items that do not depend on its numbers.
fn item(docs: &TokenStream, reader: &Reader) -> TokenStream {
    let Reader { vis, ident, krate, page, pages, .. } = reader;
    let support = quote!(#krate::macro_support);
    let others = quote!(&[#(#krate::PageLayout::of::<#pages>()),*]);
    quote! {
        #docs
        #vis struct #ident<T: #krate::ReaderTransport = #krate::shm::ShmRails> {
            reader: #krate::Reader<T>,
        }
        #[allow(dead_code)]
        impl<T: #krate::ReaderTransport> #ident<T> {
            /// Starts a reader over `rails` in the state of a `Storage`. For a page whose rank is
            /// known only at run time it does not compile: use `start_as`.
            ///
            /// # Errors
            ///
            /// More rails than declared, or numbers in `config` that cannot work or contradict the
            /// declaration. The storage can be taken again.
            #vis fn start(
                state: #krate::TakenStorage<<Self as #support::Declared>::State>,
                rails: T,
                config: #krate::Config,
            ) -> ::core::result::Result<Self, #krate::StartError> {
                Self::start_as(state, #krate::PageLayout::of::<#page>(), rails, config)
            }

            /// As `start`, for the declared page at a rank: `PageLayout::at_rank`.
            ///
            /// # Errors
            ///
            /// As `start`, or the pages of another layout.
            #vis fn start_as(
                state: #krate::TakenStorage<<Self as #support::Declared>::State>,
                layout: #krate::PageLayout,
                rails: T,
                config: #krate::Config,
            ) -> ::core::result::Result<Self, #krate::StartError> {
                match #support::start::<Self, T>(state, layout, #others, rails, config) {
                    ::core::result::Result::Ok(reader) => ::core::result::Result::Ok(Self { reader }),
                    ::core::result::Result::Err(error) => ::core::result::Result::Err(error),
                }
            }

            /// The deadline of a batch that is submitted now: the declared time from now.
            #[must_use]
            #vis fn deadline(&self) -> #krate::core::time::Time {
                let milliseconds = <Self as #support::Declared>::MAXIMA.deadline_ms;
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

/// The mistakes, and a type, so that uses of the type are not reported as well.
pub(crate) fn stub(reader: &parse::Reader, krate: Path, mistakes: &[syn::Error]) -> TokenStream {
    let mistakes = mistakes.iter().map(syn::Error::to_compile_error);
    let stub = Reader {
        docs: Vec::new(),
        vis: reader.vis.clone(),
        ident: reader.ident.clone(),
        page: syn::parse_quote!(#krate::layouts::catalogue::Opaque<4096>),
        pages: Vec::new(),
        krate,
        bare: check::bare(reader),
        numbers: Vec::new(),
    };
    let stub = expand(&Reader { docs: vec![syn::parse_quote!(#[allow(missing_docs)])], ..stub });
    quote!(#(#mistakes)* #stub)
}

/// The documentation of the type: what it reads, and the declared numbers.
fn doc_lines(reader: &Reader) -> Vec<String> {
    let name = |page: &syn::Type| format!("`{}`", page.to_token_stream().to_string().replace(' ', ""));
    let mut named = name(&reader.page);
    for (at, page) in reader.pages.iter().enumerate() {
        named += if at + 1 == reader.pages.len() { " and " } else { ", " };
        named += &name(page);
    }
    let what = if reader.bare {
        " an engine, without a reader around it, whose maxima are known at compile time."
    } else {
        " a `Reader` whose maxima are known at compile time."
    };
    let mut lines = vec![
        format!(" Pulls pages of {named} out of peers' memory:"),
        what.into(),
        String::new(),
        " | maximum | |".into(),
        " |---|---|".into(),
    ];
    for (key, word) in Key::ALL {
        if let (Some(number), true) = (reader.number(key), key != Key::Plan) {
            lines.push(format!(" | `{word}` | {} |", number.to_token_stream()));
        }
    }
    if lines.len() == 5 {
        lines.truncate(2);
    }
    lines.push(String::new());
    let storage = if reader.bare { "bare::BareStorage" } else { "Storage" };
    lines.push(format!(" Its whole state is in a `{storage}`. How much of it is in use is set at run time."));
    lines
}

/// The declared numbers, and the defaults of the others.
fn maxima(reader: &Reader) -> TokenStream {
    let krate = &reader.krate;
    let support = quote!(#krate::macro_support);
    let page = &reader.page;
    let or =
        |key: Key, default: TokenStream| reader.number(key).map_or(default, quote::ToTokens::to_token_stream);
    let maybe = |key: Key| match reader.number(key) {
        Some(number) => quote!(::core::option::Option::Some(#number)),
        None => quote!(::core::option::Option::None),
    };
    let (rails, peers) = (or(Key::Rails, quote!(8)), or(Key::Peers, quote!(64)));
    let pages = core::iter::once(page).chain(&reader.pages);
    let most_regions = quote!(#support::most_regions(&[
        #(<#pages as #krate::layouts::KvLayout>::REGIONS),*
    ]));
    let pools = or(Key::Pools, quote!(#support::pools(#peers)));
    let regions = or(Key::Regions, quote!(#support::regions(#pools, #most_regions)));
    let plans = or(Key::Plans, quote!(#support::MAX_PLANS));
    let lanes = or(Key::Lanes, quote!(#support::lanes(#peers, #rails)));
    let (depth, batch) = (or(Key::Depth, quote!(128)), or(Key::Batch, quote!(256)));
    let (batches, submitters) = (or(Key::Batches, quote!(64)), or(Key::Submitters, quote!(0)));
    let deadline_ms = or(Key::DeadlineMs, quote!(1000));
    let (chunk, rail_bytes, rail_wrs) = (maybe(Key::Chunk), maybe(Key::RailBytes), maybe(Key::RailWrs));
    quote! {
        #support::Maxima {
            rails: #rails,
            peers: #peers,
            regions: #regions,
            lanes: #lanes,
            depth: #depth,
            batch: #batch,
            batches: #batches,
            submitters: #submitters,
            plans: #plans,
            chunk: #chunk,
            rail_bytes: #rail_bytes,
            rail_wrs: #rail_wrs,
            deadline_ms: #deadline_ms,
            page: <#page as #krate::layouts::KvLayout>::PAGE_BYTES as ::core::primitive::usize,
            page_regions: <#page as #krate::layouts::KvLayout>::REGIONS as ::core::primitive::usize,
        }
    }
}

/// A constant for each number that can be wrong, with the span of its token.
fn checks(reader: &Reader) -> TokenStream {
    let krate = &reader.krate;
    let maxima = {
        let numbers = numbers(reader);
        quote!(&#numbers)
    };
    let check_at = |call: &str, arguments: TokenStream, span: Span| {
        let check = call_at(span, quote!(#krate::macro_support), call, arguments);
        quote_spanned!(span=> const _: () = #check;)
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
        ("accept_plans", Key::Plans),
        ("accept_rail_bytes", Key::RailBytes),
        ("accept_rail_wrs", Key::RailWrs),
        ("accept_deadline", Key::DeadlineMs),
    ];
    let mut checks: TokenStream =
        simple.into_iter().map(|(call, key)| check_at(call, maxima.clone(), reader.span(key))).collect();
    let page = &reader.page;
    let geometry = quote!(<#page as #krate::layouts::KvLayout>::GEOMETRY);
    checks.extend(check_at("accept_page", geometry.clone(), page.span()));
    for page in &reader.pages {
        let geometry = quote!(<#page as #krate::layouts::KvLayout>::GEOMETRY);
        checks.extend(check_at("accept_page", geometry, page.span()));
    }
    // mlx5 takes messages of 1 GiB, and no NIC less (max_msg_sz).
    let message = match reader.number(Key::MaxMessage) {
        Some(message) => quote!(#message),
        None => quote!(1 << 30),
    };
    checks.extend(check_at("accept_chunk", quote!(#maxima, #message), reader.span(Key::Chunk)));
    if let Some(cq) = reader.number(Key::MaxCq) {
        checks.extend(check_at("accept_cq", quote!(#maxima, #cq), reader.span(Key::MaxCq)));
    }
    if let Some(plan) = reader.number(Key::Plan) {
        // The pieces that the core's descriptors have room for (`kvrail_core::plan::MAX_SGES`).
        let sges = match reader.number(Key::MaxSges) {
            Some(sges) => quote!(#sges),
            None => quote!(32),
        };
        checks.extend(check_at("accept_plan_of", quote!(#geometry, &#plan), plan.span()));
        let span = reader.number(Key::MaxSges).map_or(plan.span(), |sges| sges.span());
        checks.extend(check_at("accept_plan", quote!(#maxima, &#plan, #sges), span));
    }
    checks
}
