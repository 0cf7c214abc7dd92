//! What the macros say about each mistake, and that every expectation still has its fixture.
//!
//! `BLESS=1 cargo test -p kvrail-macros --test ui` writes the messages; read the difference.

mod runner;

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use runner::Compiler;

#[test]
fn mistakes_are_reported_on_their_tokens() {
    let compiler = Compiler::of_this_build();
    runner::all("tests/ui", |fixture| compiler.must_fail(fixture));
}

#[test]
fn legal_declarations_compile_and_run() {
    let compiler = Compiler::of_this_build();
    runner::all("tests/pass", |fixture| compiler.must_pass(fixture));
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
