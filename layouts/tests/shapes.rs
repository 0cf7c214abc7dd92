//! Plans between pages of other shapes: some tokens of a page, pipeline stages of unequal length,
//! heads on another number of ranks, blocks of another length. Each plan is followed byte by byte,
//! in memory in which each byte knows what it is.

#[path = "common/memory.rs"]
mod memory;

use kvrail_layouts::plan::{Plan, PlanError};
use kvrail_layouts::{
    Axis, AxisKind, Declaration, ElementKind, FieldDecl, Geometry, Level, PlaneDecl, Selection,
    SelectionError,
};
use memory::Memory;

const L: AxisKind = AxisKind::Layer;
const T: AxisKind = AxisKind::Token;
const H: AxisKind = AxisKind::Head;
const LAYER: Level = Level::Axis(L);
const TOKEN: Level = Level::Axis(T);
const HEAD: Level = Level::Axis(H);

const K: FieldDecl = FieldDecl::new("k", ElementKind::Bf16, 2);
const V: FieldDecl = FieldDecl::new("v", ElementKind::Bf16, 2);
const KV: FieldDecl = FieldDecl::new("kv", ElementKind::Bf16, 2);
const LATENT: FieldDecl = FieldDecl::new("latent", ElementKind::E4m3, 3);
const SCALE: FieldDecl = FieldDecl::new("scale", ElementKind::F32, 1);

fn page(axes: &[Axis], order: &[Level], planes: &[PlaneDecl<'_>]) -> Geometry {
    Declaration { axes, order, planes, ..Declaration::EMPTY }.expect()
}

/// Pages of the same tokens and layers in several orders: rows of all fields, planes, padding,
/// objects.
fn latent_pages(layers: Axis, tokens: u64) -> Vec<Geometry> {
    let axes = &[layers, Axis::whole(T, tokens)];
    let row = &[PlaneDecl::of(&[LATENT, SCALE])];
    let planes = &[PlaneDecl::of(&[LATENT]), PlaneDecl::of(&[SCALE])];
    vec![
        page(axes, &[TOKEN, LAYER], row),
        page(axes, &[LAYER, TOKEN, Level::Pad(16)], row),
        page(axes, &[Level::Regions(L), TOKEN], row),
        page(axes, &[LAYER, Level::Pad(64), Level::Planes, TOKEN], planes),
        page(axes, &[Level::RegionPlanes, TOKEN, LAYER], planes),
    ]
}

/// All pairs of two lists.
fn pairs<'g>(
    from: &'g [Geometry],
    into: &'g [Geometry],
) -> impl Iterator<Item = (&'g Geometry, &'g Geometry)> {
    from.iter().flat_map(move |from| into.iter().map(move |into| (from, into)))
}

fn index(at: memory::At<'_>, axis: AxisKind) -> u64 {
    at.iter().find(|(kind, _)| *kind == axis).map_or(0, |(_, index)| *index)
}

#[test]
fn the_filled_part_of_a_last_page_comes_alone() {
    let pages = latent_pages(Axis::whole(L, 2), 64);
    for (from, into) in pairs(&pages, &pages) {
        let source = Memory::filled(from, 0);
        for n in 1..=64 {
            let plan = Plan::between(from, into, Selection::ALL.tokens(0, n)).unwrap();
            let mut slot = Memory::empty(into);
            slot.copy(&plan, &source);
            assert_eq!(slot, Memory::some(into, 0, |at| index(at, T) < n), "{n} tokens\n{from}\n{into}");
        }
    }
    let none = Plan::between(&pages[0], &pages[1], Selection::ALL.tokens(0, 0));
    assert_eq!(none, Err(PlanError::Destination(SelectionError::Empty { axis: T })));
}

#[test]
fn a_range_of_layers_comes_alone() {
    let pages = latent_pages(Axis::whole(L, 5), 4);
    for (from, into) in pairs(&pages, &pages) {
        let source = Memory::filled(from, 0);
        for (first, len) in (0..5).flat_map(|first| (1..=5 - first).map(move |len| (first, len))) {
            let plan = Plan::between(from, into, Selection::ALL.layers(first, len).tokens(1, 2)).unwrap();
            let mut slot = Memory::empty(into);
            slot.copy(&plan, &source);
            let wanted = |at: memory::At<'_>| {
                (first..first + len).contains(&index(at, L)) && (1..3).contains(&index(at, T))
            };
            assert_eq!(slot, Memory::some(into, 0, wanted), "{len} layers from {first}\n{from}\n{into}");
        }
    }
}

#[test]
fn a_list_of_token_rows_is_one_plan() {
    let pages = latent_pages(Axis::whole(L, 3), 32);
    let lists: [&[(u64, u64)]; 4] =
        [&[(5, 1)], &[(0, 1), (1, 1), (31, 1)], &[(2, 3), (7, 1), (20, 12)], &[(0, 4), (4, 28)]];
    for (from, into) in pairs(&pages, &pages) {
        let source = Memory::filled(from, 0);
        for ranges in lists {
            let plan = Plan::between_tokens(from, into, ranges, Selection::ALL).unwrap();
            let mut slot = Memory::empty(into);
            slot.copy(&plan, &source);
            let wanted = |at: memory::At<'_>| {
                let token = index(at, T);
                ranges.iter().any(|(first, n)| (*first..first + n).contains(&token))
            };
            assert_eq!(slot, Memory::some(into, 0, wanted), "{ranges:?}\n{from}\n{into}");
        }
    }
    let plan = |ranges: &[(u64, u64)]| Plan::between_tokens(&pages[0], &pages[1], ranges, Selection::ALL);
    assert_eq!(plan(&[(4, 2), (5, 1)]), Err(PlanError::Ranges { first: 5, end: 6 }));
    assert_eq!(plan(&[(4, 2), (0, 1)]), Err(PlanError::Ranges { first: 0, end: 6 }));
    assert_eq!(plan(&[]), Err(PlanError::Destination(SelectionError::Empty { axis: T })));
    assert!(matches!(plan(&[(30, 3)]), Err(PlanError::Destination(SelectionError::Range { .. }))));
    // A list of runs for each range, up to 16.
    let rows: Vec<_> = (0..16).map(|row| (2 * row, 1)).collect();
    assert_eq!(plan(&rows[..16]).map(|plan| plan.lists().len()), Ok(16));
    let split = Plan::between_tokens(&pages[3], &pages[0], &rows[..9], Selection::ALL);
    assert_eq!(split, Err(PlanError::TooMany), "two planes: 8 ranges");
}

/// What a page has once for all tokens comes once, with the first of the ranges.
#[test]
fn what_tokens_share_is_brought_once() {
    let axes = &[Axis::whole(L, 2), Axis::whole(T, 8)];
    let planes = &[PlaneDecl::of(&[LATENT]), PlaneDecl { fields: &[SCALE], order: Some(&[LAYER]) }];
    let from = page(axes, &[Level::Planes, TOKEN, LAYER], planes);
    let into = page(axes, &[Level::Planes, LAYER, TOKEN], planes);
    let plan = Plan::between_tokens(&from, &into, &[(1, 1), (4, 2)], Selection::ALL).unwrap();
    assert_eq!(plan.bytes(), 2 * (3 * 3 + 4));
    let (latent, scale) = (0, 1);
    let mut written = Vec::new();
    for piece in plan.iter() {
        written.extend((0..piece.len).map(|byte| piece.destination.offset + byte));
    }
    written.sort_unstable();
    let mut wanted = Vec::new();
    for layer in 0..2 {
        for token in [1, 4, 5] {
            let row = into.offset_of(latent, &[layer, token]).unwrap().offset;
            wanted.extend(row..row + 3);
        }
        let scales = into.offset_of(scale, &[layer, 0]).unwrap().offset;
        wanted.extend(scales..scales + 4);
    }
    wanted.sort_unstable();
    assert_eq!(written, wanted);
}

/// The stages that `counts` layers each make of their sum.
fn stages(counts: &[u64]) -> Vec<Axis> {
    let of = counts.iter().sum();
    let mut first = 0;
    let stages = counts.iter().map(|count| {
        first += count;
        Axis::stage(L, first - count, *count, of)
    });
    stages.collect()
}

#[test]
fn stages_of_a_pipeline_need_not_be_equally_long() {
    for counts in [&[7, 8][..], &[16, 15, 15, 15], &[1, 2, 3], &[4]] {
        let all = stages(counts);
        let of = counts.iter().sum();
        let wholes = latent_pages(Axis::whole(L, of), 3);
        // Each stage fills its part of the whole, whatever the order of either.
        for (form, into) in (0..wholes.len()).flat_map(|form| wholes.iter().map(move |into| (form, into))) {
            let mut slot = Memory::empty(into);
            for stage in &all {
                let from = latent_pages(*stage, 3)[form];
                let plan = Plan::between(&from, into, Selection::ALL).unwrap();
                slot.copy(&plan, &Memory::filled(&from, 0));
            }
            assert_eq!(slot, Memory::filled(into, 0), "{counts:?} layers");
            // And the whole gives each stage its part.
            let source = Memory::filled(into, 0);
            for stage in &all {
                let to = latent_pages(*stage, 3)[form];
                let mut slot = Memory::empty(&to);
                slot.copy(&Plan::between(into, &to, Selection::ALL).unwrap(), &source);
                assert_eq!(slot, Memory::filled(&to, 0));
            }
        }
    }
}

#[test]
fn a_pipeline_is_cut_otherwise() {
    let (from, into) = (stages(&[16, 15, 15, 15]), stages(&[31, 30]));
    for to in &into {
        let to = latent_pages(*to, 2)[1];
        let mut slot = Memory::empty(&to);
        let mut used = 0;
        for stage in &from {
            let page = latent_pages(*stage, 2)[0];
            match Plan::between(&page, &to, Selection::ALL) {
                Ok(plan) => {
                    slot.copy(&plan, &Memory::filled(&page, 0));
                    used += 1;
                }
                Err(PlanError::Apart { axis: L, .. }) => {}
                Err(error) => panic!("{error}"),
            }
        }
        assert_eq!((slot, used), (Memory::filled(&to, 0), 2));
    }
    // Equal stages are ranks as well.
    let quarter = Axis { extent: 4, ..Axis::sharded(L, 4, 4) };
    let quarter = latent_pages(quarter, 2)[0].at_rank(L, 2).unwrap();
    let stage = latent_pages(Axis::stage(L, 7, 9, 16), 2)[1];
    let plan = Plan::between(&quarter, &stage, Selection::ALL).unwrap();
    let mut slot = Memory::empty(&stage);
    slot.copy(&plan, &Memory::filled(&quarter, 0));
    assert_eq!(slot, Memory::some(&stage, 0, |at| (8..12).contains(&index(at, L))));
    // Stages of other wholes have nothing to do with each other.
    let other = latent_pages(Axis::stage(L, 7, 8, 15), 2)[1];
    assert_eq!(
        Plan::between(&stage, &other, Selection::ALL),
        Err(PlanError::Wholes { axis: L, source_total: 16, destination: 15 })
    );
}

#[test]
fn a_stage_has_an_identity_of_its_own() {
    let pages: Vec<_> =
        stages(&[16, 15, 15, 15]).iter().map(|stage| latent_pages(*stage, 4)[0].identity()).collect();
    for (i, page) in pages.iter().enumerate() {
        assert_eq!(page.undetermined(), None);
        assert_eq!(page.ranks(), []);
        for other in &pages[..i] {
            assert_ne!(page.fingerprint(), other.fingerprint());
            assert_ne!(page.fingerprint_of_any_rank(), other.fingerprint_of_any_rank());
        }
    }
    // The same place in other wholes, and a page that is said to be whole.
    let of = |of| latent_pages(Axis::stage(L, 0, 15, of), 4)[0].fingerprint();
    assert_ne!(of(15), of(61));
    assert_ne!(of(15), latent_pages(Axis::whole(L, 15), 4)[0].fingerprint());
    // A stage of sharded heads has both.
    let axes = &[Axis::stage(L, 7, 8, 15), Axis::sharded(H, 2, 4)];
    let rank = |rank| page(axes, &[LAYER, HEAD], &[PlaneDecl::of(&[K])]).at_rank(H, rank).unwrap().identity();
    assert_ne!(rank(0).fingerprint(), rank(1).fingerprint());
    assert_eq!(rank(0).fingerprint_of_any_rank(), rank(1).fingerprint_of_any_rank());
}

/// Grouped heads of `ranks` ranks in several orders, K and V as planes, as one row, as an axis.
fn head_pages(heads: u64, ranks: u32) -> Vec<Geometry> {
    let axes = &[Axis::whole(L, 2), Axis::whole(T, 3), Axis::sharded(H, heads / u64::from(ranks), ranks)];
    let with_part = &[axes[0], axes[1], axes[2], Axis::whole(AxisKind::Part, 2)];
    let planes = &[PlaneDecl::of(&[K]), PlaneDecl::of(&[V])];
    vec![
        page(axes, &[Level::RegionPlanes, LAYER, TOKEN, HEAD], planes),
        page(axes, &[Level::Regions(L), HEAD, TOKEN], &[PlaneDecl::of(&[K, V])]),
        page(with_part, &[TOKEN, Level::Axis(AxisKind::Part), HEAD, LAYER], &[PlaneDecl::of(&[KV])]),
        page(axes, &[Level::RegionPlanes, HEAD, TOKEN, LAYER], planes),
    ]
}

fn at(page: &Geometry, rank: u32) -> Geometry {
    page.at_rank(H, rank).unwrap()
}

/// Reads every page of the destination from the sources that hold a part of it, and returns how
/// many plans that took.
fn reshard(from: &Geometry, source_ranks: u32, into: &Geometry, destination_ranks: u32) -> u32 {
    let mut plans = 0;
    for rank in 0..destination_ranks {
        let to = at(into, rank);
        let mut slot = Memory::empty(&to);
        for source in 0..source_ranks {
            let page = at(from, source);
            match Plan::between(&page, &to, Selection::ALL) {
                Ok(plan) => {
                    slot.copy(&plan, &Memory::filled(&page, 0));
                    plans += 1;
                }
                Err(PlanError::Apart { axis: H, .. }) => {}
                Err(error) => panic!("{error}"),
            }
        }
        assert_eq!(slot, Memory::filled(&to, 0), "rank {rank} of {destination_ranks}");
    }
    plans
}

#[test]
fn heads_go_from_any_number_of_ranks_to_any_other() {
    for (source, destination, plans) in
        [(8, 1, 8), (1, 8, 8), (8, 2, 8), (2, 8, 8), (4, 8, 8), (8, 8, 8), (1, 1, 1), (2, 4, 4)]
    {
        let (from, into) = (head_pages(8, source), head_pages(8, destination));
        for (from, into) in pairs(&from, &into) {
            assert_eq!(reshard(from, source, into, destination), plans, "{source} -> {destination}");
        }
    }
}

/// 4 heads on 8 ranks: each head is on two of them, and comes from either. The pages are those of 4
/// ranks of one head, and engine rank `r` has the page of rank `r * 4 / 8`.
#[test]
fn heads_on_several_ranks_come_from_any_of_them() {
    let of_rank = |rank: u32| rank * 4 / 8;
    let held = head_pages(4, 4);
    for destination in [1_u32, 2, 4] {
        let wanted = head_pages(4, destination);
        for (from, into) in pairs(&held, &wanted) {
            for replica in 0..2 {
                for rank in 0..destination {
                    let to = at(into, rank);
                    let mut slot = Memory::empty(&to);
                    for engine in (0..8).filter(|engine| engine % 2 == replica) {
                        let page = at(from, of_rank(engine));
                        match Plan::between(&page, &to, Selection::ALL) {
                            Ok(plan) => slot.copy(&plan, &Memory::filled(&page, 0)),
                            Err(PlanError::Apart { axis: H, .. }) => {}
                            Err(error) => panic!("{error}"),
                        }
                    }
                    assert_eq!(slot, Memory::filled(&to, 0));
                }
            }
        }
    }
    // And back: two engine ranks read the same part of the whole.
    let whole = head_pages(4, 1);
    for (from, into) in pairs(&whole, &held) {
        let (from, parts) = (at(from, 0), [2, 3].map(|engine| at(into, of_rank(engine))));
        assert_eq!(parts[0].fingerprint(), parts[1].fingerprint());
        let mut slot = Memory::empty(&parts[0]);
        slot.copy(&Plan::between(&from, &parts[0], Selection::ALL).unwrap(), &Memory::filled(&from, 0));
        assert_eq!(slot, Memory::filled(&parts[1], 0));
    }
}

/// Every block of a row that both lengths divide is filled by its plans, and the plans of every
/// source block fill all of them again.
fn blocks(from: &Geometry, into: &Geometry) {
    let (s, d) = (from.extent(T), into.extent(T));
    let (sources, slots) = (d, s);
    let source: Vec<_> = (0..sources).map(|block| Memory::filled(from, block)).collect();
    let expected: Vec<_> = (0..slots).map(|block| Memory::filled(into, block)).collect();
    let mut again: Vec<_> = (0..slots).map(|_| Memory::empty(into)).collect();
    for block in 0..slots {
        let mut slot = Memory::empty(into);
        let mut next = block * d;
        for part in Plan::into_block(from, into, block, Selection::ALL).unwrap() {
            let part = part.unwrap();
            assert_eq!(part.destination_block, block);
            // The parts are the overlaps, in the order of the tokens.
            let (start, end) = (s * part.source_block, s * (part.source_block + 1));
            let len = end.min(d * (block + 1)) - next;
            let selections =
                (Selection::ALL.tokens(next - start, len), Selection::ALL.tokens(next - block * d, len));
            assert_eq!((part.source, part.destination), selections);
            next += len;
            slot.copy(&part.plan, &source[part.source_block as usize]);
        }
        assert_eq!(next, d * (block + 1), "no token is left out");
        assert_eq!(slot, expected[block as usize], "block {block} of {d} tokens, from blocks of {s}");
    }
    for block in 0..sources {
        for part in Plan::from_block(from, into, block, Selection::ALL).unwrap() {
            let part = part.unwrap();
            assert_eq!(part.source_block, block);
            again[part.destination_block as usize].copy(&part.plan, &source[block as usize]);
        }
    }
    assert_eq!(again, expected);
}

#[test]
fn blocks_of_any_two_lengths_fill_each_other() {
    for s in 1..=9 {
        for d in 1..=9 {
            let (from, into) = (latent_pages(Axis::whole(L, 2), s), latent_pages(Axis::whole(L, 2), d));
            for (form, other) in [(0, 1), (3, 4), (2, 3), (1, 1)] {
                blocks(&from[form], &into[other]);
            }
        }
    }
    for (s, d) in [(48, 64), (64, 48), (16, 24), (64, 256), (60, 64)] {
        let (from, into) = (latent_pages(Axis::whole(L, 1), s), latent_pages(Axis::whole(L, 1), d));
        blocks(&from[0], &into[3]);
    }
}

#[test]
fn blocks_of_some_tokens_and_of_other_ranks() {
    // Of a block of 64, 20 tokens from 30 on: tokens 94 to 113, of the second and the third block
    // of 48; and only the first layer.
    let (from, into) = (latent_pages(Axis::whole(L, 2), 48)[0], latent_pages(Axis::whole(L, 2), 64)[3]);
    let some = Selection::ALL.tokens(30, 20).layers(0, 1);
    let mut slot = Memory::empty(&into);
    let mut used = Vec::new();
    for part in Plan::into_block(&from, &into, 1, some).unwrap() {
        let part = part.unwrap();
        slot.copy(&part.plan, &Memory::filled(&from, part.source_block));
        used.push(part.source_block);
    }
    assert_eq!(used, [1, 2]);
    let wanted = |at: memory::At<'_>| (94..114).contains(&index(at, T)) && index(at, L) == 0;
    assert_eq!(slot, Memory::some(&into, 1, wanted));
    // Heads of other ranks come along: 2 tokens of all heads, 3 tokens of one rank's.
    let planes = &[PlaneDecl::of(&[K, V])];
    let from = page(&[Axis::whole(T, 2), Axis::sharded(H, 4, 1)], &[TOKEN, HEAD], planes);
    let into = page(&[Axis::whole(T, 3), Axis::sharded(H, 2, 2)], &[HEAD, TOKEN], planes);
    blocks(&at(&from, 0), &at(&into, 1));
    // States of several tokens.
    let states = |n, order: &[Level]| {
        let axes = &[Axis::whole(T, n)];
        let planes = &[PlaneDecl::of(&[LATENT]), PlaneDecl::of(&[SCALE])];
        Declaration { axes, order, planes, tokens_per_state: 4, ..Declaration::EMPTY }.expect()
    };
    let (from, into) = (states(6, &[Level::Planes, TOKEN]), states(4, &[Level::RegionPlanes, TOKEN]));
    let mut slot = Memory::empty(&into);
    let mut parts = Vec::new();
    for part in Plan::into_block(&from, &into, 1, Selection::ALL).unwrap() {
        let part = part.unwrap();
        slot.copy(&part.plan, &Memory::filled(&from, part.source_block));
        parts.push((part.source, part.destination));
    }
    assert_eq!(slot, Memory::filled(&into, 1));
    let tokens = |first, n| Selection::ALL.tokens(first, n);
    assert_eq!(parts, [(tokens(16, 8), tokens(0, 8)), (tokens(0, 8), tokens(8, 8))]);
}

#[test]
fn blocks_that_cannot_be_are_refused() {
    let (from, into) = (latent_pages(Axis::whole(L, 2), 48)[0], latent_pages(Axis::whole(L, 2), 64)[0]);
    let far = u64::MAX / 64;
    assert!(matches!(
        Plan::into_block(&from, &into, far, Selection::ALL),
        Err(PlanError::FarBlock { extent: 64, .. })
    ));
    assert!(matches!(
        Plan::from_block(&from, &into, far, Selection::ALL),
        Err(PlanError::FarBlock { extent: 48, .. })
    ));
    let error = Plan::between_token_blocks(&from, 0, &into, far, Selection::ALL).unwrap_err();
    assert_eq!((error.code(), error), (1125, PlanError::FarBlock { block: far, extent: 64 }));
    assert!(matches!(
        Plan::between_token_blocks(&from, 0, &into, 1, Selection::ALL),
        Err(PlanError::Apart { axis: T, source_start: 0, source_end: 48, start: 64, end: 128 })
    ));
    // Pages that no plan brings together: every part says why.
    let other = page(&[Axis::whole(T, 64)], &[TOKEN], &[PlaneDecl::of(&[K])]);
    let parts: Vec<_> = Plan::into_block(&from, &other, 0, Selection::ALL).unwrap().collect();
    assert_eq!(parts.len(), 2);
    assert!(parts.iter().all(|part| matches!(part, Err(PlanError::Unrelated { axis: L, .. }))));
}
