//! The model's state and its clock. What a lane does when its time has come is in `progress`, what
//! the engine does to it in `posting`, what befalls rails and peers in `action`.

use kvrail_core::id::{LaneId, MAX_RAILS, RailIndex};
use kvrail_core::provider::ProviderEvent;
use kvrail_core::verbs_abi::{Wc, WcStatus};

use super::action::Agenda;
use super::config::{Config, RailSpec, Rate};
use super::lane::{Lane, State, Wr};
use super::memory::Memories;
use super::ring::Ring;
use super::script::Scripts;
use super::timers::{NEVER, Timers};
use super::violation::{Violation, Violations};
use super::{ConnectError, LaneKey, LaneSpec, PeerKey, RailStats};
use crate::rng::SplitMix64;

/// A local rail.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rail {
    pub(super) spec: RailSpec,
    pub(super) rate: Rate,
    /// Until when the line is booked, in picoseconds.
    pub(super) free: u64,
    pub(super) up: bool,
    pub(super) stats: RailStats,
}

/// A peer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Peer {
    pub(super) rates: [Rate; MAX_RAILS],
    /// As for [`Rail`].
    pub(super) free: [u64; MAX_RAILS],
    /// A bit per rail.
    pub(super) up: u16,
}

impl Peer {
    pub(super) const NEW: Self =
        Self { rates: [Rate::UNLIMITED; MAX_RAILS], free: [0; MAX_RAILS], up: u16::MAX };
}

/// A completion that waits to be polled.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cqe {
    pub(super) wc: Wc,
    pub(super) lane: LaneKey,
    /// How many wrs of the lane are known to be complete once this has been polled.
    pub(super) upto: u64,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Model<'m> {
    pub(super) now: u64,
    pub(super) config: Config,
    pub(super) rng: SplitMix64,
    pub(super) rails: &'m mut [Rail],
    pub(super) peers: &'m mut [Peer],
    /// How many of `peers` are in use.
    pub(super) peer_count: usize,
    pub(super) memories: Memories<'m>,
    pub(super) lanes: &'m mut [Lane],
    /// `depth` for each lane.
    pub(super) wrs: &'m mut [Wr],
    pub(super) depth: usize,
    pub(super) timers: Timers<'m>,
    pub(super) cqs: [Ring<'m, Cqe>; MAX_RAILS],
    pub(super) events: Ring<'m, ProviderEvent>,
    pub(super) agenda: Agenda<'m>,
    pub(super) scripts: Scripts<'m>,
    pub(super) violations: Violations,
    /// wrs completed, told or not.
    pub(super) completed: u64,
    /// Failed completions told and not yet polled.
    pub(super) bad_news: u64,
}

impl Model<'_> {
    // The clock.

    fn next_time(&self) -> u64 {
        self.agenda.first().min(self.timers.first().0)
    }

    /// Does one thing whose time has come, if there is one.
    fn turn(&mut self) -> bool {
        if self.agenda.first() <= self.now {
            if let Some(action) = self.agenda.pop() {
                self.apply(action);
            }
            return true;
        }
        let (time, place) = self.timers.first();
        if time > self.now {
            return false;
        }
        self.lane_turn(place);
        true
    }

    /// Moves the clock to the next thing that happens, and lets it happen.
    pub(super) fn step(&mut self) -> bool {
        let next = self.next_time();
        if next == NEVER {
            return false;
        }
        self.now = self.now.max(next);
        self.turn()
    }

    /// Moves the clock to `time`; everything until then, and at that moment, happens.
    pub(super) fn advance_to(&mut self, time: u64) {
        while self.next_time() <= time && self.step() {}
        if time != NEVER {
            self.now = self.now.max(time);
        }
    }

    /// Moves the clock until `completions` more wrs are complete, an error or an event has come, or
    /// `until`. Without anything that could happen and without an end, it does not move.
    pub(super) fn wait(&mut self, until: u64, completions: u32) {
        let rails = self.rails.len();
        let told = completions > 0 && self.cqs[..rails].iter().any(|cq| !cq.is_empty());
        // Of those that the caller takes for outstanding some may have completed without a word: more
        // than there are under way cannot complete.
        let lanes = self.lanes.iter().filter(|lane| lane.state != State::Free);
        let under_way: u64 = lanes.map(|lane| lane.posted.saturating_sub(lane.head)).sum();
        let target = self.completed + u64::from(completions).min(under_way.max(1));
        let mut done = told;
        loop {
            // What happens at one moment happens before anybody wakes.
            while self.turn() {}
            done |= self.bad_news > 0 || !self.events.is_empty();
            done |= completions > 0 && self.completed >= target;
            let next = self.next_time();
            if done {
                return;
            }
            if next > until || next == NEVER {
                if until != NEVER {
                    self.now = self.now.max(until);
                }
                return;
            }
            self.now = next;
        }
    }

    // Lanes.

    /// Makes a lane.
    pub(super) fn connect(
        &mut self,
        rail: RailIndex,
        peer: PeerKey,
        remote_rail: RailIndex,
        spec: LaneSpec,
    ) -> Result<LaneKey, ConnectError> {
        if rail.get() >= self.rails.len() {
            return Err(ConnectError::NoRail { rail, rails: self.rails.len() });
        }
        if spec.sq_entries == 0 || spec.sq_entries as usize > self.depth || spec.rd_atomic == 0 {
            return Err(ConnectError::Spec { spec, depth: self.depth });
        }
        if !self.path_is_up(rail, peer, remote_rail) {
            return Err(ConnectError::Unreachable { rail, peer, remote_rail });
        }
        let lanes = self.lanes.len();
        let place = self.lanes.iter().position(|l| l.state == State::Free);
        let place = place.ok_or(ConnectError::Full { lanes })?;
        let life = self.lanes[place].life.wrapping_add(1);
        self.lanes[place] = Lane {
            state: State::Ready,
            life,
            rail,
            peer,
            remote_rail,
            sq_entries: spec.sq_entries,
            rd_atomic: spec.rd_atomic,
            ..Lane::NONE
        };
        self.timers.set(place, NEVER);
        // Timers bound the places to 2^16.
        Ok(LaneKey { place: place as u16, life })
    }

    pub(super) fn key(&self, place: usize) -> LaneKey {
        LaneKey { place: place as u16, life: self.lanes[place].life }
    }

    /// Whether the lane that `key` names still exists, and where.
    pub(super) fn find(&self, key: LaneKey) -> Option<usize> {
        let lane = self.lanes.get(key.place as usize)?;
        (lane.life == key.life && lane.state != State::Free).then_some(key.place as usize)
    }

    #[inline]
    pub(super) fn slot(&self, place: usize, k: u64) -> usize {
        place * self.depth + (k % self.depth as u64) as usize
    }

    /// Remembers what the engine calls the lane, and holds it to that.
    pub(super) fn learn_id(&mut self, place: usize, id: LaneId) {
        match self.lanes[place].id {
            None => self.lanes[place].id = Some(id),
            Some(known) if known == id => {}
            Some(expected) => {
                let lane = self.key(place);
                self.violations.record(Violation::WrongLaneId { lane, expected, found: id });
            }
        }
    }

    // What the engine is told.

    pub(super) fn tell(&mut self, event: ProviderEvent) {
        if let Err(event) = self.events.push(event) {
            self.violations.record(Violation::EventLost { event });
        }
    }

    /// Wr `k` of the lane, and with it all before, is complete with `status`.
    pub(super) fn report(&mut self, place: usize, k: u64, status: WcStatus) {
        let slot = self.slot(place, k);
        let wr = &self.wrs[slot];
        let rail = self.lanes[place].rail;
        let stats = &mut self.rails[rail.get()].stats;
        self.completed += 1;
        if !status.is_success() {
            stats.failed += 1;
        } else if !wr.drain {
            stats.reads += 1;
            stats.bytes += u64::from(wr.read.len);
        }
        // A lost success is silent, a lost drain too; errors of READs are always told.
        let silent = if status.is_success() || wr.drain { wr.lost || !wr.read.signaled } else { false };
        if silent {
            return;
        }
        let lane = self.key(place);
        let vendor_err = if status.is_success() { 0 } else { 0x80 + status.0 };
        // A QP number is the lane's place and the low bits of its life, as far as 24 bits go.
        let qp_num = (lane.life << 16 | place as u32) & 0xFF_FFFF;
        let wc = Wc::new(self.wrs[slot].read.wr_id, status, vendor_err, qp_num);
        match self.cqs[rail.get()].push(Cqe { wc, lane, upto: k + 1 }) {
            Ok(()) => self.bad_news += u64::from(!status.is_success()),
            Err(_) => {
                let entries = self.rails[rail.get()].spec.cq_entries;
                self.violations.record(Violation::CqOverrun { rail, entries });
            }
        }
    }

    /// Takes completions of a rail.
    pub(super) fn poll(&mut self, rail: RailIndex, out: &mut [Wc]) -> usize {
        let mut n = 0;
        while n < out.len() {
            let Some(cqe) = self.cqs[rail.get()].pop() else { break };
            out[n] = cqe.wc;
            n += 1;
            self.bad_news -= u64::from(!cqe.wc.status().is_success());
            if let Some(place) = self.find(cqe.lane) {
                let lane = &mut self.lanes[place];
                lane.tail = lane.tail.max(cqe.upto);
            }
        }
        n
    }

    /// The completions of a destroyed lane go with it.
    pub(super) fn purge(&mut self, rail: RailIndex, lane: LaneKey) {
        let bad_news = &mut self.bad_news;
        self.cqs[rail.get()].retain(|cqe| {
            let keep = cqe.lane != lane;
            if !keep {
                *bad_news -= u64::from(!cqe.wc.status().is_success());
            }
            keep
        });
    }
}
