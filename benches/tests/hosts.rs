//! Readers on several hosts: one barrier, and one window for all of them. Over loopback a host is a
//! group of processes.

mod common;

use std::net::TcpListener;
use std::process::{Child, Output, Stdio};
use std::time::{Duration, Instant};

use common::{KEY, Served, bench, children, complaint, run, signal, wait};
use serde_json::Value;

const SOON: Duration = Duration::from_secs(120);
const PAGES: [&str; 4] = ["--layout", "opaque-4k", "--working-set", "1MiB"];

/// An address at which hosts meet. No program listens there.
fn meeting() -> String {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

/// A group of processes that reads from `served`, together with `hosts` - 1 others.
fn host(served: &Served, at: &str, hosts: &str, more: &[&str]) -> Child {
    let mut args = served.args();
    args.extend(["--meet", at, "--hosts", hosts, "--rails", "1", "--warmup", "0s", "--json", "-"]);
    args.extend(more);
    bench(&args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

fn ended(children: impl IntoIterator<Item = Child>) -> Vec<Output> {
    children.into_iter().map(|child| wait(child, SOON)).collect()
}

fn report(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| {
        panic!("{}: {}", output.status, String::from_utf8_lossy(&output.stderr));
    })
}

/// The reports, that of the host which led first.
fn reports(outputs: &[Output]) -> Vec<Value> {
    let mut all: Vec<_> = outputs.iter().map(report).collect();
    all.sort_by_key(|report| report["notes"].to_string().contains("led by"));
    all
}

#[test]
fn hosts_that_measure_together_are_counted_together() {
    let served = Served::start(&PAGES);
    let at = meeting();
    let more = ["--duration", "1s", "--processes", "2", "--concurrency", "1,2"];
    let started: Vec<_> = (0..3).map(|_| host(&served, &at, "3", &more)).collect();
    let outputs = ended(started);
    let all = reports(&outputs);
    for (number, report) in all.iter().enumerate() {
        assert_eq!(report["partial"], false);
        let rows = report["results"].as_array().unwrap();
        assert_eq!(rows.len(), 2);
        for row in rows {
            // The one that led counts all processes, and each other one its own.
            assert_eq!(row["processes"], if number == 0 { 6 } else { 2 }, "{row}");
            assert!(row["pages_verified"].as_u64() > Some(0) && row["pages_wrong"] == 0, "{row}");
        }
    }
    let notes = all[0]["notes"].as_array().unwrap();
    let told = notes.iter().filter(|note| note.to_string().contains("2 more processes; its clock was known"));
    assert_eq!(told.count(), 2, "{notes:?}");
    for row in 0..2 {
        let rate = |report: &Value| report["results"][row]["pages_per_s"].as_f64().unwrap();
        // All windows are the same, so what the followers count is a part of what the leader does.
        assert!(rate(&all[1]) + rate(&all[2]) < rate(&all[0]), "{row}");
    }
}

#[test]
fn a_worker_that_is_two_seconds_late_on_another_host_is_no_measurement() {
    let served = Served::start(&PAGES);
    let at = meeting();
    let more = ["--duration", "500ms"];
    let on_time = host(&served, &at, "2", &more);
    let late = host(&served, &at, "2", &[&more[..], &["--late", "2s"]].concat());
    for output in ended([on_time, late]) {
        let text = complaint(&output);
        assert!(text.contains("the workers of all hosts were not at work at the same time"), "{text}");
        assert!(text.contains("--duration"), "{text}");
    }
}

#[test]
fn what_a_late_worker_missed_is_not_counted() {
    let served = Served::start(&PAGES);
    let at = meeting();
    let more = ["--duration", "1s", "--verify", "off"];
    let on_time = host(&served, &at, "2", &more);
    // It misses more than half of the round, and the others read all the time.
    let late = host(&served, &at, "2", &[&more[..], &["--late", "600ms"]].concat());
    let outputs = ended([on_time, late]);
    if outputs.iter().all(|output| !output.status.success()) {
        // On a busy machine it may come too late for all rounds, which then are no measurement.
        assert!(complaint(&outputs[0]).contains("not at work at the same time"));
        return;
    }
    for output in outputs {
        let rows = &report(&output)["results"];
        // A batch has 32 pages, and none is counted from before the window.
        let took = rows[0]["counted_s"].as_f64().unwrap();
        assert!(took > 0.0 && took <= 0.5, "{took} s were counted");
    }
}

#[test]
fn hosts_that_measure_different_things_are_told_what_differs() {
    let served = Served::start(&PAGES);
    let at = meeting();
    let of = |batch: &str| host(&served, &at, "2", &["--duration", "100ms", "--batch", batch]);
    for output in ended([of("4"), of("8")]) {
        let text = complaint(&output);
        assert!(text.contains("batch is [") && text.contains("same arguments"), "{text}");
    }
}

#[test]
fn a_host_that_goes_away_ends_the_run_and_what_was_measured_is_kept() {
    let served = Served::start(&PAGES);
    let at = meeting();
    let more = ["--duration", "1h", "--verify", "off"];
    let first = host(&served, &at, "2", &more);
    let second = host(&served, &at, "2", &more);
    let until = Instant::now() + SOON;
    while !met(&at) {
        assert!(Instant::now() < until, "the hosts do not meet");
        std::thread::sleep(Duration::from_millis(20));
    }
    // They may have measured something by then.
    std::thread::sleep(Duration::from_secs(3));
    assert!(!children(second.id()).is_empty());
    signal(second.id(), "INT");
    let outputs = ended([first, second]);
    // The one that led says to the other that the run ends; the one that followed fails it.
    let partial = |output: &Output| {
        let report = serde_json::from_slice::<Value>(&output.stdout).ok();
        report.is_none_or(|report| report["partial"] == true)
    };
    assert!(outputs.iter().all(partial));
    assert!(!outputs[1].status.success());
    let text = String::from_utf8_lossy(&outputs[0].stderr);
    assert!(outputs[0].status.success() || text.contains("stopped by a signal"), "{text}");
}

/// Whether two hosts have met at that address: a connection to it stands.
fn met(at: &str) -> bool {
    let port: u16 = at.rsplit_once(':').unwrap().1.parse().unwrap();
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let stands = |line: &str| {
        let mut words = line.split_whitespace().skip(1);
        words.next().is_some_and(|own| own.ends_with(&format!(":{port:04X}"))) && words.nth(1) == Some("01")
    };
    table.lines().any(stands)
}

#[test]
fn what_cannot_be_measured_together_is_refused() {
    let at = meeting();
    let fails = |args: &[&str], words: &[&str]| {
        let text = complaint(&run(args, SOON));
        words.iter().for_each(|word| assert!(text.contains(word), "{word}: {text}"));
    };
    let there = ["drive", "--connect", "127.0.0.1:1", "--key", KEY];
    fails(&[&there[..], &["--hosts", "2"]].concat(), &["--meet"]);
    fails(&[&there[..], &["--meet", &at]].concat(), &["--hosts"]);
    fails(&[&there[..], &["--meet", &at, "--hosts", "1"]].concat(), &["--hosts", "2..=64"]);
    fails(&["drive", "--local", "--meet", &at, "--hosts", "2"], &["--meet", "--connect", "serve"]);
    fails(&["ladder", "--meet", &at, "--hosts", "2"], &["--meet", "--connect", "serve"]);
}

#[test]
fn a_ladder_of_two_hosts_has_the_processes_of_both() {
    let served = Served::start(&[&PAGES[..], &["--rails", "2"]].concat());
    let (at, address) = (meeting(), served.args()[2].to_owned());
    let ladder = || {
        let args = ["ladder", "--connect", &address, "--key", KEY, "--layout", "opaque-4k", "--rails", "2"];
        let more = ["--meet", &at, "--hosts", "2", "--duration", "200ms", "--verify", "off", "--json", "-"];
        bench(&[&args[..], &more].concat()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    };
    let all = reports(&ended([ladder(), ladder()]));
    for (number, report) in all.iter().enumerate() {
        let rows = report["results"].as_array().unwrap();
        assert_eq!(rows.len(), 9);
        for row in rows {
            let own = if row["scenario"] == "rail groups" { 2 } else { 1 };
            assert_eq!(row["processes"], if number == 0 { 2 * own } else { own }, "{row}");
        }
    }
}
