//! Which rails are lost for good. Each loss is reported once, whichever thread finds it first.

use kvrail_core::provider::ProviderEvent;

/// Sets of rails, a bit for each rail.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Losses {
    /// Rails whose driver reports a failed completion queue: they are not polled any more.
    broken: u32,
    /// Rails whose completion channel has hung up: they cannot wake the engine.
    hung_up: u32,
    /// Rails whose loss has been reported.
    reported: u32,
}

impl Losses {
    /// Whether the rail's queue can be polled.
    #[inline]
    pub(super) fn polls(&self, rail: usize) -> bool {
        self.broken >> rail & 1 == 0
    }

    /// Whether the rail's channel can wake the engine.
    pub(super) fn wakes(&self, rail: usize) -> bool {
        (self.broken | self.hung_up) >> rail & 1 == 0
    }

    #[cold]
    pub(super) fn break_queue(&mut self, rail: usize) {
        self.broken |= 1 << rail;
    }

    pub(super) fn hang_up(&mut self, rail: usize) {
        self.hung_up |= 1 << rail;
    }

    /// Whether there is a loss to be reported.
    #[inline]
    pub(super) fn any_unreported(&self) -> bool {
        (self.broken | self.hung_up) & !self.reported != 0
    }

    /// The next rail whose loss is to be reported. It counts as reported from now on.
    #[inline]
    pub(super) fn next(&mut self) -> Option<usize> {
        if !self.any_unreported() {
            return None;
        }
        let rail = ((self.broken | self.hung_up) & !self.reported).trailing_zeros() as usize;
        self.reported |= 1 << rail;
        Some(rail)
    }

    /// Whether an event of `rail` from the control thread is passed on to the engine. `lost` says
    /// that the rail is lost by it.
    pub(super) fn passes(&mut self, event: ProviderEvent, rail: usize, lost: bool) -> bool {
        let known = self.reported >> rail & 1 != 0;
        match event {
            // A rail that is lost for good does not come back.
            ProviderEvent::RailUp(_) | ProviderEvent::RailDown(_) if known => return false,
            ProviderEvent::RailDown(_) if lost => self.reported |= 1 << rail,
            _ => {}
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use kvrail_core::id::{LaneId, RailIndex};

    use super::*;

    const DOWN: ProviderEvent = ProviderEvent::RailDown(RailIndex(3));
    const UP: ProviderEvent = ProviderEvent::RailUp(RailIndex(3));

    #[test]
    fn a_device_that_is_gone_is_reported_once() {
        // The sleeping engine finds it by its channel, before the control thread.
        let mut losses = Losses::default();
        losses.hang_up(3);
        assert!(losses.polls(3) && !losses.wakes(3), "completions that lie in its queue can still be taken");
        assert!(losses.any_unreported());
        assert_eq!((losses.next(), losses.next(), losses.any_unreported()), (Some(3), None, false));
        assert!(!losses.passes(DOWN, 3, true));
        losses.break_queue(3);
        assert_eq!(losses.next(), None);
        assert!(!losses.polls(3));
        // The control thread finds it first.
        let mut losses = Losses::default();
        assert!(losses.passes(DOWN, 3, true));
        losses.hang_up(3);
        assert_eq!((losses.any_unreported(), losses.next()), (false, None));
        assert!(!losses.wakes(3), "it is left out of the sleep all the same");
        // It does not come back; its lanes are still closed.
        assert!(!losses.passes(UP, 3, false));
        assert!(losses.passes(ProviderEvent::LaneClosed(LaneId::new(0, 1)), 3, false));
    }

    #[test]
    fn a_port_that_goes_down_and_up_is_reported_each_time() {
        let mut losses = Losses::default();
        for _ in 0..3 {
            assert!(losses.passes(DOWN, 3, false) && losses.passes(UP, 3, false));
        }
        losses.hang_up(2);
        assert_eq!(losses.next(), Some(2));
        assert!(losses.passes(DOWN, 3, false), "another rail's loss is not this one's");
    }
}
