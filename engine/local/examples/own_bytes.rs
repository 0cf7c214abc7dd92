//! What it is worth that the engine's thread copies, too: one shm rail and one or six batches of 32
//! pages at a time. *woken*: each batch wakes the rail's thread, and the engine's thread sleeps.
//! *own*: a commit copies small pages itself while the rail's thread sleeps. *shared*: the engine's
//! thread copies while it waits, too (the default).
//!
//! ```text
//! cargo run --release -p kvrail-local --example own_bytes -- [ROUNDS]
//! ```
//!
//! Rounds of the three alternate. Medians are printed, and medians of the ratios within a round.
#![allow(unsafe_code, reason = "a driver promises whose memory it reads into")]

use std::error::Error;
use std::sync::Arc;
use std::time::Instant;

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
    let start = |own_bytes, copy_while_waiting| {
        let config = LocalConfig { rails: 1, own_bytes, copy_while_waiting, ..LocalConfig::default() };
        Bench::new(config, ShmPeer::connect(exporter.address())?, export.region())
    };
    let mut benches =
        [start(0, false)?, start(128 << 10, false)?, start(LocalConfig::default().own_bytes, true)?];
    println!(
        "{:>8} {:>9} {:>14} {:>14} {:>14} {:>13} {:>11}",
        "page", "in flight", "woken us/batch", "own us/batch", "shared us/b.", "woken/shared", "own/shared"
    );
    for in_flight in [1, 6] {
        for page in [4 << 10, 16 << 10, 41_984, 128 << 10, 1 << 20] {
            let mut seen = [const { Vec::new() }; 5];
            // The first round warms up and does not count.
            for round in 0..=rounds {
                let us = benches.each_mut().map(|bench| bench.round(page, in_flight));
                if round > 0 {
                    let row = [us[0], us[1], us[2], us[0] / us[2], us[1] / us[2]];
                    seen.iter_mut().zip(row).for_each(|(values, value)| values.push(value));
                }
            }
            let [woken, own, shared, first, second] = seen.each_mut().map(|values| median(values));
            println!(
                "{page:>8} {in_flight:>9} {woken:>14.1} {own:>14.1} {shared:>14.1} {first:>13.2} {second:>11.2}"
            );
        }
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
    fn new(config: LocalConfig, peer: ShmPeer, region: ExportedRegion) -> Result<Self, Box<dyn Error>> {
        let config = LocalConfig { sq_entries: 6 * BATCH, ..config };
        let mut rails = ShmProvider::start(config)?;
        let pool = Segment::new(POOL)?;
        let keys = rails.register(MemoryRange { addr: pool.addr(), len: POOL as u64 })?;
        let lane = rails.open(LaneId::new(0, 1), RAIL, peer)?;
        Ok(Self { rails, lane, region, pool, keys, begun: Instant::now(), next: 0 })
    }

    /// Microseconds per batch.
    fn round(&mut self, page: u32, in_flight: u32) -> f64 {
        let start = Instant::now();
        // Some 64 MiB a round.
        let batches = ((64 << 20) / (page * BATCH * in_flight)).max(1);
        let pages = POOL as u64 / u64::from(page);
        let mut wcs = [Wc::default(); 64];
        for _ in 0..batches {
            for _ in 0..in_flight * BATCH / RUN {
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
            while done < (in_flight * BATCH / RUN) as usize {
                let now = Time(self.begun.elapsed().as_nanos() as u64);
                let until = now + Nanos::from_secs(10);
                self.rails.wait(WaitFor { now, until, completions: in_flight * BATCH });
                let n = self.rails.poll(RAIL, &mut wcs);
                assert!(wcs[..n].iter().all(|wc| wc.status().is_success()), "{:?}", &wcs[..n]);
                done += n;
            }
        }
        start.elapsed().as_secs_f64() * 1e6 / f64::from(batches * in_flight)
    }
}
