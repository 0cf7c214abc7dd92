//! The layouts of the catalogue as of vLLM 0.33.0, SGLang 0.5.23 and LMCache 0.5.6: every field of
//! each at every index, against the shape in the engine's source. `catalogue.rs` has the layouts
//! that are older.

#[path = "common/shape.rs"]
mod shape;

use kvrail_layouts::catalogue::*;
use kvrail_layouts::{AxisKind, Bf16, ElementKind, KvLayout, Placed, Plan, PlanError, Selection};
use kvrail_macros::KvLayout;
use shape::{dense, everywhere, everywhere_in, index, without};

use AxisKind::{Head, Layer, Other, Token};

/// Bytes, regions, tokens, layers.
fn numbers<L: KvLayout>() -> (u64, u32, u64, u64) {
    assert!(!L::SYNTHETIC);
    (L::PAGE_BYTES, L::REGIONS, L::TOKENS, L::LAYERS)
}

/// The kind and count of each field.
fn fields<L: KvLayout>() -> Vec<(&'static str, ElementKind, u64)> {
    L::GEOMETRY.fields().iter().map(|field| (field.name(), field.kind(), field.count())).collect()
}

fn layer(at: &[(AxisKind, u64)]) -> u32 {
    u32::try_from(index(at, Layer)).unwrap()
}

/// 512-byte latent part and what follows it.
const MLA: u64 = 1_152;
const D: u64 = 128 * 2;

#[test]
fn sglang_mla() {
    // k_buffer [page, L, T, 1, 512] and v_buffer [page, L, T, 1, 64].
    let shape = [(Layer, 61), (Token, 64)];
    everywhere::<SglMlaPageFirstKvSplit>("latent", |at| (0, dense(&shape, at, 1_024)));
    everywhere::<SglMlaPageFirstKvSplit>("rope", |at| (1, dense(&shape, at, 128)));
    assert_eq!(numbers::<SglMlaPageFirstKvSplit>(), (4_497_408, 2, 64, 61));
    let region = |region| SglMlaPageFirstKvSplit::GEOMETRY.region_bytes(region);
    assert_eq!((region(0), region(1)), (Some(3_997_696), Some(499_712)));

    // Of each layer kv_buffer [slots, 1, 576 / 2] and kv_scale_buffer [slots, 576 / 16], bytes.
    let token = [(Token, 64)];
    everywhere::<SglMlaFp4LayerFirst>("latent", |at| (layer(at), dense(&token, &without(at, Layer), 288)));
    everywhere::<SglMlaFp4LayerFirst>("rope", |at| {
        (layer(at), 256 + dense(&token, &without(at, Layer), 288))
    });
    everywhere::<SglMlaFp4LayerFirst>("scales", |at| {
        (61 + layer(at), dense(&token, &without(at, Layer), 36))
    });
    assert_eq!(numbers::<SglMlaFp4LayerFirst>(), (61 * 64 * (288 + 36), 122, 64, 61));
}

#[test]
fn sglang_mha() {
    // [2, size, L, H, D], and each of K and V is an object.
    let shape = [(Token, 64), (Layer, 32), (Head, 8)];
    everywhere::<SglLlama3_8bPageFirst>("k", |at| (0, dense(&shape, at, D)));
    everywhere::<SglLlama3_8bPageFirst>("v", |at| (1, dense(&shape, at, D)));
    assert_eq!(numbers::<SglLlama3_8bPageFirst>(), (2 * 4_194_304, 2, 64, 32));

    // [page, head group, L, 2, T, heads of the group, D], one group.
    let shape = [(Layer, 32), (Other(0), 2), (Token, 64), (Head, 8)];
    for (field, part) in [("k", 0), ("v", 1)] {
        everywhere::<SglLlama3_8bPageUnified>(field, |at| {
            let at: Vec<_> = at.iter().copied().chain([(Other(0), part)]).collect();
            (0, dense(&shape, &at, D))
        });
    }
    assert_eq!(numbers::<SglLlama3_8bPageUnified>(), (8_388_608, 1, 64, 32));
}

/// One of four groups of two heads: `page_unified` with several groups, as pages of a rank each.
#[derive(KvLayout)]
#[kv(crate = "kvrail_layouts", order(layer, planes, token, head))]
#[kv(layers = 32, tokens = 64, heads = 2, sharded(head, ranks = 4), bytes = 2_097_152)]
#[allow(dead_code)]
struct HeadGroup {
    k: [Bf16; 128],
    #[kv(plane)]
    v: [Bf16; 128],
}

#[test]
fn a_group_of_heads_is_a_page_of_its_own() {
    let shape = [(Other(1), 4), (Layer, 32), (Other(0), 2), (Token, 64), (Head, 2)];
    for group in 0..4 {
        let page = Placed::<HeadGroup>::new(|page| page).unwrap().at_rank(Head, group).unwrap();
        for (field, part) in [("k", 0), ("v", 1)] {
            everywhere_in(page.geometry(), field, |at| {
                let at: Vec<_> =
                    at.iter().copied().chain([(Other(0), part), (Other(1), group.into())]).collect();
                (0, dense(&shape, &at, D) - u64::from(group) * HeadGroup::PAGE_BYTES)
            });
        }
        // It is a part of the page with one group.
        let whole = SglLlama3_8bPageUnified::GEOMETRY;
        let plan = Plan::between(page.geometry(), whole, Selection::ALL).unwrap();
        assert_eq!(plan.bytes(), HeadGroup::PAGE_BYTES);
    }
}

#[test]
fn vllm_full_attention() {
    // [L, B, H, N, C] in the order of the name; C is K, then V.
    for (field, part) in [("k", 0), ("v", D)] {
        let (lbnhc, lbhnc) = ([(Token, 16), (Head, 8)], [(Head, 8), (Token, 16)]);
        everywhere::<VllmLlama3_8bLbnhc>(field, |at| {
            (layer(at), part + dense(&lbnhc, &without(at, Layer), 2 * D))
        });
        everywhere::<VllmLlama3_8bLbhnc>(field, |at| {
            (layer(at), part + dense(&lbhnc, &without(at, Layer), 2 * D))
        });
        let blhnc = [(Layer, 32), (Head, 8), (Token, 16)];
        everywhere::<VllmLlama3_8bBlhnc>(field, |at| (0, part + dense(&blhnc, at, 2 * D)));
    }
    assert_eq!(numbers::<VllmLlama3_8bLbnhc>(), (32 * 65_536, 32, 16, 32));
    assert_eq!(numbers::<VllmLlama3_8bBlhnc>(), (2_097_152, 1, 16, 32));
    assert_ne!(VllmLlama3_8bLbnhc::FINGERPRINT, VllmLlama3_8bLbhnc::FINGERPRINT);
}

#[test]
fn vllm_quantised_attention() {
    fn per_token_head<L: KvLayout>(kind: ElementKind) {
        // C is [K, K's scale, V, V's scale].
        let shape = [(Token, 16), (Head, 8)];
        for (field, at_row) in [("k", 0), ("k_scale", 128), ("v", 132), ("v_scale", 260)] {
            everywhere::<L>(field, |at| (0, at_row + dense(&shape, at, 264)));
        }
        assert_eq!(numbers::<L>(), (8 * 16 * 264, 1, 16, 1));
        assert_eq!(fields::<L>()[..2], [("k", kind, 128), ("k_scale", ElementKind::F32, 1)]);
    }
    per_token_head::<VllmFp8TokenHead>(ElementKind::E4m3);
    per_token_head::<VllmInt8TokenHead>(ElementKind::I8);
    // Bytes and floats of one length are other pages.
    assert_ne!(VllmFp8TokenHead::FINGERPRINT, VllmInt8TokenHead::FINGERPRINT);

    // A side is [data | scales], each [H, N, ..]; V's side follows K's.
    let (shape, side) = ([(Head, 8), (Token, 16)], 8 * 16 * 72);
    for (field, begin) in [("k", 0), ("v", side)] {
        everywhere::<VllmNvfp4Gqa>(field, |at| (0, begin + dense(&shape, at, 64)));
    }
    for (field, begin) in [("k_scales", 8_192), ("v_scales", side + 8_192)] {
        everywhere::<VllmNvfp4Gqa>(field, |at| (0, begin + dense(&shape, at, 8)));
    }
    assert_eq!(numbers::<VllmNvfp4Gqa>(), (18_432, 1, 16, 1));
}

#[test]
fn vllm_nvfp4_ds_mla() {
    for (field, at_row) in [("latent", 0), ("rope", 256), ("scales", 320)] {
        everywhere::<VllmNvfp4DsMla>(field, |at| (0, at_row + index(at, Token) * 352));
    }
    assert_eq!(numbers::<VllmNvfp4DsMla>(), (22_528, 1, 64, 1));
    // Its scales are permuted, so no part of it is copied.
    let page = VllmNvfp4DsMla::GEOMETRY;
    let refused = Plan::between(page, page, Selection::ALL).unwrap_err();
    assert_eq!(refused, PlanError::Swizzle { source_tag: 84, destination: 84 });
    // The permutation brings each of the 32 scales to one place.
    let mut places: Vec<_> = (0..32).map(|scale| 8 * (scale & 3) + (scale >> 2)).collect();
    places.sort_unstable();
    assert_eq!(places, (0..32).collect::<Vec<_>>());
}

#[test]
fn a_state_of_a_state_space_layer_is_padded_to_a_page_of_attention() {
    type State = VllmMamba<1_000_000, 1_048_576>;
    assert_eq!(numbers::<State>(), (1_048_576, 1, 0, 1));
    assert_eq!(State::GEOMETRY.payload_bytes(), 1_000_000);
    everywhere::<State>("state", |_| (0, 0));
    // Another state in a page of the same size is another page.
    assert_ne!(State::FINGERPRINT, VllmMamba::<1_000_001, 1_048_576>::FINGERPRINT);
}

/// {n × 576, n × 8}, padded up to a multiple of 576, `layers` of them.
fn v4_states<L: KvLayout>(layers: u64, states: u64, padded: u64) {
    let begin = |at: &[(AxisKind, u64)]| match L::GEOMETRY.axis_index(Layer) {
        Some(_) => index(at, Layer) * padded,
        None => 0,
    };
    everywhere::<L>("latent", |at| (0, begin(at) + index(at, Token) * 576));
    everywhere::<L>("rope", |at| (0, begin(at) + index(at, Token) * 576 + 448));
    everywhere::<L>("scales", |at| (0, begin(at) + states * 576 + index(at, Token) * 8));
    assert_eq!(padded, (states * 584).next_multiple_of(576));
    assert_eq!((L::PAGE_BYTES, L::GEOMETRY.extent(Token)), (layers * padded, states));
}

#[test]
fn v4_states_are_in_planes_and_padded() {
    v4_states::<V4C4>(21, 64, 37_440);
    v4_states::<V4C128>(20, 2, 1_728);
    v4_states::<VllmV4Window>(1, 64, 37_440);
    v4_states::<SglV4Window>(1, 256, 149_760);
    assert_eq!((V4C4::TOKENS, V4C128::TOKENS), (256, 256));
    assert_eq!((VllmV4Window::TOKENS, SglV4Window::TOKENS), (64, 256));
    // 64 states of 4 tokens and 64 tokens are equally long, and are not copied into each other.
    let refused = Plan::between_blocks(V4C4::GEOMETRY, VllmV4Window::GEOMETRY, &[(Layer, 0)], Selection::ALL);
    assert_eq!(refused, Err(PlanError::TokensPerState { source_tokens: 4, destination: 1 }));
    // Four windows of vLLM make one of SGLang.
    let plan =
        Plan::between_blocks(VllmV4Window::GEOMETRY, SglV4Window::GEOMETRY, &[(Token, 3)], Selection::ALL);
    assert_eq!(plan.map(|plan| plan.bytes()), Ok(64 * 583));
}

#[test]
fn v4_index_keys_are_padded_by_vllm_alone() {
    fn keys<L: KvLayout>(scales: &str, key: u64, padded: u64) {
        let layer = |at: &[(AxisKind, u64)]| match L::GEOMETRY.axis_index(Layer) {
            Some(_) => index(at, Layer) * padded,
            None => 0,
        };
        everywhere::<L>("keys", |at| (0, layer(at) + index(at, Token) * key));
        everywhere::<L>(scales, |at| (0, layer(at) + 64 * key + index(at, Token) * 4));
        assert_eq!((L::PAGE_BYTES, L::TOKENS), (L::LAYERS * padded, 256));
    }
    keys::<VllmV4Index>("scale", 128, 8_640);
    keys::<SglV4Index>("scale", 128, 8_448);
    keys::<VllmV4IndexMxfp4>("scales", 64, 4_608);
    keys::<SglV4IndexMxfp4>("scales", 64, 4_352);
    // One layer of SGLang's into its place in vLLM's block: padding is left alone.
    let into = VllmV4Index::GEOMETRY;
    let plan = Plan::between_blocks(SglV4Index::GEOMETRY, into, &[(Layer, 20)], Selection::ALL).unwrap();
    assert_eq!((plan.pieces(), plan.bytes()), (1, 8_448));
    assert_eq!(plan.iter().next().unwrap().destination.offset, 20 * 8_640);
}

/// A block of vLLM's pool for V4: layers of one kind side by side, kind after kind, at one stride.
#[test]
fn three_pages_of_v4_fill_a_block_of_vllm() {
    let kinds = [V4C4::PAGE_BYTES, VllmV4Index::PAGE_BYTES, V4C128::PAGE_BYTES];
    assert_eq!(kinds, [786_240, 181_440, 34_560]);
    let offsets = [0, kinds[0], kinds[0] + kinds[1]];
    assert_eq!(offsets, [0, 786_240, 967_680]);
    // The sum is the stride that the engine reports: every layer is padded up to a multiple of 576
    // and nothing else is.
    assert_eq!(kinds.iter().sum::<u64>(), 1_002_240);
    let layers = [(V4C4::LAYERS, 64 * 584), (VllmV4Index::LAYERS, 64 * 132), (V4C128::LAYERS, 2 * 584)];
    let padded = |to: u64| layers.iter().map(|(n, bytes)| n * u64::next_multiple_of(*bytes, to)).sum::<u64>();
    assert_eq!(padded(576), 1_002_240);
    assert_ne!(padded(1), 1_002_240);
    assert_ne!(padded(512), 1_002_240);
}

#[test]
fn v41_records_are_interleaved_or_split() {
    for (field, at_row) in [("latent", 0), ("scales", 512)] {
        everywhere::<VllmV41>(field, |at| (0, at_row + index(at, Token) * 528));
    }
    everywhere::<SglV41>("latent", |at| (0, index(at, Token) * 512));
    everywhere::<SglV41>("scales", |at| (0, 64 * 512 + index(at, Token) * 16));
    for (field, at_row) in [("latent", 0), ("scales", 256)] {
        everywhere::<VllmV41Fp4>(field, |at| (0, at_row + index(at, Token) * 288));
    }
    everywhere::<SglV41Fp4>("latent", |at| (0, index(at, Token) * 256));
    everywhere::<SglV41Fp4>("scales", |at| (0, 128 * 256 + index(at, Token) * 32));
    assert_eq!((numbers::<VllmV41>(), numbers::<SglV41>()), ((33_792, 1, 64, 1), (33_792, 1, 64, 1)));
    assert_eq!(numbers::<VllmV41Fp4>(), (36_864, 1, 256, 1));
    assert_eq!(numbers::<SglV41Fp4>(), (36_864, 1, 256, 1));
    // Equally long, and other pages. `engine/tests/layouts.rs` has the refusal by name.
    assert_ne!(VllmV41::FINGERPRINT, SglV41::FINGERPRINT);
    assert_ne!(VllmV41Fp4::FINGERPRINT, SglV41Fp4::FINGERPRINT);
    // A plan knows which of the two it reads, and puts each part in its place.
    let plan = Plan::between(VllmV41::GEOMETRY, SglV41::GEOMETRY, Selection::ALL).unwrap();
    assert_eq!((plan.pieces(), plan.bytes()), (128, 33_792));
    assert_eq!(plan.source().fingerprint(), VllmV41::FINGERPRINT);
    assert_eq!(plan.destination().fingerprint(), SglV41::FINGERPRINT);
    // Another precision is no copy.
    let refused = Plan::between(VllmV41::GEOMETRY, VllmV41Fp4::GEOMETRY, Selection::ALL).unwrap_err();
    assert_eq!(refused, PlanError::TokensPerState { source_tokens: 1, destination: 2 });
}

#[test]
fn lmcache_chunks() {
    let shape = [(Other(0), 2), (Layer, 32), (Token, 256), (Head, 8)];
    for (field, part) in [("k", 0), ("v", 1)] {
        everywhere::<LmcLlama3_8b>(field, |at| {
            let at: Vec<_> = at.iter().copied().chain([(Other(0), part)]).collect();
            (0, dense(&shape, &at, D))
        });
    }
    assert_eq!(numbers::<LmcLlama3_8b>(), (33_554_432, 1, 256, 32));
    let shape = [(Layer, 61), (Token, 256)];
    everywhere::<LmcMla>("latent", |at| (0, dense(&shape, at, MLA)));
    everywhere::<LmcMla>("rope", |at| (0, 1_024 + dense(&shape, at, MLA)));
    assert_eq!(numbers::<LmcMla>(), (17_989_632, 1, 256, 61));
    // 16 blocks of vLLM make a chunk, 4 pages of SGLang another.
    let (block, chunk) = (VllmLlama3_8bLbnhc::GEOMETRY, LmcLlama3_8b::GEOMETRY);
    let plan = Plan::between_blocks(block, chunk, &[(Token, 15)], Selection::ALL).unwrap();
    assert_eq!((plan.bytes(), plan.longest_piece()), (2_097_152, 256));
    let (page, chunk) = (SglMlaPageFirstDirect::GEOMETRY, LmcMla::GEOMETRY);
    let parts = Plan::into_block(page, chunk, 0, Selection::ALL).unwrap();
    assert_eq!(parts.map(|part| part.unwrap().plan.bytes()).collect::<Vec<_>>(), [4_497_408; 4]);
}
