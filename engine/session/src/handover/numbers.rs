//! The numbers of a session's hand-overs.

use std::num::NonZeroU32;

use super::types::HandoverNumber;

/// The numbers that a session has used. They rise, so the highest one tells those that were used,
/// and may appear in messages that are still under way, from those that were not.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Numbers {
    last: u32,
}

impl Numbers {
    /// The highest number used so far; 0 if none was.
    pub(super) const fn last(self) -> u32 {
        self.last
    }

    /// The next number; `None` when all are used up.
    pub(super) fn next(&mut self) -> Option<HandoverNumber> {
        let next = NonZeroU32::new(self.last.checked_add(1)?)?;
        self.last = next.get();
        Some(HandoverNumber(next))
    }

    /// Takes the peer's number for a new hand-over; `false` if it does not rise.
    pub(super) fn accept(&mut self, number: HandoverNumber) -> bool {
        let rises = number.0.get() > self.last;
        if rises {
            self.last = number.0.get();
        }
        rises
    }

    /// Whether the number was used in this session.
    pub(super) const fn were(self, number: HandoverNumber) -> bool {
        number.0.get() <= self.last
    }
}
