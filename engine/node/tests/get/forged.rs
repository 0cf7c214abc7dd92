//! Records that lie, each kind by itself and all together while pages change: never a wrong page.

use std::num::NonZeroU64;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use kvrail::session::{Epoch, PoolId};
use kvrail::{Bf16, KvLayout, PageLayout};
use kvrail_core::table::Generation;
use kvrail_node::{Put, Record};

use crate::directory::TestDirectory;
use crate::group::*;

/// Makes a true record false.
type Forge = fn(&mut Record);

/// What the forged record of a page in a pool of 4 slots leads to.
const FORGERIES: [(&str, Forge, &[&str]); 7] = [
    ("a slot beyond the pool", |record| record.slot = 4, &["no_slot"]),
    ("the last slot that there could be", |record| record.slot = u32::MAX, &["no_slot"]),
    ("another slot", |record| record.slot = (record.slot + 1) % 4, &["stale"]),
    ("a pool that is not there", |record| record.pool = PoolId(77), &["no_pool"]),
    (
        "an earlier generation",
        |record| record.generation = Generation(record.generation.0 ^ 1 << 63),
        &["stale"],
    ),
    ("a guessed nonce", |record| record.generation = Generation(record.generation.0 ^ 1 << 7), &["stale"]),
    (
        "an owner that is not there",
        |record| record.owner = Epoch(NonZeroU64::new(0xDEAD_BEEF).unwrap()),
        &["unreachable"],
    ),
];

#[test]
fn each_kind_of_forged_record_is_a_miss_with_its_reason() {
    let directory = Arc::new(TestDirectory::default());
    let (owner, reader) = (producer("owner", &directory, 4), reader(&directory));
    put(&owner, 0..4);
    let places = places(&reader, 4);
    for (what, forge, labelled) in FORGERIES {
        directory.alter(move |_, records| records.iter_mut().for_each(forge));
        let results = get(&reader, &places, [2], 5_000);
        assert_eq!(labels(&results), labelled, "{what}: {results:?}");
        directory.honest();
        // The forged record was not kept, and the owner is still believed.
        assert_eq!(labels(&get(&reader, &places, [2], 5_000)), ["directory"], "after {what}");
        reader.clear_cache();
    }
    assert_eq!(places.free(), 4);
}

#[test]
fn each_kind_of_forged_record_is_a_miss_among_right_ones_of_the_same_owner() {
    // Enough pages of one owner for a batch of READs of their own.
    const KEYS: u64 = 40;
    let directory = Arc::new(TestDirectory::default());
    let (owner, reader) = (producer("owner", &directory, KEYS as u32), reader(&directory));
    put(&owner, 0..KEYS);
    let places = places(&reader, KEYS as usize);
    for (what, forge, labelled) in FORGERIES {
        for step in [7, 20, 39] {
            let is_forged = move |number: u64| number % step == step - 1;
            let forged: Vec<_> = (0..KEYS).filter(|&number| is_forged(number)).map(|n| key(n).0).collect();
            directory.alter(move |tag, records| {
                if forged.contains(&tag) {
                    records.iter_mut().for_each(forge);
                    // Slot 4 is beyond the pool of the other test, and not beyond this one.
                    records.iter_mut().filter(|record| record.slot == 4).for_each(|record| record.slot = 40);
                }
            });
            for found in ["directory", "cache"] {
                let results = get(&reader, &places, 0..KEYS, 20_000);
                for (number, label) in (0..).zip(labels(&results)) {
                    let expected = if is_forged(number) { labelled } else { &[found][..] };
                    assert_eq!([label], expected, "{what}, every {step}th: key {number}");
                }
            }
            directory.honest();
            reader.clear_cache();
        }
    }
    assert_eq!(places.free() as u64, KEYS);
    assert_eq!(reader.statistics().reading, 0);
}

#[test]
fn the_record_of_another_key_is_no_answer() {
    let directory = Arc::new(TestDirectory::default());
    let (owner, reader) = (producer("owner", &directory, 4), reader(&directory));
    put(&owner, 0..4);
    let places = places(&reader, 4);
    let other = directory.of(key(3).0)[0];
    // Unchanged, it names its own key.
    directory.set(key(0).0, &[other]);
    assert_eq!(labels(&get(&reader, &places, [0], 5_000)), ["no_owner"]);
    // With the wanted key's tag it passes the directory, and the owner's table tells.
    directory.set(key(0).0, &[Record { tag: key(0).0, ..other }]);
    assert_eq!(labels(&get(&reader, &places, [0], 5_000)), ["stale"]);
}

#[test]
fn an_owner_at_another_owners_address_is_told_apart() {
    let directory = Arc::new(TestDirectory::default());
    let (one, two) = (producer("one", &directory, 4), producer("two", &directory, 4));
    let reader = reader(&directory);
    let places = places(&reader, 4);
    put(&one, [0]);
    put(&two, [1]);
    // The directory claims that owner one is where owner two is.
    let mut lie = kvrail_node::Owner {
        epoch: one.epoch().unwrap(),
        node: "one".parse().unwrap(),
        address: two.publisher().unwrap().local_addr().into(),
        zone: "z".parse().unwrap(),
    };
    directory.owner(lie.clone());
    assert_eq!(labels(&get(&reader, &places, [0, 1], 5_000)), ["restarted", "directory"]);
    // The truth helps a reader that has not been lied to.
    lie.address = one.publisher().unwrap().local_addr().into();
    directory.owner(lie);
    let another = start(config("another", &directory));
    let places = crate::group::places(&another, 4);
    assert_eq!(labels(&get(&another, &places, [0, 1], 5_000)), ["directory"; 2]);
}

#[test]
fn no_page_is_wrong_while_all_lies_are_told_and_all_pages_change() {
    let directory = Arc::new(TestDirectory::default());
    let (owner, reader) = (producer("owner", &directory, 4), reader(&directory));
    let (stop, puts) = (AtomicBool::new(false), AtomicU64::new(0));
    let (rounds, lies) = (AtomicU64::new(0), Arc::new(AtomicU64::new(0)));
    let old = std::sync::Mutex::new(Vec::<Record>::new());
    let told = Arc::clone(&lies);
    // Every second answer is the truth; the others swap, replay and forge.
    directory.alter(move |tag, records| {
        let turn = told.fetch_add(1, Ordering::Relaxed);
        let mut old = old.lock().unwrap();
        if old.len() < 4_096 {
            old.extend_from_slice(records);
        }
        let some = old.get(turn as usize * 31 % old.len().max(1)).copied();
        match (turn % 8, some) {
            (1, Some(other)) => *records = vec![Record { tag, ..other }],
            (3, Some(other)) => records.insert(0, Record { tag, ..other }),
            (5, _) => records.iter_mut().for_each(|record| {
                record.generation = Generation(record.generation.0.wrapping_add(1 << 32) | 1);
            }),
            (7, _) => records.iter_mut().for_each(|record| record.slot = turn as u32 % 6),
            _ => {}
        }
    });
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for number in 0.. {
                let number = number % 12;
                let put = owner.put(&PAGE, key(number), &page_of(key(number), BYTES));
                puts.fetch_add(u64::from(matches!(put, Ok(Put::Stored(_)))), Ordering::Relaxed);
                if stop.load(Ordering::Relaxed) {
                    break;
                }
            }
        });
        let readers: Vec<_> = (0..2)
            .map(|thread| {
                let (reader, rounds) = (&reader, &rounds);
                scope.spawn(move || {
                    let places = places(reader, 12);
                    let mut hits = 0;
                    while hits < 400 {
                        // Every byte of a hit is compared there.
                        let results = get(reader, &places, 0..12, 10_000);
                        hits += results.iter().filter(|result| result.is_ok()).count();
                        if rounds.fetch_add(1, Ordering::Relaxed) % 2 == thread {
                            reader.clear_cache();
                        }
                    }
                    assert_eq!(places.free(), 12);
                })
            })
            .collect();
        for reader in readers {
            reader.join().unwrap();
        }
        stop.store(true, Ordering::Relaxed);
    });
    let statistics = reader.statistics().get;
    assert!(puts.load(Ordering::Relaxed) > 12, "pages were overwritten");
    assert!(lies.load(Ordering::Relaxed) > 100 && statistics.misses[6] > 0, "lies were told: {statistics:?}");
}

/// As long as a page, with its fields in the other order.
#[derive(KvLayout)]
#[kv(order(token), tokens = 8)]
#[allow(dead_code)]
struct Turned {
    rope: [Bf16; 16],
    latent: [Bf16; 128],
}
const TURNED: PageLayout = PageLayout::of::<Turned>();

#[test]
fn a_record_that_names_a_pool_of_another_length_or_fingerprint_is_a_miss() {
    assert_ne!(INDEX.page_bytes(), PAGE.page_bytes());
    assert_eq!(TURNED.page_bytes(), PAGE.page_bytes());
    assert_ne!(TURNED.fingerprint(), PAGE.fingerprint());
    let directory = Arc::new(TestDirectory::default());
    let pools = config("owner", &directory).pool(PAGE, 4).pool(INDEX, 4).pool(TURNED, 4);
    let owner = start(pools);
    put(&owner, 0..4);
    // One reader reads all of these layouts, the other one pages alone.
    let all = start(config("all", &directory).layout(INDEX).layout(TURNED));
    for (reader, label) in [(all, "layout"), (reader(&directory), "no_pool")] {
        let places = places(&reader, 4);
        for pool in [1, 2] {
            directory
                .alter(move |_, records| records.iter_mut().for_each(|record| record.pool = PoolId(pool)));
            assert_eq!(labels(&get(&reader, &places, [2], 5_000)), [label], "pool {pool}");
            directory.honest();
            assert_eq!(labels(&get(&reader, &places, [2], 5_000)), ["directory"], "after pool {pool}");
            reader.clear_cache();
        }
        assert_eq!(places.free(), 4);
    }
}
