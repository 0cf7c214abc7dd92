//! Churn as real processes: no page is wrong while pages are overwritten, and where validation is
//! switched off the same run finds wrong ones.

mod common;

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use common::{complaint, run};
use serde_json::Value;

const SOON: Duration = Duration::from_secs(120);

/// The report of a churn that must succeed.
#[track_caller]
fn churn(more: &[&str]) -> Value {
    let output = run(&[&["churn", "--json", "-"], more].concat(), SOON);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{more:?}: {errors}");
    serde_json::from_slice(&output.stdout).expect(&errors)
}

/// Checks what every churn with validation must show.
#[track_caller]
fn is_right(report: &Value, directory: &str) {
    let number = |name: &str| report[name].as_u64().unwrap_or_else(|| panic!("{name}: {report}"));
    assert_eq!(report["schema"], "kvrail-bench-churn/1");
    assert_eq!(report["directory"], directory);
    assert_eq!(number("pages_wrong"), 0, "{report}");
    assert_eq!(number("hits"), number("hits_cache") + number("hits_directory"), "{report}");
    assert!(number("hits") > 0 && number("overwrites") > 0 && number("gets") > 0, "{report}");
    assert!(number("evictions") > 0 && number("removed") > 0 && number("look_ups") > 0, "{report}");
    // There are more keys than pages, so some are missed.
    assert!(report["misses"]["no_owner"].as_u64() > Some(0), "{report}");
}

#[test]
fn no_page_is_wrong_with_an_embedded_directory() {
    for cache in ["0", "5"] {
        let report = churn(&["--duration", "2s", "--dir-cache", cache]);
        is_right(&report, "embedded");
        let cached = report["hits_cache"].as_u64() > Some(0);
        assert_eq!(cached, cache != "0", "{report}");
        assert_eq!(report["forged"], 0);
    }
}

#[test]
fn no_page_is_wrong_with_one_sided_look_ups() {
    is_right(&churn(&["--duration", "2s", "--directory", "one-sided", "--dir-cache", "0"]), "one-sided");
}

#[test]
fn no_page_is_wrong_whatever_an_adversary_does_to_the_directory() {
    for cache in ["0", "5"] {
        let report = churn(&["--duration", "2s", "--adversary", "--dir-cache", cache]);
        is_right(&report, "embedded");
        assert!(report["forged"].as_u64() > Some(0), "{report}");
        // Pools, slots and owners that do not exist are misses of their own.
        let misses = report["misses"].as_object().unwrap();
        assert!(misses.contains_key("no_owner") && misses.len() > 1, "{report}");
    }
}

#[test]
fn without_validation_wrong_pages_are_found() {
    // A busy machine may not overlap anything for a while.
    let until = Instant::now() + SOON;
    loop {
        let args = ["churn", "--no-validation", "--duration", "2s", "--json", "-"];
        let output = run(&args, SOON);
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(report["validation"], false);
        let wrong = report["pages_wrong"].as_u64().unwrap();
        assert_eq!(output.status.success(), wrong > 0, "{output:?}");
        if wrong > 0 {
            assert!(!report["wrong_examples"].as_array().unwrap().is_empty(), "{report}");
            break;
        }
        assert!(Instant::now() < until, "none of the pages that were not validated is wrong");
    }
}

#[test]
fn bad_arguments_are_named() {
    let fails = |args: &[&str], words: &[&str]| {
        let text = complaint(&run(&[&["churn"], args].concat(), SOON));
        words.iter().for_each(|word| assert!(text.contains(word), "`{word}` is not in: {text}"));
    };
    fails(&["--directory", "zookeeper"], &["--directory", "embedded", "one-sided", "redis://"]);
    fails(&["--directory", "redis://"], &["--directory"]);
    fails(&["--pool-pages", "0"], &["--pool-pages"]);
    fails(&["--keys", "0"], &["--keys"]);
    fails(&["--dir-cache", "soon"], &["--dir-cache"]);
    fails(&["--readers", "17"], &["--readers", "1..=16"]);
    fails(&["--json", "/nonexistent/report"], &["/nonexistent/report", "--json"]);
}

/// Whether there is a redis-server. Without one a test is skipped, or fails if it is required.
fn redis() -> bool {
    let version = Command::new("redis-server").arg("--version").stdout(Stdio::null()).status();
    let there = version.is_ok_and(|status| status.success());
    if !there {
        let required = std::env::var_os("KVRAIL_REDIS_TESTS").is_some_and(|value| value == "required");
        assert!(
            !required,
            "KVRAIL_REDIS_TESTS=required, and there is no redis-server: apt-get install redis-server"
        );
        use std::io::Write as _;
        let _ = writeln!(
            std::io::stderr(),
            "*** SKIPPED: there is no redis-server (apt-get install redis-server)"
        );
    }
    there
}

#[test]
fn no_page_is_wrong_with_a_redis_server_of_its_own() {
    if !redis() {
        return;
    }
    for more in [&["--dir-cache", "0"][..], &["--adversary"]] {
        is_right(&churn(&[&["--duration", "2s", "--directory", "redis"], more].concat()), "redis");
    }
}

#[test]
fn a_missing_redis_server_is_named_with_what_to_install() {
    // No program is found in a folder that is not there.
    let mut command = common::bench(&["churn", "--directory", "redis", "--duration", "1s"]);
    let child =
        command.env("PATH", "/nonexistent").stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let text = complaint(&common::wait(child, SOON));
    assert!(text.contains("apt-get install redis-server") && text.contains("redis://host:port"), "{text}");
}

/// A folder for temporary files, which is removed with what is in it.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("kvrail-churn-{name}-{}", std::process::id()));
        std::fs::create_dir(&path).unwrap();
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The processes of a churn over redis, once all have been started: the server, the producer and
/// two readers.
fn children_of(churn: &Child) -> Vec<u32> {
    let until = Instant::now() + SOON;
    loop {
        let children = common::children(churn.id());
        if children.len() == 4 {
            return children;
        }
        assert!(Instant::now() < until, "{children:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn what_was_read_before_a_signal_is_told_and_no_file_is_left() {
    if !redis() {
        return;
    }
    let args = ["churn", "--directory", "redis", "--duration", "1h", "--json", "-"];
    for wait_for in [3, 9, 27] {
        let folder = Folder::new("stopped");
        let mut command = common::bench(&args);
        command.env("TMPDIR", &folder.0).stdout(Stdio::piped()).stderr(Stdio::piped());
        let churn = command.spawn().unwrap();
        let children = children_of(&churn);
        std::thread::sleep(Duration::from_secs(wait_for));
        common::signal(churn.id(), "INT");
        let output = common::wait(churn, SOON);
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(128 + 2), "{text}");
        assert!(text.contains("PARTIAL"), "{text}");
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!((&report["partial"], &report["pages_wrong"]), (&true.into(), &0.into()), "{report}");
        let left: Vec<_> = std::fs::read_dir(&folder.0).unwrap().collect();
        assert!(left.is_empty(), "{left:?}");
        assert!(!children.iter().any(is_alive), "processes are left: {children:?}");
        if report["hits"].as_u64() > Some(0) && report["seconds"].as_f64() > Some(0.0) {
            return;
        }
    }
    panic!("nothing was read within 27 s");
}

fn is_alive(pid: &u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat.rsplit(')').next().unwrap_or_default().split_whitespace().next().map(str::to_owned);
    !matches!(state.as_deref(), None | Some("Z" | "X"))
}

#[test]
fn the_redis_server_ends_with_a_churn_that_is_killed() {
    if !redis() {
        return;
    }
    let args = ["churn", "--directory", "redis", "--duration", "60s"];
    let folder = Folder::new("killed");
    let mut command = common::bench(&args);
    command.env("TMPDIR", &folder.0).stdout(Stdio::null()).stderr(Stdio::null());
    let mut churn = command.spawn().unwrap();
    let until = Instant::now() + SOON;
    let children = children_of(&churn);
    churn.kill().unwrap();
    churn.wait().unwrap();
    while children.iter().any(is_alive) {
        assert!(Instant::now() < until, "processes are left: {children:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
}
