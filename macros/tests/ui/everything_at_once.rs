//! Many mistakes of one declaration, each on its token, and no other message.
use kvrail_layouts::{Bf16, KvLayout as _, View};
use kvrail_macros::KvLayout;

#[derive(KvLayout)]
#[kv(crate = "kvrail_layouts", order(layer, token, head), layers = 0, tokens = 64, tokens = 32)]
#[kv(aling = 64, pad_to = 4096, bytes = 1.5, parts = 2)]
struct Page {
    latent: [[Bf16; 128]; 4],
    #[kv(plan)]
    rope: &'static Bf16,
    #[kv(name = "rope")]
    other: [Bf16; 64],
}

fn main() {
    // Uses are not reported: the stub stands in.
    let _ = View::<Page>::new(&[0], Page::FINGERPRINT);
}
