//! `serve` and `drive --op get` and `--op exists` as real processes.

mod common;

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::process::{Child, ChildStderr, Stdio};
use std::time::Duration;

use common::{KEY, Served, complaint, run};
use serde_json::Value;

const SOON: Duration = Duration::from_secs(60);
const SMALL: [&str; 4] = ["--layout", "vllm_fp8_ds_mla", "--working-set", "4MiB"];

#[track_caller]
fn drive(served: &Served, more: &[&str]) -> Value {
    let mut args = served.args();
    args.extend(["--duration", "1s", "--warmup", "20ms", "--json", "-"]);
    args.extend(more);
    let output = run(&args, SOON);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    let report: Value = serde_json::from_slice(&output.stdout).expect(&errors);
    assert_eq!(report["results"][0]["pages_wrong"], 0);
    report
}

fn gets_all(served: &Served, more: &[&str]) {
    let report = drive(served, more);
    let row = &report["results"][0];
    // 4 MiB are 99 pages of 41,984 bytes.
    assert_eq!((&row["op"], &row["pages_verified"]), (&"get".into(), &99.into()), "{row}");
    assert_eq!((&row["hit_ratio"], &row["errors"]), (&1.0.into(), &serde_json::json!({})), "{row}");
    let us = |name: &str| row["latency_us"][name].as_f64().unwrap();
    assert!(us("p50") > 0.0 && us("p50") <= us("p99"), "{row}");
    assert!(row["gb_per_s"].as_f64() > Some(0.0) && row["pages_per_s"].as_f64() > Some(0.0), "{row}");
}

#[test]
fn pages_are_got_by_key_with_and_without_a_cache_of_records() {
    let served = Served::start(&SMALL);
    gets_all(&served, &["--op", "get"]);
    gets_all(
        &served,
        &["--op", "get", "--dir-cache", "0", "--processes", "2", "--concurrency", "2", "--batch", "8"],
    );
    gets_all(&served, &["--op", "get", "--readers", "2", "--order", "shuffled", "--rails", "1"]);
    // The same pages by their locations.
    let report = drive(&served, &[]);
    assert_eq!(
        (&report["results"][0]["op"], &report["results"][0]["pages_verified"]),
        (&"checked".into(), &99.into())
    );
}

#[test]
fn pages_that_are_not_there_are_misses_and_no_failure() {
    let served = Served::start(&SMALL);
    let report = drive(&served, &["--op", "get", "--working-set", "8MiB"]);
    let row = &report["results"][0];
    // 199 pages are asked for, and 99 are there.
    let ratio = row["hit_ratio"].as_f64().unwrap();
    assert!((0.2..0.8).contains(&ratio), "{row}");
    assert!(row["errors"]["miss"].as_u64() > Some(0), "{row}");
    assert_eq!(
        (&row["pages_verified"], &row["errors"]["missing_in_verified_pass"]),
        (&99.into(), &100.into())
    );
}

#[test]
fn what_exists_is_asked_without_moving_pages() {
    let served = Served::start(&SMALL);
    let report = drive(&served, &["--op", "exists"]);
    let row = &report["results"][0];
    assert_eq!(
        (&row["op"], &row["hit_ratio"], &row["gb_per_s"]),
        (&"exists".into(), &1.0.into(), &0.0.into()),
        "{row}"
    );
    assert_eq!((&row["pages_verified"], &row["errors"]), (&0.into(), &serde_json::json!({})));
}

#[test]
fn a_table_that_readers_search_themselves_needs_no_announcement() {
    let served = Served::start(&[&SMALL[..], &["--directory", "one-sided"]].concat());
    assert!(served.line.contains(" --directory one-sided"), "{}", served.line);
    gets_all(&served, &["--op", "get"]);
}

#[test]
fn pages_are_got_over_tcp() {
    let served = Served::start(&[&SMALL[..], &["--transport", "tcp"]].concat());
    gets_all(&served, &["--op", "get"]);
}

#[test]
fn the_names_of_other_tools_flags_are_taken() {
    let served = Served::start(&["--layout", "vllm_fp8_ds_mla", "--working-set", "4MiB", "--devices", "2"]);
    let address = served.args()[2].to_owned();
    let args = ["drive", "--discovery-addr", &address, "--key", KEY, "--layout", "vllm_fp8_ds_mla"];
    let flags = [
        "--op",
        "get",
        "--devices",
        "2",
        "--batch-size",
        "16",
        "--concurrencies",
        "3",
        "--max-channels",
        "2",
    ];
    let more = ["--dir-cache-ttl", "2", "--duration", "1s", "--warmup", "0s", "--json", "-"];
    let output = run(&[&args[..], &flags, &more].concat(), SOON);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let meta = &report["meta"];
    assert_eq!(
        (&meta["batch"][0], &meta["concurrency"], &meta["lanes_per_rail"]),
        (&16.into(), &3.into(), &2.into())
    );
}

/// What the endpoint says that a process names in its standard error.
fn scraped(stderr: ChildStderr) -> String {
    let stderr = BufReader::new(stderr);
    let line = stderr.lines().map(Result::unwrap).find(|line| line.starts_with("metrics at")).unwrap();
    let address = line.split("//").nth(1).unwrap().trim_end_matches("/metrics");
    let mut stream = std::net::TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}

#[test]
fn a_reader_serves_its_counters() {
    let served = Served::start(&SMALL);
    let mut command =
        common::bench(&["drive", "--duration", "10s", "--op", "get", "--metrics", "127.0.0.1:0"]);
    command.args(&served.args()[1..]).stderr(Stdio::piped()).stdout(Stdio::null());
    let mut drive = Running(command.spawn().unwrap());
    let text = scraped(drive.0.stderr.take().unwrap());
    for name in ["kvrail_hits_total", "kvrail_look_up_seconds_count", "kvrail_rail_healthy{", "# EOF"] {
        assert!(text.contains(name), "{name} is not in: {text}");
    }
}

/// A process, which is ended with this.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // One that has ended cannot be killed.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_producer_serves_its_counters() {
    let mut command = common::bench(&["serve", "--key", KEY, "--metrics", "127.0.0.1:0"]);
    command.args(SMALL).stderr(Stdio::piped());
    let mut served = Served::run(command);
    let text = scraped(served.process.stderr.take().unwrap());
    let puts = text
        .lines()
        .find(|line| line.starts_with("kvrail_") && line.contains("put") && line.ends_with(" 99"));
    assert!(puts.is_some(), "{text}");
}

#[test]
fn mistakes_are_named() {
    let drive = |more: &[&'static str]| {
        let args =
            ["drive", "--key", KEY, "--layout", "vllm_fp8_ds_mla", "--duration", "50ms", "--op", "get"];
        complaint(&run(&[&args[..], more].concat(), SOON))
    };
    let names = |text: String, words: &[&str]| {
        words.iter().for_each(|word| assert!(text.contains(word), "`{word}` is not in: {text}"));
    };
    names(drive(&[]), &["--connect", "serve prints"]);
    names(drive(&["--connect", "127.0.0.1:1", "--gpu", "0"]), &["--gpu", "--op checked"]);
    names(
        drive(&["--connect", "127.0.0.1:1", "--directory", "redis"]),
        &["--directory", "churn", "redis://host:port"],
    );
    names(drive(&["--connect", "127.0.0.1:1", "--dir-cache=-1"]), &["--dir-cache"]);
    let metrics = ["--connect", "127.0.0.1:1", "--metrics", "127.0.0.1:0"];
    let with = |more: &[&'static str]| drive(&[&metrics[..], more].concat());
    let read = ["drive", "--key", KEY, "--duration", "50ms", "--op", "read"];
    names(complaint(&run(&[&read[..], &metrics].concat(), SOON)), &["--metrics 127.0.0.1:0", "--op get"]);
    names(with(&["--processes", "2"]), &["--metrics 127.0.0.1:0", "2 nodes", "--processes 1"]);
    names(with(&["--concurrency", "1,2,3"]), &["--metrics 127.0.0.1:0", "3 nodes"]);
    names(drive(&["--connect", "127.0.0.1:1", "--concurrencies", "1,x"]), &["--concurrency", "x"]);
    // A directory that knows no such page.
    let served = Served::start(&SMALL);
    let address = served.args()[2].to_owned();
    let args = ["drive", "--connect", &address, "--key", KEY, "--layout", "opaque-128k", "--op", "get"];
    names(complaint(&run(&args, SOON)), &["knows no page", "--layout"]);
}
