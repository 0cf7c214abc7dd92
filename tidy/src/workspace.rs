//! The packages of the workspace, and the files of the tree.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A library, binary or procedural macro of the workspace. Tests, benches and examples are none.
#[derive(Clone, Debug)]
pub struct Target {
    /// The package's name, for instance `kvrail-core`.
    pub package: String,
    /// The file that the compiler is given.
    pub root: PathBuf,
    /// Whether another crate can name what is in it.
    pub library: bool,
    /// Whether the package goes to a registry.
    pub published: bool,
}

/// A package of the workspace.
#[derive(Clone, Debug)]
pub struct Package {
    /// Its name, for instance `kvrail-core`.
    pub name: String,
    /// The folder of its Cargo.toml.
    pub folder: PathBuf,
    /// Whether it goes to a registry.
    pub published: bool,
    /// The keys of its manifest that a registry shows, and whether they say something.
    pub described: Vec<(&'static str, bool)>,
}

/// The folder that holds the workspace's Cargo.toml.
#[must_use]
pub fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_owned()
}

/// All targets of the workspace that are not tests, benches, examples or build scripts.
///
/// # Panics
///
/// When `cargo metadata` fails or prints something that it does not document.
#[must_use]
pub fn targets() -> Vec<Target> {
    let metadata = metadata();
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    let mut targets = Vec::new();
    for package in metadata["packages"].as_array().expect("packages") {
        let published = is_published(package);
        for target in package["targets"].as_array().expect("targets") {
            let kinds: Vec<_> = target["kind"].as_array().expect("kinds").iter().map(text).collect();
            let library = kinds.iter().any(|kind| kind.ends_with("lib") || kind == "proc-macro");
            if library || kinds.iter().any(|kind| kind == "bin") {
                let root = PathBuf::from(text(&target["src_path"]));
                targets.push(Target { package: text(&package["name"]), root, library, published });
            }
        }
    }
    targets
}

/// All packages of the workspace.
///
/// # Panics
///
/// When `cargo metadata` fails or prints something that it does not document.
#[must_use]
pub fn packages() -> Vec<Package> {
    let metadata = metadata();
    let packages = metadata["packages"].as_array().expect("packages");
    let read = packages.iter().map(|package| {
        let text = |key: &str| package[key].as_str().unwrap_or_default();
        let keys = ["license", "description", "repository", "readme"];
        Package {
            name: text("name").to_owned(),
            folder: Path::new(text("manifest_path")).parent().expect("a folder").to_owned(),
            published: is_published(package),
            described: keys.map(|key| (key, !text(key).is_empty())).to_vec(),
        }
    });
    read.collect()
}

/// What `cargo metadata` says of the workspace, without its dependencies.
fn metadata() -> serde_json::Value {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["metadata", "--no-deps", "--format-version", "1"])
        .current_dir(root())
        .output()
        .expect("cargo metadata starts");
    assert!(output.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("cargo prints JSON")
}

/// Null: any registry. An empty list: none.
fn is_published(package: &serde_json::Value) -> bool {
    package["publish"].as_array().is_none_or(|registries| !registries.is_empty())
}

/// Every file of the tree whose extension is one of `extensions`, build outputs left out, sorted.
///
/// # Panics
///
/// When a folder cannot be read.
#[must_use]
pub fn files(extensions: &[&str]) -> Vec<PathBuf> {
    all_files(|path| path.extension().is_some_and(|e| extensions.iter().any(|x| e == *x)))
}

/// Every script of the tree, sorted: files that end in `.sh` or `.py`, and files without an
/// extension that begin with `#!` or, where another script sources them, with a comment.
///
/// # Panics
///
/// When a folder or a file cannot be read.
#[must_use]
pub fn scripts() -> Vec<PathBuf> {
    all_files(|path| match path.extension() {
        Some(extension) => extension == "sh" || extension == "py",
        // Inputs of the fuzz targets may begin with anything.
        None if path.components().any(|part| part.as_os_str() == "seeds") => false,
        None => {
            let start = fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            start.starts_with(b"#!") || start.starts_with(b"# ")
        }
    })
}

fn all_files(wanted: impl Fn(&Path) -> bool) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![root()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display())) {
            let path = entry.expect("an entry").path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if path.is_symlink() {
                continue;
            }
            if path.is_dir() {
                // Build outputs, and what git and fuzzing keep for themselves.
                if !matches!(&*name, "target" | ".git" | "corpus" | "artifacts" | "coverage") {
                    folders.push(path);
                }
            } else if wanted(&path) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

/// A path as the findings show it: from the workspace's root.
#[must_use]
pub fn shown(path: &Path) -> String {
    path.strip_prefix(root()).unwrap_or(path).display().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scripts_are_found_with_and_without_an_extension() {
        let found: Vec<_> = scripts().iter().map(|path| shown(path)).collect();
        for script in [".ci/run", "fuzz/run", "benches/count-instructions", "engine/verbs/softroce/run"] {
            assert!(found.iter().any(|path| path == script), "{script} of {found:?}");
        }
        assert!(found.iter().any(|path| path.ends_with(".sh")), "{found:?}");
        assert!(!found.iter().any(|path| path.contains("seeds") || path.contains("LICENSE")), "{found:?}");
    }
}
