//! `model`: every line says that it is one, the working of the smallest page is right, and a ladder
//! is predicted beside what was measured.

mod common;
#[path = "report/runs.rs"]
#[allow(dead_code, reason = "this test uses a part of it")]
mod runs;

use std::time::Duration;

use common::{complaint, run};
use runs::{Folder, changed, ladder, sweep};
use serde_json::json;

const SOON: Duration = Duration::from_secs(300);

fn model(args: &[&str]) -> String {
    let output = run(&[&["model"], args].concat(), SOON);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// The numbers of a line, without thousands separators.
fn numbers(line: &str) -> Vec<f64> {
    let line = line.replace(',', "");
    let part = |c: char| !(c.is_ascii_digit() || c == '.');
    line.split(part).filter_map(|word| word.trim_matches('.').parse().ok()).collect()
}

#[test]
fn every_line_is_marked_and_the_working_gives_its_result() {
    let folder = Folder::new();
    let text = model(&["--ladder", &folder.write("ladder", ladder()), "--readers", "64"]);
    assert!(text.lines().count() > 30 && text.lines().all(|line| line.starts_with("model: ")), "{text}");
    let find = |words: &str| {
        text.lines().find(|line| line.contains(words)).unwrap_or_else(|| panic!("{words}: {text}"))
    };
    // From `8 rails x 49 GB/s = 392.0 GB/s` and the cost of a page.
    let line = find("one core is enough from pages of");
    let all = numbers(line);
    let (bytes, ns) = (all[0], all[5]);
    assert!(line.contains("= 392.0 GB/s") && (bytes - ns * 392.0).abs() <= 392.0 * 0.06, "{line}");
    assert!(find("one rail dead").contains("(0.0 of it on that rail)"), "{text}");
    let incast = numbers(find("incast, 64 readers"));
    // 8 rails of the producer are shared by 64 readers.
    assert!((incast[2] - 392.0 / 64.0).abs() < 0.4, "{incast:?}");
    let peers = text.lines().filter(|line| line.contains("bytes a peer with its lane"));
    assert_eq!(peers.count(), 4, "{text}");
    // The row that was put in comes out.
    let put_in = find("(put in)");
    assert!(put_in.contains("+0 %") || put_in.contains("-0 %") || put_in.contains("+1 %"), "{put_in}");
    let rows = ladder()["results"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|row| row["op"] == "read" || row["op"] == "checked")
        .count();
    assert!(find("are within 15 %").contains(&format!("of {} other rows", rows - 1)), "{text}");
}

#[test]
fn what_the_model_cannot_be_calibrated_on_is_named() {
    let folder = Folder::new();
    let refused = |args: &[&str], words: &[&str]| {
        let text = complaint(&run(&[&["model"], args].concat(), SOON));
        words.iter().for_each(|word| assert!(text.contains(word), "{word}: {text}"));
    };
    let verbs = changed(ladder(), |report| report["meta"]["transport"] = json!("verbs on mlx5_0"));
    refused(&["--ladder", &folder.write("verbs", verbs)], &["rails of shm", "verbs on mlx5_0"]);
    let copies = changed(sweep(), |report| report["results"] = json!([]));
    refused(&["--ladder", &folder.write("none", copies)], &["no row of one rail", "ladder"]);
    refused(&["--ladder", "/nonexistent"], &["/nonexistent", "No such file"]);
    for (field, value, words) in [
        ("batch", json!(1_000_000), &["pages of a batch: 1000000", "256"][..]),
        ("page_bytes", json!(u32::MAX), &["bytes of a page: 4294967295"]),
        ("chunk_bytes", json!(12_345), &["bytes of a chunk: 12345"]),
        ("rails", json!(0), &["rails: 0 is not between 1 and 16"]),
    ] {
        let absurd = changed(ladder(), |report| {
            for row in report["results"].as_array_mut().unwrap() {
                row[field] = value.clone();
            }
        });
        let words = [&["--ladder: absurd: the row", "ladder --json"], words].concat();
        refused(&["--ladder", &folder.write("absurd", absurd)], &words);
    }
    let still = changed(ladder(), |report| {
        for row in report["results"].as_array_mut().unwrap() {
            for name in ["min", "q1", "median", "q3", "max"] {
                row["rounds_gb_per_s"][name] = json!(1e-12);
            }
        }
    });
    refused(&["--ladder", &folder.write("still", still)], &["GB/s: 0.000000000001 is not between"]);
    let partial = changed(ladder(), |report| report["partial"] = json!(true));
    refused(&["--ladder", &folder.write("partial", partial)], &["stopped before its end", "run it again"]);
    refused(&["--gb-per-s", "0"], &["--gb-per-s", "0.01"]);
    refused(&["--rails", "9"], &["--rails", "1..=8"]);
    refused(&["--driver-ns", "nan"], &["--driver-ns"]);
}
