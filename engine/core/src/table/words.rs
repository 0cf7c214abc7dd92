//! The words of an entry: a publication's number, the parts of a page that are ready, a key's
//! digest.

use core::fmt;

/// Numbers one publication of a slot. Generation 0 is never published.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Generation(pub u64);

impl Generation {
    const VALID: u64 = 1;

    /// The bits that stay when a generation becomes invalid.
    pub(super) const CLEAR_VALID: u64 = !Self::VALID;

    /// Whether the slot holds a published page.
    #[must_use]
    pub const fn is_valid(self) -> bool {
        self.0 & Self::VALID != 0
    }

    /// How often the slot has been published, modulo 2^31.
    #[must_use]
    pub const fn count(self) -> u32 {
        (self.0 as u32) >> 1
    }

    pub(super) const fn successor(self, nonce: u32) -> Self {
        let count = (self.count() + 1) & (u32::MAX >> 1);
        Self((nonce as u64) << 32 | (count as u64) << 1 | Self::VALID)
    }

    pub(super) const fn invalid(self) -> Self {
        Self(self.0 & Self::CLEAR_VALID)
    }
}

impl fmt::Debug for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = if self.is_valid() { "" } else { " (invalid)" };
        write!(f, "{}:{:08x}{state}", self.count(), self.0 >> 32)
    }
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// How many parts of a page are ready: parts with a lower number are written, and are not written
/// again in the same generation. What a part is (a layer, or a token of a request's last page) is
/// agreed on by publisher and reader.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ready(pub u32);

impl Ready {
    /// No part is ready.
    pub const NONE: Self = Self(0);

    /// The whole page is written, however many parts it has.
    pub const WHOLE: Self = Self(u32::MAX);
}

impl fmt::Debug for Ready {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::WHOLE => f.write_str("the whole page"),
            Self(1) => f.write_str("1 part"),
            Self(parts) => write!(f, "{parts} parts"),
        }
    }
}

impl fmt::Display for Ready {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// A digest of the key whose page a slot holds. Publisher and reader compute it in the same way.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct KeyTag(pub u128);

impl fmt::Debug for KeyTag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Display for KeyTag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::ToString;

    #[test]
    fn the_count_wraps_and_stays_valid() {
        let last = Generation((u64::from(u32::MAX)) | 5 << 32);
        let next = last.successor(6);
        assert_eq!((next.count(), next.is_valid()), (0, true));
    }

    #[test]
    fn words_are_written_as_they_are_spoken_of() {
        assert_eq!(KeyTag(0xA11CE).to_string(), "000000000000000000000000000a11ce");
        let ready = [Ready::NONE, Ready(1), Ready(2), Ready::WHOLE].map(|ready| ready.to_string());
        assert_eq!(ready, ["0 parts", "1 part", "2 parts", "the whole page"]);
    }
}
