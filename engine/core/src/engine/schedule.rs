//! Which peer has its turn, and which rail and lane take its work.
//!
//! Peers with work wait in a queue per class and take turns of `quantum_bytes`. In its turn a
//! peer's work is cut into runs: up to `run_chunks` small chunks, or one large one. Each run goes
//! to the rail that would finish it first, and there to the next lane with room of those that carry
//! the peer's work of this class. One run is one commit.

use super::post::{Stop, Turn, Work, next_lane};
use super::state::Engine;
use crate::events::EventSink;
use crate::lane::NO_LANE;
use crate::limits::CLASSES;
use crate::page::PageTable;
use crate::page::list::PageRef;
use crate::provider::Provider;
use crate::time::{Nanos, Time};

impl<P: Provider, E: EventSink> Engine<'_, P, E> {
    /// Posts waiting work, as far as credits and caps go.
    #[inline]
    pub(super) fn schedule(&mut self, now: Time) {
        if self.rails.choice.open != 0 && self.peers.turns.any(self.rails.choice.open) {
            self.schedule_all(now);
        }
    }

    /// Posts waiting work after one peer has got new work: this peer is served at once if no other
    /// peer could be.
    #[inline]
    pub(super) fn schedule_for(&mut self, peer: u16, class: usize, now: Time) {
        if self.rails.choice.open != 0 && !self.peers.turns.any(self.rails.choice.open) {
            self.serve(peer, class, now);
        } else {
            self.peers.enroll_class(peer, class);
        }
        self.schedule(now);
    }

    /// Serves peers until no rail is open or no peer can be served. It ends: each turn takes a peer
    /// out of a queue, and puts it back only after it has posted something, which the caps limit,
    /// or at a rail that is closed now.
    #[inline(never)]
    fn schedule_all(&mut self, now: Time) {
        while self.rails.choice.open != 0 {
            let Some((peer, class)) = self.peers.next_turn(self.rails.choice.open) else { return };
            self.serve(peer, class, now);
        }
    }

    /// Gives a peer its turn, and queues it again if it has more work.
    #[inline]
    fn serve(&mut self, peer: u16, class: usize, now: Time) {
        match self.turn(peer, class, now) {
            Turn::More => self.peers.enroll_class(peer, class),
            Turn::Capped => self.peers.wait_for_rails(peer, class),
            Turn::Blocked if self.peers[usize::from(peer)].circles.is_empty() => {
                self.repairs.want_first(peer, now);
            }
            Turn::Over | Turn::Blocked => {}
        }
    }

    /// Posts up to `quantum_bytes` of a peer's work of one class.
    #[inline(never)]
    fn turn(&mut self, peer: u16, class: usize, now: Time) -> Turn {
        let mut left = u64::from(self.config.quantum_bytes);
        loop {
            let Some(work) = self.next_work(peer, class, now) else { return Turn::Over };
            if let Work::Fresh(segment) = work
                && self.pages.at(segment).seg.is_uniform()
            {
                let stop = self.post_uniform(peer, segment, class, &mut left, now);
                if left == 0 {
                    let more = self.peers[usize::from(peer)].has_work(class);
                    return if more { Turn::More } else { Turn::Over };
                }
                match stop {
                    Stop::Posted => continue,
                    Stop::NoRoom => {
                        let blocked = self.peers[usize::from(peer)].circles.room(class) == 0;
                        return if blocked { Turn::Blocked } else { Turn::Capped };
                    }
                    Stop::Short => {}
                }
            }
            loop {
                let room = self.peers[usize::from(peer)].circles.room(class);
                let rails = room & self.rails.choice.open;
                if rails == 0 {
                    return if room == 0 { Turn::Blocked } else { Turn::Capped };
                }
                // Each time that no lane is found, `pick` removes a rail from `room`, so this ends.
                let Some(lane) = self.pick(peer, rails, work, class) else { continue };
                let posted = self.run(lane, work, class, now);
                left = left.saturating_sub(posted);
                if left == 0 {
                    let more = self.peers[usize::from(peer)].has_work(class);
                    return if more { Turn::More } else { Turn::Over };
                }
                // Go on with the same segment while some of it is left: no other work can have come
                // before it meanwhile.
                match work {
                    Work::Fresh(segment)
                        if self.peers[usize::from(peer)].queue[class].first() == Some(segment) => {}
                    _ => break,
                }
            }
        }
    }

    /// The next work of a peer: validating READs first, then wrs of dead lanes, then fresh
    /// segments.
    #[inline]
    fn next_work(&mut self, peer: u16, class: usize, now: Time) -> Option<Work> {
        let p = &self.peers[usize::from(peer)];
        if !p.validate[class].is_empty() {
            return Some(Work::Validate);
        }
        if p.dead_lanes[class] != NO_LANE {
            return Some(Work::Repost(p.dead_lanes[class]));
        }
        if p.queue[class].is_empty() {
            return None;
        }
        self.next_segment(peer, class, now).map(Work::Fresh)
    }

    /// The segment to be posted next. A segment that cannot make its deadline any more, and of
    /// whose batch no chunk has been posted, is put aside until the rails are idle or its deadline
    /// passes: its bytes would only make other batches late.
    #[inline]
    pub(super) fn next_segment(&mut self, peer: u16, class: usize, now: Time) -> Option<PageRef> {
        let segment = self.peers[usize::from(peer)].queue[class].first()?;
        let batch = self.pages.at(segment).batch;
        let head = self.pages.head(batch);
        if head.started || head.deadline.since(now) >= self.rails.slack_threshold() {
            head.started = true;
            return Some(segment);
        }
        self.next_in_time(peer, class, now)
    }

    /// As `next_segment`, after the deadline of the first segment was found to be near.
    #[cold]
    fn next_in_time(&mut self, peer: u16, class: usize, now: Time) -> Option<PageRef> {
        loop {
            let segment = self.peers[usize::from(peer)].queue[class].first()?;
            let first = self.pages.at(segment);
            let (batch, len) = (first.batch, first.seg_len);
            let head = self.pages.head(batch);
            let slack = head.deadline.since(now);
            if head.started || slack >= self.rails.slack_threshold() || !self.hopeless(slack, segment, len) {
                self.pages.head(batch).started = true;
                return Some(segment);
            }
            self.peers[usize::from(peer)].queue[class].remove(&mut self.pages, segment);
            self.peers.parked[class].push_back(&mut self.pages, segment);
            self.pages.at(segment).seg.park();
        }
    }

    /// Removes a segment from the list in which it waits, if it is in one.
    pub(super) fn dequeue(&mut self, peer: usize, class: usize, segment: PageRef) {
        let list = match self.pages.at(segment).seg.unpark() {
            true => &mut self.peers.parked[class],
            false => &mut self.peers[peer].queue[class],
        };
        list.remove(&mut self.pages, segment);
    }

    /// Queues the segments that were put aside, once no rail has work outstanding.
    #[cold]
    pub(super) fn unpark(&mut self) {
        if self.rails.iter().any(|rail| rail.wrs > 0) {
            return;
        }
        for class in 0..CLASSES {
            while let Some(segment) = self.peers.parked[class].first() {
                let peer = self.pages.at(segment).peer();
                self.dequeue(peer.into(), class, segment);
                self.peers[usize::from(peer)].queue[class].push_back(&mut self.pages, segment);
                self.peers.enroll_class(peer, class);
            }
        }
    }

    /// Whether a segment whose deadline passes `slack` from now would be late if it were begun now.
    #[cold]
    fn hopeless(&mut self, slack: Nanos, segment: PageRef, len: u16) -> bool {
        let pages = self.pages.slice(segment, u32::from(len)).iter().filter(|page| !page.is_retired());
        let bytes = pages.map(|page| u64::from(page.len)).sum();
        self.rails.would_be_late(slack, bytes)
    }

    /// Picks the lane for a run: the peer's next lane with room on the rail that would finish the
    /// run first. `None` if that rail has no such lane.
    #[inline]
    fn pick(&mut self, peer: u16, rails: u16, work: Work, class: usize) -> Option<usize> {
        let (size, local) = match work {
            Work::Fresh(page) => {
                let page = self.pages.at(page);
                (page.len, page.local().1)
            }
            Work::Validate | Work::Repost(_) => (0, usize::MAX),
        };
        let near = self.regions.locals.get(local).map_or(u16::MAX, |local| local.near);
        let rail =
            self.rails.choice.rail(self.rails.all, rails, near, u64::from(size.min(self.config.run_bytes)));
        let circles = &mut self.peers[usize::from(peer)].circles;
        next_lane(self.lanes.all, circles, circles.of_work(class, rail))
    }
}
