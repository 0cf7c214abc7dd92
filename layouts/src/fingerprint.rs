//! 128 bits that differ whenever one byte could land elsewhere: SHA-256 over a geometry.

use static_assertions::{assert_eq_align, assert_eq_size};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::axis::Spread;
use crate::geometry::{AxisStep, Geometry, MAX_AXES};
use crate::sha256::Sha256;

/// Identifies a geometry between peers, builds and machines: 128 bits that differ whenever one byte
/// could land elsewhere. Printed as 32 hexadecimal digits.
///
/// # The fingerprint, byte by byte
///
/// The first 16 bytes of SHA-256 over the following. Every number is a u64, little-endian, eight
/// bytes.
///
/// 1. 16 bytes: `kvrail geometry1` (the last character is the version of this list).
/// 2. Version, swizzle and tokens per state, as declared.
/// 3. The number of regions.
/// 4. The number of axes that follow: all but those of extent 1 that are whole.
/// 5. For each of these axes, in ascending order of [`AxisKind::number`](crate::AxisKind::number):
///    that number; the extent; the spread, 0 whole, 1 sharded, 2 replicated, 3 a stage; the ranks,
///    0 if whole, for a stage the extent of the whole; the rank + 1, 0 if it is not known, for a
///    stage its first index.
/// 6. The number of fields.
/// 7. For each field, in the order of the declaration:
///    - the name's length in bytes, and the name (UTF-8, no padding);
///    - the [`ElementKind`](crate::ElementKind) as a number, and the count;
///    - the region of the first run, and that region's bytes;
///    - where the first run begins: its offset in the region, then 0; or, if its plane's distance
///      is known only at run time, `u64::MAX`, then its offset in the row;
///    - for each axis of 4: the step, 0 shared, 1 bytes, 2 regions, 3 run time; then how many bytes
///      or regions, 0 for shared and run time.
///
/// So neither the split into planes, nor the order of axes, nor where padding was written matters
/// in itself: only where the bytes are.
///
/// # What takes part, and what does not
///
/// - Field **names** do. K and V have one shape; if they were declared in the other order, every
///   byte of K would land in V, and nothing but the name could tell. The price is that a peer which
///   calls a field otherwise is refused, by name; `#[kv(name = "…")]` brings the two together.
/// - The **page's name** does not: it moves no byte.
/// - **Alignment** does not: it is a promise about a base address, and each side has its own.
/// - **Ranks and stages** do: the same place holds other heads on another rank, and other layers on
///   another stage.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(transparent)]
pub struct Fingerprint([u8; 16]);

// It stands in wire messages as it is in memory.
assert_eq_size!(Fingerprint, [u8; 16]);
assert_eq_align!(Fingerprint, u8);

impl Fingerprint {
    /// The fingerprint of a geometry.
    #[must_use]
    pub const fn of(geometry: &Geometry) -> Self {
        let mut hash = Sha256::new().update(b"kvrail geometry1");
        hash = number(number(hash, geometry.version as u64), geometry.swizzle as u64);
        hash = number(number(hash, geometry.tokens_per_state), geometry.regions as u64);
        let mut listed = [0; MAX_AXES];
        let mut count = 0;
        let mut a = 0;
        while a < geometry.axis_count {
            let axis = &geometry.axes[a];
            if axis.extent > 1 || !matches!(axis.spread, Spread::Whole) {
                listed[count] = a;
                count += 1;
            }
            a += 1;
        }
        hash = number(hash, count as u64);
        let mut i = 0;
        while i < count {
            let axis = &geometry.axes[listed[i]];
            let (tag, ranks, rank) = match axis.spread {
                Spread::Whole => (0, 0, 0),
                Spread::Sharded { ranks, rank: None } => (1, ranks as u64, 0),
                Spread::Sharded { ranks, rank: Some(rank) } => (1, ranks as u64, rank as u64 + 1),
                Spread::Replicated { ranks } => (2, ranks as u64, 0),
                Spread::Stage { first, of } => (3, of, first),
            };
            hash = number(number(hash, axis.kind.number()), axis.extent);
            hash = number(number(number(hash, tag), ranks), rank);
            i += 1;
        }
        hash = number(hash, geometry.field_count as u64);
        let mut f = 0;
        while f < geometry.field_count {
            let field = &geometry.fields[f];
            let plane = &geometry.planes[field.plane];
            hash = number(hash, field.name.len() as u64).update(field.name.as_bytes());
            hash = number(number(hash, field.kind as u64), field.count);
            hash = number(number(hash, plane.region as u64), plane.region_bytes);
            // A page has fewer than 2^63 bytes, so no offset is u64::MAX.
            hash = match plane.offset {
                Some(offset) => number(number(hash, offset + field.offset), 0),
                None => number(number(hash, u64::MAX), field.offset),
            };
            let mut i = 0;
            while i < count {
                let (tag, step) = match plane.steps[listed[i]] {
                    AxisStep::Shared => (0, 0),
                    AxisStep::Bytes(step) => (1, step),
                    AxisStep::Regions(step) => (2, step as u64),
                    AxisStep::Runtime => (3, 0),
                };
                hash = number(number(hash, tag), step);
                i += 1;
            }
            f += 1;
        }
        let digest = hash.finish();
        let mut first = [0; 16];
        let mut i = 0;
        while i < 16 {
            first[i] = digest[i];
            i += 1;
        }
        Self(first)
    }

    /// The fingerprint with these bytes, as a peer sent them.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// Its bytes, in the order in which they are printed.
    #[must_use]
    pub const fn to_bytes(self) -> [u8; 16] {
        self.0
    }
}

impl Geometry {
    /// The geometry's fingerprint: [`Fingerprint::of`].
    #[must_use]
    pub const fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of(self)
    }
}

const fn number(hash: Sha256, number: u64) -> Sha256 {
    hash.update(&number.to_le_bytes())
}

impl core::fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        for byte in self.0 {
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

impl core::fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Fingerprint({self})")
    }
}
