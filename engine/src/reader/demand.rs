//! Lanes on demand: made when a peer is read from, given back when they are idle, within a budget.
//!
//! The engine names the peers that have pages to be read and no lane. The peer's session makes
//! lanes then, and reports each of them. What a rail has room for is counted here: lanes that lead
//! over it, and those that sessions are making.

use kvrail_core::id::{MAX_RAILS, PeerId, RailIndex};
use kvrail_core::time::{Nanos, Time};
use kvrail_session::SessionLaneError;

use super::Reader;
use super::config::MakeLanes;
use crate::transport::ReaderTransport;

/// How long a peer that found no room waits before room is looked for again. Lanes that are being
/// given back are gone sooner.
const NO_ROOM: Nanos = Nanos::from_millis(1);

impl<T: ReaderTransport> Reader<T> {
    /// Passes the engine's requests for lanes on to the peers' sessions, and gives idle lanes back.
    #[inline]
    pub(super) fn supply_lanes(&mut self, now: Time) {
        while let Some(wanted) = self.engine.next_wanted_lane(now) {
            self.request_lane(wanted, now);
        }
        if self.demand.is_on() {
            if now >= self.demand.no_room_until && self.engine.has_unserved_peer(now) {
                self.open_lanes(now);
            }
            if now >= self.demand.next_look {
                self.look_for_idle_lanes(now);
            }
        }
    }

    /// Has lanes made to the peers that need them, as far as there is room.
    #[cold]
    fn open_lanes(&mut self, now: Time) {
        while self.engine.has_unserved_peer(now) {
            if !self.make_room(now) {
                self.demand.no_room_until = now + NO_ROOM;
                return;
            }
            let Some(peer) = self.engine.next_unserved_peer(now) else { return };
            let session = self.session_of.get(&peer).copied();
            match session.and_then(|number| Some((number, self.connected.get(&number)?))) {
                Some((number, session)) => {
                    self.demand.opening.insert(number, [self.demand.lanes_per_rail(); MAX_RAILS]);
                    session.handle.open_lanes();
                }
                None => self.engine.first_lanes_unavailable(peer, now),
            }
            // A request for a lost lane may have been behind this one.
            while let Some(wanted) = self.engine.next_wanted_lane(now) {
                self.request_lane(wanted, now);
            }
        }
    }

    /// Whether the lanes of a peer are made on demand, to which a session is begun. Otherwise the
    /// session makes them at once, and they are counted from here on.
    pub(super) fn on_demand_for(&mut self, session: u64) -> bool {
        let on_demand = match self.demand.when {
            MakeLanes::AtConnect => return false,
            MakeLanes::OnDemand => true,
            MakeLanes::Auto => !self.room().0,
        };
        if !on_demand {
            self.demand.opening.insert(session, [self.demand.lanes_per_rail(); MAX_RAILS]);
        }
        on_demand
    }

    /// Whether each rail has room for the lanes of one peer, and whether it has when the lanes that
    /// have failed or were given back are gone.
    fn room(&self) -> (bool, bool) {
        let (lanes, budget) = (self.demand.lanes_per_rail(), self.demand.budget);
        let mut room = (true, true);
        for rail in 0..self.engine.rails() {
            let to_come = self.demand.to_come(rail) + lanes;
            // At most 16 rails.
            let (all, leaving) = self.engine.lanes_on(RailIndex(rail as u8));
            room.0 &= all + to_come <= budget;
            room.1 &= all.saturating_sub(leaving) + to_come <= budget;
        }
        room
    }

    /// Whether each rail has room for the lanes of one peer. Otherwise lanes are given back that
    /// are idle, and there is room when they are gone.
    pub(super) fn make_room(&mut self, now: Time) -> bool {
        loop {
            match self.room() {
                (true, _) => return true,
                (false, true) => return false,
                (false, false) => {}
            }
            let Some((peer, _)) = self.engine.longest_idle_peer() else {
                if let Some(left_out) = self.demand.log.allows() {
                    tracing::warn!(
                        budget = self.demand.budget,
                        left_out,
                        "every lane is in use, and a peer waits for one: allow more (Config::lanes_budget), or read from \
                         fewer peers at a time"
                    );
                }
                return false;
            };
            self.give_lanes_back(peer, now);
        }
    }

    fn give_lanes_back(&mut self, peer: PeerId, now: Time) {
        self.engine.release_lanes(peer, now);
        while let Some(lost) = self.engine.next_lost_lane() {
            self.release(lost);
        }
    }

    /// Gives lanes back that have been idle for `Config::lane_idle`.
    #[cold]
    fn look_for_idle_lanes(&mut self, now: Time) {
        let idle = self.demand.idle;
        // Each look passes over some peers, and in a sixteenth of the time over many.
        self.demand.next_look = now + Nanos(idle.0 / 16).min(Nanos::from_millis(100));
        if self.engine.release_lanes_idle_for(idle, now) > 0 {
            while let Some(lost) = self.engine.next_lost_lane() {
                self.release(lost);
            }
        }
    }

    /// A session has made the first lanes of its peer, or none.
    pub(super) fn lanes_opened(&mut self, number: u64, result: Result<(), SessionLaneError>, now: Time) {
        self.demand.session_ended(number);
        let Some((peer, producer)) = self.connected.get(&number).and_then(|session| session.peer) else {
            return;
        };
        // A lane may have been made that the engine did not take.
        if self.engine.lanes_to(peer) > 0 {
            return;
        }
        if let Err(error) = result
            && let Some(left_out) = self.demand.log.allows()
        {
            tracing::warn!(%producer, %error, left_out, "no lane to a peer that is to be read from");
        }
        self.engine.first_lanes_unavailable(peer, now);
    }

    /// Whether there is room for a lane more over a rail.
    pub(super) fn may_add(&self, rail: RailIndex) -> bool {
        let (all, _) = self.engine.lanes_on(rail);
        !self.demand.is_on() || all < self.demand.budget
    }

    /// Says what the reader has room for.
    pub(super) fn log_lanes(&self, peers: usize) {
        tracing::info!(
            over = T::LABEL,
            rails = self.engine.rails(),
            peers,
            lanes_per_rail = self.demand.lanes_per_rail(),
            lanes_budget = self.demand.budget(),
            when = ?self.demand.when,
            "a reader makes lanes"
        );
    }
}
