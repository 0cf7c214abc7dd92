//! Memory that is deregistered while it is read, on a path that loses packets. SoftRoCE of Linux
//! 6.1 then reports some READs as successes although bytes of them are missing (docs/failure.md).
//! The first test shows how often it does, without an engine, and decides nothing. The others show
//! that no such page is given to a reader as good.
#![allow(missing_docs, reason = "tests")]
#![allow(unsafe_code, reason = "posts READs by hand; publishes memory of its own")]

mod lane;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use kvrail::core::batch::Done;
use kvrail::core::error::PageError;
use kvrail::core::memory::Slot;
use kvrail::core::table::KeyTag;
use kvrail::core::time::Nanos;
use kvrail::session::PoolId;
use kvrail::verbs::{self, VerbsPublish, VerbsRails};
use kvrail::{
    Address, Config, Export, ExportedMemory, Exporter, ForeignMemory, ForeignPool, ForeignRegion, Location,
    Publisher, PublisherConfig, PublisherTransport, Reader, ReaderTransport as _, TransportError, clock,
    memory,
};
use kvrail_core::id::{LaneId, RailIndex, WrId};
use kvrail_core::provider::{Commit, MemoryRange, Post as _, Provider as _, ProviderEvent, Read};
use kvrail_core::verbs_abi::Wc;
use kvrail_verbs::{QpAcceptor, QpDialer, Rights, Side, Verbs, VerbsConfig, VerbsRegion, rail};
use lane::{BATCH, CHUNK, Devices, FLIGHT, HANGS, LAYOUT, key, page, said};

/// How often the memory is deregistered in a test with an engine.
const TRIALS: u32 = 24;
/// One READ for each page: eleven packets.
const PAGE: usize = LAYOUT.page_bytes() as usize;
/// Pages that are read in a trial.
const PAGES: usize = BATCH * FLIGHT;
const LOSS: [&str; 3] = ["netem", "loss", "3%"];
/// The byte that fills a slot before a page is read into it.
const WIPED: u8 = 0xA5;
/// How long the pages of a trial may take. Those that are not there by then are not good, which is
/// all that the tests are about: with each of their READs a lane dies.
const PATIENCE: Duration = Duration::from_secs(3);

fn range(memory: &mut [u8]) -> MemoryRange {
    MemoryRange { addr: memory.as_mut_ptr().expose_provenance() as u64, len: memory.len() as u64 }
}

/// `pages` pages, each with bytes of its own.
fn filled(pages: usize) -> &'static mut [u8] {
    let all = memory::leaked(pages * PAGE).unwrap();
    for (slot, bytes) in (0..).zip(all.chunks_mut(PAGE)) {
        bytes.copy_from_slice(&page(1, slot));
    }
    all
}

/// What the kernel reports, without an engine: 16 READs of a page each, and after some of them have
/// completed the memory is deregistered.
#[test]
fn what_the_kernel_calls_a_success() {
    const TEST: &str = "memory deregistered while it is read, the kernel alone";
    const TRIALS: u32 = 60;
    const READS: usize = 16;
    const RAIL: RailIndex = RailIndex(0);
    let Some(fabric) = Devices::find_breakable(TEST) else { return };
    let mut near = Verbs::open_rails(&fabric.reader[..3], VerbsConfig::DEFAULT).unwrap();
    let far = rail::open(&fabric.producer[..3], VerbsConfig::DEFAULT, Side::Producer).unwrap();
    let from = range(filled(READS));
    let to = memory::leaked(READS * PAGE).unwrap();
    let at = range(to);
    let lkey = near.register(at).unwrap()[0];
    let (dialer, acceptor) = (QpDialer::new(near.ports()), QpAcceptor::new(far.clone()).unwrap());
    let _broken = fabric.break_rails(&["a0", "b0"], &LOSS);
    let (mut whole, mut failed, mut short, mut trials, mut last) = (0, 0, 0, 0, 0);
    for life in 1..=TRIALS {
        let region = VerbsRegion::new(&far, from, Rights::RemoteRead).unwrap();
        let id = LaneId::new(0, life);
        let remote = acceptor.rails()[0].end().unwrap().encode();
        let (pending, ours) = dialer.prepare(0, &remote).unwrap();
        let (_accepted, theirs) = acceptor.accept(0, &ours).unwrap();
        let mut lane = near.open(id, RAIL, dialer.connect(pending, &theirs).unwrap()).unwrap();
        to.fill(WIPED);
        // SAFETY: the destination is looked at only when all READs have completed.
        let mut post = unsafe { near.begin(&mut lane) };
        for n in 0..READS {
            let offset = (n * PAGE) as u64;
            post.read(Read {
                wr_id: WrId::new(id, n as u32),
                remote_addr: from.addr + offset,
                local_addr: at.addr + offset,
                len: PAGE as u32,
                rkey: region.keys()[0],
                lkey,
                signaled: true,
            });
        }
        assert_eq!(post.commit(), Commit::All);
        let (start, mut done, mut region) = (Instant::now(), Vec::new(), Some(region));
        while done.len() < READS {
            assert!(start.elapsed() < HANGS, "{} of {READS} READs completed: {done:?}", done.len());
            let mut some = [Wc::default(); READS];
            let n = near.poll(RAIL, &mut some);
            done.extend_from_slice(&some[..n]);
            if done.len() >= life as usize % (READS / 2) {
                drop(region.take());
            }
        }
        near.close(lane);
        while !matches!(near.next_event(), Some(ProviderEvent::LaneClosed(closed)) if closed == id) {
            assert!(start.elapsed() < HANGS, "the lane is never closed");
            std::thread::sleep(Duration::from_millis(1));
        }
        let good = done.iter().take_while(|wc| wc.status().is_success()).count();
        let mut some_short = false;
        for (place, wc) in done.iter().enumerate() {
            let n = wc.wr_id().seq() as usize;
            if !wc.status().is_success() {
                failed += 1;
            } else if to[n * PAGE..][..PAGE] == page(1, n as u32)[..] {
                whole += 1;
            } else {
                (short, some_short) = (short + 1, true);
                last += u32::from(place + 1 == good);
            }
        }
        trials += u32::from(some_short);
    }
    said(&format!(
        "{TEST}: {short} READs in {trials} of {TRIALS} trials were a success with bytes missing, {last} of them the last success of their QP; {whole} had all their bytes, and {failed} failed"
    ));
    // Otherwise nothing was deregistered while it was read.
    assert!(whole > 0 && failed > 0, "{whole} READs succeeded, and {failed} failed");
}

/// The registration of the pages, which the publisher and the test can release.
type Registered = Arc<Mutex<Option<Box<dyn Send + Sync>>>>;

fn release(registered: &Registered) {
    drop(registered.lock().unwrap_or_else(PoisonError::into_inner).take());
}

/// Verbs, with a way to deregister the pages that are at `pages` before their publisher does.
struct Revocable {
    over: VerbsPublish,
    pages: MemoryRange,
    registered: Registered,
}

// SAFETY: memory goes to the exporter of verbs, which makes the promise.
unsafe impl PublisherTransport for Revocable {
    type Acceptor = <VerbsPublish as PublisherTransport>::Acceptor;

    fn start(self) -> Result<(Self::Acceptor, Box<dyn Exporter>), TransportError> {
        let (acceptor, exporter) = self.over.start()?;
        let Self { pages, registered, .. } = self;
        Ok((acceptor, Box::new(Revoking { exporter, pages, registered })))
    }
}

struct Revoking {
    exporter: Box<dyn Exporter>,
    pages: MemoryRange,
    registered: Registered,
}

/// What the publisher has in place of the registration.
struct Released(Registered);

impl Drop for Released {
    fn drop(&mut self) {
        release(&self.0);
    }
}

impl Exporter for Revoking {
    fn export(&self, memory: ExportedMemory) -> Result<Export, TransportError> {
        let of_pages = memory.range() == self.pages;
        let export = self.exporter.export(memory)?;
        if !of_pages {
            return Ok(export);
        }
        *self.registered.lock().unwrap_or_else(PoisonError::into_inner) = Some(export.keep);
        Ok(Export { keys: export.keys, keep: Box::new(Released(Arc::clone(&self.registered))) })
    }
}

/// How the pages of all trials ended.
#[derive(Debug, Default)]
struct Tally {
    good: u64,
    /// Given to the reader as good, with other bytes.
    wrong: u64,
    missed: u64,
    failed: u64,
    gone: u64,
    late: u64,
}

/// A reader, and a producer's pages.
struct Trials {
    reader: Reader<VerbsRails>,
    slots: Vec<Slot>,
    pages: MemoryRange,
    tally: Tally,
    /// Trials in which the memory was deregistered before all pages were there.
    interrupted: u32,
}

impl Trials {
    fn new(fabric: &Devices) -> Self {
        let rails = verbs::rails(&fabric.reader).unwrap();
        // Each page is one READ: chunks of 64 KiB.
        let engine = kvrail::core::config::EngineConfig { chunk_bytes: 4 * CHUNK, ..rails.engine_config() };
        let config = Config { lanes_per_rail: 2, engine: Some(engine), ..Config::default() };
        let mut reader = Reader::start(LAYOUT, rails, config).unwrap();
        let slots = reader.register(memory::leaked(PAGES * PAGE).unwrap()).unwrap().collect();
        Self { reader, slots, pages: range(filled(PAGES)), tally: Tally::default(), interrupted: 0 }
    }

    /// Publishes the pages, begins to read them, has `end` deregister them when `after` bytes have
    /// arrived, and sees what each page became.
    fn run(&mut self, fabric: &Devices, after: u64, end: impl FnOnce(&Publisher, &Registered) + Send) {
        let registered = Registered::default();
        let over = verbs::publish(&fabric.producer).unwrap();
        let over = Revocable { over, pages: self.pages, registered: Arc::clone(&registered) };
        // SAFETY: the memory is leaked, and nothing writes it.
        let memory = unsafe { ForeignMemory::host(self.pages) };
        let pool = ForeignPool::new(LAYOUT).region(ForeignRegion::new(&memory));
        let config = PublisherConfig::new("producer".parse().unwrap()).foreign_pool(pool);
        let listen: Address = "127.0.0.1:0".parse().unwrap();
        let publisher = Publisher::start_pools(config, &listen, key(), over).unwrap();
        let publish = |slot| {
            let slots = publisher.pool(PoolId(0)).unwrap().foreign().unwrap();
            slots.overwrite(slot, KeyTag(u128::from(slot))).unwrap().publish()
        };
        let locations: Vec<Location> = (0..PAGES as u32).map(publish).collect();
        let peer = self.reader.connect(&publisher.local_addr().into(), key()).unwrap();
        let carried = |reader: &Reader<VerbsRails>| -> u64 {
            (0..reader.rails()).map(|rail| reader.rail_stats(rail).unwrap().bytes).sum()
        };
        let enough = carried(&self.reader) + after;
        let mut sent = HashMap::new();
        for (tag, locations) in (0..).zip(locations.chunks(BATCH)) {
            let mut batch = self.reader.batch().unwrap();
            batch.set_tag(tag);
            for &location in locations {
                let mut slot = self.slots.pop().unwrap();
                slot.bytes_mut().unwrap().fill(WIPED);
                batch.read(peer.page(location).unwrap(), slot).map_err(|(error, _)| error).unwrap();
            }
            self.reader.submit(batch, clock::within(PATIENCE)).map_err(|rejected| rejected.error).unwrap();
            sent.insert(tag, locations);
        }
        while carried(&self.reader) < enough && !sent.is_empty() {
            self.take(&mut sent);
        }
        self.interrupted += u32::from(!sent.is_empty());
        std::thread::scope(|scope| {
            let ending = scope.spawn(|| end(&publisher, &registered));
            let start = Instant::now();
            while !sent.is_empty() || !ending.is_finished() {
                assert!(start.elapsed() < PATIENCE + HANGS, "{} batches never came back", sent.len());
                self.take(&mut sent);
            }
        });
        assert_eq!(self.slots.len(), PAGES, "slots were lost");
        self.reader.disconnect(&peer);
    }

    /// Polls, and compares the pages of each batch that is done.
    fn take(&mut self, sent: &mut HashMap<u64, &[Location]>) {
        let mut some = false;
        self.reader.poll();
        while let Some(done) = self.reader.next_done() {
            some = true;
            let locations = sent.remove(&done.tag()).expect("a batch came back twice, or was never sent");
            self.settle(done, locations);
        }
        // A pool that has gone is an event, and so is a lost session.
        while self.reader.next_event().is_some() {}
        while self.reader.next_overdue().is_some() {}
        if !some {
            self.reader.wait(clock::now() + Nanos::from_millis(5));
        }
    }

    fn settle(&mut self, mut done: Done<'static>, locations: &[Location]) {
        for mut of in done.pages() {
            let tally = &mut self.tally;
            match of.result() {
                Ok(()) => {
                    let right = of.slot.bytes_mut().unwrap() == &page(1, locations[of.index].slot)[..];
                    if right { tally.good += 1 } else { tally.wrong += 1 }
                }
                Err(PageError::Miss(_)) => tally.missed += 1,
                Err(PageError::Fault { .. } | PageError::SetAside { .. }) => tally.failed += 1,
                Err(PageError::PeerGone | PageError::PoolGone) => tally.gone += 1,
                Err(PageError::Deadline { .. } | PageError::NoLane { .. }) => tally.late += 1,
                Err(error) => panic!("{error}"),
            }
            self.slots.push(of.slot);
        }
    }

    /// Reports, and checks that no page was good with wrong bytes.
    fn finish(self, test: &str) {
        let Tally { good, wrong, missed, failed, gone, late } = self.tally;
        assert_eq!(wrong, 0, "pages that were given as good with wrong bytes: {:?}", self.tally);
        said(&format!(
            "{test}: {good} pages, all right; in {} of {TRIALS} trials it ended while pages were read, of which {missed} were misses, {failed} failed, {gone} were gone with their pool, {late} late",
            self.interrupted
        ));
        // Otherwise the test has shown nothing.
        assert!(
            good > 0 && self.interrupted > 0 && missed + failed + gone > 0,
            "{good} pages, {failed} failed"
        );
    }
}

/// How many bytes arrive before the memory is deregistered in this trial: up to half of them.
fn after(trial: u32) -> u64 {
    u64::from(trial % 8) * (PAGES * PAGE) as u64 / 16
}

#[test]
fn a_pool_that_is_withdrawn_while_it_is_read() {
    const TEST: &str = "pool withdrawn while it is read, 3% loss";
    let Some(fabric) = Devices::find_breakable(TEST) else { return };
    let mut trials = Trials::new(&fabric);
    let _broken = fabric.break_rails(&["a0", "a1", "b0", "b1"], &LOSS);
    for trial in 0..TRIALS {
        trials.run(&fabric, after(trial), |publisher, _| {
            publisher.withdraw(PoolId(0), Instant::now() + HANGS).unwrap();
        });
    }
    trials.finish(TEST);
}

/// As a producer must not do it: the entries of the pages stay valid, so what a READ's success says
/// is all that the reader has to go by, and what becomes of its lane.
#[test]
fn memory_that_is_deregistered_while_its_entries_are_valid() {
    const TEST: &str = "memory deregistered under valid entries, 3% loss";
    let Some(fabric) = Devices::find_breakable(TEST) else { return };
    let mut trials = Trials::new(&fabric);
    let _broken = fabric.break_rails(&["a0", "a1", "b0", "b1"], &LOSS);
    for trial in 0..TRIALS {
        trials.run(&fabric, after(trial), |_, registered| release(registered));
    }
    trials.finish(TEST);
}
