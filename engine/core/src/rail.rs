//! A local rail as the scheduler sees it: what is outstanding, how fast it has been.

use crate::config::Config;
use crate::id::MAX_RAILS;
use crate::provider::RailInfo;
use crate::time::{Nanos, Time};

/// Fixed-point digits of a rail's inverse bandwidth.
const INV_SHIFT: u32 = 20;
/// What a wr costs a rail beside its bytes, in bytes. Without it the validating READs, which have next to
/// none, would all go to the rail that happens to be emptiest, and fill its send queues. In the model of
/// tests/model.rs eight rails carry 383 of 392 GB/s with 0, 388 with 4 KiB, all of it with 16 KiB.
const WR_BYTES: u64 = 16 << 10;
/// Bits of a rail's number.
const RAIL_BITS: u32 = MAX_RAILS.ilog2();
/// Runs of pages up to this size are weighed alike when rails are compared: 16 KiB, as much as a wr weighs itself.
const SMALL: u64 = 16 << 10;
/// How often the estimate is looked at.
const WINDOW: Nanos = Nanos::from_micros(500);

/// One rail.
// As large as a power of two, so that finding it takes a shift.
#[derive(Debug)]
#[repr(align(256))]
pub(crate) struct Rail {
    pub(crate) info: RailInfo,
    pub(crate) up: bool,
    /// Bytes and wrs on its living lanes, but for the silent ones.
    pub(crate) bytes: u64,
    pub(crate) wrs: u32,
    /// How much of each there may be.
    pub(crate) bytes_cap: u64,
    pub(crate) wrs_cap: u32,
    /// What the scheduler weighs: bytes, and `WR_BYTES` for each wr, those of silent lanes included.
    load: u64,
    /// Lanes that are silent, and their wrs.
    pub(crate) silent: u32,
    pub(crate) silent_wrs: u32,
    /// Since when the rail itself may be what is silent; `NEVER` if it is not.
    pub(crate) suspect: Time,
    /// When something last completed.
    pub(crate) heard: Time,
    /// Lanes whose completions still matter though they are dying.
    pub(crate) dying: u32,
    /// CQ entries that its lanes may need at the same time; and of these, those of lanes that are gone
    /// whose last words have not been looked for.
    pub(crate) cq_used: u32,
    pub(crate) cq_residue: u32,
    /// ns per byte, estimated, with `INV_SHIFT` fractional bits.
    pub(crate) inv: u64,
    /// The same at the nominal rate: the estimate's floor.
    nominal_inv: u64,
    window_end: Time,
    window_start: Time,
    window_bytes: u64,
    /// The least that was outstanding in the window.
    window_low: u64,
    pub(crate) stats: RailStats,
}

/// What a rail has done since the engine started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RailStats {
    /// wrs posted.
    pub posted: u64,
    /// Doorbells: commits with at least one wr.
    pub commits: u64,
    /// Completions taken, of any status.
    pub completions: u64,
    /// Bytes of chunks that arrived.
    pub bytes: u64,
    /// Chunks that arrived (validating READs among them).
    pub chunks: u64,
    /// Completions that failed their page.
    pub page_faults: u64,
    /// Completions that accused the path.
    pub path_faults: u64,
    /// Completions of flushed wrs.
    pub flushed: u64,
    /// Completions of wrs that nobody knows (an earlier life of a lane, or invented).
    pub stale: u64,
    /// wrs posted again here after another lane had failed.
    pub reposted: u64,
    /// Lanes that failed.
    pub lanes_failed: u64,
    /// Of these, lanes that the engine failed because nothing completed for `stall`.
    pub lanes_stalled: u64,
}

impl Rail {
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
        cq_used: 0,
        cq_residue: 0,
        inv: 0,
        nominal_inv: 0,
        window_end: Time::ZERO,
        window_start: Time::ZERO,
        window_bytes: 0,
        window_low: 0,
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

    pub(crate) fn new(info: RailInfo, config: &Config) -> Self {
        let inv = inverse(info.nominal_bytes_per_sec);
        let (bytes_cap, wrs_cap) = (config.rail_bytes, config.rail_wrs);
        Self { info, up: true, inv, nominal_inv: inv, bytes_cap, wrs_cap, ..Self::EMPTY }
    }

    /// Whether more may be posted.
    #[inline]
    pub(crate) fn is_open(&self) -> bool {
        self.up && self.bytes < self.bytes_cap && self.wrs < self.wrs_cap
    }

    /// When what is outstanding, and `more` bytes, would be through: the scheduler's key, in ns.
    #[inline]
    pub(crate) fn key(&self, more: u64) -> u64 {
        ((self.load + more) * self.inv) >> INV_SHIFT
    }

    /// Accounts for what has been posted.
    #[inline]
    pub(crate) fn post(&mut self, wrs: u32, bytes: u64) {
        self.wrs += wrs;
        self.bytes += bytes;
        self.load += bytes + WR_BYTES * u64::from(wrs);
        self.stats.posted += u64::from(wrs);
        self.stats.commits += 1;
    }

    /// A lane is silent: what it has no longer keeps others from posting, but still weighs. Where nothing
    /// else has been heard of the rail either, it may be the rail: then only an eighth of the caps is
    /// risked until something is. Says whether that is so from now on.
    pub(crate) fn mute(&mut self, wrs: u32, bytes: u64, since: Time, now: Time, config: &Config) -> bool {
        self.wrs -= wrs;
        self.bytes -= bytes;
        self.window_low = self.window_low.min(self.bytes);
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

    /// Something has completed on a silent lane, or it has died.
    pub(crate) fn unmute(&mut self, wrs: u32, bytes: u64) {
        self.wrs += wrs;
        self.bytes += bytes;
        self.silent -= 1;
        self.silent_wrs -= wrs;
    }

    /// Something has completed: the rail is not to blame.
    pub(crate) fn clear(&mut self, config: &Config) {
        self.suspect = Time::NEVER;
        (self.bytes_cap, self.wrs_cap) = (config.rail_bytes, config.rail_wrs);
    }

    /// The estimated bandwidth in bytes per second.
    pub(crate) fn bytes_per_sec(&self) -> u64 {
        (1_000_000_000 << INV_SHIFT) / self.inv.max(1)
    }

    /// Takes off what a dead lane had. The rail was not the limit of what it did not carry.
    pub(crate) fn forget(&mut self, wrs: u32, bytes: u64) {
        self.wrs -= wrs;
        self.bytes -= bytes;
        self.load -= bytes + WR_BYTES * u64::from(wrs);
        self.window_low = self.window_low.min(self.bytes);
    }

    /// Accounts for what has completed.
    #[inline]
    pub(crate) fn complete(&mut self, wrs: u32, bytes: u64, now: Time) {
        self.heard = now;
        self.wrs -= wrs;
        self.bytes -= bytes;
        self.load -= bytes + WR_BYTES * u64::from(wrs);
        self.window_bytes += bytes;
        self.window_low = self.window_low.min(self.bytes);
        self.stats.chunks += u64::from(wrs);
        self.stats.bytes += bytes;
    }

    /// Brings the estimate up to date. `backlog` bytes outstanding all the time mean that the rail was
    /// the limit: then what went through is what it carries. Otherwise nothing was learnt, and the
    /// estimate drifts towards the nominal rate, so that a rail that was slow is tried again.
    /// Says whether it has changed.
    #[inline]
    pub(crate) fn tick(&mut self, now: Time, backlog: u64) -> bool {
        now >= self.window_end && self.window(now, backlog)
    }

    #[cold]
    fn window(&mut self, now: Time, backlog: u64) -> bool {
        let before = self.inv;
        let elapsed = now.since(self.window_start).0;
        if self.window_low >= backlog && self.window_bytes > 0 && elapsed > 0 {
            let measured = u64::try_from((u128::from(elapsed) << INV_SHIFT) / u128::from(self.window_bytes))
                .unwrap_or(u64::MAX / 4);
            let measured = measured.clamp(self.nominal_inv, self.nominal_inv.saturating_mul(64));
            self.inv = (self.inv * 3 + measured) / 4;
        } else {
            self.inv -= (self.inv - self.nominal_inv.min(self.inv)) / 16;
        }
        self.window_start = now;
        self.window_end = now + WINDOW;
        self.window_bytes = 0;
        self.window_low = self.bytes;
        self.inv != before
    }
}

fn inverse(bytes_per_sec: u64) -> u64 {
    ((1_000_000_000_u64 << INV_SHIFT) / bytes_per_sec.max(1)).max(1)
}

/// Which rails more may be posted to, and which of them would be through with it first.
#[derive(Debug)]
pub(crate) struct Choice {
    /// Rails that are up and below their caps.
    pub(crate) open: u16,
    /// What is compared for a run of small pages: when each rail would be through, its number in the lowest bits; all
    /// ones for a rail that is not open.
    keys: [u64; MAX_RAILS],
}

impl Choice {
    pub(crate) const NONE: Self = Self { open: 0, keys: [u64::MAX; MAX_RAILS] };

    /// Brings up to date what is known of rail `index`.
    #[inline]
    pub(crate) fn refresh(&mut self, index: usize, rail: &Rail) {
        let (bit, open) = (1 << (index % MAX_RAILS), rail.is_open());
        self.open = if open { self.open | bit } else { self.open & !bit };
        let key = rail.key(SMALL) << RAIL_BITS | index as u64;
        self.keys[index % MAX_RAILS] = if open { key } else { u64::MAX };
    }

    /// The rail for a run of pages of `size` bytes: of those in `mask`, of which there is one and all are open, one in
    /// `near` if any is, and of these the one that would be through with it first.
    #[inline]
    pub(crate) fn rail(&self, rails: &[Rail], mut mask: u16, near: u16, size: u64) -> usize {
        if mask & (mask - 1) != 0 {
            if mask & near != 0 {
                mask &= near;
            }
            return self.first_through(rails, mask, size);
        }
        mask.trailing_zeros() as usize
    }

    /// Which of the rails in `mask`, of which there is one and all are open, would be through with `more` bytes first.
    #[inline]
    fn first_through(&self, rails: &[Rail], mask: u16, more: u64) -> usize {
        // A number of steps that the compiler knows: there are no more than eight rails on most machines.
        let (few, _) = self.keys.split_at(MAX_RAILS / 2);
        let best = if more <= SMALL && mask == self.open && rails.len() <= few.len() {
            few.iter().fold(u64::MAX, |least, &key| least.min(key))
        } else {
            least_of(rails, mask, more)
        };
        best as usize % MAX_RAILS
    }
}

/// The least key of the rails in `mask`.
#[inline(never)]
fn least_of(rails: &[Rail], mask: u16, more: u64) -> u64 {
    let mut best = u64::MAX;
    for (i, rail) in (0_u8..).zip(rails) {
        // Time above, the rail's number below; all ones for a rail that is not in the mask. Which rail is
        // best changes with every run: a branch on it would be mispredicted more often than not.
        let not_in = u64::from(mask >> i & 1).wrapping_sub(1);
        best = best.min(rail.key(more) << RAIL_BITS | u64::from(i) | not_in);
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_choice_is_the_same_by_kept_keys_and_by_looking_at_each_rail() {
        let mut rails = [const { Rail::EMPTY }; MAX_RAILS];
        let mut choice = Choice::NONE;
        for (i, at) in rails.iter_mut().enumerate() {
            *at = rail();
            // Neither rising nor falling, and one of the first eight down.
            at.post(1, (i as u64 * 7919) % 1009 * 1000);
            at.up = i % 7 != 3;
            choice.refresh(i, at);
        }
        for n in 1..=MAX_RAILS / 2 {
            let open = choice.open & (u16::MAX >> (MAX_RAILS - n));
            let mut choice = Choice { open, keys: choice.keys };
            choice.keys[n..].fill(u64::MAX);
            let by_looking = least_of(&rails[..n], open, SMALL) as usize % MAX_RAILS;
            assert_eq!(choice.first_through(&rails[..n], open, SMALL), by_looking, "{n} rails");
            assert_eq!(choice.first_through(&rails[..n], open, 0), by_looking, "small runs weigh alike");
        }
        rails[5].up = false;
        choice.refresh(5, &rails[5]);
        assert_eq!(choice.open >> 5 & 1, 0);
    }

    fn rail() -> Rail {
        let info = RailInfo { nominal_bytes_per_sec: 49_000_000_000, numa: None, cq_entries: 1024 };
        Rail::new(info, &Config::DEFAULT)
    }

    #[test]
    fn the_key_is_time() {
        // 49 MB at 49 GB/s are 1 ms.
        let key = rail().key(49_000_000);
        assert!((990_000..=1_010_000).contains(&key), "{key}");
    }

    #[test]
    fn a_slow_rail_is_found_out_and_tried_again() {
        let mut rail = rail();
        // Half its rate, always backlogged.
        rail.post(100, 4 << 20);
        for ms in 1..40 {
            rail.tick(Time(ms * 1_000_000), 1 << 20);
            rail.post(1, 24_500_000);
            rail.complete(1, 24_500_000, Time(ms * 1_000_000));
        }
        let slow = rail.bytes_per_sec();
        assert!((23_000_000_000..27_000_000_000).contains(&slow), "{slow}");
        // Idle windows teach nothing: it drifts back.
        rail.complete(100, 4 << 20, Time(40_000_000));
        for ms in 40..200 {
            rail.tick(Time(ms * 1_000_000), 1 << 20);
        }
        assert!(rail.bytes_per_sec() > 48_000_000_000, "{}", rail.bytes_per_sec());
    }
}
