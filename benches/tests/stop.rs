//! Signals end `serve` in an orderly way, as an ordinary process and as process 1 of a container.

mod common;

use std::io::Read;
use std::net::TcpListener;
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use common::{KEY, Served, bench, children, complaint, run, signal, wait};

const SOON: Duration = Duration::from_secs(30);
const SMALL: [&str; 4] = ["--layout", "vllm_fp8_ds_mla", "--working-set", "1MiB"];

fn serve(mut command: Command) -> Served {
    command.args(["serve", "--key", KEY]).args(SMALL).stderr(Stdio::piped());
    Served::run(command)
}

/// Waits until it has ended, and returns its status and its stderr.
fn end(served: &mut Served) -> (ExitStatus, String) {
    let until = Instant::now() + SOON;
    let status = loop {
        match served.process.try_wait().unwrap() {
            Some(status) => break status,
            None => assert!(Instant::now() < until, "still running after {SOON:?}"),
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    let mut text = String::new();
    served.process.stderr.take().unwrap().read_to_string(&mut text).unwrap();
    (status, text)
}

fn port_is_free(served: &Served) {
    let address = served.args()[2];
    TcpListener::bind(address).unwrap_or_else(|error| panic!("{address}: {error}"));
}

/// Starts this program as process 1 of a new namespace; `None` if the system does not permit that.
fn as_init() -> Option<Command> {
    let unshare = || {
        let mut unshare = Command::new("unshare");
        unshare.args(["--pid", "--fork", "--mount-proc", "--kill-child"]);
        unshare
    };
    let permitted = unshare().arg("true").stderr(Stdio::null()).status().is_ok_and(|status| status.success());
    if !permitted {
        eprintln!("SKIPPED: this system permits no new PID namespace (unshare --pid --fork --mount-proc)");
        return None;
    }
    let mut command = unshare();
    command.arg(env!("CARGO_BIN_EXE_kvrail-bench"));
    Some(command)
}

#[test]
fn a_signal_ends_an_ordinary_process_cleanly() {
    for name in ["TERM", "INT", "HUP"] {
        let mut served = serve(bench(&[]));
        signal(served.process.id(), name);
        let (status, text) = end(&mut served);
        assert!(status.success(), "{name}: {status} {text}");
        assert!(text.contains(&format!("stopped by SIG{name}")), "{text}");
        port_is_free(&served);
    }
}

#[test]
fn a_signal_ends_process_1_cleanly() {
    for name in ["TERM", "INT"] {
        let Some(command) = as_init() else { return };
        let mut served = serve(command);
        let output = run(&[&served.args()[..], &["--duration", "200ms"]].concat(), SOON);
        assert!(output.status.success(), "{output:?}");
        let init = children(served.process.id())[0];
        signal(init, name);
        // unshare ends with the status of its child.
        let (status, text) = end(&mut served);
        assert!(status.success(), "{name}: {status} {text}");
        assert!(text.contains(&format!("stopped by SIG{name}")), "{text}");
        port_is_free(&served);
    }
}

#[test]
fn a_signal_ends_process_1_that_reads() {
    let served = Served::start(&SMALL);
    let Some(mut command) = as_init() else { return };
    command.args(served.args()).args(["--duration", "1h"]);
    let process = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let until = Instant::now() + SOON;
    let init = loop {
        // It catches signals before it starts its worker.
        match children(process.id())[..] {
            [init] if !children(init).is_empty() => break init,
            _ => assert!(Instant::now() < until, "no reader"),
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    signal(init, "TERM");
    let output = wait(process, SOON);
    assert_eq!(output.status.code(), Some(128 + 15), "{output:?}");
}

#[test]
fn a_reader_is_told_when_the_producer_stops() {
    let mut served = serve(bench(&[]));
    let mut drive = bench(&served.args());
    let drive =
        drive.args(["--duration", "1h"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let until = Instant::now() + SOON;
    while children(drive.id()).is_empty() {
        assert!(Instant::now() < until, "no reader");
        std::thread::sleep(Duration::from_millis(5));
    }
    std::thread::sleep(Duration::from_millis(700));
    signal(served.process.id(), "TERM");
    assert!(end(&mut served).0.success());
    let text = complaint(&wait(drive, SOON));
    assert!(text.contains("is gone") && text.contains("start it again"), "{text}");
}

#[test]
fn a_signal_that_its_parent_ignores_is_ignored() {
    // nohup does this.
    let mut command = Command::new("sh");
    command.args(["-c", "trap '' HUP; exec \"$0\" \"$@\"", env!("CARGO_BIN_EXE_kvrail-bench")]);
    let mut served = serve(command);
    signal(served.process.id(), "HUP");
    let output = run(&[&served.args()[..], &["--duration", "200ms"]].concat(), SOON);
    assert!(output.status.success(), "{output:?}");
    signal(served.process.id(), "TERM");
    let (status, text) = end(&mut served);
    assert!(status.success() && text.contains("stopped by SIGTERM"), "{status} {text}");
}
