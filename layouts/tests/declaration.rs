//! The mistakes for which a declaration is refused, and their spots. The derive's fixtures show the
//! same for authors; these tests also cover declarations that the derive cannot express.

use kvrail_layouts::Text;
use kvrail_layouts::{
    Axis, AxisKind, AxisStep, Declaration, DeclarationError, DeclarationErrorKind, DeclarationErrors,
    ElementKind, FieldDecl, Geometry, Level, PlaneDecl, Spot, Spread,
};

use AxisKind::{Head, Layer, Other, Part, Token};
use Level::{Pad, Planes, RegionPlanes, Regions, StridedPlanes};

const U8: FieldDecl = FieldDecl::new("bytes", ElementKind::U8, 576);
const ROW: &[PlaneDecl<'static>] = &[PlaneDecl::of(&[U8])];
const TWO: &[PlaneDecl<'static>] =
    &[PlaneDecl::of(&[U8]), PlaneDecl::of(&[FieldDecl::new("scales", ElementKind::F32, 2)])];

fn page<'a>(axes: &'a [Axis], order: &'a [Level], planes: &'a [PlaneDecl<'a>]) -> Declaration<'a> {
    Declaration { axes, order, planes, ..Declaration::EMPTY }
}

#[track_caller]
fn refused(declaration: &Declaration<'_>, expected: &[(Spot, DeclarationErrorKind)]) {
    let refusals = declaration.build().expect_err("refused");
    let found: Vec<_> = refusals.iter().map(|refusal| (refusal.at, refusal.why)).collect();
    assert_eq!(found, expected, "{refusals}");
}

#[test]
fn wrong_axes_are_refused() {
    let axes = [
        Axis::whole(Layer, 0),
        Axis::whole(Token, 4),
        Axis::whole(Token, 5),
        Axis::sharded(Head, 8, 0),
        Axis { kind: Part, extent: 2, spread: Spread::Sharded { ranks: 2, rank: Some(2) } },
    ];
    refused(
        &page(&axes, &[], ROW),
        &[
            (Spot::Axis(0), DeclarationErrorKind::ZeroExtent { axis: Layer }),
            (Spot::Axis(2), DeclarationErrorKind::SameAxisTwice { axis: Token }),
            (Spot::Spread(3), DeclarationErrorKind::Ranks { ranks: 0, rank: None }),
            (Spot::Spread(4), DeclarationErrorKind::Ranks { ranks: 2, rank: Some(2) }),
        ],
    );
    let many: Vec<_> = (0..9).map(|tag| Axis::whole(Other(tag), 2)).collect();
    refused(
        &page(&many, &[], ROW),
        &[(Spot::Axis(8), DeclarationErrorKind::TooMany { what: "axes", max: 8, found: 9 })],
    );
}

#[test]
fn wrong_rows_are_refused() {
    refused(&page(&[], &[], &[]), &[(Spot::Order, DeclarationErrorKind::NoFields)]);
    let zero = FieldDecl::new("none", ElementKind::F32, 0);
    refused(
        &page(&[], &[Planes], &[PlaneDecl::of(&[zero, U8, U8]), PlaneDecl::of(&[])]),
        &[
            (Spot::Field(0), DeclarationErrorKind::ZeroCount { field: "none" }),
            (Spot::Field(2), DeclarationErrorKind::SameFieldTwice { field: "bytes" }),
            (Spot::Plane(1), DeclarationErrorKind::NoFields),
        ],
    );
    let huge = FieldDecl::new("huge", ElementKind::F32, u64::MAX / 4);
    refused(&page(&[], &[], &[PlaneDecl::of(&[huge])]), &[(Spot::Field(0), DeclarationErrorKind::Overflow)]);
    let nine = [PlaneDecl::of(&[]); 9];
    let refusals = page(&[], &[Planes], &nine).build().unwrap_err();
    assert_eq!(
        refusals.at(Spot::Plane(8)).map(|refusal| refusal.why),
        Some(DeclarationErrorKind::TooMany { what: "planes", max: 8, found: 9 })
    );
}

#[test]
fn wrong_orders_are_refused() {
    let axes = [Axis::whole(Layer, 61), Axis::whole(Token, 64)];
    let (layer, token) = (Level::Axis(Layer), Level::Axis(Token));
    let check = |order: &[Level], expected: &[(Spot, DeclarationErrorKind)]| {
        refused(&page(&axes, order, ROW), expected)
    };
    check(
        &[layer, token, Level::Axis(Head)],
        &[(Spot::Level(2), DeclarationErrorKind::UnknownAxis { axis: Head })],
    );
    let refusals = page(&axes, &[layer, token, Level::Axis(Other(3))], ROW).build().unwrap_err();
    assert_eq!(refusals.to_string(), "the order names axis `other#3`, which has no extent; say how many");
    check(&[layer, token, layer], &[(Spot::Level(0), DeclarationErrorKind::RepeatedAxis { axis: Layer })]);
    check(&[layer], &[(Spot::Axis(1), DeclarationErrorKind::UnusedAxis { axis: Token, extent: 64 })]);
    check(&[layer, token, Pad(0)], &[(Spot::Level(2), DeclarationErrorKind::ZeroPad)]);
    check(&[layer, Regions(Token)], &[(Spot::Level(0), DeclarationErrorKind::RegionsInside)]);
    check(
        &[Pad(8), layer, Regions(Token)],
        &[
            (Spot::Level(1), DeclarationErrorKind::RegionsInside),
            (Spot::Level(0), DeclarationErrorKind::RegionsInside),
        ],
    );
    check(&[layer, token, Pad(u64::MAX)], &[(Spot::Level(2), DeclarationErrorKind::Overflow)]);
    let refusals = page(&[Axis::whole(Token, 1 << 60)], &[token], ROW).build().unwrap_err();
    assert_eq!(
        refusals.first(),
        Some(DeclarationError { at: Spot::Level(0), why: DeclarationErrorKind::Overflow })
    );
    // Each region is small enough, all of them are not.
    let axes = [Axis::whole(Layer, 4096), Axis::whole(Token, 1 << 53)];
    refused(
        &page(&axes, &[Regions(Layer), token], &[PlaneDecl::of(&[FieldDecl::new("b", ElementKind::U8, 1)])]),
        &[(Spot::Order, DeclarationErrorKind::Overflow)],
    );
    let axes = [Axis::whole(Layer, 4097)];
    refused(
        &page(&axes, &[Regions(Layer)], ROW),
        &[(Spot::Level(0), DeclarationErrorKind::TooMany { what: "regions", max: 4096, found: 4097 })],
    );
}

#[test]
fn wrong_planes_are_refused() {
    let axes = [Axis::whole(Token, 64)];
    let token = Level::Axis(Token);
    refused(&page(&axes, &[token], TWO), &[(Spot::Order, DeclarationErrorKind::PlanesMissing { planes: 2 })]);
    refused(
        &page(&axes, &[Planes, StridedPlanes, token], TWO),
        &[(Spot::Level(1), DeclarationErrorKind::PlanesTwice)],
    );
    let own = [PlaneDecl { fields: &[U8], order: Some(&[token]) }];
    refused(&page(&axes, &[token], &own), &[(Spot::Plane(0), DeclarationErrorKind::OrderWithoutPlanes)]);
    let regions = [TWO[0], PlaneDecl { fields: TWO[1].fields, order: Some(&[Regions(Token)]) }];
    refused(
        &page(&axes, &[Planes, token], &regions),
        &[(Spot::Level(0), DeclarationErrorKind::RegionsUnderPlanes)],
    );
    let wrong = [TWO[0], PlaneDecl { fields: TWO[1].fields, order: Some(&[token, Pad(0)]) }];
    refused(
        &page(&axes, &[Planes, token], &wrong),
        &[(Spot::PlaneLevel(1, 1), DeclarationErrorKind::ZeroPad)],
    );
    // A region for K, and one per token for its scales.
    let geometry = page(&axes, &[RegionPlanes, token], &regions).build().unwrap();
    assert_eq!(geometry.regions(), 65);
    assert_eq!(geometry.region_bytes(0), Some(36_864));
    assert_eq!(geometry.region_bytes(64), Some(8));
    assert_eq!(geometry.step(1, 0), Some(AxisStep::Regions(1)));
}

#[test]
fn wrong_sizes_are_refused() {
    let axes = [Axis::whole(Token, 64)];
    let order = [Level::Axis(Token)];
    let declaration = Declaration { bytes: Some(36_000), align: 4096, ..page(&axes, &order, ROW) };
    refused(&declaration, &[(Spot::Bytes, DeclarationErrorKind::Bytes { expected: 36_000, actual: 36_864 })]);
    let declaration = Declaration { bytes: None, align: 5000, ..declaration };
    refused(&declaration, &[(Spot::Align, DeclarationErrorKind::Align { align: 5000, region: 36_864 })]);
    let declaration = Declaration { align: 0, tokens_per_state: 0, ..declaration };
    refused(
        &declaration,
        &[
            (Spot::TokensPerState, DeclarationErrorKind::ZeroTokensPerState),
            (Spot::Align, DeclarationErrorKind::ZeroAlign),
        ],
    );
    // An alignment need not be a power of two.
    assert!(Declaration { align: 576, tokens_per_state: 1, ..declaration }.build().is_ok());
}

/// Real pages that the catalogue does not hold, compared by their sizes.
#[test]
fn real_pages_have_their_published_sizes() {
    let bytes = |axes: &[Axis], order: &[Level], planes: &[PlaneDecl<'_>]| -> Geometry {
        page(axes, order, planes).build().unwrap()
    };
    let (layer, token, part, head) =
        (Level::Axis(Layer), Level::Axis(Token), Level::Axis(Part), Level::Axis(Head));
    let d = |name| [FieldDecl::new(name, ElementKind::Bf16, 128)];
    let mla = [FieldDecl::new("latent", ElementKind::Bf16, 576)];

    // SGLang, layer_first: 61 regions.
    let axes = [Axis::whole(Layer, 61), Axis::whole(Token, 64)];
    let geometry = bytes(&axes, &[Regions(Layer), token], &[PlaneDecl::of(&mla)]);
    assert_eq!((geometry.regions(), geometry.region_bytes(60)), (61, Some(73_728)));
    // DeepSeek V4: padded to a number that is no power of two, several tokens per state.
    let axes = [Axis::whole(Layer, 21), Axis::whole(Token, 64)];
    const V4: [PlaneDecl<'static>; 2] = [
        PlaneDecl::of(&[
            FieldDecl::new("latent", ElementKind::E4m3, 448),
            FieldDecl::new("rope", ElementKind::Bf16, 64),
        ]),
        PlaneDecl::of(&[FieldDecl::new("scales", ElementKind::Ue8m0, 7)]),
    ];
    let planes = [V4[0], PlaneDecl { fields: V4[1].fields, order: Some(&[token, Pad(8)]) }];
    let order = [layer, Pad(576), Planes, token];
    let geometry = Declaration { tokens_per_state: 4, ..page(&axes, &order, &planes) }.build().unwrap();
    assert_eq!((geometry.page_bytes(), geometry.tokens()), (786_240, 256));
    assert_eq!(geometry.step(0, 0), Some(AxisStep::Bytes(37_440)));
    // SGLang, page_head, one of eight ranks: K and V objects, [1, T, L, D].
    let axes = [Axis::sharded(Head, 1, 8), Axis::whole(Layer, 80), Axis::whole(Token, 64)];
    let (k, v) = (d("k"), d("v"));
    let kv = [PlaneDecl::of(&k), PlaneDecl::of(&v)];
    let geometry = bytes(&axes, &[RegionPlanes, head, token, layer], &kv);
    assert_eq!((geometry.regions(), geometry.region_bytes(1)), (2, Some(1_310_720)));
    // vLLM, LBHNC: K then V per head and token, in one row.
    let axes = [Axis::whole(Layer, 32), Axis::whole(Head, 8), Axis::whole(Token, 16)];
    let row = [k[0], v[0]];
    let geometry = bytes(&axes, &[Regions(Layer), head, token], &[PlaneDecl::of(&row)]);
    assert_eq!((geometry.regions(), geometry.page_bytes()), (32, 32 * 65_536));
    // TensorRT-LLM: [L, 2, H, T, D].
    let axes = [Axis::whole(Layer, 32), Axis::whole(Part, 2), Axis::whole(Head, 8), Axis::whole(Token, 32)];
    let geometry = bytes(&axes, &[layer, part, head, token], &[PlaneDecl::of(&d("kv"))]);
    assert_eq!(geometry.page_bytes(), 4_194_304);
}

#[test]
fn a_rank_is_given_to_a_sharded_axis_and_exists() {
    let axes = [Axis::sharded(Head, 1, 8), Axis::replicated(Layer, 1, 2), Axis::whole(Token, 4)];
    let order = [Level::Axis(Head), Level::Axis(Layer), Level::Axis(Token)];
    let geometry = page(&axes, &order, ROW).build().unwrap();
    let print = |rank| kvrail_layouts::Fingerprint::of(&geometry.at_rank(Head, rank).unwrap());
    assert_ne!(print(0), print(1));
    assert_ne!(print(0), kvrail_layouts::Fingerprint::of(&geometry));
    assert_eq!(
        geometry.at_rank(Head, 8).map_err(|refusal| refusal.why),
        Err(DeclarationErrorKind::Ranks { ranks: 8, rank: Some(8) })
    );
    for (axis, why) in [
        (Token, DeclarationErrorKind::NotSharded { axis: Token }),
        (Layer, DeclarationErrorKind::NotSharded { axis: Layer }),
        (Part, DeclarationErrorKind::NotSharded { axis: Part }),
    ] {
        assert_eq!(geometry.at_rank(axis, 0).map_err(|refusal| refusal.why), Err(why));
    }
}

/// A stage ends within its whole, and its first index is part of the fingerprint. The golden value
/// was computed apart from this crate.
#[test]
fn a_stage_lies_within_its_whole() {
    const LATENT: FieldDecl = FieldDecl::new("latent", ElementKind::U8, 3);
    let order = [Level::Axis(Layer), Level::Axis(Token)];
    let row = [PlaneDecl::of(&[LATENT])];
    let stage = |first, count, of| {
        let axes = [Axis::stage(Layer, first, count, of), Axis::whole(Token, 4)];
        page(&axes, &order, &row).build().map_err(|errors| errors.first())
    };
    for (first, count, of) in [(46, 16, 61), (61, 1, 61), (62, 1, 61), (u64::MAX, 1, 61), (0, 1, 0)] {
        let why = DeclarationErrorKind::Stage { axis: Layer, first, count, of };
        let error = stage(first, count, of).unwrap_err();
        assert_eq!(error, Some(DeclarationError { at: Spot::Spread(0), why }));
        assert_eq!(why.code(), 1022);
    }
    let fits = [(0, 16, 61), (16, 15, 61), (46, 15, 61), (0, 61, 61), (u64::MAX - 1, 1, u64::MAX)];
    let prints: Vec<_> =
        fits.iter().map(|(first, count, of)| stage(*first, *count, *of).unwrap().fingerprint()).collect();
    assert_eq!(prints[1].to_string(), "b2ecfa7181c974c51a77d3f3819d7cb3");
    for (i, print) in prints.iter().enumerate() {
        assert!(!prints[..i].contains(print));
    }
    // A stage is no rank.
    let refused = stage(16, 15, 61).unwrap().at_rank(Layer, 1).unwrap_err();
    assert_eq!(refused.why, DeclarationErrorKind::NotSharded { axis: Layer });
    assert!(stage(16, 15, 61).unwrap().to_string().contains("layer 15: from 16 on, of 61"));
}

/// Spread, version, swizzle and tokens per state move no byte, and change the meaning of bytes.
#[test]
fn meaning_takes_part_in_the_fingerprint_and_alignment_does_not() {
    let (token, head) = ([Axis::whole(Token, 4)], [Axis::whole(Head, 4)]);
    let order = [Level::Axis(Token)];
    let plain = page(&token, &order, ROW);
    let print = |declaration: &Declaration<'_>| declaration.build().unwrap().fingerprint();
    let one = print(&plain);
    assert_eq!(print(&Declaration { align: 64, ..plain }), one);
    for other in [
        Declaration { version: 1, ..plain },
        Declaration { swizzle: 1, ..plain },
        Declaration { tokens_per_state: 2, ..plain },
        Declaration { axes: &[Axis::sharded(Token, 4, 2)], ..plain },
        Declaration { axes: &[Axis::sharded(Token, 4, 3)], ..plain },
        Declaration { axes: &[Axis::replicated(Token, 4, 2)], ..plain },
        Declaration { axes: &[Axis::stage(Token, 0, 4, 4)], ..plain },
        Declaration { order: &[Level::Strided(Token)], ..plain },
        page(&head, &[Level::Axis(Head)], ROW),
    ] {
        assert_ne!(print(&other), one, "{other:?}");
    }
}

/// The longest texts, so that none is cut off, and one for reading.
#[test]
fn no_text_is_cut_off() {
    let long = AxisKind::Other(255);
    let all = [
        DeclarationErrorKind::TooMany { what: "regions", max: u64::MAX, found: u64::MAX },
        DeclarationErrorKind::UnknownAxis { axis: long },
        DeclarationErrorKind::UnusedAxis { axis: long, extent: u64::MAX },
        DeclarationErrorKind::PlanesMissing { planes: u64::MAX },
        DeclarationErrorKind::OrderWithoutPlanes,
        DeclarationErrorKind::RegionsUnderPlanes,
        DeclarationErrorKind::NotSharded { axis: long },
        DeclarationErrorKind::Stage { axis: long, first: u64::MAX, count: u64::MAX, of: u64::MAX },
        DeclarationErrorKind::Align { align: 1 << 62, region: (1 << 62) + 1 },
    ];
    for why in all {
        let text = DeclarationError { at: Spot::Order, why }.to_string();
        assert!(text.len() < Text::CAPACITY, "{text}");
    }
    let refusals = page(&[Axis::whole(Layer, 0), Axis::whole(Token, 0)], &[], ROW).build().unwrap_err();
    assert_eq!(
        refusals.to_string(),
        "axis `layer` has extent 0; leave it out, or say at least 1; \
         axis `token` has extent 0; leave it out, or say at least 1"
    );
    assert!(!refusals.is_empty());
    assert_eq!(refusals.iter().count(), 2);
    const { assert!(DeclarationErrors::CAPACITY >= 16) };
}

#[test]
fn addresses_name_what_is_out_of_range() {
    let axes = [Axis::whole(Layer, 2), Axis::whole(Token, 4)];
    let order = [Level::Axis(Token), Level::Axis(Layer)];
    let geometry = page(&axes, &order, ROW).build().unwrap();
    // Indices are layer, token, whatever the order in memory.
    assert_eq!(geometry.offset_of(0, &[1, 3]).unwrap().offset, 3 * 1_152 + 576);
    for (found, expected) in [
        (geometry.offset_of(1, &[0, 0]), "there is no field 1: the page has 1"),
        (
            geometry.offset_of(0, &[0]),
            "`bytes` was given 1 indices, and the page has 2 axes (see `Geometry::axes`)",
        ),
        (geometry.offset_of(0, &[2, 0]), "`bytes`: layer 2 is out of range, the page has 2"),
        (
            geometry.offset_of(0, &[0, u64::MAX]),
            "`bytes`: token 18446744073709551615 is out of range, the page has 4",
        ),
        (geometry.offset_of_element(0, &[0, 0], 576), "`bytes`: element 576 is out of range, a row has 576"),
    ] {
        assert_eq!(found.unwrap_err().to_string(), expected);
    }
}
