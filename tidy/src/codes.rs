//! Error codes: what `fn code(&self) -> u32` of each error type gives.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::path::Path;

use syn::Item;
use syn::visit::Visit;

use crate::modules::{Crate, attributes, is_public};
use crate::workspace::{Target, shown};

/// The numbers that belong to a package.
#[must_use]
pub fn range(package: &str) -> Option<RangeInclusive<u32>> {
    Some(match package {
        "kvrail-layouts" | "kvrail-macros" => 1000..=1999,
        "kvrail-core" => 2000..=2999,
        "kvrail-host" | "kvrail-local" => 3000..=3999,
        "kvrail-session" => 4000..=4999,
        "kvrail-verbs" | "kvrail-mlx5" => 5000..=5999,
        "kvrail" => 6000..=6999,
        "kvrail-node" => 7000..=7999,
        "kvrail-capi" => 8000..=8999,
        "kvrail-sim" | "kvrail-conformance" => 9000..=9999,
        _ => return None,
    })
}

/// What is wrong with the codes of all libraries, and with the page that lists them.
#[must_use]
pub fn codes(targets: &[Target], page: &str) -> Vec<String> {
    let mut findings = Vec::new();
    let mut given: BTreeMap<u32, String> = BTreeMap::new();
    let listed_types = listed_types(page);
    for target in targets.iter().filter(|target| target.library) {
        let Some(range) = range(&target.package) else { continue };
        let found = read(&target.root, &listed_types);
        for (error, file) in &found.errors {
            if !found.coded.contains(error) {
                findings.push(format!("{file}: {error} is a public error without `fn code(&self) -> u32`"));
            }
        }
        for (code, owner) in found.codes {
            if !range.contains(&code) {
                findings.push(format!("{owner} gives {code}, outside {range:?} of {}", target.package));
            }
            if let Some(other) = given.insert(code, owner.clone()) {
                findings.push(format!("{code} is given twice: by {other} and by {owner}"));
            }
        }
    }
    let listed = listed(page);
    for (code, owner) in &given {
        if !listed.contains(code) {
            findings.push(format!("docs/errors.md does not list {code} of {owner}"));
        }
    }
    for code in listed.iter().filter(|code| !given.contains_key(code)) {
        findings.push(format!("docs/errors.md lists {code}, which no error gives"));
    }
    findings
}

/// The numbers in the first column of the page's tables.
fn listed(page: &str) -> BTreeSet<u32> {
    page.lines().filter_map(|line| line.strip_prefix("| ")?.split(' ').next()?.parse().ok()).collect()
}

/// The types in the second column of the page's tables, beside a number.
fn listed_types(page: &str) -> BTreeSet<String> {
    let rows = page.lines().filter_map(|line| {
        let (code, rest) = line.strip_prefix("| ")?.split_once(" | ")?;
        code.parse::<u32>().ok()?;
        rest.strip_prefix('`')
    });
    let names = rows.filter_map(|name| name.split(|c: char| !c.is_alphanumeric() && c != '_').next());
    names.map(str::to_owned).collect()
}

#[derive(Debug, Default)]
struct Found {
    /// Public error types, and the file of each.
    errors: Vec<(String, String)>,
    /// Types that derive or implement `Error`, public or not.
    types: BTreeSet<String>,
    /// Types that have a `code`.
    coded: BTreeSet<String>,
    /// The literals, each with its type.
    codes: Vec<(u32, String)>,
}

fn read(root: &Path, listed_types: &BTreeSet<String>) -> Found {
    let tree = Crate::read(root);
    let mut found = Found::default();
    for module in &tree.modules {
        let file = shown(&tree.files[module.file].path);
        for item in &module.items {
            read_item(item, &file, &mut found);
        }
    }
    found.drop_other_codes(listed_types);
    found
}

impl Found {
    /// Leaves out the numbers of types whose `code` has another meaning: they are no errors, and
    /// the page does not list them either, as it does the reasons that errors carry.
    fn drop_other_codes(&mut self, listed_types: &BTreeSet<String>) {
        self.codes.retain(|(_, owner)| self.types.contains(owner) || listed_types.contains(owner));
    }
}

fn read_item(item: &Item, file: &str, found: &mut Found) {
    let declared = match item {
        Item::Enum(item) => Some((&item.vis, &item.ident)),
        Item::Struct(item) => Some((&item.vis, &item.ident)),
        _ => None,
    };
    if let Some((visibility, name)) = declared
        && derives_error(item)
    {
        found.types.insert(name.to_string());
        if is_public(visibility) {
            found.errors.push((name.to_string(), file.to_owned()));
        }
    }
    let Item::Impl(block) = item else { return };
    let syn::Type::Path(path) = &*block.self_ty else { return };
    let Some(owner) = path.path.segments.last().map(|segment| segment.ident.to_string()) else { return };
    if let Some((_, implemented, _)) = &block.trait_ {
        if implemented.segments.last().is_some_and(|segment| segment.ident == "Error") {
            found.types.insert(owner);
        }
        return;
    }
    for inner in &block.items {
        if let syn::ImplItem::Fn(function) = inner
            && function.sig.ident == "code"
        {
            found.coded.insert(owner.clone());
            let mut numbers = Numbers::default();
            numbers.visit_block(&function.block);
            found.codes.extend(numbers.0.into_iter().map(|code| (code, owner.clone())));
        }
    }
}

fn derives_error(item: &Item) -> bool {
    attributes(item).iter().any(|attribute| {
        attribute.path().is_ident("derive")
            && attribute.meta.require_list().is_ok_and(|list| {
                let text = list.tokens.to_string().replace(' ', "");
                text.split(',').any(|derive| derive == "Error" || derive.ends_with("::Error"))
            })
    })
}

/// The literals that a `code` gives.
#[derive(Default)]
struct Numbers(Vec<u32>);

impl<'ast> Visit<'ast> for Numbers {
    fn visit_lit_int(&mut self, literal: &'ast syn::LitInt) {
        self.0.extend(literal.base10_parse::<u32>());
    }

    // A number in a pattern is no code.
    fn visit_pat(&mut self, _: &'ast syn::Pat) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(source: &str) -> Found {
        let mut found = Found::default();
        for item in &syn::parse_file(source).expect("Rust").items {
            read_item(item, "x.rs", &mut found);
        }
        found.drop_other_codes(&listed_types("| 8 | `Reason::Key` | What to do. |\n"));
        found
    }

    #[test]
    fn an_error_without_a_code_is_seen() {
        let with = "#[derive(Debug, thiserror::Error)] pub enum A { B } \
                    impl A { pub const fn code(&self) -> u32 { match self { A::B => 7, A::C(3) => 8 } } }";
        let found_with = found(with);
        assert_eq!(found_with.codes, [(7, "A".to_owned()), (8, "A".to_owned())]);
        assert!(found_with.coded.contains("A"));
        let without = found("#[derive(Debug, thiserror::Error)] pub enum A { B }");
        assert_eq!(without.errors.len(), 1);
        assert!(without.coded.is_empty());
    }

    #[test]
    fn only_the_codes_of_errors_count() {
        let wire = "pub enum Mtu { B256 = 1 } impl Mtu { pub const fn code(self) -> u32 { 9 } }";
        assert_eq!(found(wire).codes, []);
        let by_hand = "impl Mtu { fn code(&self) -> u32 { 9 } } impl core::error::Error for Mtu {}";
        assert_eq!(found(by_hand).codes, [(9, "Mtu".to_owned())]);
        let listed = "pub enum Reason { Key } impl Reason { pub const fn code(&self) -> u32 { 8 } }";
        assert_eq!(found(listed).codes, [(8, "Reason".to_owned())]);
    }

    #[test]
    fn the_page_lists_numbers_in_its_first_column() {
        let page = "| code | what |\n|---|---|\n| 2001 | x 5 |\n| 1000–1999 | range |\n";
        assert_eq!(listed(page), BTreeSet::from([2001]));
    }
}
