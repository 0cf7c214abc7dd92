//! One time for each place, and the earliest of them.

use std::time::Instant;

/// A place without a time.
const ABSENT: u32 = u32::MAX;

/// A binary heap of times that knows where each place's time stands. So a place has one time, and a
/// change costs O(log n), however often the time of a place moves.
#[derive(Default)]
pub(super) struct Timers {
    /// No time is earlier than the one at half its index.
    heap: Vec<(Instant, u32)>,
    /// Where a place's time stands in `heap`.
    index: Vec<u32>,
}

/// What a place costs, for the bound on idle connections.
pub(super) const TIMER_BYTES: usize = size_of::<(Instant, u32)>() + size_of::<u32>();

impl Timers {
    /// Sets the time of `place` to `at`, unless it has an earlier one.
    pub(super) fn not_after(&mut self, place: u32, at: Instant) {
        if self.index.len() <= place as usize {
            self.index.resize(place as usize + 1, ABSENT);
        }
        let found = self.index[place as usize];
        if found == ABSENT {
            // There are fewer places than `u32::MAX`.
            self.heap.push((at, place));
            self.up(self.heap.len() - 1);
        } else if at < self.heap[found as usize].0 {
            self.heap[found as usize].0 = at;
            self.up(found as usize);
        }
    }

    /// Removes the time of `place`.
    pub(super) fn remove(&mut self, place: u32) {
        let Some(found) = self.index.get_mut(place as usize) else { return };
        let at = std::mem::replace(found, ABSENT) as usize;
        if at >= self.heap.len() {
            return;
        }
        self.heap.swap_remove(at);
        if at < self.heap.len() {
            let settled = self.up(at);
            self.down(settled);
        }
    }

    /// The earliest time.
    pub(super) fn first(&self) -> Option<Instant> {
        self.heap.first().map(|&(at, _)| at)
    }

    /// Removes the earliest time if it is not after `now`, and returns its place.
    pub(super) fn pop(&mut self, now: Instant) -> Option<u32> {
        let &(at, place) = self.heap.first()?;
        if at > now {
            return None;
        }
        self.remove(place);
        Some(place)
    }

    fn note(&mut self, at: usize) {
        let place = self.heap[at].1;
        // There are fewer places than `u32::MAX`.
        self.index[place as usize] = at as u32;
    }

    fn swap(&mut self, a: usize, b: usize) {
        self.heap.swap(a, b);
        self.note(a);
        self.note(b);
    }

    /// Moves the time at `at` to the front until no earlier time would follow it.
    fn up(&mut self, mut at: usize) -> usize {
        self.note(at);
        while at > 0 && self.heap[at].0 < self.heap[(at - 1) / 2].0 {
            self.swap(at, (at - 1) / 2);
            at = (at - 1) / 2;
        }
        at
    }

    /// Moves the time at `at` to the back until no later time would precede it.
    fn down(&mut self, mut at: usize) {
        loop {
            let children = 2 * at + 1..(2 * at + 3).min(self.heap.len());
            let Some(least) = children.min_by_key(|&child| self.heap[child].0) else { return };
            if self.heap[at].0 <= self.heap[least].0 {
                return;
            }
            self.swap(at, least);
            at = least;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use std::time::Duration;

    #[test]
    fn it_agrees_with_a_map_whatever_moves() {
        let start = Instant::now();
        let (mut timers, mut model) = (Timers::default(), BTreeMap::new());
        let mut state = 0x2545_F491_4F6C_DD1D_u64;
        let mut random = |below: u64| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state % below
        };
        for _ in 0..100_000 {
            let place = random(300) as u32;
            match random(8) {
                0 => {
                    timers.remove(place);
                    model.remove(&place);
                }
                1 => {
                    let now = start + Duration::from_micros(random(1000));
                    let first = model.values().min().copied();
                    assert_eq!(timers.first(), first);
                    match timers.pop(now) {
                        Some(place) => assert_eq!(model.remove(&place), first.filter(|&first| first <= now)),
                        None => assert!(first.is_none_or(|first| first > now)),
                    }
                }
                _ => {
                    let at = start + Duration::from_micros(random(1000));
                    timers.not_after(place, at);
                    let old = model.entry(place).or_insert(at);
                    *old = at.min(*old);
                }
            }
            assert_eq!(timers.heap.len(), model.len());
        }
        let mut last = start;
        while let Some(first) = timers.first() {
            assert!(first >= last);
            last = first;
            assert!(timers.pop(first).is_some());
        }
    }
}
