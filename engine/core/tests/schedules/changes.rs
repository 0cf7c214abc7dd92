//! What a schedule does to batches in flight: it withdraws them, moves them to the other class, and
//! takes pages and slots before their batch is done.
#![allow(unreachable_pub, reason = "a module of one test program")]

use kvrail_core::batch::Class;

use crate::world::{World, range};

impl World<'_, '_, '_> {
    /// Takes the pages that have their final results, and some of their slots.
    pub fn take_reports(&mut self) {
        while let Some(arrival) = self.engine.next_arrival() {
            let flying = self.flying[arrival.tag as usize].as_mut().expect("a batch in flight");
            assert!(flying.reports && flying.ticket == arrival.ticket);
            let told = flying.told_pages[arrival.page].replace(arrival.result);
            assert_eq!(told, None, "a page is told once");
            self.tally.told += 1;
            assert_eq!(flying.pages[arrival.page].first, arrival.page, "the page that has the slot is told");
            if self.rng.chance(50) {
                continue;
            }
            let Some(slot) = self.engine.take_slot(&arrival) else { continue };
            assert_eq!(slot.index(), arrival.slot);
            assert!(self.engine.take_slot(&arrival).is_none(), "a slot is taken once");
            let parts = flying.pages.iter().filter(|part| part.first == arrival.page);
            self.tally.taken_shared += u64::from(parts.clone().count() > 1);
            if arrival.result.is_ok() {
                assert!(parts.clone().all(|part| part.is_in(&slot)), "page {} is served wrong", arrival.page);
            }
            let at = flying.slots.iter().position(|&index| index == slot.index()).unwrap();
            flying.slots.remove(at);
            self.tally.taken += 1;
            self.sim.protect(range(&slot)).unwrap();
            self.free.push(slot);
        }
    }

    /// Withdraws a batch or a page of it, or moves the batch to a class.
    pub fn change(&mut self) {
        let now = self.sim.now();
        if self.flying.is_empty() {
            return;
        }
        let at = self.flying.len() - 1 - self.rng.below(self.flying.len().min(6) as u64) as usize;
        let Some(flying) = self.flying[at].as_mut() else { return };
        match self.rng.below(9) {
            0 => {
                // A batch may be done and not taken.
                if self.engine.withdraw(flying.ticket, now).is_ok() {
                    assert_eq!(self.engine.withdraw(flying.ticket, now).unwrap_or(0), 0);
                    flying.withdrawn.all = true;
                }
            }
            1 | 2 => {
                let page = self.rng.below(flying.pages.len() as u64) as usize;
                if self.engine.withdraw_page(flying.ticket, page, now) == Ok(true) {
                    flying.withdrawn.pages.push(page);
                    assert_ne!(self.engine.withdraw_page(flying.ticket, page, now), Ok(true));
                }
            }
            _ => {
                let class = if self.rng.chance(50) { Class::Background } else { Class::Urgent };
                let _ = self.engine.set_class(flying.ticket, class, now);
            }
        }
    }
}
