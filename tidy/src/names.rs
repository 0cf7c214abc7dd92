//! Public type names, and names that were given up.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use syn::Item;
use syn::visit::Visit;

use crate::modules::{Crate, in_macro, is_public};
use crate::workspace::{Target, shown};

/// Public type names that stand twice, each with its reason.
pub const TWICE: [(&str, &str); 1] = [("KvLayout", "the trait, and the derive macro of the same name")];

/// Names of items, fields, variants and modules that were given up, because they were metaphors
/// or stood for several things, and what to use instead.
pub const GIVEN_UP: [(&str, &str); 44] = [
    ("Bare", "NoValidation"),
    ("Line", "UnopenedLane or SecureStream"),
    ("Link", "SessionThread"),
    ("Kind", "PageShape"),
    ("Home", "SlotRegion"),
    ("Mark", "SlotFlags"),
    ("Network", "ReaderTransport"),
    ("Publish", "PublisherTransport"),
    ("Fabric", "LaneDialer"),
    ("Responder", "LaneAcceptor"),
    ("Grave", "QpReclaimer"),
    ("grave", "QpReclaimer"),
    ("Carcass", "dead_lanes"),
    ("carcass", "dead_lanes"),
    ("carcasses", "dead_lanes"),
    ("bury", "reclaim"),
    ("condemn", "destroy_later"),
    ("accuse", "faulty"),
    ("hushed", "silent_count"),
    ("mute", "hung_up"),
    ("deaf", "hung_up"),
    ("tight", "slack_threshold"),
    ("door", "wake"),
    ("bell", "EventFd"),
    ("Bell", "EventFd"),
    ("lie_down", "prepare_sleep"),
    ("get_up", "finish_sleep"),
    ("furnish", "add_peer_from_offer"),
    ("errand", "ConnectRequest"),
    ("Errand", "ConnectRequest"),
    ("letters", "ConnectRequest"),
    ("Letters", "ConnectRequest"),
    ("alike", "UniformReads"),
    ("spoilt", "must_settle_each"),
    ("CHECKED", "NeedsValidation"),
    ("Any", "per_page"),
    ("special", "has_shared_or_planned"),
    ("figures", "a word of its own for each set of numbers"),
    ("tuning", "a word of its own for each set of numbers"),
    ("LaneError", "the crate's prefix before it"),
    ("LocalResponder", "LaneAcceptor"),
    ("ShmResponder", "LaneAcceptor"),
    ("TcpResponder", "LaneAcceptor"),
    ("Serves", "PublisherTransport"),
];

/// File and module names that were given up, because they answer no question.
pub const FILES_GIVEN_UP: [(&str, &str); 11] = [
    ("death", "failover"),
    ("pump", "schedule"),
    ("reap", "complete"),
    ("plain", "uniform"),
    ("lag", "bonding"),
    ("dial", "dialer"),
    ("declared", "macro_support"),
    ("strand", "a name that says what it holds"),
    ("moving", "basic_reads"),
    ("neighbours", "edge_cases"),
    ("quiet", "allocations"),
];

/// A line for each public type name that two places of the published libraries declare.
#[must_use]
pub fn declared_twice(targets: &[Target]) -> Vec<String> {
    let mut places: BTreeMap<String, Vec<PathBuf>> = BTreeMap::new();
    for target in targets.iter().filter(|target| target.library && target.published) {
        let tree = Crate::read(&target.root);
        for module in &tree.modules {
            for name in module.items.iter().flat_map(public_types) {
                places.entry(name).or_default().push(tree.files[module.file].path.clone());
            }
        }
    }
    let excused = |name: &str| TWICE.iter().any(|(twice, _)| *twice == name);
    let twice = places.iter().filter(|(name, at)| at.len() > 1 && !excused(name));
    twice
        .map(|(name, at)| {
            let at: Vec<_> = at.iter().map(|path| shown(path)).collect();
            format!("{name} is declared {} times: {}", at.len(), at.join(", "))
        })
        .collect()
}

fn public_types(item: &Item) -> Vec<String> {
    let name = match item {
        Item::Enum(item) if is_public(&item.vis) => &item.ident,
        Item::Struct(item) if is_public(&item.vis) => &item.ident,
        Item::Trait(item) if is_public(&item.vis) => &item.ident,
        Item::Type(item) if is_public(&item.vis) => &item.ident,
        Item::Union(item) if is_public(&item.vis) => &item.ident,
        Item::Macro(item) if item.ident.is_none() => {
            let declared = in_macro(&item.mac.tokens).into_iter();
            return declared.filter(|(public, _)| *public).map(|(_, name)| name).collect();
        }
        _ => return Vec::new(),
    };
    vec![name.to_string()]
}

/// A line for each declaration in a Rust file whose name was given up, and for the file's own name.
///
/// # Panics
///
/// When the file is not Rust.
#[must_use]
pub fn given_up(path: &Path) -> Vec<String> {
    let source = std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let mut names = declared_names(&source).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    names.sort();
    names.dedup();
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let folder = path.parent().and_then(Path::file_name).unwrap_or_default().to_string_lossy();
    let names = names.iter().filter_map(|name| GIVEN_UP.iter().find(|(old, _)| old == name));
    let files = FILES_GIVEN_UP.iter().chain(&GIVEN_UP).filter(|(old, _)| *old == stem || *old == folder);
    names.chain(files).map(|(old, new)| format!("{}: {old} was given up: {new}", shown(path))).collect()
}

fn declared_names(source: &str) -> syn::Result<Vec<String>> {
    let mut names = Declared::default();
    names.visit_file(&syn::parse_file(source)?);
    Ok(names.0)
}

#[derive(Default)]
struct Declared(Vec<String>);

impl<'ast> Visit<'ast> for Declared {
    fn visit_item(&mut self, item: &'ast Item) {
        match item {
            Item::Const(item) => self.0.push(item.ident.to_string()),
            Item::Enum(item) => self.0.push(item.ident.to_string()),
            Item::Mod(item) => self.0.push(item.ident.to_string()),
            Item::Static(item) => self.0.push(item.ident.to_string()),
            Item::Struct(item) => self.0.push(item.ident.to_string()),
            Item::Trait(item) => self.0.push(item.ident.to_string()),
            Item::Type(item) => self.0.push(item.ident.to_string()),
            Item::Macro(item) => {
                self.0.extend(in_macro(&item.mac.tokens).into_iter().map(|(_, name)| name));
            }
            _ => {}
        }
        syn::visit::visit_item(self, item);
    }

    fn visit_signature(&mut self, signature: &'ast syn::Signature) {
        self.0.push(signature.ident.to_string());
        syn::visit::visit_signature(self, signature);
    }

    fn visit_field(&mut self, field: &'ast syn::Field) {
        self.0.extend(field.ident.as_ref().map(ToString::to_string));
        syn::visit::visit_field(self, field);
    }

    fn visit_variant(&mut self, variant: &'ast syn::Variant) {
        self.0.push(variant.ident.to_string());
        syn::visit::visit_variant(self, variant);
    }

    fn visit_pat_ident(&mut self, pattern: &'ast syn::PatIdent) {
        self.0.push(pattern.ident.to_string());
        syn::visit::visit_pat_ident(self, pattern);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_every_kind_of_declaration_are_seen() {
        let source = "mod a { struct B { c: u8 } enum D { E(F) } } fn g(h: u8) { let i = j; } macro_rules! k { () => {} } x! { pub struct L: u8; }";
        let names = declared_names(source).expect("Rust");
        for name in ["a", "B", "c", "D", "E", "g", "h", "i", "L"] {
            assert!(names.iter().any(|found| found == name), "{name} of {names:?}");
        }
        assert!(!names.iter().any(|found| found == "F" || found == "j"), "{names:?}");
    }
}
