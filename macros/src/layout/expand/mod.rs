//! The expansion of a legal declaration: one constant of `Declaration`, one impl, a constant for
//! each field, and a check for each token that `Declaration::build` may refuse. All paths are
//! absolute.

mod docs;
mod numbers;

use proc_macro2::{Span, TokenStream};
use quote::{quote, quote_spanned};
use syn::{DeriveInput, Fields, GenericParam, Path};

use crate::layout::ast::{Axis, Extent, Field, Level, LevelKind, Number, Order, Page, Plane, Spread};
use crate::layout::check;
use crate::spans::call_at;
use numbers::Numbers;

pub(crate) fn expand(page: &Page) -> TokenStream {
    let Page { ident, generics, krate, name, .. } = page;
    let numbers = Numbers::new(krate);
    let declaration = declaration(page, &numbers);
    let fields: Vec<&Field> = page.planes.iter().flat_map(|plane| &plane.fields).collect();
    let sizes: Vec<_> = fields.iter().map(|field| &field.ty).collect();
    let reads = fields.iter().map(|field| &field.ident);
    let constants = constants(page, &fields);
    let (parameters, arguments, bounds) = generics.split_for_impl();
    let built = quote!(__KVRAIL_BUILT);
    let words = docs::declaration(page);
    let layout = |geometry: TokenStream| {
        quote! {
            #(#[doc = #words])*
            #[automatically_derived]
            impl #parameters #krate::KvLayout for #ident #arguments #bounds {
                const NAME: &'static ::core::primitive::str = #name;
                const GEOMETRY: &'static #krate::Geometry = #geometry;
            }
        }
    };
    let checks = checks(page, &numbers, &built);
    let definitions = numbers.definitions(generics.params.is_empty());
    let checked = if generics.params.is_empty() {
        // Every check is a constant of its own, so that all mistakes are reported at once.
        let checks = checks.into_iter().map(|(check, span)| quote_spanned!(span=> const _: () = #check;));
        let layout = layout(quote!(&#krate::macro_support::geometry_or_stub(&#built)));
        quote! {
            #definitions
            const #built: ::core::result::Result<#krate::Geometry, #krate::DeclarationErrors> = #declaration.build();
            #layout
            #(#checks)*
            const _: () = #krate::macro_support::cross_check(&#built, &[#(::core::mem::size_of::<#sizes>()),*]);
        }
    } else {
        // Values are known for an instance only: the first mistake of an instance is reported where
        // the instance is used, on the mistake's token.
        let checks = checks.into_iter().map(|(check, _)| check);
        // If all parameters have defaults, that instance is checked at once.
        let defaults = generics.params.iter().all(|parameter| match parameter {
            GenericParam::Const(parameter) => parameter.default.is_some(),
            GenericParam::Type(parameter) => parameter.default.is_some(),
            GenericParam::Lifetime(_) => false,
        });
        let instance =
            defaults.then(|| quote!(const _: &#krate::Geometry = <#ident as #krate::KvLayout>::GEOMETRY;));
        let layout = layout(quote! {
            &{
                #definitions
                #[allow(non_snake_case)]
                let #built = #declaration.build();
                #(#checks;)*
                #krate::macro_support::cross_check(&#built, &[#(::core::mem::size_of::<#sizes>()),*]);
                #krate::macro_support::geometry_or_stub(&#built)
            }
        });
        quote!(#layout #instance)
    };
    quote! {
        // Braces that an author's expression needs in an attribute are superfluous here.
        #[allow(unused_braces, unused_parens)]
        const _: () = {
            #checked
            #constants
            // The struct is a declaration whose fields are never read. This use silences the
            // warning.
            #[allow(dead_code)]
            fn __kvrail_reads #parameters (row: &#ident #arguments) #bounds {
                let _ = (#(&row.#reads,)*);
            }
        };
    }
}

/// The mistakes, and an impl, so that uses of the layout are not reported as well.
pub(crate) fn stub(input: &DeriveInput, krate: &Path, mistakes: &[syn::Error]) -> TokenStream {
    let ident = &input.ident;
    let mistakes = mistakes.iter().map(syn::Error::to_compile_error);
    let name = ident.to_string();
    let generics = check::generics(input, krate);
    let (parameters, arguments, bounds) = generics.split_for_impl();
    // A struct with a lifetime is one mistake already, and its impl would be another.
    let simple = !generics.params.iter().any(|p| matches!(p, GenericParam::Lifetime(_)));
    let implementation = simple.then(|| {
        let constants = stub_constants(input, krate);
        quote! {
            #[automatically_derived]
            impl #parameters #krate::KvLayout for #ident #arguments #bounds {
                const NAME: &'static ::core::primitive::str = #name;
                const GEOMETRY: &'static #krate::Geometry = &#krate::macro_support::STUB;
            }
            #[allow(dead_code, missing_docs)]
            impl #parameters #ident #arguments #bounds {
                #constants
            }
        }
    });
    quote!(#(#mistakes)* #implementation)
}

fn stub_constants(input: &DeriveInput, krate: &Path) -> TokenStream {
    let syn::Data::Struct(data) = &input.data else { return TokenStream::new() };
    let Fields::Named(fields) = &data.fields else { return TokenStream::new() };
    let vis = &input.vis;
    let mut names = Vec::new();
    let constants = fields.named.iter().filter_map(|field| {
        let ident = field.ident.as_ref()?;
        let (element, _) = check::element(&field.ty, ident, &mut Vec::new())?;
        let constant = check::constant(ident);
        if names.contains(&constant) {
            return None;
        }
        names.push(constant.clone());
        Some(quote!(#vis const #constant: #krate::FieldOf<Self, #element> = #krate::macro_support::field(0);))
    });
    quote!(#(#constants)*)
}

fn constants(page: &Page, fields: &[&Field]) -> TokenStream {
    let Page { ident, vis, generics, krate, .. } = page;
    let (parameters, arguments, bounds) = generics.split_for_impl();
    let constants = fields.iter().enumerate().map(|(index, field)| {
        let Field { docs, element, len, .. } = field;
        let constant = check::constant(&field.ident);
        let elements = quote!(#element).to_string();
        let what = match len {
            Some(len) => format!(" Field `{}` of a row: {} × `{elements}`.", field.name, quote!(#len)),
            None => format!(" Field `{}` of a row: one `{elements}`.", field.name),
        };
        // The author's words first, in a paragraph of their own.
        let blank = (!docs.is_empty()).then(|| quote!(#[doc = ""]));
        quote! {
            #(#docs)*
            #blank
            #[doc = #what]
            #vis const #constant: #krate::FieldOf<Self, #element> = #krate::macro_support::field(#index);
        }
    });
    quote! {
        #[allow(dead_code)]
        impl #parameters #ident #arguments #bounds {
            #(#constants)*
        }
    }
}

fn declaration<'a>(page: &'a Page, numbers: &Numbers<'a>) -> TokenStream {
    let Page { krate, .. } = page;
    let axes = page.axes.iter().map(|extent| axis_of(page, extent, numbers));
    let order = levels(krate, &page.order, numbers);
    let planes = page.planes.iter().map(|p| plane(krate, p, numbers));
    let (tokens_per_state, align) = (numbers.large(&page.tokens_per_state), numbers.large(&page.align));
    let (version, swizzle) = (numbers.narrow(&page.version), numbers.narrow(&page.swizzle));
    let bytes = match &page.bytes {
        Some(bytes) => {
            let bytes = numbers.large(bytes);
            quote!(::core::option::Option::Some(#bytes))
        }
        None => quote!(::core::option::Option::None),
    };
    quote! {
        #krate::Declaration {
            axes: &[#(#axes),*],
            order: #order,
            planes: &[#(#planes),*],
            tokens_per_state: #tokens_per_state,
            align: #align,
            bytes: #bytes,
            version: #version,
            swizzle: #swizzle,
        }
    }
}

fn axis_of<'a>(page: &'a Page, extent: &'a Extent, numbers: &Numbers<'a>) -> TokenStream {
    let krate = &page.krate;
    let kind = axis(krate, &extent.axis);
    let count = match extent.axis {
        Axis::Token => numbers.states(&extent.extent, &page.tokens_per_state),
        _ => numbers.large(&extent.extent),
    };
    let Some(spread) = &extent.spread else { return quote!(#krate::Axis::whole(#kind, #count)) };
    match spread {
        Spread::Replicated { ranks } => {
            let ranks = numbers.narrow(ranks);
            quote!(#krate::Axis::replicated(#kind, #count, #ranks))
        }
        Spread::Sharded { ranks, rank: None } => {
            let ranks = numbers.narrow(ranks);
            quote!(#krate::Axis::sharded(#kind, #count, #ranks))
        }
        Spread::Sharded { ranks, rank: Some(rank) } => {
            let ranks = numbers.narrow(ranks);
            let rank = numbers.narrow(rank);
            let rank = quote!(::core::option::Option::Some(#rank));
            quote! {
                #krate::Axis {
                    kind: #kind,
                    extent: #count,
                    spread: #krate::Spread::Sharded { ranks: #ranks, rank: #rank },
                }
            }
        }
        Spread::Stage { first, of } => {
            let (first, of) = (numbers.large(first), numbers.large(of));
            quote!(#krate::Axis::stage(#kind, #first, #count, #of))
        }
    }
}

fn axis(krate: &Path, axis: &Axis) -> TokenStream {
    match axis {
        Axis::Layer => quote!(#krate::AxisKind::Layer),
        Axis::Token => quote!(#krate::AxisKind::Token),
        Axis::Part => quote!(#krate::AxisKind::Part),
        Axis::Head => quote!(#krate::AxisKind::Head),
        Axis::Block => quote!(#krate::AxisKind::Block),
        Axis::Own(own) => {
            let tag = own.tag;
            quote!(#krate::AxisKind::Other(#tag))
        }
    }
}

fn levels<'a>(krate: &Path, order: &'a Order, numbers: &Numbers<'a>) -> TokenStream {
    let levels = order.levels.iter().map(|level| match &level.kind {
        LevelKind::Axis(a) => {
            let axis = axis(krate, a);
            quote!(#krate::Level::Axis(#axis))
        }
        LevelKind::Strided(a) => {
            let axis = axis(krate, a);
            quote!(#krate::Level::Strided(#axis))
        }
        LevelKind::Regions(a) => {
            let axis = axis(krate, a);
            quote!(#krate::Level::Regions(#axis))
        }
        LevelKind::Planes => quote!(#krate::Level::Planes),
        LevelKind::StridedPlanes => quote!(#krate::Level::StridedPlanes),
        LevelKind::RegionPlanes => quote!(#krate::Level::RegionPlanes),
        LevelKind::Pad(to) => {
            let to = numbers.large(to);
            quote!(#krate::Level::Pad(#to))
        }
    });
    quote!(&[#(#levels),*])
}

fn plane<'a>(krate: &Path, plane: &'a Plane, numbers: &Numbers<'a>) -> TokenStream {
    let fields = plane.fields.iter().map(|field| {
        let Field { name, element, len, .. } = field;
        let len = match len {
            Some(len) => quote!(#len),
            None => quote!(1),
        };
        quote!(#krate::FieldDecl::of::<#element>(#name, #len))
    });
    let order = match &plane.order {
        Some(order) => {
            let levels = levels(krate, order, numbers);
            quote!(::core::option::Option::Some(#levels))
        }
        None => quote!(::core::option::Option::None),
    };
    quote!(#krate::PlaneDecl { fields: &[#(#fields),*], order: #order })
}

/// A call for each token of the declaration at which `build` may find a mistake, and the token's
/// span, at which the call reports it.
fn checks<'a>(page: &'a Page, numbers: &Numbers<'a>, built: &TokenStream) -> Vec<(TokenStream, Span)> {
    let krate = &page.krate;
    let mut checks = Vec::new();
    let mut check_at = |call: &str, arguments: TokenStream, span: Span| {
        checks.push((call_at(span, quote!(#krate::macro_support), call, arguments), span));
    };
    let spot = |spot: TokenStream| quote!(&#built, #krate::Spot::#spot);
    check_at("accept", spot(quote!(Order)), page.order.span);
    check_at("accept", spot(quote!(TokensPerState)), page.tokens_per_state.span());
    check_at("accept", spot(quote!(Align)), page.align.span());
    if let Some(bytes) = &page.bytes {
        check_at("accept", spot(quote!(Bytes)), bytes.span());
    }
    let mut small = vec![&page.version, &page.swizzle];
    for (i, extent) in page.axes.iter().enumerate() {
        let word = extent.axis.word();
        check_at("accept_axis", quote!(&#built, #i, #word), extent.extent.span());
        if let (Axis::Token, true) =
            (&extent.axis, only_the_compiler_knows_states(&extent.extent, &page.tokens_per_state))
        {
            let tokens = numbers.large(&extent.extent);
            let per = numbers.large(&page.tokens_per_state);
            check_at("accept_states", quote!(#tokens, #per), page.tokens_per_state.span());
        }
        if let Some(spread) = &extent.spread {
            let at = match spread {
                Spread::Sharded { ranks, rank } => {
                    small.push(ranks);
                    small.extend(rank);
                    rank.as_ref().unwrap_or(ranks)
                }
                Spread::Replicated { ranks } => {
                    small.push(ranks);
                    ranks
                }
                Spread::Stage { first, .. } => first,
            };
            check_at("accept", spot(quote!(Spread(#i))), at.span());
        }
    }
    for number in small {
        if let Number::Expr(expr) = number {
            let name = numbers.name(expr);
            check_at("accept_small", quote!(#name), number.span());
        }
    }
    let level_spans =
        |order: &Order| -> Vec<Span> { order.levels.iter().map(|level: &Level| level.span).collect() };
    for (i, span) in level_spans(&page.order).into_iter().enumerate() {
        check_at("accept", spot(quote!(Level(#i))), span);
    }
    let mut f: usize = 0;
    for (p, plane) in page.planes.iter().enumerate() {
        check_at("accept", spot(quote!(Plane(#p))), plane.span);
        for (i, span) in plane.order.iter().flat_map(level_spans).enumerate() {
            check_at("accept", spot(quote!(PlaneLevel(#p, #i))), span);
        }
        for field in &plane.fields {
            check_at("accept", spot(quote!(Field(#f))), field.ident.span());
            f += 1;
        }
    }
    checks
}

/// Whether only the compiler can know how tokens fit into states.
fn only_the_compiler_knows_states(tokens: &Number, per: &Number) -> bool {
    per.value() != Some(1) && (tokens.value().is_none() || per.value().is_none())
}
