//! The state of one local rail: what is outstanding on it, how fast it is, whether more may be
//! posted.

pub(crate) mod choice;
pub(crate) mod estimate;
pub(crate) mod rails;

use self::estimate::Estimate;
use crate::config::EngineConfig;
use crate::provider::RailInfo;
use crate::time::Time;

/// The weight of a wr beside its bytes, in bytes. Without it validating READs, which have next to
/// no bytes, would all go to the rail that happens to be emptiest, and fill its send queues. In the
/// model of tests/model.rs eight rails carry 383 of 392 GB/s with a weight of 0, 388 with 4 KiB,
/// and all 392 with 16 KiB.
const WR_BYTES: u64 = 16 << 10;
/// One rail.
// As large as a power of two, so that finding it takes a shift.
#[derive(Debug)]
#[repr(align(256))]
pub(crate) struct Rail {
    pub(crate) info: RailInfo,
    pub(crate) up: bool,
    /// Bytes outstanding on its lanes that are neither dead nor silent.
    pub(crate) bytes: u64,
    /// Wrs outstanding on these lanes.
    pub(crate) wrs: u32,
    /// The most bytes and wrs that may be outstanding.
    pub(crate) bytes_cap: u64,
    pub(crate) wrs_cap: u32,
    /// What the scheduler weighs: outstanding bytes, and `WR_BYTES` for each outstanding wr, silent
    /// lanes included.
    load: u64,
    /// How many lanes are silent, and how many wrs are outstanding on them.
    pub(crate) silent: u32,
    pub(crate) silent_wrs: u32,
    /// Since when the rail itself is suspected of being silent; `NEVER` if it is not suspected.
    pub(crate) suspect: Time,
    /// When a wr last completed on the rail.
    pub(crate) heard: Time,
    /// Lanes that have failed, and whose completions are still awaited.
    pub(crate) dying: u32,
    /// Places of lanes in use, those of lanes that have failed included.
    pub(crate) lanes: u16,
    /// CQ entries that its lanes may need at the same time. `cq_residue` of these belong to freed
    /// lanes: their last completions may still be in the CQ, which has not been polled empty since.
    pub(crate) cq_used: u32,
    pub(crate) cq_residue: u32,
    /// How fast it carries bytes.
    pub(crate) speed: Estimate,
    pub(crate) stats: RailStats,
}

/// Counters of a rail since the engine started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RailStats {
    /// Wrs posted.
    pub posted: u64,
    /// Doorbells: commits with at least one wr.
    pub commits: u64,
    /// Completions taken, of any status.
    pub completions: u64,
    /// Bytes of chunks that arrived.
    pub bytes: u64,
    /// Chunks that arrived, validating READs included.
    pub chunks: u64,
    /// Completions whose status says that the page is at fault.
    pub page_faults: u64,
    /// Completions whose status says that the path is at fault.
    pub path_faults: u64,
    /// Completions of flushed wrs.
    pub flushed: u64,
    /// Completions of wrs that the engine does not know (of an earlier life of a lane, or
    /// invented).
    pub stale: u64,
    /// Wrs posted again on this rail after the lane that had them failed.
    pub reposted: u64,
    /// Lanes that failed.
    pub lanes_failed: u64,
    /// Of these, lanes that the engine failed because nothing completed for `stall`.
    pub lanes_stalled: u64,
}

/// What is outstanding on a rail, and whether it carries anything, at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RailState {
    /// Whether its port is up.
    pub up: bool,
    /// Wrs outstanding on its lanes, silent lanes included.
    pub outstanding_wrs: u32,
    /// Bytes outstanding on its lanes that are not silent.
    pub outstanding_bytes: u64,
    /// Lanes on which no wr has completed for longer than it should take.
    pub silent_lanes: u32,
}

impl Rail {
    /// What is outstanding on it, and whether it carries anything.
    pub(crate) const fn state(&self) -> RailState {
        RailState {
            up: self.up,
            outstanding_wrs: self.wrs.saturating_add(self.silent_wrs),
            outstanding_bytes: self.bytes,
            silent_lanes: self.silent,
        }
    }

    pub(crate) const EMPTY: Self = Self {
        info: RailInfo { nominal_bytes_per_sec: 1, numa: None, cq_entries: 0 },
        up: false,
        bytes: 0,
        wrs: 0,
        bytes_cap: 0,
        wrs_cap: 0,
        load: 0,
        silent: 0,
        silent_wrs: 0,
        suspect: Time::NEVER,
        heard: Time::ZERO,
        dying: 0,
        lanes: 0,
        cq_used: 0,
        cq_residue: 0,
        speed: Estimate::NONE,
        stats: RailStats {
            posted: 0,
            commits: 0,
            completions: 0,
            bytes: 0,
            chunks: 0,
            page_faults: 0,
            path_faults: 0,
            flushed: 0,
            stale: 0,
            reposted: 0,
            lanes_failed: 0,
            lanes_stalled: 0,
        },
    };

    pub(crate) fn new(info: RailInfo, config: &EngineConfig) -> Self {
        let speed = Estimate::new(info.nominal_bytes_per_sec);
        let (bytes_cap, wrs_cap) = (config.rail_bytes, config.rail_wrs);
        Self { info, up: true, speed, bytes_cap, wrs_cap, ..Self::EMPTY }
    }

    /// Whether more may be posted.
    #[inline]
    pub(crate) fn is_open(&self) -> bool {
        self.up && self.bytes < self.bytes_cap && self.wrs < self.wrs_cap
    }

    /// How long the outstanding work and `more` bytes would take, in ns: the key by which the
    /// scheduler compares rails.
    #[inline]
    pub(crate) fn key(&self, more: u64) -> u64 {
        self.speed.time_for(self.load + more)
    }

    /// Accounts for a commit of `wrs` wrs that read `bytes` bytes.
    #[inline]
    pub(crate) fn post(&mut self, wrs: u32, bytes: u64) {
        self.wrs += wrs;
        self.bytes += bytes;
        self.load += bytes + WR_BYTES * u64::from(wrs);
        self.stats.posted += u64::from(wrs);
        self.stats.commits += 1;
    }

    /// Notes that a lane with `wrs` and `bytes` outstanding is silent since `since`. Its work no
    /// longer counts against the caps, but still weighs. If no other lane of the rail has completed
    /// a wr since then, the rail itself is suspected, and its caps are an eighth until a wr
    /// completes. Returns whether the rail is suspected from now on.
    pub(crate) fn set_silent(
        &mut self,
        wrs: u32,
        bytes: u64,
        since: Time,
        now: Time,
        config: &EngineConfig,
    ) -> bool {
        self.wrs -= wrs;
        self.bytes -= bytes;
        self.speed.saw_outstanding(self.bytes);
        self.silent += 1;
        self.silent_wrs += wrs;
        let suspected = self.suspect == Time::NEVER && self.heard <= since;
        if suspected {
            self.suspect = now;
            self.bytes_cap = (config.rail_bytes / 8).max(1);
            self.wrs_cap = (config.rail_wrs / 8).max(1);
        }
        suspected
    }

    /// Notes that a lane is no longer silent: a wr has completed on it, or it has failed.
    pub(crate) fn clear_silent(&mut self, wrs: u32, bytes: u64) {
        self.wrs += wrs;
        self.bytes += bytes;
        self.silent -= 1;
        self.silent_wrs -= wrs;
    }

    /// Ends the suspicion of the rail: a wr has completed on it.
    pub(crate) fn clear_suspicion(&mut self, config: &EngineConfig) {
        self.suspect = Time::NEVER;
        (self.bytes_cap, self.wrs_cap) = (config.rail_bytes, config.rail_wrs);
    }

    /// Removes a dead lane's outstanding work without counting it in the bandwidth estimate.
    pub(crate) fn forget(&mut self, wrs: u32, bytes: u64) {
        self.wrs -= wrs;
        self.bytes -= bytes;
        self.load -= bytes + WR_BYTES * u64::from(wrs);
        self.speed.saw_outstanding(self.bytes);
    }

    /// Accounts for `wrs` wrs of `bytes` bytes that have succeeded.
    #[inline]
    pub(crate) fn complete(&mut self, wrs: u32, bytes: u64, now: Time) {
        self.heard = now;
        self.wrs -= wrs;
        self.bytes -= bytes;
        self.load -= bytes + WR_BYTES * u64::from(wrs);
        self.speed.carried(bytes);
        self.speed.saw_outstanding(self.bytes);
        self.stats.chunks += u64::from(wrs);
        self.stats.bytes += bytes;
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn rail() -> Rail {
        let info = RailInfo { nominal_bytes_per_sec: 49_000_000_000, numa: None, cq_entries: 1024 };
        Rail::new(info, &EngineConfig::DEFAULT)
    }

    #[test]
    fn the_key_of_a_rail_is_the_time_that_its_work_takes() {
        // 49 MB at 49 GB/s are 1 ms.
        let key = rail().key(49_000_000);
        assert!((990_000..=1_010_000).contains(&key), "{key}");
    }

    #[test]
    fn the_estimate_follows_a_slow_rail_and_drifts_back_when_it_is_idle() {
        let mut rail = rail();
        // Half its rate, always backlogged.
        rail.post(100, 4 << 20);
        for ms in 1..40 {
            rail.speed.tick(Time(ms * 1_000_000), rail.bytes, 1 << 20);
            rail.post(1, 24_500_000);
            rail.complete(1, 24_500_000, Time(ms * 1_000_000));
        }
        let slow = rail.speed.bytes_per_sec();
        assert!((23_000_000_000..27_000_000_000).contains(&slow), "{slow}");
        // An idle window measures nothing, so the estimate drifts back to the nominal rate.
        rail.complete(100, 4 << 20, Time(40_000_000));
        for ms in 40..200 {
            rail.speed.tick(Time(ms * 1_000_000), rail.bytes, 1 << 20);
        }
        assert!(rail.speed.bytes_per_sec() > 48_000_000_000, "{}", rail.speed.bytes_per_sec());
    }
}
