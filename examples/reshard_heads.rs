//! How to read pages of one rank into pages of two. Prefill runs on one GPU, decode on two: each
//! decode rank pulls its half of the heads out of whole pages, directly into its own layout.
//!
//! ```text
//! cargo run --release --example reshard_heads
//! ```

use std::error::Error;
use std::time::Duration;

use kvrail::layouts::{AxisKind, Placed, Plan, Selection, ViewMut};
use kvrail::{Bf16, KeyTag, KvLayout, PageLayout, PeerKey, Publisher, Reader, View, clock, memory, shm};

const LAYERS: u64 = 32;
const TOKENS: u64 = 16;
const HEADS: u64 = 8;

/// A page of Llama 3 8B in the layout of prefill: all 8 heads, token by token.
#[derive(KvLayout)]
#[kv(
    order(planes, layer, token, head),
    layers = 32,
    tokens = 16,
    heads = 8,
    sharded(head, ranks = 1, rank = 0)
)]
struct Whole {
    k: [Bf16; 128],
    #[kv(plane)]
    v: [Bf16; 128],
}

/// The same page in the layout of two decode ranks. Which of the two a rank is, is known at run
/// time.
#[derive(KvLayout)]
#[kv(order(planes, layer, token, head), layers = 32, tokens = 16, heads = 4, sharded(head, ranks = 2))]
struct Half {
    k: [Bf16; 128],
    #[kv(plane)]
    v: [Bf16; 128],
}

const WHOLE: PageLayout = PageLayout::of::<Whole>();

/// The value of the cache at these indices; neighbouring values differ.
fn value(field: usize, page: u64, layer: u64, token: u64, head: u64) -> Bf16 {
    let n = (((page * LAYERS + layer) * TOKENS + token) * HEADS + head) * 2 + field as u64;
    Bf16::from_bits((n % 65_521) as u16)
}

/// Writes a page, in place of the computation of prefill.
fn fill(bytes: &mut [u8], page: u64) -> Result<(), Box<dyn Error>> {
    let mut view = ViewMut::<Whole>::new(bytes, Whole::FINGERPRINT)?;
    for (layer, token, head) in indices(HEADS) {
        for field in 0..2 {
            let run: &mut [Bf16] = view.run_mut(field, &[layer, token, head])?;
            run.fill(value(field, page, layer, token, head));
        }
    }
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    let key = PeerKey::from_passphrase("everybody who may read knows this")?;
    let prefill = Publisher::start(
        "prefill".parse()?,
        WHOLE,
        8,
        &"127.0.0.1:0".parse()?,
        key.clone(),
        shm::publish(2),
    )?;
    let mut locations = Vec::new();
    for page in 0..8 {
        let mut filled = Ok(());
        let location = prefill.write(page, KeyTag(page.into()), |bytes| filled = fill(bytes, page.into()));
        filled?;
        locations.push(location?);
    }
    println!("prefill, 1 rank: {WHOLE}, heads 0..8");

    for rank in 0..2 {
        let mine = Placed::<Half>::new(|page| page)?.at_rank(AxisKind::Head, rank)?;
        let half = PageLayout::placed(&mine)?;
        let plan = Plan::between(Whole::GEOMETRY, mine.geometry(), Selection::ALL)?;
        let mut reader = Reader::start(WHOLE, shm::rails(2)?, kvrail::Config::default())?;
        let by = reader.add_plan(&plan)?;
        let first = u64::from(rank) * 4;
        println!("decode, rank {rank} of 2: {half}, heads {first}..{}", first + 4);
        println!("  a page is {plan}: {} READs over these rails", by.wrs());

        let slots = reader.register_for(&half, memory::leaked(8 * half.page_bytes() as usize)?)?;
        let peer = reader.connect(&prefill.local_addr().into(), &key)?;
        let mut batch = reader.batch().ok_or("all batches are in use")?;
        for (&location, slot) in locations.iter().zip(slots) {
            batch.read_with(peer.page(location)?, slot, by).map_err(|(error, _slot)| error)?;
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
        let mut checked = 0;
        for page in done.pages() {
            page.result()?;
            let bytes = [page.slot.bytes().ok_or("host memory")?];
            let view = View::of_placed(&bytes, &mine, half.fingerprint())?;
            for (layer, token, head) in indices(HEADS / 2) {
                for field in 0..2 {
                    let run: &[Bf16] = view.run(field, &[layer, token, head])?;
                    let want = value(field, page.index as u64, layer, token, first + head);
                    if run.iter().any(|found| *found != want) {
                        return Err(format!(
                            "page {}, layer {layer}, token {token}, head {head} is wrong",
                            page.index
                        )
                        .into());
                    }
                    checked += run.len();
                }
            }
        }
        println!(
            "  8 pages in {micros} us; all of {checked} compared elements are those of their layer, token and head"
        );
    }
    Ok(())
}

/// The indices (layer, token, head) of a page with `heads` heads.
fn indices(heads: u64) -> impl Iterator<Item = (u64, u64, u64)> {
    (0..LAYERS * TOKENS * heads).map(move |n| (n / heads / TOKENS, n / heads % TOKENS, n % heads))
}
