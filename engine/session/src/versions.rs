//! Versions of the protocol.

use std::fmt;

/// The version of the protocol that this crate implements.
pub(crate) const VERSION: u16 = 2;

/// The protocol versions that a side speaks: a range, so that a release can work with the one
/// before.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Versions {
    min: u16,
    max: u16,
}

impl Versions {
    /// The versions that this crate speaks.
    pub const SUPPORTED: Self = Self { min: VERSION, max: VERSION };

    /// From `min` to `max`, both included; `None` unless `1 <= min <= max`.
    #[must_use]
    pub const fn new(min: u16, max: u16) -> Option<Self> {
        if min == 0 || min > max { None } else { Some(Self { min, max }) }
    }

    /// The lowest.
    #[must_use]
    pub const fn min(self) -> u16 {
        self.min
    }

    /// The highest.
    #[must_use]
    pub const fn max(self) -> u16 {
        self.max
    }

    /// The highest version that both speak.
    #[must_use]
    pub fn common(self, other: Self) -> Option<u16> {
        let highest = self.max.min(other.max);
        (highest >= self.min && highest >= other.min).then_some(highest)
    }
}

impl fmt::Display for Versions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.min == self.max {
            write!(f, "version {}", self.min)
        } else {
            write!(f, "versions {} to {}", self.min, self.max)
        }
    }
}

impl fmt::Debug for Versions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}..={}", self.min, self.max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_highest_common_version_wins() {
        let range = |min, max| Versions::new(min, max).unwrap();
        for (a, b, common) in [
            (range(1, 1), range(1, 1), Some(1)),
            (range(1, 3), range(2, 5), Some(3)),
            (range(2, 2), range(1, 9), Some(2)),
            (range(1, 1), range(2, 3), None),
            (range(4, 6), range(1, 3), None),
        ] {
            assert_eq!(a.common(b), common);
            assert_eq!(b.common(a), common);
        }
        assert_eq!((Versions::new(0, 3), Versions::new(3, 2)), (None, None));
    }
}
