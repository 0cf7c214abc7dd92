//! Lanes on demand: the first lanes of a peer are requested when it has work, and lanes that are
//! idle are given back.
//!
//! A peer without lanes is in no queue, however much work it has: only a lane that is attached
//! queues it. What a lane was last used for is in the lane already ([`Lane::since`]), so finding
//! the lanes that have been idle the longest costs the data path nothing, and the control path a
//! look at each lane.
//!
//! [`Lane::since`]: crate::lane::Lane::since

use super::state::Engine;
use crate::events::{EngineEvent, EventSink, LaneLost};
use crate::id::{PeerId, RailIndex};
use crate::lane::circle::Circle;
use crate::lane::lanes::next_in_circle;
use crate::lane::{LaneState, NO_LANE};
use crate::limits::{CLASSES, narrow};
use crate::peer::Peer;
use crate::provider::Provider;
use crate::time::{Nanos, Time};

/// Peers that one call of [`Engine::release_lanes_idle_for`] looks at.
const LOOK: usize = 64;

impl<P: Provider, E: EventSink> Engine<'_, P, E> {
    /// From here on [`next_unserved_peer`](Self::next_unserved_peer) names the peers that have work
    /// and no lane, so that their lanes can be made on demand. Otherwise the caller attaches the
    /// first lanes of every peer before it reads from it.
    pub fn serve_lanes_on_demand(&mut self) {
        self.repairs.set_on_demand();
    }

    /// Takes the next peer that has pages to be read and no lane, and none that is to come back.
    /// The caller makes lanes and calls [`attach`](Self::attach), or calls
    /// [`first_lanes_unavailable`](Self::first_lanes_unavailable). Requests count among the
    /// `EngineConfig::reconnects` of [`next_wanted_lane`](Self::next_wanted_lane), and one may hide
    /// a request of the other kind: call both in turn until neither gives any.
    pub fn next_unserved_peer(&mut self, now: Time) -> Option<PeerId> {
        let peers = &self.peers;
        let has_work = |peer: u16| {
            let peer = &peers[usize::from(peer)];
            (0..CLASSES).any(|class| peer.has_work(class))
        };
        let peer = self.repairs.next_first(now, has_work)?;
        Some(self.peers[usize::from(peer)].id(peer))
    }

    /// Reports that no lane to a peer that was [named](Self::next_unserved_peer) could be made. It
    /// is named again after a back-off that grows with each failure, if it has work then.
    pub fn first_lanes_unavailable(&mut self, peer: PeerId, now: Time) {
        if self.peers.find(peer).is_none() {
            return;
        }
        if let Some(failures) = self.repairs.first_failed(peer.index) {
            let retry_at = self.retry_at((u64::from(peer.index), 0), failures, now);
            self.repairs.retry_first(peer.index, retry_at);
        }
    }

    /// Whether [`next_unserved_peer`](Self::next_unserved_peer) may name a peer.
    #[must_use]
    #[inline]
    pub fn has_unserved_peer(&self, now: Time) -> bool {
        self.repairs.has_first(now)
    }

    /// Forgets the lost lanes of a peer that has nothing to read: they are not requested any more.
    /// Returns whether it had nothing to read.
    pub fn forgo_lost_lanes(&mut self, peer: PeerId) -> bool {
        let idle = self.peers.find(peer).is_some_and(|peer| peer.in_flight() == 0);
        if idle {
            self.repairs.forget(peer.index);
        }
        idle
    }

    /// How many lanes lead over a rail, those included that have failed or were given back and are
    /// not freed; and how many of them have not been seen to end yet.
    #[must_use]
    pub fn lanes_on(&self, rail: RailIndex) -> (usize, usize) {
        let rail = self.rails.all.get(rail.get());
        rail.map_or((0, 0), |rail| (rail.lanes.into(), rail.dying as usize))
    }

    /// How many pages of a peer have been submitted and are not retired.
    #[must_use]
    pub fn pages_in_flight(&self, peer: PeerId) -> u64 {
        self.peers.find(peer).map_or(0, Peer::in_flight)
    }

    /// How many lanes to a peer are up.
    #[must_use]
    pub fn lanes_to(&self, peer: PeerId) -> usize {
        self.peers.find(peer).map_or(0, |peer| peer.circles.count())
    }

    /// The peer with lanes whose last READ is the longest ago, and when that was, of those that
    /// have nothing in flight. `None`: every peer with lanes has. Looks at every lane.
    #[must_use]
    pub fn longest_idle_peer(&self) -> Option<(PeerId, Time)> {
        let idle = (0..self.peers.turns.seats()).filter_map(|seat| self.idle_at(seat));
        let (peer, since) = idle.min_by_key(|&(_, since)| since)?;
        Some((self.peers[usize::from(peer)].id(peer), since))
    }

    /// Gives back the lanes of peers that have been idle for `idle`. Each call looks at a few peers
    /// more, so call it again and again. Returns how many lanes were given back.
    pub fn release_lanes_idle_for(&mut self, idle: Nanos, now: Time) -> usize {
        let mut released = 0;
        for _ in 0..LOOK.min(self.peers.turns.seats()) {
            let seat = self.sweep.seat;
            self.sweep.seat = (seat + 1) % self.peers.turns.seats();
            if let Some((peer, since)) = self.idle_at(seat)
                && now.since(since) >= idle
            {
                released += self.release_all(peer, now);
            }
        }
        released
    }

    /// Gives back all lanes of a peer that has nothing in flight: each is destroyed, and reported
    /// by [`next_lost_lane`](Self::next_lost_lane). Returns how many there were: 0 if the peer is
    /// not idle, since a lane with an outstanding wr is not given back.
    pub fn release_lanes(&mut self, peer: PeerId, now: Time) -> usize {
        if self.peers.find(peer).is_none() || self.idle_since(peer.index).is_none() {
            return 0;
        }
        self.release_all(peer.index, now)
    }

    /// The idle peer at a seat, and when it was last read from.
    fn idle_at(&self, seat: usize) -> Option<(u16, Time)> {
        let peer = self.peers.turns.peer_at(seat)?;
        Some((peer, self.idle_since(peer)?))
    }

    /// When a peer with lanes was last read from. `None`: it has no lane that is up, or something
    /// in flight.
    fn idle_since(&self, peer: u16) -> Option<Time> {
        let p = &self.peers[usize::from(peer)];
        let at_rest = p.in_flight() == 0 && p.dead_lanes == [NO_LANE; CLASSES] && p.suspects == NO_LANE;
        if !at_rest || p.circles.is_empty() {
            return None;
        }
        let mut last = Time::ZERO;
        for circle in Circle::all() {
            let first = p.circles.next(circle);
            let mut at = (first != NO_LANE).then_some(first);
            while let Some(lane) = at {
                let l = &self.lanes[usize::from(lane)];
                // A wr of a page that has failed may still be outstanding.
                if l.outstanding() > 0 {
                    return None;
                }
                last = last.max(l.since);
                at = next_in_circle(self.lanes.all, lane, first);
            }
        }
        Some(last)
    }

    /// Gives back all lanes of an idle peer.
    fn release_all(&mut self, peer: u16, now: Time) -> usize {
        self.emit_time(now);
        let mut released = 0;
        for circle in Circle::all() {
            // A lane that is given back leaves the circle.
            while let lane = self.peers[usize::from(peer)].circles.next(circle)
                && lane != NO_LANE
            {
                self.release_lane(usize::from(lane), now);
                released += 1;
            }
        }
        self.repairs.forget(peer);
        released
    }

    /// Gives back a lane on which nothing is outstanding. Its QP can be destroyed at once: all that
    /// was posted on it is known to have completed.
    fn release_lane(&mut self, index: usize, now: Time) {
        let lane = &self.lanes[index];
        debug_assert!(lane.state == LaneState::Up && lane.outstanding() == 0, "an idle lane");
        let (peer, rail, remote_rail) = (lane.peer, lane.rail, lane.remote_rail);
        let id = self.peers[usize::from(peer)].id(peer);
        self.repairs.report(LaneLost { lane: lane.id, peer: id, rail: RailIndex(rail), remote_rail });
        self.emit(|engine| EngineEvent::LaneReleased { lane: engine.lanes[index].id });
        self.rails[usize::from(rail)].dying += 1;
        self.lanes.dying += 1;
        self.unlink_lane(narrow(index));
        let p = &mut self.peers[usize::from(peer)];
        if usize::from(p.trial) == index {
            p.trial = NO_LANE;
        }
        if usize::from(p.tried.witness) == index {
            p.tried.witness = NO_LANE;
        }
        self.begin_close(index, now);
    }
}
