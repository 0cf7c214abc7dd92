//! A peer: its lanes, and what waits to be read from it.

pub(crate) mod peers;
pub(crate) mod repairs;
pub(crate) mod turns;

use crate::id::{MAX_RAILS, PeerId};
use crate::lane::NO_LANE;
use crate::limits::CLASSES;
use crate::page::list::{List, Queued, Validating};
use crate::regions::NO_REGION;
use crate::time::Time;

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
    pub(crate) life: u32,
    pub(crate) state: PeerState,
    /// Classes in which it is ready, and per class the rails that it waits for: its places in the
    /// queues for turns.
    pub(crate) ready: u8,
    pub(crate) capped: [u16; CLASSES],
    /// Rails with a lane that may have room.
    pub(crate) room: u16,
    /// Lanes up, and lanes whose places are not free.
    pub(crate) lanes_up: u16,
    pub(crate) lanes_all: u16,
    /// First of the dead lanes: quiet ones whose wrs wait to be posted again.
    pub(crate) dead_lanes: u16,
    /// First of the quiet lanes whose only wr left is suspected of having killed it.
    pub(crate) suspects: u16,
    /// The last of them, while there are some.
    pub(crate) suspects_end: u16,
    /// The lane that is kept for suspects, while there are some.
    pub(crate) trial: u16,
    /// It stands in the queue of peers with suspects.
    pub(crate) in_trials: bool,
    /// Some READs of it are not posted: a region of it has faults that count.
    pub(crate) faulty: bool,
    /// First of its regions.
    pub(crate) remotes: u16,
    /// One lane of the circle of each rail.
    pub(crate) lanes: [u16; MAX_RAILS],
    pub(crate) queue: [List<Queued>; CLASSES],
    pub(crate) validate: List<Validating>,
    /// When a suspect was last tried, and how many bytes the peer had given by then.
    pub(crate) tried: (Time, u64),
    /// Pages submitted since it was added.
    pub(crate) submitted: u64,
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
    /// Pages that failed by their own fault, or were not read because others had.
    pub faults: u64,
    /// Pages whose deadline passed, or that were cancelled with their peer.
    pub late: u64,
}

impl Peer {
    pub(crate) const EMPTY: Self = Self {
        life: 0,
        state: PeerState::Free,
        ready: 0,
        capped: [0; CLASSES],
        room: 0,
        lanes_up: 0,
        lanes_all: 0,
        dead_lanes: NO_LANE,
        suspects: NO_LANE,
        suspects_end: NO_LANE,
        trial: NO_LANE,
        in_trials: false,
        faulty: false,
        remotes: NO_REGION,
        lanes: [NO_LANE; MAX_RAILS],
        queue: [List::EMPTY; CLASSES],
        validate: List::EMPTY,
        tried: (Time::ZERO, 0),
        submitted: 0,
        stats: PeerStats { pages: 0, bytes: 0, misses: 0, faults: 0, late: 0 },
    };

    pub(crate) fn id(&self, index: u16) -> PeerId {
        PeerId { index, life: self.life }
    }

    /// Pages that have been submitted and are not retired.
    pub(crate) fn in_flight(&self) -> u64 {
        let PeerStats { pages, misses, faults, late, .. } = self.stats;
        self.submitted - (pages + misses + faults + late)
    }

    /// Whether anything of `class` waits. Validating READs and wrs of dead lanes go with the
    /// urgent.
    #[inline]
    pub(crate) fn has_work(&self, class: usize) -> bool {
        !self.queue[class].is_empty()
            || (class == 0 && (!self.validate.is_empty() || self.dead_lanes != NO_LANE))
    }
}
