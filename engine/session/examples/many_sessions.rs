//! Measures many sessions: threads and resident memory of each end, sessions made per second, and
//! what a request costs the producer while thousands of other sessions are idle.
//!
//! `cargo run --release -p kvrail-session --example many_sessions -- 10000` makes 10,000 sessions
//! over loopback from one process to another, each with the handshake, the offer of a pool, and a
//! message from each side every two seconds. A third process has one session alone, for comparison.
//! The limit on open files bounds the number (`ulimit -Hn`).

use std::error::Error;
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use kvrail_core::id::{MAX_RAILS, RailIndex};
use kvrail_core::remote::{RegionOffer, TableOffer};
use kvrail_host::reactor::{Connection, ConnectionId, Flow, Handle, Reactor};
use kvrail_layouts::catalogue::VllmFp8DsMla;
use kvrail_session::{
    LaneAcceptor, LaneBlob, LaneEndError, LaneNumber, Layout, Name, OfferedRegion, PeerKey, PeerKeys, Pool,
    PoolId, ProducerDescription, RailAddress, RailDescription, RailList, RailPair, ReaderDescription, Server,
    ServerConfig, Session, SessionEvent, TransportKind,
};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// How many sessions are being made at a time: a producer lets one address have 128 handshakes.
const AT_ONCE: usize = 100;
const LIMIT: Duration = Duration::from_secs(120);
/// The first argument of a process that serves.
const SERVES: &str = "serves";
/// Requests of one round.
const REQUESTS: u32 = 5;
/// Rounds with each of the two producers.
const ROUNDS: u32 = 3000;

fn key() -> PeerKey {
    PeerKey::from_bytes([7; 32])
}

/// The producer's side of a transport of eight rails that makes lanes at once.
struct EightRails;

impl LaneAcceptor for EightRails {
    type Lane = ();

    fn rails(&self) -> RailList {
        let rail = |index| RailDescription {
            name: Name::lossy(&format!("mlx5_{index}")),
            kind: TransportKind::Verbs,
            address: RailAddress([0; 64]),
            nominal_bytes_per_sec: 49_000_000_000,
            numa: None,
            lanes: 0,
        };
        (0..8).map(rail).collect()
    }

    fn accept(&self, _: RailIndex, _: &LaneBlob) -> std::result::Result<((), LaneBlob), LaneEndError> {
        Ok(((), LaneBlob::EMPTY))
    }

    fn release(&self, (): ()) {}
}

/// A process that serves until its input ends.
fn serve() -> Result<()> {
    let layout = Layout::of::<VllmFp8DsMla>()?;
    let page_bytes = layout.page_bytes.get();
    let keys = [7; MAX_RAILS];
    let pool = |id: u32| -> Result<Pool> {
        let region = OfferedRegion::new(RegionOffer {
            base: u64::from(id) << 40,
            page_bytes,
            stride: page_bytes,
            slots: 1000,
            keys,
            table: Some(TableOffer { base: 0, keys }),
        });
        Ok(Pool::new(PoolId(id), layout, vec![region?])?)
    };
    let pools = (1..9).map(pool).collect::<Result<Vec<_>>>()?;
    let producer = ProducerDescription { node: "prefill-1".parse()?, pools };
    let server =
        Server::start(&"127.0.0.1:0".parse()?, key(), producer, EightRails, ServerConfig::default())?;
    println!("{}", server.local_addr());
    io::stdin().read_line(&mut String::new())?;
    Ok(())
}

/// A process that serves, as the process with the readers sees it.
struct Producer {
    process: Child,
    address: SocketAddr,
}

impl Producer {
    fn start() -> Result<Self> {
        let mut process = Command::new(std::env::current_exe()?)
            .arg(SERVES)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut line = String::new();
        BufReader::new(process.stdout.take().ok_or("no output")?).read_line(&mut line)?;
        let address = line.trim().parse()?;
        Ok(Self { process, address })
    }

    fn stop(mut self) -> Result<()> {
        self.process.stdin.take().ok_or("no input")?.write_all(b"\n")?;
        if self.process.wait()?.success() { Ok(()) } else { Err("the producer has failed".into()) }
    }
}

/// What a session tells the main thread.
enum Told {
    Established,
    Lane,
    Ended(String),
}

/// A reader's session on a reactor.
struct ReaderEnd {
    session: Session,
    tell: Sender<Told>,
    /// Requests that the main thread wants made. An idle session has none.
    wanted: Option<Arc<AtomicU32>>,
    lanes: Vec<LaneNumber>,
}

impl ReaderEnd {
    /// Passes on what has happened.
    fn events(&mut self) {
        while let Some(event) = self.session.next_event() {
            let told = match event {
                SessionEvent::Established(_) => Told::Established,
                SessionEvent::Lane(number, result) => {
                    if result.is_err() {
                        return;
                    }
                    self.lanes.push(number);
                    Told::Lane
                }
                SessionEvent::Ended(why) => Told::Ended(why.to_string()),
                _ => continue,
            };
            // Fails when the main thread has ended.
            let _ = self.tell.send(told);
        }
    }
}

impl Connection for ReaderEnd {
    fn received(&mut self, now: Instant, bytes: &[u8]) -> Flow {
        let flow = self.session.received(now, bytes);
        self.events();
        flow
    }

    fn ended(&mut self, now: Instant, error: Option<io::Error>) {
        self.session.ended(now, error);
        self.events();
    }

    fn fill(&mut self, now: Instant, out: &mut Vec<u8>, room: usize) {
        self.session.fill(now, out, room);
        self.events();
    }

    fn due(&self) -> Instant {
        self.session.due()
    }

    fn tick(&mut self, now: Instant) -> Flow {
        let flow = self.session.tick(now);
        self.events();
        flow
    }

    fn notified(&mut self, now: Instant) -> Flow {
        let wanted = self.wanted.as_ref().map_or(0, |wanted| wanted.swap(0, Ordering::Relaxed));
        self.session.release(&std::mem::take(&mut self.lanes));
        let pair = RailPair { rail: RailIndex(0), remote_rail: RailIndex(0) };
        for _ in 0..wanted {
            if let Err(error) = self.session.ask(pair, LaneBlob::EMPTY, now + LIMIT) {
                let _ = self.tell.send(Told::Ended(error.to_string()));
            }
        }
        Flow::GoOn
    }
}

/// Begins a session with the producer at `to`.
fn begin(
    handle: &Handle,
    to: SocketAddr,
    tell: &Sender<Told>,
    wanted: Option<Arc<AtomicU32>>,
) -> Result<ConnectionId> {
    let now = Instant::now();
    let reader = ReaderDescription::new("decode-1".parse()?, Layout::of::<VllmFp8DsMla>()?);
    let session = Session::new(to.to_string(), &PeerKeys::one(key()), 0, reader, now + LIMIT, now)?;
    let end = ReaderEnd { session, tell: tell.clone(), wanted, lanes: Vec::new() };
    Ok(handle.connect(to, now + LIMIT, Box::new(end))?)
}

fn await_told(told: &Receiver<Told>) -> Result<()> {
    match told.recv_timeout(LIMIT)? {
        Told::Established | Told::Lane => Ok(()),
        Told::Ended(why) => Err(why.into()),
    }
}

/// Resident bytes of a process.
fn resident(process: u32) -> Result<usize> {
    let text = std::fs::read_to_string(format!("/proc/{process}/statm"))?;
    let pages: usize = text.split(' ').nth(1).ok_or("statm has no second field")?.parse()?;
    Ok(pages * rustix::param::page_size())
}

fn threads(process: u32) -> Result<usize> {
    Ok(std::fs::read_dir(format!("/proc/{process}/task"))?.count())
}

/// The time for which threads of a process have run.
fn ran(process: u32) -> Result<Duration> {
    let mut sum = 0;
    for task in std::fs::read_dir(format!("/proc/{process}/task"))? {
        let text = std::fs::read_to_string(task?.path().join("schedstat"))?;
        sum += text.split(' ').next().ok_or("schedstat is empty")?.parse::<u64>()?;
    }
    Ok(Duration::from_nanos(sum))
}

/// A session that makes requests, one after the other.
struct Asker {
    process: u32,
    id: ConnectionId,
    wanted: Arc<AtomicU32>,
    told: Receiver<Told>,
    best: Duration,
}

impl Asker {
    fn new(handle: &Handle, producer: &Producer) -> Result<Self> {
        let (tell, told) = channel();
        let wanted = Arc::default();
        let id = begin(handle, producer.address, &tell, Some(Arc::clone(&wanted)))?;
        await_told(&told)?;
        Ok(Self { process: producer.process.id(), id, wanted, told, best: Duration::MAX })
    }

    /// One round: what a request costs the producer, at best of all rounds.
    fn round(&mut self, handle: &Handle) -> Result<()> {
        let before = ran(self.process)?;
        for _ in 0..REQUESTS {
            self.wanted.store(1, Ordering::Relaxed);
            handle.notify(self.id);
            await_told(&self.told)?;
        }
        self.best = self.best.min((ran(self.process)? - before) / REQUESTS);
        Ok(())
    }
}

fn main() -> Result<()> {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })?;
    let argument = std::env::args().nth(1);
    if argument.as_deref() == Some(SERVES) {
        return serve();
    }
    let files = usize::try_from(maximum.unwrap_or(u64::MAX)).unwrap_or(usize::MAX);
    let wanted = argument.map_or(Ok(10_000), |count| count.parse())?;
    // Some descriptors are needed for other things.
    let count = wanted.min(files.saturating_sub(200)).max(1);

    let (many, lone) = (Producer::start()?, Producer::start()?);
    let (ours, theirs) = (std::process::id(), many.process.id());
    let reactor = Reactor::start("readers")?;
    let handle = reactor.handle();
    // The first session of each producer makes its requests later; it warms both ends up.
    let mut crowded = Asker::new(&handle, &many)?;
    let mut alone = Asker::new(&handle, &lone)?;
    crowded.round(&handle)?;
    alone.round(&handle)?;

    let (tell, told) = channel();
    let before = [resident(ours)?, resident(theirs)?];
    let start = Instant::now();
    for number in 0..count {
        if number >= AT_ONCE {
            await_told(&told)?;
        }
        begin(&handle, many.address, &tell, None)?;
    }
    for _ in 0..count.min(AT_ONCE) {
        await_told(&told)?;
    }
    let took = start.elapsed();
    let bytes =
        |process, before| Ok::<_, Box<dyn Error>>((resident(process)?.saturating_sub(before)) / count);
    println!("{count} sessions over loopback, each with a handshake, an offer and a beat:");
    println!("{:>9.0} sessions made per second", count as f64 / took.as_secs_f64());
    println!("{:>9} bytes resident per session, reader", bytes(ours, before[0])?);
    println!("{:>9} bytes resident per session, producer", bytes(theirs, before[1])?);
    println!("{:>9} threads of the readers' process", threads(ours)?);
    println!("{:>9} threads of the producer's process", threads(theirs)?);

    for _ in 0..ROUNDS {
        crowded.round(&handle)?;
        alone.round(&handle)?;
    }
    println!("what one request for a lane and its answer cost the producer, the best of {ROUNDS} rounds:");
    println!("{:>9} ns alone", alone.best.as_nanos());
    println!("{:>9} ns beside {count} idle sessions", crowded.best.as_nanos());
    println!("{:>9.2} times as much", crowded.best.as_secs_f64() / alone.best.as_secs_f64());
    let ended = told.try_iter().count();
    println!("{:>9} bytes resident per session, reader, after that", bytes(ours, before[0])?);
    println!("{:>9} bytes resident per session, producer, after that", bytes(theirs, before[1])?);
    println!("{ended:>9} sessions have ended meanwhile");

    drop(reactor);
    many.stop()?;
    lone.stop()
}
