//! More than a page can have, and numbers that do not fit each other.
use kvrail_layouts::Bf16;
use kvrail_macros::KvLayout;

const NONE: usize = 0;

#[derive(KvLayout)]
#[kv(crate = "kvrail_layouts", order(token), tokens = 64)]
struct Fields {
    a: u8, b: u8, c: u8, d: u8, e: u8, f: u8, g: u8, h: u8,
    i: u8, j: u8, k: u8, l: u8, m: u8, n: u8, o: u8, p: u8, q: u8,
}

#[derive(KvLayout)]
#[kv(crate = "kvrail_layouts", order(planes, token), tokens = 64)]
struct Planes {
    a: u8,
    #[kv(plane)] b: u8,
    #[kv(plane)] c: u8,
    #[kv(plane)] d: u8,
    #[kv(plane)] e: u8,
    #[kv(plane)] f: u8,
    #[kv(plane)] g: u8,
    #[kv(plane)] h: u8,
    #[kv(plane)] i: u8,
}

#[derive(KvLayout)]
#[kv(crate = "kvrail_layouts", order(layer, token, part, head, block, a, b, c, d))]
#[kv(layers = 1, tokens = 1, parts = 1, heads = 1, blocks = 1, axis(a = 1), axis(b = 1), axis(c = 1), axis(d = 1))]
struct Axes {
    k: Bf16,
}

#[derive(KvLayout)]
#[kv(crate = "kvrail_layouts", order(regions(layer), regions(head), token), layers = 64, heads = 65, tokens = 1)]
struct Regions {
    k: Bf16,
}

#[derive(KvLayout)]
#[kv(crate = "kvrail_layouts", order(planes, token), tokens = 64)]
struct Shared {
    k: Bf16,
    #[kv(plane, order(regions(token)))]
    v: Bf16,
}

#[derive(KvLayout)]
#[kv(crate = "kvrail_layouts", order(layer, token), layers = 61, tokens = 64, tokens_per_state = NONE)]
#[kv(bytes = 61 * 73_729, align = 4096)]
struct Sizes {
    latent: [Bf16; 576],
}

#[derive(KvLayout)]
#[kv(crate = "kvrail_layouts", order(layer, token), layers = 3, tokens = 64, align = 4096)]
struct Align {
    row: [u8; 20],
}

fn main() {}
