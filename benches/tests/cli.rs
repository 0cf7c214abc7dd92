//! Every mistake gets a message that names it, a status that is not 0, and no panic.

mod common;

use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use common::{KEY, Served, complaint, run};

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
    fails(&drive(&["--transport", "verbs"]), &["verbs", "shm", "tcp"]);
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
    // Bound and dropped: nobody listens.
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    fails(
        &["drive", "--connect", &nobody, "--key", KEY],
        &[&nobody, "refused", "is `kvrail-bench serve` running"],
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
    for word in ["the layouts differ", "vllm_fp8_ds_mla", "131072 bytes", "41984 bytes", "--layout"] {
        assert!(text.contains(word), "{word}: {text}");
    }
    let text = drive(KEY, &["--layout", "vllm_fp8_ds_mla", "--transport", "tcp"]);
    assert!(text.contains("no transport in common") && text.contains("--transport"), "{text}");
}

#[test]
fn a_report_that_cannot_be_written_is_named() {
    let served = Served::start(&["--layout", "vllm_fp8_ds_mla", "--working-set", "1MiB"]);
    let mut args = served.args();
    args.extend(["--duration", "20ms", "--warmup", "0s", "--json", "/nonexistent/report.json"]);
    fails(&args, &["/nonexistent/report.json", "No such file"]);
}

#[test]
fn the_inner_command_says_what_it_is() {
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_kvrail-bench"))
        .arg("child")
        .stdin(std::process::Stdio::null())
        .output()
        .unwrap();
    assert!(output.status.success(), "an end of orders is an end: {output:?}");
}
