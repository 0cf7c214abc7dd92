//! A plan cut into work requests: within a device's limits, in 32 bits, walked without a division.

use crate::geometry::{MAX_AXES, MAX_FIELDS};
use crate::plan::error::CutError;
use crate::plan::list::List;

/// The most work requests of one page.
pub const MAX_WRS: u32 = 1 << 20;

/// What one work request may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Limits {
    /// Local pieces, at least 1 (`max_sge` of the send queue).
    pub sges: u32,
    /// Bytes, at least 1.
    pub bytes: u32,
}

/// How one index of a level moves on each side, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Level {
    extent: u32,
    source: u32,
    destination: u32,
}

/// Work requests of one shape at nested distances.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CutList {
    /// The number of its first work request, and one past that of its last.
    first: u32,
    end: u32,
    source: u32,
    destination: u32,
    /// Bytes of a piece; pieces of a run.
    piece: u32,
    pieces: u32,
    /// Pieces of a work request but for the last of a run; 1 where a piece is cut.
    group: u32,
    /// Work requests that a piece is cut into, each of `part` bytes but for the last; 1 where it is not.
    parts: u32,
    part: u32,
    /// Outermost first. What is beyond `levels` has extent 1.
    level: [Level; MAX_AXES],
    levels: u32,
}

/// One work request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Wr {
    /// Where it reads, in bytes from the source page's beginning.
    pub source: u32,
    /// How many bytes, at least 1.
    pub len: u32,
    /// How many pieces it lands in, at least 1.
    pub pieces: u32,
}

/// Work requests of one piece each, one after the other at even distances: `count` of them, of `len` bytes.
/// Distances count up modulo 2^32.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Row {
    /// Where the first reads, in bytes from the source page's beginning.
    pub source: u32,
    /// Where the first lands, in bytes from the destination page's beginning.
    pub destination: u32,
    /// Bytes of each.
    pub len: u32,
    /// How many, at least 1.
    pub count: u32,
    /// From one to the next, in the source.
    pub source_step: u32,
    /// From one to the next, in the destination.
    pub destination_step: u32,
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
    /// Nothing, to fill arrays with.
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

    const fn of(list: &List, limits: Limits, first: u32) -> Result<Self, CutError> {
        let (source_end, destination_end) = list.end();
        let end = if source_end > destination_end { source_end } else { destination_end };
        if end > u32::MAX as u64 {
            return Err(CutError::TooFar(end));
        }
        if !list.is_in_one_region() {
            return Err(CutError::Regions);
        }
        // From here on all numbers are below `end`, extents among them: broadcasts aside, whose extents
        // are those of the destination.
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
    const fn wrs_per_run(&self) -> u32 {
        // Of the two one is 1.
        self.pieces.div_ceil(self.group) * self.parts
    }

    /// Bytes of work request `wr` of these lists, which are one [`Cut`]'s, and how many are as long from it on,
    /// as far as is easily seen: at least 1. (0, 0) beyond the last.
    #[must_use]
    pub fn alike(lists: &[Self], wr: u32) -> (u32, u32) {
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
    fn levels(&self) -> &[Level] {
        // At most MAX_AXES.
        &self.level[..self.levels as usize]
    }

    /// The same, so much earlier on both sides.
    const fn rebased(mut self, source: u32, destination: u32) -> Self {
        self.source -= source;
        self.destination -= destination;
        self
    }
}

impl Cut {
    pub(super) const fn of(lists: &[List], limits: Limits) -> Result<Self, CutError> {
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

    /// The least that a source page must have, in bytes.
    #[must_use]
    pub const fn source_end(&self) -> u32 {
        self.source_end
    }

    /// The least that a slot must have, in bytes.
    #[must_use]
    pub const fn destination_end(&self) -> u32 {
        self.destination_end
    }

    /// The same plan, begun at byte 0 of both sides, and the two offsets (source, destination) that it was
    /// taken from: pages that lie elsewhere in a slot, and are otherwise alike, have one plan.
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

    /// A walk over its work requests, from number `wr` on.
    #[must_use]
    pub fn cursor(&self, wr: u32) -> Cursor<'_> {
        Cursor::new(self.lists(), wr)
    }
}

/// A walk over work requests in their order. To begin it divides; to go on it does not.
#[derive(Clone, Copy, Debug)]
pub struct Cursor<'c> {
    lists: &'c [CutList],
    list: &'c CutList,
    /// Place of `list` in `lists`.
    at: usize,
    /// Work requests left in `list`.
    left: u32,
    /// Pieces left in the run.
    pieces: u32,
    /// Parts of the piece that are behind.
    part: u32,
    /// Steps left along the innermost level, and where they lead; the other levels' indices.
    steps: u32,
    by: (u32, u32),
    index: [u32; MAX_AXES],
    source: u32,
    destination: u32,
}

impl<'c> Cursor<'c> {
    /// A walk over the work requests of these lists, which are one [`Cut`]'s, from number `wr` on.
    #[must_use]
    pub fn new(lists: &'c [CutList], wr: u32) -> Self {
        static NONE: CutList = CutList::NONE;
        let at = lists.iter().position(|list| wr < list.end).unwrap_or(lists.len());
        let list = lists.get(at).unwrap_or(&NONE);
        let mut cursor = Self {
            lists,
            list,
            at,
            left: list.end.saturating_sub(wr),
            pieces: list.pieces,
            part: 0,
            steps: 0,
            by: (0, 0),
            index: [0; MAX_AXES],
            source: list.source,
            destination: list.destination,
        };
        let Some(wr) = wr.checked_sub(list.first).filter(|_| cursor.left > 0) else { return cursor };
        let within = list.wrs_per_run();
        let (run, within) = (wr / within, wr % within);
        let done = if list.parts > 1 { within / list.parts } else { within * list.group };
        cursor.part = if list.parts > 1 { within % list.parts } else { 0 };
        cursor.pieces -= done;
        cursor.go_to(run * list.pieces + done);
        cursor
    }

    /// To piece `number` of the list, from its first.
    fn go_to(&mut self, mut number: u32) {
        for (level, index) in self.list.levels().iter().zip(&mut self.index).rev() {
            *index = number % level.extent;
            number /= level.extent;
            self.source += *index * level.source;
            self.destination += *index * level.destination;
        }
        if let Some((inner, index)) = self.list.levels().iter().zip(&self.index).next_back() {
            self.steps = inner.extent - 1 - index;
            self.by = (inner.source, inner.destination);
        }
    }

    /// The next work request, or `None` at the end. Its pieces, (offset in the destination page, bytes),
    /// go to `piece`, in the order of the source.
    #[inline]
    pub fn next(&mut self, mut piece: impl FnMut(u32, u32)) -> Option<Wr> {
        if self.left == 0 {
            return None;
        }
        self.left -= 1;
        let list = self.list;
        let source = self.source;
        if list.parts > 1 {
            return Some(self.next_part(piece));
        }
        let pieces = list.group.min(self.pieces);
        for _ in 0..pieces {
            piece(self.destination, list.piece);
            self.step();
        }
        self.pieces -= pieces;
        if self.pieces == 0 {
            self.turn();
        }
        Some(Wr { source, len: pieces * list.piece, pieces })
    }

    /// The next work requests, up to `most`, as far as they are a row: for a loop that does no more than add. `None`
    /// at the end, where `most` is 0, and where the next work request is not one whole piece: then it is
    /// [`next`](Self::next)'s.
    #[inline]
    pub fn row(&mut self, most: u32) -> Option<Row> {
        let list = self.list;
        // Of a run of one piece the next begins where the next piece does.
        let pieces = if list.pieces == 1 { self.left } else { self.pieces };
        let count = most.min(pieces).min(self.left).min(self.steps.saturating_add(1));
        if list.parts > 1 || (list.group > 1 && list.pieces > 1) || count == 0 {
            return None;
        }
        let (source, destination) = (self.source, self.destination);
        let (source_step, destination_step) = self.by;
        self.left -= count;
        self.steps -= count - 1;
        self.source = source.wrapping_add(source_step.wrapping_mul(count - 1));
        self.destination = destination.wrapping_add(destination_step.wrapping_mul(count - 1));
        self.step();
        if list.pieces == 1 {
            self.pieces = 0;
        } else {
            self.pieces -= count;
        }
        if self.pieces == 0 {
            self.turn();
        }
        Some(Row { source, destination, len: list.piece, count, source_step, destination_step })
    }

    /// The same of a piece that is cut.
    fn next_part(&mut self, mut piece: impl FnMut(u32, u32)) -> Wr {
        let list = self.list;
        let behind = self.part * list.part;
        let len = list.part.min(list.piece - behind);
        let source = self.source + behind;
        piece(self.destination + behind, len);
        self.part += 1;
        if self.part == list.parts {
            self.part = 0;
            self.pieces -= 1;
            self.step();
            if self.pieces == 0 {
                self.turn();
            }
        }
        Wr { source, len, pieces: 1 }
    }

    /// To the next piece of the list.
    #[inline]
    fn step(&mut self) {
        if self.steps == 0 {
            return self.carry();
        }
        self.steps -= 1;
        self.source = self.source.wrapping_add(self.by.0);
        self.destination = self.destination.wrapping_add(self.by.1);
    }

    /// The innermost level begins anew, and the one around it goes on.
    #[inline(never)]
    fn carry(&mut self) {
        let levels = self.list.levels();
        let Some((inner, outer)) = levels.split_last() else { return };
        self.steps = inner.extent - 1;
        self.back(inner);
        for i in (0..outer.len()).rev() {
            let level = &outer[i];
            self.index[i] += 1;
            if self.index[i] < level.extent {
                self.source = self.source.wrapping_add(level.source);
                self.destination = self.destination.wrapping_add(level.destination);
                return;
            }
            self.index[i] = 0;
            self.back(level);
        }
    }

    /// From the last index of a level to its first.
    fn back(&mut self, level: &Level) {
        let last = level.extent - 1;
        self.source = self.source.wrapping_sub(level.source.wrapping_mul(last));
        self.destination = self.destination.wrapping_sub(level.destination.wrapping_mul(last));
    }

    /// To the next run, of this list or of the next.
    #[inline]
    fn turn(&mut self) {
        self.pieces = self.list.pieces;
        if self.left == 0
            && let Some(list) = self.lists.get(self.at + 1)
        {
            self.at += 1;
            self.list = list;
            self.left = list.end - list.first;
            self.pieces = list.pieces;
            (self.source, self.destination) = (list.source, list.destination);
            (self.steps, self.by, self.index) = (0, (0, 0), [0; MAX_AXES]);
            self.go_to(0);
        }
    }
}
