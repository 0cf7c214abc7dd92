//! Items that are no struct with named fields of known types.
use kvrail_layouts::Bf16;
use kvrail_macros::KvLayout;

#[derive(KvLayout)]
#[kv(crate = "kvrail_layouts", order(token), tokens = 64)]
enum Enum {
    Latent([Bf16; 512]),
}

#[derive(KvLayout)]
#[kv(crate = "kvrail_layouts", order(token), tokens = 64)]
union Union {
    latent: [Bf16; 512],
}

#[derive(KvLayout)]
#[kv(crate = "kvrail_layouts", order(token), tokens = 64)]
struct Tuple([Bf16; 512]);

#[derive(KvLayout)]
#[kv(crate = "kvrail_layouts", order(token), tokens = 64)]
struct Nothing {}

#[derive(KvLayout)]
#[kv(crate = "kvrail_layouts", order(token), tokens = 64)]
struct Borrowed<'a> {
    latent: &'a [Bf16],
}

#[derive(KvLayout)]
#[kv(crate = "kvrail_layouts", order(token), tokens = 64)]
struct Hidden {
    tokens: [Bf16; 512],
    #[kv(name = "l")]
    layers: Bf16,
    k: Bf16,
    K: Bf16,
}

fn main() {}
