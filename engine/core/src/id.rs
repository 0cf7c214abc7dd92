//! The names of rails, peers, lanes, providers, work requests, regions and batches.
//!
//! They are small: a [`WrId`] holds a lane, the lane's generation and a sequence number in the 64
//! bits that a device carries from a work request to its completion.

use core::fmt;
use core::sync::atomic::{AtomicU64, Ordering};

pub use crate::limits::MAX_RAILS;

/// A local rail: the position of a NIC port in the provider's list, below [`MAX_RAILS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RailIndex(pub u8);

impl RailIndex {
    /// The rail's position as an index.
    #[inline]
    #[must_use]
    pub const fn get(self) -> usize {
        self.0 as usize
    }

    /// The rail at `place`, which is below [`MAX_RAILS`].
    #[inline]
    pub(crate) const fn at(place: usize) -> Self {
        debug_assert!(place < MAX_RAILS, "an engine drives at most MAX_RAILS rails");
        Self(place as u8)
    }
}

impl fmt::Display for RailIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "rail {}", self.0)
    }
}

/// One life of a peer. A peer that is removed and connected again is another peer.
///
/// Regions and pages carry only the low 16 bits of the life. So a region that was kept while its
/// peer's place had 65,536 other peers is taken for a region of the present peer. Even then a
/// validated page of that region is a miss ([`table`](crate::table)).
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct PeerId {
    pub(crate) index: u16,
    pub(crate) life: u32,
}

impl PeerId {
    /// The peer's place in the engine's table, for tables kept beside it.
    #[must_use]
    pub const fn index(self) -> usize {
        self.index as usize
    }
}

impl fmt::Display for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

impl fmt::Debug for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "peer {}.{}", self.index, self.life)
    }
}

/// One life of a lane. The generation distinguishes the QPs that use one place in turn, so that a
/// completion or an event of an earlier QP is recognised and dropped.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct LaneId {
    index: u16,
    generation: u32,
}

impl LaneId {
    /// Generations are counted modulo this: 24 bits of a `wr_id`.
    pub const GENERATIONS: u32 = 1 << 24;

    /// The lane at place `index`, in the life `generation`; only the low 24 bits of `generation`
    /// count.
    #[must_use]
    pub const fn new(index: u16, generation: u32) -> Self {
        Self { index, generation: generation % Self::GENERATIONS }
    }

    /// The lane's place in the engine's table.
    #[inline]
    #[must_use]
    pub const fn index(self) -> usize {
        self.index as usize
    }

    /// As [`index`](Self::index).
    pub(crate) const fn place(self) -> u16 {
        self.index
    }

    /// The number of this life of the place, modulo [`LaneId::GENERATIONS`].
    #[inline]
    #[must_use]
    pub const fn generation(self) -> u32 {
        self.generation
    }

    /// The next life of the same place.
    pub(crate) const fn next_life(self) -> Self {
        Self::new(self.index, self.generation + 1)
    }
}

impl fmt::Display for LaneId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

impl fmt::Debug for LaneId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "lane {}.{}", self.index, self.generation)
    }
}

/// One provider among all of a process. A lane carries the id of the provider that opened it, so
/// that no other provider takes the lane for its own.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ProviderId(u64);

impl ProviderId {
    /// A new id, which no provider of this process has had before.
    #[must_use]
    #[allow(clippy::new_without_default, reason = "each call gives another id")]
    pub fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        // 2^64 ids are never used up.
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

impl fmt::Debug for ProviderId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "provider {}", self.0)
    }
}

/// The name of a work request while the hardware has it: lane (16 bits), generation (24 bits),
/// sequence number on the lane (24 bits), from the high end down. It is never a pointer, so a
/// completion with an unknown `WrId` is dropped and nothing is followed.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct WrId(pub u64);

impl WrId {
    /// Sequence numbers are counted modulo this.
    pub const SEQUENCES: u32 = 1 << 24;

    /// The id of the wr with sequence number `seq` (its low 24 bits) on `lane`.
    #[inline]
    #[must_use]
    pub const fn new(lane: LaneId, seq: u32) -> Self {
        Self(((lane.index as u64) << 48) | ((lane.generation as u64) << 24) | (seq % Self::SEQUENCES) as u64)
    }

    /// The id of the wr that is posted `n` wrs after this one on the same lane.
    #[inline]
    #[must_use]
    pub const fn nth(self, n: u32) -> Self {
        let low = Self::SEQUENCES as u64 - 1;
        Self((self.0 & !low) | (self.0.wrapping_add(n as u64) & low))
    }

    /// The lane, in the life that posted it.
    #[inline]
    #[must_use]
    pub const fn lane(self) -> LaneId {
        LaneId { index: (self.0 >> 48) as u16, generation: (self.0 >> 24) as u32 % LaneId::GENERATIONS }
    }

    /// The sequence number, modulo [`WrId::SEQUENCES`].
    #[inline]
    #[must_use]
    pub const fn seq(self) -> u32 {
        self.0 as u32 % Self::SEQUENCES
    }
}

impl fmt::Debug for WrId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} wr {}", self.lane(), self.seq())
    }
}

/// Registered local memory, by its place in the engine's table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RegionId(pub(crate) u16);

impl RegionId {
    /// The region's place as an index.
    #[must_use]
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// The name of a submitted batch, valid while the batch is in flight and afterwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ticket {
    pub(crate) batch: u16,
    pub(crate) serial: u32,
}

impl Ticket {
    /// The name as one number, for callers in other languages.
    #[inline]
    #[must_use]
    pub const fn to_bits(self) -> u64 {
        (self.batch as u64) << 32 | self.serial as u64
    }

    /// The name that [`to_bits`](Self::to_bits) gave as `bits`. Other numbers name no batch, which
    /// the engine answers with [`FlightError`](crate::error::FlightError).
    #[inline]
    #[must_use]
    pub const fn from_bits(bits: u64) -> Self {
        // No engine has as many batches as that.
        let batch = if bits >> 48 == 0 { (bits >> 32) as u16 } else { u16::MAX };
        Self { batch, serial: bits as u32 }
    }
}

impl fmt::Display for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "batch {}.{}", self.batch, self.serial)
    }
}

/// An engine's name for a remote region, in one life of its peer: where pages come from. It is one
/// word, so that two of them are compared by one instruction.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct RegionRef(u64);

impl RegionRef {
    /// No region. No page has this value, since region numbers end below it.
    pub(crate) const NONE: Self = Self(u64::MAX);

    pub(crate) const fn new(engine: u16, region: u16, peer: PeerId) -> Self {
        let peer = (peer.life as u64 & 0xFFFF) << 16 | peer.index as u64;
        Self((engine as u64) << 48 | (region as u64) << 32 | peer)
    }

    #[inline]
    pub(crate) const fn engine(self) -> u16 {
        (self.0 >> 48) as u16
    }

    #[inline]
    pub(crate) const fn region(self) -> u16 {
        (self.0 >> 32) as u16
    }

    #[inline]
    pub(crate) const fn peer(self) -> PeerOf {
        PeerOf(self.0 as u32)
    }
}

/// A peer, as a [`RegionRef`] names it: its place and the low 16 bits of its life.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct PeerOf(u32);

impl PeerOf {
    #[inline]
    pub(crate) const fn index(self) -> u16 {
        self.0 as u16
    }

    /// The low 16 bits of the peer's life.
    #[inline]
    pub(crate) const fn life(self) -> u16 {
        (self.0 >> 16) as u16
    }
}

impl fmt::Debug for PeerOf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "peer {}.{}", self.index(), self.life())
    }
}

impl fmt::Debug for RegionRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "region {} of {:?}, engine {}", self.region(), self.peer(), self.engine())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_region_ref_gives_back_its_parts() {
        let source = RegionRef::new(65_535, 65_534, PeerId { index: 65_533, life: 0x7_FFFE });
        assert_eq!((source.engine(), source.region()), (65_535, 65_534));
        assert_eq!((source.peer().index(), source.peer().life()), (65_533, 65_534));
        assert_ne!(source, RegionRef::NONE);
    }

    #[test]
    fn a_wr_id_gives_back_its_parts() {
        for (index, generation, seq) in [(0, 0, 0), (u16::MAX, 0xFF_FFFF, 0xFF_FFFF), (7, 1, 2)] {
            let id = WrId::new(LaneId::new(index, generation), seq);
            assert_eq!(id.lane(), LaneId::new(index, generation));
            assert_eq!(id.seq(), seq);
        }
    }

    #[test]
    fn the_next_wr_is_of_the_same_lane() {
        let lane = LaneId::new(7, LaneId::GENERATIONS - 1);
        for (seq, n) in [(0, 0), (5, 3), (WrId::SEQUENCES - 1, 1), (u32::MAX - 1, 9), (3, u32::MAX)] {
            assert_eq!(WrId::new(lane, seq).nth(n), WrId::new(lane, seq.wrapping_add(n)), "{seq} + {n}");
        }
    }

    #[test]
    fn a_generation_wraps_within_its_bits() {
        let last = LaneId::new(3, LaneId::GENERATIONS - 1);
        assert_eq!(last.next_life(), LaneId::new(3, 0));
        assert_eq!(WrId::new(last.next_life(), 9).lane().index(), 3);
    }
}
