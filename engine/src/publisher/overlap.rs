//! Whether pages of two regions share a byte. Regions whose strides differ, or that lie inside each
//! other's strides, are compared exactly, in as many steps as a greatest common divisor takes.

/// The pages of one region: slot `i` has `page_bytes` bytes from `base + i * stride` on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Pages {
    pub(super) base: u64,
    /// At least 1, and at most `stride`.
    pub(super) page_bytes: u32,
    pub(super) stride: u64,
    /// At least 1.
    pub(super) slots: u32,
}

impl Pages {
    /// The address of the page in `slot`.
    pub(super) fn at(&self, slot: u32) -> u128 {
        u128::from(self.base) + u128::from(self.stride) * u128::from(slot)
    }

    /// The first address behind the last page.
    pub(super) fn end(&self) -> u128 {
        self.at(self.slots - 1) + u128::from(self.page_bytes)
    }

    /// The first slot of `self` whose page shares a byte with a page of `other`, and that page's
    /// slot in `other`.
    pub(super) fn overlap(&self, other: &Self) -> Option<(u32, u32)> {
        let (own, theirs) = (u128::from(self.page_bytes), u128::from(other.page_bytes));
        let (base, from) = (u128::from(self.base), u128::from(other.base));
        let (stride, step) = (u128::from(self.stride), u128::from(other.stride));
        if base >= other.end() || from >= self.end() {
            return None;
        }
        // The first slot of `self` that ends behind `from`, and how many from there on begin before
        // the end of `other`. With these bounds, a page that shares bytes with the infinite row of
        // `other`'s pages shares them with one that exists.
        let first = (from + 1).saturating_sub(base + own).div_ceil(stride);
        let begin = base + first * stride;
        if begin >= other.end() {
            return None;
        }
        let last = u128::from(self.slots - 1).min((other.end() - 1 - base) / stride);
        // A page at `begin + i * stride` touches one of the row if its distance from `from - own +
        // 1`, modulo the row's step, is less than the bytes of both together, less 1.
        let reach = own + theirs - 1;
        let distance = begin + own - 1 - from;
        let found = match reach >= step {
            true => 0,
            false => first_at_most(distance % step, stride % step, step, reach - 1)?,
        };
        let slot = first.checked_add(found).filter(|&slot| slot <= last)?;
        // The row's page that begins last, at or before the last byte of the page.
        let end = base + slot * stride + own - 1 - from;
        let there = (end / step).min(u128::from(other.slots - 1));
        // Both are numbers of slots.
        Some((slot as u32, there as u32))
    }
}

/// The least `i` with `(start + i * step) % modulus <= limit`. All are less than `modulus`, which
/// is below 2^64.
fn first_at_most(start: u128, step: u128, modulus: u128, limit: u128) -> Option<u128> {
    if start <= limit {
        return Some(0);
    }
    // From below the modulus up to it, and not more than `limit` beyond.
    let low = modulus - start;
    first_between(step, modulus, low, low + limit)
}

/// The least `x` with `low <= (a * x) % modulus <= high`, for `low <= high < modulus`.
fn first_between(a: u128, modulus: u128, low: u128, high: u128) -> Option<u128> {
    if low == 0 {
        return Some(0);
    }
    if a == 0 {
        return None;
    }
    let first = low.div_ceil(a);
    if first * a <= high {
        return Some(first);
    }
    // No multiple of `a` lies between: count how often the modulus is passed instead. The numbers
    // fall as in Euclid's algorithm, so this ends after some 90 calls at most.
    let [low_rest, high_rest] = [high, low].map(|bound| (a - bound % a) % a);
    let passed = first_between(modulus % a, a, low_rest, high_rest)?;
    Some((low + modulus * passed).div_ceil(a))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pages(base: u64, page_bytes: u32, stride: u64, slots: u32) -> Pages {
        Pages { base, page_bytes, stride, slots }
    }

    /// Whether two slots' pages share a byte.
    fn touch(a: &Pages, i: u32, b: &Pages, j: u32) -> bool {
        a.at(i) < b.at(j) + u128::from(b.page_bytes) && b.at(j) < a.at(i) + u128::from(a.page_bytes)
    }

    #[test]
    fn the_first_pages_that_share_a_byte_are_found_whatever_the_strides() {
        let mut seed: u64 = 0x9E37_79B9_7F4A_7C15;
        let mut below = |limit: u64| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (seed >> 33) % limit
        };
        let mut overlapping = 0;
        for _ in 0..200_000 {
            let mut any = || {
                let stride = below(30) + 1;
                let page = below(stride.min(9)) + 1;
                pages(below(150), page as u32, stride, below(12) as u32 + 1)
            };
            let (a, b) = (any(), any());
            let all = (0..a.slots).flat_map(|i| (0..b.slots).map(move |j| (i, j)));
            let slow = all.clone().find(|&(i, j)| touch(&a, i, &b, j)).map(|(i, _)| i);
            let fast = a.overlap(&b);
            assert_eq!(fast.map(|(i, _)| i), slow, "{a:?} {b:?}");
            if let Some((i, j)) = fast {
                assert!(touch(&a, i, &b, j), "{a:?} {b:?}: {i} {j}");
                overlapping += 1;
            }
        }
        assert!((40_000..160_000).contains(&overlapping), "{overlapping} of 200000");
    }

    #[test]
    fn regions_of_one_stride_may_lie_inside_each_other() {
        // One block of 1,002,240 bytes with pages of two layouts, side by side.
        let wide = pages(1 << 40, 37_440, 1_002_240, 1 << 20);
        let beside = pages((1 << 40) + 37_440, 1_728, 1_002_240, 1 << 20);
        assert_eq!((wide.overlap(&beside), beside.overlap(&wide)), (None, None));
        let one_byte = pages((1 << 40) + 37_439, 1_728, 1_002_240, 1 << 20);
        assert_eq!((wide.overlap(&one_byte), one_byte.overlap(&wide)), (Some((0, 0)), Some((0, 0))));
    }

    #[test]
    fn the_widest_numbers_are_compared_without_overflow() {
        let all = pages(0, u32::MAX, u64::MAX / u64::from(u32::MAX), u32::MAX);
        let last = pages(u64::MAX - 1, 1, u64::MAX, 1);
        assert!(all.end() <= 1 << 64);
        for (a, b) in [(all, last), (last, all), (all, all), (last, last)] {
            let found = a.overlap(&b);
            assert_eq!(found.is_some(), b.overlap(&a).is_some(), "{a:?} {b:?}");
            if let Some((i, j)) = found {
                assert!(touch(&a, i, &b, j), "{a:?} {b:?}");
            }
        }
        // Coprime strides: the first overlap is far out.
        let (a, b) = (pages(1, 1, (1 << 31) - 1, u32::MAX), pages(0, 1, 1 << 31, u32::MAX));
        let (i, j) = a.overlap(&b).unwrap();
        assert!(i > 0 && touch(&a, i, &b, j), "{i} {j}");
    }
}
