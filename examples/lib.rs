//! Small programs. Each runs with one command in the workspace's root:
//!
//! - `cargo run --example read_pages`: declare a page, publish some, read them over two rails.
//! - `cargo run --example declare_a_page`: declare pages of every kind; see where bytes are.
//! - `cargo run --example several_threads`: several threads feed one reader.
//! - `cargo run --example epoll`: drive a reader from an event loop of your own.
//! - `cargo run --release --example reshard_heads`: read one rank's half of the heads of a page.
//! - `cargo run --release --example layer_pool_to_page`: read a pool of layers into one page.
//! - `cargo run --release --example pipeline_stages`: fill one page from a pipeline's four stages.
//! - `cargo run --release --example publish_existing_pool`: publish an engine's own pool.
//! - `cargo run --example pages_by_key`: put pages by key on one node, get them on another.
//! - `cargo run --example hand_over`: read a request's pages layer by layer while it is computed.
//! - `cargo run --example custom_provider`: read a page through a provider of your own.

use std::error::Error;
use std::sync::Arc;
use std::time::Instant;

use kvrail::core::config::EngineConfig;
use kvrail::core::engine::{Engine, LaneSpec};
use kvrail::core::id::{MAX_RAILS, RailIndex};
use kvrail::core::provider::Provider;
use kvrail::core::remote::RegionOffer;
use kvrail::core::storage::EngineStorage;
use kvrail::core::time::{Nanos, Time};

const PAGE: usize = 4_096;

/// Starts an engine over any provider, attaches a lane to a peer with four pages of 4,096 bytes,
/// reads page 2, and compares it with the peer's. `connect` makes the lane from the peer's memory,
/// whose first byte has the address `base` and whose key is 1.
///
/// # Errors
///
/// The engine's error, or the page that came differs.
pub fn read_page<P: Provider>(
    provider: P,
    connect: impl FnOnce(Arc<[u8]>) -> P::Unopened,
    base: u64,
) -> Result<(), Box<dyn Error>>
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
    let theirs: Arc<[u8]> = (0..4 * PAGE).map(|i| (i / 16) as u8).collect();
    engine.attach(peer, spec, connect(theirs.clone()), now())?;

    let mut batch = engine.batch().ok_or("the engine's one batch is in use")?;
    // This peer overwrites no page, so it needs no publication table, and its pages need no
    // validation.
    let page = region.unvalidated(2)?;
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
    let bytes = page.slot.bytes().ok_or("the slot is no host memory")?;
    if *bytes != theirs[2 * PAGE..3 * PAGE] {
        return Err("the page that came is not the page that the peer has".into());
    }
    println!("page 2, read through this provider: {} bytes, equal to the peer's", bytes.len());
    Ok(())
}
