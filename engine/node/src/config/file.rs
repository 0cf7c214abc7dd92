//! What a configuration file says.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use kvrail::layouts::Geometry;
use kvrail::{Address, NodeName, PageLayout};

/// What a configuration file says, checked.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct NodeFile {
    /// The node's name.
    pub name: NodeName,
    /// Where it serves readers; `None`: any free port of loopback.
    pub listen: Option<Address>,
    /// Where readers connect to, if not where it listens.
    pub advertise: Option<Address>,
    /// The zone in which it stands, if it is known.
    pub zone: Option<NodeName>,
    /// The file with the key by which nodes of the group know each other.
    pub psk_file: PathBuf,
    /// The file with the secret under which keys become tags.
    pub tag_secret_file: PathBuf,
    /// How pages travel.
    pub transport: NodeTransport,
    /// The names of the rails; empty: all that the host has.
    pub rails: Vec<String>,
    /// How many readers there are, each with a thread of its own: 1 to 64.
    pub readers: usize,
    /// How many owners each reader is connected to at a time; `None`: as many as a node is without
    /// a file ([`NodeConfig::peers`](crate::NodeConfig::peers)).
    pub peers: Option<usize>,
    /// Whether its pools take memory of the NUMA node of the NICs.
    pub near_nics: bool,
    /// The pools that it offers.
    pub pools: Vec<PoolFile>,
    /// The layouts that it reads besides those of its pools.
    pub layouts: Vec<PageLayout>,
    /// Which directory it asks.
    pub directory: DirectoryFile,
    /// How long it keeps answers of the directory; zero: it does not keep them.
    pub directory_cache: Duration,
    /// Where Prometheus finds its metrics; `None`: nowhere.
    pub metrics: Option<SocketAddr>,
    /// Requests that take longer are logged; `None`: none are.
    pub slow_request: Option<Duration>,
    /// How long connecting to an owner may take.
    pub connect_timeout: Duration,
    /// How long the tools' requests may take.
    pub request_timeout: Duration,
}

/// How pages travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum NodeTransport {
    /// Memory that processes of one host share.
    Shm,
    /// TCP.
    Tcp,
    /// RDMA.
    Verbs,
}

/// A pool of pages.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct PoolFile {
    /// The layout's name in the catalogue.
    pub layout: &'static str,
    /// The layout's geometry.
    pub geometry: &'static Geometry,
    /// The layout of its pages.
    pub page: PageLayout,
    /// How large the pool is.
    pub size: PoolSize,
}

/// How large a pool is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PoolSize {
    /// So many pages, at least 1.
    Pages(u32),
    /// As many pages as fit this many bytes, at least one.
    Bytes(u64),
}

impl PoolFile {
    /// How many pages it has.
    #[must_use]
    pub fn pages(&self) -> u32 {
        match self.size {
            PoolSize::Pages(pages) => pages,
            PoolSize::Bytes(bytes) => {
                u32::try_from(bytes / self.geometry.page_bytes().max(1)).unwrap_or(u32::MAX)
            }
        }
    }
}

/// Which directory a node asks.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum DirectoryFile {
    /// None: it finds the pages of its own pools only.
    None,
    /// Nodes of the group keep it in memory.
    Embedded {
        /// The nodes that may keep it; empty: this node keeps it.
        candidates: Vec<Address>,
    },
    /// Owners' tables are read, and no directory is asked.
    OneSided {
        /// The nodes whose tables are read.
        candidates: Vec<Address>,
    },
    /// Valkey or Redis.
    Redis {
        /// The URL. It may hold a password.
        url: String,
        /// What all keys begin with.
        prefix: Option<String>,
        /// How long an owner's records stay after it was last heard of.
        lease: Option<Duration>,
    },
}

impl fmt::Debug for DirectoryFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("None"),
            Self::Embedded { candidates } => f.debug_tuple("Embedded").field(candidates).finish(),
            Self::OneSided { candidates } => f.debug_tuple("OneSided").field(candidates).finish(),
            // The URL may hold a password.
            Self::Redis { prefix, lease, .. } => {
                f.debug_struct("Redis").field("prefix", prefix).field("lease", lease).finish_non_exhaustive()
            }
        }
    }
}
