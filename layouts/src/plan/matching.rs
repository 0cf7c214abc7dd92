//! Which part of one page is which part of another: fields by name, indices by rank and block.

use crate::axis::{Axis, AxisKind, Spread};
use crate::geometry::{AxisStep, Geometry, MAX_FIELDS};
use crate::plan::error::PlanError;
use crate::plan::strided::{StridedCopy, join};
use crate::selection::{Selected, Selection};
use crate::text::same;

/// The copies that a plan consists of.
pub(super) struct StridedCopies {
    pub(super) all: [StridedCopy; MAX_FIELDS],
    pub(super) count: usize,
}

impl StridedCopies {
    const fn push(&mut self, copy: StridedCopy) -> Result<(), PlanError> {
        if self.count == MAX_FIELDS {
            return Err(PlanError::TooMany);
        }
        self.all[self.count] = copy;
        self.count += 1;
        Ok(())
    }
}

/// The source field for a destination field. `part` is the index (0 is K, 1 is V) where the source
/// tells K and V apart by an axis.
#[derive(Clone, Copy)]
struct From {
    field: usize,
    part: Option<u64>,
}

/// Which fields of the destination are copied, and what is said about those of the source that
/// nothing is copied from.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Extent {
    /// All selected fields; the source must have no others.
    All,
    /// All selected fields; the source may have others.
    Some,
    /// The selected fields that go along the token axis; the source may have others.
    PerToken,
}

/// The copies of all of one selection into all of the other, index for index.
pub(super) const fn copies(
    source: &Selected<'_>,
    destination: &Selected<'_>,
    extent: Extent,
) -> Result<StridedCopies, PlanError> {
    let (s, d) = (source.geometry(), destination.geometry());
    if let Err(error) = comparable(s, d) {
        return Err(error);
    }
    let mut copies = StridedCopies { all: [StridedCopy::NONE; MAX_FIELDS], count: 0 };
    let mut used: u32 = 0;
    let mut f = 0;
    while f < d.field_count {
        let rest = !matches!(extent, Extent::PerToken) || is_per_token(d, f);
        if destination.has_field(f) && rest {
            match field(source, destination, f, &mut copies) {
                Ok(fields) => used |= fields,
                Err(error) => return Err(error),
            }
        }
        f += 1;
    }
    f = 0;
    while f < s.field_count && matches!(extent, Extent::All) {
        if source.has_field(f) && used & (1 << f) == 0 {
            return Err(PlanError::LeftOver { field: s.fields[f].name });
        }
        f += 1;
    }
    copies.count = join(&mut copies.all, copies.count);
    Ok(copies)
}

/// Whether a field has other bytes for each token.
const fn is_per_token(page: &Geometry, field: usize) -> bool {
    match page.axis_index(AxisKind::Token) {
        Some(a) => !matches!(page.planes[page.fields[field].plane].steps[a], AxisStep::Shared),
        None => false,
    }
}

/// Adds the copies into one destination field. Returns a bit for each source field that they read.
const fn field(
    source: &Selected<'_>,
    destination: &Selected<'_>,
    to: usize,
    copies: &mut StridedCopies,
) -> Result<u32, PlanError> {
    let (s, d) = (source.geometry(), destination.geometry());
    let name = d.fields[to].name;
    if let Some(From { field, part }) = counterpart(s, d, to) {
        return one(source, (field, part), destination, (to, None), copies);
    }
    // The destination has K and V in one field, along an axis; the source has a field for each.
    let (Some(axis), None) = (split(d, to), s.axis_index(AxisKind::Part)) else {
        return Err(PlanError::NoField { field: name });
    };
    let (Some(start), Some(len)) = (destination.start(axis), destination.extent(axis)) else {
        unreachable!()
    };
    let mut used = 0;
    let mut part = start;
    while part < start + len {
        let Some(from) = s.field_named(PARTS[part as usize]) else {
            return Err(PlanError::NoField { field: PARTS[part as usize] });
        };
        match one(source, (from, None), destination, (to, Some(part)), copies) {
            Ok(fields) => used |= fields,
            Err(error) => return Err(error),
        }
        part += 1;
    }
    Ok(used)
}

/// Adds the copy of one source field into one destination field.
const fn one(
    source: &Selected<'_>,
    from: (usize, Option<u64>),
    destination: &Selected<'_>,
    to: (usize, Option<u64>),
    copies: &mut StridedCopies,
) -> Result<u32, PlanError> {
    let (fs, fd) = (&source.geometry().fields[from.0], &destination.geometry().fields[to.0]);
    let name = fd.name;
    if !source.has_field(from.0) {
        return Err(PlanError::NoField { field: name });
    }
    if fs.kind as u8 != fd.kind as u8 {
        return Err(PlanError::ElementKind { field: name, source_kind: fs.kind, destination: fd.kind });
    }
    if fs.count != fd.count {
        return Err(PlanError::Count { field: name, source_count: fs.count, destination: fd.count });
    }
    match StridedCopy::of(source, from.0, destination, to.0, (from.1, to.1)) {
        Ok(copy) => match copies.push(copy) {
            Ok(()) => Ok(1 << from.0),
            Err(error) => Err(error),
        },
        Err(error) => Err(error),
    }
}

/// The names of the fields that match index 0 and index 1 of [`AxisKind::Part`].
const PARTS: [&str; 2] = ["k", "v"];

/// The source field for a destination field: of the same name; or, for `k` and `v`, the only field
/// of the same shape that has K and V along an axis which the destination lacks.
const fn counterpart(s: &Geometry, d: &Geometry, to: usize) -> Option<From> {
    let wanted = &d.fields[to];
    if let Some(field) = s.field_named(wanted.name) {
        return Some(From { field, part: None });
    }
    let part = if same(wanted.name, PARTS[0]) {
        0
    } else if same(wanted.name, PARTS[1]) {
        1
    } else {
        return None;
    };
    if d.axis_index(AxisKind::Part).is_some() {
        return None;
    }
    let mut found = None;
    let mut f = 0;
    while f < s.field_count {
        let same_shape = s.fields[f].kind as u8 == wanted.kind as u8 && s.fields[f].count == wanted.count;
        if same_shape && split(s, f).is_some() {
            if found.is_some() {
                return None;
            }
            found = Some(From { field: f, part: Some(part) });
        }
        f += 1;
    }
    found
}

/// The axis by which a field tells K and V apart, if it does.
const fn split(page: &Geometry, field: usize) -> Option<usize> {
    match page.axis_index(AxisKind::Part) {
        Some(a) if page.axes[a].extent == 2 => match page.planes[page.fields[field].plane].steps[a] {
            AxisStep::Shared => None,
            _ => Some(a),
        },
        _ => None,
    }
}

/// Refuses pages whose bytes cannot be related at all.
const fn comparable(s: &Geometry, d: &Geometry) -> Result<(), PlanError> {
    if s.swizzle != 0 || d.swizzle != 0 {
        return Err(PlanError::Swizzle { source_tag: s.swizzle, destination: d.swizzle });
    }
    if s.version != d.version {
        return Err(PlanError::Version { source_version: s.version, destination: d.version });
    }
    if s.tokens_per_state != d.tokens_per_state {
        let (source_tokens, destination) = (s.tokens_per_state, d.tokens_per_state);
        return Err(PlanError::TokensPerState { source_tokens, destination });
    }
    Ok(())
}

/// The part of an axis that one page holds, counted over all ranks and blocks: where it begins, its
/// length, and the length of the whole.
struct Share {
    origin: u64,
    len: u64,
    total: u64,
}

const ONE: Axis = Axis::whole(AxisKind::Layer, 1);

/// Which block of one whole each page is, along axes where that is so.
#[derive(Clone, Copy)]
pub(super) enum Blocks<'b> {
    /// Along each of these axes the smaller page is the block of this number of the larger one.
    Within(&'b [(AxisKind, u64)]),
    /// Along the token axis both pages are blocks of one long row of tokens: the numbers of both,
    /// each counted in pages of its own length.
    Tokens {
        /// The source's.
        source: u64,
        /// The destination's.
        destination: u64,
    },
}

/// The part of `source` that holds the selected part of `destination`, as far as it holds it, and
/// the same part of `destination`.
pub(super) const fn meet<'s, 'd>(
    source: &'s Geometry,
    destination: &'d Geometry,
    blocks: Blocks<'_>,
    wanted: Selection,
) -> Result<(Selected<'s>, Selected<'d>), PlanError> {
    // Said before extents that differ: pages of unlike bytes often have unlike extents, too.
    if let Err(error) = comparable(source, destination) {
        return Err(error);
    }
    let all = match destination.select(wanted) {
        Ok(all) => all,
        Err(error) => return Err(PlanError::Destination(error)),
    };
    let (mut of_source, mut of_destination) = (Selection::ALL, Selection::ALL);
    let mut i = 0;
    while i < destination.axis_count + source.axis_count {
        let kind = if i < destination.axis_count {
            destination.axes[i].kind
        } else {
            source.axes[i - destination.axis_count].kind
        };
        let (at, to) = (source.axis_index(kind), destination.axis_index(kind));
        let skip = i >= destination.axis_count && to.is_some();
        i += 1;
        if skip {
            continue;
        }
        let (first, len) = match to {
            Some(a) => match (all.start(a), all.extent(a)) {
                (Some(first), Some(len)) => (first, len),
                _ => unreachable!(),
            },
            None => (0, 1),
        };
        if parts_are_fields(kind, at, to, source, destination) {
            if to.is_some() {
                of_destination = of_destination.along(kind, first, len);
            }
            continue;
        }
        let from = match at {
            Some(a) => source.axes[a],
            None => ONE,
        };
        let into = match to {
            Some(a) => destination.axes[a],
            None => ONE,
        };
        let (s, d) = match shares(kind, &from, &into, blocks) {
            Ok(shares) => shares,
            Err(error) => return Err(error),
        };
        if s.total != d.total {
            return Err(PlanError::Wholes { axis: kind, source_total: s.total, destination: d.total });
        }
        let start = if d.origin + first > s.origin { d.origin + first } else { s.origin };
        let (source_end, wanted_end) = (s.origin + s.len, d.origin + first + len);
        let end = if source_end < wanted_end { source_end } else { wanted_end };
        if start >= end {
            return Err(PlanError::Apart {
                axis: kind,
                source_start: s.origin,
                source_end,
                start: d.origin + first,
                end: wanted_end,
            });
        }
        if at.is_some() {
            of_source = of_source.along(kind, start - s.origin, end - start);
        }
        if to.is_some() {
            of_destination = of_destination.along(kind, start - d.origin, end - start);
        }
    }
    let mut f = 0;
    while f < destination.field_count && !is_whole(&all) {
        if all.has_field(f) {
            of_destination = of_destination.field(destination.fields[f].name);
        }
        f += 1;
    }
    match (source.select(of_source), destination.select(of_destination)) {
        (Ok(source), Ok(destination)) => Ok((source, destination)),
        (Err(error), _) => Err(PlanError::Source(error)),
        (_, Err(error)) => Err(PlanError::Destination(error)),
    }
}

/// Whether all fields are selected.
const fn is_whole(selected: &Selected<'_>) -> bool {
    let mut f = 0;
    while f < selected.geometry().field_count {
        if !selected.has_field(f) {
            return false;
        }
        f += 1;
    }
    true
}

/// Whether some fields, or one of K and V, are not selected: then the source may have fields that
/// are not copied.
pub(super) const fn is_partial(selected: &Selected<'_>) -> bool {
    match selected.geometry().axis_index(AxisKind::Part) {
        Some(a) => match selected.extent(a) {
            Some(len) => len < selected.geometry().axes[a].extent || !is_whole(selected),
            None => unreachable!(),
        },
        None => !is_whole(selected),
    }
}

/// Whether K and V are an axis of one page and fields of the other. The fields' names then say
/// which index is which.
const fn parts_are_fields(
    kind: AxisKind,
    at: Option<usize>,
    to: Option<usize>,
    source: &Geometry,
    destination: &Geometry,
) -> bool {
    let (geometry, axis) = match (kind, at, to) {
        (AxisKind::Part, Some(a), None) => (source, a),
        (AxisKind::Part, None, Some(a)) => (destination, a),
        _ => return false,
    };
    geometry.axes[axis].extent == 2
}

/// The shares of the two pages along one axis.
const fn shares(
    kind: AxisKind,
    source: &Axis,
    destination: &Axis,
    blocks: Blocks<'_>,
) -> Result<(Share, Share), PlanError> {
    let (s, d) = (source.extent, destination.extent);
    let blocks = match blocks {
        Blocks::Within(blocks) => blocks,
        Blocks::Tokens { source, destination } if kind.same(AxisKind::Token) => {
            return match (row(source, s), row(destination, d)) {
                (Some(source), Some(destination)) => Ok((source, destination)),
                (None, _) => Err(PlanError::FarBlock { block: source, extent: s }),
                (_, None) => Err(PlanError::FarBlock { block: destination, extent: d }),
            };
        }
        Blocks::Tokens { .. } => &[],
    };
    let mut b = 0;
    while b < blocks.len() {
        let (axis, block) = blocks[b];
        b += 1;
        if !axis.same(kind) {
            continue;
        }
        let (smaller, larger) = if s < d { (s, d) } else { (d, s) };
        if larger % smaller != 0 || block >= larger / smaller {
            return Err(PlanError::Block { axis: kind, block, smaller, larger });
        }
        let at = block * smaller;
        return Ok((
            Share { origin: if s < d { at } else { 0 }, len: s, total: larger },
            Share { origin: if s < d { 0 } else { at }, len: d, total: larger },
        ));
    }
    let unrelated = PlanError::Unrelated { axis: kind, source_extent: s, destination: d };
    // Two pages of one unnamed rank hold the same part.
    let same_shape = matches!(
        (source.spread, destination.spread),
        (Spread::Sharded { ranks: a, rank: None }, Spread::Sharded { ranks: b, rank: None }) if a == b
    );
    if same_shape && s == d {
        return Ok((Share { origin: 0, len: s, total: s }, Share { origin: 0, len: d, total: d }));
    }
    if !is_part(source) && !is_part(destination) && s != d {
        return Err(unrelated);
    }
    match (share(source), share(destination)) {
        (Some(s), Some(d)) => Ok((s, d)),
        _ => Err(unrelated),
    }
}

/// The share of block `block` in a row of blocks without an end; `None` beyond 63 bits.
const fn row(block: u64, len: u64) -> Option<Share> {
    match block.checked_mul(len) {
        Some(origin) if origin <= i64::MAX as u64 - len => Some(Share { origin, len, total: 0 }),
        _ => None,
    }
}

/// Whether the page holds a part of the axis, of a whole that is known.
const fn is_part(axis: &Axis) -> bool {
    matches!(axis.spread, Spread::Sharded { .. } | Spread::Stage { .. })
}

/// The share of a page along an axis; `None` if its rank is not known.
const fn share(axis: &Axis) -> Option<Share> {
    let len = axis.extent;
    match axis.spread {
        Spread::Whole | Spread::Replicated { .. } => Some(Share { origin: 0, len, total: len }),
        Spread::Sharded { ranks, rank: Some(rank) } => match len.checked_mul(ranks as u64) {
            Some(total) if total <= i64::MAX as u64 => Some(Share { origin: rank as u64 * len, len, total }),
            _ => None,
        },
        Spread::Sharded { rank: None, .. } => None,
        Spread::Stage { first, of } => Some(Share { origin: first, len, total: of }),
    }
}
