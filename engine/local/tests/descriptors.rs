//! Readers and producers that have ended leave no descriptor and no thread. The test is alone in
//! its binary, since it counts those of the whole process.
#![allow(missing_docs, reason = "a test")]

mod common;

use std::sync::Arc;
use std::time::{Duration, Instant};

use common::{PATIENCE, RAIL};
use kvrail_core::id::LaneId;
use kvrail_core::provider::Provider as _;
use kvrail_local::shm::{ExportedMemory, Segment, ShmExporter, ShmPeer, ShmProvider};
use kvrail_local::tcp::{TcpConnection, TcpProvider, TcpServer};
use kvrail_local::{LaneTransport, LocalConfig, LocalProvider};

/// Descriptors and threads of this process.
fn held() -> (usize, usize) {
    let count = |folder| std::fs::read_dir(folder).unwrap().count();
    (count("/proc/self/fd"), count("/proc/self/task"))
}

/// Sockets in this process's table, which a child of a fork would inherit.
fn sockets() -> usize {
    let links = std::fs::read_dir("/proc/self/fd").unwrap();
    let links = links.filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok());
    links.filter(|link| link.to_string_lossy().starts_with("socket:")).count()
}

/// Waits until the process has no more descriptors and threads than `before`, and fails if that
/// takes too long.
#[track_caller]
fn settles(before: (usize, usize), what: &str) {
    let start = Instant::now();
    loop {
        let now = held();
        if now.0 <= before.0 && now.1 <= before.1 {
            return;
        }
        assert!(start.elapsed() < PATIENCE / 4, "{what}: {before:?} (descriptors, threads) became {now:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn come_and_go<T: LaneTransport>(reach: impl Fn() -> T) {
    for _ in 0..20 {
        let mut rails = LocalProvider::start(LocalConfig { rails: 1, ..LocalConfig::default() }).unwrap();
        let mut lanes: Vec<_> =
            (0..3).map(|i| rails.open(LaneId::new(i, 1), RAIL, reach()).unwrap()).collect();
        let lane = lanes.pop().unwrap();
        rails.close(lane);
    }
}

#[test]
fn readers_and_producers_that_have_ended_leave_no_descriptor_and_no_thread() {
    let segment = Arc::new(Segment::new(4096).unwrap());
    // The first exporter, server and reader open descriptors for the whole process (for the
    // standard library or the system), which are no leak.
    drop((
        ShmProvider::start(LocalConfig::default()).unwrap(),
        TcpProvider::start(LocalConfig::default()).unwrap(),
    ));
    let before = held();

    let none = sockets();
    let exporter = ShmExporter::start().unwrap();
    let export = exporter.export(ExportedMemory::segment(Arc::clone(&segment))).unwrap();
    let peer = ShmPeer::connect(exporter.address()).unwrap();
    // Two pairs, by which an exporter and a reader pass descriptors between their own threads. A
    // child that inherits them hides no death.
    assert_eq!(
        sockets(),
        none + 4,
        "connections of an exporter and its reader are not in the table that children inherit"
    );
    drop(peer);
    let serving = held();
    come_and_go(|| ShmPeer::connect(exporter.address()).unwrap());
    settles(serving, "readers over shm");
    let mut forged = exporter.address().to_bytes();
    forged[24] ^= 1;
    let forged = kvrail_local::shm::ShmAddress::parse(&forged).unwrap();
    (0..20).for_each(|_| drop(ShmPeer::connect(&forged).unwrap_err()));
    settles(serving, "strangers over shm");
    drop((export, exporter));
    settles(before, "a producer over shm");

    let server = TcpServer::start("127.0.0.1:0".parse().unwrap()).unwrap();
    let export = server.export(ExportedMemory::segment(segment)).unwrap();
    let serving = held();
    come_and_go(|| TcpConnection::open(server.address()).unwrap());
    settles(serving, "readers over TCP");
    let mut forged = server.address().to_bytes();
    forged[32] ^= 1;
    let forged = kvrail_local::tcp::TcpAddress::parse(&forged).unwrap();
    (0..20).for_each(|_| drop(TcpConnection::open(&forged).unwrap_err()));
    settles(serving, "strangers over TCP");
    drop((export, server));
    settles(before, "a producer over TCP");
}
