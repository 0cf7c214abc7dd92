//! The expansion names nothing that a crate may have renamed, hidden or shadowed.
#![no_implicit_prelude]
#![deny(warnings)]

extern crate kvrail_layouts as renamed;
use ::kvrail_macros::KvLayout;

mod engine {
    pub(crate) mod layouts {
        pub(crate) use ::kvrail_layouts::*;
    }
}

#[allow(non_camel_case_types, dead_code)]
struct u64;
#[allow(dead_code)]
struct Option;
#[allow(dead_code)]
struct Declaration;

#[derive(KvLayout)]
#[kv(crate = "crate::engine::layouts", name = "r#page", version = 1, swizzle = 2)]
#[kv(order(regions(layer), planes, pad(100), token, part, head), layers = 2, tokens = 8, parts = 2, heads = 3)]
#[kv(tokens_per_state = 4, bytes = 1400, align = 100)]
struct Page {
    r#type: [renamed::Bf16; 2 + 2],
    #[kv(plane, order(pad(600)), name = "foot")]
    footer: renamed::F32,
}

#[derive(KvLayout)]
#[kv(crate = "renamed", order(regions(planes), strided(layer), token), layers = 2, tokens = 8)]
struct Apart {
    k: [renamed::F16; 8],
    #[kv(plane)]
    v: [renamed::F16; 8],
}

fn main() {
    use renamed::KvLayout as _;
    ::core::assert_eq!(Page::PAGE_BYTES, 1400);
    ::core::assert_eq!(Page::GEOMETRY.fields()[0].name(), "type");
    ::core::assert_eq!(Page::GEOMETRY.fields()[1].name(), "foot");
    ::core::assert_eq!(Apart::REGIONS, 2);
    ::core::assert!(!Apart::GEOMETRY.is_placed());
}
