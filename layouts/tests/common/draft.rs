//! Arbitrary declarations.

use kvrail_layouts::{Axis, AxisKind, Declaration, ElementKind, FieldDecl, Geometry, Level, PlaneDecl};
use proptest::prelude::*;
use proptest::sample::{Index, select, subsequence};

use super::Page;

const KINDS: [AxisKind; 5] =
    [AxisKind::Layer, AxisKind::Token, AxisKind::Part, AxisKind::Head, AxisKind::Other(3)];
pub(crate) const ELEMENTS: [ElementKind; 5] =
    [ElementKind::U8, ElementKind::Bf16, ElementKind::F16, ElementKind::F32, ElementKind::E4m3];
const NAMES: [&str; 6] = ["a", "b", "c", "d", "e", "f"];

/// A declaration that owns its lists.
#[derive(Clone, Debug)]
pub(crate) struct Draft {
    pub(crate) axes: Vec<Axis>,
    pub(crate) order: Vec<Level>,
    pub(crate) planes: Vec<(Vec<FieldDecl>, Option<Vec<Level>>)>,
}

impl Draft {
    pub(crate) fn with<T>(&self, f: impl FnOnce(&Declaration<'_>) -> T) -> T {
        let planes: Vec<_> =
            self.planes.iter().map(|(fields, order)| PlaneDecl { fields, order: order.as_deref() }).collect();
        f(&Declaration { axes: &self.axes, order: &self.order, planes: &planes, ..Declaration::EMPTY })
    }

    pub(crate) fn build(&self) -> Option<Geometry> {
        self.with(|declaration| declaration.build().ok())
    }

    pub(crate) fn page(&self) -> Page {
        self.with(Page::of)
    }
}

pub(crate) fn drafts() -> impl Strategy<Value = Draft> {
    let axes = subsequence(&KINDS[..], 0..=4).prop_shuffle();
    let fields = prop::collection::vec((select(&ELEMENTS[..]), 1u64..4), 1..=4);
    let pads = prop::collection::vec((any::<Index>(), 1u64..30), 0..=3);
    (axes, prop::collection::vec(1u64..4, 4), fields, pads, any::<[Index; 3]>(), 0u8..8, any::<bool>())
        .prop_map(|(kinds, extents, fields, pads, [split, regions, cut], shape, own)| {
            let axes: Vec<_> = kinds.iter().zip(extents).map(|(k, n)| Axis::whole(*k, n)).collect();
            let fields: Vec<_> = fields
                .into_iter()
                .zip(NAMES)
                .map(|((kind, count), name)| FieldDecl::new(name, kind, count))
                .collect();
            // Bytes: axes and pads, with the split somewhere. Regions: some axes in front.
            let regions = regions.index(kinds.len() + 1).min(2) * usize::from(shape & 1);
            let mut order: Vec<_> = kinds[regions..].iter().map(|kind| Level::Axis(*kind)).collect();
            for (at, to) in pads {
                order.insert(at.index(order.len() + 1), Level::Pad(to));
            }
            let mut planes = vec![(fields.clone(), None)];
            if fields.len() > 1 && shape & 2 != 0 {
                let (first, second) = fields.split_at(1 + cut.index(fields.len() - 1));
                planes = vec![(first.to_vec(), None), (second.to_vec(), None)];
                if shape & 4 != 0 {
                    order.insert(0, Level::RegionPlanes);
                } else {
                    order.insert(split.index(order.len() + 1), Level::Planes);
                }
                if own {
                    let at = order.iter().position(|l| matches!(l, Level::Planes | Level::RegionPlanes));
                    let mut levels = order[at.unwrap() + 1..].to_vec();
                    levels.reverse();
                    levels.truncate(2);
                    planes[1].1 = Some(levels);
                }
            }
            order.splice(0..0, kinds[..regions].iter().map(|kind| Level::Regions(*kind)));
            Draft { axes, order, planes }
        })
}
