//! The owners that the node has learnt of: where they are, and how near.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use kvrail::session::Epoch;
use kvrail_core::time::{Nanos, Time};

use crate::directory::Owner;

/// The most owners that are remembered. Beyond it those without a connection are forgotten.
const MAX_OWNERS: usize = 4_096;

/// An owner, and what this node's readers have found out about it.
#[derive(Debug)]
pub(crate) struct KnownOwner {
    pub(crate) owner: Owner,
    /// How many of the node's readers are connected to it.
    connections: AtomicU32,
    /// It is not asked before this time; 0: it was reached, or never tried.
    unreachable_until: AtomicU64,
    /// When the directory is asked again where it is, if it is not reached.
    ask_again: AtomicU64,
}

/// How often the directory is asked where an owner is that is not reached.
const ASK_AGAIN: Nanos = Nanos::from_secs(1);

impl KnownOwner {
    pub(crate) fn connected(&self) {
        self.connections.fetch_add(1, Ordering::Relaxed);
        self.unreachable_until.store(0, Ordering::Relaxed);
    }

    pub(crate) fn disconnected(&self) {
        self.connections.fetch_sub(1, Ordering::Relaxed);
    }

    pub(crate) fn unreachable(&self, until: Time) {
        self.unreachable_until.store(until.0, Ordering::Relaxed);
    }

    /// How far it is: less is nearer.
    pub(crate) fn distance(&self, zone: &kvrail::NodeName, now: Time) -> u8 {
        if self.unreachable_until.load(Ordering::Relaxed) > now.0 {
            return 4;
        }
        let known = *zone != kvrail::NodeName::lossy("");
        let same_zone = known && self.owner.zone == *zone;
        match (self.connections.load(Ordering::Relaxed) > 0, same_zone) {
            (true, true) => 0,
            (false, true) => 1,
            (true, false) => 2,
            (false, false) => 3,
        }
    }
}

/// All owners that are known.
#[derive(Debug, Default)]
pub(crate) struct OwnerBook {
    owners: RwLock<HashMap<Epoch, Arc<KnownOwner>>>,
}

impl OwnerBook {
    pub(crate) fn get(&self, epoch: Epoch) -> Option<Arc<KnownOwner>> {
        self.owners.read().unwrap_or_else(PoisonError::into_inner).get(&epoch).cloned()
    }

    /// Whether the directory need not be asked where an owner is. For one that was not reached
    /// there it is asked once a second.
    pub(crate) fn knows(&self, epoch: Epoch, now: Time) -> bool {
        let owners = self.owners.read().unwrap_or_else(PoisonError::into_inner);
        let Some(known) = owners.get(&epoch) else { return false };
        let due = known.ask_again.load(Ordering::Relaxed);
        if known.unreachable_until.load(Ordering::Relaxed) == 0 || now.0 < due {
            return true;
        }
        // One of the threads that are here at a time asks.
        let next = (now + ASK_AGAIN).0;
        known.ask_again.compare_exchange(due, next, Ordering::Relaxed, Ordering::Relaxed).is_err()
    }

    /// Learns of an owner. One that is known stays as it is, unless it is somewhere else now.
    pub(crate) fn learn(&self, owner: Owner) {
        let mut owners = self.owners.write().unwrap_or_else(PoisonError::into_inner);
        if owners.len() >= MAX_OWNERS {
            owners.retain(|_, known| known.connections.load(Ordering::Relaxed) > 0);
        }
        let is_new = |known: &Arc<KnownOwner>| {
            known.owner.address != owner.address && known.connections.load(Ordering::Relaxed) == 0
        };
        if owners.get(&owner.epoch).is_none_or(is_new) {
            let (connections, unreachable_until) = (AtomicU32::new(0), AtomicU64::new(0));
            let ask_again = AtomicU64::new(0);
            let epoch = owner.epoch;
            let known = KnownOwner { owner, connections, unreachable_until, ask_again };
            owners.insert(epoch, Arc::new(known));
        }
    }

    /// Forgets an owner that is no more.
    pub(crate) fn forget(&self, epoch: Epoch) {
        self.owners.write().unwrap_or_else(PoisonError::into_inner).remove(&epoch);
    }
}
