//! The header in the tree is the one that cbindgen makes of the sources. `BLESS=1` writes it.

use std::path::{Path, PathBuf};
use std::{env, fs};

/// The files of the header, in its order.
const FILES: [&str; 15] = [
    "constants",
    "layout_types",
    "publisher_types",
    "reader_types",
    "node_types",
    "handover_types",
    "status",
    "layout",
    "publisher",
    "reader",
    "reader_peers",
    "reader_flight",
    "handover",
    "node",
    "node_pages",
];

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}

#[test]
fn the_header_is_the_one_that_the_sources_make() {
    let abi = folder().join("src/abi");
    let config = cbindgen::Config::from_file(folder().join("cbindgen.toml")).expect("cbindgen.toml");
    let mut builder = cbindgen::Builder::new().with_config(config);
    for file in FILES {
        builder = builder.with_src(abi.join(file).with_extension("rs"));
    }
    let mut made = Vec::new();
    builder.generate().expect("bindings").write(&mut made);
    let made = String::from_utf8(made).expect("UTF-8");
    let path = folder().join("include/kvrail.h");
    if env::var_os("BLESS").is_some() {
        fs::write(&path, made).expect("the header can be written");
        return;
    }
    let there = fs::read_to_string(&path).unwrap_or_default();
    let line = there.lines().zip(made.lines()).position(|(there, made)| there != made);
    assert!(
        there == made,
        "include/kvrail.h is not what src/abi makes (first at line {}): BLESS=1 cargo test -p kvrail-capi --test header",
        line.unwrap_or_else(|| there.lines().count().min(made.lines().count())) + 1
    );
}

#[test]
fn every_file_of_the_interface_is_in_the_header() {
    let files = fs::read_dir(folder().join("src/abi")).expect("src/abi");
    let names = files.map(|entry| entry.expect("a file").path().file_stem().expect("a name").to_owned());
    let mut missing: Vec<_> =
        names.filter(|name| name != "mod" && !FILES.iter().any(|file| name == file)).collect();
    missing.sort();
    assert!(missing.is_empty(), "{missing:?}");
}
