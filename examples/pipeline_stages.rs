//! How one slot is filled from the four stages of a pipeline. Each stage holds some of 61 layers,
//! one more on the first stage than on the others, with a region for each layer. The reader pulls
//! all of them into one object. The slot is good only if every part is: one part that has been
//! overwritten makes the whole page a miss.
//!
//! ```text
//! cargo run --release --example pipeline_stages
//! ```

use std::error::Error;
use std::time::Duration;

use kvrail::core::plan::PlanRef;
use kvrail::layouts::{Plan, Selection, ViewMut};
use kvrail::{
    Bf16, Config, KeyTag, KvLayout, Location, PageError, PageLayout, Peer, PeerKey, Publisher, Reader, View,
    clock, memory, shm,
};

const LAYERS: u64 = 61;
const TOKENS: u64 = 64;
const PAGES: u32 = 4;
/// The page of which one stage overwrites its part.
const STALE: u32 = 2;

/// Some layers of DeepSeek V3's cache, from `FIRST` on: a region for each layer, as in a device's
/// pool.
#[derive(KvLayout)]
#[kv(order(regions(layer), token), layers = COUNT, tokens = 64, stage(layer, first = FIRST, of = 61))]
struct Stage<const FIRST: usize, const COUNT: usize> {
    latent: [Bf16; 512],
    rope: [Bf16; 64],
}

/// All layers in one object: SGLang's `page_first_direct`.
#[derive(KvLayout)]
#[kv(order(layer, token), layers = 61, tokens = 64)]
struct Whole {
    latent: [Bf16; 512],
    rope: [Bf16; 64],
}
const WHOLE: PageLayout = PageLayout::of::<Whole>();

/// The value of the cache at these indices; neighbouring values differ.
fn value(page: u32, layer: u64, token: u64, field: usize) -> Bf16 {
    let n = ((u64::from(page) * LAYERS + layer) * TOKENS + token) * 2 + field as u64;
    Bf16::from_bits((n % 65_521) as u16)
}

/// A stage's node: its layers of every page.
struct Node {
    publisher: Publisher,
    layout: PageLayout,
    /// What brings its layers where they belong in a whole page.
    plan: Plan,
    locations: Vec<Location>,
}

impl Node {
    fn start<const FIRST: usize, const COUNT: usize>(key: &PeerKey) -> Result<Self, Box<dyn Error>> {
        let layout = PageLayout::of::<Stage<FIRST, COUNT>>();
        let (name, listen) = (format!("stage-{FIRST}").parse()?, "127.0.0.1:0".parse()?);
        let publisher = Publisher::start(name, layout, PAGES, &listen, key.clone(), shm::publish(1))?;
        let mut locations = Vec::new();
        for page in 0..PAGES {
            let mut filled = Ok(());
            let fill = |bytes: &mut [u8]| filled = fill::<FIRST, COUNT>(bytes, page);
            let location = publisher.write(page, KeyTag(page.into()), fill);
            filled?;
            locations.push(location?);
        }
        let plan = Plan::between(Stage::<FIRST, COUNT>::GEOMETRY, Whole::GEOMETRY, Selection::ALL)?;
        println!("stage of layers {FIRST}..{}: {layout}; a part is {plan}", FIRST + COUNT);
        Ok(Self { publisher, layout, plan, locations })
    }
}

/// Writes a stage's part of a page. The regions lie one behind the other in a publisher's own
/// memory.
fn fill<const FIRST: usize, const COUNT: usize>(bytes: &mut [u8], page: u32) -> Result<(), Box<dyn Error>> {
    let layer_bytes = bytes.len() / COUNT;
    let mut regions: Vec<&mut [u8]> = bytes.chunks_mut(layer_bytes).collect();
    let print = Stage::<FIRST, COUNT>::FINGERPRINT;
    let mut view = ViewMut::<Stage<FIRST, COUNT>>::of_regions(&mut regions, print)?;
    for n in 0..COUNT as u64 * TOKENS {
        let (layer, token) = (n / TOKENS, n % TOKENS);
        for field in 0..2 {
            view.run_mut::<Bf16>(field, &[layer, token])?.fill(value(
                page,
                FIRST as u64 + layer,
                token,
                field,
            ));
        }
    }
    Ok(())
}

/// Whether every element of a page is that of its layer and token.
fn is_right(bytes: &[u8], page: u32) -> Result<bool, Box<dyn Error>> {
    let view = View::<Whole>::new(bytes, Whole::FINGERPRINT)?;
    for n in 0..LAYERS * TOKENS {
        let (layer, token) = (n / TOKENS, n % TOKENS);
        for field in 0..2 {
            let expected = value(page, layer, token, field);
            if view.run::<Bf16>(field, &[layer, token])?.iter().any(|found| *found != expected) {
                return Ok(false);
            }
        }
    }
    Ok(true)
}

fn main() -> Result<(), Box<dyn Error>> {
    let key = PeerKey::from_passphrase("everybody who may read knows this")?;
    let stages = [
        Node::start::<0, 16>(&key)?,
        Node::start::<16, 15>(&key)?,
        Node::start::<31, 15>(&key)?,
        Node::start::<46, 15>(&key)?,
    ];

    // The reader's slots are whole pages. It connects to each stage as what that stage publishes.
    let mut reader = Reader::start(WHOLE, shm::rails(2)?, Config::default())?;
    let mut slots = reader.register(memory::leaked(PAGES as usize * WHOLE.page_bytes() as usize)?)?;
    let mut parts: Vec<(Peer, PlanRef)> = Vec::new();
    for stage in &stages {
        let peer = reader.connect_to(&stage.publisher.local_addr().into(), &key, &stage.layout)?;
        parts.push((peer, reader.add_plan(&stage.plan)?));
    }
    println!("the page: {WHOLE}, from {} peers", parts.len());

    // One stage takes the slot of its part for another page. The reader does not know of it.
    stages[3].publisher.write(STALE, KeyTag(0xBEEF), |bytes| bytes.fill(0xFF))?;

    let mut batch = reader.batch().ok_or("all batches are in use")?;
    for page in 0..PAGES as usize {
        let slot = slots.next().ok_or("all slots are in use")?;
        let location = |stage: usize| stages[stage].locations[page];
        let (peer, plan) = &parts[0];
        // The first part has the slot, and the others land in the same slot.
        batch.read_with(peer.page(location(0))?, slot, *plan).map_err(|(error, _slot)| error)?;
        for (stage, (peer, plan)) in parts.iter().enumerate().skip(1) {
            batch.read_also_with(peer.page(location(stage))?, *plan)?;
        }
    }
    let deadline = clock::within(Duration::from_secs(10));
    reader.submit(batch, deadline)?;
    let mut done = loop {
        reader.poll();
        match reader.next_done() {
            Some(done) => break done,
            None => reader.wait(deadline),
        }
    };
    let (mut right, mut missed, mut wrong) = (0, 0, 0);
    // A slot comes back once, with the result of all of its parts.
    for (number, page) in (0..PAGES).zip(done.pages()) {
        match page.result() {
            Ok(()) if is_right(page.slot.bytes().ok_or("host memory")?, number)? => right += 1,
            Ok(()) => wrong += 1,
            Err(error @ PageError::Miss(_)) => {
                missed += 1;
                println!("page {number}: {error}");
            }
            Err(error) => return Err(error.into()),
        }
    }
    println!("{right} pages right, {missed} missed, {wrong} wrong");
    if (right, missed, wrong) != (PAGES - 1, 1, 0) {
        eprintln!("page {STALE} alone is to be a miss");
        std::process::exit(1);
    }
    Ok(())
}
