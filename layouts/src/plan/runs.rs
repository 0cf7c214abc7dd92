//! Runs of one length at nested distances.

use crate::address::Place;
use crate::geometry::MAX_AXES;
use crate::plan::strided::{Dim, StridedCopy, moved};

/// Remote runs of one length, each of equally long pieces; both at nested distances.
///
/// A piece is contiguous on both sides. A run is contiguous at the source, and lands in one piece
/// or more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RunList {
    pub(super) source: Place,
    pub(super) destination: Place,
    /// Bytes of a piece.
    pub(super) piece: u64,
    /// Levels of runs, outermost first, then those of the pieces within a run.
    pub(super) levels: [Dim; MAX_AXES],
    pub(super) outer: usize,
    pub(super) count: usize,
}

impl RunList {
    pub(super) const NONE: Self = Self {
        source: Place { region: 0, offset: 0 },
        destination: Place { region: 0, offset: 0 },
        piece: 0,
        levels: [Dim::NONE; MAX_AXES],
        outer: 0,
        count: 0,
    };

    /// The runs of a copy, by ascending remote address. A dimension that is dense at the source
    /// becomes a level of pieces.
    pub(super) const fn of(mut copy: StridedCopy) -> Self {
        let StridedCopy { source, destination, len: piece, count, .. } = copy;
        let mut list = Self { source, destination, piece, count, outer: count, ..Self::NONE };
        let mut run = piece;
        let mut i = 0;
        while i < copy.count {
            let dim = copy.dims[i];
            if dim.source.regions == 0 && dim.source.bytes == run && dim.destination.regions == 0 {
                run *= dim.extent;
                list.outer -= 1;
                list.levels[list.outer] = dim;
                copy.remove(i);
                i = 0;
            } else {
                i += 1;
            }
        }
        // The remaining dimensions become levels of runs, the largest step first.
        let mut at = 0;
        while copy.count > 0 {
            let mut largest = 0;
            i = 1;
            while i < copy.count {
                if steps_further(&copy.dims[i], &copy.dims[largest]) {
                    largest = i;
                }
                i += 1;
            }
            list.levels[at] = copy.dims[largest];
            copy.remove(largest);
            at += 1;
        }
        list
    }

    /// Remote runs.
    #[must_use]
    pub const fn runs(&self) -> u64 {
        self.extents(0, self.outer)
    }

    /// Pieces of each run: the local sges that it needs.
    #[must_use]
    pub const fn pieces(&self) -> u64 {
        self.extents(self.outer, self.count)
    }

    /// Bytes of each piece.
    #[must_use]
    pub const fn piece_bytes(&self) -> u64 {
        self.piece
    }

    /// Bytes of each run.
    #[must_use]
    pub const fn run_bytes(&self) -> u64 {
        self.piece * self.pieces()
    }

    /// Bytes of all runs.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.run_bytes() * self.runs()
    }

    /// Where piece `number` of all runs begins, at the source and at the destination.
    pub(super) const fn places(&self, mut number: u64) -> (Place, Place) {
        let (mut source, mut destination) = (self.source, self.destination);
        let mut level = self.count;
        while level > 0 {
            level -= 1;
            let dim = &self.levels[level];
            let index = number % dim.extent;
            number /= dim.extent;
            source = moved(source, dim.source, index);
            destination = moved(destination, dim.destination, index);
        }
        (source, destination)
    }

    /// Where its last piece ends, (source, destination), each in its own region.
    pub(super) const fn end(&self) -> (u64, u64) {
        let (mut source, mut destination) = (self.source.offset, self.destination.offset);
        let mut i = 0;
        while i < self.count {
            let Dim { extent, source: from, destination: to } = self.levels[i];
            source += from.bytes * (extent - 1);
            destination += to.bytes * (extent - 1);
            i += 1;
        }
        (source + self.piece, destination + self.piece)
    }

    const fn extents(&self, from: usize, to: usize) -> u64 {
        let (mut n, mut i) = (1, from);
        while i < to {
            n *= self.levels[i].extent;
            i += 1;
        }
        n
    }

    /// The runs between one region of each side, if there are any.
    pub(super) const fn only(mut self, source: u32, destination: u32) -> Option<Self> {
        if source < self.source.region || destination < self.destination.region {
            return None;
        }
        let (mut from, mut to) = (source - self.source.region, destination - self.destination.region);
        // Steps are nested on each side, so the largest decides the most. A level that steps on
        // both sides is decided by its source step.
        loop {
            let mut largest = self.count;
            let mut i = 0;
            while i < self.count {
                let regions = self.levels[i].source.regions;
                if regions > 0 && (largest == self.count || regions > self.levels[largest].source.regions) {
                    largest = i;
                }
                i += 1;
            }
            if largest == self.count {
                break;
            }
            let Dim { extent, source: by, destination: also } = self.levels[largest];
            let index = from / by.regions;
            if index as u64 >= extent || also.regions * index > to {
                return None;
            }
            from -= index * by.regions;
            to -= index * also.regions;
            self.hold(largest, index as u64);
        }
        loop {
            let mut largest = self.count;
            let mut i = 0;
            while i < self.count {
                let regions = self.levels[i].destination.regions;
                if regions > 0
                    && (largest == self.count || regions > self.levels[largest].destination.regions)
                {
                    largest = i;
                }
                i += 1;
            }
            if largest == self.count {
                break;
            }
            let Dim { extent, destination: by, .. } = self.levels[largest];
            let index = to / by.regions;
            if index as u64 >= extent {
                return None;
            }
            to -= index * by.regions;
            self.hold(largest, index as u64);
        }
        if from == 0 && to == 0 { Some(self) } else { None }
    }

    /// Replaces a level of runs by one of its indices.
    const fn hold(&mut self, level: usize, index: u64) {
        let dim = self.levels[level];
        self.source = moved(self.source, dim.source, index);
        self.destination = moved(self.destination, dim.destination, index);
        let mut i = level;
        while i + 1 < self.count {
            self.levels[i] = self.levels[i + 1];
            i += 1;
        }
        self.count -= 1;
        self.levels[self.count] = Dim::NONE;
        // No level of pieces steps through regions.
        self.outer -= 1;
    }

    pub(super) const fn is_in_one_region(&self) -> bool {
        let mut i = 0;
        while i < self.count {
            if self.levels[i].source.regions > 0 || self.levels[i].destination.regions > 0 {
                return false;
            }
            i += 1;
        }
        true
    }
}

const fn steps_further(a: &Dim, b: &Dim) -> bool {
    let (x, y) = (a.source, b.source);
    if x.regions != y.regions {
        return x.regions > y.regions;
    }
    if x.bytes != y.bytes {
        return x.bytes > y.bytes;
    }
    a.destination.regions > b.destination.regions
        || (a.destination.regions == b.destination.regions && a.destination.bytes > b.destination.bytes)
}
