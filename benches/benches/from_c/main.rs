//! What the C interface adds to a page: this program reads over shared memory as `kvrail-bench
//! drive` does, `reader.c` beside it does the same from C, and `benches/count-from-c` counts the
//! instructions of both.
//!
//! Each is one process with a publisher in it. 32 pages are a batch, six batches are in flight, and
//! every page is validated.
//!
//! `cargo bench -p kvrail-bench --bench from_c -- count PAGE_BYTES BATCHES` reads so many batches,
//! page by page; `bulk` instead of `count` reads them into consecutive slots, by one call a batch.
#![allow(missing_docs, unreachable_pub, reason = "a benchmark, not a library")]

use std::collections::VecDeque;
use std::error::Error;
use std::time::Duration;

use kvrail::core::batch::{Batch, Done};
use kvrail::core::remote::{RemotePage, RemoteRegion};
use kvrail::layouts::{Declaration, ElementKind, FieldDecl, PlaneDecl};
use kvrail::shm::ShmRails;
use kvrail::{
    Config, KeyTag, Location, PageLayout, Peer, PeerKey, Publisher, Reader, Slot, SlotRange, Slots, clock,
    memory, shm,
};

const PAGES: u32 = 512;
const BATCH: usize = 32;
const IN_FLIGHT: usize = 6;

fn layout(bytes: u64) -> Result<PageLayout, Box<dyn Error>> {
    let fields = [FieldDecl::new("bytes", ElementKind::U8, bytes)];
    let declaration = Declaration { planes: &[PlaneDecl::of(&fields)], ..Declaration::EMPTY };
    Ok(PageLayout::of_geometry("opaque (synthetic)", &declaration.build()?, true)?)
}

/// How batches are filled, and what is done with their results.
trait Way {
    /// Fills a batch with the next pages. False if there are not slots enough.
    fn fill(&mut self, batch: &mut Batch<'static>) -> Result<bool, Box<dyn Error>>;
    /// Takes the results of a batch and its slots back. Returns how many pages arrived.
    fn take(&mut self, finished: Done<'static>) -> usize;
}

/// Page by page, as `kvrail-bench drive` does it.
struct Pages {
    pages: Vec<RemotePage>,
    next: usize,
    slots: VecDeque<Slot>,
}

impl Pages {
    fn new(peer: &Peer, locations: &[Location], slots: Slots) -> Result<Self, Box<dyn Error>> {
        let pages = locations.iter().map(|&location| peer.page(location));
        Ok(Self { pages: pages.collect::<Result<_, _>>()?, next: 0, slots: slots.collect() })
    }
}

impl Way for Pages {
    #[inline(always)]
    fn fill(&mut self, batch: &mut Batch<'static>) -> Result<bool, Box<dyn Error>> {
        if self.slots.len() < BATCH {
            return Ok(false);
        }
        for _ in 0..BATCH {
            let Some(slot) = self.slots.pop_front() else { break };
            let page = self.pages[self.next];
            self.next = if self.next + 1 == self.pages.len() { 0 } else { self.next + 1 };
            batch.read(page, slot).map_err(|(error, _)| error)?;
        }
        Ok(true)
    }

    #[inline(always)]
    fn take(&mut self, mut finished: Done<'static>) -> usize {
        let mut arrived = 0;
        for page in finished.pages() {
            arrived += usize::from(page.result.is_ok());
            self.slots.push_back(page.slot);
        }
        arrived
    }
}

/// By one call a batch, into consecutive slots.
struct Ranges {
    region: RemoteRegion,
    locations: Vec<Location>,
    next: usize,
    slots: VecDeque<SlotRange>,
}

impl Ranges {
    fn new(peer: &Peer, locations: Vec<Location>, mut slots: Slots) -> Self {
        let slots = std::iter::from_fn(|| slots.take_range(BATCH)).collect();
        Self { region: peer.pools()[0].regions()[0], locations, next: 0, slots }
    }
}

impl Way for Ranges {
    #[inline(always)]
    fn fill(&mut self, batch: &mut Batch<'static>) -> Result<bool, Box<dyn Error>> {
        let Some(slots) = self.slots.pop_front() else { return Ok(false) };
        batch.read_many(&self.region, &self.locations[self.next..self.next + BATCH], slots)?;
        self.next = if self.next + BATCH == self.locations.len() { 0 } else { self.next + BATCH };
        Ok(true)
    }

    #[inline(always)]
    fn take(&mut self, mut finished: Done<'static>) -> usize {
        let failed = finished.failed_bits(0).count_ones() as usize;
        while let Some(range) = finished.take_range() {
            self.slots.push_back(range.slots);
        }
        BATCH - failed
    }
}

/// Reads `batches` batches.
#[inline(always)]
fn drive(reader: &mut Reader<ShmRails>, way: &mut impl Way, batches: usize) -> Result<(), Box<dyn Error>> {
    let (mut submitted, mut done, mut arrived) = (0, 0, 0);
    while done < batches {
        while submitted < batches && reader.in_flight() < IN_FLIGHT {
            let Some(mut batch) = reader.batch() else { break };
            batch.set_tag(submitted as u64);
            if !way.fill(&mut batch)? {
                break;
            }
            let deadline = clock::within(Duration::from_secs(60));
            reader.submit(batch, deadline).map_err(|rejected| rejected.error)?;
            submitted += 1;
        }
        reader.poll();
        let mut any = false;
        while let Some(finished) = reader.next_done() {
            any = true;
            arrived += way.take(finished);
            done += 1;
        }
        if !any {
            reader.wait(clock::within(Duration::from_secs(1)));
        }
    }
    if arrived != batches * BATCH {
        return Err(format!("{arrived} of {} pages arrived", batches * BATCH).into());
    }
    Ok(())
}

fn count(page_bytes: u64, batches: usize, in_bulk: bool) -> Result<(), Box<dyn Error>> {
    let layout = layout(page_bytes)?;
    let key = PeerKey::from_hex(&"5a".repeat(32))?;
    let (name, listen) = ("producer".parse()?, "127.0.0.1:0".parse()?);
    let producer = Publisher::start(name, layout, PAGES, &listen, key.clone(), shm::publish(2))?;
    let mut locations = Vec::new();
    for slot in 0..PAGES {
        locations.push(producer.write(slot, KeyTag(slot.into()), |page| page.fill(slot as u8))?);
    }
    let mut reader = Reader::start(layout, shm::rails(2)?, Config::default())?;
    let bytes = BATCH * IN_FLIGHT * layout.page_bytes() as usize;
    let slots = reader.register(memory::leaked(bytes)?)?;
    let peer = reader.connect(&producer.local_addr().into(), &key)?;
    if in_bulk {
        drive(&mut reader, &mut Ranges::new(&peer, locations, slots), batches)
    } else {
        drive(&mut reader, &mut Pages::new(&peer, &locations, slots)?, batches)
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().collect();
    match arguments.get(1..).unwrap_or_default() {
        [word, bytes, batches] if word == "count" => count(bytes.parse()?, batches.parse()?, false),
        [word, bytes, batches] if word == "bulk" => count(bytes.parse()?, batches.parse()?, true),
        _ => {
            println!("from_c: run benches/count-from-c");
            Ok(())
        }
    }
}
