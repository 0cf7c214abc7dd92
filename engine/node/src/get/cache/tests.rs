use super::*;
use std::sync::atomic::AtomicBool;

fn record(tag: u128, number: u64) -> Record {
    Record {
        tag: KeyTag(tag),
        owner: Epoch(NonZeroU64::new(number).unwrap()),
        pool: PoolId(number as u32),
        slot: number as u32,
        generation: Generation(number),
    }
}

fn cache(records: usize) -> RecordCache {
    RecordCache::new(records, Duration::from_secs(5))
}

#[test]
fn a_bucket_is_four_cache_lines() {
    assert_eq!(size_of::<Bucket>(), 256);
}

#[test]
fn a_record_is_found_until_its_time_has_passed() {
    let cache = cache(1024);
    let (one, now) = (record(7 << 64 | 9, 3), Time(1_000));
    assert_eq!(cache.get(one.tag, now), None);
    cache.insert(&one, now);
    assert_eq!(cache.get(one.tag, now), Some(one));
    assert_eq!(cache.get(KeyTag(7 << 64 | 8), now), None, "the other half differs");
    let last = Time(1_000 + 5_000_000_000 - 1);
    assert_eq!(cache.get(one.tag, last), Some(one));
    assert_eq!(cache.get(one.tag, Time(last.0 + 1)), None);
}

#[test]
fn a_later_record_of_a_key_takes_the_earlier_ones_place() {
    let cache = cache(4);
    let (one, two, now) = (record(5, 1), record(5, 2), Time(1));
    cache.insert(&one, now);
    cache.insert(&two, now);
    assert_eq!(cache.get(KeyTag(5), now), Some(two));
    cache.remove(&one);
    assert_eq!(cache.get(KeyTag(5), now), Some(two), "another record of the key stays");
    cache.remove(&two);
    assert_eq!(cache.get(KeyTag(5), now), None);
}

#[test]
fn the_oldest_of_a_full_bucket_makes_room() {
    let cache = cache(4);
    for n in 1..=5 {
        cache.insert(&record(n, n as u64), Time(n as u64));
    }
    let found: Vec<bool> = (1..=5).map(|n| cache.get(KeyTag(n), Time(6)).is_some()).collect();
    assert_eq!(found, [false, true, true, true, true]);
    cache.forget(KeyTag(3));
    assert_eq!(cache.get(KeyTag(3), Time(6)), None);
    cache.clear();
    assert!((1..=5).all(|n| cache.get(KeyTag(n), Time(6)).is_none()));
}

#[test]
fn a_cache_of_nothing_or_for_no_time_finds_nothing() {
    for cache in [RecordCache::new(0, Duration::from_secs(1)), RecordCache::new(64, Duration::ZERO)] {
        cache.insert(&record(1, 1), Time(1));
        assert_eq!(cache.get(KeyTag(1), Time(1)), None);
        assert!(!cache.is_on());
        cache.remove(&record(1, 1));
        cache.forget(KeyTag(1));
        cache.clear();
    }
}

#[test]
fn no_reader_sees_the_words_of_two_records_mixed() {
    let (cache, stop) = (cache(4), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let (cache, stop) = (&cache, &stop);
        for first in [1, 1_000_000] {
            scope.spawn(move || {
                for number in first.. {
                    // Two keys of one bucket, whose records have one number in every field.
                    cache.insert(&record(u128::from(number % 2), number), Time(1));
                    if number % 64 == 0 {
                        cache.remove(&record(u128::from(number % 2), number));
                    }
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                }
            });
        }
        let mut seen = 0;
        while seen < 20_000 {
            for tag in [0, 1] {
                let Some(found) = cache.get(KeyTag(tag), Time(1)) else { continue };
                assert_eq!(found, record(tag, found.generation.0));
                seen += 1;
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
}
