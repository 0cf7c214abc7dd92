//! Memory of pages in which each byte knows what it is: an oracle for plans that knows no stride of
//! its own. A byte is a number that stands for its field, its index along every axis of the whole,
//! its element and its place in the element. Bytes of padding, and bytes that nothing was written
//! to, are 0.
#![allow(dead_code, unreachable_pub, reason = "not every test that includes this uses all of it")]

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};

use kvrail_layouts::plan::Plan;
use kvrail_layouts::{AxisKind, Geometry, Spread};

/// Indices of the whole, along the axes that a page has.
pub type At<'a> = &'a [(AxisKind, u64)];

/// The regions of a page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Memory(pub Vec<Vec<u64>>);

impl Memory {
    /// A page to which nothing was written.
    pub fn empty(page: &Geometry) -> Self {
        let bytes = |region| usize::try_from(page.region_bytes(region).unwrap()).unwrap();
        Self((0..page.regions()).map(|region| vec![0; bytes(region)]).collect())
    }

    /// A page of the whole. `block` is the number of the page in a row of blocks of tokens.
    pub fn filled(page: &Geometry, block: u64) -> Self {
        Self::some(page, block, |_| true)
    }

    /// The same, of the wanted indices only.
    pub fn some(page: &Geometry, block: u64, wanted: impl Fn(At<'_>) -> bool) -> Self {
        let mut memory = Self::empty(page);
        for (f, field) in page.fields().iter().enumerate() {
            let mut index = vec![0; page.axes().len()];
            loop {
                let at: Vec<_> =
                    page.axes().iter().zip(&index).map(|(a, i)| (a.kind, origin(a, block) + i)).collect();
                if wanted(&at) {
                    for element in 0..field.count() {
                        let place = page.offset_of_element(f, &index, element).unwrap();
                        for byte in 0..field.kind().bytes() {
                            let offset = usize::try_from(place.offset + byte).unwrap();
                            memory.0[place.region as usize][offset] =
                                number(field.name(), &at, element, byte);
                        }
                    }
                }
                let axes = page.axes();
                let Some(turn) = (0..index.len()).rev().find(|a| index[*a] + 1 < axes[*a].extent) else {
                    break;
                };
                index[turn] += 1;
                index[turn + 1..].fill(0);
            }
        }
        memory
    }

    /// Copies what the plan copies. Every byte is a field's, and is written for the first time.
    pub fn copy(&mut self, plan: &Plan, from: &Self) {
        for piece in plan.iter() {
            let len = usize::try_from(piece.len).unwrap();
            let (a, b) = (piece.source.offset as usize, piece.destination.offset as usize);
            let source = &from.0[piece.source.region as usize][a..a + len];
            let destination = &mut self.0[piece.destination.region as usize][b..b + len];
            assert!(source.iter().all(|byte| *byte != 0), "a byte of no field is read: {piece:?}");
            assert!(destination.iter().all(|byte| *byte == 0), "a byte is written twice: {piece:?}");
            destination.copy_from_slice(source);
        }
    }
}

/// The index of the whole at which a page begins.
fn origin(axis: &kvrail_layouts::Axis, block: u64) -> u64 {
    match axis.spread {
        Spread::Sharded { rank, .. } => u64::from(rank.expect("the test gives a rank")) * axis.extent,
        Spread::Stage { first, .. } => first,
        Spread::Whole | Spread::Replicated { .. } if axis.kind == AxisKind::Token => block * axis.extent,
        Spread::Whole | Spread::Replicated { .. } => 0,
    }
}

fn number(field: &str, at: At<'_>, element: u64, byte: u64) -> u64 {
    // An axis that a page lacks is at index 0, and K and V may be an axis or two fields.
    let part = at.iter().find(|(kind, _)| *kind == AxisKind::Part).map(|(_, index)| *index);
    let field = match part {
        Some(0) => "k",
        Some(_) => "v",
        None => field,
    };
    let along: Vec<_> = at.iter().filter(|(kind, index)| *kind != AxisKind::Part && *index > 0).collect();
    let mut hash = DefaultHasher::new();
    (field, along.len(), element, byte).hash(&mut hash);
    for (kind, index) in along {
        (kind.number(), index).hash(&mut hash);
    }
    hash.finish().max(1)
}
