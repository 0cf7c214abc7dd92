//! How lost lanes are replaced: the control path takes them, and requests for new ones, from the
//! engine. The first lanes of a peer that has none are in `demand.rs`.

use core::mem;

use super::state::Engine;
use crate::events::{EngineEvent, EventSink, LaneLost, LaneWanted};
use crate::id::RailIndex;
use crate::lane::LaneState;
use crate::peer::missing::Request;
use crate::provider::Provider;
use crate::time::{Nanos, Time};

impl<P: Provider, E: EventSink> Engine<'_, P, E> {
    /// Notes that a lane of a peer has failed, so that the control path is told of it and another
    /// one is requested.
    pub(super) fn lost(&mut self, index: usize, now: Time) {
        let lane = &self.lanes[index];
        let (peer, rail, remote_rail) = (lane.peer, usize::from(lane.rail), lane.remote_rail);
        let class = lane.circle.class();
        let id = self.peers[usize::from(peer)].id(peer);
        self.repairs.report(LaneLost { lane: lane.id, peer: id, rail: RailIndex(lane.rail), remote_rail });
        let retry_at = self.back_off(peer, rail, now);
        self.repairs.lane_lost(peer, rail, usize::from(remote_rail), class, retry_at);
    }

    /// Counts a failure of a path, and returns when it may be tried again.
    fn back_off(&mut self, peer: u16, rail: usize, now: Time) -> Time {
        let failures = self.repairs.count_failure(peer, rail);
        self.retry_at((u64::from(peer), rail as u64), failures, now)
    }

    /// When a path that has failed `failures` times in a row before may be tried again.
    pub(super) fn retry_at(&self, (peer, rail): (u64, u64), failures: u8, now: Time) -> Time {
        let Nanos(min) = self.config.backoff_min;
        let wait = min.saturating_mul(1 << failures.min(20)).min(self.config.backoff_max.0);
        // The back-off is up to a quarter longer, by an amount that differs from path to path, so
        // that paths that failed together are not retried together.
        let spread = (peer * 31 + rail * 7 + u64::from(failures)) % 16;
        now + Nanos(wait.saturating_add(wait / 64 * spread))
    }

    pub(super) fn rail_down(&mut self, rail: usize, now: Time) {
        let Some(r) = self.rails.all.get_mut(rail) else { return };
        // A provider may report a state that the port has already.
        if mem::replace(&mut r.up, false) {
            self.emit(|_| EngineEvent::RailDown { rail: RailIndex::at(rail) });
        }
        self.rails.refresh(rail);
        self.rails.refresh_rate(&self.config);
        self.repairs.rail_down(rail);
        for index in 0..self.lanes.len() {
            let lane = &self.lanes[index];
            if lane.state == LaneState::Up && usize::from(lane.rail) == rail {
                self.fail_lane(index, now);
            }
        }
    }

    pub(super) fn rail_up(&mut self, rail: usize, now: Time) {
        let Some(r) = self.rails.all.get_mut(rail) else { return };
        if !mem::replace(&mut r.up, true) {
            self.emit(|_| EngineEvent::RailUp { rail: RailIndex::at(rail) });
        }
        self.rails.refresh(rail);
        self.rails.refresh_rate(&self.config);
        self.repairs.rail_up(rail, now);
    }

    /// Takes the next request for a lane that is due. The caller connects the lane and calls
    /// [`attach`](Self::attach), or calls [`lane_unavailable`](Self::lane_unavailable). At most
    /// `EngineConfig::reconnects` requests are open at a time, a path waits longer after each
    /// failure, and peers take turns. A lane of another class than the requested one answers the
    /// request, too.
    pub fn next_wanted_lane(&mut self, now: Time) -> Option<LaneWanted> {
        let Request { peer, rail, remote_rail, class } = self.repairs.next(now)?;
        let failures = self.repairs.failures(peer, rail);
        let (peer, rail) = (self.peers[usize::from(peer)].id(peer), RailIndex::at(rail));
        let remote_rail = RailIndex::at(remote_rail).0;
        self.emit_time(now);
        self.emit(|_| EngineEvent::LaneRequested { peer, rail, remote_rail, class, failures });
        Some(LaneWanted { peer, rail, remote_rail, class, failures })
    }

    /// Reports that a requested lane could not be connected. It is requested again after a longer
    /// back-off.
    pub fn lane_unavailable(&mut self, wanted: LaneWanted, now: Time) {
        let (peer, rail) = (wanted.peer.index, wanted.rail.get());
        if self.peers.find(wanted.peer).is_none() || rail >= self.rails.len() {
            return;
        }
        let (remote_rail, class) = (wanted.remote_rail.into(), wanted.class);
        if self.repairs.is_requested(peer, rail, remote_rail, class) {
            let retry_at = self.back_off(peer, rail, now);
            self.repairs.request_failed(peer, rail, remote_rail, class, retry_at);
        }
    }

    /// The next lane that has failed or was given back, so that the peer can be told to release its
    /// end. Lanes of removed
    /// peers are not reported. The engine remembers as many as the storage has lanes, and forgets
    /// the oldest first.
    pub fn next_lost_lane(&mut self) -> Option<LaneLost> {
        self.repairs.next_report()
    }
}
