//! Numbers that are constants: a mistake shows when the value is known, each on its token.
use kvrail_layouts::{Bf16, KvLayout as _};
use kvrail_macros::KvLayout;

const NONE: usize = 0;
const TOKENS: usize = 250;
const LARGE: usize = 1 << 32;
const RANKS: usize = 8;

#[derive(KvLayout)]
#[kv(crate = "kvrail_layouts", order(layer, tile, token, pad(NONE)), layers = NONE, tokens = 64)]
#[kv(axis(tile = NONE), align = NONE, version = LARGE)]
struct Zero {
    latent: [Bf16; 512],
}

#[derive(KvLayout)]
#[kv(crate = "kvrail_layouts", order(token), tokens = TOKENS, tokens_per_state = 4)]
struct States {
    latent: [Bf16; 512],
}

#[derive(KvLayout)]
#[kv(crate = "kvrail_layouts", order(head), heads = 1, sharded(head, ranks = RANKS, rank = 8))]
struct Ranks {
    latent: [Bf16; 512],
}

#[derive(KvLayout)]
#[kv(crate = "kvrail_layouts", order(token, head), tokens = 64, heads = H, bytes = 64 * H * 256)]
struct Generic<const H: usize, E> {
    k: [E; 128],
}

// The parameters are known here, and right.
const _: u64 = Generic::<8, Bf16>::PAGE_BYTES;
// And here they are not: the mistake is on its token, in the declaration.
const _: u64 = Generic::<0, Bf16>::PAGE_BYTES;
const _: u64 = Generic::<8, u8>::PAGE_BYTES;

// Where all parameters have defaults, those are tried.
#[derive(KvLayout)]
#[kv(crate = "kvrail_layouts", order(token, head), tokens = 64, heads = H, bytes = 64 * H * 256)]
struct Defaults<const H: usize = 8, E = u8> {
    k: [E; 128],
}

fn main() {}
