//! Exporters that send wrong replies or unsafe files, and clients that send wrong hellos.
#![allow(missing_docs, reason = "a test")]

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use kvrail_host::segment::SegmentViewError;
use kvrail_local::shm::{Segment, ShmAddress, ShmConnectError, ShmExportError, ShmExporter, ShmPeer};
use rustix::fs::{
    FallocateFlags, MemfdFlags, SealFlags, fallocate, fcntl_add_seals, fstat, ftruncate, memfd_create,
};
use rustix::net::{
    self, AddressFamily, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix,
    SocketFlags, SocketType,
};

const LEN: u64 = 8192;
const SEALS: SealFlags = SealFlags::SHRINK.union(SealFlags::GROW).union(SealFlags::FUTURE_WRITE);

fn socket() -> OwnedFd {
    net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap()
}

/// An address whose name and secrets are made from one seed.
fn address_bytes(seed: u8) -> [u8; 64] {
    let mut bytes = [0; 64];
    bytes[..8].copy_from_slice(b"KVSM\x01\0\0\0");
    let unique = std::process::id().to_le_bytes();
    bytes[8..12].copy_from_slice(&unique);
    bytes[12..24].fill(seed);
    bytes[24..40].fill(2);
    bytes[40..56].fill(3);
    bytes
}

fn name(address: &[u8; 64]) -> SocketAddrUnix {
    SocketAddrUnix::new_abstract_name(&address[8..24]).unwrap()
}

/// A welcome with one segment of LEN bytes, changed by `edit`.
fn welcome(edit: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut reply = b"KVSH\x01\0\0\x01".to_vec();
    reply.extend([3; 16]);
    reply.extend(0x10_0000_u64.to_le_bytes());
    reply.extend(LEN.to_le_bytes());
    reply.resize(280, 0);
    edit(&mut reply);
    reply
}

/// Listens like an exporter, and answers one client with `reply` and `fds`.
fn fake_exporter(seed: u8, reply: Vec<u8>, fds: Vec<OwnedFd>) -> (ShmAddress, JoinHandle<()>) {
    let bytes = address_bytes(seed);
    let listener = socket();
    net::bind(&listener, &name(&bytes)).unwrap();
    net::listen(&listener, 1).unwrap();
    let thread = std::thread::spawn(move || {
        let client = net::accept(&listener).unwrap();
        net::recv(&client, &mut [0_u8; 64], RecvFlags::empty()).unwrap();
        send(&client, &reply, &fds.iter().map(|fd| fd.as_fd()).collect::<Vec<_>>());
        // The connection stays open until the client closes it.
        let _ = net::recv(&client, &mut [0_u8; 64], RecvFlags::empty());
    });
    (ShmAddress::parse(&bytes).unwrap(), thread)
}

fn send(to: &OwnedFd, bytes: &[u8], fds: &[BorrowedFd<'_>]) {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(32))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() {
        assert!(control.push(SendAncillaryMessage::ScmRights(fds)));
    }
    net::sendmsg(to, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL).unwrap();
}

/// A memory file of `len` bytes, written to the end, with `seals`.
fn memfd(len: u64, seals: SealFlags) -> OwnedFd {
    let fd = memfd_create("kvrail-test", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap();
    rustix::io::write(&fd, &vec![1; len as usize]).unwrap();
    fcntl_add_seals(&fd, seals).unwrap();
    fd
}

fn error_for(seed: u8, reply: Vec<u8>, fds: Vec<OwnedFd>) -> ShmConnectError {
    let (address, thread) = fake_exporter(seed, reply, fds);
    let error = ShmPeer::connect(&address).unwrap_err();
    thread.join().unwrap();
    error
}

#[test]
fn a_good_reply_is_accepted() {
    // The unchanged reply is accepted, so each refusal below is for the change alone.
    let (address, thread) = fake_exporter(1, welcome(|_| ()), vec![memfd(LEN, SEALS)]);
    let peer = ShmPeer::connect(&address).unwrap();
    assert_eq!(peer.regions()[0].len, LEN);
    drop(peer);
    thread.join().unwrap();
}

#[test]
fn a_segment_that_could_change_is_refused() {
    for (seed, seals) in [
        (2, SealFlags::empty()),
        (3, SEALS.difference(SealFlags::SHRINK)),
        (4, SEALS.difference(SealFlags::GROW)),
        (5, SEALS.difference(SealFlags::FUTURE_WRITE)),
    ] {
        let error = error_for(seed, welcome(|_| ()), vec![memfd(LEN, seals)]);
        assert!(
            matches!(
                error,
                ShmConnectError::Segment { segment: 0, source: SegmentViewError::Unsealed { .. } }
            ),
            "{error}"
        );
    }
    let file: OwnedFd = std::fs::File::open("/proc/self/exe").unwrap().into();
    let error = error_for(6, welcome(|_| ()), vec![file]);
    assert!(
        matches!(error, ShmConnectError::Segment { segment: 0, source: SegmentViewError::Unsealed { .. } }),
        "{error}"
    );
}

#[test]
fn a_segment_with_fewer_bytes_than_announced_is_refused() {
    let truncated = memfd(LEN - 4096, SEALS);
    let error = error_for(7, welcome(|_| ()), vec![truncated]);
    assert!(
        matches!(
            error,
            ShmConnectError::Segment {
                segment: 0,
                source: SegmentViewError::Size { found: 4096, told: LEN }
            }
        ),
        "{error}"
    );
    let holes = memfd_create("kvrail-test", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap();
    ftruncate(&holes, LEN).unwrap();
    fcntl_add_seals(&holes, SEALS).unwrap();
    let error = error_for(8, welcome(|_| ()), vec![holes]);
    assert!(
        matches!(
            error,
            ShmConnectError::Segment { segment: 0, source: SegmentViewError::Size { found: 0, told: LEN } }
        ),
        "{error}"
    );
}

#[test]
fn a_hole_is_found_whatever_the_number_of_blocks() {
    // The file has enough blocks, but half of them lie beyond its end.
    let holes = memfd_create("kvrail-test", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap();
    ftruncate(&holes, LEN).unwrap();
    rustix::io::write(&holes, &[1; LEN as usize / 2]).unwrap();
    fallocate(&holes, FallocateFlags::KEEP_SIZE, LEN, LEN / 2).unwrap();
    let stat = fstat(&holes).unwrap();
    assert_eq!((stat.st_size, stat.st_blocks * 512), (LEN.cast_signed(), LEN.cast_signed()));
    fcntl_add_seals(&holes, SEALS).unwrap();
    let error = error_for(20, welcome(|_| ()), vec![holes]);
    assert!(
        matches!(
            error,
            ShmConnectError::Segment {
                segment: 0,
                source: SegmentViewError::Size { found: 4096, told: LEN }
            }
        ),
        "{error}"
    );
}

#[test]
fn a_malformed_reply_is_refused() {
    let good = || memfd(LEN, SEALS);
    let error = error_for(9, welcome(|r| r[0] = 0), vec![good()]);
    assert!(matches!(error, ShmConnectError::Malformed { .. }), "{error}");
    let error = error_for(10, welcome(|r| r[4] = 7), vec![good()]);
    assert!(matches!(error, ShmConnectError::Version { theirs: 7, ours: 1 }), "{error}");
    let error = error_for(11, welcome(|r| r[8] = 0), vec![good()]);
    assert!(matches!(error, ShmConnectError::Impostor), "{error}");
    let error = error_for(12, welcome(|r| r[7] = 200), vec![good()]);
    assert!(matches!(error, ShmConnectError::Malformed { .. }), "{error}");
    for (seed, len) in [(13, 279), (14, 281), (15, 1)] {
        let error = error_for(seed, welcome(|r| r.resize(len, 0)), vec![good()]);
        assert!(matches!(error, ShmConnectError::Malformed { what: "its length is wrong" }), "{error}");
    }
    for (seed, fds) in [(16, 0), (17, 2), (18, 20)] {
        let error = error_for(seed, welcome(|_| ()), (0..fds).map(|_| good()).collect());
        assert!(matches!(error, ShmConnectError::Malformed { .. }), "{error}");
    }
    let error = error_for(19, welcome(|r| r[24..32].fill(0xFF)), vec![good()]);
    assert!(matches!(error, ShmConnectError::Malformed { .. }), "{error}");
    let unused = ShmAddress::parse(&address_bytes(20)).unwrap();
    assert!(matches!(ShmPeer::connect(&unused), Err(ShmConnectError::NotListening)));
}

fn exporter() -> (ShmExporter, [u8; 64]) {
    let exporter = ShmExporter::start(vec![Arc::new(Segment::new(4096).unwrap())]).unwrap();
    let bytes = exporter.address().to_bytes();
    (exporter, bytes)
}

/// Sends `hello` to the exporter at `address`, and returns its reply and how many descriptors came
/// with it.
fn say(address: &[u8; 64], hello: &[u8]) -> (Vec<u8>, usize) {
    let client = socket();
    net::connect(&client, &name(address)).unwrap();
    net::send(&client, hello, SendFlags::NOSIGNAL).unwrap();
    let mut bytes = [0; 512];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(32))];
    let mut control = net::RecvAncillaryBuffer::new(&mut space);
    let mut slices = [IoSliceMut::new(&mut bytes)];
    let message = net::recvmsg(&client, &mut slices, &mut control, RecvFlags::empty()).unwrap();
    let fds = control.drain().map(|m| match m {
        net::RecvAncillaryMessage::ScmRights(fds) => fds.count(),
        _ => 0,
    });
    let fds = fds.sum();
    (bytes[..message.bytes].to_vec(), fds)
}

#[test]
fn a_forged_hello_gets_no_memory() {
    let (exporter, address) = exporter();
    let mut hello = b"KVSH\x01\0\0\0".to_vec();
    hello.extend(&address[24..40]);
    let (reply, fds) = say(&address, &hello);
    assert_eq!((reply[6], fds), (0, 1), "the right hello gets the segment");
    type Edit = fn(&mut Vec<u8>);
    let forgeries: [(u8, Edit); 5] = [
        (1, |h| h[4] = 2),
        (2, |h| h[8] ^= 1),
        (2, |h| h[23] ^= 0x80),
        (3, |h| h[0] = b'X'),
        (3, |h| h.push(0)),
    ];
    for (status, forge) in forgeries {
        let mut hello = hello.clone();
        forge(&mut hello);
        let (reply, fds) = say(&address, &hello);
        assert_eq!((reply.len(), reply[6], fds), (280, status, 0));
        assert!(reply[7..].iter().all(|&b| b == 0), "a refusal contains nothing else");
    }
    let mut forged = address;
    forged[30] ^= 1;
    let error = ShmPeer::connect(&ShmAddress::parse(&forged).unwrap()).unwrap_err();
    assert!(matches!(error, ShmConnectError::Refused), "{error}");
    assert!(ShmPeer::connect(exporter.address()).is_ok(), "the exporter goes on");
}

#[test]
fn a_silent_client_delays_no_other() {
    let (exporter, address) = exporter();
    let silent: Vec<_> = (0..50)
        .map(|_| {
            let client = socket();
            net::connect(&client, &name(&address)).unwrap();
            client
        })
        .collect();
    let start = Instant::now();
    let peer = ShmPeer::connect(exporter.address()).unwrap();
    assert!(start.elapsed() < Duration::from_secs(5));
    drop(silent);
    assert!(peer.is_alive(), "the end of silent clients does not end others");
    drop(exporter);
    while peer.is_alive() {
        assert!(start.elapsed() < Duration::from_secs(10), "the exporter's end was not found");
        std::thread::yield_now();
    }
}

#[test]
fn many_silent_clients_are_displaced_and_keep_no_reader_out() {
    let (exporter, address) = exporter();
    let start = Instant::now();
    let mut silent: Vec<_> = (0..200)
        .map(|_| {
            let client = socket();
            net::connect(&client, &name(&address)).unwrap();
            client
        })
        .collect();
    let peer = ShmPeer::connect(exporter.address()).unwrap();
    // The oldest are displaced long before their ten seconds are over; the youngest are not.
    let youngest = silent.pop().unwrap();
    for (client, gone) in [(&silent[0], true), (&silent[100], true), (&youngest, false)] {
        net::sockopt::set_socket_timeout(
            client,
            net::sockopt::Timeout::Recv,
            Some(Duration::from_millis(500)),
        )
        .unwrap();
        let got = net::recv(client, &mut [0_u8; 1], RecvFlags::empty());
        assert_eq!(got.is_ok(), gone, "{got:?}");
    }
    assert!(start.elapsed() < Duration::from_secs(8), "{:?}", start.elapsed());
    assert!(peer.is_alive());
}

#[test]
fn peers_of_one_address_share_a_connection() {
    let (exporter, _) = exporter();
    let open = || std::fs::read_dir("/proc/self/task").unwrap().count();
    let first = ShmPeer::connect(exporter.address()).unwrap();
    let threads = open();
    let more: Vec<_> = (0..8).map(|_| ShmPeer::connect(exporter.address()).unwrap()).collect();
    assert!(more.iter().all(|p| p.regions() == first.regions()));
    // Other tests of this binary run at the same time; eight more watchers would fail this.
    assert!(open() < threads + 8, "a watcher per connection, not per peer");
}

#[test]
fn too_many_segments_are_refused() {
    let segment = Arc::new(Segment::new(4096).unwrap());
    for n in [0, 17] {
        let error = ShmExporter::start(vec![Arc::clone(&segment); n]).unwrap_err();
        assert!(matches!(error, ShmExportError::Segments { segments } if segments == n), "{error}");
    }
    let exporter = ShmExporter::start(vec![segment; 16]).unwrap();
    assert_eq!(ShmPeer::connect(exporter.address()).unwrap().regions(), exporter.regions());
}
