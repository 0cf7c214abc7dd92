//! The shipped layouts against nested loops, against the derive, and against golden values.

use kvrail_layouts::catalogue::{Opaque, SglMlaPageFirstDirect, SglV32Indexer, VllmFp8DsMla};
use kvrail_layouts::{Bf16, E4m3, F32, KvLayout, Place, Ue8m0};

/// Asserts that `field` at `indices` begins at `cursor` and moves the cursor along its elements.
fn run<L: KvLayout>(field: &str, indices: &[u64], count: u64, bytes: u64, cursor: &mut u64) {
    let index = L::GEOMETRY.field_named(field).unwrap();
    for element in 0..count {
        let place = L::GEOMETRY.offset_of_element(index, indices, element);
        assert_eq!(place, Ok(Place { region: 0, offset: *cursor }), "{field} {indices:?} {element}");
        *cursor += bytes;
    }
}

#[test]
fn sgl_mla_page_first_direct() {
    let mut cursor = 0;
    for layer in 0..61 {
        for token in 0..64 {
            run::<SglMlaPageFirstDirect>("latent", &[layer, token], 512, 2, &mut cursor);
            run::<SglMlaPageFirstDirect>("rope", &[layer, token], 64, 2, &mut cursor);
        }
    }
    assert_eq!(cursor, 4_497_408);
}

#[test]
fn vllm_fp8_ds_mla() {
    let mut cursor = 0;
    for token in 0..64 {
        run::<VllmFp8DsMla>("latent", &[token], 512, 1, &mut cursor);
        run::<VllmFp8DsMla>("scales", &[token], 4, 4, &mut cursor);
        run::<VllmFp8DsMla>("rope", &[token], 64, 2, &mut cursor);
    }
    assert_eq!(cursor, 41_984);
}

#[test]
fn sgl_v32_indexer() {
    let mut cursor = 0;
    for layer in 0..61 {
        assert_eq!(cursor, layer * 8_448);
        for token in 0..64 {
            run::<SglV32Indexer>("keys", &[layer, token], 128, 1, &mut cursor);
        }
        assert_eq!(cursor, layer * 8_448 + 8_192);
        for token in 0..64 {
            run::<SglV32Indexer>("scale", &[layer, token], 1, 4, &mut cursor);
        }
    }
    assert_eq!(cursor, 515_328);
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
fn constants() {
    fn of<L: KvLayout>() -> (u64, u32, u64, u64, bool) {
        (L::PAGE_BYTES, L::REGIONS, L::TOKENS, L::LAYERS, L::SYNTHETIC)
    }
    assert_eq!(of::<SglMlaPageFirstDirect>(), (4_497_408, 1, 64, 61, false));
    assert_eq!(of::<VllmFp8DsMla>(), (41_984, 1, 64, 1, false));
    assert_eq!(of::<SglV32Indexer>(), (515_328, 1, 64, 61, false));
    assert_eq!(of::<Opaque<131_072>>(), (131_072, 1, 0, 1, true));
    assert_eq!(of::<Opaque<1_048_576>>(), (1_048_576, 1, 0, 1, true));
    assert!(Opaque::<1>::NAME.contains("synthetic"));
}

mod derived {
    use super::{Bf16, E4m3, F32, Ue8m0};
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
    #[kv(crate = "kvrail_layouts", order(token), tokens = 64, bytes = 41_984)]
    pub(crate) struct Fp8 {
        latent: [E4m3; 512],
        scales: [F32; 4],
        rope: [Bf16; 64],
    }

    #[derive(KvLayout)]
    #[kv(crate = "kvrail_layouts", order(layer, planes, token), layers = 61, tokens = 64)]
    pub(crate) struct Indexer {
        keys: [u8; 128],
        #[kv(plane)]
        scale: F32,
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

    /// DeepSeek V4, as in docs/layouts.md.
    #[derive(KvLayout)]
    #[kv(crate = "kvrail_layouts", order(layer, pad(576), planes, token))]
    #[kv(layers = 21, tokens = 256, tokens_per_state = 4, bytes = 786_240)]
    pub(crate) struct V4 {
        latent: [E4m3; 448],
        rope: [Bf16; 64],
        #[kv(plane, order(token, pad(8)))]
        scales: [Ue8m0; 7],
    }

    /// SGLang, page_head, as in docs/layouts.md.
    #[derive(KvLayout)]
    #[kv(crate = "kvrail_layouts", order(regions(planes), head, token, layer))]
    #[kv(layers = 80, tokens = 64, heads = 1, bytes = 2_621_440)]
    pub(crate) struct Gqa {
        k: [Bf16; 128],
        #[kv(plane)]
        v: [Bf16; 128],
    }

    #[derive(KvLayout)]
    #[kv(crate = "kvrail_layouts", order())]
    pub(crate) struct Opaque {
        bytes: [u8; 131_072],
    }
}

/// The derive writes a declaration down; it must be the same one.
#[test]
fn the_derive_gives_the_same_geometry() {
    fn same<A: KvLayout, B: KvLayout>() {
        assert_eq!(A::GEOMETRY, B::GEOMETRY);
        assert_eq!(A::FINGERPRINT, B::FINGERPRINT);
        assert_eq!(A::PAGE_BYTES, B::PAGE_BYTES);
    }
    same::<derived::Mla, SglMlaPageFirstDirect>();
    same::<derived::Fp8, VllmFp8DsMla>();
    same::<derived::Indexer, SglV32Indexer>();
    same::<derived::Opaque, Opaque<131_072>>();
    assert_eq!(derived::Mla::NAME, "Mla");
    assert_eq!((derived::V4::TOKENS, derived::Gqa::REGIONS), (256, 2));
    assert_eq!(derived::Gqa::GEOMETRY.region_bytes(1), Some(1_310_720));
}

/// A length check proves nothing.
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
/// Peers of other builds and machines hold these values. If one changes, either a layout did, or the
/// definition in `fingerprint.rs` did, and its version has to.
#[test]
fn golden_fingerprints() {
    let golden = [
        (SglMlaPageFirstDirect::FINGERPRINT, "5b3054b000e57a7aea816f4179d0eb12"),
        (VllmFp8DsMla::FINGERPRINT, "040210797fd893d34befc9460983e56b"),
        (SglV32Indexer::FINGERPRINT, "9f12889b78126e109ac9da2e5415397b"),
        (Opaque::<131_072>::FINGERPRINT, "d7746c153b26589face69fa5f93be5f4"),
        (Opaque::<1_048_576>::FINGERPRINT, "6ac6cc8040d38f41b5e9c1489ab7b28c"),
    ];
    for (found, expected) in golden {
        assert_eq!(found.to_string(), expected);
    }
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
