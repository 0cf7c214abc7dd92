//! Shards as processes: each is this test program, started again with one test to run.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use kvrail::Address;
use kvrail::session::{NoLanes, PeerKey, PeerKeys, ProducerDescription, Server, ServerConfig};
use kvrail_node::Directory;
use kvrail_node::directory::embedded::{
    DIRECTORY_SERVICE, EmbeddedConfig, EmbeddedDirectory, EmbeddedShard, ShardConfig,
};
use rustix::process::{Pid, Signal, kill_process};

use crate::directory_suite::{Cluster, eventually};

/// The variable that has the address at which a shard's process listens.
const ADDRESS: &str = "KVRAIL_TEST_SHARD";
/// What begins each line that a shard's process has to say: the test harness prints, too.
const SAYS: &str = "shard says ";

pub(crate) fn keys() -> PeerKeys {
    PeerKeys::one(PeerKey::from_bytes([0x5a; 32]))
}

/// The process of a shard, until its standard input ends. Run by another test, it does nothing.
#[test]
#[ignore = "the process of a shard, which other tests start"]
fn shard_process() {
    let Ok(address) = std::env::var(ADDRESS) else { return };
    let shard = Arc::new(EmbeddedShard::new(ShardConfig::default()));
    let service = Arc::clone(&shard);
    let config = ServerConfig::default().service(DIRECTORY_SERVICE, service);
    let producer = ProducerDescription { node: "shard".parse().unwrap(), pools: Vec::new() };
    let server = Server::start(&address.parse().unwrap(), keys(), producer, NoLanes, config).unwrap();
    println!("\n{SAYS}{}", server.local_addr());
    for line in std::io::stdin().lock().lines() {
        match line.unwrap().as_str() {
            "look-ups" => println!("\n{SAYS}{}", shard.look_ups()),
            other => panic!("{other}"),
        }
    }
}

/// A shard's process.
struct Process {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Process {
    fn start(address: &str) -> (Self, String) {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["shards::shard_process", "--exact", "--ignored", "--nocapture"])
            .env(ADDRESS, address)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let (input, output) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        let mut process = Self { child, input, output };
        let address = process.says();
        (process, address)
    }

    fn says(&mut self) -> String {
        let mut line = String::new();
        while self.output.read_line(&mut line).unwrap() > 0 {
            if let Some(says) = line.strip_prefix(SAYS) {
                return says.trim().into();
            }
            line.clear();
        }
        panic!("a shard's process has ended");
    }

    fn signal(&self, signal: Signal) {
        // The child was not waited for, so its number is that of no other process.
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Stops the process, and waits until each of its threads has stopped.
    fn stop(&self) {
        self.signal(Signal::STOP);
        let threads = format!("/proc/{}/task", self.child.id());
        let stopped = || {
            fs::read_dir(&threads).unwrap().all(|thread| {
                // A thread that has ended meanwhile does nothing any more.
                let stat = fs::read_to_string(thread.unwrap().path().join("stat")).unwrap_or_default();
                stat.rsplit_once(") ").is_none_or(|(_, state)| state.starts_with('T'))
            })
        };
        eventually("the process stops", stopped);
    }

    fn look_ups(&mut self) -> u64 {
        self.input.write_all(b"look-ups\n").unwrap();
        self.says().parse().unwrap()
    }

    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // A process that was killed before is not killed again.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The candidates of a directory, each with its process while it lives.
pub(crate) struct Shards {
    addresses: Vec<String>,
    processes: Vec<Option<Process>>,
}

impl Shards {
    pub(crate) fn start(count: usize) -> Self {
        let started = (0..count).map(|_| Process::start("127.0.0.1:0"));
        let (processes, addresses) = started.map(|(process, address)| (Some(process), address)).unzip();
        Self { addresses, processes }
    }

    pub(crate) fn config(&self) -> EmbeddedConfig {
        let candidates: Vec<Address> = self.addresses.iter().map(|text| text.parse().unwrap()).collect();
        EmbeddedConfig::new(candidates, keys(), "tester".parse().unwrap()).lease(Duration::from_secs(3))
    }

    pub(crate) fn directory(&self) -> EmbeddedDirectory {
        EmbeddedDirectory::start(self.config()).unwrap()
    }

    pub(crate) fn kill(&mut self, at: usize) {
        self.processes[at].take().unwrap().kill();
    }

    pub(crate) fn restart_one(&mut self, at: usize) {
        assert!(self.processes[at].is_none(), "it lives");
        self.processes[at] = Some(Process::start(&self.addresses[at]).0);
    }

    pub(crate) fn freeze_one(&self, at: usize) {
        self.processes[at].as_ref().unwrap().stop();
    }

    /// How many look-ups have reached one of them.
    pub(crate) fn look_ups_of(&mut self, at: usize) -> u64 {
        self.processes[at].as_mut().unwrap().look_ups()
    }

    fn living(&mut self) -> impl Iterator<Item = &mut Process> {
        self.processes.iter_mut().flatten()
    }
}

impl Cluster for Shards {
    fn client(&self) -> Box<dyn Directory> {
        Box::new(self.directory())
    }

    fn look_ups(&mut self) -> Option<u64> {
        Some(self.living().map(Process::look_ups).sum())
    }

    fn shards(&self) -> usize {
        // One answers for all keys; the others stand by.
        1
    }

    fn kill_part(&mut self) {
        self.kill(0);
    }

    fn kill_all(&mut self) {
        self.living().for_each(Process::kill);
        self.processes.iter_mut().for_each(|process| *process = None);
    }

    fn restart(&mut self) {
        for at in 0..self.processes.len() {
            if self.processes[at].is_none() {
                self.restart_one(at);
            }
        }
    }

    fn freeze(&mut self) {
        self.living().for_each(|process| process.stop());
    }

    fn thaw(&mut self) {
        self.living().for_each(|process| process.signal(Signal::CONT));
    }
}
