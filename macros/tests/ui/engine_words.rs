//! Mistakes that tokens show: each is one message, and uses of the type add none.

use kvrail::layouts::Bf16;
use kvrail::{Config, KvLayout, Storage, engine, shm};

#[derive(KvLayout)]
#[kv(order(layer, token), layers = 4, tokens = 16)]
struct Mla {
    latent: [Bf16; 512],
}

engine! {
    #[derive(Clone)]
    #[kv(crate = kvrail)]
    Words {
        page: Mla,
        rails: 2,
        max_sockets: 2,
        max_peers: "two",
        max_depth: 1.5,
        max_batch: 1,
        max_batch: 2,
        max_sges: 30,
    }
}

engine! { Paged { max_rails: 8 } }

engine! { Unbraced (page: Mla) }

static STORAGE: Storage<Words> = Storage::new();

fn main() {
    let reader = Words::start(STORAGE.take().unwrap(), shm::rails(1).unwrap(), Config::default());
    println!("{} {}", reader.unwrap().rails(), Paged::STATE_BYTES);
}
