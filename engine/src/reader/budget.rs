//! How many lanes a reader may have, when it makes them, and how many are on their way.

use std::collections::HashMap;
use std::time::Duration;

use kvrail_core::id::{MAX_RAILS, RailIndex};
use kvrail_core::provider::Provider;
use kvrail_core::time::{Nanos, Time};
use kvrail_host::log_limit::LogLimit;

use super::config::{Config, MakeLanes, StartError};
use crate::clock;

/// When lanes are made, and how many there may be.
pub(super) struct Demand {
    pub(super) when: MakeLanes,
    /// Lanes of a peer on each rail.
    lanes_per_rail: usize,
    /// The most lanes over a rail.
    pub(super) budget: usize,
    pub(super) idle: Nanos,
    /// When idle lanes are looked for again; `NEVER` if lanes are kept.
    pub(super) next_look: Time,
    /// Until when no room for lanes is looked for, since there was none.
    pub(super) no_room_until: Time,
    /// Sessions that are making lanes, with those that are to come on each rail.
    pub(super) opening: HashMap<u64, [usize; MAX_RAILS]>,
    pub(super) log: LogLimit,
}

impl Demand {
    /// The lanes of a reader with room for `room` lanes on each rail.
    pub(super) fn new(config: &Config, room: usize) -> Result<Self, StartError> {
        let (lanes, budget) = (config.lanes_per_rail, config.lanes_budget);
        if budget > 0 && budget < lanes {
            return Err(StartError::Budget { budget, lanes });
        }
        let budget = if budget == 0 { room } else { budget.min(room) }.max(1);
        let when = config.lanes;
        Ok(Self {
            when,
            // Where a rail has no room for all lanes of a peer, the peer gets fewer.
            lanes_per_rail: if when == MakeLanes::AtConnect { lanes } else { lanes.min(budget) },
            budget,
            idle: clock::nanos(config.lane_idle.min(Duration::from_hours(24))),
            next_look: if when == MakeLanes::OnDemand { Time::ZERO } else { Time::NEVER },
            no_room_until: Time::ZERO,
            opening: HashMap::new(),
            log: LogLimit::new(),
        })
    }

    /// Whether a peer may be without lanes, which are made on demand then.
    #[inline]
    pub(super) const fn is_on(&self) -> bool {
        !matches!(self.when, MakeLanes::AtConnect)
    }

    pub(super) const fn lanes_per_rail(&self) -> usize {
        self.lanes_per_rail
    }

    pub(super) const fn budget(&self) -> usize {
        self.budget
    }

    /// Until when a sleep may last: a peer may be waiting for room.
    #[inline]
    pub(super) fn sleep_until(&self, now: Time) -> Time {
        if self.no_room_until > now { self.no_room_until } else { Time::NEVER }
    }

    /// A session has made one of its first lanes, or nothing was to be made.
    pub(super) fn lane_came(&mut self, session: u64, rail: u8) {
        let to_come = self.opening.get_mut(&session).and_then(|rails| rails.get_mut(usize::from(rail)));
        if let Some(to_come) = to_come {
            *to_come = to_come.saturating_sub(1);
        }
    }

    /// A session has ended, and makes no lanes any more.
    pub(super) fn session_ended(&mut self, session: u64) {
        self.opening.remove(&session);
    }

    /// Lanes over a rail that sessions are making.
    pub(super) fn to_come(&self, rail: usize) -> usize {
        self.opening.values().map(|rails| rails[rail]).sum()
    }
}

/// How many lanes there is room for on each rail, in an engine with room for `lanes` lanes of
/// `depth` entries: as many as the completion queue holds, or the rail's share of the places.
pub(super) fn room<P: Provider>(provider: &P, lanes: usize, depth: u32) -> usize {
    let rails = provider.rails().max(1);
    let entries = (0..rails).map(|rail| provider.rail(RailIndex(rail as u8)).cq_entries);
    let by_queue = entries.min().map_or(0, |entries| entries / depth.max(1));
    (lanes / rails).min(by_queue as usize)
}
