//! `serve`, `drive` and the demo as real processes, with short durations; also when one of their
//! processes is killed.

mod common;

use std::fmt::Write;
use std::fs;
use std::process::Stdio;
use std::time::{Duration, Instant};

use common::{Served, bench, children, complaint, run, signal, wait};
use serde_json::Value;

const SOON: Duration = Duration::from_secs(60);

/// Every field of a report with its type, so that a change of the format is seen.
const SHAPE: &str = include_str!("report.shape");

fn shape(value: &Value, path: &str, out: &mut String) {
    let kind = match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(items) => {
            writeln!(out, "{path}: array").unwrap();
            if let Some(first) = items.first() {
                shape(first, &format!("{path}[]"), out);
            }
            return;
        }
        Value::Object(fields) => {
            if fields.is_empty() {
                writeln!(out, "{path}: object").unwrap();
            }
            for (name, value) in fields {
                shape(value, &format!("{path}.{name}"), out);
            }
            return;
        }
    };
    writeln!(out, "{path}: {kind}").unwrap();
}

fn report(output: &std::process::Output) -> Value {
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    let report: Value = serde_json::from_slice(&output.stdout).expect(&errors);
    assert_eq!(report["schema"], "kvrail-bench/3");
    for row in report["results"].as_array().unwrap() {
        assert_eq!(row["pages_wrong"], 0, "{row}");
        assert_eq!(row["errors"], serde_json::json!({}), "{row}");
        assert!(
            row["gb_per_s"].as_f64().unwrap() > 0.0 && row["pages_per_s"].as_f64().unwrap() > 0.0,
            "{row}"
        );
        let us = |name: &str| row["latency_us"][name].as_f64().unwrap();
        assert!(us("p50") > 0.0 && us("p50") <= us("p99") && us("p99") <= us("max") * 1.001, "{row}");
    }
    report
}

fn drive(served: &Served, more: &[&str]) -> Value {
    let mut args = served.args();
    args.extend(["--duration", "100ms", "--warmup", "20ms", "--json", "-"]);
    args.extend(more);
    report(&run(&args, SOON))
}

#[test]
fn drive_reads_what_serve_publishes_over_shm() {
    let served = Served::start(&["--layout", "vllm_fp8_ds_mla", "--working-set", "4MiB", "--rails", "2"]);
    let report = drive(&served, &["--processes", "2", "--rails", "2", "--concurrency", "2", "--batch", "8"]);
    let mut got = String::new();
    shape(&report, "", &mut got);
    // A machine with NICs has one line more, and the limits depend on where the test runs.
    let limits = [".host.cpu_quota_cores", ".host.memory_limit_bytes", ".host.limits_unknown"];
    for limit in limits {
        assert!(got.contains(limit), "{limit}: {got}");
    }
    // What `env` shows differs from machine to machine. Its own test has its format.
    assert!(got.contains(".host.environment.system."), "{got}");
    let fixed = |line: &&str| {
        !line.starts_with(".host.nics.devices[]")
            && !line.starts_with(".host.environment.")
            && !limits.iter().any(|limit| line.starts_with(limit))
    };
    let got: Vec<_> = got.lines().filter(fixed).collect();
    assert_eq!(
        got,
        SHAPE.lines().collect::<Vec<_>>(),
        "the format has changed: raise its version, and docs/measuring.md with it"
    );

    let (meta, row) = (&report["meta"], &report["results"][0]);
    assert_eq!(meta["transport"], "shm");
    assert_eq!(meta["rails"], serde_json::json!(["shm0", "shm1"]));
    assert_eq!((&meta["processes"], &meta["batch"][0]), (&2.into(), &8.into()));
    // 4 MiB are 99 pages of 41,984 bytes, and one of the two processes compares each.
    assert_eq!(row["pages_verified"], 99);
    assert_eq!(row["hit_ratio"], 1.0);
    let (pages, tokens) = (row["pages_per_s"].as_f64().unwrap(), row["tokens_per_s"].as_f64().unwrap());
    assert!((tokens / pages - 64.0).abs() < 1e-6);
    let gigabytes = row["gb_per_s"].as_f64().unwrap();
    assert!((gigabytes * 1e9 / pages - 41_984.0).abs() < 1e-3);

    // With a part of the pages, a sample of them, smaller chunks, several lanes.
    let more =
        ["--working-set", "2MiB", "--verify", "sample", "--chunk-bytes", "8KiB", "--lanes-per-rail", "2"];
    let report = drive(&served, &more);
    assert_eq!(report["results"][0]["pages_verified"], 49_u64.div_ceil(16));
    assert_eq!(report["meta"]["chunk_bytes"], 8192);
    let report = drive(&served, &["--verify", "off", "--rails", "1"]);
    assert_eq!(report["results"][0]["pages_verified"], 0);
    assert_eq!(report["results"][0]["op"], "checked");
    let report = drive(&served, &["--op", "read"]);
    assert_eq!(report["results"][0]["op"], "read");
    assert_eq!(report["results"][0]["pages_verified"], 99);
}

#[test]
fn drive_reads_what_serve_publishes_over_tcp() {
    let served = Served::start(&["--layout", "opaque-128k", "--working-set", "2MiB", "--transport", "tcp"]);
    let report = drive(&served, &[]);
    assert_eq!(report["meta"]["transport"], "tcp (functional only)");
    assert_eq!(report["meta"]["synthetic"][0], true);
    assert_eq!(report["results"][0]["pages_verified"], 16);
    assert_eq!(report["results"][0]["tokens_per_s"], Value::Null);
}

#[test]
fn the_demo_measures_every_row() {
    let args = ["--layout", "vllm_fp8_ds_mla", "--working-set", "8MiB", "--duration", "100ms", "--json", "-"];
    let output = run(&args, SOON);
    let report = report(&output);
    let rows = report["results"].as_array().unwrap();
    let scenarios: Vec<_> = rows.iter().map(|row| row["scenario"].as_str().unwrap()).collect();
    assert_eq!(scenarios, ["memcpy", "1-rail", "n-rails", "get", "n-processes"]);
    assert_eq!(rows[0]["ratio"]["memcpy"], 1.0);
    for row in &rows[1..] {
        assert_eq!(row["pages_verified"], 199, "{row}");
        assert!(row["ratio"]["memcpy"].as_f64().unwrap() > 0.0);
    }
    assert!(rows[2]["rails"].as_u64().unwrap() >= 2 && rows[4]["processes"].as_u64().unwrap() >= 2);
    // The table goes to stderr, apart from the report.
    let table = String::from_utf8_lossy(&output.stderr);
    assert!(table.contains("One host is not a fabric") && table.contains("of memcpy"), "{table}");
    // First how much was read, and whether that is enough; in a terminal of 80 columns.
    let first: Vec<_> = table.lines().filter(|line| line.starts_with("  ")).collect();
    assert!(first[0].starts_with("  41,984-byte pages, ") && first[0].contains(" GB/s, "), "{table}");
    // Where its lines end depends on the figures.
    let text = table.split_whitespace().collect::<Vec<_>>().join(" ");
    let told = |words: &str| text.find(words).unwrap_or_else(|| panic!("{words}: {table}"));
    let compared = format!("Every byte of {} pages was compared: 0 wrong.", 4 * 199);
    assert!(told("Target 0.80: ") < told("scenario") && told(&compared) < told("scenario"), "{table}");
    assert!(table.lines().all(|line| line.chars().count() <= 80), "{table}");
}

#[test]
fn progress_takes_one_line_of_a_terminal() {
    // util-linux's `script` gives the program a terminal.
    let demo = format!(
        "stty cols 80; '{}' demo --layout sgl_mla_page_first_direct --working-set 5MB --duration 20ms --rails 2",
        env!("CARGO_BIN_EXE_kvrail-bench")
    );
    let mut command = std::process::Command::new("script");
    command.args(["--quiet", "--command", &demo, "/dev/null"]);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let Ok(child) = command.spawn() else {
        eprintln!("SKIPPED: this host has no `script` (package bsdutils)");
        return;
    };
    let output = wait(child, SOON);
    let text = String::from_utf8_lossy(&output.stdout);
    // What moves the cursor is no text: ESC [ numbers letter.
    let mut parts = text.split("\u{1b}[");
    let first = parts.next().unwrap_or_default().to_owned();
    let plain = parts.fold(first, |all, part| {
        all + part.trim_start_matches(|c: char| !c.is_ascii_alphabetic()).get(1..).unwrap_or("")
    });
    let lines: Vec<_> = plain.split(['\r', '\n']).collect();
    assert!(lines.iter().any(|line| line.contains("writing pages")), "{plain}");
    let wide: Vec<_> = lines.iter().filter(|line| line.chars().count() > 80).collect();
    assert!(wide.is_empty(), "{wide:?}");
}

#[test]
fn the_demo_works_on_one_core() {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:\t")).unwrap();
    let cpu: String = list.chars().take_while(char::is_ascii_digit).collect();
    let mut command = std::process::Command::new("taskset");
    command.args(["-c", &cpu, env!("CARGO_BIN_EXE_kvrail-bench"), "--layout", "vllm_fp8_ds_mla"]);
    command.args(["--working-set", "8MiB", "--duration", "100ms", "--json", "-"]);
    let output = wait(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap(), SOON);
    let report = report(&output);
    assert_eq!((&report["host"]["cores"], report["results"].as_array().unwrap().len()), (&1.into(), 5));
}

#[test]
fn a_demo_that_is_stopped_keeps_what_it_measured() {
    for seconds in [1, 3, 9, 27] {
        let args = ["demo", "--working-set", "4MiB", "--duration", "1h", "--json", "-"];
        let child = bench(&args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        std::thread::sleep(Duration::from_secs(seconds));
        signal(child.id(), "INT");
        let output = wait(child, SOON);
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(128 + 2), "{text}");
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(report["partial"], true);
        assert!(text.contains("PARTIAL"), "{text}");
        if report["results"].as_array().unwrap().len() == 6 {
            return;
        }
    }
    panic!("no row was measured within 27 s");
}

#[test]
fn large_pages_have_a_row_for_the_c_library_as_well() {
    let args = ["--layout", "opaque-1m", "--working-set", "16MiB", "--duration", "100ms", "--verify", "off"];
    let report = report(&run(&[&args[..], &["--json", "-"]].concat(), SOON));
    let rows = report["results"].as_array().unwrap();
    let scenarios: Vec<_> = rows.iter().map(|row| row["scenario"].as_str().unwrap()).collect();
    assert_eq!(scenarios, ["memcpy", "memcpy-libc", "1-rail", "n-rails", "get", "n-processes"]);
    assert_eq!((&rows[0]["ratio"]["memcpy"], &rows[1]["op"]), (&1.0.into(), &"copy".into()));
}

#[test]
fn a_key_file_serves_both_sides() {
    use std::os::unix::fs::PermissionsExt;
    let path = std::env::temp_dir().join(format!("kvrail-bench-file-{}", std::process::id()));
    fs::write(&path, common::KEY).unwrap();
    fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
    let served = Served::start(&["--layout", "vllm_fp8_ds_mla", "--working-set", "1MiB"]);
    let address = served.args()[2].to_owned();
    let mut args = vec!["drive", "--connect", &address, "--key-file", path.to_str().unwrap()];
    args.extend(["--layout", "vllm_fp8_ds_mla", "--duration", "200ms", "--warmup", "0s", "--json", "-"]);
    report(&run(&args, SOON));
    fs::remove_file(&path).unwrap();
}

/// Starts a drive, and returns when it has been at work for a moment.
fn driving(served: &Served, duration: &str) -> std::process::Child {
    let mut args = served.args();
    args.extend(["--duration", duration, "--warmup", "0s", "--processes", "2"]);
    let child = bench(&args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let until = Instant::now() + SOON;
    while children(child.id()).len() < 2 {
        assert!(Instant::now() < until, "no workers");
        std::thread::sleep(Duration::from_millis(10));
    }
    std::thread::sleep(Duration::from_millis(700));
    child
}

fn the_producer_is_killed(transport: &str) {
    let mut served =
        Served::start(&["--layout", "vllm_fp8_ds_mla", "--working-set", "8MiB", "--transport", transport]);
    let child = driving(&served, "20s");
    served.kill();
    let killed = Instant::now();
    let text = complaint(&wait(child, Duration::from_secs(20)));
    assert!(killed.elapsed() < Duration::from_secs(10), "{:?}", killed.elapsed());
    assert!(text.contains("is gone after") && text.contains("start it again"), "{text}");
}

#[test]
fn a_producer_that_is_killed_ends_the_drive_over_shm() {
    the_producer_is_killed("shm");
}

#[test]
fn a_producer_that_is_killed_ends_the_drive_over_tcp() {
    the_producer_is_killed("tcp");
}

#[test]
fn no_process_outlives_a_drive_that_is_killed() {
    let served = Served::start(&["--layout", "vllm_fp8_ds_mla", "--working-set", "8MiB"]);
    let mut child = driving(&served, "20s");
    let workers = children(child.id());
    child.kill().unwrap();
    child.wait().unwrap();
    let until = Instant::now() + Duration::from_secs(5);
    let alive = |pid: &u32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        !matches!(
            stat.rsplit(')').next().unwrap_or_default().split_whitespace().next(),
            None | Some("Z" | "X")
        )
    };
    while workers.iter().any(alive) {
        assert!(Instant::now() < until, "workers are left: {workers:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_worker_that_is_killed_is_named() {
    let served = Served::start(&["--layout", "vllm_fp8_ds_mla", "--working-set", "8MiB"]);
    let child = driving(&served, "20s");
    let worker = children(child.id())[0];
    signal(worker, "KILL");
    let text = complaint(&wait(child, Duration::from_secs(30)));
    assert!(text.contains(&worker.to_string()) && text.contains("signal 9"), "{text}");
}
