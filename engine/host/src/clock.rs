//! One monotonic clock for all processes of a host, as the engine's [`Time`].

use std::time::Duration;

use kvrail_core::time::{Nanos, Time};
use rustix::time::{ClockId, clock_gettime};

/// Nanoseconds since this host started, suspension included (`CLOCK_BOOTTIME`): the same in every
/// process of the host, and it never goes back. Read without a system call where the kernel has a
/// vDSO.
#[must_use]
pub fn now() -> Time {
    let now = clock_gettime(ClockId::Boottime);
    // Both are positive, and 2^64 ns are 584 years.
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    let nanos = u64::try_from(now.tv_nsec).unwrap_or(0);
    Time(seconds.saturating_mul(1_000_000_000).saturating_add(nanos))
}

/// The time `after` from now: a deadline.
#[must_use]
pub fn within(after: Duration) -> Time {
    now() + nanos(after)
}

/// `duration` as the engine has it; [`u64::MAX`] nanoseconds (584 years) at most.
#[must_use]
pub fn nanos(duration: Duration) -> Nanos {
    Nanos(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_advances_and_a_deadline_lies_ahead() {
        let start = now();
        let deadline = within(Duration::from_millis(2));
        assert!(deadline > start);
        std::thread::sleep(Duration::from_millis(3));
        assert!(now() > deadline);
    }
}
