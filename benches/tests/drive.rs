//! `drive`: sweeps, presets, repeated rounds, an offered load, and a run that is stopped.

mod common;

use std::collections::BTreeSet;
use std::process::Stdio;
use std::time::Duration;

use common::{KEY, bench, complaint, run, signal, wait};
use serde_json::Value;

const SOON: Duration = Duration::from_secs(120);
const LOCAL: [&str; 7] = ["drive", "--local", "--working-set", "1MiB", "--rails", "1", "--warmup=0s"];

fn drive(more: &[&str]) -> (String, Value) {
    let output = run(&[&LOCAL[..], more, &["--json", "-"]].concat(), SOON);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{text}");
    (text, serde_json::from_slice(&output.stdout).unwrap())
}

fn rows(report: &Value) -> &Vec<Value> {
    report["results"].as_array().unwrap()
}

#[test]
fn every_combination_is_a_row_and_the_best_of_each_layout_is_marked() {
    let lists = ["--layout", "opaque-4k,opaque-128k", "--concurrency", "1,4", "--batch", "4,8"];
    let (text, report) = drive(&[&lists[..], &["--duration", "50ms", "--repeat", "3"]].concat());
    let rows = rows(&report);
    let settings = |row: &Value| format!("{} {} {}", row["layout"], row["concurrency"], row["batch"]);
    assert_eq!(rows.iter().map(settings).collect::<BTreeSet<_>>().len(), 8);
    for layout in ["opaque-4k", "opaque-128k"] {
        let of_it = || rows.iter().filter(|row| row["layout"] == layout);
        let median = |row: &Value| row["rounds_gb_per_s"]["median"].as_f64().unwrap();
        let most = of_it().map(median).fold(0.0, f64::max);
        let peaks: Vec<_> = of_it().filter(|row| row["peak"] == true).collect();
        assert_eq!(peaks.len(), 1, "{layout}");
        assert_eq!(median(peaks[0]), most);
    }
    for row in rows {
        let spread = &row["rounds_gb_per_s"];
        assert_eq!(spread["rounds"], 3);
        let order = ["min", "q1", "median", "q3", "max"].map(|name| spread[name].as_f64().unwrap());
        assert!(order.is_sorted() && order[4] > 0.0, "{spread}");
    }
    assert_eq!(report["noise"]["memcpy_gb_per_s"]["rounds"], 3);
    for word in ["drive c1 b4", "3 rounds, median", "own noise over 3 rounds"] {
        assert!(text.contains(word), "{word}: {text}");
    }
    assert_eq!(text.matches("(peak)").count(), 2, "{text}");
}

#[test]
fn presets_are_settings_for_one_question() {
    let of = |preset: &str| -> Vec<(u64, u64)> {
        // On a loaded machine no batch ended within 20 ms.
        let args = ["--layout", "opaque-4k", "--duration", "300ms", "--verify", "off", "--preset", preset];
        let (_, report) = drive(&args);
        let settings = |row: &Value| (row["concurrency"].as_u64().unwrap(), row["batch"].as_u64().unwrap());
        rows(&report).iter().map(settings).collect()
    };
    assert_eq!(of("latency"), [(1, 1)]);
    assert_eq!(of("throughput"), [(6, 32)]);
    assert_eq!(of("saturation"), [1, 2, 4, 8, 16, 32].map(|concurrency| (concurrency, 32)));
}

#[test]
fn a_stall_shows_in_the_p99_of_an_offered_load() {
    let load = ["--layout", "opaque-4k", "--batch", "1", "--rate", "500", "--duration", "1s"];
    for op in ["checked", "read"] {
        let (text, report) = drive(&[&load[..], &["--stall", "10ms", "--op", op]].concat());
        let row = &rows(&report)[0];
        assert_eq!(row["offered_batches_per_s"], 500.0);
        // A tenth of all batches should have begun while the reader stood still.
        let p99 = row["latency_us"]["p99"].as_f64().unwrap();
        assert!(p99 >= 5_000.0, "{op}: {p99} us: {text}");
        assert!(text.contains("latencies are from the intended start"), "{text}");
    }
    // A load can be offered to pages by key, too.
    let (_, report) = drive(&[&load[..], &["--op", "get", "--verify", "off"]].concat());
    let rate = rows(&report)[0]["pages_per_s"].as_f64().unwrap();
    assert!(rate > 0.0, "{rate}");
}

#[test]
fn memory_stays_the_same_however_many_batches_there_are() {
    for op in ["read", "get"] {
        let args = ["--layout", "opaque-4k", "--batch", "1", "--duration", "50ms", "--repeat", "100"];
        let (_, report) = drive(&[&args[..], &["--op", op, "--verify", "off"]].concat());
        let memory = &rows(&report)[0]["memory"];
        let number = |at: usize, field: &str| memory[at][field].as_u64().unwrap();
        assert!(number(1, "batches") >= 10 * number(0, "batches"), "{memory}");
        // Each round of get has new threads, whose small heaps differ by a few pages.
        let more = if op == "get" { 256 << 10 } else { 16 << 10 };
        assert!(number(1, "bytes") <= number(0, "bytes") + more, "{op}: {memory}");
    }
}

#[test]
fn what_was_measured_before_a_signal_is_kept_and_marked() {
    let args = ["--layout", "opaque-4k", "--concurrency", "1,2", "--duration", "1h", "--json", "-"];
    for seconds in [1, 3, 9, 27] {
        let mut command = bench(&[&LOCAL[..], &args].concat());
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        std::thread::sleep(Duration::from_secs(seconds) + Duration::from_millis(500));
        signal(child.id(), "INT");
        let output = wait(child, SOON);
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(128 + 2), "{text}");
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(report["partial"], true);
        assert!(text.contains("PARTIAL"), "{text}");
        if rows(&report).len() == 2 {
            assert!(rows(&report).iter().all(|row| row["pages_per_s"].as_f64() > Some(0.0)));
            return;
        }
    }
    panic!("nothing was measured within 27 s");
}

#[test]
fn what_cannot_be_swept_is_named() {
    let fails = |args: &[&str], words: &[&str]| {
        let text = complaint(&run(args, SOON));
        for word in words {
            assert!(text.contains(word), "{word}: {text}");
        }
    };
    let list = "1,2,3,4,5,6,7,8,9,10";
    let many = [&LOCAL[..], &["--concurrency", list, "--batch", list]].concat();
    fails(&many, &["100 combinations", "64"]);
    let there = ["drive", "--connect", "127.0.0.1:1", "--key", KEY];
    fails(&[&there[..], &["--layout", "opaque-4k,opaque-1m"]].concat(), &["one layout", "--local"]);
    fails(&[&there[..], &["--local"]].concat(), &["--local", "--connect"]);
    fails(&[&there[..], &["--rate", "0"]].concat(), &["--rate", "0.1"]);
    fails(&[&there[..], &["--rate", "nan"]].concat(), &["--rate", "0.1"]);
    fails(&[&there[..], &["--repeat", "0"]].concat(), &["--repeat", "1..=1000"]);
    fails(&[&there[..], &["--concurrency", "1,,2"]].concat(), &["--concurrency"]);
}
