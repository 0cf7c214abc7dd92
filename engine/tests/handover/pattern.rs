//! The bytes of a part: they differ from publication to publication, from slot to slot and from
//! part to part.

use kvrail::KeyTag;

fn first(tag: KeyTag, layer: u32) -> u64 {
    let mixed =
        (tag.0 as u64 ^ (tag.0 >> 64) as u64 ^ u64::from(layer) << 56).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    mixed ^ mixed >> 29
}

/// Writes the part `layer` of the page under `tag`.
pub(crate) fn fill(part: &mut [u8], tag: KeyTag, layer: u32) {
    for (word, i) in part.chunks_exact_mut(8).zip(0..) {
        word.copy_from_slice(&first(tag, layer).wrapping_add(i).to_le_bytes());
    }
}

/// Whether every byte is that of the part `layer` of the page under `tag`.
pub(crate) fn is(part: &[u8], tag: KeyTag, layer: u32) -> bool {
    part.chunks_exact(8).zip(0..).all(|(word, i)| word == first(tag, layer).wrapping_add(i).to_le_bytes())
}
