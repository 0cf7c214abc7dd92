//! `ladder`: every row is there with the size of its pages, what was measured is kept when the run
//! is stopped, a late worker is no measurement, and processes are placed by what sysfs says.

mod common;
#[path = "env/tree.rs"]
#[allow(dead_code, reason = "this test uses a part of it")]
mod tree;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use common::{KEY, Served, bench, children, complaint, run, signal, wait};
use serde_json::Value;
use tree::{Tree, port};

const SOON: Duration = Duration::from_secs(120);
const SMALL: [&str; 4] = ["--working-set", "2MiB", "--rails", "2"];

fn ladder(more: &[&str]) -> Vec<String> {
    ["ladder"].iter().chain(&SMALL).chain(more).map(ToString::to_string).collect()
}

/// Runs it, and returns its text and its report.
fn measured(more: &[&str]) -> (String, Value) {
    let args = ladder(&[more, &["--json", "-"]].concat());
    let output = run(&args.iter().map(String::as_str).collect::<Vec<_>>(), SOON);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{text}");
    (text, serde_json::from_slice(&output.stdout).unwrap())
}

fn rows(report: &Value) -> &Vec<Value> {
    report["results"].as_array().unwrap()
}

#[test]
fn every_rung_has_every_operation_and_the_size_of_its_pages() {
    let (text, report) =
        measured(&["--layout", "vllm_fp8_ds_mla,opaque-1m", "--duration", "200ms", "--verify", "sample"]);
    assert_eq!((&report["schema"], &report["partial"]), (&"kvrail-bench/3".into(), &false.into()));
    assert!(report["host"]["environment"]["system"]["kernel"].is_string());
    let mut seen = BTreeSet::new();
    for row in rows(&report) {
        let name = |field: &str| row[field].as_str().unwrap().to_owned();
        let gb = row["gb_per_s"].as_f64().unwrap();
        let bytes = row["page_bytes"].as_f64().unwrap();
        assert!((row["pages_per_s"].as_f64().unwrap() * bytes / 1e9 - gb).abs() < 1e-6, "{row}");
        // On a busy machine a row in whose round no batch ended has another one.
        assert!([1, 2].map(Value::from).contains(&row["rounds_gb_per_s"]["rounds"]), "{row}");
        assert_eq!(row["synthetic"], name("layout").starts_with("opaque"), "{row}");
        if row["op"] != "copy" {
            assert!(row["pages_verified"].as_u64() > Some(0) && row["pages_wrong"] == 0, "{row}");
            let rails: f64 = row["per_rail"]
                .as_array()
                .unwrap()
                .iter()
                .map(|rail| rail["gb_per_s"].as_f64().unwrap())
                .sum();
            let told = !row["per_rail"].as_array().unwrap().is_empty();
            assert!(!told || (rails - gb).abs() < 1e-6 * gb.max(1.0), "the rails' sum is the row's: {row}");
            assert!(told || row["op"] == "get");
        }
        seen.insert((name("layout"), name("scenario"), name("op")));
    }
    for (layout, copies) in [
        ("vllm_fp8_ds_mla", &["memcpy", "memcpy-1"][..]),
        ("opaque-1m", &["memcpy", "memcpy-libc", "memcpy-1"]),
    ] {
        for scenario in ["1 rail", "2 rails", "rail groups"] {
            for op in ["read", "checked", "get"] {
                assert!(
                    seen.remove(&(layout.into(), scenario.into(), op.into())),
                    "{layout} {scenario} {op}"
                );
            }
        }
        for scenario in copies {
            assert!(seen.remove(&(layout.into(), (*scenario).into(), "copy".into())), "{layout} {scenario}");
        }
    }
    assert!(seen.is_empty(), "{seen:?}");
    assert!(text.lines().all(|line| line.chars().count() <= 100), "{text}");
    assert!(text.contains("opaque-1m (synthetic)") && text.contains("the bare limit of shm is memcpy"));
    let of_a_page = |bytes: &str| text.lines().filter(|line| line.starts_with(bytes)).count();
    assert_eq!((of_a_page("41,984 "), of_a_page("1,048,576 ")), (21, 22), "{text}");
}

#[test]
fn what_was_measured_before_a_signal_is_kept_and_marked() {
    let layout = ["--layout", "vllm_fp8_ds_mla,opaque-128k", "--duration", "1min"];
    for seconds in [1, 3, 9, 27] {
        let args = ladder(&[&layout[..], &["--json", "-"]].concat());
        let mut command = bench(&args.iter().map(String::as_str).collect::<Vec<_>>());
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        std::thread::sleep(Duration::from_secs(seconds));
        signal(child.id(), "INT");
        let output = wait(child, SOON);
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(128 + 2), "{text}");
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(report["partial"], true);
        assert!(text.contains("PARTIAL"), "{text}");
        let all = rows(&report);
        if all.len() < 11 {
            continue;
        }
        assert!(all.iter().all(|row| row["layout"] == "vllm_fp8_ds_mla"), "the second was not begun");
        assert!(all.iter().all(|row| row["pages_per_s"].as_f64() > Some(0.0)));
        return;
    }
    panic!("no row was measured within 27 s");
}

#[test]
fn a_group_whose_last_process_is_late_is_no_measurement() {
    let args = ladder(&["--layout", "opaque-4k", "--duration", "200ms", "--late", "700ms"]);
    let text = complaint(&run(&args.iter().map(String::as_str).collect::<Vec<_>>(), SOON));
    assert!(text.contains("the 2 workers were not at work at the same time in 5 rounds"), "{text}");
}

#[test]
fn a_serve_elsewhere_is_climbed_without_a_copy_of_its_memory() {
    let served = Served::start(&["--layout", "opaque-128k", "--working-set", "2MiB", "--rails", "2"]);
    let address = served.args()[2].to_owned();
    let there = ["--connect", &address, "--key", KEY];
    let (_, report) = measured(
        &[&there[..], &["--layout", "opaque-128k", "--duration", "100ms", "--verify", "sample"]].concat(),
    );
    assert_eq!(rows(&report).len(), 9);
    assert!(rows(&report).iter().all(|row| row["ratio"]["memcpy"].is_null()));
    let args = ladder(&[&there[..], &["--layout", "opaque-4k,opaque-1m"]].concat());
    let text = complaint(&run(&args.iter().map(String::as_str).collect::<Vec<_>>(), SOON));
    assert!(text.contains("pages of one layout") && text.contains("--layout"), "{text}");
    let args = ladder(&[&there[..], &["--layout", "opaque-4k"]].concat());
    let text = complaint(&run(&args.iter().map(String::as_str).collect::<Vec<_>>(), SOON));
    assert!(
        text.contains("131072 bytes") && text.contains("4096 bytes") && text.contains("--layout"),
        "{text}"
    );
}

#[test]
fn the_rows_of_a_layout_are_kept_when_a_later_one_fails() {
    // A process of the second layout dies.
    let json = std::env::temp_dir().join(format!("kvrail-ladder-{}.json", std::process::id()));
    let path = json.to_str().unwrap();
    let args = ladder(&["--layout", "opaque-4k,opaque-128k", "--duration", "1s", "--json", path]);
    let mut command = bench(&args.iter().map(String::as_str).collect::<Vec<_>>());
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // The first child is the producer of the first layout, which stays until that is measured. What
    // is new after it belongs to the second.
    let mut seen = BTreeSet::new();
    let mut producer = None;
    let until = std::time::Instant::now() + SOON;
    loop {
        assert!(std::time::Instant::now() < until, "the second layout was not begun");
        let now = children(child.id());
        producer = producer.or(now.first().copied());
        if producer.is_none_or(|producer| now.contains(&producer)) {
            seen.extend(now);
        } else if let Some(&new) = now.iter().find(|pid| !seen.contains(pid)) {
            signal(new, "KILL");
            break;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    let output = wait(child, SOON);
    let text = complaint(&output);
    assert!(text.contains("was killed by signal 9"), "{text}");
    let report: Value = serde_json::from_slice(&std::fs::read(&json).unwrap()).unwrap();
    std::fs::remove_file(json).unwrap();
    assert_eq!(report["partial"], true);
    assert!(rows(&report).len() == 11 && rows(&report).iter().all(|row| row["layout"] == "opaque-4k"));
    assert!(report["notes"].to_string().contains("ended by an error"), "{}", report["notes"]);
    assert!(String::from_utf8_lossy(&output.stdout).contains("PARTIAL"));
}

/// The plan over a machine's files.
fn plan(tree: &Tree, more: &[&str]) -> std::process::Output {
    let root = tree.root.to_str().unwrap();
    run(&[&["ladder", "--plan", "--transport", "verbs", "--root", root], more].concat(), SOON)
}

#[test]
fn the_reference_machine_gets_a_process_for_each_nic_on_its_own_node() {
    let tree = Tree::reference();
    let output = plan(&tree, &["--processes-per-rail", "2"]);
    let text = String::from_utf8(output.stdout).unwrap();
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/env/plan.txt");
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    assert_eq!(std::fs::read_to_string(&path).unwrap_or_default(), text);
    let free = String::from_utf8(plan(&tree, &["--numa", "off"]).stdout).unwrap();
    assert!(!free.contains("0-95") && free.contains("not bound: --numa off"), "{free}");
}

#[test]
fn a_machine_without_a_port_that_is_up_is_refused() {
    let tree = Tree::reference();
    (0..8).for_each(|nic| tree.write(&format!("{}/state", port(nic)), "1: DOWN\n"));
    let text = complaint(&plan(&tree, &[]));
    assert!(text.contains("no port") && text.contains("doctor"), "{text}");
    tree.remove("sys/class/infiniband");
    let text = complaint(&plan(&tree, &[]));
    assert!(text.contains("no RDMA device") && text.contains("--transport shm"), "{text}");
    let text = complaint(&plan(&Tree::empty(), &[]));
    assert!(text.contains("cannot list") && text.contains("/sys/class/infiniband"), "{text}");
    let text = complaint(&run(&["ladder", "--gpu", "0"], SOON));
    assert!(text.contains("--gpu") && text.contains("--transport verbs"), "{text}");
}
