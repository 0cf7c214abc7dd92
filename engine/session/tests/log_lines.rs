//! Connections that never authenticate cause a bounded number of log lines. The test is alone in
//! its binary, since it counts the lines of the whole process.
#![allow(missing_docs, reason = "a test")]

mod one_rail;

use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use kvrail_session::{PeerKey, ProducerDescription, Server, ServerConfig, ServerEvent};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

use one_rail::OneRail;

static LINES: AtomicUsize = AtomicUsize::new(0);

struct Count;

impl Subscriber for Count {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= Level::WARN
    }

    fn event(&self, _: &Event<'_>) {
        LINES.fetch_add(1, Ordering::Relaxed);
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

#[test]
fn a_thousand_unauthenticated_connections_cause_a_dozen_log_lines() {
    tracing::subscriber::set_global_default(Count).unwrap();
    let failed = Arc::new(AtomicUsize::new(0));
    let counts = Arc::clone(&failed);
    let observer = move |event| {
        if matches!(event, ServerEvent::Failed { .. } | ServerEvent::TurnedAway { .. }) {
            counts.fetch_add(1, Ordering::Relaxed);
        }
    };
    let config = ServerConfig { observer: Some(Arc::new(observer)), ..ServerConfig::default() };
    let producer = ProducerDescription { node: "prefill-1".parse().unwrap(), pools: Vec::new() };
    let listen = "127.0.0.1:0".parse().unwrap();
    let key = PeerKey::from_bytes([9; 32]);
    let server = Server::start(&listen, key, producer, OneRail, config).unwrap();
    let begun = Instant::now();
    for _ in 0..1000 {
        drop(TcpStream::connect(server.local_addr()).unwrap());
    }
    while failed.load(Ordering::Relaxed) < 1000 {
        assert!(begun.elapsed().as_secs() < 20, "{failed:?}");
        std::thread::yield_now();
    }
    // Eight at once, and one every two seconds.
    let lines = LINES.load(Ordering::Relaxed);
    let allowed = 8 + begun.elapsed().as_secs() as usize / 2;
    assert!((1..=allowed).contains(&lines), "{lines} lines, {allowed} are allowed");
}
