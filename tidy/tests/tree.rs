//! The source tree keeps the rules that a program can check. CONTRIBUTING.md has them in words.

use std::collections::BTreeSet;
use std::path::PathBuf;

use kvrail_tidy::{circles, codes, links, names, packages, testing, text, threads, unsafety, workspace};

/// Fails with all findings, a line each.
fn assert_none(rule: &str, findings: &[String]) {
    assert!(findings.is_empty(), "{rule}: {} findings\n{}\n", findings.len(), findings.join("\n"));
}

/// All Rust files.
fn sources() -> Vec<PathBuf> {
    workspace::files(&["rs"])
}

/// Whether a file is of this crate, which names the words that it bans.
fn is_this_crate(path: &std::path::Path) -> bool {
    workspace::shown(path).starts_with("tidy/")
}

#[test]
fn no_files_name_each_other_in_a_circle() {
    let found: Vec<_> =
        workspace::targets().iter().flat_map(|target| circles::circles(&target.root)).collect();
    assert_none("files of a crate name each other in one direction", &found);
}

#[test]
fn no_file_is_too_long() {
    let files = [workspace::files(&["rs", "c", "h"]), workspace::scripts()];
    // Made by cbindgen of files that are read here, in the one piece that users include.
    let made = |path: &&PathBuf| workspace::shown(path) == "engine/capi/include/kvrail.h";
    let files = files.iter().flatten().filter(|path| !made(path));
    assert_none(
        "files have at most 500 lines",
        &files.flat_map(|path| text::length(path)).collect::<Vec<_>>(),
    );
}

#[test]
fn no_comment_is_too_wide() {
    let mut found: Vec<_> = sources().iter().flat_map(|path| text::width(path)).collect();
    let others = [workspace::files(&["toml"]), workspace::scripts()];
    found.extend(others.iter().flatten().flat_map(|path| text::width_of_script(path)));
    assert_none("comments wrap at 100 columns", &found);
}

#[test]
fn no_two_comment_lines_are_joined() {
    let found: Vec<_> = sources().iter().flat_map(|path| text::joined(path)).collect();
    assert_none("a comment marker begins a line", &found);
}

#[test]
fn no_banned_word_is_used() {
    let mut found = Vec::new();
    for path in sources().iter().filter(|path| !is_this_crate(path)) {
        found.extend(text::words_of_source(path));
    }
    for page in workspace::files(&["md", "toml"]).iter().chain(&workspace::scripts()) {
        found.extend(text::words_of_page(page));
    }
    assert_none("comments, texts and pages use plain words", &found);
}

#[test]
fn every_thread_has_a_name_that_linux_keeps() {
    let files = sources();
    let files = files.iter().filter(|path| !is_this_crate(path));
    assert_none(
        "thread names tell threads apart",
        &files.flat_map(|path| threads::names(path)).collect::<Vec<_>>(),
    );
}

#[test]
fn no_public_type_name_is_declared_twice() {
    assert_none("a name means one thing", &names::declared_twice(&workspace::targets()));
}

#[test]
fn no_name_that_was_given_up_is_declared() {
    let files = sources();
    let files = files.iter().filter(|path| !is_this_crate(path));
    assert_none(
        "names say what things are",
        &files.flat_map(|path| names::given_up(path)).collect::<Vec<_>>(),
    );
}

#[test]
fn error_codes_are_unique_and_listed() {
    let page = std::fs::read_to_string(workspace::root().join("docs/errors.md")).expect("docs/errors.md");
    assert_none("one code, one meaning", &codes::codes(&workspace::targets(), &page));
}

#[test]
fn every_link_and_path_of_a_page_leads_to_a_file() {
    let pages = workspace::files(&["md"]);
    assert_none(
        "links and paths lead to files",
        &pages.iter().flat_map(|page| links::broken(page)).collect::<Vec<_>>(),
    );
}

#[test]
fn every_test_that_the_docs_name_is_in_the_tree() {
    let page = std::fs::read_to_string(workspace::root().join("docs/testing.md")).expect("docs/testing.md");
    assert_none("a promise stands beside a test that exists", &testing::missing(&page));
}

#[test]
fn no_chapter_of_the_manual_has_a_relative_link() {
    let folder = workspace::root().join("engine/manual");
    let chapters =
        std::fs::read_dir(folder).expect("engine/manual").map(|entry| entry.expect("a chapter").path());
    assert_none(
        "rustdoc has no files beside it",
        &chapters.flat_map(|path| links::relative(&path)).collect::<Vec<_>>(),
    );
}

#[test]
fn files_with_unsafe_code_are_listed() {
    let folders = ["/tests/", "/benches/", "/examples/"];
    let product = sources().into_iter().map(|path| (workspace::shown(&path), path));
    let product = product.filter(|(shown, path)| {
        !folders.iter().any(|folder| shown.contains(folder))
            && !shown.ends_with("tests.rs")
            && !is_this_crate(path)
    });
    let files: BTreeSet<String> =
        product.filter(|(_, path)| unsafety::lifts(path)).map(|(shown, _)| shown).collect();
    let page = std::fs::read_to_string(workspace::root().join("docs/safety.md")).expect("docs/safety.md");
    assert_none("unsafe code is where the docs say", &unsafety::unlisted(&files, &page));
}

#[test]
fn every_dependency_comes_from_the_registry_or_this_tree() {
    assert_none("packages come from crates.io", &packages::foreign());
}

#[test]
fn every_published_package_has_its_readme_and_both_licences() {
    assert_none("a package says what it is and on which terms", &packages::incomplete());
}
