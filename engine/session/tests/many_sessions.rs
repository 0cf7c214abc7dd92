//! Ten thousand sessions: no thread for any of them, and a few kilobytes each.
#![allow(missing_docs, reason = "a test")]

mod one_rail;

use std::io;
use std::net::SocketAddr;
use std::num::{NonZeroU16, NonZeroU64};
use std::process::{Command, Stdio};
use std::sync::mpsc::{Sender, channel};
use std::time::{Duration, Instant};

use kvrail_host::reactor::{Connection, Flow, Reactor};
use kvrail_session::{
    Fingerprint, Layout, PeerKey, PeerKeys, ProducerDescription, ReaderDescription, Server, ServerConfig,
    Session, SessionEvent,
};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use one_rail::OneRail;

const SESSIONS: usize = 10_000;
/// How many sessions begin at a time: fewer than one address has handshakes.
const AT_ONCE: usize = 100;
/// Descriptors beside those of the sessions.
const OTHERS: u64 = 512;
/// What an idle session may cost a producer, in bytes of resident memory.
const PRODUCER_BYTES: usize = 6 << 10;
/// What an idle session may cost a reader.
const READER_BYTES: usize = 16 << 10;
/// The environment variable that tells this test's program to be the readers, and the address.
const READS: &str = "KVRAIL_TEST_SESSIONS_READ";
const LIMIT: Duration = Duration::from_secs(120);

fn keys() -> PeerKeys {
    PeerKeys::one(PeerKey::from_bytes([9; 32]))
}

fn layout() -> Layout {
    Layout {
        name: "opaque".parse().unwrap(),
        fingerprint: Fingerprint::from_bytes([1; 16]),
        any_rank: Fingerprint::from_bytes([1; 16]),
        page_bytes: NonZeroU64::MIN,
        parts: NonZeroU16::MIN,
    }
}

/// A session of a reader that says when it is established, and when it ends.
struct Reads {
    session: Session,
    tell: Sender<Result<(), String>>,
}

impl Reads {
    fn after(&mut self, flow: Flow) -> Flow {
        while let Some(event) = self.session.next_event() {
            // Fails when the test is over.
            let _ = match event {
                SessionEvent::Established(_) => self.tell.send(Ok(())),
                SessionEvent::Ended(why) => self.tell.send(Err(why.to_string())),
                _ => Ok(()),
            };
        }
        flow
    }
}

impl Connection for Reads {
    fn received(&mut self, now: Instant, bytes: &[u8]) -> Flow {
        let flow = self.session.received(now, bytes);
        self.after(flow)
    }

    fn ended(&mut self, now: Instant, error: Option<io::Error>) {
        self.session.ended(now, error);
        self.after(Flow::GoOn);
    }

    fn fill(&mut self, now: Instant, out: &mut Vec<u8>, room: usize) {
        self.session.fill(now, out, room);
    }

    fn due(&self) -> Instant {
        self.session.due()
    }

    fn tick(&mut self, now: Instant) -> Flow {
        let flow = self.session.tick(now);
        self.after(flow)
    }

    fn notified(&mut self, _: Instant) -> Flow {
        Flow::GoOn
    }
}

fn threads() -> usize {
    std::fs::read_dir("/proc/self/task").unwrap().count()
}

/// Bytes of resident memory.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().strip_suffix(" kB").unwrap().parse::<usize>().unwrap() << 10
}

/// The readers: begin all sessions, keep them, and end when the input does.
fn reads(to: SocketAddr) {
    let (before, memory) = (threads(), resident());
    let reactor = Reactor::start("reactor").unwrap();
    let (tell, told) = channel::<Result<(), String>>();
    for begun in 0..SESSIONS + AT_ONCE {
        if begun >= AT_ONCE {
            told.recv_timeout(LIMIT).unwrap().unwrap();
        }
        if begun < SESSIONS {
            let reader = ReaderDescription::new("decode-3".parse().unwrap(), layout());
            let now = Instant::now();
            let session = Session::new(to.to_string(), &keys(), 0, reader, now + LIMIT, now).unwrap();
            let reads = Box::new(Reads { session, tell: tell.clone() });
            reactor.handle().connect(to, now + LIMIT, reads).unwrap();
        }
    }
    let each = resident().saturating_sub(memory) / SESSIONS;
    println!("all in session, {} more threads, {each} bytes each", threads() - before);
    assert!(each <= READER_BYTES, "{each} bytes for each session of a reader");
    let _ = io::stdin().read_line(&mut String::new());
    assert_eq!(told.try_recv().ok(), None, "no session has ended");
    assert!(reactor.stop(Instant::now()));
}

/// Raises the limit on open files, and says whether it allows the sessions.
fn limit_allows() -> bool {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
    let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let needed = SESSIONS as u64 + OTHERS;
    if limit < needed {
        eprintln!("SKIPPED: a process may open {limit} files, and {SESSIONS} sessions need {needed}");
    }
    limit >= needed
}

#[test]
fn ten_thousand_sessions_need_no_thread_and_a_few_kilobytes_each() {
    if !limit_allows() {
        return;
    }
    if let Ok(to) = std::env::var(READS) {
        return reads(to.parse().unwrap());
    }
    let (before, memory) = (threads(), resident());
    let producer = ProducerDescription { node: "prefill-1".parse().unwrap(), pools: Vec::new() };
    let listen = "127.0.0.1:0".parse().unwrap();
    let config = ServerConfig::default();
    let mut server = Server::start(&listen, keys(), producer, OneRail, config).unwrap();
    let mut readers = Command::new(std::env::current_exe().unwrap())
        .args(["--nocapture", "--test-threads=1"])
        .env(READS, server.local_addr().to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = io::BufRead::lines(io::BufReader::new(readers.stdout.take().unwrap()));
    let said = lines.find(|line| line.as_ref().unwrap().contains("all in session")).unwrap().unwrap();
    assert_eq!(server.sessions(), SESSIONS);
    let each = resident().saturating_sub(memory) / SESSIONS;
    println!("a producer's session: {each} bytes; readers: {said}");
    assert!(each <= PRODUCER_BYTES, "{each} bytes for each session of a producer");
    assert_eq!(threads() - before, 2, "the connections, and the listener");
    // The end of the readers' input.
    drop(readers.stdin.take());
    lines.for_each(drop);
    assert!(readers.wait().unwrap().success());
    assert_eq!(server.stop(Instant::now() + LIMIT), 0);
}
