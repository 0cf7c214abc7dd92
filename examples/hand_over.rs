//! How a prefill node hands a request over to a decode node while it still computes: the pages of
//! the request are read layer by layer, each layer as soon as it is there.
//!
//! ```text
//! cargo run --release --example hand_over
//! ```
//!
//! The reader is told of each layer over its session. The last lines compare that with asking the
//! fabric: one READ of the publication table. Over shared memory, as here, such a READ is a copy of
//! a few bytes; but a reader that asks must ask again and again, and of each producer.

use std::error::Error;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use kvrail::core::plan::PlanRef;
use kvrail::layouts::{Plan, Selection};
use kvrail::session::handover::{Class, RequestId, TakingEvent, WHOLE_PAGE};
use kvrail::{
    Bf16, Config, KeyTag, KvLayout, PageLayout, Peer, PeerKey, Publisher, Reader, Slot, Taking, clock,
    memory, shm,
};

/// 64 tokens of DeepSeek's MLA, all 61 layers, layer by layer: a layer of a page is contiguous.
#[derive(KvLayout)]
#[kv(order(layer, token), layers = 61, tokens = 64)]
#[allow(dead_code, reason = "a declaration")]
struct Mla {
    latent: [Bf16; 512],
    rope: [Bf16; 64],
}
const MLA: PageLayout = PageLayout::of::<Mla>();
const LAYERS: u32 = 61;
const LAYER_BYTES: usize = MLA.page_bytes() as usize / LAYERS as usize;
const PAGES: u32 = 8;
const REQUEST: RequestId = RequestId(4711);
const LAYER_TIME: Duration = Duration::from_millis(2);
const SOON: Duration = Duration::from_secs(10);

/// When the producer made each layer ready.
static READY_AT: [AtomicU64; LAYERS as usize] = [const { AtomicU64::new(0) }; LAYERS as usize];

/// Computes the request's pages layer by layer, and returns when the reader has them.
fn prefill(producer: Publisher) -> Result<Publisher, Box<dyn Error + Send + Sync>> {
    let handovers = producer.handovers();
    let id = handovers.open(REQUEST)?;
    let mut blocks = Vec::new();
    for slot in 0..PAGES {
        producer.begin(slot, KeyTag(0xCAFE_0000 + u128::from(slot)))?;
        blocks.extend(producer.block(slot)?);
    }
    handovers.append(id, &blocks)?;
    for layer in 0..LAYERS {
        std::thread::sleep(LAYER_TIME);
        for slot in 0..PAGES {
            let at = layer as usize * LAYER_BYTES;
            let compute = |page: &mut [u8]| page[at..at + LAYER_BYTES].fill((layer + slot) as u8);
            // First the bytes, then the entry in the table: `set_ready` keeps that order.
            if layer + 1 == LAYERS {
                producer.finish(slot, compute)?;
            } else {
                producer.set_ready(slot, layer + 1, compute)?;
            }
        }
        READY_AT[layer as usize].store(clock::now().0, Ordering::Relaxed);
        // And then the reader is told.
        let parts = if layer + 1 == LAYERS { WHOLE_PAGE } else { layer + 1 };
        handovers.set_ready(id, 0..PAGES, parts)?;
    }
    handovers.complete(id)?;
    loop {
        // The slots are free when the hand-over has ended, whatever has become of the reader.
        if let Some(ended) = producer.next_ended_handover() {
            println!("prefill: {} pages are free again: {:?}", ended.blocks.len(), ended.outcome);
            return Ok(producer);
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// The decode node.
struct Decode {
    reader: Reader<shm::ShmRails>,
    peer: Peer,
    /// One for each layer.
    plans: Vec<PlanRef>,
    /// One for each page; none while a layer is on its way into them.
    slots: Vec<Slot>,
    /// Layers that have arrived or are on their way.
    layers: u32,
}

impl Decode {
    fn new(producer: &Publisher, key: &PeerKey) -> Result<Self, Box<dyn Error>> {
        let mut reader = Reader::start(MLA, shm::rails(2)?, Config::default())?;
        let memory = memory::leaked(PAGES as usize * MLA.page_bytes() as usize)?;
        let slots = reader.register(memory)?.collect();
        let layer = |layer| Plan::between(Mla::GEOMETRY, Mla::GEOMETRY, Selection::ALL.layers(layer, 1));
        let mut plans = Vec::new();
        for number in 0..u64::from(LAYERS) {
            plans.push(reader.add_plan(&layer(number)?)?);
        }
        let peer = reader.connect(&producer.local_addr().into(), key)?;
        Ok(Self { reader, peer, plans, slots, layers: 0 })
    }

    /// Reads the next layer of all pages, if it is ready and no other is on its way.
    fn read(&mut self, taking: &Taking) -> Result<(), Box<dyn Error>> {
        let (blocks, layer) = (self.reader.blocks(taking, 0..PAGES), self.layers);
        let ready = blocks.len() == self.slots.len() && blocks.iter().all(|block| layer < block.ready);
        if layer == LAYERS || !ready {
            return Ok(());
        }
        let mut batch = self.reader.batch().ok_or("all batches are in use")?;
        for (block, slot) in blocks.iter().zip(self.slots.drain(..)) {
            let page = self.peer.block(block)?.needs(layer + 1);
            batch.read_with(page, slot, self.plans[layer as usize]).map_err(|(error, _slot)| error)?;
        }
        self.layers += 1;
        self.reader.submit(batch, clock::within(SOON))?;
        Ok(())
    }

    /// Takes the request over, and returns after how many nanoseconds it was told of each layer.
    fn take_over(&mut self) -> Result<Vec<u64>, Box<dyn Error>> {
        let taking = self.reader.take(&self.peer, REQUEST, Class::Urgent, SOON)?;
        let (mut told, until) = (Vec::new(), clock::within(2 * SOON));
        while self.layers < LAYERS || self.slots.is_empty() {
            self.reader.poll();
            while let Some((_, event)) = self.reader.next_taking_event() {
                match event {
                    TakingEvent::Ready { parts, .. } => {
                        let layer = parts.min(LAYERS) as usize - 1;
                        told.push(clock::now().0 - READY_AT[layer].load(Ordering::Relaxed));
                    }
                    TakingEvent::Taken { .. } | TakingEvent::Grown { .. } | TakingEvent::Complete { .. } => {}
                    other => return Err(format!("the request is lost: {other:?}").into()),
                }
            }
            while let Some(mut done) = self.reader.next_done() {
                for page in done.pages() {
                    // A page that was overwritten is a miss here, and never a wrong page.
                    page.result?;
                    self.slots.push(page.slot);
                }
            }
            self.read(&taking)?;
            if clock::now() >= until {
                return Err("the request does not arrive".into());
            }
            self.reader.wait(clock::within(Duration::from_millis(1)));
        }
        self.reader.done(&taking)?;
        Ok(told)
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    // The producer is a prefill node, usually another process. Both sides have the key.
    let key = PeerKey::from_passphrase("correct horse battery staple")?;
    let (name, anywhere) = ("prefill-0".parse()?, "127.0.0.1:0".parse()?);
    let producer = Publisher::start(name, MLA, PAGES, &anywhere, &key, shm::publish(2))?;
    let mut decode = Decode::new(&producer, &key)?;
    let prefill = std::thread::spawn(|| prefill(producer));
    let mut told = decode.take_over()?;
    let last = clock::now().0 - READY_AT[LAYERS as usize - 1].load(Ordering::Relaxed);
    println!("decode: {PAGES} pages of {MLA}, {LAYERS} layers, one every {LAYER_TIME:?}");
    println!("decode: the last layer has arrived {} us after it was ready", last / 1000);

    let _producer =
        prefill.join().map_err(|_| "the prefill thread has panicked")?.map_err(|error| error.to_string())?;
    let mut asked = Vec::new();
    for _ in 0..told.len() {
        let start = clock::now();
        decode.reader.published(&decode.peer, 0, clock::within(SOON))?;
        asked.push(clock::now().since(start).0);
    }
    told.sort_unstable();
    asked.sort_unstable();
    println!("told of a layer by the session: {} us, the median", told[told.len() / 2] / 1000);
    println!("a READ of the table instead:    {} us, the median", asked[asked.len() / 2] / 1000);
    Ok(())
}
