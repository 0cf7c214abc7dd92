//! The grammar: constants, parameters, ranks, axes of one's own; and the constants of fields.
#![deny(warnings)]

use kvrail_layouts::{AxisKind, Bf16, E4m3, KvLayout as _, Selection, Spread, View, ViewMut};
use kvrail_macros::KvLayout;

const LAYERS: usize = 4;

/// One rank's heads.
#[derive(KvLayout)]
#[kv(crate = "kvrail_layouts", order(regions(planes), head, token, layer), sharded(head, ranks = 8))]
#[kv(layers = LAYERS, tokens = 2 * T, heads = H, bytes = 2 * H * 2 * T * LAYERS * 128 * size_of::<E>())]
pub struct Gqa<const H: usize, const T: usize, E> {
    /// Keys.
    k: [E; 128],
    #[kv(plane)]
    v: [E; 128],
}

#[derive(KvLayout)]
#[kv(crate = "kvrail_layouts", order(block, tile, token), blocks = 2, tokens = TOKENS, tokens_per_state = 4)]
#[kv(axis(tile = 3, tag = 9), replicated(token, ranks = 2))]
struct Tiles {
    data: [u8; 5],
}
const TOKENS: usize = 16;

#[derive(KvLayout)]
#[kv(crate = "kvrail_layouts", order(token), tokens = 2, sharded(token, ranks = 2, rank = 1))]
struct Rank {
    r#type: Bf16,
}

/// One of the stages of a pipeline, which are not equally long.
#[derive(KvLayout)]
#[kv(crate = "kvrail_layouts", order(layer, token), layers = COUNT, tokens = 2)]
#[kv(stage(layer, first = FIRST, of = 61))]
struct Stage<const FIRST: usize, const COUNT: usize> {
    latent: [u8; 4],
}

/// Numbers, types and names that come through a macro.
macro_rules! page {
    ($name:ident, $axis:ident, $key:ident = $extent:expr, $field:ident: $element:ty, $len:expr, $vis:vis) => {
        #[derive(KvLayout)]
        #[kv(crate = "kvrail_layouts", order($axis, pad($extent)), $key = $extent)]
        $vis struct $name {
            $field: [$element; $len],
        }
    };
}
page!(Wrapped, layer, layers = 4, row: Bf16, 3, pub(crate));

/// Bounds where they are, in both places; expressions with commas and casts in them.
#[derive(KvLayout)]
#[kv(crate = "kvrail_layouts", order(token, head), tokens = max(N, 2) as usize, heads = ({ 1 + 1 }))]
struct Bounds<const N: u8, E: Copy, F>
where
    F: Copy + 'static,
{
    e: E,
    f: [F; 2 + 1],
}

const fn max(a: u8, b: u8) -> u8 {
    if a > b { a } else { b }
}

const _: () = assert!(Gqa::<2, 8, Bf16>::PAGE_BYTES == 2 * 2 * 16 * 4 * 256);
const _: () = assert!(Gqa::<2, 8, E4m3>::PAGE_BYTES == 2 * 2 * 16 * 4 * 128);

fn main() -> Result<(), Box<dyn std::error::Error>> {
    type Page = Gqa<2, 8, Bf16>;
    assert_eq!((Page::REGIONS, Page::TOKENS, Page::LAYERS), (2, 16, 4));
    assert_eq!(Page::K.index(), 0);
    assert_eq!(Page::V.place(&[1, 2, 1])?.offset, 16 * 4 * 256 + 2 * 4 * 256 + 256);
    assert_ne!(Page::FINGERPRINT, Gqa::<2, 8, kvrail_layouts::F16>::FINGERPRINT);

    let (mut k, mut v) = (vec![0; 32_768], vec![0; 32_768]);
    let mut regions = [&mut k[..], &mut v[..]];
    let mut page = ViewMut::<Page>::of_regions(&mut regions, Page::FINGERPRINT)?;
    page.get_mut(Page::V, &[1, 2, 1])?[5] = Bf16::from_bits(7);
    assert_eq!(page.get(Page::V, &[1, 2, 1])?[5], Bf16::from_bits(7));
    let regions = [&k[..], &v[..]];
    let page = View::<Page>::of_regions(&regions, Page::FINGERPRINT)?;
    assert_eq!(page.get(Page::V, &[1, 2, 1])?[5].to_bits(), 7);
    assert_eq!(page.select(Selection::ALL.heads(1, 1))?.map(<[u8]>::len).collect::<Vec<_>>(), [16_384; 2]);

    assert_eq!((Wrapped::PAGE_BYTES, Wrapped::ROW.index()), (4 * 8, 0));
    assert_eq!(Bounds::<5, u8, Bf16>::PAGE_BYTES, 5 * 2 * 7);
    assert_eq!(Bounds::<1, u8, Bf16>::F.place(&[1, 1])?.offset, 7 * 3 + 1);

    // Declared where it is used.
    #[derive(KvLayout)]
    #[kv(crate = "kvrail_layouts", order(token), tokens = 2)]
    struct Local {
        row: [u8; 3],
    }
    assert_eq!(Local::ROW.place(&[1])?.offset, 3);

    assert_eq!((Tiles::PAGE_BYTES, Tiles::TOKENS), (2 * 3 * 4 * 5, 16));
    let kinds: Vec<_> = Tiles::GEOMETRY.axes().iter().map(|axis| axis.kind).collect();
    assert_eq!(kinds, [AxisKind::Token, AxisKind::Block, AxisKind::Other(9)]);
    assert_eq!(Tiles::GEOMETRY.axes()[0].spread, Spread::Replicated { ranks: 2 });
    assert_eq!(Rank::GEOMETRY.axes()[0].spread, Spread::Sharded { ranks: 2, rank: Some(1) });
    assert_eq!(Stage::<16, 15>::GEOMETRY.axes()[0].spread, Spread::Stage { first: 16, of: 61 });
    assert_eq!((Stage::<0, 16>::LAYERS, Stage::<0, 16>::PAGE_BYTES), (16, 16 * 8));
    assert_ne!(Stage::<16, 15>::FINGERPRINT, Stage::<31, 15>::FINGERPRINT);
    assert_eq!(Rank::TYPE.place(&[1])?.offset, 2);
    Ok(())
}
