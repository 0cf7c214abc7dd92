//! Where the packages of the lock files come from, and what the published packages hold.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use crate::workspace::{Package, files, packages, root, shown};

/// The one registry that packages come from, as Cargo.lock names it.
const REGISTRY: &str = "registry+https://github.com/rust-lang/crates.io-index";

/// What a package holds beside its sources: what it is, and both licences.
const HOLDS: [&str; 3] = ["README.md", "LICENSE-MIT", "LICENSE-APACHE"];

/// A line for each package of a Cargo.lock of the tree that is neither from crates.io, with a
/// checksum, nor in this tree.
///
/// # Panics
///
/// When a file of the tree cannot be read.
#[must_use]
pub fn foreign() -> Vec<String> {
    let manifests = files(&["toml"]);
    let own: BTreeSet<String> = manifests
        .iter()
        .filter(|path| path.ends_with("Cargo.toml"))
        .filter_map(|path| fs::read_to_string(path).ok().as_deref().and_then(|text| value(text, "name")))
        .collect();
    let locks: Vec<_> = files(&["lock"]).into_iter().filter(|path| path.ends_with("Cargo.lock")).collect();
    let mut findings = Vec::new();
    for path in &locks {
        let lock = fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        findings.extend(foreign_in(&lock, &own).into_iter().map(|line| format!("{}: {line}", shown(path))));
    }
    if !locks.iter().any(|path| shown(path) == "Cargo.lock") {
        findings.push("the tree has no Cargo.lock".to_owned());
    }
    findings
}

fn foreign_in(lock: &str, own: &BTreeSet<String>) -> Vec<String> {
    let mut findings = Vec::new();
    let packages: Vec<_> = lock.split("[[package]]").skip(1).collect();
    for package in &packages {
        let name = value(package, "name").unwrap_or_default();
        let version = value(package, "version").unwrap_or_default();
        let checked = value(package, "checksum").is_some_and(|sum| sum.len() == 64);
        match value(package, "source") {
            Some(source) if source == REGISTRY && checked => {}
            Some(source) if source == REGISTRY => {
                findings.push(format!("{name} {version} has no checksum"));
            }
            Some(source) => findings.push(format!("{name} {version} comes from {source}")),
            None if own.contains(&name) => {}
            None => findings.push(format!("{name} {version} comes from a path outside of this tree")),
        }
    }
    if packages.is_empty() {
        findings.push("no package is in it".to_owned());
    }
    findings
}

/// The first value of a key whose line is `key = "value"`.
fn value(text: &str, key: &str) -> Option<String> {
    let after =
        |line: &str| Some(line.strip_prefix(key)?.strip_prefix(" = \"")?.strip_suffix('"')?.to_owned());
    text.lines().find_map(|line| after(line.trim_end()))
}

/// A line for each published package that lacks one of the files of `HOLDS`, or says nothing
/// about itself. What counts is the list that Cargo packs.
///
/// # Panics
///
/// When Cargo cannot list a package.
#[must_use]
pub fn incomplete() -> Vec<String> {
    let published: Vec<_> = packages().into_iter().filter(|package| package.published).collect();
    let mut findings: Vec<_> =
        published.iter().flat_map(|package| lacks(package, &listed(package))).collect();
    if published.is_empty() {
        findings.push("no package is published".to_owned());
    }
    for package in &published {
        for file in &HOLDS[1..] {
            let read = |folder| fs::read(std::path::Path::join(folder, file)).unwrap_or_default();
            let (here, of_root) = (read(&package.folder), read(&root()));
            if of_root.is_empty() || here != of_root {
                findings.push(format!("{}: {file} is not that of the root", package.name));
            }
        }
    }
    findings
}

fn lacks(package: &Package, listed: &[String]) -> Vec<String> {
    let missing = HOLDS.iter().filter(|file| !listed.iter().any(|line| line == *file));
    let mut findings: Vec<_> =
        missing.map(|file| format!("{}: its package has no {file}", package.name)).collect();
    let unsaid = package.described.iter().filter(|(_, said)| !said);
    findings.extend(unsaid.map(|(key, _)| format!("{}: its manifest has no {key}", package.name)));
    findings
}

/// The files that Cargo would pack. It reads no registry for that.
fn listed(package: &Package) -> Vec<String> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["package", "--list", "--offline", "--allow-dirty", "-p", &package.name])
        .current_dir(root())
        .output()
        .expect("cargo package starts");
    let name = &package.name;
    assert!(output.status.success(), "cargo package {name}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_other_than_the_registry_are_found() {
        let own = BTreeSet::from(["own".to_owned()]);
        let sum = "0".repeat(64);
        let of = |name: &str, source: &str, sum: &str| {
            format!("[[package]]\nname = \"{name}\"\nversion = \"1.0.0\"\n{source}{sum}\n")
        };
        let checksum = format!("checksum = \"{sum}\"\n");
        let registry = format!("source = \"{REGISTRY}\"\n");
        let good = [of("own", "", ""), of("a", &registry, &checksum)].concat();
        assert_eq!(foreign_in(&good, &own), Vec::<String>::new());
        for (bad, told) in [
            (of("a", &registry, ""), "no checksum"),
            (of("a", "source = \"git+https://example.org/a#1\"\n", ""), "git+https"),
            (of("a", "source = \"registry+https://example.org/index\"\n", &checksum), "example.org"),
            (of("a", "", ""), "a path outside"),
            (String::new(), "no package"),
        ] {
            let found = foreign_in(&bad, &own);
            assert!(found.len() == 1 && found[0].contains(told), "{told}: {found:?}");
        }
    }

    #[test]
    fn what_a_package_lacks_is_named() {
        let described = vec![("license", true), ("description", false)];
        let package = Package { name: "p".into(), folder: root(), published: true, described };
        let listed = ["README.md", "LICENSE-MIT", "src/lib.rs"].map(str::to_owned);
        let found = lacks(&package, &listed);
        assert_eq!(found, ["p: its package has no LICENSE-APACHE", "p: its manifest has no description"]);
    }
}
