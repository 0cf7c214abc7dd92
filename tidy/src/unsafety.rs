//! Files with unsafe code, and the page that lists them.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// Whether a Rust file lifts `unsafe_code` for itself or for a part of it.
///
/// # Panics
///
/// When the file cannot be read.
#[must_use]
pub fn lifts(path: &Path) -> bool {
    lifted(&fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display())))
}

fn lifted(source: &str) -> bool {
    let source: String = source.split_whitespace().collect();
    ["allow(unsafe_code", "expect(unsafe_code"].iter().any(|word| source.contains(word))
}

/// What differs between the files that lift the lint and those in the first column of the tables.
/// Paths are shown from the workspace's root.
#[must_use]
pub fn unlisted(files: &BTreeSet<String>, page: &str) -> Vec<String> {
    let rows = page.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next());
    let listed: BTreeSet<String> = rows.filter(|path| path.ends_with(".rs")).map(str::to_owned).collect();
    let missing = files.difference(&listed).map(|path| format!("docs/safety.md does not list {path}"));
    let extra = listed.difference(files).map(|path| format!("{path} of docs/safety.md has no unsafe code"));
    missing.chain(extra).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lint_is_found_over_line_ends() {
        assert!(lifted("#![allow(\n    unsafe_code,\n    reason = \"why\"\n)]"));
        assert!(lifted("#[expect(unsafe_code)] fn f() {}"));
        assert!(!lifted("#![deny(unsafe_code)]"));
    }

    #[test]
    fn missing_and_superfluous_rows_are_found() {
        let files = BTreeSet::from(["a/b.rs".to_owned(), "c.rs".to_owned()]);
        let page = "| `a/b.rs` | why |\n| `d.rs` | why |\n";
        assert_eq!(unlisted(&files, page).len(), 2);
    }
}
