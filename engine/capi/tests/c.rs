//! The library from C: programs are built with gcc, plain and with its sanitizers, linked to the
//! static library and to the shared one, and run.
//!
//! A machine without gcc skips these tests, and they say so; with `KVRAIL_C_TESTS=required` that
//! fails. `KVRAIL_C_PAGES` sets how many pages the examples read: 20,000 unless it is set, and a
//! million in the part `c` of CI, which runs them in release.

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};
use std::{env, fs, thread};

/// What the static library needs beside itself.
const SYSTEM: [&str; 4] = ["-lpthread", "-ldl", "-lm", "-lrt"];
const STRICT: [&str; 4] = ["-Wall", "-Wextra", "-Werror", "-Wpedantic"];
const SANITIZE: [&str; 3] = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-g"];
/// How long a program may run. None comes near it but by hanging.
const PATIENCE: Duration = Duration::from_secs(400);

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}

/// Whether a test that cannot run fails.
fn required() -> bool {
    env::var("KVRAIL_C_TESTS").as_deref() == Ok("required")
}

/// Whether gcc is there. If not, says so.
fn gcc() -> bool {
    static FOUND: OnceLock<bool> = OnceLock::new();
    let found = *FOUND.get_or_init(|| Command::new("gcc").arg("--version").output().is_ok());
    if !found {
        assert!(!required(), "gcc is not installed");
        eprintln!("*** SKIPPED: gcc is not installed, so nothing has been tested from C ***");
    }
    found
}

/// The folder with libkvrail.a and libkvrail.so, which this builds: cargo does not build them for
/// tests.
fn library() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        // target/<profile>/deps/<this test>
        let test = env::current_exe().expect("a path");
        let profile = test.ancestors().nth(2).expect("a folder");
        let target = profile.parent().expect("a folder");
        let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        cargo.args(["build", "--quiet", "-p", "kvrail-capi", "--lib", "--target-dir"]).arg(target);
        if profile.ends_with("release") {
            cargo.arg("--release");
        }
        let status = cargo.current_dir(folder()).status().expect("cargo");
        assert!(status.success(), "the library does not build");
        profile.to_owned()
    })
}

/// How a program is built.
#[derive(Clone, Copy, PartialEq)]
enum Build {
    Static,
    Sanitized,
    Shared,
}

/// Builds `source` to an executable, once: other tests may be running it.
fn build(source: &Path, build: Build) -> PathBuf {
    static BUILT: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());
    let mut built = BUILT.lock().unwrap_or_else(PoisonError::into_inner);
    let name = source.file_stem().expect("a name").to_string_lossy();
    let (kind, options): (_, &[&str]) = match build {
        Build::Static => ("static", &["-O2"]),
        Build::Sanitized => ("sanitized", &SANITIZE),
        Build::Shared => ("shared", &["-O2"]),
    };
    let executable = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{kind}"));
    if built.contains(&executable) {
        return executable;
    }
    let mut gcc = Command::new("gcc");
    gcc.args(["-std=c11"]).args(STRICT).args(options).arg("-I").arg(folder().join("include")).arg(source);
    if build == Build::Shared {
        let library = library();
        gcc.arg("-L").arg(library).arg("-lkvrail").arg(format!("-Wl,-rpath,{}", library.display()));
    } else {
        gcc.arg(library().join("libkvrail.a")).args(SYSTEM);
    }
    let output = gcc.arg("-o").arg(&executable).output().expect("gcc");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    built.insert(executable.clone());
    executable
}

/// A program that runs, and is killed if the test ends before it.
struct Running(Child);

impl Running {
    fn start(program: &Path, arguments: &[&str]) -> Self {
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped());
        Self(command.spawn().expect("the program starts"))
    }

    /// Waits for the program, which must succeed, and returns what it has printed.
    fn finish(mut self) -> String {
        let until = Instant::now() + PATIENCE;
        // Its output is short: it does not fill the pipe.
        let status = loop {
            if let Some(status) = self.0.try_wait().expect("a child") {
                break status;
            }
            assert!(Instant::now() < until, "a program hangs");
            thread::sleep(Duration::from_millis(10));
        };
        let mut printed = String::new();
        self.0.stdout.take().expect("a pipe").read_to_string(&mut printed).expect("text");
        assert!(status.success(), "{status}: {printed}");
        printed
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs a test program, which prints a verdict.
fn check(name: &str, how: Build) {
    if gcc() {
        let program = build(&folder().join("tests/c").join(name).with_extension("c"), how);
        let printed = Running::start(&program, &[]).finish();
        assert_eq!(printed, format!("{name}: 0 failures\n"));
    }
}

/// Runs the two examples against each other: `pages` pages of a kind, every byte compared.
fn exchange(kind: &str, options: &[&str], how: Build, pages: u64) {
    if !gcc() {
        return;
    }
    let examples = folder().join("../../examples/c");
    let programs = ["producer.c", "reader.c"].map(|name| build(&examples.join(name), how));
    let mut producer = Running::start(&programs[0], &[kind, "--slots", "512"]);
    let mut address = String::new();
    let mut lines = BufReader::new(producer.0.stdout.take().expect("a pipe"));
    lines.read_line(&mut address).expect("an address");
    let pages = pages.to_string();
    let arguments = [&[kind, address.trim(), "--pages", &pages], options].concat();
    let printed = Running::start(&programs[1], &arguments).finish();
    // The end of its input ends the producer, which must succeed as well.
    drop(producer.0.stdin.take());
    producer.0.stdout = Some(lines.into_inner());
    producer.finish();
    println!("{kind} {options:?}: {printed}");
    let words: Vec<&str> = printed.lines().last().expect("a line").split(' ').collect();
    let number = |at: usize| words[at].parse::<u64>().expect("a number");
    let (right, missed, wrong) = (number(0), number(3), number(5));
    assert_eq!((words[1], words[4], words[6]), ("pages", "missed,", "wrong,"), "{printed}");
    assert_eq!(wrong, 0, "{printed}");
    assert!(right + missed >= pages.parse().expect("a number") && right > missed, "{printed}");
}

fn pages() -> u64 {
    env::var("KVRAIL_C_PAGES").map_or(20_000, |pages| pages.parse().expect("KVRAIL_C_PAGES is a number"))
}

#[test]
fn the_header_compiles_alone_as_c11_and_as_cpp17() {
    if !gcc() {
        return;
    }
    let header = folder().join("include/kvrail.h");
    for (language, standard) in [("c", "-std=c11"), ("c++", "-std=c++17")] {
        let mut gcc = Command::new("gcc");
        gcc.args(["-x", language, standard, "-fsyntax-only"]).args(STRICT).arg(&header);
        let output = gcc.output().expect("gcc");
        let text = String::from_utf8_lossy(&output.stderr);
        // gcc without its C++ compiler has tested half of it.
        if language == "c++" && text.contains("cc1plus") && !required() {
            eprintln!("*** SKIPPED: gcc has no C++ compiler, so the header has been compiled as C only ***");
            continue;
        }
        assert!(output.status.success(), "{standard}: {text}");
    }
}

#[test]
fn layouts_declared_in_c_have_the_fingerprints_of_the_catalogue() {
    check("layouts", Build::Static);
    check("layouts", Build::Sanitized);
}

#[test]
fn every_violation_that_can_be_detected_has_its_status() {
    check("misuse", Build::Static);
    check("misuse", Build::Sanitized);
}

#[test]
fn parts_plans_pools_and_withdrawals_go_through_the_interface() {
    check("flows", Build::Static);
    check("flows", Build::Sanitized);
}

#[test]
fn ranges_of_pages_are_read_by_one_call_and_told_as_one() {
    check("ranges", Build::Static);
    check("ranges", Build::Sanitized);
}

#[test]
fn requests_are_handed_over_through_the_interface() {
    check("handover", Build::Static);
    check("handover", Build::Sanitized);
}

#[test]
fn pages_by_key_go_through_the_interface() {
    check("node", Build::Static);
    check("node", Build::Sanitized);
}

#[test]
fn groups_of_pages_and_releases_of_memory_go_through_the_interface() {
    check("groups", Build::Static);
    check("groups", Build::Sanitized);
}

#[test]
fn a_child_of_a_fork_waits_for_no_lock_of_its_parent() {
    // Not with the sanitizers: a leak is what is left of the parent's in its child.
    check("fork", Build::Static);
}

#[test]
fn an_engine_in_c_reads_the_pool_of_another_one() {
    exchange("latent", &[], Build::Static, pages());
    exchange("mha", &[], Build::Static, pages() / 4);
}

#[test]
fn results_come_early_and_in_an_event_loop() {
    exchange("latent", &["--early"], Build::Static, pages() / 10);
    exchange("mha", &["--early", "--epoll"], Build::Static, pages() / 10);
}

#[test]
fn pages_come_in_bulk() {
    exchange("latent", &["--bulk"], Build::Static, pages());
    exchange("mha", &["--bulk", "--epoll"], Build::Sanitized, pages() / 10);
}

#[test]
fn the_sanitizers_find_nothing() {
    exchange("latent", &[], Build::Sanitized, pages() / 4);
    exchange("mha", &["--early", "--epoll"], Build::Sanitized, pages() / 10);
}

#[test]
fn the_shared_library_does_the_same() {
    if gcc() {
        let shared = fs::metadata(library().join("libkvrail.so")).expect("libkvrail.so");
        assert!(shared.is_file());
    }
    exchange("latent", &[], Build::Shared, pages() / 10);
}
