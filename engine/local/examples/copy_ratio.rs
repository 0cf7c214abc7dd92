//! How much of a plain copy's speed is left when the copy is a READ: two shm rails, driven through
//! the provider's trait alone, against two threads that copy the same bytes in the same run. A
//! segment is compared with `memcpy`; the memory of another process, with bare process_vm_readv(2).
//!
//! ```text
//! cargo run --release -p kvrail-local --example copy_ratio -- [ROUNDS]
//! ```
//!
//! Rounds of the two alternate, so that a busy neighbour hurts both; medians are compared.
#![allow(unsafe_code, reason = "the baseline copies through raw pointers, as the rails do")]

use std::error::Error;
use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Child, Command, Stdio};
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use kvrail_core::id::{LaneId, RailIndex, WrId};
use kvrail_core::provider::{Commit, MemoryRange, Post, Provider, RailKeys, Read, WaitFor};
use kvrail_core::time::{Nanos, Time};
use kvrail_core::verbs_abi::Wc;
use kvrail_local::shm::{
    Backing, ExportedMemory, Segment, ShmAddress, ShmExport, ShmExporter, ShmPeer, ShmProvider,
};
use kvrail_local::{ExportedRegion, LocalConfig, LocalLane};

const RAILS: usize = 2;
/// Pages in flight: four batches of 32.
const IN_FLIGHT: u32 = 128;

/// One measurement: a page's size, the READs of one commit, the commits of one round.
struct Case {
    name: &'static str,
    /// Whether the pages are in the memory of another process, known by its address alone.
    process: bool,
    page: usize,
    run: u32,
    commits: u32,
    /// Bytes of the pool from which the pages are read, and of the pool into which they are read.
    pool: usize,
}

/// One MLA page over all layers, and over one, from more memory than a cache holds, as pools are.
const LARGE: Case =
    Case { name: "4.5 MB", process: false, page: 4_497_408, run: 1, commits: 256, pool: 576 << 20 };
const SMALL: Case =
    Case { name: "42 KB", process: false, page: 41_984, run: 8, commits: 2_000, pool: 576 << 20 };

const CASES: [Case; 5] = [
    LARGE,
    Case { name: "4.5 MB process", process: true, ..LARGE },
    SMALL,
    Case { name: "42 KB process", process: true, ..SMALL },
    // The same from a pool that fits the cache: no real pool is as small, but it shows the cost of
    // the rails best.
    Case { name: "42 KB cached", pool: 128 * 41_984, ..SMALL },
];

fn main() -> Result<(), Box<dyn Error>> {
    let first = std::env::args().nth(1);
    if first.as_deref() == Some(PRODUCE) {
        return produce(std::env::args().nth(2).unwrap_or_default().parse()?);
    }
    let rounds = first.map_or(Ok(15), |arg| arg.parse())?;
    println!(
        "{:>14} {:>12} {:>10} {:>7} {:>7} {:>16}",
        "pages", "plain GB/s", "shm GB/s", "ratio", "quarter", "waits per round"
    );
    for case in &CASES {
        let mut bench = Bench::new(case)?;
        let (mut plain, mut rails, mut ratio) = (Vec::new(), Vec::new(), Vec::new());
        // The first round of each warms up and does not count.
        for round in 0..=rounds {
            let (p, r) = (bench.plain().as_secs_f64(), bench.rails().as_secs_f64());
            if round > 0 {
                plain.push(p);
                rails.push(r);
                ratio.push(p / r);
            }
        }
        let gigabytes = (case.page as u64 * u64::from(case.run * case.commits)) as f64 / 1e9;
        println!(
            "{:>14} {:>12.2} {:>10.2} {:>7.3} {:>7.3} {:>16}",
            case.name,
            gigabytes / median(&mut plain),
            gigabytes / median(&mut rails),
            median(&mut ratio),
            // Sorted by now: a quarter of the rounds were worse than this.
            ratio[ratio.len() / 4],
            bench.waits / (rounds + 1),
        );
    }
    Ok(())
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// The first argument of the process whose memory is read.
const PRODUCE: &str = "produce";

/// That process: exports `bytes` bytes by their address alone, until its standard input ends.
fn produce(bytes: usize) -> Result<(), Box<dyn Error>> {
    let memory = kvrail_host::memory::leaked(bytes)?;
    memory.fill(1);
    let range = MemoryRange { addr: memory.as_ptr().expose_provenance() as u64, len: bytes as u64 };
    // SAFETY: the memory is there for ever.
    let memory = unsafe { ExportedMemory::foreign(range, Backing::Host) };
    let exporter = ShmExporter::start()?;
    let export = exporter.export(memory)?;
    let ExportedRegion { base, len, rkey } = export.region();
    let address: String = exporter.address().to_bytes().iter().map(|b| format!("{b:02x}")).collect();
    println!("{address} {base} {len} {rkey}");
    std::io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}

/// Where the pages are.
enum Producer {
    Here { segment: Arc<Segment>, _export: Box<(ShmExport, ShmExporter)> },
    Elsewhere(Child),
}

impl Drop for Producer {
    fn drop(&mut self) {
        if let Self::Elsewhere(child) = self {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Producer {
    fn here(bytes: usize) -> Result<(Self, ShmAddress, ExportedRegion), Box<dyn Error>> {
        let segment = Arc::new(Segment::new(bytes)?);
        segment.write(0, &vec![1; bytes])?;
        let exporter = ShmExporter::start()?;
        let export = exporter.export(ExportedMemory::segment(Arc::clone(&segment)))?;
        let (address, region) = (*exporter.address(), export.region());
        Ok((Self::Here { segment, _export: Box::new((export, exporter)) }, address, region))
    }

    fn elsewhere(bytes: usize) -> Result<(Self, ShmAddress, ExportedRegion), Box<dyn Error>> {
        let mut child = Command::new(std::env::current_exe()?)
            .args([PRODUCE, &bytes.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().ok_or("no output")?).read_line(&mut line)?;
        let producer = Self::Elsewhere(child);
        let [hex, base, len, rkey] = line.split_whitespace().collect::<Vec<_>>()[..] else {
            return Err(format!("the producer said {line:?}").into());
        };
        let mut address = [0; 64];
        for (byte, i) in address.iter_mut().zip((0..).step_by(2)) {
            *byte = u8::from_str_radix(hex.get(i..i + 2).ok_or("a short address")?, 16)?;
        }
        let region = ExportedRegion { base: base.parse()?, len: len.parse()?, rkey: rkey.parse()? };
        Ok((producer, ShmAddress::parse(&address)?, region))
    }
}

struct Bench<'c> {
    case: &'c Case,
    producer: Producer,
    region: ExportedRegion,
    pool: Segment,
    rails: ShmProvider,
    lanes: Vec<LocalLane>,
    keys: RailKeys,
    start: Instant,
    pages: u32,
    waits: u32,
}

impl<'c> Bench<'c> {
    fn new(case: &'c Case) -> Result<Self, Box<dyn Error>> {
        let pages = (case.pool / case.page) as u32;
        let bytes = case.page * pages as usize;
        let (producer, address, region) =
            if case.process { Producer::elsewhere(bytes)? } else { Producer::here(bytes)? };
        let pool = Segment::new(bytes)?;
        let mut rails = ShmProvider::start(LocalConfig { rails: RAILS, ..LocalConfig::default() })?;
        let peer = ShmPeer::connect(&address)?;
        let lanes = (0..RAILS)
            .map(|rail| rails.open(LaneId::new(rail as u16, 1), RailIndex(rail as u8), peer.clone()));
        let lanes = lanes.collect::<Result<_, _>>()?;
        let keys = rails.register(MemoryRange { addr: pool.addr(), len: bytes as u64 })?;
        let start = Instant::now();
        Ok(Self { case, producer, region, pool, rails, lanes, keys, start, pages, waits: 0 })
    }

    /// Two threads copy the pages; each takes the next commit that no thread has begun.
    fn plain(&self) -> Duration {
        let start = Instant::now();
        let to = self.pool.as_ptr().expose_provenance();
        let Case { page, run, commits, .. } = *self.case;
        let pages = self.pages;
        let next = &AtomicU32::new(0);
        let copy = |offset: usize| {
            let to = ptr::with_exposed_provenance_mut::<u8>(to + offset);
            match &self.producer {
                Producer::Here { segment, .. } => {
                    let from = segment.as_ptr().wrapping_add(offset);
                    // SAFETY: both are within live segments of that many pages. No other code uses
                    // them now: the rails are idle, and the threads copy different pages.
                    unsafe { ptr::copy_nonoverlapping(from, to, page) };
                }
                Producer::Elsewhere(child) => {
                    let from = ptr::without_provenance_mut(self.region.base as usize + offset);
                    let local = libc::iovec { iov_base: to.cast(), iov_len: page };
                    let remote = libc::iovec { iov_base: from, iov_len: page };
                    let pid = child.id().cast_signed();
                    // SAFETY: as above for `to`; the other range is of another process.
                    let copied = unsafe { libc::process_vm_readv(pid, &local, 1, &remote, 1, 0) };
                    assert_eq!(copied, page.cast_signed());
                }
            }
        };
        std::thread::scope(|scope| {
            for _ in 0..RAILS {
                scope.spawn(|| {
                    loop {
                        let commit = next.fetch_add(1, Ordering::Relaxed);
                        if commit >= commits {
                            return;
                        }
                        for i in commit * run..(commit + 1) * run {
                            copy((i % pages) as usize * page);
                        }
                    }
                });
            }
        });
        start.elapsed()
    }

    fn now(&self) -> Time {
        Time(self.start.elapsed().as_nanos() as u64)
    }

    /// The same pages as READs.
    fn rails(&mut self) -> Duration {
        let start = Instant::now();
        let Case { page, run, commits, .. } = *self.case;
        let (mut posted, mut done) = (0, 0);
        let mut in_flight = [0; RAILS];
        let mut wcs = [Wc::default(); 64];
        while done < commits {
            while posted < commits && in_flight.iter().sum::<u32>() + run <= IN_FLIGHT {
                let rail = usize::from(in_flight[1] < in_flight[0]);
                // SAFETY: the pool is this program's, and not looked at meanwhile.
                let mut post = unsafe { self.rails.begin(&mut self.lanes[rail]) };
                for i in 0..run {
                    let offset = u64::from((posted * run + i) % self.pages) * page as u64;
                    post.read(Read {
                        wr_id: WrId::new(LaneId::new(rail as u16, 0), i),
                        remote_addr: self.region.base + offset,
                        local_addr: self.pool.addr() + offset,
                        len: page as u32,
                        rkey: self.region.rkey,
                        lkey: self.keys[rail],
                        signaled: i + 1 == run,
                    });
                }
                assert_eq!(post.commit(), Commit::All);
                in_flight[rail] += run;
                posted += 1;
            }
            let now = self.now();
            let completions = in_flight.iter().sum::<u32>().div_ceil(2);
            self.rails.wait(WaitFor { now, until: now + Nanos::from_secs(10), completions });
            self.waits += 1;
            for (rail, in_flight) in in_flight.iter_mut().enumerate() {
                let n = self.rails.poll(RailIndex(rail as u8), &mut wcs);
                assert!(wcs[..n].iter().all(|wc| wc.status().is_success()), "{:?}", &wcs[..n]);
                *in_flight -= n as u32 * run;
                done += n as u32;
            }
        }
        start.elapsed()
    }
}
