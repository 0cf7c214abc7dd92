//! A peer: its lanes, and what waits to be read from it.

use crate::id::{MAX_RAILS, PeerId};
use crate::lane::NO_LANE;
use crate::page::{List, Queued, Validating};
use crate::provider::RailKeys;
use crate::time::Time;

/// Priority classes.
pub(crate) const CLASSES: usize = 2;

/// Where a peer is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PeerState {
    Free,
    Up,
    /// Removed; its lanes are dying, its place is not free yet.
    Leaving,
}

/// One peer's place.
#[derive(Debug)]
#[repr(align(64))]
pub(crate) struct Peer {
    pub(crate) life: u16,
    pub(crate) state: PeerState,
    /// In the ring of which classes.
    pub(crate) enrolled: u8,
    /// Rails with a lane that may have room.
    pub(crate) room: u16,
    /// Lanes up, and lanes whose places are not free.
    pub(crate) lanes_up: u16,
    pub(crate) lanes_all: u16,
    /// First of the quiet lanes whose wrs wait to be posted again.
    pub(crate) carcass: u16,
    /// Paths with lanes that are missing.
    pub(crate) missing: u16,
    /// One lane of the circle of each rail.
    pub(crate) lanes: [u16; MAX_RAILS],
    pub(crate) queue: [List<Queued>; CLASSES],
    /// What was put aside because it could not make its deadline.
    pub(crate) parked: [List<Queued>; CLASSES],
    pub(crate) validate: List<Validating>,
    pub(crate) stats: PeerStats,
}

/// What a peer has given since it was added.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PeerStats {
    /// Pages that arrived, validated where asked for.
    pub pages: u64,
    /// Bytes that arrived: of pages, of pages that failed later, and 16 for each validating READ.
    pub bytes: u64,
    /// Pages that were not the ones asked for.
    pub misses: u64,
    /// Pages that failed by their own fault.
    pub faults: u64,
    /// Pages whose deadline passed, or that were cancelled with their peer.
    pub late: u64,
}

impl Peer {
    pub(crate) const EMPTY: Self = Self {
        life: 0,
        state: PeerState::Free,
        enrolled: 0,
        room: 0,
        lanes_up: 0,
        lanes_all: 0,
        carcass: NO_LANE,
        missing: 0,
        lanes: [NO_LANE; MAX_RAILS],
        queue: [List::EMPTY; CLASSES],
        parked: [List::EMPTY; CLASSES],
        validate: List::EMPTY,
        stats: PeerStats { pages: 0, bytes: 0, misses: 0, faults: 0, late: 0 },
    };

    pub(crate) fn id(&self, index: u16) -> PeerId {
        PeerId { index, life: self.life }
    }

    /// Whether anything of `class` waits. Validating READs and wrs of dead lanes go with the urgent.
    #[inline]
    pub(crate) fn has_work(&self, class: usize) -> bool {
        !self.queue[class].is_empty()
            || (class == 0 && (!self.validate.is_empty() || self.carcass != NO_LANE))
    }
}

/// One path of a peer: all lanes over one local rail.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Path {
    /// Lanes that failed and have not been replaced, by the rail of the peer that they led to; and of
    /// these, how many somebody is making just now.
    pub(crate) lost: [Lost; MAX_RAILS],
    /// Failures in a row, for the back-off.
    pub(crate) failures: u8,
    pub(crate) retry_at: Time,
}

impl Path {
    pub(crate) const NEW: Self = Self { lost: [Lost::NONE; MAX_RAILS], failures: 0, retry_at: Time::ZERO };

    pub(crate) fn missing(&self) -> u32 {
        self.lost.iter().map(|lost| u32::from(lost.missing)).sum()
    }

    pub(crate) fn asked(&self) -> u32 {
        self.lost.iter().map(|lost| u32::from(lost.asked)).sum()
    }

    /// The rail of the peer to which a lane is missing that nobody is making.
    pub(crate) fn wanted(&self) -> Option<usize> {
        self.lost.iter().position(|lost| lost.missing > lost.asked)
    }
}

/// Lanes lost between one local and one remote rail.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lost {
    pub(crate) missing: u16,
    pub(crate) asked: u16,
}

impl Lost {
    const NONE: Self = Self { missing: 0, asked: 0 };
}

/// A remote region's place.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Remote {
    pub(crate) used: bool,
    pub(crate) peer: u16,
    pub(crate) table: u64,
    pub(crate) keys: RailKeys,
    pub(crate) table_keys: RailKeys,
}

impl Remote {
    pub(crate) const FREE: Self =
        Self { used: false, peer: 0, table: 0, keys: [0; MAX_RAILS], table_keys: [0; MAX_RAILS] };
}

/// A local region's place.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Local {
    pub(crate) used: bool,
    /// Rails on the region's NUMA node; all of them where that is not known.
    pub(crate) near: u16,
    pub(crate) keys: RailKeys,
}

impl Local {
    pub(crate) const FREE: Self = Self { used: false, near: 0, keys: [0; MAX_RAILS] };
}
