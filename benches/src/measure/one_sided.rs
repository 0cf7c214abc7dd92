//! One-sided look-ups: a thread of the reader's process reads the publication table of the producer
//! and keeps an image of it, from which keys are looked up.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::Context;
use kvrail::core::table::KeyTag;
use kvrail::session::{Address, Epoch};
use kvrail::{Config, NodeName, PageLayout, Peer, PeerKey, Reader, ReaderTransport, clock};
use kvrail_node::directory::one_sided::{OneSidedConfig, OneSidedTables};
use kvrail_node::{Directory, DirectoryError, Found, Owner, Record, Renewed};

use crate::measure::node::{Over, ReadingThread};

/// How often a table is read, at most.
const REFRESH: Duration = Duration::from_millis(1);
/// How long reading a table, and connecting, may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long a producer that was not reached is left alone.
const AGAIN: Duration = Duration::from_millis(200);
/// How long a look-up waits for the first image.
const STEP: Duration = Duration::from_millis(2);

/// A directory of the tables of one producer, and the thread that reads them.
#[derive(Debug)]
pub(crate) struct OneSided {
    tables: Arc<OneSidedTables>,
    /// Whether there is an image.
    begun: Arc<AtomicBool>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl OneSided {
    /// Begins to read the tables of the producer at `address`, of pages of `layout`.
    pub(crate) fn start(
        address: &Address,
        key: &PeerKey,
        node: NodeName,
        layout: PageLayout,
        over: &Over<'_>,
    ) -> anyhow::Result<Self> {
        let config = OneSidedConfig { refresh: REFRESH, ..OneSidedConfig::default() };
        let tables = Arc::new(OneSidedTables::new(config));
        let (begun, stop) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let job = Job {
            tables: Arc::clone(&tables),
            begun: Arc::clone(&begun),
            stop: Arc::clone(&stop),
            address: address.clone(),
            key: key.clone(),
            layout,
            config: Config { node, connect: PATIENCE, ..Config::default() },
        };
        let thread = over.with_rails(job)?;
        Ok(Self { tables, begun, stop, thread: Some(thread) })
    }
}

impl Drop for OneSided {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A panic of it was printed.
            let _ = thread.join();
        }
    }
}

/// What the thread does.
struct Job {
    tables: Arc<OneSidedTables>,
    begun: Arc<AtomicBool>,
    stop: Arc<AtomicBool>,
    address: Address,
    key: PeerKey,
    layout: PageLayout,
    config: Config,
}

impl ReadingThread for Job {
    fn start<T>(self, rails: T) -> anyhow::Result<JoinHandle<()>>
    where
        T: ReaderTransport + 'static,
        Reader<T>: Send,
    {
        let reader = Reader::start(self.layout, rails, self.config.clone())?;
        let named = thread::Builder::new().name("bench-tables".into());
        named.spawn(move || self.run(reader)).context("cannot start the thread that reads tables")
    }
}

impl Job {
    fn run<T: ReaderTransport>(&self, mut reader: Reader<T>) {
        while !self.stop.load(Ordering::Relaxed) {
            match reader.connect(&self.address, &self.key) {
                Ok(peer) => self.follow(&mut reader, &peer),
                Err(error) => tracing::debug!(%error, "the producer's tables are not read"),
            }
            thread::sleep(AGAIN);
        }
    }

    /// Reads the table of the producer again and again, until it is gone.
    fn follow<T: ReaderTransport>(&self, reader: &mut Reader<T>, peer: &Peer) {
        let owner = Owner {
            epoch: peer.epoch(),
            node: self.config.node,
            address: self.address.clone(),
            zone: NodeName::lossy(""),
        };
        let Ok(pool) = peer.pool_of(&self.layout) else { return };
        // More than the caps allow.
        let slots = u32::try_from(pool.slots()).unwrap_or(u32::MAX);
        if let Err(error) = self.tables.add(&owner, pool.id(), slots) {
            return tracing::error!(%error, "the producer's table is not read");
        }
        while !self.stop.load(Ordering::Relaxed) {
            let Some(wanted) = self.tables.wanted(Instant::now()) else {
                thread::sleep(REFRESH / 4);
                continue;
            };
            // The table is at least as new as this.
            let at = Instant::now();
            match reader.published(peer, 0, clock::within(PATIENCE)) {
                Ok(entries) => self.tables.publish(wanted.owner, wanted.pool, entries, at),
                Err(error) => {
                    tracing::debug!(%error, "the producer's table is not read any more");
                    break;
                }
            }
            self.begun.store(true, Ordering::Release);
        }
        self.tables.remove(peer.epoch());
    }
}

impl Directory for OneSided {
    fn look_up(&self, tags: &[KeyTag], deadline: Instant, found: &mut Found) {
        while !self.begun.load(Ordering::Acquire) && Instant::now() < deadline {
            thread::sleep(STEP);
        }
        self.tables.look_up(tags, deadline, found);
    }

    fn owners(&self, epochs: &[Epoch], deadline: Instant) -> Result<Vec<Option<Owner>>, DirectoryError> {
        self.tables.owners(epochs, deadline)
    }

    fn announce(&self, owner: &Owner, records: &[Record], deadline: Instant) -> Result<(), DirectoryError> {
        self.tables.announce(owner, records, deadline)
    }

    fn withdraw(&self, records: &[Record], deadline: Instant) -> Result<(), DirectoryError> {
        self.tables.withdraw(records, deadline)
    }

    fn renew(&self, owner: &Owner, deadline: Instant) -> Result<Renewed, DirectoryError> {
        self.tables.renew(owner, deadline)
    }

    fn lease(&self) -> Duration {
        self.tables.lease()
    }

    fn describe(&self) -> String {
        self.tables.describe()
    }
}
