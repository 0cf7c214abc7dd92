//! What is known of the lanes that a peer misses: those that it has lost, path by path, and its
//! first ones.

use crate::class::Class;
use crate::limits::{CLASSES, MAX_RAILS};
use crate::time::Time;

/// Stands for the place in the heap of a peer that is not in it.
pub(super) const OUT: u16 = u16::MAX;
/// In links: no path.
pub(super) const NO_PATH: u16 = u16::MAX;
/// In links: no entry of lost lanes.
pub(super) const NO_ENTRY: u16 = u16::MAX;

/// One path of a peer on which lanes have failed: all its lanes over one local rail.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Path {
    /// The local rail.
    pub(super) rail: u8,
    /// The next path of the peer, or the next free one.
    pub(super) next: u16,
    /// The first entry of lanes that failed and have not been replaced.
    pub(super) lost: u16,
    /// The kind of the last request. The search for the next one begins behind it, so that the
    /// peer's rails and the classes take turns.
    pub(super) last: LaneKind,
    /// Consecutive failures, for the back-off.
    pub(super) failures: u8,
    /// When the next lane may be requested.
    pub(super) retry_at: Time,
}

/// The rail of the peer that a lane over a path leads to, and the lane's class.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LaneKind(u8);

impl LaneKind {
    const COUNT: usize = MAX_RAILS * CLASSES;

    /// The last of all kinds.
    const LAST: Self = Self(Self::COUNT as u8 - 1);

    pub(super) fn new(remote_rail: usize, class: Class) -> Self {
        // There are 32 kinds.
        Self((remote_rail * CLASSES + class.index()) as u8)
    }

    fn place(self) -> usize {
        usize::from(self.0)
    }

    pub(super) fn remote_rail(self) -> usize {
        self.place() / CLASSES
    }

    pub(super) fn class(self) -> Class {
        Class::ALL[self.place() % CLASSES]
    }

    /// How many steps it is from this kind on to `other`, if the first kind comes after the last: 1
    /// to the next one, and as many as there are kinds to this one itself.
    pub(super) fn steps_to(self, other: Self) -> usize {
        (other.place() + Self::COUNT - self.place() - 1) % Self::COUNT + 1
    }
}

/// A request for a lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Request {
    pub(crate) peer: u16,
    /// The local rail.
    pub(crate) rail: usize,
    /// The rail of the peer.
    pub(crate) remote_rail: usize,
    /// The class of the lost lane.
    pub(crate) class: Class,
}

/// Lanes of one kind that were lost over one path: at least one.
// There is an entry for each lane of the storage (storage/room.rs): bytes, not words.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lost {
    pub(super) kind: LaneKind,
    /// Lanes that are missing, 255 at most: further ones are not made again.
    pub(super) missing: u8,
    /// How many of these have been requested and not been answered.
    pub(super) requested: u8,
    /// The next entry of the path, or the next free one.
    pub(super) next: u16,
}

const _: () = assert!(size_of::<Path>() == 16 && size_of::<Lost>() == 6);

impl Lost {
    pub(crate) const FREE: Self = Self { kind: LaneKind::LAST, missing: 0, requested: 0, next: NO_ENTRY };

    pub(super) fn is_wanted(self) -> bool {
        self.missing > self.requested
    }
}

impl Path {
    pub(crate) const NEW: Self = Self {
        rail: 0,
        next: NO_PATH,
        lost: NO_ENTRY,
        last: LaneKind::LAST,
        failures: 0,
        retry_at: Time::ZERO,
    };

    /// Whether nothing of the path is worth keeping.
    pub(super) const fn is_whole(&self) -> bool {
        self.lost == NO_ENTRY && self.failures == 0
    }
}

/// How it stands with the first lanes of a peer that has none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum First {
    /// None are to be made.
    NotWanted,
    /// They are to be requested from [`Paths::retry_at`] on.
    Wanted,
    /// They have been requested, and no lane has been attached since.
    Requested,
}

/// What is known of the missing lanes of one peer.
#[derive(Debug)]
pub(crate) struct Paths {
    /// The first of the paths on which a lane has failed.
    pub(super) first_path: u16,
    /// The peer's place in the heap, or `OUT`.
    pub(super) heap: u16,
    /// The first lanes of the peer, where lanes are made on demand.
    pub(super) first: First,
    /// How often these could not be made, in a row.
    pub(super) failures: u8,
    /// The serial numbers of the two keys.
    pub(super) serials: [u32; 2],
    /// When the first lanes may be requested.
    pub(super) retry_at: Time,
    /// The times of the key by which the heap is ordered, and of the key of the last request.
    pub(super) times: [Time; 2],
}

/// A time, and a serial number that orders requests made at the same time.
pub(super) type Key = (Time, u32);

impl Paths {
    pub(crate) const NEW: Self = Self {
        first_path: NO_PATH,
        heap: OUT,
        first: First::NotWanted,
        failures: 0,
        serials: [0; 2],
        retry_at: Time::ZERO,
        times: [Time::ZERO; 2],
    };

    /// The key by which the heap is ordered.
    pub(super) const fn key(&self) -> Key {
        (self.times[0], self.serials[0])
    }

    /// The key of the last request.
    pub(super) const fn requested(&self) -> Key {
        (self.times[1], self.serials[1])
    }

    pub(super) fn set_key(&mut self, (time, serial): Key) {
        (self.times[0], self.serials[0]) = (time, serial);
    }

    pub(super) fn set_requested(&mut self, (time, serial): Key) {
        (self.times[1], self.serials[1]) = (time, serial);
    }
}
