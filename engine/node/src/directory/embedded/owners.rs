//! The owners that a shard knows.

use std::collections::HashMap;
use std::ops::{Index, IndexMut};
use std::time::Instant;

use kvrail::session::Epoch;

use super::wire::Lease;

/// Owners at places, by their epochs.
pub(super) struct Owners {
    max: usize,
    places: Vec<OwnerState>,
    free: Vec<u32>,
    /// Those whose end was not noticed.
    by_epoch: HashMap<Epoch, u32>,
    next_life: u64,
}

/// An owner at a place.
pub(super) struct OwnerState {
    pub(super) lease: Lease,
    /// Counted by the shard: places are used again, and an owner may come back.
    pub(super) life: u64,
    /// When the lease ends.
    pub(super) until: Instant,
    /// The first record, or none: `u32::MAX`.
    pub(super) first: u32,
    /// The lease has not run out, as far as was noticed.
    pub(super) in_use: bool,
}

impl OwnerState {
    /// Whether its records count.
    pub(super) fn is_alive(&self, now: Instant) -> bool {
        self.in_use && now < self.until
    }
}

impl Owners {
    pub(super) fn new(max: usize) -> Self {
        let (places, free) = (Vec::new(), Vec::new());
        Self { max, places, free, by_epoch: HashMap::new(), next_life: 1 }
    }

    pub(super) fn find(&self, epoch: Epoch) -> Option<u32> {
        self.by_epoch.get(&epoch).copied()
    }

    /// Adds an owner that is not known. `None`: there are too many.
    pub(super) fn add(&mut self, lease: Lease, until: Instant) -> Option<u32> {
        let (epoch, life) = (lease.owner.epoch, self.next_life);
        let new = OwnerState { lease, life, until, first: u32::MAX, in_use: true };
        let at = match self.free.pop() {
            Some(at) => {
                self.places[at as usize] = new;
                at
            }
            None if self.places.len() < self.max => {
                self.places.push(new);
                // `max` is below 2^32.
                (self.places.len() - 1) as u32
            }
            None => return None,
        };
        self.next_life += 1;
        self.by_epoch.insert(epoch, at);
        Some(at)
    }

    /// The owner's lease has run out: its records do not count any more. `false`: that was known.
    pub(super) fn die(&mut self, at: u32) -> bool {
        let owner = &mut self.places[at as usize];
        let was_alive = std::mem::replace(&mut owner.in_use, false);
        if was_alive {
            self.by_epoch.remove(&owner.lease.owner.epoch);
        }
        was_alive
    }

    /// A dead owner's last record was removed: its place is free.
    pub(super) fn forget(&mut self, at: u32) {
        self.free.push(at);
    }
}

impl Index<u32> for Owners {
    type Output = OwnerState;

    fn index(&self, at: u32) -> &OwnerState {
        &self.places[at as usize]
    }
}

impl IndexMut<u32> for Owners {
    fn index_mut(&mut self, at: u32) -> &mut OwnerState {
        &mut self.places[at as usize]
    }
}
