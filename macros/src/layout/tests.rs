//! What the derive writes, pretty-printed, against `tests/expand/*.expanded.rs`.
//!
//! `BLESS=1 cargo test -p kvrail-macros --lib` writes them; read the difference.

use syn::{DeriveInput, parse_quote};

use crate::golden::golden_file;

#[track_caller]
fn golden(name: &str, input: &DeriveInput) {
    golden_file(name, super::derive(input, None));
}

#[test]
fn a_page() {
    golden(
        "mla",
        &parse_quote! {
            #[kv(order(layer, token), layers = 61, tokens = 64)]
            struct Mla {
                latent: [Bf16; 512],
                rope: [Bf16; 64],
            }
        },
    );
}

#[test]
fn every_word() {
    golden(
        "every_word",
        &parse_quote! {
            #[kv(crate = "kv", name = "everything", version = 1, swizzle = 2)]
            #[kv(order(regions(part), pad(4096), strided(layer), planes, token, pad(64), head))]
            #[kv(parts = 2, layers = 4, tokens = 64, heads = 8, tokens_per_state = 4, align = 4096)]
            #[kv(bytes = 1_000)]
            struct Everything {
                first: [E4m3; N + 1],
                #[kv(name = "scale")]
                second: F32,
                #[kv(plane, order(pad(576), token))]
                footer: [u8; 3],
            }
        },
    );
}

#[test]
fn parameters_and_ranks() {
    golden(
        "generic",
        &parse_quote! {
            /// One rank's heads.
            #[kv(order(regions(planes), layer, tile, token, head), layers = LAYERS, tokens = 2 * T, heads = H)]
            #[kv(axis(tile = 4, tag = 7), sharded(head, ranks = RANKS, rank = 3), replicated(layer, ranks = 2))]
            #[kv(tokens_per_state = P, version = V)]
            pub struct Gqa<const H: usize, const T: usize, E = Bf16> where E: Copy {
                /// Keys.
                k: [E; 128],
                #[kv(plane)]
                v: [E; 128],
            }
        },
    );
}

#[test]
fn a_pipeline_stage() {
    golden(
        "stage",
        &parse_quote! {
            #[kv(order(layer, token), layers = COUNT, tokens = 16, stage(layer, first = FIRST, of = 61))]
            struct Stage<const FIRST: usize, const COUNT: usize> {
                latent: [Bf16; 512],
            }
        },
    );
}

#[test]
fn a_stub_after_mistakes() {
    golden(
        "stub",
        &parse_quote! {
            #[kv(order(layer), layer = 61)]
            struct Wrong<const N: usize> {
                latent: [Bf16; N],
            }
        },
    );
}
