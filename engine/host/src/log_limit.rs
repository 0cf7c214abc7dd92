//! A rate limit for log lines that a remote side can cause.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Lines that may be logged at once.
const BURST: u32 = 8;
/// How often one more line may be logged.
const PERIOD: Duration = Duration::from_secs(2);

/// Bounds how many lines of one kind are logged: eight at once, and one more every two seconds. The
/// caller writes into the next line how many lines were left out before it.
#[derive(Debug)]
pub struct LogLimit(Mutex<State>);

#[derive(Debug)]
struct State {
    /// Lines that may be logged now.
    tokens: u32,
    /// When the last token was added, or the first line came.
    since: Option<Instant>,
    left_out: u64,
}

impl LogLimit {
    /// A limit that allows a full burst.
    #[must_use]
    pub const fn new() -> Self {
        Self(Mutex::new(State { tokens: BURST, since: None, left_out: 0 }))
    }

    /// Whether a line may be logged now: `Some` with the number of lines left out since the last
    /// one that was logged, or `None` if this line is left out too.
    #[must_use]
    pub fn allows(&self) -> Option<u64> {
        self.allows_at(Instant::now())
    }

    fn allows_at(&self, now: Instant) -> Option<u64> {
        // The lock guards numbers, which are valid even if a thread panicked while it held the
        // lock.
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let since = *state.since.get_or_insert(now);
        let periods = now.saturating_duration_since(since).as_nanos() / PERIOD.as_nanos();
        if let Ok(periods @ 1..) = u32::try_from(periods) {
            state.tokens = state.tokens.saturating_add(periods).min(BURST);
            state.since = Some(since + PERIOD * periods);
        }
        if state.tokens == 0 {
            state.left_out += 1;
            return None;
        }
        state.tokens -= 1;
        Some(std::mem::take(&mut state.left_out))
    }
}

impl Default for LogLimit {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_then_one_a_period_and_the_rest_is_counted() {
        let (limit, start) = (LogLimit::new(), Instant::now());
        let lines = |at: Duration, count| (0..count).filter_map(|_| limit.allows_at(start + at)).collect();
        let burst: Vec<u64> = lines(Duration::ZERO, 1000);
        assert_eq!(burst, [0; BURST as usize]);
        let none: Vec<u64> = lines(PERIOD - Duration::from_millis(1), 5);
        assert_eq!(none, []);
        let one: Vec<u64> = lines(PERIOD, 3);
        assert_eq!(one, [1000 - u64::from(BURST) + 5]);
        let next: Vec<u64> = lines(2 * PERIOD, 1);
        assert_eq!(next, [2]);
        let rested: Vec<u64> = lines(PERIOD * 1000, 100);
        assert_eq!(rested.len(), BURST as usize);
    }
}
