//! What an input lets happen: each step is a byte that names it, and the bytes that it takes.

use kvrail_core::batch::Class;
use kvrail_core::id::RailIndex;
use kvrail_core::table::ENTRY_BYTES;
use kvrail_core::time::Nanos;
use kvrail_sim::sim::{Action, FailedRanges, Fate, Faults, Rate};

use super::owner::{PAGE, SLOTS, STRIDE, TABLE};
use super::world::{OWNERS, RAILS, SLOW, World};
use crate::bytes::Bytes;

impl World<'_, '_> {
    pub(super) fn step(&mut self, input: &mut Bytes<'_>) {
        let step = input.byte();
        // The upper bits choose the owner, or are a number of the step.
        let (which, more) = (usize::from(step >> 7) % OWNERS, step >> 5);
        match step & 0x1f {
            0..=4 => self.submit(input),
            5..=7 => {
                // As many events of the model as a byte says, with a poll after each or at the end.
                let (count, every) = (1 + input.byte() % 64, more & 1 == 0);
                for _ in 0..count {
                    let goes_on = self.sim.step();
                    if every || !goes_on {
                        self.poll();
                    }
                    if !goes_on {
                        break;
                    }
                }
                self.poll();
            }
            8 | 9 => {
                self.sim.advance_to(self.sim.now() + Nanos(u64::from(input.short()) * 32));
                self.poll();
            }
            10 | 11 => {
                let until = self.sim.now() + Nanos(u64::from(input.short()) * 32);
                self.engine.wait(self.sim.now(), until);
                self.poll();
            }
            // Time passes, and the engine does not look.
            12 => self.sim.advance_to(self.sim.now() + Nanos(u64::from(input.short()) * 64)),
            13 => self.poll(),
            14..=16 => self.script(input),
            17 | 18 => self.act(which, input),
            19 => self.owners[which].invalidate(self.sim, usize::from(input.byte()) % SLOTS),
            20 => {
                let (slot, from, len) = (usize::from(input.byte()) % SLOTS, input.short(), input.short());
                let from = usize::from(from) % PAGE;
                let to = (from + usize::from(len)).min(PAGE);
                if !self.owners[which].is_valid(slot) {
                    self.owners[which].scribble(self.sim, slot, from, to);
                }
            }
            21 => self.owners[which].publish(self.sim, usize::from(input.byte()) % SLOTS),
            22..=24 => self.change(step & 0x1f, input),
            25 => self.take_arrivals(input.byte()),
            26 | 27 => self.mend(input.byte()),
            28 => self.give_lanes_back(which, more, input),
            29 => self.remove_peer(which),
            30 => self.add_peer(which, input.byte()),
            _ => {
                let class = if more & 1 == 0 { Class::Urgent } else { Class::Background };
                self.attach(which, input.byte() % RAILS as u8, class);
            }
        }
    }

    /// Scripts a fault of one of the latest lanes.
    fn script(&mut self, input: &mut Bytes<'_>) {
        let (what, nth) = (input.byte(), u64::from(input.byte()));
        let behind = usize::from(what >> 4).min(self.lanes.len().saturating_sub(1));
        let Some(&lane) = self.lanes.iter().rev().nth(behind) else { return };
        let count = u32::from(input.byte());
        let fate = match what & 7 {
            0 | 1 => {
                let status = Faults::EVERY_STATUS[count as usize % Faults::EVERY_STATUS.len()];
                self.faulty = true;
                Fate::Status { nth, status }
            }
            2 => Fate::Lost { nth },
            3 => {
                (self.faulty, self.incomplete) = (true, true);
                Fate::Incomplete { nth }
            }
            4 => Fate::Prefix { nth, accepted: count % 8, errno: 12 },
            5 => Fate::Unknown { nth, queued: if count > 8 { u32::MAX } else { count }, errno: 5 },
            6 => Fate::DrainLost,
            _ => Fate::DrainRefused { errno: 12 },
        };
        // Beyond 64 fates nothing more is scripted.
        let _ = self.sim.script(lane, fate);
    }

    /// Something happens to a rail, to a peer or to memory, at once or later.
    fn act(&mut self, which: usize, input: &mut Bytes<'_>) {
        let (what, later) = (input.byte(), input.byte());
        // An engine that does not poll has room for one event of a rail for each lane.
        let told = what & 0x20 != 0 && self.told_later + self.told_since_poll < 12;
        let rail = RailIndex(what >> 4 & 1);
        let (peer, memory) = (self.owners[which].peer, self.owners[which].memory);
        self.went_down |= matches!(what & 0xf, 0 | 4 | 7);
        let action = match what & 0xf {
            0 => Action::RailDown { rail, told },
            1 | 2 => Action::RailUp { rail, told },
            3 => Action::RailRate { rail, rate: self.rate(input) },
            4 => Action::PeerDown(peer),
            5 | 6 => Action::PeerUp(peer),
            7 => Action::RemoteRailDown(peer, rail),
            8 => Action::RemoteRailUp(peer, rail),
            9 | 10 => {
                let behind = usize::from(what >> 4).min(self.lanes.len().saturating_sub(1));
                let Some(&lane) = self.lanes.iter().rev().nth(behind) else { return };
                Action::FailLane(lane)
            }
            11 => {
                self.faulty = true;
                let first = u64::from(input.byte()) % SLOTS as u64;
                let offset = first * STRIDE as u64 + u64::from(input.short()) % PAGE as u64;
                let count = 1 + u64::from(input.byte() % 3);
                Action::FailMemory(memory, FailedRanges { offset, len: 700, stride: STRIDE as u64, count })
            }
            12 => {
                self.faulty = true;
                let len = u64::from(input.byte()) % (SLOTS as u64 * ENTRY_BYTES);
                let offset = TABLE as u64;
                Action::FailMemory(memory, FailedRanges { offset, len, stride: 1, count: 1 })
            }
            13 => {
                self.faulty = true;
                Action::Revoke(memory)
            }
            14 => Action::RemoteRate(peer, rail, self.rate(input)),
            _ => Action::FailMemory(memory, FailedRanges::NOTHING),
        };
        let counts = u8::from(told && matches!(action, Action::RailDown { .. } | Action::RailUp { .. }));
        if later == 0 {
            self.told_since_poll += counts;
            self.sim.apply(action);
        } else {
            self.told_later += counts;
            // Beyond 64 actions nothing more is planned.
            let _ = self.sim.at(self.sim.now() + Nanos(u64::from(later) * 500), action);
        }
    }

    fn rate(&mut self, input: &mut Bytes<'_>) -> Rate {
        let rate = 1 << (27 + input.byte() % 9);
        self.slow |= rate < SLOW;
        Rate::bytes_per_sec(rate)
    }

    /// Withdraws a batch or a page of it, or moves the batch to a class.
    fn change(&mut self, step: u8, input: &mut Bytes<'_>) {
        let (now, what) = (self.sim.now(), input.byte());
        let flying = self.flying.iter_mut().rev().flatten().nth(usize::from(what & 3));
        let Some(flying) = flying else { return };
        match step {
            22 => {
                // A batch may be done and not taken.
                if self.engine.withdraw(flying.ticket, now).is_ok() {
                    assert_eq!(self.engine.withdraw(flying.ticket, now).unwrap_or(0), 0);
                    flying.withdrawn = true;
                }
            }
            23 => {
                let page = usize::from(what >> 2) % (flying.parts.len() + 1);
                let given_up = self.engine.withdraw_page(flying.ticket, page, now);
                if given_up == Ok(true) {
                    flying.parts[page].withdrawn = true;
                    assert_ne!(self.engine.withdraw_page(flying.ticket, page, now), Ok(true));
                }
            }
            _ => {
                let class = if what & 4 == 0 { Class::Urgent } else { Class::Background };
                let _ = self.engine.set_class(flying.ticket, class, now);
            }
        }
    }

    /// Makes the lanes that the engine asks for; those whose bit is set in `refused` cannot be
    /// made.
    pub(super) fn mend(&mut self, mut refused: u8) {
        let now = self.sim.now();
        while self.engine.next_lost_lane().is_some() {}
        while let Some(wanted) = self.engine.next_wanted_lane(now) {
            let which = self.peers.iter().position(|peer| peer.is_some_and(|(id, _)| id == wanted.peer));
            let which = which.expect("a lane is wanted to a peer that is there");
            if refused & 1 == 1 || !self.attach(which, wanted.rail.0, wanted.class) {
                self.engine.lane_unavailable(wanted, now);
            }
            refused >>= 1;
        }
        while let Some(peer) = self.engine.next_unserved_peer(now) {
            let which = self.peers.iter().position(|other| other.is_some_and(|(id, _)| id == peer));
            let which = which.expect("a peer that is there has work");
            if refused & 1 == 1 || !self.attach(which, refused >> 1 & 1, Class::Urgent) {
                self.engine.first_lanes_unavailable(peer, now);
            }
            refused >>= 1;
        }
    }

    fn give_lanes_back(&mut self, which: usize, more: u8, input: &mut Bytes<'_>) {
        let now = self.sim.now();
        let Some((peer, _)) = self.peers[which] else { return };
        match more & 3 {
            0 => {
                let lanes = self.engine.release_lanes(peer, now);
                assert!(lanes == 0 || self.engine.lanes_to(peer) == 0);
            }
            1 => drop(self.engine.release_lanes_idle_for(Nanos(u64::from(input.short()) * 16), now)),
            2 => drop(self.engine.forgo_lost_lanes(peer)),
            _ => {
                let _ = self.engine.arm(now, now + Nanos(u64::from(input.short()) * 32));
            }
        }
    }
}
