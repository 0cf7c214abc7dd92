//! What `engine!` writes, against `tests/expand/engine*.expanded.rs`; blessed as the derive's.

use quote::quote;

use crate::golden::golden_file;

#[test]
fn a_reader() {
    golden_file(
        "engine",
        super::engine(quote! { pub Reader { page: Mla, max_rails: 8, max_peers: 256, max_batch: 64 } }, None),
    );
}

#[test]
fn every_key() {
    golden_file(
        "engine_every_key",
        super::engine(
            quote! {
                /// Pulls.
                #[kv(crate = "kv")]
                pub(crate) Pull {
                    page: pages::Mla,
                    pages: [pages::Indexer, Window],
                    max_rails: 2,
                    max_peers: PEERS,
                    max_pools: 5,
                    max_regions: 8,
                    max_lanes: 8,
                    max_depth: 64,
                    max_batch: 1 + 1,
                    max_batches: 3,
                    max_submitters: 4,
                    max_plans: 100,
                    chunk: 4096,
                    rail_bytes: 1 << 20,
                    rail_wrs: 99,
                    deadline_ms: 50,
                    max_message: 1 << 24,
                    max_cq: 4096,
                    plan: PLAN,
                    max_sges: 30,
                }
            },
            None,
        ),
    );
}

#[test]
fn a_bare_engine() {
    golden_file(
        "engine_bare",
        super::engine(quote! { #[kv(bare)] pub Puller { page: Mla, max_rails: 1, max_batch: 64 } }, None),
    );
}

#[test]
fn a_stub_of_a_bare_engine() {
    golden_file(
        "engine_bare_stub",
        super::engine(
            quote! { #[kv(bare = 1, bare)] Puller { page: Mla, max_submitters: 4, max_plans: 9 } },
            None,
        ),
    );
}

#[test]
fn a_stub_after_mistakes() {
    golden_file(
        "engine_stub",
        super::engine(quote! { Reader { peers: 5, max_rails: "8", max_rails: 8 } }, None),
    );
}
