//! A reading process: connects, and pulls pages as long as it is told to.

use std::collections::VecDeque;
use std::time::Duration;

use anyhow::{Context, bail};
use kvrail::core::batch::Done;
use kvrail::core::config::EngineConfig;
use kvrail::core::error::PageError;
use kvrail::core::id::MAX_RAILS;
use kvrail::core::memory::Slot;
use kvrail::core::remote::{Location, RemotePage};
use kvrail::core::time::Time;
use kvrail::session::Address;
use kvrail::{Config, Event, Network, Peer, Reader, clock, shm, tcp};
use serde::{Deserialize, Serialize};

use crate::catalogue::Named;
use crate::child::{Order, Reply, Verified, hear, say};
use crate::cli::{Key, ReadOrder, Transport, Verify};
use crate::destination::Destination;
use crate::memcpy::sleep_until;
use crate::pattern;
use crate::rails::{Rails, VerbsArgs};
use crate::window::{Failed, Recorder, Sample, Span};

/// How long a batch may take: no network that pages are read over is so slow.
const BATCH_PATIENCE: Duration = Duration::from_secs(30);
/// How long the producer may take to fill its slots.
const FILL_PATIENCE: Duration = Duration::from_secs(60);

/// All that a worker has to know.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Setup {
    pub(crate) connect: String,
    pub(crate) key: Key,
    pub(crate) transport: Transport,
    pub(crate) layout: String,
    pub(crate) rails: Rails,
    pub(crate) verbs: VerbsArgs,
    pub(crate) lanes_per_rail: u8,
    pub(crate) batch: u16,
    pub(crate) chunk_bytes: Option<u32>,
    pub(crate) concurrency: u8,
    /// Bytes of pages to read; all that is published if not said.
    pub(crate) working_set: Option<u64>,
    /// This worker, and how many share the pages.
    pub(crate) share: (usize, usize),
    /// Threads that read at the same time, those of all workers together.
    pub(crate) threads: usize,
    pub(crate) verify: Verify,
    /// Whether each page's publication entry is read after it.
    pub(crate) validate: bool,
    pub(crate) order: ReadOrder,
    /// The GPU whose memory is read into.
    pub(crate) gpu: Option<u8>,
}

/// The worker's main function.
pub(crate) fn child(setup: &Setup) -> anyhow::Result<()> {
    match setup.transport {
        Transport::Shm => work(setup, shm::rails(setup.rails.count()?.into())?),
        Transport::Tcp => work(setup, tcp::rails(setup.rails.count()?.into())?),
        #[cfg(feature = "verbs")]
        Transport::Verbs => {
            let rails = kvrail::verbs::rails_with(setup.rails.ports()?, setup.verbs.config()?)?;
            work(setup, rails)
        }
        #[cfg(not(feature = "verbs"))]
        Transport::Verbs => crate::rails::not_built(),
    }
}

fn work<N: Network>(setup: &Setup, rails: N) -> anyhow::Result<()> {
    match Worker::start(setup, rails)? {
        Some(worker) => worker.serve(),
        None => Ok(()),
    }
}

struct Worker<N: Network> {
    reader: Reader<N>,
    /// What reports call the transport, and each rail.
    label: String,
    names: Vec<String>,
    peer: Peer,
    address: Address,
    /// Where this worker's pages are, and each page checked against the peer's region.
    locations: Vec<Location>,
    pages: Vec<RemotePage>,
    /// First in, first out, so that destinations go round as sources do.
    slots: VecDeque<Slot>,
    destination: Destination,
    next: usize,
    batch: usize,
    concurrency: usize,
    verify: Verify,
    /// Whether there are cores to spare for looking all the time.
    spins: bool,
    recorder: Recorder,
    arrived: u64,
}

/// What a done page is looked at with.
enum Look<'a> {
    /// In the timed part.
    Count,
    /// After the timed part, while what is in flight ends.
    Wait,
    Compare(&'a [Location], u64, &'a mut Verified),
}

impl<N: Network> Worker<N> {
    /// Connects, and asks the parent before it takes memory; `None` if there is no parent any more.
    fn start(setup: &Setup, rails: N) -> anyhow::Result<Option<Self>> {
        let named = Named::find(&setup.layout).context("no such layout")?;
        let address: Address = setup.connect.parse()?;
        let engine = tune(rails.tuning(), setup.chunk_bytes);
        let config =
            Config { lanes_per_rail: setup.lanes_per_rail.into(), engine: Some(engine), ..Config::default() };
        let label = rails.label();
        let mut names: Vec<_> = (0..MAX_RAILS).map(|rail| rails.name(rail)).collect();
        let mut reader = Reader::start(named.layout, rails, config)?;
        names.truncate(reader.rails());
        let peer = reader.connect(&address, &setup.key.peer_key()?).map_err(hint)?;
        let locations = published(&mut reader, &peer)?;
        let mut locations = share(&locations, setup, named.layout.page_bytes());
        if setup.order == ReadOrder::Shuffled {
            pattern::shuffle(&mut locations);
        }
        let page = |&at: &Location| match setup.validate {
            true => peer.page(at),
            false => peer.regions()[0].unvalidated(at.slot),
        };
        let pages: Vec<_> = locations.iter().map(page).collect::<Result<_, _>>()?;
        let batch = usize::from(setup.batch).min(pages.len());
        let concurrency = usize::from(setup.concurrency);
        let bytes = pages.len() * named.layout.page_bytes() as usize;
        // A GPU's memory is not the host's.
        let host_bytes = if setup.gpu.is_none() { bytes as u64 } else { 0 };
        say(&Reply::Connected { host_bytes })?;
        match hear()? {
            Some(Order::Register) => {}
            Some(order) => bail!("a worker is to register its memory first, and was told: {order:?}"),
            None => return Ok(None),
        }
        let (destination, slots) = Destination::register(&mut reader, bytes, setup.gpu)?;
        let cores = std::thread::available_parallelism().map_or(1, |n| n.get());
        Ok(Some(Self {
            reader,
            label,
            names,
            peer,
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
            recorder: Recorder::new(setup.share.1 == 1),
            arrived: 0,
        }))
    }

    /// Does as it is told, until nothing more is.
    fn serve(mut self) -> anyhow::Result<()> {
        say(&Reply::Ready {
            transport: self.label.clone(),
            rails: self.names.clone(),
            chunk_bytes: self.reader.engine_config().chunk_bytes,
            pages: self.pages.len() as u32,
        })?;
        while let Some(order) = hear()? {
            let reply = match order {
                Order::Round { start, warmup, duration, .. } => {
                    Reply::Ran(self.round(start, warmup, duration)?)
                }
                Order::Count(span) => Reply::Counted(self.recorder.count(span)),
                Order::Verify => Reply::Verified(self.verify()?),
                Order::Register => bail!("a worker registers its memory once"),
            };
            say(&reply)?;
        }
        Ok(())
    }

    /// The timed part: as many batches in flight as told, for as long as told.
    fn round(&mut self, start: u64, warmup: u64, duration: u64) -> anyhow::Result<Span> {
        let window = Span { from: start + warmup, to: start + warmup + duration };
        self.recorder.start(window);
        sleep_until(start);
        let began = clock::now().0;
        loop {
            let now = clock::now();
            if now.0 >= window.to {
                break;
            }
            self.fill(now)?;
            self.reader.poll();
            if !self.take(&mut Look::Count)? && !self.spins {
                self.reader.wait(Time(window.to));
            }
        }
        // All of its pipeline was full from the start to the end.
        let at_work = self.recorder.finish(began, clock::now().0);
        self.drain(&mut Look::Wait)?;
        Ok(at_work)
    }

    /// Submits what may be in flight.
    fn fill(&mut self, now: Time) -> anyhow::Result<()> {
        while self.reader.in_flight() < self.concurrency && self.slots.len() >= self.batch {
            let Some(mut batch) = self.reader.batch() else { return Ok(()) };
            batch.set_tag(now.0);
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

    /// Takes what is done, and says whether there was anything.
    fn take(&mut self, look: &mut Look<'_>) -> anyhow::Result<bool> {
        let mut some = false;
        // What is met together was done together, as far as can be told.
        let at = clock::now().0;
        while let Some(mut done) = self.reader.next_done() {
            some = true;
            let sample = look_at(&mut done, at, &mut self.slots, &mut self.destination, look);
            self.arrived += u64::from(sample.pages);
            if sample.failed.peer_gone > 0 {
                self.check_peer()?;
            }
            if matches!(look, Look::Count) {
                self.recorder.record(&sample);
            }
        }
        Ok(some)
    }

    /// Waits for everything in flight.
    fn drain(&mut self, look: &mut Look<'_>) -> anyhow::Result<()> {
        let until = clock::within(BATCH_PATIENCE + Duration::from_secs(5));
        loop {
            self.reader.poll();
            self.take(look)?;
            if self.reader.in_flight() == 0 {
                return self.check_peer();
            }
            if clock::now() >= until {
                bail!(
                    "{} batches from {} have been under way for too long",
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
        if let Some(Event::Lost { producer, why, .. }) = self.reader.next_event() {
            bail!(
                "the producer {producer} at {} is gone after {} pages had arrived ({}); start it again, and drive with the line that it prints",
                self.address,
                self.arrived,
                why.cause
            );
        }
        Ok(())
    }

    /// Reads every page (or every so manyeth) once and compares it with what the producer wrote.
    fn verify(&mut self) -> anyhow::Result<Verified> {
        let mut verified = Verified::default();
        let Some(step) = self.verify.step() else { return Ok(verified) };
        let seed = self.peer.epoch().0.get();
        let numbers: Vec<usize> = (0..self.pages.len()).step_by(step).collect();
        for some in numbers.chunks(self.batch) {
            let mut batch = self.reader.batch().context("all batches are in use")?;
            let locations: Vec<_> = some.iter().map(|&n| self.locations[n]).collect();
            for &n in some {
                let mut slot = self.slots.pop_front().context("slots were lost")?;
                // Destinations go round as sources do, so it may well hold the very page that is asked for, from
                // the timed part.
                self.destination.wipe(&mut slot)?;
                batch.read(self.pages[n], slot).map_err(|(error, _)| error)?;
            }
            if let Err(rejected) = self.reader.submit(batch, clock::within(BATCH_PATIENCE)) {
                self.check_peer()?;
                return Err(rejected.error.into());
            }
            self.drain(&mut Look::Compare(&locations, seed, &mut verified))?;
        }
        Ok(verified)
    }
}

/// What became of the pages of a batch; their slots go home.
fn look_at(
    done: &mut Done<'static>,
    at: u64,
    slots: &mut VecDeque<Slot>,
    destination: &mut Destination,
    look: &mut Look<'_>,
) -> Sample {
    let took = at.saturating_sub(done.tag());
    let mut sample = Sample { at, took, pages: 0, failed: Failed::default() };
    for page in done.pages() {
        match page.result {
            Ok(()) => sample.pages += 1,
            Err(PageError::Miss(_)) => sample.failed.miss += 1,
            Err(PageError::Fault { .. } | PageError::SetAside { .. }) => sample.failed.fault += 1,
            Err(PageError::Deadline { .. }) => sample.failed.deadline += 1,
            Err(PageError::PeerGone) => sample.failed.peer_gone += 1,
        }
        if let Look::Compare(locations, seed, verified) = look {
            let Location { slot, expected } = locations[page.index];
            if page.result.is_err() {
                verified.missing += 1;
            } else {
                verified.compared += 1;
                let generation = expected.generation.count();
                let bytes = destination.bytes(&page.slot);
                let good = bytes.is_some_and(|b| pattern::check(b, *seed, slot, generation));
                verified.wrong += u64::from(!good);
            }
        }
        slots.push_back(page.slot);
    }
    sample
}

fn tune(figures: EngineConfig, chunk_bytes: Option<u32>) -> EngineConfig {
    let Some(chunk_bytes) = chunk_bytes else { return figures };
    EngineConfig { chunk_bytes, run_bytes: figures.run_bytes.max(chunk_bytes), ..figures }
}

/// Adds what one can do about it.
fn hint(error: kvrail::ConnectError) -> anyhow::Error {
    let text = error.to_string();
    let hint = if text.contains("refused (os error") {
        "is `kvrail-bench serve` running there, at that port?"
    } else if text.contains("the peer keys differ") {
        "take --key from the line that serve printed, or the same --key-file"
    } else if text.contains("the layouts differ") {
        "drive with the --layout that serve was started with"
    } else if text.contains("no transport in common") {
        "drive with the --transport that serve was started with"
    } else {
        return error.into();
    };
    anyhow::anyhow!("{text}; {hint}")
}

/// All that the producer publishes, once it has filled its slots.
fn published<N: Network>(reader: &mut Reader<N>, peer: &Peer) -> anyhow::Result<Vec<Location>> {
    let until = clock::within(FILL_PATIENCE);
    let slots = peer.regions()[0].slots();
    loop {
        let locations = reader.published(peer, 0, until).context("the producer's pages")?;
        if locations.len() == slots as usize {
            return Ok(locations);
        }
        if clock::now() >= until {
            bail!(
                "the producer has published {} of its {slots} pages, and no more for a minute",
                locations.len()
            );
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// This worker's share of the pages: at least one.
fn share(locations: &[Location], setup: &Setup, page_bytes: u32) -> Vec<Location> {
    let (number, of) = setup.share;
    let wanted = setup.working_set.map_or(locations.len(), |bytes| (bytes / u64::from(page_bytes)) as usize);
    let wanted = wanted.clamp(1, locations.len());
    let (from, to) = (number * wanted / of, (number + 1) * wanted / of);
    // More workers than pages: some read the same.
    let (from, to) = if from < to { (from, to) } else { (from.min(wanted - 1), from.min(wanted - 1) + 1) };
    locations[from..to].to_vec()
}
