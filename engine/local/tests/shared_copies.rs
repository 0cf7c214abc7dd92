//! The waiting thread and the rail's thread copy together: every byte arrives, completions keep
//! their order, and lanes that fail, exports that are withdrawn and producers that end in the
//! middle of a list are told as they are when one thread copies.
#![allow(missing_docs, reason = "a test")]
#![allow(unsafe_code, reason = "a driver promises whose memory it reads into")]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::thread::ThreadId;
use std::time::{Duration, Instant};

use common::{Driver, Producer as _, RAIL, pattern};
use kvrail_core::id::LaneId;
use kvrail_core::provider::{Commit, Provider as _, ProviderEvent, Read};
use kvrail_core::time::Nanos;
use kvrail_core::verbs_abi::WcStatus;
use kvrail_local::shm::{ExportedMemory, Segment, ShmPeer};
use kvrail_local::{ExportedRegion, LaneTransport, LocalConfig};

const OK: WcStatus = WcStatus::SUCCESS;
const BYTES: usize = 8 << 20;
/// READs of one round, each with its part of the memory.
const READS: u32 = 32;
const ROOM: u64 = BYTES as u64 / READS as u64;

/// Lengths around the cuts: less than a piece, a piece, more, and copies around the cache.
const LENGTHS: [u32; 10] = [1, 63, 4096, 4097, 8192, 32_768, 32_769, 41_984, 131_072, 262_144];

fn config(own_bytes: u32) -> LocalConfig {
    LocalConfig { rails: 1, sq_entries: 64, cq_entries: 256, own_bytes, ..LocalConfig::default() }
}

fn xorshift(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

#[test]
fn every_byte_of_every_length_arrives_whoever_copies_it() {
    let segment = Arc::new(Segment::new(BYTES).unwrap());
    let source = pattern(BYTES);
    segment.write(0, &source).unwrap();
    for own_bytes in [0, 64 << 10] {
        let (owner, region) = ShmPeer::produce(ExportedMemory::segment(Arc::clone(&segment)));
        let mut driver = Driver::<ShmPeer>::new(config(own_bytes), BYTES);
        let mut lanes = [0, 1].map(|lane| driver.open(lane, RAIL, ShmPeer::reach(&owner)));
        let mut state = 0x9E37_79B9_7F4A_7C15 ^ u64::from(own_bytes);
        for round in 0..15_u64 {
            let mut placed = Vec::new();
            for n in 0..READS {
                let len = LENGTHS[xorshift(&mut state) as usize % LENGTHS.len()].min(ROOM as u32);
                // The READ lands where its bytes are at the producer, at an odd place.
                let at = u64::from(n) * ROOM + xorshift(&mut state) % (ROOM - u64::from(len) + 1);
                placed.push((at, len));
            }
            let mut expected = vec![0; BYTES];
            for (commit, pieces) in placed.chunks(4).enumerate() {
                let which = commit % 2;
                let reads: Vec<Read> = pieces
                    .iter()
                    .enumerate()
                    .map(|(i, &(at, len))| {
                        let seq = (round as u32) << 8 | (commit * 4 + i) as u32;
                        driver.read(which as u16, seq, region, at, len)
                    })
                    .collect();
                assert_eq!(driver.post(&mut lanes[which], &reads), Commit::All);
            }
            for &(at, len) in &placed {
                let range = at as usize..at as usize + len as usize;
                expected[range.clone()].copy_from_slice(&source[range]);
            }
            driver.wait(READS, Nanos::from_secs(20));
            let done = driver.completions(READS as usize);
            // Posted and reported in one order, which is that of the rail.
            let seqs: Vec<u32> = (0..READS).map(|n| (round as u32) << 8 | n).collect();
            assert!(done.iter().map(|of| of.0).eq(seqs) && done.iter().all(|of| of.1 == OK), "{done:?}");
            assert!(driver.bytes(0, BYTES) == expected, "round {round}");
            driver.wipe();
        }
        assert!(driver.events.is_empty());
    }
}

/// A lane is failed, its export withdrawn, or its producer ended while lists are copied. READs
/// before that are whole; from the first one that failed on, all are flushed.
#[test]
fn what_ends_a_lane_in_the_middle_of_a_list_ends_it_once() {
    let source = pattern(BYTES);
    for case in 0..30_u32 {
        let segment = Arc::new(Segment::new(BYTES).unwrap());
        segment.write(0, &source).unwrap();
        let (owner, region) = ShmPeer::produce(ExportedMemory::segment(segment));
        let mut driver = Driver::<ShmPeer>::new(config(0), BYTES);
        let mut lane = driver.open(0, RAIL, ShmPeer::reach(&owner));
        // Warm: the lane knows the export from here on, so its READs are plain copies.
        let first = driver.read(0, 0, region, 0, 1);
        assert_eq!(driver.post(&mut lane, &[first]), Commit::All);
        assert_eq!(driver.completions(1), [(0, OK)]);
        let (len, stray) = (LENGTHS[4 + case as usize % 5].min(ROOM as u32), case * 7 % READS);
        let reads: Vec<Read> = (0..READS)
            .map(|n| {
                let read = driver.read(0, n + 1, region, u64::from(n) * ROOM, len);
                let beyond = case % 3 == 0 && n == stray;
                Read { remote_addr: read.remote_addr + if beyond { BYTES as u64 } else { 0 }, ..read }
            })
            .collect();
        let mut owner = Some(owner);
        let other = if case % 3 == 2 { owner.take() } else { None };
        let withdrawer = other.map(|owner| {
            std::thread::spawn(move || {
                std::thread::yield_now();
                drop(owner.0);
                owner.1
            })
        });
        assert_eq!(driver.post(&mut lane, &reads), Commit::All);
        if case % 3 == 1 {
            driver.wait(stray, Nanos::from_secs(20));
            driver.rails.fail(&mut lane);
        }
        driver.wait(READS, Nanos::from_secs(20));
        let done = driver.completions(READS as usize);
        assert!(done.iter().map(|of| of.0).eq(1..=READS), "{done:?}");
        let good = done.iter().take_while(|of| of.1 == OK).count();
        let rest: Vec<_> = done[good..].iter().map(|of| of.1).collect();
        let flushed = &rest[rest.len().min(usize::from(case % 3 != 1))..];
        assert!(flushed.iter().all(|&status| status == WcStatus::WR_FLUSH_ERR), "case {case}: {done:?}");
        match case % 3 {
            0 => assert_eq!((good as u32, rest[0]), (stray, WcStatus::REM_ACCESS_ERR)),
            2 if good < READS as usize => assert_eq!(rest[0], WcStatus::REM_ACCESS_ERR),
            _ => {}
        }
        for n in 0..good {
            let at = n * ROOM as usize;
            assert!(driver.bytes(at, len as usize) == source[at..at + len as usize], "case {case}, READ {n}");
        }
        if case % 3 != 2 || good < READS as usize {
            driver.event(ProviderEvent::LaneFailed(LaneId::new(0, 1)));
        }
        drop(withdrawer.map(|thread| thread.join().unwrap()));
    }
}

/// A transport whose first READ is a plain copy that takes `SLOW`, and whose others block until
/// they are interrupted.
struct SlowCopy {
    bytes: Vec<u8>,
    copied_by: Sender<ThreadId>,
    failing: Arc<AtomicBool>,
}

const SLOW: Duration = Duration::from_millis(600);
const PLAIN: u32 = 1;

// SAFETY: `execute` writes nothing. The bytes at a plain copy's address live as long as `self`, and
// are no registered memory.
unsafe impl LaneTransport for SlowCopy {
    const LABEL: &'static str = "slow";
    const COPIES: bool = true;
    type Interrupt = Arc<AtomicBool>;

    fn interrupt_handle(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.failing)
    }

    fn interrupt(failing: &Arc<AtomicBool>) {
        failing.store(true, Ordering::Release);
    }

    fn plain_copy(&self, read: &Read) -> Option<*const u8> {
        (read.rkey == PLAIN && read.len as usize <= self.bytes.len()).then_some(self.bytes.as_ptr())
    }

    fn copied(&self, _: &Read) -> WcStatus {
        std::thread::sleep(SLOW);
        self.copied_by.send(std::thread::current().id()).unwrap();
        OK
    }

    unsafe fn execute(&mut self, _: &Read) -> WcStatus {
        while !self.failing.load(Ordering::Acquire) {
            std::thread::sleep(Duration::from_millis(1));
        }
        WcStatus::RETRY_EXC_ERR
    }
}

/// The time that the waiting thread spends on copies is a part of the wait, not added to it.
#[test]
fn a_wait_that_copies_and_then_sleeps_is_over_at_its_time() {
    if std::thread::available_parallelism().map_or(1, |cores| cores.get()) < 2 {
        eprintln!("SKIPPED: with one core the waiting thread does not copy");
        return;
    }
    for _ in 0..20 {
        let (copied_by, thread) = channel();
        let mut driver = Driver::<SlowCopy>::new(config(0), 4096);
        let bytes = vec![7; 4096];
        let transport = SlowCopy { bytes, copied_by, failing: Arc::default() };
        let mut lane = driver.open(0, RAIL, transport);
        let region = ExportedRegion { base: 0, len: 4096, rkey: PLAIN };
        let first = driver.read(0, 0, region, 0, 4096);
        let second = Read { rkey: PLAIN + 1, ..driver.read(0, 1, region, 0, 4096) };
        // The lane's thread sleeps by now, so that the waiting thread most often comes first.
        std::thread::sleep(Duration::from_millis(20));
        assert_eq!(driver.post(&mut lane, &[first, second]), Commit::All);
        let begun = Instant::now();
        driver.wait(2, Nanos(2 * SLOW.as_nanos() as u64));
        let took = begun.elapsed();
        assert!(took < SLOW * 5 / 2, "{took:?} for a wait of {:?}", 2 * SLOW);
        drop(driver);
        if thread.recv().unwrap() == std::thread::current().id() {
            return;
        }
    }
    panic!("the waiting thread has never copied");
}
