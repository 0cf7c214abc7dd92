//! In real control groups: the available memory is what a limit leaves, and a quota is called a
//! quota.

mod common;

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use common::{Served, complaint, wait};
use serde_json::Value;

const SOON: Duration = Duration::from_secs(120);
const MIB: u64 = 1 << 20;

/// A control group below this process's own. It is removed when this is dropped.
struct Group(PathBuf);

impl Group {
    /// Makes a group with a limit of a controller. `two` and `one` are the file of that limit and
    /// its new content in version 2 and version 1. `None`, and a line on stderr, where this process
    /// may not make one.
    fn new(controller: &str, name: &str, two: (&str, &str), one: (&str, &str)) -> Option<Self> {
        let skipped = |why: &str| {
            eprintln!("SKIPPED: no control group with a limit on {controller} can be made here ({why})");
            None
        };
        let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let own = |wanted: &dyn Fn(&str) -> bool| {
            groups.lines().find_map(|line| {
                let mut fields = line.splitn(3, ':').skip(1);
                let found = wanted(fields.next()?);
                fields.next().filter(|_| found).map(|group| group.trim_start_matches('/').to_owned())
            })
        };
        let names = |controllers: &str| controllers.split(',').any(|name| name == controller);
        let (folder, (file, text)) = match own(&names) {
            Some(group) => (PathBuf::from("/sys/fs/cgroup").join(controller).join(group), one),
            None => match own(&str::is_empty) {
                Some(group) => (PathBuf::from("/sys/fs/cgroup").join(group), two),
                None => return skipped("this process is in none"),
            },
        };
        let group = Self(folder.join(format!("kvrail-{name}-{}", std::process::id())));
        if let Err(error) = fs::create_dir(&group.0) {
            return skipped(&format!("{}: {error}", group.0.display()));
        }
        match fs::write(group.0.join(file), text) {
            Ok(()) => Some(group),
            Err(error) => skipped(&format!("{file}: {error}")),
        }
    }

    fn memory(name: &str, bytes: u64) -> Option<Self> {
        let text = bytes.to_string();
        Self::new("memory", name, ("memory.max", &text), ("memory.limit_in_bytes", &text))
    }

    /// Runs the program in the group.
    fn run(&self, args: &[&str]) -> Output {
        let mut command = Command::new("sh");
        command.args(["-c", "echo $$ >\"$0\" && exec \"$@\""]);
        command.arg(self.0.join("cgroup.procs")).arg(env!("CARGO_BIN_EXE_kvrail-bench")).args(args);
        wait(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap(), SOON)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // Processes take a moment to leave the group.
        let until = Instant::now() + Duration::from_secs(5);
        while fs::remove_dir(&self.0).is_err() && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

#[test]
fn the_demo_fits_itself_into_its_container() {
    let Some(group) = Group::memory("demo", 512 * MIB) else { return };
    let args = ["--layout", "vllm_fp8_ds_mla", "--duration", "100ms", "--rails", "2"];
    let output = group.run(&[&args[..], &["--json", "-"]].concat());
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}");
    for word in ["six times over, instead of 512.0 MiB", "is 512.0 MiB)", "(memory limit: 512.0 MiB)"] {
        assert!(text.contains(word), "`{word}` is not in: {text}");
    }
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["host"]["memory_limit_bytes"], 512 * MIB);
    assert!(report["meta"]["working_set"][0].as_u64().unwrap() < 64 * MIB, "{report}");
}

#[test]
fn memory_beyond_a_containers_limit_is_refused_and_not_taken() {
    let Some(group) = Group::memory("small", 64 * MIB) else { return };
    let refused = |args: &[&str], words: &[&str]| {
        let text = complaint(&group.run(args));
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
    let text = complaint(&group.run(&[&served.args()[..], &["--processes", "4"]].concat()));
    for word in
        ["4 readers and the pages that they read into take 208.0 MiB", "is 96.0 MiB)", "--working-set"]
    {
        assert!(text.contains(word), "`{word}` is not in: {text}");
    }
}

#[test]
fn a_quota_and_its_effect_are_reported() {
    let cpu = ("cpu.max", "30000 100000");
    let Some(group) = Group::new("cpu", "quota", cpu, ("cpu.cfs_quota_us", "30000")) else { return };
    let served = Served::start(&["--layout", "opaque-128k", "--working-set", "8MiB"]);
    let output = group.run(&[&served.args()[..], &["--duration", "1s", "--json", "-"]].concat());
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
