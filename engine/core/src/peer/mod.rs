//! The state of one peer: its lanes, and its pages that wait to be posted or validated.

pub(crate) mod circles;
pub(crate) mod missing;
pub(crate) mod peers;
pub(crate) mod repairs;
pub(crate) mod reports;
pub(crate) mod turns;
pub(crate) mod waits;

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
    /// The trial of a suspect that was begun last.
    pub(crate) tried: Trial,
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

/// A suspect is being tried alone. Meanwhile one other lane of the same path is watched, the
/// *witness*.
// Two words, since every peer has one (storage/room.rs).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Trial {
    began: Time,
    /// When a READ was last seen to have completed on a witness: units of 1,024 ns after the
    /// beginning, rounded down, at most the largest number.
    heard: u32,
    pub(crate) witness: u16,
    /// The low bits of the number of the witness's oldest wr when it was last looked at.
    witness_tail: u16,
}

impl Trial {
    pub(crate) const fn begin(now: Time) -> Self {
        Self { began: now, heard: 0, witness: NO_LANE, witness_tail: 0 }
    }

    /// Watches another lane, whose oldest wr is number `tail`.
    pub(crate) fn watch(&mut self, witness: u16, tail: u32) {
        (self.witness, self.witness_tail) = (witness, tail as u16);
    }

    /// Looks at the witness, whose oldest wr is number `tail` now.
    pub(crate) fn look(&mut self, tail: u32, now: Time) {
        if self.witness_tail != tail as u16 {
            self.witness_tail = tail as u16;
            self.heard = u32::try_from(now.since(self.began).0 >> 10).unwrap_or(u32::MAX);
        }
    }

    /// Whether the path carried a READ in the second half of the trial, which fails now. A port
    /// that goes down loses a READ that is under way then, and the READ fails a whole retry time
    /// later, in which the path carries nothing. This time is the longer part of the trial, since a
    /// READ that is posted alone takes little of it before. So a path that carried something in the
    /// second half was not down.
    pub(crate) fn path_was_fine(&self, now: Time) -> bool {
        self.heard > 0 && u64::from(self.heard) << 10 >= now.since(self.began).0 / 2
    }
}

/// Counters of a peer since it was added.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PeerStats {
    /// Pages that arrived, and were validated unless that was not requested.
    pub pages: u64,
    /// Bytes that arrived: of pages, also those that failed later, and of table entries, also
    /// those that a READ over gaps brought between two wanted ones.
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
        tried: Trial::begin(Time::ZERO),
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
