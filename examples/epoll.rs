//! How an inference engine with an event loop of its own drives a reader: it sleeps in epoll(7)
//! until the reader has something to do, or one of its other descriptors.
//!
//! ```text
//! cargo run --example epoll
//! ```

use std::error::Error;
use std::time::Duration;

use kvrail::{Bf16, Config, KeyTag, KvLayout, PageLayout, PeerKey, Publisher, Reader, clock, memory, shm};
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};

/// One layer of DeepSeek's MLA.
#[derive(KvLayout)]
#[kv(order(token), tokens = 64)]
struct Mla {
    latent: [Bf16; 512],
    rope: [Bf16; 64],
}
const MLA: PageLayout = PageLayout::of::<Mla>();

const PAGES: u32 = 64;
/// Pages of a batch.
const BATCH: usize = 8;
/// The event data of the reader's descriptor.
const READER: u64 = 1;

fn main() -> Result<(), Box<dyn Error>> {
    let key = PeerKey::from_passphrase("everybody who may read knows this")?;
    let (name, anywhere) = ("prefill".parse()?, "127.0.0.1:0".parse()?);
    let producer = Publisher::start(name, MLA, PAGES, &anywhere, key.clone(), shm::publish(2))?;
    let mut locations = Vec::new();
    for slot in 0..PAGES {
        locations.push(producer.write(slot, KeyTag(slot.into()), |bytes| bytes.fill(slot as u8))?);
    }

    let mut reader = Reader::start(MLA, shm::rails(2)?, Config::default())?;
    let mut slots = reader.register(memory::leaked(PAGES as usize * MLA.page_bytes() as usize)?)?;
    let peer = reader.connect(&producer.local_addr().into(), &key)?;

    // The engine's own loop. Its sockets and timers would be registered here, too.
    let engine = epoll::create(CreateFlags::CLOEXEC)?;
    epoll::add(&engine, &reader, EventData::new_u64(READER), EventFlags::IN)?;
    let mut events = [Event { flags: EventFlags::empty(), data: EventData::new_u64(0) }; 8];

    let deadline = clock::within(Duration::from_secs(5));
    for (number, locations) in locations.chunks(BATCH).enumerate() {
        let mut batch = reader.batch().ok_or("all batches are in use")?;
        for &location in locations {
            batch
                .read(peer.page(location)?, slots.next().ok_or("no slot")?)
                .map_err(|(error, _slot)| error)?;
        }
        batch.set_tag(number as u64);
        reader.submit(batch, deadline)?;
    }

    let (mut right, mut woken) = (0, 0);
    while reader.in_flight() > 0 {
        reader.poll();
        while let Some(mut done) = reader.next_done() {
            let first = done.tag() as usize * BATCH;
            for page in done.pages() {
                page.result()?;
                let bytes = page.slot.bytes().ok_or("host memory")?;
                right += usize::from(bytes.iter().all(|&byte| usize::from(byte) == first + page.index));
            }
        }
        // Everything that the reader had has been taken: sleep, unless more has come meanwhile.
        if let Some(most) = reader.arm() {
            let found = epoll::wait(&engine, &mut events, Some(&Timespec::try_from(most)?))?;
            woken += events[..found].iter().filter(|event| event.data.u64() == READER).count();
        }
    }
    println!("{right} of {PAGES} pages are right; the reader woke the loop {woken} times");
    Ok(())
}
