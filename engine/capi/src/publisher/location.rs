//! Locations in C and in Rust.

use engine::core::table::{EntryValue, Generation};
use engine::{KeyTag, Location, Ready};

use crate::abi::publisher_types::{kvrail_key_tag, kvrail_location};

impl From<KeyTag> for kvrail_key_tag {
    #[inline]
    fn from(tag: KeyTag) -> Self {
        Self { low: tag.0 as u64, high: (tag.0 >> 64) as u64 }
    }
}

impl From<kvrail_key_tag> for KeyTag {
    #[inline]
    fn from(tag: kvrail_key_tag) -> Self {
        Self(u128::from(tag.high) << 64 | u128::from(tag.low))
    }
}

/// A location of `pool`, for a caller in C.
pub(crate) fn c_location(pool: u32, location: Location) -> kvrail_location {
    let Location { slot, expected: EntryValue { generation, ready, tag } } = location;
    kvrail_location { pool, slot, generation: generation.0, tag: tag.into(), ready: ready.0, reserved: 0 }
}

/// The location within its pool that a caller in C names. Any numbers are one: the reader checks it
/// against the owner's table.
#[inline]
pub(crate) fn rust_location(location: &kvrail_location) -> Location {
    let &kvrail_location { slot, generation, tag, ready, .. } = location;
    let expected = EntryValue { generation: Generation(generation), ready: Ready(ready), tag: tag.into() };
    Location { slot, expected }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_location_comes_back_as_it_was() {
        let expected = EntryValue {
            generation: Generation(0x1122_3344_0000_0003),
            ready: Ready(7),
            tag: KeyTag(0x0102_0304_0506_0708_090a_0b0c_0d0e_0f10),
        };
        let location = Location { slot: 9, expected };
        let in_c = c_location(5, location);
        assert_eq!((in_c.pool, in_c.tag.high), (5, 0x0102_0304_0506_0708));
        assert_eq!(rust_location(&in_c), location);
        assert_eq!(size_of::<kvrail_location>(), 40);
    }
}
