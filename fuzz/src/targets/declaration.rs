//! An arbitrary declaration is refused with a reason, or gives a geometry whose elements lie apart
//! and inside their regions.

use arbitrary::Arbitrary;
use kvrail_layouts::{
    Axis, AxisKind, Declaration, ElementKind, FieldDecl, Fingerprint, Geometry, Level, PlaneDecl,
};

const KINDS: [AxisKind; 5] =
    [AxisKind::Layer, AxisKind::Token, AxisKind::Part, AxisKind::Head, AxisKind::Other(3)];
const ELEMENTS: [ElementKind; 9] = [
    ElementKind::U8,
    ElementKind::Bf16,
    ElementKind::F16,
    ElementKind::F32,
    ElementKind::E4m3,
    ElementKind::E5m2,
    ElementKind::Ue8m0,
    ElementKind::Fp4x2,
    ElementKind::I8,
];
const NAMES: [&str; 6] = ["a", "b", "c", "d", "e", "a"];

#[derive(Arbitrary, Debug)]
pub struct Draft {
    axes: Vec<(u8, u64, Option<(u32, bool)>)>,
    order: Vec<AnyLevel>,
    planes: Vec<(Vec<(u8, u8, u64)>, Option<Vec<AnyLevel>>)>,
    tokens_per_state: u64,
    align: u64,
    bytes: Option<u64>,
    version: u32,
    swizzle: u32,
    /// Small numbers make more pages.
    small: bool,
}

#[derive(Arbitrary, Debug)]
pub enum AnyLevel {
    Axis(u8),
    Strided(u8),
    Regions(u8),
    Planes,
    StridedPlanes,
    RegionPlanes,
    Pad(u64),
}

impl Draft {
    fn number(&self, number: u64) -> u64 {
        if self.small { number % 9 } else { number }
    }

    fn levels(&self, levels: &[AnyLevel]) -> Vec<Level> {
        let axis = |of: &u8| KINDS[usize::from(*of) % KINDS.len()];
        let level = |level: &AnyLevel| match level {
            AnyLevel::Axis(of) => Level::Axis(axis(of)),
            AnyLevel::Strided(of) => Level::Strided(axis(of)),
            AnyLevel::Regions(of) => Level::Regions(axis(of)),
            AnyLevel::Planes => Level::Planes,
            AnyLevel::StridedPlanes => Level::StridedPlanes,
            AnyLevel::RegionPlanes => Level::RegionPlanes,
            AnyLevel::Pad(to) => Level::Pad(self.number(*to)),
        };
        levels.iter().map(level).collect()
    }
}

/// Runs the target.
pub fn run(draft: &Draft) {
    let axes: Vec<Axis> = draft
        .axes
        .iter()
        .map(|&(kind, extent, ranks)| {
            let (kind, extent) = (KINDS[usize::from(kind) % KINDS.len()], draft.number(extent));
            match ranks {
                None => Axis::whole(kind, extent),
                Some((ranks, true)) => Axis::sharded(kind, extent, ranks),
                Some((ranks, false)) => Axis::replicated(kind, extent, ranks),
            }
        })
        .collect();
    let planes: Vec<(Vec<FieldDecl>, Option<Vec<Level>>)> = draft
        .planes
        .iter()
        .map(|(fields, order)| {
            let field = |&(name, kind, count): &(u8, u8, u64)| {
                let kind = ELEMENTS[usize::from(kind) % ELEMENTS.len()];
                FieldDecl::new(NAMES[usize::from(name) % NAMES.len()], kind, draft.number(count))
            };
            (fields.iter().map(field).collect(), order.as_ref().map(|order| draft.levels(order)))
        })
        .collect();
    let planes: Vec<PlaneDecl<'_>> =
        planes.iter().map(|(fields, order)| PlaneDecl { fields, order: order.as_deref() }).collect();
    let order = draft.levels(&draft.order);
    let declaration = Declaration {
        axes: &axes,
        order: &order,
        planes: &planes,
        tokens_per_state: draft.number(draft.tokens_per_state),
        align: draft.number(draft.align),
        bytes: draft.bytes,
        version: draft.version,
        swizzle: draft.swizzle,
    };
    match declaration.build() {
        Err(refusals) => {
            let first = refusals.first().expect("a refusal says why");
            assert!(!first.text().as_str().is_empty());
        }
        Ok(geometry) => check(&geometry),
    }
}

/// The identity reports the numbers that are left to run time, and pages of two ranks differ in
/// nothing but the rank.
fn check_identity(geometry: &Geometry) {
    let identity = geometry.identity();
    assert_eq!(identity.fingerprint(), geometry.fingerprint());
    assert_eq!(identity.fingerprint_of_any_rank(), geometry.fingerprint(), "no rank has been said");
    let open = identity.ranks().iter().any(|of| of.rank.is_none());
    assert_eq!(identity.undetermined().is_some(), open || !geometry.is_placed());
    let mut ranked = *geometry;
    for of in identity.ranks() {
        ranked = ranked.at_rank(of.axis, of.ranks - 1).expect("the last rank");
        assert_eq!(ranked.identity().fingerprint_of_any_rank(), geometry.fingerprint());
        assert_ne!(ranked.fingerprint(), geometry.fingerprint());
    }
    let open = ranked.identity().undetermined();
    assert_eq!(open.is_some(), !geometry.is_placed(), "{open:?}");
}

/// Every element lies in its region, and (where there are few enough to look) on bytes of its own.
fn check(geometry: &Geometry) {
    assert!(!geometry.to_string().is_empty());
    assert_eq!(Fingerprint::of(geometry), geometry.fingerprint());
    assert!(geometry.payload_bytes() <= geometry.page_bytes());
    check_identity(geometry);
    // A page of whole regions, each a multiple of the alignment.
    let mut sum = 0;
    for region in 0..geometry.regions() {
        let bytes = geometry.region_bytes(region).expect("a region that is there");
        assert_eq!(bytes % geometry.align(), 0);
        sum += bytes;
    }
    assert_eq!(sum, geometry.page_bytes());
    // Where distances are known only at run time no element has a place yet.
    if !geometry.is_placed() {
        return;
    }
    if geometry.payload_bytes() > 1 << 12 || geometry.page_bytes() > 1 << 16 {
        return;
    }
    let mut taken = vec![false; geometry.page_bytes() as usize];
    let starts: Vec<u64> = (0..geometry.regions())
        .scan(0, |at, region| {
            let start = *at;
            *at += geometry.region_bytes(region)?;
            Some(start)
        })
        .collect();
    let extents: Vec<u64> = geometry.axes().iter().map(|axis| geometry.extent(axis.kind)).collect();
    let mut payload = 0;
    for (number, field) in geometry.fields().iter().enumerate() {
        let mut seen = std::collections::BTreeSet::new();
        let mut indices = vec![0; extents.len()];
        loop {
            for element in 0..field.count() {
                let place = geometry.offset_of_element(number, &indices, element).expect("an element of it");
                // An axis that a field lacks leaves it where it is.
                if !seen.insert((place.region, place.offset)) {
                    continue;
                }
                let region = geometry.region_bytes(place.region).expect("a region of it");
                for byte in place.offset..place.offset + field.kind().bytes() {
                    assert!(byte < region);
                    let at = (starts[place.region as usize] + byte) as usize;
                    assert!(!std::mem::replace(&mut taken[at], true), "two elements at one byte");
                    payload += 1;
                }
            }
            let Some(next) = (0..extents.len()).find(|&axis| indices[axis] + 1 < extents[axis]) else {
                break;
            };
            indices[next] += 1;
            indices[..next].fill(0);
        }
    }
    assert_eq!(payload, geometry.payload_bytes());
}
