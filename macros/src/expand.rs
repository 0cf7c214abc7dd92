//! A legal declaration, written down: one constant, one impl, and a question for each token that
//! `Declaration::build` may yet refuse. Absolute paths only.

use proc_macro2::{Span, TokenStream};
use quote::{quote, quote_spanned};
use syn::{DeriveInput, Path};

use crate::ast::{Axis, Field, Level, LevelKind, Order, Page, Plane};

pub(crate) fn expand(page: &Page) -> TokenStream {
    let Page { ident, krate, name, tokens_per_state, align, version, swizzle, .. } = page;
    let axes = page.axes.iter().map(|extent| {
        let (axis, extent) = (axis(krate, extent.axis), extent.extent.value);
        quote!(#krate::Axis::whole(#axis, #extent))
    });
    let order = levels(krate, &page.order);
    let planes = page.planes.iter().map(|p| plane(krate, p));
    let (tokens_per_state, align) = (tokens_per_state.value, align.value);
    let bytes = match page.bytes {
        Some(bytes) => {
            let bytes = bytes.value;
            quote!(::core::option::Option::Some(#bytes))
        }
        None => quote!(::core::option::Option::None),
    };
    let questions = spots(page).into_iter().map(|(spot, span)| {
        // A constant's panic is shown from the first to the last token of the call: all of them take
        // the span of the author's token, the path too.
        let krate = respanned(quote!(#krate), span);
        let spot = respanned(spot, span);
        quote_spanned!(span=> const _: () = #krate::expand::accept(&__KVRAIL_BUILT, #krate::Spot::#spot);)
    });
    let fields = page.planes.iter().flat_map(|plane| &plane.fields).map(|field| &field.ident);
    quote! {
        const _: () = {
            const __KVRAIL_BUILT: ::core::result::Result<#krate::Geometry, #krate::Refusals> =
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
                .build();
            impl #krate::KvLayout for #ident {
                const NAME: &'static ::core::primitive::str = #name;
                const GEOMETRY: &'static #krate::Geometry =
                    &#krate::expand::geometry_or_stub(&__KVRAIL_BUILT);
            }
            #(#questions)*
            // The struct is a declaration, and nobody reads its fields: this spares the warning.
            const _: fn(&#ident) = |row| {
                let _ = (#(&row.#fields,)*);
            };
        };
    }
}

/// The mistakes, and an impl, so that what uses the layout is not reported as well.
pub(crate) fn stub(input: &DeriveInput, mistakes: &[syn::Error]) -> TokenStream {
    let ident = &input.ident;
    let mistakes = mistakes.iter().map(syn::Error::to_compile_error);
    let krate = crate::check::krate(input);
    let name = ident.to_string();
    let (generics, arguments, bounds) = input.generics.split_for_impl();
    // A page lives for ever and is one type; a struct that borrows or is generic over types is one
    // mistake already, and its impl would be another.
    let simple = !input.generics.params.iter().any(|p| !matches!(p, syn::GenericParam::Const(_)));
    let implementation = simple.then(|| {
        quote! {
            impl #generics #krate::KvLayout for #ident #arguments #bounds {
                const NAME: &'static ::core::primitive::str = #name;
                const GEOMETRY: &'static #krate::Geometry = &#krate::expand::STUB;
            }
        }
    });
    quote!(#(#mistakes)* #implementation)
}

fn respanned(tokens: TokenStream, span: Span) -> TokenStream {
    tokens
        .into_iter()
        .map(|mut token| {
            token.set_span(span);
            token
        })
        .collect()
}

fn axis(krate: &Path, axis: Axis) -> TokenStream {
    match axis {
        Axis::Layer => quote!(#krate::AxisKind::Layer),
        Axis::Token => quote!(#krate::AxisKind::Token),
        Axis::Part => quote!(#krate::AxisKind::Part),
        Axis::Head => quote!(#krate::AxisKind::Head),
    }
}

fn levels(krate: &Path, order: &Order) -> TokenStream {
    let levels = order.levels.iter().map(|level| match level.kind {
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
        LevelKind::Pad(to) => quote!(#krate::Level::Pad(#to)),
    });
    quote!(&[#(#levels),*])
}

fn plane(krate: &Path, plane: &Plane) -> TokenStream {
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
            let levels = levels(krate, order);
            quote!(::core::option::Option::Some(#levels))
        }
        None => quote!(::core::option::Option::None),
    };
    quote!(#krate::PlaneDecl { fields: &[#(#fields),*], order: #order })
}

/// Every spot of the declaration, with its token: whatever `build` refuses is at one of them.
fn spots(page: &Page) -> Vec<(TokenStream, Span)> {
    let mut spots = vec![
        (quote!(Order), page.order.span),
        (quote!(TokensPerState), page.tokens_per_state.span),
        (quote!(Align), page.align.span),
    ];
    spots.extend(page.bytes.map(|bytes| (quote!(Bytes), bytes.span)));
    for (i, extent) in page.axes.iter().enumerate() {
        spots.push((quote!(Axis(#i)), extent.extent.span));
    }
    let level_spans =
        |order: &Order| -> Vec<Span> { order.levels.iter().map(|level: &Level| level.span).collect() };
    for (i, span) in level_spans(&page.order).into_iter().enumerate() {
        spots.push((quote!(Level(#i)), span));
    }
    let mut f: usize = 0;
    for (p, plane) in page.planes.iter().enumerate() {
        spots.push((quote!(Plane(#p)), plane.span));
        for (i, span) in plane.order.iter().flat_map(level_spans).enumerate() {
            spots.push((quote!(PlaneLevel(#p, #i)), span));
        }
        for field in &plane.fields {
            spots.push((quote!(Field(#f)), field.ident.span()));
            f += 1;
        }
    }
    spots
}
