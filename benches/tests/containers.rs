//! In real control groups: the available memory is what a limit leaves, and a quota is called a
//! quota.

mod common;
#[path = "common/group.rs"]
#[allow(dead_code, reason = "this test uses a part of it")]
mod group;

use std::fs;
use std::process::{Output, Stdio};
use std::time::Duration;

use common::{Served, complaint, wait};
use group::Group;
use serde_json::Value;

const SOON: Duration = Duration::from_secs(120);
const MIB: u64 = 1 << 20;

/// Runs the program in the group.
fn run(group: &Group, args: &[&str]) -> Output {
    wait(group.command(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap(), SOON)
}

#[test]
fn the_demo_fits_itself_into_its_container() {
    let Some(group) = Group::memory("demo", 512 * MIB) else { return };
    let args = ["--layout", "vllm_fp8_ds_mla", "--duration", "100ms", "--rails", "2"];
    let output = run(&group, &[&args[..], &["--json", "-"]].concat());
    let text = String::from_utf8_lossy(&output.stderr).replace("\n  ", " ");
    assert!(output.status.success(), "{text}");
    for word in ["six times over, instead of 512.0 MiB", "is 512.0 MiB)", "(memory limit: 512.0 MiB)"] {
        assert!(text.contains(word), "`{word}` is not in: {text}");
    }
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["host"]["memory_limit_bytes"], 512 * MIB);
    assert!(report["meta"]["working_set"][0].as_u64().unwrap() < 64 * MIB, "{report}");
}

#[test]
fn the_demo_ends_in_a_small_container_too() {
    // Its reader by key once took 64 MiB for its cache, which no plan had, and the next row was
    // refused.
    let Some(group) = Group::memory("little", 300 * MIB) else { return };
    let args = ["--layout", "vllm_fp8_ds_mla", "--duration", "100ms", "--rails", "2"];
    let output = run(&group, &args);
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}");
}

#[test]
fn memory_beyond_a_containers_limit_is_refused_and_not_taken() {
    let Some(group) = Group::memory("small", 64 * MIB) else { return };
    let refused = |args: &[&str], words: &[&str]| {
        let text = complaint(&run(&group, args));
        for word in words.iter().chain(&["are available (", "is 64.0 MiB)", "--working-set"]) {
            assert!(text.contains(word), "`{word}` is not in: {text}");
        }
    };
    refused(&[], &["6 copies of the pages"]);
    refused(&["serve"], &["pages of sgl_mla_page_first_direct take 5"]);
}

#[test]
fn readers_that_do_not_fit_together_are_refused_together() {
    let Some(group) = Group::memory("readers", 96 * MIB) else { return };
    let served = Served::start(&["--layout", "opaque-128k", "--working-set", "160MiB"]);
    // Each reader would fit alone.
    let text = complaint(&run(&group, &[&served.args()[..], &["--processes", "4"]].concat()));
    for word in
        ["4 readers and the pages that they read into take 208.0 MiB", "is 96.0 MiB)", "--working-set"]
    {
        assert!(text.contains(word), "`{word}` is not in: {text}");
    }
}

#[test]
fn a_quota_and_its_effect_are_reported() {
    let (two, one) = ([("cpu.max", "30000 100000")], [("cpu.cfs_quota_us", "30000")]);
    let Some(group) = Group::new("cpu", "quota", &two, &one) else { return };
    let served = Served::start(&["--layout", "opaque-128k", "--working-set", "8MiB"]);
    let output = run(&group, &[&served.args()[..], &["--duration", "1s", "--json", "-"]].concat());
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}");
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["host"]["cpu_quota_cores"], 0.3);
    let stat = fs::read_to_string(group.0.join("cpu.stat")).unwrap();
    let stopped = stat.lines().find_map(|line| line.strip_prefix("nr_throttled ")).unwrap();
    let told = report["host"]["throttled_times"].as_u64().unwrap();
    assert!(told <= stopped.trim().parse().unwrap(), "{told} {stat}");
    // Whether the quota stopped the run depends on the load of the machine.
    assert_eq!(text.contains("A CPU quota of 0.30 cores stopped this run"), told > 0, "{told} {text}");
}
