//! The bytes that the counterpart's memory holds.

/// Bytes of the memory at each of the two ends.
pub const BYTES: usize = 1 << 16;

/// The byte at `offset` of the counterpart's memory. It is neither 0 nor the suite's canary, and
/// bytes at offsets that differ by a small number or by a power of two differ.
#[must_use]
pub const fn pattern(offset: usize) -> u8 {
    let mixed = (offset as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 57;
    // The result is 1 to 128.
    mixed as u8 + 1
}
