//! How a node starts.

use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::thread::Builder;

use kvrail::{
    Address, Config, Publisher, PublisherConfig, PublisherTransport, Reader, ReaderTransport, TransportError,
};
use kvrail_core::id::MAX_RAILS;

use super::Node;
use super::config::{MAX_READERS, NodeConfig, PoolSpec};
use super::error::NodeError;
use crate::announce::Announcer;
use crate::directory::embedded::{
    DIRECTORY_SERVICE, EmbeddedConfig, EmbeddedDirectory, EmbeddedShard, ShardConfig,
};
use crate::directory::one_sided::{OneSidedDirectory, OneSidedSource};
use crate::directory::{Directory, Owner, caught};
use crate::get::cache::RecordCache;
use crate::get::counters::Counters;
use crate::get::link::{DriverLink, DriverLinks};
use crate::get::look_up_link::{LookUpLink, MAX_THREADS};
use crate::get::owners::OwnerBook;
use crate::get::read_driver::ReadDriver;
use crate::get::shared::Shared;
use crate::get::{look_up_thread, thread};
use crate::metrics::{PoolCounts, SlowLog};
use crate::pool::{EnginePool, PagePool, PoolStatistics};

static NODES: AtomicU64 = AtomicU64::new(0);

impl Node {
    /// Starts a node whose readers have threads of their own. `publish` is the transport over which
    /// others read its pools, if it has any; `rails` gives each reader its rails.
    ///
    /// # Errors
    ///
    /// The configuration cannot be used, or the system refused something; the error says what.
    pub fn start<T, E>(
        mut config: NodeConfig,
        publish: impl PublisherTransport,
        mut rails: impl FnMut() -> Result<T, E>,
    ) -> Result<Self, NodeError>
    where
        T: ReaderTransport<Provider: AsFd> + 'static,
        Reader<T>: Send,
        E: Into<TransportError>,
    {
        if let Some((candidates, caps)) = config.one_sided.take() {
            let (keys, layouts) = (config.keys.clone(), config.layouts.clone());
            let source = OneSidedSource::new(candidates, keys, config.name, layouts).caps(caps);
            let rails = rails().map_err(|error| NodeError::Rails(error.into()))?;
            config.directory = Some(Arc::new(OneSidedDirectory::start(source, rails)?));
        }
        let (spin, cpus, readers) = (config.spin, config.cpus.clone(), config.readers);
        let (mut node, drivers) = Self::build(config, publish, readers, || rails().map_err(Into::into))?;
        for (number, driver) in drivers.into_iter().enumerate() {
            let cpus = cpus.clone();
            let run = move || thread::run(driver, spin, &cpus);
            let started = Builder::new().name(format!("kvrail-read-{number}")).spawn(run);
            node.threads.push(started.map_err(NodeError::Thread)?);
        }
        Ok(node)
    }

    /// Starts a node with one reader, which the caller drives: gets go on while the
    /// [`ReadDriver`] is polled. A [`get`](Self::get) blocks, so the thread that polls uses
    /// [`begin_get`](Self::begin_get).
    ///
    /// # Errors
    ///
    /// As [`start`](Self::start).
    pub fn start_driven<T>(
        config: NodeConfig,
        publish: impl PublisherTransport,
        rails: T,
    ) -> Result<(Self, ReadDriver<T>), NodeError>
    where
        T: ReaderTransport<Provider: AsFd>,
    {
        if config.one_sided.is_some() {
            return Err(NodeError::OneSidedDriven);
        }
        let mut rails = Some(rails);
        let once = || rails.take().ok_or_else(|| "the rails are given once".into());
        let (node, mut drivers) = Self::build(config, publish, 1, once)?;
        let driver = drivers.pop().ok_or(NodeError::Readers { readers: 0, max: 1 })?;
        Ok((node, driver))
    }

    fn build<T: ReaderTransport<Provider: AsFd>>(
        mut config: NodeConfig,
        publish: impl PublisherTransport,
        readers: usize,
        mut rails: impl FnMut() -> Result<T, TransportError>,
    ) -> Result<(Self, Vec<ReadDriver<T>>), NodeError> {
        let &[first, ..] = &config.layouts[..] else { return Err(NodeError::NoLayout) };
        if readers == 0 || readers > MAX_READERS {
            return Err(NodeError::Readers { readers, max: MAX_READERS });
        }
        if config.look_up_threads == 0 || config.look_up_threads > MAX_THREADS {
            return Err(NodeError::LookUpThreads { threads: config.look_up_threads, max: MAX_THREADS });
        }
        if config.unvalidated {
            tracing::error!("a test has switched validation off: this node gives out wrong pages");
        }
        let specs = std::mem::take(&mut config.pools);
        let (publisher, shard) = match specs.is_empty() {
            true => (None, None),
            false => offer(&config, specs, publish).map(|(publisher, shard)| (Some(publisher), shard))?,
        };
        if let Some(candidates) = config.embedded.take() {
            config.directory = Some(embedded(&config, candidates, publisher.as_deref(), shard)?);
        }
        let (look_ups, parker) =
            LookUpLink::new(config.look_up_threads, name_of(config.directory.as_deref()));
        let shared = Arc::new(Shared {
            node: NODES.fetch_add(1, Ordering::Relaxed),
            keys: config.keys.clone(),
            layouts: config.layouts.clone(),
            zone: config.zone,
            own: publisher.as_ref().map(|publisher| publisher.epoch()),
            directory: config.directory.clone(),
            cache: RecordCache::new(config.cache_records, config.cache_ttl),
            owners: OwnerBook::default(),
            counters: Counters::default(),
            look_ups,
            metrics: Arc::clone(&config.metrics),
            slow: SlowLog::new((!config.slow.is_zero()).then_some(config.slow)),
            batch_pages: config.batch_pages,
            unvalidated: config.unvalidated,
        });
        let (mut links, mut drivers) = (Vec::new(), Vec::new());
        let peers = config.peers.max(1);
        let of_reader = Config { peers, ..config.reader.clone() };
        for _ in 0..readers {
            let rails = rails().map_err(NodeError::Rails)?;
            let mut names: Vec<_> = (0..MAX_RAILS).map(|rail| rails.name(rail)).collect();
            let mut reader = Reader::start(first, rails, of_reader.clone())?;
            names.truncate(reader.rails());
            for layout in &config.layouts[1..] {
                reader.add_layout(layout)?;
            }
            let link = Arc::new(DriverLink::new()?);
            drivers.push(ReadDriver::new(reader, peers, &names, Arc::clone(&link), Arc::clone(&shared))?);
            links.push(link);
        }
        let mut node = Self {
            announcer: None,
            pools: Vec::new(),
            engine_pools: Vec::new(),
            publisher,
            links: Arc::new(DriverLinks::new(links)),
            shared,
            registrations: AtomicU32::new(0),
            register_within: config.register_within,
            threads: Vec::new(),
            watcher: None,
        };
        node.open_pools()?;
        node.announce(&config)?;
        if node.shared.directory.is_some() {
            let started = look_up_thread::start(&node.shared, &node.links, config.look_up_threads, parker);
            node.watcher = Some(started.map_err(NodeError::Thread)?);
        }
        Ok((node, drivers))
    }

    fn open_pools(&mut self) -> Result<(), NodeError> {
        let Some(publisher) = &self.publisher else { return Ok(()) };
        for pool in publisher.pools() {
            if pool.foreign().is_some() {
                let opened = EnginePool::open(Arc::clone(publisher), pool.id())?;
                let statistics = opened.statistics_source();
                self.shared.metrics.add_source(move |counts| add_pool(counts, &statistics()));
                self.engine_pools.push(opened);
            } else {
                let opened = PagePool::open(Arc::clone(publisher), pool.id())?;
                let statistics = opened.statistics_source();
                self.shared.metrics.add_source(move |counts| add_pool(counts, &statistics()));
                self.pools.push((*pool.layout(), opened));
            }
        }
        Ok(())
    }

    /// Announces the node's pages in its directory, if it has both.
    fn announce(&mut self, config: &NodeConfig) -> Result<(), NodeError> {
        let (Some(publisher), Some(directory)) = (&self.publisher, &config.directory) else { return Ok(()) };
        let address = config.advertise.clone().unwrap_or_else(|| publisher.local_addr().into());
        let owner = Owner { epoch: publisher.epoch(), node: config.name, address, zone: config.zone };
        let announcer = Announcer::start(Arc::clone(directory), owner, config.announcer)?;
        for (_, pool) in &self.pools {
            pool.announce_by(&announcer);
        }
        for pool in &self.engine_pools {
            pool.announce_by(&announcer);
        }
        let statistics = announcer.statistics_source();
        self.shared.metrics.add_source(move |counts| {
            let told = statistics();
            counts.announced += told.announced;
            counts.withdrawn += told.withdrawn;
            counts.announce_errors += told.failures;
            counts.records_lost += told.lost;
            counts.announcements_pending += told.pending as u64;
        });
        self.announcer = Some(announcer);
        Ok(())
    }
}

/// What a directory calls itself; one that panics instead has no name.
fn name_of(directory: Option<&dyn Directory>) -> Arc<str> {
    let name = directory.map(|directory| caught(directory, |directory| directory.describe()));
    name.and_then(Result::ok).map_or_else(|| "without a name".into(), Into::into)
}

fn add_pool(counts: &mut PoolCounts, of: &PoolStatistics) {
    counts.places += u64::from(of.slots);
    counts.places_used += u64::from(of.pages);
    counts.puts += of.puts;
    counts.put_bytes += of.put_bytes;
    counts.puts_refused += of.all_held;
    counts.evictions += of.evictions;
}

/// A client of the embedded directory.
fn embedded(
    config: &NodeConfig,
    mut candidates: Vec<Address>,
    publisher: Option<&Publisher>,
    shard: Option<Arc<EmbeddedShard>>,
) -> Result<Arc<dyn Directory>, NodeError> {
    if candidates.is_empty() {
        candidates.extend(publisher.map(|publisher| publisher.local_addr().into()));
    }
    let mut config = EmbeddedConfig::new(candidates, config.keys.clone(), config.name);
    config.own = publisher.map(Publisher::epoch).zip(shard);
    Ok(Arc::new(EmbeddedDirectory::start(config)?))
}

/// Offers the node's pools, and its shard of the embedded directory if that is used.
fn offer(
    config: &NodeConfig,
    pools: Vec<PoolSpec>,
    publish: impl PublisherTransport,
) -> Result<(Arc<Publisher>, Option<Arc<EmbeddedShard>>), NodeError> {
    let mut server = config.server.clone();
    let shard = config.embedded.is_some().then(|| Arc::new(EmbeddedShard::new(ShardConfig::default())));
    if let Some(shard) = &shard {
        server = server.service(DIRECTORY_SERVICE, Arc::<EmbeddedShard>::clone(shard));
    }
    let all = PublisherConfig::new(config.name).server(server).near_nics(config.near_nics);
    let all = pools.into_iter().fold(all, |all, pool| match pool {
        PoolSpec::Own(layout, slots) => all.pool(layout, slots),
        PoolSpec::Engine(pool) => all.foreign_pool(pool),
    });
    let loopback = || Address::from(SocketAddr::from(([127, 0, 0, 1], 0)));
    let listen = config.listen.clone().unwrap_or_else(loopback);
    let publisher = Publisher::start_pools(all, &listen, config.keys.clone(), publish)?;
    Ok((Arc::new(publisher), shard))
}
