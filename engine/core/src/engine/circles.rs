//! How a lane joins the circle of lanes of its peer, rail and class, and leaves it; and what that
//! changes for the work that these lanes carry.

use super::state::Engine;
use crate::events::{EngineEvent, EventSink};
use crate::lane::NO_LANE;
use crate::lane::lanes::next_in_circle;
use crate::lane::record::Record;
use crate::page::PageTable;
use crate::page::list::List;
use crate::peer::circles::Detour;
use crate::provider::Provider;

impl<P: Provider, E: EventSink> Engine<'_, P, E> {
    /// Puts a lane into its circle, and queues its peer if that has work.
    pub(super) fn link_lane(&mut self, lane: u16) {
        let l = &self.lanes[usize::from(lane)];
        let (peer, circle) = (l.peer, l.circle);
        let p = &mut self.peers[usize::from(peer)];
        let first = p.circles.next(circle);
        if first == NO_LANE {
            self.lanes[usize::from(lane)].next = lane;
            p.circles.set_next(circle, lane);
        } else {
            self.lanes[usize::from(lane)].next = self.lanes[usize::from(first)].next;
            self.lanes[usize::from(first)].next = lane;
        }
        if p.lanes_all == 0 {
            self.peers[usize::from(peer)].seat = self.peers.turns.take_seat(peer);
        }
        let p = &mut self.peers[usize::from(peer)];
        p.lanes_all += 1;
        p.circles.set_room(circle);
        if p.circles.add(circle.class()) {
            self.divide_validation(peer);
        }
        self.peers.enroll(peer);
    }

    /// Takes a lane out of its circle. If other lanes carry the work of a class from now on, queues
    /// the peer: its work may have waited for lanes without room.
    pub(super) fn unlink_lane(&mut self, lane: u16) {
        let l = &self.lanes[usize::from(lane)];
        let (peer, circle, after) = (l.peer, l.circle, l.next);
        let mut at = lane;
        while let Some(next) = next_in_circle(self.lanes.all, at, lane) {
            at = next;
        }
        let circles = &mut self.peers[usize::from(peer)].circles;
        if at == lane {
            circles.set_next(circle, NO_LANE);
            circles.clear_room(circle);
        } else {
            self.lanes[usize::from(at)].next = after;
            circles.set_next(circle, after);
        }
        self.lanes[usize::from(lane)].next = NO_LANE;
        if circles.remove(circle.class()) {
            self.peers.enroll(peer);
        }
    }

    /// Moves the waiting validating READs of background batches to the turn of their class, from
    /// which on each class has lanes of its own.
    #[cold]
    fn divide_validation(&mut self, peer: u16) {
        let mut all = core::mem::replace(&mut self.peers[usize::from(peer)].validate[0], List::EMPTY);
        while let Some(page) = all.first() {
            all.remove(&mut self.pages, page);
            let batch = self.pages.at(page).batch;
            let class = usize::from(self.pages.head(batch).class);
            self.peers[usize::from(peer)].validate[class].push_back(&mut self.pages, page);
        }
    }

    /// Counts and reports the detours that have begun or ended since lanes of a peer came or went.
    #[cold]
    pub(super) fn report_detours(&mut self, index: u16) {
        let peer = self.peers[usize::from(index)].id(index);
        while let Some(detour) = self.peers[usize::from(index)].circles.next_detour() {
            let event = match detour {
                Detour::Begins(class) => {
                    self.peers[usize::from(index)].stats.count_detour();
                    EngineEvent::DetourBegan { peer, class }
                }
                Detour::Ends(class) => EngineEvent::DetourEnded { peer, class },
            };
            self.emit(|_| event);
        }
    }

    /// The class of the batch whose pages a wr reads.
    pub(super) fn class_of(&mut self, wr: Record) -> usize {
        let batch = self.pages.at(wr.page).batch;
        self.pages.head(batch).class.into()
    }

    /// The class in whose turn a wr of a dead lane is posted again.
    pub(super) fn turn_of(&mut self, wr: Record) -> usize {
        let (class, peer) = (self.class_of(wr), self.pages.at(wr.page).peer());
        self.peers[usize::from(peer)].circles.turn_of(class)
    }
}
