//! The transport over shared memory, for peers that are processes of one host.
#![allow(unsafe_code, reason = "exported memory is not written to")]

use kvrail_core::config::EngineConfig;
use kvrail_core::id::MAX_RAILS;
use kvrail_host::exported::ExportedMemory;
use kvrail_local::shm::{ShmAddress, ShmExporter, ShmPeer, ShmProvider};
use kvrail_local::{LocalConfig, LocalStartError};
use kvrail_session::{RailAddress, TransportKind};

use super::open::{OpenDialer, OpenRails};
use super::{Export, Exporter, LANE_DEPTH, PublisherTransport, ReaderTransport, TransportError};

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
    any_reader: bool,
}

/// Publishes as `rails` rails. Take as many as the readers have: each of theirs then has one of its
/// own. A rail costs the producer nothing here.
#[must_use]
pub const fn publish(rails: usize) -> ShmPublish {
    ShmPublish { rails, any_reader: false }
}

impl ShmPublish {
    /// Lets every process of the same user read host memory that is published by its address,
    /// where the Yama security module forbids it to all but ancestors of this process
    /// (`/proc/sys/kernel/yama/ptrace_scope` is 1). Memory of the publisher's own and files do not
    /// need it.
    ///
    /// Any process of the user can then attach to this one as a debugger does, and read all of its
    /// memory. That is why it is not the default.
    #[must_use]
    pub const fn permit_any_reader(self) -> Self {
        Self { any_reader: true, ..self }
    }
}

// SAFETY: the exporter hands a segment's file out to be mapped for reading, or the addresses from
// which a reader's kernel reads. It touches no byte itself.
unsafe impl PublisherTransport for ShmPublish {
    type Acceptor = OpenRails;

    fn start(self) -> Result<(OpenRails, Box<dyn Exporter>), TransportError> {
        let exporter = ShmExporter::start()?;
        if self.any_reader {
            exporter.permit_any_reader()?;
        }
        let nominal = LocalConfig::default().nominal_bytes_per_sec;
        let address = exporter.address().to_bytes();
        let acceptor = OpenRails::new(TransportKind::Shm, address, nominal, self.rails)?;
        Ok((acceptor, Box::new(Served(exporter))))
    }
}

struct Served(ShmExporter);

impl Exporter for Served {
    fn export(&self, memory: ExportedMemory) -> Result<Export, TransportError> {
        let export = self.0.export(memory)?;
        Ok(Export { keys: [export.region().rkey; MAX_RAILS], keep: Box::new(export) })
    }
}
