//! A producer that is killed while a child of its fork lives: readers notice, and its port is free.
#![allow(unsafe_code, reason = "forks")]

use std::io::{BufRead as _, BufReader, Read as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use kvrail::core::table::KeyTag;
use kvrail::layouts::catalogue::VllmFp8DsMla;
use kvrail::session::PoolId;
use kvrail::{
    Config, OtherProcess, PageLayout, PeerKey, Publisher, PublisherError, PublisherTransport, Reader,
    ReaderEvent, ReaderTransport, WithdrawError, WriteError, clock, memory, shm, tcp,
};

const LAYOUT: PageLayout = PageLayout::of::<VllmFp8DsMla>();
const LOCALHOST: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// The environment variable that tells this test's program to be the producer, and how to fork.
const PRODUCES: &str = "KVRAIL_TEST_FORKS";
/// Seconds after which the child of the fork ends by itself, if the test has not killed it.
const CHILD_LIVES_S: u32 = 120;

fn key() -> PeerKey {
    PeerKey::from_bytes([8; 32])
}

fn start(listen: SocketAddr, over: impl PublisherTransport) -> Publisher {
    Publisher::start("producer".parse().unwrap(), LAYOUT, 1, &listen.into(), key(), over).unwrap()
}

/// The child of a fork: it does nothing, and keeps every descriptor that it has inherited.
fn idle() -> ! {
    // SAFETY: a system call on integers.
    unsafe { libc::alarm(CHILD_LIVES_S) };
    loop {
        // SAFETY: as above.
        unsafe { libc::pause() };
    }
}

/// Forks by the C library's `fork` or by the bare system call, and returns the child's number.
fn fork(how: &str) -> libc::pid_t {
    let pid = match how {
        // SAFETY: the child calls nothing but system calls.
        "fork" => unsafe { libc::fork() },
        "clone" => {
            let none: libc::c_long = 0;
            let flags = libc::c_long::from(libc::SIGCHLD);
            // SAFETY: no memory is shared and no stack is given, so this is a fork; the child calls
            // nothing but system calls.
            (unsafe { libc::syscall(libc::SYS_clone, flags, none, none, none, none) }) as libc::pid_t
        }
        other => panic!("{other}"),
    };
    match pid {
        0 => idle(),
        ..0 => panic!("{}", std::io::Error::last_os_error()),
        pid => pid,
    }
}

/// The producer's process: publishes a page, forks when there is a reader, and lives until it is
/// killed.
fn produce(how: &str, over: impl PublisherTransport) -> ! {
    let publisher = start((LOCALHOST, 0).into(), over);
    publisher.write(0, KeyTag(1), |page| page.fill(7)).unwrap();
    println!("\nport {}", publisher.local_addr().port());
    while publisher.readers() == 0 {
        std::thread::sleep(Duration::from_millis(1));
    }
    // The reader writes a byte when it has its lanes, so that the child inherits their descriptors.
    std::io::stdin().read_exact(&mut [0]).unwrap();
    if how == "drop" {
        // SAFETY: the child drops a value, for which it needs no other thread, and ends. The C
        // library lets the child of its fork allocate.
        let child = unsafe { libc::fork() };
        if child == 0 {
            drop(publisher);
            // SAFETY: a system call on an integer.
            unsafe { libc::_exit(0) };
        }
        let mut status = -1;
        // SAFETY: `status` is there to be written.
        let ended = unsafe { libc::waitpid(child, &mut status, 0) };
        assert_eq!((ended, status), (child, 0));
        println!("\nchild {child}");
    } else {
        println!("\nchild {}", fork(how));
    }
    loop {
        std::thread::park();
    }
}

/// A producer's process and the child of its fork. Both are killed when this is dropped.
struct Producer {
    process: Child,
    output: BufReader<ChildStdout>,
    child: Option<libc::pid_t>,
}

impl Producer {
    fn start(test: &str, how: &str) -> Self {
        let mut process = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", test, "--nocapture"])
            .env(PRODUCES, how)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let output = BufReader::new(process.stdout.take().unwrap());
        Self { process, output, child: None }
    }

    /// The number behind `word` in the producer's output.
    fn number_after<T: std::str::FromStr>(&mut self, word: &str) -> T {
        let lines = self.output.by_ref().lines().map(Result::unwrap);
        let number = |line: String| line.strip_prefix(word)?.trim().parse().ok();
        lines.filter_map(number).next().expect("the producer tells")
    }
}

impl Drop for Producer {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        if let Some(pid) = self.child {
            // SAFETY: a system call on integers; the child is this test's own, and has not been
            // waited for.
            unsafe { libc::kill(pid, libc::SIGKILL) };
        }
    }
}

/// Kills a producer whose child lives on: its port is free at once, and its reader loses the peer
/// before `within` has passed.
fn the_death_is_noticed<P: PublisherTransport, N: ReaderTransport>(
    test: &str,
    how: &str,
    publish: impl Fn() -> P,
    rails: impl Fn() -> N,
    within: Duration,
) {
    if let Ok(how) = std::env::var(PRODUCES) {
        produce(&how, publish());
    }
    let mut producer = Producer::start(test, how);
    let address = SocketAddr::from((LOCALHOST, producer.number_after::<u16>("port ")));
    let mut reader = Reader::start(LAYOUT, rails(), Config::default()).unwrap();
    let mut slots = reader.register(memory::leaked(LAYOUT.page_bytes() as usize).unwrap()).unwrap();
    let peer = reader.connect(&address.into(), key()).unwrap();
    let location = reader.published(&peer, 0, clock::within(Duration::from_secs(20))).unwrap()[0];
    std::io::Write::write_all(producer.process.stdin.as_mut().unwrap(), b"!").unwrap();
    producer.child = Some(producer.number_after("child "));

    let killed = Instant::now();
    producer.process.kill().unwrap();
    producer.process.wait().unwrap();
    // The port refuses connections at once: none waits in the dead producer's queue.
    let refused = std::net::TcpStream::connect(address).unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    let again = start(address, publish());
    let other = Reader::start(LAYOUT, rails(), Config::default()).unwrap().connect(&address.into(), key());
    assert_eq!(other.unwrap().epoch(), again.epoch());

    let event = loop {
        reader.poll();
        if let Some(event) = reader.next_event() {
            break event;
        }
        assert!(killed.elapsed() < within, "the death goes unnoticed");
        reader.wait(clock::within(Duration::from_millis(100)));
    };
    let ReaderEvent::Lost { peer: lost, .. } = event else { panic!("{event:?}") };
    assert_eq!(lost, peer.id());
    let mut batch = reader.batch().unwrap();
    batch.read(peer.page(location).unwrap(), slots.next().unwrap()).unwrap();
    assert!(
        reader.submit(batch, clock::within(Duration::from_secs(1))).is_err(),
        "a page of a dead producer was accepted"
    );
    // SAFETY: a system call on integers that sends nothing.
    let there = unsafe { libc::kill(producer.child.unwrap(), 0) };
    assert_eq!(there, 0, "the child was there all the time");
}

const LIMIT: Duration = Duration::from_secs(10);

#[test]
fn a_killed_shm_producer_is_noticed_while_a_child_of_fork_lives() {
    let test = "a_killed_shm_producer_is_noticed_while_a_child_of_fork_lives";
    the_death_is_noticed(test, "fork", || shm::publish(1), || shm::rails(1).unwrap(), LIMIT);
}

#[test]
fn a_killed_shm_producer_is_noticed_while_a_child_of_the_bare_system_call_lives() {
    let test = "a_killed_shm_producer_is_noticed_while_a_child_of_the_bare_system_call_lives";
    the_death_is_noticed(test, "clone", || shm::publish(1), || shm::rails(1).unwrap(), LIMIT);
}

#[test]
fn a_killed_tcp_producer_is_noticed_while_a_child_of_fork_lives() {
    let test = "a_killed_tcp_producer_is_noticed_while_a_child_of_fork_lives";
    the_death_is_noticed(test, "fork", || tcp::publish(LOCALHOST, 1), || tcp::rails(1).unwrap(), LIMIT);
}

#[test]
fn a_killed_tcp_producer_is_noticed_while_a_child_of_the_bare_system_call_lives() {
    let test = "a_killed_tcp_producer_is_noticed_while_a_child_of_the_bare_system_call_lives";
    the_death_is_noticed(test, "clone", || tcp::publish(LOCALHOST, 1), || tcp::rails(1).unwrap(), LIMIT);
}

#[test]
fn a_child_that_drops_its_copy_of_a_publisher_does_the_parent_no_harm() {
    let test = "a_child_that_drops_its_copy_of_a_publisher_does_the_parent_no_harm";
    if std::env::var(PRODUCES).is_ok() {
        produce("drop", shm::publish(1));
    }
    let mut producer = Producer::start(test, "drop");
    let address = SocketAddr::from((LOCALHOST, producer.number_after::<u16>("port ")));
    let connect = || {
        let mut reader = Reader::start(LAYOUT, shm::rails(1).unwrap(), Config::default()).unwrap();
        let peer = reader.connect(&address.into(), key()).unwrap();
        (reader, peer)
    };
    let (mut reader, peer) = connect();
    std::io::Write::write_all(producer.process.stdin.as_mut().unwrap(), b"!").unwrap();
    producer.number_after::<libc::pid_t>("child ");
    connect();
    let published = reader.published(&peer, 0, clock::within(Duration::from_secs(20))).unwrap();
    assert_eq!(published.len(), 1);
    reader.poll();
    assert!(reader.next_event().is_none());
}

/// Whether a call of the child of a fork panics. It says so to nothing: another thread of the
/// parent may have had the lock of the standard error.
fn panics(call: impl FnOnce()) -> bool {
    std::panic::set_hook(Box::new(|_| ()));
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(call)).is_err()
}

#[test]
fn a_child_is_told_that_a_publisher_is_its_parents() {
    let (name, listen) = ("producer".parse().unwrap(), "127.0.0.1:0".parse().unwrap());
    let publisher = Publisher::start(name, LAYOUT, 3, &listen, key(), shm::publish(1)).unwrap();
    let location = publisher.write(0, KeyTag(1), |page| page.fill(7)).unwrap();
    let growing = publisher.overwrite(1, KeyTag(2)).unwrap().grow();
    let mut guard = publisher.overwrite(2, KeyTag(2)).unwrap();
    // SAFETY: the child calls functions that return errors or panic, and drops values, for which it
    // needs no other thread, and ends. The C library lets the child of its fork allocate.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let here = OtherProcess { owner: std::os::unix::process::parent_id(), here: std::process::id() };
        let told = [
            publisher.write(0, KeyTag(3), |_| ()).err() == Some(WriteError::Process(here)),
            publisher.overwrite(0, KeyTag(3)).err() == Some(WriteError::Process(here)),
            publisher.invalidate(0).err() == Some(WriteError::Process(here)),
            publisher.location(0).err() == Some(WriteError::Process(here)),
            publisher.withdraw(PoolId(0), Instant::now()) == Err(WithdrawError::Process(here)),
            matches!(publisher.add_pool(LAYOUT, 1), Err(PublisherError::Process(other)) if other == here),
            // The bytes of its copy of a guard are those that the parent publishes.
            panics(|| guard.bytes().fill(3)),
            panics(|| _ = guard.publish()),
        ];
        drop(growing);
        drop(publisher);
        let wrong = (1..).zip(told).find_map(|(number, told)| (!told).then_some(number));
        // SAFETY: a system call on an integer.
        unsafe { libc::_exit(wrong.unwrap_or(0)) };
    }
    let mut status = -1;
    // SAFETY: `status` is there to be written.
    let ended = unsafe { libc::waitpid(child, &mut status, 0) };
    assert_eq!((ended, libc::WEXITSTATUS(status)), (child, 0), "a call of the child was not refused");
    assert_eq!(publisher.location(0).unwrap(), Some(location));
    growing.finish(|page| page.fill(9)).unwrap();
    assert!(guard.bytes().iter().all(|&byte| byte == 0), "the child has written into the parent's slot");
    guard.publish();
    let mut reader = Reader::start(LAYOUT, shm::rails(1).unwrap(), Config::default()).unwrap();
    let peer = reader.connect(&publisher.local_addr().into(), key()).unwrap();
    let published = reader.published(&peer, 0, clock::within(Duration::from_secs(20))).unwrap();
    assert_eq!(published.len(), 3, "the child's copies took nothing back");
}

#[test]
fn a_child_that_drops_its_copy_of_a_reader_does_the_parent_no_harm() {
    let publisher = start((LOCALHOST, 0).into(), shm::publish(1));
    publisher.write(0, KeyTag(1), |page| page.fill(7)).unwrap();
    let mut reader = Reader::start(LAYOUT, shm::rails(1).unwrap(), Config::default()).unwrap();
    let peer = reader.connect(&publisher.local_addr().into(), key()).unwrap();
    // SAFETY: the child drops a value, for which it needs no other thread, and ends. The C library
    // lets the child of its fork allocate.
    let child = unsafe { libc::fork() };
    if child == 0 {
        drop(reader);
        // SAFETY: a system call on an integer.
        unsafe { libc::_exit(0) };
    }
    let (begun, mut status) = (Instant::now(), -1);
    // SAFETY: `status` is there to be written.
    while unsafe { libc::waitpid(child, &mut status, libc::WNOHANG) } == 0 {
        if begun.elapsed() > Duration::from_secs(20) {
            // SAFETY: a system call on integers; the child has not been waited for.
            unsafe { libc::kill(child, libc::SIGKILL) };
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(status, 0, "the child hung, or was ended");
    let published = reader.published(&peer, 0, clock::within(Duration::from_secs(20))).unwrap();
    assert_eq!((published.len(), publisher.readers()), (1, 1));
    reader.poll();
    assert!(reader.next_event().is_none());
}
