//! The slots of a pool, the keys of their pages, and what the directory was told of them.
//!
//! It is plain data: a lock is around it ([`Shared`](super::shared::Shared)). Each call takes a
//! bounded number of steps, or a number that earlier calls have paid for, and allocates nothing.

use std::collections::{HashMap, VecDeque};

use kvrail::session::{Epoch, PoolId};
use kvrail_core::table::Generation;

use super::policy::{Policy, S3Fifo, SlotList, TagHashing};
use super::statistics::PoolStatistics;
use crate::announce::changes::{ChangeBatch, ChangeProgress, MAX_BATCH_RECORDS};
use crate::key::Key;
use crate::record::Record;

/// A page in its slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Page {
    key: Key,
    generation: Generation,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// No page is there, and none is written.
    Free,
    /// A page is written. In a pool of the publisher's memory its key is known, and leads here; in
    /// an engine's pool it is not known yet.
    Written(Option<Key>),
    /// A page is written which was removed before it was there.
    Cancelled,
    /// The page is there, and its key leads here.
    Present(Page),
    /// The page was removed while it had holds, so its bytes stay until they end.
    Draining,
}

#[derive(Clone, Copy, Debug)]
struct SlotState {
    state: State,
    /// Pins and local readers of the page.
    holds: u32,
    /// The page is there, and the policy does not know it, since it had holds when it was chosen.
    parked: bool,
    /// Which page the slot has: a hold of an earlier page has another number.
    life: u32,
    /// What the directory was told.
    told: Option<Page>,
    /// The directory may have lost what it was told.
    again: bool,
    /// The slot is in the list of changes.
    changed: bool,
}

/// What became of a request for a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reserved {
    /// The slot is the caller's, until it publishes or abandons it.
    Slot {
        slot: u32,
        /// Another slot whose page was replaced. It is made a miss before the lock is released.
        replaced: Option<u32>,
    },
    Already(Record),
    Underway,
    AllHeld {
        written: u32,
        held: u32,
    },
}

/// Why a slot of an engine's pool cannot be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    NoSlot,
    Published(Key),
    BeingWritten,
    Pinned(u32),
}

/// A hold of a page, which keeps its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct HeldPage {
    pub(super) record: Record,
    pub(super) life: u32,
}

#[derive(Debug)]
pub(super) struct SlotTable {
    owner: Epoch,
    pool: PoolId,
    slots: Box<[SlotState]>,
    keys: HashMap<Key, u32, TagHashing>,
    /// Slots without a page. The last one is taken first, since its bytes were in use last.
    free: VecDeque<u32>,
    /// `None` in an engine's pool, where the engine chooses slots.
    order: Option<S3Fifo>,
    /// Slots whose page is written.
    written: u32,
    /// Slots that have holds.
    held: u32,
    /// Slots with changes, oldest first.
    changes: SlotList,
    /// How often a slot was put into `changes`, taken out, and sent.
    listed: u64,
    taken: u64,
    sent: u64,
    retired: bool,
    counts: PoolStatistics,
}

impl SlotTable {
    /// Slots `0..slots`, none of which has a page.
    pub(super) fn new(owner: Epoch, pool: PoolId, slots: u32, chooses: bool) -> Self {
        let empty = SlotState {
            state: State::Free,
            holds: 0,
            parked: false,
            life: 0,
            told: None,
            again: false,
            changed: false,
        };
        Self {
            owner,
            pool,
            slots: vec![empty; slots as usize].into(),
            // Half of it stays empty, so that removed keys leave no marks, and it need not be made
            // anew while the pool is locked.
            keys: HashMap::with_capacity_and_hasher(2 * slots as usize, TagHashing::default()),
            // The lowest number is taken first.
            free: if chooses { (0..slots).rev().collect() } else { VecDeque::new() },
            order: chooses.then(|| S3Fifo::new(slots)),
            written: 0,
            held: 0,
            changes: SlotList::new(slots),
            listed: 0,
            taken: 0,
            sent: 0,
            retired: false,
            counts: PoolStatistics { slots, ..PoolStatistics::default() },
        }
    }

    pub(super) const fn count(&self) -> u32 {
        self.counts.slots
    }

    fn at(&mut self, slot: u32) -> &mut SlotState {
        &mut self.slots[slot as usize]
    }

    fn record_of(&self, slot: u32, page: Page) -> Record {
        let Page { key: Key(tag), generation } = page;
        Record { tag, owner: self.owner, pool: self.pool, slot, generation }
    }

    /// The slot and page of `key`, if the page is there.
    fn present(&self, key: Key) -> Option<(u32, Page)> {
        let slot = *self.keys.get(&key)?;
        match self.slots[slot as usize].state {
            State::Present(page) => Some((slot, page)),
            _ => None,
        }
    }

    /// The record of the page of `key`, if it is there.
    pub(super) fn record(&self, key: Key) -> Option<Record> {
        self.present(key).map(|(slot, page)| self.record_of(slot, page))
    }

    fn touch_slot(&mut self, slot: u32) {
        let parked = self.at(slot).parked;
        if let Some(order) = self.order.as_mut().filter(|_| !parked) {
            order.touch(slot);
        }
    }

    /// Counts a use of the page of `key`. Returns whether it is there.
    pub(super) fn touch(&mut self, key: Key) -> bool {
        let Some((slot, _)) = self.present(key) else { return false };
        self.touch_slot(slot);
        true
    }

    /// Gives a slot to write the page of `key` into. The key of the page that was in the slot leads
    /// there no more.
    pub(super) fn reserve(&mut self, key: Key, replace: bool) -> Reserved {
        let mut replaced = None;
        let slot = match (self.keys.get(&key).copied(), self.present(key)) {
            (Some(_), None) => {
                self.counts.underway += 1;
                return Reserved::Underway;
            }
            (Some(slot), Some((_, page))) if !replace => {
                self.counts.already += 1;
                self.touch_slot(slot);
                return Reserved::Already(self.record_of(slot, page));
            }
            (Some(slot), Some(_)) if self.at(slot).holds == 0 => {
                self.leave(slot);
                Some(slot)
            }
            // First the other slot: without one, the page stays.
            (Some(slot), Some(_)) => self.take_slot().inspect(|_| {
                self.leave(slot);
                self.at(slot).state = State::Draining;
                replaced = Some(slot);
            }),
            (None, _) => self.take_slot(),
        };
        let Some(slot) = slot else {
            self.counts.all_held += 1;
            return Reserved::AllHeld { written: self.written, held: self.held };
        };
        self.at(slot).state = State::Written(Some(key));
        self.written += 1;
        self.keys.insert(key, slot);
        Reserved::Slot { slot, replaced }
    }

    /// A slot without a page: a free one, or that of the page that the policy chooses.
    fn take_slot(&mut self) -> Option<u32> {
        if let Some(slot) = self.free.pop_back() {
            return Some(slot);
        }
        loop {
            let slot = self.order.as_mut()?.evict()?;
            let state = self.at(slot);
            state.parked = true;
            // The policy gets the page back when its holds end.
            if state.holds == 0 {
                self.counts.evictions += 1;
                self.leave(slot);
                return Some(slot);
            }
        }
    }

    /// The page in `slot` is there no more: its key leads there no more, the policy forgets it, and
    /// the directory is to be told. The caller sets the slot's new state.
    fn leave(&mut self, slot: u32) {
        let SlotState { state, parked, .. } = *self.at(slot);
        let State::Present(page) = state else { return };
        self.keys.remove(&page.key);
        if let Some(order) = self.order.as_mut().filter(|_| !parked) {
            order.remove(slot);
        }
        let at = self.at(slot);
        (at.state, at.parked) = (State::Free, false);
        self.counts.pages -= 1;
        self.change(slot);
    }

    /// The slot has no page and no holds, and can be taken again.
    fn release_slot(&mut self, slot: u32) {
        let at = self.at(slot);
        at.state = State::Free;
        at.life = at.life.wrapping_add(1);
        if self.order.is_some() {
            self.free.push_back(slot);
        }
    }

    /// Whether the page that is written in `slot` has not been removed meanwhile.
    pub(super) fn may_publish(&self, slot: u32) -> bool {
        matches!(self.slots[slot as usize].state, State::Written(_))
    }

    /// The page of `key`, which was written in `slot`, is there. The caller has checked
    /// [`may_publish`](Self::may_publish).
    pub(super) fn published(&mut self, slot: u32, key: Key, generation: Generation) -> Record {
        let page = Page { key, generation };
        self.at(slot).state = State::Present(page);
        self.written -= 1;
        self.keys.insert(key, slot);
        if let Some(order) = &mut self.order {
            order.insert(slot, key.0.0);
        }
        self.counts.pages += 1;
        self.counts.puts += 1;
        self.change(slot);
        self.record_of(slot, page)
    }

    /// No page was written in `slot`, which the caller had. A slot that was `refused` by the
    /// publisher is the last to be taken again.
    pub(super) fn abandon(&mut self, slot: u32, refused: bool) {
        if let State::Written(Some(key)) = self.at(slot).state {
            self.keys.remove(&key);
        }
        self.written -= 1;
        self.counts.abandoned += 1;
        self.release_slot(slot);
        if refused && let Some(slot) = self.free.pop_back() {
            self.free.push_front(slot);
        }
    }

    /// Removes the page of `key`. Returns its slot, which is made a miss before the lock is
    /// released. A page that is written does not come.
    pub(super) fn remove(&mut self, key: Key) -> Option<u32> {
        let slot = *self.keys.get(&key)?;
        self.remove_slot(slot);
        Some(slot)
    }

    /// Removes what is in `slot`. Returns whether there was a page, or one was written.
    pub(super) fn remove_slot(&mut self, slot: u32) -> bool {
        match self.at(slot).state {
            State::Free | State::Cancelled | State::Draining => return false,
            State::Written(key) => {
                if let Some(key) = key {
                    self.keys.remove(&key);
                }
                self.at(slot).state = State::Cancelled;
            }
            State::Present(_) => {
                self.leave(slot);
                self.counts.removed += 1;
                if self.at(slot).holds > 0 && self.order.is_some() {
                    self.at(slot).state = State::Draining;
                } else {
                    self.forget_holds(slot);
                    self.release_slot(slot);
                }
            }
        }
        true
    }

    /// In an engine's pool holds do not keep bytes, so they end with the page.
    fn forget_holds(&mut self, slot: u32) {
        if std::mem::take(&mut self.at(slot).holds) > 0 {
            self.held -= 1;
        }
    }

    /// Takes `slot` of an engine's pool, whose bytes are about to be written, or are written
    /// already if the slot is `empty`.
    pub(super) fn claim(&mut self, slot: u32, empty: bool) -> Result<(), Refused> {
        let state = self.slots.get(slot as usize).ok_or(Refused::NoSlot)?;
        match state.state {
            State::Present(page) if empty => return Err(Refused::Published(page.key)),
            State::Present(_) if state.holds > 0 => return Err(Refused::Pinned(state.holds)),
            State::Present(_) => self.leave(slot),
            State::Written(_) | State::Cancelled | State::Draining => return Err(Refused::BeingWritten),
            State::Free => {}
        }
        self.at(slot).state = State::Written(None);
        self.written += 1;
        Ok(())
    }

    /// Takes a hold of the page of `key`, and counts it as a use.
    pub(super) fn hold(&mut self, key: Key) -> Option<HeldPage> {
        let (slot, page) = self.present(key)?;
        self.touch_slot(slot);
        let at = self.at(slot);
        at.holds += 1;
        let (first, life) = (at.holds == 1, at.life);
        self.held += u32::from(first);
        Some(HeldPage { record: self.record_of(slot, page), life })
    }

    /// Ends a hold.
    pub(super) fn release(&mut self, held: HeldPage) {
        let slot = held.record.slot;
        let at = self.at(slot);
        if at.life != held.life {
            return;
        }
        at.holds -= 1;
        if at.holds > 0 {
            return;
        }
        let (state, parked) = (at.state, std::mem::take(&mut at.parked));
        self.held -= 1;
        match (state, &mut self.order) {
            (State::Draining, _) => self.release_slot(slot),
            (State::Present(page), Some(order)) if parked => {
                order.insert(slot, page.key.0.0);
                order.touch(slot);
            }
            _ => {}
        }
    }

    /// The numbers of now.
    pub(super) fn statistics(&self) -> PoolStatistics {
        PoolStatistics { written: self.written, held: self.held, ..self.counts }
    }

    // What the directory was told.

    fn change(&mut self, slot: u32) {
        if !std::mem::replace(&mut self.at(slot).changed, true) {
            self.changes.push(slot);
            self.listed += 1;
        }
    }

    /// See [`ChangeSource::take`](crate::announce::changes::ChangeSource::take).
    pub(super) fn take_changes(&mut self, batch: &mut ChangeBatch) -> u64 {
        while !batch.is_full()
            && let Some(slot) = self.changes.oldest()
        {
            self.changes.take(slot);
            self.taken += 1;
            let retired = self.retired;
            let at = self.at(slot);
            at.changed = false;
            let now = match at.state {
                State::Present(page) if !retired => Some(page),
                _ => None,
            };
            let again = std::mem::take(&mut at.again);
            let told = std::mem::replace(&mut at.told, now);
            if told == now && !again {
                continue;
            }
            // A record takes the place of the earlier one of its key.
            if let Some(told) = told
                && now.is_none_or(|now| now.key != told.key)
            {
                batch.withdraw.push(self.record_of(slot, told));
            }
            if let Some(now) = now {
                batch.announce.push(self.record_of(slot, now));
            }
        }
        self.taken
    }

    pub(super) fn changes_sent(&mut self, last: u64) {
        self.sent = self.sent.max(last);
    }

    pub(super) fn progress(&self) -> ChangeProgress {
        // At most as many as there are slots, and those of a batch that is being sent.
        let pending = (self.listed - self.sent) as usize;
        ChangeProgress { pending, last: self.listed, sent: self.sent }
    }

    /// The slots from `first` on that one call looks at, and where the next call goes on.
    fn some_slots(&self, first: u32) -> (std::ops::Range<u32>, Option<u32>) {
        let end = first.saturating_add(MAX_BATCH_RECORDS as u32).min(self.count());
        (first.min(end)..end, (end < self.count()).then_some(end))
    }

    pub(super) fn announce_again(&mut self, first: u32) -> Option<u32> {
        let (slots, next) = self.some_slots(first);
        for slot in slots {
            if self.at(slot).told.is_some() {
                self.at(slot).again = true;
                self.change(slot);
            }
        }
        next
    }

    pub(super) fn retire(&mut self, first: u32) -> Option<u32> {
        self.retired = true;
        let (slots, next) = self.some_slots(first);
        for slot in slots {
            if self.at(slot).told.is_some() {
                self.change(slot);
            }
        }
        next
    }
}

#[cfg(test)]
mod tests;
