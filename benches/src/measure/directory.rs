//! Directories of nodes in child processes.

use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use kvrail::core::table::KeyTag;
use kvrail::session::{Address, Epoch, ServerConfig};
use kvrail::{NodeName, PageLayout, PeerKey};
use kvrail_node::directory::embedded::{
    DIRECTORY_SERVICE, EmbeddedConfig, EmbeddedDirectory, EmbeddedShard, ShardConfig,
};
use kvrail_node::directory::one_sided::{OneSidedConfig, OneSidedSource};
use kvrail_node::{Directory, DirectoryError, Found, Owner, Record, Renewed};

use crate::cli::directory::DirectorySetup;
use crate::measure::node::Over;

/// How often a table is read one-sidedly, at most.
const REFRESH: Duration = Duration::from_millis(1);

/// The directory that a reader asks.
pub(crate) fn of_reader(
    setup: &DirectorySetup,
    key: &PeerKey,
    node: NodeName,
    layout: PageLayout,
    over: &Over<'_>,
) -> anyhow::Result<Arc<dyn Directory>> {
    match setup {
        DirectorySetup::OneSided(producer) => {
            let source = OneSidedSource::new(vec![producer.parse()?], key.clone(), node, vec![layout]);
            // Tables change all the time where pages are overwritten, so they are read often.
            let caps = OneSidedConfig { refresh: REFRESH, ..OneSidedConfig::default() };
            Ok(Arc::new(over.read_tables(source.caps(caps))?))
        }
        DirectorySetup::Embedded(candidates) => embedded(candidates, key, node),
        DirectorySetup::Redis { url, prefix } => redis(url, prefix),
    }
}

fn embedded(candidates: &[String], key: &PeerKey, node: NodeName) -> anyhow::Result<Arc<dyn Directory>> {
    let candidates = candidates.iter().map(|address| address.parse()).collect::<Result<_, _>>()?;
    Ok(Arc::new(EmbeddedDirectory::start(EmbeddedConfig::new(candidates, key.clone(), node))?))
}

#[cfg(feature = "redis")]
fn redis(url: &str, prefix: &str) -> anyhow::Result<Arc<dyn Directory>> {
    use kvrail_node::directory::redis::{RedisConfig, RedisDirectory};
    Ok(Arc::new(RedisDirectory::start(RedisConfig::new(url)?.prefix(prefix)?)?))
}

#[cfg(not(feature = "redis"))]
fn redis(url: &str, _: &str) -> anyhow::Result<Arc<dyn Directory>> {
    anyhow::bail!("{url}: this kvrail-bench was built without Redis: build it with --features redis")
}

/// The directory at which a producer announces its pages. A producer that keeps the directory
/// itself is its own client, and the address at which it listens is known only when it has started.
pub(crate) struct ProducerDirectory {
    setup: DirectorySetup,
    key: PeerKey,
    node: NodeName,
    /// Where readers reach the producer, and the directory.
    known: OnceLock<(Address, Arc<dyn Directory>)>,
}

impl ProducerDirectory {
    /// A directory that is not reached yet.
    pub(crate) const fn new(setup: DirectorySetup, key: PeerKey, node: NodeName) -> Self {
        Self { setup, key, node, known: OnceLock::new() }
    }

    /// The configuration of the producer's server, which answers look-ups if the producer keeps the
    /// directory.
    pub(crate) fn server(&self) -> ServerConfig {
        let config = ServerConfig::default();
        match &self.setup {
            DirectorySetup::Embedded(others) if others.is_empty() => {
                config.service(DIRECTORY_SERVICE, Arc::new(EmbeddedShard::new(ShardConfig::default())))
            }
            _ => config,
        }
    }

    /// Whether there is anything at which pages are announced.
    pub(crate) const fn announces(&self) -> bool {
        !matches!(self.setup, DirectorySetup::OneSided(_))
    }

    /// Readers reach the producer at `address` now.
    pub(crate) fn reached_at(&self, address: Address) -> anyhow::Result<()> {
        let directory = match &self.setup {
            DirectorySetup::Embedded(others) if others.is_empty() => {
                embedded(&[address.to_string()], &self.key, self.node)?
            }
            DirectorySetup::Embedded(others) => embedded(others, &self.key, self.node)?,
            DirectorySetup::Redis { url, prefix } => redis(url, prefix)?,
            // Its table says what there is.
            DirectorySetup::OneSided(_) => return Ok(()),
        };
        // It is called once.
        let _ = self.known.set((address, directory));
        Ok(())
    }

    fn get(&self) -> Result<&(Address, Arc<dyn Directory>), DirectoryError> {
        self.known.get().ok_or_else(|| DirectoryError::Unreachable {
            directory: "the producer's own".into(),
            why: "it is being started".into(),
        })
    }

    /// The owner as readers reach it: it may listen at all addresses of its host.
    fn reachable(address: &Address, owner: &Owner) -> Owner {
        Owner { address: address.clone(), ..owner.clone() }
    }
}

impl fmt::Debug for ProducerDirectory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.describe())
    }
}

impl Directory for ProducerDirectory {
    fn look_up(&self, tags: &[KeyTag], deadline: Instant, found: &mut Found) {
        match self.get() {
            Ok((_, directory)) => directory.look_up(tags, deadline, found),
            Err(error) => {
                found.reset(tags.len());
                found.not_answered(0..tags.len(), error);
            }
        }
    }

    fn owners(&self, epochs: &[Epoch], deadline: Instant) -> Result<Vec<Option<Owner>>, DirectoryError> {
        self.get()?.1.owners(epochs, deadline)
    }

    fn announce(&self, owner: &Owner, records: &[Record], deadline: Instant) -> Result<(), DirectoryError> {
        let (address, directory) = self.get()?;
        directory.announce(&Self::reachable(address, owner), records, deadline)
    }

    fn withdraw(&self, records: &[Record], deadline: Instant) -> Result<(), DirectoryError> {
        self.get()?.1.withdraw(records, deadline)
    }

    fn renew(&self, owner: &Owner, deadline: Instant) -> Result<Renewed, DirectoryError> {
        let (address, directory) = self.get()?;
        directory.renew(&Self::reachable(address, owner), deadline)
    }

    fn lease(&self) -> Duration {
        self.known.get().map_or(Duration::from_secs(3), |(_, directory)| directory.lease())
    }

    fn describe(&self) -> String {
        self.known.get().map_or_else(|| "the producer's own".into(), |(_, directory)| directory.describe())
    }
}
