//! Orders that make no page.
use kvrail_layouts::Bf16;
use kvrail_macros::KvLayout;

#[derive(KvLayout)]
#[kv(crate = "kvrail_layouts")]
struct Missing {
    latent: [Bf16; 512],
}

#[derive(KvLayout)]
#[kv(crate = "kvrail_layouts", order = "layer", layers = 61)]
struct Text {
    latent: [Bf16; 512],
}

#[derive(KvLayout)]
#[kv(crate = "kvrail_layouts", order(layer, batch, token), layers = 61, tokens = 64)]
struct Word {
    latent: [Bf16; 512],
}

#[derive(KvLayout)]
#[kv(crate = "kvrail_layouts", order(layer, token, layer), layers = 61, tokens = 64)]
struct Twice {
    latent: [Bf16; 512],
}

#[derive(KvLayout)]
#[kv(crate = "kvrail_layouts", order(layer(61), pad(0), pad(), pad, token), layers = 61, tokens = 64)]
struct Levels {
    latent: [Bf16; 512],
}

#[derive(KvLayout)]
#[kv(crate = "kvrail_layouts", order(token, regions(layer)), layers = 61, tokens = 64)]
struct Inside {
    latent: [Bf16; 512],
}

#[derive(KvLayout)]
#[kv(crate = "kvrail_layouts", order(regions, strided(pad), regions(layer, token)), layers = 61, tokens = 64)]
struct Arguments {
    latent: [Bf16; 512],
}

#[derive(KvLayout)]
#[kv(crate = "kvrail_layouts", order(layer, token), layers = 61)]
struct Extent {
    latent: [Bf16; 512],
}

#[derive(KvLayout)]
#[kv(crate = "kvrail_layouts", order(layer), layers = 61, heads = 8)]
struct Unused {
    latent: [Bf16; 512],
}

fn main() {}
