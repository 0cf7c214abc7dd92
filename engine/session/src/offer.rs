//! What a producer offers: a layout, an epoch, regions, rails.

use std::fmt;
use std::num::NonZeroU64;

use kvrail_core::id::MAX_RAILS;
use kvrail_core::provider::RailKeys;
use kvrail_core::table::ENTRY_BYTES;

use crate::list::List;
use crate::name::{LayoutName, RailName};

/// The most regions that one producer offers.
pub const MAX_REGIONS: usize = 1024;
/// The most lanes that one exchange asks for.
pub const MAX_LANES: usize = 64;

/// The rails of one side.
pub type Rails = List<RailDescription, MAX_RAILS>;

/// 128 bits that differ whenever one byte of a page could land elsewhere. Opaque here.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint(pub [u8; 16]);

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What both sides must agree on before a byte moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Layout {
    /// What people call it.
    pub name: LayoutName,
    /// What it is.
    pub fingerprint: Fingerprint,
    /// Bytes of one page.
    pub page_bytes: NonZeroU64,
}

impl fmt::Display for Layout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` ({} bytes a page, fingerprint {})", self.name, self.page_bytes, self.fingerprint)
    }
}

/// One life of a producer: another number after each start, so that what was learnt from an earlier
/// life (keys, addresses, locations) is not believed. Epochs are random and have no order.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Epoch(pub NonZeroU64);

impl Epoch {
    /// A new one, from the system's random numbers.
    ///
    /// # Errors
    ///
    /// The system has none to give.
    pub fn random() -> Result<Self, getrandom::Error> {
        loop {
            if let Some(epoch) = NonZeroU64::new(getrandom::u64()?) {
                return Ok(Self(epoch));
            }
        }
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What moves the bytes of a rail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TransportKind {
    /// Shared memory of one host.
    Shm,
    /// TCP: functional, not fast.
    Tcp,
    /// RDMA verbs.
    Verbs,
    /// Something that this version does not know: at least 4.
    Other(u8),
}

impl TransportKind {
    /// The kind behind a number on the wire; 0 is none.
    #[must_use]
    pub const fn from_code(code: u8) -> Option<Self> {
        Some(match code {
            0 => return None,
            1 => Self::Shm,
            2 => Self::Tcp,
            3 => Self::Verbs,
            other => Self::Other(other),
        })
    }

    /// Its number on the wire.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::Shm => 1,
            Self::Tcp => 2,
            Self::Verbs => 3,
            Self::Other(code) => code,
        }
    }
}

impl fmt::Display for TransportKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Shm => f.write_str("shm"),
            Self::Tcp => f.write_str("tcp"),
            Self::Verbs => f.write_str("verbs"),
            Self::Other(code) => write!(f, "transport {code}"),
        }
    }
}

/// 64 bytes that only a transport understands: where a rail is (a segment's name, host and port).
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct RailAddress(pub [u8; 64]);

/// 64 bytes that only a transport understands: one end of a lane (QP number, PSN, GID). All zero for
/// transports that need no exchange.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct LaneBlob(pub [u8; 64]);

impl LaneBlob {
    /// For transports whose lanes need no exchange.
    pub const EMPTY: Self = Self([0; 64]);
}

/// A blob up to its last byte that is not zero.
fn write_blob(bytes: &[u8; 64], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let end = bytes.iter().rposition(|&b| b != 0).map_or(0, |last| last + 1);
    bytes[..end].iter().try_for_each(|b| write!(f, "{b:02x}"))
}

impl fmt::Debug for RailAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_blob(&self.0, f)
    }
}

impl fmt::Debug for LaneBlob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_blob(&self.0, f)
    }
}

/// A rail, as its owner tells a peer of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RailDescription {
    /// What the owner calls it.
    pub name: RailName,
    /// What moves its bytes.
    pub kind: TransportKind,
    /// Where it is, in the transport's own words.
    pub address: RailAddress,
    /// What it carries at best, in bytes per second.
    pub nominal_bytes_per_sec: u64,
    /// The NUMA node it hangs on, if known.
    pub numa: Option<u8>,
    /// Lanes that peers hold on it now. A producer's server fills it in.
    pub lanes: u32,
}

/// A published region, as numbers: [`OfferedRegion`] is the checked form. Addresses are in the
/// producer's address space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RegionParts {
    /// Where slot 0 begins.
    pub base: u64,
    /// Bytes of one page.
    pub page_bytes: u64,
    /// Bytes from one slot to the next, at least `page_bytes`.
    pub stride: u64,
    /// How many slots, at least 1.
    pub slots: u32,
    /// The region's key on each of the producer's rails.
    pub keys: RailKeys,
    /// Its publication table, if it has one.
    pub table: Option<OfferedTable>,
}

/// A publication table: one entry of 16 bytes per slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OfferedTable {
    /// Where the entry of slot 0 is, a multiple of 16.
    pub base: u64,
    /// The table's key on each of the producer's rails.
    pub keys: RailKeys,
}

/// A region that can be addressed without overflow: every slot, and every table entry, ends within
/// 64 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OfferedRegion(RegionParts);

/// Why numbers are no region.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RegionError {
    /// No slots.
    #[error("a region of no slots: offer at least one")]
    NoSlots,
    /// Pages of no bytes.
    #[error("a region with pages of 0 bytes")]
    NoBytes,
    /// Slots overlap.
    #[error("a stride of {stride} bytes is less than a page of {page_bytes}: slots would overlap")]
    Overlap {
        /// From slot to slot.
        stride: u64,
        /// Of a page.
        page_bytes: u64,
    },
    /// It would reach beyond the last address.
    #[error("{slots} slots, {stride} bytes apart from {base:#x}, end beyond 2^64")]
    Range {
        /// Start.
        base: u64,
        /// From slot to slot.
        stride: u64,
        /// How many.
        slots: u32,
    },
    /// The table is misaligned or would reach beyond the last address.
    #[error("a table of {slots} entries at {base:#x} is not {ENTRY_BYTES}-byte aligned below 2^64")]
    Table {
        /// Start of the table.
        base: u64,
        /// Entries.
        slots: u32,
    },
    /// Its pages are not the layout's.
    #[error("region {index} has pages of {region} bytes, the layout's have {layout}")]
    Page {
        /// Which region.
        index: usize,
        /// Its pages.
        region: u64,
        /// The layout's.
        layout: u64,
    },
    /// Too many regions.
    #[error("{count} regions: {MAX_REGIONS} is the most")]
    TooMany {
        /// How many.
        count: usize,
    },
}

impl OfferedRegion {
    /// Checks the numbers.
    ///
    /// # Errors
    ///
    /// They describe no region.
    pub fn new(parts: RegionParts) -> Result<Self, RegionError> {
        let RegionParts { base, page_bytes, stride, slots, table, .. } = parts;
        if page_bytes == 0 {
            return Err(RegionError::NoBytes);
        }
        if stride < page_bytes {
            return Err(RegionError::Overlap { stride, page_bytes });
        }
        let last = slots.checked_sub(1).ok_or(RegionError::NoSlots)?;
        let end = u64::from(last)
            .checked_mul(stride)
            .and_then(|offset| offset.checked_add(page_bytes))
            .and_then(|len| base.checked_add(len));
        if end.is_none() {
            return Err(RegionError::Range { base, stride, slots });
        }
        if let Some(OfferedTable { base, .. }) = table {
            // 2^32 entries of 16 bytes do not overflow by themselves.
            let end = base.checked_add(u64::from(slots) * ENTRY_BYTES);
            if base % ENTRY_BYTES != 0 || end.is_none() {
                return Err(RegionError::Table { base, slots });
            }
        }
        Ok(Self(parts))
    }

    /// Its numbers.
    #[must_use]
    pub const fn parts(&self) -> &RegionParts {
        &self.0
    }
}

/// Whether all regions have the layout's pages, and are not too many.
pub(crate) fn check_regions(layout: &Layout, regions: &[OfferedRegion]) -> Result<(), RegionError> {
    if regions.len() > MAX_REGIONS {
        return Err(RegionError::TooMany { count: regions.len() });
    }
    let layout = layout.page_bytes.get();
    let odd = regions.iter().map(|r| r.0.page_bytes).enumerate().find(|&(_, bytes)| bytes != layout);
    odd.map_or(Ok(()), |(index, region)| Err(RegionError::Page { index, region, layout }))
}

/// All that a producer offers, checked: the regions have the layout's pages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    /// The layout; the reader's own.
    pub layout: Layout,
    /// This life of the producer.
    pub epoch: Epoch,
    /// Its rails. Keys of a region are in the same order.
    pub rails: Rails,
    /// Its regions, at most [`MAX_REGIONS`].
    pub regions: Vec<OfferedRegion>,
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: RegionParts = RegionParts {
        base: 0x1000,
        page_bytes: 4096,
        stride: 4096,
        slots: 8,
        keys: [1; MAX_RAILS],
        table: Some(OfferedTable { base: 0x100, keys: [2; MAX_RAILS] }),
    };

    #[test]
    fn a_region_ends_within_64_bits() {
        assert!(OfferedRegion::new(GOOD).is_ok());
        let top = RegionParts { base: u64::MAX - 8 * 4096, ..GOOD };
        assert!(OfferedRegion::new(top).is_ok());
        let beyond = RegionParts { base: top.base + 1, ..GOOD };
        assert_eq!(
            OfferedRegion::new(beyond),
            Err(RegionError::Range { base: beyond.base, stride: 4096, slots: 8 })
        );
        let huge = RegionParts { stride: u64::MAX / 2, ..GOOD };
        assert!(matches!(OfferedRegion::new(huge), Err(RegionError::Range { .. })));
    }

    #[test]
    fn slots_do_not_overlap_and_exist() {
        let check = |parts| OfferedRegion::new(parts).unwrap_err();
        assert_eq!(
            check(RegionParts { stride: 4095, ..GOOD }),
            RegionError::Overlap { stride: 4095, page_bytes: 4096 }
        );
        assert_eq!(check(RegionParts { slots: 0, ..GOOD }), RegionError::NoSlots);
        assert_eq!(check(RegionParts { page_bytes: 0, ..GOOD }), RegionError::NoBytes);
    }

    #[test]
    fn a_table_is_aligned_and_ends_within_64_bits() {
        for base in [8, 17, u64::MAX - 15] {
            let table = Some(OfferedTable { base, keys: [0; MAX_RAILS] });
            assert_eq!(
                OfferedRegion::new(RegionParts { table, ..GOOD }),
                Err(RegionError::Table { base, slots: 8 })
            );
        }
    }
}
