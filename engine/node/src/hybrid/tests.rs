use super::*;

fn bits(text: &str) -> Bitmap {
    text.chars().map(|bit| bit == '1').collect()
}

/// The same by the definition: every length is tried, from the longest down.
fn by_definition(pools: &[PoolPages<'_>], blocks: usize) -> usize {
    let restorable = |blocks: usize| {
        pools.iter().all(|pool| {
            let step = pool.page_blocks.get() as usize;
            if let Rule::Window { blocks: 0 } = pool.rule {
                return true;
            }
            blocks.is_multiple_of(step)
                && pages_of_prefix(pool.rule, pool.page_blocks, blocks).all(|page| pool.present.get(page))
        })
    };
    (0..=blocks).rev().find(|&blocks| restorable(blocks)).unwrap_or(0)
}

#[test]
fn full_attention_ends_at_the_first_gap() {
    for (present, longest) in [("", 0), ("0", 0), ("1", 1), ("1101", 2), ("1111", 4), ("0111", 0)] {
        let present = bits(present);
        assert_eq!(longest_prefix(&[PoolPages::new(Rule::All, &present)], present.len()), longest);
    }
}

#[test]
fn a_window_needs_its_last_blocks_alone() {
    let window = |present: &str, blocks| {
        let present = bits(present);
        longest_prefix(&[PoolPages::new(Rule::Window { blocks }, &present)], present.len())
    };
    assert_eq!(window("00011", 2), 5, "the earlier ones may be gone");
    assert_eq!(window("00010", 2), 0, "no two in a row");
    assert_eq!(window("01101", 2), 3);
    assert_eq!(window("10000", 2), 1, "a prefix that is shorter than the window is whole");
    assert_eq!(window("00000", 0), 5, "no window, no need");
}

#[test]
fn a_state_is_needed_at_the_boundary_alone() {
    let present = bits("0010010");
    assert_eq!(longest_prefix(&[PoolPages::new(Rule::Boundary, &present)], 7), 6);
    assert_eq!(longest_prefix(&[PoolPages::new(Rule::Boundary, &present)], 5), 3);
    assert_eq!(longest_prefix(&[PoolPages::new(Rule::Boundary, &present)], 2), 0);
}

#[test]
fn all_pools_must_agree_on_one_length() {
    let (full, window, state) = (bits("11111110"), bits("00111101"), bits("01000100"));
    let pools = [
        PoolPages::new(Rule::All, &full),
        PoolPages::new(Rule::Window { blocks: 3 }, &window),
        PoolPages::new(Rule::Boundary, &state),
    ];
    assert_eq!(longest_prefix(&pools, 8), 6);
    let other_state = bits("01000000");
    let pools = [pools[0], pools[1], PoolPages::new(Rule::Boundary, &other_state)];
    assert_eq!(longest_prefix(&pools, 8), 0, "the window of two blocks is not there");
}

#[test]
fn longer_pages_end_a_prefix_where_they_end() {
    let (full, long) = (bits("1111111"), bits("110"));
    let two = NonZeroU32::new(2).unwrap();
    let long = PoolPages { rule: Rule::All, page_blocks: two, present: &long };
    assert_eq!(longest_prefix(&[PoolPages::new(Rule::All, &full), long], 7), 4);
    assert_eq!(pages_of_prefix(Rule::All, two, 4), 0..2);
    assert_eq!(pages_of_prefix(Rule::Window { blocks: 3 }, two, 8), 2..4);
    assert_eq!(pages_of_prefix(Rule::Boundary, two, 8), 3..4);
    assert_eq!(pages_of_prefix(Rule::Boundary, two, 0), 0..0);
}

#[test]
fn without_pools_every_prefix_is_restorable_and_missing_bits_are_absent() {
    assert_eq!(longest_prefix(&[], 9), 9);
    let short = bits("111");
    assert_eq!(longest_prefix(&[PoolPages::new(Rule::All, &short)], 9), 3);
}

#[test]
fn every_small_case_is_as_the_definition_says() {
    let rules = [
        Rule::All,
        Rule::Window { blocks: 1 },
        Rule::Window { blocks: 2 },
        Rule::Window { blocks: 0 },
        Rule::Boundary,
    ];
    let map = |bits: u32| (0..5).map(|at| bits >> at & 1 == 1).collect::<Bitmap>();
    let mut cases = 0;
    for (first, second) in rules.iter().flat_map(|first| rules.iter().map(move |second| (first, second))) {
        for step in 1..=3 {
            let step = NonZeroU32::new(step).unwrap();
            for (one, other) in (0..32).flat_map(|one| (0..32).map(move |other| (map(one), map(other)))) {
                let pools = [
                    PoolPages::new(*first, &one),
                    PoolPages { rule: *second, page_blocks: step, present: &other },
                ];
                assert_eq!(longest_prefix(&pools, 5), by_definition(&pools, 5), "{pools:?}");
                cases += 1;
            }
        }
    }
    assert_eq!(cases, 25 * 3 * 1024);
}

#[test]
fn a_bitmap_counts_and_finds_its_leading_bits_over_words() {
    let mut map = Bitmap::new(130);
    assert_eq!((map.len(), map.count(), map.leading()), (130, 0, 0));
    (0..100).for_each(|at| map.set(at));
    map.set(129);
    assert_eq!((map.count(), map.leading(), map.run_before(100), map.run_before(130)), (101, 100, 100, 1));
    assert!(map.get(129) && !map.get(128) && !map.get(130) && !map.get(9_999));
    (0..130).for_each(|at| map.set(at));
    assert_eq!(map.leading(), 130);
}
