//! Small programs. Each runs with one command in the workspace's root:
//!
//! - `cargo run --example read_pages`: declare a page, publish some, read them over two rails.
//! - `cargo run --example declare_a_page`: declare pages of every kind; see where bytes are.
//! - `cargo run --example several_threads`: several threads feed one reader.
//! - `cargo run --release --example reshard_heads`: read one rank's half of the heads of a page.
//! - `cargo run --release --example layer_pool_to_page`: read a pool of layers into one page.
//! - `cargo run --example custom_provider`: read a page through a provider of your own.

use std::error::Error;
use std::time::Instant;

use kvrail::core::config::EngineConfig;
use kvrail::core::engine::{Engine, LaneSpec};
use kvrail::core::id::{MAX_RAILS, RailIndex};
use kvrail::core::provider::Provider;
use kvrail::core::remote::RegionOffer;
use kvrail::core::storage::EngineStorage;
use kvrail::core::time::{Nanos, Time};

/// Bytes of each page that [`read_page`] reads.
pub const PAGE: usize = 4_096;

/// Starts an engine over any provider, attaches a lane to a peer with four pages, and reads page
/// `number`. The first byte of the pages has the address `base`, and their key is 1.
///
/// # Errors
/// The engine's error.
pub fn read_page<P: Provider>(
    provider: P,
    unopened: P::Unopened,
    base: u64,
    number: u32,
) -> Result<Vec<u8>, Box<dyn Error>>
where
    P::OpenError: 'static,
    P::Lane: 'static,
{
    let start = Instant::now();
    let now = || Time(start.elapsed().as_nanos() as u64);
    let storage = Box::leak(Box::new(EngineStorage::<1, 1, 1, 16, 1, 1>::new()));
    let mut engine = Engine::start(storage, provider, EngineConfig::DEFAULT)?;
    let mut slots = engine.register(vec![0; PAGE].leak(), PAGE as u64)?;
    let peer = engine.add_peer()?;
    let (bytes, keys) = (PAGE as u64, [1; MAX_RAILS]);
    let offer = RegionOffer { base, page_bytes: bytes, stride: bytes, slots: 4, keys, table: None };
    let region = engine.add_region(peer, &offer)?;
    let spec = LaneSpec { rail: RailIndex(0), remote_rail: 0, depth: 16 };
    engine.attach(peer, spec, unopened, now())?;

    let mut batch = engine.batch().ok_or("the engine's one batch is in use")?;
    // This peer overwrites no page, so it needs no publication table, and its pages need no
    // validation.
    let page = region.unvalidated(number)?;
    batch.read(page, slots.next().ok_or("no slot")?).map_err(|(error, _slot)| error)?;
    let deadline = now() + Nanos::from_secs(5);
    engine.submit(batch, now(), deadline).map_err(|rejected| rejected.error)?;
    let mut done = loop {
        engine.poll(now());
        match engine.next_done() {
            Some(done) => break done,
            None => engine.wait(now(), deadline),
        }
    };
    let page = done.pages().next().ok_or("a batch of one page came back without it")?;
    page.result()?;
    Ok(page.slot.bytes().ok_or("the slot is no host memory")?.to_vec())
}
