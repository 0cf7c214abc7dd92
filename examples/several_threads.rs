//! How several threads of an inference engine feed one reader. Each thread fills batches, submits
//! them and receives their outcomes, while one thread polls. The first thread is told its pages one
//! by one, as they arrive, each with its slot; the others get whole batches.
//!
//! ```text
//! cargo run --example several_threads
//! ```

use std::error::Error;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use kvrail::core::batch::DonePage;
use kvrail::core::hub::Outcome;
use kvrail::core::memory::Slot;
use kvrail::shm::ShmRails;
use kvrail::{
    Bf16, Config, KeyTag, KvLayout, Location, PageLayout, Peer, PeerKey, Publisher, Storage, Submitter,
    clock, engine, memory, shm,
};

/// One layer of DeepSeek's MLA.
#[derive(KvLayout)]
#[kv(order(token), tokens = 64)]
struct Mla {
    latent: [Bf16; 512],
    rope: [Bf16; 64],
}
const MLA: PageLayout = PageLayout::of::<Mla>();

const THREADS: usize = 3;
const PAGES: usize = 4;

engine! {
    Reader { page: Mla, max_rails: 2, max_peers: 1, max_batch: 4, max_batches: 8, max_submitters: THREADS }
}
static STORAGE: Storage<Reader> = Storage::new();

type Failure = Box<dyn Error + Send + Sync>;

fn main() -> Result<(), Failure> {
    let key = PeerKey::from_passphrase("everybody who may read knows this")?;
    let (name, anywhere) = ("prefill".parse()?, "127.0.0.1:0".parse()?);
    let producer = Publisher::start(name, MLA, 12, &anywhere, key.clone(), shm::publish(2))?;
    let mut locations = Vec::new();
    for slot in 0..12 {
        locations.push(producer.write(slot, KeyTag(slot.into()), |bytes| bytes.fill(slot as u8))?);
    }

    let mut reader = Reader::start(STORAGE.take()?, shm::rails(2)?, Config::default())?;
    let slots = THREADS * PAGES * MLA.page_bytes() as usize;
    let mut slots: Vec<Slot> = reader.register(memory::leaked(slots)?)?.collect();
    let peer = reader.connect(&producer.local_addr().into(), &key)?;

    let running = AtomicUsize::new(THREADS);
    std::thread::scope(|scope| -> Result<(), Failure> {
        let mut threads = Vec::new();
        for (number, locations) in locations.chunks(PAGES).enumerate() {
            // A reader has at most `max_submitters` submitters.
            let submitter = reader.submitter().ok_or("all submitters have been given away")?;
            let (peer, slots) = (peer.clone(), slots.split_off(slots.len() - PAGES));
            let running = &running;
            threads.push(scope.spawn(move || {
                let good = feed(submitter, &peer, locations, slots, number == 0);
                running.fetch_sub(1, Ordering::Release);
                good
            }));
        }
        // The reader's own thread polls, and may submit batches of its own (`submit`, `next_done`).
        // Submitters wake it.
        while running.load(Ordering::Acquire) > 0 {
            reader.poll();
            reader.wait(clock::within(Duration::from_millis(10)));
        }
        for (number, thread) in threads.into_iter().enumerate() {
            let (good, early) = thread.join().map_err(|_| "a thread panicked")??;
            println!(
                "thread {number}: {good} pages, each the requested one, {early} before their batch was done"
            );
        }
        Ok(())
    })
}

/// The work of one thread: submits a batch, and waits for its outcome. Returns how many pages were
/// right, and how many of all came before their batch.
fn feed(
    mut submitter: Submitter<ShmRails>,
    peer: &Peer,
    locations: &[Location],
    slots: Vec<Slot>,
    page_by_page: bool,
) -> Result<(usize, usize), Failure> {
    let mut batch = submitter.batch().ok_or("all batches are in use")?;
    if page_by_page {
        batch.report_pages();
    }
    for (&location, slot) in locations.iter().zip(slots) {
        batch.read(peer.page(location)?, slot).map_err(|(error, _slot)| error)?;
    }
    // A batch that does not fit the mailbox comes back untouched, and so does one after the reader
    // was dropped.
    submitter.submit(batch, clock::within(Duration::from_secs(5))).map_err(|full| full.to_string())?;
    let right = |page: DonePage| -> Result<usize, Failure> {
        page.result()?;
        let bytes = page.slot.bytes().ok_or("host memory")?;
        Ok(usize::from(bytes.iter().all(|&byte| u32::from(byte) == locations[page.index].slot)))
    };
    let (mut good, mut early) = (0, 0);
    let mut done = loop {
        match submitter.next_outcome() {
            Some(Outcome::Done(done)) => break done,
            // A page of a batch that reports its pages. It and its slot are here, and not in the
            // batch any more: a thread of a real engine would begin to compute with it.
            Some(Outcome::Page(_ticket, _tag, page)) => {
                early += 1;
                good += right(page)?;
            }
            // The reader refused the batch: a peer has been removed, or the deadline has passed.
            Some(Outcome::Rejected(rejected)) => return Err(rejected.error.into()),
            // The reader has been dropped, and the slots of these batches with it.
            Some(Outcome::ReaderGone(batches)) => {
                return Err(format!("the reader is gone, with {batches} batches").into());
            }
            // The deadline has passed, and READs are still outstanding; `Done` follows.
            Some(Outcome::Overdue(..)) => {}
            // A slot of a dropped submitter; only the reader's own thread receives it.
            Some(Outcome::Orphan(slot)) => return Err(format!("{slot:?} of a dropped submitter").into()),
            // A thread of a real engine would do its other work here.
            None => std::thread::yield_now(),
        }
    };
    for page in done.pages() {
        good += right(page)?;
    }
    Ok((good, early))
}
