//! Which rails are lost for good, so that each is told of once, whoever finds out first.

use kvrail_core::provider::ProviderEvent;

/// A bit for each rail.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Losses {
    /// The driver has given up on their completion queue: they are not polled any more.
    broken: u32,
    /// Their completion channel has hung up: nothing of theirs wakes the engine.
    hung_up: u32,
    /// They have been told of.
    told: u32,
}

impl Losses {
    /// Whether the rail's queue can be polled.
    #[inline]
    pub(crate) fn polls(&self, rail: usize) -> bool {
        self.broken >> rail & 1 == 0
    }

    /// Whether the rail's channel can wake the engine.
    pub(crate) fn wakes(&self, rail: usize) -> bool {
        (self.broken | self.hung_up) >> rail & 1 == 0
    }

    #[cold]
    pub(crate) fn break_queue(&mut self, rail: usize) {
        self.broken |= 1 << rail;
    }

    pub(crate) fn hang_up(&mut self, rail: usize) {
        self.hung_up |= 1 << rail;
    }

    /// Whether there is a loss to be told of.
    #[inline]
    pub(crate) fn any_untold(&self) -> bool {
        (self.broken | self.hung_up) & !self.told != 0
    }

    /// The next rail whose loss is to be told of. From now on it has been.
    #[inline]
    pub(crate) fn tell(&mut self) -> Option<usize> {
        if !self.any_untold() {
            return None;
        }
        let rail = ((self.broken | self.hung_up) & !self.told).trailing_zeros() as usize;
        self.told |= 1 << rail;
        Some(rail)
    }

    /// Whether an event of `rail` from the control thread is passed on; `lost`: the rail is lost by
    /// it.
    pub(crate) fn passes(&mut self, event: ProviderEvent, rail: usize, lost: bool) -> bool {
        let known = self.told >> rail & 1 != 0;
        match event {
            // What is lost for good is lost once, and does not come back.
            ProviderEvent::RailUp(_) | ProviderEvent::RailDown(_) if known => return false,
            ProviderEvent::RailDown(_) if lost => self.told |= 1 << rail,
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
    fn a_device_that_is_gone_is_told_of_once_whoever_notices_first() {
        // The sleeping engine, by its channel, before the control thread.
        let mut losses = Losses::default();
        losses.hang_up(3);
        assert!(losses.polls(3) && !losses.wakes(3), "what lies in its queue can still be had");
        assert!(losses.any_untold());
        assert_eq!((losses.tell(), losses.tell(), losses.any_untold()), (Some(3), None, false));
        assert!(!losses.passes(DOWN, 3, true));
        losses.break_queue(3);
        assert_eq!(losses.tell(), None);
        assert!(!losses.polls(3));
        // The control thread first.
        let mut losses = Losses::default();
        assert!(losses.passes(DOWN, 3, true));
        losses.hang_up(3);
        assert_eq!((losses.any_untold(), losses.tell()), (false, None));
        assert!(!losses.wakes(3), "it is left out of the sleep all the same");
        // It does not come back; its lanes still end.
        assert!(!losses.passes(UP, 3, false));
        assert!(losses.passes(ProviderEvent::LaneClosed(LaneId::new(0, 1)), 3, false));
    }

    #[test]
    fn a_port_that_comes_and_goes_is_told_of_each_time() {
        let mut losses = Losses::default();
        for _ in 0..3 {
            assert!(losses.passes(DOWN, 3, false) && losses.passes(UP, 3, false));
        }
        losses.hang_up(2);
        assert_eq!(losses.tell(), Some(2));
        assert!(losses.passes(DOWN, 3, false), "another rail's loss is not this one's");
    }
}
