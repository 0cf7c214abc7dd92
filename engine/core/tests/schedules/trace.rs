//! The last events of an engine, printed when a schedule fails.

use std::collections::VecDeque;
use std::fmt;

use kvrail_core::events::{EngineEvent, EventSink};
use kvrail_core::id::{LaneId, Ticket};
use kvrail_core::time::Time;

/// How many events are kept.
const KEPT: usize = 200;

/// Keeps the last events, each with the time of the call in which it happened, and counts the
/// others. Batches and lanes that have not ended are remembered in any case.
#[derive(Debug, Default)]
pub(crate) struct Trace {
    now: Time,
    last: VecDeque<(Time, EngineEvent)>,
    dropped: u64,
    /// Batches that were submitted and are not done.
    batches: Vec<Ticket>,
    /// Lanes that were lost and are not freed.
    lanes: Vec<LaneId>,
}

impl Trace {
    pub(crate) fn clear(&mut self) {
        self.last.clear();
        self.dropped = 0;
        self.batches.clear();
        self.lanes.clear();
    }
}

impl EventSink for Trace {
    fn time(&mut self, now: Time) {
        self.now = now;
    }

    fn event(&mut self, event: EngineEvent) {
        match event {
            EngineEvent::Submitted { batch, .. } => self.batches.push(batch),
            EngineEvent::Done { batch } => self.batches.retain(|open| *open != batch),
            EngineEvent::LaneFailing { lane, .. } | EngineEvent::LaneReleased { lane } => {
                self.lanes.push(lane);
            }
            EngineEvent::LaneFreed { lane } => self.lanes.retain(|open| *open != lane),
            _ => {}
        }
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
        for batch in &self.batches {
            writeln!(f, "{:>14} {batch} is not done", "")?;
        }
        for lane in &self.lanes {
            writeln!(f, "{:>14} {lane} is lost and not freed", "")?;
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

#[test]
fn a_trace_names_the_lost_lanes_that_are_not_freed() {
    let mut trace = Trace::default();
    for index in 0..2 {
        trace.event(EngineEvent::LaneFailing { lane: LaneId::new(index, 1), outstanding: 0 });
    }
    trace.event(EngineEvent::LaneFreed { lane: LaneId::new(0, 1) });
    let text = trace.to_string();
    assert_eq!(text.lines().last().map(str::trim), Some("lane 1.1 is lost and not freed"));
    assert_eq!(text.lines().count(), 4, "{text}");
}
