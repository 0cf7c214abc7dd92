//! A driver of a provider for these tests: it posts, waits and polls as an engine does.
#![allow(dead_code, reason = "every test binary uses its own part of this")]
#![allow(unsafe_code, reason = "a driver promises whose memory it reads into")]
#![allow(unreachable_pub, reason = "a module of several test binaries")]

use std::time::{Duration, Instant};

use kvrail_core::id::{LaneId, RailIndex, WrId};
use kvrail_core::provider::{Commit, MemoryRange, Post, Provider, ProviderEvent, RailKeys, Read, WaitFor};
use kvrail_core::time::{Nanos, Time};
use kvrail_core::verbs_abi::{Wc, WcStatus};
use kvrail_local::shm::{Backing, ExportedMemory, Segment, ShmExport, ShmExporter, ShmPeer};
use kvrail_local::tcp::{TcpConnection, TcpExported, TcpServer};
use kvrail_local::{ExportedRegion, LaneTransport, LocalConfig, LocalLane, LocalProvider};

/// A step of a test that takes longer has hung.
pub const PATIENCE: Duration = Duration::from_secs(20);

pub const RAIL: RailIndex = RailIndex(0);

/// Bytes that differ from place to place.
pub fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|i| ((i as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 56) as u8).collect()
}

/// A provider, destination memory that is registered with it, and what it has reported so far.
pub struct Driver<T: LaneTransport> {
    pub rails: LocalProvider<T>,
    pub keys: RailKeys,
    pub memory: Segment,
    pub done: Vec<(u32, WcStatus)>,
    pub events: Vec<ProviderEvent>,
    start: Instant,
}

impl<T: LaneTransport> Driver<T> {
    pub fn new(config: LocalConfig, bytes: usize) -> Self {
        let mut rails = LocalProvider::start(config).unwrap();
        let memory = Segment::new(bytes).unwrap();
        let keys = rails.register(memory.range()).unwrap();
        Self { rails, keys, memory, done: Vec::new(), events: Vec::new(), start: Instant::now() }
    }

    pub fn now(&self) -> Time {
        Time(self.start.elapsed().as_nanos() as u64)
    }

    /// A READ of `len` bytes at `offset` of `region` to the same offset here, in sequence `seq` of
    /// lane `lane`.
    pub fn read(&self, lane: u16, seq: u32, region: ExportedRegion, offset: u64, len: u32) -> Read {
        Read {
            wr_id: WrId::new(LaneId::new(lane, 1), seq),
            remote_addr: region.base + offset,
            local_addr: self.memory.addr() + offset,
            len,
            rkey: region.rkey,
            lkey: self.keys[0],
            signaled: true,
        }
    }

    /// Opens lane number `lane`, in its first generation.
    pub fn open(&mut self, lane: u16, rail: RailIndex, transport: T) -> LocalLane {
        self.rails.open(LaneId::new(lane, 1), rail, transport).unwrap()
    }

    pub fn post(&mut self, lane: &mut LocalLane, reads: &[Read]) -> Commit {
        // SAFETY: the local memory is this test's, and not looked at meanwhile.
        let mut post = unsafe { self.rails.begin(lane) };
        for &read in reads {
            post.read(read);
        }
        post.commit()
    }

    pub fn wait(&mut self, completions: u32, nanos: Nanos) {
        let now = self.now();
        self.rails.wait(WaitFor { now, until: now + nanos, completions });
    }

    /// Takes all completions and events that have come.
    pub fn poll(&mut self) {
        let mut wcs = [Wc::default(); 7];
        for rail in 0..self.rails.rails() {
            loop {
                let n = self.rails.poll(RailIndex(rail as u8), &mut wcs);
                self.done.extend(wcs[..n].iter().map(|wc| (wc.wr_id().seq(), wc.status())));
                if n < wcs.len() {
                    break;
                }
            }
        }
        self.events.extend(std::iter::from_fn(|| self.rails.next_event()));
    }

    /// Waits and polls until `enough` holds.
    pub fn until(&mut self, enough: impl Fn(&Self) -> bool) {
        let start = Instant::now();
        loop {
            self.poll();
            if enough(self) {
                return;
            }
            assert!(start.elapsed() < PATIENCE, "hung with {:?} and {:?}", self.done, self.events);
            self.wait(1, Nanos::from_secs(1));
        }
    }

    /// Waits for `n` completions and gives them.
    pub fn completions(&mut self, n: usize) -> Vec<(u32, WcStatus)> {
        self.until(|d| d.done.len() >= n);
        std::mem::take(&mut self.done)
    }

    /// Waits for `event`.
    pub fn event(&mut self, event: ProviderEvent) {
        self.until(|d| d.events.contains(&event));
        self.events.retain(|e| *e != event);
    }

    /// The `len` bytes at `offset` of the destination memory.
    pub fn bytes(&self, offset: usize, len: usize) -> Vec<u8> {
        assert!(offset + len <= self.memory.len());
        let mut out = vec![0; len];
        let from = self.memory.as_ptr().wrapping_add(offset);
        #[allow(unsafe_code, reason = "looks at what the rails wrote")]
        // SAFETY: within the segment, and every READ to there has been reported complete.
        unsafe {
            std::ptr::copy_nonoverlapping(from, out.as_mut_ptr(), len);
        }
        out
    }

    /// Zeroes the destination memory.
    pub fn wipe(&mut self) {
        self.memory.write(0, &vec![0; self.memory.len()]).unwrap();
    }

    pub fn register(&mut self, addr: u64, len: u64) -> RailKeys {
        self.rails.register(MemoryRange { addr, len }).unwrap()
    }
}

/// A producer of either transport, in this process.
pub trait Producer: LaneTransport + Sized {
    /// An export, and the exporter or server that it belongs to.
    type Owner;
    fn produce(memory: ExportedMemory) -> (Self::Owner, ExportedRegion);
    fn reach(owner: &Self::Owner) -> Self;
}

impl Producer for ShmPeer {
    type Owner = (ShmExport, ShmExporter);

    fn produce(memory: ExportedMemory) -> (Self::Owner, ExportedRegion) {
        let exporter = ShmExporter::start().unwrap();
        let export = exporter.export(memory).unwrap();
        let region = export.region();
        ((export, exporter), region)
    }

    fn reach(owner: &Self::Owner) -> Self {
        Self::connect(owner.1.address()).unwrap()
    }
}

impl Producer for TcpConnection {
    type Owner = (TcpExported, TcpServer);

    fn produce(memory: ExportedMemory) -> (Self::Owner, ExportedRegion) {
        let server = TcpServer::start("127.0.0.1:0".parse().unwrap()).unwrap();
        let export = server.export(memory).unwrap();
        let region = export.region();
        ((export, server), region)
    }

    fn reach(owner: &Self::Owner) -> Self {
        Self::open(owner.1.address()).unwrap()
    }
}

/// Memory of this process that is known by its address alone.
pub fn host_memory(bytes: &'static [u8]) -> ExportedMemory {
    let range = MemoryRange { addr: bytes.as_ptr().expose_provenance() as u64, len: bytes.len() as u64 };
    // SAFETY: the bytes are there for ever, and are never written.
    unsafe { ExportedMemory::foreign(range, Backing::Host) }
}
