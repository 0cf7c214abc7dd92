//! The offer of a producer: its layout, its epoch, its rails and its regions.

use std::collections::BTreeMap;
use std::fmt;
use std::num::{NonZeroU16, NonZeroU64};

use kvrail_core::id::MAX_RAILS;
use kvrail_core::remote::{OfferError, RegionOffer};
use kvrail_host::secret::{RandomError, random_bytes};
use kvrail_layouts::{Fingerprint, Identity, KvLayout};

use crate::name::{LayoutName, Name, NameError};

/// The most regions that one producer offers.
pub const MAX_REGIONS: usize = 1024;
/// The most lanes that one message requests.
pub const MAX_LANES: usize = 64;

/// The rails of one side.
pub type RailList = heapless::Vec<RailDescription, MAX_RAILS>;

/// The layout of pages, on which both sides must agree before a byte moves. The name may differ.
///
/// `==` compares the name, too; peers compare by [`same_bytes`](Self::same_bytes).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Layout {
    /// Its name, for messages. Two sides may have different names for one layout.
    pub name: LayoutName,
    /// The digest of the layout that the two sides compare.
    pub fingerprint: Fingerprint,
    /// Bytes of one page: the sum of its parts.
    pub page_bytes: NonZeroU64,
    /// Parts of a page, each of which lies in a region of its own; 1 for most. An engine that keeps
    /// each layer in memory of its own has one per layer.
    pub parts: NonZeroU16,
}

impl Layout {
    /// The layout `L`. Compiling fails, with the reason, for a layout that leaves its rank or a
    /// distance to run time ([`Identity::of_layout`]).
    ///
    /// # Errors
    ///
    /// Its name is empty, or does not fit its field.
    ///
    /// # Panics
    ///
    /// Never for a layout that [`KvLayout`] can describe: its pages have 1 to 65,535 regions, and
    /// at least one byte.
    pub fn of<L: KvLayout>() -> Result<Self, NameError> {
        let parts = u16::try_from(L::REGIONS).ok().and_then(NonZeroU16::new);
        Ok(Self {
            name: LayoutName::new(L::NAME)?,
            fingerprint: Identity::of_layout::<L>().fingerprint(),
            page_bytes: NonZeroU64::new(L::PAGE_BYTES).expect("a page has bytes"),
            parts: parts.expect("a page has 1 to 65,535 regions"),
        })
    }

    /// Whether pages of the two are the same bytes, whatever each is called.
    #[must_use]
    pub fn same_bytes(&self, other: &Self) -> bool {
        let Self { name: _, fingerprint, page_bytes, parts } = *self;
        (fingerprint, page_bytes, parts) == (other.fingerprint, other.page_bytes, other.parts)
    }
}

impl fmt::Display for Layout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, fingerprint, page_bytes, parts } = self;
        write!(f, "`{name}` ({page_bytes} bytes a page")?;
        if parts.get() > 1 {
            write!(f, " in {parts} parts")?;
        }
        write!(f, ", fingerprint {fingerprint})")
    }
}

/// The epoch of a producer: a number that changes at each start, so that keys, addresses and
/// locations from before a restart are not used. Epochs are random and have no order.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Epoch(pub NonZeroU64);

impl Epoch {
    /// A new one, from the system's random numbers.
    ///
    /// # Errors
    ///
    /// The system has no random numbers to give.
    pub fn random() -> Result<Self, RandomError> {
        loop {
            if let Some(epoch) = NonZeroU64::new(u64::from_le_bytes(random_bytes()?)) {
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

/// The kind of a rail's transport.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum TransportKind {
    /// Shared memory of one host.
    Shm,
    /// TCP: functional, not fast.
    Tcp,
    /// RDMA verbs.
    Verbs,
    /// A transport that this version does not know: its number, at least 4.
    Other(u8),
}

impl TransportKind {
    /// The kind with this number on the wire; 0 is no kind.
    #[must_use]
    pub const fn from_wire(code: u8) -> Option<Self> {
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
    pub const fn to_wire(self) -> u8 {
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

/// The address of a rail (a segment's name, a host and a port): 64 bytes that only its transport
/// understands.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct RailAddress(pub [u8; 64]);

/// One end of a lane (QP number, PSN, GID): 64 bytes that only its transport understands. All bytes
/// are zero for transports that need no exchange.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct LaneBlob(pub [u8; 64]);

impl LaneBlob {
    /// For transports whose lanes need no exchange.
    pub const EMPTY: Self = Self([0; 64]);
}

/// Writes a blob up to its last byte that is not zero.
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

/// A rail, as its owner describes it to a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RailDescription {
    /// The owner's name for it, `mlx5_0:1` for example.
    pub name: Name<32>,
    /// Its transport.
    pub kind: TransportKind,
    /// Its address, as its transport encodes it.
    pub address: RailAddress,
    /// The most that it carries, in bytes per second.
    pub nominal_bytes_per_sec: u64,
    /// The NUMA node to which its device is attached, if known.
    pub numa: Option<u8>,
    /// Lanes that peers hold on it now. A producer's server fills it in.
    pub lanes: u32,
}

/// A region that can be addressed without overflow: every slot, and every table entry, ends within
/// 64 bits. Addresses are in the producer's address space, keys in the order of its rails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OfferedRegion {
    offer: RegionOffer,
    part: u16,
}

impl OfferedRegion {
    /// Checks the numbers of a region that holds whole pages, or the first part of each.
    ///
    /// # Errors
    ///
    /// The numbers describe no region.
    pub fn new(offer: RegionOffer) -> Result<Self, OfferError> {
        offer.check().map(|()| Self { offer, part: 0 })
    }

    /// The same region, holding part `part` of each page instead.
    #[must_use]
    pub const fn of_part(self, part: u16) -> Self {
        Self { part, ..self }
    }

    /// Its numbers, as the engine takes them.
    #[must_use]
    pub const fn offer(&self) -> &RegionOffer {
        &self.offer
    }

    /// Which part of each page it holds, below [`Layout::parts`].
    #[must_use]
    pub const fn part(&self) -> u16 {
        self.part
    }
}

/// Why regions cannot be offered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OfferedRegionError {
    /// A region holds a part that the layout does not have.
    #[error(
        "region {index} holds part {part} of each page, but the layout has {parts} parts, counted from 0"
    )]
    Part {
        /// Which region.
        index: usize,
        /// Its part.
        part: u16,
        /// The layout's parts.
        parts: u16,
    },
    /// The same part has two sizes.
    #[error(
        "region {index} has {region} bytes of part {part} of each page, but an earlier region has {earlier}"
    )]
    PartBytes {
        /// Which region.
        index: usize,
        /// Its part.
        part: u16,
        /// Its bytes of each page.
        region: u64,
        /// An earlier region's bytes of that part.
        earlier: u64,
    },
    /// The sizes of the parts do not add up to a page.
    #[error(
        "the regions hold {present} of {parts} parts, {sum} bytes of each page, but the layout's pages have {layout}"
    )]
    Page {
        /// How many parts the regions hold.
        present: usize,
        /// How many parts the layout has.
        parts: u16,
        /// The sum of the held parts' bytes.
        sum: u64,
        /// Bytes of a page of the layout.
        layout: u64,
    },
    /// There are too many regions.
    #[error("{count} regions are too many: offer at most {MAX_REGIONS}")]
    TooMany {
        /// How many there are.
        count: usize,
    },
}

impl OfferedRegionError {
    /// A number that never changes its meaning (docs/errors.md).
    #[must_use]
    pub const fn code(&self) -> u32 {
        match self {
            Self::Part { .. } => 4050,
            Self::PartBytes { .. } => 4051,
            Self::Page { .. } => 4052,
            Self::TooMany { .. } => 4053,
        }
    }
}

/// Checks that regions can be the layout's: they are not too many, each part has one size, and the
/// sizes add up to a page if all parts are there, to less otherwise.
pub(crate) fn check_regions(layout: &Layout, regions: &[OfferedRegion]) -> Result<(), OfferedRegionError> {
    if regions.len() > MAX_REGIONS {
        return Err(OfferedRegionError::TooMany { count: regions.len() });
    }
    let (bytes, parts) = (layout.page_bytes.get(), layout.parts.get());
    // No more entries than regions.
    let mut sizes = BTreeMap::new();
    for (index, &OfferedRegion { offer, part }) in regions.iter().enumerate() {
        if part >= parts {
            return Err(OfferedRegionError::Part { index, part, parts });
        }
        let region = offer.page_bytes;
        let earlier = *sizes.entry(part).or_insert(region);
        if earlier != region {
            return Err(OfferedRegionError::PartBytes { index, part, region, earlier });
        }
    }
    // 1024 sizes below 2^32.
    let sum = sizes.values().sum::<u64>();
    let present = sizes.len();
    let fits = if present == usize::from(parts) { sum == bytes } else { sum < bytes };
    if fits { Ok(()) } else { Err(OfferedRegionError::Page { present, parts, sum, layout: bytes }) }
}

/// A producer's offer. It has been checked: the regions can hold the layout's pages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    /// The producer's layout, which has the same bytes as the reader's and perhaps another name.
    pub layout: Layout,
    /// The producer's epoch.
    pub epoch: Epoch,
    /// Its rails. A region's keys are in the order of the rails.
    pub rails: RailList,
    /// Its regions, at most [`MAX_REGIONS`].
    pub regions: Vec<OfferedRegion>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use kvrail_core::id::MAX_RAILS;
    use kvrail_layouts::catalogue::VllmFp8DsMla;

    fn layout(page_bytes: u64, parts: u16) -> Layout {
        Layout {
            name: "test".parse().unwrap(),
            fingerprint: Fingerprint::from_bytes([0; 16]),
            page_bytes: NonZeroU64::new(page_bytes).unwrap(),
            parts: NonZeroU16::new(parts).unwrap(),
        }
    }

    fn region(part: u16, page_bytes: u64) -> OfferedRegion {
        let offer = RegionOffer {
            base: 0,
            page_bytes,
            stride: page_bytes,
            slots: 1,
            keys: [0; MAX_RAILS],
            table: None,
        };
        OfferedRegion::new(offer).unwrap().of_part(part)
    }

    #[test]
    fn parts_add_up_to_a_page() {
        let check = |parts, regions: &[(u16, u64)]| {
            let regions: Vec<_> = regions.iter().map(|&(part, bytes)| region(part, bytes)).collect();
            check_regions(&layout(100, parts), &regions)
        };
        assert_eq!(check(1, &[(0, 100), (0, 100)]), Ok(()));
        assert_eq!(check(1, &[]), Ok(()));
        // Two pools, of which the second has not published all its parts yet.
        assert_eq!(check(3, &[(0, 40), (2, 20), (1, 40), (0, 40)]), Ok(()));
        assert_eq!(check(3, &[(2, 20)]), Ok(()));
        let page = |present, parts, sum| Err(OfferedRegionError::Page { present, parts, sum, layout: 100 });
        assert_eq!(check(1, &[(0, 99)]), page(1, 1, 99));
        assert_eq!(check(2, &[(0, 100)]), page(1, 2, 100));
        assert_eq!(check(2, &[(0, 50), (1, 51)]), page(2, 2, 101));
        assert_eq!(
            check(2, &[(0, 50), (2, 50)]),
            Err(OfferedRegionError::Part { index: 1, part: 2, parts: 2 })
        );
        assert_eq!(
            check(2, &[(1, 50), (0, 50), (1, 49)]),
            Err(OfferedRegionError::PartBytes { index: 2, part: 1, region: 49, earlier: 50 })
        );
    }

    #[test]
    fn a_declared_layout_gives_its_name_bytes_and_fingerprint() {
        let layout = Layout::of::<VllmFp8DsMla>().unwrap();
        assert_eq!(layout.name.as_str(), VllmFp8DsMla::NAME);
        assert_eq!(layout.page_bytes.get(), VllmFp8DsMla::PAGE_BYTES);
        assert_eq!(layout.fingerprint, VllmFp8DsMla::FINGERPRINT);
    }
}
