//! How fast a rail carries bytes: an estimate, in fixed point.

use crate::time::{Nanos, Time};

/// Fractional bits of the time that a byte takes.
const INV_SHIFT: u32 = 20;
/// How often the estimate is brought up to date.
const WINDOW: Nanos = Nanos::from_micros(500);

/// The estimated bandwidth of a rail, and the measurements of the present window.
#[derive(Debug)]
pub(crate) struct Estimate {
    /// ns per byte, with `INV_SHIFT` fractional bits.
    inv: u64,
    /// `inv` at the nominal rate, which is the least value of `inv`.
    nominal_inv: u64,
    window_end: Time,
    window_start: Time,
    window_bytes: u64,
    /// The fewest bytes that were outstanding at any time of the window.
    window_low: u64,
}

impl Estimate {
    pub(super) const NONE: Self = Self {
        inv: 0,
        nominal_inv: 0,
        window_end: Time::ZERO,
        window_start: Time::ZERO,
        window_bytes: 0,
        window_low: 0,
    };

    /// Begins at the nominal rate.
    pub(super) fn new(nominal_bytes_per_sec: u64) -> Self {
        let inv = ((1_000_000_000_u64 << INV_SHIFT) / nominal_bytes_per_sec.max(1)).max(1);
        Self { inv, nominal_inv: inv, ..Self::NONE }
    }

    /// How long `bytes` take, in ns.
    #[inline]
    pub(super) fn time_for(&self, bytes: u64) -> u64 {
        (bytes * self.inv) >> INV_SHIFT
    }

    /// The estimated bandwidth in bytes per second.
    pub(crate) fn bytes_per_sec(&self) -> u64 {
        (1_000_000_000 << INV_SHIFT) / self.inv.max(1)
    }

    /// Notes that the rail has carried `bytes`.
    #[inline]
    pub(super) fn carried(&mut self, bytes: u64) {
        self.window_bytes += bytes;
    }

    /// Notes that `bytes` are outstanding now.
    #[inline]
    pub(super) fn saw_outstanding(&mut self, bytes: u64) {
        self.window_low = self.window_low.min(bytes);
    }

    /// Whether the estimate is to be brought up to date.
    #[inline]
    pub(crate) fn is_due(&self, now: Time) -> bool {
        now >= self.window_end
    }

    /// Brings the estimate up to date and returns whether it has changed. `outstanding` bytes are
    /// outstanding now. If at least `backlog` bytes were outstanding during the whole window, the
    /// rail was the limit, and the carried bytes are a measurement. Otherwise nothing was measured,
    /// and the estimate drifts towards the nominal rate, so that a slow rail is tried again.
    #[cold]
    pub(crate) fn tick(&mut self, now: Time, outstanding: u64, backlog: u64) -> bool {
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
        self.window_low = outstanding;
        self.inv != before
    }
}
