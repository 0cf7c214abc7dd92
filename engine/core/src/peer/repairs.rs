//! Which lost lane is requested next from the control path, and when.
//!
//! Every peer with a lane to be requested is in a heap, ordered by the earliest time of a request:
//! the earliest retry of its paths or, if later, the time of its last request. So peers take turns,
//! however slow the attempts are, and finding the next one takes as many steps as the heap is deep.

use crate::class::Class;
use crate::events::LaneLost;
use crate::limits::{CLASSES, MAX_RAILS, narrow};
use crate::ring::fifo::Fifo;
use crate::time::Time;

/// Stands for the place in the heap of a peer that is not in it.
const OUT: u16 = u16::MAX;

/// One path of a peer: all lanes over one local rail.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Path {
    /// Lanes that failed and have not been replaced, at the place of the kind of the lane.
    lost: [Lost; LaneKind::COUNT],
    /// The sum of `lost` over all kinds.
    total: Lost,
    /// The kind of the last request. The search for the next one begins behind it, so that the
    /// peer's rails and the classes take turns.
    last: LaneKind,
    /// Consecutive failures, for the back-off.
    pub(crate) failures: u8,
    /// When the next lane may be requested.
    pub(crate) retry_at: Time,
}

/// The rail of the peer that a lane over a path leads to, and the lane's class.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct LaneKind(u8);

impl LaneKind {
    const COUNT: usize = MAX_RAILS * CLASSES;

    /// The last of all kinds.
    const LAST: Self = Self(Self::COUNT as u8 - 1);

    fn new(remote_rail: usize, class: Class) -> Self {
        // There are 32 kinds.
        Self((remote_rail * CLASSES + class.index()) as u8)
    }

    fn place(self) -> usize {
        usize::from(self.0)
    }

    fn remote_rail(self) -> usize {
        self.place() / CLASSES
    }

    fn class(self) -> Class {
        Class::ALL[self.place() % CLASSES]
    }

    /// All kinds, those after this one first.
    fn and_after(self) -> impl Iterator<Item = Self> {
        (1..=Self::COUNT).map(move |step| Self(((self.place() + step) % Self::COUNT) as u8))
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

/// Lanes of one kind that were lost over one path.
#[derive(Clone, Copy, Debug)]
struct Lost {
    /// Lanes that are missing.
    missing: u16,
    /// How many of these have been requested and not been answered.
    requested: u16,
}

impl Lost {
    const NONE: Self = Self { missing: 0, requested: 0 };

    fn is_wanted(self) -> bool {
        self.missing > self.requested
    }
}

impl Path {
    const NEW: Self = Self {
        lost: [Lost::NONE; LaneKind::COUNT],
        total: Lost::NONE,
        last: LaneKind::LAST,
        failures: 0,
        retry_at: Time::ZERO,
    };

    /// As [`NEW`](Self::NEW). Most peers leave without a missing lane, and then the kinds are not
    /// looked at.
    fn reset(&mut self) {
        let Self { lost, total, last, failures, retry_at } = self;
        if total.missing > 0 {
            *lost = Self::NEW.lost;
        }
        (*total, *last, *failures, *retry_at) = (Lost::NONE, LaneKind::LAST, 0, Time::ZERO);
    }
}

/// The paths of one peer.
#[derive(Debug)]
pub(crate) struct Paths {
    rails: [Path; MAX_RAILS],
    /// The peer's place in the heap, or `OUT`.
    heap: u16,
    /// The key by which the heap is ordered, and the key of the last request.
    key: Key,
    requested: Key,
}

/// A time, and a serial number that orders requests made at the same time.
type Key = (Time, u64);

impl Paths {
    pub(crate) const NEW: Self =
        Self { rails: [Path::NEW; MAX_RAILS], heap: OUT, key: (Time::ZERO, 0), requested: (Time::ZERO, 0) };

    pub(crate) fn rail(&mut self, rail: usize) -> &mut Path {
        &mut self.rails[rail]
    }
}

/// All paths of an engine's peers.
#[derive(Debug)]
pub(crate) struct Repairs<'s> {
    peers: &'s mut [Paths],
    heap: &'s mut [u16],
    len: usize,
    /// Missing lanes and requested lanes, over all paths.
    missing: u32,
    requested: u32,
    /// The most requested lanes
    /// ([`EngineConfig::reconnects`](crate::config::EngineConfig::reconnects)).
    limit: u32,
    /// The rails that are up.
    up: u16,
    /// When the engine was last polled. The caller has chosen not to take a request that was due
    /// then and is still open.
    polled: Time,
    serial: u64,
    /// Failed lanes that the control path has not taken yet.
    pub(crate) lost: Fifo<'s, LaneLost>,
}

impl<'s> Repairs<'s> {
    pub(crate) fn new(
        peers: &'s mut [Paths],
        heap: &'s mut [u16],
        lost: &'s mut [LaneLost],
        limit: u16,
        rails: usize,
    ) -> Self {
        Self {
            peers,
            heap,
            len: 0,
            missing: 0,
            requested: 0,
            limit: limit.into(),
            up: narrow((1_usize << rails) - 1),
            polled: Time::ZERO,
            serial: 0,
            lost: Fifo::new(lost),
        }
    }

    #[inline]
    pub(crate) fn path(&mut self, peer: u16, rail: usize) -> &mut Path {
        self.peers[usize::from(peer)].rail(rail)
    }

    /// Notes that a lane has failed. Another one may be requested from `retry_at` on.
    pub(crate) fn lane_lost(
        &mut self,
        peer: u16,
        rail: usize,
        remote_rail: usize,
        class: Class,
        retry_at: Time,
    ) {
        let path = self.path(peer, rail);
        path.lost[LaneKind::new(remote_rail, class).place()].missing += 1;
        path.total.missing += 1;
        path.retry_at = retry_at;
        self.missing += 1;
        self.update(peer);
    }

    /// Whether a lane of this kind has been requested and not been answered.
    pub(crate) fn is_requested(&mut self, peer: u16, rail: usize, remote_rail: usize, class: Class) -> bool {
        remote_rail < MAX_RAILS
            && self.path(peer, rail).lost[LaneKind::new(remote_rail, class).place()].requested > 0
    }

    /// Notes that a [requested](Self::is_requested) lane could not be connected. It may be
    /// requested again from `retry_at` on.
    pub(crate) fn request_failed(
        &mut self,
        peer: u16,
        rail: usize,
        remote_rail: usize,
        class: Class,
        retry_at: Time,
    ) {
        let path = self.path(peer, rail);
        path.lost[LaneKind::new(remote_rail, class).place()].requested -= 1;
        path.total.requested -= 1;
        path.retry_at = retry_at;
        self.requested -= 1;
        self.polled = Time::ZERO;
        self.update(peer);
    }

    /// Notes that a lane has been attached, which may answer a request. It replaces a lost lane of
    /// its class, or else one of the other class; and it answers a request for one of its class, or
    /// else for one of the other. So a lane of the wrong class leaves no request open for ever.
    pub(crate) fn attached(&mut self, peer: u16, rail: usize, remote_rail: usize, class: Class) {
        let path = self.path(peer, rail);
        let other = Class::ALL[CLASSES - 1 - class.index()];
        let kinds = [class, other].map(|class| LaneKind::new(remote_rail, class).place());
        let Some(replaced) = kinds.into_iter().find(|&kind| path.lost[kind].missing > 0) else { return };
        path.lost[replaced].missing -= 1;
        path.total.missing -= 1;
        let answered = kinds.into_iter().find(|&kind| path.lost[kind].requested > 0);
        if let Some(answered) = answered {
            path.lost[answered].requested -= 1;
            path.total.requested -= 1;
            self.requested -= 1;
            self.polled = Time::ZERO;
        }
        self.missing -= 1;
        self.update(peer);
    }

    /// Forgets all lanes of a peer that has been removed.
    pub(crate) fn forget(&mut self, peer: u16) {
        let total = |which: fn(&Lost) -> u16, paths: &Paths| {
            paths.rails.iter().map(|path| u32::from(which(&path.total))).sum::<u32>()
        };
        let paths = &mut self.peers[usize::from(peer)];
        let requested = total(|lost| lost.requested, paths);
        self.missing -= total(|lost| lost.missing, paths);
        self.requested -= requested;
        if requested > 0 {
            self.polled = Time::ZERO;
        }
        paths.rails.iter_mut().for_each(Path::reset);
        paths.requested = (Time::ZERO, 0);
        self.update(peer);
    }

    /// Notes that a rail's port went down: no lane over it is requested.
    pub(crate) fn rail_down(&mut self, rail: usize) {
        self.up &= !(1 << rail);
        self.update_all();
    }

    /// Notes that a rail's port came up. Failures while it was down no longer count, so its lanes
    /// may be requested at once.
    pub(crate) fn rail_up(&mut self, rail: usize, now: Time) {
        self.up |= 1 << rail;
        for paths in self.peers.iter_mut() {
            let path = paths.rail(rail);
            if path.total.missing > 0 {
                path.retry_at = now;
                path.failures = 0;
            }
        }
        self.update_all();
    }

    /// Takes the next request that is due.
    pub(crate) fn next(&mut self, now: Time) -> Option<Request> {
        let peer = *self.heap[..self.len].first()?;
        let paths = &mut self.peers[usize::from(peer)];
        if self.requested >= self.limit || paths.key.0 > now {
            return None;
        }
        let up = self.up;
        let wanted = |&rail: &usize| up >> rail & 1 != 0 && paths.rails[rail].total.is_wanted();
        let rail = (0..MAX_RAILS).filter(wanted).min_by_key(|&rail| paths.rails[rail].retry_at)?;
        let path = paths.rail(rail);
        let kind = path.last.and_after().find(|kind| path.lost[kind.place()].is_wanted())?;
        path.last = kind;
        path.lost[kind.place()].requested += 1;
        path.total.requested += 1;
        // This path comes last among the due paths of the peer from now on.
        path.retry_at = now;
        self.requested += 1;
        self.serial += 1;
        paths.requested = (now, self.serial);
        self.update(peer);
        Some(Request { peer, rail, remote_rail: kind.remote_rail(), class: kind.class() })
    }

    /// Notes that the engine was polled. A caller that connects lanes takes requests after a poll
    /// and before the next wait.
    #[inline]
    pub(crate) fn poll(&mut self, now: Time) {
        self.polled = now;
    }

    /// When the caller should wake up to take a request: a lane becomes due, or a due lane may be
    /// requested since another request was answered. A lane that was due at the last poll and was
    /// not requested is no reason.
    pub(crate) fn next_at(&self) -> Time {
        let first = self.heap[..self.len].first();
        let at = first.map_or(Time::NEVER, |&peer| self.peers[usize::from(peer)].key.0);
        if self.requested < self.limit && at > self.polled { at } else { Time::NEVER }
    }

    /// When a lane of the peer may be requested; `None` if none is to be.
    fn key(&self, peer: u16) -> Option<Key> {
        let paths = &self.peers[usize::from(peer)];
        let rails = paths.rails.iter().enumerate();
        let wanted = rails.filter(|(rail, path)| self.up >> rail & 1 != 0 && path.total.is_wanted());
        let at = wanted.map(|(_, path)| path.retry_at).min()?;
        Some(if at > paths.requested.0 { (at, 0) } else { paths.requested })
    }

    /// Brings the peer's place in the heap up to date.
    fn update(&mut self, peer: u16) {
        let index = usize::from(peer);
        match (self.key(peer), self.peers[index].heap) {
            (None, OUT) => {}
            (None, at) => self.remove(usize::from(at)),
            (Some(key), OUT) => {
                self.peers[index].key = key;
                self.heap[self.len] = peer;
                self.len += 1;
                self.sift_up(self.len - 1);
            }
            (Some(key), at) => {
                self.peers[index].key = key;
                let at = self.sift_up(usize::from(at));
                self.sift_down(at);
            }
        }
    }

    /// Brings every peer's place in the heap up to date. It walks over all peers, so only events of
    /// ports call it.
    fn update_all(&mut self) {
        // A storage has at most MAX_PLACES peers.
        (0..self.peers.len()).for_each(|peer| self.update(narrow(peer)));
    }

    fn remove(&mut self, at: usize) {
        self.peers[usize::from(self.heap[at])].heap = OUT;
        self.len -= 1;
        if at < self.len {
            self.heap[at] = self.heap[self.len];
            let at = self.sift_up(at);
            self.sift_down(at);
        }
    }

    fn key_at(&self, at: usize) -> Key {
        self.peers[usize::from(self.heap[at])].key
    }

    /// Writes the place `at` into the peer that is there.
    fn note_place(&mut self, at: usize) {
        // The heap has one place for each peer, and a storage has at most MAX_PLACES peers.
        self.peers[usize::from(self.heap[at])].heap = narrow(at);
    }

    /// Moves the peer at this place up as far as it goes, and returns its new place.
    fn sift_up(&mut self, mut at: usize) -> usize {
        while at > 0 && self.key_at(at) < self.key_at((at - 1) / 2) {
            self.heap.swap(at, (at - 1) / 2);
            self.note_place(at);
            at = (at - 1) / 2;
        }
        self.note_place(at);
        at
    }

    /// Moves the peer at this place down as far as it goes.
    fn sift_down(&mut self, mut at: usize) {
        loop {
            let child = 2 * at + 1;
            if child >= self.len {
                break;
            }
            let second = child + 1 < self.len && self.key_at(child + 1) < self.key_at(child);
            let child = child + usize::from(second);
            if self.key_at(at) <= self.key_at(child) {
                break;
            }
            self.heap.swap(at, child);
            self.note_place(at);
            at = child;
        }
        self.note_place(at);
    }
}

#[cfg(test)]
mod tests;
