//! Servers that send wrong replies or stall, and clients that send wrong hellos.
#![allow(missing_docs, reason = "a test")]

mod common;

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use common::{Driver, RAIL, host_memory, pattern};
use kvrail_core::id::LaneId;
use kvrail_core::provider::{Commit, MemoryRange, Provider as _, ProviderEvent};
use kvrail_core::verbs_abi::WcStatus;
use kvrail_local::shm::Segment;
use kvrail_local::tcp::{
    Backing, ExportedMemory, STALL, TcpAddress, TcpConnectError, TcpConnection, TcpExportError,
    TcpServeError, TcpServer,
};
use kvrail_local::{ExportedRegion, LocalConfig, MAX_EXPORTS};

fn segment() -> ExportedMemory {
    let segment = Arc::new(Segment::new(4096).unwrap());
    segment.write(0, &pattern(4096)).unwrap();
    ExportedMemory::segment(segment)
}

fn server(bind: &str) -> TcpServer {
    TcpServer::start(bind.parse().unwrap()).unwrap()
}

fn one_read_over(server: &TcpServer) {
    one_read_of(server, segment());
}

fn one_read_of(server: &TcpServer, memory: ExportedMemory) {
    let export = server.export(memory).unwrap();
    let mut driver = Driver::<TcpConnection>::new(LocalConfig { rails: 1, ..LocalConfig::default() }, 4096);
    let mut lane = driver.open(0, RAIL, TcpConnection::open(server.address()).unwrap());
    let read = driver.read(0, 0, export.region(), 0, 4096);
    assert_eq!(driver.post(&mut lane, &[read]), Commit::All);
    assert_eq!(driver.completions(1), [(0, WcStatus::SUCCESS)]);
    assert!(driver.bytes(0, 4096) == pattern(4096));
}

#[test]
fn the_label_says_functional_only() {
    let rails = kvrail_local::tcp::TcpProvider::start(LocalConfig::default()).unwrap();
    assert_eq!(rails.label(), "tcp (functional only)");
}

#[test]
fn a_server_serves_ipv4_ipv6_and_memory_of_the_caller() {
    one_read_over(&server("127.0.0.1:0"));
    if TcpListener::bind("[::1]:0").is_ok() {
        one_read_over(&server("[::1]:0"));
    } else {
        eprintln!("SKIPPED: this machine has no IPv6 loopback (::1); IPv6 was not tested");
    }
    one_read_of(&server("127.0.0.1:0"), host_memory(pattern(4096).leak()));
}

#[test]
fn invalid_exports_and_addresses_are_refused() {
    let start = |bind: &str| TcpServer::start(bind.parse().unwrap()).unwrap_err();
    assert!(matches!(start("0.0.0.0:0"), TcpServeError::Unspecified { .. }));
    assert!(matches!(start("[::]:0"), TcpServeError::Unspecified { .. }));
    // 192.0.2.0/24 is for documentation: no interface has it.
    assert!(matches!(start("192.0.2.1:0"), TcpServeError::System { .. }));
    let server = server("127.0.0.1:0");
    let error = |addr, len, backing| {
        let range = MemoryRange { addr, len };
        #[allow(unsafe_code, reason = "ranges that are refused")]
        // SAFETY: it is never read.
        server.export(unsafe { ExportedMemory::foreign(range, backing) }).unwrap_err()
    };
    assert!(matches!(error(4096, 0, Backing::Host), TcpExportError::Range { .. }));
    assert!(matches!(error(u64::MAX, 2, Backing::Host), TcpExportError::Range { .. }));
    let device = error(4096, 1, Backing::Device);
    assert!(
        matches!(device, TcpExportError::Device { .. }) && device.to_string().contains("tcp cannot read")
    );
    let all: Vec<_> = (0..MAX_EXPORTS).map(|_| server.export(host_memory(&PAGE)).unwrap()).collect();
    let full = server.export(host_memory(&PAGE)).unwrap_err();
    assert!(full.to_string().contains(&MAX_EXPORTS.to_string()), "{full}");
    let rkeys: std::collections::BTreeSet<_> = all.iter().map(|export| export.region().rkey).collect();
    assert_eq!(rkeys.len(), MAX_EXPORTS, "no rkey is used twice");
}

static PAGE: [u8; 4096] = [7; 4096];

/// Sends `hello` and returns all bytes that come back.
fn say(to: SocketAddr, hello: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(to).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    stream.write_all(hello).unwrap();
    let mut reply = Vec::new();
    // A reset ends the connection, too.
    let _ = stream.read_to_end(&mut reply);
    reply
}

#[test]
fn a_forged_hello_gets_no_service() {
    let server = server("127.0.0.1:0");
    let address = server.address().to_bytes();
    let mut hello = b"KVTH\x02\0\0\0".to_vec();
    hello.extend(&address[32..48]);
    type Edit = fn(&mut Vec<u8>);
    let forgeries: [(&[u8], Edit); 4] = [
        (b"KVTH\x02\0\x01\0", |h| h[4] = 3),
        (b"KVTH\x02\0\x02\0", |h| h[8] ^= 1),
        (b"KVTH\x02\0\x02\0", |h| h[23] ^= 0x80),
        (b"", |h| h[0] = b'X'),
    ];
    for (head, forge) in forgeries {
        let mut hello = hello.clone();
        forge(&mut hello);
        let reply = say(server.address().socket(), &hello);
        assert!(reply.starts_with(head) && reply.len() == 3 * head.len(), "{reply:?}");
        assert!(reply[head.len()..].iter().all(|&b| b == 0), "a refusal contains nothing else");
    }
    let mut forged = address;
    forged[40] ^= 1;
    let error = TcpConnection::open(&TcpAddress::parse(&forged).unwrap()).unwrap_err();
    assert!(matches!(error, TcpConnectError::Refused { .. }), "{error}");
    one_read_over(&server);
}

#[test]
fn a_silent_client_delays_no_other() {
    let server = server("127.0.0.1:0");
    let silent: Vec<_> = (0..20).map(|_| TcpStream::connect(server.address().socket()).unwrap()).collect();
    let start = Instant::now();
    one_read_over(&server);
    drop(server);
    assert!(start.elapsed() < Duration::from_secs(5));
    drop(silent);
}

#[test]
fn silent_connections_keep_no_reader_out() {
    let server = server("127.0.0.1:0");
    let mut silent: Vec<_> =
        (0..320).map(|_| TcpStream::connect(server.address().socket()).unwrap()).collect();
    one_read_over(&server);
    // The others displaced the oldest, which got the reason.
    silent[0].set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let mut told = Vec::new();
    silent[0].read_to_end(&mut told).unwrap();
    assert!(told.starts_with(b"KVTH\x02\0\x05\0") && told.len() == 24, "{told:?}");
}

#[test]
fn more_than_256_lanes_are_served() {
    let server = server("127.0.0.1:0");
    let lanes: Vec<_> = (0..300).map(|_| TcpConnection::open(server.address()).unwrap()).collect();
    one_read_over(&server);
    drop(lanes);
}

/// Listens like a server, answers one hello with `reply` and one request with `response`, and then
/// stays silent until the client goes.
fn fake_server(reply: &'static [u8], response: &'static [u8]) -> (TcpAddress, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut address = *b"KVTC\x02\0\x04\0--------------------------------------------------------";
    address[8..10].copy_from_slice(&listener.local_addr().unwrap().port().to_le_bytes());
    address[10..16].fill(0);
    address[16..20].copy_from_slice(&[127, 0, 0, 1]);
    address[20..32].fill(0);
    let thread = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.read_exact(&mut [0; 24]).unwrap();
        stream.write_all(reply).unwrap();
        if stream.read_exact(&mut [0; 16]).is_ok() {
            stream.write_all(response).unwrap();
            let _ = stream.read_to_end(&mut Vec::new());
        }
    });
    (TcpAddress::parse(&address).unwrap(), thread)
}

const WELCOME: &[u8] = b"KVTH\x02\0\0\0----------------";

#[test]
fn a_malformed_reply_is_refused() {
    let error = |reply| {
        let (address, thread) = fake_server(reply, b"");
        let error = TcpConnection::open(&address).unwrap_err();
        thread.join().unwrap();
        error
    };
    assert!(matches!(error(b"HTTP/1.1 400 Bad Request"), TcpConnectError::Malformed { .. }));
    let version = error(b"KVTH\x09\0\0\0----------------");
    assert!(matches!(version, TcpConnectError::Version { theirs: 9, ours: 2, .. }), "{version}");
    assert!(matches!(error(b"KVTH\x02\0\0\0!!!!!!!!!!!!!!!!"), TcpConnectError::Impostor { .. }));
    let full = error(b"KVTH\x02\0\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0");
    assert!(full.to_string().contains("1024 lanes already"), "{full}");
    let crowded = error(b"KVTH\x02\0\x05\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0");
    assert!(matches!(crowded, TcpConnectError::Crowded { .. }), "{crowded}");
    let (address, thread) = fake_server(WELCOME, b"");
    drop(TcpConnection::open(&address).unwrap());
    thread.join().unwrap();
}

/// The outcome of one READ of 64 bytes from a server that answers `response`.
fn status_for(response: &'static [u8]) -> WcStatus {
    let (address, thread) = fake_server(WELCOME, response);
    let mut driver = Driver::<TcpConnection>::new(LocalConfig { rails: 1, ..LocalConfig::default() }, 4096);
    let mut lane = driver.open(0, RAIL, TcpConnection::open(&address).unwrap());
    let read = driver.read(0, 0, ExportedRegion { base: 0, len: 64, rkey: 0 }, 0, 64);
    assert_eq!(driver.post(&mut lane, &[read]), Commit::All);
    let status = driver.completions(1)[0].1;
    drop(driver);
    thread.join().unwrap();
    status
}

#[test]
fn a_malformed_response_fails_the_read_with_bad_resp_err() {
    assert_eq!(status_for(b"\x01\0\0\0\0\0\0\0"), WcStatus::REM_ACCESS_ERR);
    assert_eq!(status_for(b"\x02\0\0\0\0\0\0\0"), WcStatus::BAD_RESP_ERR);
    assert_eq!(status_for(b"\x00\0\0\0\0\0\0\x01"), WcStatus::BAD_RESP_ERR);
}

#[test]
fn a_read_from_a_server_that_stalls_fails_as_on_a_dead_path() {
    let start = Instant::now();
    // The header, and half of the bytes.
    assert_eq!(status_for(&[0; 40]), WcStatus::RETRY_EXC_ERR);
    assert!(start.elapsed() >= STALL && start.elapsed() < Duration::from_secs(10));
}

#[test]
fn failing_a_lane_ends_a_read_that_stalls() {
    let (address, thread) = fake_server(WELCOME, b"");
    let mut driver = Driver::<TcpConnection>::new(LocalConfig { rails: 1, ..LocalConfig::default() }, 4096);
    let mut lane = driver.open(0, RAIL, TcpConnection::open(&address).unwrap());
    let region = ExportedRegion { base: 0, len: 64, rkey: 0 };
    let reads = [driver.read(0, 0, region, 0, 64), driver.read(0, 1, region, 0, 64)];
    let start = Instant::now();
    assert_eq!(driver.post(&mut lane, &reads), Commit::All);
    std::thread::sleep(Duration::from_millis(50));
    let id = LaneId::new(0, 1);
    driver.rails.fail(&mut lane);
    driver.event(ProviderEvent::LaneFailed(id));
    assert!(start.elapsed() < STALL, "{:?}", start.elapsed());
    let flushed = WcStatus::WR_FLUSH_ERR;
    assert_eq!(driver.completions(2), [(0, flushed), (1, flushed)]);
    drop(driver);
    thread.join().unwrap();
}
