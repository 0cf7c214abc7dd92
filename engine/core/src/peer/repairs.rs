//! Which lane is requested next from the control path, and when: a lost one, or the first ones of a
//! peer that has work and no lane.
//!
//! Every peer with a lane to be requested is in a heap, ordered by the earliest time of a request:
//! the earliest retry of its paths or, if later, the time of its last request. So peers take turns,
//! however slow the attempts are, and finding the next one takes as many steps as the heap is deep.
//!
//! Paths are kept only where a lane has failed: there are as many as places of lanes, and a peer
//! links its own. So a peer without lanes costs no more than its place in the heap. A path links an
//! entry for each kind of lane that it has lost, of which there are as many, too.

mod heap;

use super::missing::{First, Key, LaneKind, Lost, NO_ENTRY, NO_PATH, Path, Paths, Request};
use super::reports::Report;
use crate::class::Class;
use crate::events::LaneLost;
use crate::limits::{CLASSES, MAX_RAILS, narrow};
use crate::ring::fifo::Fifo;
use crate::time::Time;

/// All paths of an engine's peers.
#[derive(Debug)]
pub(crate) struct Repairs<'s> {
    peers: &'s mut [Paths],
    /// The paths on which lanes have failed, and the first of those that are free.
    paths: &'s mut [Path],
    free_path: u16,
    /// The entries of lost lanes, and the first of those that are free.
    entries: &'s mut [Lost],
    free_entry: u16,
    heap: &'s mut [u16],
    len: usize,
    /// Whether the first lanes of a peer are requested when it has work.
    on_demand: bool,
    /// Missing lanes over all paths, and requests that have not been answered.
    missing: u32,
    requested: u32,
    /// The most open requests
    /// ([`EngineConfig::reconnects`](crate::config::EngineConfig::reconnects)).
    limit: u32,
    /// The rails that are up.
    up: u16,
    /// When the engine was last polled. The caller has chosen not to take a request that was due
    /// then and is still open.
    polled: Time,
    serial: u32,
    /// Lanes that have failed or were given back, and that the control path has not taken yet.
    lost: Fifo<'s, Report>,
}

/// The number after `at` of `count` places, or `none` after the last. A storage has at most
/// `MAX_PLACES` lanes.
fn next_of(at: usize, count: usize, none: u16) -> u16 {
    if at + 1 < count { narrow(at + 1) } else { none }
}

impl<'s> Repairs<'s> {
    pub(crate) fn new(
        peers: &'s mut [Paths],
        (paths, entries): (&'s mut [Path], &'s mut [Lost]),
        heap: &'s mut [u16],
        lost: &'s mut [Report],
        limit: u16,
        rails: usize,
    ) -> Self {
        let (count, entry_count) = (paths.len(), entries.len());
        for (at, path) in paths.iter_mut().enumerate() {
            path.next = next_of(at, count, NO_PATH);
        }
        for (at, entry) in entries.iter_mut().enumerate() {
            entry.next = next_of(at, entry_count, NO_ENTRY);
        }
        Self {
            peers,
            free_path: if count > 0 { 0 } else { NO_PATH },
            paths,
            free_entry: if entry_count > 0 { 0 } else { NO_ENTRY },
            entries,
            heap,
            len: 0,
            on_demand: false,
            missing: 0,
            requested: 0,
            limit: limit.into(),
            up: narrow((1_usize << rails) - 1),
            polled: Time::ZERO,
            serial: 0,
            lost: Fifo::new(lost),
        }
    }

    /// Notes a lane that has failed or was given back, for the control path.
    pub(crate) fn report(&mut self, lost: LaneLost) {
        self.lost.push(Report::new(lost));
    }

    /// The oldest of these that the control path has not taken.
    pub(crate) fn next_report(&mut self) -> Option<LaneLost> {
        self.lost.pop().map(Report::read)
    }

    /// From here on the first lanes of a peer are requested when it has work.
    pub(crate) fn set_on_demand(&mut self) {
        self.on_demand = true;
    }

    /// The places of a peer's paths.
    fn places(&self, peer: u16) -> impl Iterator<Item = usize> {
        let first = self.peers[usize::from(peer)].first_path;
        let step = |at: u16| (at != NO_PATH).then_some(at);
        core::iter::successors(step(first), move |&at| step(self.paths[usize::from(at)].next))
            .map(usize::from)
    }

    /// The place of a path on which a lane has failed.
    fn find(&self, peer: u16, rail: usize) -> Option<usize> {
        self.places(peer).find(|&at| usize::from(self.paths[at].rail) == rail)
    }

    /// As [`find`](Self::find), or a new one where that finds nothing; `None` if all are in use.
    /// Then more lanes are missing than the storage has places for.
    fn find_or_add(&mut self, peer: u16, rail: usize) -> Option<usize> {
        if let Some(at) = self.find(peer, rail) {
            return Some(at);
        }
        let at = self.free_path;
        let path = self.paths.get_mut(usize::from(at))?;
        self.free_path = path.next;
        let first = &mut self.peers[usize::from(peer)].first_path;
        *path = Path { rail: narrow(rail) as u8, next: *first, ..Path::NEW };
        *first = at;
        Some(at.into())
    }

    /// The places of the entries of a path.
    fn entries_of(&self, path: usize) -> impl Iterator<Item = usize> {
        let step = |at: u16| (at != NO_ENTRY).then_some(at);
        let first = self.paths[path].lost;
        core::iter::successors(step(first), move |&at| step(self.entries[usize::from(at)].next))
            .map(usize::from)
    }

    /// The place of the entry of a path for lanes of this kind.
    fn entry(&self, path: usize, kind: LaneKind) -> Option<usize> {
        self.entries_of(path).find(|&at| self.entries[at].kind == kind)
    }

    /// As [`entry`](Self::entry), but makes an entry where that finds nothing; `None` if all are in
    /// use.
    fn entry_or_add(&mut self, path: usize, kind: LaneKind) -> Option<usize> {
        if let Some(at) = self.entry(path, kind) {
            return Some(at);
        }
        let at = self.free_entry;
        let entry = self.entries.get_mut(usize::from(at))?;
        self.free_entry = entry.next;
        *entry = Lost { kind, next: self.paths[path].lost, ..Lost::FREE };
        self.paths[path].lost = at;
        Some(at.into())
    }

    /// Frees an entry of a path, of which no lane is missing any more.
    fn free_entry(&mut self, path: usize, entry: usize) {
        let Lost { missing, requested, next, .. } = self.entries[entry];
        debug_assert!(missing == 0 && requested == 0, "no lane is requested that is not missing");
        let before = self.entries_of(path).find(|&at| usize::from(self.entries[at].next) == entry);
        match before {
            Some(before) => self.entries[before].next = next,
            None => self.paths[path].lost = next,
        }
        self.entries[entry].next = self.free_entry;
        self.free_entry = narrow(entry);
    }

    /// Whether lanes of a path are missing that have not been requested.
    fn is_wanted(&self, path: usize) -> bool {
        self.entries_of(path).any(|at| self.entries[at].is_wanted())
    }

    /// Frees a path of a peer if nothing of it is worth keeping.
    fn tidy(&mut self, peer: u16, path: usize) {
        if !self.paths[path].is_whole() {
            return;
        }
        let next = self.paths[path].next;
        let before = self.places(peer).find(|&at| usize::from(self.paths[at].next) == path);
        match before {
            Some(before) => self.paths[before].next = next,
            None => self.peers[usize::from(peer)].first_path = next,
        }
        self.free(path);
    }

    fn free(&mut self, path: usize) {
        self.paths[path].next = self.free_path;
        self.free_path = narrow(path);
    }

    /// Failures of a path in a row.
    pub(crate) fn failures(&self, peer: u16, rail: usize) -> u8 {
        self.find(peer, rail).map_or(0, |at| self.paths[at].failures)
    }

    /// Counts a failure of a path, and returns how many there had been in a row.
    pub(crate) fn count_failure(&mut self, peer: u16, rail: usize) -> u8 {
        let Some(at) = self.find_or_add(peer, rail) else { return 0 };
        let failures = &mut self.paths[at].failures;
        let before = *failures;
        *failures = before.saturating_add(1);
        before
    }

    /// Notes that a path carries READs: its earlier failures do not count any more.
    #[cold]
    pub(crate) fn heard(&mut self, peer: u16, rail: usize) {
        if let Some(at) = self.find(peer, rail) {
            self.paths[at].failures = 0;
            self.tidy(peer, at);
        }
    }

    /// Notes that a lane has failed, a failure that has been [counted](Self::count_failure).
    /// Another lane may be requested from `retry_at` on.
    pub(crate) fn lane_lost(
        &mut self,
        peer: u16,
        rail: usize,
        remote_rail: usize,
        class: Class,
        retry_at: Time,
    ) {
        let Some(at) = self.find_or_add(peer, rail) else { return };
        self.paths[at].retry_at = retry_at;
        if let Some(entry) = self.entry_or_add(at, LaneKind::new(remote_rail, class)) {
            let missing = &mut self.entries[entry].missing;
            if *missing < u8::MAX {
                *missing += 1;
                self.missing += 1;
            }
        }
        self.update(peer);
    }

    /// Whether a lane of this kind has been requested and not been answered.
    pub(crate) fn is_requested(&self, peer: u16, rail: usize, remote_rail: usize, class: Class) -> bool {
        self.requested(peer, rail, remote_rail, class).is_some()
    }

    /// The places of the path and of the entry of a lane that has been requested and not answered.
    fn requested(&self, peer: u16, rail: usize, remote_rail: usize, class: Class) -> Option<(usize, usize)> {
        let at = self.find(peer, rail).filter(|_| remote_rail < MAX_RAILS)?;
        let entry = self.entry(at, LaneKind::new(remote_rail, class))?;
        (self.entries[entry].requested > 0).then_some((at, entry))
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
        let Some((at, entry)) = self.requested(peer, rail, remote_rail, class) else { return };
        self.entries[entry].requested -= 1;
        self.paths[at].retry_at = retry_at;
        self.answered();
        self.update(peer);
    }

    /// Notes that a request has been answered, so that another one may be made.
    fn answered(&mut self) {
        self.requested -= 1;
        self.polled = Time::ZERO;
    }

    /// Notes that a lane has been attached, which may answer a request. It replaces a lost lane of
    /// its class, or else one of the other class; and it answers a request for one of its class, or
    /// else for one of the other. So a lane of the wrong class leaves no request open for ever.
    pub(crate) fn attached(&mut self, peer: u16, rail: usize, remote_rail: usize, class: Class) {
        self.end_first(peer);
        self.peers[usize::from(peer)].failures = 0;
        self.replaced(peer, rail, remote_rail, class);
        self.update(peer);
    }

    fn replaced(&mut self, peer: u16, rail: usize, remote_rail: usize, class: Class) {
        let Some(at) = self.find(peer, rail) else { return };
        let other = Class::ALL[CLASSES - 1 - class.index()];
        let kinds = [class, other].map(|class| LaneKind::new(remote_rail, class));
        let entries = kinds.map(|kind| self.entry(at, kind));
        // Each entry has a lane that is missing.
        let Some(replaced) = entries.into_iter().flatten().next() else { return };
        self.entries[replaced].missing -= 1;
        self.missing -= 1;
        let requested = entries.into_iter().flatten().find(|&entry| self.entries[entry].requested > 0);
        if let Some(requested) = requested {
            self.entries[requested].requested -= 1;
            self.answered();
        }
        if self.entries[replaced].missing == 0 {
            self.free_entry(at, replaced);
        }
        self.tidy(peer, at);
    }

    /// Notes that a peer has work and no lane. Its first lanes are requested, unless lost lanes of
    /// it are to come back.
    #[cold]
    pub(crate) fn want_first(&mut self, peer: u16, now: Time) {
        let paths = &self.peers[usize::from(peer)];
        let comes_back = self.places(peer).any(|at| self.paths[at].lost != NO_ENTRY);
        if self.on_demand && paths.first == First::NotWanted && !comes_back {
            let paths = &mut self.peers[usize::from(peer)];
            (paths.first, paths.retry_at) = (First::Wanted, now);
            self.update(peer);
        }
    }

    /// Counts a failure to make the requested first lanes of a peer, and returns how many there had
    /// been in a row; `None` if none are requested.
    pub(crate) fn first_failed(&mut self, peer: u16) -> Option<u8> {
        let paths = &mut self.peers[usize::from(peer)];
        if paths.first != First::Requested {
            return None;
        }
        let before = paths.failures;
        paths.failures = before.saturating_add(1);
        Some(before)
    }

    /// The requested first lanes of a peer may be requested again from `retry_at` on.
    pub(crate) fn retry_first(&mut self, peer: u16, retry_at: Time) {
        let paths = &mut self.peers[usize::from(peer)];
        if paths.first == First::Requested {
            (paths.first, paths.retry_at) = (First::Wanted, retry_at);
            self.answered();
            self.update(peer);
        }
    }

    /// The first lanes of a peer are not wanted any more, or are there.
    fn end_first(&mut self, peer: u16) {
        let paths = &mut self.peers[usize::from(peer)];
        if core::mem::replace(&mut paths.first, First::NotWanted) == First::Requested {
            self.answered();
        }
    }

    /// Forgets all lanes of a peer that has been removed, or that is to have none.
    pub(crate) fn forget(&mut self, peer: u16) {
        while let at = self.peers[usize::from(peer)].first_path
            && at != NO_PATH
        {
            let at = usize::from(at);
            while let entry = self.paths[at].lost
                && entry != NO_ENTRY
            {
                let lost = &mut self.entries[usize::from(entry)];
                self.missing -= u32::from(core::mem::take(&mut lost.missing));
                let requested = core::mem::take(&mut lost.requested);
                self.requested -= u32::from(requested);
                if requested > 0 {
                    self.polled = Time::ZERO;
                }
                self.free_entry(at, entry.into());
            }
            self.peers[usize::from(peer)].first_path = self.paths[at].next;
            self.free(at);
        }
        self.end_first(peer);
        let paths = &mut self.peers[usize::from(peer)];
        paths.failures = 0;
        paths.set_requested((Time::ZERO, 0));
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
        // A free path has no lost lane.
        for path in self.paths.iter_mut().filter(|path| usize::from(path.rail) == rail) {
            if path.lost != NO_ENTRY {
                path.retry_at = now;
                path.failures = 0;
            }
        }
        self.update_all();
    }

    /// The peer whose request is due, if one is.
    fn due(&self, now: Time) -> Option<u16> {
        let peer = *self.heap[..self.len].first()?;
        let is_due = self.peers[usize::from(peer)].times[0] <= now;
        (self.requested < self.limit && is_due).then_some(peer)
    }

    fn count_request(&mut self, peer: u16, now: Time) {
        self.requested += 1;
        self.serial = self.serial.wrapping_add(1);
        self.peers[usize::from(peer)].set_requested((now, self.serial));
        self.update(peer);
    }

    /// Takes the next request for a lost lane, if it is due.
    pub(crate) fn next(&mut self, now: Time) -> Option<Request> {
        let peer = self.due(now)?;
        let at = self.wanted(peer).min_by_key(|&at| {
            let path = &self.paths[at];
            (path.retry_at, path.rail)
        })?;
        let last = self.paths[at].last;
        let wanted = self.entries_of(at).filter(|&entry| self.entries[entry].is_wanted());
        let entry = wanted.min_by_key(|&entry| last.steps_to(self.entries[entry].kind))?;
        let kind = self.entries[entry].kind;
        self.entries[entry].requested += 1;
        let path = &mut self.paths[at];
        path.last = kind;
        // This path comes last among the due paths of the peer from now on.
        path.retry_at = now;
        let rail = path.rail.into();
        self.count_request(peer, now);
        Some(Request { peer, rail, remote_rail: kind.remote_rail(), class: kind.class() })
    }

    /// Whether a request for the first lanes of a peer is due.
    #[inline]
    pub(crate) fn has_first(&self, now: Time) -> bool {
        self.len > 0 && self.due(now).is_some_and(|peer| self.peers[usize::from(peer)].first == First::Wanted)
    }

    /// Takes the next request for the first lanes of a peer, if it is due. `has_work` says whether
    /// a peer still needs them.
    pub(crate) fn next_first(&mut self, now: Time, has_work: impl Fn(u16) -> bool) -> Option<u16> {
        loop {
            let peer = self.due(now)?;
            let paths = &mut self.peers[usize::from(peer)];
            if paths.first != First::Wanted {
                return None;
            }
            if has_work(peer) {
                paths.first = First::Requested;
                self.count_request(peer, now);
                return Some(peer);
            }
            self.end_first(peer);
            self.update(peer);
        }
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
        let at = first.map_or(Time::NEVER, |&peer| self.peers[usize::from(peer)].times[0]);
        if self.requested < self.limit && at > self.polled { at } else { Time::NEVER }
    }

    /// The places of a peer's paths over rails that are up, with lanes that are to be requested.
    fn wanted(&self, peer: u16) -> impl Iterator<Item = usize> {
        self.places(peer).filter(|&at| self.up >> self.paths[at].rail & 1 != 0 && self.is_wanted(at))
    }

    /// When a lane of the peer may be requested; `None` if none is to be.
    fn key_of(&self, peer: u16) -> Option<Key> {
        let paths = &self.peers[usize::from(peer)];
        let first = (paths.first == First::Wanted).then_some(paths.retry_at);
        let at = self.wanted(peer).map(|at| self.paths[at].retry_at).chain(first).min()?;
        Some(if at > paths.requested().0 { (at, 0) } else { paths.requested() })
    }
}

#[cfg(test)]
mod tests;
