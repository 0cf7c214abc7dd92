//! An oracle: lays a declaration out element by element, with a cursor, and knows no stride.

pub(crate) mod draft;

use std::collections::BTreeMap;

use kvrail_layouts::{AxisKind, Declaration, ElementKind, Level};

/// (field, (axis code, index) of the axes it goes along, element).
pub(crate) type Key = (String, Vec<(u64, u64)>, u64);

#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Page {
    /// Kind, region, offset.
    pub(crate) elements: BTreeMap<Key, (u64, u32, u64)>,
    /// Bytes of each region.
    pub(crate) regions: Vec<u64>,
}

impl Page {
    pub(crate) fn of(declaration: &Declaration<'_>) -> Self {
        let order = declaration.order;
        let split = order.iter().position(|level| splits(*level));
        let (outer, inner) = match split {
            Some(at) => (&order[..at], &order[at + 1..]),
            None => (order, &[][..]),
        };
        // Either everything goes through the split, or the one plane has the whole order.
        let mut fields = Vec::new();
        let mut planes = Vec::new();
        for plane in declaration.planes {
            let row: Vec<_> = plane.fields.iter().map(|f| (f.name, f.kind, f.count)).collect();
            fields.push(row);
            planes.push(plane.order.unwrap_or(inner));
        }
        let mut walk = Walk {
            extent: &|kind| declaration.axes.iter().find(|axis| axis.kind == kind).unwrap().extent,
            fields,
            planes,
            split: split.map(|at| order[at]),
            page: Self::default(),
            at: Vec::new(),
        };
        walk.regions(outer);
        walk.page
    }
}

fn splits(level: Level) -> bool {
    matches!(level, Level::Planes | Level::RegionPlanes)
}

struct Walk<'a> {
    extent: &'a dyn Fn(AxisKind) -> u64,
    fields: Vec<Vec<(&'static str, ElementKind, u64)>>,
    planes: Vec<&'a [Level]>,
    split: Option<Level>,
    page: Page,
    at: Vec<(AxisKind, u64)>,
}

impl Walk<'_> {
    /// Levels that make regions; each region is one walk of the bytes.
    fn regions(&mut self, levels: &[Level]) {
        match levels {
            [Level::Regions(axis), rest @ ..] => {
                for index in 0..(self.extent)(*axis) {
                    self.at.push((*axis, index));
                    self.regions(rest);
                    self.at.pop();
                }
            }
            [] if self.split == Some(Level::RegionPlanes) => {
                for plane in 0..self.planes.len() {
                    self.plane_regions(self.planes[plane], plane);
                }
            }
            _ => {
                let end = self.outer(levels, 0);
                self.page.regions.push(end);
            }
        }
    }

    fn plane_regions(&mut self, levels: &[Level], plane: usize) {
        if let [Level::Regions(axis), rest @ ..] = levels {
            for index in 0..(self.extent)(*axis) {
                self.at.push((*axis, index));
                self.plane_regions(rest, plane);
                self.at.pop();
            }
        } else {
            let end = self.inner(levels, plane, 0);
            self.page.regions.push(end);
        }
    }

    /// Levels that all planes share; returns the end.
    fn outer(&mut self, levels: &[Level], begin: u64) -> u64 {
        match levels {
            [] => match self.split {
                None => self.row(0, begin),
                Some(_) => {
                    let mut cursor = begin;
                    for plane in 0..self.planes.len() {
                        cursor = self.inner(self.planes[plane], plane, cursor);
                    }
                    cursor
                }
            },
            [Level::Pad(to), rest @ ..] => begin + up(self.outer(rest, begin) - begin, *to),
            [Level::Axis(axis), rest @ ..] => {
                let mut cursor = begin;
                for index in 0..(self.extent)(*axis) {
                    self.at.push((*axis, index));
                    cursor = self.outer(rest, cursor);
                    self.at.pop();
                }
                cursor
            }
            other => panic!("{other:?}"),
        }
    }

    fn inner(&mut self, levels: &[Level], plane: usize, begin: u64) -> u64 {
        match levels {
            [] => self.row(plane, begin),
            [Level::Pad(to), rest @ ..] => begin + up(self.inner(rest, plane, begin) - begin, *to),
            [Level::Axis(axis), rest @ ..] => {
                let mut cursor = begin;
                for index in 0..(self.extent)(*axis) {
                    self.at.push((*axis, index));
                    cursor = self.inner(rest, plane, cursor);
                    self.at.pop();
                }
                cursor
            }
            other => panic!("{other:?}"),
        }
    }

    fn row(&mut self, plane: usize, begin: u64) -> u64 {
        let mut cursor = begin;
        let mut at: Vec<_> = self
            .at
            .iter()
            .filter(|(axis, _)| (self.extent)(*axis) > 1)
            .map(|(axis, index)| (axis.number(), *index))
            .collect();
        at.sort_unstable();
        let region = u32::try_from(self.page.regions.len()).unwrap();
        for (name, kind, count) in self.fields[plane].clone() {
            for element in 0..count {
                let key = (name.to_owned(), at.clone(), element);
                let before = self.page.elements.insert(key, (kind as u64, region, cursor));
                assert_eq!(before, None);
                cursor += kind.bytes();
            }
        }
        cursor
    }
}

fn up(bytes: u64, to: u64) -> u64 {
    bytes.div_ceil(to) * to
}
