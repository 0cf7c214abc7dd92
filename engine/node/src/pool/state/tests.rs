use std::collections::HashMap;
use std::num::NonZeroU64;

use kvrail_core::table::KeyTag;

use super::*;

const POOL: PoolId = PoolId(2);

fn table(slots: u32) -> SlotTable {
    SlotTable::new(Epoch(NonZeroU64::MIN), POOL, slots, true)
}

fn key(number: u128) -> Key {
    Key(KeyTag(number))
}

/// A valid generation that no other call returns.
fn generation(count: &mut u64) -> Generation {
    *count += 1;
    Generation(*count << 1 | 1)
}

fn put(table: &mut SlotTable, number: u128, count: &mut u64) -> Record {
    let Reserved::Slot { slot, replaced: None } = table.reserve(key(number), false) else {
        panic!("key {number} gets no slot")
    };
    assert!(table.may_publish(slot));
    table.published(slot, key(number), generation(count))
}

/// What a directory knows that is told every change.
#[derive(Default)]
struct Directory(HashMap<KeyTag, Record>);

impl Directory {
    fn tell(&mut self, batch: &ChangeBatch) {
        for record in &batch.withdraw {
            if self.0.get(&record.tag) == Some(record) {
                self.0.remove(&record.tag);
            }
        }
        self.0.extend(batch.announce.iter().map(|record| (record.tag, *record)));
    }

    /// Takes and tells all changes. Returns how many records were sent.
    fn tell_all(&mut self, table: &mut SlotTable) -> usize {
        let mut records = 0;
        loop {
            let mut batch = ChangeBatch::default();
            let last = table.take_changes(&mut batch);
            table.changes_sent(last);
            if batch.is_empty() {
                return records;
            }
            assert!(batch.withdraw.len().max(batch.announce.len()) <= MAX_BATCH_RECORDS);
            records += batch.withdraw.len() + batch.announce.len();
            self.tell(&batch);
        }
    }
}

/// The parts of the table agree with each other.
fn check(table: &SlotTable) {
    let present = |slot: &SlotState| matches!(slot.state, State::Present(_));
    let count = |of: &dyn Fn(&SlotState) -> bool| table.slots.iter().filter(|slot| of(slot)).count();
    for (slot, number) in table.slots.iter().zip(0..) {
        match slot.state {
            State::Present(Page { key, .. }) | State::Written(Some(key)) => {
                assert_eq!(table.keys.get(&key), Some(&number), "{key:?}");
            }
            State::Free => assert!(table.free.contains(&number) && slot.holds == 0, "slot {number}"),
            State::Draining => assert!(slot.holds > 0, "slot {number}"),
            State::Written(None) | State::Cancelled => {}
        }
        assert!(!slot.parked || present(slot), "slot {number}");
    }
    let keys = count(&|slot| matches!(slot.state, State::Present(_) | State::Written(Some(_))));
    assert_eq!(table.keys.len(), keys);
    assert_eq!(table.free.len(), count(&|slot| slot.state == State::Free));
    let now = table.statistics();
    assert_eq!(now.pages as usize, count(&present));
    let written = count(&|slot| matches!(slot.state, State::Written(_) | State::Cancelled));
    assert_eq!(now.written as usize, written);
    assert_eq!(now.held as usize, count(&|slot| slot.holds > 0));
    assert!(table.progress().pending <= table.slots.len() + MAX_BATCH_RECORDS);
}

#[test]
fn a_key_has_one_writer_and_is_not_written_again() {
    let (mut table, mut count) = (table(2), 0);
    let Reserved::Slot { slot: 0, replaced: None } = table.reserve(key(1), false) else { panic!() };
    assert_eq!(table.reserve(key(1), false), Reserved::Underway);
    assert_eq!(table.reserve(key(1), true), Reserved::Underway, "to replace it changes nothing");
    assert_eq!(table.record(key(1)), None, "it is not there before it is published");
    let record = table.published(0, key(1), generation(&mut count));
    assert_eq!(table.record(key(1)), Some(record));
    assert_eq!(table.reserve(key(1), false), Reserved::Already(record));
    let counts = table.statistics();
    assert_eq!((counts.puts, counts.underway, counts.already, counts.pages), (1, 2, 1, 1));
    check(&table);
}

#[test]
fn an_evicted_page_leaves_the_keys_before_its_slot_is_given_out() {
    let (mut table, mut count) = (table(2), 0);
    let first = put(&mut table, 1, &mut count);
    put(&mut table, 2, &mut count);
    let Reserved::Slot { slot, .. } = table.reserve(key(3), false) else { panic!() };
    assert_eq!((slot, table.record(key(1)), table.statistics().evictions), (first.slot, None, 1));
    table.abandon(slot, false);
    assert_eq!(table.record(key(3)), None);
    check(&table);
}

#[test]
fn pages_with_holds_are_not_evicted_and_come_back_into_the_order() {
    let (mut table, mut count) = (table(3), 0);
    put(&mut table, 1, &mut count);
    put(&mut table, 2, &mut count);
    let (one, again, two) =
        (table.hold(key(1)).unwrap(), table.hold(key(1)).unwrap(), table.hold(key(2)).unwrap());
    let Reserved::Slot { slot, .. } = table.reserve(key(3), false) else { panic!() };
    assert_eq!(table.reserve(key(4), false), Reserved::AllHeld { written: 1, held: 2 });
    assert_eq!((table.statistics().all_held, table.statistics().evictions), (1, 0));
    table.abandon(slot, false);
    table.release(one);
    table.release(two);
    check(&table);
    for number in 3..=20 {
        put(&mut table, number, &mut count);
        assert!(table.touch(key(number)));
    }
    assert!(table.record(key(1)).is_some(), "it has another hold");
    assert_eq!(table.record(key(2)), None);
    table.release(again);
    check(&table);
    for number in 21..=40 {
        put(&mut table, number, &mut count);
        assert!(table.touch(key(number)));
    }
    assert_eq!(table.record(key(1)), None, "without holds it is evicted as others are");
    check(&table);
}

#[test]
fn a_page_that_is_removed_while_it_is_held_keeps_its_slot_until_the_hold_ends() {
    let (mut table, mut count) = (table(1), 0);
    let record = put(&mut table, 1, &mut count);
    let held = table.hold(key(1)).unwrap();
    assert_eq!(held.record, record);
    assert_eq!(table.remove(key(1)), Some(0));
    assert_eq!(table.remove(key(1)), None);
    assert_eq!(table.reserve(key(2), false), Reserved::AllHeld { written: 0, held: 1 });
    table.release(held);
    put(&mut table, 2, &mut count);
    check(&table);
}

#[test]
fn a_replaced_page_that_is_held_gets_another_slot_and_stays_if_there_is_none() {
    let (mut table, mut count) = (table(1), 0);
    let record = put(&mut table, 1, &mut count);
    let held = table.hold(key(1)).unwrap();
    assert_eq!(table.reserve(key(1), true), Reserved::AllHeld { written: 0, held: 1 });
    assert_eq!(table.record(key(1)), Some(record));
    table.release(held);
    assert_eq!(table.reserve(key(1), true), Reserved::Slot { slot: 0, replaced: None });
    check(&table);

    let mut table = self::table(2);
    put(&mut table, 1, &mut count);
    let held = table.hold(key(1)).unwrap();
    assert_eq!(table.reserve(key(1), true), Reserved::Slot { slot: 1, replaced: Some(0) });
    assert_eq!(table.record(key(1)), None);
    check(&table);
    table.release(held);
    check(&table);
}

#[test]
fn a_page_that_is_removed_while_it_is_written_does_not_come() {
    let (mut table, mut count) = (table(2), 0);
    let Reserved::Slot { slot, .. } = table.reserve(key(1), false) else { panic!() };
    assert_eq!(table.remove(key(1)), Some(slot));
    assert!(!table.may_publish(slot));
    // Another writer of the key may begin at once.
    put(&mut table, 1, &mut count);
    table.abandon(slot, false);
    assert!(table.record(key(1)).is_some());
    check(&table);
}

#[test]
fn a_slot_that_the_publisher_refused_is_the_last_to_be_taken_again() {
    let mut table = table(3);
    let Reserved::Slot { slot: 0, .. } = table.reserve(key(1), false) else { panic!() };
    table.abandon(0, true);
    let order = [1, 2, 0].map(|slot| Reserved::Slot { slot, replaced: None });
    assert_eq!([2, 3, 4].map(|number| table.reserve(key(number), false)), order);
}

#[test]
fn a_page_that_came_and_went_is_no_change() {
    let (mut table, mut count, mut directory) = (table(4), 0, Directory::default());
    for number in 0..1000 {
        put(&mut table, number, &mut count);
        assert!(table.progress().pending <= 4);
    }
    assert_eq!(directory.tell_all(&mut table), 4, "only those that are there are announced");
    for number in 0..1000 {
        table.remove(key(number));
        put(&mut table, 5000, &mut count);
        table.remove(key(5000));
    }
    assert_eq!(directory.tell_all(&mut table), 4, "and only these are withdrawn");
    assert_eq!((directory.0.len(), table.progress().pending), (0, 0));
}

#[test]
fn an_engines_slot_is_overwritten_only_without_pins_and_published_only_if_empty() {
    let (mut table, mut count) = (SlotTable::new(Epoch(NonZeroU64::MIN), POOL, 2, false), 0);
    assert_eq!(table.claim(2, true), Err(Refused::NoSlot));
    assert_eq!(table.claim(1, true), Ok(()));
    assert_eq!(table.claim(1, false), Err(Refused::BeingWritten));
    table.published(1, key(1), generation(&mut count));
    assert_eq!(table.claim(1, true), Err(Refused::Published(key(1))));
    let held = table.hold(key(1)).unwrap();
    assert_eq!(table.claim(1, false), Err(Refused::Pinned(1)));
    assert!(table.remove_slot(1));
    assert_eq!(table.statistics().held, 0, "the engine's bytes are not kept");
    assert_eq!(table.claim(1, false), Ok(()));
    table.published(1, key(2), generation(&mut count));
    table.release(held);
    assert_eq!(table.claim(1, false), Ok(()), "a pin of the earlier page is none of this one");
}

/// Thousands of calls in any order: after each the parts of the table agree, and whenever the
/// directory has been told all changes it knows the pages that are there, and no others.
#[test]
fn the_directory_knows_what_is_there_after_any_calls() {
    for seed in 1..=20_u64 {
        let (mut table, mut directory, mut count) = (table(1 + seed as u32), Directory::default(), 0);
        let (mut written, mut held) = (Vec::new(), Vec::new());
        let mut random = seed;
        let mut below = |n: u64| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (random >> 33) % n
        };
        for _ in 0..4000 {
            let number = key(u128::from(below(3 * seed + 3)));
            match below(10) {
                0..=3 => {
                    if let Reserved::Slot { slot, .. } = table.reserve(number, below(4) == 0) {
                        written.push((slot, number));
                    }
                }
                4 | 5 if !written.is_empty() => {
                    let (slot, number) = written.swap_remove(below(written.len() as u64) as usize);
                    if table.may_publish(slot) && below(5) > 0 {
                        table.published(slot, number, generation(&mut count));
                    } else {
                        table.abandon(slot, below(4) == 0);
                    }
                }
                6 => _ = table.remove(number),
                7 => held.extend(table.hold(number)),
                8 if !held.is_empty() => table.release(held.swap_remove(below(held.len() as u64) as usize)),
                9 => match below(4) {
                    0 => {
                        directory.tell_all(&mut table);
                        let present = |slot: &SlotState| match slot.state {
                            State::Present(page) => Some(page.key.0),
                            _ => None,
                        };
                        let there: Vec<_> = table.slots.iter().filter_map(present).collect();
                        assert_eq!(directory.0.len(), there.len(), "seed {seed}");
                        for tag in there {
                            assert_eq!(directory.0.get(&tag).copied(), table.record(Key(tag)), "seed {seed}");
                        }
                    }
                    1 => {
                        // The directory loses some of its records, and says so.
                        directory.0.retain(|_, _| below(2) == 0);
                        assert_eq!(table.announce_again(0), None);
                    }
                    _ => _ = table.touch(number),
                },
                _ => {}
            }
            check(&table);
        }
        written.into_iter().for_each(|(slot, _)| table.abandon(slot, false));
        held.into_iter().for_each(|held| table.release(held));
        check(&table);
        assert_eq!(table.retire(0), None);
        directory.tell_all(&mut table);
        assert!(directory.0.is_empty(), "seed {seed}: all is withdrawn at the end");
    }
}
