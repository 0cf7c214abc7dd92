//! `report` of what runs wrote: tables, charts, a page, comparisons, and files that are no report.

mod common;
#[path = "report/runs.rs"]
mod runs;

use std::fs;
use std::process::Stdio;
use std::time::Duration;

use common::{bench, complaint, run, wait};
use runs::{Folder, changed, ladder, shown, sweep};
use serde_json::{Value, json};

const SOON: Duration = Duration::from_secs(60);

/// The most bytes of a page of three reports.
const PAGE: u64 = 400 << 10;

/// Runs `report`, and returns its stdout.
fn report(args: &[&str]) -> String {
    let output = run(&[&["report"], args].concat(), SOON);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[track_caller]
fn refused(args: &[&str], words: &[&str]) {
    let text = complaint(&run(&[&["report"], args].concat(), SOON));
    for word in words {
        assert!(text.contains(word), "`{word}` is not in: {text}");
    }
}

#[test]
fn every_row_is_in_the_tables_and_the_page_needs_nothing_beside_it() {
    let folder = Folder::new();
    let files =
        [folder.write("one", ladder()), folder.write("two", sweep()), folder.write("three", ladder())];
    let page = folder.path("page.html");
    let svg = folder.path("svg");
    let files: Vec<&str> = files.iter().map(String::as_str).collect();
    let text = report(&[&files[..], &["--html", &page, "--svg", &svg]].concat());
    assert!(text.contains("batches in flight 1 4, verified"), "{text}");
    let html = fs::read_to_string(&page).unwrap();
    assert!(html.len() as u64 <= PAGE, "{} bytes", html.len());
    for rows in [ladder(), sweep()].map(|report| report["results"].as_array().unwrap().clone()) {
        for row in rows {
            let gb = shown(&row);
            let name = row["scenario"].as_str().unwrap();
            let in_text = text.lines().any(|line| line.contains(name) && line.contains(&format!("| {gb} |")));
            assert!(in_text, "{name} {gb}: {text}");
            assert!(html.contains(&format!("<td data-head=\"GB/s\">{gb}</td>")), "{name} {gb}");
        }
    }
    // The name of SVG's format is no address that is fetched.
    let addresses = html.replace("http://www.w3.org/2000/svg", "");
    for word in ["http:", "https:", "<script", "src=", "@import", "url("] {
        assert!(!addresses.contains(word), "{word}");
    }
    assert!(html.contains("prefers-color-scheme:dark"));
    let mut charts: Vec<_> =
        fs::read_dir(&svg).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    charts.sort();
    for name in ["one-ladder-opaque-128k.svg", "one-rails-opaque-128k.svg", "one-latency-opaque-128k.svg"] {
        assert!(charts.contains(&name.to_owned()), "{charts:?}");
    }
    assert!(charts.contains(&"two-concurrency.svg".to_owned()), "{charts:?}");
    let chart = fs::read_to_string(folder.path("svg/one-ladder-opaque-128k.svg")).unwrap();
    assert!(chart.starts_with("<svg ") && chart.contains("131,072") && chart.contains("memcpy: "));
}

#[test]
fn a_figure_is_the_median_that_its_quartiles_belong_to() {
    let folder = Folder::new();
    // Of five rounds one was disturbed: the mean of the windows lies below all quartiles.
    let disturbed = |report: &mut Value| {
        for row in report["results"].as_array_mut().unwrap() {
            row["gb_per_s"] = json!(1.25);
            row["rounds_gb_per_s"] =
                json!({"rounds": 5, "min": 0.5, "q1": 2.0, "median": 2.25, "q3": 2.5, "max": 3.0});
        }
    };
    let path = folder.write("disturbed", changed(ladder(), disturbed));
    let text = report(&[&path]);
    assert!(text.contains("| 2.25 | 2.00 to 2.50 |") && !text.contains("1.25"), "{text}");
    assert!(text.contains("GB/s are medians of the rounds"), "{text}");
    let compared = report(&["--compare", &path, &path]);
    assert!(compared.contains("| 2.25 | 2.25 | 1.000 | 0.800 to 1.250: no difference |"), "{compared}");
    let svg = folder.path("svg");
    report(&[&path, "--svg", &svg]);
    let chart = fs::read_to_string(folder.path("svg/disturbed-ladder-opaque-128k.svg")).unwrap();
    assert!(chart.contains("memcpy: 2.25"), "{chart}");
}

#[test]
fn two_runs_of_the_same_are_compared_with_what_is_noise() {
    let folder = Folder::new();
    let twice = changed(ladder(), |report| {
        for row in report["results"].as_array_mut().unwrap() {
            let scale = |value: &mut Value| *value = json!(2.0 * value.as_f64().unwrap());
            scale(&mut row["gb_per_s"]);
            for name in ["min", "q1", "median", "q3", "max"] {
                scale(&mut row["rounds_gb_per_s"][name]);
            }
        }
        report["host"]["kernel"] = json!("9.9");
    });
    let (before, after) = (folder.write("before", ladder()), folder.write("after", twice));
    let text = report(&["--compare", &before, &after]);
    let rows: Vec<_> = text.lines().take_while(|line| !line.starts_with("# before")).collect();
    let doubled = rows.iter().filter(|line| line.contains("| 2.000 |")).count();
    assert_eq!(doubled, ladder()["results"].as_array().unwrap().len(), "{text}");
    assert!(rows.iter().any(|line| line.contains("host.kernel") && line.contains("9.9")), "{text}");
    let same = report(&["--compare", &before, &before]);
    assert!(same.contains("| 1.000 |") && same.contains("no difference"), "{same}");
}

#[test]
fn runs_that_measured_different_things_are_not_compared() {
    let folder = Folder::new();
    let before = folder.write("before", ladder());
    for (field, value) in [
        ("page_bytes", json!([4096])),
        ("transport", json!("verbs")),
        ("chunk_bytes", json!(4096)),
        ("rails", json!(["shm0"])),
        ("batch", json!([1])),
        ("concurrency", json!(1)),
        ("order", json!("shuffled")),
    ] {
        let other = folder.write("other", changed(ladder(), |report| report["meta"][field] = value.clone()));
        refused(
            &["--compare", &before, &other],
            &["before and other cannot be compared", field, "with the settings of the other"],
        );
    }
    // Settings that only some runs have.
    let with = |name: &str, settings: Value| {
        folder.write(name, changed(ladder(), |report| report["meta"]["settings"] = settings))
    };
    let cached = with("cached", json!({"directory": "embedded", "dir-cache": "5s"}));
    let words =
        ["dir-cache is 5s in one and not given in the other", "directory is embedded in one and redis"];
    refused(&["--compare", &cached, &with("plain", json!({"directory": "redis"}))], &words);
    report(&["--compare", &cached, &cached]);
    refused(&["--compare", &before], &["--compare", "two reports, not 1"]);
    let none = folder.write("none", changed(ladder(), |report| report["results"] = json!([])));
    refused(&["--compare", &before, &none], &["no row in common"]);
}

#[test]
fn a_figure_that_no_rail_carries_is_called_wrong() {
    let folder = Folder::new();
    let impossible = changed(ladder(), |report| {
        report["host"]["environment"]["devices"] = json!([{
            "name": "mlx5_0",
            "pcie": {"gb_per_s": 63.0, "gt_per_s": 32.0, "width": 16},
            "ports": [{"port": 1, "gbit_per_s": 400.0}],
        }]);
        let row = &mut report["results"].as_array_mut().unwrap()[1];
        // Two processes share the rail.
        let of = |process: u32| json!({"rail": "mlx5_0", "process": process, "gb_per_s": 44.5});
        row["per_rail"] = json!([of(1), of(2)]);
    });
    let text = report(&[&folder.write("wrong", impossible)]);
    assert!(text.contains("WARNING") && text.contains("mlx5_0: 89.0 GB/s is more than"), "{text}");
    assert!(text.contains("its port's 400 Gb/s carries (50.0 GB/s)"), "{text}");
    assert!(!report(&[&folder.write("right", ladder())]).contains("WARNING"));
}

#[test]
fn files_that_are_no_report_are_refused_with_what_to_do() {
    let folder = Folder::new();
    let whole = ladder().to_string();
    let file = |name: &str, text: &str| folder.write_text(name, text);
    refused(&["/nonexistent/run.json"], &["/nonexistent/run.json", "No such file", "--json"]);
    refused(&["/"], &["cannot read /", "directory", "--json"]);
    refused(&[&file("empty", "\n")], &["empty.json is empty", "run it again"]);
    for part in [1, whole.len() / 2, whole.len() - 1] {
        let words = ["ends in the middle of the report", "the disk was full", "run it again"];
        refused(&[&file("cut", &whole[..part])], &words);
    }
    refused(&[&file("text", "no JSON")], &["no report of kvrail-bench", "line 1"]);
    refused(&[&file("other", "{\"a\": 1}")], &["no field `schema`"]);
    let schema = |schema: &str| changed(ladder(), |report| report["schema"] = json!(schema)).to_string();
    refused(
        &[&file("new", &schema("kvrail-bench/99"))],
        &["`kvrail-bench/99`", "kvrail-bench/3", "that wrote it"],
    );
    refused(&[&file("env", &schema("kvrail-bench-env/1"))], &["kvrail-bench-env/1", "no rows", "ladder"]);
    for field in ["meta", "results"] {
        let lacking = changed(ladder(), |report| drop(report.as_object_mut().unwrap().remove(field)));
        refused(&[&file("lacking", &lacking.to_string())], &["lacking.json", field]);
    }
    let strange = changed(ladder(), |report| report["results"][0]["gb_per_s"] = json!("many"));
    refused(&[&file("strange", &strange.to_string())], &["strange.json", "many"]);
    refused(&["--html", "-", &file("whole", &whole)], &["--html -", "--markdown"]);
}

#[test]
fn a_run_that_was_stopped_is_taken_only_if_that_is_asked_for() {
    let folder = Folder::new();
    let partial = folder.write("partial", changed(ladder(), |report| report["partial"] = json!(true)));
    refused(&[&partial], &["stopped before its end", "run it again", "--partial"]);
    assert!(report(&["--partial", &partial]).contains("PARTIAL"));
}

#[test]
fn reports_of_the_format_before_are_read() {
    let folder = Folder::new();
    let old = changed(ladder(), |report| {
        report["schema"] = json!("kvrail-bench/2");
        for name in ["partial", "bare", "noise", "notes"] {
            report.as_object_mut().unwrap().remove(name);
        }
        for row in report["results"].as_array_mut().unwrap() {
            for name in ["synthetic", "batch", "rounds_gb_per_s", "per_rail", "memory", "peak", "warnings"] {
                row.as_object_mut().unwrap().remove(name);
            }
        }
    });
    let page = folder.path("old.html");
    let text = report(&[&folder.write("old", old), "--html", &page]);
    assert!(text.contains("| 131,072 | 2 rails | checked |"), "{text}");
}

#[test]
fn what_is_in_a_report_is_text_on_the_page() {
    let folder = Folder::new();
    let evil = changed(ladder(), |report| {
        report["meta"]["transport"] = json!("<script>alert(1)</script>");
        report["results"][1]["scenario"] = json!("<img src=x onerror=alert(1)> | a");
        report["notes"] = json!(["</style><b>"]);
    });
    let page = folder.path("evil.html");
    report(&[&folder.write("<evil>", evil), "--html", &page]);
    let html = fs::read_to_string(page).unwrap();
    for word in ["<script", "<img", "<b>", "<evil>"] {
        assert!(!html.contains(word), "{word}");
    }
}

#[test]
fn a_full_disk_is_a_failure_that_names_the_file() {
    let folder = Folder::new();
    let file = folder.write("one", ladder());
    for option in ["--html", "--markdown"] {
        refused(&[&file, option, "/dev/full"], &["/dev/full: No space left on device"]);
    }
    let full = fs::File::options().write(true).open("/dev/full").unwrap();
    let mut command = bench(&["report", &file]);
    let output = wait(command.stdout(full).stderr(Stdio::piped()).spawn().unwrap(), SOON);
    assert!(complaint(&output).contains("cannot write to stdout: No space left on device"));
    refused(&[&file, "--svg", "/proc/none"], &["--svg", "/proc/none"]);
    for option in ["--html", "--markdown"] {
        let words = ["/nonexistent/page; give ", option, "No such file"];
        refused(&[&file, option, "/nonexistent/page"], &words);
    }
}
