//! Pages in memory of an inference engine.

use kvrail::PageError;
use kvrail::session::PoolId;
use kvrail_node::{EnginePool, EngineSlotError, OpenPoolError, PagePool, Published};

use crate::rig::{EngineMemory, Reads, key};

const POOL: PoolId = PoolId(0);

#[test]
fn the_engine_says_which_page_is_in_which_slot() {
    let memory = EngineMemory::of(3);
    let publisher = memory.publisher();
    let mut reads = Reads::of(&publisher);
    let pool = EnginePool::open(publisher.clone(), POOL).unwrap();
    assert_eq!(PagePool::open(publisher, POOL).err(), Some(OpenPoolError::Foreign { pool: POOL }));

    // Written before it is published for the first time.
    memory.fill(1, key(7));
    let Ok(Published::Here(first)) = pool.publish_slot(1, key(7)) else { panic!("not published") };
    assert_eq!((first.slot, pool.record(key(7))), (1, Some(first)));
    assert_eq!(reads.read_one(first), Ok(true));

    let guard = pool.overwrite_slot(1).unwrap();
    assert!(matches!(reads.read_one(first), Err(PageError::Miss(_))) && !pool.contains(key(7)));
    memory.fill(1, key(8));
    let Ok(Published::Here(second)) = guard.publish(key(8)) else { panic!("not published") };
    assert_eq!(reads.read_one(second), Ok(true));

    assert!(pool.withdraw_slot(1) && !pool.withdraw_slot(1));
    assert!(matches!(reads.read_one(second), Err(PageError::Miss(_))) && !pool.contains(key(8)));
    memory.fill(1, key(9));
    assert!(matches!(pool.publish_slot(1, key(9)), Ok(Published::Here(_))));
    assert_eq!((pool.remove(key(9)), pool.remove(key(9))), (Some(1), None));
    assert_eq!((pool.statistics().puts, pool.statistics().evictions), (3, 0));
}

#[test]
fn a_slot_that_has_a_page_or_a_guard_is_not_published_again() {
    let memory = EngineMemory::of(2);
    let pool = EnginePool::open(memory.publisher(), POOL).unwrap();
    memory.fill(0, key(1));
    let Ok(Published::Here(record)) = pool.publish_slot(0, key(1)) else { panic!("not published") };
    let published = EngineSlotError::Published { pool: POOL, slot: 0, key: key(1) };
    assert_eq!(pool.publish_slot(0, key(2)), Err(published));
    assert_eq!(pool.publish_slot(2, key(2)), Err(EngineSlotError::Slot { pool: POOL, slot: 2, slots: 2 }));
    assert!(!pool.withdraw_slot(2));
    // Another slot with the same page stays a miss.
    memory.fill(1, key(1));
    assert_eq!(pool.publish_slot(1, key(1)), Ok(Published::Elsewhere(record)));
    assert!(!pool.withdraw_slot(1));

    let guard = pool.overwrite_slot(1).unwrap();
    let written = EngineSlotError::BeingWritten { pool: POOL, slot: 1 };
    assert_eq!(pool.publish_slot(1, key(2)), Err(written));
    assert_eq!(pool.overwrite_slot(1).err(), Some(written));
    assert_eq!(guard.slot(), 1);
    drop(guard);
    // Withdrawn, or cleared, while it is written.
    for clear in [false, true] {
        let guard = pool.overwrite_slot(1).unwrap();
        assert_eq!(if clear { pool.clear() } else { pool.withdraw_slot(1).into() }, 1 + u32::from(clear));
        assert_eq!(guard.publish(key(2)), Err(EngineSlotError::Removed { pool: POOL, slot: 1 }));
    }
    assert_eq!(pool.statistics().pages, 0);
}

#[test]
fn a_pinned_page_is_not_overwritten_unless_it_is_withdrawn_first() {
    let memory = EngineMemory::of(1);
    let pool = EnginePool::open(memory.publisher(), POOL).unwrap();
    memory.fill(0, key(1));
    assert!(matches!(pool.publish_slot(0, key(1)), Ok(Published::Here(_))));
    let (pin, other) = (pool.pin(key(1)).unwrap(), pool.pin(key(1)).unwrap());
    assert_eq!(pool.overwrite_slot(0).err(), Some(EngineSlotError::Pinned { pool: POOL, slot: 0, pins: 2 }));
    assert!(pool.contains(key(1)), "the page stayed");
    drop(other);
    assert!(pool.withdraw_slot(0));
    let guard = pool.overwrite_slot(0).unwrap();
    memory.fill(0, key(2));
    assert!(matches!(guard.publish(key(2)), Ok(Published::Here(_))));
    drop(pin);
    drop(pool.overwrite_slot(0).unwrap());
}
