//! The order in which hand-overs of a session have their turns.

use std::collections::BTreeMap;

use kvrail_core::batch::Class;

use super::types::HandoverNumber;

/// Of this many turns in a row, the background has one whenever it has something to say.
pub(super) const BACKGROUND_EVERY: u32 = 16;

/// Numbers in the order in which they came, each at most once.
#[derive(Debug, Default)]
pub(super) struct Queue {
    by_turn: BTreeMap<u64, HandoverNumber>,
    turns: BTreeMap<HandoverNumber, u64>,
    next: u64,
}

impl Queue {
    /// Adds the number at the end, unless it waits already.
    pub(super) fn add(&mut self, number: HandoverNumber) {
        if !self.turns.contains_key(&number) {
            self.turns.insert(number, self.next);
            self.by_turn.insert(self.next, number);
            self.next += 1;
        }
    }

    pub(super) fn remove(&mut self, number: HandoverNumber) {
        if let Some(turn) = self.turns.remove(&number) {
            self.by_turn.remove(&turn);
        }
    }

    /// Takes the number that has waited longest.
    pub(super) fn pop(&mut self) -> Option<HandoverNumber> {
        let (_, number) = self.by_turn.pop_first()?;
        self.turns.remove(&number);
        Some(number)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.by_turn.is_empty()
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.by_turn.len().max(self.turns.len())
    }
}

/// A queue for each class. The urgent one is served first, and the background in one turn of
/// [`BACKGROUND_EVERY`]. The numbers of one class take turns.
#[derive(Debug, Default)]
pub(super) struct ClassQueues {
    urgent: Queue,
    background: Queue,
    /// Urgent turns in a row for which the background waited.
    urgent_turns: u32,
}

impl ClassQueues {
    pub(super) fn add(&mut self, class: Class, number: HandoverNumber) {
        self.of(class).add(number);
    }

    pub(super) fn remove(&mut self, class: Class, number: HandoverNumber) {
        self.of(class).remove(number);
    }

    /// Takes the number whose turn it is.
    pub(super) fn pop(&mut self) -> Option<HandoverNumber> {
        let background_waits = !self.background.is_empty();
        if background_waits && (self.urgent.is_empty() || self.urgent_turns + 1 >= BACKGROUND_EVERY) {
            self.urgent_turns = 0;
            return self.background.pop();
        }
        self.urgent_turns = if background_waits { self.urgent_turns + 1 } else { 0 };
        self.urgent.pop()
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.urgent.len() + self.background.len()
    }

    fn of(&mut self, class: Class) -> &mut Queue {
        match class {
            Class::Urgent => &mut self.urgent,
            // A class that this version does not know is less than urgent.
            _ => &mut self.background,
        }
    }
}
