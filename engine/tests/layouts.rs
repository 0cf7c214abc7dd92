//! Two peers agree on where every byte is and whose part it is, or are refused by name: distances
//! and ranks that are known only at run time take part.

use kvrail::core::error::ReadError;
use kvrail::core::layout::LayoutMismatch;
use kvrail::core::memory::Slot;
use kvrail::core::remote::Location;
use kvrail::core::table::KeyTag;
use kvrail::layouts::catalogue::{SglV41, VllmV41};
use kvrail::layouts::{AxisKind, Bf16, E4m3, FieldOf, Placed, Plan, Selection, Ue8m0, View, ViewMut};
use kvrail::shm::ShmRails;
use kvrail::{
    Config, KvLayout, PageLayout, PeerKey, Publisher, Reader, StartError, Storage, clock, engine, memory, shm,
};
use std::time::Duration;

/// K and V at a distance that is known at run time.
#[derive(KvLayout)]
#[kv(order(strided(planes), token), tokens = 16)]
struct Apart {
    k: [Bf16; 128],
    #[kv(plane)]
    v: [Bf16; 128],
}

/// One of four ranks' heads, token by token.
#[derive(KvLayout)]
#[kv(order(token, head), tokens = 16, heads = 2, sharded(head, ranks = 4))]
struct ByToken {
    k: [Bf16; 128],
}

/// The heads of `ByToken`, head by head.
#[derive(KvLayout)]
#[kv(order(head, token), tokens = 16, heads = 2, sharded(head, ranks = 4))]
struct ByHead {
    k: [Bf16; 128],
}

/// A page of as many bytes as `ByToken`, without ranks.
#[derive(KvLayout)]
#[kv(order(token, head), tokens = 16, heads = 2)]
struct Whole {
    k: [Bf16; 128],
}

const SLOTS: u32 = 4;

fn key() -> PeerKey {
    PeerKey::from_hex(&"5a".repeat(32)).unwrap()
}

fn placed(distance: u64) -> Placed<Apart> {
    // Of one size, whatever the distance.
    Placed::new(|page| page.plane_of("v", distance).region_bytes(0, 16_384)).unwrap()
}

fn at_rank<L: KvLayout>(rank: u32) -> PageLayout {
    PageLayout::at_rank::<L>(AxisKind::Head, rank).unwrap()
}

/// A producer of pages of this layout, all of them written by `fill`.
fn producer(layout: PageLayout, mut fill: impl FnMut(u32, &mut [u8])) -> (Publisher, Vec<Location>) {
    let (name, anywhere) = ("producer".parse().unwrap(), "127.0.0.1:0".parse().unwrap());
    let producer = Publisher::start(name, layout, SLOTS, &anywhere, key(), shm::publish(1)).unwrap();
    let write = |slot: u32| producer.write(slot, KeyTag(slot.into()), |bytes| fill(slot, bytes)).unwrap();
    let locations = (0..SLOTS).map(write).collect();
    (producer, locations)
}

fn reader(layout: PageLayout) -> Reader<ShmRails> {
    Reader::start(layout, shm::rails(1).unwrap(), Config::default()).unwrap()
}

fn slots(reader: &mut Reader<ShmRails>, layout: &PageLayout) -> Vec<Slot> {
    let memory = memory::leaked((SLOTS * layout.page_bytes()) as usize).unwrap();
    reader.register_for(layout, memory).unwrap().collect()
}

/// Submits a batch, and waits for it.
fn read(reader: &mut Reader<ShmRails>, batch: kvrail::core::batch::Batch<'static>) -> Vec<Slot> {
    let until = clock::within(Duration::from_secs(20));
    reader.submit(batch, until).unwrap();
    let mut done = loop {
        reader.poll();
        match reader.next_done() {
            Some(done) => break done,
            None => reader.wait(until),
        }
        assert!(clock::now() < until, "nothing is done: {reader:?}");
    };
    let good = done.pages().map(|page| {
        page.result().unwrap();
        page.slot
    });
    good.collect()
}

#[test]
fn engines_that_place_k_and_v_differently_are_refused_by_name() {
    let (near, far) = (placed(4_096), placed(8_192));
    let [ours, theirs] = [near, far].map(|page| PageLayout::placed(&page).unwrap());
    let (producer, locations) = producer(theirs, |slot, bytes| {
        let mut regions = [bytes];
        let mut page = ViewMut::of_placed(&mut regions, &far, theirs.fingerprint()).unwrap();
        for token in 0..16 {
            page.get_mut(Apart::K, &[token]).unwrap().fill(Bf16::from_bits(slot as u16));
            page.get_mut(Apart::V, &[token]).unwrap().fill(Bf16::from_bits(100 + slot as u16));
        }
    });
    let address = producer.local_addr().into();
    let refused = reader(ours).connect(&address, key()).unwrap_err();
    assert_eq!(refused.code(), 6035);
    let refused = refused.to_string();
    for layout in [ours, theirs] {
        assert!(refused.contains(&layout.fingerprint().to_string()), "{refused}");
    }
    assert!(refused.contains("start both sides with the same layout"), "{refused}");
    assert!(!refused.contains("another rank"), "{refused}");
    assert!(!refused.contains(" parts"), "a layout of one part counts no parts: {refused}");
    // A reader with the same distance reads K for K and V for V.
    let mut reader = reader(theirs);
    let mut slots = slots(&mut reader, &theirs);
    let peer = reader.connect(&address, key()).unwrap();
    let mut batch = reader.batch().unwrap();
    for &location in &locations {
        batch.read(peer.page(location).unwrap(), slots.remove(0)).unwrap();
    }
    for (slot, number) in read(&mut reader, batch).iter().zip(0..) {
        let regions = [slot.bytes().unwrap()];
        let page = View::of_placed(&regions, &far, theirs.fingerprint()).unwrap();
        assert!(page.get(Apart::K, &[7]).unwrap().iter().all(|k| k.to_bits() == number));
        assert!(page.get(Apart::V, &[7]).unwrap().iter().all(|v| v.to_bits() == 100 + number));
    }
}

#[test]
fn another_rank_is_refused_and_both_are_named() {
    let (producer, locations) = producer(at_rank::<ByToken>(0), |_, bytes| bytes.fill(7));
    let address = producer.local_addr().into();
    let refused = reader(at_rank::<ByToken>(1)).connect(&address, key()).unwrap_err().to_string();
    assert!(refused.contains("`ByToken, head rank 1 of 4`"), "{refused}");
    assert!(refused.contains("`ByToken, head rank 0 of 4`"), "{refused}");
    assert!(refused.contains("the same layout at another rank"), "{refused}");
    // A reader of the producer's rank connects.
    let mut reader = reader(at_rank::<ByToken>(0));
    let mut slots = slots(&mut reader, &at_rank::<ByToken>(0));
    let peer = reader.connect(&address, key()).unwrap();
    let mut batch = reader.batch().unwrap();
    batch.read(peer.page(locations[0]).unwrap(), slots.remove(0)).unwrap();
    assert_eq!(read(&mut reader, batch).len(), 1);
}

#[test]
fn a_peer_of_another_layout_is_read_by_a_plan_for_it_and_by_no_other() {
    let (theirs, ours) = (at_rank::<ByToken>(2), at_rank::<ByHead>(2));
    let [source, destination] =
        [ByToken::GEOMETRY, ByHead::GEOMETRY].map(|page| page.at_rank(AxisKind::Head, 2).unwrap());
    let (producer, locations) = producer(theirs, |slot, bytes| {
        for (row, bytes) in bytes.chunks_mut(256).enumerate() {
            bytes.fill(slot as u8 * 32 + row as u8);
        }
    });
    let mut reader = reader(ours);
    let mut slots = slots(&mut reader, &ours);
    let peer = reader.connect_to(&producer.local_addr().into(), key(), &theirs).unwrap();
    let plan = |source, destination| Plan::between(source, destination, Selection::ALL).unwrap();
    let right = plan(&source, &destination);
    let right = reader.add_plan(&right).unwrap();
    let of_any_rank = reader.add_plan(&plan(ByToken::GEOMETRY, ByHead::GEOMETRY)).unwrap();
    let backwards = reader.add_plan(&plan(ByHead::GEOMETRY, ByToken::GEOMETRY)).unwrap();
    let whole = reader.add_plan(&plan(Whole::GEOMETRY, Whole::GEOMETRY)).unwrap();
    let mut batch = reader.batch().unwrap();
    let page = |slot: usize| peer.page(locations[slot]).unwrap();
    let slot = slots.pop().unwrap();
    let (refused, slot) = batch.read(page(0), slot).unwrap_err();
    let expected = LayoutMismatch::NoPlan { page: Some(theirs.fingerprint()), slot: ours.fingerprint() };
    assert_eq!(refused, ReadError::Layout(expected));
    // Plans of the same size and bounds, for other layouts.
    let (refused, slot) = batch.read_with(page(0), slot, backwards).unwrap_err();
    assert!(matches!(refused, ReadError::Layout(LayoutMismatch::Source { .. })), "{refused}");
    let (refused, slot) = batch.read_with(page(0), slot, whole).unwrap_err();
    assert!(refused.to_string().contains(&Whole::FINGERPRINT.to_string()), "{refused}");
    assert!(refused.to_string().contains(&theirs.fingerprint().to_string()), "{refused}");
    batch.read_with(page(0), slot, right).unwrap();
    batch.read_with(page(1), slots.pop().unwrap(), of_any_rank).unwrap();
    for (slot, number) in read(&mut reader, batch).iter().zip(0..) {
        for (row, bytes) in slot.bytes().unwrap().chunks(256).enumerate() {
            let (head, token) = (row / 16, row % 16);
            assert!(bytes.iter().all(|&byte| byte == number * 32 + (token * 2 + head) as u8));
        }
    }
}

engine! { Declared { page: ByToken, max_rails: 1, max_peers: 1, max_batch: 4, max_batches: 2 } }

#[test]
fn a_declared_reader_is_started_at_a_rank() {
    static STORAGE: Storage<Declared> = Storage::new();
    let start = |layout| {
        let (storage, rails) = (STORAGE.take().unwrap(), shm::rails(1).unwrap());
        Declared::start_as(storage, layout, rails, Config::default())
    };
    let refused = start(PageLayout::of::<Whole>()).unwrap_err();
    assert!(matches!(refused, StartError::OtherPage { name: "ByToken", given: "Whole", .. }), "{refused}");
    let refused = start(at_rank::<ByHead>(3)).unwrap_err();
    assert!(matches!(refused, StartError::OtherPage { .. }), "{refused}");
    let reader = start(at_rank::<ByToken>(3)).unwrap();
    assert_eq!(reader.layout().to_string(), "ByToken, head rank 3 of 4 (8192 bytes a page)");
}

/// vLLM's page of DeepSeek V4.1 and SGLang's have one size and the same fields in another order. A
/// read between them is refused by name; the plan between them puts each part in its place, and the
/// plan of the other direction is refused.
#[test]
fn two_engines_pages_of_one_size_are_refused_by_name_or_read_by_their_plan() {
    const DATA: FieldOf<VllmV41, E4m3> = FieldOf::named("latent");
    const SCALES: FieldOf<VllmV41, Ue8m0> = FieldOf::named("scales");
    let (theirs, ours) = (PageLayout::of::<VllmV41>(), PageLayout::of::<SglV41>());
    assert_eq!(theirs.page_bytes(), ours.page_bytes());
    let (producer, locations) = producer(theirs, |_, bytes| {
        let mut page = ViewMut::<VllmV41>::new(bytes, VllmV41::FINGERPRINT).unwrap();
        for token in 0..64 {
            page.get_mut(DATA, &[token]).unwrap().fill(E4m3::from_bits(token as u8));
            page.get_mut(SCALES, &[token]).unwrap().fill(Ue8m0::from_bits(100 + token as u8));
        }
    });
    let address = producer.local_addr().into();
    let refused = reader(ours).connect(&address, key()).unwrap_err().to_string();
    assert!(refused.contains("`vllm_v41`") && refused.contains("`sgl_v41`"), "{refused}");
    let mut reader = reader(ours);
    let mut slots = slots(&mut reader, &ours);
    let peer = reader.connect_to(&address, key(), &theirs).unwrap();
    let plan = |source, destination| Plan::between(source, destination, Selection::ALL).unwrap();
    let right = reader.add_plan(&plan(VllmV41::GEOMETRY, SglV41::GEOMETRY)).unwrap();
    let backwards = reader.add_plan(&plan(SglV41::GEOMETRY, VllmV41::GEOMETRY)).unwrap();
    let mut batch = reader.batch().unwrap();
    let page = || peer.page(locations[0]).unwrap();
    let (refused, slot) = batch.read(page(), slots.remove(0)).unwrap_err();
    let expected = LayoutMismatch::NoPlan { page: Some(theirs.fingerprint()), slot: ours.fingerprint() };
    assert_eq!(refused, ReadError::Layout(expected));
    let (refused, slot) = batch.read_with(page(), slot, backwards).unwrap_err();
    assert!(matches!(refused, ReadError::Layout(LayoutMismatch::Source { .. })), "{refused}");
    batch.read_with(page(), slot, right).unwrap();
    let slot = read(&mut reader, batch).remove(0);
    let (data, scales) = slot.bytes().unwrap().split_at(64 * 512);
    for (token, (data, scales)) in data.chunks(512).zip(scales.chunks(16)).enumerate() {
        assert!(data.iter().all(|&byte| byte == token as u8));
        assert!(scales.iter().all(|&byte| byte == 100 + token as u8));
    }
}

/// Some of the five layers of a pipeline.
#[derive(KvLayout)]
#[kv(order(layer, token), layers = COUNT, tokens = 16, stage(layer, first = FIRST, of = 5))]
struct Stage<const FIRST: usize, const COUNT: usize> {
    latent: [Bf16; 64],
}

/// All of them, token by token.
#[derive(KvLayout)]
#[kv(order(token, layer), layers = 5, tokens = 16)]
struct AllStages {
    latent: [Bf16; 64],
}

/// Stages of unequal length: the wrong one is refused by its fingerprint, also where its pages are
/// as long, and each fills its part of the whole page.
#[test]
fn stages_are_told_apart_and_fill_the_whole_page() {
    let layouts =
        [PageLayout::of::<Stage<0, 2>>(), PageLayout::of::<Stage<2, 2>>(), PageLayout::of::<Stage<4, 1>>()];
    let geometries = [Stage::<0, 2>::GEOMETRY, Stage::<2, 2>::GEOMETRY, Stage::<4, 1>::GEOMETRY];
    let row = 16 * 128;
    let producers = [0, 2, 4].map(|first: usize| {
        // Every row of a layer and token has a number of its own.
        producer(layouts[first / 2], |_, bytes| {
            for (row, bytes) in bytes.chunks_mut(128).enumerate() {
                bytes.fill((first * 16 + row) as u8);
            }
        })
    });
    let address = |stage: usize| producers[stage].0.local_addr().into();
    let refused = reader(layouts[1]).connect(&address(0), key()).unwrap_err().to_string();
    assert_eq!(layouts[0].page_bytes(), 2 * row);
    assert_eq!(layouts[1].page_bytes(), 2 * row);
    for layout in &layouts[..2] {
        assert!(refused.contains(&layout.fingerprint().to_string()), "{refused}");
    }
    let whole = PageLayout::of::<AllStages>();
    let mut reader = reader(whole);
    let mut slots = slots(&mut reader, &whole);
    let mut batch = reader.batch().unwrap();
    let mut slot = Some(slots.remove(0));
    for stage in 0..3 {
        let peer = reader.connect_to(&address(stage), key(), &layouts[stage]).unwrap();
        let plan = Plan::between(geometries[stage], AllStages::GEOMETRY, Selection::ALL).unwrap();
        let plan = reader.add_plan(&plan).unwrap();
        let page = peer.page(producers[stage].1[0]).unwrap();
        match slot.take() {
            Some(slot) => batch.read_with(page, slot, plan).unwrap(),
            None => batch.read_also_with(page, plan).unwrap(),
        }
    }
    let slot = read(&mut reader, batch).remove(0);
    for (row, bytes) in slot.bytes().unwrap().chunks(128).enumerate() {
        let (token, layer) = (row / 5, row % 5);
        assert!(bytes.iter().all(|&byte| byte == (layer * 16 + token) as u8), "{layer} {token}");
    }
}
