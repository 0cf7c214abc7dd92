//! How wrs of a dead lane are posted on another lane.

use super::super::state::Engine;
use crate::events::{EngineEvent, EventSink};
use crate::provider::Provider;

impl<P: Provider, E: EventSink> Engine<'_, P, E> {
    /// Moves wrs of the dead lane `from`, all but its suspect, into the ring of `lane`: at most
    /// `limit`, so many that they reach `max_bytes`, and none from the first one on that is posted
    /// in another class's turn. Returns how many there are.
    #[cold]
    pub(super) fn gather_dead_lane(
        &mut self,
        lane: usize,
        from: usize,
        class: usize,
        limit: u32,
        max_bytes: u64,
    ) -> u32 {
        let head = self.lanes[lane].head;
        let (mut n, mut bytes) = (0, 0);
        let suspect = u32::from(self.lanes[from].suspect);
        while n < limit && bytes < max_bytes && self.lanes[from].outstanding() > suspect {
            let seq = self.lanes[from].tail;
            let old = *self.lanes.record(from, seq);
            if self.is_dead(old) {
                self.lanes[from].tail = seq.wrapping_add(1);
                self.drop_wr(old);
                continue;
            }
            if self.turn_of(old) != class {
                break;
            }
            self.lanes[from].tail = seq.wrapping_add(1);
            bytes += u64::from(old.len);
            *self.lanes.record(lane, head.wrapping_add(n)) = old;
            n += 1;
        }
        let rail = usize::from(self.lanes[lane].rail);
        self.rails[rail].stats.reposted += u64::from(n);
        if n > 0 {
            self.emit(|engine| {
                let (from, to) = (engine.lanes[from].id, engine.lanes[lane].id);
                EngineEvent::FailedOver { from, to, wrs: n }
            });
        }
        self.dead_lane_gathered(from, class);
        n
    }
}
