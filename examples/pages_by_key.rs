//! Pages by key: a prefill node puts pages, a decode node gets them. The prefill node keeps the
//! directory in its memory, so no other process takes part.
//!
//! ```text
//! cargo run --example pages_by_key
//! ```

use std::error::Error;
use std::time::{Duration, Instant};

use kvrail::session::TagSecret;
use kvrail::{Bf16, KvLayout, PageLayout, PeerKey, memory, shm};
use kvrail_node::{GetBatch, GetMiss, KeySpace, Namespace, Node, NodeConfig};

/// One layer of DeepSeek's MLA.
#[derive(KvLayout)]
#[kv(order(token), tokens = 64)]
struct Mla {
    latent: [Bf16; 512],
    rope: [Bf16; 64],
}
const MLA: PageLayout = PageLayout::of::<Mla>();

const PAGES: usize = 16;

fn main() -> Result<(), Box<dyn Error>> {
    let key = PeerKey::from_passphrase("all nodes of the group know this")?;
    // Keys of two models, layouts or ranks never meet, and a host without the secret cannot choose
    // keys that do.
    let secret = TagSecret::from_bytes([0x5A; 32]);
    let model = Namespace {
        model: "DeepSeek-V3.1 revision 7".into(),
        layout: MLA.fingerprint(),
        shape: "tp 1 of 1".into(),
    };
    let space = KeySpace::new(&secret, &model)?;

    let config = NodeConfig::new("prefill".parse()?, key.clone()).pool(MLA, PAGES as u32).embedded(vec![]);
    let prefill = Node::start(config, shm::publish(1), || shm::rails(1))?;
    let directory = prefill.address().ok_or("a node with a pool has an address")?;
    let config = NodeConfig::new("decode".parse()?, key).layout(MLA).embedded(vec![directory]);
    let decode = Node::start(config, shm::publish(1), || shm::rails(1))?;

    // An engine's own keys: here the hashes of the blocks of a prompt.
    let keys: Vec<_> =
        (0..PAGES).map(|block| space.key(format!("block {block}").as_bytes())).collect::<Result<_, _>>()?;
    let page = |number: usize| vec![number as u8 + 1; MLA.page_bytes() as usize];
    for (number, &key) in keys.iter().enumerate() {
        _ = prefill.put(&MLA, key, &page(number))?;
    }
    // One page is taken back, and another one gets other bytes.
    prefill.remove(keys[3]);
    _ = prefill.pools().next().ok_or("the pool")?.replace(keys[5], &page(200))?;
    let enough = || Instant::now() + Duration::from_secs(5);
    // None of these calls waits for the directory. This waits until the directory knows all of it:
    // a page whose record is older is a miss until then.
    prefill.announcer().ok_or("a node with a directory announces")?.flush(enough())?;

    let destinations = decode.register(&MLA, memory::leaked(PAGES * MLA.page_bytes() as usize)?)?;
    let mut batch = GetBatch::with_capacity(PAGES);
    for &key in &keys {
        batch.read(key, destinations.take_any().ok_or("a destination for each page")?);
    }
    decode.get(&mut batch, enough());

    let (mut right, mut missed, mut wrong) = (0, 0, 0);
    for got in batch.take_pages() {
        let number = if got.index == 5 { 200 } else { got.index };
        let bytes = got.destination.as_ref().and_then(|to| to.bytes(0));
        match got.result {
            Ok(_) if bytes == Some(&page(number)[..]) => right += 1,
            Ok(_) => wrong += 1,
            Err(GetMiss::NoOwner | GetMiss::Stale(_)) if got.index == 3 => missed += 1,
            Err(miss) => return Err(format!("page {}: {miss}", got.index).into()),
        }
    }
    println!(
        "{right} pages of {PAGES} by their keys, {missed} a miss since it was taken back, {wrong} wrong"
    );
    if (right, missed, wrong) == (PAGES - 1, 1, 0) {
        Ok(())
    } else {
        Err("15 pages and a miss were expected".into())
    }
}
