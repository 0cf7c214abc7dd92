//! The state of a page while the engine has it, and the lists that pages form.

use crate::error::PageError;
use crate::id::Source;
use crate::lane::Run;
use crate::memory::Slot;
use crate::remote::NO_ENTRY;
use crate::table::EntryValue;

/// A page in flight: its place among all pages of the storage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PageRef(pub(crate) u32);

/// No page, in links.
pub(crate) const NIL: PageRef = PageRef(u32::MAX);

/// No list to be in, in links.
const NO_LIST: PageRef = PageRef(u32::MAX - 1);

/// In no list, but behind the page before, which is, in links.
const BEHIND: PageRef = PageRef(u32::MAX - 2);

/// The chunk number of a page's validating READ.
pub(crate) const VALIDATE: u32 = u32::MAX;

/// The most chunks of one page.
pub(crate) const MAX_CHUNKS: u32 = 1 << 20;

/// Neighbours in a list.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Link {
    next: PageRef,
    prev: PageRef,
}

impl Link {
    /// In no list.
    pub(crate) const OUT: Self = Self { next: NO_LIST, prev: NIL };

    /// In no list itself: the page before stands for it.
    pub(crate) const BEHIND: Self = Self { next: BEHIND, prev: NIL };

    fn is_in(self) -> bool {
        self.next != NO_LIST && self.next != BEHIND
    }

    #[inline]
    pub(crate) fn is_behind(self) -> bool {
        self.next == BEHIND
    }
}

/// Where a page is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Phase {
    /// Under way. When its last chunk arrives there is nothing to do but to count it: it may have, and then it
    /// stands in a row that has [`landed`](Page::landed), until somebody needs to know.
    Bare,
    /// Under way. When its last chunk arrives its entry is read.
    Checked,
    /// Its data has arrived, its entry is being read.
    Validating,
    /// Failed, `outcome` says why: what is not posted is not going to be, what is posted no longer
    /// matters.
    Dead,
    /// Retired: it has arrived.
    Arrived,
    /// Retired: it has not, `outcome` says why.
    Lost,
}

/// Two facts about a segment, in a byte.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Segment(u8);

impl Segment {
    pub(crate) const MIXED: Self = Self(0);
    /// Its pages are one chunk each, of one length, and of one region each side.
    pub(crate) const PLAIN: Self = Self(1);
    const PARKED: u8 = 2;
    /// Plain, and none of its pages is to be validated.
    pub(crate) const BARE: Self = Self(1 | 4);
    /// Plain, and all of its pages are to be validated.
    pub(crate) const CHECKED: Self = Self(1 | 8);

    #[inline]
    pub(crate) fn is_plain(self) -> bool {
        self.0 & Self::PLAIN.0 != 0
    }

    /// What a run of its pages is, where it is plain.
    #[inline]
    pub(crate) fn run(self) -> Run {
        match self.0 & (Self::BARE.0 | Self::CHECKED.0) {
            5 => Run::Bare,
            9 => Run::Checked,
            _ => Run::Any,
        }
    }

    /// Its pages must be looked at one by one from now on: some have failed.
    pub(crate) fn mix(&mut self) {
        self.0 &= Self::PARKED;
    }

    /// It is in the list of those put aside.
    pub(crate) fn park(&mut self) {
        self.0 |= Self::PARKED;
    }

    /// It is not, from now on. Says whether it was.
    pub(crate) fn unpark(&mut self) -> bool {
        let was = self.0 & Self::PARKED != 0;
        self.0 &= !Self::PARKED;
        was
    }
}

/// One page of a batch.
///
/// Its chunks are accounted for in `left`, each exactly once: those from `next` on have not been
/// posted; of those before, each is either in the ring of exactly one lane or has finished and been
/// subtracted from `left`.
// Two cache lines. What filling, posting and completing touch is in the first.
#[derive(Debug)]
#[repr(C, align(64))]
pub(crate) struct Page {
    pub(crate) remote: u64,
    /// Where the bytes go; here from `read` until the caller takes it back.
    pub(crate) slot: Option<Slot>,
    pub(crate) source: Source,
    /// Bytes that are read.
    pub(crate) len: u32,
    /// The number of the table entry. Of a bare page [`NO_ENTRY`], or how many pages in a row, this one first, have
    /// arrived without any of them having been looked at ([`landed`](Self::landed)).
    pub(crate) entry: u32,
    /// The first chunk that has not been posted. In a plain segment that is for its first page's `seg_done` to say,
    /// until somebody needs to know ([`settle_pages`]).
    pub(crate) next: u32,
    /// Chunks that have not finished.
    pub(crate) left: u32,
    pub(crate) batch: u16,
    /// Pages from here to the next segment (pages of one peer in a row); in a segment's first page.
    pub(crate) seg_len: u16,
    /// How many of them have been posted whole.
    pub(crate) seg_done: u16,
    /// What is to be known of the segment.
    pub(crate) seg: Segment,
    pub(crate) phase: Phase,
    // What is touched when a page is validated, fails, or heads a segment.
    pub(crate) expected: EntryValue,
    pub(crate) queue: Link,
    pub(crate) validate: Link,
    pub(crate) outcome: PageError,
}

const _: () = assert!(core::mem::offset_of!(Page, expected) == 64 && size_of::<Page>() == 128);

impl Page {
    pub(crate) const EMPTY: Self = Self {
        remote: 0,
        slot: None,
        source: Source::NONE,
        len: 0,
        entry: 0,
        next: 0,
        left: 0,
        batch: 0,
        seg_len: 0,
        seg_done: 0,
        seg: Segment::MIXED,
        phase: Phase::Lost,
        expected: EntryValue { generation: crate::table::Generation(0), tag: crate::table::KeyTag(0) },
        queue: Link::OUT,
        validate: Link::OUT,
        outcome: PageError::PeerGone,
    };

    /// How many chunks it has: parts of so many bytes, or the work requests of its plan.
    #[inline]
    pub(crate) fn chunks(&self, shift: u8) -> u32 {
        match self.slot.as_ref().and_then(Slot::plan) {
            None => chunks(self.len, shift),
            Some((_, wrs)) => wrs,
        }
    }

    /// The number of the plan by which it lands in its slot, if it does not as it is.
    #[inline]
    pub(crate) fn plan(&self) -> Option<u16> {
        self.slot.as_ref().and_then(Slot::plan).map(|(plan, _)| plan)
    }

    /// Where its bytes go: the address, and the number of the local region.
    #[inline]
    pub(crate) fn local(&self) -> (u64, usize) {
        // A page that is posted has its slot.
        self.slot.as_ref().map_or((0, 0), |slot| (slot.address(), slot.region().index()))
    }

    /// Whose it is.
    #[inline]
    pub(crate) fn peer(&self) -> u16 {
        self.source.peer().index()
    }

    /// What became of it, once it is retired or its batch is done. A bare page of a batch that is done has
    /// landed: had it not, it would be lost.
    #[inline]
    pub(crate) fn result(&self) -> Result<(), PageError> {
        if matches!(self.phase, Phase::Arrived | Phase::Bare) { Ok(()) } else { Err(self.outcome) }
    }

    /// It and those behind it, `n` bare pages of one chunk each, have arrived: said here for all of them.
    #[inline]
    pub(crate) fn land(&mut self, n: u32) {
        self.entry = n;
    }

    /// How many pages in a row, this one first, have arrived without any of them having been looked at.
    #[inline]
    pub(crate) fn landed(&self) -> Option<u32> {
        (self.phase == Phase::Bare && self.entry != NO_ENTRY).then_some(self.entry)
    }

    /// Its only chunk under way has arrived: a bare page is through with that and says so. Of any other
    /// nothing changes.
    #[inline]
    pub(crate) fn arrive(&mut self) -> bool {
        let through = self.phase == Phase::Bare && self.left == 1;
        if through {
            self.phase = Phase::Arrived;
            self.left = 0;
        }
        through
    }

    #[inline]
    pub(crate) fn is_retired(&self) -> bool {
        matches!(self.phase, Phase::Arrived | Phase::Lost)
    }

    /// In no list.
    fn is_out(&self) -> bool {
        !self.queue.is_in() && self.validate.next == NO_LIST
    }

    /// Length of one chunk of a page without a plan, and of how many from it on.
    #[inline]
    pub(crate) fn alike(&self, chunk: u32, shift: u8) -> (u32, u32) {
        match (self.len >> shift).saturating_sub(chunk) {
            0 => (self.chunk(chunk, shift).1, 1),
            whole => (1 << shift, whole),
        }
    }

    /// Start and length of one chunk of a page without a plan, relative to the page.
    #[inline]
    pub(crate) fn chunk(&self, chunk: u32, shift: u8) -> (u64, u32) {
        let offset = u64::from(chunk) << shift;
        // chunk < chunks, so offset < len <= u32::MAX.
        let rest = self.len - offset as u32;
        (offset, rest.min(1 << shift))
    }
}

/// Writes down in each page of a batch whether it has been posted and whether it has arrived, where that has been
/// said for several together.
pub(crate) fn settle_pages(pages: &mut [Page]) {
    let (mut segment, mut posted, mut landed) = (0, 0, 0);
    for (at, page) in pages.iter_mut().enumerate() {
        if at == segment {
            segment += usize::from(page.seg_len);
            posted = if page.seg.is_plain() { page.seg_done } else { 0 };
        }
        if posted > 0 {
            posted -= 1;
            page.next = 1;
        }
        landed = page.landed().unwrap_or(landed);
        if landed > 0 {
            landed -= 1;
            (page.phase, page.left, page.entry) = (Phase::Arrived, 0, NO_ENTRY);
        }
    }
}

/// Whether all pages of a batch are retired or have landed, in no list, with nothing outstanding.
pub(crate) fn are_at_rest(pages: &[Page]) -> bool {
    let mut landed = 0;
    pages.iter().all(|page| {
        landed = page.landed().unwrap_or(landed);
        if landed > 0 {
            landed -= 1;
            return page.is_out() && page.phase == Phase::Bare && page.left == 1;
        }
        page.is_out() && page.is_retired() && page.left == 0
    })
}

/// Chunks of `len` bytes.
#[inline]
pub(crate) fn chunks(len: u32, shift: u8) -> u32 {
    ((u64::from(len) + (1 << shift) - 1) >> shift) as u32
}

/// Which of a page's links a list uses.
pub(crate) trait Linked {
    fn link(page: &mut Page) -> &mut Link;
}

/// Segments waiting to be posted, by their first page.
#[derive(Debug)]
pub(crate) struct Queued;
impl Linked for Queued {
    #[inline]
    fn link(page: &mut Page) -> &mut Link {
        &mut page.queue
    }
}

/// Pages waiting for their validating READ to be posted.
#[derive(Debug)]
pub(crate) struct Validating;
impl Linked for Validating {
    #[inline]
    fn link(page: &mut Page) -> &mut Link {
        &mut page.validate
    }
}

/// Where pages are looked up.
pub(crate) trait PageTable {
    fn at(&mut self, page: PageRef) -> &mut Page;
}

/// A doubly linked list through pages: all operations are O(1), none allocates.
#[derive(Debug)]
pub(crate) struct List<L> {
    head: PageRef,
    tail: PageRef,
    which: core::marker::PhantomData<L>,
}

impl<L: Linked> List<L> {
    pub(crate) const EMPTY: Self = Self { head: NIL, tail: NIL, which: core::marker::PhantomData };

    #[inline]
    pub(crate) fn first(&self) -> Option<PageRef> {
        (self.head != NIL).then_some(self.head)
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.head == NIL
    }

    /// Whether `page`, which is in the list, is its last.
    #[inline]
    pub(crate) fn is_last(&self, page: PageRef) -> bool {
        self.tail == page
    }

    #[inline]
    pub(crate) fn push_back(&mut self, pages: &mut impl PageTable, page: PageRef) {
        let link = L::link(pages.at(page));
        debug_assert!(!link.is_in(), "linked twice");
        *link = Link { next: NIL, prev: self.tail };
        match self.tail {
            NIL => self.head = page,
            tail => L::link(pages.at(tail)).next = page,
        }
        self.tail = page;
    }

    /// Takes a page out, wherever it stands, and says whether it was in.
    #[inline]
    pub(crate) fn remove(&mut self, pages: &mut impl PageTable, page: PageRef) -> bool {
        let link = core::mem::replace(L::link(pages.at(page)), Link::OUT);
        if !link.is_in() {
            return false;
        }
        match link.prev {
            NIL => self.head = link.next,
            prev => L::link(pages.at(prev)).next = link.next,
        }
        match link.next {
            NIL => self.tail = link.prev,
            next => L::link(pages.at(next)).prev = link.prev,
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    impl PageTable for Vec<Page> {
        fn at(&mut self, page: PageRef) -> &mut Page {
            &mut self[page.0 as usize]
        }
    }

    fn order(list: &List<Queued>, pages: &mut Vec<Page>) -> Vec<u32> {
        let (mut at, mut out) = (list.head, Vec::new());
        while at != NIL {
            out.push(at.0);
            at = pages.at(at).queue.next;
        }
        out
    }

    #[test]
    fn pages_leave_a_list_from_any_place() {
        for gone in 0..4_u32 {
            let mut pages: Vec<Page> = (0..4).map(|_| Page::EMPTY).collect();
            let mut list = List::<Queued>::EMPTY;
            for i in 0..4 {
                list.push_back(&mut pages, PageRef(i));
            }
            list.remove(&mut pages, PageRef(gone));
            list.remove(&mut pages, PageRef(gone));
            let want: Vec<u32> = (0..4).filter(|&i| i != gone).collect();
            assert_eq!(order(&list, &mut pages), want);
            list.push_back(&mut pages, PageRef(gone));
            assert_eq!(order(&list, &mut pages).last(), Some(&gone));
        }
    }

    #[test]
    fn what_has_landed_is_told_page_by_page() {
        let bare = || Page { phase: Phase::Bare, entry: NO_ENTRY, left: 1, ..Page::EMPTY };
        let mut pages: Vec<Page> = (0..9).map(|_| bare()).collect();
        // Two rows that follow each other, one under way, one that failed, and a row of one.
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
        (pages[0].seg_len, pages[0].seg_done, pages[0].seg) = (6, 6, Segment::BARE);
        (pages[6].seg_len, pages[6].seg_done, pages[6].seg) = (3, 2, Segment::BARE);
        settle_pages(&mut pages);
        assert!(are_at_rest(&pages) && pages.iter().all(Page::is_retired));
        assert_eq!(pages.iter().map(|page| page.next).collect::<Vec<_>>(), [1, 1, 1, 1, 1, 1, 1, 1, 0]);
        assert_eq!(results(&pages), want);
    }

    #[test]
    fn the_last_chunk_is_what_remains() {
        let page = Page { len: 10_000, ..Page::EMPTY };
        assert_eq!(page.chunk(0, 12), (0, 4096));
        assert_eq!(page.chunk(2, 12), (8192, 1808));
        let whole = Page { len: u32::MAX, ..Page::EMPTY };
        assert_eq!(whole.chunk((1 << 20) - 1, 12), (0xFFFF_F000, 4095));
    }
}
