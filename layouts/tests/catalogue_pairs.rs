//! Every layout of the catalogue into every other: there is a plan exactly if a copy can do it, and
//! the plan brings every byte to its place. The bytes are compared in real memory with a copy that
//! goes row by row through the indices of both pages.

use std::collections::{BTreeMap, BTreeSet};

use kvrail_layouts::plan::{Plan, PlanError};
use kvrail_layouts::{Axis, AxisKind, Geometry, Selection, Spread, catalogue};

/// What is in memory before anything is written.
const UNTOUCHED: u8 = 0xa5;

/// The regions of a page, to which nothing was written.
fn untouched(page: &Geometry) -> Vec<Vec<u8>> {
    let len = |region| usize::try_from(page.region_bytes(region).unwrap()).unwrap();
    (0..page.regions()).map(|region| vec![UNTOUCHED; len(region)]).collect()
}

/// Numbers without an order, so that a byte in a wrong place is another byte.
fn noise(page: &Geometry) -> Vec<Vec<u8>> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut memory = untouched(page);
    for region in &mut memory {
        for word in region.chunks_mut(8) {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            word.copy_from_slice(&state.to_le_bytes()[..word.len()]);
        }
    }
    memory
}

/// The axes along which a page has several indices or holds a part.
fn axes(page: &Geometry) -> Vec<Axis> {
    let listed = |axis: &&Axis| axis.extent > 1 || matches!(axis.spread, Spread::Sharded { .. });
    page.axes().iter().filter(listed).copied().collect()
}

/// Whether the bytes of one page are those of the other in some order, by what the pages say about
/// their fields and axes. (The catalogue has K and V as fields, and every field along every axis.)
fn can_be_copied(source: &Geometry, destination: &Geometry) -> bool {
    let fields = |page: &Geometry| {
        page.fields()
            .iter()
            .map(|field| (field.name(), (field.kind() as u8, field.count())))
            .collect::<BTreeMap<_, _>>()
    };
    fields(source) == fields(destination)
        && axes(source) == axes(destination)
        && source.tokens_per_state() == destination.tokens_per_state()
        && source.version() == destination.version()
        && (source.swizzle(), destination.swizzle()) == (0, 0)
}

/// Copies row by row: each field at each index.
fn copy(source: &Geometry, from: &[Vec<u8>], destination: &Geometry, into: &mut [Vec<u8>]) {
    for (to, field) in destination.fields().iter().enumerate() {
        let at = source.field_named(field.name()).unwrap();
        let axes = destination.axes();
        let mut index = vec![0; axes.len()];
        loop {
            let of = |kind: AxisKind| {
                axes.iter().zip(&index).find(|(axis, _)| axis.kind == kind).map_or(0, |(_, index)| *index)
            };
            let indices: Vec<_> = source.axes().iter().map(|axis| of(axis.kind)).collect();
            let a = source.offset_of(at, &indices).unwrap();
            let b = destination.offset_of(to, &index).unwrap();
            let (a_at, b_at, len) = (a.offset as usize, b.offset as usize, field.bytes() as usize);
            into[b.region as usize][b_at..b_at + len]
                .copy_from_slice(&from[a.region as usize][a_at..a_at + len]);
            let Some(turn) = (0..index.len()).rev().find(|a| index[*a] + 1 < axes[*a].extent) else { break };
            index[turn] += 1;
            index[turn + 1..].fill(0);
        }
    }
}

fn follow(plan: &Plan, from: &[Vec<u8>], into: &mut [Vec<u8>]) {
    for piece in plan.iter() {
        let (a, b) = (piece.source.offset as usize, piece.destination.offset as usize);
        let len = piece.len as usize;
        into[piece.destination.region as usize][b..b + len]
            .copy_from_slice(&from[piece.source.region as usize][a..a + len]);
    }
}

#[test]
fn every_pair_has_a_right_plan_or_a_reason() {
    let (mut plans, mut reasons) = (BTreeSet::new(), BTreeMap::<u32, u32>::new());
    for (from, source) in catalogue::all() {
        let mut memory = None;
        for (to, destination) in catalogue::all() {
            let possible = can_be_copied(source, destination);
            match Plan::between(source, destination, Selection::ALL) {
                Ok(plan) => {
                    assert!(possible, "{from} into {to}: {plan}");
                    let memory = memory.get_or_insert_with(|| noise(source));
                    let (mut found, mut expected) = (untouched(destination), untouched(destination));
                    follow(&plan, memory, &mut found);
                    copy(source, memory, destination, &mut expected);
                    assert!(found == expected, "{from} into {to}: {plan}");
                    // As many bytes as there are, so none is written twice.
                    assert_eq!(plan.bytes(), destination.payload_bytes(), "{from} into {to}");
                    plans.insert((from, to));
                }
                Err(error) => {
                    assert!(!possible, "{from} into {to}: {error}");
                    assert!(is_true(error, source, destination), "{from} into {to}: {error}");
                    *reasons.entry(error.code()).or_default() += 1;
                }
            }
        }
    }
    // Pages of one content in other orders, both ways, and every page into itself but for the one
    // that is swizzled.
    let groups: [&[&str]; 6] = [
        &[
            "sgl_mla_page_first",
            "sgl_mla_page_first_direct",
            "sgl_mla_layer_first",
            "sgl_mla_page_first_kv_split",
        ],
        &["sgl_llama3_8b_page_first", "sgl_llama3_8b_page_first_direct", "sgl_llama3_8b_page_unified"],
        &["vllm_llama3_8b_lbnhc", "vllm_llama3_8b_lbhnc", "vllm_llama3_8b_blhnc"],
        &["vllm_v41", "sgl_v41"],
        &["vllm_v41_fp4", "sgl_v41_fp4"],
        &["vllm_fp8_ds_mla"],
    ];
    let mut expected: BTreeSet<_> = catalogue::all().map(|(name, _)| (name, name)).collect();
    expected.remove(&("vllm_nvfp4_ds_mla", "vllm_nvfp4_ds_mla"));
    for group in groups {
        expected.extend(group.iter().flat_map(|from| group.iter().map(move |to| (*from, *to))));
    }
    assert_eq!(plans, expected);
    let refused: u32 = reasons.values().sum();
    let all = catalogue::all().count();
    assert_eq!(refused as usize, all * all - plans.len());
    assert!(reasons.len() >= 5, "other reasons for other pages: {reasons:?}");
}

/// Whether a reason is one: the two pages differ in what it says.
fn is_true(error: PlanError, source: &Geometry, destination: &Geometry) -> bool {
    let field = |page: &Geometry, name| page.field_named(name).map(|f| page.fields()[f]);
    match error {
        PlanError::Swizzle { source_tag, destination: tag } => {
            (source_tag, tag) == (source.swizzle(), destination.swizzle()) && (source_tag, tag) != (0, 0)
        }
        PlanError::TokensPerState { source_tokens, destination: tokens } => {
            source_tokens != tokens
                && (source_tokens, tokens) == (source.tokens_per_state(), destination.tokens_per_state())
        }
        PlanError::NoField { field: name } => field(source, name).is_none(),
        PlanError::LeftOver { field: name } => field(destination, name).is_none(),
        PlanError::ElementKind { field: name, source_kind, destination: kind } => {
            source_kind != kind
                && field(source, name).map(|field| field.kind()) == Some(source_kind)
                && field(destination, name).map(|field| field.kind()) == Some(kind)
        }
        PlanError::Count { field: name, source_count, destination: count } => {
            source_count != count
                && field(source, name).map(|field| field.count()) == Some(source_count)
                && field(destination, name).map(|field| field.count()) == Some(count)
        }
        PlanError::Unrelated { axis, source_extent, destination: extent } => {
            (source_extent, extent) == (source.extent(axis), destination.extent(axis))
                && axes(source).iter().find(|a| a.kind == axis)
                    != axes(destination).iter().find(|a| a.kind == axis)
        }
        _ => false,
    }
}

/// Blocks of other lengths within the catalogue: pages of SGLang fill chunks of LMCache, blocks of
/// vLLM fill both, and chunks give them back.
#[test]
fn pages_of_one_engine_fill_blocks_of_another() {
    use kvrail_layouts::KvLayout;
    use kvrail_layouts::catalogue::{
        LmcLlama3_8b, LmcMla, SglLlama3_8bPageUnified, SglMlaPageFirst, SglMlaPageFirstKvSplit,
        TrtllmLlama3_8b, VllmLlama3_8bBlhnc, VllmLlama3_8bLbnhc,
    };
    let pairs = [
        (SglMlaPageFirst::GEOMETRY, LmcMla::GEOMETRY),
        (LmcMla::GEOMETRY, SglMlaPageFirstKvSplit::GEOMETRY),
        (VllmLlama3_8bBlhnc::GEOMETRY, TrtllmLlama3_8b::GEOMETRY),
        (TrtllmLlama3_8b::GEOMETRY, SglLlama3_8bPageUnified::GEOMETRY),
        (LmcLlama3_8b::GEOMETRY, VllmLlama3_8bLbnhc::GEOMETRY),
    ];
    for (source, destination) in pairs {
        let (s, d) = (source.tokens(), destination.tokens());
        // The last block of the destination that one block of the larger of the two has.
        let block = s.max(d) / d - 1;
        let mut found = untouched(destination);
        let (mut bytes, memory) = (0, noise(source));
        for part in Plan::into_block(source, destination, block, Selection::ALL).unwrap() {
            let part = part.unwrap();
            let mut now = untouched(destination);
            follow(&part.plan, &memory, &mut now);
            follow(&part.plan, &memory, &mut found);
            bytes += part.plan.bytes();
            check_part(source, &memory, destination, &now, (s * part.source_block, d * block));
        }
        assert_eq!(bytes, destination.payload_bytes());
        // One byte in 256 is the one that says that nothing was written.
        let written = |region: &Vec<u8>| region.iter().filter(|byte| **byte != UNTOUCHED).count() as u64;
        assert!(found.iter().map(written).sum::<u64>() > bytes / 64 * 63);
    }
}

/// Every row of the destination is the row of the same token in the source, if the source has that,
/// and untouched otherwise. `begin` are the tokens at which the two blocks begin.
fn check_part(
    source: &Geometry,
    from: &[Vec<u8>],
    destination: &Geometry,
    into: &[Vec<u8>],
    begin: (u64, u64),
) {
    let token = destination.axis_index(AxisKind::Token).unwrap();
    for (to, field) in destination.fields().iter().enumerate() {
        let axes = destination.axes();
        assert!(axes.iter().zip(source.axes()).all(|(a, b)| a.kind == b.kind));
        let mut index = vec![0; axes.len()];
        loop {
            let b = destination.offset_of(to, &index).unwrap();
            let (b_at, len) = (b.offset as usize, field.bytes() as usize);
            let row = &into[b.region as usize][b_at..b_at + len];
            let mut at = index.clone();
            let there = (begin.1 + index[token]).checked_sub(begin.0).filter(|at| *at < source.tokens());
            match there {
                Some(there) => {
                    at[token] = there;
                    let a = source.offset_of(source.field_named(field.name()).unwrap(), &at).unwrap();
                    let a_at = a.offset as usize;
                    assert!(row == &from[a.region as usize][a_at..a_at + len], "{} {index:?}", field.name());
                }
                None => assert!(row.iter().all(|byte| *byte == UNTOUCHED)),
            }
            let Some(turn) = (0..index.len()).rev().find(|a| index[*a] + 1 < axes[*a].extent) else { break };
            index[turn] += 1;
            index[turn + 1..].fill(0);
        }
    }
}
