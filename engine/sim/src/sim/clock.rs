//! The model's clock: it moves to what is due next, and an engine sleeps until its reason to wake
//! up.

use super::lane::State;
use super::model::Model;
use super::timers::NEVER;

impl Model<'_> {
    fn next_time(&self) -> u64 {
        self.agenda.first().min(self.timers.first().0)
    }

    /// Does one thing that is due. Returns `false` if nothing is.
    fn turn(&mut self) -> bool {
        if self.agenda.first() <= self.now {
            if let Some(action) = self.agenda.pop() {
                self.apply(action);
            }
            return true;
        }
        let (time, place) = self.timers.first();
        if time > self.now {
            return false;
        }
        self.lane_turn(place);
        true
    }

    /// Moves the clock to the next time at which something is due, and does one such thing. Returns
    /// `false` if nothing will happen.
    pub(super) fn step(&mut self) -> bool {
        let next = self.next_time();
        if next == NEVER {
            return false;
        }
        self.now = self.now.max(next);
        self.turn()
    }

    /// Moves the clock to `time`, and does everything that is due until then, `time` included.
    pub(super) fn advance_to(&mut self, time: u64) {
        while self.next_time() <= time && self.step() {}
        if time != NEVER {
            self.now = self.now.max(time);
        }
    }

    /// Moves the clock until `completions` more wrs are complete, an error or an event has come, or
    /// `until` is reached. If nothing can happen and `until` is `NEVER`, the clock does not move.
    pub(super) fn wait(&mut self, until: u64, completions: u32) {
        let waiting = completions > 0 && self.cqs.iter().flatten().any(|cq| !cq.is_empty());
        // Some wrs that the caller counts as outstanding may have completed without a completion,
        // and no more can complete than are under way.
        let lanes = self.lanes.iter().filter(|lane| lane.state != State::Free);
        let under_way: u64 = lanes.map(|lane| lane.posted.saturating_sub(lane.head)).sum();
        let target = self.completed + u64::from(completions).min(under_way.max(1));
        let mut done = waiting;
        loop {
            // Everything that is due now happens before the engine wakes up.
            while self.turn() {}
            done |= self.failed_cqes > 0 || !self.events.is_empty();
            done |= completions > 0 && self.completed >= target;
            let next = self.next_time();
            if done {
                return;
            }
            if next > until || next == NEVER {
                if until != NEVER {
                    self.now = self.now.max(until);
                }
                return;
            }
            self.now = next;
        }
    }
}
