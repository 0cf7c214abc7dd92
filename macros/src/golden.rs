//! Expansions, pretty-printed, against `tests/expand/*.expanded.rs`.
//!
//! `BLESS=1 cargo test -p kvrail-macros --lib` writes them; read the difference.

use std::fs;
use std::path::PathBuf;

use syn::{DeriveInput, parse_quote};

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

/// One error says what to write, and the expansion uses the right name, so that there is no other
/// error.
#[test]
fn a_renamed_dependency_is_told_by_name() {
    let page: DeriveInput = parse_quote! {
        #[kv(order(token), tokens = 64)]
        struct Page { latent: [u8; 576] }
    };
    let reader = || quote::quote!(Reader { page: Page });
    for found in [crate::layout::derive(&page, Some("kv")), crate::reader::engine(reader(), Some("kv"))] {
        let found = found.to_string();
        assert_eq!(found.matches("compile_error").count(), 1, "{found}");
        assert!(found.contains("add `#[kv(crate = \\\"::kv\\\")]`"), "{found}");
        assert!(found.contains(":: kv ::") && !found.contains(":: kvrail ::"), "{found}");
    }
    // A declaration that gives the path gets no error.
    let page: DeriveInput = parse_quote! {
        #[kv(crate = "::kv", order(token), tokens = 64)]
        struct Page { latent: [u8; 576] }
    };
    assert!(!crate::layout::derive(&page, Some("kv")).to_string().contains("compile_error"));
}

#[test]
fn no_expansion_is_an_orphan() {
    let tests = [include_str!("layout/tests.rs"), include_str!("reader/tests.rs")];
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/expand");
    for entry in fs::read_dir(folder).expect("the folder of expectations") {
        let name = entry.expect("an entry").file_name().into_string().expect("a name in UTF-8");
        let Some(name) = name.strip_suffix(".expanded.rs") else { panic!("{name} is no expectation") };
        let quoted = format!("\"{name}\",");
        assert!(tests.iter().any(|source| source.contains(&quoted)), "no test has the expectation {name}");
    }
}
