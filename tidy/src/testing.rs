//! Tests that docs/testing.md names and that are not in the tree.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use syn::visit::Visit;

use crate::workspace::{files, shown};

/// The crates as the page calls them, each with the folders that hold its code and its tests.
const CRATES: [(&str, &[&str]); 14] = [
    ("capi", &["engine/capi"]),
    ("conformance", &["engine/conformance"]),
    ("core", &["engine/core"]),
    ("examples", &["examples"]),
    ("host", &["engine/host"]),
    ("kvrail", &["engine/src", "engine/tests"]),
    ("kvrail-bench", &["benches"]),
    ("layouts", &["layouts"]),
    ("local", &["engine/local"]),
    ("macros", &["macros"]),
    ("mlx5", &["engine/mlx5", "engine/mlx5-device"]),
    ("session", &["engine/session"]),
    ("sim", &["engine/sim"]),
    ("verbs", &["engine/verbs"]),
];

/// Under which heading the page names tests.
const HEADING: &str = "## Which test holds what";

/// The paths (`module::function`) of a crate's tests, modules and functions with a doctest.
type Paths = Vec<Vec<String>>;

/// A line for each test, or module of tests, that the page names and that its crate does not have,
/// and for a page that names none.
///
/// # Panics
///
/// When a Rust file of the tree cannot be read or is not Rust.
#[must_use]
pub fn missing(page: &str) -> Vec<String> {
    let mut known = BTreeMap::<&str, Paths>::new();
    for path in files(&["rs"]) {
        let place = shown(&path);
        for (name, folders) in CRATES {
            if let Some(folder) = folders.iter().find(|folder| place.starts_with(&format!("{folder}/"))) {
                let source =
                    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
                let inside = Path::new(place.strip_prefix(folder).unwrap_or(&place));
                let found = paths(inside, &source).unwrap_or_else(|error| panic!("{place}: {error}"));
                known.entry(name).or_default().extend(found);
            }
        }
    }
    unknown(page, &known)
}

fn unknown(page: &str, known: &BTreeMap<&str, Paths>) -> Vec<String> {
    let table = page.split(HEADING).nth(1).unwrap_or_default();
    let mut findings = Vec::new();
    let mut count = 0;
    for row in table.lines().filter(|line| line.starts_with('|')) {
        for (name, test) in named(row) {
            count += 1;
            let segments: Vec<_> = test.split("::").filter(|segment| *segment != "*").collect();
            let paths = known.get(name.as_str()).map_or(&[][..], Vec::as_slice);
            if segments.is_empty() || !paths.iter().any(|path| path.ends_with(&segments_of(&segments))) {
                findings.push(format!("docs/testing.md: {name} has no test or module {test}"));
            }
        }
    }
    if count == 0 {
        findings.push(format!("docs/testing.md names no test under \"{HEADING}\""));
    }
    findings
}

fn segments_of(segments: &[&str]) -> Vec<String> {
    segments.iter().map(|&segment| segment.to_owned()).collect()
}

/// The tests in the second column of a row, each with the crates that stand before it.
fn named(row: &str) -> Vec<(String, String)> {
    let cell = row.split('|').nth(2).unwrap_or_default();
    let mut crates = Vec::new();
    let mut found = Vec::new();
    for (at, part) in cell.split('`').enumerate() {
        if at % 2 == 0 {
            let words = part.split(|c: char| c != '-' && !c.is_alphanumeric());
            let here: Vec<_> = words.filter(|word| CRATES.iter().any(|(name, _)| name == word)).collect();
            if !here.is_empty() {
                crates = here;
            }
        } else if !part.contains('/') {
            found.extend(crates.iter().map(|&name| (name.to_owned(), part.to_owned())));
        }
    }
    found
}

/// The paths that a file of a crate declares. `inside` is its path from the crate's folder.
fn paths(inside: &Path, source: &str) -> syn::Result<Paths> {
    let skipped = ["/", "src", "tests", "mod", "main", "lib"];
    let stem = inside.with_extension("");
    let parts = stem.components().map(|part| part.as_os_str().to_string_lossy().into_owned());
    // Below `src`, `tests` is a module; at the crate's root it is Cargo's folder.
    let parts =
        parts.enumerate().filter(|(at, part)| !(skipped.contains(&&**part) && (*at < 2 || part != "tests")));
    let module: Vec<_> = parts.map(|(_, part)| part).collect();
    let mut tests =
        Declared { found: vec![module.clone()], module, functions: Vec::new(), listed: Vec::new() };
    tests.visit_file(&syn::parse_file(source)?);
    // A macro of the file makes tests of the functions that its invocation lists.
    let listed =
        tests.functions.iter().filter(|path| path.last().is_some_and(|name| tests.listed.contains(name)));
    Ok(listed.cloned().chain(tests.found).collect())
}

struct Declared {
    module: Vec<String>,
    found: Paths,
    /// Functions without an attribute that makes them tests.
    functions: Paths,
    /// The words in macro invocations outside of functions.
    listed: Vec<String>,
}

impl Declared {
    fn add(&mut self, names: &[String]) {
        self.found.push([&self.module[..], names].concat());
    }
}

impl<'ast> Visit<'ast> for Declared {
    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        self.module.push(item.ident.to_string());
        self.add(&[]);
        syn::visit::visit_item_mod(self, item);
        self.module.pop();
    }

    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        if item.attrs.iter().any(|attribute| attribute.path().is_ident("test")) {
            self.add(&[item.sig.ident.to_string()]);
        } else {
            self.functions.push([&self.module[..], &[item.sig.ident.to_string()]].concat());
        }
    }

    // A test that a macro declares, as those of proptest are.
    fn visit_item_macro(&mut self, item: &'ast syn::ItemMacro) {
        let text = item.mac.tokens.to_string();
        let names = text.split("fn ").skip(1).filter_map(|rest| rest.split([' ', '(']).next());
        if text.contains("# [test]") {
            names.for_each(|name| self.add(&[name.to_owned()]));
        } else {
            self.listed.extend(text.split_whitespace().map(str::to_owned));
        }
    }

    // The example in the documentation of a method is a test.
    fn visit_item_impl(&mut self, item: &'ast syn::ItemImpl) {
        let syn::Type::Path(ty) = &*item.self_ty else { return };
        let Some(ty) = ty.path.segments.last() else { return };
        for method in &item.items {
            if let syn::ImplItem::Fn(method) = method
                && method.attrs.iter().any(has_example)
            {
                self.add(&[ty.ident.to_string(), method.sig.ident.to_string()]);
            }
        }
    }
}

fn has_example(attribute: &syn::Attribute) -> bool {
    let syn::Meta::NameValue(doc) = &attribute.meta else { return false };
    let syn::Expr::Lit(text) = &doc.value else { return false };
    let syn::Lit::Str(text) = &text.lit else { return false };
    attribute.path().is_ident("doc") && text.value().trim_start().starts_with("```")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_are_gone_are_found_and_those_that_stand_are_not() {
        let source = "impl Page { /// Text.\n /// ```\n /// ```\n pub fn of() {} } \
                      #[test] fn a() {} fn helper() {} mod inner { #[test] fn b() {} } \
                      proptest! { #[test] fn p(x in 0..3u8) {} } fn q() {} for_each_kind! { q; r; }";
        let known = paths(Path::new("/src/lane/tests/mod.rs"), source).expect("Rust");
        let known =
            BTreeMap::from([("core", known), ("sim", paths(Path::new("/tests/x.rs"), "").expect("Rust"))]);
        let page =
            |names: &str| format!("{HEADING}\n\n| promise | test |\n|---|---|\n| it `holds` | {names} |\n");
        let standing = "core `lane::tests::a`, `inner::b`, `p`, `q`, doctest `Page::of`, `tests::*`; core, sim loom: \
                        `benches/count`; sim `x`";
        assert_eq!(unknown(&page(standing), &known), [""; 0]);
        for gone in [
            "core `helper`",
            "core `r`",
            "core `lane::tests::c`",
            "core `other::a`",
            "sim `a`",
            "core `y::*`",
        ] {
            assert_eq!(unknown(&page(gone), &known).len(), 1, "{gone}");
        }
        assert_eq!(unknown("# Another page", &known).len(), 1);
    }

    #[test]
    fn every_crate_before_a_name_must_have_it() {
        let found = named("| a | core, sim `x::y` (`z`); host `w` |");
        let found: Vec<_> = found.iter().map(|(name, test)| format!("{name} {test}")).collect();
        assert_eq!(found, ["core x::y", "sim x::y", "core z", "sim z", "host w"]);
    }
}
