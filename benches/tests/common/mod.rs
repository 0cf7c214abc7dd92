//! Running the program as its users do.
#![allow(dead_code, reason = "each test takes what it needs")]

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// The key of all tests.
pub(crate) const KEY: &str = "5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a";

/// The program.
pub(crate) fn bench(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kvrail-bench"));
    command.args(args);
    command
}

/// What it wrote, and whether it succeeded. Killed, and the test failed, after `limit`.
pub(crate) fn run(args: &[&str], limit: Duration) -> Output {
    wait(bench(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap(), limit)
}

/// The same of one that runs already.
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

/// A `serve`, killed when dropped, and what it printed for `drive`.
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

    /// A `serve` that is started by `command`.
    pub(crate) fn run(mut command: Command) -> Self {
        let mut process = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        Self { process, line }
    }

    /// The arguments that it printed.
    pub(crate) fn args(&self) -> Vec<&str> {
        let (_, args) = self.line.split_once(" drive ").expect("the line names a command and its arguments");
        ["drive"].into_iter().chain(args.split_whitespace()).collect()
    }

    /// SIGKILL.
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

/// Sends a signal by its name.
pub(crate) fn signal(pid: u32, name: &str) {
    let sent = Command::new("kill").args([&format!("-{name}"), &pid.to_string()]).status().unwrap();
    assert!(sent.success(), "no process {pid}");
}

/// Standard error, of a run that failed with one line that is no panic.
pub(crate) fn complaint(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success(), "it succeeded: {text}");
    assert!(output.status.code().is_some(), "killed by a signal: {:?} {text}", output.status);
    assert!(!text.contains("panicked") && !text.contains("stack backtrace"), "{text}");
    text
}
