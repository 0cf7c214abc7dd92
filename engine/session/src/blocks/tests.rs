//! Block lists: golden bytes, sizes, the error of every invalid value, and round trips.

use std::fmt::Write;
use std::num::NonZeroU64;

use kvrail_core::remote::Location;
use kvrail_core::table::{EntryValue, Generation, KeyTag, Ready};
use kvrail_layouts::Fingerprint;
use proptest::prelude::*;

use super::run::{EACH, HEADER, RUN};
use super::{BlockList, BlockListError, Head, NoList};
use crate::{Epoch, test_seeds as seeds};

fn head() -> Head {
    let fingerprint = Fingerprint::from_bytes(*b"0123456789abcdef");
    Head { fingerprint, epoch: Epoch(NonZeroU64::new(0xE9).unwrap()), region: 3, request: 0x1122_3344 }
}

fn at(slot: u32, generation: u64, tag: u128) -> Location {
    let (generation, ready, tag) = (Generation(generation | 1), Ready::WHOLE, KeyTag(tag));
    Location { slot, expected: EntryValue { generation, ready, tag } }
}

fn even(n: u32) -> Vec<Location> {
    (0..n).map(|i| at(40 + 3 * i, 0xAB_0000_0007, 1000 + 5 * u128::from(i))).collect()
}

#[track_caller]
fn size(pages: &[Location]) -> usize {
    let list = BlockList::new(head(), pages).unwrap();
    assert!(list.locations().eq(pages.iter().copied()));
    let bytes = list.encode();
    assert_eq!(BlockList::parse(&bytes), Ok(list));
    bytes.len()
}

#[test]
fn golden() {
    // Three runs: all columns even, with slots downwards; all columns listed; generations listed.
    let mut pages: Vec<_> =
        (0..20).map(|i| at(900 - 2 * i, 0x55_0000_0009, u128::from(i).wrapping_sub(3))).collect();
    let odd = [7, 70, 1, 33, 900, 64, 5, 19, 210, 3].iter().zip([3_u64, 5, 11, 2, 90, 17, 4, 31, 8, 1]);
    // Pages that grow.
    for ((&slot, n), ready) in odd.zip([3, 0, 1, 2, 61, 7, 9, 4, 0, 5]) {
        pages.push(at(slot, n << 32, u128::from(n * n * 77) << 60));
        pages.last_mut().unwrap().expected.ready = Ready(ready);
    }
    pages.extend((0..8).map(|i| at(100 + i, u64::from(i * i) << 33, 8)));
    pages[30..].iter_mut().for_each(|page| page.expected.ready = Ready(5));
    let mut text = String::new();
    for (i, line) in BlockList::new(head(), &pages).unwrap().encode().chunks(16).enumerate() {
        write!(text, "{:04x}:", i * 16).unwrap();
        line.iter().for_each(|b| write!(text, " {b:02x}").unwrap());
        text.push('\n');
    }
    assert_eq!(text, include_str!("list.hex"), "another form is another version");
    size(&pages);
}

#[test]
fn even_columns_take_no_bytes_a_page() {
    assert_eq!(size(&even(1_024)), 120);
    assert_eq!(size(&even(BlockList::MAX_BLOCKS as u32)), 120);
    assert_eq!(size(&even(1)), 120);
    // A step between slots that 32 bits with a sign do not hold makes the slots a list.
    assert_eq!(size(&[at(0, 1, 0), at(4_000_000_000, 1, 0)]), 120 + 8);
    let down: Vec<_> = even(1_024).into_iter().rev().collect();
    assert_eq!(size(&down), 120);
    // A break in the middle makes one run more; a break in a listed column makes none.
    let mut two = even(1_024);
    two[512..].iter_mut().for_each(|page| page.slot += 1);
    assert_eq!(size(&two), 120 + RUN);
    let mut nonces = even(1_024);
    nonces
        .iter_mut()
        .enumerate()
        .for_each(|(i, page)| page.expected.generation.0 ^= (i as u64 * i as u64) << 40);
    assert_eq!(size(&nonces), 120 + 8 * 1_024, "a generation each");
    nonces.iter_mut().for_each(|page| page.expected.tag.0 = page.expected.tag.0.wrapping_pow(3));
    assert_eq!(size(&nonces), 120 + 24 * 1_024, "and a key tag each");
    for (i, page) in (0..).zip(&mut nonces) {
        page.expected.ready = Ready(i % 5);
    }
    assert_eq!(size(&nonces), 120 + 28 * 1_024, "and a number of ready parts each");
}

#[test]
fn the_worst_case_is_thirty_two_bytes_a_page() {
    seeds::each("the_worst_case_is_thirty_two_bytes_a_page", 9..10, |seed| {
        let mut state: u64 = seed;
        let mut next = move || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            state
        };
        let mut pages: Vec<_> = (0..5_000)
            .map(|_| at((next() >> 32) as u32, next(), u128::from(next()) << 64 | u128::from(next())))
            .collect();
        pages.iter_mut().for_each(|page| page.expected.ready = Ready(next() as u32));
        assert_eq!(size(&pages), HEADER + RUN + EACH * 5_000);
        assert_eq!(BlockList::MAX_BYTES, 120 + 32 * 65_536);
    });
}

#[test]
fn locations_that_cannot_be_a_list_are_refused() {
    assert_eq!(BlockList::new(head(), &[]), Err(NoList::Count(0)));
    let many = even(BlockList::MAX_BLOCKS as u32 + 1);
    assert_eq!(BlockList::new(head(), &many), Err(NoList::Count(65_537)));
    let mut none = even(3);
    none[1].expected.generation.0 &= !1;
    let generation = none[1].expected.generation;
    assert_eq!(BlockList::new(head(), &none), Err(NoList::Generation { page: 1, generation }));
    assert_eq!(BlockList::new(Head { region: 1_024, ..head() }, &even(1)), Err(NoList::Region(1_024)));
}

#[test]
fn every_invalid_value_has_an_error_of_its_own() {
    let good = BlockList::new(head(), &even(100)).unwrap().encode();
    let with = |changes: &[(usize, &[u8])]| {
        let mut bytes = good.clone();
        changes.iter().for_each(|(at, new)| bytes[*at..at + new.len()].copy_from_slice(new));
        BlockList::parse(&bytes).unwrap_err()
    };
    assert_eq!(BlockList::parse(&good[..55]), Err(BlockListError::Short { got: 55 }));
    assert_eq!(BlockList::parse(&good[..119]), Err(BlockListError::Size { said: 120, got: 119 }));
    assert!(matches!(with(&[(0, b"K")]), BlockListError::Magic { .. }));
    assert_eq!(with(&[(8, &[1])]), BlockListError::Version { got: 1 });
    assert_eq!(with(&[(11, &[4])]), BlockListError::Region(1_027));
    assert_eq!(with(&[(16, &[0])]), BlockListError::Count { pages: 0, runs: 1 });
    assert_eq!(with(&[(16, &[1, 0, 1])]), BlockListError::Count { pages: 65_537, runs: 1 });
    assert_eq!(with(&[(20, &[101])]), BlockListError::Count { pages: 100, runs: 101 });
    assert_eq!(with(&[(40, &[0])]), BlockListError::Epoch);
    assert_eq!(with(&[(20, &[2])]), BlockListError::Truncated { run: 1, missing: 64 });
    assert_eq!(with(&[(16, &[99])]), BlockListError::Pages { pages: 99, named: 100, runs: 1 });
    assert_eq!(with(&[(16, &[101])]), BlockListError::Pages { pages: 101, named: 100, runs: 1 });
    assert_eq!(with(&[(56, &[0])]), BlockListError::EmptyRun { run: 0 });
    assert_eq!(with(&[(69, &[1])]), BlockListError::Stray { run: 0, what: "bits" });
    assert_eq!(with(&[(68, &[16])]), BlockListError::Stray { run: 0, what: "bits" });
    assert_eq!(with(&[(68, &[1])]), BlockListError::Stray { run: 0, what: "a slot beside a list of them" });
    assert_eq!(with(&[(68, &[2]), (72, &[0; 8])]), BlockListError::Truncated { run: 0, missing: 800 });
    assert_eq!(with(&[(116, &[1])]), BlockListError::Stray { run: 0, what: "bits" });
    let ready = "a number of ready parts beside a list of them";
    assert_eq!(with(&[(68, &[8])]), BlockListError::Stray { run: 0, what: ready });
    assert_eq!(
        with(&[(60, &[0, 0, 0, 0]), (64, &u32::MAX.to_le_bytes())]),
        BlockListError::Slots { run: 0, slot: 0, step: -1, count: 100 }
    );
    assert_eq!(
        with(&[(72, &[6])]),
        BlockListError::Generation { run: 0, generation: Generation(0xAB_0000_0006) }
    );
    let mut longer = good.clone();
    longer.extend([0; 3]);
    longer[12] = 123;
    assert_eq!(BlockList::parse(&longer), Err(BlockListError::Extra { extra: 3 }));
    // A count that is larger than the bytes allocates nothing.
    let huge =
        with(&[(16, &[0, 0, 1]), (56, &u32::MAX.to_le_bytes()), (60, &[0; 8]), (68, &[6]), (72, &[0; 40])]);
    assert_eq!(huge, BlockListError::Truncated { run: 0, missing: 8 * u32::MAX as usize });
}

#[test]
fn every_single_changed_byte_is_refused_or_another_list() {
    let mut pages = even(6);
    pages.extend([5, 1, 9].iter().map(|&i| at(i * 7, u64::from(i) << 40, u128::from(i * i) << 64)));
    let list = BlockList::new(head(), &pages).unwrap();
    let bytes = list.encode();
    for at in 0..bytes.len() {
        for bit in 0..8 {
            let mut bytes = bytes.clone();
            bytes[at] ^= 1 << bit;
            if let Ok(other) = BlockList::parse(&bytes) {
                assert_ne!(other, list, "byte {at}");
                assert_eq!(other.encode(), bytes);
            }
        }
    }
}

/// Pages with even stretches in some columns and none in others.
fn pages() -> impl Strategy<Value = Vec<Location>> {
    let stretch = (1..12_u32, any::<[u32; 3]>(), any::<u64>(), any::<[u128; 2]>(), 0..16_u8).prop_map(
        |(n, [slot, by, ready], g, [t, u], odd)| {
            let odd = |bit: u8, i: u32| if odd & bit != 0 { u64::from(i * i * i) } else { 0 };
            (0..n)
                .map(|i| {
                    let slot = (slot % 1_000_000) + i * (by % 50);
                    let tag = t.wrapping_add(u.wrapping_mul(u128::from(i % 4))) ^ u128::from(odd(4, i));
                    let mut page = at(slot + odd(1, i) as u32, g ^ odd(2, i) << 33, tag);
                    page.expected.ready = Ready(ready ^ odd(8, i) as u32);
                    page
                })
                .collect::<Vec<_>>()
        },
    );
    prop::collection::vec(stretch, 1..8).prop_map(|all| all.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn a_list_encodes_and_parses_to_itself(pages in pages()) {
        let list = BlockList::new(head(), &pages).unwrap();
        let bytes = list.encode();
        prop_assert!(list.locations().eq(pages.iter().copied()));
        prop_assert!(bytes.len() <= HEADER + RUN + EACH * pages.len());
        prop_assert_eq!(BlockList::parse(&bytes), Ok(list));
    }

    #[test]
    fn arbitrary_bytes_are_refused_or_a_list(tail in prop::collection::vec(any::<u8>(), 0..300), runs in 1..4_u32, pages in 1..40_u32) {
        let mut bytes = BlockList::new(head(), &even(1)).unwrap().encode();
        bytes.truncate(HEADER);
        bytes.extend(tail);
        let said = bytes.len() as u32;
        bytes[12..16].copy_from_slice(&said.to_le_bytes());
        bytes[16..20].copy_from_slice(&pages.to_le_bytes());
        bytes[20..24].copy_from_slice(&runs.to_le_bytes());
        if let Ok(list) = BlockList::parse(&bytes) {
            prop_assert_eq!(list.encode(), bytes);
        }
    }
}

/// The fewest bytes, found by trying every split of the pages into runs.
fn fewest(pages: &[Location]) -> usize {
    fn run(pages: &[Location]) -> usize {
        let even = |of: &dyn Fn(&Location) -> u128| {
            pages.windows(3).all(|w| of(&w[1]).wrapping_sub(of(&w[0])) == of(&w[2]).wrapping_sub(of(&w[1])))
        };
        let same = |of: &dyn Fn(&Location) -> u64| pages.iter().all(|page| of(page) == of(&pages[0]));
        let listed = |even: bool, bytes: usize| if even { 0 } else { bytes };
        let each = listed(even(&|page| page.slot.into()), 4)
            + listed(same(&|page| page.expected.generation.0), 8)
            + listed(even(&|page| page.expected.tag.0), 16)
            + listed(same(&|page| page.expected.ready.0.into()), 4);
        RUN + each * pages.len()
    }
    let mut best = vec![0];
    for end in 1..=pages.len() {
        best.push((0..end).map(|start| best[start] + run(&pages[start..end])).min().unwrap());
    }
    HEADER + best[pages.len()]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, ..ProptestConfig::default() })]

    #[test]
    fn no_other_split_into_runs_has_fewer_bytes(pages in pages()) {
        prop_assert_eq!(size(&pages), fewest(&pages));
    }
}
