//! What the bytes of a page are, by the page's number and the meaning of each row: so a page of any
//! layout, rank, stage or block size is known in advance, whichever way it came.
//!
//! It uses `Geometry::offset_of` alone, and nothing of plans.
#![allow(dead_code, reason = "each test file uses a part")]

use std::ops::Range;
use std::sync::OnceLock;

use crate::layouts::{AxisKind, Geometry, Spread};

/// What a slot is full of before anything is read into it.
pub(crate) const UNTOUCHED: u8 = 0xEE;

/// One row of a page.
pub(crate) struct Row<'g> {
    /// The name of its field.
    pub(crate) field: &'g str,
    /// Its index among all ranks, stages and blocks, for each axis of the page.
    pub(crate) at: Vec<(AxisKind, u64)>,
}

impl Row<'_> {
    /// Its index along an axis; 0 if the page lacks the axis.
    pub(crate) fn along(&self, axis: AxisKind) -> u64 {
        self.at.iter().find(|(kind, _)| *kind == axis).map_or(0, |(_, index)| *index)
    }
}

/// A page: the cache's page of this number, or its block of tokens of this number, as a layout
/// with all ranks determined keeps it.
#[derive(Clone, Copy)]
pub(crate) struct Page<'g> {
    pub(crate) layout: &'g Geometry,
    pub(crate) number: u64,
    pub(crate) block: u64,
}

impl<'g> Page<'g> {
    pub(crate) const fn new(layout: &'g Geometry, number: u64) -> Self {
        Self { layout, number, block: 0 }
    }

    /// All bytes, region behind region. Padding has bytes as well.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut bytes = vec![0; self.layout.page_bytes() as usize];
        for (at, chunk) in bytes.chunks_mut(4_096).enumerate() {
            chunk.copy_from_slice(&noise(&[self.number, at as u64])[..chunk.len()]);
        }
        self.write(&mut bytes, |_| true);
        bytes
    }

    /// The bytes of a slot in which the rows have landed that `brought` names, and nothing else.
    pub(crate) fn landed(&self, brought: impl Fn(&Row<'_>) -> bool) -> Vec<u8> {
        let mut bytes = vec![UNTOUCHED; self.layout.page_bytes() as usize];
        self.write(&mut bytes, brought);
        bytes
    }

    /// Writes the rows that `wanted` names into the bytes of a page.
    pub(crate) fn write(&self, bytes: &mut [u8], wanted: impl Fn(&Row<'_>) -> bool) {
        let begins: Vec<usize> = regions(self.layout).map(|region| region.start).collect();
        let axes = self.layout.axes();
        for (number, field) in self.layout.fields().iter().enumerate() {
            let mut indices = vec![0; axes.len()];
            loop {
                let at = axes.iter().zip(&indices).map(|(axis, &index)| {
                    let first = match axis.spread {
                        Spread::Sharded { rank, .. } => u64::from(rank.expect("a rank")) * axis.extent,
                        Spread::Stage { first, .. } => first,
                        Spread::Whole | Spread::Replicated { .. } => 0,
                    };
                    let blocks = if axis.kind == AxisKind::Token { self.block * axis.extent } else { 0 };
                    (axis.kind, first + blocks + index)
                });
                let row = Row { field: field.name(), at: at.collect() };
                if wanted(&row) {
                    let mut name = vec![self.number, u64::MAX];
                    name.extend(row.field.bytes().map(u64::from));
                    name.extend(row.at.iter().flat_map(|(kind, index)| [kind.number(), *index]));
                    let place = self.layout.offset_of(number, &indices).expect("a row of the page");
                    let first = begins[place.region as usize] + place.offset as usize;
                    let len = field.bytes() as usize;
                    bytes[first..first + len].copy_from_slice(&noise(&name)[..len]);
                }
                // The next indices, the last axis first.
                let next = (0..axes.len()).rev().find(|&axis| {
                    indices[axis] = (indices[axis] + 1) % axes[axis].extent;
                    indices[axis] != 0
                });
                if next.is_none() {
                    break;
                }
            }
        }
    }
}

/// Which bytes of a page, region behind region, are those of each region.
pub(crate) fn regions(layout: &Geometry) -> impl Iterator<Item = Range<usize>> {
    let mut end = 0;
    (0..layout.regions()).map(move |region| {
        let start = end;
        end += layout.region_bytes(region).expect("a region of the page") as usize;
        start..end
    })
}

/// 4,096 bytes that belong to this name: a piece of 1 MiB of noise.
fn noise(name: &[u64]) -> &'static [u8] {
    static NOISE: OnceLock<Vec<u8>> = OnceLock::new();
    let all = NOISE.get_or_init(|| {
        let words = (0..(1_u64 << 17) + 512).flat_map(|n| mix(n).to_le_bytes());
        words.collect()
    });
    let hash = name.iter().fold(0, |hash, &part| mix(hash ^ part));
    &all[(hash >> 44) as usize..][..4_096]
}

/// SplitMix64 (Steele, Lea, Flood 2014).
const fn mix(n: u64) -> u64 {
    let z = n.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}
