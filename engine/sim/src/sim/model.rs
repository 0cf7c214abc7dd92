//! The state of a model, its lanes and its completion queues.
//!
//! | file | what |
//! |---|---|
//! | `progress.rs` | what a lane does as time passes |
//! | `posting.rs` | what the engine does to a lane |
//! | `apply.rs` | what actions do to rails, peers and memory |
//! | `clock.rs` | how the clock moves |

use heapless::deque::DequeView;
use kvrail_core::id::{LaneId, MAX_RAILS, RailIndex};
use kvrail_core::provider::ProviderEvent;
use kvrail_core::verbs_abi::{Wc, WcStatus};

use super::action::Agenda;
use super::config::{RailSpec, Rate, SimConfig, SimLaneSpec};
use super::error::SimConnectError;
use super::handle::{LaneHandle, PeerHandle};
use super::lane::{Lane, State, Wr};
use super::limits::EVENTS_PER_LANE;
use super::memory::Memories;
use super::script::Scripts;
use super::timers::{NEVER, Timers};
use super::violation::{Violation, Violations};
use crate::rng::SplitMix64;

/// Counters of a rail since the model started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SimRailStats {
    /// READs that succeeded, signaled or not.
    pub reads: u64,
    /// Bytes of these READs, moved or not.
    pub bytes: u64,
    /// Wrs that failed, flushed ones included.
    pub failed: u64,
    /// READs that succeeded though bytes of them were missing.
    pub incomplete: u64,
}

impl SimRailStats {
    pub(super) const NONE: Self = Self { reads: 0, bytes: 0, failed: 0, incomplete: 0 };
}

/// A local rail.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rail {
    pub(super) spec: RailSpec,
    pub(super) rate: Rate,
    /// The time until which the line is booked, in picoseconds.
    pub(super) free: u64,
    pub(super) up: bool,
    pub(super) stats: SimRailStats,
}

/// A peer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Peer {
    pub(super) rates: [Rate; MAX_RAILS],
    /// The time until which each rail's line is booked, in picoseconds.
    pub(super) free: [u64; MAX_RAILS],
    /// The rails that are up, a bit for each.
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
    pub(super) lane: LaneHandle,
    /// How many wrs of the lane, since it was connected, are known to be complete once this
    /// completion has been polled.
    pub(super) upto: u64,
}

/// The whole state of a model.
#[derive(Debug)]
pub(super) struct Model<'m> {
    pub(super) now: u64,
    pub(super) config: SimConfig,
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
    /// One for each of `rails`.
    pub(super) cqs: [Option<&'m mut DequeView<Cqe>>; MAX_RAILS],
    pub(super) events: &'m mut DequeView<ProviderEvent>,
    pub(super) agenda: Agenda<'m>,
    pub(super) scripts: Scripts<'m>,
    pub(super) violations: Violations,
    /// How many wrs have completed, with or without a completion.
    pub(super) completed: u64,
    /// How many failed completions wait to be polled.
    pub(super) failed_cqes: u64,
}

impl Model<'_> {
    // Lanes.

    /// Connects a lane.
    pub(super) fn connect(
        &mut self,
        rail: RailIndex,
        peer: PeerHandle,
        remote_rail: RailIndex,
        spec: SimLaneSpec,
    ) -> Result<LaneHandle, SimConnectError> {
        if rail.get() >= self.rails.len() {
            return Err(SimConnectError::NoRail { rail, rails: self.rails.len() });
        }
        if spec.sq_entries == 0 || spec.sq_entries as usize > self.depth || spec.rd_atomic == 0 {
            return Err(SimConnectError::Spec { spec, depth: self.depth });
        }
        if !self.path_is_up(rail, peer, remote_rail) {
            return Err(SimConnectError::Unreachable { rail, peer, remote_rail });
        }
        let lanes = self.lanes.len();
        let place = self.lanes.iter().position(|l| l.state == State::Free);
        let place = place.ok_or(SimConnectError::Full { lanes })?;
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
        Ok(LaneHandle { place: place as u16, life })
    }

    pub(super) fn key(&self, place: usize) -> LaneHandle {
        LaneHandle { place: place as u16, life: self.lanes[place].life }
    }

    /// The place of the lane that `key` names, if it still exists.
    pub(super) fn find(&self, key: LaneHandle) -> Option<usize> {
        let lane = self.lanes.get(key.place as usize)?;
        (lane.life == key.life && lane.state != State::Free).then_some(key.place as usize)
    }

    #[inline]
    pub(super) fn slot(&self, place: usize, k: u64) -> usize {
        place * self.depth + (k % self.depth as u64) as usize
    }

    /// Remembers the id that the engine gives the lane first, and records it if the engine uses
    /// another one later.
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

    // Events and completions.

    pub(super) fn report_event(&mut self, event: ProviderEvent) {
        let room = self.events.storage_len() < EVENTS_PER_LANE * self.lanes.len();
        if !room || self.events.push_back(event).is_err() {
            self.violations.record(Violation::EventLost { event });
        }
    }

    /// Wr `k` of the lane completes with `status`; a success covers all wrs before it, too.
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
        // A lost success and a lost drain give no completion; errors of READs always give one.
        let silent = if status.is_success() || wr.drain { wr.lost || !wr.read.signaled } else { false };
        if silent {
            return;
        }
        let lane = self.key(place);
        let vendor_err = if status.is_success() { 0 } else { 0x80 + status.0 };
        // A QP number has 24 bits: the low bits of the lane's life, and its place.
        let qp_num = (lane.life << 16 | place as u32) & 0xFF_FFFF;
        let wc = Wc::new(self.wrs[slot].read.wr_id, status, vendor_err, qp_num);
        let entries = self.rails[rail.get()].spec.cq_entries;
        // The storage's queue may be larger than the rail's.
        let cq = self.cqs[rail.get()].as_mut().filter(|cq| cq.storage_len() < entries as usize);
        match cq.map(|cq| cq.push_back(Cqe { wc, lane, upto: k + 1 })) {
            Some(Ok(())) => self.failed_cqes += u64::from(!status.is_success()),
            _ => self.violations.record(Violation::CqOverrun { rail, entries }),
        }
    }

    /// Moves completions of a rail into `out`, and returns how many.
    pub(super) fn poll(&mut self, rail: RailIndex, out: &mut [Wc]) -> usize {
        let mut n = 0;
        while n < out.len() {
            let Some(cqe) = self.cqs[rail.get()].as_mut().and_then(|cq| cq.pop_front()) else { break };
            out[n] = cqe.wc;
            n += 1;
            self.failed_cqes -= u64::from(!cqe.wc.status().is_success());
            if let Some(place) = self.find(cqe.lane) {
                let lane = &mut self.lanes[place];
                lane.tail = lane.tail.max(cqe.upto);
            }
        }
        n
    }

    /// Removes the completions of a destroyed lane from the queue of `rail`.
    pub(super) fn purge(&mut self, rail: RailIndex, lane: LaneHandle) {
        let failed_cqes = &mut self.failed_cqes;
        let Some(cq) = &mut self.cqs[rail.get()] else { return };
        cq.retain(|cqe| {
            let keep = cqe.lane != lane;
            if !keep {
                *failed_cqes -= u64::from(!cqe.wc.status().is_success());
            }
            keep
        });
    }
}
