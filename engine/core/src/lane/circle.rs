//! The number of a circle of lanes: those of one peer that are of one class and lead over one rail.

use crate::class::Class;
use crate::limits::{CLASSES, MAX_RAILS};

/// The circles of one peer.
pub(crate) const CIRCLES: usize = CLASSES * MAX_RAILS;

/// The number of a circle, below [`CIRCLES`]: the circles of one class are consecutive, one for
/// each rail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Circle(u8);

impl Circle {
    #[inline(always)]
    pub(crate) const fn new(class: Class, rail: u8) -> Self {
        // There are 32 circles.
        Self(class as u8 * MAX_RAILS as u8 + rail % MAX_RAILS as u8)
    }

    /// All circles of a peer.
    pub(crate) fn all() -> impl Iterator<Item = Self> {
        (0..CIRCLES as u8).map(Self)
    }

    /// Of the circle over rail 0: that of the same class over `rail`, which is below `MAX_RAILS`.
    #[inline(always)]
    pub(crate) const fn over(self, rail: usize) -> Self {
        Self(self.0 | rail as u8)
    }

    /// The circle as a place in a table of all circles.
    #[inline(always)]
    pub(crate) const fn place(self) -> usize {
        self.0 as usize % CIRCLES
    }

    /// The circle as a bit in a set of circles.
    #[inline(always)]
    pub(crate) const fn bit(self) -> u32 {
        1 << self.place()
    }

    /// The class of the lanes in it.
    pub(crate) const fn class(self) -> Class {
        Class::ALL[self.place() / MAX_RAILS]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    #[test]
    fn each_class_has_a_circle_on_each_rail() {
        let mut all: Vec<_> = Circle::all().collect();
        assert_eq!(all.len(), CIRCLES);
        for class in Class::ALL {
            for rail in 0..MAX_RAILS {
                let circle = Circle::new(class, rail as u8);
                assert_eq!((circle.class(), circle), (class, Circle::new(class, 0).over(rail)));
                all.retain(|&other| other != circle);
            }
        }
        assert!(all.is_empty());
    }
}
