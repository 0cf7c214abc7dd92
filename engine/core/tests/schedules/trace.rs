//! The last events of an engine, printed when a schedule fails.

use std::collections::VecDeque;
use std::fmt;

use kvrail_core::events::{EngineEvent, EventSink};
use kvrail_core::time::Time;

/// How many events are kept.
const KEPT: usize = 200;

/// Keeps the last events, each with the time of the call in which it happened, and counts the
/// others.
#[derive(Debug, Default)]
pub(crate) struct Trace {
    now: Time,
    last: VecDeque<(Time, EngineEvent)>,
    dropped: u64,
}

impl Trace {
    pub(crate) fn clear(&mut self) {
        self.last.clear();
        self.dropped = 0;
    }
}

impl EventSink for Trace {
    fn time(&mut self, now: Time) {
        self.now = now;
    }

    fn event(&mut self, event: EngineEvent) {
        if self.last.len() == KEPT {
            self.last.pop_front();
            self.dropped += 1;
        }
        self.last.push_back((self.now, event));
    }
}

impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.dropped > 0 {
            writeln!(f, "{:>14} {} earlier events are not kept", "...", self.dropped)?;
        }
        for (time, event) in &self.last {
            writeln!(f, "{:>11} ns {event}", time.0)?;
        }
        Ok(())
    }
}

#[test]
fn a_trace_keeps_the_last_events_and_counts_the_others() {
    let mut trace = Trace::default();
    for at in 0..KEPT as u64 + 7 {
        trace.time(Time(at));
        trace.event(EngineEvent::RailUp { rail: kvrail_core::id::RailIndex(3) });
    }
    let text = trace.to_string();
    assert_eq!(text.lines().count(), KEPT + 1);
    assert!(text.contains("... 7 earlier events are not kept"), "{text}");
    assert!(text.lines().last().is_some_and(|line| line.contains("206 ns")), "{text}");
}
