//! How to read a pool of layers into whole pages. A device pool keeps each layer of a page in a
//! place of its own; host storage needs a page in one piece, token by token. 61 small pages land in
//! one slot, transposed by the READs, without a copy.
//!
//! ```text
//! cargo run --release --example layer_pool_to_page
//! ```

use std::error::Error;
use std::time::Duration;

use kvrail::layouts::{AxisKind, Geometry, Plan, Selection, ViewMut};
use kvrail::{Bf16, KeyTag, KvLayout, PageLayout, PeerKey, Publisher, Reader, View, clock, memory, shm};

const LAYERS: u64 = 61;
const TOKENS: u64 = 64;
/// How many pages of all layers the pool has.
const BLOCKS: u32 = 4;

/// One layer of DeepSeek V3's cache, in the pool's layout: slot = layer · BLOCKS + block.
#[derive(KvLayout)]
#[kv(order(token), tokens = 64)]
struct OneLayer {
    latent: [Bf16; 512],
    rope: [Bf16; 64],
}

/// All layers, token by token: SGLang's `page_first`.
#[derive(KvLayout)]
#[kv(order(token, layer), layers = 61, tokens = 64)]
struct PageFirst {
    latent: [Bf16; 512],
    rope: [Bf16; 64],
}

/// All layers, layer by layer: SGLang's `page_first_direct`.
#[derive(KvLayout)]
#[kv(order(layer, token), layers = 61, tokens = 64)]
struct PageFirstDirect {
    latent: [Bf16; 512],
    rope: [Bf16; 64],
}

const ONE_LAYER: PageLayout = PageLayout::of::<OneLayer>();
const PAGE_FIRST: PageLayout = PageLayout::of::<PageFirst>();

fn value(block: u32, layer: u64, token: u64, field: usize) -> Bf16 {
    let n = ((u64::from(block) * LAYERS + layer) * TOKENS + token) * 2 + field as u64;
    Bf16::from_bits((n % 65_521) as u16)
}

/// The plan of one layer into a page of all.
fn plan_of(layer: u64, page: &Geometry) -> Result<Plan, Box<dyn Error>> {
    Ok(Plan::between_blocks(OneLayer::GEOMETRY, page, &[(AxisKind::Layer, layer)], Selection::ALL)?)
}

/// Writes one layer of a block.
fn fill(bytes: &mut [u8], block: u32, layer: u64) -> Result<(), Box<dyn Error>> {
    let mut view = ViewMut::<OneLayer>::new(bytes, OneLayer::FINGERPRINT)?;
    for token in 0..TOKENS {
        for field in 0..2 {
            view.run_mut::<Bf16>(field, &[token])?.fill(value(block, layer, token, field));
        }
    }
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    let key = PeerKey::from_passphrase("everybody who may read knows this")?;
    let node = "pool".parse()?;
    let slots = LAYERS as u32 * BLOCKS;
    let pool =
        Publisher::start(node, ONE_LAYER, slots, &"127.0.0.1:0".parse()?, key.clone(), shm::publish(2))?;
    let mut locations = Vec::new();
    for slot in 0..slots {
        let (layer, block) = (u64::from(slot / BLOCKS), slot % BLOCKS);
        let mut filled = Ok(());
        let tag = KeyTag(block.into());
        let location = pool.write(slot, tag, |bytes| filled = fill(bytes, block, layer));
        filled?;
        locations.push(location?);
    }
    println!("the pool: {LAYERS} layers of {BLOCKS} blocks, {ONE_LAYER}");
    println!("into page_first_direct, a layer is {}", plan_of(7, PageFirstDirect::GEOMETRY)?);
    println!("into page_first,        a layer is {}", plan_of(7, PageFirst::GEOMETRY)?);

    let mut reader = Reader::start(ONE_LAYER, shm::rails(2)?, kvrail::Config::default())?;
    let mut plans = Vec::new();
    for layer in 0..LAYERS {
        plans.push(reader.add_plan(&plan_of(layer, PageFirst::GEOMETRY)?)?);
    }
    let wrs: u32 = plans.iter().map(|plan| plan.wrs()).sum();
    println!("the page: {PAGE_FIRST}, {wrs} READs over these rails");

    let slots = reader
        .register_for(&PAGE_FIRST, memory::leaked(BLOCKS as usize * PAGE_FIRST.page_bytes() as usize)?)?;
    let peer = reader.connect(&pool.local_addr().into(), &key)?;
    let mut batch = reader.batch().ok_or("all batches are in use")?;
    for (block, slot) in (0..BLOCKS).zip(slots) {
        let location = |layer: u32| locations[(layer * BLOCKS + block) as usize];
        // The first page has the slot, and the others land in the same slot.
        batch.read_with(peer.page(location(0))?, slot, plans[0]).map_err(|(error, _slot)| error)?;
        for (layer, plan) in (1..).zip(&plans[1..]) {
            batch.read_also_with(peer.page(location(layer))?, *plan)?;
        }
    }
    let start = clock::now();
    let deadline = clock::within(Duration::from_secs(5));
    reader.submit(batch, deadline)?;
    let mut done = loop {
        reader.poll();
        match reader.next_done() {
            Some(done) => break done,
            None => reader.wait(deadline),
        }
    };
    let micros = clock::now().since(start).0 / 1_000;
    println!("{} pages of one layer in {BLOCKS} slots, in {micros} us:", done.len());
    for (block, page) in (0..BLOCKS).zip(done.pages()) {
        page.result()?;
        let view = View::<PageFirst>::new(page.slot.bytes().ok_or("host memory")?, PageFirst::FINGERPRINT)?;
        for n in 0..LAYERS * TOKENS {
            let (layer, token) = (n / TOKENS, n % TOKENS);
            for field in 0..2 {
                let run: &[Bf16] = view.run(field, &[layer, token])?;
                if run.iter().any(|found| *found != value(block, layer, token, field)) {
                    return Err(format!("block {block}, layer {layer}, token {token} is wrong").into());
                }
            }
        }
        println!("  slot {}: all {} rows are in their places", page.slot.index(), LAYERS * TOKENS);
    }
    Ok(())
}
