//! Every layout of the catalogue is served, read by location and got by key, also those whose pages
//! have several regions: every byte of every page is compared.

mod common;

use std::time::Duration;

use common::{Served, run};
use serde_json::Value;

const SOON: Duration = Duration::from_secs(120);
/// Pages of each layout.
const PAGES: u64 = 3;

/// The name, the bytes and the regions of each layout, as `layout` lists them.
fn layouts() -> Vec<(String, u64, u32)> {
    let output = run(&["layout"], SOON);
    let text = String::from_utf8(output.stdout).unwrap();
    let layout = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        (fields[0].to_owned(), fields[1].parse().unwrap(), fields[2].parse().unwrap())
    };
    text.lines().skip(1).map(layout).collect()
}

fn row(args: &[&str]) -> Value {
    let output = run(args, SOON);
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    report["results"][0].clone()
}

fn drive(served: &Served, layout: &str, op: &str) {
    let mut args = served.args();
    args.extend([
        "--duration",
        "300ms",
        "--warmup",
        "0s",
        "--rails",
        "1",
        "--batch",
        "2",
        "--concurrency",
        "1",
    ]);
    args.extend(["--op", op, "--json", "-"]);
    let row = row(&args);
    assert_eq!(
        (&row["pages_verified"], &row["pages_wrong"], &row["errors"]),
        (&PAGES.into(), &0.into(), &serde_json::json!({})),
        "{layout}, {op}: {row}"
    );
}

#[test]
fn every_layout_is_served_and_every_byte_of_it_arrives() {
    let layouts = layouts();
    assert!(layouts.iter().any(|(_, _, regions)| *regions > 1), "{layouts:?}");
    for (layout, bytes, regions) in layouts {
        let set = format!("{}B", PAGES * bytes);
        let served = Served::start(&["--layout", &layout, "--working-set", &set]);
        drive(&served, &layout, "checked");
        if regions > 1 {
            drive(&served, &layout, "read");
            drive(&served, &layout, "get");
        }
    }
}

#[test]
fn pages_of_several_regions_go_over_tcp_and_are_found_one_sidedly() {
    let layout = "vllm_llama3_8b_lbnhc";
    let served = Served::start(&["--layout", layout, "--working-set", "8MiB", "--transport", "tcp"]);
    let mut args = served.args();
    args.extend(["--duration", "300ms", "--warmup", "0s", "--verify", "all", "--json", "-"]);
    assert_eq!(row(&args)["pages_wrong"], 0);
    let served = Served::start(&["--layout", layout, "--working-set", "8MiB", "--directory", "one-sided"]);
    let mut args = served.args();
    args.extend(["--op", "get", "--duration", "300ms", "--warmup", "0s", "--verify", "all", "--json", "-"]);
    let row = row(&args);
    assert_eq!((&row["pages_wrong"], &row["hit_ratio"]), (&0.into(), &1.0.into()), "{row}");
}

#[test]
fn the_demo_measures_pages_of_several_regions() {
    let layout = "vllm_llama3_8b_lbnhc";
    let args =
        ["--layout", layout, "--working-set", "8MiB", "--duration", "20ms", "--rails", "2", "--json", "-"];
    let output = run(&args, SOON);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    for row in report["results"].as_array().unwrap() {
        assert_eq!((&row["layout"], &row["pages_wrong"]), (&layout.into(), &0.into()), "{row}");
    }
}
