//! The state of one peer: its lanes, and its pages that wait to be posted or validated.

pub(crate) mod circles;
pub(crate) mod missing;
pub(crate) mod peers;
pub(crate) mod repairs;
pub(crate) mod turns;

use bitflags::bitflags;

use self::circles::Circles;
use crate::id::PeerId;
use crate::lane::NO_LANE;
use crate::limits::CLASSES;
use crate::page::list::{List, Queued, Validating};
use crate::regions::NO_REGION;
use crate::time::Time;

/// Stands for the seat of a peer without lanes.
pub(crate) const NO_SEAT: u16 = u16::MAX;

/// The state of a peer's place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PeerState {
    /// The place is free.
    Free,
    /// The peer has been added.
    Up,
    /// The peer has been removed. Its place becomes free when its lanes are quiet and its pages are
    /// retired.
    Leaving,
}

/// The place of a peer.
// A peer without lanes costs at most 256 bytes in all (storage/room.rs), so nothing here is by rail
// except for the circles.
#[derive(Debug)]
#[repr(align(16))]
pub(crate) struct Peer {
    pub(crate) life: u32,
    pub(crate) state: PeerState,
    /// In which queues of ready peers the peer is: a bit for each class.
    pub(crate) ready: u8,
    /// Its place in the queues of rails while it has lanes, `NO_SEAT` otherwise.
    pub(crate) seat: u16,
    /// How many places of lanes the peer has in all, those of lanes that have failed included.
    pub(crate) lanes_all: u16,
    /// For each class, the first of the dead lanes: quiet lanes whose wrs wait to be posted again.
    /// A dead lane is in the list of its oldest wr ([`Circles::turn_of`]).
    pub(crate) dead_lanes: [u16; CLASSES],
    /// First of the quiet lanes whose only remaining wr is a suspect.
    pub(crate) suspects: u16,
    /// Last of these lanes, if there are any.
    pub(crate) suspects_end: u16,
    /// The lane that is kept for suspects, if there are any.
    pub(crate) trial: u16,
    /// Whether the peer is in the queue of peers with suspects.
    pub(crate) in_trials: bool,
    /// Whether some pages of the peer are set aside, and whether some pools of it are gone.
    pub(crate) forbidden: Forbidden,
    /// First of the peer's regions.
    pub(crate) remotes: u16,
    /// The lanes that are up.
    pub(crate) circles: Circles,
    pub(crate) queue: [List<Queued>; CLASSES],
    /// The pages that wait for their validating READ ([`Circles::turn_of`]).
    pub(crate) validate: [List<Validating>; CLASSES],
    /// When a suspect was last tried, and `stats.bytes` at that time.
    pub(crate) tried: (Time, u64),
    /// Pages submitted since the peer was added, without those that were withdrawn.
    pub(crate) submitted: u64,
    pub(crate) stats: PeerStats,
}

bitflags! {
    /// Why pages of a peer may not be read now.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(crate) struct Forbidden: u8 {
        /// Some are set aside for a while.
        const ASIDE = 1;
        /// Some are of pools that are gone, which stays so until the peer is removed.
        const GONE = 2;
    }
}

/// Counters of a peer since it was added.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PeerStats {
    /// Pages that arrived, and were validated unless that was not requested.
    pub pages: u64,
    /// Bytes that arrived: of pages, of pages that failed later, and 16 for each validating READ.
    pub bytes: u64,
    /// Pages that were misses.
    pub misses: u64,
    /// Pages that failed with `PageError::Fault` or `PageError::SetAside`.
    pub faults: u64,
    /// Pages whose deadline passed, or whose peer was removed first.
    pub late: u64,
    /// Pages that were withdrawn before they had arrived. The count ends at the largest number.
    pub withdrawn: u32,
    /// How often the peer lost its last lane of a class, so that its lanes of the other class
    /// carried the work.
    pub detours: u32,
}

impl PeerStats {
    pub(crate) fn count_detour(&mut self) {
        self.detours = self.detours.saturating_add(1);
    }
}

impl Peer {
    pub(crate) const EMPTY: Self = Self {
        life: 0,
        state: PeerState::Free,
        ready: 0,
        seat: NO_SEAT,
        lanes_all: 0,
        dead_lanes: [NO_LANE; CLASSES],
        suspects: NO_LANE,
        suspects_end: NO_LANE,
        trial: NO_LANE,
        in_trials: false,
        forbidden: Forbidden::empty(),
        remotes: NO_REGION,
        circles: Circles::EMPTY,
        queue: [List::EMPTY; CLASSES],
        validate: [List::EMPTY; CLASSES],
        tried: (Time::ZERO, 0),
        submitted: 0,
        stats: PeerStats { pages: 0, bytes: 0, misses: 0, faults: 0, late: 0, withdrawn: 0, detours: 0 },
    };

    pub(crate) fn id(&self, index: u16) -> PeerId {
        PeerId { index, life: self.life }
    }

    /// Pages that have been submitted and are not retired.
    pub(crate) fn in_flight(&self) -> u64 {
        let PeerStats { pages, misses, faults, late, .. } = self.stats;
        self.submitted - (pages + misses + faults + late)
    }

    /// Whether work of `class` waits. Validating READs and wrs of dead lanes belong to the urgent
    /// class, unless each class has lanes of its own.
    #[inline]
    pub(crate) fn has_work(&self, class: usize) -> bool {
        !self.queue[class].is_empty() || !self.validate[class].is_empty() || self.dead_lanes[class] != NO_LANE
    }
}
