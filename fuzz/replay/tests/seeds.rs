//! Every seed of every fuzz target, without a fuzzer.

use std::fs;
use std::panic::catch_unwind;
use std::path::Path;

use kvrail_fuzz::targets;

/// Runs a target on its seeds, of which there are some; names the file that fails it.
fn replay(target: &str, run: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../seeds").join(target);
    let mut count = 0;
    for entry in fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display())) {
        let path = entry.unwrap().path();
        let bytes = fs::read(&path).unwrap();
        if catch_unwind(|| run(&bytes)).is_err() {
            panic!("the target {target} fails on {}", path.display());
        }
        count += 1;
    }
    assert!(count > 0, "{} holds no seed", folder.display());
}

#[test]
fn declarations() {
    replay("declaration", targets::declaration::run);
}

#[test]
fn plans() {
    replay("plan", targets::plan::run);
}

#[test]
fn session_messages() {
    replay("session_message", targets::session_message::run);
}

#[test]
fn wire_batches() {
    replay("wire_batch", targets::wire_batch::run);
}

#[test]
fn work_request_chains() {
    replay("wr_chain", targets::wr_chain::run);
}

#[test]
fn each_target_is_replayed() {
    let targets = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz_targets");
    let mut names: Vec<_> = fs::read_dir(targets)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    let replayed = ["declaration.rs", "plan.rs", "session_message.rs", "wire_batch.rs", "wr_chain.rs"];
    assert_eq!(names, replayed, "add the new target to this file");
}
