//! Measures how long a reader takes to connect to a producer that a crowd without its key connects
//! to as well: 256 connections that say nothing, 256 that stop within their first message, and
//! 1,000 that name another key.
//!
//! `cargo run --release -p kvrail-session --example crowded_server` has three processes: the
//! producer, the crowd, and this one, which is the reader. In each round the reader connects with
//! no crowd there, then while the crowd arrives, and then beside those of the crowd that stay: the
//! producer refuses another key at once. The crowd comes from 16 addresses of loopback, so that the
//! bound of one address does not keep it from taking all the places for newcomers. With the
//! argument `one`, it comes from the reader's own address.
//!
//! With the argument `flood`, one other address makes 1,000 connections a second without end, each
//! with another key and open for a second; the reader connects meanwhile.

use std::collections::VecDeque;
use std::error::Error;
use std::io::{self, BufRead, BufReader, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use kvrail_core::id::RailIndex;
use kvrail_layouts::catalogue::VllmFp8DsMla;
use kvrail_session::{
    LaneAcceptor, LaneBlob, LaneEndError, Layout, Name, PeerKey, PeerKeys, ProducerDescription, RailAddress,
    RailDescription, RailList, ReaderDescription, Server, ServerConfig, Session, TransportKind, connect,
};
use rustix::net::{AddressFamily, SocketType};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const SILENT: usize = 256;
const HALF_SPOKEN: usize = 256;
const OTHER_KEY: usize = 1_000;
/// Bytes of a first message that stops in the middle; it has 80.
const HALF: usize = 40;
/// Addresses that the crowd comes from, unless it comes from the reader's own.
const HOSTS: u8 = 16;
/// The first arguments of the other two processes.
const SERVES: &str = "serves";
const CROWDS: &str = "crowds";
const FLOODS: &str = "floods";
const ROUNDS: usize = 12;
/// Connects of a round with no crowd there, and as many beside those that stay.
const CONNECTS: usize = 25;
const LIMIT: Duration = Duration::from_secs(20);
const HEADER: &str = "microseconds                best    median      95 %  x of alone  connects  failed";

fn key() -> PeerKey {
    PeerKey::from_bytes([7; 32])
}

fn reader() -> Result<ReaderDescription> {
    Ok(ReaderDescription::new("decode-1".parse()?, Layout::of::<VllmFp8DsMla>()?))
}

/// The producer's side of a transport that makes no lanes.
struct OneRail;

impl LaneAcceptor for OneRail {
    type Lane = ();

    fn rails(&self) -> RailList {
        let rail = RailDescription {
            name: Name::lossy("mlx5_0"),
            kind: TransportKind::Verbs,
            address: RailAddress([0; 64]),
            nominal_bytes_per_sec: 49_000_000_000,
            numa: None,
            lanes: 0,
        };
        [rail].into_iter().collect()
    }

    fn accept(&self, rail: RailIndex, _: &LaneBlob) -> std::result::Result<((), LaneBlob), LaneEndError> {
        Err(LaneEndError::new(rail, "no lane is asked for"))
    }

    fn release(&self, (): ()) {}
}

/// A process that serves until its input ends.
fn serve() -> Result<()> {
    let producer = ProducerDescription { node: "prefill-1".parse()?, pools: Vec::new() };
    let server = Server::start(&"127.0.0.1:0".parse()?, key(), producer, OneRail, ServerConfig::default())?;
    println!("{}", server.local_addr());
    io::stdin().read_line(&mut String::new())?;
    Ok(())
}

/// A connection from the address number `from`; 0 is what the system chooses.
fn dial(to: SocketAddr, from: u8) -> Result<TcpStream> {
    let socket = rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None)?;
    if from > 0 {
        rustix::net::bind(&socket, &SocketAddr::from(([127, 0, 0, 1 + from], 0)))?;
    }
    rustix::net::connect(&socket, &to)?;
    Ok(TcpStream::from(socket))
}

/// The first message of a reader with another key.
fn other_hello(to: SocketAddr) -> Result<Vec<u8>> {
    let (now, other) = (Instant::now(), PeerKeys::one(PeerKey::from_bytes([8; 32])));
    let mut session = Session::new(to.to_string(), &other, 0, reader()?, now + LIMIT, now)?;
    let mut hello = Vec::new();
    session.fill(now, &mut hello, 1 << 10);
    Ok(hello)
}

/// A process that brings a crowd for each line of its input, and ends the crowd with the next one.
fn crowd(to: SocketAddr, hosts: u8) -> Result<()> {
    let hello = other_hello(to)?;
    let mut here = Vec::new();
    for line in io::stdin().lines() {
        line?;
        if here.is_empty() {
            for number in 0..SILENT + HALF_SPOKEN + OTHER_KEY {
                let from = if hosts == 0 { 0 } else { 1 + (number % usize::from(hosts)) as u8 };
                let mut tcp = dial(to, from)?;
                let says = match number {
                    0..SILENT => 0,
                    _ if number < SILENT + HALF_SPOKEN => HALF,
                    _ => hello.len(),
                };
                // Fails if the producer has sent this connection away.
                let _ = tcp.write_all(&hello[..says]);
                here.push(tcp);
            }
        } else {
            here.clear();
        }
        println!("done");
    }
    Ok(())
}

/// A process that floods the producer from one line of its input to the next.
fn flood(to: SocketAddr) -> Result<()> {
    let hello = other_hello(to)?;
    let mut lines = io::stdin().lines();
    while let Some(line) = lines.next() {
        line?;
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let floods = scope.spawn(|| {
                let mut here = VecDeque::new();
                while !over.load(Ordering::Relaxed) {
                    // Fails while all ports of the address are in use.
                    if let Ok(mut tcp) = dial(to, 1) {
                        let _ = tcp.write_all(&hello);
                        here.push_back(tcp);
                    }
                    if here.len() > OTHER_KEY {
                        here.pop_front();
                    }
                    std::thread::sleep(Duration::from_secs(1) / OTHER_KEY as u32);
                }
            });
            std::thread::sleep(Duration::from_secs(1));
            println!("done");
            lines.next();
            over.store(true, Ordering::Relaxed);
            let _ = floods.join();
        });
        println!("done");
    }
    Ok(())
}

/// Another process of this program, its input, and the lines of its output.
struct Process {
    child: Child,
    input: Option<ChildStdin>,
    lines: Receiver<String>,
}

impl Process {
    fn start(arguments: &[&str]) -> Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        let mut child = command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let (tell, lines) = channel();
        let output = BufReader::new(child.stdout.take().ok_or("no output")?);
        std::thread::spawn(move || output.lines().map_while(io::Result::ok).try_for_each(|l| tell.send(l)));
        Ok(Self { input: child.stdin.take(), child, lines })
    }

    /// Begins what the process does for a line.
    fn begin(&mut self) -> Result<()> {
        Ok(self.input.as_mut().ok_or("no input")?.write_all(b"\n")?)
    }

    fn await_line(&self) -> Result<String> {
        Ok(self.lines.recv_timeout(LIMIT)?)
    }

    fn stop(mut self) -> Result<()> {
        self.input.take();
        if self.child.wait()?.success() { Ok(()) } else { Err("a process has failed".into()) }
    }
}

/// The times of connects.
#[derive(Default)]
struct Times {
    took: Vec<Duration>,
    failed: usize,
}

impl Times {
    /// Connects once.
    fn connect(&mut self, to: SocketAddr) -> Result<()> {
        let (reader, begun) = (reader()?, Instant::now());
        match connect(&to.into(), key(), reader, begun + LIMIT) {
            Ok(_session) => self.took.push(begun.elapsed()),
            Err(error) => {
                if self.failed == 0 {
                    eprintln!("the first that failed: {error}");
                }
                self.failed += 1;
            }
        }
        Ok(())
    }

    /// The time below which `percent` of the connects were.
    fn at(&self, percent: usize) -> f64 {
        let mut sorted = self.took.clone();
        sorted.sort_unstable();
        let at = (sorted.len() * percent / 100).min(sorted.len().saturating_sub(1));
        sorted.get(at).map_or(f64::NAN, |time| time.as_secs_f64() * 1e6)
    }

    fn print(&self, what: &str, alone: &Self) {
        let [best, median, late] = [0, 50, 95].map(|percent| self.at(percent));
        println!(
            "{what:<22} {best:>9.0} {median:>9.0} {late:>9.0} {:>11.2} {:>9} {:>7}",
            median / alone.at(50),
            self.took.len(),
            self.failed
        );
    }
}

/// Measures with the argument `flood`.
fn beside_a_flood() -> Result<()> {
    let producer = Process::start(&[SERVES])?;
    let to: SocketAddr = producer.await_line()?.parse()?;
    let mut crowd = Process::start(&[FLOODS, &to.to_string()])?;
    let [mut alone, mut beside] = [(); 2].map(|()| Times::default());
    for _ in 0..ROUNDS {
        for _ in 0..CONNECTS {
            alone.connect(to)?;
        }
        crowd.begin()?;
        crowd.await_line()?;
        for _ in 0..CONNECTS {
            beside.connect(to)?;
            std::thread::sleep(Duration::from_millis(10));
        }
        crowd.begin()?;
        crowd.await_line()?;
    }
    println!(
        "A reader connects while another address makes {OTHER_KEY} connections a second with another key."
    );
    println!("{HEADER}");
    alone.print("without the flood", &alone);
    beside.print("beside the flood", &alone);
    crowd.stop()?;
    producer.stop()
}

fn main() -> Result<()> {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [SERVES] => return serve(),
        [CROWDS, to, hosts] => return crowd(to.parse()?, hosts.parse()?),
        [FLOODS, to] => return flood(to.parse()?),
        ["flood"] => return beside_a_flood(),
        _ => {}
    }
    let hosts = if arguments.iter().any(|argument| argument == "one") { 0 } else { HOSTS };
    let producer = Process::start(&[SERVES])?;
    let to: SocketAddr = producer.await_line()?.parse()?;
    let mut crowd = Process::start(&[CROWDS, &to.to_string(), &hosts.to_string()])?;

    let [mut alone, mut arriving, mut beside] = [(); 3].map(|()| Times::default());
    for _ in 0..ROUNDS {
        for _ in 0..CONNECTS {
            alone.connect(to)?;
        }
        crowd.begin()?;
        while crowd.lines.try_recv().is_err() {
            arriving.connect(to)?;
        }
        for _ in 0..CONNECTS {
            beside.connect(to)?;
        }
        crowd.begin()?;
        crowd.await_line()?;
    }
    println!(
        "A reader connects, and {SILENT} silent connections, {HALF_SPOKEN} half-spoken ones and {OTHER_KEY} with \
         another key do so too, from {}.",
        if hosts == 0 { "the reader's address".into() } else { format!("{hosts} other addresses") }
    );
    println!("{HEADER}");
    alone.print("without the crowd", &alone);
    arriving.print("while it arrives", &alone);
    beside.print("beside those that stay", &alone);
    crowd.stop()?;
    producer.stop()
}
