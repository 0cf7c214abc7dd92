//! Pages that are cut otherwise at the reader than at its peers: other ranks of heads, other
//! stages, other blocks of tokens; and parts of pages. Each destination page is filled from several
//! peers, and every byte of it is compared, those that no plan writes included.

use kvrail::core::remote::RemotePage;
use kvrail::layouts::{AxisKind, Bf16, Plan, PlanError, Selection};
use kvrail::{KvLayout, PageLayout, Peer, shm};

use super::image::{Page, Row};
use super::rig::{Producer, Reads, assert_bytes};

/// 8 heads over `RANKS` ranks. K and V are objects of their own, tokens outside heads.
#[derive(KvLayout)]
#[kv(order(regions(planes), layer, token, head), sharded(head, ranks = RANKS))]
#[kv(layers = 3, tokens = 8, heads = HEADS)]
#[allow(dead_code, reason = "a declaration")]
struct Nhd<const HEADS: usize, const RANKS: usize> {
    k: [Bf16; 16],
    #[kv(plane)]
    v: [Bf16; 24],
}

/// The same with heads outside tokens, and a region for each layer.
#[derive(KvLayout)]
#[kv(order(regions(layer), planes, head, token), sharded(head, ranks = RANKS))]
#[kv(layers = 3, tokens = 8, heads = HEADS)]
#[allow(dead_code, reason = "a declaration")]
struct Hnd<const HEADS: usize, const RANKS: usize> {
    k: [Bf16; 16],
    #[kv(plane)]
    v: [Bf16; 24],
}

fn ranks<L: KvLayout>(count: u32) -> Vec<PageLayout> {
    (0..count).map(|rank| PageLayout::at_rank::<L>(AxisKind::Head, rank).unwrap()).collect()
}

/// The page at `number` of a producer's slots.
fn page(peer: &Peer, producer: &Producer, number: usize) -> RemotePage {
    peer.pool_of(&producer.layout).unwrap().page(producer.locations[number]).unwrap()
}

/// Fills a page of each of `to` from the pages of `from`, wherever two have something in common.
/// Returns how many peers each page came from.
fn fills(from: &[PageLayout], to: &[PageLayout]) -> Vec<usize> {
    let producers: Vec<_> =
        from.iter().map(|layout| Producer::of(*layout, &[(7, 0), (8, 0)], shm::publish(1))).collect();
    to.iter()
        .map(|to| {
            let mut reads = Reads::of(*to, shm::rails(1).unwrap());
            let mut parts = Vec::new();
            for producer in &producers {
                match Plan::between(producer.layout.geometry(), to.geometry(), Selection::ALL) {
                    Ok(plan) => {
                        let peer = reads.connect(producer);
                        parts.push([0, 1].map(|number| (page(&peer, producer, number), plan)));
                    }
                    Err(PlanError::Apart { .. }) => {}
                    Err(error) => panic!("{error}"),
                }
            }
            for number in [0, 1] {
                let parts: Vec<_> = parts.iter().map(|both| both[number]).collect();
                let bytes = reads.gather(&parts).unwrap();
                let expected = Page::new(to.geometry(), 7 + number as u64).landed(|_| true);
                assert_bytes(&bytes, &expected, &format!("page {number} of {to}"));
            }
            parts.len()
        })
        .collect()
}

#[test]
fn eight_ranks_are_read_into_one() {
    assert_eq!(fills(&ranks::<Nhd<1, 8>>(8), &ranks::<Nhd<8, 1>>(1)), [8]);
    assert_eq!(fills(&ranks::<Hnd<1, 8>>(8), &ranks::<Nhd<8, 1>>(1)), [8]);
}

#[test]
fn one_rank_is_read_into_eight() {
    assert_eq!(fills(&ranks::<Nhd<8, 1>>(1), &ranks::<Nhd<1, 8>>(8)), [1; 8]);
    assert_eq!(fills(&ranks::<Nhd<8, 1>>(1), &ranks::<Hnd<1, 8>>(8)), [1; 8]);
}

#[test]
fn eight_ranks_are_read_into_two_and_two_into_four() {
    assert_eq!(fills(&ranks::<Hnd<1, 8>>(8), &ranks::<Nhd<4, 2>>(2)), [4, 4]);
    assert_eq!(fills(&ranks::<Nhd<4, 2>>(2), &ranks::<Hnd<2, 4>>(4)), [1; 4]);
}

/// All heads, as each of four ranks holds them.
#[derive(KvLayout)]
#[kv(order(layer, token, head), layers = 3, tokens = 8, heads = 2, replicated(head, ranks = 4))]
#[allow(dead_code, reason = "a declaration")]
struct Replicated {
    k: [Bf16; 16],
    v: [Bf16; 24],
}

#[test]
fn heads_that_several_peers_hold_are_read_from_any_of_them() {
    // Four engine ranks and two heads: engine ranks 0 and 1 have head 0, and 2 and 3 have head 1.
    let heads = ranks::<Nhd<1, 2>>(2);
    let whole = ranks::<Nhd<2, 1>>(1)[0];
    let producers: Vec<_> =
        (0..4).map(|rank| Producer::of(heads[rank / 2], &[(3, 0)], shm::publish(1))).collect();
    let mut reads = Reads::of(whole, shm::rails(1).unwrap());
    let peers: Vec<_> = producers.iter().map(|producer| reads.connect(producer)).collect();
    let part = |rank: usize| {
        let plan = Plan::between(heads[rank / 2].geometry(), whole.geometry(), Selection::ALL).unwrap();
        (page(&peers[rank], &producers[rank], 0), plan)
    };
    let expected = Page::new(whole.geometry(), 3).landed(|_| true);
    for (first, second) in [(0, 2), (0, 3), (1, 2), (1, 3), (3, 0)] {
        let bytes = reads.gather(&[part(first), part(second)]).unwrap();
        assert_bytes(&bytes, &expected, &format!("from engine ranks {first} and {second}"));
    }
    // Where each rank has all heads, their pages are equal.
    let all = PageLayout::of::<Replicated>();
    let mut reads = Reads::of(all, shm::rails(1).unwrap());
    let plan = Plan::between(all.geometry(), all.geometry(), Selection::ALL).unwrap();
    for rank in 0..4 {
        let producer = Producer::of(all, &[(3, 0)], shm::publish(1));
        let peer = reads.connect(&producer);
        let bytes = reads.gather(&[(page(&peer, &producer, 0), plan)]).unwrap();
        assert_bytes(&bytes, &Page::new(all.geometry(), 3).bytes(), &format!("from rank {rank}"));
    }
}

/// Layers `FIRST` and following of 15, a region for each.
#[derive(KvLayout)]
#[kv(order(regions(layer), token), layers = COUNT, tokens = 8, stage(layer, first = FIRST, of = 15))]
#[allow(dead_code, reason = "a declaration")]
struct Stage<const FIRST: usize, const COUNT: usize> {
    latent: [Bf16; 40],
    rope: [Bf16; 8],
}

/// All layers, token by token.
#[derive(KvLayout)]
#[kv(order(token, layer), layers = 15, tokens = 8)]
#[allow(dead_code, reason = "a declaration")]
struct Whole {
    latent: [Bf16; 40],
    rope: [Bf16; 8],
}

#[test]
fn stages_of_unequal_length_fill_a_page_and_are_filled_by_other_stages() {
    let (first, second) = (PageLayout::of::<Stage<0, 7>>(), PageLayout::of::<Stage<7, 8>>());
    assert_eq!(fills(&[first, second], &[PageLayout::of::<Whole>()]), [2]);
    // Layers 0 to 9 of the one are in both of the others.
    let (ten, five) = (PageLayout::of::<Stage<0, 10>>(), PageLayout::of::<Stage<10, 5>>());
    assert_eq!(fills(&[first, second], &[ten, five]), [2, 1]);
    assert_eq!(fills(&[PageLayout::of::<Whole>()], &[first, second]), [1, 1]);
}

/// Blocks of `TOKENS` tokens, K and V apart.
#[derive(KvLayout)]
#[kv(order(regions(planes), layer, token), layers = 3, tokens = TOKENS)]
#[allow(dead_code, reason = "a declaration")]
struct Blocks<const TOKENS: usize> {
    k: [Bf16; 16],
    #[kv(plane)]
    v: [Bf16; 24],
}

/// Fills three blocks of a destination from four of a source, or four from three.
fn fills_blocks<Of: KvLayout, Into: KvLayout>(count: u64, expected: &[usize]) {
    let (from, to) = (PageLayout::of::<Of>(), PageLayout::of::<Into>());
    let blocks: Vec<_> = (0..count).map(|block| (5, block)).collect();
    let producer = Producer::of(from, &blocks, shm::publish(1));
    let mut reads = Reads::of(to, shm::rails(1).unwrap());
    let peer = reads.connect(&producer);
    for (block, &peers) in (0..).zip(expected) {
        let mut parts = Vec::new();
        for part in Plan::into_block(from.geometry(), to.geometry(), block, Selection::ALL).unwrap() {
            let part = part.unwrap();
            parts.push((page(&peer, &producer, part.source_block as usize), part.plan));
        }
        assert_eq!(parts.len(), peers, "block {block}");
        let bytes = reads.gather(&parts).unwrap();
        let expected = Page { layout: to.geometry(), number: 5, block }.landed(|_| true);
        assert_bytes(&bytes, &expected, &format!("block {block}"));
    }
}

#[test]
fn blocks_of_48_and_64_tokens_fill_each_other() {
    fills_blocks::<Blocks<48>, Blocks<64>>(4, &[2, 2, 2]);
    fills_blocks::<Blocks<64>, Blocks<48>>(3, &[1, 2, 2, 1]);
    fills_blocks::<Blocks<16>, Blocks<64>>(8, &[4, 4]);
}

/// Reads a part of a page of 64 tokens by `plan`, where `brought` says which rows it has.
fn reads_a_part(plan: &Plan, brought: impl Fn(&Row<'_>) -> bool) {
    let (from, to) = (PageLayout::of::<Blocks<64>>(), PageLayout::of::<Turned>());
    let producer = Producer::of(from, &[(9, 0)], shm::publish(1));
    let mut reads = Reads::of(to, shm::rails(1).unwrap());
    let peer = reads.connect(&producer);
    let bytes = reads.gather(&[(page(&peer, &producer, 0), *plan)]).unwrap();
    let expected = Page::new(to.geometry(), 9).landed(&brought);
    assert!(expected != Page::new(to.geometry(), 9).landed(|_| true), "it is a part");
    assert_bytes(&bytes, &expected, "a part");
}

/// As [`Blocks`] of 64, token by token in one object.
#[derive(KvLayout)]
#[kv(order(token, layer), layers = 3, tokens = 64)]
#[allow(dead_code, reason = "a declaration")]
struct Turned {
    k: [Bf16; 16],
    v: [Bf16; 24],
}

#[test]
fn a_list_of_token_rows_lands_in_its_rows() {
    let rows = [(3, 1), (7, 5), (40, 8), (63, 1)];
    let plan = Plan::between_tokens(Blocks::<64>::GEOMETRY, Turned::GEOMETRY, &rows, Selection::ALL).unwrap();
    reads_a_part(&plan, |row| {
        let token = row.along(AxisKind::Token);
        rows.iter().any(|&(first, count)| (first..first + count).contains(&token))
    });
}

#[test]
fn a_range_of_layers_lands_in_its_layers() {
    let part = Selection::ALL.layers(1, 2);
    let plan = Plan::between(Blocks::<64>::GEOMETRY, Turned::GEOMETRY, part).unwrap();
    reads_a_part(&plan, |row| row.along(AxisKind::Layer) >= 1);
}

#[test]
fn layers_tokens_and_a_field_are_selected_together() {
    let part = Selection::ALL.layers(2, 1).tokens(10, 30).field("v");
    let plan = Plan::between(Blocks::<64>::GEOMETRY, Turned::GEOMETRY, part).unwrap();
    reads_a_part(&plan, |row| {
        row.field == "v" && row.along(AxisKind::Layer) == 2 && (10..40).contains(&row.along(AxisKind::Token))
    });
}
