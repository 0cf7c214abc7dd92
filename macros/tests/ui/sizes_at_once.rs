//! Mistakes that only show when sizes are known, each on its token.
use kvrail_layouts::{Bf16, F32};
use kvrail_macros::KvLayout;

const NONE: usize = 0;

#[derive(KvLayout)]
#[kv(crate = "kvrail_layouts", order(layer, token), layers = 61, tokens = 64)]
struct Empty {
    latent: [Bf16; NONE],
    scales: [F32; 4],
    rope: [Bf16; 0],
}

#[derive(KvLayout)]
#[kv(crate = "kvrail_layouts", order(token), tokens = 64, bytes = 41_985, align = 4096)]
struct Size {
    row: [u8; 656],
}

#[derive(KvLayout)]
#[kv(crate = "kvrail_layouts", order(layer, token), layers = 0x4000_0000_0000_0000, tokens = 64)]
struct Huge {
    row: [u8; 656],
}

fn main() {}
