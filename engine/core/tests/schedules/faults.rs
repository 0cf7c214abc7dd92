//! What happens to rails, peers and memory in a schedule.
#![allow(unreachable_pub, reason = "a module of one test program")]

use kvrail_core::id::RailIndex;
use kvrail_core::table::ENTRY_BYTES;
use kvrail_sim::sim::{Action, FailedRanges, Rate};

use crate::common::*;
use crate::world::{OWNERS, World};

impl World<'_, '_, '_> {
    /// Something happens to a rail, a peer or its memory.
    pub fn meddle(&mut self) {
        let rail = RailIndex(self.rng.below(3) as u8);
        let told = self.rng.chance(50);
        let which = self.rng.below(OWNERS as u64) as usize;
        let memory = self.owners[which].memory;
        let action = match self.rng.below(8) {
            // Some slots, or the whole table, or nothing any more.
            6 => {
                let first = self.rng.below(SLOTS as u64);
                let count = 1 + self.rng.below(3);
                Action::FailMemory(
                    memory,
                    FailedRanges {
                        offset: first * STRIDE as u64 + self.rng.below(PAGE as u64),
                        len: 1 + self.rng.below(4_000),
                        stride: STRIDE as u64,
                        count,
                    },
                )
            }
            7 if self.rng.chance(30) => {
                let len = SLOTS as u64 * ENTRY_BYTES;
                Action::FailMemory(memory, FailedRanges { offset: TABLE as u64, len, stride: len, count: 1 })
            }
            7 => Action::FailMemory(memory, FailedRanges::NOTHING),
            0 => Action::RailDown { rail, told },
            1 | 2 => Action::RailUp { rail, told },
            3 => Action::RailRate { rail, rate: Rate::bytes_per_sec(1 << (28 + self.rng.below(7))) },
            4 => Action::PeerDown(self.owners[0].peer),
            _ => Action::PeerUp(self.owners[0].peer),
        };
        self.sim.apply(action);
    }
}
