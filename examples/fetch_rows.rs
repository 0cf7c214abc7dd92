//! What a step of sparse attention fetches: 2,048 tokens' rows of 656 bytes out of 512 pages of a
//! peer, one behind the other in the reader's memory. Neighbours are read together, and each page
//! is validated once. One page is overwritten before its rows are read, and is a miss.
//!
//! ```text
//! cargo run --release --example fetch_rows
//! ```

use std::error::Error;
use std::time::Duration;

use kvrail::layouts::catalogue::VllmFp8DsMla;
use kvrail::{Config, KeyTag, PageError, PageLayout, PeerKey, Publisher, Reader, clock, memory, shm};

/// A page of one layer as FlashMLA's fp8 kernels read it: 64 tokens of 656 bytes.
const PAGE: PageLayout = PageLayout::of::<VllmFp8DsMla>();
const ROW: u32 = 656;
const TOKENS: u32 = PAGE.page_bytes() / ROW;
const PAGES: u32 = 512;
const WANTED: usize = 2048;
/// The rows of a page are the bits of one word.
const _: () = assert!(TOKENS == u64::BITS);
/// The page that is overwritten in the meantime.
const STALE: u32 = 77;
/// Pages of a batch. The rows of each batch are one slot, which is good only if all of its pages
/// are.
const TOGETHER: usize = 16;

/// Every byte of a token's row; those of neighbours differ.
fn byte(token: u32) -> u8 {
    (token % 251) as u8
}

/// The tokens that the indexer asks for, in rising order: some of them neighbours.
fn wanted() -> Vec<u32> {
    let mut tokens = Vec::new();
    let mut state = 7_u64;
    while tokens.len() < WANTED {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let token = (state >> 40) as u32 % (PAGES * TOKENS);
        // One in three brings its neighbour.
        tokens.extend(if state >> 61 < 3 { vec![token, token ^ 1] } else { vec![token] });
        tokens.sort_unstable();
        tokens.dedup();
        tokens.truncate(WANTED);
    }
    tokens
}

fn main() -> Result<(), Box<dyn Error>> {
    let key = PeerKey::from_passphrase("everybody who may read knows this")?;
    let listen = "127.0.0.1:0".parse()?;
    let publisher = Publisher::start("prefill".parse()?, PAGE, PAGES, &listen, key.clone(), shm::publish(2))?;
    let mut locations = Vec::new();
    for page in 0..PAGES {
        let fill = |bytes: &mut [u8]| {
            for (token, row) in (page * TOKENS..).zip(bytes.chunks_exact_mut(ROW as usize)) {
                row.fill(byte(token));
            }
        };
        locations.push(publisher.write(page, KeyTag(page.into()), fill)?);
    }

    let mut reader = Reader::start(PAGE, shm::rails(2)?, Config::default())?;
    let peer = reader.connect(&publisher.local_addr().into(), &key)?;
    let tokens = wanted();
    // A word for each page, of which a bit stands for a row.
    let mut rows = vec![0_u64; PAGES as usize];
    for token in &tokens {
        rows[(token / TOKENS) as usize] |= 1 << (token % TOKENS);
    }
    let of = |rows: &[u64]| rows.iter().map(|rows| rows.count_ones()).sum::<u32>();
    let slot_bytes = rows.chunks(TOGETHER).map(of).max().unwrap_or(0) * ROW;
    let batches = rows.len().div_ceil(TOGETHER);
    let mut slots = reader.register_bytes(memory::leaked(batches * slot_bytes as usize)?, slot_bytes)?;
    println!("{} rows of {ROW} bytes out of {PAGES} pages: {PAGE}", tokens.len());

    // The producer takes a slot for another page. The reader does not know of it.
    publisher.write(STALE, KeyTag(0xBEEF), |bytes| bytes.fill(0xFF))?;

    let deadline = clock::within(Duration::from_secs(10));
    let (mut right, mut missed, mut wrong) = (0, 0, 0);
    let mut tokens = tokens.iter();
    for (rows, locations) in rows.chunks(TOGETHER).zip(locations.chunks(TOGETHER)) {
        let mut batch = reader.batch().ok_or("all batches are in use")?;
        let slot = slots.next().ok_or("a slot for each batch")?;
        // Pages of which no row is asked for are not read.
        batch.read_rows_of(&peer.regions()[0], locations, ROW, rows, slot)?;
        reader.submit(batch, deadline)?;
        let mut done = loop {
            reader.poll();
            match reader.next_done() {
                Some(done) => break done,
                None => reader.wait(deadline),
            }
        };
        let tokens: Vec<&u32> = tokens.by_ref().take(of(rows) as usize).collect();
        for page in done.pages() {
            let rows = page.slot.bytes().ok_or("host memory")?.chunks_exact(ROW as usize);
            match page.result() {
                Ok(()) => {
                    for (token, row) in tokens.iter().zip(rows) {
                        let is_right = row.iter().all(|&found| found == byte(**token));
                        (right, wrong) = (right + u32::from(is_right), wrong + u32::from(!is_right));
                    }
                }
                Err(error @ PageError::Miss(_)) => {
                    missed += u32::try_from(tokens.len())?;
                    println!("a batch that holds rows of page {STALE}: {error}");
                }
                Err(error) => return Err(error.into()),
            }
        }
    }
    println!("{right} rows right, {missed} missed with their batch, {wrong} wrong");
    if wrong > 0 || missed == 0 || right + missed != WANTED as u32 {
        eprintln!("the rows of one batch are to be missed, and all others right");
        std::process::exit(1);
    }
    Ok(())
}
