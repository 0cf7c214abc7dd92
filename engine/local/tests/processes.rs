//! Two processes over shared memory: one reads the other's pages, and goes on when the other dies.
#![allow(missing_docs, reason = "a test")]
#![allow(unsafe_code, reason = "forks")]

mod common;

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::{Driver, PATIENCE, RAIL, pattern};
use kvrail_core::id::RailIndex;
use kvrail_core::provider::{Commit, Read};
use kvrail_core::verbs_abi::WcStatus;
use kvrail_local::shm::{ExportedMemory, Segment, ShmAddress, ShmConnectError, ShmExporter, ShmPeer};
use kvrail_local::tcp::{TcpConnection, TcpServer};
use kvrail_local::{LocalConfig, LocalLane};

const PAGE: usize = 1 << 20;
const PAGES: usize = 32;

/// Set in the environment of the other process, which is this binary running the one test below
/// that looks at it.
const PRODUCES: &str = "KVRAIL_TEST_PRODUCES";

/// The producer: it ends when its standard input ends.
fn produce() {
    let segment = Arc::new(Segment::new(PAGES * PAGE).unwrap());
    segment.write(0, &pattern(PAGES * PAGE)).unwrap();
    let small = Arc::new(Segment::new(4096).unwrap());
    small.write(0, b"small").unwrap();
    let exporter = ShmExporter::start().unwrap();
    let exports = [segment, small].map(|s| exporter.export(ExportedMemory::segment(s)).unwrap());
    let hex: String = exporter.address().to_bytes().iter().map(|b| format!("{b:02x}")).collect();
    println!("\naddress {hex}");
    std::io::stdout().flush().unwrap();
    let mut orders = Vec::new();
    std::io::stdin().read_to_end(&mut orders).unwrap();
    if orders == FORK {
        println!("\nchild {}", fork());
        loop {
            std::thread::park();
        }
    }
    // The exporter first: an export that is withdrawn before is an access error.
    drop(exporter);
    drop(exports);
}

/// Tells the producer to fork, and to live until it is killed.
const FORK: &[u8] = b"fork";

/// Makes a child of this process that keeps all inherited descriptors and does nothing. The C
/// library does not know of the child.
fn fork() -> libc::c_long {
    let (flags, none) = (libc::c_long::from(libc::SIGCHLD), 0 as libc::c_long);
    // SAFETY: no memory is shared and no stack is given, so this is a fork; the child calls nothing
    // but system calls.
    let pid = unsafe { libc::syscall(libc::SYS_clone, flags, none, none, none, none) };
    if pid != 0 {
        return pid;
    }
    // SAFETY: a system call on integers: it ends the child should the test not.
    unsafe { libc::alarm(120) };
    loop {
        // SAFETY: as above.
        unsafe { libc::pause() };
    }
}

/// A producer, killed when dropped.
struct Producer {
    child: Child,
    stdin: Option<ChildStdin>,
    /// Kept open for the last output of the test harness.
    stdout: BufReader<ChildStdout>,
    address: ShmAddress,
}

impl Producer {
    fn start() -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "bytes_of_another_process_arrive_over_two_rails", "--nocapture"])
            .env(PRODUCES, "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let hex = stdout
            .by_ref()
            .lines()
            .map(Result::unwrap)
            .find_map(|l| l.strip_prefix("address ").map(str::to_owned));
        let hex = hex.expect("the producer tells its address");
        let bytes = std::array::from_fn(|i| u8::from_str_radix(&hex[2 * i..2 * i + 2], 16).unwrap());
        let stdin = child.stdin.take();
        Self { child, stdin, stdout, address: ShmAddress::parse(&bytes).unwrap() }
    }
}

impl Drop for Producer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn reader(address: &ShmAddress) -> (Driver<ShmPeer>, Vec<LocalLane>, ShmPeer) {
    let mut driver = Driver::<ShmPeer>::new(LocalConfig::default(), PAGES * PAGE);
    let peer = ShmPeer::connect(address).unwrap();
    let lanes = (0..2).map(|rail| driver.open(rail.into(), RailIndex(rail), peer.clone())).collect();
    (driver, lanes, peer)
}

#[test]
fn bytes_of_another_process_arrive_over_two_rails() {
    if std::env::var_os(PRODUCES).is_some() {
        return produce();
    }
    let producer = Producer::start();
    let (mut driver, mut lanes, peer) = reader(&producer.address);
    let regions = peer.regions();
    let [large, small] = &regions[..] else { panic!("{regions:?}") };
    for page in 0..PAGES {
        let rail = page % 2;
        let read = driver.read(rail as u16, page as u32, *large, (page * PAGE) as u64, PAGE as u32);
        let read = Read { lkey: driver.keys[rail], ..read };
        assert_eq!(driver.post(&mut lanes[rail], &[read]), Commit::All);
    }
    let done = driver.completions(PAGES);
    assert!(done.iter().all(|d| d.1.is_success()), "{done:?}");
    assert!(driver.bytes(0, PAGES * PAGE) == pattern(PAGES * PAGE));
    let read = driver.read(0, 0, *small, 0, 5);
    assert_eq!(driver.post(&mut lanes[0], &[read]), Commit::All);
    assert_eq!(driver.completions(1), [(0, WcStatus::SUCCESS)]);
    assert_eq!(driver.bytes(0, 5), b"small");
}

/// Posts without pause until the lanes have failed, and accounts for every wr.
fn read_until_dead(end: impl FnOnce(&mut Producer)) {
    let mut producer = Producer::start();
    let (mut driver, mut lanes, peer) = reader(&producer.address);
    let region = peer.regions()[0];
    let mut end = Some(end);
    let start = Instant::now();
    let (mut posted, mut told, mut dead) = (0, 0, [false; 2]);
    while dead != [true; 2] {
        assert!(start.elapsed() < PATIENCE, "{posted} posted, {told} told, {dead:?} dead");
        if posted - told <= 64 {
            for (rail, lane) in lanes.iter_mut().enumerate() {
                let reads: Vec<_> = (0..16_usize)
                    .map(|i| Read {
                        lkey: driver.keys[rail],
                        ..driver.read(
                            rail as u16,
                            (16 * rail + i) as u32,
                            region,
                            (i * PAGE) as u64,
                            PAGE as u32,
                        )
                    })
                    .collect();
                assert_eq!(driver.post(lane, &reads), Commit::All);
                posted += 16;
            }
        }
        if told > 100
            && let Some(end) = end.take()
        {
            // At least 16 READs are in flight now.
            end(&mut producer);
        }
        driver.poll();
        for (seq, status) in driver.done.drain(..) {
            told += 1;
            let dead = &mut dead[seq as usize / 16];
            match status {
                WcStatus::SUCCESS => assert!(!*dead, "a lane that has failed read on"),
                WcStatus::RETRY_EXC_ERR => assert!(!std::mem::replace(dead, true), "failed twice"),
                WcStatus::WR_FLUSH_ERR => assert!(*dead, "flushed before it failed"),
                other => panic!("{other}"),
            }
        }
    }
    driver.until(|d| told + d.done.len() == posted);
    assert!(driver.done.iter().all(|d| d.1 == WcStatus::WR_FLUSH_ERR));
    assert_eq!(driver.events.len(), 2, "{:?}", driver.events);
    wait_for_death_of(&peer);
    assert!(matches!(ShmPeer::connect(&producer.address), Err(ShmConnectError::NotListening)));
}

/// Waits until the connection's thread has found that the producer is dead. Lanes can find it
/// earlier.
fn wait_for_death_of(peer: &ShmPeer) {
    let start = Instant::now();
    while peer.is_alive() {
        assert!(start.elapsed() < PATIENCE, "the producer's death was not found");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn a_killed_producer_fails_every_read_in_flight_and_no_process() {
    read_until_dead(|producer| producer.child.kill().unwrap());
}

#[test]
fn the_end_of_a_producer_that_exits_is_found() {
    read_until_dead(|producer| drop(producer.stdin.take()));
}

#[test]
fn a_stopped_producers_memory_can_still_be_read() {
    // READs are one-sided: the producer's process takes no part in them.
    let producer = Producer::start();
    let (mut driver, mut lanes, peer) = reader(&producer.address);
    let pid = rustix::process::Pid::from_child(&producer.child);
    rustix::process::kill_process(pid, rustix::process::Signal::STOP).unwrap();
    std::thread::sleep(Duration::from_millis(10));
    let read = driver.read(0, 0, peer.regions()[0], 0, PAGE as u32);
    assert_eq!(driver.post(&mut lanes[RAIL.get()], &[read]), Commit::All);
    assert_eq!(driver.completions(1), [(0, WcStatus::SUCCESS)]);
    assert!(driver.bytes(0, PAGE) == pattern(PAGE));
}

#[test]
fn a_producers_death_is_found_although_a_child_of_its_fork_lives() {
    let mut producer = Producer::start();
    let peer = ShmPeer::connect(&producer.address).unwrap();
    producer.stdin.take().unwrap().write_all(FORK).unwrap();
    let lines = producer.stdout.by_ref().lines().map(Result::unwrap);
    let child = lines.filter_map(|l| l.strip_prefix("child ")?.parse().ok()).next().unwrap();
    let child = rustix::process::Pid::from_raw(child).unwrap();
    assert!(peer.is_alive());
    producer.child.kill().unwrap();
    producer.child.wait().unwrap();
    let start = Instant::now();
    while peer.is_alive() && start.elapsed() < PATIENCE {
        std::thread::sleep(Duration::from_millis(1));
    }
    let again = ShmPeer::connect(&producer.address);
    // The child was alive all the time.
    rustix::process::kill_process(child, rustix::process::Signal::KILL).unwrap();
    assert!(!peer.is_alive(), "the producer's death was not found");
    assert!(matches!(again, Err(ShmConnectError::NotListening)), "{again:?}");
}

#[test]
fn a_child_that_drops_its_copies_leaves_the_parents_connections_alone() {
    let segment = Arc::new(Segment::new(PAGE).unwrap());
    segment.write(0, &pattern(PAGE)).unwrap();
    let exporter = ShmExporter::start().unwrap();
    let export = exporter.export(ExportedMemory::segment(Arc::clone(&segment))).unwrap();
    let peer = ShmPeer::connect(exporter.address()).unwrap();
    let server = TcpServer::start("127.0.0.1:0".parse().unwrap()).unwrap();
    let tcp_export = server.export(ExportedMemory::segment(segment)).unwrap();
    let mut driver = Driver::<TcpConnection>::new(LocalConfig { rails: 1, ..LocalConfig::default() }, PAGE);
    let mut lane = driver.open(0, RAIL, TcpConnection::open(server.address()).unwrap());
    // SAFETY: the child drops values, for which it needs no other thread, and ends. The C library
    // lets the child of its fork allocate.
    let child = unsafe { libc::fork() };
    if child == 0 {
        drop((driver, lane, peer, tcp_export, server, export, exporter));
        // SAFETY: a system call on an integer.
        unsafe { libc::_exit(0) };
    }
    let (start, mut status, mut ended) = (Instant::now(), -1, 0);
    while ended == 0 && start.elapsed() < PATIENCE {
        // SAFETY: `status` is there to be written.
        ended = unsafe { libc::waitpid(child, &mut status, libc::WNOHANG) };
        std::thread::sleep(Duration::from_millis(1));
    }
    if ended == 0 {
        // SAFETY: a system call on integers: the child has not been waited for.
        unsafe { libc::kill(child, libc::SIGKILL) };
    }
    assert_eq!((ended, status), (child, 0), "the child hangs");
    let read = driver.read(0, 0, tcp_export.region(), 0, PAGE as u32);
    assert_eq!(driver.post(&mut lane, &[read]), Commit::All);
    assert_eq!(driver.completions(1), [(0, WcStatus::SUCCESS)]);
    assert!(TcpConnection::open(server.address()).is_ok());
    assert!(peer.is_alive());
    drop(peer);
    assert!(ShmPeer::connect(exporter.address()).is_ok());
}
