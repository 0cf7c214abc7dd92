//! The state of a page while the engine has it.

pub(crate) mod lane_set;
pub(crate) mod list;
pub(crate) mod row_set;
pub(crate) mod segment;

use self::lane_set::LaneSet;
use self::list::PageLink;
use self::segment::Segment;
use crate::error::PageError;
use crate::id::RegionRef;
use crate::memory::slot::Slot;
use crate::rows::RowReads;
use crate::table::{Entry, EntryValue, Generation, KeyTag, NO_ENTRY, Ready};

/// The state of a page.
// Those of a page of a done batch that has arrived come first, so that one comparison tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Phase {
    /// The page is not to be validated, so it arrives with its last chunk. It may have arrived
    /// already, as one of several consecutive pages of which the first notes that all have
    /// [`landed`](Page::landed), until [`settle_pages`] writes it into each.
    NoValidation,
    /// Retired: the page has arrived.
    Arrived,
    /// Retired from the beginning: a page of a [set](row_set) behind the first, which stands for
    /// all of them.
    InSet,
    /// The page is to be validated. When its last chunk arrives its table entry is read.
    NeedsValidation,
    /// The data of the page has arrived, and its table entry is being read.
    Validating,
    /// The page has failed and is not retired yet: some of its chunks are outstanding, and what
    /// they bring no longer matters. No further chunk is posted. `claim` says why it failed.
    Failed,
    /// Retired: the page has not arrived, `claim` says why.
    Lost,
}

/// One page of a batch.
///
/// Chunks from `next` on have not been posted. Each chunk before `next` is in the ring of one lane,
/// or has finished. `left` counts the chunks that have not been posted, and the wrs of the page
/// that are in rings. A page whose chunks are read again ([`read_again`](Page::read_again)) may
/// have a chunk in two rings.
// Two cache lines. The fields that filling, posting and completing touch are in the first.
#[derive(Debug)]
#[repr(C, align(64))]
pub(crate) struct Page {
    pub(crate) remote: u64,
    /// Where the bytes go. The page has the slot from `read` until the caller takes it back.
    pub(crate) slot: Option<Slot>,
    pub(crate) source: RegionRef,
    /// How many bytes are read.
    pub(crate) len: u32,
    /// The number of the table entry. A page that is not validated has [`NO_ENTRY`] here, or the
    /// number of consecutive pages, this one first, that have arrived and are not settled yet
    /// ([`landed`](Self::landed)).
    pub(crate) entry: u32,
    /// The first chunk that has not been posted. In a uniform segment the first page's `seg_done`
    /// counts for all of its pages, until [`settle_pages`] writes `next` into each. Until then
    /// `next` of a page whose data has arrived is the lane that it has arrived over
    /// ([`arrive_over`](Page::arrive_over)).
    pub(crate) next: u32,
    /// Chunks that have not been posted, and wrs that have not finished.
    pub(crate) left: u32,
    pub(crate) batch: u16,
    /// In the first page of a segment: how many pages the segment has.
    pub(crate) seg_len: u16,
    /// In the first page of a segment: how many of its pages have been posted whole.
    pub(crate) seg_done: u16,
    /// In the first page of a segment: what its pages have in common.
    pub(crate) seg: Segment,
    pub(crate) phase: Phase,
    // The fields that are touched when a page is validated, fails, or begins a segment.
    pub(crate) claim: Claim,
    pub(crate) queue: PageLink,
    pub(crate) validate: PageLink,
}

const _: () = assert!(core::mem::offset_of!(Page, claim) == 64 && size_of::<Page>() == 128);

/// What a page is expected to be, and from its failure on, why it failed. A page never needs both,
/// and either of them takes half a cache line or more.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Claim {
    /// What the owner's entry must say. A page that is not validated has any value here. Of a page
    /// of which rows are read, also which, as bits, the first of them at `remote`.
    Expected(Expected, u64),
    /// The page has failed for this reason.
    Failed(PageError),
}

/// What the owner's entry of a page must say, and how the page has come.
// The lanes fill the padding of an `EntryValue`. With the tag in halves its alignment is 8, which
// leaves a claim room for rows.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Expected {
    tag: [u64; 2],
    generation: Generation,
    ready: Ready,
    /// The lanes over which chunks of the page have arrived.
    lanes: LaneSet,
}

const _: () = assert!(size_of::<Expected>() == size_of::<EntryValue>());

impl Expected {
    #[inline(always)]
    pub(crate) const fn new(value: EntryValue) -> Self {
        let EntryValue { tag, generation, ready } = value;
        let tag = [tag.0 as u64, (tag.0 >> 64) as u64];
        Self { tag, generation, ready, lanes: LaneSet::EMPTY }
    }

    #[inline(always)]
    const fn value(&self) -> EntryValue {
        let [low, high] = self.tag;
        let tag = KeyTag((high as u128) << 64 | low as u128);
        EntryValue { tag, generation: self.generation, ready: self.ready }
    }
}

impl Page {
    pub(crate) const EMPTY: Self = Self {
        remote: 0,
        slot: None,
        source: RegionRef::NONE,
        len: 0,
        entry: 0,
        next: 0,
        left: 0,
        batch: 0,
        seg_len: 0,
        seg_done: 0,
        seg: Segment::PER_PAGE,
        phase: Phase::Lost,
        claim: Claim::Failed(PageError::PeerGone),
        queue: PageLink::OUT,
        validate: PageLink::OUT,
    };

    /// How many chunks the page has: parts of `1 << shift` bytes, the work requests of its plan, or
    /// the READs of its rows.
    #[inline]
    pub(crate) fn chunks(&self, shift: u8) -> u32 {
        // A page without a slot has nothing to post: its slot was taken, or it is in a set.
        self.slot.as_ref().map_or(0, |slot| slot.wrs().unwrap_or_else(|| chunks(self.len, shift)))
    }

    /// Whether this is the first page of a [set](row_set).
    #[inline]
    pub(crate) fn begins_set(&self) -> bool {
        self.slot.as_ref().is_some_and(Slot::has_set)
    }

    /// Which rows are read of a page of which rows are, as bits; none once it has failed.
    #[inline(always)]
    pub(crate) const fn rows(&self) -> u64 {
        match self.claim {
            Claim::Expected(_, rows) => rows,
            Claim::Failed(_) => 0,
        }
    }

    /// The READs of its rows, from number `first` on; `None` if it is read whole or by a plan, or
    /// has failed.
    #[inline]
    pub(crate) fn row_reads(&self, first: u32, shift: u8) -> Option<RowReads> {
        match self.claim {
            Claim::Expected(_, rows) if self.slot.as_ref().is_some_and(Slot::has_rows) => {
                Some(RowReads::of(rows, self.len, shift).skip(first))
            }
            _ => None,
        }
    }

    /// From `remote` to the last byte that is read.
    pub(crate) fn span(&self, shift: u8) -> u32 {
        self.row_reads(0, shift).map_or(self.len, |rows| rows.span())
    }

    /// The number of the plan by which the page lands in its slot; `None` without a plan.
    #[inline]
    pub(crate) fn plan(&self) -> Option<u16> {
        self.slot.as_ref().and_then(Slot::plan).map(|(plan, _)| plan)
    }

    /// Where the bytes go: the address, and the number of the local region.
    #[inline]
    pub(crate) fn local(&self) -> (u64, usize) {
        // A page that is posted has its slot.
        self.slot.as_ref().map_or((0, 0), |slot| (slot.address(), slot.region().index()))
    }

    /// The number of its slot, of which the slot's pieces are.
    #[inline]
    pub(crate) fn piece_index(&self) -> u32 {
        self.slot.as_ref().map_or(0, Slot::piece_index)
    }

    /// The place of the peer that the page is read from.
    #[inline]
    pub(crate) fn peer(&self) -> u16 {
        self.source.peer().index()
    }

    /// The result of a page that is retired, or whose batch is done. A page in phase `NoValidation`
    /// has landed if its batch is done.
    #[inline]
    pub(crate) fn result(&self) -> Result<(), PageError> {
        if self.has_arrived() { Ok(()) } else { Err(self.error()) }
    }

    /// Whether a page that is retired, or whose batch is done, has arrived.
    #[inline]
    pub(crate) const fn has_arrived(&self) -> bool {
        matches!(self.phase, Phase::Arrived | Phase::NoValidation | Phase::InSet)
    }

    /// Why the page, which has failed, did so.
    #[inline]
    fn error(&self) -> PageError {
        match self.claim {
            Claim::Failed(error) => error,
            Claim::Expected(..) => {
                debug_assert!(false, "a page that fails says why");
                PageError::PeerGone
            }
        }
    }

    /// Compares the page's table entry, which has been read, with the expected one, and retires the
    /// page. Returns whether it has arrived.
    #[inline]
    pub(crate) fn validate_by(&mut self, entry: &Entry) -> bool {
        let arrived =
            matches!(&self.claim, Claim::Expected(expected, _) if entry.confirms(&expected.value()));
        if arrived {
            self.phase = Phase::Arrived;
        } else {
            self.miss(entry);
        }
        arrived
    }

    /// Why the page's table entry, which has been read, is not the expected one; `None` if it is.
    #[inline]
    pub(crate) fn miss_by(&self, entry: &Entry) -> Option<PageError> {
        match &self.claim {
            Claim::Expected(expected, _) if entry.confirms(&expected.value()) => None,
            Claim::Expected(expected, _) => Some(entry.miss(expected.value()).into()),
            Claim::Failed(error) => Some(*error),
        }
    }

    /// Retires a page whose table entry is not the expected one.
    #[cold]
    fn miss(&mut self, entry: &Entry) {
        self.phase = Phase::Lost;
        match &self.claim {
            Claim::Expected(expected, _) => self.claim = Claim::Failed(entry.miss(expected.value()).into()),
            Claim::Failed(_) => debug_assert!(false, "a page that is validated has not failed"),
        }
    }

    /// Notes that a chunk has arrived over `lane`, which matters if the lane dies before the page
    /// is validated.
    #[inline(always)]
    pub(crate) fn mark(&mut self, lane: LaneSet) {
        if let Claim::Expected(expected, _) = &mut self.claim {
            expected.lanes.add(lane);
        }
    }

    /// As [`mark`](Self::mark), for the only chunk of a page of a uniform segment that is not
    /// settled.
    #[inline(always)]
    pub(crate) fn arrive_over(&mut self, lane: LaneSet) {
        self.next = lane.bits();
    }

    /// Whether the page is to be validated, is not yet, and may have a chunk that arrived over
    /// `lane`. `settled`: whether `next` is up to date.
    pub(crate) fn is_doubtful(&self, lane: LaneSet, settled: bool) -> bool {
        let noted = match &self.claim {
            Claim::Expected(expected, _) => expected.lanes,
            Claim::Failed(_) => LaneSet::EMPTY,
        };
        let arrived_over = if settled { LaneSet::EMPTY } else { LaneSet::from_bits(self.next) };
        self.awaits_validation() && (noted.meets(lane) || arrived_over.meets(lane))
    }

    /// Whether the page is to be validated, and is neither validated nor failed.
    pub(crate) fn awaits_validation(&self) -> bool {
        matches!(self.phase, Phase::NeedsValidation | Phase::Validating)
    }

    /// Has all chunks of a page posted again. Its outstanding wrs, a validating READ among them,
    /// still count in `left`, so the page is validated after the last of them. `next` is up to date
    /// ([`settle_pages`]), and the page is not in the validation queue.
    pub(crate) fn read_again(&mut self) {
        debug_assert!(self.awaits_validation(), "a page that is not final");
        self.phase = Phase::NeedsValidation;
        self.left += self.next;
        self.next = 0;
        if let Claim::Expected(expected, _) = &mut self.claim {
            expected.lanes = LaneSet::EMPTY;
        }
    }

    /// Notes in this page that `n` consecutive pages, this one first, have arrived. They have one
    /// chunk each and are not validated.
    #[inline]
    pub(crate) fn land(&mut self, n: u32) {
        self.entry = n;
    }

    /// The number of consecutive pages, this one first, that have arrived and are not settled yet;
    /// `None` if this page does not note it.
    #[inline]
    pub(crate) fn landed(&self) -> Option<u32> {
        (self.phase == Phase::NoValidation && self.entry != NO_ENTRY).then_some(self.entry)
    }

    /// Retires a page that is not validated and whose only chunk under way has arrived, and returns
    /// true. Any other page stays unchanged.
    #[inline]
    pub(crate) fn arrive(&mut self) -> bool {
        let arrives = self.phase == Phase::NoValidation && self.left == 1;
        if arrives {
            self.phase = Phase::Arrived;
            self.left = 0;
        }
        arrives
    }

    /// Whether the page is not validated, lacks one chunk, and does not begin a row that has
    /// landed.
    pub(crate) fn is_awaited_unvalidated(&self) -> bool {
        self.phase == Phase::NoValidation && self.left == 1 && self.landed().is_none()
    }

    #[inline]
    pub(crate) fn is_retired(&self) -> bool {
        matches!(self.phase, Phase::Arrived | Phase::Lost | Phase::InSet)
    }

    /// Whether the page is in no list.
    fn is_out(&self) -> bool {
        !self.queue.is_in() && self.validate.is_out()
    }

    /// Fails a page that is not retired. Its unposted chunks are dropped; its outstanding chunks
    /// still count in `left`. If none is outstanding, the caller retires the page.
    pub(crate) fn fail(&mut self, error: PageError, shift: u8) {
        if self.phase != Phase::Failed {
            self.phase = Phase::Failed;
            self.claim = Claim::Failed(error);
            let chunks = self.chunks(shift);
            self.left -= chunks - self.next;
            self.next = chunks;
        }
    }

    /// The length of chunk number `chunk` of a page without a plan, and how many chunks from it on
    /// have that length.
    #[inline]
    pub(crate) fn equal_chunks(&self, chunk: u32, shift: u8) -> (u32, u32) {
        match (self.len >> shift).saturating_sub(chunk) {
            0 => (self.chunk(chunk, shift).1, 1),
            whole => (1 << shift, whole),
        }
    }

    /// Where chunk number `chunk` of a page without a plan starts in the page, and its length.
    #[inline]
    pub(crate) fn chunk(&self, chunk: u32, shift: u8) -> (u64, u32) {
        let offset = u64::from(chunk) << shift;
        // chunk < chunks, so offset < len <= u32::MAX.
        let rest = self.len - offset as u32;
        (offset, rest.min(1 << shift))
    }
}

/// Settles the pages of a batch: where one page notes for several that they have been posted or
/// have arrived, writes it into each of them; and notes the lanes of each where `is_doubtful` looks
/// for them then.
pub(crate) fn settle_pages(pages: &mut [Page]) {
    let (mut segment, mut posted, mut landed) = (0, 0, 0);
    for (at, page) in pages.iter_mut().enumerate() {
        if at == segment {
            segment += usize::from(page.seg_len);
            posted = if page.seg.is_uniform() { page.seg_done } else { 0 };
        }
        if posted > 0 {
            posted -= 1;
            page.mark(LaneSet::from_bits(page.next));
            page.next = 1;
        }
        landed = page.landed().unwrap_or(landed);
        if landed > 0 {
            landed -= 1;
            (page.phase, page.left, page.entry) = (Phase::Arrived, 0, NO_ENTRY);
        }
    }
}

/// Whether all pages of a batch are retired or have landed, are in no list, and have no chunk
/// outstanding.
pub(crate) fn are_at_rest(pages: &[Page]) -> bool {
    let mut landed = 0;
    pages.iter().all(|page| {
        landed = page.landed().unwrap_or(landed);
        if landed > 0 {
            landed -= 1;
            return page.is_out() && page.phase == Phase::NoValidation && page.left == 1;
        }
        page.is_out() && page.is_retired() && page.left == 0
    })
}

/// A table of pages.
pub(crate) trait PageTable {
    fn at(&mut self, page: list::PageRef) -> &mut Page;
}

/// How many chunks of `1 << shift` bytes `len` bytes are.
#[inline]
pub(crate) fn chunks(len: u32, shift: u8) -> u32 {
    ((u64::from(len) + (1 << shift) - 1) >> shift) as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    #[test]
    fn settling_writes_into_each_page_whether_it_has_landed() {
        let unvalidated = || Page { phase: Phase::NoValidation, entry: NO_ENTRY, left: 1, ..Page::EMPTY };
        let mut pages: Vec<Page> = (0..9).map(|_| unvalidated()).collect();
        // Rows of three and two pages, a page under way, one that failed, and a row of one page.
        pages[0].land(3);
        pages[3].land(2);
        (pages[6].phase, pages[6].left) = (Phase::Lost, 0);
        pages[7].land(1);
        assert!(!are_at_rest(&pages), "number 5 is under way");
        (pages[5].phase, pages[5].left) = (Phase::Lost, 0);
        (pages[8].phase, pages[8].left) = (Phase::Arrived, 0);
        assert!(are_at_rest(&pages));
        let results = |pages: &[Page]| -> Vec<bool> { pages.iter().map(|p| p.result().is_ok()).collect() };
        let want = [true, true, true, true, true, false, false, true, true];
        assert_eq!(results(&pages), want);
        (pages[0].seg_len, pages[0].seg_done, pages[0].seg) =
            (6, 6, Segment::UNIFORM | Segment::NO_VALIDATION);
        (pages[6].seg_len, pages[6].seg_done, pages[6].seg) =
            (3, 2, Segment::UNIFORM | Segment::NO_VALIDATION);
        settle_pages(&mut pages);
        assert!(are_at_rest(&pages) && pages.iter().all(Page::is_retired));
        assert_eq!(pages.iter().map(|page| page.next).collect::<Vec<_>>(), [1, 1, 1, 1, 1, 1, 1, 1, 0]);
        assert_eq!(results(&pages), want);
    }

    #[test]
    fn the_last_chunk_has_the_rest_of_the_page() {
        let page = Page { len: 10_000, ..Page::EMPTY };
        assert_eq!(page.chunk(0, 12), (0, 4096));
        assert_eq!(page.chunk(2, 12), (8192, 1808));
        let whole = Page { len: u32::MAX, ..Page::EMPTY };
        assert_eq!(whole.chunk((1 << 20) - 1, 12), (0xFFFF_F000, 4095));
    }
}
