//! The records of a shard, in memory: each in the list of its key and in that of its owner.
//!
//! Time is an argument. Every call takes a bounded number of steps, beside those for its own keys
//! and records.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::time::Instant;

use hashbrown::HashTable;
use kvrail::session::{Epoch, PoolId};
use kvrail_core::table::{Generation, KeyTag};

use super::owners::{OwnerState, Owners};
use super::wire::{Announced, KnownOwner, Lease};
use crate::directory::MAX_OWNERS;
use crate::record::Record;

/// No slot.
const NONE: u32 = u32::MAX;
/// Dead owners' records that one call removes.
const REMOVED: usize = 256;
/// Leases whose end one call notices. The records of others are passed over all the same.
const NOTICED: usize = 16;

/// The records of a shard.
pub(super) struct Table {
    limit: usize,
    hasher: RandomState,
    /// The first slot of each key.
    keys: HashTable<u32>,
    slots: Vec<Slot>,
    /// The first slot that is not in use; `next` links them.
    free: u32,
    /// Records, those of dead owners included.
    used: usize,
    owners: Owners,
    /// Leases by their ends, as they were when the entry was made.
    ends: BinaryHeap<Reverse<(Instant, u32, u64)>>,
    /// Owners whose lease has run out and that still have records.
    dying: VecDeque<u32>,
}

/// A record.
struct Slot {
    tag: u128,
    generation: Generation,
    pool: PoolId,
    slot: u32,
    owner: u32,
    /// The next record of the key, or the next free slot.
    next: u32,
    /// The record before and the record after it in the list of its owner.
    before: u32,
    after: u32,
}

const _: () = assert!(size_of::<Slot>() == 48 || size_of::<Slot>() == 64);

impl Table {
    /// No record; `limit` at most, and so many owners.
    pub(super) fn new(limit: usize, max_owners: usize) -> Self {
        Self {
            limit: limit.min(NONE as usize),
            hasher: RandomState::new(),
            keys: HashTable::new(),
            slots: Vec::new(),
            free: NONE,
            used: 0,
            owners: Owners::new(max_owners),
            ends: BinaryHeap::new(),
            dying: VecDeque::new(),
        }
    }

    /// How many records there are, those of dead owners that were not removed yet included.
    pub(super) const fn len(&self) -> usize {
        self.used
    }

    fn hash(&self, tag: u128) -> u64 {
        self.hasher.hash_one(tag)
    }

    fn first(&self, tag: u128) -> u32 {
        let found = self.keys.find(self.hash(tag), |&at| self.slots[at as usize].tag == tag);
        found.copied().unwrap_or(NONE)
    }

    /// The places of the key's page at owners whose lease has not run out.
    pub(super) fn places(
        &self,
        tag: KeyTag,
        now: Instant,
    ) -> impl Iterator<Item = (Epoch, Generation, PoolId, u32)> + '_ {
        let mut at = self.first(tag.0);
        std::iter::from_fn(move || {
            while at != NONE {
                let slot = &self.slots[at as usize];
                at = slot.next;
                let owner = &self.owners[slot.owner];
                if owner.is_alive(now) {
                    return Some((owner.lease.owner.epoch, slot.generation, slot.pool, slot.slot));
                }
            }
            None
        })
    }

    /// The owner with this epoch, if its lease has not run out.
    pub(super) fn owner(&self, epoch: Epoch, now: Instant) -> Option<&Lease> {
        let owner = &self.owners[self.owners.find(epoch)?];
        owner.is_alive(now).then_some(&owner.lease)
    }

    /// Begins the owner's lease anew. `None`: it is not known, and there are as many owners as may
    /// be.
    pub(super) fn renew(&mut self, lease: Lease, now: Instant) -> Option<KnownOwner> {
        self.tidy(now);
        let (at, known) = self.heard(lease, now)?;
        Some(KnownOwner::new(self.owners[at].life, known))
    }

    /// Notes that an owner lives. Returns its place, and whether it was known.
    fn heard(&mut self, lease: Lease, now: Instant) -> Option<(u32, bool)> {
        let until = now + lease.lease;
        if let Some(at) = self.owners.find(lease.owner.epoch) {
            if self.owners[at].is_alive(now) {
                let owner = &mut self.owners[at];
                (owner.lease, owner.until) = (lease, until);
                return Some((at, true));
            }
            // Its lease has run out, and no call has removed it yet: another life begins.
            self.die(at);
        }
        let at = self.owners.add(lease, until)?;
        self.ends.push(Reverse((until, at, self.owners[at].life)));
        Some((at, false))
    }

    /// Takes in an owner's records. `None`: the owner is not known, and there are as many owners as
    /// may be.
    pub(super) fn announce(&mut self, lease: Lease, records: &[Record], now: Instant) -> Option<Announced> {
        self.tidy(now);
        let (at, _) = self.heard(lease, now)?;
        let (mut kept, mut limit) = (0, 0);
        for record in records {
            match self.put(at, record, now) {
                Put::Kept => kept += 1,
                Put::TooManyOwners => {}
                Put::Full => limit = self.limit as u32,
            }
        }
        Some(Announced::new(self.owners[at].life, kept, limit))
    }

    fn put(&mut self, owner: u32, record: &Record, now: Instant) -> Put {
        let (tag, mut at, mut others) = (record.tag.0, self.first(record.tag.0), 0);
        while at != NONE {
            let slot = &mut self.slots[at as usize];
            let next = slot.next;
            if slot.owner == owner {
                (slot.generation, slot.pool, slot.slot) = (record.generation, record.pool, record.slot);
                return Put::Kept;
            }
            if self.owners[slot.owner].is_alive(now) {
                others += 1;
            } else {
                self.remove(at);
            }
            at = next;
        }
        if others >= MAX_OWNERS {
            return Put::TooManyOwners;
        }
        if self.used >= self.limit && !self.remove_a_dead_record(now) {
            return Put::Full;
        }
        self.insert(tag, owner, record);
        Put::Kept
    }

    fn insert(&mut self, tag: u128, owner: u32, record: &Record) {
        let Record { generation, pool, slot, .. } = *record;
        let after = self.owners[owner].first;
        // The newest record of a key comes first.
        let next = self.first(tag);
        let new = Slot { tag, generation, pool, slot, owner, next, before: NONE, after };
        let at = self.free;
        let at = if at == NONE {
            self.slots.push(new);
            // Fewer than `limit` slots were in use, which is below 2^32.
            (self.slots.len() - 1) as u32
        } else {
            self.free = self.slots[at as usize].next;
            self.slots[at as usize] = new;
            at
        };
        self.used += 1;
        if after != NONE {
            self.slots[after as usize].before = at;
        }
        self.owners[owner].first = at;
        let hash = self.hash(tag);
        if let Some(first) = self.keys.find_mut(hash, |&other| other == next) {
            *first = at;
        } else {
            let (slots, hasher) = (&self.slots, &self.hasher);
            self.keys.insert_unique(hash, at, |&at| hasher.hash_one(slots[at as usize].tag));
        }
    }

    /// Removes the record in slot `at` from both of its lists.
    fn remove(&mut self, at: u32) {
        let Slot { tag, owner, next, before, after, .. } = self.slots[at as usize];
        let hash = self.hash(tag);
        let mut other = self.first(tag);
        if other == at {
            if let Ok(entry) = self.keys.find_entry(hash, |&first| first == at) {
                if next == NONE {
                    entry.remove();
                } else {
                    *entry.into_mut() = next;
                }
            }
        } else {
            // A key has MAX_OWNERS records at most.
            while self.slots[other as usize].next != at {
                other = self.slots[other as usize].next;
            }
            self.slots[other as usize].next = next;
        }
        if before == NONE {
            self.owners[owner].first = after;
        } else {
            self.slots[before as usize].after = after;
        }
        if after != NONE {
            self.slots[after as usize].before = before;
        }
        self.slots[at as usize].next = self.free;
        self.free = at;
        self.used -= 1;
    }

    /// Forgets a record. `false`: it is not there, or has another generation.
    pub(super) fn withdraw(&mut self, record: &Record) -> bool {
        let Some(owner) = self.owners.find(record.owner) else { return false };
        let mut at = self.first(record.tag.0);
        while at != NONE {
            let slot = &self.slots[at as usize];
            if slot.owner == owner {
                let found = slot.generation == record.generation;
                if found {
                    self.remove(at);
                }
                return found;
            }
            at = slot.next;
        }
        false
    }

    /// Notices the ends of leases, and removes records of dead owners: a bounded number of each.
    pub(super) fn tidy(&mut self, now: Instant) {
        for _ in 0..NOTICED {
            if !self.notice_an_end(now) {
                break;
            }
        }
        for _ in 0..REMOVED {
            if !self.remove_a_record_of_the_dying() {
                break;
            }
        }
    }

    /// Notices the end of one lease, if one has ended.
    fn notice_an_end(&mut self, now: Instant) -> bool {
        let Some(&Reverse((end, at, life))) = self.ends.peek() else { return false };
        if end > now {
            return false;
        }
        self.ends.pop();
        let OwnerState { life: present, until, in_use, .. } = self.owners[at];
        if in_use && present == life {
            if until > now {
                // It was heard of meanwhile.
                self.ends.push(Reverse((until, at, life)));
            } else {
                self.die(at);
            }
        }
        true
    }

    /// The owner's lease has run out.
    fn die(&mut self, at: u32) {
        if self.owners.die(at) {
            self.dying.push_back(at);
        }
    }

    fn remove_a_record_of_the_dying(&mut self) -> bool {
        let Some(&owner) = self.dying.front() else { return false };
        let first = self.owners[owner].first;
        if first == NONE {
            self.dying.pop_front();
            self.owners.forget(owner);
        } else {
            self.remove(first);
        }
        true
    }

    /// Makes room by removing one record of a dead owner, if there is one.
    fn remove_a_dead_record(&mut self, now: Instant) -> bool {
        let before = self.used;
        // An owner without records is forgotten on the way.
        for _ in 0..NOTICED {
            let progress = self.remove_a_record_of_the_dying() || self.notice_an_end(now);
            if self.used < before {
                return true;
            }
            if !progress {
                break;
            }
        }
        false
    }
}

/// What has become of an announced record.
enum Put {
    Kept,
    /// As many other owners have the page as an answer holds.
    TooManyOwners,
    Full,
}

#[cfg(test)]
mod tests;
