//! Whose turn it is, which rail, which lane.
//!
//! Peers with work stand in a queue per class and take turns of `quantum_bytes`. In its turn a peer's
//! work is cut into runs (some eight small chunks, or one large one); each goes to the rail that would
//! be through with it first, and there to the peer's next lane with room. One run is one commit.

use super::Engine;
use super::plain::Stop;
use crate::lane::{Lane, NO_LANE};
use crate::page::{PageRef, PageTable};
use crate::peer::{CLASSES, Peer};
use crate::provider::Provider;
use crate::time::Time;

/// How a turn ended.
enum Turn {
    /// The quantum is used up, more waits.
    More,
    /// Nothing waits any more.
    Over,
    /// Its rails are at their caps: it waits until one of them is not.
    Capped,
    /// Its lanes have no room, or it has no lanes: it enrolls again when one has.
    Blocked,
}

/// What a run is made of.
#[derive(Clone, Copy)]
pub(super) enum Work {
    /// Validating READs.
    Validate,
    /// wrs of a dead lane.
    Again(u16),
    /// Chunks that have not been posted; the first segment.
    Fresh(PageRef),
}

impl<P: Provider> Engine<'_, P> {
    /// Has a peer take its turn in a class.
    #[inline]
    pub(super) fn enroll_class(&mut self, peer: u16, class: usize) {
        self.turns.make_ready(self.peers, peer, class);
    }

    /// Has a peer take its turn in the classes in which it has work.
    #[inline]
    pub(super) fn enroll(&mut self, peer: u16) {
        for class in 0..CLASSES {
            if self.peers[usize::from(peer)].has_work(class) {
                self.enroll_class(peer, class);
            }
        }
    }

    /// Posts what waits, as far as credits and caps go.
    #[inline]
    pub(super) fn pump(&mut self, now: Time) {
        if self.choice.open != 0 && self.turns.any(self.choice.open) {
            self.pump_all(now);
        }
    }

    /// The same where only this peer has something new. It need not queue where nobody else does.
    #[inline]
    pub(super) fn pump_for(&mut self, peer: u16, class: usize, now: Time) {
        if self.choice.open != 0 && !self.turns.any(self.choice.open) {
            self.serve(peer, class, now);
        } else {
            self.enroll_class(peer, class);
        }
        self.pump(now);
    }

    /// Ends, since each turn takes a peer out of a queue, and puts it back only after it has posted
    /// something (of which the caps allow so much) or where it is not found before a rail opens
    /// that is closed now.
    #[inline(never)]
    fn pump_all(&mut self, now: Time) {
        while self.choice.open != 0 {
            let Some((peer, class)) = self.turns.next(self.peers, self.choice.open) else { return };
            self.serve(peer, class, now);
        }
    }

    /// Gives a peer its turn, and has it wait for the next one where it has more.
    #[inline]
    fn serve(&mut self, peer: u16, class: usize, now: Time) {
        match self.turn(peer, class, now) {
            Turn::More => self.enroll_class(peer, class),
            Turn::Capped => {
                let rails = self.peers[usize::from(peer)].room;
                self.turns.wait_for(self.peers, peer, class, rails);
            }
            Turn::Over | Turn::Blocked => {}
        }
    }

    /// One peer's turn.
    #[inline(never)]
    fn turn(&mut self, peer: u16, class: usize, now: Time) -> Turn {
        let mut left = u64::from(self.config.quantum_bytes);
        loop {
            let Some(work) = self.next_work(peer, class, now) else { return Turn::Over };
            if let Work::Fresh(segment) = work
                && self.pages.at(segment).seg.is_plain()
            {
                let stop = self.post_plain(peer, segment, class, &mut left, now);
                if left == 0 {
                    let more = self.peers[usize::from(peer)].has_work(class);
                    return if more { Turn::More } else { Turn::Over };
                }
                match stop {
                    Stop::Posted => continue,
                    Stop::NoRoom => {
                        let blocked = self.peers[usize::from(peer)].room == 0;
                        return if blocked { Turn::Blocked } else { Turn::Capped };
                    }
                    Stop::Short => {}
                }
            }
            loop {
                let room = self.peers[usize::from(peer)].room;
                let rails = room & self.choice.open;
                if rails == 0 {
                    return if room == 0 { Turn::Blocked } else { Turn::Capped };
                }
                // Every failure to find a lane takes a rail out of `room`, so this ends.
                let Some(lane) = self.pick(peer, rails, work) else { continue };
                let posted = self.run(lane, work, class, now);
                left = left.saturating_sub(posted);
                if left == 0 {
                    let more = self.peers[usize::from(peer)].has_work(class);
                    return if more { Turn::More } else { Turn::Over };
                }
                // The same segment as long as there is something of it: nothing comes before it meanwhile.
                match work {
                    Work::Fresh(segment)
                        if self.peers[usize::from(peer)].queue[class].first() == Some(segment) => {}
                    _ => break,
                }
            }
        }
    }

    #[inline]
    fn next_work(&mut self, peer: u16, class: usize, now: Time) -> Option<Work> {
        let p = &self.peers[usize::from(peer)];
        if class == 0 {
            if !p.validate.is_empty() {
                return Some(Work::Validate);
            }
            if p.carcass != NO_LANE {
                return Some(Work::Again(p.carcass));
            }
        }
        if p.queue[class].is_empty() {
            return None;
        }
        self.next_segment(peer, class, now).map(Work::Fresh)
    }

    /// The segment to be posted next. One that cannot make its deadline any more, and has not been
    /// begun, is put aside until the rails are idle, or the deadline fails it: its bytes would only make
    /// others late.
    #[inline]
    pub(super) fn next_segment(&mut self, peer: u16, class: usize, now: Time) -> Option<PageRef> {
        let segment = self.peers[usize::from(peer)].queue[class].first()?;
        let batch = self.pages.at(segment).batch;
        let head = self.pages.head(batch);
        if head.started || head.deadline.since(now) >= self.tight {
            head.started = true;
            return Some(segment);
        }
        self.next_in_time(peer, class, now)
    }

    /// The same where the deadline of the first is so near that it has to be looked at.
    #[cold]
    fn next_in_time(&mut self, peer: u16, class: usize, now: Time) -> Option<PageRef> {
        loop {
            let segment = self.peers[usize::from(peer)].queue[class].first()?;
            let first = self.pages.at(segment);
            let (batch, len) = (first.batch, first.seg_len);
            let head = self.pages.head(batch);
            let slack = head.deadline.since(now);
            if head.started || slack >= self.tight || !self.hopeless(slack.0, segment, len) {
                self.pages.head(batch).started = true;
                return Some(segment);
            }
            self.peers[usize::from(peer)].queue[class].remove(&mut self.pages, segment);
            self.parked[class].push_back(&mut self.pages, segment);
            self.pages.at(segment).seg.park();
        }
    }

    /// Takes a segment out of the list in which it waits, if it does.
    pub(super) fn dequeue(&mut self, peer: usize, class: usize, segment: PageRef) {
        let list = match self.pages.at(segment).seg.unpark() {
            true => &mut self.parked[class],
            false => &mut self.peers[peer].queue[class],
        };
        list.remove(&mut self.pages, segment);
    }

    /// Whether segments have been put aside.
    #[inline]
    pub(super) fn any_parked(&self) -> bool {
        self.parked.iter().any(|list| !list.is_empty())
    }

    /// Nothing keeps what was put aside from being tried once the rails have nothing else to do.
    #[cold]
    pub(super) fn unpark(&mut self) {
        if self.rails.iter().any(|rail| rail.wrs > 0) {
            return;
        }
        for class in 0..CLASSES {
            while let Some(segment) = self.parked[class].first() {
                let peer = self.pages.at(segment).peer();
                self.dequeue(peer.into(), class, segment);
                self.peers[usize::from(peer)].queue[class].push_back(&mut self.pages, segment);
                self.enroll_class(peer, class);
            }
        }
    }

    /// Whether a batch of `bytes`, begun now, would take longer than `slack` ns at the estimated rates: its
    /// data wait behind what is outstanding, its validating READs wait again, it shares the rails with
    /// other peers, and the engine sleeps until half is done. Never when nothing is outstanding: then
    /// trying costs nobody anything.
    #[cold]
    fn hopeless(&mut self, slack: u64, segment: PageRef, len: u16) -> bool {
        let bytes: u64 =
            self.pages.slice(segment, u32::from(len)).iter().map(|page| u64::from(page.len)).sum();
        let outstanding: u64 = self.rails.iter().map(|rail| rail.bytes).sum();
        let need = u128::from(3 * outstanding + 2 * bytes) * 1_000_000_000;
        outstanding > 0 && need > u128::from(slack) * u128::from(self.rate)
    }

    /// The lane for a run: on the rail that would be through with it first.
    #[inline]
    fn pick(&mut self, peer: u16, rails: u16, work: Work) -> Option<usize> {
        let (size, local) = match work {
            Work::Fresh(page) => {
                let page = self.pages.at(page);
                (page.len, page.local().1)
            }
            Work::Validate | Work::Again(_) => (0, usize::MAX),
        };
        let near = self.locals.get(local).map_or(u16::MAX, |local| local.near);
        let rail = self.choice.rail(self.rails, rails, near, u64::from(size.min(self.config.run_bytes)));
        next_lane(self.lanes, &mut self.peers[usize::from(peer)], rail)
    }
}

/// The peer's next lane on `rail` that has room. Where none has, the rail is taken out of the peer's `room`.
#[inline]
pub(super) fn next_lane<L>(lanes: &[Lane<L>], peer: &mut Peer, rail: usize) -> Option<usize> {
    let first = peer.lanes[rail];
    let mut at = first;
    loop {
        let lane = &lanes[usize::from(at)];
        if lane.room() > 0 {
            peer.lanes[rail] = lane.next;
            return Some(usize::from(at));
        }
        match super::next_in_circle(lanes, at, first) {
            Some(next) => at = next,
            None => break,
        }
    }
    peer.room &= !(1 << rail);
    None
}
