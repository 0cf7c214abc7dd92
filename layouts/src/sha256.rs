//! SHA-256 (FIPS 180-4) as `const fn`, so that a fingerprint is a constant.
//!
//! It runs once per declared layout, in the compiler, over some hundred bytes: it is written to be
//! compared with the standard, not to be fast.

/// The first 32 bits of the fractional parts of the cube roots of the first 64 primes (§4.2.2).
const K: [u32; 64] = [
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
];

/// A digest in the making.
#[derive(Clone)]
pub(crate) struct Sha256 {
    state: [u32; 8],
    block: [u8; 64],
    /// Bytes taken so far; the low six bits are the fill of `block`.
    taken: u64,
}

impl Sha256 {
    /// The digest of nothing yet (§5.3.3).
    #[must_use]
    pub(crate) const fn new() -> Self {
        Self {
            state: [
                0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab,
                0x5be0cd19,
            ],
            block: [0; 64],
            taken: 0,
        }
    }

    /// Takes `bytes` in.
    #[must_use]
    pub(crate) const fn update(mut self, bytes: &[u8]) -> Self {
        let mut i = 0;
        while i < bytes.len() {
            self = self.byte(bytes[i]);
            i += 1;
        }
        self
    }

    /// The digest of all that was taken in (§5.1.1: a one bit, zeros, the length in bits).
    #[must_use]
    pub(crate) const fn finish(mut self) -> [u8; 32] {
        let bits = self.taken.wrapping_mul(8).to_be_bytes();
        self = self.byte(0x80);
        while self.taken % 64 != 56 {
            self = self.byte(0);
        }
        self = self.update(&bits);
        let mut digest = [0; 32];
        let mut i = 0;
        while i < 32 {
            digest[i] = self.state[i / 4].to_be_bytes()[i % 4];
            i += 1;
        }
        digest
    }

    const fn byte(mut self, byte: u8) -> Self {
        self.block[(self.taken % 64) as usize] = byte;
        self.taken = self.taken.wrapping_add(1);
        if self.taken.is_multiple_of(64) {
            self.state = compress(self.state, &self.block);
        }
        self
    }
}

/// One block (§6.2.2); the names are the standard's.
const fn compress(state: [u32; 8], block: &[u8; 64]) -> [u32; 8] {
    let mut w = [0u32; 64];
    let mut t = 0;
    while t < 64 {
        w[t] = if t < 16 {
            u32::from_be_bytes([block[4 * t], block[4 * t + 1], block[4 * t + 2], block[4 * t + 3]])
        } else {
            let (x, y) = (w[t - 15], w[t - 2]);
            let s0 = x.rotate_right(7) ^ x.rotate_right(18) ^ (x >> 3);
            let s1 = y.rotate_right(17) ^ y.rotate_right(19) ^ (y >> 10);
            s1.wrapping_add(w[t - 7]).wrapping_add(s0).wrapping_add(w[t - 16])
        };
        t += 1;
    }
    let [mut a, mut b, mut c, mut d, mut e, mut f, mut g, mut h] = state;
    let mut t = 0;
    while t < 64 {
        let s1 = e.rotate_right(6) ^ e.rotate_right(11) ^ e.rotate_right(25);
        let choose = (e & f) ^ (!e & g);
        let t1 = h.wrapping_add(s1).wrapping_add(choose).wrapping_add(K[t]).wrapping_add(w[t]);
        let s0 = a.rotate_right(2) ^ a.rotate_right(13) ^ a.rotate_right(22);
        let majority = (a & b) ^ (a & c) ^ (b & c);
        let t2 = s0.wrapping_add(majority);
        (h, g, f, e, d, c, b, a) = (g, f, e, d.wrapping_add(t1), c, b, a, t1.wrapping_add(t2));
        t += 1;
    }
    let rounds = [a, b, c, d, e, f, g, h];
    let mut next = state;
    let mut i = 0;
    while i < 8 {
        next[i] = next[i].wrapping_add(rounds[i]);
        i += 1;
    }
    next
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::Sha256;
    use std::{format, string::String, vec};

    fn hex(bytes: &[u8]) -> String {
        Sha256::new().update(bytes).finish().iter().map(|b| format!("{b:02x}")).collect()
    }

    /// NIST's examples and the well-known digest of nothing.
    #[test]
    fn standard_vectors() {
        assert_eq!(hex(b""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
        assert_eq!(hex(b"abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        assert_eq!(
            hex(b"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq"),
            "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1"
        );
        assert_eq!(
            hex(b"abcdefghbcdefghicdefghijdefghijkefghijklfghijklmghijklmnhijklmnoijklmnopjklmnopqklmnopqrlmnopqrsmnopqrstnopqrstu"),
            "cf5b16a778af8380036ce59e7b0492370b249b11e8f07a51afac45037afee9d1"
        );
        assert_eq!(
            hex(&vec![b'a'; 1_000_000]),
            "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0"
        );
    }

    /// The cut between two updates must not matter, at and around the edges of a block.
    #[test]
    fn updates_concatenate() {
        let bytes = [7u8; 130];
        for cut in [0, 1, 55, 56, 63, 64, 65, 128, 130] {
            let (a, b) = bytes.split_at(cut);
            let whole = Sha256::new().update(&bytes).finish();
            assert_eq!(Sha256::new().update(a).update(b).finish(), whole);
        }
    }
}
