//! Copy plans: known numbers of pieces and runs, random pairs of layouts against an oracle, and
//! layouts between which no copy is possible.
#![allow(missing_docs, unreachable_pub, reason = "tests")]

mod pairs;
#[path = "common/regressions.rs"]
mod regressions;
#[path = "common/seeds.rs"]
mod seeds;

use kvrail_layouts::plan::{CutError, Limits, Plan, PlanError};
use kvrail_layouts::{
    Axis, AxisKind, Declaration, ElementKind, FieldDecl, Geometry, Level, PlaneDecl, Selection,
};
use pairs::{Dice, Pair};
use proptest::prelude::*;

const L: AxisKind = AxisKind::Layer;
const T: AxisKind = AxisKind::Token;
const H: AxisKind = AxisKind::Head;
const O: AxisKind = AxisKind::Part;
const LAYER: Level = Level::Axis(L);
const TOKEN: Level = Level::Axis(T);
const HEAD: Level = Level::Axis(H);
const PART: Level = Level::Axis(O);

const LATENT: FieldDecl = FieldDecl::new("latent", ElementKind::Bf16, 512);
const ROPE: FieldDecl = FieldDecl::new("rope", ElementKind::Bf16, 64);
const K: FieldDecl = FieldDecl::new("k", ElementKind::Bf16, 128);
const V: FieldDecl = FieldDecl::new("v", ElementKind::Bf16, 128);
const KV: FieldDecl = FieldDecl::new("kv", ElementKind::Bf16, 128);

/// MLA in bf16, 61 layers of 64 tokens.
const fn mla(order: &[Level]) -> Geometry {
    Declaration {
        axes: &[Axis::whole(L, 61), Axis::whole(T, 64)],
        order,
        planes: &[PlaneDecl::of(&[LATENT, ROPE])],
        ..Declaration::EMPTY
    }
    .expect()
}

/// GQA, 32 layers of 16 tokens and 8 heads of 128; K and V as objects.
const fn gqa(order: &[Level], head: Axis) -> Geometry {
    Declaration {
        axes: &[Axis::whole(L, 32), Axis::whole(T, 16), head],
        order,
        planes: &[PlaneDecl::of(&[K]), PlaneDecl::of(&[V])],
        ..Declaration::EMPTY
    }
    .expect()
}

/// The same with K and V along an axis, as the engines' device pools have it: one region a layer.
const fn pool(order: &[Level], head: Axis) -> Geometry {
    Declaration {
        axes: &[Axis::whole(L, 32), Axis::whole(T, 16), Axis::whole(O, 2), head],
        order,
        planes: &[PlaneDecl::of(&[KV])],
        ..Declaration::EMPTY
    }
    .expect()
}

const POOL: Geometry = mla(&[Level::Regions(L), TOKEN]);
const PAGE_FIRST: Geometry = mla(&[TOKEN, LAYER]);
const PAGE_FIRST_DIRECT: Geometry = mla(&[LAYER, TOKEN]);
const HEADS: Axis = Axis::whole(H, 8);
const NHD: Geometry = pool(&[Level::Regions(L), PART, TOKEN, HEAD], HEADS);

const fn half(geometry: Geometry, rank: u32) -> Geometry {
    match geometry.at_rank(H, rank) {
        Ok(geometry) => geometry,
        Err(_) => panic!("2 ranks"),
    }
}

const TP1: Axis = Axis::sharded(H, 8, 1);
const TP2: Axis = Axis::sharded(H, 4, 2);

#[track_caller]
fn check(source: &Geometry, destination: &Geometry, n: u64, run: u64, runs: u64) -> Plan {
    let plan = Plan::between(source, destination, Selection::ALL).unwrap();
    assert_eq!(plan.runs(), runs, "{plan}");
    assert_eq!((plan.pieces(), plan.longest_piece(), plan.shortest_piece()), (n, run, run), "{plan}");
    assert_eq!(plan.bytes(), n * run);
    plan
}

#[test]
fn plans_have_the_pieces_and_runs_of_the_book() {
    let plan = check(&POOL, &PAGE_FIRST, 3_904, 1_152, 61);
    assert_eq!(plan.sges(), 64, "the source is dense within a layer");
    check(&POOL, &PAGE_FIRST_DIRECT, 61, 73_728, 61);
    let plan = check(&PAGE_FIRST, &PAGE_FIRST_DIRECT, 3_904, 1_152, 1);
    assert_eq!(plan.sges(), 3_904);
    check(&PAGE_FIRST, &PAGE_FIRST, 1, 4_497_408, 1);

    let page_first = gqa(&[Level::RegionPlanes, TOKEN, LAYER, HEAD], HEADS);
    let direct = gqa(&[Level::RegionPlanes, LAYER, TOKEN, HEAD], HEADS);
    check(&NHD, &page_first, 1_024, 2_048, 64);
    check(&NHD, &direct, 64, 32_768, 64);

    for rank in 0..2 {
        let nhd = &[Level::Regions(L), PART, TOKEN, HEAD][..];
        let (whole, half_of) = (half(pool(nhd, TP1), 0), half(pool(nhd, TP2), rank));
        let plan = check(&whole, &half_of, 1_024, 1_024, 1_024);
        assert_eq!(
            plan.run(0).unwrap().source().offset,
            u64::from(rank) * 4 * 256,
            "rank mod r, times H, times the stride"
        );
        let hnd = &[Level::RegionPlanes, Level::Regions(L), HEAD, TOKEN][..];
        check(&half(gqa(hnd, TP1), 0), &half(gqa(hnd, TP2), rank), 64, 16_384, 64);
    }
}

#[test]
fn a_plan_of_static_layouts_is_a_constant() {
    const PLAN: Plan = Plan::expect(Plan::between(&POOL, &PAGE_FIRST, Selection::ALL));
    const LAYER_7: Plan = match PLAN.only(7, 0) {
        Some(plan) => plan,
        None => panic!("layer 7"),
    };
    const WRS: u32 = match LAYER_7.cut(Limits { sges: 16, bytes: 256 << 10 }) {
        Ok(cut) => cut.wrs(),
        Err(_) => panic!("a page"),
    };
    assert_eq!((LAYER_7.runs(), LAYER_7.pieces(), WRS), (1, 64, 4));
    assert_eq!(LAYER_7.run(0).unwrap().piece(3).unwrap().destination.offset, (3 * 61 + 7) * 1_152);
}

#[test]
fn heads_are_re_sharded_either_way() {
    // Four source ranks of 2 heads, two destination ranks of 4: each destination page comes from
    // two.
    let order = &[Level::RegionPlanes, LAYER, TOKEN, HEAD][..];
    let (from, into) = (Axis::sharded(H, 2, 4), Axis::sharded(H, 4, 2));
    let to = half(gqa(order, into), 1);
    let plan = |rank| Plan::between(&half(gqa(order, from), rank), &to, Selection::ALL);
    assert!(matches!(
        plan(1),
        Err(PlanError::Apart { axis: H, source_start: 2, source_end: 4, start: 4, end: 8 })
    ));
    for (rank, head) in [(2, 0), (3, 2)] {
        let plan = plan(rank).unwrap();
        assert_eq!((plan.pieces(), plan.longest_piece()), (2 * 32 * 16, 512));
        assert_eq!(plan.run(0).unwrap().piece(0).unwrap().destination.offset, head * 256);
    }
}

#[test]
fn blocks_change_their_size_either_way() {
    const fn tokens(n: u64) -> Geometry {
        Declaration {
            axes: &[Axis::whole(L, 61), Axis::whole(T, n)],
            order: &[LAYER, TOKEN],
            planes: &[PlaneDecl::of(&[LATENT, ROPE])],
            ..Declaration::EMPTY
        }
        .expect()
    }
    let (small, large) = (tokens(16), tokens(64));
    for block in 0..4 {
        let plan = Plan::between_blocks(&small, &large, &[(T, block)], Selection::ALL).unwrap();
        assert_eq!((plan.pieces(), plan.runs(), plan.longest_piece()), (61, 1, 16 * 1_152));
        assert_eq!(plan.run(0).unwrap().piece(0).unwrap().destination.offset, block * 16 * 1_152);
        let plan = Plan::between_blocks(&large, &small, &[(T, block)], Selection::ALL).unwrap();
        assert_eq!((plan.pieces(), plan.runs(), plan.longest_piece()), (61, 61, 16 * 1_152));
        assert_eq!(plan.run(1).unwrap().source().offset, (64 + block * 16) * 1_152);
    }
    let wrong = Plan::between_blocks(&small, &large, &[(T, 4)], Selection::ALL);
    assert_eq!(wrong, Err(PlanError::Block { axis: T, block: 4, smaller: 16, larger: 64 }));
    let odd = Plan::between_blocks(&tokens(24), &large, &[(T, 0)], Selection::ALL);
    assert_eq!(odd, Err(PlanError::Block { axis: T, block: 0, smaller: 24, larger: 64 }));
}

#[test]
fn footers_travel_with_the_page_and_padding_does_not() {
    const fn v4(states: u64) -> Geometry {
        Declaration {
            axes: &[Axis::whole(T, states)],
            order: &[Level::Pad(576), Level::Planes, TOKEN],
            planes: &[
                PlaneDecl::of(&[
                    FieldDecl::new("latent", ElementKind::E4m3, 448),
                    FieldDecl::new("rope", ElementKind::Bf16, 64),
                ]),
                PlaneDecl::of(&[
                    FieldDecl::new("scales", ElementKind::Ue8m0, 7),
                    FieldDecl::new("unused", ElementKind::U8, 1),
                ]),
            ],
            tokens_per_state: 4,
            ..Declaration::EMPTY
        }
        .expect()
    }
    assert_eq!(v4(64).page_bytes(), 37_440);
    check(&v4(64), &v4(64), 1, 37_376, 1);
    // Another block size: two runs for each source block.
    let plan = Plan::between_blocks(&v4(16), &v4(64), &[(T, 3)], Selection::ALL).unwrap();
    let pieces: Vec<_> = plan.iter().map(|p| (p.source.offset, p.destination.offset, p.len)).collect();
    assert_eq!(pieces, [(0, 3 * 16 * 576, 16 * 576), (16 * 576, 64 * 576 + 3 * 16 * 8, 16 * 8)]);
}

fn one(fields: &[FieldDecl]) -> Declaration<'_> {
    // The slice lives as long as the declaration.
    Declaration {
        axes: &[],
        order: &[],
        planes: Box::leak(Box::new([PlaneDecl::of(fields)])),
        ..Declaration::EMPTY
    }
}

#[test]
fn layouts_that_need_more_than_a_copy_are_refused_by_name() {
    let plan = |from: &Declaration<'_>, to: &Declaration<'_>| {
        Plan::between(&from.expect(), &to.expect(), Selection::ALL).unwrap_err().to_string()
    };
    let bf16 = [FieldDecl::new("latent", ElementKind::Bf16, 512)];
    let fp8 = [FieldDecl::new("latent", ElementKind::E4m3, 512)];
    let (from, to) = (one(&bf16), one(&fp8));
    assert_eq!(
        plan(&from, &to),
        "`latent` is Bf16 at the source and E4m3 at the destination: quantisation is a kernel's work"
    );
    let (coarse, fine) =
        ([FieldDecl::new("scale", ElementKind::F32, 4)], [FieldDecl::new("scale", ElementKind::F32, 8)]);
    assert_eq!(
        plan(&one(&coarse), &one(&fine)),
        "`scale` has 4 elements in a row at the source and 8 at the destination: re-tiling is a kernel's work"
    );
    let swizzled = Declaration { swizzle: 7, ..from };
    assert_eq!(
        plan(&swizzled, &swizzled),
        "swizzled pages (source tag 7, destination tag 7) cannot be cut up: read them whole, without a plan, where the layouts are equal"
    );
    let states = Declaration { tokens_per_state: 4, ..from };
    assert_eq!(
        plan(&states, &from),
        "one state stands for 4 tokens at the source and for 1 at the destination: no copy makes one from the other"
    );
    let newer = Declaration { version: 2, ..from };
    assert!(
        plan(&from, &newer).starts_with("the source is version 0 of its layout, the destination version 2")
    );
    let more = [bf16[0], coarse[0]];
    assert!(plan(&from, &one(&more)).starts_with("the destination wants `scale`"));
    assert!(
        plan(&one(&more), &from).starts_with("the source has `scale`, and the destination no such field")
    );
    // A field that the selection leaves out may be lost.
    let some =
        Plan::between(&one(&more).expect(), &one(&more).expect(), Selection::ALL.field("scale")).unwrap();
    assert_eq!(some.bytes(), 16);
    // Pages that are not known to be parts of one whole have no plan: no rank, or no block, is
    // given.
    let heads = |head| gqa(&[Level::Planes, LAYER, TOKEN, HEAD], head);
    assert_eq!(
        Plan::between(&heads(TP1), &heads(TP2), Selection::ALL),
        Err(PlanError::Unrelated { axis: H, source_extent: 8, destination: 4 })
    );
    assert_eq!(
        Plan::between(&half(heads(Axis::sharded(H, 8, 2)), 0), &half(heads(TP2), 0), Selection::ALL),
        Err(PlanError::Wholes { axis: H, source_total: 16, destination: 8 })
    );
    let strided = mla(&[Level::Strided(L), TOKEN]);
    assert!(matches!(Plan::between(&strided, &PAGE_FIRST, Selection::ALL), Err(PlanError::Source(_))));
    assert!(matches!(
        Plan::between(&PAGE_FIRST, &PAGE_FIRST, Selection::ALL.layers(60, 2)),
        Err(PlanError::Destination(_))
    ));
}

#[test]
fn any_selection_goes_into_any_other_of_its_shape() {
    let source = PAGE_FIRST.select(Selection::ALL.layers(3, 2).tokens(0, 8)).unwrap();
    let destination = PAGE_FIRST_DIRECT.select(Selection::ALL.layers(10, 2).tokens(32, 8)).unwrap();
    let plan = Plan::of(&source, &destination).unwrap();
    let first = plan.iter().next().unwrap();
    assert_eq!((first.source.offset, first.destination.offset), (3 * 1_152, (10 * 64 + 32) * 1_152));
    assert_eq!(plan.bytes(), 2 * 8 * 1_152);
    let other = PAGE_FIRST.select(Selection::ALL.layers(3, 4).tokens(0, 4)).unwrap();
    assert_eq!(
        Plan::of(&other, &destination),
        Err(PlanError::Extent { axis: L, source_len: 4, destination: 2 })
    );
    let latent = PAGE_FIRST.select(Selection::ALL.layers(3, 2).tokens(0, 8).field("latent")).unwrap();
    assert!(matches!(Plan::of(&latent, &destination), Err(PlanError::NoField { field: "rope" })));
}

#[test]
fn a_plan_is_cut_within_the_limits_of_a_device() {
    let plan = Plan::between(&PAGE_FIRST, &PAGE_FIRST_DIRECT, Selection::ALL).unwrap();
    let wrs = |sges, bytes| plan.cut(Limits { sges, bytes }).unwrap().wrs();
    assert_eq!(wrs(1, 256 << 10), 3_904);
    assert_eq!(wrs(30, 256 << 10), 3_904_u32.div_ceil(30));
    assert_eq!(wrs(30, 4_096), 3_904_u32.div_ceil(3), "3 pieces of 1,152 are what 4,096 bytes hold");
    assert_eq!(wrs(30, 1_000), 2 * 3_904, "a piece above the limit is cut by itself");
    assert_eq!(plan.cut(Limits { sges: 0, bytes: 1 }), Err(CutError::Limits { bytes: 1, sges: 0 }));
    assert_eq!(plan.cut(Limits { sges: 1, bytes: 1 }), Err(CutError::TooMany(4_497_408)));
    let pool = Plan::between(&POOL, &PAGE_FIRST, Selection::ALL).unwrap();
    assert_eq!(pool.cut(Limits { sges: 1, bytes: 4_096 }), Err(CutError::Regions));
    let far = mla(&[Level::Strided(L), TOKEN]).place().stride(0, L, 1 << 30).finish().unwrap();
    let far = Plan::between(&far, &PAGE_FIRST, Selection::ALL).unwrap();
    assert_eq!(far.cut(Limits { sges: 1, bytes: 4_096 }), Err(CutError::TooFar((60 << 30) + 73_728)));
}

#[test]
fn a_plan_costs_what_its_lists_cost() {
    // A plan costs as much as its loops, however many runs they make: 3,904 runs are two loops.
    let plan = Plan::between(&POOL, &PAGE_FIRST, Selection::ALL).unwrap();
    assert_eq!(plan.lists().len(), 1);
    assert!(size_of::<Plan>() <= 8 << 10, "{}", size_of::<Plan>());
}

/// Inputs that failed once, and are tried first from then on. To be committed.
const REGRESSIONS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/proptest-regressions/plan.txt");

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 4_000,
        failure_persistence: regressions::at(REGRESSIONS, seeds::sources),
        ..ProptestConfig::default()
    })]

    #[test]
    fn every_wanted_byte_is_written_once_and_from_the_right_place(bytes in prop::collection::vec(any::<u8>(), 96)) {
        let mut dice = Dice(&bytes);
        if let Some(pair) = Pair::draw(&mut dice) {
            pair.check(&mut dice);
        }
    }
}

#[test]
fn random_pairs_give_plans_and_refusals() {
    seeds::each("random_pairs_give_plans_and_refusals", 1..2, |seed| {
        let (mut plans, mut none) = (0, 0);
        let mut state = seed;
        for _ in 0..2_000 {
            let bytes: Vec<u8> = (0..96)
                .map(|_| {
                    state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    (state >> 56) as u8
                })
                .collect();
            let mut dice = Dice(&bytes);
            match Pair::draw(&mut dice) {
                Some(pair) if pair.check(&mut dice) => plans += 1,
                Some(_) => none += 1,
                None => {}
            }
        }
        assert!(plans > 1_000 && none > 100, "{plans} plans, {none} pairs without one");
    });
}

/// Blocks of which neither divides the other: 48 tokens and 64. Where a block of each overlap, a
/// selection of each side says which tokens these are; the plans together write every byte of the
/// destination once.
#[test]
fn blocks_that_do_not_divide_are_planned_by_their_overlaps() {
    let page = |tokens, order: &[Level]| {
        Declaration {
            axes: &[Axis::whole(L, 3), Axis::whole(T, tokens)],
            order,
            planes: &[PlaneDecl::of(&[LATENT, ROPE])],
            ..Declaration::EMPTY
        }
        .expect()
    };
    let (from, to) = (page(48, &[TOKEN, LAYER]), page(64, &[LAYER, TOKEN]));
    assert!(matches!(
        Plan::between_blocks(&from, &to, &[(T, 0)], Selection::ALL),
        Err(PlanError::Block { smaller: 48, larger: 64, .. })
    ));
    let mut written = vec![vec![0_u8; to.page_bytes() as usize]; 3];
    let mut sources = [Vec::new(), Vec::new(), Vec::new()];
    for (block, written) in (0..).zip(&mut written) {
        let (start, end) = (64 * block, 64 * (block + 1));
        for source in start / 48..=(end - 1) / 48 {
            let (first, last) = (start.max(48 * source), end.min(48 * (source + 1)));
            let some = Selection::ALL.tokens(first - 48 * source, last - first);
            let into = Selection::ALL.tokens(first - start, last - first);
            let plan = Plan::of(&from.select(some).unwrap(), &to.select(into).unwrap()).unwrap();
            for piece in plan.iter() {
                // Which token and layer the bytes are of, by either side.
                let row = |offset: u64| offset / 1_152;
                let (token, layer) =
                    (48 * source + row(piece.source.offset) / 3, row(piece.source.offset) % 3);
                let to = row(piece.destination.offset);
                assert_eq!((start + to % 64, to / 64), (token, layer));
                let at = piece.destination.offset as usize;
                written[at..][..piece.len as usize].iter_mut().for_each(|byte| *byte += 1);
            }
            sources[block as usize].push(source);
        }
    }
    assert_eq!(sources, [vec![0, 1], vec![1, 2], vec![2, 3]]);
    assert!(written.iter().flatten().all(|&byte| byte == 1));
}

/// More tensor-parallel ranks than KV heads: each head is on several ranks. The heads are
/// sharded, so there are as many ranks as heads, and several engine ranks have one of these ranks.
#[test]
fn replicated_heads_are_ranks_of_one_head_each() {
    let (tensor_parallel, heads) = (16, 4_u32);
    let order = [TOKEN, HEAD];
    let declaration = pool_of_heads(&order, Axis::sharded(H, 1, heads));
    let whole = pool_of_heads(&order, Axis::whole(H, heads.into()));
    for rank in 0..tensor_parallel {
        let head = rank * heads / tensor_parallel;
        let page = declaration.at_rank(H, head).unwrap();
        let plan = Plan::between(&whole, &page, Selection::ALL).unwrap();
        assert_eq!(plan.iter().next().unwrap().source.offset, u64::from(head) * 256);
        assert_eq!(page.identity().undetermined(), None);
    }
}

fn pool_of_heads(order: &[Level], head: Axis) -> Geometry {
    Declaration {
        axes: &[Axis::whole(T, 16), head],
        order,
        planes: &[PlaneDecl::of(&[K])],
        ..Declaration::EMPTY
    }
    .expect()
}

/// A plan knows the pages at both of its ends, at their ranks, and which region of each it goes
/// between.
#[test]
fn a_plan_knows_both_of_its_ends() {
    let regions = mla(&[Level::Regions(L), TOKEN]);
    let plan = Plan::between(&regions, &mla(&[TOKEN, LAYER]), Selection::ALL).unwrap();
    assert_eq!(*plan.source(), regions.identity());
    assert_eq!(*plan.destination(), mla(&[TOKEN, LAYER]).identity());
    assert_eq!(plan.between_regions(), None);
    assert_eq!(plan.only(7, 0).unwrap().between_regions(), Some((7, 0)));
    assert_eq!(*plan.only(7, 0).unwrap().source(), regions.identity());
    let layer = Plan::between(&regions, &mla(&[TOKEN, LAYER]), Selection::ALL.layers(9, 1)).unwrap();
    assert_eq!(layer.between_regions(), Some((9, 0)));
    // The same loops, of other pages.
    let other = |version| {
        let page = Declaration {
            axes: &[Axis::whole(T, 4)],
            order: &[TOKEN],
            planes: &[PlaneDecl::of(&[K])],
            version,
            ..Declaration::EMPTY
        }
        .expect();
        Plan::between(&page, &page, Selection::ALL).unwrap()
    };
    assert_eq!(other(1).lists(), other(2).lists());
    assert_ne!(other(1), other(2));
}
