//! The shipped layouts against nested loops and golden values. (`macros/tests/catalogue` holds the
//! derive against them.)

use std::marker::PhantomData;

use kvrail_layouts::catalogue::*;
use kvrail_layouts::{Bf16, KvLayout, Place};

/// Goes through a page by its shape, one element after the other, with a cursor that uses no
/// stride, and asserts that the geometry gives the same places.
struct Walk<L> {
    region: u32,
    at: u64,
    payload: u64,
    layout: PhantomData<L>,
}

impl<L: KvLayout> Walk<L> {
    fn page(walk: impl FnOnce(&mut Self)) {
        let mut page = Self { region: 0, at: 0, payload: 0, layout: PhantomData };
        walk(&mut page);
        assert_eq!(page.payload, L::GEOMETRY.payload_bytes());
        assert_eq!(u32::from(page.at > 0) + page.region, L::REGIONS, "all regions were gone through");
        if page.at > 0 {
            assert_eq!(L::GEOMETRY.region_bytes(page.region), Some(page.at));
        }
    }

    /// The next `count` elements of `bytes` each are this field's.
    fn run(&mut self, field: &str, indices: &[u64], count: u64, bytes: u64) {
        let index = L::GEOMETRY.field_named(field).unwrap();
        for element in 0..count {
            let place = L::GEOMETRY.offset_of_element(index, indices, element);
            let expected = Place { region: self.region, offset: self.at };
            assert_eq!(place, Ok(expected), "{field} {indices:?} {element}");
            self.at += bytes;
        }
        self.payload += count * bytes;
    }

    fn skip(&mut self, bytes: u64) {
        self.at += bytes;
    }

    /// A region ends here, with so many bytes.
    fn region_of(&mut self, bytes: u64) {
        assert_eq!((self.at, L::GEOMETRY.region_bytes(self.region)), (bytes, Some(bytes)));
        (self.region, self.at) = (self.region + 1, 0);
    }

    fn mla(&mut self, indices: &[u64]) {
        self.run("latent", indices, 512, 2);
        self.run("rope", indices, 64, 2);
    }

    fn fp8(&mut self, indices: &[u64]) {
        self.run("latent", indices, 512, 1);
        self.run("scales", indices, 4, 4);
        self.run("rope", indices, 64, 2);
    }
}

#[test]
fn sgl_mla_page_first() {
    Walk::<SglMlaPageFirst>::page(|page| {
        for token in 0..64 {
            for layer in 0..61 {
                page.mla(&[layer, token]);
            }
        }
        page.region_of(4_497_408);
    });
}

#[test]
fn sgl_mla_page_first_direct() {
    Walk::<SglMlaPageFirstDirect>::page(|page| {
        for layer in 0..61 {
            for token in 0..64 {
                page.mla(&[layer, token]);
            }
        }
        page.region_of(4_497_408);
    });
}

#[test]
fn sgl_mla_layer_first() {
    Walk::<SglMlaLayerFirst>::page(|page| {
        for layer in 0..61 {
            for token in 0..64 {
                page.mla(&[layer, token]);
            }
            page.region_of(73_728);
        }
    });
}

#[test]
fn sgl_v32_fp8_page_first() {
    Walk::<SglV32Fp8PageFirst>::page(|page| {
        for token in 0..64 {
            for layer in 0..61 {
                page.fp8(&[layer, token]);
            }
        }
        page.region_of(2_561_024);
    });
}

#[test]
fn sgl_v32_indexer() {
    Walk::<SglV32Indexer>::page(|page| {
        for layer in 0..61 {
            assert_eq!(page.at, layer * 8_448);
            for token in 0..64 {
                page.run("keys", &[layer, token], 128, 1);
            }
            assert_eq!(page.at, layer * 8_448 + 8_192);
            for token in 0..64 {
                page.run("scale", &[layer, token], 1, 4);
            }
        }
        page.region_of(515_328);
    });
}

#[test]
fn vllm_fp8_ds_mla() {
    Walk::<VllmFp8DsMla>::page(|page| {
        for token in 0..64 {
            page.fp8(&[token]);
        }
        page.region_of(41_984);
    });
}

#[test]
fn vllm_mla_bf16() {
    Walk::<VllmMlaBf16>::page(|page| {
        for token in 0..64 {
            page.mla(&[token]);
        }
        page.region_of(73_728);
    });
}

#[test]
fn v4_c4() {
    Walk::<V4C4>::page(|page| {
        for layer in 0..21 {
            assert_eq!(page.at, layer * 37_440);
            for state in 0..64 {
                page.run("latent", &[layer, state], 448, 1);
                page.run("rope", &[layer, state], 64, 2);
            }
            assert_eq!(page.at, layer * 37_440 + 64 * 576);
            for state in 0..64 {
                page.run("scales", &[layer, state], 7, 1);
                page.skip(1);
            }
            assert_eq!(page.at, layer * 37_440 + 37_376);
            page.skip(64);
        }
        page.region_of(786_240);
    });
    assert_eq!((V4C4::TOKENS, V4C4::GEOMETRY.tokens_per_state()), (256, 4));
}

#[test]
fn sgl_llama3_8b_page_first_direct() {
    Walk::<SglLlama3_8bPageFirstDirect>::page(|page| {
        for object in ["k", "v"] {
            for layer in 0..32 {
                for token in 0..64 {
                    for head in 0..8 {
                        page.run(object, &[layer, token, head], 128, 2);
                    }
                }
            }
            page.region_of(4_194_304);
        }
    });
}

#[test]
fn sgl_llama3_70b_tp8_page_head() {
    Walk::<SglLlama3_70bTp8PageHead>::page(|page| {
        for object in ["k", "v"] {
            for token in 0..64 {
                for layer in 0..80 {
                    page.run(object, &[layer, token, 0], 128, 2);
                }
            }
            page.region_of(1_310_720);
        }
    });
}

#[test]
fn vllm_llama3_8b_lbhnc() {
    Walk::<VllmLlama3_8bLbhnc>::page(|page| {
        for layer in 0..32 {
            for head in 0..8 {
                for token in 0..16 {
                    page.run("k", &[layer, token, head], 128, 2);
                    page.run("v", &[layer, token, head], 128, 2);
                }
            }
            page.region_of(65_536);
        }
    });
}

#[test]
fn trtllm_llama3_8b() {
    Walk::<TrtllmLlama3_8b>::page(|page| {
        for layer in 0..32 {
            for part in ["k", "v"] {
                for head in 0..8 {
                    for token in 0..32 {
                        page.run(part, &[layer, token, head], 128, 2);
                    }
                }
            }
        }
        page.region_of(4_194_304);
    });
}

/// Offsets are constants too.
const _: () = {
    const SCALE: usize = SglV32Indexer::GEOMETRY.field_named("scale").unwrap();
    match SglV32Indexer::GEOMETRY.offset_of(SCALE, &[1, 2]) {
        Ok(place) => assert!(place.offset == 8_448 + 8_192 + 2 * 4),
        Err(_) => unreachable!(),
    }
};

#[test]
fn the_layouts_constants_are_the_published_numbers() {
    fn of<L: KvLayout>() -> (u64, u32, u64, u64, bool) {
        (L::PAGE_BYTES, L::REGIONS, L::TOKENS, L::LAYERS, L::SYNTHETIC)
    }
    // Page bytes, regions, tokens, layers, synthetic: as the engines' sources have it.
    assert_eq!(of::<SglMlaPageFirst>(), (4_497_408, 1, 64, 61, false));
    assert_eq!(of::<SglMlaPageFirstDirect>(), (4_497_408, 1, 64, 61, false));
    assert_eq!(of::<SglMlaLayerFirst>(), (4_497_408, 61, 64, 61, false));
    assert_eq!(of::<SglV32Fp8PageFirst>(), (2_561_024, 1, 64, 61, false));
    assert_eq!(of::<SglV32Indexer>(), (515_328, 1, 64, 61, false));
    assert_eq!(of::<VllmFp8DsMla>(), (41_984, 1, 64, 1, false));
    assert_eq!(of::<VllmMlaBf16>(), (73_728, 1, 64, 1, false));
    assert_eq!(of::<V4C4>(), (786_240, 1, 256, 21, false));
    assert_eq!(of::<SglLlama3_8bPageFirstDirect>(), (8_388_608, 2, 64, 32, false));
    assert_eq!(of::<SglLlama3_70bTp8PageHead>(), (2_621_440, 2, 64, 80, false));
    assert_eq!(of::<VllmLlama3_8bLbhnc>(), (2_097_152, 32, 16, 32, false));
    assert_eq!(of::<TrtllmLlama3_8b>(), (4_194_304, 1, 32, 32, false));
    assert_eq!(of::<Opaque<131_072>>(), (131_072, 1, 0, 1, true));
    assert_eq!(of::<Opaque<1_048_576>>(), (1_048_576, 1, 0, 1, true));
    assert!(Opaque::<1>::NAME.contains("synthetic"));
}

mod derived {
    use super::Bf16;
    use kvrail_macros::KvLayout;

    #[derive(KvLayout)]
    #[kv(crate = "kvrail_layouts", order(layer, token), layers = 61, tokens = 64)]
    pub(crate) struct Mla {
        latent: [Bf16; 512],
        rope: [Bf16; 64],
    }

    #[derive(KvLayout)]
    #[kv(crate = "kvrail_layouts", order(token, layer), layers = 61, tokens = 64)]
    pub(crate) struct MlaPageFirst {
        latent: [Bf16; 512],
        rope: [Bf16; 64],
    }

    #[derive(KvLayout)]
    #[kv(crate = "kvrail_layouts", order(token), tokens = 16)]
    pub(crate) struct KeyValue {
        k: [Bf16; 128],
        v: [Bf16; 128],
    }

    #[derive(KvLayout)]
    #[kv(crate = "kvrail_layouts", order(token), tokens = 16)]
    pub(crate) struct ValueKey {
        v: [Bf16; 128],
        k: [Bf16; 128],
    }

    #[derive(KvLayout)]
    #[kv(crate = "kvrail_layouts", order(token), tokens = 16)]
    pub(crate) struct Renamed {
        #[kv(name = "k")]
        key: [Bf16; 128],
        #[kv(name = "v")]
        value: [Bf16; 128],
    }
}

/// The numbers that a consumer with 32-bit strides or lengths compares with its limits.
#[test]
fn the_largest_steps_and_regions_are_known() {
    fn of<L: KvLayout>() -> (u64, u64) {
        (L::GEOMETRY.largest_step(), L::GEOMETRY.largest_region())
    }
    assert_eq!(of::<SglMlaPageFirst>(), (61 * 1_152, 4_497_408));
    assert_eq!(of::<SglMlaLayerFirst>(), (1_152, 73_728), "layers are regions, not steps");
    assert_eq!(of::<SglLlama3_70bTp8PageHead>(), (80 * 256, 1_310_720), "one head is no step");
    assert_eq!(of::<V4C4>(), (37_440, 786_240));
    assert_eq!(of::<Opaque<7>>(), (0, 7));
}

/// Two pages of one length have different fingerprints.
#[test]
fn equal_size_and_other_order_is_another_page() {
    assert_eq!(derived::Mla::PAGE_BYTES, derived::MlaPageFirst::PAGE_BYTES);
    assert_ne!(derived::Mla::FINGERPRINT, derived::MlaPageFirst::FINGERPRINT);
}

/// K and V have one shape: only their names tell which is which, and so names take part.
#[test]
fn swapped_fields_are_another_page() {
    assert_eq!(derived::KeyValue::PAGE_BYTES, derived::ValueKey::PAGE_BYTES);
    assert_ne!(derived::KeyValue::FINGERPRINT, derived::ValueKey::FINGERPRINT);
    assert_eq!(derived::KeyValue::FINGERPRINT, derived::Renamed::FINGERPRINT);
}

/// Computed apart from this crate, with another SHA-256, from the table in `fingerprint.rs`.
///
/// Peers of other builds and machines hold these values. If one changes, either a layout did, or
/// the definition in `fingerprint.rs` did, and its version has to.
#[test]
fn golden_fingerprints() {
    let golden = [
        ("sgl_mla_page_first", "0df01e19ca345852d29781e528e7b18f"),
        ("sgl_mla_page_first_direct", "5b3054b000e57a7aea816f4179d0eb12"),
        ("sgl_mla_layer_first", "a4ed9ae5e1852b40a20b793e9d937112"),
        ("sgl_mla_page_first_kv_split", "44a362ed026781d7272f0c013607799d"),
        ("sgl_mla_fp4_layer_first", "df2d6bda096836e20ae455c565578898"),
        ("sgl_v32_fp8_page_first", "7e455deeb3965d7b0c76b6faf01640ff"),
        ("sgl_v32_indexer", "9f12889b78126e109ac9da2e5415397b"),
        ("sgl_llama3_8b_page_first", "0ab833757e485fc0ed20db3389582a22"),
        ("sgl_llama3_8b_page_first_direct", "6c3d3f9f850f0cbfe0bb10cd66c05e20"),
        ("sgl_llama3_70b_tp8_page_head", "5815fd6077d4f4f1ae48eb74d6ae1681"),
        ("sgl_llama3_8b_page_unified", "2d1dab23d80df89cbbefe09ab63c3bed"),
        ("vllm_fp8_ds_mla", "040210797fd893d34befc9460983e56b"),
        ("vllm_mla_bf16", "0806a093d2f7412e6f995fe256cf8112"),
        ("vllm_nvfp4_ds_mla", "2e0a8d89254096252a0677d191c5ca35"),
        ("vllm_llama3_8b_lbnhc", "34d3a443cbd452a946b0d8888f0b371b"),
        ("vllm_llama3_8b_lbhnc", "ccc7421e8944f5a74bd11c3c0376e156"),
        ("vllm_llama3_8b_blhnc", "5e3be7ab4e2de785ef2a49b1f57de79f"),
        ("vllm_fp8_token_head", "27f9d3396bd8ad6046d9465fc1cb7d75"),
        ("vllm_int8_token_head", "98c9c77b12a1694782376f1339159f9c"),
        ("vllm_nvfp4_gqa", "59e1599d82e8227caf3fd42a1d1714ee"),
        ("v4_c4", "01a162daf80f9358152722a9038ebb43"),
        ("v4_c128", "0714ff3e95739f921ffa02ab8c64462a"),
        ("vllm_v4_index", "5833234c20e0575feef1945e7ba60105"),
        ("vllm_v4_index_mxfp4", "e92625715f1492e29905fe67601661a0"),
        ("sgl_v4_index", "b0f66d15dd3b974b707801e00087dc73"),
        ("sgl_v4_index_mxfp4", "27ee16c1cce2cb81370f653571c63cb7"),
        ("vllm_v4_window", "1bbd3f4e7582e5c784c7065b22dd0a63"),
        ("sgl_v4_window", "2bb6a9f09bab377d964fabe9b23f34d3"),
        ("vllm_v41", "02b46d081d5392f3faba1fedb7f60487"),
        ("sgl_v41", "dd69a1a2acf9c2b8f8fc6a3a87c85195"),
        ("vllm_v41_fp4", "3dbb13d35a34d3f1cf9ba577f002df54"),
        ("sgl_v41_fp4", "0016f7609911fadfaf68d8a978b709a7"),
        ("lmc_llama3_8b", "4f618b454eeea09d1c67ca39f5f73769"),
        ("lmc_mla", "baacc56522387c05d98d558c04746108"),
        ("trtllm_llama3_8b", "5e6e7f6ddecea430bc2fd342bccb3404"),
    ];
    let found: Vec<_> = all().map(|(name, page)| (name, page.fingerprint().to_string())).collect();
    assert_eq!(found, golden.map(|(name, print)| (name, print.to_owned())));
    assert_eq!(Opaque::<131_072>::FINGERPRINT.to_string(), "d7746c153b26589face69fa5f93be5f4");
    assert_eq!(Opaque::<1_048_576>::FINGERPRINT.to_string(), "6ac6cc8040d38f41b5e9c1489ab7b28c");
    type State = VllmMamba<1_000_000, 1_048_576>;
    assert_eq!(State::FINGERPRINT.to_string(), "91daa59584e626802da8a433d5f0f740");
}

#[test]
fn golden_dump() {
    assert_eq!(
        SglV32Indexer::GEOMETRY.to_string(),
        "\
515328 bytes in 1 region, 64 tokens, fingerprint 9f12889b78126e109ac9da2e5415397b
plane 0 at region 0 + 0: layer 61 every 8448, token 64 every 128
  keys       128 x u8    at 0       128 bytes
plane 1 at region 0 + 8192: layer 61 every 8448, token 64 every 4
  scale        1 x F32   at 0         4 bytes"
    );
}

#[test]
fn golden_dump_with_every_property() {
    #[derive(kvrail_macros::KvLayout)]
    #[kv(crate = "kvrail_layouts", order(strided(planes), strided(layer), pad(64), tile, block, token, head))]
    #[kv(layers = 2, tokens = 8, tokens_per_state = 4, heads = 3, blocks = 2, axis(tile = 5, tag = 7))]
    #[kv(
        sharded(head, ranks = 8, rank = 1),
        replicated(layer, ranks = 2),
        align = 32,
        version = 3,
        swizzle = 9
    )]
    #[allow(dead_code)]
    struct All {
        k: Bf16,
        #[kv(plane, order(strided(layer), pad(96)))]
        footer: [u8; 3],
    }
    assert_eq!(
        All::GEOMETRY.to_string(),
        "\
448 bytes in 1 region (202 of padding), 8 tokens (4 per state), align 32, version 3, swizzle 9, \
fingerprint d0062d6712e9497d12d450e2274efde3
layer 2: replicated on 2 ranks
head 3: the part of rank 1 of 8
plane 0 at region 0 + 0: layer 2 at run time, other#7 5 every 24, block 2 every 12, token 2 every 6, head 3 every 2
  k            1 x Bf16  at 0         2 bytes
plane 1 at region 0 + (run time): layer 2 at run time, token 2 shared, head 3 shared, block 2 shared, other#7 5 shared
  footer       3 x u8    at 0         3 bytes"
    );
}
