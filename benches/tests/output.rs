//! A failed write is an error that names where it went. A reader that closes its end of a pipe ends
//! a command without an error.

mod common;

use std::fs::File;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use common::{KEY, Served, bench, complaint, wait};

const SOON: Duration = Duration::from_secs(60);
const SMALL: [&str; 4] = ["--layout", "vllm_fp8_ds_mla", "--working-set", "1MiB"];
const SHORT: [&str; 6] = ["--duration", "200ms", "--verify", "off", "--rails", "2"];

/// Every command that writes to stdout.
fn commands(served: &Served) -> Vec<Command> {
    let own = |args: &[&str]| bench(args);
    let demo = [&["demo"], &SMALL[..], &SHORT].concat();
    let drive = [&served.args()[..], &["--warmup", "0s"], &SHORT].concat();
    let json = ["--json", "-"];
    vec![
        own(&demo),
        own(&[&demo[1..], &json].concat()),
        own(&drive),
        own(&[&drive[..], &json].concat()),
        own(&[&["serve", "--key", KEY], &SMALL[..]].concat()),
        own(&[&["ladder"], &SMALL[..], &SHORT].concat()),
        own(&["ladder", "--plan"]),
        own(&["env"]),
        own(&["env", "--json", "-"]),
        own(&["layout"]),
        own(&["layout", "v4_c4"]),
        own(&["layout", "v4_c4", "--svg"]),
        own(&["--help"]),
        own(&["--version"]),
        own(&["help", "drive"]),
        own(&["serve", "--help"]),
    ]
}

fn finished(mut command: Command, stdout: Stdio) -> Output {
    wait(command.stdout(stdout).stderr(Stdio::piped()).spawn().unwrap(), SOON)
}

fn full() -> File {
    File::options().write(true).open("/dev/full").unwrap()
}

#[test]
fn a_full_disk_behind_stdout_is_a_failure_that_names_it() {
    let served = Served::start(&SMALL);
    for command in commands(&served) {
        let what = format!("{command:?}");
        let text = complaint(&finished(command, full().into()));
        let named = text.lines().any(|line| line.contains("cannot write to stdout: No space left on device"));
        assert!(named, "{what}: {text}");
    }
}

#[test]
fn a_reader_that_closes_its_end_ends_a_command_without_an_error() {
    let served = Served::start(&SMALL);
    for command in commands(&served) {
        let what = format!("{command:?}");
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = finished(command, writer.into());
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{what}: {} {text}", output.status);
        assert!(!text.contains("panicked") && !text.contains("kvrail-bench:"), "{what}: {text}");
    }
}

#[test]
fn a_full_disk_behind_a_report_is_a_failure_that_names_it() {
    let served = Served::start(&SMALL);
    let demo = [&["demo"], &SMALL[..], &SHORT].concat();
    let drive = [&served.args()[..], &["--warmup", "0s"], &SHORT].concat();
    for args in [demo, drive] {
        let command = bench(&[&args[..], &["--json", "/dev/full"]].concat());
        let output = finished(command, Stdio::piped());
        let text = complaint(&output);
        assert!(text.contains("/dev/full: No space left on device"), "{text}");
        // The table is written nevertheless.
        assert!(String::from_utf8_lossy(&output.stdout).contains("GB/s"), "{output:?}");
    }
}

#[test]
fn a_full_disk_behind_stderr_is_a_failure_and_no_panic() {
    let served = Served::start(&SMALL);
    // The table goes to stderr here, and so do the logs. The work is done without them.
    let drive = [&served.args()[..], &["--warmup", "0s", "--json", "-", "--verbose"], &SHORT].concat();
    for (args, report) in [(&drive[..], true), (&["drive", "--frobnicate"], false)] {
        let mut command = bench(args);
        let output = wait(command.stdout(Stdio::piped()).stderr(full()).spawn().unwrap(), SOON);
        assert_eq!(output.status.code(), Some(1), "{args:?}");
        assert_eq!(output.stdout.ends_with(b"}\n"), report, "{args:?}: {output:?}");
    }
}
