//! The configuration of a model: rails, lanes, delays and faults.

use kvrail_core::time::Nanos;
use kvrail_core::verbs_abi::WcStatus;

use crate::rng::SplitMix64;

/// The rate of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    bytes_per_sec: u64,
    /// Picoseconds per byte, times 2^20.
    per_byte: u64,
}

impl Rate {
    /// A line that is never the bottleneck.
    pub const UNLIMITED: Self = Self { bytes_per_sec: u64::MAX, per_byte: 0 };

    /// A 400 Gb/s port with MTU 4096: 49.0 GB/s.
    pub const GBITS_400: Self = Self::bytes_per_sec(49_000_000_000);

    /// `rate` bytes per second.
    ///
    /// # Panics
    ///
    /// If `rate` is 0. To stop a line take its rail down.
    #[must_use]
    pub const fn bytes_per_sec(rate: u64) -> Self {
        assert!(rate > 0, "the rate of a line is at least 1 byte per second: to stop it take its rail down");
        // At most 10^12 * 2^20 < 2^60, for one byte per second.
        Self { bytes_per_sec: rate, per_byte: ((1_000_000_000_000_u128 << 20) / rate as u128) as u64 }
    }

    /// The rate in bytes per second; `u64::MAX` for [`Rate::UNLIMITED`].
    #[must_use]
    pub const fn get(self) -> u64 {
        self.bytes_per_sec
    }

    /// How long `len` bytes take, in picoseconds.
    pub(super) const fn picos(self, len: u32) -> u64 {
        let picos = (len as u128 * self.per_byte as u128) >> 20;
        if picos > u64::MAX as u128 { u64::MAX } else { picos as u64 }
    }
}

/// A probability, drawn with the model's seed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Odds(u32);

impl Odds {
    /// Never. No random number is drawn.
    pub const NEVER: Self = Self(0);
    /// Every time.
    pub const ALWAYS: Self = Self(1_000_000);

    /// `n` times in a million; more than a million is [`Odds::ALWAYS`].
    #[must_use]
    pub const fn per_million(n: u32) -> Self {
        if n > Self::ALWAYS.0 { Self::ALWAYS } else { Self(n) }
    }

    pub(super) const fn draw(self, rng: &mut SplitMix64) -> bool {
        self.0 != 0 && rng.up_to(999_999) < self.0 as u64
    }
}

/// How long something takes: drawn evenly between a least and a greatest time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Delay {
    least: u64,
    spread: u64,
}

impl Delay {
    /// No time at all.
    pub const ZERO: Self = Self { least: 0, spread: 0 };

    /// Always `time`.
    #[must_use]
    pub const fn fixed(time: Nanos) -> Self {
        Self { least: time.0, spread: 0 }
    }

    /// Between `least` and `most`, both included; always `least` when that is the larger.
    #[must_use]
    pub const fn between(least: Nanos, most: Nanos) -> Self {
        Self { least: least.0, spread: most.0.saturating_sub(least.0) }
    }

    pub(super) const fn draw(self, rng: &mut SplitMix64) -> u64 {
        self.least.saturating_add(rng.up_to(self.spread))
    }
}

/// One local rail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RailSpec {
    /// The rate of the line towards this side; also the rail's nominal rate.
    pub rate: Rate,
    /// From a request's departure to the first byte of its response.
    pub rtt: Nanos,
    /// The most that is added to the time of each response; the seed decides how much. It changes
    /// the order between lanes, never that of the READs of one lane.
    pub jitter: Nanos,
    /// Entries of the completion queue.
    pub cq_entries: u32,
    /// The NUMA node that the engine's scheduler sees.
    pub numa: Option<u8>,
}

impl RailSpec {
    /// A 400 Gb/s port: 49.0 GB/s, 6 us there and back, no jitter, 4,096 completion queue entries.
    pub const GBITS_400: Self = Self {
        rate: Rate::GBITS_400,
        rtt: Nanos::from_micros(6),
        jitter: Nanos(0),
        cq_entries: 4096,
        numa: None,
    };
}

/// One lane, as it is connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SimLaneSpec {
    /// Entries of the send queue, that of the drain wr included.
    pub sq_entries: u32,
    /// The most READs at the responder at a time (`max_rd_atomic`), at least 1.
    pub rd_atomic: u32,
}

/// Faults that happen at random. [`Faults::NONE`] is the default.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Faults {
    /// A wr completes with one of `statuses`. Drawn per accepted wr.
    pub wr: Odds,
    /// The statuses for `wr`, each with the same probability. If there are none, `wr` has no
    /// effect.
    pub statuses: &'static [WcStatus],
    /// A signaled wr succeeds without a completion. Drawn per accepted wr.
    pub lost: Odds,
    /// A READ of more than [`PACKET`](Self::PACKET) bytes succeeds while bytes of it are missing,
    /// and its lane moves to the error state at once. Later wrs of the lane are flushed. If the
    /// lane has no later wr by then, the READ fails with `REM_ACCESS_ERR` instead: no completion
    /// would tell that the lane is dead. Drawn per accepted wr.
    pub incomplete: Odds,
    /// A commit accepts a prefix, of no wr to all but one. Drawn per commit.
    pub prefix: Odds,
    /// A commit queues a prefix, of no wr to all, and its error does not say how many. Drawn per
    /// commit.
    pub unknown: Odds,
    /// A drain wr gives no completion.
    pub drain_lost: Odds,
    /// A drain wr is refused with ENOMEM.
    pub drain_refused: Odds,
    /// A QP cannot be destroyed: no `LaneClosed` follows, and the lane goes on as before.
    pub close_hangs: Odds,
    /// A lane that enters the error state by a completion also reports `LaneFailed` by itself.
    pub announced: Odds,
}

impl Faults {
    /// No fault happens at random.
    pub const NONE: Self = Self {
        wr: Odds::NEVER,
        statuses: &[],
        lost: Odds::NEVER,
        incomplete: Odds::NEVER,
        prefix: Odds::NEVER,
        unknown: Odds::NEVER,
        drain_lost: Odds::NEVER,
        drain_refused: Odds::NEVER,
        close_hangs: Odds::NEVER,
        announced: Odds::NEVER,
    };

    /// A READ of no more bytes is one packet: it arrives whole, or fails. Table entries that are
    /// read together are no more.
    pub const PACKET: u32 = 2048;

    /// Every error status in `verbs.h`, except for that of a flush, which follows from another
    /// error.
    pub const EVERY_STATUS: &'static [WcStatus] = &[
        WcStatus::LOC_LEN_ERR,
        WcStatus::LOC_QP_OP_ERR,
        WcStatus::LOC_EEC_OP_ERR,
        WcStatus::LOC_PROT_ERR,
        WcStatus::MW_BIND_ERR,
        WcStatus::BAD_RESP_ERR,
        WcStatus::LOC_ACCESS_ERR,
        WcStatus::REM_INV_REQ_ERR,
        WcStatus::REM_ACCESS_ERR,
        WcStatus::REM_OP_ERR,
        WcStatus::RETRY_EXC_ERR,
        WcStatus::RNR_RETRY_EXC_ERR,
        WcStatus::LOC_RDD_VIOL_ERR,
        WcStatus::REM_INV_RD_REQ_ERR,
        WcStatus::REM_ABORT_ERR,
        WcStatus::INV_EECN_ERR,
        WcStatus::INV_EEC_STATE_ERR,
        WcStatus::FATAL_ERR,
        WcStatus::RESP_TIMEOUT_ERR,
        WcStatus::GENERAL_ERR,
    ];
}

/// The configuration of a model, apart from its rails, peers and lanes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SimConfig {
    /// The seed of all random numbers.
    pub seed: u64,
    /// READs longer than this, in bytes, move no bytes, and cost no copy. With `u32::MAX` all READs
    /// move bytes. With 1,024 only READs of up to 64 table entries do, and a run is as fast as the
    /// model itself.
    pub copy_up_to: u32,
    /// In how many pieces the bytes of a READ are copied, in order, each at its own time. 0 means
    /// 1.
    pub pieces: u8,
    /// How long an unanswered READ is retried before its lane fails with `RETRY_EXC_ERR`.
    pub retry: Nanos,
    /// The time from [`fail`](kvrail_core::provider::Provider::fail) to `LaneFailed`.
    pub fail: Delay,
    /// The time from [`close`](kvrail_core::provider::Provider::close) to `LaneClosed`.
    pub close: Delay,
    /// The time from one flushed completion of a lane to the next.
    pub flush: Delay,
    /// Whether bytes of a failed lane may land after their wr was flushed, until the drain
    /// completes or the lane is closed. The contract of a provider allows it, and an engine must
    /// expect it.
    pub late_bytes: bool,
    /// Whether destroying a QP also removes its completions from the queue, as mlx5 does and rxe
    /// does not.
    pub purge: bool,
    /// The most local pieces of one READ: 1 to [`SGES`](super::SGES).
    pub sges: u32,
    /// How many bytes more of one READ cost as much as another READ
    /// ([`Provider::read_overhead`](kvrail_core::provider::Provider::read_overhead)). Only
    /// the engine uses this number: it does not change how long the model's READs take.
    pub read_overhead: u32,
    /// Faults that happen at random.
    pub faults: Faults,
}

impl SimConfig {
    /// A configuration without faults, in which all bytes move, READs have at most four pieces and
    /// are not joined over gaps, and changing a QP takes some microseconds.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self {
            seed,
            copy_up_to: u32::MAX,
            pieces: 1,
            retry: Nanos::from_millis(500),
            fail: Delay::between(Nanos::from_micros(20), Nanos::from_micros(60)),
            close: Delay::between(Nanos::from_micros(50), Nanos::from_micros(200)),
            flush: Delay::between(Nanos(0), Nanos(200)),
            late_bytes: false,
            purge: false,
            sges: 4,
            read_overhead: 0,
            faults: Faults::NONE,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_exact_enough_for_small_pages() {
        // 656 bytes at 49 GB/s take 13,387.755 ps.
        assert_eq!(Rate::GBITS_400.picos(656), 13_387);
        assert_eq!(Rate::bytes_per_sec(1).picos(1), 1_000_000_000_000);
        assert_eq!(Rate::bytes_per_sec(1).picos(u32::MAX), u64::MAX);
        assert_eq!(Rate::UNLIMITED.picos(u32::MAX), 0);
    }

    #[test]
    fn odds_have_the_probability_that_they_name() {
        let mut rng = SplitMix64::new(3);
        let hits = (0..100_000).filter(|_| Odds::per_million(250_000).draw(&mut rng)).count();
        assert!((24_000..26_000).contains(&hits), "{hits} of 100000");
        assert!(Odds::ALWAYS.draw(&mut rng) && Odds::per_million(u32::MAX).draw(&mut rng));
        assert!(!Odds::NEVER.draw(&mut rng));
    }

    #[test]
    fn a_delay_stays_between_its_ends() {
        let mut rng = SplitMix64::new(3);
        for _ in 0..1000 {
            assert!((5..=9).contains(&Delay::between(Nanos(5), Nanos(9)).draw(&mut rng)));
            assert_eq!(Delay::between(Nanos(9), Nanos(5)).draw(&mut rng), 9);
            assert_eq!(Delay::fixed(Nanos(4)).draw(&mut rng), 4);
        }
    }
}
