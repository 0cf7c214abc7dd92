//! The model's random numbers: the only source of chance in it.

/// SplitMix64: Steele, Lea and Flood, "Fast splittable pseudorandom number generators" (OOPSLA
/// 2014), with the constants of Vigna's public-domain C. It has one word of state, every seed is
/// good, and the sequence is the same on every machine.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SplitMix64(u64);

impl SplitMix64 {
    pub(crate) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number in `0 ..= most`, by Lemire's multiply and shift. Its bias is below `most / 2^64`.
    pub(crate) const fn up_to(&mut self, most: u64) -> u64 {
        if most == 0 {
            return 0;
        }
        let wide = self.next() as u128 * (most as u128 + 1);
        (wide >> 64) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sequence_is_that_of_the_reference_implementation() {
        // The reference implementation's first outputs for seed 1234567.
        let mut rng = SplitMix64::new(1_234_567);
        let first = [
            6_457_827_717_110_365_317,
            3_203_168_211_198_807_973,
            9_817_491_932_198_370_423,
            4_593_380_528_125_082_431,
            16_408_922_859_458_223_821,
        ];
        for expected in first {
            assert_eq!(rng.next(), expected);
        }
    }

    #[test]
    fn up_to_reaches_both_ends_and_nothing_beyond() {
        let mut rng = SplitMix64::new(7);
        let mut seen = [false; 4];
        for _ in 0..200 {
            seen[usize::try_from(rng.up_to(3)).unwrap()] = true;
        }
        assert_eq!((seen, rng.up_to(0)), ([true; 4], 0));
    }
}
