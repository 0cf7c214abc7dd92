//! Names for things, small enough to travel in a `wr_id`.

use core::fmt;
use core::sync::atomic::{AtomicU64, Ordering};

pub use crate::limits::MAX_RAILS;

/// A local rail: the position of a NIC port in the provider's list, below [`MAX_RAILS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RailIndex(pub u8);

impl RailIndex {
    /// As an index.
    #[inline]
    #[must_use]
    pub const fn get(self) -> usize {
        self.0 as usize
    }

    /// The rail at this place, which is below [`MAX_RAILS`].
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
/// Regions and pages carry the low 16 bits of the life alone. One that was kept of a peer whose
/// place has had 65,536 others since is taken for the present one's: a page of it that is validated
/// is a miss even then ([`table`](crate::table)).
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

/// One life of a lane. The generation distinguishes the QPs that use one place in turn, so that
/// what an earlier one still had to say (a completion, an event) is recognised and dropped.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct LaneId {
    index: u16,
    generation: u32,
}

impl LaneId {
    /// Generations are counted modulo this: 24 bits of a `wr_id`.
    pub const GENERATIONS: u32 = 1 << 24;

    /// Lane `index` in its `generation`, of which the low 24 bits count.
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

    /// Which life of that place, modulo [`LaneId::GENERATIONS`].
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

/// One provider among all of a process. A lane carries that of the provider that opened it, so that
/// no other provider takes it for one of its own.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ProviderId(u64);

impl ProviderId {
    /// One that no provider of this process has had before.
    #[must_use]
    #[allow(clippy::new_without_default, reason = "each is another one")]
    pub fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        // 2^64 are never used up.
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

impl fmt::Debug for ProviderId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "provider {}", self.0)
    }
}

/// What a work request is called while the hardware has it: lane (16 bits), generation (24 bits),
/// sequence number on the lane (24 bits), from the high end down. Never a pointer: a completion
/// that names something unknown is dropped, not followed.
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

    /// The id of the wr that follows `n` places behind on the same lane.
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
    /// As an index.
    #[must_use]
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// A submitted batch, while it is in flight and after.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ticket {
    pub(crate) batch: u16,
    pub(crate) serial: u32,
}

impl fmt::Display for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "batch {}.{}", self.batch, self.serial)
    }
}

/// Where pages come from: an engine's name for a remote region, in one life of its peer. One word,
/// so that two are compared, and moved, in one go.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct RegionRef(u64);

impl RegionRef {
    /// Nowhere: no page has it, since region numbers end before.
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

/// A peer, as a source names it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct PeerOf(u32);

impl PeerOf {
    #[inline]
    pub(crate) const fn index(self) -> u16 {
        self.0 as u16
    }

    /// The low 16 bits of its life.
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
    fn a_source_gives_back_what_went_in() {
        let source = RegionRef::new(65_535, 65_534, PeerId { index: 65_533, life: 0x7_FFFE });
        assert_eq!((source.engine(), source.region()), (65_535, 65_534));
        assert_eq!((source.peer().index(), source.peer().life()), (65_533, 65_534));
        assert_ne!(source, RegionRef::NONE);
    }

    #[test]
    fn wr_id_gives_back_what_went_in() {
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
