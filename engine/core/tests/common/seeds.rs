//! Seeds of random tests: which seeds run, and how a failed seed is run again. With `KVRAIL_SEED=N`
//! every random test that is started with it runs seed `N` alone. Tests of other crates include
//! this file, also in crates without std.
#![allow(dead_code, unreachable_pub, reason = "not every test that includes this uses all of it")]

use std::borrow::ToOwned;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::process::Command;
use std::string::String;
use std::{eprintln, format};

/// The environment variables that tests read, and their meaning.
const KNOWN: [&str; 3] = ["KVRAIL_SEED", "KVRAIL_FIRST_SEED", "KVRAIL_SCHEDULES"];

/// The number in an environment variable; `None` if the variable is not set.
///
/// # Panics
/// If the variable holds something else, or a variable is set whose name resembles one of
/// [`KNOWN`].
pub fn number(name: &str) -> Option<u64> {
    for (other, _) in std::env::vars_os() {
        let other = other.to_string_lossy().into_owned();
        let similar = other.starts_with("KVRAIL_S") || other.starts_with("KVRAIL_F");
        assert!(!similar || KNOWN.contains(&&*other), "{other} is set; the tests know {}", KNOWN.join(", "));
    }
    let value = std::env::var_os(name)?;
    Some(parse(name, &value.to_string_lossy()).unwrap_or_else(|expected| panic!("{expected}")))
}

/// The number in `value`, or a text that says what was expected.
pub fn parse(name: &str, value: &str) -> Result<u64, String> {
    value.parse().map_err(|_| {
        format!("{name} is {value:?}: expected a decimal number from 0 to {}, as in {name}=117", u64::MAX)
    })
}

/// The sources that this test was built from: the commit, or the version outside of
/// a git checkout.
pub fn sources() -> String {
    let version = concat!("version ", env!("CARGO_PKG_VERSION"));
    let git = Command::new("git")
        .args([
            "-C",
            env!("CARGO_MANIFEST_DIR"),
            "describe",
            "--always",
            "--dirty",
            "--abbrev=40",
            "--exclude=*",
        ])
        .output();
    match git {
        Ok(git) if git.status.success() => {
            format!("{version}, commit {}", String::from_utf8_lossy(&git.stdout).trim())
        }
        _ => version.to_owned(),
    }
}

/// The command that runs the random test `test` of this test program again with this seed.
pub fn again(test: &str, seed: u64) -> String {
    let (package, program) = (env!("CARGO_PKG_NAME"), env!("CARGO_CRATE_NAME"));
    let program =
        if program == package.replace('-', "_") { "--lib".to_owned() } else { format!("--test {program}") };
    format!("KVRAIL_SEED={seed} cargo test -p {package} {program} {test} -- --nocapture ({})", sources())
}

/// Runs the test `test` with each of these seeds, or only with that in `KVRAIL_SEED`. Returns
/// whether it ran all.
pub fn each(test: &str, seeds: Range<u64>, mut run: impl FnMut(u64)) -> bool {
    let only = number("KVRAIL_SEED");
    let most = u64::MAX - 1;
    assert!(only.is_none_or(|seed| seed <= most), "KVRAIL_SEED is {}: expected at most {most}", u64::MAX);
    for seed in only.map_or(seeds, |seed| seed..seed + 1) {
        catch_unwind(AssertUnwindSafe(|| run(seed))).unwrap_or_else(|cause| {
            eprintln!("seed {seed} fails; run it again: {}", again(test, seed));
            resume_unwind(cause)
        });
    }
    only.is_none()
}
