//! A reader of single layers, and the bytes that it expects.

use std::ops::Range;
use std::time::Duration;

use kvrail::core::error::PageError;
use kvrail::core::plan::PlanRef;
use kvrail::layouts::{Plan, Selection};
use kvrail::{
    Bf16, Config, KeyTag, KvLayout, Location, PageLayout, Peer, PeerKey, Publisher, Reader, ReaderTransport,
    Slot, clock, memory,
};

pub(crate) const LAYERS: u32 = 4;

#[derive(KvLayout)]
#[kv(order(layer, token), layers = 4, tokens = 64)]
#[allow(dead_code, reason = "a declaration")]
struct Mla {
    latent: [Bf16; 64],
}

pub(crate) const MLA: PageLayout = PageLayout::of::<Mla>();
/// Bytes of a part: a layer.
pub(crate) const PART: usize = MLA.page_bytes() as usize / LAYERS as usize;

pub(crate) fn key() -> PeerKey {
    PeerKey::from_hex(&"5a".repeat(32)).unwrap()
}

/// The first word of a layer of the page under `tag`; each further one is one more.
fn first(tag: KeyTag, layer: u32) -> u64 {
    (tag.0 as u64 ^ u64::from(layer) << 56).wrapping_mul(0x9E37_79B9_7F4A_7C15)
}

/// Writes these layers of the page under `tag`.
pub(crate) fn fill(page: &mut [u8], tag: KeyTag, layers: Range<u32>) {
    for layer in layers {
        let part = &mut page[layer as usize * PART..][..PART];
        for (word, i) in part.chunks_exact_mut(8).zip(0..) {
            word.copy_from_slice(&first(tag, layer).wrapping_add(i).to_le_bytes());
        }
    }
}

fn is(part: &[u8], tag: KeyTag, layer: u32) -> bool {
    part.chunks_exact(8).zip(0..).all(|(word, i)| word == first(tag, layer).wrapping_add(i).to_le_bytes())
}

pub(crate) struct Layers<T: ReaderTransport> {
    reader: Reader<T>,
    peer: Peer,
    slots: Vec<Slot>,
    plans: Vec<PlanRef>,
}

impl<T: ReaderTransport> Layers<T> {
    pub(crate) fn new(publisher: &Publisher, rails: T) -> Self {
        let mut reader = Reader::start(MLA, rails, Config::default()).unwrap();
        let memory = memory::leaked(MLA.page_bytes() as usize).unwrap();
        let slots = reader.register(memory).unwrap().collect();
        let page = <Mla as KvLayout>::GEOMETRY;
        let plan = |layer| Plan::between(page, page, Selection::ALL.layers(layer, 1)).unwrap();
        let plans = (0..u64::from(LAYERS)).map(|layer| reader.add_plan(&plan(layer)).unwrap()).collect();
        let peer = reader.connect(&publisher.local_addr().into(), key()).unwrap();
        Self { reader, peer, slots, plans }
    }

    /// Reads one layer, which must be ready in `location`, and checks every byte.
    pub(crate) fn read(&mut self, location: Location, layer: u32) -> Result<(), PageError> {
        let page = self.peer.page(location).unwrap().needs(layer + 1);
        let mut batch = self.reader.batch().unwrap();
        batch.read_with(page, self.slots.pop().unwrap(), self.plans[layer as usize]).unwrap();
        let until = clock::within(Duration::from_secs(20));
        self.reader.submit(batch, until).unwrap();
        let mut done = loop {
            self.reader.poll();
            match self.reader.next_done() {
                Some(done) => break done,
                None => self.reader.wait(until),
            }
            assert!(clock::now() < until, "nothing is done: {:?}", self.reader);
        };
        let page = done.pages().next().unwrap();
        if page.result.is_ok() {
            let part = &page.slot.bytes().unwrap()[layer as usize * PART..][..PART];
            assert!(is(part, location.expected.tag, layer), "{location:?}: layer {layer} is served wrong");
        }
        self.slots.push(page.slot);
        page.result
    }
}
