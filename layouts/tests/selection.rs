//! Selections refuse parts that the page lacks, and their ranges are exactly the bytes that nested
//! loops find.

mod common;
#[path = "common/regressions.rs"]
mod regressions;
#[path = "common/seeds.rs"]
mod seeds;

use std::collections::BTreeSet;

use common::draft::drafts;
use kvrail_layouts::catalogue::{SglMlaPageFirstDirect, SglV32Indexer, VllmFp8DsMla};
use kvrail_layouts::{
    Axis, AxisKind, ByteRange, Declaration, ElementKind, FieldDecl, Geometry, KvLayout, Level, PlaneDecl,
    Selection, SelectionError,
};
use proptest::prelude::*;

use AxisKind::{Head, Layer, Other, Part, Token};

fn byte_ranges(geometry: &Geometry, selection: Selection) -> Vec<(u32, u64, u64)> {
    let selected = geometry.select(selection).unwrap();
    let all: Vec<_> =
        selected.byte_ranges().map(|ByteRange { region, offset, len }| (region, offset, len)).collect();
    assert_eq!(all.iter().map(|(_, _, len)| len).sum::<u64>(), selected.bytes());
    all
}

#[test]
fn all_of_a_page_is_one_byte_range_of_each_region() {
    assert_eq!(byte_ranges(SglMlaPageFirstDirect::GEOMETRY, Selection::ALL), [(0, 0, 4_497_408)]);
    // Two planes that touch are one.
    assert_eq!(byte_ranges(SglV32Indexer::GEOMETRY, Selection::ALL), [(0, 0, 515_328)]);
    let objects = Declaration {
        axes: &[Axis::whole(Layer, 3), Axis::whole(Token, 4)],
        order: &[Level::Regions(Layer), Level::Planes, Level::Axis(Token)],
        planes: &[
            PlaneDecl::of(&[FieldDecl::new("k", ElementKind::Bf16, 8)]),
            PlaneDecl::of(&[FieldDecl::new("v", ElementKind::Bf16, 8)]),
        ],
        ..Declaration::EMPTY
    }
    .expect();
    assert_eq!(byte_ranges(&objects, Selection::ALL), [(0, 0, 128), (1, 0, 128), (2, 0, 128)]);
    assert_eq!(byte_ranges(&objects, Selection::ALL.field("v").layers(1, 2)), [(1, 64, 64), (2, 64, 64)]);
}

#[test]
fn layers_tokens_heads_and_fields() {
    let page = SglV32Indexer::GEOMETRY;
    assert_eq!(byte_ranges(page, Selection::ALL.layers(2, 3)), [(0, 2 * 8_448, 3 * 8_448)]);
    assert_eq!(
        byte_ranges(page, Selection::ALL.layers(60, 1).tokens(8, 4)),
        [(0, 60 * 8_448 + 8 * 128, 4 * 128), (0, 60 * 8_448 + 8_192 + 8 * 4, 16)]
    );
    assert_eq!(byte_ranges(page, Selection::ALL.field("scale")).len(), 61);
    // The last word on an axis holds, and the order of fields is the page's.
    assert_eq!(
        byte_ranges(page, Selection::ALL.layers(7, 1).layers(0, 1).field("scale").field("keys")),
        [(0, 0, 8_448)]
    );
    // A row's first and last field, without the one between.
    let rows = byte_ranges(VllmFp8DsMla::GEOMETRY, Selection::ALL.field("latent").field("rope").tokens(1, 2));
    assert_eq!(rows, [(0, 656, 512), (0, 656 + 528, 128 + 512), (0, 1_312 + 528, 128)]);

    // [H, T, L, D]: a head group is contiguous; [T, H, D]: a run per token.
    let axes = [Axis::whole(Head, 8), Axis::whole(Layer, 4), Axis::whole(Token, 16)];
    let k = [FieldDecl::new("k", ElementKind::Bf16, 128)];
    let planes = [PlaneDecl::of(&k)];
    let (head, layer, token) = (Level::Axis(Head), Level::Axis(Layer), Level::Axis(Token));
    let page_head =
        Declaration { axes: &axes, order: &[head, token, layer], planes: &planes, ..Declaration::EMPTY };
    let head_bytes = 16 * 4 * 256;
    assert_eq!(
        byte_ranges(&page_head.expect(), Selection::ALL.heads(2, 4)),
        [(0, 2 * head_bytes, 4 * head_bytes)]
    );
    let nhd = Declaration { order: &[layer, token, head], ..page_head };
    let runs = byte_ranges(&nhd.expect(), Selection::ALL.heads(2, 4));
    assert_eq!((runs.len(), runs[1]), (64, (0, 2_048 + 512, 1_024)));
}

/// A range of tokens is one of states; padding is no part of a selection.
#[test]
fn states_and_padding() {
    let page = Declaration {
        axes: &[Axis::whole(Token, 4), Axis::whole(Layer, 2)],
        order: &[Level::Axis(Layer), Level::Pad(100), Level::Planes, Level::Axis(Token)],
        planes: &[
            PlaneDecl::of(&[FieldDecl::new("row", ElementKind::U8, 10)]),
            PlaneDecl { fields: &[FieldDecl::new("foot", ElementKind::U8, 3)], order: Some(&[]) },
        ],
        tokens_per_state: 4,
        ..Declaration::EMPTY
    }
    .expect();
    assert_eq!(byte_ranges(&page, Selection::ALL), [(0, 0, 43), (0, 100, 43)]);
    assert_eq!(
        byte_ranges(&page, Selection::ALL.tokens(4, 8)),
        [(0, 10, 20), (0, 40, 3), (0, 110, 20), (0, 140, 3)],
        "the footer belongs to all tokens"
    );
    assert_eq!(
        byte_ranges(&page, Selection::ALL.along(Token, 1, 2)),
        byte_ranges(&page, Selection::ALL.tokens(4, 8))
    );
    let error = page.select(Selection::ALL.tokens(2, 4)).unwrap_err();
    assert_eq!(error, SelectionError::HalfState { start: 2, len: 4, tokens_per_state: 4 });
}

#[test]
fn a_selection_of_no_part_of_the_page_is_refused_with_the_numbers() {
    let page = SglV32Indexer::GEOMETRY;
    for (selection, text) in [
        (Selection::ALL.layers(60, 2), "2 of layer from 60 are selected, and the page has 61"),
        (
            Selection::ALL.layers(u64::MAX, 2),
            "2 of layer from 18446744073709551615 are selected, and the page has 61",
        ),
        (Selection::ALL.heads(0, 1), "the selection goes along head, and the page has no such axis"),
        (
            Selection::ALL.tokens(3, 0),
            "0 of token are selected: select at least 1, or leave the axis out for all of it",
        ),
        (Selection::ALL.field("rope"), "the selection names field `rope`, and the page has no such field"),
    ] {
        assert_eq!(page.select(selection).unwrap_err().to_string(), text);
    }
    let mut many = Selection::ALL;
    for tag in 0..9 {
        many = many.along(Other(tag), 0, 1);
    }
    assert_eq!(page.select(many).unwrap_err(), SelectionError::TooMany);
    let mut many = Selection::ALL;
    for _ in 0..17 {
        many = many.field("keys");
    }
    assert_eq!(page.select(many).unwrap_err(), SelectionError::TooMany);

    let strided = Declaration {
        axes: &[Axis::whole(Layer, 2)],
        order: &[Level::Strided(Layer)],
        planes: &[PlaneDecl::of(&[FieldDecl::new("row", ElementKind::U8, 8)])],
        ..Declaration::EMPTY
    }
    .expect();
    assert_eq!(strided.select(Selection::ALL).unwrap_err(), SelectionError::Unplaced);
    let placed = strided.place().stride(0, Layer, 100).finish().unwrap();
    assert_eq!(byte_ranges(&placed, Selection::ALL), [(0, 0, 8), (0, 100, 8)]);
}

/// In constants, too.
const _: () = {
    let Ok(selected) = SglV32Indexer::GEOMETRY.select(Selection::ALL.layers(1, 1).field("scale")) else {
        panic!()
    };
    assert!(selected.bytes() == 256 && selected.has_field(1) && !selected.has_field(0));
    assert!(matches!((selected.start(0), selected.extent(0), selected.start(2)), (Some(1), Some(1), None)));
    let mut ranges = selected.byte_ranges();
    let Some(ByteRange { region: 0, offset: 16_640, len: 256 }) = ranges.next_range() else { panic!() };
    assert!(ranges.next_range().is_none());
};

/// Inputs that failed once, and are tried first from then on. To be committed.
const REGRESSIONS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/proptest-regressions/selection.txt");

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 4_000,
        failure_persistence: regressions::at(REGRESSIONS, seeds::sources),
        ..ProptestConfig::default()
    })]

    #[test]
    fn byte_ranges_are_what_nested_loops_find(
        draft in drafts(),
        ranges in prop::array::uniform5((0u64..3, 1u64..4)),
        fields in 0u8..16,
    ) {
        let geometry = draft.build();
        prop_assume!(geometry.is_some());
        let geometry = geometry.unwrap();
        let mut selection = Selection::ALL;
        let mut wanted = Vec::new();
        for (axis, (start, len)) in [Layer, Token, Part, Head, Other(3)].into_iter().zip(ranges) {
            if let Some(a) = geometry.axis_index(axis) {
                let start = start % geometry.axes()[a].extent;
                let len = len.min(geometry.axes()[a].extent - start);
                selection = selection.along(axis, start, len);
                wanted.push((axis.number(), start..start + len));
            }
        }
        let mut names = Vec::new();
        for (f, field) in geometry.fields().iter().enumerate() {
            if fields & (1 << f) != 0 {
                selection = selection.field(field.name());
                names.push(field.name());
            }
        }

        let mut expected = BTreeSet::new();
        for ((name, at, _), (_, region, offset)) in &draft.page().elements {
            let there = at.iter().all(|(code, index)| {
                wanted.iter().all(|(axis, range)| axis != code || range.contains(index))
            });
            // The oracle leaves out axes of extent 1, and a field may lack others.
            if there && (names.is_empty() || names.contains(&name.as_str())) {
                let field = geometry.field_named(name).unwrap();
                let bytes = geometry.fields()[field].kind().bytes();
                expected.extend((*offset..offset + bytes).map(|byte| (*region, byte)));
            }
        }

        let selected = geometry.select(selection).unwrap();
        prop_assert_eq!(selected.bytes(), expected.len() as u64);
        let mut found = Vec::new();
        let mut before: Option<ByteRange> = None;
        for range in selected.byte_ranges() {
            prop_assert!(range.len > 0);
            if let Some(before) = before {
                // Ascending, and not even touching: else they were one.
                prop_assert!(
                    (before.region, before.offset + before.len) < (range.region, range.offset)
                );
            }
            before = Some(range);
            found.extend((range.offset..range.offset + range.len).map(|byte| (range.region, byte)));
        }
        prop_assert!(found.into_iter().eq(expected));
    }
}
