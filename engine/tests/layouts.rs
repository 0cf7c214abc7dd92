//! Two peers agree on where every byte is and whose part it is, or are refused by name: distances
//! and ranks that are known only at run time take part.

use kvrail::core::error::ReadError;
use kvrail::core::layout::LayoutMismatch;
use kvrail::core::memory::Slot;
use kvrail::core::remote::Location;
use kvrail::core::table::KeyTag;
use kvrail::layouts::{AxisKind, Bf16, Placed, Plan, Selection, View, ViewMut};
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
