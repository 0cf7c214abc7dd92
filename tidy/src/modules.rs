//! The modules of one crate, and which file defines the item that a path names.
//!
//! Names are followed through `use` and `pub use`, globs included, as far as a reader can follow
//! them without types. What stands behind `#[cfg(test)]` is left out.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use proc_macro2::{TokenStream, TokenTree};
use syn::{Attribute, Item, UseTree, Visibility};

/// A crate, parsed.
#[derive(Debug, Default)]
pub struct Crate {
    /// Its files, the root first.
    pub files: Vec<File>,
    /// Its modules, the root first.
    pub modules: Vec<Module>,
}

/// A source file.
#[derive(Debug)]
pub struct File {
    /// Where it lies.
    pub path: PathBuf,
}

/// A module: a file's, or one that stands inside a file.
#[derive(Debug)]
pub struct Module {
    /// An index into [`Crate::files`].
    pub file: usize,
    /// The module around it.
    pub parent: Option<usize>,
    /// What it declares and imports, by name.
    pub names: HashMap<String, Vec<Meaning>>,
    /// The modules whose public names it takes all of: paths as written.
    pub globs: Vec<Vec<String>>,
    /// Its items, without its modules and without those for tests only.
    pub items: Vec<Item>,
}

/// What a name stands for in a module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Meaning {
    /// It is defined in the module's own file.
    Defined,
    /// It is a module.
    Module(usize),
    /// It is imported: the path as written.
    Imported(Vec<String>),
}

/// Where a path leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// To an item that this file defines.
    Item(usize),
    /// To a module itself.
    Module(usize),
}

/// Where the files of a module's children lie.
struct Folders {
    /// Those that the compiler finds by their names.
    children: PathBuf,
    /// Those that `#[path]` names: the folder of the file itself, except in a module that stands
    /// inside a file (the Rust reference, "The path attribute").
    named: PathBuf,
}

impl Crate {
    /// Reads the crate whose root file is `root`.
    ///
    /// # Panics
    ///
    /// When a file is not there or is not Rust.
    #[must_use]
    pub fn read(root: &Path) -> Self {
        let mut this = Self::default();
        this.read_file(root, None);
        this
    }

    fn read_file(&mut self, path: &Path, parent: Option<usize>) -> usize {
        let text = fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let parsed = syn::parse_file(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        self.files.push(File { path: path.to_owned() });
        let file = self.files.len() - 1;
        let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let folder = path.parent().unwrap_or(Path::new("")).to_owned();
        let own = parent.is_none() || stem == "mod";
        let children = if own { folder.clone() } else { folder.join(stem) };
        self.add_module(file, parent, parsed.items, &Folders { children, named: folder })
    }

    fn add_module(&mut self, file: usize, parent: Option<usize>, items: Vec<Item>, at: &Folders) -> usize {
        let id = self.modules.len();
        let (names, globs) = (HashMap::new(), Vec::new());
        self.modules.push(Module { file, parent, names, globs, items: Vec::new() });
        for item in items {
            if !for_tests(attributes(&item)) {
                self.add_item(id, file, item, at);
            }
        }
        id
    }

    fn add_item(&mut self, id: usize, file: usize, item: Item, at: &Folders) {
        match item {
            Item::Mod(module) => {
                let name = module.ident.to_string();
                let child = match module.content {
                    Some((_, items)) => {
                        let children = at.children.join(&name);
                        let inner = Folders { named: children.clone(), children };
                        self.add_module(file, Some(id), items, &inner)
                    }
                    None => {
                        let flat = at.children.join(format!("{name}.rs"));
                        let path = path_attribute(&module.attrs).map(|path| at.named.join(path));
                        let path = path.unwrap_or(if flat.exists() {
                            flat
                        } else {
                            at.children.join(&name).join("mod.rs")
                        });
                        self.read_file(&path, Some(id))
                    }
                };
                self.bind(id, name, Meaning::Module(child));
            }
            Item::Use(item) => {
                let mut found = Vec::new();
                leaves(&item.tree, &mut Vec::new(), &mut found);
                for (path, name) in found {
                    match name {
                        Some(name) => self.bind(id, name, Meaning::Imported(path)),
                        None => self.modules[id].globs.push(path),
                    }
                }
                self.modules[id].items.push(Item::Use(item));
            }
            item => {
                for name in defined(&item) {
                    self.bind(id, name, Meaning::Defined);
                }
                self.modules[id].items.push(item);
            }
        }
    }

    fn bind(&mut self, module: usize, name: String, meaning: Meaning) {
        self.modules[module].names.entry(name).or_default().push(meaning);
    }

    /// Where `path`, as written in `module`, leads; `None` for a path of another crate or an
    /// unknown one. A path that goes on behind an item (a variant, a method) leads to the item.
    #[must_use]
    pub fn resolve(&self, module: usize, path: &[String]) -> Option<Place> {
        self.follow(module, path, 32)
    }

    fn follow(&self, module: usize, path: &[String], steps: usize) -> Option<Place> {
        let steps = steps.checked_sub(1)?;
        let (first, rest) = path.split_first()?;
        match first.as_str() {
            "crate" => self.walk(0, rest, steps),
            "self" => self.walk(module, rest, steps),
            "super" => self.follow_super(self.modules[module].parent?, rest, steps),
            _ => self.walk(module, path, steps),
        }
    }

    fn follow_super(&self, module: usize, rest: &[String], steps: usize) -> Option<Place> {
        match rest.split_first() {
            Some((first, rest)) if first == "super" => {
                self.follow_super(self.modules[module].parent?, rest, steps)
            }
            _ => self.walk(module, rest, steps),
        }
    }

    /// Follows `path` from inside `module`.
    fn walk(&self, module: usize, path: &[String], steps: usize) -> Option<Place> {
        let steps = steps.checked_sub(1)?;
        let Some((first, rest)) = path.split_first() else { return Some(Place::Module(module)) };
        for meaning in self.modules[module].names.get(first).into_iter().flatten() {
            let place = match meaning {
                Meaning::Defined => Some(Place::Item(self.modules[module].file)),
                Meaning::Module(child) => self.walk(*child, rest, steps),
                // `use x as x` of another crate leads nowhere; so does a path that names itself.
                Meaning::Imported(import) if import.first() == Some(first) && import.len() == 1 => None,
                Meaning::Imported(import) => match self.follow(module, import, steps) {
                    Some(Place::Module(found)) => self.walk(found, rest, steps),
                    place => place,
                },
            };
            if place.is_some() {
                return place;
            }
        }
        self.modules[module].globs.iter().find_map(|glob| match self.follow(module, glob, steps)? {
            Place::Module(found) if found != module => self.walk(found, path, steps),
            _ => None,
        })
    }
}

/// Whether these attributes compile an item for tests only.
fn for_tests(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        attribute.path().is_ident("cfg")
            && attribute.meta.require_list().is_ok_and(|list| {
                let text = list.tokens.to_string();
                text == "test" || (text.starts_with("all") && text.contains("test"))
            })
    })
}

fn path_attribute(attributes: &[Attribute]) -> Option<String> {
    let attribute = attributes.iter().find(|attribute| attribute.path().is_ident("path"))?;
    let syn::Meta::NameValue(pair) = &attribute.meta else { return None };
    let syn::Expr::Lit(syn::ExprLit { lit: syn::Lit::Str(text), .. }) = &pair.value else { return None };
    Some(text.value())
}

/// The attributes of an item.
#[must_use]
pub fn attributes(item: &Item) -> &[Attribute] {
    match item {
        Item::Const(item) => &item.attrs,
        Item::Enum(item) => &item.attrs,
        Item::Fn(item) => &item.attrs,
        Item::Impl(item) => &item.attrs,
        Item::Macro(item) => &item.attrs,
        Item::Mod(item) => &item.attrs,
        Item::Static(item) => &item.attrs,
        Item::Struct(item) => &item.attrs,
        Item::Trait(item) => &item.attrs,
        Item::Type(item) => &item.attrs,
        Item::Union(item) => &item.attrs,
        Item::Use(item) => &item.attrs,
        _ => &[],
    }
}

/// The paths of a `use` and the names that they get; no name for a glob.
fn leaves(tree: &UseTree, path: &mut Vec<String>, found: &mut Vec<(Vec<String>, Option<String>)>) {
    let depth = path.len();
    match tree {
        UseTree::Path(part) => {
            path.push(part.ident.to_string());
            leaves(&part.tree, path, found);
        }
        UseTree::Name(name) if name.ident == "self" => found.push((path.clone(), path.last().cloned())),
        UseTree::Name(name) => {
            path.push(name.ident.to_string());
            found.push((path.clone(), Some(name.ident.to_string())));
        }
        UseTree::Rename(name) => {
            if name.ident != "self" {
                path.push(name.ident.to_string());
            }
            found.push((path.clone(), Some(name.rename.to_string())));
        }
        UseTree::Glob(_) => found.push((path.clone(), None)),
        UseTree::Group(group) => group.items.iter().for_each(|tree| leaves(tree, path, found)),
    }
    path.truncate(depth);
}

/// The paths that a `use` names, globs by the module that they open.
#[must_use]
pub fn used(item: &syn::ItemUse) -> Vec<(Vec<String>, Option<String>)> {
    let mut found = Vec::new();
    leaves(&item.tree, &mut Vec::new(), &mut found);
    found
}

/// The names that an item defines. Of a macro's tokens: what follows `struct`, `enum` and so on.
fn defined(item: &Item) -> Vec<String> {
    match item {
        Item::Const(item) => vec![item.ident.to_string()],
        Item::Enum(item) => vec![item.ident.to_string()],
        Item::Fn(item) => vec![item.sig.ident.to_string()],
        Item::Static(item) => vec![item.ident.to_string()],
        Item::Struct(item) => vec![item.ident.to_string()],
        Item::Trait(item) => vec![item.ident.to_string()],
        Item::Type(item) => vec![item.ident.to_string()],
        Item::Union(item) => vec![item.ident.to_string()],
        Item::Macro(item) => match &item.ident {
            Some(name) => vec![name.to_string()],
            None => in_macro(&item.mac.tokens).into_iter().map(|(_, name)| name).collect(),
        },
        _ => Vec::new(),
    }
}

/// Names that a macro's tokens declare, each with whether `pub` stands before it.
#[must_use]
pub fn in_macro(tokens: &TokenStream) -> Vec<(bool, String)> {
    let tokens: Vec<TokenTree> = tokens.clone().into_iter().collect();
    let mut found = Vec::new();
    for (at, pair) in tokens.windows(2).enumerate() {
        if let [TokenTree::Ident(word), TokenTree::Ident(name)] = pair
            && ["struct", "enum", "union", "trait", "type"].iter().any(|keyword| word == keyword)
        {
            let public = at > 0 && tokens[at - 1].to_string() == "pub";
            found.push((public, name.to_string()));
        }
    }
    found
}

/// Whether a visibility is `pub` without a restriction.
#[must_use]
pub fn is_public(visibility: &Visibility) -> bool {
    matches!(visibility, Visibility::Public(_))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_attribute_counts_from_the_folder_of_its_file() {
        let folder = std::env::temp_dir().join(format!("kvrail-tidy-{}-path", std::process::id()));
        let files = [
            ("lib.rs", "mod a;"),
            ("a.rs", "#[path = \"beside.rs\"] mod b; mod c; mod d { #[path = \"e.rs\"] mod e; }"),
            ("beside.rs", ""),
            ("a/c.rs", ""),
            ("a/d/e.rs", ""),
        ];
        for (path, text) in files {
            let path = folder.join(path);
            fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
            fs::write(path, text).expect("a file");
        }
        let read = Crate::read(&folder.join("lib.rs"));
        fs::remove_dir_all(&folder).expect("removed");
        let found: Vec<_> = read.files.iter().map(|file| file.path.clone()).collect();
        assert_eq!(found, files.map(|(path, _)| folder.join(path)));
    }
}
