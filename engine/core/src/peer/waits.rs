//! Who waits for which rail: a bit for each seat, class and rail.
//!
//! A queue of seats for each class and rail would take two bytes a seat in each of the 32. Here
//! the bits of [`GROUP`] seats are one word, and a queue holds groups: a group joins at the end
//! when its first seat waits, and when its turn comes all seats that wait then have theirs, one
//! after the other. A seat that waits again meanwhile comes with the next turn of its group. So no
//! seat that waits sees another one served more than twice, and no operation looks at more than one
//! word.

use crate::limits::{CLASSES, MAX_RAILS, narrow};

/// The queues: one for each class and rail.
pub(crate) const QUEUES: usize = CLASSES * MAX_RAILS;
/// Seats of a group: the bits of a word.
pub(crate) const GROUP: usize = u32::BITS as usize;
// A storage has `LANES` words for whole groups: 32 seats of a group have 32 words.
const _: () = assert!(QUEUES == GROUP);

/// In links: no group. A storage has fewer than 2^11 groups.
const NO_GROUP: u16 = u16::MAX;

/// Memory for the queues of all seats.
#[derive(Debug)]
pub(crate) struct WaitRoom<'s> {
    /// For each group, a word for each queue.
    pub(crate) bits: Groups<'s, u32>,
    /// For each group and queue, the group behind it.
    pub(crate) behind: Groups<'s, u16>,
}

/// What is kept of each group.
#[derive(Debug)]
pub(crate) struct Groups<'s, T> {
    whole: &'s mut [[T; QUEUES]],
    /// Of the seats that do not fill a group.
    last: &'s mut [T; QUEUES],
}

impl<'s, T> Groups<'s, T> {
    /// Groups in `room`, which has one place for each seat.
    pub(crate) fn new(room: &'s mut [T], last: &'s mut [T; QUEUES]) -> Self {
        Self { whole: room.as_chunks_mut().0, last }
    }

    #[inline]
    fn at(&mut self, group: u16) -> &mut [T; QUEUES] {
        self.whole.get_mut(usize::from(group)).unwrap_or(self.last)
    }
}

/// One queue.
#[derive(Clone, Copy, Debug)]
struct Queue {
    /// Its first and last group, with at least one seat each; `NO_GROUP` in an empty queue.
    first: u16,
    last: u16,
    /// The group whose turn it is, and those of its seats that have not been served.
    group: u16,
    left: u32,
}

/// The queues.
#[derive(Debug)]
pub(crate) struct Waits<'s> {
    room: WaitRoom<'s>,
    queues: [Queue; QUEUES],
}

impl<'s> Waits<'s> {
    /// Queues in which nothing waits. All bits of `room` are zero.
    pub(crate) fn new(room: WaitRoom<'s>) -> Self {
        let empty = Queue { first: NO_GROUP, last: NO_GROUP, group: 0, left: 0 };
        Self { room, queues: [empty; QUEUES] }
    }

    /// The number of a queue.
    #[inline]
    fn number(class: usize, rail: usize) -> usize {
        (class * MAX_RAILS + rail) % QUEUES
    }

    /// Puts a seat into a queue, unless it is there.
    #[inline]
    pub(crate) fn push(&mut self, class: usize, rail: usize, seat: u16) {
        let number = Self::number(class, rail);
        let (group, bit) = (seat / narrow(GROUP), 1 << (usize::from(seat) % GROUP));
        let queue = &mut self.queues[number];
        let word = &mut self.room.bits.at(group)[number];
        if *word & bit != 0 || (queue.group == group && queue.left & bit != 0) {
            return;
        }
        let joins = *word == 0;
        *word |= bit;
        if joins {
            self.room.behind.at(group)[number] = NO_GROUP;
            match queue.last {
                NO_GROUP => queue.first = group,
                last => self.room.behind.at(last)[number] = group,
            }
            queue.last = group;
        }
    }

    /// Takes the next seat of a queue, and says whether others are left.
    #[inline]
    pub(crate) fn pop(&mut self, class: usize, rail: usize) -> Option<(u16, bool)> {
        let number = Self::number(class, rail);
        let queue = &mut self.queues[number];
        if queue.left == 0 {
            let group = queue.first;
            if group == NO_GROUP {
                return None;
            }
            queue.first = self.room.behind.at(group)[number];
            if queue.first == NO_GROUP {
                queue.last = NO_GROUP;
            }
            queue.group = group;
            queue.left = core::mem::take(&mut self.room.bits.at(group)[number]);
        }
        let seat = queue.group * narrow(GROUP) + narrow(queue.left.trailing_zeros() as usize);
        queue.left &= queue.left - 1;
        Some((seat, queue.left != 0 || queue.first != NO_GROUP))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::VecDeque;
    use std::vec;
    use std::vec::Vec;

    /// Calls `with` on empty queues for so many seats.
    fn with_room(seats: usize, with: impl FnOnce(&mut Waits<'_>)) {
        let (mut bits, mut behind) = (vec![0; seats], vec![0; seats]);
        let (mut last_bits, mut last_behind) = ([0; QUEUES], [0; QUEUES]);
        let bits = Groups::new(&mut bits, &mut last_bits);
        let behind = Groups::new(&mut behind, &mut last_behind);
        with(&mut Waits::new(WaitRoom { bits, behind }));
    }

    #[test]
    fn each_seat_that_waits_comes_once_and_none_is_passed_by_more_than_twice() {
        for seats in [1, 31, 32, 33, 100, 1_000] {
            with_room(seats, |waits| {
                let mut state: u64 = 7;
                let mut random = |n: usize| {
                    state =
                        state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                    (state >> 33) as usize % n
                };
                // For each queue, which seats wait; and how often others were served meanwhile.
                let mut waiting = vec![vec![None::<Vec<u8>>; seats]; QUEUES];
                for _ in 0..20_000 {
                    let (class, rail, seat) = (random(CLASSES), random(3), random(seats));
                    let waiting = &mut waiting[Waits::number(class, rail)];
                    if random(5) < 3 {
                        waits.push(class, rail, seat as u16);
                        waiting[seat].get_or_insert_with(|| vec![0; seats]);
                        continue;
                    }
                    let left = waiting.iter().filter(|seat| seat.is_some()).count();
                    let Some((seat, more)) = waits.pop(class, rail) else {
                        assert_eq!(left, 0);
                        continue;
                    };
                    assert_eq!(more, left > 1);
                    assert!(waiting[usize::from(seat)].take().is_some(), "seat {seat} did not wait");
                    for passed in waiting.iter_mut().flatten() {
                        passed[usize::from(seat)] += 1;
                        assert!(passed[usize::from(seat)] <= 2, "seat {seat} keeps another waiting");
                    }
                }
            });
        }
    }

    #[test]
    fn groups_are_served_in_the_order_in_which_they_began_to_wait() {
        with_room(128, |waits| {
            let pushed = [100, 5, 40, 101, 6];
            pushed.iter().for_each(|&seat| waits.push(1, 15, seat));
            let popped: VecDeque<_> =
                core::iter::from_fn(|| waits.pop(1, 15)).map(|(seat, _)| seat).collect();
            assert_eq!(popped, [100, 101, 5, 6, 40]);
            assert_eq!(waits.pop(0, 15), None, "the other class has a queue of its own");
        });
    }
}
