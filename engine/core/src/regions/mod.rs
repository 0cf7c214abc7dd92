//! The tables of regions: destination memory of this engine, and memory that peers have published.

pub(crate) mod faults;

use self::faults::Faults;
use crate::id::MAX_RAILS;
use crate::provider::RailKeys;

/// In links: no region.
pub(crate) const NO_REGION: u16 = u16::MAX;

/// The place of a remote region.
#[derive(Clone, Debug)]
pub(crate) struct RemotePlace {
    pub(crate) used: bool,
    /// The next region of the same peer.
    pub(crate) next: u16,
    /// Address of the publication table; 0 without one.
    pub(crate) table: u64,
    /// The peer's keys, by the peer's rails.
    pub(crate) keys: RailKeys,
    pub(crate) table_keys: RailKeys,
    pub(crate) faults: Faults,
}

impl RemotePlace {
    pub(crate) const FREE: Self = Self {
        used: false,
        next: NO_REGION,
        table: 0,
        keys: [0; MAX_RAILS],
        table_keys: [0; MAX_RAILS],
        faults: Faults::NONE,
    };
}

/// The place of a local region.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LocalPlace {
    pub(crate) used: bool,
    /// Rails on the region's NUMA node; all rails if the node is not known.
    pub(crate) near: u16,
    pub(crate) keys: RailKeys,
}

impl LocalPlace {
    pub(crate) const FREE: Self = Self { used: false, near: 0, keys: [0; MAX_RAILS] };
}

/// The tables of regions.
///
/// Invariant: pages and slots name places by number, and a place is in use for as long as a page in
/// flight names it. No place of `remotes` below `first_free_remote` is free.
#[derive(Debug)]
pub(crate) struct Regions<'s> {
    pub(crate) locals: &'s mut [LocalPlace],
    pub(crate) remotes: &'s mut [RemotePlace],
    pub(crate) first_free_remote: usize,
}

impl<'s> Regions<'s> {
    pub(crate) const fn new(locals: &'s mut [LocalPlace], remotes: &'s mut [RemotePlace]) -> Self {
        Self { locals, remotes, first_free_remote: 0 }
    }

    /// The first free place for a remote region.
    pub(crate) fn find_free_remote(&self) -> Option<usize> {
        let free = self.remotes[self.first_free_remote..].iter().position(|remote| !remote.used);
        free.map(|at| at + self.first_free_remote)
    }

    /// Frees the places of the regions of a removed peer: the list that begins with `first`.
    pub(crate) fn free_remotes(&mut self, mut first: u16) {
        while first != NO_REGION {
            let place = usize::from(first);
            self.first_free_remote = self.first_free_remote.min(place);
            first = core::mem::replace(&mut self.remotes[place], RemotePlace::FREE).next;
        }
    }
}
