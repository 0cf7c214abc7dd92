//! A plan cut into work requests: within a device's limits, in 32 bits, walked without a division.

use crate::geometry::{MAX_AXES, MAX_FIELDS};
use crate::plan::error::CutError;
use crate::plan::runs::RunList;

/// The most work requests of one page.
pub const MAX_WRS: u32 = 1 << 19;

/// The limits of one work request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Limits {
    /// Local pieces, at least 1 (`max_sge` of the send queue).
    pub sges: u32,
    /// Bytes, at least 1.
    pub bytes: u32,
}

/// How one index of a level moves on each side, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Level {
    pub(super) extent: u32,
    pub(super) source: u32,
    pub(super) destination: u32,
}

/// Work requests of one shape at nested distances.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CutList {
    /// The number of its first work request, and one past that of its last.
    pub(super) first: u32,
    pub(super) end: u32,
    pub(super) source: u32,
    pub(super) destination: u32,
    /// Bytes of a piece; pieces of a run.
    pub(super) piece: u32,
    pub(super) pieces: u32,
    /// Pieces of a work request; the last one of a run may have fewer. 1 if pieces are cut.
    pub(super) group: u32,
    /// Work requests that a piece is cut into; 1 if it is not cut. Each has `part` bytes, the last
    /// one fewer.
    pub(super) parts: u32,
    pub(super) part: u32,
    /// The levels, outermost first. Entries from number `levels` on are unused.
    level: [Level; MAX_AXES],
    levels: u32,
}

/// A plan between one region of each side, cut into work requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Cut {
    lists: [CutList; MAX_FIELDS],
    count: usize,
    bytes: u32,
    source_end: u32,
    destination_end: u32,
}

impl CutList {
    /// An empty list, to fill arrays with.
    pub const NONE: Self = Self {
        first: 0,
        end: 0,
        source: 0,
        destination: 0,
        piece: 0,
        pieces: 1,
        group: 1,
        parts: 1,
        part: 0,
        level: [Level { extent: 1, source: 0, destination: 0 }; MAX_AXES],
        levels: 0,
    };

    const fn of(list: &RunList, limits: Limits, first: u32) -> Result<Self, CutError> {
        let (source_end, destination_end) = list.end();
        let end = if source_end > destination_end { source_end } else { destination_end };
        if end > u32::MAX as u64 {
            return Err(CutError::TooFar(end));
        }
        if !list.is_in_one_region() {
            return Err(CutError::Regions);
        }
        // From here on all numbers are below `end`, extents included. The extent of a broadcast is
        // that of the destination.
        let mut cut = Self {
            first,
            source: list.source.offset as u32,
            destination: list.destination.offset as u32,
            piece: list.piece as u32,
            pieces: list.pieces() as u32,
            levels: list.count as u32,
            ..Self::NONE
        };
        cut.part = cut.piece;
        if cut.piece > limits.bytes {
            cut.parts = cut.piece.div_ceil(limits.bytes);
            cut.part = limits.bytes;
        } else {
            let fit = limits.bytes / cut.piece;
            let fit = if fit < limits.sges { fit } else { limits.sges };
            cut.group = if fit < cut.pieces { fit } else { cut.pieces };
        }
        let wrs = list.runs() * cut.wrs_per_run() as u64;
        if wrs > (MAX_WRS - first) as u64 {
            return Err(CutError::TooMany(first as u64 + wrs));
        }
        cut.end = first + wrs as u32;
        let mut i = 0;
        while i < list.count {
            let dim = &list.levels[i];
            cut.level[i] = Level {
                extent: dim.extent as u32,
                source: dim.source.bytes as u32,
                destination: dim.destination.bytes as u32,
            };
            i += 1;
        }
        Ok(cut)
    }

    #[inline]
    pub(super) const fn wrs_per_run(&self) -> u32 {
        // One of the two factors is 1.
        self.pieces.div_ceil(self.group) * self.parts
    }

    /// The bytes of work request `wr`, and how many work requests from it on have that length, as
    /// far as its list shows: at least 1. (0, 0) beyond the last. `lists` are all lists of one
    /// [`Cut`].
    #[must_use]
    pub fn equal_wrs(lists: &[Self], wr: u32) -> (u32, u32) {
        let Some(list) = lists.iter().find(|list| wr < list.end) else { return (0, 0) };
        if list.parts == 1 && list.pieces.is_multiple_of(list.group) {
            return (list.group * list.piece, list.end - wr);
        }
        // The last of a run, or of a piece, may be shorter.
        let (wr, group) = (wr - list.first, if list.parts > 1 { list.parts } else { list.wrs_per_run() });
        let (at, whole) = (wr % group, if list.parts > 1 { list.part } else { list.group * list.piece });
        let all = if list.parts > 1 { list.piece } else { list.pieces * list.piece };
        match group - 1 - at {
            0 => (all - at * whole, 1),
            n => (whole, n),
        }
    }

    #[inline]
    pub(super) fn levels(&self) -> &[Level] {
        // At most MAX_AXES.
        &self.level[..self.levels as usize]
    }

    /// This list, moved towards byte 0 by a distance on each side.
    const fn rebased(mut self, source: u32, destination: u32) -> Self {
        self.source -= source;
        self.destination -= destination;
        self
    }
}

impl Cut {
    pub(super) const fn of(lists: &[RunList], limits: Limits) -> Result<Self, CutError> {
        if limits.bytes == 0 || limits.sges == 0 {
            return Err(CutError::Limits { bytes: limits.bytes, sges: limits.sges });
        }
        let mut cut = Self {
            lists: [CutList::NONE; MAX_FIELDS],
            count: lists.len(),
            bytes: 0,
            source_end: 0,
            destination_end: 0,
        };
        let (mut i, mut first) = (0, 0);
        while i < lists.len() {
            let same = lists[i].source.region == lists[0].source.region
                && lists[i].destination.region == lists[0].destination.region;
            if !same {
                return Err(CutError::Regions);
            }
            cut.lists[i] = match CutList::of(&lists[i], limits, first) {
                Ok(list) => list,
                Err(error) => return Err(error),
            };
            first = cut.lists[i].end;
            let (source, destination) = lists[i].end();
            cut.source_end = if source as u32 > cut.source_end { source as u32 } else { cut.source_end };
            if destination as u32 > cut.destination_end {
                cut.destination_end = destination as u32;
            }
            // Every byte of the destination is written once, and the destination ends before 2^32.
            cut.bytes += lists[i].bytes() as u32;
            i += 1;
        }
        Ok(cut)
    }

    /// The work requests that bring `len` bytes, padding and all, to the same place.
    ///
    /// # Errors
    ///
    /// A limit is 0, there is no byte, or there are more than [`MAX_WRS`] work requests.
    pub const fn of_bytes(len: u32, limits: Limits) -> Result<Self, CutError> {
        if limits.bytes == 0 || limits.sges == 0 || len == 0 {
            return Err(CutError::Limits { bytes: limits.bytes, sges: limits.sges });
        }
        let parts = len.div_ceil(limits.bytes);
        if parts > MAX_WRS {
            return Err(CutError::TooMany(parts as u64));
        }
        let part = if len < limits.bytes { len } else { limits.bytes };
        let list = CutList { end: parts, piece: len, parts, part, ..CutList::NONE };
        let mut lists = [CutList::NONE; MAX_FIELDS];
        lists[0] = list;
        Ok(Self { lists, count: 1, bytes: len, source_end: len, destination_end: len })
    }

    /// Its lists.
    #[must_use]
    pub const fn lists(&self) -> &[CutList] {
        self.lists.split_at(self.count).0
    }

    /// How many work requests.
    #[must_use]
    pub const fn wrs(&self) -> u32 {
        if self.count == 0 { 0 } else { self.lists[self.count - 1].end }
    }

    /// Bytes that are written.
    #[must_use]
    pub const fn bytes(&self) -> u32 {
        self.bytes
    }

    /// The bytes that a source page must have at least.
    #[must_use]
    pub const fn source_end(&self) -> u32 {
        self.source_end
    }

    /// The bytes that a slot must have at least.
    #[must_use]
    pub const fn destination_end(&self) -> u32 {
        self.destination_end
    }

    /// This plan, moved to byte 0 of both sides, and the two offsets (source, destination) by which
    /// it was moved. Pages that differ only in where they lie in a slot share one plan.
    #[must_use]
    pub const fn rebased(mut self) -> (Self, u32, u32) {
        let (mut source, mut destination) = (u32::MAX, u32::MAX);
        let mut i = 0;
        while i < self.count {
            let list = &self.lists[i];
            source = if list.source < source { list.source } else { source };
            destination = if list.destination < destination { list.destination } else { destination };
            i += 1;
        }
        i = 0;
        while i < self.count {
            self.lists[i] = self.lists[i].rebased(source, destination);
            i += 1;
        }
        if self.count > 0 {
            self.source_end -= source;
            self.destination_end -= destination;
            return (self, source, destination);
        }
        (self, 0, 0)
    }
}
