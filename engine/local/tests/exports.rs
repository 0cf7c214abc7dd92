//! Exports come, go, and lose their memory, while readers are connected.
#![allow(missing_docs, reason = "a test")]
#![allow(unsafe_code, reason = "maps and unmaps memory that is exported; forks")]

mod common;

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use common::{Driver, Producer, RAIL, host_memory, pattern};
use kvrail_core::id::{LaneId, RailIndex};
use kvrail_core::provider::{Commit, MemoryRange, Provider as _};
use kvrail_core::verbs_abi::WcStatus;
use kvrail_local::shm::{Backing, ExportedMemory, Segment, ShmExportError, ShmExporter, ShmPeer};
use kvrail_local::tcp::{TcpConnection, TcpExportError, TcpServer};
use kvrail_local::{ExportedRegion, LaneTransport, LocalConfig, MAX_EXPORTS};
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use rustix::mm::{MapFlags, ProtFlags, mmap, mmap_anonymous, munmap};

const LEN: usize = 64 << 10;

/// A driver whose lanes are opened anew after each failure.
struct Lanes<T: LaneTransport> {
    driver: Driver<T>,
    reach: Box<dyn Fn() -> T>,
    number: u16,
    lane: kvrail_local::LocalLane,
}

impl<T: LaneTransport> Lanes<T> {
    fn new(reach: impl Fn() -> T + 'static) -> Self {
        let mut driver = Driver::<T>::new(LocalConfig { rails: 1, ..LocalConfig::default() }, LEN);
        let lane = driver.open(0, RAIL, reach());
        Self { driver, reach: Box::new(reach), number: 0, lane }
    }

    fn read(&mut self, region: ExportedRegion, offset: u64, len: u32) -> WcStatus {
        let read = self.driver.read(self.number, 0, region, offset, len);
        assert_eq!(self.driver.post(&mut self.lane, &[read]), Commit::All);
        let status = self.driver.completions(1)[0].1;
        if !status.is_success() {
            self.number += 1;
            let id = LaneId::new(self.number, 1);
            let lane = self.driver.rails.open(id, RailIndex(0), (self.reach)()).unwrap();
            let old = std::mem::replace(&mut self.lane, lane);
            self.driver.rails.close(old);
        }
        status
    }

    /// Reads the whole region, and checks the bytes.
    #[track_caller]
    fn reads(&mut self, region: ExportedRegion) {
        assert_eq!(self.read(region, 0, LEN as u32), WcStatus::SUCCESS);
        assert!(self.driver.bytes(0, LEN) == pattern(LEN));
    }
}

fn shm(exporter: &ShmExporter) -> Lanes<ShmPeer> {
    let peer = ShmPeer::connect(exporter.address()).unwrap();
    Lanes::new(move || peer.clone())
}

fn tcp(server: &TcpServer) -> Lanes<TcpConnection> {
    let address = *server.address();
    Lanes::new(move || TcpConnection::open(&address).unwrap())
}

fn server() -> TcpServer {
    TcpServer::start("127.0.0.1:0".parse().unwrap()).unwrap()
}

/// A file that is not sealed, with the pattern.
fn file() -> Arc<OwnedFd> {
    let file = memfd_create("kvrail-test", MemfdFlags::CLOEXEC).unwrap();
    assert_eq!(rustix::io::write(&file, &pattern(LEN)), Ok(LEN));
    Arc::new(file)
}

/// Memory of each kind that shm reads, with the pattern.
fn kinds() -> [(&'static str, ExportedMemory); 3] {
    let segment = Segment::new(LEN).unwrap();
    segment.write(0, &pattern(LEN)).unwrap();
    let range = MemoryRange { addr: 0x10_0000, len: LEN as u64 };
    // SAFETY: over shm the file is read by its descriptor, and the address is but a name.
    let file = unsafe { ExportedMemory::foreign(range, Backing::File { file: file(), offset: 0 }) };
    [
        ("segment", ExportedMemory::segment(Arc::new(segment))),
        ("file", file),
        ("host", host_memory(pattern(LEN).leak())),
    ]
}

#[test]
fn a_withdrawn_export_is_not_read_and_its_key_names_nothing_else() {
    for (kind, memory) in kinds() {
        let exporter = ShmExporter::start().unwrap();
        let mut lanes = shm(&exporter);
        let export = exporter.export(memory.clone()).unwrap();
        let first = export.region();
        lanes.reads(first);
        let mut other = shm(&exporter);
        drop(export);
        assert_eq!(lanes.read(first, 0, 1), WcStatus::REM_ACCESS_ERR, "{kind}: known");
        assert_eq!(other.read(first, 0, 1), WcStatus::REM_ACCESS_ERR, "{kind}: not known");
        let export = exporter.export(memory).unwrap();
        let second = export.region();
        assert_eq!(second, ExportedRegion { rkey: first.rkey + 1, ..first });
        assert_eq!(lanes.read(first, 0, 1), WcStatus::REM_ACCESS_ERR, "{kind}: stale");
        lanes.reads(second);
        other.reads(second);
        // An exporter that ends is a dead path, and not the page's fault.
        drop(exporter);
        assert_eq!(lanes.driver.post(&mut lanes.lane, &[]), Commit::All);
        let read = lanes.driver.read(lanes.number, 0, second, 0, 1);
        assert_eq!(lanes.driver.post(&mut lanes.lane, &[read]), Commit::All);
        assert_eq!(lanes.driver.completions(1)[0].1, WcStatus::RETRY_EXC_ERR, "{kind}: ended");
        drop(export);
    }
    let server = server();
    let mut lanes = tcp(&server);
    let export = server.export(host_memory(pattern(LEN).leak())).unwrap();
    let first = export.region();
    lanes.reads(first);
    drop(export);
    assert_eq!(lanes.read(first, 0, 1), WcStatus::REM_ACCESS_ERR);
    let export = server.export(host_memory(pattern(LEN).leak())).unwrap();
    assert_eq!(export.region().rkey, first.rkey + 1);
    lanes.reads(export.region());
}

#[test]
fn a_withdrawn_segment_is_freed_with_the_next_read() {
    let exporter = ShmExporter::start().unwrap();
    let segment = Arc::new(Segment::new(LEN).unwrap());
    let inode = rustix::fs::fstat(segment.fd()).unwrap().st_ino.to_string();
    let mapped = || {
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        maps.lines().filter(|line| line.split_whitespace().nth(4) == Some(&inode)).count()
    };
    let kept = exporter.export(host_memory(pattern(LEN).leak())).unwrap();
    let export = exporter.export(ExportedMemory::segment(segment)).unwrap();
    let mut lanes = shm(&exporter);
    assert_eq!(lanes.read(export.region(), 0, 1), WcStatus::SUCCESS);
    assert_eq!(mapped(), 2, "the owner's and the reader's");
    drop(export);
    assert_eq!(mapped(), 1);
    lanes.reads(kept.region());
    assert_eq!(mapped(), 0);
}

/// Two pages, of which the second can be unmapped.
fn pages() -> (MemoryRange, impl FnOnce()) {
    let protection = ProtFlags::READ | ProtFlags::WRITE;
    // SAFETY: a new mapping at an address of the kernel's choice.
    let at = unsafe { mmap_anonymous(std::ptr::null_mut(), 8192, protection, MapFlags::PRIVATE) }.unwrap();
    let range = MemoryRange { addr: at.expose_provenance() as u64, len: 8192 };
    let second = at.wrapping_byte_add(4096).expose_provenance();
    let unmap = move || {
        let second = std::ptr::with_exposed_provenance_mut(second);
        // SAFETY: the page was mapped above, and no code of this program uses it.
        unsafe { munmap(second, 4096) }.unwrap();
    };
    (range, unmap)
}

#[test]
fn a_read_of_memory_that_is_not_mapped_any_more_is_refused_alone() {
    fn refused<T: Producer>() {
        let (range, unmap) = pages();
        // SAFETY: the promise is broken on purpose; no code but the kernel follows the address.
        let memory = unsafe { ExportedMemory::foreign(range, Backing::Host) };
        let (owner, region) = T::produce(memory);
        let owner = Arc::new(owner);
        let mut lanes = Lanes::new(move || T::reach(&owner));
        assert_eq!(lanes.read(region, 0, 8192), WcStatus::SUCCESS);
        unmap();
        for (offset, len) in [(4096, 4096), (0, 8192), (4095, 2), (8191, 1)] {
            assert_eq!(lanes.read(region, offset, len), WcStatus::REM_ACCESS_ERR, "{offset} {len}");
        }
        assert_eq!(lanes.read(region, 0, 4096), WcStatus::SUCCESS);
    }
    refused::<ShmPeer>();
    refused::<TcpConnection>();
}

#[test]
fn a_file_that_is_truncated_while_it_is_read_kills_nobody() {
    fn truncated<T: Producer>() {
        let file = file();
        let none = std::ptr::null_mut();
        // SAFETY: a new mapping at an address of the kernel's choice. No code of this program
        // accesses it, so that the end of the file raises no signal.
        let at = unsafe { mmap(none, LEN, ProtFlags::READ, MapFlags::SHARED, &file, 0) }.unwrap();
        let range = MemoryRange { addr: at.expose_provenance() as u64, len: LEN as u64 };
        let backing = Backing::File { file: Arc::clone(&file), offset: 0 };
        // SAFETY: the mapping stays, and the file is the one that is mapped.
        let (owner, region) = T::produce(unsafe { ExportedMemory::foreign(range, backing) });
        let owner = Arc::new(owner);
        let mut lanes = Lanes::new(move || T::reach(&owner));
        lanes.reads(region);
        ftruncate(&file, 4096).unwrap();
        assert_eq!(lanes.read(region, 0, LEN as u32), WcStatus::REM_ACCESS_ERR);
        assert_eq!(lanes.read(region, 4096, 1), WcStatus::REM_ACCESS_ERR);
        assert_eq!(lanes.read(region, 0, 4096), WcStatus::SUCCESS);
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    ftruncate(&file, 0).unwrap();
                    ftruncate(&file, LEN as u64).unwrap();
                }
            });
            for _ in 0..300 {
                let status = lanes.read(region, 0, LEN as u32);
                assert!([WcStatus::SUCCESS, WcStatus::REM_ACCESS_ERR].contains(&status), "{status}");
            }
            stop.store(true, Ordering::Relaxed);
        });
    }
    truncated::<ShmPeer>();
    truncated::<TcpConnection>();
}

#[test]
fn a_child_of_a_fork_exports_nothing_and_withdraws_nothing() {
    let (exporter, server) = (ShmExporter::start().unwrap(), server());
    let memory = host_memory(pattern(LEN).leak());
    let export = exporter.export(memory.clone()).unwrap();
    let tcp_export = server.export(memory.clone()).unwrap();
    let (region, tcp_region) = (export.region(), tcp_export.region());
    // SAFETY: the child makes values, drops values and ends. The C library lets the child of its
    // fork allocate.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let refused = matches!(exporter.export(memory.clone()), Err(ShmExportError::Forked))
            && matches!(server.export(memory), Err(TcpExportError::Forked));
        drop((export, tcp_export, exporter, server));
        // SAFETY: a system call on an integer.
        unsafe { libc::_exit(i32::from(!refused)) };
    }
    let mut status = -1;
    // SAFETY: `status` is there to be written.
    assert_eq!(unsafe { libc::waitpid(child, &mut status, 0) }, child);
    assert_eq!(status, 0);
    shm(&exporter).reads(region);
    tcp(&server).reads(tcp_region);
    drop((export, tcp_export));
}

#[test]
fn a_withdrawal_over_tcp_waits_for_no_reader_that_takes_nothing() {
    use std::io::{Read as _, Write as _};
    const HUGE: usize = 64 << 20;
    let server = server();
    let export = server.export(host_memory(vec![7; HUGE].leak())).unwrap();
    let address = server.address().to_bytes();
    let mut stream = std::net::TcpStream::connect(server.address().socket()).unwrap();
    let mut hello = b"KVTH\x02\0\0\0".to_vec();
    hello.extend(&address[32..48]);
    stream.write_all(&hello).unwrap();
    stream.read_exact(&mut [0; 24]).unwrap();
    let region = export.region();
    let mut request = region.base.to_le_bytes().to_vec();
    request.extend((HUGE as u32).to_le_bytes());
    request.extend(region.rkey.to_le_bytes());
    stream.write_all(&request).unwrap();
    // The response begins, so the thread sends, and more than the buffers hold is left.
    stream.read_exact(&mut [0; 4096]).unwrap();
    let start = Instant::now();
    drop(export);
    assert!(start.elapsed() < Duration::from_secs(8), "{:?}", start.elapsed());
    drop(server);
}

#[test]
fn impossible_exports_are_refused_with_their_numbers() {
    let exporter = ShmExporter::start().unwrap();
    let error = |addr, len, backing| {
        // SAFETY: it is never read.
        exporter.export(unsafe { ExportedMemory::foreign(MemoryRange { addr, len }, backing) }).unwrap_err()
    };
    assert!(matches!(error(4096, 0, Backing::Host), ShmExportError::Range { .. }));
    assert!(matches!(error(u64::MAX, 2, Backing::Host), ShmExportError::Range { .. }));
    let device = error(4096, 1, Backing::Device);
    assert!(
        matches!(device, ShmExportError::Device { .. }) && device.to_string().contains("shm cannot read")
    );
    let (file, all) = (file(), LEN as u64);
    for (offset, len) in [(0, all + 1), (1, all), (all, 1), (u64::MAX, 1)] {
        let error = error(4096, len, Backing::File { file: Arc::clone(&file), offset });
        assert!(matches!(error, ShmExportError::File { file, .. } if file == all), "{error}");
    }
    assert_eq!(ShmPeer::connect(exporter.address()).unwrap().regions(), []);
}

#[test]
fn five_thousand_exports_are_served_and_more_than_the_limit_are_not() {
    let exporter = ShmExporter::start().unwrap();
    let (file, source) = (file(), pattern(LEN));
    let host = source.clone().leak().as_ptr().expose_provenance() as u64;
    let export = |i: usize| {
        let len = LEN as u64 / 2;
        let offset = (i as u64 * 8) % len;
        let backing = if i.is_multiple_of(2) {
            Backing::Host
        } else {
            Backing::File { file: Arc::clone(&file), offset }
        };
        // SAFETY: static memory, and as many bytes of a file that lives as long as the exports.
        let memory = unsafe { ExportedMemory::foreign(MemoryRange { addr: host + offset, len }, backing) };
        exporter.export(memory)
    };
    let mut all: Vec<_> = (0..5_000).map(|i| export(i).unwrap()).collect();
    let peer = ShmPeer::connect(exporter.address()).unwrap();
    assert!(peer.regions().into_iter().eq(all.iter().map(|export| export.region())));
    // Those of the file share one descriptor and those of the process none, and each names its own
    // bytes.
    let mut lanes = Lanes::new(move || peer.clone());
    for (i, export) in all.iter().enumerate() {
        assert_eq!(lanes.read(export.region(), 0, 64), WcStatus::SUCCESS);
        let offset = (i * 8) % (LEN / 2);
        assert!(lanes.driver.bytes(0, 64) == source[offset..offset + 64], "export {i}");
    }
    all.extend((5_000..MAX_EXPORTS).map(|i| export(i).unwrap()));
    let error = export(0).unwrap_err();
    assert!(matches!(error, ShmExportError::Exports), "{error}");
    assert!(error.to_string().contains(&MAX_EXPORTS.to_string()), "{error}");
    all.swap_remove(7);
    all.push(export(1).unwrap());
    let rkeys: std::collections::BTreeSet<_> = all.iter().map(|export| export.region().rkey).collect();
    assert_eq!((rkeys.len(), rkeys.last()), (MAX_EXPORTS, Some(&(MAX_EXPORTS as u32 + 1))));
}
