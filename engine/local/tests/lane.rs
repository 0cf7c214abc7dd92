//! A lane behaves as a QP does, over shared memory and over TCP alike.
#![allow(missing_docs, reason = "a test")]
#![allow(unsafe_code, reason = "a driver promises whose memory it reads into")]

mod common;

use std::sync::Arc;
use std::time::{Duration, Instant};

use common::{Driver, Producer, RAIL, pattern};
use kvrail_core::id::{LaneId, RailIndex, WrId};
use kvrail_core::provider::{Commit, MemoryRange, Post as _, Provider as _, ProviderEvent, Read, Wake as _};
use kvrail_core::time::{Nanos, Time};
use kvrail_core::verbs_abi::{Wc, WcStatus};
use kvrail_local::shm::{ExportedMemory, Segment, ShmPeer};
use kvrail_local::tcp::TcpConnection;
use kvrail_local::{ExportedRegion, LocalConfig, LocalLane, LocalOpenError};

const OK: WcStatus = WcStatus::SUCCESS;
const FLUSH: WcStatus = WcStatus::WR_FLUSH_ERR;

/// A driver with one lane to a producer of `bytes` bytes.
struct World<T: Producer> {
    driver: Driver<T>,
    lane: LocalLane,
    region: ExportedRegion,
    source: Vec<u8>,
    owner: T::Owner,
}

fn id(lane: u16) -> LaneId {
    LaneId::new(lane, 1)
}

fn world<T: Producer>(config: LocalConfig, bytes: usize) -> World<T> {
    let segment = Arc::new(Segment::new(bytes).unwrap());
    let source = pattern(bytes);
    segment.write(0, &source).unwrap();
    let (owner, region) = T::produce(ExportedMemory::segment(segment));
    let mut driver = Driver::<T>::new(config, bytes);
    let lane = driver.rails.open(id(0), RAIL, T::reach(&owner)).unwrap();
    World { driver, lane, region, source, owner }
}

fn config(sq_entries: u32) -> LocalConfig {
    LocalConfig { rails: 1, sq_entries, cq_entries: 4 * (sq_entries + 1), ..LocalConfig::default() }
}

impl<T: Producer> World<T> {
    fn read(&self, seq: u32, offset: u64, len: u32) -> Read {
        self.driver.read(0, seq, self.region, offset, len)
    }

    fn post(&mut self, reads: &[Read]) -> Commit {
        self.driver.post(&mut self.lane, reads)
    }
}

/// The same test, for each kind of rail.
macro_rules! of_both_kinds {
    ($($(#[$doc:meta])* $name:ident;)*) => {
        mod shm {
            $(#[test] fn $name() { super::$name::<super::ShmPeer>(); })*
        }
        mod tcp {
            $(#[test] fn $name() { super::$name::<super::TcpConnection>(); })*
        }
    };
}

of_both_kinds! {
    bytes_arrive;
    only_signaled_successes_are_reported;
    a_stray_read_fails_alone_and_flushes_the_rest;
    a_destination_that_is_not_registered_is_protected;
    a_send_queue_takes_what_it_holds;
    a_commit_takes_a_chain;
    a_dropped_post_posts_nothing;
    failing_flushes_in_order_and_the_drain_comes_last;
    closing_ends_the_lane_and_frees_its_place;
    a_lane_of_other_rails_is_refused;
    reads_of_a_producer_that_has_ended_fail_as_on_a_dead_path;
    no_read_writes_after_the_rails_are_dropped;
    a_wait_counts_unsignaled_wrs;
    wait_ends_for_a_waker_a_failure_and_the_time;
}

fn bytes_arrive<T: Producer>() {
    let mut w = world::<T>(config(8), 1 << 20);
    let pieces = [(0, 1 << 16), (70_001, 4097), (1 << 19, 1), ((1 << 20) - 7, 7)];
    let reads: Vec<_> = pieces.iter().zip(0..).map(|(&(at, len), seq)| w.read(seq, at, len)).collect();
    assert_eq!(w.post(&reads), Commit::All);
    assert_eq!(w.driver.completions(4), [(0, OK), (1, OK), (2, OK), (3, OK)]);
    for (at, len) in pieces {
        let (at, len) = (at as usize, len as usize);
        assert!(w.driver.bytes(at, len) == w.source[at..at + len], "{at} {len}");
    }
    assert!(w.driver.bytes(1 << 16, 4000).iter().all(|&b| b == 0), "nothing beside them was written");
    assert!(w.driver.events.is_empty());
}

fn only_signaled_successes_are_reported<T: Producer>() {
    let mut w = world::<T>(config(8), 4096);
    for round in 0..10 {
        let reads: Vec<_> =
            (0..8).map(|i| Read { signaled: i % 4 == 3, ..w.read(8 * round + i, u64::from(i), 1) }).collect();
        assert_eq!(w.post(&reads), Commit::All);
        assert_eq!(w.driver.completions(2), [(8 * round + 3, OK), (8 * round + 7, OK)]);
    }
}

fn a_stray_read_fails_alone_and_flushes_the_rest<T: Producer>() {
    let strays: [fn(&mut Read, ExportedRegion); 6] = [
        |read, _| read.rkey = 2,
        |read, _| read.rkey = u32::MAX,
        |read, region| read.remote_addr = region.base - 1,
        |read, region| read.remote_addr = region.base + region.len - 7,
        |read, _| read.remote_addr = u64::MAX - 3,
        |read, _| read.remote_addr = 0,
    ];
    for (case, stray) in strays.iter().enumerate() {
        let mut w = world::<T>(config(8), 8192);
        let mut reads = [w.read(0, 0, 8), w.read(1, 0, 8), w.read(2, 0, 8), w.read(3, 0, 8)];
        stray(&mut reads[1], w.region);
        // A failure is reported although it is not signaled, and covers the success before it.
        (reads[0].signaled, reads[1].signaled) = (false, false);
        assert_eq!(w.post(&reads), Commit::All);
        let expected = [(1, WcStatus::REM_ACCESS_ERR), (2, FLUSH), (3, FLUSH)];
        assert_eq!(w.driver.completions(3), expected, "case {case}");
        w.driver.event(ProviderEvent::LaneFailed(id(0)));
        // All entries are free again: a READ that is posted now is flushed and reported.
        let reads: Vec<_> = (0..8).map(|i| Read { signaled: false, ..w.read(i, 0, 1) }).collect();
        assert_eq!(w.post(&reads), Commit::All);
        assert!(w.driver.completions(8).iter().all(|&(_, status)| status == FLUSH));
    }
}

fn a_destination_that_is_not_registered_is_protected<T: Producer>() {
    let mut canary = vec![7_u8; 4096];
    let addr = canary.as_mut_ptr().expose_provenance() as u64;
    for case in 0..5 {
        let mut w = world::<T>(config(8), 8192);
        let good = w.read(0, 0, 8);
        let end = w.driver.memory.addr() + w.driver.memory.len() as u64;
        let old = w.driver.register(addr, 100);
        w.driver.rails.deregister(MemoryRange { addr, len: 100 }, &old);
        let stray = match case {
            0 => Read { local_addr: addr, ..good },
            1 => Read { local_addr: end - 7, ..good },
            2 => Read { lkey: w.driver.keys[1], ..good },
            3 => Read { lkey: old[0], local_addr: addr, ..good },
            _ => Read { len: 0, ..good },
        };
        assert_eq!(w.post(&[stray, w.read(1, 0, 8)]), Commit::All);
        assert_eq!(w.driver.completions(2), [(0, WcStatus::LOC_PROT_ERR), (1, FLUSH)], "case {case}");
        w.driver.event(ProviderEvent::LaneFailed(id(0)));
    }
    assert!(canary.iter().all(|&b| b == 7));
    let w = world::<T>(config(8), 4096);
    let mut rails = w.driver.rails;
    let unmapped = MemoryRange { addr: 4096, len: 4096 };
    assert_eq!(rails.register(unmapped).unwrap_err().errno, 14);
}

fn a_send_queue_takes_what_it_holds<T: Producer>() {
    let mut w = world::<T>(config(4), 4096);
    let reads: Vec<_> = (0..6).map(|i| w.read(i, u64::from(i), 1)).collect();
    assert!(matches!(w.post(&reads), Commit::Prefix { accepted: 4, errno: 12 }));
    // The READs have completed and have not been polled, so their entries are still in use.
    w.driver.wait(4, Nanos::from_secs(10));
    assert!(matches!(w.post(&reads), Commit::Prefix { accepted: 0, errno: 12 }));
    // The drain has one entry of its own.
    assert_eq!(w.driver.rails.drain(&mut w.lane, WrId::new(id(0), 99)), Ok(()));
    assert_eq!(w.driver.rails.drain(&mut w.lane, WrId::new(id(0), 100)), Err(12));
    assert_eq!(w.driver.completions(5), [(0, OK), (1, OK), (2, OK), (3, OK), (99, OK)]);
    assert_eq!(w.driver.bytes(0, 6), [&w.source[..4], &[0, 0]].concat(), "the rest was not executed");
    assert_eq!(w.post(&reads[..4]), Commit::All);
    assert_eq!(w.driver.completions(4).len(), 4);
}

fn a_commit_takes_a_chain<T: Producer>() {
    let chain = <kvrail_local::LocalProvider<T>>::CHAIN as u32;
    let mut w = world::<T>(config(2 * chain), 4096);
    let reads: Vec<_> = (0..=chain).map(|i| w.read(i, 0, 1)).collect();
    assert_eq!(w.post(&reads), Commit::Prefix { accepted: chain, errno: 12 });
    assert_eq!(w.driver.completions(chain as usize).len(), chain as usize);
    assert_eq!(w.post(&[]), Commit::All);
}

fn a_dropped_post_posts_nothing<T: Producer>() {
    let mut w = world::<T>(config(4), 4096);
    let (abandoned, kept) = (w.read(0, 0, 100), w.read(1, 200, 100));
    for _ in 0..10 {
        // SAFETY: the local memory is this test's, and not looked at meanwhile.
        unsafe { w.driver.rails.begin(&mut w.lane) }.read(abandoned);
        // SAFETY: the local memory is this test's, and not looked at meanwhile.
        let mut forgotten = unsafe { w.driver.rails.begin(&mut w.lane) };
        forgotten.read(abandoned);
        std::mem::forget(forgotten);
    }
    assert_eq!(w.post(&[kept]), Commit::All);
    assert_eq!(w.driver.completions(1), [(1, OK)]);
    assert!(w.driver.bytes(0, 100).iter().all(|&b| b == 0));
}

fn failing_flushes_in_order_and_the_drain_comes_last<T: Producer>() {
    // Carrying all of these out would take a second or more.
    const BYTES: u32 = 32 << 20;
    let mut w = world::<T>(config(64), BYTES as usize);
    let reads: Vec<_> = (0..64).map(|i| w.read(i, 0, BYTES)).collect();
    assert_eq!(w.post(&reads), Commit::All);
    w.driver.rails.fail(&mut w.lane);
    w.driver.rails.fail(&mut w.lane);
    w.driver.event(ProviderEvent::LaneFailed(id(0)));
    assert_eq!(w.driver.rails.drain(&mut w.lane, WrId::new(id(0), 64)), Ok(()));
    let done = w.driver.completions(65);
    assert!(done.iter().map(|d| d.0).eq(0..65), "in the order of posting: {done:?}");
    let flushed = done.iter().position(|d| d.1 == FLUSH).unwrap();
    assert!(done[..flushed].iter().all(|d| d.1 == OK) && done[flushed..].iter().all(|d| d.1 == FLUSH));
    assert!(flushed < 32, "what was queued was not carried out first: {flushed}");
    w.driver.poll();
    assert!(w.driver.events.is_empty(), "one failure, one event: {:?}", w.driver.events);
}

fn closing_ends_the_lane_and_frees_its_place<T: Producer>() {
    let one = LocalConfig { cq_entries: 5, ..config(4) };
    let mut w = world::<T>(one, 4096);
    let full = w.driver.rails.open(id(1), RAIL, T::reach(&w.owner)).unwrap_err();
    assert!(matches!(full, LocalOpenError::RailFull { rail: 0, lanes: 1, .. }), "{full}");
    let none = w.driver.rails.open(id(1), RailIndex(1), T::reach(&w.owner)).unwrap_err();
    assert_eq!(none, LocalOpenError::NoSuchRail { rail: 1, rails: 1 });
    let World { mut driver, mut lane, region, owner, .. } = w;
    for life in 0..20 {
        // Some are signaled, some are not, and some may be flushed: every entry becomes free.
        let reads: Vec<_> =
            (0..4).map(|i| Read { signaled: i == 1, ..driver.read(0, i, region, 0, 64) }).collect();
        assert_eq!(driver.post(&mut lane, &reads), Commit::All);
        let new = LaneId::new(0, 2 + life);
        driver.rails.close(lane);
        assert!(driver.rails.open(new, RAIL, T::reach(&owner)).is_err(), "its end is not known yet");
        driver.event(ProviderEvent::LaneClosed(LaneId::new(0, 1 + life)));
        driver.poll();
        driver.done.clear();
        lane = driver.rails.open(new, RAIL, T::reach(&owner)).unwrap();
    }
    let reads: Vec<_> = (0..4).map(|i| driver.read(0, i, region, 0, 64)).collect();
    assert_eq!(driver.post(&mut lane, &reads), Commit::All);
    assert_eq!(driver.completions(4), [(0, OK), (1, OK), (2, OK), (3, OK)]);
}

/// A lane of other rails than the driver's.
fn other_lane<T: Producer>() -> LocalLane {
    world::<T>(config(7), 4096).lane
}

fn a_lane_of_other_rails_is_refused<T: Producer>() {
    let mut w = world::<T>(config(4), 4096);
    let mut foreign = other_lane::<T>();
    let read = w.read(0, 0, 1);
    assert_eq!(w.driver.post(&mut foreign, &[read]), Commit::Prefix { accepted: 0, errno: 22 });
    assert_eq!(w.driver.rails.drain(&mut foreign, read.wr_id), Err(22));
    w.driver.rails.fail(&mut foreign);
    w.driver.rails.close(foreign);
    assert_eq!(w.post(&[read]), Commit::All);
    assert_eq!(w.driver.completions(1), [(0, OK)]);
    assert!(w.driver.events.is_empty());
}

fn reads_of_a_producer_that_has_ended_fail_as_on_a_dead_path<T: Producer>() {
    let World { mut driver, mut lane, region, owner, .. } = world::<T>(config(4), 4096);
    let read = |seq| driver.read(0, seq, region, 0, 1);
    let (first, second) = (read(0), read(1));
    drop(owner);
    // READs may succeed until the end is found, which takes as long as a thread takes to wake.
    let start = Instant::now();
    loop {
        assert_eq!(driver.post(&mut lane, &[first, second]), Commit::All);
        let done = driver.completions(2);
        match (done[0].1, done[1].1) {
            (OK, OK) => assert!(start.elapsed() < Duration::from_secs(10), "never noticed"),
            (OK, WcStatus::RETRY_EXC_ERR) | (WcStatus::RETRY_EXC_ERR, FLUSH) => break,
            other => panic!("{other:?}"),
        }
    }
    driver.event(ProviderEvent::LaneFailed(id(0)));
    assert_eq!(driver.post(&mut lane, &[first]), Commit::All);
    assert_eq!(driver.completions(1), [(0, FLUSH)]);
}

fn no_read_writes_after_the_rails_are_dropped<T: Producer>() {
    const BYTES: u32 = 32 << 20;
    let mut w = world::<T>(config(128), BYTES as usize);
    let reads: Vec<_> = (0..128).map(|i| w.read(i, 0, BYTES)).collect();
    assert_eq!(w.post(&reads), Commit::All);
    let Driver { rails, memory, .. } = w.driver;
    let start = Instant::now();
    drop(rails);
    assert!(start.elapsed() < Duration::from_secs(5), "what was queued was not carried out first");
    // No READ is under way, so bytes that are stored here stay.
    memory.write(0, &[0xEE; 4096]).unwrap();
    std::thread::sleep(Duration::from_millis(20));
    #[allow(unsafe_code, reason = "looks at what must not change")]
    // SAFETY: within the segment, which this thread alone uses now.
    let seen = unsafe { std::slice::from_raw_parts(memory.as_ptr(), 4096) };
    assert_eq!(seen, [0xEE; 4096]);
}

fn a_wait_counts_unsignaled_wrs<T: Producer>() {
    let mut w = world::<T>(config(32), 1 << 16);
    let reads: Vec<_> = (0..32).map(|i| Read { signaled: i == 31, ..w.read(i, 0, 1 << 16) }).collect();
    let long = Nanos::from_secs(10);
    for _ in 0..20 {
        let start = Instant::now();
        assert_eq!(w.post(&reads), Commit::All);
        w.driver.wait(16, long);
        // Two waits for half of the wrs each: wrs that ended the first wait do not end the second.
        w.driver.poll();
        if w.driver.done.is_empty() {
            w.driver.wait(16, long);
            w.driver.poll();
        }
        assert_eq!(w.driver.done, [(31, OK)]);
        w.driver.done.clear();
        assert!(start.elapsed() < Duration::from_secs(5), "slept through it");
    }
    // A wait for more completions than there can be is a wait for all; completions in the ring
    // count.
    assert_eq!(w.post(&reads), Commit::All);
    let start = Instant::now();
    w.driver.wait(1000, long);
    w.driver.wait(1, long);
    assert!(start.elapsed() < Duration::from_secs(5), "slept through it");
    assert_eq!(w.driver.completions(1), [(31, OK)]);
}

fn wait_ends_for_a_waker_a_failure_and_the_time<T: Producer>() {
    let mut w = world::<T>(config(4), 4096);
    let waker = w.driver.rails.waker();
    let start = Instant::now();
    w.driver.wait(0, Nanos::from_millis(30));
    assert!(start.elapsed() >= Duration::from_millis(29), "with nothing to do it sleeps");
    // A wake before the wait ends it at once.
    waker.wake();
    w.driver.wait(0, Nanos::from_secs(10));
    let thread = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(20));
        waker.wake();
    });
    let now = w.driver.now();
    w.driver.rails.wait(kvrail_core::provider::WaitFor { now, until: Time::NEVER, completions: 3 });
    thread.join().unwrap();
    // One failure ends the wait, however many completions it is for.
    let stray = Read { rkey: 9, ..w.read(0, 0, 1) };
    assert_eq!(w.post(&[stray, w.read(1, 0, 1)]), Commit::All);
    w.driver.wait(0, Nanos::from_secs(10));
    w.driver.wait(4, Nanos::from_secs(10));
    assert!(start.elapsed() < Duration::from_secs(5), "slept through something");
    assert_eq!(w.driver.completions(2), [(0, WcStatus::REM_ACCESS_ERR), (1, FLUSH)]);
    w.driver.event(ProviderEvent::LaneFailed(id(0)));
    let mut none = [Wc::default(); 1];
    assert_eq!(w.driver.rails.poll(RailIndex(15), &mut none), 0, "no such rail");
}
