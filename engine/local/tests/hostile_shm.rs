//! Exporters that send wrong replies or unsafe files, and clients that send wrong hellos.
#![allow(missing_docs, reason = "a test")]

mod common;

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use common::{Driver, RAIL};
use kvrail_core::provider::Commit;
use kvrail_core::verbs_abi::WcStatus;
use kvrail_host::segment::SegmentViewError;
use kvrail_local::shm::{ShmAddress, ShmConnectError, ShmExporter, ShmPeer};
use kvrail_local::{LocalConfig, MAX_EXPORTS};
use rustix::fs::{
    FallocateFlags, MemfdFlags, SealFlags, fallocate, fcntl_add_seals, fstat, ftruncate, memfd_create,
};
use rustix::io::Errno;
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
    bytes[..8].copy_from_slice(b"KVSM\x02\0\0\0");
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

/// A welcome, changed by `edit`.
fn welcome(edit: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut reply = b"KVSH\x02\0\0\0".to_vec();
    reply.extend([3; 16]);
    reply.resize(48, 0);
    edit(&mut reply);
    reply
}

/// The answer to the question for all exports: one segment of LEN bytes. It is changed by `edit`.
fn answer(edit: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut reply = vec![2, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0];
    reply.extend(1_u32.to_le_bytes());
    reply.extend(0_u32.to_le_bytes());
    reply.extend(0x10_0000_u64.to_le_bytes());
    reply.extend(LEN.to_le_bytes());
    reply.resize(56, 0);
    reply.push(1);
    reply.resize(784, 0);
    edit(&mut reply);
    reply
}

/// Memory of live words, in which the export in slot 0 is live.
fn live() -> OwnedFd {
    let mut words = vec![0_u8; 4 * (1 + MAX_EXPORTS)];
    words[4..8].copy_from_slice(&1_u32.to_le_bytes());
    let fd = memfd_create("kvrail-test", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap();
    rustix::io::write(&fd, &words).unwrap();
    fcntl_add_seals(&fd, SEALS).unwrap();
    fd
}

/// The descriptors of a good welcome, and the end of the pipe that must stay open.
fn life() -> (Vec<OwnedFd>, OwnedFd) {
    let (read, write) = rustix::pipe::pipe().unwrap();
    (vec![live(), read], write)
}

/// Listens like an exporter, and sends one client a message with descriptors for each message that
/// it sends.
fn fake_exporter(seed: u8, replies: Vec<(Vec<u8>, Vec<OwnedFd>)>) -> (ShmAddress, JoinHandle<()>) {
    let bytes = address_bytes(seed);
    let listener = socket();
    net::bind(&listener, &name(&bytes)).unwrap();
    net::listen(&listener, 1).unwrap();
    let thread = std::thread::spawn(move || {
        let client = net::accept(&listener).unwrap();
        for (reply, fds) in replies {
            if net::recv(&client, &mut [0_u8; 64], RecvFlags::empty()).map_or(0, |(n, _)| n) == 0 {
                return;
            }
            send(&client, &reply, &fds.iter().map(|fd| fd.as_fd()).collect::<Vec<_>>());
        }
        // The connection stays open until the client closes it.
        let _ = net::recv(&client, &mut [0_u8; 64], RecvFlags::empty());
    });
    (ShmAddress::parse(&bytes).unwrap(), thread)
}

/// An exporter with a good welcome, and this answer to the question for all exports.
fn fake_answer(seed: u8, reply: Vec<u8>, fds: Vec<OwnedFd>) -> (ShmAddress, JoinHandle<()>, OwnedFd) {
    let (welcome_fds, write) = life();
    let (address, thread) = fake_exporter(seed, vec![(welcome(|_| ()), welcome_fds), (reply, fds)]);
    (address, thread, write)
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
    let (address, thread, _write) = fake_answer(seed, reply, fds);
    let error = ShmPeer::connect(&address).unwrap_err();
    thread.join().unwrap();
    error
}

fn error_for_welcome(seed: u8, reply: Vec<u8>, fds: Vec<OwnedFd>) -> ShmConnectError {
    let (address, thread) = fake_exporter(seed, vec![(reply, fds)]);
    let error = ShmPeer::connect(&address).unwrap_err();
    thread.join().unwrap();
    error
}

#[test]
fn a_good_reply_is_accepted() {
    // The unchanged replies are accepted, so each refusal below is for the change alone.
    let (address, thread, _write) = fake_answer(1, answer(|_| ()), vec![memfd(LEN, SEALS)]);
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
        let error = error_for(seed, answer(|_| ()), vec![memfd(LEN, seals)]);
        assert!(
            matches!(error, ShmConnectError::Segment { rkey: 1, source: SegmentViewError::Unsealed { .. } }),
            "{error}"
        );
    }
    let file: OwnedFd = std::fs::File::open("/proc/self/exe").unwrap().into();
    let error = error_for(6, answer(|_| ()), vec![file]);
    assert!(
        matches!(error, ShmConnectError::Segment { rkey: 1, source: SegmentViewError::Unsealed { .. } }),
        "{error}"
    );
}

#[test]
fn a_segment_with_fewer_bytes_than_announced_is_refused() {
    let truncated = memfd(LEN - 4096, SEALS);
    let error = error_for(7, answer(|_| ()), vec![truncated]);
    assert!(
        matches!(
            error,
            ShmConnectError::Segment { rkey: 1, source: SegmentViewError::Size { found: 4096, told: LEN } }
        ),
        "{error}"
    );
    let holes = memfd_create("kvrail-test", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap();
    ftruncate(&holes, LEN).unwrap();
    fcntl_add_seals(&holes, SEALS).unwrap();
    let error = error_for(8, answer(|_| ()), vec![holes]);
    assert!(
        matches!(
            error,
            ShmConnectError::Segment { rkey: 1, source: SegmentViewError::Size { found: 0, told: LEN } }
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
    let error = error_for(20, answer(|_| ()), vec![holes]);
    assert!(
        matches!(
            error,
            ShmConnectError::Segment { rkey: 1, source: SegmentViewError::Size { found: 4096, told: LEN } }
        ),
        "{error}"
    );
}

#[test]
fn a_malformed_welcome_is_refused() {
    let good = || life().0;
    let error = error_for_welcome(9, welcome(|r| r[0] = 0), good());
    assert!(matches!(error, ShmConnectError::Malformed { .. }), "{error}");
    let error = error_for_welcome(10, welcome(|r| r[4] = 7), good());
    assert!(matches!(error, ShmConnectError::Version { theirs: 7, ours: 2 }), "{error}");
    let error = error_for_welcome(11, welcome(|r| r[8] = 0), good());
    assert!(matches!(error, ShmConnectError::Impostor), "{error}");
    let error = error_for_welcome(12, welcome(|r| r[7] = 1), good());
    assert!(matches!(error, ShmConnectError::Malformed { .. }), "{error}");
    for (seed, len) in [(13, 47), (14, 49), (15, 1)] {
        let error = error_for_welcome(seed, welcome(|r| r.resize(len, 0)), good());
        assert!(matches!(error, ShmConnectError::Malformed { what } if what.contains("length")), "{error}");
    }
    for (seed, fds) in [(16, 0), (17, 1), (18, 3)] {
        let fds = (0..fds).map(|_| live()).collect();
        let error = error_for_welcome(seed, welcome(|_| ()), fds);
        assert!(matches!(error, ShmConnectError::Malformed { .. }), "{error}");
    }
    // Live words that the exporter could take away would kill the reader.
    let (_, pipe) = (life(), rustix::pipe::pipe().unwrap());
    let unsealed = memfd(4 * (1 + MAX_EXPORTS as u64), SealFlags::empty());
    let error = error_for_welcome(19, welcome(|_| ()), vec![unsealed, pipe.0]);
    assert!(
        matches!(error, ShmConnectError::Segment { rkey: 0, source: SegmentViewError::Unsealed { .. } }),
        "{error}"
    );
    let unused = ShmAddress::parse(&address_bytes(20)).unwrap();
    assert!(matches!(ShmPeer::connect(&unused), Err(ShmConnectError::NotListening)));
}

#[test]
fn a_malformed_answer_is_refused() {
    let good = || memfd(LEN, SEALS);
    type Edit = fn(&mut Vec<u8>);
    let edits: [Edit; 12] = [
        // The answer to another question, more exports than it holds, none of two exports' bytes.
        |r| r[0] = 1,
        |r| r[4] = 1,
        |r| r[8] = 17,
        |r| r[8] = 2,
        // No key, a slot beyond the last, a range that wraps around, no bytes, an unknown kind.
        |r| r[16] = 0,
        |r| r[22] = 1,
        |r| r[24..32].fill(0xFF),
        |r| r[32..40].fill(0),
        |r| r[56] = 9,
        // Lengths.
        |r| r.truncate(783),
        |r| r.push(0),
        |r| r.truncate(1),
    ];
    for (seed, edit) in (30..).zip(edits) {
        let error = error_for(seed, answer(edit), vec![good()]);
        assert!(matches!(error, ShmConnectError::Malformed { .. }), "{seed}: {error}");
    }
    for (seed, fds) in [(50, 0), (51, 2), (52, 20)] {
        let error = error_for(seed, answer(|_| ()), (0..fds).map(|_| good()).collect());
        assert!(matches!(error, ShmConnectError::Malformed { .. }), "{error}");
    }
}

#[test]
fn a_list_without_end_is_refused() {
    // Full answers, whose keys ascend by one each.
    let full = |turn: u32| {
        let mut reply = vec![2, 0, 0, 0];
        reply.extend(if turn == 0 { 0 } else { turn * 16 + 1 }.to_le_bytes());
        reply.extend([16, 0, 0, 0, 0, 0, 0, 0]);
        for rkey in turn * 16 + 1..turn * 16 + 17 {
            reply.extend(rkey.to_le_bytes());
            reply.extend([0; 4]);
            reply.extend(0x10_0000_u64.to_le_bytes());
            reply.extend(LEN.to_le_bytes());
            reply.extend([0; 16]);
            reply.extend([3, 0, 0, 0, 0, 0, 0, 0]);
        }
        (reply, vec![])
    };
    let (welcome_fds, _write) = life();
    let mut replies = vec![(welcome(|_| ()), welcome_fds)];
    replies.extend((0..=MAX_EXPORTS as u32 / 16).map(full));
    let (address, thread) = fake_exporter(60, replies);
    let error = ShmPeer::connect(&address).unwrap_err();
    thread.join().unwrap();
    assert!(matches!(error, ShmConnectError::Malformed { what } if what.contains("more exports")), "{error}");
}

#[test]
fn a_process_that_does_not_hold_the_probe_is_not_read() {
    // The probe's address is this process's, and there is another value.
    static VALUE: [u8; 16] = [1; 16];
    let lie = |r: &mut Vec<u8>| {
        r[24..32].copy_from_slice(&(VALUE.as_ptr().expose_provenance() as u64).to_le_bytes());
        r[32..48].fill(2);
    };
    for (seed, unmapped) in [(61, false), (62, true)] {
        let (fds, _write) = life();
        let reply = welcome(|r| {
            lie(r);
            if unmapped {
                r[24..32].fill(0xFF);
            }
        });
        let (address, thread) = fake_exporter(seed, vec![(reply, fds), (answer(|r| r[56] = 3), vec![])]);
        let error = ShmPeer::connect(&address).unwrap_err();
        thread.join().unwrap();
        let ours = std::process::id().cast_signed();
        assert!(matches!(error, ShmConnectError::OtherProcess { pid } if pid == ours), "{error}");
    }
}

#[test]
fn an_exporter_that_declares_memory_that_it_does_not_have_fails_the_read_alone() {
    static VALUE: [u8; 16] = [1; 16];
    let reply = welcome(|r| {
        r[24..32].copy_from_slice(&(VALUE.as_ptr().expose_provenance() as u64).to_le_bytes());
        r[32..48].fill(1);
    });
    let (fds, write) = life();
    // Nothing is mapped at 0x10_0000 of this process, or at the end of what an address can be.
    for (seed, base) in [(64, 0x10_0000), (65, u64::MAX - LEN)] {
        let fds = fds.iter().map(|fd| fd.try_clone().unwrap()).collect();
        let exports = answer(|r| {
            r[24..32].copy_from_slice(&base.to_le_bytes());
            r[56] = 3;
        });
        let (address, thread) = fake_exporter(seed, vec![(reply.clone(), fds), (exports, vec![])]);
        let peer = ShmPeer::connect(&address).unwrap();
        let region = peer.regions()[0];
        let mut driver =
            Driver::<ShmPeer>::new(LocalConfig { rails: 1, ..LocalConfig::default() }, LEN as usize);
        let mut lane = driver.open(0, RAIL, peer);
        let read = driver.read(0, 0, region, 0, LEN as u32);
        assert_eq!(driver.post(&mut lane, &[read]), Commit::All);
        assert_eq!(driver.completions(1), [(0, WcStatus::REM_ACCESS_ERR)]);
        drop((driver, lane));
        thread.join().unwrap();
    }
    drop(write);
}

#[test]
fn a_pipe_that_has_ended_already_makes_process_memory_unreadable() {
    static VALUE: [u8; 16] = [1; 16];
    let reply = welcome(|r| {
        r[24..32].copy_from_slice(&(VALUE.as_ptr().expose_provenance() as u64).to_le_bytes());
        r[32..48].fill(1);
    });
    let (fds, write) = life();
    drop(write);
    let (address, thread) = fake_exporter(63, vec![(reply, fds), (answer(|r| r[56] = 3), vec![])]);
    let error = ShmPeer::connect(&address).unwrap_err();
    thread.join().unwrap();
    assert!(matches!(error, ShmConnectError::ProcessMemory { errno: Errno::SRCH, .. }), "{error}");
}

fn exporter() -> (ShmExporter, [u8; 64]) {
    let exporter = ShmExporter::start().unwrap();
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
    let mut hello = b"KVSH\x02\0\0\0".to_vec();
    hello.extend(&address[24..40]);
    let (reply, fds) = say(&address, &hello);
    assert_eq!((reply[6], fds), (0, 2), "the right hello gets the live words and the pipe");
    type Edit = fn(&mut Vec<u8>);
    let forgeries: [(u8, Edit); 5] = [
        (1, |h| h[4] = 3),
        (2, |h| h[8] ^= 1),
        (2, |h| h[23] ^= 0x80),
        (3, |h| h[0] = b'X'),
        (3, |h| h.push(0)),
    ];
    for (status, forge) in forgeries {
        let mut hello = hello.clone();
        forge(&mut hello);
        let (reply, fds) = say(&address, &hello);
        assert_eq!((reply.len(), reply[6], fds), (48, status, 0));
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
