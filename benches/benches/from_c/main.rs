//! What the C interface adds to a page: this program reads over shared memory as `kvrail-bench
//! drive` does, `reader.c` beside it does the same from C, and `benches/count-from-c` counts the
//! instructions of both.
//!
//! Each is one process with a publisher in it. 32 pages are a batch, six batches are in flight, and
//! every page is validated.
//!
//! `cargo bench -p kvrail-bench --bench from_c -- count PAGE_BYTES BATCHES` reads so many batches.
#![allow(missing_docs, unreachable_pub, reason = "a benchmark, not a library")]

use std::collections::VecDeque;
use std::error::Error;
use std::time::Duration;

use kvrail::core::remote::RemotePage;
use kvrail::layouts::{Declaration, ElementKind, FieldDecl, PlaneDecl};
use kvrail::{Config, KeyTag, PageLayout, PeerKey, Publisher, Reader, Slot, clock, memory, shm};

const PAGES: u32 = 512;
const BATCH: usize = 32;
const IN_FLIGHT: usize = 6;

fn layout(bytes: u64) -> Result<PageLayout, Box<dyn Error>> {
    let fields = [FieldDecl::new("bytes", ElementKind::U8, bytes)];
    let declaration = Declaration { planes: &[PlaneDecl::of(&fields)], ..Declaration::EMPTY };
    Ok(PageLayout::of_geometry("opaque (synthetic)", &declaration.build()?, true)?)
}

fn count(page_bytes: u64, batches: usize) -> Result<(), Box<dyn Error>> {
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
    let mut slots: VecDeque<Slot> = reader.register(memory::leaked(bytes)?)?.collect();
    let peer = reader.connect(&producer.local_addr().into(), &key)?;
    let pages = locations.iter().map(|&location| peer.page(location));
    let pages: Vec<RemotePage> = pages.collect::<Result<_, _>>()?;

    let (mut next, mut submitted, mut done, mut arrived) = (0, 0, 0, 0);
    while done < batches {
        while submitted < batches && reader.in_flight() < IN_FLIGHT && slots.len() >= BATCH {
            let Some(mut batch) = reader.batch() else { break };
            batch.set_tag(submitted as u64);
            for _ in 0..BATCH {
                let Some(slot) = slots.pop_front() else { break };
                let page = pages[next];
                next = if next + 1 == pages.len() { 0 } else { next + 1 };
                batch.read(page, slot).map_err(|(error, _)| error)?;
            }
            let deadline = clock::within(Duration::from_secs(60));
            reader.submit(batch, deadline).map_err(|rejected| rejected.error)?;
            submitted += 1;
        }
        reader.poll();
        let mut any = false;
        while let Some(mut finished) = reader.next_done() {
            any = true;
            for page in finished.pages() {
                arrived += u64::from(page.result.is_ok());
                slots.push_back(page.slot);
            }
            done += 1;
        }
        if !any {
            reader.wait(clock::within(Duration::from_secs(1)));
        }
    }
    if arrived != (batches * BATCH) as u64 {
        return Err(format!("{arrived} of {} pages arrived", batches * BATCH).into());
    }
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().collect();
    match arguments.get(1..).unwrap_or_default() {
        [word, bytes, batches] if word == "count" => count(bytes.parse()?, batches.parse()?),
        _ => {
            println!("from_c: run benches/count-from-c");
            Ok(())
        }
    }
}
