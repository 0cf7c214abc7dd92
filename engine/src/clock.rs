//! The clock that every reader and producer of a host shares.

use std::time::Duration;

use kvrail_core::time::{Nanos, Time};
use rustix::time::{ClockId, clock_gettime};

/// Nanoseconds since this host started, suspension included (`CLOCK_BOOTTIME`): the same in every
/// process of the host, and it never goes back. Read without a system call where the kernel has a vDSO.
#[must_use]
pub fn now() -> Time {
    let now = clock_gettime(ClockId::Boottime);
    // Positive since the boot, and 2^63 s are for ever.
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    let nanos = u64::try_from(now.tv_nsec).unwrap_or(0);
    Time(seconds.saturating_mul(1_000_000_000).saturating_add(nanos))
}

/// The time `after` from now: a deadline.
#[must_use]
pub fn within(after: Duration) -> Time {
    now() + nanos(after)
}

/// A duration in the core's words; more than 584 years are 584 years.
pub(crate) fn nanos(duration: Duration) -> Nanos {
    Nanos(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_goes_on_and_a_deadline_is_ahead() {
        let start = now();
        let deadline = within(Duration::from_millis(2));
        assert!(deadline > start);
        std::thread::sleep(Duration::from_millis(3));
        assert!(now() > deadline);
    }
}
