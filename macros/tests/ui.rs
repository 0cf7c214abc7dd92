//! What the derive says about each mistake, and that every expectation still has its fixture.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

/// `TRYBUILD=overwrite cargo test -p kvrail-macros --test ui` blesses; read what it wrote.
#[test]
fn mistakes_are_reported_on_their_tokens() {
    let cases = trybuild::TestCases::new();
    cases.compile_fail("tests/ui/*.rs");
    cases.pass("tests/pass/*.rs");
}

#[test]
fn no_expectation_is_an_orphan() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/ui");
    let with = |extension: &str| -> BTreeSet<PathBuf> {
        fs::read_dir(&folder)
            .expect("the folder of fixtures")
            .map(|entry| entry.expect("an entry").path())
            .filter(|path| path.extension().is_some_and(|found| found == extension))
            .map(|path| path.with_extension(""))
            .collect()
    };
    assert_eq!(with("stderr"), with("rs"), "a .stderr without its .rs, or the other way round");
}
