//! When batches should begin. With an offered load the times are fixed beforehand, and a latency is
//! measured from the intended time: a reader that is held up must not ask for less meanwhile, and
//! so make what held it up invisible.

use serde::{Deserialize, Serialize};

/// Nanoseconds of a second.
const SECOND: f64 = 1e9;

/// The load that a process offers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Load {
    /// Batches that begin in a second; `None`: the next begins when there is room for it.
    pub(crate) batches_per_s: Option<f64>,
    /// A pause of the reading thread every tenth of a second, in nanoseconds; 0 for no pause.
    /// Only tests want it.
    pub(crate) stall: u64,
}

/// The times at which one thread's batches should begin.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Schedule {
    /// The time between two batches, in nanoseconds; `None`: no time is fixed.
    interval: Option<f64>,
    from: u64,
    /// Batches that have begun.
    begun: u64,
}

impl Schedule {
    /// The schedule of one of `threads` threads that share the load.
    pub(crate) fn new(load: Load, threads: usize) -> Self {
        let interval = load.batches_per_s.map(|rate| SECOND * threads as f64 / rate);
        Self { interval, from: 0, begun: 0 }
    }

    /// Begins a round at this time. The threads of a process begin one after the other: `number` is
    /// that of this one, of `threads`.
    pub(crate) fn start(&mut self, at: u64, number: usize, threads: usize) {
        let offset = self.interval.unwrap_or(0.0) * number as f64 / threads as f64;
        (self.from, self.begun) = (at + whole(offset), 0);
    }

    /// When the next batch should begin; `None`: as soon as there is room for it.
    pub(crate) fn next(&self) -> Option<u64> {
        // A product instead of a sum, so that no error adds up.
        self.interval.map(|interval| self.from + whole(interval * self.begun as f64))
    }

    /// The intended time of the next batch, if it may begin at `now`. It counts as begun then.
    pub(crate) fn begin(&mut self, now: u64) -> Option<u64> {
        let at = self.next().unwrap_or(now);
        (at <= now).then(|| {
            self.begun += 1;
            at
        })
    }
}

#[expect(clippy::cast_sign_loss, reason = "times are not negative")]
fn whole(ns: f64) -> u64 {
    ns as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::window::{Counter, Failed, Recorder, Sample, Span};

    /// The p99 of a thread whose batches take 20 us, at 1,000 batches a second for 10 s, and which
    /// stands still for 10 ms once in 500 ms.
    fn p99(load: Load) -> u64 {
        const MS: u64 = 1_000_000;
        let mut schedule = Schedule::new(load, 1);
        schedule.start(0, 0, 1);
        let mut recorder = Recorder::new(false);
        recorder.start(Span { from: 0, to: 10_000 * MS });
        let (mut now, mut stalled) = (0, 0);
        while now < 10_000 * MS {
            if now / (500 * MS) > stalled {
                stalled = now / (500 * MS);
                now += 10 * MS;
            }
            let Some(began) = schedule.begin(now) else {
                now = schedule.next().unwrap();
                continue;
            };
            now += 20_000;
            recorder.record(&Sample { at: now, took: now - began, pages: 1, failed: Failed::default() });
        }
        let count = Counter::new().count([&recorder], Span { from: 0, to: 10_000 * MS });
        let all: u64 = count.latencies.iter().map(|&(_, n)| n).sum();
        let mut left = all / 100;
        for &(value, n) in count.latencies.iter().rev() {
            if n > left {
                return value;
            }
            left -= n;
        }
        0
    }

    #[test]
    fn a_stall_of_10_ms_shows_in_the_p99_of_an_offered_load_and_not_in_that_of_a_closed_loop() {
        let offered = Load { batches_per_s: Some(1000.0), stall: 0 };
        let p99 = [p99(offered), p99(Load::default())];
        assert!(p99[0] > 3_000_000, "the batches that should have begun meanwhile waited: {p99:?}");
        assert!(p99[1] < 21_000, "of the closed loop's batches hardly any saw it: {p99:?}");
    }

    #[test]
    fn intended_times_do_not_drift_and_no_two_threads_have_the_same() {
        let load = Load { batches_per_s: Some(3.0), stall: 0 };
        let mut schedule = Schedule::new(load, 1);
        schedule.start(1000, 0, 1);
        let times: Vec<_> = (0..3).map(|_| schedule.begin(u64::MAX).unwrap()).collect();
        assert_eq!(times, [1000, 333_334_333, 666_667_666]);
        for _ in 0..3_000_000 - 3 {
            schedule.begin(u64::MAX);
        }
        assert_eq!(schedule.next(), Some(1000 + 1_000_000 * 1_000_000_000));
        assert_eq!(schedule.begin(1000), None, "it is not due");
        let first = |number| {
            let mut schedule = Schedule::new(Load { batches_per_s: Some(4.0), stall: 0 }, 2);
            schedule.start(0, number, 2);
            schedule.next().unwrap()
        };
        assert_eq!([first(0), first(1)], [0, 250_000_000]);
        assert_eq!(Schedule::new(Load::default(), 1).begin(7), Some(7));
    }
}
