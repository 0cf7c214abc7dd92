//! Declarations that an author's own macro writes, with names and numbers from either side of the
//! call.
#![deny(warnings)]

use kvrail::layouts::{Bf16, F32};
use kvrail::{KvLayout, PageLayout, Storage, engine};

/// All of the declaration is the macro's.
macro_rules! parameters {
    ($name:ident) => {
        #[derive(KvLayout)]
        #[kv(order(planes, token, head), tokens = 2 * T, heads = H, version = H, sharded(head, ranks = H, rank = H - 1))]
        #[kv(tokens_per_state = 2, bytes = T * H * 2 * 8)]
        struct $name<const H: usize, const T: usize, E = Bf16> {
            k: [E; 4],
            #[kv(plane, order(token, pad(E4), head))]
            v: [E; 4],
        }
    };
}
const E4: usize = 1;
parameters!(Parameters);

/// Names and numbers are the call's.
macro_rules! numbers {
    ($name:ident, $field:ident: $element:ty, $layers:expr, $len:expr, $pad:literal) => {
        #[derive(KvLayout)]
        #[kv(order(layer, pad($pad), token), layers = $layers, tokens = 16)]
        struct $name<const N: usize> {
            $field: [$element; $len],
            rest: [u8; N],
        }

        #[derive(KvLayout)]
        #[kv(order(layer, token), layers = $layers, tokens = 16)]
        struct Plain {
            $field: [$element; $len],
        }
    };
}
const LEN: usize = 8;
numbers!(Numbers, latent: F32, 1 + LAYERS, LEN * 2, 4096);
const LAYERS: usize = 3;

macro_rules! reader {
    ($reader:ident, $page:ty, $batch:expr) => {
        engine! { pub $reader { page: $page, max_rails: 1, max_peers: 1, max_batch: $batch, chunk: 4 * KIB } }
        static STORAGE: Storage<$reader> = Storage::new();
    };
}
const KIB: usize = 1024;
reader!(Reader, Numbers<7>, 2 * LEN);

fn main() {
    assert_eq!(Parameters::<8, 4>::PAGE_BYTES, 512);
    assert_eq!(Parameters::<8, 4, Bf16>::V.index(), 1);
    assert_eq!(Numbers::<7>::PAGE_BYTES, 4 * 4096);
    assert_eq!(Plain::PAGE_BYTES, 4 * 16 * 64);
    assert_eq!(Plain::LATENT.index(), 0);
    assert_eq!(PageLayout::of::<Numbers<7>>().page_bytes(), 16_384);
    assert_eq!(Reader::STATE_BYTES, size_of_val(&STORAGE));
}
