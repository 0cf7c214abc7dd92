//! Peers cannot compare numbers that are known only at run time by a declaration.

use kvrail::layouts::Bf16;
use kvrail::{KvLayout, PageLayout, engine};

/// V at a distance from K.
#[derive(KvLayout)]
#[kv(order(strided(planes), token), tokens = 16)]
struct Apart {
    k: [Bf16; 128],
    #[kv(plane)]
    v: [Bf16; 128],
}

/// Tiles at a stride.
#[derive(KvLayout)]
#[kv(order(token, strided(tile)), axis(tile = 4), tokens = 16)]
struct Tiles {
    latent: [Bf16; 128],
}

/// The heads of one of eight ranks.
#[derive(KvLayout)]
#[kv(order(token, head), tokens = 16, heads = 1, sharded(head, ranks = 8))]
struct Ranked {
    k: [Bf16; 128],
}

const _: PageLayout = PageLayout::of::<Apart>();
const _: PageLayout = PageLayout::of::<Tiles>();
const _: PageLayout = PageLayout::of::<Ranked>();

engine! { Strided { page: Tiles } }

fn main() {}
