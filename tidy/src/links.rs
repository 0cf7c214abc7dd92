//! Links and paths of the docs that lead to nothing.

use std::fs;
use std::path::Path;

use crate::workspace::{root, shown};

/// Folders at the root: a word in code style that begins with one of them is a path of the tree.
const ROOT_FOLDERS: [&str; 10] = [
    ".ci/",
    "benches/",
    "docs/",
    "engine/",
    "examples/",
    "findings/",
    "fuzz/",
    "layouts/",
    "macros/",
    "tidy/",
];

/// What links to this repository begin with, of a file and of a folder.
const REPOSITORY: [&str; 2] =
    ["https://github.com/kvrail/kvrail/blob/main/", "https://github.com/kvrail/kvrail/tree/main/"];

/// A line for each link into this tree and each path in code style that is not there.
#[must_use]
pub fn broken(page: &Path) -> Vec<String> {
    let text = fs::read_to_string(page).unwrap_or_else(|error| panic!("{}: {error}", page.display()));
    let folder = page.parent().unwrap_or(Path::new(""));
    let mut findings = Vec::new();
    for target in links(&text) {
        if !folder.join(&target).exists() {
            findings.push(format!("{}: the link {target} leads to nothing", shown(page)));
        }
    }
    for path in hosted(&text) {
        if !root().join(&path).exists() {
            findings.push(format!("{}: the repository has no {path}", shown(page)));
        }
    }
    for path in paths(&text) {
        if !root().join(&path).exists() {
            findings.push(format!("{}: {path} is not there", shown(page)));
        }
    }
    findings
}

/// A line for each relative link of a chapter that is a page of rustdoc as well: no file of the
/// repository lies beside that page.
#[must_use]
pub fn relative(chapter: &Path) -> Vec<String> {
    let text = fs::read_to_string(chapter).unwrap_or_else(|error| panic!("{}: {error}", chapter.display()));
    let say =
        |target| format!("{}: {target} is dead in rustdoc: write its path in code style", shown(chapter));
    links(&text).into_iter().map(say).collect()
}

/// Where the links of a page lead, without other hosts, and without what stands behind `#`.
fn links(text: &str) -> Vec<String> {
    let parts = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    let local = parts.filter(|target| !target.contains("://") && !target.contains(' '));
    let files = local.filter_map(|target| target.split('#').next());
    files.filter(|target| !target.is_empty() && !target.starts_with("mailto:")).map(str::to_owned).collect()
}

/// The paths of this tree that links to the repository name, with or without brackets around them.
fn hosted(text: &str) -> Vec<String> {
    let ends = |c: char| c.is_whitespace() || ")>#?\"".contains(c);
    let of_one = |start| text.split(start).skip(1).filter_map(move |rest| rest.split(ends).next());
    REPOSITORY.into_iter().flat_map(of_one).map(str::to_owned).collect()
}

/// The paths of this tree among the words in code style: one word, no pattern.
fn paths(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for code in text.split('`').skip(1).step_by(2) {
        let word = code.split(' ').next().unwrap_or_default();
        let plain = word.chars().all(|c| c.is_alphanumeric() || "._-/".contains(c));
        if plain && ROOT_FOLDERS.iter().any(|folder| word.starts_with(folder)) {
            found.push(word.to_owned());
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_and_paths_are_found_among_other_text() {
        let text = "[a](b.md#c) [d](https://e) [f](#g) `engine/x.rs` `engine/{a,b}` `fuzz/run 60` `Engine`";
        assert_eq!(links(text), ["b.md"]);
        assert_eq!(paths(text), ["engine/x.rs", "fuzz/run"]);
    }

    #[test]
    fn links_to_the_repository_are_paths_of_this_tree() {
        let [blob, tree] = REPOSITORY;
        let text = format!("[a]: {blob}docs/x.md#part\n[b]({tree}findings) <{blob}a.rs>\n");
        assert_eq!(hosted(&text), ["docs/x.md", "a.rs", "findings"]);
        assert_eq!(links(&text), [""; 0]);
    }
}
