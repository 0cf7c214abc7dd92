//! What a producer offers: a layout, an epoch, regions, rails.

use std::fmt;
use std::num::NonZeroU64;

use kvrail_core::id::MAX_RAILS;
use kvrail_core::remote::{OfferError, RegionOffer};

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

/// A region that can be addressed without overflow: every slot, and every table entry, ends within
/// 64 bits. Addresses are in the producer's address space, keys in the order of its rails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OfferedRegion(RegionOffer);

impl OfferedRegion {
    /// Checks the numbers.
    ///
    /// # Errors
    ///
    /// They describe no region.
    pub fn new(offer: RegionOffer) -> Result<Self, OfferError> {
        offer.check().map(|()| Self(offer))
    }

    /// Its numbers, as the engine takes them.
    #[must_use]
    pub const fn offer(&self) -> &RegionOffer {
        &self.0
    }
}

/// Why regions cannot be offered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RegionError {
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
