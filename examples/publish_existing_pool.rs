//! How an inference engine publishes the pool that it has: its own memory, where it is, without a
//! copy. A reader pulls pages out of it while the engine overwrites them. Every page that arrives
//! is compared byte by byte, and a page that is overwritten meanwhile is a miss.
//!
//! ```text
//! cargo run --release --example publish_existing_pool
//! ```
#![allow(unsafe_code, reason = "the engine writes memory that it has published")]

use std::error::Error;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use kvrail::core::provider::MemoryRange;
use kvrail::core::table::KeyTag;
use kvrail::layouts::catalogue::SglLlama3_8bPageFirstDirect;
use kvrail::session::PoolId;
use kvrail::shm::ShmRails;
use kvrail::{
    Config, ForeignMemory, ForeignPool, ForeignRegion, ForeignSlots, Location, PageError, PageLayout, Peer,
    PeerKey, Publisher, PublisherConfig, Reader, Slot, clock, memory, shm,
};

/// SGLang's host pool in `page_first_direct` order, Llama 3 8B: a K object and a V object, each
/// with 32 layers, 64 tokens, 8 heads of 128 bf16 of a page. Two regions, and one page.
const PAGE: PageLayout = PageLayout::of::<SglLlama3_8bPageFirstDirect>();
/// Bytes of a page in each of the two objects, and of one head's row there.
const OBJECT: usize = PAGE.page_bytes() as usize / 2;
const ROW: usize = 256;
const SLOTS: u32 = 6;
/// Pages that the reader asks for, a few at a time.
const READS: usize = 120;
const BATCH: usize = 4;

type Failure = Box<dyn Error + Send + Sync>;

/// The row with this number of the page of this name. Rows are pieces of a noise, so that a row of
/// another page or at another place is not taken for it.
fn row(noise: &[u8], page: KeyTag, number: usize) -> &[u8] {
    let hash = (page.0 as u64 ^ (number as u64) << 20).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    &noise[(hash >> 44) as usize..][..ROW]
}

/// 1 MiB of noise, and a row.
fn noise() -> Vec<u8> {
    let mut state = 1_u64;
    let byte = std::iter::repeat_with(|| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 56) as u8
    });
    byte.take((1 << 20) + ROW).collect()
}

/// The engine's pool: K and V objects, each an allocation of the engine's own.
struct Pool {
    objects: [*mut u8; 2],
}

// SAFETY: addresses, whose bytes one thread writes and the kernel alone reads.
unsafe impl Sync for Pool {}

impl Pool {
    fn allocate() -> Result<Self, Failure> {
        let object = || memory::leaked(SLOTS as usize * OBJECT).map(|bytes| bytes.as_mut_ptr());
        Ok(Self { objects: [object()?, object()?] })
    }

    /// The pool as a publisher takes it.
    fn publish(&self) -> ForeignPool {
        let mut pool = ForeignPool::new(PAGE);
        for object in self.objects {
            let range = MemoryRange {
                addr: object.expose_provenance() as u64,
                len: u64::from(SLOTS) * OBJECT as u64,
            };
            // SAFETY: the objects are never freed, and `compute` alone writes a page, while `run`
            // has the guard of its slot.
            pool = pool.region(ForeignRegion::new(&unsafe { ForeignMemory::host(range) }));
        }
        pool
    }

    /// Writes a page, in place of attention kernels. The caller has the guard of its slot.
    fn compute(&self, slot: u32, page: KeyTag, noise: &[u8]) {
        for (half, object) in self.objects.iter().enumerate() {
            let first = object.wrapping_add(slot as usize * OBJECT);
            for number in 0..OBJECT / ROW {
                let from = row(noise, page, half * (OBJECT / ROW) + number);
                let to = first.wrapping_add(number * ROW);
                // SAFETY: within the slot, of which no reference exists.
                unsafe { to.copy_from_nonoverlapping(from.as_ptr(), ROW) };
            }
        }
    }
}

/// The newest page of each slot. A real engine tells its readers by a router, or by a hand-over.
type Directory = Mutex<Vec<Location>>;

/// Overwrites one slot after another, in no order, until the reader has what it wants.
fn run(
    pool: &Pool,
    slots: &ForeignSlots<'_>,
    directory: &Directory,
    stop: &AtomicBool,
    noise: &[u8],
) -> Result<u128, Failure> {
    let mut pages = 0;
    while pages < SLOTS.into() || !stop.load(Ordering::Relaxed) {
        // Every slot once, and then those that a multiplication picks.
        let slot = if pages < SLOTS.into() { pages as u32 } else { (pages * 7_919 % 31) as u32 % SLOTS };
        let page = KeyTag(pages);
        // From here on every reader misses the slot's earlier page.
        let guard = slots.overwrite(slot, page)?;
        pool.compute(slot, page, noise);
        // This thread has written all bytes, so nothing has to be waited for.
        let location = guard.publish();
        let mut directory = directory.lock().map_err(|_| "the reader panicked")?;
        match directory.get_mut(slot as usize) {
            Some(newest) => *newest = location,
            None => directory.push(location),
        }
        pages += 1;
    }
    Ok(pages)
}

/// What became of the pages that were asked for.
#[derive(Default)]
struct Tally {
    right: usize,
    missed: usize,
    wrong: usize,
}

/// The reader: another node in earnest, another thread here.
struct Decode {
    reader: Reader<ShmRails>,
    peer: Peer,
    free: Vec<Slot>,
}

impl Decode {
    fn connect(publisher: &Publisher, key: &PeerKey) -> Result<Self, Failure> {
        let mut reader = Reader::start(PAGE, shm::rails(2)?, Config::default())?;
        // Slots of both regions. They may be in an engine's memory as well: `register_foreign_for`.
        let free = reader.register(memory::leaked(BATCH * PAGE.page_bytes() as usize)?)?.collect();
        let peer = reader.connect(&publisher.local_addr().into(), key)?;
        Ok(Self { reader, peer, free })
    }

    /// Reads some of the newest pages, and counts them.
    fn read(&mut self, locations: &[Location], tally: &mut Tally, noise: &[u8]) -> Result<(), Failure> {
        let pool = self.peer.pool_of(&PAGE)?;
        let mut batch = self.reader.batch().ok_or("all batches are in use")?;
        for &location in locations {
            let slot = self.free.pop().ok_or("all slots are in use")?;
            batch.read(pool.page(location)?, slot).map_err(|(error, _slot)| error)?;
        }
        let deadline = clock::within(Duration::from_secs(20));
        self.reader.submit(batch, deadline).map_err(|rejected| rejected.error)?;
        let mut done = loop {
            self.reader.poll();
            match self.reader.next_done() {
                Some(done) => break done,
                None => self.reader.wait(deadline),
            }
        };
        for page in done.pages() {
            match page.result() {
                Ok(()) => {
                    let expected = locations[page.index].expected.tag;
                    match self.is_right(&page.slot, expected, noise) {
                        true => tally.right += 1,
                        false => tally.wrong += 1,
                    }
                }
                Err(PageError::Miss(_)) => tally.missed += 1,
                Err(error) => return Err(error.into()),
            }
            self.free.push(page.slot);
        }
        Ok(())
    }

    /// Whether every byte of both regions is that of the page.
    fn is_right(&self, slot: &Slot, page: KeyTag, noise: &[u8]) -> bool {
        (0..2).all(|half| {
            let bytes = self.reader.slot_bytes(slot, half as u32).unwrap_or_default();
            let number = |at| half * (OBJECT / ROW) + at;
            bytes.len() == OBJECT
                && bytes.chunks(ROW).enumerate().all(|(at, found)| found == row(noise, page, number(at)))
        })
    }
}

fn main() -> Result<(), Failure> {
    let noise = noise();
    let pool = Pool::allocate()?;
    let key = PeerKey::from_passphrase("everybody who may read knows this")?;
    let config = PublisherConfig::new("engine".parse()?).foreign_pool(pool.publish());
    let publisher = Publisher::start_pools(config, &"127.0.0.1:0".parse()?, key.clone(), shm::publish(2))?;
    let published = publisher.pool(PoolId(0)).ok_or("no pool")?;
    println!("the engine's pool: {SLOTS} slots, each in {} objects, {PAGE}", PAGE.regions());
    let slots = published.foreign().ok_or("the pool is the publisher's own")?;
    let (directory, stop) = (Directory::default(), AtomicBool::new(false));
    let (tally, pages) = std::thread::scope(|scope| -> Result<_, Failure> {
        let engine = scope.spawn(|| run(&pool, &slots, &directory, &stop, &noise));
        let decode = || -> Result<Tally, Failure> {
            let mut decode = Decode::connect(&publisher, &key)?;
            let mut tally = Tally::default();
            let mut first = 0;
            while tally.right + tally.missed + tally.wrong < READS && !engine.is_finished() {
                let newest = directory.lock().map_err(|_| "the engine panicked")?.clone();
                let locations: Vec<_> = newest.iter().cycle().skip(first).take(BATCH).copied().collect();
                if newest.len() == SLOTS as usize {
                    decode.read(&locations, &mut tally, &noise)?;
                    first = (first + BATCH) % SLOTS as usize;
                } else {
                    std::thread::yield_now();
                }
            }
            Ok(tally)
        };
        let tally = decode();
        // Also after an error, or the engine would go on for ever.
        stop.store(true, Ordering::Relaxed);
        let pages = engine.join().map_err(|_| "the engine panicked")??;
        Ok((tally?, pages))
    })?;
    // The publisher goes first: until then the pool must stay where it is.
    drop(publisher);
    println!("the engine has written {pages} pages, and the reader has asked for {READS} of them:");
    println!("{} pages right, {} missed, {} wrong", tally.right, tally.missed, tally.wrong);
    if tally.wrong > 0 {
        std::process::exit(1);
    }
    Ok(())
}
