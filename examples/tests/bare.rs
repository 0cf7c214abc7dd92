//! `examples/bare` is built, its symbols are looked through, and it is run.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Bytes of the state of its engine: one lane of 16 entries, one batch of one page, and the plans'
/// places. A change of this number is a change of what an embedded user pays.
const STATE_BYTES: usize = 302_848;

fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {}\n{errors}", output.status);
    String::from_utf8(output.stdout).expect("text")
}

/// The program, built beside the tests' own files.
fn program() -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("bare");
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("bare");
    // Its profile is its own: what this build was told of profiles and flags is not for it.
    let settings = std::env::vars_os().map(|(name, _)| name).filter(|name| {
        let name = name.to_string_lossy();
        name.starts_with("CARGO_PROFILE_") || name.ends_with("RUSTFLAGS")
    });
    let mut cargo = Command::new(env!("CARGO"));
    for setting in settings {
        cargo.env_remove(setting);
    }
    run(cargo
        .args(["build", "--release", "--manifest-path"])
        .arg(folder.join("Cargo.toml"))
        .arg("--target-dir")
        .arg(&target));
    target.join("release/kvrail-bare")
}

#[test]
fn a_program_without_std_or_libc_reads_a_page() {
    let program = program();
    let undefined = run(Command::new("nm").arg("--undefined-only").arg(&program));
    assert_eq!(undefined, "", "nothing is left for a library");
    let symbols = run(Command::new("nm").args(["--defined-only", "--format=just-symbols"]).arg(&program));
    let symbols: Vec<&str> = symbols.lines().collect();
    assert!(symbols.contains(&"memcpy"), "the symbols are there: {symbols:?}");
    for symbol in symbols {
        // malloc, calloc, __rust_alloc, exchange_malloc; and what only std brings.
        let forbidden = symbol.contains("alloc") || symbol == "free" || symbol.contains("3std");
        assert!(!forbidden, "{symbol} is in a program without an allocator and without std");
    }
    let said = run(&mut Command::new(&program));
    assert_eq!(said, format!("engine state: {STATE_BYTES} bytes; one page of 41984 bytes came back\n"));
}
