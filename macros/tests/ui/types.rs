//! A constant that is no `usize`, and a page without a declaration.
use kvrail_layouts::{Bf16, KvLayout};
use kvrail_macros::KvLayout;

const TOKENS: u64 = 64;
const VERSION: u32 = 1;

#[derive(KvLayout)]
#[kv(crate = "kvrail_layouts", order(token), tokens = TOKENS, tokens_per_state = 4, version = VERSION)]
struct Page {
    latent: [Bf16; 512],
}

#[derive(KvLayout)]
#[kv(crate = "kvrail_layouts", order(token), tokens = 64)]
struct Rows<E> {
    latent: [E; 512],
}

struct NoPage;

fn bytes<L: KvLayout>() -> u64 {
    L::PAGE_BYTES
}

fn main() {
    bytes::<NoPage>();
    bytes::<Rows<u16>>();
}
