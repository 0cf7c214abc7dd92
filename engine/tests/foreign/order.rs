//! What is released, in which order, and what the table said then.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use kvrail::session::PoolId;
use kvrail::{
    Backing, Export, ExportedMemory, Exporter, KeyTag, OpenRails, Publisher, PublisherConfig,
    PublisherTransport, Segment, TransportError, shm,
};

use super::rig::{EngineMemory, INDEX, LATENT, key, pool, publisher};

/// What was released: memory that peers read, and whether a page was valid then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Released {
    Pages { valid: bool },
    Table { valid: bool },
}

#[derive(Clone, Default)]
struct Log {
    released: Arc<Mutex<Vec<Released>>>,
    /// The segments that were exported: tables, with the pages behind them if there are any.
    tables: Arc<Mutex<Vec<Arc<Segment>>>>,
}

impl Log {
    /// Whether the first entry of any table is valid.
    fn valid(&self) -> bool {
        let valid = |table: &Arc<Segment>| {
            // SAFETY: an aligned word of the segment, which is accessed atomically.
            let generation = unsafe { AtomicU64::from_ptr(table.as_ptr().cast()) };
            generation.load(Ordering::Relaxed) & 1 == 1
        };
        self.tables.lock().unwrap().iter().any(valid)
    }

    fn take(&self) -> Vec<Released> {
        std::mem::take(&mut *self.released.lock().unwrap())
    }
}

/// Shared memory, whose exports tell when they are released.
struct Logged(Log);

// SAFETY: memory goes to the exporter of shared memory, which makes the promise. The log reads
// words of tables atomically.
unsafe impl PublisherTransport for Logged {
    type Acceptor = OpenRails;

    fn start(self) -> Result<(OpenRails, Box<dyn Exporter>), TransportError> {
        let (acceptor, exporter) = shm::publish(1).start()?;
        Ok((acceptor, Box::new(LoggedExporter(exporter, self.0))))
    }
}

struct LoggedExporter(Box<dyn Exporter>, Log);

impl Exporter for LoggedExporter {
    fn export(&self, memory: ExportedMemory) -> Result<Export, TransportError> {
        let table = match memory.backing() {
            // The table is at the beginning.
            Backing::Segment(segment) | Backing::SegmentPart { segment, offset: 0 } => {
                self.1.tables.lock().unwrap().push(Arc::clone(segment));
                true
            }
            _ => false,
        };
        let Export { keys, keep } = self.0.export(memory)?;
        Ok(Export { keys, keep: Box::new(LoggedExport(keep, table, self.1.clone())) })
    }
}

struct LoggedExport(#[allow(dead_code, reason = "kept")] Box<dyn Send + Sync>, bool, Log);

impl Drop for LoggedExport {
    fn drop(&mut self) {
        let valid = self.2.valid();
        let released = if self.1 { Released::Table { valid } } else { Released::Pages { valid } };
        self.2.released.lock().unwrap().push(released);
    }
}

const ORDERLY: [Released; 2] = [Released::Pages { valid: false }, Released::Table { valid: false }];

fn with_page(memory: &EngineMemory, log: &Log) -> Publisher {
    let publisher = publisher(&[pool(LATENT, &memory.foreign())], Logged(log.clone())).unwrap();
    let slots = publisher.pool(PoolId(0)).unwrap().foreign().unwrap();
    slots.overwrite(0, KeyTag(1)).unwrap().publish();
    assert!(log.valid() && log.take().is_empty());
    publisher
}

#[test]
fn entries_are_invalid_before_pages_are_released_and_the_table_goes_last() {
    let (memory, log) = (EngineMemory::of(2), Log::default());
    let publisher = with_page(&memory, &log);
    publisher.withdraw(PoolId(0), Instant::now()).unwrap();
    assert_eq!(log.take(), ORDERLY);
    drop(publisher);
    assert_eq!(log.take(), []);
}

#[test]
fn a_publisher_that_is_dropped_keeps_the_same_order() {
    let (memory, log) = (EngineMemory::of(2), Log::default());
    let publisher = with_page(&memory, &log);
    // A guard that is forgotten keeps nothing readable.
    std::mem::forget(publisher.pool(PoolId(0)).unwrap().foreign().unwrap().overwrite(1, KeyTag(1)));
    drop(publisher);
    assert_eq!(log.take(), ORDERLY);
}

#[test]
fn memory_of_two_pools_is_exported_once_and_released_after_both() {
    let (memory, log) = (EngineMemory::of(2), Log::default());
    let foreign = memory.foreign();
    let pools = [pool(LATENT, &foreign), pool(INDEX, &foreign)];
    let publisher = publisher(&pools, Logged(log.clone())).unwrap();
    publisher.withdraw(PoolId(0), Instant::now()).unwrap();
    assert_eq!(log.take(), [Released::Table { valid: false }]);
    publisher.withdraw(PoolId(1), Instant::now()).unwrap();
    assert_eq!(log.take(), ORDERLY);
}

#[test]
fn an_error_of_the_start_releases_what_was_exported_in_order() {
    let (memory, log) = (EngineMemory::of(2), Log::default());
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let listen = taken.local_addr().unwrap().into();
    let config = PublisherConfig::new("producer".parse().unwrap());
    let config = config.foreign_pool(pool(LATENT, &memory.foreign()));
    let error = Publisher::start_pools(config, &listen, key(), Logged(log.clone())).unwrap_err();
    assert_eq!((error.code(), log.take()), (4060, ORDERLY.to_vec()));
}

#[test]
fn every_piece_of_the_pages_is_released_before_the_table() {
    let log = Log::default();
    let eight_pages = 8 * u64::from(LATENT.page_bytes());
    let config = PublisherConfig::new("producer".parse().unwrap()).pool(LATENT, 20).piece_bytes(eight_pages);
    let listen = "127.0.0.1:0".parse().unwrap();
    let publisher = Publisher::start_pools(config, &listen, key(), Logged(log.clone())).unwrap();
    for slot in [0, 9, 19] {
        publisher.write(slot, KeyTag(1), |page| page.fill(1)).unwrap();
    }
    assert!(log.valid() && log.take().is_empty());
    publisher.withdraw(PoolId(0), Instant::now()).unwrap();
    let [pages, table] = ORDERLY;
    assert_eq!(log.take(), [pages, pages, pages, table]);
}

/// How far an export is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Gate {
    /// Every export is made at once.
    Open,
    /// The next one waits.
    Shut,
    /// One waits until the gate is open.
    Waits,
}

/// Shared memory, one of whose exports takes as long as the test wants.
#[derive(Clone)]
struct Gated(Arc<(Mutex<Gate>, Condvar)>);

impl Gated {
    fn set(&self, gate: Gate) {
        *self.0.0.lock().unwrap() = gate;
        self.0.1.notify_all();
    }

    fn wait_for(&self, gate: Gate) {
        let (now, limit) = (self.0.0.lock().unwrap(), Duration::from_secs(60));
        let (now, _) = self.0.1.wait_timeout_while(now, limit, |now| *now != gate).unwrap();
        assert_eq!(*now, gate);
    }
}

// SAFETY: memory goes to the exporter of shared memory, which makes the promise.
unsafe impl PublisherTransport for Gated {
    type Acceptor = OpenRails;

    fn start(self) -> Result<(OpenRails, Box<dyn Exporter>), TransportError> {
        let (acceptor, exporter) = shm::publish(1).start()?;
        Ok((acceptor, Box::new(GatedExporter(exporter, self))))
    }
}

struct GatedExporter(Box<dyn Exporter>, Gated);

impl Exporter for GatedExporter {
    fn export(&self, memory: ExportedMemory) -> Result<Export, TransportError> {
        if *self.1.0.0.lock().unwrap() == Gate::Shut {
            self.1.set(Gate::Waits);
            self.1.wait_for(Gate::Open);
        }
        self.0.export(memory)
    }
}

/// A terabyte takes minutes to register. Meanwhile another pool can be withdrawn, by its deadline.
#[test]
fn a_pool_is_withdrawn_while_another_one_is_being_registered() {
    let gate = Gated(Arc::new((Mutex::new(Gate::Open), Condvar::new())));
    let config = PublisherConfig::new("producer".parse().unwrap()).pool(LATENT, 2).pool(INDEX, 2);
    let listen = "127.0.0.1:0".parse().unwrap();
    let publisher = Publisher::start_pools(config, &listen, key(), gate.clone()).unwrap();
    gate.set(Gate::Shut);
    std::thread::scope(|scope| {
        let adding = scope.spawn(|| publisher.add_pool(LATENT, 2));
        gate.wait_for(Gate::Waits);
        let (sender, withdrawn) = channel();
        scope.spawn({
            let publisher = &publisher;
            move || sender.send(publisher.withdraw(PoolId(0), Instant::now()))
        });
        let result = withdrawn.recv_timeout(Duration::from_secs(30));
        assert_eq!(*gate.0.0.lock().unwrap(), Gate::Waits, "the other one is being registered");
        gate.set(Gate::Open);
        assert_eq!(result.ok(), Some(Ok(())), "it was not withdrawn meanwhile");
        assert_eq!(adding.join().unwrap().unwrap(), PoolId(2));
    });
    let left: Vec<_> = publisher.pools().map(|pool| pool.id()).collect();
    assert_eq!(left, [PoolId(1), PoolId(2)]);
}
