//! Random declarations against the oracle: where bytes are, that they keep apart, and that a
//! fingerprint differs exactly if something lies elsewhere.

mod common;
#[path = "common/regressions.rs"]
mod regressions;
#[path = "common/seeds.rs"]
mod seeds;

use std::collections::BTreeSet;

use common::draft::{Draft, ELEMENTS, drafts};
use kvrail_layouts::{Axis, ElementKind, FieldDecl, Fingerprint, Geometry, Level};
use proptest::prelude::*;
use proptest::sample::Index;

/// One change of one parameter.
fn change(draft: &Draft, what: u8, at: Index, other: Index, number: u64) -> Draft {
    let mut draft = draft.clone();
    let order_len = draft.order.len();
    match what {
        0 if !draft.axes.is_empty() => {
            let axis = at.get(&draft.axes).kind;
            draft.axes.iter_mut().filter(|a| a.kind == axis).for_each(|a| a.extent = number);
        }
        1 if order_len > 1 => draft.order.swap(at.index(order_len), other.index(order_len)),
        2 => draft.order.insert(at.index(order_len + 1), Level::Pad(number)),
        3 => {
            let plane = at.index(draft.planes.len());
            let fields = &mut draft.planes[plane].0;
            let field = other.index(fields.len());
            fields[field].count = number;
        }
        4 => {
            let plane = at.index(draft.planes.len());
            let fields = &mut draft.planes[plane].0;
            let field = other.index(fields.len());
            fields[field].kind = ELEMENTS[(number % 5) as usize];
        }
        5 => {
            let plane = at.index(draft.planes.len());
            let fields = &mut draft.planes[plane].0;
            let (a, b) = (other.index(fields.len()), number as usize % fields.len());
            fields.swap(a, b);
        }
        6 if order_len > 0 => {
            let level = at.index(order_len);
            draft.order[level] = match draft.order[level] {
                Level::Axis(axis) => Level::Regions(axis),
                Level::Regions(axis) => Level::Axis(axis),
                Level::Planes => Level::RegionPlanes,
                Level::RegionPlanes => Level::Planes,
                other => other,
            };
        }
        7 => {
            let plane = at.index(draft.planes.len());
            let own = draft.planes[plane].1.take();
            draft.planes[plane].1 = own.map(|mut levels| {
                levels.reverse();
                levels
            });
        }
        _ => {
            let plane = at.index(draft.planes.len());
            draft.planes[plane].0.push(FieldDecl::new("late", ElementKind::U8, number));
        }
    }
    draft
}

/// Inputs that failed once, and are tried first from then on. To be committed.
const REGRESSIONS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/proptest-regressions/properties.txt");

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 4_000,
        failure_persistence: regressions::at(REGRESSIONS, seeds::sources),
        ..ProptestConfig::default()
    })]

    #[test]
    fn every_element_is_where_nested_loops_put_it(draft in drafts()) {
        let geometry = draft.build();
        // Own orders may drop an axis that nothing else names; that is refused, rightly.
        prop_assume!(geometry.is_some());
        let geometry = geometry.unwrap();
        let page = draft.page();

        let regions: Vec<_> =
            (0..geometry.regions()).map(|region| geometry.region_bytes(region).unwrap()).collect();
        prop_assert_eq!(&regions, &page.regions);
        prop_assert_eq!(geometry.region_bytes(geometry.regions()), None);
        prop_assert_eq!(geometry.page_bytes(), page.regions.iter().sum::<u64>());

        let mut taken = BTreeSet::new();
        let mut payload = 0;
        for ((name, at, element), (kind, region, offset)) in &page.elements {
            let field = geometry.field_named(name).unwrap();
            let indices: Vec<_> = geometry
                .axes()
                .iter()
                .map(|axis| at.iter().find(|(code, _)| *code == axis.kind.number()).map_or(0, |(_, i)| *i))
                .collect();
            let place = geometry.offset_of_element(field, &indices, *element).unwrap();
            prop_assert_eq!((place.region, place.offset), (*region, *offset));
            prop_assert_eq!(geometry.fields()[field].kind() as u64, *kind);
            for byte in *offset..offset + geometry.fields()[field].kind().bytes() {
                prop_assert!(byte < page.regions[*region as usize]);
                prop_assert!(taken.insert((*region, byte)));
                payload += 1;
            }
        }
        prop_assert_eq!(geometry.payload_bytes(), payload);

        // Building keeps the promises of a geometry by construction, placing checks them: they
        // agree.
        let mut placement = geometry.place();
        for (p, plane) in geometry.planes().iter().enumerate() {
            placement = placement.region_bytes(p, plane.region_bytes());
        }
        prop_assert_eq!(placement.finish(), Ok(geometry));
        prop_assert!(!geometry.to_string().is_empty());
    }

    #[test]
    fn a_fingerprint_differs_exactly_if_something_lies_elsewhere(
        draft in drafts(),
        what in 0u8..9,
        at in any::<Index>(),
        other in any::<Index>(),
        number in 1u64..6,
    ) {
        let changed = change(&draft, what, at, other, number);
        let (Some(one), Some(two)) = (draft.build(), changed.build()) else {
            return Err(TestCaseError::reject("one of them is no page"));
        };
        let same_axes = {
            let long = |geometry: &Geometry| -> Vec<Axis> {
                geometry.axes().iter().filter(|axis| axis.extent > 1).copied().collect()
            };
            long(&one) == long(&two)
        };
        let same_order = {
            let names = |geometry: &Geometry| -> Vec<_> {
                geometry.fields().iter().map(|field| field.name()).collect()
            };
            names(&one) == names(&two)
        };
        let same_page = same_axes && draft.page() == changed.page();
        let same_fingerprint = Fingerprint::of(&one) == Fingerprint::of(&two);
        // Fields that keep their bytes can only change their order by changing planes, which no
        // change here does.
        prop_assert!(!same_page || same_order);
        prop_assert_eq!(same_page, same_fingerprint);
    }
}
