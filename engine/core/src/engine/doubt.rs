//! Which pages are read again when a lane fails.
//!
//! A transport may report a READ as a success though bytes of it are missing, just before its QP
//! moves to the error state (SoftRoCE of Linux 6.1, docs/failure.md). So a success counts for a
//! page only if its lane does not die before the page is validated. Each page notes over which
//! lanes its chunks have arrived ([`LaneSet`]). When a lane dies, those of its peer's pages that it
//! carried and that are not validated are doubtful: all their chunks are read again, and their
//! table entries after that. Successes that a lane reports after it has failed count for nothing.
//!
//! A page that is read without validation arrives with its last chunk, so it has no such second
//! look.

use super::state::Engine;
use crate::events::{EngineEvent, EventSink};
use crate::lane::record::Run;
use crate::limits::narrow;
use crate::page::lane_set::LaneSet;
use crate::page::list::PageRef;
use crate::page::{PageTable, Phase, settle_pages};
use crate::provider::Provider;

impl<P: Provider, E: EventSink> Engine<'_, P, E> {
    /// Has those pages read again that chunks of the failed lane belong to and that are not
    /// validated yet. It looks at each batch in flight, and at those pages that are read from the
    /// lane's peer.
    pub(super) fn doubt(&mut self, index: usize) {
        let lane = &self.lanes[index];
        if lane.fresh {
            return;
        }
        let peer = lane.peer;
        // A lower bound of the pages that have not been looked at. Once it is 0 none is left.
        let mut left = self.peers[usize::from(peer)].in_flight();
        for group in 0..self.in_flight.groups() {
            let mut from = 0;
            while left > 0
                && let Some((batch, behind)) = self.in_flight.next_flying(group, from)
            {
                from = behind;
                left -= self.doubt_batch(batch, peer, index).min(left);
            }
        }
    }

    /// As [`doubt`](Self::doubt), for one batch. Returns how many pages of the peer wait for their
    /// validation.
    fn doubt_batch(&mut self, batch: u16, peer: u16, index: usize) -> u64 {
        let (first, head) = (self.pages.first(batch), self.pages.head(batch));
        let (len, settled) = (head.len, head.must_settle_each);
        let (lane, mut at, mut waiting, mut doubtful) = (LaneSet::of(index), 0, 0, 0);
        while at < len {
            let segment = PageRef(first.0 + u32::from(at));
            let page = self.pages.at(segment);
            let (of, seg_len) = (page.peer(), page.seg_len);
            let settled = settled || page.seg.run() != Run::NeedsValidation;
            at += seg_len;
            if of != peer {
                continue;
            }
            let pages = self.pages.slice(segment, u32::from(seg_len));
            waiting += pages.iter().filter(|page| page.awaits_validation()).count() as u64;
            if pages.iter().any(|page| page.is_doubtful(lane, settled)) {
                doubtful += self.read_segment_again(segment, lane);
            }
        }
        if doubtful > 0 {
            self.emit(|engine| {
                let (lane, batch) = (engine.lanes[index].id, engine.ticket(batch));
                EngineEvent::PagesDoubted { lane, batch, pages: doubtful }
            });
        }
        waiting
    }

    /// Has the doubtful pages of a segment read again, before other work that waits. Returns how
    /// many there are.
    #[cold]
    fn read_segment_again(&mut self, segment: PageRef, lane: LaneSet) -> u16 {
        let batch = self.pages.at(segment).batch;
        let (first, head) = (self.pages.first(batch), self.pages.head(batch));
        // From now on wrs of these pages are outstanding twice, or for pages in other states than
        // their records say.
        head.must_settle_each = true;
        let (len, class) = (u32::from(head.len), usize::from(head.class));
        settle_pages(self.pages.slice(first, len));
        let page = self.pages.at(segment);
        page.seg.make_per_page();
        let (peer, seg_len) = (page.peer(), u32::from(page.seg_len));
        let mut doubtful = 0;
        for i in (0..seg_len).rev() {
            let at = PageRef(segment.0 + i);
            let page = self.pages.at(at);
            if !page.is_doubtful(lane, true) {
                continue;
            }
            if page.phase == Phase::Validating {
                self.stop_validating(at, i + 1 < seg_len);
            }
            self.pages.at(at).read_again();
            let first = self.pages.at(segment);
            first.seg_done = first.seg_done.min(narrow(i as usize));
            doubtful += 1;
        }
        if !self.pages.at(segment).queue.is_in() {
            self.peers[usize::from(peer)].queue[class].push_front(&mut self.pages, segment);
        }
        self.peers.enroll_class(peer, class);
        doubtful
    }
}
