//! The content of a page, which depends on its producer, slot and generation, so that no other page
//! passes for it.
//!
//! Word `i` (8 bytes, little-endian) of a page is `base + i · ODD` modulo 2^64. All words of a page
//! differ, since `ODD` is odd. The base is a bijection of seed, slot and generation, so two pages
//! of one seed that differ in slot or generation differ in every word. A page that is another one,
//! torn between two generations, stale, or shifted, fails at the first word where it is so.

/// 2^64 divided by the golden ratio, which is odd.
const ODD: u64 = 0x9E37_79B9_7F4A_7C15;

/// The byte that a slot is filled with before a page arrives there. No page consists of it, since
/// all words of a page differ.
pub(crate) const WIPED: u8 = 0;

/// The first word of a page. `generation` counts the publications of the slot.
fn base(seed: u64, slot: u32, generation: u32) -> u64 {
    // SplitMix64's finaliser, which is a bijection.
    let mut z = seed ^ (u64::from(slot) << 32 | u64::from(generation));
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// Writes a page.
pub(crate) fn fill(page: &mut [u8], seed: u64, slot: u32, generation: u32) {
    let mut word = base(seed, slot, generation);
    let (words, tail) = page.as_chunks_mut::<8>();
    for bytes in words {
        *bytes = word.to_le_bytes();
        word = word.wrapping_add(ODD);
    }
    let last = word.to_le_bytes();
    tail.copy_from_slice(&last[..tail.len()]);
}

/// Whether a page is what [`fill`] wrote, to the last byte.
pub(crate) fn check(page: &[u8], seed: u64, slot: u32, generation: u32) -> bool {
    let mut word = base(seed, slot, generation);
    let (words, tail) = page.as_chunks::<8>();
    let mut differ = 0;
    for bytes in words {
        differ |= u64::from_le_bytes(*bytes) ^ word;
        word = word.wrapping_add(ODD);
    }
    differ == 0 && *tail == word.to_le_bytes()[..tail.len()]
}

/// Shuffles `all` (Fisher and Yates). The order depends on their number only.
pub(crate) fn shuffle<T>(all: &mut [T]) {
    for last in (1..all.len()).rev() {
        // The remainder is hardly biased, as there are far fewer than 2^40 pages.
        let at = base(ODD, last as u32, 0) % (last as u64 + 1);
        all.swap(last, at as usize);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shuffle_keeps_every_page_and_few_neighbours() {
        let mut all: Vec<u32> = (0..1000).collect();
        shuffle(&mut all);
        let neighbours = all.windows(2).filter(|pair| pair[0] + 1 == pair[1]).count();
        assert!(neighbours < 10, "{neighbours} pages stand before their neighbours");
        all.sort_unstable();
        assert!(all.iter().copied().eq(0..1000));
        shuffle::<u8>(&mut []);
    }

    fn page(len: usize, slot: u32, generation: u32) -> Vec<u8> {
        let mut page = vec![0; len];
        fill(&mut page, 42, slot, generation);
        page
    }

    #[test]
    fn a_page_passes_as_itself_only() {
        for len in [1, 7, 8, 41_984, 41_987] {
            let good = page(len, 3, 1);
            assert!(check(&good, 42, 3, 1), "{len}");
            for (seed, slot, generation) in [(43, 3, 1), (42, 4, 1), (42, 3, 2), (42, 1, 3)] {
                assert!(!check(&good, seed, slot, generation), "{len}: {seed} {slot} {generation}");
            }
        }
    }

    #[test]
    fn a_page_that_did_not_arrive_fails_wherever_it_ended() {
        let good = page(41_984, 3, 1);
        for arrived in [0, 1, 8, 4096, 41_976, 41_983] {
            let mut part = vec![WIPED; good.len()];
            part[..arrived].copy_from_slice(&good[..arrived]);
            assert!(!check(&part, 42, 3, 1), "{arrived} bytes of it");
        }
    }

    #[test]
    fn no_flipped_byte_passes() {
        let good = page(100, 0, 1);
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1;
            assert!(!check(&bad, 42, 0, 1), "byte {at}");
        }
    }

    #[test]
    fn a_torn_page_fails_wherever_it_is_torn() {
        let (old, new) = (page(4096, 5, 1), page(4096, 5, 2));
        for at in [1, 8, 100, 2048, 4088, 4095] {
            let torn = [&new[..at], &old[at..]].concat();
            assert!(!check(&torn, 42, 5, 1) && !check(&torn, 42, 5, 2), "torn at {at}");
        }
    }

    #[test]
    fn swapped_halves_and_repeated_lines_fail() {
        let good = page(4096, 5, 1);
        let swapped = [&good[2048..], &good[..2048]].concat();
        let repeated = [&good[..64], &good[..4032]].concat();
        assert!(!check(&swapped, 42, 5, 1) && !check(&repeated, 42, 5, 1));
    }

    #[test]
    fn all_words_of_a_page_differ() {
        let page = page(41_984, 0, 1);
        let (words, _) = page.as_chunks::<8>();
        let unique: std::collections::HashSet<_> = words.iter().collect();
        assert_eq!(unique.len(), words.len());
    }
}
