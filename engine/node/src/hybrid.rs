//! Hybrid models: a prefix of tokens has pages in several pools, and each pool has its own rule of
//! what must be there so that the prefix can be restored.
//!
//! A model with full attention, a sliding window and states needs every page of the first pool, the
//! last pages of the second, and the one state at the boundary of the third. The unit here is a
//! block: the tokens of the smallest page. A pool may have longer pages, of several blocks.

use std::num::NonZeroU32;

/// A row of bits, one for each page of a pool.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bitmap {
    words: Vec<u64>,
    len: usize,
}

impl Bitmap {
    /// `len` bits that are not set.
    #[must_use]
    pub fn new(len: usize) -> Self {
        Self { words: vec![0; len.div_ceil(64)], len }
    }

    /// How many bits it has.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether it has no bit.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Sets bit number `at`.
    ///
    /// # Panics
    ///
    /// There is no such bit.
    pub fn set(&mut self, at: usize) {
        assert!(at < self.len, "bit {at} of {}", self.len);
        self.words[at / 64] |= 1 << (at % 64);
    }

    /// Bit number `at`; `false` beyond the last.
    #[must_use]
    pub fn get(&self, at: usize) -> bool {
        at < self.len && self.words[at / 64] >> (at % 64) & 1 == 1
    }

    /// How many bits are set.
    #[must_use]
    pub fn count(&self) -> usize {
        self.words.iter().map(|word| word.count_ones() as usize).sum()
    }

    /// How many bits from bit 0 on are set without a gap.
    #[must_use]
    pub fn leading(&self) -> usize {
        let full = self.words.iter().take_while(|&&word| word == u64::MAX).count();
        let next = self.words.get(full).map_or(0, |word| word.trailing_ones() as usize);
        full * 64 + next
    }

    /// The length of the row of set bits that ends right before bit `end`.
    fn run_before(&self, end: usize) -> usize {
        (0..end).rev().take_while(|&at| self.get(at)).count()
    }
}

impl FromIterator<bool> for Bitmap {
    fn from_iter<I: IntoIterator<Item = bool>>(bits: I) -> Self {
        let mut map = Self::default();
        for bit in bits {
            let at = map.len;
            map.len += 1;
            map.words.resize(map.len.div_ceil(64), 0);
            if bit {
                map.set(at);
            }
        }
        map
    }
}

/// What a pool must have so that a prefix can be restored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Rule {
    /// All pages of the prefix: full attention.
    All,
    /// The last `blocks` blocks of the prefix, or all of a shorter one: a sliding window. The
    /// window of a layer that looks back w tokens, with blocks of b tokens, has
    /// `(w + b - 1).div_ceil(b)` blocks at most.
    Window {
        /// The blocks of the window.
        blocks: u32,
    },
    /// The last page of the prefix, which must end exactly where the prefix ends: a state.
    Boundary,
}

/// A pool of a hybrid model: its rule, and which of its pages are there.
#[derive(Clone, Copy, Debug)]
pub struct PoolPages<'a> {
    /// What must be there.
    pub rule: Rule,
    /// How many blocks a page of the pool has.
    pub page_blocks: NonZeroU32,
    /// Which pages are there, from the beginning of the request on.
    pub present: &'a Bitmap,
}

impl<'a> PoolPages<'a> {
    /// A pool whose pages are of one block.
    #[must_use]
    pub const fn new(rule: Rule, present: &'a Bitmap) -> Self {
        Self { rule, page_blocks: NonZeroU32::MIN, present }
    }

    /// The longest prefix of `most` blocks or fewer for which the pool has what it must have.
    fn longest(&self, most: usize) -> usize {
        let step = self.page_blocks.get() as usize;
        let pages = most / step;
        match self.rule {
            Rule::All => pages.min(self.present.leading()) * step,
            Rule::Window { blocks: 0 } => most,
            Rule::Window { blocks } => {
                let window = (blocks as usize).div_ceil(step);
                let mut end = pages;
                loop {
                    let run = self.present.run_before(end);
                    if run >= window.min(end) {
                        return end * step;
                    }
                    // A window that ends later than the missing page contains it.
                    end -= run + 1;
                }
            }
            Rule::Boundary => {
                (1..=pages).rev().find(|&end| self.present.get(end - 1)).map_or(0, |end| end * step)
            }
        }
    }
}

/// The longest prefix, in blocks, that can be restored: every pool has what its rule asks for, and
/// the prefix ends at the end of a page of every pool. `blocks` is the length of the request.
#[must_use]
pub fn longest_prefix(pools: &[PoolPages<'_>], blocks: usize) -> usize {
    let mut most = blocks;
    loop {
        let shorter = pools.iter().fold(most, |most, pool| pool.longest(most));
        if shorter == most {
            return most;
        }
        most = shorter;
    }
}

/// The pages of a pool, by their numbers, that restore a prefix of `blocks` blocks under a rule.
/// `blocks` is a length that [`longest_prefix`] gave.
#[must_use]
pub fn pages_of_prefix(rule: Rule, page_blocks: NonZeroU32, blocks: usize) -> std::ops::Range<usize> {
    let step = page_blocks.get() as usize;
    let pages = blocks / step;
    match rule {
        Rule::All => 0..pages,
        Rule::Window { blocks } => pages.saturating_sub((blocks as usize).div_ceil(step))..pages,
        Rule::Boundary => pages.saturating_sub(1)..pages,
    }
}

#[cfg(test)]
mod tests;
