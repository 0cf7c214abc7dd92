//! Runs the program as its users do.
#![allow(dead_code, reason = "each test uses a part of it")]

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// The key of all tests.
pub(crate) const KEY: &str = "5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a";

/// The program with these arguments.
pub(crate) fn bench(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kvrail-bench"));
    command.args(args);
    command
}

/// Runs the program, and returns its output and status. After `limit` it is killed, and the test
/// fails.
pub(crate) fn run(args: &[&str], limit: Duration) -> Output {
    wait(bench(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap(), limit)
}

/// The same for a program that runs already.
pub(crate) fn wait(mut child: Child, limit: Duration) -> Output {
    let until = Instant::now() + limit;
    while child.try_wait().unwrap().is_none() {
        if Instant::now() > until {
            child.kill().unwrap();
            let output = child.wait_with_output().unwrap();
            panic!("still running after {limit:?}: {}", String::from_utf8_lossy(&output.stderr));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    child.wait_with_output().unwrap()
}

/// A running `serve`, and the line that it printed for `drive`. It is killed when this is dropped.
pub(crate) struct Served {
    pub(crate) process: Child,
    pub(crate) line: String,
}

impl Served {
    pub(crate) fn start(args: &[&str]) -> Self {
        let mut command = bench(&["serve", "--key", KEY]);
        command.args(args).stderr(Stdio::null());
        let served = Self::run(command);
        assert!(served.line.contains(" drive --connect 127.0.0.1:"), "{}", served.line);
        served
    }

    /// Starts a `serve` by `command`.
    pub(crate) fn run(mut command: Command) -> Self {
        let mut process = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        Self { process, line }
    }

    /// The arguments of the printed line, from `drive` on.
    pub(crate) fn args(&self) -> Vec<&str> {
        let (_, args) = self.line.split_once(" drive ").expect("the line names a command and its arguments");
        ["drive"].into_iter().chain(args.split_whitespace()).collect()
    }

    /// Kills it with SIGKILL.
    pub(crate) fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The processes that `parent` started and that have not ended.
pub(crate) fn children(parent: u32) -> Vec<u32> {
    let stat = |pid: u32| std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let all = std::fs::read_dir("/proc").unwrap().flatten();
    let pids = all.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|&pid| {
        let stat = stat(pid);
        let mut fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
        fields.next().is_some_and(|state| state != "Z") && fields.next() == Some(&parent.to_string())
    })
    .collect()
}

/// Sends the signal with this name.
pub(crate) fn signal(pid: u32, name: &str) {
    let sent = Command::new("kill").args([&format!("-{name}"), &pid.to_string()]).status().unwrap();
    assert!(sent.success(), "no process {pid}");
}

/// The stderr of a run that failed without a panic.
pub(crate) fn complaint(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success(), "it succeeded: {text}");
    assert!(output.status.code().is_some(), "killed by a signal: {:?} {text}", output.status);
    assert!(!text.contains("panicked") && !text.contains("stack backtrace"), "{text}");
    text
}
