//! What befalls rails, peers and memory, now or at a model time.

use kvrail_core::id::RailIndex;
use kvrail_core::provider::ProviderEvent;

use super::config::Rate;
use super::lane::State;
use super::memory::Failed;
use super::model::Model;
use super::timers::NEVER;
use super::{LaneKey, MemoryKey, PeerKey};

/// Something that happens to the world. Named rails, peers and memories must exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// A local port goes down: its READs get no answer, and fail when they have been retried for
    /// [`Config::retry`](super::Config::retry). If `told`, `RailDown` is reported.
    RailDown {
        /// Which.
        rail: RailIndex,
        /// Whether the engine is told.
        told: bool,
    },
    /// A local port comes up. READs that have not failed yet are sent again. If `told`, `RailUp` is
    /// reported.
    RailUp {
        /// Which.
        rail: RailIndex,
        /// Whether the engine is told.
        told: bool,
    },
    /// A local line carries more, or less, from now on; also for what is on its way.
    RailRate {
        /// Which.
        rail: RailIndex,
        /// How much.
        rate: Rate,
    },
    /// All rails of a peer go down.
    PeerDown(PeerKey),
    /// All rails of a peer come up.
    PeerUp(PeerKey),
    /// One rail of a peer goes down.
    RemoteRailDown(PeerKey, RailIndex),
    /// One rail of a peer comes up.
    RemoteRailUp(PeerKey, RailIndex),
    /// One rail of a peer carries more, or less, for what it begins to send from now on.
    RemoteRate(PeerKey, RailIndex, Rate),
    /// A lane gets into the error state by itself, and says so. Nothing, when it is gone.
    FailLane(LaneKey),
    /// A peer's memory is deregistered: requests for it are refused.
    Revoke(MemoryKey),
    /// Ranges of a peer's memory have failed, as a DIMM does: READs of them come back with
    /// `REM_OP_ERR`, which kills their lanes.
    FailMemory(MemoryKey, Failed),
    /// The owner writes 16 bytes, which is an entry of the publication table.
    Write {
        /// Where.
        memory: MemoryKey,
        /// Bytes from its start.
        offset: usize,
        /// What.
        bytes: [u8; 16],
    },
    /// The owner fills a range with one byte.
    Fill {
        /// Where.
        memory: MemoryKey,
        /// Bytes from its start.
        offset: usize,
        /// How many.
        len: usize,
        /// With what.
        byte: u8,
    },
}

/// What will happen, in order of asking; at most some dozens, so nothing is sorted.
#[derive(Debug)]
pub(super) struct Agenda<'m> {
    places: &'m mut [(u64, Action)],
    len: usize,
    first: u64,
}

impl<'m> Agenda<'m> {
    pub(super) fn new(places: &'m mut [(u64, Action)]) -> Self {
        Self { places, len: 0, first: NEVER }
    }

    /// `false` when there is no room.
    pub(super) fn add(&mut self, time: u64, action: Action) -> bool {
        let Some(place) = self.places.get_mut(self.len) else { return false };
        *place = (time, action);
        self.len += 1;
        self.first = self.first.min(time);
        true
    }

    /// When something happens next.
    #[inline]
    pub(super) fn first(&self) -> u64 {
        self.first
    }

    /// Takes out what happens next; of several things at one time, the one asked for first.
    pub(super) fn pop(&mut self) -> Option<Action> {
        let held = &mut self.places[..self.len];
        let at = held.iter().position(|(time, _)| *time == self.first)?;
        held[at..].rotate_left(1);
        self.len -= 1;
        let (_, action) = held[self.len];
        self.first = held[..self.len].iter().map(|(time, _)| *time).min().unwrap_or(NEVER);
        Some(action)
    }
}

impl Model<'_> {
    pub(super) fn apply(&mut self, action: Action) {
        match action {
            Action::RailDown { rail, told } => {
                self.rails[rail.get()].up = false;
                self.paths_changed();
                if told {
                    self.tell(ProviderEvent::RailDown(rail));
                }
            }
            Action::RailUp { rail, told } => {
                self.rails[rail.get()].up = true;
                self.paths_changed();
                if told {
                    self.tell(ProviderEvent::RailUp(rail));
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
                    self.tell(ProviderEvent::LaneFailed(id));
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

    fn set_remote_rails(&mut self, peer: PeerKey, up: u16) {
        self.peers[peer.0 as usize].up = up;
        self.paths_changed();
    }

    pub(super) fn path_is_up(&self, rail: RailIndex, peer: PeerKey, remote_rail: RailIndex) -> bool {
        self.rails[rail.get()].up && self.peers[peer.0 as usize].up >> remote_rail.0 & 1 == 1
    }

    /// Stalls the lanes whose path is down, and lets those go on whose path is up again.
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

    /// What was on its way when the path went down starts over.
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

    /// Changes what a line carries, and when what it still has to carry is through.
    fn set_rate(&mut self, rail: RailIndex, rate: Rate) {
        let line = &mut self.rails[rail.get()];
        let (old, new) = (u128::from(line.rate.get()), u128::from(rate.get()));
        let now_ps = self.now.saturating_mul(1000);
        // When a byte that was to be through at `time` is through now.
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
