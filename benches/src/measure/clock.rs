//! Starting at one moment, on the clock that all processes of a host share.

use std::time::Duration;

use kvrail::clock;

/// The rest of a wait that is spun, since a sleep may end this much late, in nanoseconds.
const SPIN: u64 = 100_000;

/// Sleeps until shortly before `time`, and spins for the rest, so that all workers start together.
pub(crate) fn sleep_until(time: u64) {
    loop {
        match time.saturating_sub(clock::now().0) {
            0 => return,
            left if left > 2 * SPIN => std::thread::sleep(Duration::from_nanos(left - SPIN)),
            _ => std::hint::spin_loop(),
        }
    }
}
