//! Ten thousand connections, and no thread for any of them.

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::time::{Duration, Instant};

use kvrail_host::listener::Listener;
use kvrail_host::reactor::{Acceptor, Connection, ConnectionId, Flow, Reactor};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

const CONNECTIONS: usize = 10_000;
/// How many connections are being made at a time: fewer than a listener's queue holds.
const AT_ONCE: usize = 512;
/// Descriptors beside those of the connections.
const OTHERS: u64 = 64;
/// The environment variable that tells this test's program to be the other end, and its address.
const CONNECTS: &str = "KVRAIL_TEST_REACTOR_CONNECTS";
const LIMIT: Duration = Duration::from_secs(120);

/// Sends back the eight bytes that it receives, or sends eight bytes and awaits them.
struct Eight {
    sends: Option<u64>,
    expects: Option<u64>,
    got: Vec<u8>,
    done: Option<Sender<()>>,
    open: Arc<AtomicUsize>,
}

impl Connection for Eight {
    fn received(&mut self, _: Instant, bytes: &[u8]) -> Flow {
        self.got.extend_from_slice(bytes);
        if let Ok(whole) = self.got[..].try_into() {
            let number = u64::from_le_bytes(whole);
            self.got = Vec::new();
            match self.expects {
                Some(expected) => {
                    assert_eq!(number, expected);
                    let _ = self.done.take().map(|done| done.send(()));
                }
                None => self.sends = Some(number),
            }
        }
        Flow::GoOn
    }

    fn ended(&mut self, _: Instant, error: Option<io::Error>) {
        if let Some(error) = error {
            eprintln!("a connection has ended: {error}");
        }
    }

    fn fill(&mut self, _: Instant, out: &mut Vec<u8>, _: usize) {
        out.extend(self.sends.take().into_iter().flat_map(u64::to_le_bytes));
    }

    fn due(&self) -> Instant {
        Instant::now() + LIMIT
    }

    fn tick(&mut self, _: Instant) -> Flow {
        Flow::GoOn
    }

    fn notified(&mut self, _: Instant) -> Flow {
        Flow::GoOn
    }
}

impl Drop for Eight {
    fn drop(&mut self) {
        self.open.fetch_sub(1, Ordering::SeqCst);
    }
}

struct All(Arc<AtomicUsize>);

impl Acceptor for All {
    fn accepted(&mut self, _: ConnectionId, _: SocketAddr, _: &TcpStream) -> Option<Box<dyn Connection>> {
        self.0.fetch_add(1, Ordering::SeqCst);
        let open = Arc::clone(&self.0);
        Some(Box::new(Eight { sends: None, expects: None, got: Vec::new(), done: None, open }))
    }
}

fn threads() -> usize {
    std::fs::read_dir("/proc/self/task").unwrap().count()
}

/// The other end: makes all connections, keeps them, and ends when its input does.
fn connects(to: SocketAddr) {
    let before = threads();
    let reactor = Reactor::start("reactor").unwrap();
    let (done, all_done) = channel();
    let open = Arc::new(AtomicUsize::new(CONNECTIONS));
    for number in 0..CONNECTIONS {
        if number >= AT_ONCE {
            all_done.recv_timeout(LIMIT).unwrap();
        }
        let number = number as u64;
        let (sends, expects, done) = (Some(number), Some(number), Some(done.clone()));
        let eight = Eight { sends, expects, got: Vec::new(), done, open: Arc::clone(&open) };
        reactor.handle().connect(to, Instant::now() + LIMIT, Box::new(eight)).unwrap();
    }
    for _ in 0..AT_ONCE {
        all_done.recv_timeout(LIMIT).unwrap();
    }
    println!("all answered, {} open, {} more threads", open.load(Ordering::SeqCst), threads() - before);
    let _ = io::stdin().read_line(&mut String::new());
    assert!(reactor.stop(Instant::now()));
    assert_eq!(open.load(Ordering::SeqCst), 0);
}

/// Raises the limit on open files, and says whether it allows the connections.
fn limit_allows() -> bool {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
    let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    if limit < CONNECTIONS as u64 + OTHERS {
        eprintln!(
            "SKIPPED: a process may open {limit} files, and {CONNECTIONS} connections need {}",
            CONNECTIONS as u64 + OTHERS
        );
    }
    limit >= CONNECTIONS as u64 + OTHERS
}

#[test]
fn ten_thousand_connections_need_one_thread_at_each_end() {
    if !limit_allows() {
        return;
    }
    if let Ok(to) = std::env::var(CONNECTS) {
        return connects(to.parse().unwrap());
    }
    let before = threads();
    let reactor = Reactor::start("reactor").unwrap();
    let listener = Listener::bind("127.0.0.1:0".parse().unwrap(), "listener").unwrap();
    let (address, open) = (listener.local_addr(), Arc::new(AtomicUsize::new(0)));
    reactor.handle().listen(listener, Box::new(All(Arc::clone(&open)))).unwrap();
    let mut other = Command::new(std::env::current_exe().unwrap())
        .args(["--nocapture", "--test-threads=1"])
        .env(CONNECTS, address.to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = io::BufRead::lines(io::BufReader::new(other.stdout.take().unwrap()));
    let said = lines.find(|line| line.as_ref().unwrap().contains("all answered")).unwrap().unwrap();
    assert!(said.contains("all answered, 10000 open, 1 more threads"), "{said}");
    assert_eq!(open.load(Ordering::SeqCst), CONNECTIONS);
    assert_eq!(threads() - before, 2, "the reactor, and the listener");
    // The end of its input.
    drop(other.stdin.take());
    lines.for_each(drop);
    assert!(other.wait().unwrap().success());
    let until = Instant::now() + LIMIT;
    while open.load(Ordering::SeqCst) > 0 {
        assert!(Instant::now() < until, "{} connections are open", open.load(Ordering::SeqCst));
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(reactor.stop(Instant::now()));
}
