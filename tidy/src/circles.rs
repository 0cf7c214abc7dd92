//! Files of one crate that name each other in a circle.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use proc_macro2::{TokenStream, TokenTree};
use syn::Item;
use syn::visit::Visit;

use crate::modules::{Crate, Place, used};
use crate::workspace::shown;

/// Which file names which, and by what names.
type Arrows = BTreeMap<(usize, usize), BTreeSet<String>>;

/// A line for each circle of files of the crate at `root`.
#[must_use]
pub fn circles(root: &Path) -> Vec<String> {
    let tree = Crate::read(root);
    let arrows = arrows(&tree);
    let name = |file: usize| shown(&tree.files[file].path);
    let mut findings = Vec::new();
    for circle in components(tree.files.len(), &arrows) {
        let mut text = format!("{} files name each other in a circle:", circle.len());
        for (&(from, to), names) in &arrows {
            if circle.contains(&from) && circle.contains(&to) {
                let names: Vec<_> = names.iter().map(String::as_str).collect();
                text += &format!("\n    {} -> {}: {}", name(from), name(to), names.join(", "));
            }
        }
        findings.push(text);
    }
    findings
}

fn arrows(tree: &Crate) -> Arrows {
    let mut arrows = Arrows::new();
    for (id, module) in tree.modules.iter().enumerate() {
        let mut paths = Paths::default();
        for item in &module.items {
            match item {
                Item::Use(item) => paths.found.extend(used(item).into_iter().filter_map(|(path, name)| {
                    // A glob is an arrow where one of its names is used.
                    name.map(|_| path)
                })),
                item => paths.visit_item(item),
            }
        }
        for path in paths.found {
            if let Some(Place::Item(to)) = tree.resolve(id, &path)
                && to != module.file
            {
                arrows.entry((module.file, to)).or_default().insert(path.join("::"));
            }
        }
    }
    arrows
}

/// All paths of an item, those of its macros' tokens and of its inner `use` lines included.
#[derive(Default)]
struct Paths {
    found: Vec<Vec<String>>,
}

impl Paths {
    fn tokens(&mut self, tokens: &TokenStream) {
        let mut path: Vec<String> = Vec::new();
        let mut colons = 0;
        for token in tokens.clone() {
            match token {
                TokenTree::Punct(punct) if punct.as_char() == ':' => colons += 1,
                TokenTree::Ident(word) => {
                    if colons != 2 {
                        self.found.push(std::mem::take(&mut path));
                    }
                    path.push(word.to_string());
                    colons = 0;
                }
                other => {
                    self.found.push(std::mem::take(&mut path));
                    colons = 0;
                    if let TokenTree::Group(group) = other {
                        self.tokens(&group.stream());
                    }
                }
            }
        }
        self.found.push(path);
    }
}

impl<'ast> Visit<'ast> for Paths {
    fn visit_path(&mut self, path: &'ast syn::Path) {
        self.found.push(path.segments.iter().map(|segment| segment.ident.to_string()).collect());
        syn::visit::visit_path(self, path);
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        self.found.extend(used(item).into_iter().map(|(path, _)| path));
    }

    fn visit_macro(&mut self, invoked: &'ast syn::Macro) {
        self.visit_path(&invoked.path);
        self.tokens(&invoked.tokens);
    }

    // Doc links and derives are no arrows.
    fn visit_attribute(&mut self, _: &'ast syn::Attribute) {}
}

/// The sets of more than one file of which each reaches each.
fn components(files: usize, arrows: &Arrows) -> Vec<BTreeSet<usize>> {
    let reach: Vec<BTreeSet<usize>> = (0..files)
        .map(|from| {
            let (mut reached, mut ahead) = (BTreeSet::new(), vec![from]);
            while let Some(at) = ahead.pop() {
                for &(_, to) in arrows.keys().filter(|(source, _)| *source == at) {
                    if reached.insert(to) {
                        ahead.push(to);
                    }
                }
            }
            reached
        })
        .collect();
    let mut found: Vec<BTreeSet<usize>> = Vec::new();
    for file in 0..files {
        let circle: BTreeSet<usize> =
            reach[file].iter().copied().filter(|&other| reach[other].contains(&file)).collect();
        if circle.len() > 1 && !found.contains(&circle) {
            found.push(circle);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::PathBuf;

    use super::*;

    /// Writes a crate of these files into a folder of its own and gives its root file.
    fn written(name: &str, files: &[(&str, &str)]) -> PathBuf {
        let folder = std::env::temp_dir().join(format!("kvrail-tidy-{}-{name}", std::process::id()));
        for (path, text) in files {
            let path = folder.join(path);
            fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
            fs::write(path, text).expect("a file");
        }
        folder.join("lib.rs")
    }

    fn found(name: &str, files: &[(&str, &str)]) -> Vec<String> {
        let root = written(name, files);
        let found = circles(&root);
        fs::remove_dir_all(root.parent().expect("a folder")).expect("removed");
        found
    }

    #[test]
    fn names_that_go_one_way_are_no_circle() {
        let files = [
            ("lib.rs", "mod a; mod b; pub use a::A; pub use b::B;"),
            ("a/mod.rs", "mod inner; mod other; pub use inner::A;"),
            ("a/inner.rs", "pub struct A(super::other::Z);"),
            ("a/other.rs", "pub struct Z; #[cfg(test)] mod tests { use super::super::A; }"),
            ("b.rs", "use crate::A; pub struct B(A);"),
        ];
        assert_eq!(found("one-way", &files), [""; 0]);
    }

    #[test]
    fn a_circle_is_seen_through_re_exports_globs_and_macros() {
        let re_export = [
            ("lib.rs", "mod a; mod b; pub use a::A; pub use b::B;"),
            ("a.rs", "pub struct A(crate::B);"),
            ("b.rs", "use crate::A; pub struct B(A);"),
        ];
        assert_eq!(found("re-export", &re_export).len(), 1);
        let glob = [
            ("lib.rs", "mod a; mod b;"),
            ("a.rs", "use crate::b::*; pub struct A(B);"),
            ("b.rs", "pub struct B; pub fn f() { println!(\"{:?}\", crate::a::A); }"),
        ];
        assert_eq!(found("glob", &glob).len(), 1);
        let own_module = [
            ("lib.rs", "mod a;"),
            ("a/mod.rs", "mod b; pub use b::B; pub struct A;"),
            ("a/b.rs", "pub struct B(super::A);"),
        ];
        assert_eq!(found("own-module", &own_module).len(), 1);
    }
}
