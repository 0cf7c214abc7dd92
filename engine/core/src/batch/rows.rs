//! Rows of pages, which land one behind the other.

use super::batch::Batch;
use super::shape::PageShape;
use crate::error::ReadError;
use crate::layout::NO_LAYOUT;
use crate::memory::slot::{Slot, SlotRegion};
use crate::page::{Claim, Expected};
use crate::remote::RemotePage;
use crate::rows::Rows;

impl Batch<'_> {
    /// Adds the READs of some rows of `page` into `slot`, which has no layout: the rows land one
    /// behind the other from the slot's first byte on. Neighbours are one READ, and the page is
    /// validated once, after its last row. It is one page of the batch, with one result.
    ///
    /// Of a page that grows, [`RemotePage::needs`] says which parts the rows are of.
    ///
    /// # Errors
    ///
    /// The rows end beyond the page or do not fit the slot, the page has several regions, a row is
    /// longer than a chunk, the slot has a layout, or as [`read`](Self::read). The slot comes back.
    pub fn read_rows(
        &mut self,
        page: RemotePage,
        rows: Rows,
        mut slot: Slot,
    ) -> Result<(), (ReadError, Slot)> {
        match self.rows_of(page, rows, (slot.slot_region(), slot.len())) {
            Ok((page, shape)) => {
                slot.take_rows(shape.chunks);
                self.put_rows(page, rows, slot, shape);
                Ok(())
            }
            Err(error) => Err((error, slot)),
        }
    }

    /// Adds the READs of some rows of another page into the slot of the page before, from byte
    /// `offset` of the slot on. So the rows that a step of sparse attention asks for, out of many
    /// pages, are one slot: each page's land behind those of the page before.
    ///
    /// As with [`read_also`](Self::read_also), the slot comes back once, and is good only if all of
    /// its pages are.
    ///
    /// # Errors
    ///
    /// There is no page before, or as [`read_rows`](Self::read_rows).
    pub fn read_rows_also(&mut self, page: RemotePage, rows: Rows, offset: u32) -> Result<(), ReadError> {
        let (slot, place) = self.last_slot()?;
        let room = slot.len().saturating_sub(offset as usize);
        let (page, shape) =
            self.rows_of(page, rows, (slot.slot_region(), room)).map_err(|error| match error {
                ReadError::SlotTooSmall { page_bytes, .. } => {
                    ReadError::BeyondSlot { page_bytes, offset, slot_bytes: slot.len() }
                }
                error => error,
            })?;
        let mut view = slot.share(offset, place);
        view.take_rows(shape.chunks);
        self.put_rows(page, rows, view, shape);
        Ok(())
    }

    /// The page from its first row on, and the shape of its rows, if these may land in a slot, of
    /// which the region and the length are given.
    #[inline]
    fn rows_of(
        &self,
        page: RemotePage,
        rows: Rows,
        to: (SlotRegion, usize),
    ) -> Result<(RemotePage, PageShape), ReadError> {
        page.check_ready(true)?;
        let limits = self.buffer.limits;
        let (row_bytes, chunk_bytes) = (rows.row_bytes(), 1 << limits.chunk_shift);
        if page.regions > 1 {
            return Err(ReadError::RowsOfRegions { regions: page.regions });
        }
        if rows.end() > page.len.into() {
            let row = rows.span().1;
            return Err(ReadError::RowsBeyondPage { row, row_bytes, page_bytes: page.len });
        }
        if row_bytes > chunk_bytes {
            return Err(ReadError::RowTooLong { row_bytes, chunk_bytes });
        }
        // They are within the page, whose length is a u32.
        let len = rows.bytes() as u32;
        let of = (page.source, len, NO_LAYOUT);
        PageShape::check(of, to, limits, self.buffer.layouts, self.len)?;
        let page = page.behind(rows.begin());
        // The region NONE makes this no other page's shape, since its chunks are rows.
        let (source, slot_region) = (page.source, SlotRegion::NONE);
        Ok((page, PageShape { source, slot_region, len, chunks: rows.reads(limits.chunk_shift) }))
    }

    /// Puts a page whose rows were checked into the next place.
    #[inline]
    fn put_rows(&mut self, page: RemotePage, rows: Rows, slot: Slot, shape: PageShape) {
        let (at, expected) = (self.len, Expected::new(page.expected));
        self.put(page, slot, shape);
        self.buffer.page_mut(at).claim = Claim::Expected(expected, rows.mask());
        self.buffer.head_mut().has_rows = true;
    }
}
