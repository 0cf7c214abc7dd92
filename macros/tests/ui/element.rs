//! A Rust number is no element: it has an alignment and the machine's byte order.
use kvrail_macros::KvLayout;

#[derive(KvLayout)]
#[kv(crate = "kvrail_layouts", order(token), tokens = 64)]
struct Page {
    latent: [f32; 512],
}

fn main() {}
