//! A geometry as nested blocks, from the page to a row. A picture shows each below the one that it
//! is a part of.

use kvrail::layouts::{Axis, AxisStep, Geometry};

/// A block of bytes or regions, and its parts.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Block {
    /// Equal blocks, one for each index of an axis.
    Axis {
        axis: Axis,
        /// The distance between their beginnings.
        every: Distance,
        /// Bytes after the last of them, up to the end of this block.
        pad: u64,
        /// The first of them.
        inner: Box<Self>,
    },
    /// Planes beside each other, each with its number and its bytes.
    Planes {
        planes: Vec<(usize, u64, Self)>,
        /// Whether each begins in a region of its own.
        apart: bool,
        /// Bytes after the last of them, up to the end of this block.
        pad: u64,
    },
    /// The fields of a plane, one after the other.
    Row {
        plane: usize,
        /// Bytes after the last of them, up to the end of this block.
        pad: u64,
    },
}

/// The distance between the beginnings of two neighbouring blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Distance {
    Bytes(u64),
    /// A distance that is known only at run time.
    Unknown,
    Regions(u32),
}

/// The blocks of a whole page.
pub(crate) fn page(geometry: &Geometry) -> Block {
    let planes: Vec<usize> = (0..geometry.planes().len()).collect();
    let left: Vec<usize> = (0..geometry.axes().len()).collect();
    take_apart(geometry, &planes, &left, None)
}

/// Takes `planes` apart along the axes that are `left`. Together they have `size` bytes, if that is
/// known.
fn take_apart(geometry: &Geometry, planes: &[usize], left: &[usize], size: Option<u64>) -> Block {
    let tops: Vec<_> = planes.iter().map(|plane| top(geometry, *plane, left)).collect();
    let first = planes[0];
    if let Some((axis, every)) = tops[0]
        && tops.iter().all(|top| *top == tops[0])
        && encloses(geometry, planes, every)
    {
        let left: Vec<usize> = left.iter().copied().filter(|a| *a != axis).collect();
        let axis = geometry.axes()[axis];
        let (inner, pad) = match every {
            Distance::Bytes(step) => {
                let size = size.unwrap_or(geometry.planes()[first].region_bytes());
                (Some(step), size.saturating_sub(step * axis.extent))
            }
            Distance::Unknown | Distance::Regions(_) => (None, 0),
        };
        let inner = Box::new(take_apart(geometry, planes, &left, inner));
        return Block::Axis { axis, every, pad, inner };
    }
    if let [plane] = planes {
        let row = geometry.planes()[*plane].row_bytes();
        let size = size.unwrap_or(geometry.planes()[*plane].region_bytes());
        return Block::Row { plane: *plane, pad: size.saturating_sub(row) };
    }
    let apart = planes.iter().any(|p| geometry.planes()[*p].region() != geometry.planes()[first].region());
    let sizes: Vec<u64> = planes.iter().map(|plane| own_bytes(geometry, *plane, left)).collect();
    let all = size.unwrap_or(geometry.planes()[first].region_bytes());
    let pad = if apart { 0 } else { all.saturating_sub(sizes.iter().sum()) };
    let planes = planes.iter().zip(sizes).map(|(plane, size)| {
        // A plane in a region of its own has the whole region.
        let size = if apart { geometry.planes()[*plane].region_bytes() } else { size };
        (*plane, size, take_apart(geometry, &[*plane], left, Some(size)))
    });
    Block::Planes { planes: planes.collect(), apart, pad }
}

/// The outermost axis of a plane among those that are left, and its step.
fn top(geometry: &Geometry, plane: usize, left: &[usize]) -> Option<(usize, Distance)> {
    let steps = left.iter().filter(|a| geometry.axes()[**a].extent > 1).filter_map(|a| {
        let every = match geometry.step(plane, *a)? {
            AxisStep::Shared => return None,
            AxisStep::Bytes(step) => Distance::Bytes(step),
            AxisStep::Runtime => Distance::Unknown,
            AxisStep::Regions(step) => Distance::Regions(step),
        };
        Some((*a, every))
    });
    steps.max_by_key(|(_, every)| *every)
}

/// Whether one step of this length contains all of these planes.
fn encloses(geometry: &Geometry, planes: &[usize], every: Distance) -> bool {
    let regions = || planes.iter().map(|plane| geometry.planes()[*plane].region());
    let offsets = || planes.iter().map(|plane| geometry.planes()[*plane].offset());
    let spread = regions().max().unwrap_or(0) - regions().min().unwrap_or(0);
    match every {
        Distance::Regions(step) => spread < step,
        Distance::Unknown => spread == 0 && planes.len() == 1,
        Distance::Bytes(step) => {
            let known: Option<Vec<u64>> = offsets().collect();
            let within = |all: Vec<u64>| Some(all.iter().max()? - all.iter().min()? < step);
            spread == 0 && (planes.len() == 1 || known.and_then(within).unwrap_or(false))
        }
    }
}

/// The bytes of a plane along the axes that are left: its outermost blocks together.
fn own_bytes(geometry: &Geometry, plane: usize, left: &[usize]) -> u64 {
    let outermost = left.iter().filter_map(|a| match geometry.step(plane, *a)? {
        // An axis of one index gives the size, too.
        AxisStep::Bytes(step) => Some(step * geometry.axes()[*a].extent),
        AxisStep::Shared | AxisStep::Runtime | AxisStep::Regions(_) => None,
    });
    outermost.max().unwrap_or(geometry.planes()[plane].row_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use kvrail::KvLayout;
    use kvrail::layouts::AxisKind::{Head, Layer, Token};
    use kvrail::layouts::catalogue::{SglLlama3_70bTp8PageHead, SglMlaLayerFirst, V4C4};

    fn axis(block: Block) -> (kvrail::layouts::AxisKind, u64, Distance, u64, Block) {
        match block {
            Block::Axis { axis, every, pad, inner } => (axis.kind, axis.extent, every, pad, *inner),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_page_with_planes_and_padding() {
        let (kind, extent, every, pad, layer) = axis(page(V4C4::GEOMETRY));
        assert_eq!((kind, extent, every, pad), (Layer, 21, Distance::Bytes(37_440), 0));
        let Block::Planes { planes, apart: false, pad: 64 } = layer else { panic!("{layer:?}") };
        let [(0, 36_864, states), (1, 512, scales)] = <[_; 2]>::try_from(planes).unwrap() else { panic!() };
        let (kind, extent, every, pad, row) = axis(states);
        assert_eq!((kind, extent, every, pad), (Token, 64, Distance::Bytes(576), 0));
        assert_eq!(row, Block::Row { plane: 0, pad: 0 });
        let (kind, _, every, pad, row) = axis(scales);
        assert_eq!((kind, every, pad), (Token, Distance::Bytes(8), 0));
        assert_eq!(row, Block::Row { plane: 1, pad: 1 });
    }

    #[test]
    fn regions_and_axes_of_one_index() {
        let (kind, extent, every, _, region) = axis(page(SglMlaLayerFirst::GEOMETRY));
        assert_eq!((kind, extent, every), (Layer, 61, Distance::Regions(1)));
        assert_eq!(axis(region).0, Token);
        let Block::Planes { planes, apart: true, .. } = page(SglLlama3_70bTp8PageHead::GEOMETRY) else {
            panic!()
        };
        let (kind, extent, every, pad, _) = axis(planes.into_iter().next().unwrap().2);
        assert_eq!((kind, extent, every, pad), (Token, 64, Distance::Bytes(20_480), 0));
        assert_eq!(SglLlama3_70bTp8PageHead::GEOMETRY.extent(Head), 1);
    }
}
