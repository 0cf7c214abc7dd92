//! Which lost lane is requested next from the control path, and when.
//!
//! Every peer with a lane to be requested is in a heap, ordered by the earliest time of a request:
//! the earliest retry of its paths or, if later, the time of its last request. So peers take turns,
//! however slow the attempts are, and finding the next one takes as many steps as the heap is deep.

use crate::events::LaneLost;
use crate::limits::{MAX_RAILS, narrow};
use crate::ring::fifo::Fifo;
use crate::time::Time;

/// Stands for the place in the heap of a peer that is not in it.
const OUT: u16 = u16::MAX;

/// One path of a peer: all lanes over one local rail.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Path {
    /// Lanes that failed and have not been replaced, by the rail of the peer that they led to.
    lost: [Lost; MAX_RAILS],
    /// The sum of `lost` over all rails of the peer.
    total: Lost,
    /// The rail of the peer of the last request. The search for the next one begins behind it, so
    /// that the peer's rails take turns.
    last: u8,
    /// Consecutive failures, for the back-off.
    pub(crate) failures: u8,
    /// When the next lane may be requested.
    pub(crate) retry_at: Time,
}

/// Lanes lost between one local and one remote rail.
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
        lost: [Lost::NONE; MAX_RAILS],
        total: Lost::NONE,
        // MAX_RAILS is 16.
        last: MAX_RAILS as u8 - 1,
        failures: 0,
        retry_at: Time::ZERO,
    };
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
    pub(crate) fn lane_lost(&mut self, peer: u16, rail: usize, remote_rail: usize, retry_at: Time) {
        let path = self.path(peer, rail);
        path.lost[remote_rail].missing += 1;
        path.total.missing += 1;
        path.retry_at = retry_at;
        self.missing += 1;
        self.update(peer);
    }

    /// Whether a lane between these rails has been requested and not been answered.
    pub(crate) fn is_requested(&mut self, peer: u16, rail: usize, remote_rail: usize) -> bool {
        self.path(peer, rail).lost.get(remote_rail).is_some_and(|lost| lost.requested > 0)
    }

    /// Notes that a [requested](Self::is_requested) lane could not be connected. It may be
    /// requested again from `retry_at` on.
    pub(crate) fn request_failed(&mut self, peer: u16, rail: usize, remote_rail: usize, retry_at: Time) {
        let path = self.path(peer, rail);
        path.lost[remote_rail].requested -= 1;
        path.total.requested -= 1;
        path.retry_at = retry_at;
        self.requested -= 1;
        self.polled = Time::ZERO;
        self.update(peer);
    }

    /// Notes that a lane has been attached, which may answer a request.
    pub(crate) fn attached(&mut self, peer: u16, rail: usize, remote_rail: usize) {
        let path = self.path(peer, rail);
        let lost = &mut path.lost[remote_rail];
        if lost.missing == 0 {
            return;
        }
        lost.missing -= 1;
        path.total.missing -= 1;
        self.missing -= 1;
        let path = self.path(peer, rail);
        if path.lost[remote_rail].requested > 0 {
            path.lost[remote_rail].requested -= 1;
            path.total.requested -= 1;
            self.requested -= 1;
            self.polled = Time::ZERO;
        }
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
        paths.rails = [Path::NEW; MAX_RAILS];
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

    /// Takes the next request that is due: the peer, the local rail, and the rail of the peer.
    pub(crate) fn next(&mut self, now: Time) -> Option<(u16, usize, usize)> {
        let peer = *self.heap[..self.len].first()?;
        let paths = &mut self.peers[usize::from(peer)];
        if self.requested >= self.limit || paths.key.0 > now {
            return None;
        }
        let up = self.up;
        let wanted = |&rail: &usize| up >> rail & 1 != 0 && paths.rails[rail].total.is_wanted();
        let rail = (0..MAX_RAILS).filter(wanted).min_by_key(|&rail| paths.rails[rail].retry_at)?;
        let path = paths.rail(rail);
        let mut others = (1..=MAX_RAILS).map(|step| (usize::from(path.last) + step) % MAX_RAILS);
        let remote_rail = others.find(|&remote_rail| path.lost[remote_rail].is_wanted())?;
        // Rails are below 16.
        path.last = remote_rail as u8;
        path.lost[remote_rail].requested += 1;
        path.total.requested += 1;
        // This path comes last among the due paths of the peer from now on.
        path.retry_at = now;
        self.requested += 1;
        self.serial += 1;
        paths.requested = (now, self.serial);
        self.update(peer);
        Some((peer, rail, remote_rail))
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
mod tests {
    use super::*;
    use crate::time::Nanos;
    use std::collections::VecDeque;
    use std::vec;
    use std::vec::Vec;

    fn paths(n: usize) -> Vec<Paths> {
        (0..n).map(|_| Paths::NEW).collect()
    }

    #[test]
    fn the_heap_gives_the_peer_with_the_least_key() {
        let mut state = 7_u64;
        let mut random = |n: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % n
        };
        let (mut peers, mut heap) = (paths(20), vec![0; 20]);
        let mut repairs = Repairs::new(&mut peers, &mut heap, &mut [], 1_000, 2);
        let mut now = Time(1);
        for _ in 0..20_000 {
            now = now + Nanos(random(3));
            let (peer, rail) = (random(20) as u16, random(2) as usize);
            match random(7) {
                0 | 1 => repairs.lane_lost(peer, rail, 3, now + Nanos(random(50))),
                2 if repairs.is_requested(peer, rail, 3) => {
                    repairs.request_failed(peer, rail, 3, now + Nanos(random(50)));
                }
                2 => {}
                3 => repairs.attached(peer, rail, 3),
                4 => repairs.forget(peer),
                5 if random(20) == 0 => repairs.rail_down(rail),
                5 => repairs.rail_up(rail, now),
                _ => {
                    let want = (0..20).filter_map(|peer| repairs.key(peer)).min();
                    let want = want.filter(|&(at, _)| at <= now && repairs.requested < repairs.limit);
                    let got = repairs.next(now);
                    assert_eq!(got.is_some(), want.is_some());
                }
            }
            let least = (0..20).filter_map(|peer| repairs.key(peer)).min();
            assert_eq!((repairs.len > 0).then(|| repairs.key_at(0)), least);
            for at in 0..repairs.len {
                assert_eq!(usize::from(repairs.peers[usize::from(repairs.heap[at])].heap), at);
                assert_eq!(Some(repairs.key_at(at)), repairs.key(repairs.heap[at]));
            }
            let total = |which: fn(&Lost) -> u16| -> u32 {
                let rails = repairs.peers.iter().flat_map(|peer| &peer.rails);
                rails.map(|path| u32::from(which(&path.total))).sum()
            };
            assert_eq!((total(|l| l.missing), total(|l| l.requested)), (repairs.missing, repairs.requested));
        }
    }

    /// Peers that have lost `lanes` lanes each at the same time, attempts that take 5 s and fail:
    /// the longest time from one attempt of a peer to its next, and a peer's fair share.
    fn longest_wait(n: usize, lanes: usize, at_once: u16) -> (Nanos, Nanos) {
        const ATTEMPT: Nanos = Nanos::from_secs(5);
        let (mut peers, mut heap) = (paths(n), vec![0; n]);
        let mut repairs = Repairs::new(&mut peers, &mut heap, &mut [], at_once, 8);
        for peer in 0..n as u16 {
            (0..lanes).for_each(|lane| repairs.lane_lost(peer, lane % 8, lane % 2, Time(1)));
        }
        let share = Nanos(ATTEMPT.0 * n as u64 / u64::from(at_once));
        let mut last = vec![Time(1); n];
        let mut longest = Nanos(0);
        let mut running = VecDeque::new();
        let end = Time(1) + Nanos(share.0 * 5);
        let mut now = Time(1);
        while now < end {
            while let Some((peer, rail, remote)) = repairs.next(now) {
                let waited = now.since(last[usize::from(peer)]);
                longest = longest.max(waited);
                last[usize::from(peer)] = now;
                running.push_back((now + ATTEMPT, peer, rail, remote));
            }
            let Some((at, peer, rail, remote)) = running.pop_front() else { break };
            now = at;
            repairs.request_failed(peer, rail, remote, now + Nanos::from_millis(2_000));
        }
        let waits = last.iter().map(|&last| end.since(last));
        (waits.fold(longest, Nanos::max), share)
    }

    #[test]
    fn with_slow_attempts_no_peer_waits_longer_than_twice_its_fair_share() {
        for (peers, lanes, at_once) in [(48, 1, 8), (48, 16, 8), (48, 16, 16), (10_000, 4, 8)] {
            let (longest, share) = longest_wait(peers, lanes, at_once);
            assert!(longest <= Nanos(2 * share.0), "{peers} peers: {longest:?}, fair is {share:?}");
        }
    }

    #[test]
    fn the_rails_of_a_peer_take_turns_even_if_no_lane_can_be_connected() {
        let (mut peers, mut heap) = (paths(1), vec![0; 1]);
        let mut repairs = Repairs::new(&mut peers, &mut heap, &mut [], 1, 1);
        (0..3).for_each(|remote| repairs.lane_lost(0, 0, remote, Time(1)));
        let mut requested = Vec::new();
        for now in 1..7 {
            let (peer, rail, remote) = repairs.next(Time(now)).unwrap();
            requested.push(remote);
            repairs.request_failed(peer, rail, remote, Time(now + 1));
        }
        assert_eq!(requested, [0, 1, 2, 0, 1, 2]);
    }

    #[test]
    fn a_lane_that_becomes_due_is_a_reason_to_wake_and_one_that_was_left_out_is_not() {
        let (mut peers, mut heap) = (paths(3), vec![0; 3]);
        let mut repairs = Repairs::new(&mut peers, &mut heap, &mut [], 2, 1);
        repairs.lane_lost(0, 0, 0, Time(10));
        repairs.poll(Time(9));
        assert_eq!((repairs.next(Time(9)), repairs.next_at()), (None, Time(10)));
        // Also after that time has come; once.
        repairs.poll(Time(12));
        assert_eq!(repairs.next_at(), Time::NEVER, "it was due at the last poll");
        assert_eq!(repairs.next(Time(12)), Some((0, 0, 0)));
        (1..3).for_each(|peer| repairs.lane_lost(peer, 0, 0, Time(11)));
        assert_eq!(repairs.next(Time(12)), Some((1, 0, 0)));
        assert_eq!((repairs.next(Time(12)), repairs.next_at()), (None, Time::NEVER), "two are being made");
        repairs.request_failed(0, 0, 0, Time(90));
        assert_eq!(repairs.next_at(), Time(11), "there is room for another");
        assert_eq!(repairs.next(Time(12)), Some((2, 0, 0)));
        repairs.poll(Time(13));
        repairs.lane_lost(0, 0, 1, Time(12));
        assert_eq!(repairs.next_at(), Time::NEVER, "two are being made");
        repairs.forget(2);
        assert_eq!(repairs.next_at(), Time(12), "one of them is not needed any more");
    }
}
