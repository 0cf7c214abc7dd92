//! From a file to a node that runs.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::{Duration, Instant};

use kvrail::session::TagSecret;
use kvrail::{Config, PeerKey, shm, tcp};

use super::error::NodeFileError;
use super::file::{DirectoryFile, NodeFile, NodeTransport};
use crate::directory::one_sided::OneSidedConfig;
#[cfg(feature = "metrics")]
use crate::metrics::http::MetricsServer;
use crate::node::{Node, NodeConfig};

/// Records that the cache of a node has room for.
const CACHE_RECORDS: usize = 1 << 16;
/// The rails of each reader where they are threads, and no ports.
const RAIL_THREADS: usize = 2;

/// A node that a file describes, as it runs.
#[non_exhaustive]
pub struct StartedNode {
    /// The node.
    pub node: Node,
    /// The secret under which keys become tags: [`KeySpace::new`](crate::KeySpace::new) takes it.
    pub tag_secret: TagSecret,
    /// How long the file lets a request take.
    pub request_timeout: Duration,
    /// The endpoint of its metrics, if the file has one.
    #[cfg(feature = "metrics")]
    pub metrics: Option<MetricsServer>,
}

impl Node {
    /// Starts the node that the file at `path` describes (docs/node.toml).
    ///
    /// # Errors
    ///
    /// As [`NodeFile::read`] and [`NodeFile::start`].
    pub fn start_from_file(path: impl AsRef<Path>) -> Result<StartedNode, NodeFileError> {
        NodeFile::read(path.as_ref())?.start()
    }
}

impl NodeFile {
    /// The configuration of the node that the file describes, for a program that adds to it before
    /// it starts the node itself. Reads the file of the group's key, and begins to reach a
    /// directory in Redis.
    ///
    /// # Errors
    ///
    /// The file of the key has none, or the system has no thread left.
    pub fn to_config(&self) -> Result<NodeConfig, NodeFileError> {
        let secret = |source| NodeFileError::Secret { key: "psk_file", source };
        let key = PeerKey::from_file(&self.psk_file).map_err(secret)?;
        let reader = Config { node: self.name, connect: self.connect_timeout, ..Config::default() };
        let mut config = NodeConfig::new(self.name, key)
            .cache(CACHE_RECORDS, self.directory_cache)
            .readers(self.readers)
            .near_nics(self.near_nics)
            .reader(reader)
            .log_slow(self.slow_request.unwrap_or_default());
        config = self.peers.into_iter().fold(config, NodeConfig::peers);
        for pool in &self.pools {
            config = config.pool(pool.page, pool.pages());
        }
        config = self.layouts.iter().fold(config, |config, &layout| config.layout(layout));
        if let Some(listen) = &self.listen {
            config = config.listen(listen.clone());
        }
        if let Some(advertise) = &self.advertise {
            config = config.advertise(advertise.clone());
        }
        if let Some(zone) = self.zone {
            config = config.zone(zone);
        }
        Ok(match &self.directory {
            DirectoryFile::None => config,
            DirectoryFile::Embedded { candidates } => config.embedded(candidates.clone()),
            DirectoryFile::OneSided { candidates } => {
                config.one_sided(candidates.clone(), OneSidedConfig::default())
            }
            DirectoryFile::Redis { url, prefix, lease } => redis(config, url, prefix.as_deref(), *lease)?,
        })
    }

    /// The secret under which keys become tags.
    ///
    /// # Errors
    ///
    /// Its file has none.
    pub fn tag_secret(&self) -> Result<TagSecret, NodeFileError> {
        let secret = |source| NodeFileError::Secret { key: "tag_secret_file", source };
        TagSecret::from_file(&self.tag_secret_file).map_err(secret)
    }

    /// Starts the node, over the transport that the file names, and the endpoint of its metrics.
    /// Rails of shared memory and of TCP are threads, two for each reader.
    ///
    /// # Errors
    ///
    /// A file of a secret has none; this build lacks what the file wants; or the node or the
    /// endpoint does not start.
    pub fn start(&self) -> Result<StartedNode, NodeFileError> {
        let tag_secret = self.tag_secret()?;
        if self.metrics.is_some() && !cfg!(feature = "metrics") {
            return Err(NodeFileError::Missing { what: "an endpoint of metrics", feature: "metrics" });
        }
        let config = self.to_config()?;
        let node = match self.transport {
            NodeTransport::Shm => {
                Node::start(config, shm::publish(RAIL_THREADS), || shm::rails(RAIL_THREADS))?
            }
            NodeTransport::Tcp => {
                let publish = tcp::publish(self.interface()?, RAIL_THREADS);
                Node::start(config, publish, || tcp::rails(RAIL_THREADS))?
            }
            NodeTransport::Verbs => self.over_verbs(config)?,
        };
        Ok(StartedNode {
            #[cfg(feature = "metrics")]
            metrics: match self.metrics {
                Some(address) => Some(MetricsServer::start(address, node.metrics().clone())?),
                None => None,
            },
            node,
            tag_secret,
            request_timeout: self.request_timeout,
        })
    }

    /// The address at which rails of TCP listen: that of the sessions.
    fn interface(&self) -> Result<IpAddr, NodeFileError> {
        let Some(listen) = &self.listen else { return Ok(Ipv4Addr::LOCALHOST.into()) };
        let unknown = |source| NodeFileError::Listen { address: listen.clone(), source };
        let found = listen.resolve(Instant::now() + self.connect_timeout).map_err(unknown)?;
        // At least one, or that is an error.
        Ok(found.first().map_or(Ipv4Addr::LOCALHOST.into(), SocketAddr::ip))
    }

    #[cfg(feature = "verbs")]
    fn over_verbs(&self, config: NodeConfig) -> Result<Node, NodeFileError> {
        use crate::node::NodeError;
        use kvrail::verbs;

        let rails = if self.rails.is_empty() { "auto".to_owned() } else { self.rails.join(",") };
        let publish = verbs::publish(&rails).map_err(|error| NodeError::Rails(error.into()))?;
        Ok(Node::start(config, publish, || verbs::rails(&rails))?)
    }

    #[cfg(not(feature = "verbs"))]
    #[allow(clippy::unused_self, reason = "with the feature the rails are the file's")]
    fn over_verbs(&self, _: NodeConfig) -> Result<Node, NodeFileError> {
        Err(NodeFileError::Missing { what: "a transport over RDMA", feature: "verbs" })
    }
}

#[cfg(feature = "redis")]
fn redis(
    config: NodeConfig,
    url: &str,
    prefix: Option<&str>,
    lease: Option<Duration>,
) -> Result<NodeConfig, NodeFileError> {
    use crate::directory::redis::{RedisConfig, RedisDirectory};

    let mut redis = RedisConfig::new(url)?;
    if let Some(prefix) = prefix {
        redis = redis.prefix(prefix)?;
    }
    if let Some(lease) = lease {
        redis = redis.lease(lease)?;
    }
    let directory = RedisDirectory::start(redis).map_err(NodeFileError::Thread)?;
    Ok(config.directory(std::sync::Arc::new(directory)))
}

#[cfg(not(feature = "redis"))]
fn redis(_: NodeConfig, _: &str, _: Option<&str>, _: Option<Duration>) -> Result<NodeConfig, NodeFileError> {
    Err(NodeFileError::Missing { what: "a directory in Redis", feature: "redis" })
}

impl fmt::Debug for StartedNode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StartedNode").field("node", &self.node).finish_non_exhaustive()
    }
}
