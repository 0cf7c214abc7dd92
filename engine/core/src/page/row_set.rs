//! Sets of rows: pages of one call whose rows land one behind the other in one slot.
//!
//! The pages of a set follow each other in their batch. The first stands for all of them: it has
//! the slot and the result, its chunks are the READs of the rows of all pages, and it is validated
//! by the entries of all pages. The others are retired from the beginning ([`Phase::InSet`]), so
//! that nothing else looks at them, and some of their fields have other meanings:
//!
//! | field of a page behind the first | what |
//! |---|---|
//! | `source`, `remote`, `entry`, `claim` | as in a page of its own |
//! | `next` | how many READs the pages before it have |
//! | `len` | how many bytes the rows of the pages before it have |
//! | `seg_len` | how many pages of the set are before it |
//! | `seg_done`, of the second page | how many pages the set has |
//! | `left`, of the second page | how many entries have been asked for, if some and not all |
//!
//! `remote` is the address of the row that is bit 0 of the page's [`rows`](Page::rows). A set has
//! at least two pages.
//!
//! [`Phase::InSet`]: super::Phase::InSet

use core::slice;

use super::Page;
use crate::provider::Ends;
use crate::rows::RowReads;

/// A set whose first page has not failed.
#[derive(Clone, Copy)]
pub(crate) struct RowSet<'p> {
    pages: &'p [Page],
    row_bytes: u32,
    shift: u8,
    /// How many READs there are.
    reads: u32,
    /// No two rows are read together, so that all READs have one length.
    single: bool,
}

/// A READ of a set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SetRead {
    pub(crate) remote: u64,
    /// From the first byte of the slot on.
    pub(crate) destination: u32,
    pub(crate) len: u32,
}

impl<'p> RowSet<'p> {
    /// The set of these pages, with READs of at most `1 << shift` bytes.
    #[inline]
    pub(crate) fn of(pages: &'p [Page], shift: u8) -> Self {
        let (first, behind_first) = match pages {
            [first, second, ..] => (first, second.len),
            _ => (&Page::EMPTY, 0),
        };
        debug_assert!(behind_first > 0 && first.rows() != 0, "a set of two pages that has not failed");
        let rows = first.rows().count_ones();
        let row_bytes = behind_first.checked_div(rows).unwrap_or(0).max(1);
        let reads = first.chunks(shift);
        Self { pages, row_bytes, shift, reads, single: reads.wrapping_mul(row_bytes) == first.len }
    }

    /// Whether all READs are of one row.
    #[inline]
    pub(crate) const fn is_single(&self) -> bool {
        self.single
    }

    /// Bytes of a row.
    #[inline]
    pub(crate) const fn row_bytes(&self) -> u32 {
        self.row_bytes
    }

    /// Where READ number `read` is, or the end behind the last.
    #[inline]
    pub(crate) fn seek(&self, read: u32) -> ReadPlace {
        let begin = |page: usize| if page == 0 { 0 } else { self.pages[page].next };
        // Where the pages have equally many READs it is found at once.
        let n = self.pages.len() as u64;
        let page = (u64::from(read) * n).checked_div(self.reads.into()).unwrap_or(0).min(n - 1) as usize;
        let is_in = begin(page) <= read && self.pages.get(page + 1).is_none_or(|next| read < next.next);
        let page = if is_in { page } else { self.pages[1..].partition_point(|page| page.next <= read) };
        ReadPlace { page, before: read - begin(page) }
    }

    /// How many READs from number `read` on go into a run of at most `limit` and so many that they
    /// reach `max_bytes`, and how many bytes they read. `limit` is at least 1.
    #[inline]
    pub(crate) fn fit(&self, read: u32, limit: u32, max_bytes: u64) -> (u32, u32) {
        if self.single {
            let by_bytes = max_bytes.div_ceil(u64::from(self.row_bytes)).max(1);
            let n = limit.min(self.reads - read).min(u32::try_from(by_bytes).unwrap_or(u32::MAX));
            return (n, n * self.row_bytes);
        }
        let (mut n, mut bytes) = (0, 0);
        for SetRead { len, .. } in self.joined(read) {
            (n, bytes) = (n + 1, bytes + len);
            if n >= limit || u64::from(bytes) >= max_bytes {
                break;
            }
        }
        (n, bytes)
    }

    /// From the first row to the last of each page: the address and the bytes.
    pub(crate) fn spans(&self) -> impl Iterator<Item = (u64, u32)> + use<'p> {
        let Self { row_bytes, shift, .. } = *self;
        self.pages.iter().map(move |page| {
            let rows = page.rows();
            let first = rows.trailing_zeros() % u64::BITS;
            let span = RowReads::new(rows >> first, row_bytes, shift).span();
            (page.remote + u64::from(first) * u64::from(row_bytes), span)
        })
    }

    /// The READs from number `read` on, whatever their lengths.
    #[inline]
    pub(crate) fn joined(&self, read: u32) -> JoinedRows<'p> {
        let Self { row_bytes, shift, .. } = *self;
        let ReadPlace { page: at, before } = self.seek(read);
        let page = &self.pages[at];
        let destination = if at == 0 { 0 } else { page.len };
        let reads = RowReads::new(page.rows(), row_bytes, shift).skip(before);
        let pages = self.pages[at + 1..].iter();
        JoinedRows { pages, reads, remote: page.remote, destination, row_bytes, shift }
    }

    /// The ends of `n` READs from number `read` on, of a set whose READs are of one row: those
    /// between these places. The slot begins at `local`.
    #[inline]
    pub(crate) fn single(
        &self,
        (from, to): (ReadPlace, ReadPlace),
        (read, n): (u32, u32),
        local: u64,
    ) -> SingleRows<'p> {
        debug_assert!(self.single);
        let (first, end) = (&self.pages[from.page], &self.pages[to.page]);
        let behind = |page: &Page, n: u32| (0..n).fold(page.rows(), |rows, _| rows & rows.wrapping_sub(1));
        let (rows, in_last) = (behind(first, from.before), end.rows() ^ behind(end, to.before));
        SingleRows {
            pages: self.pages[from.page + 1..=to.page.max(from.page)].iter(),
            rows: if from.page == to.page { rows & in_last } else { rows },
            remote: first.remote,
            in_last,
            local: local + u64::from(read) * u64::from(self.row_bytes),
            row_bytes: self.row_bytes.into(),
            left: n,
        }
    }
}

/// A place among the READs of a set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ReadPlace {
    page: usize,
    /// How many READs of the page are before it.
    before: u32,
}

/// The READs of a set from some number on.
#[derive(Clone)]
pub(crate) struct JoinedRows<'p> {
    pages: slice::Iter<'p, Page>,
    /// Those that are left of the present page, which begins at `remote` and lands at
    /// `destination`.
    reads: RowReads,
    remote: u64,
    destination: u32,
    row_bytes: u32,
    shift: u8,
}

impl Iterator for JoinedRows<'_> {
    type Item = SetRead;

    #[inline]
    fn next(&mut self) -> Option<SetRead> {
        while self.reads.is_over() {
            let page = self.pages.next()?;
            (self.remote, self.destination) = (page.remote, page.len);
            self.reads = RowReads::new(page.rows(), self.row_bytes, self.shift);
        }
        let read = self.reads.next();
        Some(SetRead {
            remote: self.remote.wrapping_add(read.source.into()),
            destination: self.destination.wrapping_add(read.destination),
            len: read.len,
        })
    }
}

/// The ends of READs of a set, each of one row.
#[derive(Clone)]
pub(crate) struct SingleRows<'p> {
    /// The pages behind the present, up to the last.
    pages: slice::Iter<'p, Page>,
    /// Those that are left of the present page, whose row 0 is at `remote`.
    rows: u64,
    remote: u64,
    /// Which rows of the last page are read, if it is not the present.
    in_last: u64,
    /// Where the next row lands.
    local: u64,
    row_bytes: u64,
    /// How many READs are left. Where they end is known by the rows, so a loop that looks at the
    /// length only before it begins need not keep this.
    left: u32,
}

impl Iterator for SingleRows<'_> {
    type Item = Ends;

    #[inline(always)]
    fn next(&mut self) -> Option<Ends> {
        while self.rows == 0 {
            let page = self.pages.next()?;
            let is_last = self.pages.as_slice().is_empty();
            (self.remote, self.rows) = (page.remote, if is_last { self.in_last } else { page.rows() });
        }
        self.left = self.left.wrapping_sub(1);
        let row = u64::from(self.rows.trailing_zeros() % u64::BITS);
        self.rows &= self.rows.wrapping_sub(1);
        let local_addr = self.local;
        self.local = local_addr.wrapping_add(self.row_bytes);
        Some(Ends { remote_addr: self.remote.wrapping_add(row.wrapping_mul(self.row_bytes)), local_addr })
    }

    #[inline]
    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left as usize, Some(self.left as usize))
    }
}

impl ExactSizeIterator for SingleRows<'_> {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::slot::Slot;
    use crate::page::{Claim, Expected, Phase};
    use crate::table::EntryValue;
    use std::vec::Vec;

    /// SplitMix64 (Steele, Lea, Flood 2014).
    fn next(state: &mut u64) -> u64 {
        *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = *state;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A set of these rows, page by page, and all of its READs, found one by one.
    fn set(rows: &[u64], row_bytes: u32, shift: u8) -> (Vec<Page>, Vec<SetRead>) {
        let (mut all, mut bytes) = (Vec::new(), 0);
        let mut pages: Vec<Page> = Vec::new();
        for (i, &rows) in (0_u64..).zip(rows) {
            let claim = Claim::Expected(Expected::new(EntryValue::default()), rows);
            let (remote, next, len) = (0x1000_0000 * (i + 1), all.len() as u32, bytes);
            pages.push(Page { remote, next, len, claim, phase: Phase::InSet, ..Page::EMPTY });
            let mut reads = RowReads::new(rows, row_bytes, shift);
            while !reads.is_over() {
                let read = reads.next();
                let (remote, destination) = (remote + u64::from(read.source), bytes);
                all.push(SetRead { remote, destination, len: read.len });
                bytes += read.len;
            }
        }
        let mut slot = Slot::of_test();
        slot.take_set(all.len() as u32);
        (pages[0].slot, pages[0].next, pages[0].len) = (Some(slot), 3, bytes);
        pages[1].seg_done = pages.len() as u16;
        (pages, all)
    }

    #[test]
    fn the_reads_of_a_set_are_those_of_its_pages_from_any_place_to_any_other() {
        let (mut state, mut single, mut joined) = (5, 0, 0);
        for _ in 0..300 {
            let dense = next(&mut state) % 5;
            let apart = next(&mut state).is_multiple_of(2);
            let rows: Vec<u64> = (0..2 + next(&mut state) % 9)
                .map(|_| {
                    let rows = (0..dense).fold(next(&mut state), |rows, _| rows & next(&mut state));
                    let rows = if apart { rows & 0x5555_5555_5555_5555 } else { rows };
                    rows | 1 << (next(&mut state) % 32 * 2)
                })
                .collect();
            let (row_bytes, shift) = (1 + next(&mut state) as u32 % 900, 10 + (next(&mut state) % 5) as u8);
            let (pages, all) = set(&rows, row_bytes, shift);
            let set = RowSet::of(&pages, shift);
            assert_eq!((set.row_bytes(), set.reads), (row_bytes, all.len() as u32));
            let neighbours = rows.iter().any(|rows| rows & rows << 1 != 0);
            assert!(set.is_single() || neighbours);
            for from in 0..all.len() as u32 {
                assert!(set.joined(from).eq(all[from as usize..].iter().copied()), "{rows:x?} from {from}");
                let (limit, most) = (1 + next(&mut state) as u32 % 40, 1 + next(&mut state) % 20_000);
                let (n, bytes) = set.fit(from, limit, most);
                let run = &all[from as usize..][..n as usize];
                assert_eq!(run.iter().map(|read| read.len).sum::<u32>(), bytes);
                let before: u32 = run[..run.len() - 1].iter().map(|read| read.len).sum();
                assert!(n >= 1 && n <= limit && u64::from(before) < most, "{n} of {rows:x?} from {from}");
                assert!(n == limit || u64::from(bytes) >= most || from + n == all.len() as u32);
                if set.is_single() {
                    let places = (set.seek(from), set.seek(from + n));
                    let ends = set.single(places, (from, n), 0x77);
                    assert_eq!(ends.len(), run.len());
                    let found: Vec<_> = ends.map(|ends| (ends.remote_addr, ends.local_addr)).collect();
                    let expected = run.iter().map(|read| (read.remote, 0x77 + u64::from(read.destination)));
                    assert!(expected.eq(found.iter().copied()), "{n} of {rows:x?} from {from}: {found:x?}");
                    single += 1;
                } else {
                    joined += 1;
                }
            }
            let spans: Vec<_> = set.spans().collect();
            for (page, (addr, len)) in pages.iter().zip(spans) {
                let (first, last) = (page.rows().trailing_zeros(), 63 - page.rows().leading_zeros());
                assert_eq!(addr, page.remote + u64::from(first * row_bytes));
                assert_eq!(len, (last + 1 - first) * row_bytes);
            }
        }
        assert!(single > 1000 && joined > 1000, "{single}, {joined}");
    }
}
