//! The lanes of a peer by class and rail, and which of them carry the work of a class.
//!
//! Work of a class goes over lanes of its class for as long as the peer has such a lane on some
//! rail, and over the peer's other lanes otherwise. So where all lanes of a peer are of one class,
//! each of them carries the work of both classes.

use crate::class::Class;
use crate::lane::NO_LANE;
use crate::lane::circle::{CIRCLES, Circle};
use crate::limits::CLASSES;

/// What has become of the work of a class.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Detour {
    /// The peer has lost its last lane of the class. Lanes of the other class carry the work.
    Begins(Class),
    /// The peer has a lane of the class again.
    Ends(Class),
}

/// The circles of one peer's lanes. A circle is linked through its lanes (`Lane::next`), and holds
/// lanes that are up. Invariants: `first` and `alone` follow `up`; a circle without a lane has no
/// bit in `room`.
#[derive(Debug)]
pub(crate) struct Circles {
    /// One lane of each circle: the next candidate.
    next: [u16; CIRCLES],
    /// The circles of which a lane may have room, a bit for each.
    room: u32,
    /// How many lanes are up, by the class of the lane.
    up: [u16; CLASSES],
    /// By the class of the work: the first circle of the lanes that carry it.
    first: [Circle; CLASSES],
    /// By the class of the work: whether only one lane carries it.
    alone: [bool; CLASSES],
    /// Whether the peer has had lanes of both classes at a time. It stays set until the peer is
    /// removed.
    divided: bool,
    /// The classes on a detour, a bit for each.
    detours: u8,
}

impl Circles {
    pub(crate) const EMPTY: Self = Self {
        next: [NO_LANE; CIRCLES],
        room: 0,
        up: [0; CLASSES],
        first: [Circle::new(Class::Urgent, 0), Circle::new(Class::Background, 0)],
        alone: [false; CLASSES],
        divided: false,
        detours: 0,
    };

    /// The circle of the lanes that carry work of `class` over `rail`.
    #[inline(always)]
    pub(crate) fn of_work(&self, class: usize, rail: usize) -> Circle {
        self.first[class].over(rail)
    }

    /// The next candidate of a circle; `NO_LANE` if the circle has no lane.
    #[inline(always)]
    pub(crate) fn next(&self, circle: Circle) -> u16 {
        self.next[circle.place()]
    }

    #[inline(always)]
    pub(crate) fn set_next(&mut self, circle: Circle, lane: u16) {
        self.next[circle.place()] = lane;
    }

    /// The rails over which a lane that carries work of `class` may have room.
    #[inline(always)]
    pub(crate) fn room(&self, class: usize) -> u16 {
        // The circles of one class are consecutive, one for each rail.
        (self.room >> self.first[class].place()) as u16
    }

    /// Whether a lane of the circle may have room.
    #[inline(always)]
    pub(crate) fn has_room(&self, circle: Circle) -> bool {
        self.room & circle.bit() != 0
    }

    #[inline(always)]
    pub(crate) fn set_room(&mut self, circle: Circle) {
        self.room |= circle.bit();
    }

    #[inline(always)]
    pub(crate) fn clear_room(&mut self, circle: Circle) {
        self.room &= !circle.bit();
    }

    /// How many lanes are up.
    pub(crate) fn count(&self) -> usize {
        self.up.iter().map(|&lanes| usize::from(lanes)).sum()
    }

    /// Whether no lane is up.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.up == [0; CLASSES]
    }

    /// Whether only one lane carries work of `class`.
    #[inline(always)]
    pub(crate) fn is_alone(&self, class: usize) -> bool {
        self.alone[class]
    }

    /// The class of the lanes that carry work of `class`.
    pub(crate) fn class_for(&self, class: usize) -> Class {
        self.first[class].class()
    }

    /// Whether each class has had lanes of its own since the peer was added.
    #[inline(always)]
    pub(crate) fn is_divided(&self) -> bool {
        self.divided
    }

    /// In whose turn the validating READs of work of `class` are posted, and its wrs of dead lanes:
    /// in the urgent one, unless each class has lanes of its own.
    #[inline(always)]
    pub(crate) fn turn_of(&self, class: usize) -> usize {
        if self.divided { class } else { 0 }
    }

    /// Counts a lane that is up from now on. Returns whether the classes have lanes of their own
    /// from now on and had not before.
    pub(crate) fn add(&mut self, class: Class) -> bool {
        self.up[class.index()] += 1;
        self.route();
        let was = self.divided;
        self.divided |= self.up.iter().all(|&lanes| lanes > 0);
        self.divided != was
    }

    /// Counts a lane that is not up any more. Returns whether other lanes than before carry the
    /// work of a class.
    pub(crate) fn remove(&mut self, class: Class) -> bool {
        let before = self.first;
        self.up[class.index()] -= 1;
        self.route();
        self.first != before
    }

    /// Works out anew which lanes carry the work of each class.
    fn route(&mut self) {
        for class in Class::ALL {
            let (own, other) = (class.index(), CLASSES - 1 - class.index());
            let from = if self.up[own] > 0 || self.up[other] == 0 { own } else { other };
            self.first[own] = Circle::new(Class::ALL[from], 0);
            self.alone[own] = self.up[from] == 1;
        }
    }

    /// Which detour has begun or ended since the last call; `None`: no other one has.
    pub(crate) fn next_detour(&mut self) -> Option<Detour> {
        for class in Class::ALL {
            let bit = 1 << class.index();
            let (own, on_detour) = (self.up[class.index()] > 0, self.detours & bit != 0);
            if own && on_detour {
                self.detours &= !bit;
                return Some(Detour::Ends(class));
            }
            // Without any lane the work waits, and is on no detour.
            if self.divided && !on_detour && self.class_for(class.index()) != class {
                self.detours |= bit;
                return Some(Detour::Begins(class));
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    const URGENT: usize = Class::Urgent.index();
    const BACKGROUND: usize = Class::Background.index();

    #[test]
    fn work_goes_over_lanes_of_its_class_while_there_is_one_and_over_the_others_otherwise() {
        let mut circles = Circles::EMPTY;
        let of = |circles: &Circles| Class::ALL.map(|class| circles.class_for(class.index()));
        assert!(!circles.add(Class::Urgent));
        assert_eq!(of(&circles), [Class::Urgent; 2], "one class of lanes carries both");
        assert!(circles.add(Class::Background), "now each class has lanes of its own");
        assert!(!circles.add(Class::Background));
        assert_eq!(of(&circles), Class::ALL);
        assert_eq!(circles.next_detour(), None);
        assert!(!circles.remove(Class::Background));
        assert_eq!(of(&circles), Class::ALL, "one lane of the class is enough");
        assert!(circles.remove(Class::Background));
        assert_eq!(of(&circles), [Class::Urgent; 2]);
        assert_eq!(circles.next_detour(), Some(Detour::Begins(Class::Background)));
        assert_eq!(circles.next_detour(), None, "a detour is told once");
        assert!(circles.remove(Class::Urgent));
        assert_eq!(circles.next_detour(), None, "no lane carries anything");
        circles.add(Class::Background);
        assert_eq!(of(&circles), [Class::Background; 2]);
        let told: Vec<_> = core::iter::from_fn(|| circles.next_detour()).collect();
        assert_eq!(told, [Detour::Begins(Class::Urgent), Detour::Ends(Class::Background)]);
    }

    #[test]
    fn the_room_of_a_class_is_that_of_the_lanes_that_carry_its_work() {
        let mut circles = Circles::EMPTY;
        circles.add(Class::Urgent);
        circles.set_room(Circle::new(Class::Urgent, 2));
        assert_eq!((circles.room(URGENT), circles.room(BACKGROUND)), (0b100, 0b100));
        circles.add(Class::Background);
        circles.set_room(Circle::new(Class::Background, 0));
        assert_eq!((circles.room(URGENT), circles.room(BACKGROUND)), (0b100, 0b001));
        assert_eq!(circles.of_work(BACKGROUND, 3), Circle::new(Class::Background, 3));
        circles.clear_room(Circle::new(Class::Background, 0));
        assert_eq!((circles.room(URGENT), circles.room(BACKGROUND)), (0b100, 0));
    }

    #[test]
    fn the_turn_of_validating_reads_changes_only_where_the_classes_have_had_lanes_of_their_own() {
        let mut circles = Circles::EMPTY;
        assert!(!circles.add(Class::Urgent) && !circles.add(Class::Urgent));
        assert_eq!((circles.turn_of(URGENT), circles.turn_of(BACKGROUND)), (URGENT, URGENT));
        assert!(!circles.is_alone(BACKGROUND));
        circles.add(Class::Background);
        assert_eq!(circles.turn_of(BACKGROUND), BACKGROUND);
        assert!(circles.is_alone(BACKGROUND) && !circles.is_alone(URGENT));
        circles.remove(Class::Background);
        assert_eq!(circles.turn_of(BACKGROUND), BACKGROUND, "lists of pages keep their meaning");
    }
}
