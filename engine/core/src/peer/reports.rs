//! The reports of lost lanes, as the storage keeps them.

use crate::events::LaneLost;
use crate::id::{LaneId, PeerId, RailIndex};
use crate::limits::MAX_RAILS;

/// A [`LaneLost`] in 12 bytes, since there is room for one for each lane of the storage.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Report {
    lane: u16,
    peer: u16,
    life: u32,
    /// The lane's generation in the low 24 bits; above them the rail and the peer's rail, 4 bits
    /// each.
    rest: u32,
}

const _: () = assert!(size_of::<Report>() == 12);
const _: () = assert!(LaneId::GENERATIONS == 1 << 24 && MAX_RAILS == 1 << 4);

impl Report {
    /// Fills places that hold no report.
    pub(crate) const NONE: Self = Self { lane: 0, peer: 0, life: 0, rest: 0 };

    pub(crate) const fn new(lost: LaneLost) -> Self {
        let LaneLost { lane, peer, rail, remote_rail } = lost;
        let rails = (remote_rail as u32) << 4 | rail.0 as u32;
        let rest = rails << 24 | lane.generation();
        Self { lane: lane.place(), peer: peer.index, life: peer.life, rest }
    }

    pub(crate) const fn read(self) -> LaneLost {
        let Self { lane, peer: index, life, rest } = self;
        let rails = (rest >> 24) as u8;
        LaneLost {
            lane: LaneId::new(lane, rest),
            peer: PeerId { index, life },
            rail: RailIndex(rails & 0xF),
            remote_rail: rails >> 4,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_gives_back_what_was_lost() {
        let all = [(0, 0, 0), (1, 2, 3), (u16::MAX, LaneId::GENERATIONS - 1, 15)];
        for (index, generation, rail) in all {
            for remote_rail in [0, 7, 15] {
                let lost = LaneLost {
                    lane: LaneId::new(index, generation),
                    peer: PeerId { index: !index, life: !generation },
                    rail: RailIndex(rail),
                    remote_rail,
                };
                assert_eq!(Report::new(lost).read(), lost);
            }
        }
    }
}
