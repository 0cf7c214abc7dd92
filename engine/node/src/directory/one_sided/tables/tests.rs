//! The caps, and what is answered from which image. `tests/one_sided.rs` reads real tables.

use std::num::NonZeroU64;

use kvrail_core::table::EntryValue;

use super::*;

fn owner(number: u64) -> Owner {
    Owner {
        epoch: Epoch(NonZeroU64::new(number).unwrap()),
        node: "node".parse().unwrap(),
        address: "10.0.0.1:7470".parse().unwrap(),
        zone: "?".parse().unwrap(),
    }
}

fn entry(slot: u32, tag: u128, generation: u64) -> Location {
    let expected = EntryValue { generation: Generation(generation), ready: Ready::WHOLE, tag: KeyTag(tag) };
    Location { slot, expected }
}

fn found(tables: &OneSidedTables, tag: u128) -> Vec<(u64, u32, u32)> {
    let mut found = Found::default();
    tables.look_up(&[KeyTag(tag)], Instant::now(), &mut found);
    let records = found.records(0).unwrap().iter();
    records.map(|record| (record.owner.0.get(), record.pool.0, record.slot)).collect()
}

#[test]
fn look_ups_are_answered_from_the_last_image_of_each_pool() {
    let tables = OneSidedTables::new(OneSidedConfig::default());
    let (first, second) = (owner(1), owner(2));
    tables.add(&first, PoolId(0), 10).unwrap();
    tables.add(&first, PoolId(3), 10).unwrap();
    tables.add(&second, PoolId(0), 10).unwrap();
    assert_eq!(found(&tables, 7), [], "nothing was read");
    let now = Instant::now();
    tables.publish(first.epoch, PoolId(0), [entry(4, 7, 1), entry(5, 8, 3)], now);
    tables.publish(first.epoch, PoolId(3), [entry(9, 7, 1)], now);
    tables.publish(second.epoch, PoolId(0), [entry(1, 7, 1)], now);
    assert_eq!(found(&tables, 7), [(1, 0, 4), (1, 3, 9), (2, 0, 1)]);
    assert_eq!(found(&tables, 8), [(1, 0, 5)]);
    // Another image takes the place of the first, with what it lacks.
    tables.publish(first.epoch, PoolId(0), [entry(2, 8, 5)], now);
    assert_eq!(found(&tables, 7), [(1, 3, 9), (2, 0, 1)]);
    assert_eq!(found(&tables, 8), [(1, 0, 2)]);
    let epochs = [first.epoch, second.epoch];
    assert_eq!(tables.owners(&epochs, now).unwrap(), [Some(first.clone()), Some(second.clone())]);
    tables.remove(first.epoch);
    assert_eq!(found(&tables, 7), [(2, 0, 1)]);
    assert_eq!(tables.owners(&epochs, now).unwrap(), [None, Some(second)]);
    // What was being read of it comes too late.
    tables.publish(first.epoch, PoolId(0), [entry(4, 7, 1)], now);
    assert_eq!(found(&tables, 7), [(2, 0, 1)]);
}

#[test]
fn what_is_no_whole_published_page_of_the_pool_is_left_out() {
    let tables = OneSidedTables::new(OneSidedConfig::default());
    let owner = owner(1);
    tables.add(&owner, PoolId(0), 10).unwrap();
    let mut part = entry(1, 1, 1);
    part.expected.ready = Ready(3);
    let entries = [part, entry(2, 2, 2), entry(10, 3, 1), entry(9, 4, 1)];
    tables.publish(owner.epoch, PoolId(0), entries, Instant::now());
    assert_eq!((1..5).map(|tag| found(&tables, tag).len()).collect::<Vec<_>>(), [0, 0, 0, 1]);
}

#[test]
fn a_stale_image_is_not_answered_from() {
    let tables = OneSidedTables::new(OneSidedConfig::default());
    let owner = owner(1);
    tables.add(&owner, PoolId(0), 10).unwrap();
    let old = Instant::now().checked_sub(Duration::from_secs(5)).unwrap();
    tables.publish(owner.epoch, PoolId(0), [entry(1, 1, 1)], old);
    assert_eq!(found(&tables, 1), []);
}

#[test]
fn the_caps_bound_pools_slots_and_what_is_read_in_a_second() {
    let config =
        OneSidedConfig { max_pools: 3, max_slots: 1000, slots_per_second: 500, ..Default::default() };
    let tables = OneSidedTables::new(config);
    let owner = owner(1);
    for pool in 0..3 {
        tables.add(&owner, PoolId(pool), 300).unwrap();
    }
    assert_eq!(tables.add(&owner, PoolId(2), 300), Ok(()), "it is known");
    assert_eq!(tables.add(&owner, PoolId(3), 1), Err(OneSidedError::TooManyPools { max: 3 }));
    tables.remove(owner.epoch);
    tables.add(&owner, PoolId(0), 700).unwrap();
    let error = OneSidedError::TooManySlots { slots: 1001, max: 1000 };
    assert_eq!(tables.add(&owner, PoolId(1), 301), Err(error));
    tables.add(&owner, PoolId(1), 300).unwrap();
    // A second's budget: the large pool takes all of it.
    let begun = Instant::now();
    let wanted =
        |after_ms: u64| tables.wanted(begun + Duration::from_millis(after_ms)).map(|table| table.pool.0);
    assert_eq!(wanted(0), Some(0));
    assert_eq!(wanted(0), None, "its budget is used up");
    assert_eq!(wanted(590), None, "295 slots");
    assert_eq!(wanted(610), Some(1));
    assert_eq!(wanted(1200), None, "the first is due, and waits for a whole budget");
    assert_eq!(wanted(1700), Some(0));
    assert_eq!(wanted(2200), None, "250 slots");
    assert_eq!(wanted(2400), Some(1));
    let caps = tables.describe();
    assert!(
        caps.contains("3 pools") && caps.contains("1000 slots") && caps.contains("500 slots a second"),
        "{caps}"
    );
}

#[test]
fn caps_may_be_without_bound() {
    let config = OneSidedConfig {
        max_slots: u64::MAX,
        slots_per_second: u64::MAX,
        refresh: Duration::MAX,
        ..Default::default()
    };
    let tables = OneSidedTables::new(config);
    tables.add(&owner(1), PoolId(0), u32::MAX).unwrap();
    tables.add(&owner(2), PoolId(0), u32::MAX).unwrap();
    let now = Instant::now() + Duration::from_millis(5);
    assert!(tables.has_unread());
    assert!(tables.wanted(now).is_some() && tables.wanted(now + Duration::from_millis(5)).is_some());
    assert!(!tables.has_unread());
    assert_eq!(tables.wanted(now + Duration::from_secs(60)), None, "they are read once");
}
