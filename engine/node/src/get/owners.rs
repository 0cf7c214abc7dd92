//! The owners that the node has learnt of: where they are, and how near.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use kvrail::session::Epoch;
use kvrail_core::time::Time;

use crate::directory::Owner;

/// The most owners that are remembered. Beyond it those without a connection are forgotten.
const MAX_OWNERS: usize = 4_096;

/// An owner, and what this node's readers have found out about it.
#[derive(Debug)]
pub(crate) struct KnownOwner {
    pub(crate) owner: Owner,
    /// How many of the node's readers are connected to it.
    connections: AtomicU32,
    /// It is not asked before this time.
    unreachable_until: AtomicU64,
}

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

    pub(crate) fn knows(&self, epoch: Epoch) -> bool {
        self.owners.read().unwrap_or_else(PoisonError::into_inner).contains_key(&epoch)
    }

    /// Learns of an owner. One that is known stays as it is.
    pub(crate) fn learn(&self, owner: Owner) {
        let mut owners = self.owners.write().unwrap_or_else(PoisonError::into_inner);
        if owners.len() >= MAX_OWNERS {
            owners.retain(|_, known| known.connections.load(Ordering::Relaxed) > 0);
        }
        owners.entry(owner.epoch).or_insert_with(|| {
            let (connections, unreachable_until) = (AtomicU32::new(0), AtomicU64::new(0));
            Arc::new(KnownOwner { owner, connections, unreachable_until })
        });
    }

    /// Forgets an owner that is no more.
    pub(crate) fn forget(&self, epoch: Epoch) {
        self.owners.write().unwrap_or_else(PoisonError::into_inner).remove(&epoch);
    }
}
