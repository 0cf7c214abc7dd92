//! A reader that reads all the time and accounts for every page.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use kvrail::core::batch::Ticket;
use kvrail::core::config::EngineConfig;
use kvrail::core::error::PageError;
use kvrail::core::memory::Slot;
use kvrail::core::rail::RailStats;
use kvrail::core::remote::{Location, RemotePage};
use kvrail::core::time::{Nanos, Time};
use kvrail::verbs::{self, VerbsRails};
use kvrail::{Config, Peer, Reader, ReaderEvent, ReaderTransport as _, clock, memory};

use super::producer::key;
use super::{CHUNK, LAYOUT, Producer, page};

/// Pages in a batch.
pub(crate) const BATCH: usize = 16;
/// Batches in flight by default.
pub(crate) const FLIGHT: usize = 4;
/// The longest that a test waits for anything. It only bounds hanging: on a busy host everything in
/// the guest is late, which must not fail a test.
pub(crate) const HANGS: Duration = Duration::from_secs(120);
/// The byte that fills a slot before a page is read into it.
const WIPED: u8 = 0xA5;

/// How many pages were submitted, and how they ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) submitted: u64,
    /// Pages that arrived, with every byte right.
    pub(crate) arrived: u64,
    /// Pages that missed their deadline.
    pub(crate) late: u64,
    /// Pages whose peer was gone.
    pub(crate) gone: u64,
}

struct Sent {
    pages: Vec<usize>,
    at: Instant,
    deadline: Time,
    ticket: Ticket,
    told: bool,
}

/// Reads pages of one producer, over and over.
pub(crate) struct Load {
    pub(crate) reader: Reader<VerbsRails>,
    peer: Option<Peer>,
    pages: Vec<RemotePage>,
    expected: Vec<Vec<u8>>,
    /// Slots that no batch uses.
    home: Vec<Slot>,
    flight: usize,
    sent: HashMap<u64, Sent>,
    tags: u64,
    next: usize,
    pub(crate) tally: Tally,
    /// How long a batch may take.
    pub(crate) patience: Duration,
    last: Instant,
    /// The longest time in which no page arrived.
    pub(crate) gap: Duration,
    /// The longest that a batch took.
    pub(crate) slowest: Duration,
    /// The longest time from a batch's deadline until the batch was done or reported late.
    pub(crate) overrun: Duration,
    /// Polls that began after the deadline of a batch, and after which the batch was neither done
    /// nor reported late. There must be none.
    pub(crate) untold: u64,
    pub(crate) lost: Option<String>,
}

impl Load {
    pub(crate) fn new(rails: VerbsRails, lanes_per_rail: usize, flight: usize) -> Self {
        let engine = EngineConfig { chunk_bytes: CHUNK, ..rails.engine_config() };
        let config = Config { lanes_per_rail, engine: Some(engine), ..Config::default() };
        let mut reader = Reader::start(LAYOUT, rails, config).unwrap();
        // One batch more than is in flight, so that a slot that came back twice would show.
        let bytes = (flight + 1) * BATCH * LAYOUT.page_bytes() as usize;
        let home = reader.register(memory::leaked(bytes).unwrap()).unwrap().collect();
        Self {
            reader,
            peer: None,
            pages: Vec::new(),
            expected: Vec::new(),
            home,
            flight,
            sent: HashMap::new(),
            tags: 0,
            next: 0,
            tally: Tally::default(),
            patience: HANGS,
            last: Instant::now(),
            gap: Duration::ZERO,
            slowest: Duration::ZERO,
            overrun: Duration::ZERO,
            untold: 0,
            lost: None,
        }
    }

    /// Over `rails` with the default configuration, connected to `producer`.
    pub(crate) fn start(rails: &str, producer: &Producer) -> Self {
        let mut load = Self::new(verbs::rails(rails).unwrap(), 2, FLIGHT);
        load.connect(producer);
        load
    }

    /// Reads from `producer` from now on.
    pub(crate) fn connect(&mut self, producer: &Producer) {
        let peer = self.reader.connect(&producer.address, key()).unwrap();
        let locations: Vec<Location> = self.reader.published(&peer, 0, clock::within(HANGS)).unwrap();
        assert_eq!(locations.len(), super::SLOTS as usize);
        self.pages = locations.iter().map(|&l| peer.page(l).unwrap()).collect();
        self.expected = locations.iter().map(|l| page(producer.seed, l.slot)).collect();
        (self.peer, self.lost) = (Some(peer), None);
        self.forget_times();
    }

    /// Forgets the times measured so far.
    pub(crate) fn forget_times(&mut self) {
        self.last = Instant::now();
        (self.gap, self.slowest, self.overrun) = (Duration::ZERO, Duration::ZERO, Duration::ZERO);
    }

    /// Reads for this time.
    pub(crate) fn run(&mut self, duration: Duration) {
        let start = Instant::now();
        while start.elapsed() < duration {
            self.submit();
            self.take();
        }
        self.note_gap();
    }

    /// Reads until `enough`, which `what` says in words.
    ///
    /// # Panics
    ///
    /// `enough` does not hold after [`HANGS`].
    pub(crate) fn run_until(&mut self, what: &str, mut enough: impl FnMut(&Self) -> bool) {
        let start = Instant::now();
        while !enough(self) {
            assert!(start.elapsed() < HANGS, "after {HANGS:?} not yet: {what}; {}", self.state());
            self.submit();
            self.take();
        }
        self.note_gap();
    }

    /// The state in words, for a failed test.
    pub(crate) fn state(&self) -> String {
        let stats: Vec<_> = (0..self.reader.rails()).map(|rail| self.stats(rail)).collect();
        format!("{} in flight, {:?}, lost: {:?}, {stats:#?}", self.sent.len(), self.tally, self.lost)
    }

    /// Reads until `pages` more have arrived.
    pub(crate) fn run_pages(&mut self, pages: u64) {
        let enough = self.tally.arrived + pages;
        self.run_until("more pages", |load| load.tally.arrived >= enough);
    }

    /// Reads while another thread does `work`, which may take its time.
    pub(crate) fn during<R: Send>(&mut self, work: impl FnOnce() -> R + Send) -> R {
        std::thread::scope(|scope| {
            let worker = scope.spawn(work);
            while !worker.is_finished() {
                self.submit();
                self.take();
            }
            worker.join().unwrap()
        })
    }

    /// Submits nothing more, waits for all batches in flight, and checks that every page is
    /// accounted for. That takes the patience of a batch and the time of a flush at most.
    pub(crate) fn finish(&mut self) -> Tally {
        let until = Instant::now() + self.patience + HANGS;
        while !self.sent.is_empty() {
            assert!(Instant::now() < until, "{} batches never came back: {:?}", self.sent.len(), self.tally);
            self.take();
        }
        let Tally { submitted, arrived, late, gone } = self.tally;
        assert_eq!(arrived + late + gone, submitted, "{:?}", self.tally);
        assert_eq!(self.untold, 0, "polls that did not tell what was late");
        assert_eq!(self.home.len(), (self.flight + 1) * BATCH, "slots were lost");
        let mut numbers: Vec<usize> = self.home.iter().map(Slot::index).collect();
        numbers.sort_unstable();
        numbers.dedup();
        assert_eq!(numbers.len(), self.home.len(), "a slot came back twice");
        assert_eq!((self.reader.in_flight(), self.reader.next_done().is_none()), (0, true));
        self.tally
    }

    /// Finishes, and checks that every page has arrived.
    pub(crate) fn finish_with_all(&mut self) -> Tally {
        let tally = self.finish();
        assert_eq!((tally.late, tally.gone), (0, 0), "{tally:?}, {:?}", self.lost);
        assert!(tally.arrived > 0);
        tally
    }

    pub(crate) fn stats(&self, rail: usize) -> RailStats {
        self.reader.rail_stats(rail).unwrap()
    }

    pub(crate) fn in_flight(&self) -> usize {
        self.sent.len()
    }

    /// A counter, summed over all rails.
    pub(crate) fn sum(&self, of: impl Fn(RailStats) -> u64) -> u64 {
        (0..self.reader.rails()).map(|rail| of(self.stats(rail))).sum()
    }

    fn submit(&mut self) {
        while self.lost.is_none() && self.sent.len() < self.flight && self.home.len() >= BATCH {
            let Some(mut batch) = self.reader.batch() else { break };
            self.tags += 1;
            batch.set_tag(self.tags);
            let mut pages = Vec::with_capacity(BATCH);
            for mut slot in self.home.drain(..BATCH) {
                slot.bytes_mut().unwrap().fill(WIPED);
                pages.push(self.next);
                batch.read(self.pages[self.next], slot).map_err(|(error, _)| error).unwrap();
                self.next = (self.next + 1) % self.pages.len();
            }
            let deadline = clock::within(self.patience);
            match self.reader.submit(batch, deadline) {
                Ok(ticket) => {
                    self.tally.submitted += BATCH as u64;
                    let at = Instant::now();
                    self.sent.insert(self.tags, Sent { pages, at, deadline, ticket, told: false });
                }
                Err(mut rejected) => {
                    // The peer was lost while the batch was filled.
                    self.home.extend(rejected.batch.clear());
                    self.events();
                    assert!(self.lost.is_some(), "{}", rejected.error);
                }
            }
        }
    }

    fn take(&mut self) {
        let polled = clock::now();
        self.reader.poll();
        let mut some = false;
        while let Some(mut done) = self.reader.next_done() {
            some = true;
            let sent = self.sent.remove(&done.tag()).expect("a batch came back twice, or was never sent");
            let mut seen = vec![false; sent.pages.len()];
            for mut page in done.pages() {
                assert!(!std::mem::replace(&mut seen[page.index], true), "page {} twice", page.index);
                match page.result() {
                    Ok(()) => {
                        let expected = &self.expected[sent.pages[page.index]];
                        let bytes = page.slot.bytes_mut().unwrap();
                        assert!(bytes == &expected[..], "page {} differs", sent.pages[page.index]);
                        self.tally.arrived += 1;
                        self.gap = self.gap.max(self.last.elapsed());
                        self.last = Instant::now();
                    }
                    Err(PageError::Deadline { .. } | PageError::NoLane { .. }) => self.tally.late += 1,
                    Err(PageError::PeerGone) => self.tally.gone += 1,
                    Err(error) => panic!("{error}"),
                }
                self.home.push(page.slot);
            }
            assert!(seen.iter().all(|&s| s), "pages are missing from a batch");
            self.slowest = self.slowest.max(sent.at.elapsed());
            if !sent.told {
                self.overrun = self.overrun.max(since(sent.deadline));
            }
        }
        while let Some(ticket) = self.reader.next_overdue() {
            let sent = self.sent.values_mut().find(|sent| sent.ticket == ticket);
            let sent = sent.expect("a batch is late that has come back, or was never sent");
            assert!(!std::mem::replace(&mut sent.told, true), "told twice that a batch is late");
            assert!(sent.deadline <= clock::now(), "told to be late before its deadline");
            self.overrun = self.overrun.max(since(sent.deadline));
        }
        self.untold += self.sent.values().filter(|sent| !sent.told && sent.deadline < polled).count() as u64;
        self.events();
        if !some {
            self.reader.wait(clock::now() + Nanos::from_millis(5));
        }
    }

    fn events(&mut self) {
        while let Some(event) = self.reader.next_event() {
            match event {
                ReaderEvent::Lost { why, .. } => self.lost = Some(why.to_string()),
                other => panic!("{other:?}"),
            }
        }
    }

    /// Counts the time since the last arrival as a gap.
    fn note_gap(&mut self) {
        self.gap = self.gap.max(self.last.elapsed());
    }
}

/// How long ago `deadline` was; zero if it is to come.
fn since(deadline: Time) -> Duration {
    Duration::from_nanos(clock::now().since(deadline).0)
}
