//! Every mistake on the command line gives an error that names it, an exit status other than 0, and
//! no panic.

mod common;

use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;
use std::time::{Duration, Instant};

use common::{KEY, Served, bench, complaint, run, wait};

const SOON: Duration = Duration::from_secs(30);

#[track_caller]
fn fails(args: &[&str], words: &[&str]) {
    let text = complaint(&run(args, SOON));
    for word in words {
        assert!(text.contains(word), "`{word}` is not in: {text}");
    }
}

#[test]
fn bad_flags_are_named() {
    let drive = |more: &[&'static str]| {
        let mut args = vec!["drive", "--connect", "127.0.0.1:1", "--key", KEY];
        args.extend(more);
        args
    };
    fails(&["--rails", "1"], &["--rails", "2..=16"]);
    fails(&["--layout", "mla"], &["mla", "sgl_mla_page_first_direct", "vllm_fp8_ds_mla", "opaque-128k"]);
    fails(&["--duration", "1ms"], &["--duration", "10ms"]);
    fails(&["--working-set", "much"], &["--working-set", "much"]);
    fails(&["demo", "--frobnicate"], &["--frobnicate"]);
    fails(&["drive"], &["--connect"]);
    fails(&["drive", "--connect", "nowhere", "--key", KEY], &["nowhere", "port is missing"]);
    fails(&["drive", "--connect", "127.0.0.1:1"], &["--key", "serve prints"]);
    fails(&drive(&["--batch", "257"]), &["--batch", "1..=256"]);
    fails(&drive(&["--chunk-bytes", "100000"]), &["100000", "power of two"]);
    fails(&drive(&["--concurrency", "0"]), &["--concurrency", "1..=32"]);
    fails(&drive(&["--processes", "65"]), &["--processes", "1..=64"]);
    fails(&drive(&["--rails", "17"]), &["--rails", "1..=16"]);
    fails(&drive(&["--rails", "shm0"]), &["shm0", "how many"]);
    fails(&drive(&["--transport", "verbs", "--rails", "2"]), &["--rails 2", "NIC ports", "auto"]);
    fails(&drive(&["--transport", "rdma"]), &["rdma", "shm", "tcp", "verbs"]);
    if cfg!(feature = "verbs") {
        // With libibverbs or without, with devices or without: what is missing is named.
        let text = complaint(&run(&drive(&["--transport", "verbs", "--rails", "no_such_nic"]), SOON));
        assert!(text.contains("libibverbs") || text.contains("RDMA"), "{text}");
        fails(&drive(&["--transport", "verbs", "--retry", "8"]), &["retry is 8", "0 to 6"]);
        fails(&drive(&["--transport", "verbs", "--mtu", "1500"]), &["--mtu 1500"]);
    } else {
        fails(&drive(&["--transport", "verbs"]), &["--features verbs", "cmake"]);
    }
}

#[test]
fn bad_keys_are_named_and_not_repeated() {
    let bad = "zz5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a";
    fails(&["serve", "--key", "5a5a"], &["--key", "64 hexadecimal digits"]);
    fails(&["serve", "--key", bad], &["--key", "character 0 is none"]);
    fails(&["serve", "--key-file", "/nonexistent/key"], &["/nonexistent/key", "No such file"]);
    let path = std::env::temp_dir().join(format!("kvrail-bench-key-{}", std::process::id()));
    std::fs::write(&path, KEY).unwrap();
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o644)).unwrap();
    fails(&["serve", "--key-file", path.to_str().unwrap()], &["mode 644", "chmod"]);
    std::fs::remove_file(&path).unwrap();
}

#[test]
fn an_address_that_cannot_be_listened_on_is_named() {
    let small = ["--working-set", "1MiB", "--layout", "vllm_fp8_ds_mla"];
    let serve = |more: &[&'static str]| [&["serve"], &small[..], more].concat();
    fails(&serve(&["--listen", "192.0.2.1:0"]), &["192.0.2.1:0", "no interface"]);
    fails(&serve(&["--transport", "tcp", "--listen", "0.0.0.0:0"]), &["0.0.0.0:0", "--listen", "interface"]);
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    fails(&[&serve(&[])[..], &["--listen", &address]].concat(), &[&address, "another process has that port"]);
}

#[test]
fn a_producer_that_is_not_there_is_named() {
    // Bound and dropped, so no program listens there.
    let unused = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    fails(
        &["drive", "--connect", &unused, "--key", KEY],
        &[&unused, "refused", "is `kvrail-bench serve` running"],
    );
}

#[test]
fn peers_that_do_not_agree_say_why() {
    let served = Served::start(&["--layout", "vllm_fp8_ds_mla", "--working-set", "1MiB"]);
    let address = served.args()[2].to_owned();
    let drive = |key: &str, more: &[&str]| {
        let mut args = vec!["drive", "--connect", &address, "--key", key];
        args.extend(more);
        complaint(&run(&args, SOON))
    };
    let other = KEY.replace('a', "b");
    let text = drive(&other, &["--layout", "vllm_fp8_ds_mla"]);
    assert!(text.contains("the peer keys differ") && text.contains("--key"), "{text}");
    let text = drive(KEY, &["--layout", "opaque-128k"]);
    for word in ["has no pool of", "vllm_fp8_ds_mla", "131072 bytes", "41984 bytes", "--layout"] {
        assert!(text.contains(word), "{word}: {text}");
    }
    let text = drive(KEY, &["--layout", "vllm_fp8_ds_mla", "--transport", "tcp"]);
    assert!(text.contains("no transport in common") && text.contains("--transport"), "{text}");
}

#[test]
fn a_report_that_cannot_be_written_is_named_before_the_work_is_done() {
    let json = ["--json", "/nonexistent/report.json"];
    let words = ["/nonexistent/report.json", "No such file", "--json"];
    let start = Instant::now();
    // There is no producer either, which would be the next error.
    fails(&[&["drive", "--connect", "127.0.0.1:1", "--key", KEY], &json[..]].concat(), &words);
    fails(&[&["--duration", "1h"], &json[..]].concat(), &words);
    fails(&["--duration", "1h", "--json", "/"], &["to /;", "directory"]);
    assert!(start.elapsed() < SOON);
}

#[test]
fn a_report_replaces_the_one_before_it_and_nothing_else_does() {
    let path = std::env::temp_dir().join(format!("kvrail-bench-report-{}", std::process::id()));
    let served = Served::start(&["--layout", "vllm_fp8_ds_mla", "--working-set", "1MiB"]);
    let mut args = served.args();
    args.extend(["--duration", "200ms", "--warmup", "0s", "--json", path.to_str().unwrap()]);
    let old = "x".repeat(1 << 20);
    std::fs::write(&path, &old).unwrap();
    fails(
        &["drive", "--connect", "127.0.0.1:1", "--key", KEY, "--json", path.to_str().unwrap()],
        &["refused"],
    );
    assert!(std::fs::read_to_string(&path).unwrap() == old, "a run that fails leaves the old one");
    assert!(run(&args, SOON).status.success());
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(text.starts_with("{") && text.ends_with("}\n") && !text.contains("xx"), "{text}");
    std::fs::remove_file(&path).unwrap();
}

#[test]
fn a_closed_pipe_behind_the_table_causes_no_panic() {
    let served = Served::start(&["--layout", "vllm_fp8_ds_mla", "--working-set", "1MiB"]);
    let mut args = served.args();
    args.extend(["--duration", "200ms", "--warmup", "0s"]);
    let mut child = bench(&args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let output = wait(child, SOON);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && errors.is_empty(), "{errors}");
}

#[test]
fn more_memory_than_there_is_is_refused_and_not_taken() {
    let meminfo = std::fs::read_to_string("/proc/meminfo").unwrap();
    let available = meminfo.lines().find(|l| l.starts_with("MemAvailable")).unwrap();
    let kib: u64 = available.split_whitespace().nth(1).unwrap().parse().unwrap();
    // Twice the available memory does not exist. The command line permits a terabyte at most.
    let ask = format!("{}KiB", (2 * kib).min(1 << 30));
    if 2 * kib <= 1 << 30 {
        fails(&["serve", "--working-set", &ask], &["available", "--working-set"]);
        fails(&["demo", "--working-set", &ask], &["6 copies", "available", "--working-set"]);
    }
    fails(&["serve", "--working-set", "2TiB"], &["1TiB"]);
}

#[test]
fn a_child_without_orders_ends() {
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_kvrail-bench"))
        .arg("child")
        .stdin(std::process::Stdio::null())
        .output()
        .unwrap();
    assert!(output.status.success(), "without orders a child ends: {output:?}");
}
