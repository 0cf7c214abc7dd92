//! The transport over shared memory, for peers that are processes of one host.
#![allow(unsafe_code, reason = "a published segment is not written to")]

use std::sync::Arc;

use kvrail_core::config::EngineConfig;
use kvrail_core::id::MAX_RAILS;
use kvrail_host::segment::Segment;
use kvrail_local::shm::{ExportedMemory, ShmAddress, ShmExporter, ShmPeer, ShmProvider};
use kvrail_local::{LocalConfig, LocalStartError};
use kvrail_session::{RailAddress, TransportKind};

use super::open::{OpenDialer, OpenRails};
use super::{LANE_DEPTH, Published, PublisherTransport, ReaderTransport, TransportError};

/// How much may be outstanding on a rail. Rails are threads here, and what counts is that each has
/// enough to do while the engine's thread waits for a core (docs/performance.md).
const RAIL_BYTES: u64 = 1 << 30;

/// The configuration that suits an engine over these rails. A page travels in pieces of
/// `chunk_bytes`.
pub const ENGINE_CONFIG: EngineConfig = EngineConfig {
    chunk_bytes: 1 << 20,
    run_bytes: 1 << 20,
    quantum_bytes: 4 << 20,
    signal_bytes: 1 << 20,
    rail_bytes: RAIL_BYTES,
    rail_wrs: 4_096,
    ..EngineConfig::DEFAULT
};

/// Rails over shared memory.
#[derive(Debug)]
pub struct ShmRails {
    provider: ShmProvider,
    config: LocalConfig,
}

/// `count` rails, each with a thread that copies.
///
/// # Errors
///
/// 0 rails or more than 16, or a thread that could not be started.
pub fn rails(count: usize) -> Result<ShmRails, LocalStartError> {
    let config = LocalConfig { rails: count, sq_entries: LANE_DEPTH - 1, ..LocalConfig::default() };
    Ok(ShmRails { provider: ShmProvider::start(config)?, config })
}

fn reach(address: &RailAddress) -> Result<ShmPeer, TransportError> {
    Ok(ShmPeer::connect(&ShmAddress::parse(&address.0)?)?)
}

impl ReaderTransport for ShmRails {
    type Provider = ShmProvider;
    type UnopenedLane = ShmPeer;
    type Dialer = OpenDialer<ShmPeer>;
    type DialerSeed = LocalConfig;
    const LABEL: &'static str = "shm";

    fn engine_config(&self) -> EngineConfig {
        ENGINE_CONFIG
    }

    fn split(self) -> (ShmProvider, LocalConfig) {
        (self.provider, self.config)
    }

    fn dialer(seed: &LocalConfig) -> OpenDialer<ShmPeer> {
        OpenDialer::new(TransportKind::Shm, seed.nominal_bytes_per_sec, seed.rails, reach)
    }

    fn depth(_: &ShmPeer) -> u32 {
        LANE_DEPTH
    }
}

/// Publishes over shared memory: see [`publish`].
#[derive(Clone, Copy, Debug)]
pub struct ShmPublish {
    rails: usize,
}

/// Publishes as `rails` rails. Take as many as the readers have: each of theirs then has one of its
/// own. A rail costs the producer nothing here.
#[must_use]
pub const fn publish(rails: usize) -> ShmPublish {
    ShmPublish { rails }
}

// SAFETY: the exporter hands the file out to be mapped for reading, and touches no byte itself.
unsafe impl PublisherTransport for ShmPublish {
    type Acceptor = OpenRails;

    fn publish(self, segment: Arc<Segment>) -> Result<Published<OpenRails>, TransportError> {
        let exporter = ShmExporter::start()?;
        let export = exporter.export(ExportedMemory::segment(segment))?;
        let nominal = LocalConfig::default().nominal_bytes_per_sec;
        let acceptor =
            OpenRails::new(TransportKind::Shm, exporter.address().to_bytes(), nominal, self.rails)?;
        let keys = [export.region().rkey; MAX_RAILS];
        Ok(Published { acceptor, keys, keep: Box::new((exporter, export)) })
    }
}
