//! The model's clock: what happens next, and how long an engine sleeps.

use super::lane::State;
use super::model::Model;
use super::timers::NEVER;

impl Model<'_> {
    fn next_time(&self) -> u64 {
        self.agenda.first().min(self.timers.first().0)
    }

    /// Does one thing whose time has come, if there is one.
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

    /// Moves the clock to the next thing that happens, and lets it happen.
    pub(super) fn step(&mut self) -> bool {
        let next = self.next_time();
        if next == NEVER {
            return false;
        }
        self.now = self.now.max(next);
        self.turn()
    }

    /// Moves the clock to `time`; everything until then, and at that moment, happens.
    pub(super) fn advance_to(&mut self, time: u64) {
        while self.next_time() <= time && self.step() {}
        if time != NEVER {
            self.now = self.now.max(time);
        }
    }

    /// Moves the clock until `completions` more wrs are complete, an error or an event has come, or
    /// `until`. Without anything that could happen and without an end, it does not move.
    pub(super) fn wait(&mut self, until: u64, completions: u32) {
        let told = completions > 0 && self.cqs.iter().flatten().any(|cq| !cq.is_empty());
        // Of those that the caller takes for outstanding some may have completed without a word:
        // more than there are under way cannot complete.
        let lanes = self.lanes.iter().filter(|lane| lane.state != State::Free);
        let under_way: u64 = lanes.map(|lane| lane.posted.saturating_sub(lane.head)).sum();
        let target = self.completed + u64::from(completions).min(under_way.max(1));
        let mut done = told;
        loop {
            // What happens at one moment happens before anybody wakes.
            while self.turn() {}
            done |= self.bad_news > 0 || !self.events.is_empty();
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
