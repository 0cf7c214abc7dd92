//! How much the machine itself varies: the same work in every round, without kvrail.

use std::hint::black_box;
use std::time::Instant;

use crate::measure::spread::Spread;
use crate::output::json::Noise;

/// Rounds of the empty loop, about a millisecond's.
const LOOPS: u64 = 1 << 20;
/// Bytes that are copied: more than a core's own caches hold.
const BYTES: usize = 8 << 20;

/// Does the work, and keeps how long it took.
#[derive(Debug)]
pub(crate) struct NoiseMeter {
    from: Vec<u8>,
    to: Vec<u8>,
    loops_per_ms: Vec<f64>,
    gb_per_s: Vec<f64>,
}

impl NoiseMeter {
    pub(crate) fn new() -> Self {
        // Written once, so that no page is new when it is copied.
        Self { from: vec![1; BYTES], to: vec![2; BYTES], loops_per_ms: Vec::new(), gb_per_s: Vec::new() }
    }

    /// Does the work once.
    pub(crate) fn sample(&mut self) {
        let start = Instant::now();
        for round in 0..LOOPS {
            black_box(round);
        }
        self.loops_per_ms.push(LOOPS as f64 / 1e3 / start.elapsed().as_secs_f64());
        let start = Instant::now();
        self.to.copy_from_slice(black_box(&self.from));
        black_box(&mut self.to);
        self.gb_per_s.push(BYTES as f64 / 1e9 / start.elapsed().as_secs_f64());
    }

    /// What it found.
    pub(crate) fn noise(&self) -> Noise {
        Noise {
            empty_loop_per_ms: Spread::of(&self.loops_per_ms),
            memcpy_gb_per_s: Spread::of(&self.gb_per_s),
        }
    }
}

impl Noise {
    /// A line for people.
    pub(crate) fn line(&self) -> String {
        if self.empty_loop_per_ms.rounds < 2 {
            return "One round tells nothing of this machine's own noise: give more, or a longer duration.\n"
                .into();
        }
        let percent = |spread: &Spread| 100.0 * spread.relative();
        format!(
            "This machine's own noise over {} rounds: an empty loop +- {:.1} %, a plain copy +- {:.1} % (quartiles).\n",
            self.empty_loop_per_ms.rounds,
            percent(&self.empty_loop_per_ms),
            percent(&self.memcpy_gb_per_s)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_round_is_counted_and_the_copy_is_made() {
        let mut meter = NoiseMeter::new();
        (0..3).for_each(|_| meter.sample());
        let noise = meter.noise();
        assert_eq!((noise.empty_loop_per_ms.rounds, noise.memcpy_gb_per_s.rounds), (3, 3));
        assert!(noise.memcpy_gb_per_s.min > 0.0 && meter.to == meter.from);
        assert!(noise.line().contains("over 3 rounds"));
        let mut once = NoiseMeter::new();
        once.sample();
        let line = once.noise().line();
        assert!(line.starts_with("One round tells nothing") && !line.contains('%'), "{line}");
    }
}
