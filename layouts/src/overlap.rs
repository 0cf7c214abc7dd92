//! Whether rows of a page overlap.
//!
//! A plane in a region is a comb: a row of some bytes, repeated at several distances. Whether two
//! combs overlap is a hard problem in general. The distances of real pages are nested, so the test
//! requires nesting: it accepts no combs that overlap, and refuses some exotic ones that do not.

use crate::geometry::{AxisStep, Geometry, MAX_AXES};

/// `len` bytes at `offset + Σ index · step`, for all indices below their extents.
#[derive(Clone, Copy)]
pub(crate) struct Comb {
    offset: u64,
    len: u64,
    /// (step, extent), the largest step first, extents above 1.
    teeth: [(u64, u64); MAX_AXES],
    /// Teeth from `first` up to `count` are in use.
    first: usize,
    count: usize,
}

impl Comb {
    /// The rows of a plane, in each of its regions; `None` while something about it is unknown.
    pub(crate) const fn of(geometry: &Geometry, plane: usize) -> Option<Self> {
        let plane = &geometry.planes[plane];
        let Some(offset) = plane.offset else { return None };
        let mut comb = Self { offset, len: plane.row, teeth: [(0, 1); MAX_AXES], first: 0, count: 0 };
        let mut a = 0;
        while a < geometry.axis_count {
            match plane.steps[a] {
                AxisStep::Runtime => return None,
                AxisStep::Bytes(step) if geometry.axes[a].extent > 1 => {
                    let mut at = comb.count;
                    while at > 0 && comb.teeth[at - 1].0 < step {
                        comb.teeth[at] = comb.teeth[at - 1];
                        at -= 1;
                    }
                    comb.teeth[at] = (step, geometry.axes[a].extent);
                    comb.count += 1;
                }
                AxisStep::Bytes(_) | AxisStep::Shared | AxisStep::Regions(_) => {}
            }
            a += 1;
        }
        Some(comb)
    }

    /// Bytes from the first to the last; `None` beyond 63 bits.
    const fn span(&self) -> Option<u64> {
        let mut span = self.len;
        let mut i = self.first;
        while i < self.count {
            let (step, extent) = self.teeth[i];
            span = match step.checked_mul(extent - 1) {
                Some(more) => match span.checked_add(more) {
                    Some(sum) if sum <= i64::MAX as u64 => sum,
                    _ => return None,
                },
                None => return None,
            };
            i += 1;
        }
        Some(span)
    }

    /// The end of its last byte; `None` beyond 63 bits.
    pub(crate) const fn end(&self) -> Option<u64> {
        match self.span() {
            Some(span) => match span.checked_add(self.offset) {
                Some(end) if end <= i64::MAX as u64 => Some(end),
                _ => None,
            },
            None => None,
        }
    }

    /// Whether each block fits between two of the next larger step, so that no row meets another.
    /// [`end`](Self::end) must be known.
    pub(crate) const fn is_nested(&self) -> bool {
        let mut inner = self.len;
        let mut i = self.count;
        while i > self.first {
            i -= 1;
            let (step, extent) = self.teeth[i];
            if step < inner {
                return false;
            }
            inner += step * (extent - 1);
        }
        true
    }

    /// Whether two combs, both nested and with a known end, surely have no byte in common.
    pub(crate) const fn is_clear_of(mut self, mut other: Self) -> bool {
        loop {
            let (Some(a), Some(b)) = (self.end(), other.end()) else { return false };
            if a <= other.offset || b <= self.offset {
                return true;
            }
            // They interleave. Fold the line at the largest step: if both repeat by it, or fit
            // into one turn of it, they meet on the line only if they meet in the folded one.
            let step = if self.step() > other.step() { self.step() } else { other.step() };
            if step == 0 {
                return false;
            }
            let base = if self.offset < other.offset { self.offset } else { other.offset };
            self = self.fold(base, step);
            other = other.fold(base, step);
            let (Some(a), Some(b)) = (self.end(), other.end()) else { return false };
            if a > step || b > step {
                return false;
            }
        }
    }

    /// The largest step; 0 if nothing repeats.
    const fn step(&self) -> u64 {
        if self.first < self.count { self.teeth[self.first].0 } else { 0 }
    }

    /// The comb, folded at a step: offsets become their rest within one step from `base` on.
    const fn fold(mut self, base: u64, step: u64) -> Self {
        self.offset = (self.offset - base) % step;
        if self.step() == step {
            self.first += 1;
        }
        self
    }
}
