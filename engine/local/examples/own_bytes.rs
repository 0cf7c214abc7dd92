//! What it is worth that a commit copies small pages itself: one shm rail and one batch of 32 pages
//! at a time, with `own_bytes` as by default against 0, where each batch wakes the rail's thread.
//!
//! ```text
//! cargo run --release -p kvrail-local --example own_bytes -- [ROUNDS]
//! ```
//!
//! Rounds of the two alternate; medians are compared.
#![allow(unsafe_code, reason = "a driver promises whose memory it reads into")]

use std::error::Error;
use std::sync::Arc;
use std::time::{Duration, Instant};

use kvrail_core::id::{LaneId, RailIndex, WrId};
use kvrail_core::provider::{Commit, MemoryRange, Post, Provider, RailKeys, Read, WaitFor};
use kvrail_core::time::{Nanos, Time};
use kvrail_core::verbs_abi::Wc;
use kvrail_local::shm::{ExportedMemory, Segment, ShmExporter, ShmPeer, ShmProvider};
use kvrail_local::{ExportedRegion, LocalConfig, LocalLane};

const BATCH: u32 = 32;
/// READs of one commit, as an engine gives small pages to a rail.
const RUN: u32 = 8;
const POOL: usize = 256 << 20;
const RAIL: RailIndex = RailIndex(0);

fn main() -> Result<(), Box<dyn Error>> {
    let rounds = std::env::args().nth(1).map_or(Ok(15), |arg| arg.parse())?;
    let segment = Arc::new(Segment::new(POOL)?);
    segment.write(0, &vec![1; POOL])?;
    let exporter = ShmExporter::start()?;
    let export = exporter.export(ExportedMemory::segment(Arc::clone(&segment)))?;
    let start = |own_bytes| {
        let config = LocalConfig { rails: 1, own_bytes, ..LocalConfig::default() };
        Bench::new(config, ShmPeer::connect(exporter.address())?, export.region())
    };
    let (mut own, mut woken) = (start(LocalConfig::default().own_bytes)?, start(0)?);
    println!("{:>8} {:>16} {:>16} {:>8}", "page", "own us/batch", "woken us/batch", "ratio");
    for page in [4 << 10, 16 << 10, 128 << 10] {
        let (mut owns, mut wokens, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
        // The first round warms up and does not count.
        for round in 0..=rounds {
            let (o, w) = (own.round(page).as_secs_f64(), woken.round(page).as_secs_f64());
            if round > 0 {
                owns.push(o);
                wokens.push(w);
                ratios.push(w / o);
            }
        }
        let us = |values: &mut [f64]| 1e6 * median(values) / f64::from(Bench::BATCHES);
        println!("{page:>8} {:>16.1} {:>16.1} {:>8.2}", us(&mut owns), us(&mut wokens), median(&mut ratios));
    }
    Ok(())
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

struct Bench {
    rails: ShmProvider,
    lane: LocalLane,
    region: ExportedRegion,
    pool: Segment,
    keys: RailKeys,
    begun: Instant,
    next: u64,
}

impl Bench {
    /// Batches of one round.
    const BATCHES: u32 = 500;

    fn new(config: LocalConfig, peer: ShmPeer, region: ExportedRegion) -> Result<Self, Box<dyn Error>> {
        let mut rails = ShmProvider::start(config)?;
        let pool = Segment::new(POOL)?;
        let keys = rails.register(MemoryRange { addr: pool.addr(), len: POOL as u64 })?;
        let lane = rails.open(LaneId::new(0, 1), RAIL, peer)?;
        Ok(Self { rails, lane, region, pool, keys, begun: Instant::now(), next: 0 })
    }

    fn round(&mut self, page: u32) -> Duration {
        let start = Instant::now();
        let pages = POOL as u64 / u64::from(page);
        let mut wcs = [Wc::default(); 64];
        for _ in 0..Self::BATCHES {
            for _ in 0..BATCH / RUN {
                // SAFETY: the pool is this program's, and not looked at meanwhile.
                let mut post = unsafe { self.rails.begin(&mut self.lane) };
                for i in 0..RUN {
                    let offset = self.next % pages * u64::from(page);
                    self.next += 1;
                    post.read(Read {
                        wr_id: WrId::new(LaneId::new(0, 1), i),
                        remote_addr: self.region.base + offset,
                        local_addr: self.pool.addr() + offset,
                        len: page,
                        rkey: self.region.rkey,
                        lkey: self.keys[0],
                        signaled: i + 1 == RUN,
                    });
                }
                assert_eq!(post.commit(), Commit::All);
            }
            let mut done = 0;
            while done < (BATCH / RUN) as usize {
                let now = Time(self.begun.elapsed().as_nanos() as u64);
                let until = now + Nanos::from_secs(10);
                self.rails.wait(WaitFor { now, until, completions: BATCH });
                let n = self.rails.poll(RAIL, &mut wcs);
                assert!(wcs[..n].iter().all(|wc| wc.status().is_success()), "{:?}", &wcs[..n]);
                done += n;
            }
        }
        start.elapsed()
    }
}
