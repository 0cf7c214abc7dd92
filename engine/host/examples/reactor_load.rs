//! Measures the reactor: connections made per second, and resident memory per idle connection, at
//! both ends.
//!
//! `cargo run --release -p kvrail-host --example reactor_load -- 9000` makes 9,000 connections over
//! loopback from a second process, with one thread each for both ends. Each connection carries one
//! byte each way, and is idle then. The limit on open files bounds the number (`ulimit -Hn`).

use std::error::Error;
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::sync::mpsc::{Sender, channel};
use std::time::{Duration, Instant};

use kvrail_host::listener::Listener;
use kvrail_host::reactor::{Acceptor, Connection, ConnectionId, Flow, Reactor};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// How many connections are being made at a time.
const AT_ONCE: usize = 512;
const LIMIT: Duration = Duration::from_secs(120);
/// The first argument of the second process.
const CONNECTS: &str = "connects";

/// One end of a connection that carries one byte each way.
struct OneByte {
    to_send: u8,
    /// The end that connects says when the answer has come.
    answered: Option<Sender<()>>,
    last: Instant,
}

impl Connection for OneByte {
    fn received(&mut self, _: Instant, _: &[u8]) -> Flow {
        match &self.answered {
            Some(answered) => drop(answered.send(())),
            None => self.to_send += 1,
        }
        Flow::GoOn
    }

    fn ended(&mut self, _: Instant, error: Option<io::Error>) {
        if let Some(error) = error {
            eprintln!("a connection has ended: {error}");
        }
    }

    fn fill(&mut self, _: Instant, out: &mut Vec<u8>, _: usize) {
        let count = std::mem::take(&mut self.to_send);
        out.resize(count.into(), 1);
    }

    fn due(&self) -> Instant {
        self.last
    }

    fn tick(&mut self, _: Instant) -> Flow {
        Flow::Close
    }

    fn notified(&mut self, _: Instant) -> Flow {
        Flow::GoOn
    }
}

struct All;

impl Acceptor for All {
    fn accepted(&mut self, _: ConnectionId, _: SocketAddr, _: &TcpStream) -> Option<Box<dyn Connection>> {
        let last = Instant::now() + LIMIT;
        Some(Box::new(OneByte { to_send: 0, answered: None, last }))
    }
}

/// Resident bytes of this process.
fn resident() -> Result<usize, Box<dyn Error>> {
    let text = std::fs::read_to_string("/proc/self/statm")?;
    let pages: usize = text.split(' ').nth(1).ok_or("/proc/self/statm has no second field")?.parse()?;
    Ok(pages * rustix::param::page_size())
}

fn threads() -> io::Result<usize> {
    Ok(std::fs::read_dir("/proc/self/task")?.count())
}

/// The second process.
fn connects(to: SocketAddr, count: usize) -> Result<(), Box<dyn Error>> {
    let reactor = Reactor::start("reactor")?;
    let (answered, answers) = channel();
    let (before, start) = (resident()?, Instant::now());
    for number in 0..count {
        if number >= AT_ONCE {
            answers.recv_timeout(LIMIT)?;
        }
        let last = Instant::now() + LIMIT;
        let connection = Box::new(OneByte { to_send: 1, answered: Some(answered.clone()), last });
        reactor.handle().connect(to, last, connection)?;
    }
    for _ in 0..count.min(AT_ONCE) {
        answers.recv_timeout(LIMIT)?;
    }
    let took = start.elapsed();
    println!("{:>9.0} connections/s, each with a byte there and back", count as f64 / took.as_secs_f64());
    println!("{:>9} bytes resident per connection that was made", (resident()? - before) / count);
    println!("{:>9} threads in the process that connects", threads()?);
    println!("done");
    io::stdin().read_line(&mut String::new())?;
    reactor.stop(Instant::now());
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })?;
    let mut arguments: Vec<_> = std::env::args().skip(1).collect();
    if arguments.first().is_some_and(|first| first == CONNECTS) {
        return connects(arguments[1].parse()?, arguments[2].parse()?);
    }
    let count: usize = arguments.pop().map_or(Ok(9000), |count| count.parse())?;

    let reactor = Reactor::start("reactor")?;
    let listener = Listener::bind("127.0.0.1:0".parse()?, "listener")?;
    let address = listener.local_addr();
    reactor.handle().listen(listener, Box::new(All))?;
    let before = resident()?;
    let mut other = Command::new(std::env::current_exe()?)
        .args([CONNECTS, &address.to_string(), &count.to_string()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    println!("{count} connections over loopback, with one thread for all of each end:");
    for line in BufReader::new(other.stdout.take().ok_or("no output")?).lines() {
        let line = line?;
        if line == "done" {
            break;
        }
        println!("{line}");
    }
    println!("{:>9} bytes resident per connection that was accepted", (resident()? - before) / count);
    println!("{:>9} threads in the process that accepts", threads()?);
    other.stdin.take().ok_or("no input")?.write_all(b"\n")?;
    let ended = other.wait()?;
    reactor.stop(Instant::now());
    if ended.success() { Ok(()) } else { Err("the process that connects has failed".into()) }
}
