//! Numbers that are none, or do not agree.
use kvrail_layouts::Bf16;
use kvrail_macros::KvLayout;

#[derive(KvLayout)]
#[kv(crate = "kvrail_layouts", order(token), tokens = 64u64, align = -1, version = 4_294_967_296, swizzle)]
struct Literals {
    latent: [Bf16; 512],
}

#[derive(KvLayout)]
#[kv(crate = "kvrail_layouts", order(token), tokens = 250, tokens_per_state = 4)]
struct States {
    latent: [Bf16; 512],
}

#[derive(KvLayout)]
#[kv(crate = "kvrail_layouts", order(layer), layers = 61, tokens_per_state = 4)]
struct NoTokens {
    latent: [Bf16; 512],
}

#[derive(KvLayout)]
#[kv(crate = "kvrail_layouts", order(layer), layers = 99_999_999_999_999_999_999, align = 0)]
struct Range {
    latent: [Bf16; 512],
}

#[derive(KvLayout)]
#[kv(crate = "kvrail_layouts", order(token), tokens = 1.5, align = "64")]
struct NoNumbers {
    latent: [Bf16; 512],
}

fn main() {}
