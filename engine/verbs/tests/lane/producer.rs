//! A producer in a process of its own: this test binary again.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Arc, Mutex, Weak};

use kvrail::core::id::RailIndex;
use kvrail::core::table::KeyTag;
use kvrail::session::{Address, LaneAcceptor, LaneBlob, LaneEndError, RailList};
use kvrail::verbs::{self, VerbsPublish};
use kvrail::{Exporter, PeerKey, Publisher, PublisherTransport, TransportError};
use kvrail_verbs::AcceptedLane;

use super::{LAYOUT, SLOTS, page};

/// Set in the producer's process: `rails seed listen`.
const PRODUCE: &str = "KVRAIL_TEST_PRODUCE";

pub(crate) fn key() -> PeerKey {
    PeerKey::from_bytes([0x5A; 32])
}

/// In the producer's process: serves until its standard input ends, and does not return. In the
/// test's process: does nothing.
pub(crate) fn produce_if_told() {
    let Ok(told) = std::env::var(PRODUCE) else { return };
    let [rails, seed, listen] = told.split(' ').collect::<Vec<_>>().try_into().unwrap();
    let seed: u64 = seed.parse().unwrap();
    let listen: Address = listen.parse().unwrap();
    let lanes = Lanes::default();
    let over = Known(verbs::publish(rails).unwrap(), Arc::clone(&lanes));
    let name = "producer".parse().unwrap();
    let publisher = Publisher::start(name, LAYOUT, SLOTS, &listen, key(), over).unwrap();
    for slot in 0..SLOTS {
        let bytes = page(seed, slot);
        publisher.write(slot, KeyTag(u128::from(slot)), |to| to.copy_from_slice(&bytes)).unwrap();
    }
    println!("\nserving {}", publisher.local_addr());
    std::io::stdout().flush().unwrap();
    for line in std::io::stdin().lines() {
        match line.unwrap().as_str() {
            "fail lanes" => {
                let living: Vec<_> =
                    lanes.lock().unwrap().drain(..).filter_map(|lane| lane.upgrade()).collect();
                living.iter().for_each(|lane| lane.fail().unwrap());
                println!("\nfailed {}", living.len());
            }
            other => panic!("{other}?"),
        }
        std::io::stdout().flush().unwrap();
    }
    drop(publisher);
    std::process::exit(0);
}

type Lanes = Arc<Mutex<Vec<Weak<AcceptedLane>>>>;

/// A verbs transport that remembers its lanes, so that a test can fail them.
struct Known(VerbsPublish, Lanes);

// SAFETY: memory goes to the exporter of verbs, which makes the promise.
unsafe impl PublisherTransport for Known {
    type Acceptor = Remembering<<VerbsPublish as PublisherTransport>::Acceptor>;

    fn start(self) -> Result<(Self::Acceptor, Box<dyn Exporter>), TransportError> {
        let (acceptor, exporter) = self.0.start()?;
        Ok((Remembering(acceptor, self.1), exporter))
    }
}

struct Remembering<R>(R, Lanes);

impl<R: LaneAcceptor<Lane = AcceptedLane>> LaneAcceptor for Remembering<R> {
    type Lane = Arc<AcceptedLane>;

    fn rails(&self) -> RailList {
        self.0.rails()
    }

    fn accept(
        &self,
        rail: RailIndex,
        remote: &LaneBlob,
    ) -> Result<(Arc<AcceptedLane>, LaneBlob), LaneEndError> {
        let (lane, end) = self.0.accept(rail, remote)?;
        let lane = Arc::new(lane);
        self.1.lock().unwrap().push(Arc::downgrade(&lane));
        Ok((lane, end))
    }

    fn release(&self, lane: Arc<AcceptedLane>) {
        if let Some(lane) = Arc::into_inner(lane) {
            self.0.release(lane);
        }
    }
}

/// The producer's process. It is killed when dropped.
pub(crate) struct Producer {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
    pub(crate) address: Address,
    pub(crate) seed: u64,
}

impl Producer {
    /// Starts one over `rails` at `listen`, its pages made from `seed`. The binary has a test
    /// called `produces`, which calls [`produce_if_told`].
    pub(crate) fn start(rails: &str, seed: u64, listen: &str) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "produces", "--nocapture"])
            .env(PRODUCE, format!("{rails} {seed} {listen}"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let stdin = child.stdin.take().unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let address = hear(&mut stdout, "serving ").parse().unwrap();
        Self { child, stdin, stdout, address, seed }
    }

    /// Moves its ends of all lanes to the error state, and returns how many there were.
    pub(crate) fn fail_lanes(&mut self) -> usize {
        writeln!(self.stdin, "fail lanes").unwrap();
        hear(&mut self.stdout, "failed ").parse().unwrap()
    }

    /// Kills the process with SIGKILL, and waits until it has ended.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

fn hear(stdout: &mut BufReader<ChildStdout>, what: &str) -> String {
    let said = stdout.lines().map(Result::unwrap).find_map(|l| l.strip_prefix(what).map(str::to_owned));
    said.unwrap_or_else(|| panic!("the producer ended without saying {what:?}"))
}

impl Drop for Producer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
