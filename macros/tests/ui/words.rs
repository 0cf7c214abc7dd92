//! Keys that are not of this grammar.
use kvrail_layouts::Bf16;
use kvrail_macros::KvLayout;

#[derive(KvLayout)]
#[kv(crate = "kvrail_layouts", order(token), tokens = 64, rank = 3, name = 7)]
struct Unknown {
    #[kv(align = 4)]
    latent: [Bf16; 512],
}

#[derive(KvLayout)]
#[kv(crate = kvrail_layouts, order(token), tokens = 64)]
struct Crate {
    latent: [Bf16; 512],
}

#[derive(KvLayout)]
#[kv(crate = "kvrail_layouts")]
#[kv(order(token) tokens = 64)]
struct Comma {
    latent: [Bf16; 512],
}

#[derive(KvLayout)]
#[kv(crate = "kvrail_layouts", order(layer), layer = 61)]
struct Singular {
    latent: [Bf16; 512],
}

fn main() {}
