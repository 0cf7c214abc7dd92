//! What the derive writes, pretty-printed, against `tests/expand/*.expanded.rs`.
//!
//! `BLESS=1 cargo test -p kvrail-macros --lib` writes them; read the difference.

use std::fs;
use std::path::PathBuf;

use syn::{DeriveInput, parse_quote};

#[track_caller]
fn golden(name: &str, input: &DeriveInput) {
    golden_file(name, crate::derive(input, None));
}

#[track_caller]
pub(crate) fn golden_file(name: &str, tokens: proc_macro2::TokenStream) {
    let file = syn::parse2(tokens).expect("the expansion is items");
    let found = prettyplease::unparse(&file);
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("tests/expand/{name}.expanded.rs"));
    if std::env::var_os("BLESS").is_some() {
        fs::write(&path, &found).expect("writing the expectation");
    }
    let expected = fs::read_to_string(&path).expect("an expectation");
    assert_eq!(found, expected, "{}", path.display());
}

#[test]
fn a_page() {
    golden(
        "mla",
        &parse_quote! {
            #[kv(order(layer, token), layers = 61, tokens = 64)]
            struct Mla {
                latent: [Bf16; 512],
                rope: [Bf16; 64],
            }
        },
    );
}

#[test]
fn every_word() {
    golden(
        "every_word",
        &parse_quote! {
            #[kv(crate = "kv", name = "everything", version = 1, swizzle = 2)]
            #[kv(order(regions(part), pad(4096), strided(layer), planes, token, pad(64), head))]
            #[kv(parts = 2, layers = 4, tokens = 64, heads = 8, tokens_per_state = 4, align = 4096)]
            #[kv(bytes = 1_000)]
            struct Everything {
                first: [E4m3; N + 1],
                #[kv(name = "scale")]
                second: F32,
                #[kv(plane, order(pad(576), token))]
                footer: [u8; 3],
            }
        },
    );
}

#[test]
fn parameters_and_ranks() {
    golden(
        "generic",
        &parse_quote! {
            /// One rank's heads.
            #[kv(order(regions(planes), layer, tile, token, head), layers = LAYERS, tokens = 2 * T, heads = H)]
            #[kv(axis(tile = 4, tag = 7), sharded(head, ranks = RANKS, rank = 3), replicated(layer, ranks = 2))]
            #[kv(tokens_per_state = P, version = V)]
            pub struct Gqa<const H: usize, const T: usize, E = Bf16> where E: Copy {
                /// Keys.
                k: [E; 128],
                #[kv(plane)]
                v: [E; 128],
            }
        },
    );
}

#[test]
fn a_stub_after_mistakes() {
    golden(
        "stub",
        &parse_quote! {
            #[kv(order(layer), layer = 61)]
            struct Wrong<const N: usize> {
                latent: [Bf16; N],
            }
        },
    );
}

/// One error that says what to write, and an expansion that goes by the right name, so that there
/// is no other.
#[test]
fn a_renamed_dependency_is_told_by_name() {
    let page: DeriveInput = parse_quote! {
        #[kv(order(token), tokens = 64)]
        struct Page { latent: [u8; 576] }
    };
    let reader = || quote::quote!(Reader { page: Page });
    for found in [crate::derive(&page, Some("kv")), crate::engine_macro::engine(reader(), Some("kv"))] {
        let found = found.to_string();
        assert_eq!(found.matches("compile_error").count(), 1, "{found}");
        assert!(found.contains("add `#[kv(crate = \\\"::kv\\\")]`"), "{found}");
        assert!(found.contains(":: kv ::") && !found.contains(":: kvrail ::"), "{found}");
    }
    // Who has said where it is is not told.
    let page: DeriveInput = parse_quote! {
        #[kv(crate = "::kv", order(token), tokens = 64)]
        struct Page { latent: [u8; 576] }
    };
    assert!(!crate::derive(&page, Some("kv")).to_string().contains("compile_error"));
}

#[test]
fn no_expansion_is_an_orphan() {
    let tests = [include_str!("tests.rs"), include_str!("engine_macro/tests.rs")];
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/expand");
    for entry in fs::read_dir(folder).expect("the folder of expectations") {
        let name = entry.expect("an entry").file_name().into_string().expect("a name in UTF-8");
        let Some(name) = name.strip_suffix(".expanded.rs") else { panic!("{name} is no expectation") };
        let said = format!("\"{name}\",");
        assert!(tests.iter().any(|source| source.contains(&said)), "no test has the expectation {name}");
    }
}
