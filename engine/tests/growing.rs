//! A page is read while its publisher writes it: real threads, real shared memory and TCP.

use std::net::{IpAddr, Ipv4Addr};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc;
use std::time::Duration;

use kvrail::core::error::{PageError, ReadError};
use kvrail::core::plan::PlanRef;
use kvrail::core::table::{GrowError, Miss};
use kvrail::layouts::{Plan, Selection};
use kvrail::{
    Bf16, Config, KeyTag, KvLayout, Location, PageLayout, Peer, PeerKey, Publisher, PublisherTransport,
    Reader, ReaderTransport, Ready, Slot, WriteError, clock, memory, shm, tcp,
};

const LAYERS: u32 = 4;

#[derive(KvLayout)]
#[kv(order(layer, token), layers = 4, tokens = 16)]
#[allow(dead_code, reason = "a declaration")]
struct Mla {
    latent: [Bf16; 64],
}

const MLA: PageLayout = PageLayout::of::<Mla>();
/// A part is a layer.
const PART: usize = MLA.page_bytes() as usize / LAYERS as usize;

fn key() -> PeerKey {
    PeerKey::from_hex(&"5a".repeat(32)).unwrap()
}

fn publisher(over: impl PublisherTransport) -> Publisher {
    let (name, listen) = ("producer".parse().unwrap(), "127.0.0.1:0".parse().unwrap());
    Publisher::start(name, MLA, 4, &listen, key(), over).unwrap()
}

/// The bytes of one layer in the `count`-th publication of its slot.
fn byte(count: u32, layer: u32) -> u8 {
    (count * 7 + layer * 61) as u8
}

/// Writes layer `layer` of the page that grows in `slot`, and makes it ready.
fn grow(publisher: &Publisher, slot: u32, layer: u32) -> Location {
    let count = publisher.publications(slot).unwrap();
    let fill = |page: &mut [u8]| page[layer as usize * PART..][..PART].fill(byte(count, layer));
    publisher.set_ready(slot, layer + 1, fill).unwrap()
}

/// A reader of single layers.
struct Layers<T: ReaderTransport> {
    reader: Reader<T>,
    peer: Peer,
    slots: Vec<Slot>,
    plans: Vec<PlanRef>,
}

impl<T: ReaderTransport> Layers<T> {
    fn new(publisher: &Publisher, rails: T) -> Self {
        let mut reader = Reader::start(MLA, rails, Config::default()).unwrap();
        let memory = memory::leaked(4 * MLA.page_bytes() as usize).unwrap();
        let slots = reader.register(memory).unwrap().collect();
        let page = <Mla as KvLayout>::GEOMETRY;
        let plan = |layer| Plan::between(page, page, Selection::ALL.layers(layer, 1)).unwrap();
        let plans = (0..u64::from(LAYERS)).map(|layer| reader.add_plan(&plan(layer)).unwrap()).collect();
        let peer = reader.connect(&publisher.local_addr().into(), key()).unwrap();
        Self { reader, peer, slots, plans }
    }

    /// Reads one layer, which must be ready in `location`, and checks every byte.
    fn read(&mut self, location: Location, layer: u32) -> Result<(), PageError> {
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
            let bytes = &page.slot.bytes().unwrap()[layer as usize * PART..][..PART];
            let want = byte(location.expected.generation.count(), layer);
            assert!(bytes.iter().all(|&b| b == want), "{location:?}: layer {layer} is served wrong");
        }
        self.slots.push(page.slot);
        page.result
    }
}

fn layers_are_read_as_they_become_ready(over: impl PublisherTransport, rails: impl ReaderTransport) {
    let publisher = publisher(over);
    let mut layers = Layers::new(&publisher, rails);
    let begun = publisher.begin(2, KeyTag(u128::MAX - 5)).unwrap();
    assert_eq!(begun.expected.ready, Ready::NONE);
    for layer in 0..LAYERS {
        let told = grow(&publisher, 2, layer);
        let seen = layers.reader.published(&layers.peer, 0, clock::within(Duration::from_secs(10))).unwrap();
        assert_eq!(seen, [told], "the owner's word and the table agree");
        assert_eq!(publisher.location(2).unwrap(), Some(told));
        for ready in 0..=layer {
            assert_eq!(layers.read(told, ready), Ok(()));
        }
        // The location of the page's beginning has seen nothing.
        let page = layers.peer.page(begun).unwrap().needs(1);
        let mut batch = layers.reader.batch().unwrap();
        let refused = batch.read_with(page, layers.slots.pop().unwrap(), layers.plans[0]);
        let (error, slot) = refused.unwrap_err();
        assert_eq!(error, ReadError::NotReady { needed: Ready(1), seen: Ready::NONE });
        layers.slots.push(slot);
    }
    let whole = publisher.finish(2, |_| ()).unwrap();
    assert_eq!(whole.expected.ready, Ready::WHOLE);
    for layer in 0..LAYERS {
        assert_eq!(layers.read(whole, layer), Ok(()));
    }
    publisher.begin(2, KeyTag(7)).unwrap();
    let result = layers.read(whole, 1);
    assert!(matches!(result, Err(PageError::Miss(Miss::Generation { .. }))), "{result:?}");
}

#[test]
fn layers_are_read_as_they_become_ready_over_shm() {
    layers_are_read_as_they_become_ready(shm::publish(1), shm::rails(1).unwrap());
}

#[test]
fn layers_are_read_as_they_become_ready_over_tcp() {
    let localhost = IpAddr::V4(Ipv4Addr::LOCALHOST);
    layers_are_read_as_they_become_ready(tcp::publish(localhost, 1), tcp::rails(1).unwrap());
}

#[test]
fn a_layer_is_right_or_a_miss_however_publisher_and_reader_meet() {
    const ROUNDS: u32 = 300;
    let publisher = publisher(shm::publish(1));
    let mut layers = Layers::new(&publisher, shm::rails(1).unwrap());
    // The owner's word. The publisher is at most three parts ahead of the reader: it is at work on
    // the same page when the first layer is read, and may be overwriting it when the others are.
    let (tell, told) = mpsc::sync_channel(2);
    let (mut hits, mut misses) = (0, 0);
    std::thread::scope(|scope| {
        scope.spawn(move || {
            for round in 0..ROUNDS {
                publisher.begin(0, KeyTag(round.into())).unwrap();
                for layer in 0..LAYERS {
                    let location = grow(&publisher, 0, layer);
                    if tell.send((location, layer)).is_err() {
                        return;
                    }
                }
                publisher.finish(0, |_| ()).unwrap();
            }
            // The reader still reads what it was told last.
            while tell.send((publisher.location(0).unwrap().unwrap(), 0)).is_ok() {}
        });
        for (location, layer) in told.into_iter().take((ROUNDS * LAYERS) as usize) {
            match layers.read(location, layer) {
                Ok(()) => hits += 1,
                Err(PageError::Miss(Miss::Generation { .. } | Miss::Overwriting { .. })) => misses += 1,
                Err(error) => panic!("{location:?}: {error}"),
            }
        }
    });
    println!("{hits} layers, {misses} misses");
    assert!(hits >= ROUNDS, "the first layer of each page is there when it is read");
}

#[test]
fn a_part_whose_writer_panics_does_not_become_ready() {
    let publisher = publisher(shm::publish(1));
    publisher.begin(0, KeyTag(1)).unwrap();
    let told = grow(&publisher, 0, 0);
    let write = AssertUnwindSafe(|| publisher.set_ready(0, 2, |_| panic!("half way")));
    catch_unwind(write).unwrap_err();
    assert_eq!(publisher.location(0).unwrap(), Some(told));
    let finish = AssertUnwindSafe(|| publisher.finish(0, |_| panic!("half way")));
    catch_unwind(finish).unwrap_err();
    assert_eq!(publisher.location(0).unwrap(), Some(told), "the parts before stay ready");
    assert_eq!(grow(&publisher, 0, 1).expected.ready, Ready(2));
}

#[test]
fn growth_that_cannot_be_is_refused_before_a_byte_is_written() {
    let publisher = publisher(shm::publish(1));
    let untouched = |_: &mut [u8]| panic!("bytes are written");
    let refused = |result: Result<Location, WriteError>| match result.unwrap_err() {
        WriteError::Grow { slot: 0, source } => source,
        error => panic!("{error}"),
    };
    let error = refused(publisher.set_ready(0, 1, untouched));
    assert!(matches!(error, GrowError::NotPublished(_)), "{error}");
    publisher.begin(0, KeyTag(1)).unwrap();
    let Location { expected, .. } = publisher.set_ready(0, 3, |_| ()).unwrap();
    let falls = GrowError::Falls { generation: expected.generation, now: Ready(3), to: Ready(2) };
    assert_eq!(refused(publisher.set_ready(0, 2, untouched)), falls);
    // Bytes of ready parts would be written under a generation that readers have.
    let already = |now| GrowError::AlreadyReady { generation: expected.generation, now };
    assert_eq!(refused(publisher.set_ready(0, 3, untouched)), already(Ready(3)));
    publisher.finish(0, |_| ()).unwrap();
    assert_eq!(refused(publisher.finish(0, untouched)), already(Ready::WHOLE));
    let Location { expected, .. } = publisher.write(0, KeyTag(1), |_| ()).unwrap();
    let error = refused(publisher.finish(0, untouched));
    let already = GrowError::AlreadyReady { generation: expected.generation, now: Ready::WHOLE };
    assert_eq!(error, already, "a page that was published whole is not finished again");
    let error = refused(publisher.set_ready(0, 4, untouched));
    assert!(matches!(error, GrowError::Falls { now: Ready::WHOLE, .. }), "{error}");
    publisher.invalidate(0).unwrap();
    let error = refused(publisher.finish(0, untouched));
    assert!(matches!(error, GrowError::NotPublished(_)), "{error}");
    assert!(matches!(publisher.begin(4, KeyTag(1)), Err(WriteError::Slot { slot: 4, slots: 4 })));
}
