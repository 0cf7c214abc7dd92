//! The contiguous bytes of a selection.
//!
//! Fields that follow each other in a row are one block, which repeats at nested distances: a
//! cursor walks it in the order of its addresses, and dense inner axes are part of the block. The
//! cursors of all planes are merged, and ranges that touch are joined. Only the cursors are stored.

use super::selected::Selected;
use crate::geometry::{AxisStep, Geometry, MAX_AXES, MAX_FIELDS};

/// Some contiguous bytes of a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ByteRange {
    /// The region, counted from 0.
    pub region: u32,
    /// Bytes from the region's beginning.
    pub offset: u64,
    /// How many bytes; at least 1.
    pub len: u64,
}

/// The contiguous byte ranges of a selection, by region and offset. No two of them touch, and none
/// has padding in it. Made by [`Selected::byte_ranges`].
///
/// A step costs as many comparisons as the page has blocks of fields, for each block that it joins.
#[derive(Clone, Debug)]
pub struct ByteRanges {
    cursors: [Cursor; MAX_FIELDS],
    count: usize,
}

impl ByteRanges {
    pub(super) const fn of(selected: &Selected<'_>) -> Self {
        let geometry = selected.geometry();
        let mut ranges = Self { cursors: [Cursor::DONE; MAX_FIELDS], count: 0 };
        let mut f = 0;
        while f < geometry.field_count {
            let first = f;
            f += 1;
            if !selected.has_field(first) {
                continue;
            }
            let mut len = geometry.fields[first].bytes();
            // Fields of one row follow each other without gaps.
            while f < geometry.field_count
                && selected.has_field(f)
                && geometry.fields[f].plane == geometry.fields[first].plane
            {
                len += geometry.fields[f].bytes();
                f += 1;
            }
            ranges.cursors[ranges.count] = Cursor::of(selected, geometry, first, len);
            ranges.count += 1;
        }
        ranges
    }

    /// The next one: [`next`](Iterator::next), for constants.
    pub const fn next_range(&mut self) -> Option<ByteRange> {
        let Some(first) = self.earliest() else { return None };
        let mut range = self.cursors[first].now;
        self.cursors[first].advance();
        while let Some(next) = self.earliest() {
            let ByteRange { region, offset, len } = self.cursors[next].now;
            if region != range.region || offset != range.offset + range.len {
                break;
            }
            range.len += len;
            self.cursors[next].advance();
        }
        Some(range)
    }

    /// The cursor at the lowest address.
    const fn earliest(&self) -> Option<usize> {
        let mut found: Option<usize> = None;
        let mut c = 0;
        while c < self.count {
            let now = &self.cursors[c].now;
            if !self.cursors[c].done {
                found = match found {
                    Some(best) => {
                        let least = &self.cursors[best].now;
                        let before = now.region < least.region
                            || (now.region == least.region && now.offset < least.offset);
                        Some(if before { c } else { best })
                    }
                    None => Some(c),
                };
            }
            c += 1;
        }
        found
    }
}

impl Selected<'_> {
    /// Its bytes as contiguous ranges, by region and offset, as few and as long as possible.
    #[must_use]
    pub const fn byte_ranges(&self) -> ByteRanges {
        ByteRanges::of(self)
    }
}

impl Iterator for ByteRanges {
    type Item = ByteRange;

    fn next(&mut self) -> Option<ByteRange> {
        self.next_range()
    }
}

impl core::iter::FusedIterator for ByteRanges {}

/// A block of one plane, on its way through the selection.
#[derive(Clone, Copy, Debug)]
struct Cursor {
    now: ByteRange,
    /// The loops that are left, the innermost first.
    loops: [Loop; MAX_AXES],
    count: usize,
    done: bool,
}

#[derive(Clone, Copy, Debug)]
struct Loop {
    /// One of the two is 0.
    bytes: u64,
    regions: u32,
    extent: u64,
    index: u64,
}

impl Cursor {
    const DONE: Self = Self {
        now: ByteRange { region: 0, offset: 0, len: 0 },
        loops: [Loop { bytes: 0, regions: 0, extent: 1, index: 0 }; MAX_AXES],
        count: 0,
        done: true,
    };

    /// `len` bytes from the beginning of a field, in each row that is selected.
    const fn of(selected: &Selected<'_>, geometry: &Geometry, field: usize, len: u64) -> Self {
        let field = &geometry.fields[field];
        let plane = &geometry.planes[field.plane];
        let mut now = ByteRange { region: plane.region, offset: field.offset, len };
        if let Some(offset) = plane.offset {
            now.offset += offset;
        }
        let mut cursor = Self { now, done: false, ..Self::DONE };
        let mut a = 0;
        while a < geometry.axis_count {
            let (start, extent) = (selected.start[a], selected.len[a]);
            let (bytes, regions) = match plane.steps[a] {
                AxisStep::Bytes(bytes) => (bytes, 0),
                AxisStep::Regions(regions) => (0, regions),
                // A shared axis moves nothing, and `select` has refused run-time strides.
                AxisStep::Shared | AxisStep::Runtime => (0, 0),
            };
            cursor.now.offset += bytes * start;
            // Indices along axes of regions are below MAX_REGIONS.
            cursor.now.region += regions * start as u32;
            if extent > 1 && (bytes > 0 || regions > 0) {
                cursor.insert(Loop { bytes, regions, extent, index: 0 });
            }
            a += 1;
        }
        cursor.fold();
        cursor
    }

    /// Keeps the loops sorted: bytes before regions, smaller steps before larger ones.
    const fn insert(&mut self, new: Loop) {
        let mut at = self.count;
        while at > 0 {
            let before = self.loops[at - 1];
            if before.regions < new.regions || (before.regions == new.regions && before.bytes <= new.bytes) {
                break;
            }
            self.loops[at] = before;
            at -= 1;
        }
        self.loops[at] = new;
        self.count += 1;
    }

    /// Takes the inner loops that are dense into the block.
    const fn fold(&mut self) {
        let mut dense = 0;
        while dense < self.count && self.loops[dense].bytes == self.now.len {
            self.now.len *= self.loops[dense].extent;
            dense += 1;
        }
        let mut i = dense;
        while i < self.count {
            self.loops[i - dense] = self.loops[i];
            i += 1;
        }
        self.count -= dense;
    }

    /// Moves to the block at the next higher address. Steps are nested, so the innermost loop turns
    /// first.
    const fn advance(&mut self) {
        let mut i = 0;
        while i < self.count {
            let turn = &mut self.loops[i];
            if turn.index + 1 < turn.extent {
                turn.index += 1;
                self.now.offset += turn.bytes;
                self.now.region += turn.regions;
                return;
            }
            self.now.offset -= turn.bytes * turn.index;
            // An index along regions is below MAX_REGIONS.
            self.now.region -= turn.regions * turn.index as u32;
            turn.index = 0;
            i += 1;
        }
        self.done = true;
    }
}
