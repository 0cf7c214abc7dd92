//! How to declare a page, publish some pages, and read them out of the producer's memory over two
//! rails.
//!
//! ```text
//! cargo run --example read_pages
//! ```

use std::error::Error;
use std::time::Duration;

use kvrail::layouts::ViewMut;
use kvrail::{
    Bf16, Config, KeyTag, KvLayout, PageLayout, PeerKey, Publisher, Reader, View, clock, memory, shm,
};

/// 64 tokens of DeepSeek's MLA, all 61 layers: 4.5 MB, layer by layer.
#[derive(KvLayout)]
#[kv(order(layer, token), layers = 61, tokens = 64)]
struct Mla {
    latent: [Bf16; 512],
    rope: [Bf16; 64],
}
const MLA: PageLayout = PageLayout::of::<Mla>();

fn main() -> Result<(), Box<dyn Error>> {
    // The producer is a prefill node, usually another process. Both sides have the key.
    let key = PeerKey::from_passphrase("correct horse battery staple")?;
    let (name, anywhere) = ("prefill-0".parse()?, "127.0.0.1:0".parse()?);
    let producer = Publisher::start(name, MLA, 8, &anywhere, key.clone(), shm::publish(2))?;
    let mut locations = Vec::new();
    for slot in 0..8 {
        // The tag is a digest of the page's key; a reader that looks for the page computes the same
        // digest.
        let tag = KeyTag(0xCAFE_0000 + u128::from(slot));
        locations.push(producer.write(slot, tag, |bytes| {
            if let Ok(mut page) = ViewMut::<Mla>::new(bytes, Mla::FINGERPRINT)
                && let Ok(latent) = page.get_mut(Mla::LATENT, &[60, 63])
            {
                latent.fill(Bf16::from_bits(0x3F80 + slot as u16));
            }
        })?);
    }
    // One page changes after its location was given to the reader.
    producer.write(5, KeyTag(0xBEEF), |_| ())?;

    // The reader is a decode node. It agrees with the producer on key and layout. After that the
    // producer's processor takes no part in the READs.
    let mut reader = Reader::start(MLA, shm::rails(2)?, Config::default())?;
    let slots = reader.register(memory::leaked(8 * MLA.page_bytes() as usize)?)?;
    let peer = reader.connect(&producer.local_addr().into(), &key)?;

    let mut batch = reader.batch().ok_or("all batches are in use")?;
    for (&location, slot) in locations.iter().zip(slots) {
        batch.read(peer.page(location)?, slot).map_err(|(error, _slot)| error)?;
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

    println!("{} pages of {MLA} in {} us:", done.len(), clock::now().since(start).0 / 1000);
    for page in done.pages() {
        match page.result() {
            Ok(()) => {
                let view = View::<Mla>::new(page.slot.bytes().unwrap_or_default(), Mla::FINGERPRINT)?;
                let latent: &[Bf16] = view.get(Mla::LATENT, &[60, 63])?;
                println!(
                    "  page {}: layer 60, token 63 is {:#06x} throughout",
                    page.index,
                    latent[0].to_bits()
                );
            }
            Err(error) => println!("  page {}: {error}", page.index),
        }
    }
    for rail in 0..reader.rails() {
        let bytes = reader.rail_stats(rail).map_or(0, |stats| stats.bytes);
        println!("rail {rail} carried {bytes} bytes");
    }
    Ok(())
}
