//! The tables of regions: destination memory of this engine, and memory that peers have published.

pub(crate) mod faults;

use self::faults::Faults;
use crate::id::MAX_RAILS;
use crate::provider::{MemoryRange, RailKeys};

/// In links: no region.
pub(crate) const NO_REGION: u16 = u16::MAX;

/// The place of a remote region.
#[derive(Clone, Debug)]
pub(crate) struct RemotePlace {
    pub(crate) used: bool,
    /// The next region of the same peer.
    pub(crate) next: u16,
    /// Of the first region of a pool: how many regions the pool's pages have. They are in the
    /// places from this one on. 0 in the others.
    pub(crate) regions: u16,
    /// Bytes of a page in this region.
    pub(crate) page_bytes: u32,
    /// Where slot 0 starts, and bytes from one slot to the next.
    pub(crate) base: u64,
    pub(crate) stride: u64,
    /// Address of the publication table; 0 without one.
    pub(crate) table: u64,
    /// The peer's keys, by the peer's rails.
    pub(crate) keys: RailKeys,
    pub(crate) table_keys: RailKeys,
    pub(crate) faults: Faults,
}

impl RemotePlace {
    pub(crate) const FREE: Self = Self {
        used: false,
        next: NO_REGION,
        regions: 0,
        page_bytes: 0,
        base: 0,
        stride: 0,
        table: 0,
        keys: [0; MAX_RAILS],
        table_keys: [0; MAX_RAILS],
        faults: Faults::NONE,
    };
}

impl RemotePlace {
    /// The address of the page in slot number `slot`.
    #[inline]
    pub(crate) const fn page(&self, slot: u64) -> u64 {
        // `RegionOffer::check` has found that the last slot ends within 64 bits.
        self.base.wrapping_add(self.stride.wrapping_mul(slot))
    }
}

/// The place of a local region.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LocalPlace {
    pub(crate) used: bool,
    /// The first of the region's pieces, and how many it has. 0 if its slots are of one piece,
    /// which is in no table.
    pub(crate) first_piece: u16,
    pub(crate) pieces: u16,
    /// Rails on the region's NUMA node; all rails if the node is not known.
    pub(crate) near: u16,
    pub(crate) keys: RailKeys,
}

impl LocalPlace {
    pub(crate) const FREE: Self =
        Self { used: false, first_piece: 0, pieces: 0, near: 0, keys: [0; MAX_RAILS] };
}

/// One range of the memory of a local region whose slots have a piece in each of several ranges.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LocalPiece {
    pub(crate) used: bool,
    /// Bytes of a slot's piece.
    pub(crate) slot_bytes: u32,
    /// The range that is registered. Slot 0's piece is at its beginning.
    pub(crate) range: MemoryRange,
    /// Bytes from one slot's piece to the next.
    pub(crate) stride: u64,
    pub(crate) keys: RailKeys,
}

impl LocalPiece {
    pub(crate) const FREE: Self = Self {
        used: false,
        slot_bytes: 0,
        range: MemoryRange { addr: 0, len: 0 },
        stride: 0,
        keys: [0; MAX_RAILS],
    };

    /// The address of slot number `slot`'s piece.
    #[inline]
    pub(crate) const fn slot(&self, slot: u32) -> u64 {
        // Within the range, as was checked when it was registered.
        self.range.addr.wrapping_add(self.stride.wrapping_mul(slot as u64))
    }
}

/// The tables of regions.
///
/// Invariant: pages and slots name places by number, and a place is in use for as long as a page in
/// flight names it. No place of `remotes` below `first_free_remote` is free.
#[derive(Debug)]
pub(crate) struct Regions<'s> {
    pub(crate) locals: &'s mut [LocalPlace],
    pub(crate) pieces: &'s mut [LocalPiece],
    pub(crate) remotes: &'s mut [RemotePlace],
    pub(crate) first_free_remote: usize,
}

impl<'s> Regions<'s> {
    pub(crate) const fn new(
        locals: &'s mut [LocalPlace],
        pieces: &'s mut [LocalPiece],
        remotes: &'s mut [RemotePlace],
    ) -> Self {
        Self { locals, pieces, remotes, first_free_remote: 0 }
    }

    /// The first of `count` consecutive places that are free, for the remote regions of a pool.
    pub(crate) fn find_free_remotes(&self, count: usize) -> Option<usize> {
        let remotes = &self.remotes[self.first_free_remote..];
        find_row(remotes.len(), count, |at| remotes[at].used).map(|at| at + self.first_free_remote)
    }

    /// The first of `count` consecutive pieces that are free.
    pub(crate) fn find_free_pieces(&self, count: usize) -> Option<usize> {
        find_row(self.pieces.len(), count, |at| self.pieces[at].used)
    }

    /// The pieces of a local region; none if its slots are of one piece.
    pub(crate) fn pieces_of(&self, region: usize) -> &[LocalPiece] {
        let LocalPlace { first_piece, pieces, .. } = self.locals[region];
        &self.pieces[usize::from(first_piece)..][..usize::from(pieces)]
    }

    /// Frees the places of the regions of a removed peer: the list that begins with `first`.
    pub(crate) fn free_remotes(&mut self, mut first: u16) {
        while first != NO_REGION {
            let place = usize::from(first);
            self.first_free_remote = self.first_free_remote.min(place);
            first = core::mem::replace(&mut self.remotes[place], RemotePlace::FREE).next;
        }
    }
}

/// The first of `count` consecutive places, of `all`, that are not used.
pub(crate) fn find_row(all: usize, count: usize, used: impl Fn(usize) -> bool) -> Option<usize> {
    let mut free = 0;
    for at in 0..all {
        free = if used(at) { 0 } else { free + 1 };
        if free == count {
            return Some(at + 1 - count);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_of_places_is_found_between_used_ones() {
        let used = [true, false, true, false, false, true, false, false, false];
        let row = |count| find_row(used.len(), count, |at| used[at]);
        assert_eq!([1, 2, 3, 4].map(row), [Some(1), Some(3), Some(6), None]);
    }
}
