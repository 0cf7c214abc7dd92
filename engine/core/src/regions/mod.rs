//! The regions that an engine knows: its own destination memory, and what peers have published.

pub(crate) mod faults;

use self::faults::Faults;
use crate::id::MAX_RAILS;
use crate::provider::RailKeys;

/// No region, in links.
pub(crate) const NO_REGION: u16 = u16::MAX;

/// A remote region's place.
#[derive(Clone, Debug)]
pub(crate) struct RemotePlace {
    pub(crate) used: bool,
    /// The next region of the same peer.
    pub(crate) next: u16,
    pub(crate) table: u64,
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

/// A local region's place.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LocalPlace {
    pub(crate) used: bool,
    /// Rails on the region's NUMA node; all of them where that is not known.
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

    /// A free place for a region of a peer.
    pub(crate) fn find_free_remote(&self) -> Option<usize> {
        let free = self.remotes[self.first_free_remote..].iter().position(|remote| !remote.used);
        free.map(|at| at + self.first_free_remote)
    }

    /// Frees the places of a list of regions of a peer that is gone.
    pub(crate) fn free_remotes(&mut self, mut first: u16) {
        while first != NO_REGION {
            let place = usize::from(first);
            self.first_free_remote = self.first_free_remote.min(place);
            first = core::mem::replace(&mut self.remotes[place], RemotePlace::FREE).next;
        }
    }
}
