//! How a lane fails, is flushed, and its wrs go to other lanes.
//!
//! ```text
//!            fail               LaneFailed, drain posted       drain wr back
//!   Up ------------> Failing ------------------> Draining ------------------> Quiet --> Free
//!                       |                            |                          ^
//!                       | too slow                   | too slow, not accepted   | LaneClosed
//!                       +-------------------------> Closing ---------------------+
//! ```
//!
//! No wr of the lane is posted again, and no slot of it is given back, before the lane is quiet:
//! until then its QP may write.

use super::state::Engine;
use crate::events::{EngineEvent, EventSink};
use crate::id::{LaneId, WrId};
use crate::lane::record::Record;
use crate::lane::{Hold, LaneState, NO_LANE};
use crate::limits::narrow;
use crate::page::list::PageRef;
use crate::page::{PageTable, Phase};
use crate::peer::{NO_SEAT, PeerState};
use crate::provider::Provider;
use crate::time::Time;

impl<P: Provider, E: EventSink> Engine<'_, P, E> {
    /// Takes a lane out of service and starts its flush.
    #[cold]
    pub(super) fn fail_lane(&mut self, index: usize, now: Time) {
        self.begin_failover(index, now);
        let lane = &mut self.lanes[index];
        if let Some(handle) = lane.handle.as_mut() {
            self.provider.fail(handle);
        }
    }

    /// The bookkeeping of [`fail_lane`](Self::fail_lane).
    fn begin_failover(&mut self, index: usize, now: Time) {
        let lane = &mut self.lanes[index];
        debug_assert_eq!(lane.state, LaneState::Up);
        lane.state = LaneState::Failing;
        lane.since = now;
        let (peer, rail, circle) = (lane.peer, usize::from(lane.rail), lane.circle);
        let silent = lane.hold.clear(Hold::SILENT);
        let r = &mut self.rails.all[rail];
        if silent {
            r.clear_silent(lane.outstanding(), lane.bytes);
            self.rails.silent_count -= 1;
        }
        r.forget(lane.outstanding(), lane.bytes);
        r.dying += 1;
        r.stats.lanes_failed += 1;
        self.emit(|engine| {
            let lane = &engine.lanes[index];
            EngineEvent::LaneFailing { lane: lane.id, outstanding: lane.outstanding() }
        });
        self.rails.refresh(rail);
        self.split_joined_rows(index);
        self.lanes.split_records(index);
        self.lanes.dying += 1;
        self.unlink_lane(narrow(index));
        self.doubt(index);
        if silent && self.peers[usize::from(peer)].circles.next(circle) != NO_LANE {
            self.peers[usize::from(peer)].circles.set_room(circle);
            self.peers.enroll(peer);
        }
        let p = &mut self.peers[usize::from(peer)];
        if usize::from(p.trial) == index {
            p.trial = NO_LANE;
            if p.tried.path_was_fine(now) {
                self.lanes[index].hold.insert(Hold::PATH_FINE);
            }
        }
        if usize::from(p.tried.witness) == index {
            p.tried.witness = NO_LANE;
        }
        if p.state == PeerState::Up {
            self.lost(index, now);
            self.report_detours(peer);
        }
    }

    pub(super) fn lane_failed(&mut self, id: LaneId, now: Time) {
        let Some(index) = self.lanes.find(id) else { return };
        if self.lanes[index].state == LaneState::Up {
            self.begin_failover(index, now);
        }
        let lane = &mut self.lanes[index];
        if lane.state != LaneState::Failing {
            return;
        }
        let Some(handle) = lane.handle.as_mut() else { return };
        let drain = WrId::new(id, lane.head);
        lane.state = LaneState::Draining;
        lane.since = now;
        if self.provider.drain(handle, drain).is_err() {
            self.begin_close(index, now);
        }
    }

    /// Destroys a QP whose flush was not seen to end: a destroyed QP writes no more either.
    pub(super) fn begin_close(&mut self, index: usize, now: Time) {
        let lane = &mut self.lanes[index];
        lane.state = LaneState::Closing;
        lane.since = now;
        if let Some(handle) = lane.handle.take() {
            self.provider.close(handle);
        }
    }

    pub(super) fn lane_closed(&mut self, id: LaneId, now: Time) {
        let Some(index) = self.lanes.find(id) else { return };
        if self.lanes[index].state == LaneState::Up {
            self.begin_failover(index, now);
        }
        self.lanes[index].closed = true;
        match self.lanes[index].state {
            LaneState::Quiet => self.free_lane(index),
            _ => self.lane_is_quiet(index, now),
        }
    }

    /// Goes on with a lane that is known to write no more.
    pub(super) fn lane_is_quiet(&mut self, index: usize, now: Time) {
        let lane = &mut self.lanes[index];
        lane.state = LaneState::Quiet;
        lane.since = now;
        let rail = usize::from(lane.rail);
        if let Some(handle) = lane.handle.take() {
            self.provider.close(handle);
        }
        self.rails[rail].dying -= 1;
        self.emit(|engine| {
            let lane = &engine.lanes[index];
            EngineEvent::LaneQuiet { lane: lane.id, left: lane.outstanding() }
        });
        let suspect = self.find_suspect(index, now);
        self.purge(index, suspect);
        self.requeue_rest(index);
    }

    /// Queues the remaining wrs of a quiet lane to be posted again: a suspect alone, and the others
    /// with the peer's next turn of the oldest one's class.
    fn requeue_rest(&mut self, index: usize) {
        let lane = &self.lanes[index];
        let (left, peer, oldest) = (lane.outstanding(), lane.peer, lane.tail);
        if left == 0 {
            return self.free_lane(index);
        }
        let oldest = *self.lanes.record(index, oldest);
        let turn = self.turn_of(oldest);
        let p = &mut self.peers[usize::from(peer)];
        let lane = &mut self.lanes[index];
        if left == 1 && lane.suspect {
            // The suspect goes to the end of the list, so that one that fails again and again does
            // not keep the others from being tried.
            let (last, at) = (core::mem::replace(&mut p.suspects_end, narrow(index)), narrow(index));
            lane.next = NO_LANE;
            match p.suspects {
                NO_LANE => p.suspects = at,
                _ => self.lanes[usize::from(last)].next = at,
            }
            self.peers.queue_trial(peer);
        } else {
            lane.next = core::mem::replace(&mut p.dead_lanes[turn], narrow(index));
            self.peers.enroll_class(peer, turn);
        }
    }

    /// Passes over pages of a segment that have nothing to post, after `page` has failed. A segment
    /// with nothing left leaves the queue, since its batch may be done before its turn.
    pub(super) fn trim(&mut self, page: PageRef) {
        let p = self.pages.at(page);
        let (batch, peer, shift) = (p.batch, usize::from(p.peer()), self.chunk_shift);
        let mut segment = self.pages.first(batch);
        while segment.0 + u32::from(self.pages.at(segment).seg_len) <= page.0 {
            segment.0 += u32::from(self.pages.at(segment).seg_len);
        }
        let first = self.pages.at(segment);
        let (seg_len, mut seg_done) = (first.seg_len, first.seg_done);
        while seg_done < seg_len {
            let at = PageRef(segment.0 + u32::from(seg_done));
            let p = self.pages.at(at);
            if p.next < p.chunks(shift) {
                break;
            }
            seg_done += self.pages.set_len(at);
        }
        self.pages.at(segment).seg_done = seg_done;
        if seg_done == seg_len {
            let class = usize::from(self.pages.head(batch).class);
            self.dequeue(peer, class, segment);
        }
    }

    /// Whether all pages of a wr have failed. A READ of several entries is needed as long as one of
    /// its pages has not failed.
    pub(super) fn is_dead(&mut self, wr: Record) -> bool {
        let (first, n) = self.counted_in(wr);
        self.pages.slice(first, n).iter().all(|page| page.phase == Phase::Failed)
    }

    /// Removes those wrs of a quiet lane whose pages have failed, and accounts for them. A suspect
    /// that stays becomes the last wr: it is at place `suspect`, counted from the oldest, or is the
    /// last already.
    fn purge(&mut self, index: usize, suspect: Option<u32>) {
        let lane = &self.lanes[index];
        let (tail, n) = (lane.tail, lane.outstanding());
        let suspect = suspect.or(lane.suspect.then(|| n.wrapping_sub(1)));
        let (mut kept, mut last) = (tail, None);
        for i in 0..n {
            let record = *self.lanes.record(index, tail.wrapping_add(i));
            if self.is_dead(record) {
                self.drop_wr(record);
            } else if suspect == Some(i) {
                last = Some(record);
            } else {
                *self.lanes.record(index, kept) = record;
                kept = kept.wrapping_add(1);
            }
        }
        if let Some(record) = last {
            *self.lanes.record(index, kept) = record;
            kept = kept.wrapping_add(1);
        }
        let lane = &mut self.lanes[index];
        lane.head = kept;
        lane.suspect = last.is_some();
    }

    /// Purges all dead lanes and all suspects of a peer, after pages of it have failed.
    pub(super) fn purge_peer(&mut self, peer: u16) {
        let p = &mut self.peers[usize::from(peer)];
        let [urgent, background] = &mut p.dead_lanes;
        let lists = [urgent, background, &mut p.suspects].map(|list| core::mem::replace(list, NO_LANE));
        for mut at in lists {
            while at != NO_LANE {
                let index = usize::from(at);
                at = self.lanes[index].next;
                self.purge(index, None);
                self.requeue_rest(index);
            }
        }
    }

    /// Removes the first dead lane of a peer from the list of `class`, if it has no wr left, or its
    /// suspect alone, or its oldest wr is posted in the other class's turn. A lane that carried the
    /// work of both classes has wrs of both.
    pub(super) fn dead_lane_gathered(&mut self, index: usize, class: usize) {
        let lane = &self.lanes[index];
        let (is_empty, oldest) = (lane.outstanding() <= u32::from(lane.suspect), lane.tail);
        let oldest = *self.lanes.record(index, oldest);
        if is_empty || self.turn_of(oldest) != class {
            let lane = &self.lanes[index];
            self.peers[usize::from(lane.peer)].dead_lanes[class] = lane.next;
            self.requeue_rest(index);
        }
    }

    /// Frees the place of a quiet lane, if it has no wr left and its QP has been destroyed.
    pub(super) fn free_lane(&mut self, index: usize) {
        let lane = &mut self.lanes[index];
        if lane.state != LaneState::Quiet || !lane.closed || lane.outstanding() != 0 {
            return;
        }
        lane.state = LaneState::Free;
        let (id, peer, rail) = (lane.id, lane.peer, usize::from(lane.rail));
        lane.id = id.next_life();
        // Completions of the lane may still be in the completion queue: its entries there are free
        // when the queue has been polled empty.
        self.rails[rail].cq_residue += self.lanes[index].credits + 1;
        self.lanes.dying -= 1;
        self.lanes.first_free = self.lanes.first_free.min(index);
        let p = &mut self.peers[usize::from(peer)];
        p.lanes_all -= 1;
        if p.lanes_all == 0 {
            let seat = core::mem::replace(&mut p.seat, NO_SEAT);
            self.peers.turns.leave_seat(seat);
        }
        self.rails[rail].lanes -= 1;
        self.emit(|_| EngineEvent::LaneFreed { lane: id });
        self.leave(peer);
    }
}
