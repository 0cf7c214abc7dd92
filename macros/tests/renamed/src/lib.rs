//! The expansions work in a crate that has renamed kvrail, has no prelude, and defines items with
//! the names of items of the prelude and of kvrail.
#![no_std]
#![no_implicit_prelude]
#![deny(warnings)]
#![allow(missing_debug_implementations, reason = "a declaration is never printed")]
#![allow(non_camel_case_types, dead_code, missing_docs, reason = "names that are in the way")]

use ::kv::layouts::{Bf16, Ue8m0};

struct Result;
struct Option;
struct Some;
struct Geometry;
struct Declaration;
struct u64;
struct usize;
struct str;
mod core {}
mod layouts {}

/// A page with a footer, of one rank.
#[derive(::kv::KvLayout)]
#[kv(crate = "::kv", order(regions(layer), tile, pad(64), planes, token, head), layers = N, tokens = 2 * N)]
#[kv(axis(tile = 3), heads = 1, sharded(head, ranks = 8, rank = 7), tokens_per_state = N, version = N)]
pub struct Page {
    /// The latent part.
    latent: [Bf16; N * 4],
    #[kv(plane, order(token, pad(8)))]
    scales: [Ue8m0; 7],
}

/// A page with const and type parameters.
#[derive(::kv::KvLayout)]
#[kv(crate = "::kv", order(planes, head, token), heads = H, tokens = 16)]
pub struct Gqa<const H: ::core::primitive::usize, E>
where
    E: ::core::marker::Copy,
{
    k: [E; 128],
    #[kv(plane)]
    v: [E; 128],
}

const N: ::core::primitive::usize = 2;

const _: () = {
    use ::kv::layouts::KvLayout;
    // 2 states of 16 bytes, 2 of 8, padded from 48 to 64; 3 tiles, 2 regions.
    ::core::assert!(Page::PAGE_BYTES == 2 * 3 * 64 && Page::REGIONS == 2 && Page::TOKENS == 4);
    ::core::assert!(Page::SCALES.index() == 1);
    ::core::assert!(<Gqa<8, Bf16> as KvLayout>::PAGE_BYTES == 2 * 8 * 16 * 256);
    ::core::assert!(Gqa::<8, Bf16>::V.index() == 1);
};

::kv::engine! {
    /// A reader of pages with parameters.
    #[kv(crate = "::kv")]
    pub Pull { page: Gqa<8, Bf16>, max_rails: 2, max_peers: N, max_batch: 8 * N, max_submitters: 1, chunk: 65_536 }
}
static STORAGE: ::kv::Storage<Pull> = ::kv::Storage::new();

const _: () = ::core::assert!(Pull::STATE_BYTES > 100_000 && Pull::STATE_BYTES < 1 << 24);

/// Starts it, over any rails.
pub fn start(rails: ::kv::tcp::TcpRails) -> Pull<::kv::tcp::TcpRails> {
    let ::core::result::Result::Ok(state) = STORAGE.take() else { ::core::panic!("taken") };
    let config = <::kv::Config as ::core::default::Default>::default();
    let ::core::result::Result::Ok(reader) = Pull::start(state, rails, config) else {
        ::core::panic!("refused")
    };
    reader
}
