//! The reading process: it connects, and pulls pages in the rounds that its parent orders.

use std::collections::VecDeque;
use std::io::ErrorKind;
use std::ops::Range;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use kvrail::core::batch::Done;
use kvrail::core::error::PageError;
use kvrail::core::id::MAX_RAILS;
use kvrail::core::memory::Slot;
use kvrail::core::remote::{Location, RemotePage};
use kvrail::core::time::Time;
use kvrail::session::{Address, Cause, Refusal};
use kvrail::{
    Config, ConnectError, PageLayout, Peer, PeerPool, Reader, ReaderEvent, ReaderTransport, clock, shm, tcp,
};

use crate::catalogue::NamedLayout;
use crate::cli::common::{ReadOrder, Transport, Verify};
use crate::machine::memory::kib;
use crate::measure::clock::sleep_until;
use crate::measure::destination::Destination;
use crate::measure::node::with_chunk;
use crate::measure::pattern;
use crate::measure::schedule::{Load, Schedule};
use crate::measure::window::{Count, Counter, Failed, Recorder, Sample, Span};
use crate::process::protocol::{Order, Ready, Reply, Verified, WorkerSetup, receive, send};

/// How long a batch may take. No network that pages are read over is so slow.
const BATCH_PATIENCE: Duration = Duration::from_secs(30);
/// How long the engine may take to hand an overdue batch back.
const GRACE: Duration = Duration::from_secs(5);
/// The time between two stalls, in nanoseconds.
const STALLS: u64 = 100_000_000;
/// How long the producer may take to publish all its slots.
const FILL_PATIENCE: Duration = Duration::from_secs(60);

/// The worker's main function.
pub(crate) fn child(setup: &WorkerSetup) -> anyhow::Result<()> {
    match setup.transport {
        Transport::Shm => work(setup, shm::rails(setup.rails.count()?.into())?),
        Transport::Tcp => work(setup, tcp::rails(setup.rails.count()?.into())?),
        #[cfg(feature = "verbs")]
        Transport::Verbs => {
            let rails = kvrail::verbs::rails_with(setup.rails.ports()?, setup.verbs.config()?)?;
            work(setup, rails)
        }
        #[cfg(not(feature = "verbs"))]
        Transport::Verbs => crate::cli::rails::not_built(),
    }
}

fn work<N: ReaderTransport>(setup: &WorkerSetup, rails: N) -> anyhow::Result<()> {
    match Worker::start(setup, rails)? {
        Some(worker) => worker.carry_out_orders(),
        None => Ok(()),
    }
}

struct Worker<N: ReaderTransport> {
    reader: Reader<N>,
    /// The transport's name in reports.
    label: String,
    layout: PageLayout,
    /// The rails' names in reports.
    names: Vec<String>,
    /// While it is there the connection is.
    _peer: Peer,
    address: Address,
    /// The locations of this worker's pages.
    locations: Vec<Location>,
    /// The same pages, checked against the peer's region.
    pages: Vec<RemotePage>,
    /// A queue, so that destinations take turns as sources do.
    slots: VecDeque<Slot>,
    destination: Destination,
    /// The index of the page that is read next.
    next: usize,
    /// Pages of a batch.
    batch: usize,
    /// Batches in flight.
    concurrency: usize,
    verify: Verify,
    /// Whether it polls all the time instead of sleeping, since there are cores to spare.
    spins: bool,
    recorder: Recorder,
    counter: Counter,
    /// Pages that have arrived so far.
    arrived: u64,
    /// Bytes that each rail carried in the last round.
    rail_bytes: Vec<u64>,
    load: Load,
    schedule: Schedule,
}

/// What is done with the batches that come back.
enum Purpose<'a> {
    /// In the timed part they are counted.
    Count,
    /// After the timed part they are only awaited.
    Drain,
    /// In the comparison their pages are compared with what the locations of the batch name.
    Compare(&'a [Location], &'a mut Verified),
}

impl<N: ReaderTransport> Worker<N> {
    /// Connects, and waits for the parent's order before it takes memory. `None`: the parent is
    /// gone.
    fn start(setup: &WorkerSetup, rails: N) -> anyhow::Result<Option<Self>> {
        let named = NamedLayout::find(&setup.layout)
            .with_context(|| format!("no layout is called {}", setup.layout))?;
        let address: Address = setup.connect.parse()?;
        let engine = with_chunk(rails.engine_config(), setup.chunk_bytes);
        let config =
            Config { lanes_per_rail: setup.lanes_per_rail.into(), engine: Some(engine), ..Config::default() };
        let label = rails.label();
        let mut names: Vec<_> = (0..MAX_RAILS).map(|rail| rails.name(rail)).collect();
        let mut reader = Reader::start(named.layout, rails, config)?;
        names.truncate(reader.rails());
        let peer = reader.connect(&address, &setup.key.peer_key()?).map_err(with_hint)?;
        let pool = peer.pool_of(&named.layout)?;
        let locations = published(&mut reader, &peer, pool)?;
        let wanted = wanted(locations.len(), setup, named.layout.page_bytes());
        let mut locations = locations[share(wanted, setup)].to_vec();
        if setup.order == ReadOrder::Shuffled {
            pattern::shuffle(&mut locations);
            // The batch stays scattered over the pool. Entries that ascend are cheaper to read.
            let batch = usize::from(setup.batch).max(1);
            locations.chunks_mut(batch).for_each(|batch| batch.sort_unstable_by_key(|at| at.slot));
        }
        let page = |&at: &Location| match setup.validate {
            true => pool.page(at),
            false => pool.unvalidated(at.slot),
        };
        let pages: Vec<_> = locations.iter().map(page).collect::<Result<_, _>>()?;
        let batch = usize::from(setup.batch).min(pages.len());
        let concurrency = usize::from(setup.concurrency);
        let bytes = pages.len() * named.layout.page_bytes() as usize;
        // A GPU's memory is not the host's.
        let host_bytes = if setup.gpu.is_none() { bytes as u64 } else { 0 };
        send(&Reply::Connected { host_bytes })?;
        match receive()? {
            Some(Order::Register) => {}
            Some(order) => bail!("a worker registers its memory first, and was told: {order:?}"),
            None => return Ok(None),
        }
        let (destination, slots) = Destination::register(&mut reader, bytes, setup.gpu)?;
        let cores = std::thread::available_parallelism().map_or(1, |n| n.get());
        Ok(Some(Self {
            reader,
            label,
            layout: named.layout,
            names,
            _peer: peer,
            address,
            locations,
            pages,
            slots,
            destination,
            next: 0,
            batch,
            concurrency,
            verify: setup.verify,
            spins: cores > setup.threads,
            recorder: Recorder::new(setup.alone),
            counter: Counter::new(),
            arrived: 0,
            rail_bytes: Vec::new(),
            load: setup.load,
            schedule: Schedule::new(setup.load, 1),
        }))
    }

    /// Carries out orders until the parent closes the pipe.
    fn carry_out_orders(mut self) -> anyhow::Result<()> {
        send(&Reply::Ready(Ready {
            transport: self.label.clone(),
            rails: self.names.clone(),
            chunk_bytes: self.reader.engine_config().chunk_bytes,
            pages: self.pages.len() as u32,
            metrics: None,
        }))?;
        while let Some(order) = receive()? {
            let reply = match order {
                Order::Round { start, warmup, duration, .. } => {
                    Reply::Ran(self.round(start, warmup, duration)?)
                }
                Order::Count(span) => {
                    let rail_bytes = self.rail_bytes.clone();
                    let count = self.counter.count([&self.recorder], span);
                    Reply::Counted(Count { rail_bytes, resident: resident_bytes(), ..count })
                }
                Order::Verify => Reply::Verified(self.verify()?),
                Order::Register | Order::Churn(_) => {
                    bail!("a worker registers its memory once, and was told: {order:?}")
                }
            };
            send(&reply)?;
            if let Reply::Counted(count) = reply {
                self.counter.give_back(count);
            }
        }
        Ok(())
    }

    /// The timed part: keeps `concurrency` batches in flight until the end of the window.
    fn round(&mut self, start: u64, warmup: u64, duration: u64) -> anyhow::Result<Span> {
        let window = Span { from: start + warmup, to: start + warmup + duration };
        self.recorder.start(window);
        sleep_until(start);
        let began = clock::now().0;
        let before = self.carried();
        self.schedule.start(start, 0, 1);
        let mut stall = start + STALLS;
        loop {
            let mut now = clock::now();
            if now.0 >= window.to {
                break;
            }
            if self.load.stall > 0 && now.0 >= stall {
                std::thread::sleep(Duration::from_nanos(self.load.stall));
                now = clock::now();
                stall += STALLS;
            }
            self.fill(now)?;
            self.reader.poll();
            if !self.take(&mut Purpose::Count)? && !self.spins {
                // The next batch may have to begin before anything arrives.
                let next = self.schedule.next().filter(|&at| at > now.0).unwrap_or(window.to);
                self.reader.wait(Time(next.min(window.to)));
            }
        }
        // The pipeline was full from `began` until now.
        let at_work = self.recorder.finish(began, clock::now().0);
        let carried = self.carried();
        self.rail_bytes = carried.iter().zip(&before).map(|(now, before)| now - before).collect();
        self.drain(&mut Purpose::Drain)?;
        Ok(at_work)
    }

    /// Bytes that each rail has carried so far.
    fn carried(&self) -> Vec<u64> {
        (0..self.reader.rails())
            .map(|rail| self.reader.rail_stats(rail).map_or(0, |stats| stats.bytes))
            .collect()
    }

    /// Submits batches until `concurrency` of them are in flight.
    fn fill(&mut self, now: Time) -> anyhow::Result<()> {
        while self.reader.in_flight() < self.concurrency && self.slots.len() >= self.batch {
            if self.schedule.next().is_some_and(|at| at > now.0) {
                return Ok(());
            }
            let Some(mut batch) = self.reader.batch() else { return Ok(()) };
            batch.set_tag(self.schedule.begin(now.0).unwrap_or(now.0));
            for _ in 0..self.batch {
                let Some(slot) = self.slots.pop_front() else { break };
                let page = self.pages[self.next];
                self.next = if self.next + 1 == self.pages.len() { 0 } else { self.next + 1 };
                if let Err((error, slot)) = batch.read(page, slot) {
                    self.slots.push_back(slot);
                    return Err(error.into());
                }
            }
            let deadline = now + kvrail::core::time::Nanos(BATCH_PATIENCE.as_nanos() as u64);
            if let Err(rejected) = self.reader.submit(batch, deadline) {
                self.check_peer()?;
                return Err(rejected.error.into());
            }
        }
        Ok(())
    }

    /// Takes the batches that are done, and returns whether there were any.
    fn take(&mut self, purpose: &mut Purpose<'_>) -> anyhow::Result<bool> {
        let mut any = false;
        // Batches that are found together get the same time, since nothing shows which was done
        // first.
        let at = clock::now().0;
        while let Some(mut done) = self.reader.next_done() {
            any = true;
            let sample = self.take_pages(&mut done, at, purpose);
            self.arrived += u64::from(sample.pages);
            if sample.failed.peer_gone > 0 {
                self.check_peer()?;
            }
            if matches!(purpose, Purpose::Count) {
                self.recorder.record(&sample);
            }
        }
        Ok(any)
    }

    /// Sums up what happened to the pages of a batch, compares them if that is the purpose, and
    /// takes their slots back.
    fn take_pages(&mut self, done: &mut Done<'static>, at: u64, purpose: &mut Purpose<'_>) -> Sample {
        let took = at.saturating_sub(done.tag());
        let mut sample = Sample { at, took, pages: 0, failed: Failed::default() };
        for page in done.pages() {
            match page.result {
                Ok(()) => sample.pages += 1,
                Err(PageError::Miss(_)) => sample.failed.miss += 1,
                Err(PageError::Deadline { .. } | PageError::NoLane { .. }) => sample.failed.deadline += 1,
                Err(PageError::PeerGone) => sample.failed.peer_gone += 1,
                // `Fault`, `SetAside`, and what later versions add.
                Err(_) => sample.failed.fault += 1,
            }
            if let Purpose::Compare(locations, verified) = purpose {
                if page.result.is_err() {
                    verified.missing += 1;
                } else {
                    verified.compared += 1;
                    let key = locations[page.index].expected.tag.0;
                    let good = self.destination.has(&self.reader, &self.layout, &page.slot, key);
                    verified.wrong += u64::from(!good);
                }
            }
            self.slots.push_back(page.slot);
        }
        sample
    }

    /// Waits until nothing is in flight.
    fn drain(&mut self, purpose: &mut Purpose<'_>) -> anyhow::Result<()> {
        let until = clock::within(BATCH_PATIENCE + GRACE);
        loop {
            self.reader.poll();
            self.take(purpose)?;
            if self.reader.in_flight() == 0 {
                return self.check_peer();
            }
            if clock::now() >= until {
                bail!(
                    "{} batches from {} did not end within {BATCH_PATIENCE:?}, nor in the {GRACE:?} after it",
                    self.reader.in_flight(),
                    self.address
                );
            }
            self.reader.wait(until);
        }
    }

    /// An error if the producer is gone.
    fn check_peer(&mut self) -> anyhow::Result<()> {
        self.reader.poll();
        if let Some(ReaderEvent::Lost { producer, why, .. }) = self.reader.next_event() {
            bail!(
                "the producer {producer} at {} is gone after {} pages had arrived ({}); start it again, and run the line that it prints",
                self.address,
                self.arrived,
                why.cause
            );
        }
        Ok(())
    }

    /// Reads every n-th page once and compares it with what the producer wrote.
    fn verify(&mut self) -> anyhow::Result<Verified> {
        let mut verified = Verified::default();
        let Some(step) = self.verify.step() else { return Ok(verified) };
        let numbers: Vec<usize> = (0..self.pages.len()).step_by(step).collect();
        for numbers in numbers.chunks(self.batch) {
            let mut batch = self.reader.batch().context("no batch is free, although nothing is in flight")?;
            let locations: Vec<_> = numbers.iter().map(|&n| self.locations[n]).collect();
            for &n in numbers {
                let mut slot =
                    self.slots.pop_front().context("no slot is free, although nothing is in flight")?;
                // Destinations take turns as sources do, so this slot may hold the requested page
                // already, from the timed part.
                self.destination.wipe(&self.reader, &self.layout, &mut slot)?;
                batch.read(self.pages[n], slot).map_err(|(error, _)| error)?;
            }
            if let Err(rejected) = self.reader.submit(batch, clock::within(BATCH_PATIENCE)) {
                self.check_peer()?;
                return Err(rejected.error.into());
            }
            self.drain(&mut Purpose::Compare(&locations, &mut verified))?;
        }
        Ok(verified)
    }
}

/// The memory of this process that is present, in bytes; 0 where the system does not say. Pages of
/// the program's own file are left out: the system takes them away and back as it likes.
pub(crate) fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let of = |name| kib(&status, name).unwrap_or(0);
    of("RssAnon") + of("RssShmem")
}

/// Adds to an error what its user can do about it.
fn with_hint(error: ConnectError) -> anyhow::Error {
    let hint = match &error {
        ConnectError::Session(session) => match &session.cause {
            Cause::Refused { refusal: Refusal::Key(_), .. } => {
                "take --key from the line that serve printed, or give the same --key-file"
            }
            Cause::Io(io) if io.kind() == ErrorKind::ConnectionRefused => {
                "is `kvrail-bench serve` running there, at that port?"
            }
            _ => return error.into(),
        },
        ConnectError::NoPool { .. } => "drive with the --layout that serve was started with",
        ConnectError::Transport { .. } => "drive with the --transport that serve was started with",
        _ => return error.into(),
    };
    anyhow!("{error}; {hint}")
}

/// The locations of all pages of `pool`, the only one that the peer was asked for, once every slot
/// has been published.
fn published<N: ReaderTransport>(
    reader: &mut Reader<N>,
    peer: &Peer,
    pool: &PeerPool,
) -> anyhow::Result<Vec<Location>> {
    let until = clock::within(FILL_PATIENCE);
    let slots = pool.slots();
    loop {
        // A pool may come in pieces, and its slots are numbered through all of them.
        let (mut locations, mut first) = (Vec::new(), 0);
        for (piece, region) in pool.regions().iter().enumerate() {
            let some = reader.published(peer, piece, until);
            let some = some.context("cannot read the producer's publication table")?;
            locations.extend(some.into_iter().map(|at| Location { slot: first + at.slot, ..at }));
            first += region.slots();
        }
        if locations.len() as u64 == slots {
            return Ok(locations);
        }
        if clock::now() >= until {
            bail!(
                "the producer has published only {} of its {slots} pages within {FILL_PATIENCE:?}; wait until serve has printed its line",
                locations.len()
            );
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// How many of the published pages all workers read together.
pub(crate) fn wanted(published: usize, setup: &WorkerSetup, page_bytes: u32) -> usize {
    let wanted = setup.working_set.map_or(published, |bytes| (bytes / u64::from(page_bytes)) as usize);
    wanted.clamp(1, published)
}

/// This worker's share of `wanted` pages, which is at least one page.
pub(crate) fn share(wanted: usize, setup: &WorkerSetup) -> Range<usize> {
    let (number, of) = (setup.number, setup.workers);
    let (from, to) = (number * wanted / of, (number + 1) * wanted / of);
    // With more workers than pages some workers read the same page.
    if from < to { from..to } else { from.min(wanted - 1)..from.min(wanted - 1) + 1 }
}
