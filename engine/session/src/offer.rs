//! The offer of a producer: its layout, its epoch, its rails and its regions.

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
    /// The digest of what all ranks of the layout have in common: where two sides agree in it and
    /// differ in `fingerprint`, each holds another rank of one layout.
    pub any_rank: Fingerprint,
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
        let identity = Identity::of_layout::<L>();
        Ok(Self {
            name: LayoutName::new(L::NAME)?,
            fingerprint: identity.fingerprint(),
            any_rank: identity.fingerprint_of_any_rank(),
            page_bytes: NonZeroU64::new(L::PAGE_BYTES).expect("a page has bytes"),
            parts: parts.expect("a page has 1 to 65,535 regions"),
        })
    }

    /// Whether pages of the two are the same bytes, whatever each is called.
    #[must_use]
    pub fn same_bytes(&self, other: &Self) -> bool {
        let Self { name: _, any_rank: _, fingerprint, page_bytes, parts } = *self;
        (fingerprint, page_bytes, parts) == (other.fingerprint, other.page_bytes, other.parts)
    }
}

impl fmt::Display for Layout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, fingerprint, page_bytes, parts, any_rank: _ } = self;
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

#[cfg(test)]
mod tests {
    use super::*;
    use kvrail_layouts::catalogue::VllmFp8DsMla;

    #[test]
    fn a_declared_layout_gives_its_name_bytes_and_fingerprint() {
        let layout = Layout::of::<VllmFp8DsMla>().unwrap();
        assert_eq!(layout.name.as_str(), VllmFp8DsMla::NAME);
        assert_eq!(layout.page_bytes.get(), VllmFp8DsMla::PAGE_BYTES);
        assert_eq!(layout.fingerprint, VllmFp8DsMla::FINGERPRINT);
    }
}
