//! Owners that are other processes: killed, stopped, started again.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use kvrail_node::{NodeConfig, Owner, Record};
use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};

use crate::directory::TestDirectory;
use crate::group::*;

/// Says to the test's own program that it is the other process.
const CHILD: &str = "KVRAIL_TEST_OWNER";
const SLOTS: u32 = 32;

/// Not a test of its own: the owner that the other tests start.
#[test]
fn the_owner_of_the_other_tests() {
    let Ok(first) = std::env::var(CHILD) else { return };
    let first: u64 = first.parse().unwrap();
    let config = NodeConfig::new("child".parse().unwrap(), peer_key()).pool(PAGE, SLOTS);
    let node = if first < 1_000 { start(config) } else { start_tcp(config) };
    let epoch = node.epoch().unwrap().0;
    let mut out = std::io::stdout();
    writeln!(out, "OWNER {} {epoch}", node.publisher().unwrap().local_addr()).unwrap();
    for number in first % 1_000..first % 1_000 + u64::from(SLOTS) {
        let put = node.put(&PAGE, key(number), &page_of(key(number), BYTES)).unwrap();
        let kvrail_node::Put::Stored(record) = put else { panic!("{put:?}") };
        let bytes: String = record.to_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
        writeln!(out, "RECORD {bytes}").unwrap();
    }
    writeln!(out, "READY").unwrap();
    // Until the parent ends it, or ends.
    let _ = std::io::stdin().read_line(&mut String::new());
}

/// An owner in another process, with pages of 32 keys.
struct OtherOwner {
    child: Child,
    owner: Owner,
    records: Vec<Record>,
}

impl OtherOwner {
    /// Starts it, and tells the directory.
    fn start(directory: &TestDirectory, first: u64, over_tcp: bool) -> Self {
        let name = "deaths::the_owner_of_the_other_tests";
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", name, "--nocapture", "--test-threads", "1"])
            .env(CHILD, (first + 1_000 * u64::from(over_tcp)).to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (mut owner, mut records) = (None, Vec::new());
        for line in BufReader::new(child.stdout.take().unwrap()).lines() {
            let line = line.unwrap();
            // The harness writes the name of the test before the first of them.
            let words: Vec<_> = line.split_whitespace().collect();
            if let Some(at) = words.iter().position(|&word| word == "OWNER") {
                owner = Some(Owner {
                    epoch: kvrail::session::Epoch(words[at + 2].parse().unwrap()),
                    node: "child".parse().unwrap(),
                    address: words[at + 1].parse::<std::net::SocketAddr>().unwrap().into(),
                    zone: "z".parse().unwrap(),
                });
            } else if let ["RECORD", hex] = words[..] {
                let bytes: Vec<u8> = (0..hex.len() / 2)
                    .map(|at| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).unwrap())
                    .collect();
                records.push(Record::parse(&bytes).unwrap());
            } else if line == "READY" {
                break;
            }
        }
        let this = Self { child, owner: owner.unwrap(), records };
        this.tell(directory);
        this
    }

    fn tell(&self, directory: &TestDirectory) {
        directory.owner(self.owner.clone());
        for record in &self.records {
            let mut of_key = directory.of(record.tag);
            of_key.push(*record);
            directory.set(record.tag, &of_key);
        }
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Stops it, and returns when all of its threads stand still. The signal alone stops none of
    /// them before one has had the processor to take it in: until then the others go on answering.
    fn stop(&self) {
        self.signal(Signal::STOP);
        let stopped = waitpid(Some(Pid::from_child(&self.child)), WaitOptions::UNTRACED).unwrap();
        assert!(stopped.is_some_and(|(_, status)| status.stopped()), "{stopped:?}");
    }
}

impl Drop for OtherOwner {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_killed_owner_is_a_miss_and_its_pages_come_from_another() {
    let directory = Arc::new(TestDirectory::default());
    let reader = reader(&directory);
    let places = places(&reader, 64);
    let first = OtherOwner::start(&directory, 0, false);
    assert!(get(&reader, &places, 0..32, 10_000).iter().all(Result::is_ok));
    first.signal(Signal::KILL);
    let began = Instant::now();
    let results = get(&reader, &places, 0..32, 2_000);
    // Shared memory that is mapped outlives its owner: pages that were read before the loss was
    // noticed are right.
    assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
    let _ = results;
    let until = within(10_000);
    while get(&reader, &places, 0..4, 1_000).iter().any(Result::is_ok) {
        assert!(Instant::now() < until, "the loss is noticed");
    }
    let second = OtherOwner::start(&directory, 0, false);
    let results = get(&reader, &places, 0..32, 10_000);
    assert!(results.iter().all(Result::is_ok), "{:?}", labels(&results));
    drop((first, second));
}

#[test]
fn a_stopped_owner_costs_no_more_than_the_deadline_and_others_are_served() {
    let directory = Arc::new(TestDirectory::default());
    // Over TCP a rail's thread waits for the answer of one owner at a time. With two readers, each
    // with rails of its own, the other owners' pages go over the rails of the one that is free.
    let reader = start_tcp(config("reader", &directory).readers(2));
    let places = places(&reader, 128);
    let (stopped, other) = (OtherOwner::start(&directory, 0, true), OtherOwner::start(&directory, 100, true));
    assert!(get(&reader, &places, 0..8, 10_000).iter().all(Result::is_ok));
    assert!(get(&reader, &places, 100..108, 10_000).iter().all(Result::is_ok));
    stopped.stop();
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| {
            let began = Instant::now();
            let results = get(&reader, &places, 8..32, 1_000);
            assert!(results.iter().all(Result::is_err), "{:?}", labels(&results));
            assert!(began.elapsed() < Duration::from_secs(6), "{:?}", began.elapsed());
        });
        let mut served = 0;
        while !waiting.is_finished() {
            assert!(get(&reader, &places, 100..132, 10_000).iter().all(Result::is_ok));
            served += 1;
        }
        assert!(served > 1, "others are served meanwhile");
        waiting.join().unwrap();
    });
    // A key that both have comes from the one that answers, within one deadline.
    let shared = OtherOwner::start(&directory, 0, true);
    let results = get(&reader, &places, 0..32, 8_000);
    assert!(results.iter().all(Result::is_ok), "{results:?}");
    stopped.signal(Signal::CONT);
    // Destinations that were late are free again once the stopped owner's READs have ended.
    let until = within(30_000);
    while places.free() < 128 {
        assert!(Instant::now() < until, "{} of 128 are free", places.free());
        std::thread::sleep(Duration::from_millis(20));
    }
    drop((stopped, other, shared));
}

#[test]
fn an_owner_that_is_killed_and_started_again_and_again_is_found_each_time() {
    let directory = Arc::new(TestDirectory::default());
    let reader = reader(&directory);
    let places = places(&reader, 64);
    for round in 0..4 {
        let owner = OtherOwner::start(&directory, 0, round % 2 == 1);
        // Over the transport that the reader does not have nothing comes, and nothing hangs.
        let results = get(&reader, &places, 0..32, 10_000);
        let right = results.iter().filter(|result| result.is_ok()).count();
        assert_eq!(
            right,
            if round % 2 == 1 { right.min(32) } else { 32 },
            "round {round}: {:?}",
            labels(&results)
        );
        owner.signal(Signal::KILL);
    }
    assert_eq!(places.free(), 64);
}
