//! Axes of the author's own, and axes spread over ranks.
use kvrail_layouts::Bf16;
use kvrail_macros::KvLayout;

#[derive(KvLayout)]
#[kv(crate = "kvrail_layouts", order(token, tile), tokens = 64)]
#[kv(axis, axis(), axis(layer = 4), axis(tile = 0), axis(tile = 4), axis(other = 2, tag = 0))]
struct Own {
    latent: [Bf16; 512],
}

#[derive(KvLayout)]
#[kv(crate = "kvrail_layouts", order(token, tile), tokens = 64)]
#[kv(axis(tile = 4, tag = 256), axis(chunk = 4, tag = N), axis(pad = 2), axis(part = 2), axis(a = 1, b = 2))]
struct Tags {
    latent: [Bf16; 512],
}

#[derive(KvLayout)]
#[kv(crate = "kvrail_layouts", order(token, head), tokens = 64, heads = 1)]
#[kv(sharded(head), sharded(head, ranks = 0), sharded(layer, ranks = 8), sharded(tile, ranks = 8))]
#[kv(sharded(token, ranks = 8, rank = 8), replicated(head, ranks = 8, rank = 1), sharded, ranks = 8)]
struct Ranks {
    latent: [Bf16; 512],
}

#[derive(KvLayout)]
#[kv(crate = "kvrail_layouts", order(token, head), tokens = 64, heads = 1)]
#[kv(sharded(head, ranks = 8), replicated(head, ranks = 8))]
struct Twice {
    latent: [Bf16; 512],
}

#[derive(KvLayout)]
#[kv(crate = "kvrail_layouts", order(layer, token), layers = 15, tokens = 64)]
#[kv(stage(layer), stage(layer, first = 1), stage(layer, first = 1, of = 0), stage(head, first = 0, of = 8))]
#[kv(stage(layer, first = 1, of = 61, ranks = 4), stage, stage(layer, of = 61, first = 1, first = 2))]
struct Stages {
    latent: [Bf16; 512],
}

#[derive(KvLayout)]
#[kv(crate = "kvrail_layouts", order(layer, token), layers = 15, tokens = 64, stage(layer, first = 47, of = 61))]
struct TooFar {
    latent: [Bf16; 512],
}

fn main() {}
