//! The configuration of a node.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use kvrail::session::ServerConfig;
use kvrail::{Address, Config, ForeignPool, NodeName, PageLayout, PeerKeys};

use crate::announce::AnnouncerConfig;
use crate::directory::Directory;
use crate::directory::one_sided::OneSidedConfig;
use crate::metrics::NodeMetrics;

/// The most readers of a node.
pub(crate) const MAX_READERS: usize = 64;

/// A pool that the node offers.
pub(super) enum PoolSpec {
    /// Slots in the node's own memory.
    Own(PageLayout, u32),
    /// Slots in the memory of an inference engine.
    Engine(ForeignPool),
}

/// The configuration of a [`Node`](crate::Node).
///
/// ```
/// use kvrail::{Bf16, KvLayout, PageLayout, PeerKey};
/// use kvrail_node::NodeConfig;
///
/// #[derive(KvLayout)]
/// #[kv(order(token), tokens = 64)]
/// struct Mla { latent: [Bf16; 512], rope: [Bf16; 64] }
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let key = PeerKey::from_passphrase("correct horse battery staple")?;
/// let config = NodeConfig::new("decode-3".parse()?, key);
/// let config = config.layout(PageLayout::of::<Mla>()).readers(2);
/// # Ok(())
/// # }
/// ```
#[must_use]
pub struct NodeConfig {
    pub(super) name: NodeName,
    pub(super) keys: PeerKeys,
    pub(super) listen: Option<Address>,
    pub(super) advertise: Option<Address>,
    pub(super) zone: NodeName,
    pub(super) layouts: Vec<PageLayout>,
    pub(super) pools: Vec<PoolSpec>,
    pub(super) directory: Option<Arc<dyn Directory>>,
    /// The candidates of the embedded directory, if that is used.
    pub(super) embedded: Option<Vec<Address>>,
    /// Whose tables are read, if that is the directory, and the caps.
    pub(super) one_sided: Option<(Vec<Address>, OneSidedConfig)>,
    pub(super) near_nics: bool,
    pub(super) cache_records: usize,
    pub(super) cache_ttl: Duration,
    pub(super) readers: usize,
    pub(super) look_up_threads: usize,
    pub(super) register_within: Duration,
    pub(super) reader: Config,
    pub(super) peers: usize,
    pub(super) batch_pages: usize,
    pub(super) spin: Duration,
    pub(super) cpus: Vec<usize>,
    pub(super) slow: Duration,
    pub(super) server: ServerConfig,
    pub(super) announcer: AnnouncerConfig,
    pub(super) metrics: Arc<NodeMetrics>,
    pub(super) unvalidated: bool,
}

impl NodeConfig {
    /// A node of this name that has no pool, reads no layout and has no directory yet. `keys` are
    /// those by which nodes of the group know each other.
    pub fn new(name: NodeName, keys: impl Into<PeerKeys>) -> Self {
        Self {
            name,
            keys: keys.into(),
            listen: None,
            advertise: None,
            // The name of nothing: the zone is not known.
            zone: NodeName::lossy(""),
            layouts: Vec::new(),
            pools: Vec::new(),
            directory: None,
            embedded: None,
            one_sided: None,
            near_nics: true,
            cache_records: 1 << 16,
            cache_ttl: Duration::from_secs(5),
            readers: 1,
            look_up_threads: 4,
            register_within: Duration::from_secs(30),
            reader: Config { node: name, connect: Duration::from_secs(5), ..Config::default() },
            peers: 512,
            batch_pages: 32,
            spin: Duration::from_micros(10),
            cpus: Vec::new(),
            slow: Duration::ZERO,
            server: ServerConfig::default(),
            announcer: AnnouncerConfig::default(),
            metrics: Arc::default(),
            unvalidated: false,
        }
    }

    /// Reads pages of `layout`. Layouts of the node's own pools are read, too.
    pub fn layout(mut self, layout: PageLayout) -> Self {
        if !self.layouts.contains(&layout) {
            self.layouts.push(layout);
        }
        self
    }

    /// Offers a pool of `slots` pages of `layout`, in memory of the node's own.
    pub fn pool(mut self, layout: PageLayout, slots: u32) -> Self {
        self.pools.push(PoolSpec::Own(layout, slots));
        self.layout(layout)
    }

    /// Offers a pool whose pages are in the memory of an inference engine, which says what is in
    /// which slot: [`Node::engine_pools`](crate::Node::engine_pools).
    pub fn engine_pool(mut self, layout: PageLayout, pool: ForeignPool) -> Self {
        self.pools.push(PoolSpec::Engine(pool));
        self.layout(layout)
    }

    /// Whether the memory of [`pool`](Self::pool) comes from the NUMA node of the NICs that others
    /// read it by; `true` by default. Where the NICs are on several nodes, or the process gets no
    /// memory of their node, or there is no NIC, it comes from any node.
    pub fn near_nics(mut self, near: bool) -> Self {
        self.near_nics = near;
        self
    }

    /// Asks this directory where pages are, and announces the node's own pages there.
    pub fn directory(mut self, directory: Arc<dyn Directory>) -> Self {
        self.directory = Some(directory);
        self
    }

    /// Uses the directory that the nodes of the group keep in memory
    /// ([`embedded`](crate::directory::embedded)), in place of [`directory`](Self::directory).
    /// `candidates` are the addresses of the nodes that may keep it, the same list in the same
    /// order on all nodes. If it is empty, this node alone keeps it, at the address that it gets
    /// ([`Node::address`](crate::Node::address)). A node with pools keeps a shard in any case,
    /// which is asked only where the node is a candidate.
    pub fn embedded(mut self, candidates: Vec<Address>) -> Self {
        self.embedded = Some(candidates);
        self
    }

    /// Reads the publication tables of the nodes at `candidates` instead of asking a directory
    /// ([`one_sided`](crate::directory::one_sided)), at the rate and up to the size of `caps`,
    /// which are logged. A thread of its own does it, with rails of its own: the node's rails are
    /// asked for once more. A node that the caller drives is given a
    /// [`OneSidedDirectory`](crate::directory::one_sided::OneSidedDirectory) instead.
    pub fn one_sided(mut self, candidates: Vec<Address>, caps: OneSidedConfig) -> Self {
        self.one_sided = Some((candidates, caps));
        self
    }

    /// Serves readers at `address` (port 0: any free port); any free port of loopback unless set.
    pub fn listen(mut self, address: Address) -> Self {
        self.listen = Some(address);
        self
    }

    /// Tells readers to connect to `address`: where the node listens on all addresses of its host,
    /// or behind a translation of addresses. The address that it listens on unless set.
    pub fn advertise(mut self, address: Address) -> Self {
        self.advertise = Some(address);
        self
    }

    /// The zone in which the node stands: owners of the same zone are read from first.
    pub fn zone(mut self, zone: NodeName) -> Self {
        self.zone = zone;
        self
    }

    /// Keeps `records` records of where pages are, each for `ttl`; zero of either: no cache. 65,536
    /// records for five seconds unless set.
    pub fn cache(mut self, records: usize, ttl: Duration) -> Self {
        (self.cache_records, self.cache_ttl) = (records, ttl);
        self
    }

    /// How many readers there are, each with rails and a thread of its own; one unless set.
    pub fn readers(mut self, readers: usize) -> Self {
        self.readers = readers;
        self
    }

    /// How many threads look keys up for [`begin_get`](crate::Node::begin_get), 1 to 64; 4 unless
    /// set. A directory that does not answer holds one of them for a request, until three quarters
    /// of the time to its deadline have passed. When it holds all, further threads are started, up
    /// to 64; when it holds these, further requests are misses at once
    /// ([`DirectoryError::Busy`](crate::DirectoryError::Busy)).
    pub fn look_up_threads(mut self, threads: usize) -> Self {
        self.look_up_threads = threads;
        self
    }

    /// How long [`register`](crate::Node::register) waits for a reader: one that the caller drives
    /// answers when it is polled. 30 seconds unless set.
    pub fn register_within(mut self, within: Duration) -> Self {
        self.register_within = within;
        self
    }

    /// How many owners each reader is connected to at a time, 1 to 1,024; 512 unless set, which are
    /// 64 hosts of 8 ranks. If others are wanted, the owner that was idle the longest is
    /// disconnected. A reader has places for 64 or for 1,024, and takes memory for as many.
    pub fn peers(mut self, peers: usize) -> Self {
        self.peers = peers;
        self
    }

    /// The configuration of the readers, but for its `peers`: [`peers`](Self::peers) says them.
    pub fn reader(mut self, config: Config) -> Self {
        self.reader = config;
        self
    }

    /// With how many pages a batch of READs is full enough to go, 8 to 128; 32 unless set.
    pub fn batch_pages(mut self, pages: usize) -> Self {
        self.batch_pages = pages.clamp(8, kvrail::MAX_BATCH / 2);
        self
    }

    /// How long a reader's thread without work polls before it sleeps; 10 microseconds unless set.
    /// Each of its wake-ups is a system call, and each moment of spinning a processor's.
    pub fn spin(mut self, spin: Duration) -> Self {
        self.spin = spin;
        self
    }

    /// The processors that the readers' threads run on; any unless set.
    pub fn cpus(mut self, cpus: Vec<usize>) -> Self {
        self.cpus = cpus;
        self
    }

    /// Logs every `get` that takes `slow` or longer, with where its time went; zero, the default:
    /// none is logged.
    pub fn log_slow(mut self, slow: Duration) -> Self {
        self.slow = slow;
        self
    }

    /// Counts into `metrics`, by which several nodes of a process share one endpoint; counters of
    /// the node's own unless set ([`Node::metrics`](crate::Node::metrics)).
    pub fn metrics(mut self, metrics: Arc<NodeMetrics>) -> Self {
        self.metrics = metrics;
        self
    }

    /// The limits of the sessions that the node serves.
    pub fn server(mut self, config: ServerConfig) -> Self {
        self.server = config;
        self
    }

    /// Reads pages without asking the owner's table whether they are the right ones: **wrong pages
    /// are given out**. It is there for tests which show that they find wrong pages.
    #[doc(hidden)]
    pub fn unvalidated_for_tests(mut self) -> Self {
        self.unvalidated = true;
        self
    }

    /// How the node's pages are announced.
    pub fn announcer(mut self, config: AnnouncerConfig) -> Self {
        self.announcer = config;
        self
    }
}

impl fmt::Debug for NodeConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NodeConfig")
            .field("name", &self.name)
            .field("layouts", &self.layouts)
            .field("pools", &self.pools.len())
            .field("directory", &self.directory)
            .field("readers", &self.readers)
            .finish_non_exhaustive()
    }
}
