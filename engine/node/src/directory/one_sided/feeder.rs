//! The thread that reads tables: a reader of its own, so that no page waits for a table.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use kvrail::session::{Epoch, PeerKeys, PoolId};
use kvrail::{
    Address, Config, Connecting, Location, NodeName, PageLayout, Peer, Reader, ReaderEvent, ReaderTransport,
    StartError, clock,
};
use kvrail_core::plan::AddPlanError;
use kvrail_core::table::KeyTag;

use super::tables::{OneSidedConfig, OneSidedTables, WantedTable};
use crate::directory::{Directory, DirectoryError, Found, Owner, Renewed};
use crate::record::Record;

/// How long reading one table may take. An owner that is stopped delays the tables of the others
/// for so long, once in each back-off.
const TABLE: Duration = Duration::from_secs(1);
/// How long an owner that was not reached is left alone, at first and at most.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));
/// The longest sleep of the thread, and so what its end may wait for.
const STEP: Duration = Duration::from_millis(20);

/// Whose tables a [`OneSidedDirectory`] reads, and how.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct OneSidedSource {
    /// The nodes whose tables are read.
    pub candidates: Vec<Address>,
    /// The keys of the group.
    pub keys: PeerKeys,
    /// This node's name, for the logs of the others.
    pub node: NodeName,
    /// The layouts of the pools whose tables are read, at least one.
    pub layouts: Vec<PageLayout>,
    /// The caps.
    pub caps: OneSidedConfig,
    /// How long making a session may take. Default: a second.
    pub connect: Duration,
}

impl OneSidedSource {
    /// The tables of the pools of `layouts` of these nodes, with the usual caps.
    #[must_use]
    pub fn new(
        candidates: Vec<Address>,
        keys: impl Into<PeerKeys>,
        node: NodeName,
        layouts: Vec<PageLayout>,
    ) -> Self {
        let (caps, connect) = (OneSidedConfig::default(), Duration::from_secs(1));
        Self { candidates, keys: keys.into(), node, layouts, caps, connect }
    }

    /// The same, with these caps.
    #[must_use]
    pub const fn caps(mut self, caps: OneSidedConfig) -> Self {
        self.caps = caps;
        self
    }
}

/// Why the tables are not read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OneSidedStartError {
    /// There is no layout.
    #[error("no layout is given of whose pools tables are to be read: give at least one")]
    NoLayout,
    /// The reader did not start.
    #[error("the reader of tables did not start: {0}")]
    Reader(#[from] StartError),
    /// A layout cannot be read.
    #[error("the layout cannot be read: {0}")]
    Layout(#[from] AddPlanError),
    /// The system has no thread left.
    #[error("the thread that reads tables could not be started: {0}")]
    Thread(std::io::Error),
}

impl OneSidedStartError {
    /// A number that never changes its meaning (docs/errors.md).
    #[must_use]
    pub const fn code(&self) -> u32 {
        match self {
            Self::NoLayout => 7052,
            Self::Reader(source) => source.code(),
            Self::Layout(source) => source.code(),
            Self::Thread(_) => 7053,
        }
    }
}

/// [`OneSidedTables`] with the thread that feeds them: it connects to the candidates, and reads
/// their tables at the rate and up to the size that the caps allow. A table that the caps leave out
/// is logged, and its pages are not found.
///
/// Pools that a node offers after the session with it was made are not read before the next
/// session.
#[derive(Debug)]
pub struct OneSidedDirectory {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    tables: OneSidedTables,
    stop: AtomicBool,
    /// Whether each candidate was tried, and the tables of those that were reached were read.
    begun: Mutex<bool>,
    has_begun: Condvar,
}

impl OneSidedDirectory {
    /// Begins to read tables over `rails`, which are its own. Look-ups wait for the first ones.
    ///
    /// # Errors
    ///
    /// No layout, or one that cannot be read; or the system has no thread left.
    pub fn start<T>(source: OneSidedSource, rails: T) -> Result<Self, OneSidedStartError>
    where
        T: ReaderTransport + 'static,
        Reader<T>: Send,
    {
        let Some((&first, others)) = source.layouts.split_first() else {
            return Err(OneSidedStartError::NoLayout);
        };
        let config = Config { node: source.node, connect: source.connect, ..Config::default() };
        let mut reader = Reader::start(first, rails, config)?;
        others.iter().try_for_each(|layout| reader.add_layout(layout).map(drop))?;
        let tables = OneSidedTables::new(source.caps);
        tracing::info!(caps = tables.describe(), "tables are read one-sidedly");
        let (stop, begun) = (AtomicBool::new(false), Mutex::new(false));
        let shared = Arc::new(Shared { tables, stop, begun, has_begun: Condvar::new() });
        let feeder = Feeder::new(source, Arc::clone(&shared));
        let named = std::thread::Builder::new().name("kvrail-tables".into());
        let thread = named.spawn(move || feeder.run(reader)).map_err(OneSidedStartError::Thread)?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// The tables that are read.
    #[must_use]
    pub fn tables(&self) -> &OneSidedTables {
        &self.shared.tables
    }

    /// Waits until the candidates were tried once. Returns whether they were.
    fn wait_for_the_first(&self, deadline: Instant) -> bool {
        let mut begun = self.shared.begun.lock().unwrap_or_else(PoisonError::into_inner);
        while !*begun {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            let waited = self.shared.has_begun.wait_timeout(begun, left);
            begun = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }
}

impl Drop for OneSidedDirectory {
    /// Waits for a table that is being read: a second at most.
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A panic of it was printed.
            let _ = thread.join();
        }
    }
}

impl Directory for OneSidedDirectory {
    fn look_up(&self, tags: &[KeyTag], deadline: Instant, found: &mut Found) {
        if self.wait_for_the_first(deadline) {
            self.shared.tables.look_up(tags, deadline, found);
        } else {
            found.reset(tags.len());
            let directory = "the owners' tables".into();
            found.not_answered(0..tags.len(), DirectoryError::Deadline { directory });
        }
    }

    fn owners(&self, epochs: &[Epoch], deadline: Instant) -> Result<Vec<Option<Owner>>, DirectoryError> {
        self.shared.tables.owners(epochs, deadline)
    }

    fn announce(&self, owner: &Owner, records: &[Record], deadline: Instant) -> Result<(), DirectoryError> {
        self.shared.tables.announce(owner, records, deadline)
    }

    fn withdraw(&self, records: &[Record], deadline: Instant) -> Result<(), DirectoryError> {
        self.shared.tables.withdraw(records, deadline)
    }

    fn renew(&self, owner: &Owner, deadline: Instant) -> Result<Renewed, DirectoryError> {
        self.shared.tables.renew(owner, deadline)
    }

    fn lease(&self) -> Duration {
        self.shared.tables.lease()
    }

    fn describe(&self) -> String {
        self.shared.tables.describe()
    }
}

/// What is known of a candidate.
struct Candidate {
    address: Address,
    connection: Connection,
    back_off: Duration,
    /// Whether it was tried, and its tables were read if it was reached.
    tried: bool,
}

enum Connection {
    /// It is tried at this time.
    None(Instant),
    Connecting(Connecting),
    Connected(Peer),
}

struct Feeder {
    source: OneSidedSource,
    shared: Arc<Shared>,
    candidates: Vec<Candidate>,
}

impl Feeder {
    fn new(source: OneSidedSource, shared: Arc<Shared>) -> Self {
        let now = Instant::now();
        let candidate = |address: &Address| Candidate {
            address: address.clone(),
            connection: Connection::None(now),
            back_off: BACK_OFF.0,
            tried: false,
        };
        let candidates = source.candidates.iter().map(candidate).collect();
        Self { source, shared, candidates }
    }

    fn run<T: ReaderTransport>(mut self, mut reader: Reader<T>) {
        while !self.shared.stop.load(Ordering::Relaxed) {
            self.connect(&mut reader);
            reader.poll();
            while let Some(event) = reader.next_event() {
                self.take(event);
            }
            let now = Instant::now();
            match self.shared.tables.wanted(now) {
                Some(wanted) => {
                    self.read(&mut reader, wanted);
                    // There may always be a table to be read again.
                    if !self.shared.tables.has_unread() {
                        self.tell_begun();
                    }
                }
                None => {
                    self.tell_begun();
                    let step = STEP.min(self.source.caps.refresh / 4).max(Duration::from_micros(100));
                    reader.wait(clock::within(step));
                }
            }
        }
        self.tell_begun();
    }

    /// Begins to connect to the candidates whose time has come.
    fn connect<T: ReaderTransport>(&mut self, reader: &mut Reader<T>) {
        let now = Instant::now();
        for candidate in &mut self.candidates {
            if !matches!(candidate.connection, Connection::None(next) if next <= now) {
                continue;
            }
            let keys = self.source.keys.clone();
            match reader.begin_connect(&candidate.address, keys, &self.source.layouts) {
                Ok(connecting) => candidate.connection = Connection::Connecting(connecting),
                Err(error) => candidate.failed(&error.to_string()),
            }
        }
    }

    fn take(&mut self, event: ReaderEvent) {
        match event {
            ReaderEvent::Connected { connecting, peer } => {
                let is_it = |candidate: &&mut Candidate| matches!(candidate.connection, Connection::Connecting(of) if of == connecting);
                let Some(candidate) = self.candidates.iter_mut().find(is_it) else { return };
                candidate.connected(peer, &self.shared.tables);
            }
            ReaderEvent::NotConnected { connecting, error } => {
                let is_it = |candidate: &&mut Candidate| matches!(candidate.connection, Connection::Connecting(of) if of == connecting);
                if let Some(candidate) = self.candidates.iter_mut().find(is_it) {
                    candidate.failed(&error.to_string());
                }
            }
            ReaderEvent::Lost { peer, why, .. } => {
                let is_it = |candidate: &Candidate| matches!(&candidate.connection, Connection::Connected(of) if of.id() == peer);
                if let Some(number) = self.candidates.iter().position(is_it) {
                    self.lost(number, &why.to_string());
                }
            }
            _ => {}
        }
    }

    /// Reads a table, and publishes what it says.
    fn read<T: ReaderTransport>(&mut self, reader: &mut Reader<T>, wanted: WantedTable) {
        let is_it = |candidate: &Candidate| candidate.reaches(wanted.owner);
        let Some(number) = self.candidates.iter().position(is_it) else {
            // It has gone meanwhile.
            return self.shared.tables.remove(wanted.owner);
        };
        let candidate = &mut self.candidates[number];
        let Connection::Connected(peer) = &candidate.connection else { return };
        // The image is at least as new as this.
        let at = Instant::now();
        match table_of(reader, peer, wanted.pool) {
            Ok(published) => {
                self.shared.tables.publish(wanted.owner, wanted.pool, published, at);
                candidate.back_off = BACK_OFF.0;
            }
            Err(why) => {
                let peer = peer.clone();
                self.lost(number, &why);
                reader.disconnect(&peer);
            }
        }
    }

    /// A candidate that was connected is lost. Its owner's tables stay if another candidate is an
    /// address of the same owner, and is connected: from now on the owner is said to be there.
    fn lost(&mut self, number: usize, why: &str) {
        if let Connection::Connected(peer) = &self.candidates[number].connection {
            let epoch = peer.epoch();
            let others = self.candidates.iter().enumerate().filter(|&(other, _)| other != number);
            let mut others = others.map(|(_, candidate)| candidate);
            match others.find(|candidate| candidate.reaches(epoch)).and_then(Candidate::owner) {
                Some(owner) => self.shared.tables.moved(owner),
                None => self.shared.tables.remove(epoch),
            }
        }
        self.candidates[number].failed(why);
    }

    /// Lets look-ups go on once every candidate was tried and no table of the first ones is due.
    fn tell_begun(&mut self) {
        let stopping = self.shared.stop.load(Ordering::Relaxed);
        if stopping || self.candidates.iter().all(|candidate| candidate.tried) {
            let mut begun = self.shared.begun.lock().unwrap_or_else(PoisonError::into_inner);
            if !std::mem::replace(&mut *begun, true) {
                self.shared.has_begun.notify_all();
            }
        }
    }
}

impl Candidate {
    fn connected(&mut self, peer: Peer, tables: &OneSidedTables) {
        self.tried = true;
        let owner = self.owner_of(&peer);
        for pool in peer.pools() {
            // More slots than a number has are more than the caps allow.
            let slots = u32::try_from(pool.slots()).unwrap_or(u32::MAX);
            if let Err(error) = tables.add(&owner, pool.id(), slots) {
                tracing::error!(%error, pool = %pool.id(), node = %owner.node, "a table is not read");
            }
        }
        self.connection = Connection::Connected(peer);
    }

    fn owner_of(&self, peer: &Peer) -> Owner {
        let (address, zone) = (self.address.clone(), NodeName::lossy(""));
        Owner { epoch: peer.epoch(), node: peer.producer(), address, zone }
    }

    /// The owner that is connected, at this address.
    fn owner(&self) -> Option<Owner> {
        let Connection::Connected(peer) = &self.connection else { return None };
        Some(self.owner_of(peer))
    }

    /// Whether this owner is connected.
    fn reaches(&self, owner: Epoch) -> bool {
        matches!(&self.connection, Connection::Connected(peer) if peer.epoch() == owner)
    }

    /// It was not reached: it is left alone for a while.
    fn failed(&mut self, why: &str) {
        tracing::debug!(address = %self.address, why, "tables of a node are not read");
        self.tried = true;
        self.connection = Connection::None(Instant::now() + self.back_off);
        self.back_off = (2 * self.back_off).min(BACK_OFF.1);
    }
}

/// Reads the table of a pool, whose slots are numbered through all of its pieces.
fn table_of<T: ReaderTransport>(
    reader: &mut Reader<T>,
    peer: &Peer,
    pool: PoolId,
) -> Result<Vec<Location>, String> {
    // The peer's regions are those of its pools, in their order.
    let (mut first_region, mut locations, mut first_slot) = (0, Vec::new(), 0);
    let deadline = clock::within(TABLE);
    for known in peer.pools() {
        if known.id() != pool {
            first_region += known.regions().len();
            continue;
        }
        for (region, piece) in (first_region..).zip(known.regions()) {
            let published = reader.published(peer, region, deadline).map_err(|error| error.to_string())?;
            let moved = |location: Location| Location { slot: first_slot + location.slot, ..location };
            locations.extend(published.into_iter().map(moved));
            first_slot += piece.slots();
        }
        return Ok(locations);
    }
    Err("the pool has gone".into())
}
