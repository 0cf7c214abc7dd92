//! Nodes of child processes, over any transport.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;

use anyhow::bail;
use kvrail::core::config::EngineConfig;
use kvrail::core::id::MAX_RAILS;
use kvrail::{Config, PublisherTransport, Reader, ReaderTransport, TransportError, shm, tcp};
use kvrail_node::directory::one_sided::{OneSidedDirectory, OneSidedSource};
use kvrail_node::{Node, NodeConfig};

use crate::cli::common::Transport;
use crate::cli::rails::{Rails, VerbsArgs};
use crate::machine::addresses::own_addresses;

/// A node that has started.
#[derive(Debug)]
pub(crate) struct Started {
    pub(crate) node: Node,
    /// The transport's name in reports.
    pub(crate) label: String,
    /// The names of the rails of a reader.
    pub(crate) rails: Vec<String>,
    /// The chunk of its engines.
    pub(crate) chunk_bytes: u32,
}

/// The rails of a node.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Over<'a> {
    pub(crate) transport: Transport,
    /// Where the node's pages are served.
    pub(crate) listen: &'a str,
    /// The rails over which they are.
    pub(crate) publish: &'a Rails,
    /// The rails of each reader.
    pub(crate) read: &'a Rails,
    #[cfg_attr(not(feature = "verbs"), expect(dead_code, reason = "settings of one transport"))]
    pub(crate) verbs: &'a VerbsArgs,
    pub(crate) lanes_per_rail: u8,
    /// `None`: what suits the transport.
    pub(crate) chunk_bytes: Option<u32>,
}

impl Over<'_> {
    /// Starts a node over these rails.
    pub(crate) fn start(&self, config: NodeConfig) -> anyhow::Result<Started> {
        match self.transport {
            Transport::Shm => {
                let read = usize::from(self.read.count()?);
                let publish = shm::publish(self.publish.count()?.into());
                self.start_with(config, publish, shm::rails(read)?, || shm::rails(read))
            }
            Transport::Tcp => {
                let read = usize::from(self.read.count()?);
                let publish = tcp::publish(interface(self.listen)?, self.publish.count()?.into());
                self.start_with(config, publish, tcp::rails(read)?, || tcp::rails(read))
            }
            #[cfg(feature = "verbs")]
            Transport::Verbs => {
                let (ports, verbs) = (self.read.ports()?, self.verbs.config()?);
                let publish = kvrail::verbs::publish_with(self.publish.ports()?, verbs)?;
                let rails = || kvrail::verbs::rails_with(ports, verbs);
                self.start_with(config, publish, rails()?, rails)
            }
            #[cfg(not(feature = "verbs"))]
            Transport::Verbs => crate::cli::rails::not_built(),
        }
    }

    /// Reads the tables of `source` over rails of its own.
    pub(crate) fn read_tables(&self, source: OneSidedSource) -> anyhow::Result<OneSidedDirectory> {
        Ok(match self.transport {
            Transport::Shm => OneSidedDirectory::start(source, shm::rails(1)?)?,
            Transport::Tcp => OneSidedDirectory::start(source, tcp::rails(1)?)?,
            #[cfg(feature = "verbs")]
            Transport::Verbs => {
                let rails = kvrail::verbs::rails_with(self.read.ports()?, self.verbs.config()?)?;
                OneSidedDirectory::start(source, rails)?
            }
            #[cfg(not(feature = "verbs"))]
            Transport::Verbs => return crate::cli::rails::not_built(),
        })
    }

    /// Starts a node whose first reader has the rails `first`.
    fn start_with<T, E>(
        &self,
        config: NodeConfig,
        publish: impl PublisherTransport,
        first: T,
        mut more: impl FnMut() -> Result<T, E>,
    ) -> anyhow::Result<Started>
    where
        T: ReaderTransport<Provider: AsFd> + 'static,
        Reader<T>: Send,
        E: Into<TransportError>,
    {
        let engine = with_chunk(first.engine_config(), self.chunk_bytes);
        let label = first.label();
        let rails = match self.read {
            Rails::Count(count) => (0..MAX_RAILS.min((*count).into())).map(|rail| first.name(rail)).collect(),
            Rails::Ports(ports) => ports.split(',').map(Into::into).collect(),
        };
        let lanes_per_rail = self.lanes_per_rail.into();
        let config = config.reader(Config { lanes_per_rail, engine: Some(engine), ..Config::default() });
        let mut first = Some(first);
        let node = Node::start(config, publish, || first.take().map_or_else(&mut more, Ok))?;
        Ok(Started { node, label, rails, chunk_bytes: engine.chunk_bytes })
    }
}

/// `config`, which suits the transport, with another chunk if one was given.
pub(crate) fn with_chunk(config: EngineConfig, chunk_bytes: Option<u32>) -> EngineConfig {
    let Some(chunk_bytes) = chunk_bytes else { return config };
    EngineConfig { chunk_bytes, run_bytes: config.run_bytes.max(chunk_bytes), ..config }
}

/// The interface at which pages are served over TCP: that of the address where readers connect.
fn interface(listen: &str) -> anyhow::Result<IpAddr> {
    match listen.parse::<SocketAddr>() {
        Ok(address) if !address.ip().is_unspecified() => Ok(address.ip()),
        _ => {
            let own = own_addresses().unwrap_or_default();
            let own = own.first().copied().unwrap_or(IpAddr::from([127, 0, 0, 1]));
            bail!(
                "--listen {listen}: over tcp, give the IP address of the interface that readers reach, as in {}",
                SocketAddr::new(own, 7470)
            )
        }
    }
}
