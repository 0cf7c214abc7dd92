//! The checks of what the engine gives back: pages that are told early, batches that are done, and
//! deadlines that have passed.

use kvrail_core::batch::Done;
use kvrail_core::error::PageError;
use kvrail_core::memory::Slot;

use super::owner::Owner;
use super::world::{Flying, Part, ROW, World};

impl Part {
    /// Whether its slot holds the bytes that it must.
    fn is_in(&self, slot: &Slot, owner: &Owner) -> bool {
        let (page, bytes) = (owner.expected(self.location), slot.bytes().expect("host memory"));
        if let Some((rows, at)) = self.rows {
            let rows = (0..64).filter(|row| rows >> row & 1 != 0).map(|row| &page[row * ROW..][..ROW]);
            return bytes[at..].chunks_exact(ROW).zip(rows).all(|(found, row)| found == row);
        }
        // A slot that several pages share has each at its place; a part alone is at the beginning.
        let at = if self.shares { self.from } else { 0 };
        let expected = &page[self.from..self.to];
        &bytes[at..at + expected.len()] == expected
    }

    /// Whether the owner has not touched the page since it was submitted.
    fn is_untouched(&self, owner: &Owner) -> bool {
        let slot = self.location.slot as usize;
        owner.is_valid(slot) && owner.location(slot) == self.location
    }
}

impl<'s> World<'s, '_> {
    /// Polls, and checks all that has ended.
    pub(super) fn poll(&mut self) {
        let now = self.sim.now();
        self.engine.poll(now);
        self.told_since_poll = 0;
        while let Some(ticket) = self.engine.next_overdue() {
            let flying = self.flying.iter_mut().flatten().find(|flying| flying.ticket == ticket);
            let flying = flying.expect("a batch in flight is overdue");
            assert!(now >= flying.deadline && !flying.overdue, "a deadline is told once, when it has passed");
            flying.overdue = true;
        }
        while let Some(done) = self.engine.next_done() {
            self.finish(done);
        }
        for flying in self.flying.iter().flatten() {
            assert!(flying.overdue || now < flying.deadline, "a deadline passed unreported");
        }
    }

    fn finish(&mut self, mut done: Done<'s>) {
        let place = self.flying.get_mut(done.tag() as usize).expect("a batch that was submitted");
        let flying = place.take().expect("a batch is done once");
        assert_eq!((done.ticket(), done.len()), (flying.ticket, flying.parts.len()));
        let results: Vec<_> = (0..done.len()).map(|i| done.result(i).expect("a page")).collect();
        for (i, (part, result)) in flying.parts.iter().zip(&results).enumerate() {
            if let Err(error) = result {
                self.check_error(&flying, i, error);
            }
            if let Some(told) = part.told {
                assert_eq!(told, *result, "page {i} was told otherwise");
            }
        }
        let mut back = Vec::new();
        for page in done.pages() {
            back.push(page.slot.index());
            if page.result.is_ok() {
                for i in flying.group(page.index) {
                    assert_eq!(results[i], Ok(()), "page {i} is missing, and {} is given out", page.index);
                }
                let shared = (page.index + 1..flying.parts.len()).take_while(|&i| flying.parts[i].shares);
                for i in std::iter::once(page.index).chain(shared) {
                    self.check_bytes(&flying.parts[i], &page.slot);
                }
            }
            self.give_back(page.slot);
        }
        assert_eq!(back, flying.slots, "each slot comes back once, in the order of the batch");
    }

    fn check_bytes(&self, part: &Part, slot: &Slot) {
        let owner = &self.owners[part.owner];
        let must = part.validated || part.is_untouched(owner) && !self.incomplete;
        assert!(!must || part.is_in(slot, owner), "{:?} is served wrong", part.location);
    }

    /// Whether a page may fail in this way.
    fn check_error(&self, flying: &Flying, i: usize, error: &PageError) {
        let group = || flying.group(i).map(|i| &flying.parts[i]);
        match error {
            PageError::Miss(_) => {
                let untouched = |part: &Part| !part.validated || part.is_untouched(&self.owners[part.owner]);
                assert!(!group().all(untouched), "{error}: a page that was there all the time");
            }
            PageError::Fault { .. } | PageError::SetAside { .. } => {
                let overtaken = self.slow && self.went_down;
                assert!(self.faulty || overtaken, "{error}, though no page can fail");
            }
            PageError::Deadline { .. } | PageError::NoLane { .. } => {
                assert!(self.sim.now() >= flying.deadline, "{error}, before the deadline");
            }
            PageError::PeerGone => {
                let gone = |part: &Part| self.peers[part.owner].is_none_or(|(peer, _)| peer != part.peer);
                assert!(group().any(gone), "a peer is gone that was not removed");
            }
            PageError::Withdrawn => {
                assert!(flying.withdrawn || group().any(|part| part.withdrawn), "a page was not withdrawn");
            }
            other => panic!("{other}: nothing here leads to that"),
        }
        assert!(!error.to_string().is_empty());
    }

    /// Takes the pages that have their final results, and those slots that `taken` says.
    pub(super) fn take_arrivals(&mut self, taken: u8) {
        while let Some(arrival) = self.engine.next_arrival() {
            let flying = self.flying[arrival.tag as usize].as_mut().expect("a batch in flight");
            assert!(flying.reports && flying.ticket == arrival.ticket);
            assert!(!flying.parts[arrival.page].shares, "the page that has the slot is told");
            let earlier = flying.parts[arrival.page].told.replace(arrival.result);
            assert_eq!(earlier, None, "a page is told once");
            if taken >> (arrival.page % 8) & 1 == 0 {
                continue;
            }
            let Some(slot) = self.engine.take_slot(&arrival) else { continue };
            assert!(self.engine.take_slot(&arrival).is_none(), "a slot is taken once");
            assert_eq!(slot.index(), arrival.slot);
            let at = flying.slots.iter().position(|&index| index == slot.index());
            flying.slots.remove(at.expect("a slot of the batch"));
            if arrival.result.is_ok() {
                let flying = self.flying[arrival.tag as usize].as_ref().expect("it is in flight");
                let shared = flying.parts[arrival.page + 1..].iter().take_while(|part| part.shares);
                for part in std::iter::once(&flying.parts[arrival.page]).chain(shared) {
                    self.check_bytes(part, &slot);
                }
            }
            self.give_back(slot);
        }
    }
}

impl Flying {
    /// The pages that arrive together with page `i` or not at all.
    fn group(&self, i: usize) -> std::ops::Range<usize> {
        let goes_on = |part: &Part| part.shares || part.joined;
        let first = (0..=i).rev().find(|&at| !goes_on(&self.parts[at])).unwrap_or(0);
        let behind = self.parts[i + 1..].iter().take_while(|part| goes_on(part)).count();
        first..i + 1 + behind
    }
}
