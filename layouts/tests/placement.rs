//! Numbers that are given at run time: accepted placements can be addressed, others are refused.

use kvrail_layouts::{
    Axis, AxisKind, Declaration, ElementKind, FieldDecl, Fingerprint, Geometry, KvLayout, Level, OffsetError,
    Placed, PlacementError, PlaneDecl, View, ViewError, ViewMut,
};

use AxisKind::{Layer, Token};

/// K and V at a run-time distance, layers at a run-time stride.
struct Pool;

impl KvLayout for Pool {
    const NAME: &'static str = "pool";
    const GEOMETRY: &'static Geometry = &Declaration {
        axes: &[Axis::whole(Layer, 3), Axis::whole(Token, 4)],
        order: &[Level::StridedPlanes, Level::Strided(Layer), Level::Axis(Token)],
        planes: &[
            PlaneDecl::of(&[FieldDecl::new("k", ElementKind::U8, 8)]),
            PlaneDecl::of(&[FieldDecl::new("v", ElementKind::U8, 8)]),
        ],
        ..Declaration::EMPTY
    }
    .expect();
}

fn place(k: u64, v: u64, distance: u64) -> Result<Geometry, PlacementError> {
    Pool::GEOMETRY.place().stride(0, Layer, k).stride(1, Layer, v).plane(1, distance).finish()
}

#[test]
fn numbers_are_given_by_name_or_for_all_planes() {
    let named = Pool::GEOMETRY.place().stride_of("k", Layer, 100).stride_of("v", Layer, 100);
    assert_eq!(named.plane_of("v", 1_000).finish(), place(100, 100, 1_000));
    let all = Pool::GEOMETRY.place().strides(Layer, 100).plane_of("v", 1_000).finish();
    assert_eq!(all, place(100, 100, 1_000));
    let refused = |placement: kvrail_layouts::Placement| placement.finish().unwrap_err();
    assert_eq!(
        refused(Pool::GEOMETRY.place().stride_of("w", Layer, 1)),
        PlacementError::Field { field: "w" }
    );
    assert_eq!(refused(Pool::GEOMETRY.place().plane_of("w", 1)), PlacementError::Field { field: "w" });
    assert_eq!(refused(Pool::GEOMETRY.place().plane_of("k", 1)), PlacementError::FixedPlane { plane: 0 });
    let fixed = PlacementError::FixedStride { plane: 0, axis: Token };
    assert_eq!(refused(Pool::GEOMETRY.place().strides(Token, 1)), fixed);
}

/// Byte ranges come in the order of addresses, whichever plane has them; those that touch are one.
#[test]
fn byte_ranges_of_planes_that_interleave() {
    let all = |k, v, distance| {
        let geometry = place(k, v, distance).unwrap();
        let selected = geometry.select(kvrail_layouts::Selection::ALL).unwrap();
        selected.byte_ranges().map(|s| (s.offset, s.len)).collect::<Vec<_>>()
    };
    assert_eq!(all(64, 64, 32), [(0, 192)]);
    assert_eq!(all(70, 70, 32), [(0, 64), (70, 64), (140, 64)]);
    assert_eq!(all(70, 70, 35), [(0, 32), (35, 32), (70, 32), (105, 32), (140, 32), (175, 32)]);
    let one = place(70, 70, 35).unwrap();
    let some = kvrail_layouts::Selection::ALL.layers(1, 2).tokens(1, 2);
    let some: Vec<_> = one.select(some).unwrap().byte_ranges().map(|s| (s.offset, s.len)).collect();
    assert_eq!(some, [(78, 16), (113, 16), (148, 16), (183, 16)]);
}

#[test]
fn numbers_become_a_geometry() {
    let geometry = place(100, 100, 1_000).unwrap();
    assert_eq!(geometry.offset_of(0, &[2, 1]).unwrap().offset, 208);
    assert_eq!(geometry.offset_of(1, &[2, 1]).unwrap().offset, 1_208);
    assert_eq!(geometry.page_bytes(), 1_232, "up to the last byte");
    assert!(geometry.is_placed());
    // The dense numbers give the page that a declaration without run-time numbers gives.
    let dense = Declaration {
        axes: Pool::GEOMETRY.axes(),
        order: &[Level::Planes, Level::Axis(Layer), Level::Axis(Token)],
        planes: &[
            PlaneDecl::of(&[FieldDecl::new("k", ElementKind::U8, 8)]),
            PlaneDecl::of(&[FieldDecl::new("v", ElementKind::U8, 8)]),
        ],
        ..Declaration::EMPTY
    }
    .build()
    .unwrap();
    assert_eq!(place(32, 32, 96), Ok(dense));
    assert_eq!(Fingerprint::of(&place(32, 32, 96).unwrap()), dense.fingerprint());
    assert_ne!(place(33, 32, 98).unwrap().fingerprint(), dense.fingerprint());
}

/// Nothing to give, nothing changed: padding that the declaration wrote stays.
#[test]
fn a_page_without_run_time_numbers_is_its_own_placement() {
    let declaration =
        Declaration { order: &[Level::Pad(100), Level::Axis(Layer), Level::Axis(Token)], ..ONE };
    let geometry = declaration.expect();
    assert_eq!(geometry.page_bytes(), 100);
    assert_eq!(geometry.place().finish(), Ok(geometry));
}

const ONE: Declaration<'static> = Declaration {
    axes: &[Axis::whole(Layer, 3), Axis::whole(Token, 4)],
    planes: &[PlaneDecl::of(&[FieldDecl::new("k", ElementKind::U8, 8)])],
    ..Declaration::EMPTY
};

#[test]
fn planes_may_interleave_as_long_as_they_are_nested() {
    // Per layer: K's 32 bytes, then V's.
    assert!(place(64, 64, 32).is_ok());
    // V's layers further apart than K's, between two of them: not nested, and never tried.
    assert_eq!(place(64, 65, 32), Err(PlacementError::PlanesOverlap { first: 0, second: 1 }));
    assert_eq!(place(64, 64, 31), Err(PlacementError::PlanesOverlap { first: 0, second: 1 }));
    assert_eq!(place(64, 64, 33), Err(PlacementError::PlanesOverlap { first: 0, second: 1 }));
    assert_eq!(place(64, 64, 0), Err(PlacementError::PlanesOverlap { first: 0, second: 1 }));
    // A gap makes room.
    assert!(place(100, 100, 68).is_ok());
    assert_eq!(place(100, 100, 69), Err(PlacementError::PlanesOverlap { first: 0, second: 1 }));
}

#[test]
fn placements_that_overlap_or_leave_their_region_are_refused() {
    let begun = || Pool::GEOMETRY.place();
    let given = || begun().stride(0, Layer, 64).stride(1, Layer, 64).plane(1, 32);
    let missing = PlacementError::MissingStride { plane: 0, axis: Layer };
    assert_eq!(begun().finish(), Err(missing));
    assert_eq!(
        begun().stride(0, Layer, 32).stride(1, Layer, 32).finish(),
        Err(PlacementError::MissingPlane { plane: 1 })
    );
    assert_eq!(place(31, 64, 32), Err(PlacementError::RowsOverlap { plane: 0 }));
    assert_eq!(place(0, 64, 32), Err(PlacementError::RowsOverlap { plane: 0 }));
    assert_eq!(place(u64::MAX, 64, 32), Err(PlacementError::Overflow { plane: 0 }));
    assert_eq!(place(64, 64, u64::MAX), Err(PlacementError::Overflow { plane: 1 }));
    assert_eq!(place(1 << 62, 64, 32), Err(PlacementError::Overflow { plane: 0 }));
    // Numbers that the declaration fixes stay fixed; the first mistake is reported.
    assert_eq!(
        given().stride(0, Token, 16).plane(0, 4).finish(),
        Err(PlacementError::FixedStride { plane: 0, axis: Token })
    );
    assert_eq!(given().plane(0, 4).finish(), Err(PlacementError::FixedPlane { plane: 0 }));
    assert_eq!(given().stride(2, Layer, 1).finish(), Err(PlacementError::Plane { plane: 2, planes: 2 }));
    assert_eq!(given().plane(2, 1).finish(), Err(PlacementError::Plane { plane: 2, planes: 2 }));
    assert_eq!(given().region_bytes(2, 1).finish(), Err(PlacementError::Plane { plane: 2, planes: 2 }));
    // Regions: 192 bytes are just enough.
    assert_eq!(given().region_bytes(0, 192).finish().unwrap().page_bytes(), 192);
    assert_eq!(given().region_bytes(1, 1_000).finish().unwrap().page_bytes(), 1_000);
    assert_eq!(
        given().region_bytes(0, 191).finish(),
        Err(PlacementError::OutOfRegion { plane: 1, end: 192, region: 191 })
    );
    assert_eq!(
        given().region_bytes(0, 200).region_bytes(1, 300).finish(),
        Err(PlacementError::RegionBytes { first: 200, second: 300 })
    );
    assert!(given().region_bytes(0, 200).region_bytes(1, 200).finish().is_ok());
    assert!(PlacementError::Foreign.to_string().contains("another page"));
}

#[test]
fn nothing_is_addressed_before_it_is_placed() {
    assert!(!Pool::GEOMETRY.is_placed());
    for field in ["k", "v"] {
        let index = Pool::GEOMETRY.field_named(field).unwrap();
        assert_eq!(Pool::GEOMETRY.offset_of(index, &[0, 0]), Err(OffsetError::Unplaced { field }));
    }
    let bytes = vec![0; Pool::PAGE_BYTES as usize];
    assert_eq!(
        View::<Pool>::new(&bytes, Pool::FINGERPRINT).map(drop),
        Err(ViewError::Unplaced { layout: "pool" })
    );
    assert!(Pool::GEOMETRY.to_string().contains("at run time"));
}

#[test]
fn a_placed_layout_is_viewed() {
    let placed =
        Placed::<Pool>::new(|page| page.stride(0, Layer, 64).stride(1, Layer, 64).plane(1, 32)).unwrap();
    let mut bytes: Vec<u8> = (0..192).collect();
    let view = [bytes.as_slice()];
    let view = View::of_placed(&view, &placed, placed.fingerprint()).unwrap();
    assert_eq!(view.run::<u8>(1, &[2, 3]).unwrap(), [184, 185, 186, 187, 188, 189, 190, 191]);
    let slices = [bytes.as_slice()];
    assert!(matches!(
        View::of_placed(&slices, &placed, Pool::FINGERPRINT).map(drop),
        Err(ViewError::Fingerprint { .. })
    ));
    let mut slices = [bytes.as_mut_slice()];
    let mut view = ViewMut::of_placed(&mut slices, &placed, placed.fingerprint()).unwrap();
    view.run_mut::<u8>(0, &[0, 0]).unwrap().fill(255);
    assert_eq!(bytes[..9], [255, 255, 255, 255, 255, 255, 255, 255, 8]);
    // A placement of another page does not pass for this one.
    let other = Declaration {
        planes: &[PlaneDecl::of(&[FieldDecl::new("b", ElementKind::U8, 1)])],
        ..Declaration::EMPTY
    }
    .expect();
    assert!(matches!(Placed::<Pool>::new(|_| other.place()), Err(PlacementError::Foreign)));
}

/// Everything is left to run time, over two axes of different extents.
const FREE: Declaration<'static> = Declaration {
    axes: &[Axis::whole(Layer, 3), Axis::whole(Token, 2)],
    order: &[Level::StridedPlanes, Level::Strided(Layer), Level::Strided(Token)],
    planes: &[
        PlaneDecl::of(&[FieldDecl::new("k", ElementKind::U8, 3)]),
        PlaneDecl {
            fields: &[FieldDecl::new("s", ElementKind::U8, 2)],
            order: Some(&[Level::Strided(Layer)]),
        },
    ],
    ..Declaration::EMPTY
};

/// Tries all strides up to a bound: no accepted placement overlaps or leaves its region.
#[test]
fn no_accepted_placement_overlaps() {
    let geometry = FREE.expect();
    let mut accepted = 0;
    for (layer, token, other, offset) in (0..16)
        .flat_map(|a| (0..12).map(move |b| (a, b)))
        .flat_map(|(a, b)| (0..16).map(move |c| (a, b, c)))
        .flat_map(|(a, b, c)| (0..30).map(move |d| (a, b, c, d)))
    {
        let mut taken = std::collections::HashSet::new();
        let mut clear = true;
        for (base, len) in (0..3)
            .flat_map(|l| (0..2).map(move |t| (l * layer + t * token, 3)))
            .chain((0..3).map(|l| (offset + l * other, 2)))
        {
            clear &= (base..base + len).all(|byte| taken.insert(byte));
        }
        let placed = geometry
            .place()
            .stride(0, Layer, layer)
            .stride(0, Token, token)
            .stride(1, Layer, other)
            .plane(1, offset)
            .finish();
        // A refused placement overlaps, or interleaves in a way that is not nested.
        if let Ok(geometry) = placed {
            assert!(clear, "{layer} {token} {other} {offset}");
            assert_eq!(geometry.page_bytes(), taken.iter().max().unwrap() + 1);
            accepted += 1;
        }
    }
    assert!(accepted > 2_000, "{accepted}");
}
