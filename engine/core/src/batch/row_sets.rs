//! Rows of many pages, which join in one call and land in one slot.

use super::batch::Batch;
use super::many::RejectedPages;
use super::shape::PageShape;
use crate::error::ReadError;
use crate::layout::NO_LAYOUT;
use crate::limits::narrow;
use crate::memory::slot::{MAX_SET_READS, Slot, SlotRegion};
use crate::page::{Claim, Expected, Page, Phase};
use crate::remote::{Location, PageRangeError, RemoteRegion};
use crate::rows::{RowReads, RowsError};
use crate::table::{EntryValue, NO_ENTRY, Ready};

/// The rows of one call.
#[derive(Clone, Copy)]
struct RowsOfPages<'r> {
    from: &'r RemoteRegion,
    row_bytes: u32,
    /// Bit `r % 64` of word `r / 64` of a page is its row `r`.
    rows: &'r [u64],
}

impl RowsOfPages<'_> {
    /// How many rows a page has.
    const fn in_page(&self) -> u32 {
        self.from.page_bytes / self.row_bytes
    }

    /// The last word of a page, which has so many, names rows that the page has not.
    #[cold]
    fn beyond_page(&self, words: usize, rows: u64) -> ReadError {
        let row = words as u64 * 64 - 1 - u64::from(rows.leading_zeros());
        ReadError::RowsBeyondPage { row, row_bytes: self.row_bytes, page_bytes: self.from.page_bytes }
    }
}

/// What a set of rows has, all of its pages together.
#[derive(Clone, Copy)]
struct SetSize {
    pages: u32,
    rows: u32,
    reads: u32,
}

impl Batch<'_> {
    /// Adds the READs of rows of many pages of a region into one slot, which has no layout, as a
    /// step of sparse attention asks for them. `rows` has a bit for each row: with pages of `n`
    /// rows, bit `r % 64` of word `n.div_ceil(64) * p + r / 64` is row `r` of the page at
    /// `pages[p]`, which is `row_bytes` bytes from byte `r * row_bytes` of the page on. Pages of
    /// which no row is named are not read. The rows land one behind the other from the slot's first
    /// byte on, in the order of their bits. Neighbours are one READ, and each page is validated
    /// once for each of its words.
    ///
    /// It does what calls of [`read_rows`](Self::read_rows) and
    /// [`read_rows_also`](Self::read_rows_also) do for less: what the pages have in common is
    /// looked at once. Each word with a row takes the place of a page in the batch. All of them
    /// have one result, which is `Ok` only if all rows have arrived and all pages are valid, and
    /// the slot comes back once, with the first of them.
    ///
    /// # Errors
    ///
    /// No row is named, a row ends beyond the page or is longer than a chunk, the rows do not fit
    /// the slot, there is another number of words, the batch has not so much room, a location is
    /// beyond the region or of a page that still grows, the pages have several regions, the slot
    /// has a layout, or as [`read`](Self::read). Then no page has joined the batch, and the slot
    /// comes back.
    pub fn read_rows_of(
        &mut self,
        from: &RemoteRegion,
        pages: &[Location],
        row_bytes: u32,
        rows: &[u64],
        slot: Slot,
    ) -> Result<(), RejectedPages> {
        if !from.has_table {
            return Err(rejected(slot, 0, ReadError::Page(PageRangeError::NoTable)));
        }
        let of = RowsOfPages { from, row_bytes, rows };
        self.read_set(of, pages, slot, Phase::NeedsValidation, |location, rows, page| {
            let Location { slot, expected } = *location;
            if expected.ready != Ready::WHOLE {
                return Err(growing(expected));
            }
            page.entry = slot;
            page.claim = Claim::Expected(Expected::new(expected), rows);
            Ok(slot)
        })
    }

    /// As [`read_rows_of`](Self::read_rows_of), of the pages in the slots `from_slots` of a region,
    /// which are read without validation ([`RemoteRegion::unvalidated`]).
    ///
    /// # Errors
    ///
    /// As [`read_rows_of`](Self::read_rows_of).
    pub fn read_rows_of_unvalidated(
        &mut self,
        from: &RemoteRegion,
        from_slots: &[u32],
        row_bytes: u32,
        rows: &[u64],
        slot: Slot,
    ) -> Result<(), RejectedPages> {
        let of = RowsOfPages { from, row_bytes, rows };
        self.read_set(of, from_slots, slot, Phase::NoValidation, |&slot, rows, page| {
            page.entry = NO_ENTRY;
            page.claim = Claim::Expected(Expected::new(EntryValue::default()), rows);
            Ok(slot)
        })
    }

    /// Adds a set of rows, whose first page is in `phase`. `page` writes the entry and the claim of
    /// a page of which such rows are read, and returns its slot.
    #[inline(always)]
    fn read_set<T>(
        &mut self,
        of: RowsOfPages<'_>,
        pages: &[T],
        slot: Slot,
        phase: Phase,
        page: impl Fn(&T, u64, &mut Page) -> Result<u32, ReadError>,
    ) -> Result<(), RejectedPages> {
        let words = match self.check_rows_of(of, pages.len()) {
            Ok(words) => words,
            Err(error) => return Err(rejected(slot, 0, error)),
        };
        let size = match self.put_set(of, words, pages, page) {
            Ok(size) => size,
            Err((at, error)) => return Err(rejected(slot, at, error)),
        };
        match self.check_set(of, size, &slot) {
            Ok(shape) => {
                self.add_set(slot, size, shape, phase);
                Ok(())
            }
            Err(error) => Err(rejected(slot, 0, error)),
        }
    }

    /// Checks what the rows of a call have in common. Returns how many words each page has.
    fn check_rows_of(&self, of: RowsOfPages<'_>, pages: usize) -> Result<usize, ReadError> {
        let RowsOfPages { from, row_bytes, rows } = of;
        let chunk_bytes = 1 << self.buffer.limits.chunk_shift;
        if from.regions > 1 {
            return Err(ReadError::RowsOfRegions { regions: from.regions });
        }
        let Some(in_page) = from.page_bytes.checked_div(row_bytes) else {
            return Err(RowsError::NoBytes.into());
        };
        if row_bytes > chunk_bytes {
            return Err(ReadError::RowTooLong { row_bytes, chunk_bytes });
        }
        if in_page == 0 {
            return Err(ReadError::RowsBeyondPage { row: 0, row_bytes, page_bytes: from.page_bytes });
        }
        let words = in_page.div_ceil(u64::BITS) as usize;
        if pages.checked_mul(words) != Some(rows.len()) {
            return Err(ReadError::RowWords { words: rows.len(), pages, rows: in_page });
        }
        Ok(words)
    }

    /// Puts the pages of a set into the next places, as pages behind its first.
    #[inline(always)]
    fn put_set<T>(
        &mut self,
        of: RowsOfPages<'_>,
        words: usize,
        pages: &[T],
        page: impl Fn(&T, u64, &mut Page) -> Result<u32, ReadError>,
    ) -> Result<SetSize, (usize, ReadError)> {
        let RowsOfPages { from, row_bytes, rows } = of;
        let (base, stride, source, slots) = (from.base, from.stride, from.source, from.slots);
        let (at, shift) = (self.len as usize, self.buffer.limits.chunk_shift);
        let all = &mut self.buffer.pages_mut()[at..];
        // Which bits of the last word of a page are rows of it.
        let in_last = u64::MAX >> ((u64::BITS - of.in_page() % u64::BITS) % u64::BITS);
        let (mut n, mut before, mut neighbours) = (0, 0, 0);
        let mut put = |of_page: &T, word: u32, rows: u64| {
            let Some(place) = all.get_mut(n) else { return Err(full(at + n)) };
            let slot = page(of_page, rows, place)?;
            if slot >= slots {
                return Err(beyond(slot, slots));
            }
            let word = u64::from(word) * u64::from(u64::BITS) * u64::from(row_bytes);
            // The rows are within a page of the region, whose last page was checked.
            place.remote = base.wrapping_add(stride.wrapping_mul(slot.into())).wrapping_add(word);
            place.slot = None;
            place.source = source;
            place.len = row_bytes.wrapping_mul(before);
            place.next = before;
            place.left = 0;
            place.seg_len = narrow(n);
            place.phase = Phase::InSet;
            n += 1;
            before += rows.count_ones();
            neighbours |= rows & rows << 1;
            Ok(())
        };
        if words == 1 {
            for (at, (of_page, &rows)) in pages.iter().zip(rows).enumerate() {
                if rows & !in_last != 0 {
                    return Err((at, of.beyond_page(words, rows)));
                }
                if rows != 0 {
                    put(of_page, 0, rows).map_err(|error| (at, error))?;
                }
            }
        } else {
            for (at, (of_page, of_words)) in pages.iter().zip(rows.chunks_exact(words)).enumerate() {
                for (word, &rows) in (0..).zip(of_words) {
                    if word as usize + 1 == words && rows & !in_last != 0 {
                        return Err((at, of.beyond_page(words, rows)));
                    }
                    if rows != 0 {
                        put(of_page, word, rows).map_err(|error| (at, error))?;
                    }
                }
            }
        }
        let set = &mut all[..n];
        if let [page] = set {
            begin_with_row(page, row_bytes);
            neighbours = u64::MAX;
        }
        let reads = if neighbours == 0 { before } else { join_neighbours(set, row_bytes, shift) };
        // At most as many as the batch has pages.
        Ok(SetSize { pages: n as u32, rows: before, reads })
    }

    /// The shape of a set, if it may land in `slot`.
    fn check_set(&self, of: RowsOfPages<'_>, size: SetSize, slot: &Slot) -> Result<PageShape, ReadError> {
        let RowsOfPages { from, row_bytes, .. } = of;
        let limits = self.buffer.limits;
        if size.pages == 0 {
            return Err(RowsError::Empty.into());
        }
        let bytes = u64::from(size.rows) * u64::from(row_bytes);
        let len = u32::try_from(bytes).unwrap_or(u32::MAX);
        if bytes > u64::from(len) {
            // No slot has so many bytes, and the places of its rows were cut off.
            return Err(ReadError::SlotTooSmall { page_bytes: len, slot_bytes: slot.len() });
        }
        // One chunk is enough to be checked here: the number of READs is checked below.
        let (of, to) = ((from.source, len, NO_LAYOUT), (slot.slot_region(), slot.len()));
        PageShape::check(of, to, limits, self.buffer.layouts, self.len)?;
        if size.reads > MAX_SET_READS {
            let (chunk_bytes, chunks) = (1 << limits.chunk_shift, size.reads);
            return Err(ReadError::TooManyChunks {
                page_bytes: len,
                chunk_bytes,
                chunks,
                max: MAX_SET_READS,
            });
        }
        // The region NONE makes this no other page's shape, since its chunks are rows.
        let (source, slot_region) = (from.source, SlotRegion::NONE);
        Ok(PageShape { source, slot_region, len, chunks: size.reads })
    }

    /// Adds the set that stands in the next places: its first page gets the slot and stands for
    /// all.
    fn add_set(&mut self, mut slot: Slot, size: SetSize, shape: PageShape, phase: Phase) {
        let at = self.len;
        self.turn_to(shape);
        self.uniform = false;
        let validated = phase == Phase::NeedsValidation;
        (self.some_unvalidated, self.some_validated) =
            (self.some_unvalidated | !validated, self.some_validated | validated);
        let first = self.buffer.page_mut(at);
        (first.len, first.left, first.phase) = (shape.len, shape.chunks, phase);
        if size.pages == 1 {
            slot.take_rows(size.reads);
        } else {
            slot.take_set(size.reads);
        }
        first.slot = Some(slot);
        if at == 0 {
            self.buffer.head_mut().in_range = 1;
        }
        self.buffer.head_mut().has_rows = true;
        if size.pages > 1 {
            self.buffer.page_mut(at + 1).seg_done = narrow(size.pages as usize);
            // At most as many as the batch has pages.
            self.buffer.head_mut().in_sets += narrow(size.pages as usize - 1);
        }
        self.len = at + size.pages;
    }
}

/// Moves the only page of a set to its first row: the rows of one page are a page of their own, as
/// [`Batch::read_rows`] puts it.
#[cold]
fn begin_with_row(page: &mut Page, row_bytes: u32) {
    if let Claim::Expected(_, rows) = &mut page.claim {
        let before = rows.trailing_zeros() % u64::BITS;
        *rows >>= before;
        page.remote += u64::from(before) * u64::from(row_bytes);
    }
}

/// Counts the READs of a set in which some rows are neighbours: writes into each page how many the
/// pages before it have, and returns how many there are.
#[inline(never)]
fn join_neighbours(set: &mut [Page], row_bytes: u32, shift: u8) -> u32 {
    set.iter_mut().fold(0, |before, page| {
        page.next = before;
        before + RowReads::new(page.rows(), row_bytes, shift).left()
    })
}

#[cold]
const fn full(capacity: usize) -> ReadError {
    ReadError::Full { capacity }
}

#[cold]
const fn beyond(slot: u32, slots: u32) -> ReadError {
    ReadError::Page(PageRangeError::Slot { slot, slots })
}

#[cold]
const fn growing(expected: EntryValue) -> ReadError {
    ReadError::NotReady { needed: Ready::WHOLE, seen: expected.ready }
}

#[cold]
fn rejected(slot: Slot, page: usize, error: ReadError) -> RejectedPages {
    RejectedPages { slots: slot.into(), page, error }
}
