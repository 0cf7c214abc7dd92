//! The content of a page, which says itself which page it is, so that no other page passes for it.
//!
//! A page begins with its key (16 bytes) and its version (8 bytes, both little-endian). Word `i` (8
//! bytes) of the rest is `base + i · ODD` modulo 2^64, where the base follows from key and version.
//! All words of the rest differ, since `ODD` is odd, and for one key two versions differ in every
//! word. A page that is torn, mixed of two, or shifted, fails at the first word where it is so; a
//! whole page of another key or version is known by what it says.

/// 2^64 divided by the golden ratio, which is odd.
const ODD: u64 = 0x9E37_79B9_7F4A_7C15;

/// The byte that a slot is filled with before a page arrives there. No page consists of it.
pub(crate) const WIPED: u8 = 0;

/// Bytes of key and version.
const HEADER: usize = 24;

/// Why a page is not the one that was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Wrong {
    /// All bytes belong together, and are those of another key.
    #[error("a page of another key")]
    OtherKey,
    /// The bytes do not belong together: they are of several pages, or of none.
    #[error("bytes that are not one page")]
    Mixture,
}

/// SplitMix64's finaliser, which is a bijection.
const fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// The first word behind the header: for one key a bijection of the version.
const fn base(key: u128, version: u64) -> u64 {
    mix(mix(mix(key as u64 ^ ODD) ^ (key >> 64) as u64) ^ version)
}

/// Writes the page of `key` in its version `version`.
pub(crate) fn fill(page: &mut [u8], key: u128, version: u64) {
    let mut header = [0; HEADER];
    header[..16].copy_from_slice(&key.to_le_bytes());
    header[16..].copy_from_slice(&version.to_le_bytes());
    let (head, rest) = page.split_at_mut(page.len().min(HEADER));
    head.copy_from_slice(&header[..head.len()]);
    let mut word = base(key, version);
    let (words, tail) = rest.as_chunks_mut::<8>();
    for bytes in words {
        *bytes = word.to_le_bytes();
        word = word.wrapping_add(ODD);
    }
    let last = word.to_le_bytes();
    tail.copy_from_slice(&last[..tail.len()]);
}

/// The version of the page, if it is one that [`fill`] wrote for `key`, to the last byte.
pub(crate) fn check(page: &[u8], key: u128) -> Result<u64, Wrong> {
    let Some((header, rest)) = page.split_first_chunk::<HEADER>() else { return Err(Wrong::Mixture) };
    let (Some((of, _)), Some((_, version))) =
        (header.split_first_chunk::<16>(), header.split_last_chunk::<8>())
    else {
        return Err(Wrong::Mixture);
    };
    let (of, version) = (u128::from_le_bytes(*of), u64::from_le_bytes(*version));
    let mut word = base(of, version);
    let (words, tail) = rest.as_chunks::<8>();
    let mut differ = 0;
    for bytes in words {
        differ |= u64::from_le_bytes(*bytes) ^ word;
        word = word.wrapping_add(ODD);
    }
    if differ != 0 || *tail != word.to_le_bytes()[..tail.len()] {
        return Err(Wrong::Mixture);
    }
    if of == key { Ok(version) } else { Err(Wrong::OtherKey) }
}

/// As [`check`], of a page whose bytes lie in several places, in this order. `None`: one of them
/// cannot be read.
pub(crate) fn check_parts<'a>(
    mut parts: impl ExactSizeIterator<Item = Option<&'a [u8]>>,
    key: u128,
) -> Option<Result<u64, Wrong>> {
    if parts.len() == 1 {
        return parts.next()?.map(|page| check(page, key));
    }
    let page: Vec<&[u8]> = parts.collect::<Option<_>>()?;
    Some(check(&page.concat(), key))
}

/// Shuffles `all` (Fisher and Yates). The order depends on their number only.
pub(crate) fn shuffle<T>(all: &mut [T]) {
    for last in (1..all.len()).rev() {
        // The remainder is hardly biased, as there are far fewer than 2^40 pages.
        let at = mix(ODD ^ last as u64) % (last as u64 + 1);
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

    const KEY: u128 = 0x1234_5678_9ABC_DEF0_0FED_CBA9_8765_4321;

    fn page(len: usize, key: u128, version: u64) -> Vec<u8> {
        let mut page = vec![WIPED; len];
        fill(&mut page, key, version);
        page
    }

    #[test]
    fn a_page_passes_as_itself_only() {
        for len in [32, 33, 39, 41_984, 41_987] {
            for version in [0, 1, u64::MAX] {
                assert_eq!(check(&page(len, KEY, version), KEY), Ok(version), "{len}");
            }
            for other in [KEY ^ 1, KEY ^ (1 << 64), 0, KEY.rotate_left(64)] {
                assert_eq!(check(&page(len, KEY, 1), other), Err(Wrong::OtherKey), "{len}");
            }
        }
        assert_eq!(check(&[], KEY), Err(Wrong::Mixture));
        assert_eq!(check(&[WIPED; 4096], 0), Err(Wrong::Mixture));
    }

    #[test]
    fn a_page_that_did_not_arrive_fails_wherever_it_ended() {
        let good = page(41_984, KEY, 1);
        for arrived in [0, 1, 8, 16, 24, 4096, 41_976, 41_983] {
            let mut part = vec![WIPED; good.len()];
            part[..arrived].copy_from_slice(&good[..arrived]);
            assert!(check(&part, KEY).is_err(), "{arrived} bytes of it");
        }
    }

    #[test]
    fn a_page_in_several_places_passes_in_their_order_alone() {
        let page = page(4099, KEY, 7);
        let (k, v) = page.split_at(2051);
        let check = |parts: &[Option<&[u8]>]| check_parts(parts.iter().copied(), KEY);
        assert_eq!(check(&[Some(&page)]), Some(Ok(7)));
        assert_eq!(check(&[Some(k), Some(v)]), Some(Ok(7)));
        assert_eq!(check(&[Some(v), Some(k)]), Some(Err(Wrong::Mixture)));
        assert_eq!(check(&[Some(k), Some(k)]), Some(Err(Wrong::Mixture)));
        assert_eq!((check(&[Some(k), None]), check(&[None])), (None, None));
    }

    #[test]
    fn no_flipped_byte_passes_unseen() {
        let good = page(100, KEY, 1);
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1;
            assert_eq!(check(&bad, KEY), Err(Wrong::Mixture), "byte {at}");
        }
    }

    #[test]
    fn a_mixture_of_two_pages_fails_wherever_they_meet() {
        let new = page(4096, KEY, 1);
        for old in [page(4096, KEY, 2), page(4096, KEY ^ 1, 1)] {
            for at in [1, 8, 16, 17, 24, 100, 2048, 4088, 4095] {
                let torn = [&new[..at], &old[at..]].concat();
                // Where the first bytes of both are the same, it may be a whole page.
                let whole = torn == new || torn == old;
                assert!(whole || check(&torn, KEY) == Err(Wrong::Mixture), "torn at {at}");
            }
        }
    }

    #[test]
    fn swapped_halves_and_repeated_lines_fail() {
        let good = page(4096, KEY, 1);
        let swapped = [&good[2048..], &good[..2048]].concat();
        let repeated = [&good[..64], &good[..4032]].concat();
        assert!(check(&swapped, KEY).is_err() && check(&repeated, KEY).is_err());
    }

    #[test]
    fn all_words_of_a_page_behind_its_header_differ() {
        let page = page(41_984, KEY, 0);
        let (words, _) = page[HEADER..].as_chunks::<8>();
        let unique: std::collections::HashSet<_> = words.iter().collect();
        assert_eq!(unique.len(), words.len());
    }
}
