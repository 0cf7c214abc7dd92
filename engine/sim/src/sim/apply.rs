//! What an [`Action`] does to a model.

use kvrail_core::id::RailIndex;
use kvrail_core::provider::ProviderEvent;

use super::action::Action;
use super::config::Rate;
use super::handle::PeerHandle;
use super::lane::State;
use super::model::Model;
use super::timers::NEVER;

impl Model<'_> {
    pub(super) fn apply(&mut self, action: Action) {
        match action {
            Action::RailDown { rail, told } => {
                self.rails[rail.get()].up = false;
                self.paths_changed();
                if told {
                    self.report_event(ProviderEvent::RailDown(rail));
                }
            }
            Action::RailUp { rail, told } => {
                self.rails[rail.get()].up = true;
                self.paths_changed();
                if told {
                    self.report_event(ProviderEvent::RailUp(rail));
                }
            }
            Action::RailRate { rail, rate } => self.set_rate(rail, rate),
            Action::PeerDown(peer) => self.set_remote_rails(peer, 0),
            Action::PeerUp(peer) => self.set_remote_rails(peer, u16::MAX),
            Action::RemoteRailDown(peer, rail) => {
                let up = self.peers[peer.0 as usize].up & !(1 << rail.0);
                self.set_remote_rails(peer, up);
            }
            Action::RemoteRailUp(peer, rail) => {
                let up = self.peers[peer.0 as usize].up | 1 << rail.0;
                self.set_remote_rails(peer, up);
            }
            Action::RemoteRate(peer, rail, rate) => self.peers[peer.0 as usize].rates[rail.get()] = rate,
            Action::FailLane(lane) => {
                let Some(place) = self.find(lane) else { return };
                self.enter_error(place);
                if let Some(id) = self.lanes[place].id {
                    self.report_event(ProviderEvent::LaneFailed(id));
                }
                self.rearm(place);
            }
            Action::Revoke(memory) => self.memories.revoke(memory),
            Action::FailMemory(memory, failed) => self.memories.fail(memory, failed),
            Action::Write { memory, offset, bytes } => {
                self.memories.bytes(memory)[offset..offset + bytes.len()].copy_from_slice(&bytes);
            }
            Action::Fill { memory, offset, len, byte } => {
                self.memories.bytes(memory)[offset..offset + len].fill(byte);
            }
        }
    }

    fn set_remote_rails(&mut self, peer: PeerHandle, up: u16) {
        self.peers[peer.0 as usize].up = up;
        self.paths_changed();
    }

    pub(super) fn path_is_up(&self, rail: RailIndex, peer: PeerHandle, remote_rail: RailIndex) -> bool {
        self.rails[rail.get()].up && self.peers[peer.0 as usize].up >> remote_rail.0 & 1 == 1
    }

    /// Stalls lanes whose path went down, and lets lanes go on whose path came up.
    fn paths_changed(&mut self) {
        for place in 0..self.lanes.len() {
            let lane = &self.lanes[place];
            let up = self.path_is_up(lane.rail, lane.peer, lane.remote_rail);
            if lane.state != State::Ready || lane.stalled != up {
                continue;
            }
            let lane = &mut self.lanes[place];
            lane.stalled = !up;
            lane.land_at = NEVER;
            lane.retry_at = NEVER;
            if lane.stalled {
                if lane.head < lane.issued {
                    lane.retry_at = self.now.saturating_add(self.config.retry.0);
                }
            } else {
                self.send_again(place);
            }
            self.rearm(place);
        }
    }

    /// Sends the requests again that were on their way when the path went down.
    fn send_again(&mut self, place: usize) {
        let lane = &mut self.lanes[place];
        let there = self.now.saturating_add(self.rails[lane.rail.get()].spec.rtt.0 / 2);
        lane.begun = lane.head;
        lane.land = lane.head;
        lane.last_done = self.now;
        lane.refused = false;
        for k in lane.head..lane.issued {
            let slot = place * self.depth + (k % self.depth as u64) as usize;
            let wr = &mut self.wrs[slot];
            wr.start = there;
            wr.booked = false;
            wr.landed = 0;
            wr.pieces = 0;
        }
    }

    /// Changes the rate of a line, and with it the times of the READs that are on it.
    fn set_rate(&mut self, rail: RailIndex, rate: Rate) {
        let line = &mut self.rails[rail.get()];
        let (old, new) = (u128::from(line.rate.get()), u128::from(rate.get()));
        let now_ps = self.now.saturating_mul(1000);
        // The new time of a byte that was to leave the line at `time`.
        let moved = |time: u64| match time.checked_sub(now_ps) {
            Some(rest) => now_ps.saturating_add(u64::try_from(u128::from(rest) * old / new).unwrap_or(NEVER)),
            None => time,
        };
        line.rate = rate;
        line.free = moved(line.free);
        let back = line.spec.rtt.0 - line.spec.rtt.0 / 2;
        for place in 0..self.lanes.len() {
            let lane = &self.lanes[place];
            if lane.state != State::Ready || lane.rail != rail {
                continue;
            }
            let (head, begun) = (lane.head, lane.begun);
            let mut last_done = self.now;
            for k in head..begun {
                let slot = self.slot(place, k);
                let wr = &mut self.wrs[slot];
                // Refused requests have no bytes on the line, and ignored ones never end.
                if wr.through > now_ps && wr.done != NEVER {
                    let through = moved(wr.through);
                    let (was, is) = (wr.through.div_ceil(1000), through.div_ceil(1000));
                    let earliest = wr.sent.div_ceil(1000).saturating_add(back);
                    wr.done = (wr.done - was).saturating_add(is).max(earliest);
                    wr.through = through;
                    wr.done = wr.done.max(last_done);
                    last_done = wr.done;
                }
            }
            self.lanes[place].last_done = last_done;
            self.land_later(place);
            self.rearm(place);
        }
    }
}
