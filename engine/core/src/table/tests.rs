use super::*;

#[test]
fn a_location_hits_until_its_slot_is_invalidated() {
    let entry = Entry::new();
    assert!(!entry.load().is_valid());
    entry.invalidate();
    let generation = entry.publish(KeyTag(7), 0xDEAD_BEEF);
    let named = EntryValue { generation, ready: Ready::WHOLE, tag: KeyTag(7) };
    assert_eq!(entry.snapshot().check(named), Ok(()));
    assert!(entry.confirms(&named));
    for other in [8, 7 | 1 << 64] {
        let swapped = EntryValue { tag: KeyTag(other), ..named };
        let miss = Err(Miss::Key { expected: KeyTag(other), found: KeyTag(7) });
        assert_eq!(entry.snapshot().check(swapped), miss);
        assert_eq!((entry.confirms(&swapped), Err(entry.miss(swapped))), (false, miss));
    }
    entry.invalidate();
    assert!(matches!(entry.snapshot().check(named), Err(Miss::Overwriting { .. })));
    let next = entry.publish(KeyTag(7), 0xDEAD_BEEF);
    assert_ne!(next, generation, "the same nonce gives no generation twice");
    assert!(matches!(entry.snapshot().check(named), Err(Miss::Generation { .. })));
}

#[test]
fn a_page_grows_in_one_generation_and_never_shrinks() {
    let entry = Entry::new();
    assert_eq!(entry.set_ready(1), Err(GrowError::NotPublished(Generation(0))));
    assert_eq!(entry.finish(), Err(GrowError::NotPublished(Generation(0))));
    entry.invalidate();
    let generation = entry.begin(KeyTag(7), 5);
    let named = |ready| EntryValue { generation, ready, tag: KeyTag(7) };
    assert_eq!(entry.snapshot(), named(Ready::NONE));
    for parts in [1, 1, 3] {
        entry.set_ready(parts).unwrap();
        assert_eq!(entry.snapshot(), named(Ready(parts)));
    }
    let (now, to) = (Ready(3), Ready(2));
    assert_eq!(entry.set_ready(2), Err(GrowError::Falls { generation, now, to }));
    assert!(entry.confirms(&named(Ready(3))), "a refusal changes nothing");
    assert!(!entry.confirms(&named(Ready(4))));
    assert_eq!(entry.miss(named(Ready(4))), Miss::NotReady { needed: Ready(4), found: Ready(3) });
    assert!(entry.may_become(Ready(4)).is_ok());
    let now = Ready(3);
    assert_eq!(entry.may_become(now), Err(GrowError::AlreadyReady { generation, now }));
    entry.finish().unwrap();
    // To say it again is no harm; to write again would be.
    entry.finish().unwrap();
    let now = Ready::WHOLE;
    assert_eq!(entry.may_become(now), Err(GrowError::AlreadyReady { generation, now }));
    assert_eq!(entry.snapshot(), named(Ready::WHOLE));
    let (now, to) = (Ready::WHOLE, Ready(4));
    assert_eq!(entry.set_ready(4), Err(GrowError::Falls { generation, now, to }));
    entry.invalidate();
    assert!(matches!(entry.set_ready(1), Err(GrowError::NotPublished(_))));
    // The ready word of the page before is still there, and counts for nothing.
    assert_eq!(entry.snapshot().ready, Ready::NONE);
    entry.begin(KeyTag(7), 5);
    assert_eq!(entry.snapshot().ready, Ready::NONE);
}

#[test]
fn memory_holds_the_wire_form() {
    let entry = Entry::new();
    let generation = entry.begin(KeyTag(0x0F << 120 | 0xA1), 0x1122_3344);
    entry.set_ready(0x55).unwrap();
    let words = [&entry.generation, &entry.ready, &entry.tag[0], &entry.tag[1]];
    let bytes: std::vec::Vec<u8> =
        words.iter().flat_map(|word| word.load(Ordering::Relaxed).to_ne_bytes()).collect();
    let value = EntryValue { generation, ready: Ready(0x55), tag: KeyTag(0x0F << 120 | 0xA1) };
    assert_eq!(bytes, value.to_bytes());
}

/// On some processors a fence for threads does not order stores for devices.
#[test]
fn both_sides_of_an_overwrite_are_ordered_for_devices() {
    let passed = || crate::barrier::tests::CALLS.get();
    let (entry, before) = (Entry::new(), passed());
    entry.invalidate();
    assert_eq!(passed() - before, 1, "before the first byte");
    entry.publish(KeyTag(1), 2);
    assert_eq!(passed() - before, 2, "after the last byte");
}

#[test]
fn each_step_of_growth_is_ordered_for_devices() {
    let passed = || crate::barrier::tests::CALLS.get();
    let (entry, before) = (Entry::new(), passed());
    entry.invalidate();
    entry.begin(KeyTag(1), 2);
    assert_eq!(passed() - before, 2, "before the generation that announces the page");
    entry.set_ready(1).unwrap();
    assert_eq!(passed() - before, 3, "after the bytes of a part");
    entry.finish().unwrap();
    assert_eq!(passed() - before, 4, "after the last byte");
}

#[test]
fn a_cleared_entry_is_a_miss_for_the_page_that_it_held() {
    let entry = Entry::new();
    entry.publish(KeyTag(7), 1);
    let named = entry.snapshot();
    entry.clear();
    assert!(!entry.confirms(&named));
    assert!(matches!(entry.miss(named), Miss::Overwriting { .. }));
    // Nor is it a hit for a location of zeros.
    let zeros = EntryValue { generation: Generation(0), ..named };
    assert!(!entry.confirms(&zeros));
}

#[test]
fn only_the_named_generation_is_made_invalid() {
    let entry = Entry::new();
    assert!(!entry.invalidate_generation(Generation(0)), "nothing is published");
    let first = entry.publish(KeyTag(7), 1);
    assert!(entry.invalidate_generation(first));
    assert!(!entry.load().is_valid());
    assert!(!entry.invalidate_generation(first), "it is invalid already");
    assert!(!entry.invalidate_generation(entry.load()), "no invalid generation is a page");
    let second = entry.publish(KeyTag(7), 1);
    assert!(!entry.invalidate_generation(first));
    assert_eq!(entry.load(), second, "a later page stays");
    let passed = || crate::barrier::tests::CALLS.get();
    let before = passed();
    assert!(entry.invalidate_generation(second));
    assert_eq!(passed() - before, 1, "before the first byte");
}

#[test]
fn a_snapshot_beside_a_publishing_thread_is_of_one_publication() {
    const COUNT: u32 = if cfg!(miri) { 50 } else { 50_000 };
    let entry = Entry::new();
    std::thread::scope(|scope| {
        let publishing = scope.spawn(|| {
            for count in 1..=COUNT {
                entry.invalidate();
                entry.publish(KeyTag(u128::from(count) << 64 | u128::from(count)), count);
            }
        });
        let mut seen = 0;
        while !publishing.is_finished() || seen == 0 {
            let EntryValue { generation, ready, tag } = entry.snapshot();
            if generation.is_valid() {
                let count = u128::from(generation.count());
                assert_eq!((tag.0, ready), (count << 64 | count, Ready::WHOLE), "{generation}");
                seen += 1;
            }
        }
    });
}

#[test]
fn a_page_stays_invalid_where_one_thread_takes_it_back_while_another_makes_it_ready() {
    const ROUNDS: u32 = if cfg!(miri) { 10 } else { 2_000 };
    let entry = Entry::new();
    for round in 1..=ROUNDS {
        let generation = entry.begin(KeyTag(u128::from(round)), round);
        std::thread::scope(|scope| {
            // Refused once the page is taken back.
            scope.spawn(|| (1..4).all(|parts| entry.set_ready(parts).is_ok()));
            entry.invalidate();
        });
        assert_eq!(entry.load(), generation.invalid());
        assert_eq!(generation.count(), round, "no publication is lost or counted twice");
    }
}
