//! A walk over the work requests of a plan that has been cut: no division after its first step.

use crate::geometry::MAX_AXES;
use crate::plan::cut::{Cut, CutList, Level};

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

/// Work requests of one piece each, one after the other at even distances: `count` of them, of
/// `len` bytes. Distances count up modulo 2^32.
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

impl Cut {
    /// A walk over its work requests, from number `wr` on.
    #[must_use]
    pub fn cursor(&self, wr: u32) -> Cursor<'_> {
        Cursor::new(self.lists(), wr)
    }
}

/// A walk over work requests in their order. Its start divides; its steps do not.
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
    /// Parts of the current piece that are done.
    part: u32,
    /// Steps left along the innermost level.
    steps: u32,
    /// Bytes of one such step, at the source and at the destination.
    by: (u32, u32),
    /// The indices of all levels but the innermost.
    index: [u32; MAX_AXES],
    /// Where the current piece is read.
    source: u32,
    /// Where the current piece lands.
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

    /// Moves from the first piece of the list to piece `number`.
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

    /// The next work request, or `None` at the end. Its pieces, (offset in the destination page,
    /// bytes), go to `piece`, in the order of the source.
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

    /// The next work requests, `most` at most, as long as they are at even distances: a loop over
    /// them only adds. `None` at the end, if `most` is 0, and if the next work request is not one
    /// whole piece; then call [`next`](Self::next).
    #[inline]
    pub fn row(&mut self, most: u32) -> Option<Row> {
        let list = self.list;
        // Where a run is one piece, the next run begins with the next piece.
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

    /// The next work request of a piece that is cut into parts.
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

    /// Moves to the next piece of the list.
    #[inline]
    fn step(&mut self) {
        if self.steps == 0 {
            return self.carry();
        }
        self.steps -= 1;
        self.source = self.source.wrapping_add(self.by.0);
        self.destination = self.destination.wrapping_add(self.by.1);
    }

    /// Starts the innermost level again, and advances the levels around it.
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

    /// Moves from the last index of a level to its first.
    fn back(&mut self, level: &Level) {
        let last = level.extent - 1;
        self.source = self.source.wrapping_sub(level.source.wrapping_mul(last));
        self.destination = self.destination.wrapping_sub(level.destination.wrapping_mul(last));
    }

    /// Moves to the next run, of this list or of the next.
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
