//! The transport over TCP, which works on every network and is functional only: its speed says
//! nothing about rails.
#![allow(unsafe_code, reason = "exported memory is not written to")]

use std::net::IpAddr;

use kvrail_core::config::EngineConfig;
use kvrail_core::id::MAX_RAILS;
use kvrail_core::time::Nanos;
use kvrail_host::exported::ExportedMemory;
use kvrail_local::tcp::{TcpAddress, TcpConnection, TcpProvider, TcpServer};
use kvrail_local::{LocalConfig, LocalStartError};
use kvrail_session::{RailAddress, TransportKind};

use super::open::{OpenDialer, OpenRails};
use super::{Export, Exporter, LANE_DEPTH, PublisherTransport, ReaderTransport, TransportError};

/// The nominal rate of a producer's rails: 8 Gbit/s.
const NOMINAL_BYTES_PER_SEC: u64 = 1_000_000_000;

/// The configuration that suits an engine over these rails. A READ that waits for the network is no
/// stall.
pub const ENGINE_CONFIG: EngineConfig = EngineConfig { stall: Nanos::from_secs(15), ..EngineConfig::DEFAULT };

/// Rails over TCP. Functional only.
#[derive(Debug)]
pub struct TcpRails {
    provider: TcpProvider,
    config: LocalConfig,
}

/// `count` rails, each with a thread that carries out one READ at a time.
///
/// # Errors
///
/// 0 rails or more than 16, or a thread that could not be started.
pub fn rails(count: usize) -> Result<TcpRails, LocalStartError> {
    let config = LocalConfig { rails: count, sq_entries: LANE_DEPTH - 1, ..LocalConfig::default() };
    Ok(TcpRails { provider: TcpProvider::start(config)?, config })
}

fn reach(address: &RailAddress) -> Result<TcpConnection, TransportError> {
    Ok(TcpConnection::open(&TcpAddress::parse(&address.0)?)?)
}

impl ReaderTransport for TcpRails {
    type Provider = TcpProvider;
    type UnopenedLane = TcpConnection;
    type Dialer = OpenDialer<TcpConnection>;
    type DialerSeed = LocalConfig;
    const LABEL: &'static str = "tcp (functional only)";

    fn engine_config(&self) -> EngineConfig {
        ENGINE_CONFIG
    }

    fn split(self) -> (TcpProvider, LocalConfig) {
        (self.provider, self.config)
    }

    fn dialer(seed: &LocalConfig) -> OpenDialer<TcpConnection> {
        OpenDialer::new(TransportKind::Tcp, seed.nominal_bytes_per_sec, seed.rails, reach)
    }

    fn depth(_: &TcpConnection) -> u32 {
        LANE_DEPTH
    }
}

/// Publishes over TCP: see [`publish`].
#[derive(Clone, Copy, Debug)]
pub struct TcpPublish {
    ip: IpAddr,
    rails: usize,
}

/// Publishes as `rails` rails, at a port of the system's choice of this host's address `ip`.
#[must_use]
pub const fn publish(ip: IpAddr, rails: usize) -> TcpPublish {
    TcpPublish { ip, rails }
}

// SAFETY: the server's threads let the kernel send from the memory, and nothing else.
unsafe impl PublisherTransport for TcpPublish {
    type Acceptor = OpenRails;

    fn start(self) -> Result<(OpenRails, Box<dyn Exporter>), TransportError> {
        let server = TcpServer::start((self.ip, 0).into())?;
        let address = server.address().to_bytes();
        let acceptor = OpenRails::new(TransportKind::Tcp, address, NOMINAL_BYTES_PER_SEC, self.rails)?;
        Ok((acceptor, Box::new(Served(server))))
    }
}

struct Served(TcpServer);

impl Exporter for Served {
    fn export(&self, memory: ExportedMemory) -> Result<Export, TransportError> {
        let export = self.0.export(memory)?;
        Ok(Export { keys: [export.region().rkey; MAX_RAILS], keep: Box::new(export) })
    }
}
