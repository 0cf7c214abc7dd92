//! READs whose region is deregistered meanwhile, on a path that loses packets. SoftRoCE of Linux
//! 6.1 reports some of them as successes, with their whole length, although bytes are missing: each
//! is the last success before its QP is flushed. Linux 6.12 does not. A page that is validated is
//! never handed over with such bytes.
#![allow(missing_docs, reason = "tests")]
#![allow(unsafe_code, reason = "publishes memory of the test, with a transport of its own")]

mod lane;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use kvrail::core::memory::Slot;
use kvrail::core::provider::MemoryRange;
use kvrail::core::table::KeyTag;
use kvrail::layouts::catalogue::Opaque;
use kvrail::session::PoolId;
use kvrail::verbs::{self, VerbsPublish};
use kvrail::{
    Backing, Config, Export, ExportedMemory, Exporter, ForeignMemory, ForeignPool, ForeignRegion, PageLayout,
    Peer, Publisher, PublisherConfig, PublisherTransport, Reader, ReaderTransport, TransportError, clock,
    memory,
};
use kvrail_core::id::{LaneId, WrId};
use lane::{Bench, Devices, HANGS, SOURCE, key, said};

/// READs that are posted at once, and bytes of each: 64 packets.
const READS: u32 = 8;
const BYTES: u32 = 256 << 10;
/// The rails of which the tests use one, and what is lost there.
const RAILS: [&str; 2] = ["a0", "b0"];
const LOSS: [&str; 3] = ["netem", "loss", "3%"];
/// How often the region is deregistered, at least and at most: on the kernel with the fault until
/// it was seen, elsewhere as often as at least.
const TRIALS: (u32, u32) = (30, 400);
/// A page of four READs of [`BYTES`].
const LAYOUT: PageLayout = PageLayout::of::<Opaque<{ 1 << 20 }>>();
const PAGES: u32 = 8;

/// What this kernel's SoftRoCE does.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kernel {
    /// It has the fault: Linux 6.1.
    Faulty,
    /// It has not: Linux 6.12.
    Right,
    /// It was not tried.
    Unknown,
}

fn kernel() -> (Kernel, String) {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let is = |version: &str| release.starts_with(version);
    let kernel = if is("6.1.") {
        Kernel::Faulty
    } else if is("6.12.") {
        Kernel::Right
    } else {
        Kernel::Unknown
    };
    (kernel, release.trim().to_owned())
}

/// Fails if the number of faults is not what this kernel is known for.
fn as_known(faults: u32, trials: u32) -> String {
    let (kernel, release) = kernel();
    match kernel {
        Kernel::Faulty => assert!(faults > 0, "{release} had no fault in {trials} trials"),
        Kernel::Right => assert_eq!(faults, 0, "{release} has the fault in {trials} trials"),
        Kernel::Unknown => {}
    }
    release
}

/// Whether another trial is wanted after `done`, of which `faults` had the fault.
fn goes_on(done: u32, faults: u32) -> bool {
    let (least, most) = TRIALS;
    done < least || (faults == 0 && done < most && kernel().0 == Kernel::Faulty)
}

/// A moment within `span`, another one for each trial.
fn moment(trial: u32, span: Duration) -> Duration {
    // The golden ratio's multiples are spread evenly.
    span.mul_f64((f64::from(trial) * 0.618_033_988_749_895).fract())
}

#[test]
fn a_success_with_missing_bytes_is_the_last_one_of_its_qp() {
    const TEST: &str = "deregistered while it is read";
    let Some(fabric) = Devices::find_breakable(TEST) else { return };
    let mut bench = Bench::new(&fabric, READS, BYTES);
    let began = Instant::now();
    bench.post(0, READS);
    let done = bench.completions(Some(WrId::new(bench.id, READS - 1)), HANGS);
    assert!(done.iter().all(|wc| wc.status().is_success()) && !done.is_empty(), "{done:?}");
    // READs are slower where packets are lost.
    let span = began.elapsed() * 2;
    let broken = fabric.break_rails(&RAILS, &LOSS);
    let (mut trials, mut faults, mut successes) = (0, 0, 0);
    while goes_on(trials, faults) {
        trials += 1;
        bench.replace_lane(LaneId::new(0, trials + 1));
        bench.register_again();
        bench.to.fill(0);
        bench.post_signaled(0, READS, |_| true);
        std::thread::sleep(moment(trials, span));
        bench.deregister();
        let done = bench.completions(Some(WrId::new(bench.id, READS - 1)), HANGS);
        let order: Vec<u32> = done.iter().map(|wc| wc.wr_id().seq()).collect();
        assert!(order.iter().copied().eq(0..READS), "{done:?}");
        let good = done.iter().take_while(|wc| wc.status().is_success()).count();
        assert!(
            done[good..].iter().all(|wc| !wc.status().is_success()),
            "a success behind a failure: {done:?}"
        );
        let missing = |at: usize| {
            let read = &bench.to[at * BYTES as usize..][..BYTES as usize];
            read.iter().filter(|&&byte| byte != SOURCE).count()
        };
        for at in 0..good {
            let missing = missing(at);
            if missing > 0 {
                faults += 1;
                assert_eq!(at + 1, good, "{missing} bytes of a READ are missing, and a later one succeeded");
            }
        }
        successes += good;
    }
    drop(broken);
    let release = as_known(faults, trials);
    said(&format!(
        "{TEST}: on {release} {faults} of {trials} QPs had a success with bytes missing, each the last of its QP; {successes} successes in all"
    ));
}

/// The registration of the pages, until it is released.
type Registration = Arc<Mutex<Option<Box<dyn Send + Sync>>>>;

/// Verbs, whose registration of foreign memory the test releases while the table says that the
/// pages are there.
struct Revocable(VerbsPublish, Registration);

// SAFETY: memory goes to the exporter of verbs, which makes the promise. What it returns for
// foreign memory is dropped no later than `Export::keep`.
unsafe impl PublisherTransport for Revocable {
    type Acceptor = <VerbsPublish as PublisherTransport>::Acceptor;

    fn start(self) -> Result<(Self::Acceptor, Box<dyn Exporter>), TransportError> {
        let (acceptor, exporter) = self.0.start()?;
        Ok((acceptor, Box::new(RevocableExporter(exporter, self.1))))
    }
}

struct RevocableExporter(Box<dyn Exporter>, Registration);

impl Exporter for RevocableExporter {
    fn export(&self, memory: ExportedMemory) -> Result<Export, TransportError> {
        let foreign = matches!(memory.backing(), Backing::Host);
        let Export { keys, keep } = self.0.export(memory)?;
        if !foreign {
            return Ok(Export { keys, keep });
        }
        revoke(&self.1, Some(keep));
        Ok(Export { keys, keep: Box::new(Held(Arc::clone(&self.1))) })
    }
}

struct Held(Registration);

impl Drop for Held {
    fn drop(&mut self) {
        revoke(&self.0, None);
    }
}

/// Releases the registration, and takes this one instead.
fn revoke(registration: &Registration, instead: Option<Box<dyn Send + Sync>>) {
    let before =
        std::mem::replace(&mut *registration.lock().unwrap_or_else(PoisonError::into_inner), instead);
    drop(before);
}

/// A publisher of [`PAGES`] pages of the test's memory.
struct Producer {
    publisher: Publisher,
    registration: Registration,
}

fn page(slot: u32) -> Vec<u8> {
    lane::words(9, slot, LAYOUT.page_bytes() as usize)
}

impl Producer {
    fn start(rails: &str, memory: MemoryRange) -> Self {
        let registration = Registration::default();
        let over = Revocable(verbs::publish(rails).unwrap(), Arc::clone(&registration));
        // SAFETY: the memory is leaked, and nothing writes to it any more.
        let memory = unsafe { ForeignMemory::host(memory) };
        let pool = ForeignPool::new(LAYOUT).region(ForeignRegion::new(&memory));
        let config = PublisherConfig::new("producer".parse().unwrap()).foreign_pool(pool);
        let publisher = Publisher::start_pools(config, &"127.0.0.1:0".parse().unwrap(), key(), over).unwrap();
        let slots = publisher.pool(PoolId(0)).unwrap().foreign().unwrap();
        for slot in 0..PAGES {
            slots.overwrite(slot, KeyTag(slot.into())).unwrap().publish();
        }
        Self { publisher, registration }
    }
}

/// How the pages of a batch came, whose region was deregistered meanwhile.
#[derive(Clone, Copy, Debug, Default)]
struct Outcome {
    whole: u32,
    /// Handed over as if they were whole.
    torn: u32,
    refused: u32,
}

/// Reads all pages, validated or not, and has their region deregistered after `when`.
fn read<T: ReaderTransport>(
    reader: &mut Reader<T>,
    producer: &Producer,
    free: &mut Vec<Slot>,
    validated: bool,
    when: Duration,
) -> Outcome {
    let peer: Peer = reader.connect(&producer.publisher.local_addr().into(), key()).unwrap();
    let pool = peer.pool_of(&LAYOUT).unwrap();
    let locations = reader.published(&peer, 0, clock::within(HANGS)).unwrap();
    assert_eq!(locations.len(), PAGES as usize);
    let mut batch = reader.batch().unwrap();
    for location in &locations {
        let mut slot = free.pop().unwrap();
        slot.bytes_mut().unwrap().fill(0);
        let page = if validated { pool.page(*location) } else { pool.unvalidated(location.slot) };
        batch.read(page.unwrap(), slot).map_err(|(error, _)| error).unwrap();
    }
    let deadline = clock::within(Duration::from_secs(3));
    let began = Instant::now();
    reader.submit(batch, deadline).unwrap();
    let mut registered = true;
    let mut done = loop {
        if registered && began.elapsed() >= when {
            revoke(&producer.registration, None);
            registered = false;
        }
        reader.poll();
        if let Some(done) = reader.next_done() {
            break done;
        }
        assert!(began.elapsed() < HANGS, "a batch never came back");
        reader.wait(clock::within(Duration::from_millis(1)));
    };
    let mut outcome = Outcome::default();
    for read in done.pages() {
        let is_whole = || read.slot.bytes().unwrap() == page(locations[read.index].slot);
        match read.result {
            Ok(()) if is_whole() => outcome.whole += 1,
            Ok(()) => outcome.torn += 1,
            Err(_) => outcome.refused += 1,
        }
        free.push(read.slot);
    }
    drop(done);
    reader.disconnect(&peer);
    outcome
}

/// Runs trials over one lossy rail, and returns how many, and the sums. Without `like`:
/// unvalidated, as many as it takes to see the fault; otherwise validated, at least so many.
fn trials(fabric: &Devices, like: Option<u32>) -> (u32, Outcome) {
    let validated = like.is_some();
    let first = |rails: &str| rails[..3].to_owned();
    let bytes = (PAGES * LAYOUT.page_bytes()) as usize;
    let source = memory::leaked(bytes).unwrap();
    for (slot, to) in (0..).zip(source.chunks_mut(LAYOUT.page_bytes() as usize)) {
        to.copy_from_slice(&page(slot));
    }
    let range = MemoryRange { addr: source.as_mut_ptr().expose_provenance() as u64, len: bytes as u64 };
    let mut reader =
        Reader::start(LAYOUT, verbs::rails(&first(&fabric.reader)).unwrap(), Config::default()).unwrap();
    let mut free: Vec<_> = reader.register(memory::leaked(bytes).unwrap()).unwrap().collect();
    // Once without loss, for the time that it takes.
    let producer = Producer::start(&first(&fabric.producer), range);
    let began = Instant::now();
    let outcome = read(&mut reader, &producer, &mut free, validated, HANGS);
    assert_eq!(outcome.whole, PAGES, "{outcome:?}");
    let span = began.elapsed() * 2;
    drop(producer);
    let broken = fabric.break_rails(&RAILS, &LOSS);
    let (mut sum, mut done) = (Outcome::default(), 0);
    while like.map_or_else(|| goes_on(done, sum.torn), |like| done < like) {
        done += 1;
        let producer = Producer::start(&first(&fabric.producer), range);
        let one = read(&mut reader, &producer, &mut free, validated, moment(done, span));
        sum.whole += one.whole;
        sum.torn += one.torn;
        sum.refused += one.refused;
        assert!(!validated || one.torn == 0, "trial {done}: {one:?}");
    }
    drop(broken);
    (done, sum)
}

#[test]
fn no_page_that_is_validated_lacks_bytes() {
    const TEST: &str = "pages deregistered while they are read";
    let Some(fabric) = Devices::find_breakable(TEST) else { return };
    let (bare_trials, bare) = trials(&fabric, None);
    let release = as_known(bare.torn, bare_trials);
    let (done, validated) = trials(&fabric, Some(bare_trials));
    assert!(validated.whole > 0 && validated.refused > 0, "{validated:?}");
    said(&format!(
        "{TEST}: on {release}, {done} trials: {} pages, all right, {} refused; without validation, {bare_trials} trials: {} right, {} with bytes missing, {} refused",
        validated.whole, validated.refused, bare.whole, bare.torn, bare.refused
    ));
}
