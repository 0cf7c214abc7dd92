//! A child of a fork: the session of its parent goes on. The test is alone in its binary, since
//! other threads may hold locks while it forks.
#![allow(missing_docs, unsafe_code, reason = "forks")]

mod one_rail;

use std::io;
use std::num::{NonZeroU16, NonZeroU64};
use std::time::{Duration, Instant};

use kvrail_core::id::MAX_RAILS;
use kvrail_core::remote::{RegionOffer, TableOffer};
use kvrail_session::{
    ByeReason, Cause, Fingerprint, Layout, OfferedRegion, PeerKey, Pool, PoolId, ProducerDescription,
    ReaderDescription, Server, ServerConfig, ServerEvent, connect,
};

use one_rail::OneRail;

#[test]
fn a_child_of_a_fork_that_drops_a_session_does_nothing_to_its_parents() {
    let layout = Layout {
        name: "opaque".parse().unwrap(),
        fingerprint: Fingerprint::from_bytes([1; 16]),
        any_rank: Fingerprint::from_bytes([2; 16]),
        page_bytes: NonZeroU64::MIN,
        parts: NonZeroU16::MIN,
    };
    let (tell, events) = std::sync::mpsc::channel();
    let observer = std::sync::Arc::new(move |event| drop(tell.send(event)));
    let config = ServerConfig { observer: Some(observer), ..ServerConfig::default() };
    let producer = ProducerDescription { node: "prefill-1".parse().unwrap(), pools: Vec::new() };
    let key = PeerKey::from_bytes([9; 32]);
    let listen = "127.0.0.1:0".parse().unwrap();
    let server = Server::start(&listen, key.clone(), producer, OneRail, config).unwrap();
    let reader = ReaderDescription::new("decode-3".parse().unwrap(), layout);
    let deadline = Instant::now() + Duration::from_secs(20);
    let mut session = connect(&server.local_addr().into(), key, reader, deadline).unwrap();
    // SAFETY: the child drops a session, which does nothing there but close a copy of its socket,
    // and ends.
    let child = match unsafe { libc::fork() } {
        0 => {
            drop(session);
            // SAFETY: ends the process, without what the parent registered for its end.
            unsafe { libc::_exit(0) };
        }
        ..0 => panic!("{}", io::Error::last_os_error()),
        pid => pid,
    };
    let mut status = -1;
    // SAFETY: a system call for a child of this test, which writes `status`.
    unsafe { libc::waitpid(child, &raw mut status, 0) };
    assert_eq!(status, 0);
    assert!(session.is_alive());
    // The session carries messages in both directions still.
    let (keys, page_bytes) = ([1; MAX_RAILS], layout.page_bytes.get());
    let table = Some(TableOffer { base: 0, keys });
    let offer = RegionOffer { base: 0, page_bytes, stride: page_bytes, slots: 1, keys, table };
    let region = OfferedRegion::new(offer).unwrap();
    server.add_pool(Pool::new(PoolId(1), layout, vec![region]).unwrap()).unwrap();
    while session.next_change().is_none() {
        assert!(session.is_alive() && Instant::now() < deadline, "{session:?}");
        std::thread::sleep(Duration::from_millis(1));
    }
    drop(session);
    let why = loop {
        match events.recv_timeout(Duration::from_secs(20)).unwrap() {
            ServerEvent::Closed { why, .. } => break why,
            ServerEvent::Opened { .. } => {}
            other => panic!("{other:?}"),
        }
    };
    assert!(matches!(why.cause, Cause::Bye(ByeReason::Finished)), "{why}");
}
