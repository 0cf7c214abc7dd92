//! The processes of one test.

use std::fmt;
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::roles::{DIRECTORY, ROLE, SAYS, TIMES, end_of_class};

/// How long anything here may take.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);

/// One process, which is killed when the test ends, however it ends.
pub(crate) struct Process {
    role: &'static str,
    directory: String,
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Process {
    /// Starts it, and waits until it is ready.
    pub(crate) fn start(role: &'static str, directory: &str) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["roles::process", "--exact", "--ignored", "--nocapture"])
            .env(ROLE, role)
            .env(DIRECTORY, directory)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (input, output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let mut this =
            Self { role, directory: directory.into(), child, input, output: BufReader::new(output) };
        assert_eq!(this.hear(), "ready");
        this
    }

    pub(crate) fn role(&self) -> &'static str {
        self.role
    }

    fn hear(&mut self) -> String {
        loop {
            let mut line = String::new();
            let length = self.output.read_line(&mut line).unwrap();
            assert!(length > 0, "the {} has ended: {:?}", self.role, self.child.wait());
            if let Some(said) = line.strip_prefix(SAYS) {
                return said.trim_end().to_owned();
            }
        }
    }

    /// Sends SIGKILL, and waits for its end.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Starts it again after it was killed.
    pub(crate) fn restart(&mut self) {
        *self = Self::start(self.role, &self.directory);
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// The bytes of memory that it has.
    pub(crate) fn resident(&self) -> u64 {
        let path = format!("/proc/{}/status", self.child.id());
        let status = std::fs::read_to_string(path).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
    }

    /// What the two threads of a reader have done: those of producer 0, then those of producer 1.
    pub(crate) fn counts(&mut self) -> [Counts; 2] {
        writeln!(self.input, "counts").unwrap();
        let said = self.hear();
        let numbers: Vec<u64> = said.split(' ').map(|number| number.parse().unwrap()).collect();
        [0, 4 + TIMES].map(|at| Counts {
            calls: numbers[at],
            hits: numbers[at + 1],
            wrong: numbers[at + 2],
            late: Duration::from_micros(numbers[at + 3]),
            times: numbers[at + 4..at + 4 + TIMES].try_into().unwrap(),
        })
    }

    /// Waits until a thread of a reader has made so many calls and hits more than in `before`.
    pub(crate) fn until(&mut self, thread: usize, before: &Counts, calls: u64, hits: u64) -> [Counts; 2] {
        let limit = Instant::now() + LIMIT;
        loop {
            let now = self.counts();
            if now[thread].calls >= before.calls + calls && now[thread].hits >= before.hits + hits {
                return now;
            }
            assert!(
                Instant::now() < limit,
                "no {calls} calls with {hits} hits within {LIMIT:?}: {before:?}, then {now:?}"
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a reading thread has done since it began.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Counts {
    pub(crate) calls: u64,
    pub(crate) hits: u64,
    pub(crate) wrong: u64,
    /// By how much the latest call missed its deadline.
    pub(crate) late: Duration,
    /// Calls by the class of their time.
    pub(crate) times: [u64; TIMES],
}

/// How long calls took: how many of each class of times.
#[derive(Clone, Copy)]
pub(crate) struct Times([u64; TIMES]);

impl Times {
    pub(crate) const NONE: Self = Self([0; TIMES]);

    pub(crate) fn add(&mut self, more: &Self) {
        self.0.iter_mut().zip(more.0).for_each(|(sum, more)| *sum += more);
    }

    fn calls(&self) -> u64 {
        self.0.iter().sum()
    }

    /// The time that all calls but so many took at most, up to an eighth too long.
    fn all_but(&self, slower: u64) -> Duration {
        let mut more = 0;
        let class = self.0.iter().rposition(|count| {
            more += count;
            more > slower
        });
        class.map_or(Duration::ZERO, end_of_class)
    }
}

impl fmt::Display for Times {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = |slower| self.all_but(slower).as_secs_f64() * 1e3;
        let calls = self.calls();
        let (half, p99, longest) = (ms(calls / 2), ms(calls / 100), ms(0));
        write!(f, "{half:.2}, {p99:.2}, {longest:.1} ms of {calls} calls")
    }
}

impl Counts {
    /// How long the calls since `earlier` took.
    pub(crate) fn since(&self, earlier: &Self) -> Times {
        Times(std::array::from_fn(|class| self.times[class] - earlier.times[class]))
    }
}
