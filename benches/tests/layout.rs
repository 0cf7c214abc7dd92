//! `layout` describes the layouts, and the pictures in the book are the ones that it draws.
//!
//! `BLESS=1 cargo test -p kvrail-bench --test layout` draws them again; look at the difference.

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use common::{complaint, run};

const SOON: Duration = Duration::from_secs(30);

fn stdout_of(args: &[&str]) -> String {
    let output = run(args, SOON);
    assert!(output.status.success(), "{args:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// The names in the list.
fn names() -> Vec<String> {
    stdout_of(&["layout"])
        .lines()
        .skip(1)
        .filter_map(|line| line.split(' ').next())
        .map(str::to_owned)
        .collect()
}

#[test]
fn the_list_has_every_layout_and_the_description_every_plane() {
    let names = names();
    assert_eq!(names.len(), 38);
    let list = stdout_of(&["layout"]);
    assert!(list.contains("01a162daf80f9358152722a9038ebb43"), "{list}");
    let dump = stdout_of(&["layout", "sgl_v32_indexer"]);
    assert!(dump.starts_with("sgl_v32_indexer: 515328 bytes in 1 region, 64 tokens"), "{dump}");
    assert!(dump.contains("plane 1 at region 0 + 8192: layer 61 every 8448, token 64 every 4"), "{dump}");
    let complaint = complaint(&run(&["layout", "mla"], SOON));
    for name in names {
        assert!(complaint.contains(&name), "{complaint}");
    }
}

#[test]
fn the_books_pictures_are_the_layouts() {
    let docs = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs");
    let folder = docs.join("layouts");
    // Opaque pages have no structure to draw.
    let names: Vec<_> = names().into_iter().filter(|name| !name.starts_with("opaque")).collect();
    let drawn: Vec<_> = names.iter().map(|name| stdout_of(&["layout", name, "--svg"])).collect();
    let book = fs::read_to_string(docs.join("layouts.md")).unwrap();
    let mut expected = BTreeSet::new();
    for (name, drawn) in names.iter().zip(&drawn) {
        let path = folder.join(format!("{name}.svg"));
        let shown = book.contains(&format!("](layouts/{name}.svg)"));
        if shown && std::env::var_os("BLESS").is_some() {
            fs::write(&path, drawn).unwrap();
        }
        if shown || path.exists() {
            assert_eq!(&fs::read_to_string(&path).unwrap_or_default(), drawn, "{}", path.display());
            expected.insert(path);
        }
    }
    let found: BTreeSet<_> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(found, expected, "a picture of nothing, or one in the book that is not there");
}
