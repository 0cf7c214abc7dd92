//! How to declare pages, find their bytes, write and read them, and which mistakes are refused.
//!
//! ```text
//! cargo run --example declare_a_page
//! ```

use kvrail::layouts::{AxisKind, E4m3, F32, Placed, Selection, Ue8m0, ViewMut};
use kvrail::{Bf16, KvLayout, View};

/// DeepSeek's MLA in bf16. The struct is one token of one layer, and `order` says how tokens and
/// layers repeat.
#[derive(KvLayout)]
#[kv(order(layer, token), layers = 61, tokens = 64)]
struct Mla {
    latent: [Bf16; 512],
    rope: [Bf16; 64],
}

/// The same fields in another order: a page of the same length that must not be mistaken for `Mla`.
#[derive(KvLayout)]
#[kv(order(token, layer), layers = 61, tokens = 64)]
struct MlaTokenFirst {
    latent: [Bf16; 512],
    rope: [Bf16; 64],
}

/// One token with several element types. `bytes` is the expected size of a page; a declaration of
/// another size does not compile.
#[derive(KvLayout)]
#[kv(order(token), tokens = 64, bytes = 41_984)]
struct Fp8 {
    latent: [E4m3; 512],
    scales: [F32; 4],
    rope: [Bf16; 64],
}

/// DeepSeek V4: a state for every 4 tokens, scales behind all states in rows of 8 bytes, and each
/// layer padded up to a multiple of 576.
#[derive(KvLayout)]
#[kv(order(layer, pad(576), planes, token), layers = 21, tokens = 256, tokens_per_state = 4)]
struct V4 {
    latent: [E4m3; 448],
    rope: [Bf16; 64],
    #[kv(plane, order(token, pad(8)))]
    scales: [Ue8m0; 7],
}

/// Heads and elements are parameters. K and V are objects of their own, and the page has one rank's
/// part of the heads, of eight ranks.
#[derive(KvLayout)]
#[kv(order(regions(planes), head, token, layer), sharded(head, ranks = 8))]
#[kv(layers = LAYERS, tokens = 64, heads = H)]
struct Gqa<const H: usize, E> {
    k: [E; 128],
    #[kv(plane)]
    v: [E; 128],
}
const LAYERS: usize = 80;

/// A device pool: the distances between layers, and between K and V, depend on how many pages the
/// pool has.
#[derive(KvLayout)]
#[kv(order(strided(planes), strided(layer), token, head), layers = 4, tokens = 16, heads = 8)]
struct Pool {
    k: [Bf16; 128],
    #[kv(plane)]
    v: [Bf16; 128],
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!(
        "== The declared pages: all of their sizes are compile-time constants
"
    );
    describe::<Mla>();
    describe::<Fp8>();
    describe::<V4>();
    describe::<Gqa<1, Bf16>>();

    println!(
        "== Two pages of {} bytes with different layouts are not taken for each other
",
        Mla::PAGE_BYTES
    );
    let bytes = vec![0; Mla::PAGE_BYTES as usize];
    let refused = View::<Mla>::new(&bytes, MlaTokenFirst::FINGERPRINT);
    println!("{}\n", refused.err().ok_or("they were taken for each other")?);

    println!(
        "== Bytes are written and read in place
"
    );
    let mut bytes = vec![0; Fp8::PAGE_BYTES as usize];
    let mut page = ViewMut::<Fp8>::new(&mut bytes, Fp8::FINGERPRINT)?;
    page.get_mut(Fp8::SCALES, &[7])?[3] = F32::from_bits(0.25_f32.to_bits());
    let place = Fp8::SCALES.place(&[7])?;
    println!("the scales of token 7 are at {}; the last of them is in bytes", place.offset);
    println!("{:?}\n", &bytes[place.offset as usize + 12..][..4]);

    println!(
        "== A part of a page is a list of contiguous byte ranges
"
    );
    byte_ranges::<Mla>("layers 10 and 11", Selection::ALL.layers(10, 2))?;
    byte_ranges::<Mla>("the first 16 tokens", Selection::ALL.tokens(0, 16))?;
    byte_ranges::<V4>("tokens 128 to 255 of layer 3", Selection::ALL.layers(3, 1).tokens(128, 128))?;
    byte_ranges::<Gqa<4, Bf16>>("heads 2 and 3 of V", Selection::ALL.heads(2, 2).field("v"))?;

    println!(
        "
== The distances of a pool are given and checked at run time
"
    );
    let (pages, page) = (1_000, 16 * 8 * 256);
    let pool = Placed::<Pool>::new(|p| {
        p.stride_of("k", AxisKind::Layer, pages * page)
            .stride_of("v", AxisKind::Layer, pages * page)
            .plane_of("v", 4 * pages * page)
    })?;
    println!("pool: {}\n", pool.geometry());
    let overlapping = Placed::<Pool>::new(|p| {
        p.stride_of("k", AxisKind::Layer, page).stride_of("v", AxisKind::Layer, page).plane_of("v", page)
    });
    println!("with V one layer behind K: {}", overlapping.err().ok_or("they overlap")?);
    Ok(())
}

fn describe<L: KvLayout>() {
    println!("{}: {}\n", L::NAME, L::GEOMETRY);
}

fn byte_ranges<L: KvLayout>(what: &str, selection: Selection) -> Result<(), Box<dyn std::error::Error>> {
    let selected = L::GEOMETRY.select(selection)?;
    let first = selected.byte_ranges().next().ok_or("a selection is not empty")?;
    let count = selected.byte_ranges().count();
    println!(
        "{}, {what}: {} bytes, byte ranges: {count}, the first: {} bytes at {} of region {}",
        L::NAME,
        selected.bytes(),
        first.len,
        first.offset,
        first.region
    );
    Ok(())
}
