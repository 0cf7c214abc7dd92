//! Memory of another process that readers read by its address: what counts is the process, its
//! program, and that the memory is still exported.
#![allow(missing_docs, reason = "a test")]
#![allow(unsafe_code, reason = "maps memory at an address of its choice; system calls on processes")]

mod common;

use std::io::{BufRead as _, BufReader, IoSlice, IoSliceMut, Read as _, Write as _};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use common::{Driver, PATIENCE, RAIL, pattern};
use kvrail_core::provider::{Commit, MemoryRange, Provider as _};
use kvrail_core::verbs_abi::WcStatus;
use kvrail_local::shm::{
    Backing, ExportedMemory, Segment, ShmAddress, ShmConnectError, ShmExporter, ShmPeer,
};
use kvrail_local::{ExportedRegion, LocalConfig};
use rustix::net::{self, AddressFamily, RecvFlags, SendFlags, SocketType};
use rustix::process::{Pid, Signal, kill_process};
use rustix::thread::{CapabilitySet, capabilities, set_capabilities};

/// Set in the environment of the other process, which is this binary running the first test: how it
/// behaves.
const PRODUCES: &str = "KVRAIL_TEST_PRODUCES";

const LEN: usize = 1 << 20;
/// Where the producer has its memory, before and after exec.
const AT: usize = 0x2000_0000_0000;

const CONFIG: fn() -> LocalConfig = || LocalConfig { rails: 1, ..LocalConfig::default() };

/// The bytes of a producer's page in round `round`.
fn bytes(round: u8) -> Vec<u8> {
    pattern(LEN).into_iter().map(|byte| byte ^ round).collect()
}

/// Maps LEN bytes at AT that hold `bytes`.
fn map(bytes: &[u8]) -> MemoryRange {
    let (protection, flags) = (
        libc::PROT_READ | libc::PROT_WRITE,
        libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED_NOREPLACE,
    );
    let at = std::ptr::with_exposed_provenance_mut(AT);
    // SAFETY: the call fails if anything is mapped there.
    let mapped = unsafe { libc::mmap(at, LEN, protection, flags, -1, 0) };
    assert_eq!(mapped.addr(), AT, "the address is taken: {}", std::io::Error::last_os_error());
    // SAFETY: LEN bytes that were mapped just now, for this program alone.
    unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), mapped.cast::<u8>(), bytes.len()) };
    MemoryRange { addr: AT as u64, len: LEN as u64 }
}

fn say(line: &str) {
    println!("\n{line}");
    std::io::stdout().flush().unwrap();
}

fn order() -> String {
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).unwrap();
    line.trim().to_owned()
}

/// Runs this binary again in the same process, with other bytes at the same address.
fn exec() -> ! {
    let error = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "the_bytes_of_another_process_arrive", "--nocapture"])
        .env(PRODUCES, "another program")
        .exec();
    panic!("{error}");
}

/// The producer: it ends when its standard input ends.
fn produce(how: &str) {
    if how == "another program" {
        map(&bytes(1));
        say("executed");
        order();
        return;
    }
    if how == "not to be traced" {
        // SAFETY: a system call on integers.
        assert_eq!(unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 0, 0, 0, 0) }, 0);
    }
    let exporter = ShmExporter::start().unwrap();
    let hex: String = exporter.address().to_bytes().iter().map(|b| format!("{b:02x}")).collect();
    say(&format!("address {hex}"));
    let mut range = Some(map(&bytes(0)));
    let mut exports = Vec::new();
    loop {
        match order().as_str() {
            "export" => {
                // SAFETY: mapped for ever.
                let memory = unsafe { ExportedMemory::foreign(range.take().unwrap(), Backing::Host) };
                let export = exporter.export(memory).unwrap();
                let ExportedRegion { base, len, rkey } = export.region();
                say(&format!("region {base} {len} {rkey}"));
                exports.push(export);
            }
            "segment" => {
                let segment = Segment::new(LEN).unwrap();
                segment.write(0, &bytes(0)).unwrap();
                let export = exporter.export(ExportedMemory::segment(segment.into())).unwrap();
                let ExportedRegion { base, len, rkey } = export.region();
                say(&format!("region {base} {len} {rkey}"));
                exports.push(export);
            }
            "exec" => exec(),
            // The child of a fork does not take its parent's place. It lives on while its parent
            // dies.
            "fork" => {
                // SAFETY: the child calls nothing but system calls.
                let child = unsafe { libc::fork() };
                if child == 0 {
                    // SAFETY: a system call on an integer: it ends the child should the test not.
                    unsafe { libc::alarm(60) };
                    loop {
                        // SAFETY: a system call.
                        unsafe { libc::pause() };
                    }
                }
                say(&format!("child {child}"));
            }
            _ => return,
        }
    }
}

/// A producer, killed when dropped.
struct Producer {
    child: Child,
    stdout: BufReader<ChildStdout>,
    address: ShmAddress,
}

impl Producer {
    fn start(how: &str) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "the_bytes_of_another_process_arrive", "--nocapture"])
            .env(PRODUCES, how)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let mut this = Self { child, stdout, address: ShmAddress::parse(&NO_ADDRESS).unwrap() };
        let hex = this.line("address ");
        let bytes = std::array::from_fn(|i| u8::from_str_radix(&hex[2 * i..2 * i + 2], 16).unwrap());
        this.address = ShmAddress::parse(&bytes).unwrap();
        this
    }

    /// A producer that exports its memory, and the export.
    fn exporting() -> (Self, ExportedRegion) {
        let mut producer = Self::start("as usual");
        let region = producer.export("export");
        (producer, region)
    }

    fn order(&mut self, order: &str) {
        writeln!(self.child.stdin.as_mut().unwrap(), "{order}").unwrap();
    }

    fn export(&mut self, order: &str) -> ExportedRegion {
        self.order(order);
        let line = self.line("region ");
        let mut words = line.split(' ').map(|word| word.parse::<u64>().unwrap());
        let mut next = || words.next().unwrap();
        ExportedRegion { base: next(), len: next(), rkey: next() as u32 }
    }

    /// The rest of the next line that begins with `begin`.
    fn line(&mut self, begin: &str) -> String {
        let lines = self.stdout.by_ref().lines().map(Result::unwrap);
        lines.filter_map(|line| Some(line.strip_prefix(begin)?.to_owned())).next().expect("a line")
    }

    /// Stops all threads of the producer.
    fn stop(&self) {
        kill_process(Pid::from_child(&self.child), Signal::STOP).unwrap();
        let start = Instant::now();
        let runs = |task: std::fs::DirEntry| {
            let stat = std::fs::read_to_string(task.path().join("stat")).unwrap();
            // The state comes after the name, which is in brackets.
            !stat.rsplit(')').next().unwrap().trim().starts_with('T')
        };
        let tasks = || std::fs::read_dir(format!("/proc/{}/task", self.child.id())).unwrap();
        while tasks().any(|task| runs(task.unwrap())) {
            assert!(start.elapsed() < PATIENCE, "a thread goes on");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Producer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

const NO_ADDRESS: [u8; 64] = {
    let mut bytes = [0; 64];
    let head = *b"KVSM\x02";
    let mut i = 0;
    while i < head.len() {
        bytes[i] = head[i];
        i += 1;
    }
    bytes
};

/// READs a page again and again from a lane that is opened anew after each failure, and checks the
/// bytes of every success, until `done` says that it is enough. It gets the time and the last
/// status.
fn read_on(peer: &ShmPeer, region: ExportedRegion, mut done: impl FnMut(Duration, WcStatus) -> bool) -> u32 {
    let mut driver = Driver::<ShmPeer>::new(CONFIG(), LEN);
    let expected = bytes(0);
    let (start, mut successes, mut lane_number) = (Instant::now(), 0, 0);
    let mut lane = driver.open(lane_number, RAIL, peer.clone());
    let len = LEN as u32 / 4;
    for turn in 0.. {
        let offset = u64::from(turn % 4 * len);
        let read = driver.read(lane_number, turn, region, offset, len);
        assert_eq!(driver.post(&mut lane, &[read]), Commit::All);
        let status = driver.completions(1)[0].1;
        if status.is_success() {
            successes += 1;
            let offset = offset as usize;
            let wanted = &expected[offset..offset + len as usize];
            assert!(driver.bytes(offset, len as usize) == wanted, "turn {turn} brought other bytes");
        } else {
            assert_eq!(status, WcStatus::RETRY_EXC_ERR, "turn {turn}");
            lane_number += 1;
            let old = std::mem::replace(&mut lane, driver.open(lane_number, RAIL, peer.clone()));
            driver.rails.close(old);
        }
        if done(start.elapsed(), status) {
            return successes;
        }
        assert!(start.elapsed() < PATIENCE, "{successes} successes");
    }
    successes
}

#[test]
fn the_bytes_of_another_process_arrive() {
    if let Some(how) = std::env::var_os(PRODUCES) {
        return produce(how.to_str().unwrap());
    }
    let (producer, region) = Producer::exporting();
    let mut turns = 0;
    let successes = read_on(&ShmPeer::connect(&producer.address).unwrap(), region, |_, _| {
        turns += 1;
        turns == 8
    });
    assert_eq!(successes, 8);
}

#[test]
fn a_producer_that_is_killed_at_any_moment_gives_right_bytes_or_an_error() {
    let mut rng = 0x9E37_79B9_u32;
    for _ in 0..30 {
        rng = rng.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let after = Duration::from_micros(u64::from(rng >> 18));
        let (producer, region) = Producer::exporting();
        let pid = Pid::from_child(&producer.child);
        let peer = ShmPeer::connect(&producer.address).unwrap();
        std::thread::scope(|scope| {
            scope.spawn(move || {
                std::thread::sleep(after);
                kill_process(pid, Signal::KILL).unwrap();
            });
            read_on(&peer, region, |_, status| !status.is_success());
        });
    }
}

#[test]
fn the_memory_of_another_program_in_the_same_process_is_never_read() {
    for _ in 0..10 {
        let (mut producer, region) = Producer::exporting();
        let mut ordered = false;
        let mut failures = 0;
        let peer = ShmPeer::connect(&producer.address).unwrap();
        read_on(&peer, region, |_, status| {
            if !ordered {
                producer.order("exec");
                ordered = true;
            }
            failures += u32::from(!status.is_success());
            failures == 20
        });
        // The other program has other bytes at the same address, in a process of the same number.
        producer.line("executed");
        let error = ShmPeer::connect(&producer.address).unwrap_err();
        assert!(matches!(error, ShmConnectError::NotListening), "{error}");
    }
}

/// One READ of all bytes of a region over a lane of its own.
fn one_read(peer: &ShmPeer, region: ExportedRegion) -> (WcStatus, Vec<u8>) {
    let mut driver = Driver::<ShmPeer>::new(CONFIG(), LEN);
    let mut lane = driver.open(0, RAIL, peer.clone());
    let read = driver.read(0, 0, region, 0, LEN as u32);
    assert_eq!(driver.post(&mut lane, &[read]), Commit::All);
    (driver.completions(1)[0].1, driver.bytes(0, LEN))
}

#[test]
fn an_export_that_came_after_the_connection_is_learned_of() {
    let mut producer = Producer::start("as usual");
    let peer = ShmPeer::connect(&producer.address).unwrap();
    assert_eq!(peer.regions(), []);
    for kind in ["segment", "export"] {
        let region = producer.export(kind);
        assert_eq!(one_read(&peer, region), (WcStatus::SUCCESS, bytes(0)), "{kind}");
        assert!(peer.regions().contains(&region));
    }
    let unknown = ExportedRegion { rkey: 77, ..peer.regions()[0] };
    assert_eq!(one_read(&peer, unknown).0, WcStatus::REM_ACCESS_ERR);
    assert!(peer.is_alive());
}

#[test]
fn a_producer_that_does_not_answer_costs_a_read_two_seconds_and_a_failing_lane_less() {
    let mut producer = Producer::start("as usual");
    let peer = ShmPeer::connect(&producer.address).unwrap();
    let region = producer.export("export");
    producer.stop();
    let start = Instant::now();
    assert_eq!(one_read(&peer, region).0, WcStatus::RETRY_EXC_ERR);
    let took = start.elapsed();
    assert!(took >= Duration::from_secs(2) && took < Duration::from_secs(10), "{took:?}");

    let mut driver = Driver::<ShmPeer>::new(CONFIG(), LEN);
    let mut lane = driver.open(0, RAIL, peer.clone());
    let read = driver.read(0, 0, ExportedRegion { rkey: 78, ..region }, 0, 8);
    let start = Instant::now();
    assert_eq!(driver.post(&mut lane, &[read]), Commit::All);
    std::thread::sleep(Duration::from_millis(50));
    driver.rails.fail(&mut lane);
    assert_eq!(driver.completions(1), [(0, WcStatus::WR_FLUSH_ERR)]);
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    kill_process(Pid::from_child(&producer.child), Signal::CONT).unwrap();
    assert_eq!(one_read(&peer, region), (WcStatus::SUCCESS, bytes(0)));
}

#[test]
fn a_child_of_a_fork_is_not_read_in_place_of_its_parent() {
    let (mut producer, region) = Producer::exporting();
    producer.order("fork");
    let child = Pid::from_raw(producer.line("child ").parse().unwrap()).unwrap();
    let peer = ShmPeer::connect(&producer.address).unwrap();
    assert_eq!(one_read(&peer, region), (WcStatus::SUCCESS, bytes(0)));
    producer.kill();
    let after = one_read(&peer, region).0;
    let again = ShmPeer::connect(&producer.address);
    // The child was alive all the time, with a copy of the memory.
    kill_process(child, Signal::KILL).unwrap();
    assert_eq!(after, WcStatus::RETRY_EXC_ERR);
    assert!(matches!(again, Err(ShmConnectError::NotListening)), "{again:?}");
}

/// Passes one message on, with its descriptors.
fn pass(from: &OwnedFd, to: &OwnedFd) -> bool {
    let (mut bytes, mut space) = ([0; 1024], [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(16))]);
    let mut control = net::RecvAncillaryBuffer::new(&mut space);
    let message =
        net::recvmsg(from, &mut [IoSliceMut::new(&mut bytes)], &mut control, RecvFlags::empty()).unwrap();
    let fds: Vec<OwnedFd> = control
        .drain()
        .flat_map(|part| match part {
            net::RecvAncillaryMessage::ScmRights(fds) => fds.collect::<Vec<_>>(),
            _ => vec![],
        })
        .collect();
    let fds: Vec<_> = fds.iter().map(|fd| fd.as_fd()).collect();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(16))];
    let mut control = net::SendAncillaryBuffer::new(&mut space);
    assert!(fds.is_empty() || control.push(net::SendAncillaryMessage::ScmRights(&fds)));
    let bytes = IoSlice::new(&bytes[..message.bytes]);
    message.bytes > 0 && net::sendmsg(to, &[bytes], &mut control, SendFlags::NOSIGNAL).is_ok()
}

#[test]
fn a_process_that_passes_an_exporters_messages_on_is_not_taken_for_it() {
    // This process stands between the reader and the exporter, and so is the one that listens.
    let (producer, _region) = Producer::exporting();
    let mut told = producer.address.to_bytes();
    let socket = || net::socket(AddressFamily::UNIX, SocketType::SEQPACKET, None).unwrap();
    let exporter = socket();
    let name = |bytes: &[u8; 64]| net::SocketAddrUnix::new_abstract_name(&bytes[8..24]).unwrap();
    net::connect(&exporter, &name(&told)).unwrap();
    told[8..24].copy_from_slice(format!("kvrail-t{:08}", std::process::id()).as_bytes());
    let listener = socket();
    net::bind(&listener, &name(&told)).unwrap();
    net::listen(&listener, 1).unwrap();
    let relay = std::thread::spawn(move || {
        let reader = net::accept(&listener).unwrap();
        while pass(&reader, &exporter) && pass(&exporter, &reader) {}
    });
    let error = ShmPeer::connect(&ShmAddress::parse(&told).unwrap()).unwrap_err();
    relay.join().unwrap();
    let ours = std::process::id().cast_signed();
    assert!(matches!(error, ShmConnectError::OtherProcess { pid } if pid == ours), "{error}");
}

/// Runs `f` on a thread that may trace only processes that any process may trace.
fn without_authority<R: Send>(f: impl FnOnce() -> R + Send) -> R {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            let mut sets = capabilities(None).unwrap();
            sets.effective.remove(CapabilitySet::SYS_PTRACE);
            set_capabilities(None, sets).unwrap();
            f()
        });
        thread.join().unwrap()
    })
}

#[test]
fn a_reader_that_may_not_read_the_process_learns_it_when_it_connects() {
    let mut producer = Producer::start("not to be traced");
    let segment = producer.export("segment");
    // A segment needs no permission.
    let early = without_authority(|| {
        let peer = ShmPeer::connect(&producer.address).unwrap();
        assert_eq!(one_read(&peer, segment), (WcStatus::SUCCESS, bytes(0)));
        peer
    });
    let region = producer.export("export");
    without_authority(|| {
        assert_eq!(one_read(&early, region).0, WcStatus::REM_ACCESS_ERR);
        assert_eq!(one_read(&early, segment), (WcStatus::SUCCESS, bytes(0)));
    });
    drop(early);
    let error = without_authority(|| ShmPeer::connect(&producer.address).unwrap_err());
    let pid = producer.child.id().cast_signed();
    assert!(matches!(error, ShmConnectError::ProcessMemory { pid: p, .. } if p == pid), "{error}");
    for word in ["ptrace_scope", "CAP_SYS_PTRACE", "seccomp", "permit_any_reader", "process_vm_readv"] {
        assert!(error.to_string().contains(word), "{word}: {error}");
    }
}

#[test]
fn any_reader_may_be_permitted() {
    let exporter = ShmExporter::start().unwrap();
    exporter.permit_any_reader().unwrap();
}
