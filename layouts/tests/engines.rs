//! Every token format, and every order in which an engine keeps a page, can be declared. Each is
//! declared by the derive here, and compared, index by index, with the shape in the engine's
//! source.
//!
//! The layouts of the catalogue are in `releases.rs`.

#[path = "common/shape.rs"]
mod shape;

use kvrail_layouts::{AxisKind, Bf16, E4m3, F32, KvLayout, Placed, Ue8m0};
use kvrail_macros::KvLayout;
use shape::{dense, everywhere, everywhere_in, index, without};

use AxisKind::{Block, Head, Layer, Part, Token};

const T: u64 = 16;
const L: u64 = 5;
const H: u64 = 3;
const B: u64 = 4;

/// Asserts the size of a page: `bytes` of the shape and no padding.
fn size<L: KvLayout>(regions: u32, bytes: u64) {
    assert_eq!((L::REGIONS, L::PAGE_BYTES, L::GEOMETRY.payload_bytes()), (regions, bytes, bytes));
}

macro_rules! pages {
    ($($(#[$kv:meta])* $name:ident { $($(#[$field_kv:meta])* $field:ident: $ty:ty),* })*) => {
        $(
            #[derive(KvLayout)]
            #[kv(crate = "kvrail_layouts")]
            $(#[$kv])*
            #[allow(dead_code)]
            struct $name { $($(#[$field_kv])* $field: $ty),* }
        )*
    };
}

/// Bytes per token and layer, and where a token's parts are.
mod formats {
    use super::*;

    pages! {
        #[kv(order(token), tokens = 1, bytes = 1_152)]
        MlaBf16 { latent: [Bf16; 512], rope: [Bf16; 64] }

        #[kv(order(token), tokens = 1, bytes = 576)]
        MlaFp8 { latent: [E4m3; 512], rope: [E4m3; 64] }

        #[kv(order(token), tokens = 1, bytes = 656)]
        FlashMlaFp8 { latent: [E4m3; 512], scales: [F32; 4], rope: [Bf16; 64] }

        #[kv(order(pad(576), planes, token), tokens = 256, tokens_per_state = 4, bytes = 37_440)]
        V4C4 { latent: [E4m3; 448], rope: [Bf16; 64], #[kv(plane, order(token, pad(8)))] scales: [Ue8m0; 7] }

        #[kv(order(pad(576), planes, token), tokens = 256, tokens_per_state = 128, bytes = 1_728)]
        V4C128 { latent: [E4m3; 448], rope: [Bf16; 64], #[kv(plane, order(token, pad(8)))] scales: [Ue8m0; 7] }

        #[kv(order(planes, token), tokens = 64, bytes = 8_448)]
        Indexer { keys: [u8; 128], #[kv(plane)] scale: F32 }
    }

    #[derive(KvLayout)]
    #[kv(crate = "kvrail_layouts", order(token, planes, head), tokens = 1, heads = HEADS, bytes = 512 * HEADS)]
    struct GqaBf16<const HEADS: usize> {
        k: [Bf16; 128],
        #[kv(plane)]
        v: [Bf16; 128],
    }

    #[test]
    fn every_token_format_can_be_declared() {
        everywhere::<MlaBf16>("rope", |_| (0, 1_024));
        everywhere::<MlaFp8>("rope", |_| (0, 512));
        everywhere::<FlashMlaFp8>("scales", |_| (0, 512));
        everywhere::<FlashMlaFp8>("rope", |_| (0, 528));
        everywhere::<V4C4>("rope", |at| (0, index(at, Token) * 576 + 448));
        everywhere::<V4C4>("scales", |at| (0, 64 * 576 + index(at, Token) * 8));
        everywhere::<V4C128>("scales", |at| (0, 2 * 576 + index(at, Token) * 8));
        assert_eq!((V4C4::TOKENS, V4C4::GEOMETRY.extent(Token)), (256, 64));
        assert_eq!((V4C128::TOKENS, V4C128::GEOMETRY.extent(Token)), (256, 2));
        everywhere::<Indexer>("scale", |at| (0, 8_192 + index(at, Token) * 4));
        everywhere::<GqaBf16<8>>("k", |at| (0, index(at, Head) * 256));
        everywhere::<GqaBf16<8>>("v", |at| (0, 2_048 + index(at, Head) * 256));
        assert_eq!((GqaBf16::<1>::PAGE_BYTES, GqaBf16::<8>::PAGE_BYTES), (512, 4_096));
    }
}

/// The rows of "how engines order a page", with 16 tokens, 5 layers, 3 heads of 4.
mod orders {
    use super::*;

    const MLA: u64 = 576 * 2;
    const D: u64 = 4 * 2;

    pages! {
        #[kv(order(regions(layer), token), layers = 5, tokens = 16)]
        SglLayerFirstMla { latent: [Bf16; 576] }
        #[kv(order(strided(layer), token), layers = 5, tokens = 16)]
        SglLayerFirstMlaPool { latent: [Bf16; 576] }
        #[kv(order(token, layer), layers = 5, tokens = 16)]
        SglPageFirstMla { latent: [Bf16; 576] }
        #[kv(order(layer, token), layers = 5, tokens = 16)]
        SglPageFirstDirectMla { latent: [Bf16; 576] }
        #[kv(order(regions(planes), regions(layer), token, head), layers = 5, tokens = 16, heads = 3)]
        SglLayerFirstMha { k: [Bf16; 4], #[kv(plane)] v: [Bf16; 4] }
        #[kv(order(strided(planes), token, layer, head), layers = 5, tokens = 16, heads = 3)]
        SglPageFirstMha { k: [Bf16; 4], #[kv(plane)] v: [Bf16; 4] }
        #[kv(order(regions(planes), layer, token, head), layers = 5, tokens = 16, heads = 3)]
        SglPageFirstDirectMha { k: [Bf16; 4], #[kv(plane)] v: [Bf16; 4] }
        #[kv(order(regions(planes), head, token, layer), layers = 5, tokens = 16, heads = 3)]
        SglPageHeadMha { k: [Bf16; 4], #[kv(plane)] v: [Bf16; 4] }

        #[kv(order(regions(planes), layer, token), layers = 5, tokens = 16)]
        SglKvSplitMla { latent: [Bf16; 512], #[kv(plane)] rope: [Bf16; 64] }
        #[kv(order(layer, planes, token, head), layers = 5, tokens = 16, heads = 3)]
        SglPageUnifiedMha { k: [Bf16; 4], #[kv(plane)] v: [Bf16; 4] }
        #[kv(order(planes, layer, token, head), layers = 5, tokens = 16, heads = 3)]
        LmcChunk { k: [Bf16; 4], #[kv(plane)] v: [Bf16; 4] }

        // B of vLLM's pools is the pool's; here a page has 4 blocks, which shows where the axis
        // goes.
        #[kv(order(regions(layer), part, block, token, head))]
        #[kv(layers = 5, parts = 2, blocks = 4, tokens = 16, heads = 3)]
        VllmOldNhd { kv: [Bf16; 4] }
        #[kv(order(regions(layer), part, block, head, token))]
        #[kv(layers = 5, parts = 2, blocks = 4, tokens = 16, heads = 3)]
        VllmOldHnd { kv: [Bf16; 4] }
        // One block of that pool: K and V are half a pool apart.
        #[kv(order(strided(planes), token, head), tokens = 16, heads = 3)]
        VllmOldNhdBlock { k: [Bf16; 4], #[kv(plane)] v: [Bf16; 4] }
        #[kv(order(regions(layer), block, token), layers = 5, blocks = 4, tokens = 16)]
        VllmMla { latent: [Bf16; 576] }
        #[kv(order(regions(layer), block, token), layers = 5, blocks = 4, tokens = 16)]
        VllmMlaFp8 { latent: [E4m3; 512], scales: [F32; 4], rope: [Bf16; 64] }
        #[kv(order(regions(layer), block, head, token), layers = 5, blocks = 4, tokens = 16, heads = 3)]
        VllmLbhnc { k: [Bf16; 4], v: [Bf16; 4] }
        #[kv(order(regions(layer), block, token, head), layers = 5, blocks = 4, tokens = 16, heads = 3)]
        VllmLbnhc { k: [Bf16; 4], v: [Bf16; 4] }
        #[kv(order(regions(layer), head, block, token), layers = 5, blocks = 4, tokens = 16, heads = 3)]
        VllmLhbnc { k: [Bf16; 4], v: [Bf16; 4] }
        // One block of that pool: its heads are a pool's head apart.
        #[kv(order(regions(layer), strided(head), token), layers = 5, tokens = 16, heads = 3)]
        VllmLhbncBlock { k: [Bf16; 4], v: [Bf16; 4] }
        #[kv(order(block, layer, head, token), layers = 5, blocks = 4, tokens = 16, heads = 3)]
        VllmBlhnc { k: [Bf16; 4], v: [Bf16; 4] }
        #[kv(order(block, layer, token, head), layers = 5, blocks = 4, tokens = 16, heads = 3)]
        VllmBlnhc { k: [Bf16; 4], v: [Bf16; 4] }
        #[kv(order(block, head, layer, token), layers = 5, blocks = 4, tokens = 16, heads = 3)]
        VllmBhlnc { k: [Bf16; 4], v: [Bf16; 4] }

        #[kv(order(block, layer, part, head, token), blocks = 4, layers = 5, parts = 2, heads = 3, tokens = 16)]
        Trtllm { kv: [Bf16; 4] }
        #[kv(order(block, part, token, head), blocks = 4, parts = 2, tokens = 16, heads = 3)]
        FlashInferNhd { kv: [Bf16; 4] }
        #[kv(order(block, part, head, token), blocks = 4, parts = 2, tokens = 16, heads = 3)]
        FlashInferHnd { kv: [Bf16; 4] }
    }

    /// Dense in one region.
    fn whole<L: KvLayout>(field: &str, shape: &[(AxisKind, u64)], cell: u64) {
        everywhere::<L>(field, |at| (0, dense(shape, at, cell)));
        size::<L>(1, shape.iter().map(|(_, extent)| extent).product::<u64>() * cell);
    }

    /// A region for each layer, dense within.
    fn per_layer<L: KvLayout>(field: &str, shape: &[(AxisKind, u64)], cell: u64, offset: u64) {
        everywhere::<L>(field, |at| {
            let layer = u32::try_from(index(at, Layer)).unwrap();
            (layer, offset + dense(shape, &without(at, Layer), cell))
        });
        size::<L>(5, L::LAYERS * shape.iter().map(|(_, extent)| extent).product::<u64>() * cell);
    }

    /// A region for K, and one for V.
    fn objects<L: KvLayout>(shape: &[(AxisKind, u64)]) {
        everywhere::<L>("k", |at| (0, dense(shape, at, D)));
        everywhere::<L>("v", |at| (1, dense(shape, at, D)));
        size::<L>(2, 2 * L * T * H * D);
    }

    #[test]
    fn sglang_and_lmcache() {
        per_layer::<SglLayerFirstMla>("latent", &[(Token, T)], MLA, 0);
        whole::<SglPageFirstMla>("latent", &[(Token, T), (Layer, L)], MLA);
        whole::<SglPageFirstDirectMla>("latent", &[(Layer, L), (Token, T)], MLA);
        objects::<SglPageFirstDirectMha>(&[(Layer, L), (Token, T), (Head, H)]);
        objects::<SglPageHeadMha>(&[(Head, H), (Token, T), (Layer, L)]);
        let cells = [(Layer, L), (Token, T)];
        everywhere::<SglKvSplitMla>("latent", |at| (0, dense(&cells, at, 1_024)));
        everywhere::<SglKvSplitMla>("rope", |at| (1, dense(&cells, at, 128)));
        size::<SglKvSplitMla>(2, L * T * MLA);
        let with_part = |at: &[(AxisKind, u64)], part| [at, &[(Part, part)]].concat();
        for (field, part) in [("k", 0), ("v", 1)] {
            let unified = [(Layer, L), (Part, 2), (Token, T), (Head, H)];
            everywhere::<SglPageUnifiedMha>(field, |at| (0, dense(&unified, &with_part(at, part), D)));
            let chunk = [(Part, 2), (Layer, L), (Token, T), (Head, H)];
            everywhere::<LmcChunk>(field, |at| (0, dense(&chunk, &with_part(at, part), D)));
        }
        // 2 × L regions: K's first.
        for (field, first) in [("k", 0), ("v", 5)] {
            everywhere::<SglLayerFirstMha>(field, |at| {
                let layer = u32::try_from(index(at, Layer)).unwrap();
                (first + layer, dense(&[(Token, T), (Head, H)], &without(at, Layer), D))
            });
        }
        size::<SglLayerFirstMha>(10, 2 * L * T * H * D);
    }

    /// `address = base + token·576·es + layer·size·576·es`, and V's distance from K: both depend on
    /// the pool.
    #[test]
    fn sglang_pools() {
        let tokens_of_the_pool = 1_000;
        let pool = Placed::<SglLayerFirstMlaPool>::new(|page| {
            page.stride_of("latent", Layer, tokens_of_the_pool * MLA)
        });
        everywhere_in(pool.unwrap().geometry(), "latent", |at| {
            (0, index(at, Token) * MLA + index(at, Layer) * tokens_of_the_pool * MLA)
        });

        let v_from_k = tokens_of_the_pool * L * H * D;
        let pool = Placed::<SglPageFirstMha>::new(|page| page.plane_of("v", v_from_k)).unwrap();
        for (field, base) in [("k", 0), ("v", v_from_k)] {
            everywhere_in(pool.geometry(), field, |at| {
                (0, base + dense(&[(Token, T), (Layer, L), (Head, H)], at, D))
            });
        }
        let error = Placed::<SglPageFirstMha>::new(|page| page.plane_of("w", 1)).unwrap_err();
        assert_eq!(error.to_string(), "there is no field `w`");
    }

    #[test]
    fn vllm() {
        // NHD and HND of releases before 0.33.
        per_layer::<VllmOldNhd>("kv", &[(Part, 2), (Block, B), (Token, T), (Head, H)], D, 0);
        per_layer::<VllmOldHnd>("kv", &[(Part, 2), (Block, B), (Head, H), (Token, T)], D, 0);
        per_layer::<VllmMla>("latent", &[(Block, B), (Token, T)], MLA, 0);
        per_layer::<VllmMlaFp8>("latent", &[(Block, B), (Token, T)], 656, 0);
        per_layer::<VllmMlaFp8>("rope", &[(Block, B), (Token, T)], 656, 528);
        for (field, offset) in [("k", 0), ("v", D)] {
            per_layer::<VllmLbhnc>(field, &[(Block, B), (Head, H), (Token, T)], 2 * D, offset);
            per_layer::<VllmLbnhc>(field, &[(Block, B), (Token, T), (Head, H)], 2 * D, offset);
            per_layer::<VllmLhbnc>(field, &[(Head, H), (Block, B), (Token, T)], 2 * D, offset);
            let whole = |shape: [(AxisKind, u64); 4]| {
                move |at: &[(AxisKind, u64)]| (0, offset + dense(&shape, at, 2 * D))
            };
            everywhere::<VllmBlhnc>(field, whole([(Block, B), (Layer, L), (Head, H), (Token, T)]));
            everywhere::<VllmBlnhc>(field, whole([(Block, B), (Layer, L), (Token, T), (Head, H)]));
            everywhere::<VllmBhlnc>(field, whole([(Block, B), (Head, H), (Layer, L), (Token, T)]));
        }
        let blocks_of_the_pool = 1_000;
        let head = blocks_of_the_pool * T * 2 * D;
        let block = Placed::<VllmLhbncBlock>::new(|page| page.stride_of("k", Head, head)).unwrap();
        everywhere_in(block.geometry(), "v", |at| {
            (u32::try_from(index(at, Layer)).unwrap(), index(at, Head) * head + index(at, Token) * 2 * D + D)
        });
        let half = blocks_of_the_pool * T * H * D;
        let block = Placed::<VllmOldNhdBlock>::new(|page| page.plane_of("v", half)).unwrap();
        everywhere_in(block.geometry(), "v", |at| (0, half + dense(&[(Token, T), (Head, H)], at, D)));
    }

    #[test]
    fn tensorrt_llm_and_flashinfer() {
        whole::<Trtllm>("kv", &[(Block, B), (Layer, L), (Part, 2), (Head, H), (Token, T)], D);
        whole::<FlashInferNhd>("kv", &[(Block, B), (Part, 2), (Token, T), (Head, H)], D);
        whole::<FlashInferHnd>("kv", &[(Block, B), (Part, 2), (Head, H), (Token, T)], D);
    }
}

/// As many regions as a page may have: the compiler goes through all of them, without a complaint
/// about it.
mod many_regions {
    use super::*;

    pages! {
        #[kv(order(regions(layer), regions(head), regions(planes), token))]
        #[kv(layers = 64, heads = 32, tokens = 16, bytes = 16_777_216)]
        PerHead { k: [Bf16; 128], #[kv(plane)] v: [Bf16; 128] }
    }

    #[test]
    fn a_region_for_each_layer_head_and_part() {
        assert_eq!(PerHead::REGIONS, 4_096);
        for (field, part) in [("k", 0), ("v", 1)] {
            everywhere::<PerHead>(field, |at| {
                let region = (index(at, Layer) * 32 + index(at, Head)) * 2 + part;
                (u32::try_from(region).unwrap(), index(at, Token) * 256)
            });
        }
    }
}
