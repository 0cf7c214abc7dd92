//! What a caller can do wrong, and pages that go away while they are got.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use kvrail::KvLayout;
use kvrail::session::TagSecret;
use kvrail_node::{GetBatch, KeySpace, Namespace, PageKeyError};

use crate::directory::TestDirectory;
use crate::group::*;

/// As long as a page of the group's layout, with the same parts in another order.
#[derive(KvLayout)]
#[kv(order(token), tokens = 8)]
#[allow(dead_code)]
struct Turned {
    rope: [kvrail::Bf16; 16],
    latent: [kvrail::Bf16; 128],
}
const TURNED: kvrail::PageLayout = kvrail::PageLayout::of::<Turned>();

#[test]
fn a_key_has_1_to_256_bytes_whatever_they_are() {
    let space = space(&PAGE);
    for bytes in [0, 257, 1 << 20] {
        let error = space.key(&vec![b'k'; bytes]).unwrap_err();
        assert_eq!((error, error.code()), (PageKeyError::Length { bytes }, 7000));
        assert!(error.to_string().contains(&format!("{bytes} bytes: keys have 1 to 256")), "{error}");
    }
    let mut keys: Vec<_> = (1..=256).map(|bytes| space.key(&vec![0; bytes]).unwrap().0.0).collect();
    keys.extend((0..=255).map(|byte| space.key(&[byte, 0xFF]).unwrap().0.0));
    let count = keys.len();
    keys.sort_unstable();
    keys.dedup();
    assert_eq!(keys.len(), count, "no two keys are the same");
}

#[test]
fn namespaces_that_differ_in_anything_have_other_keys() {
    let namespace = |model: &str, layout: &kvrail::PageLayout, shape: &str| Namespace {
        model: model.into(),
        layout: layout.fingerprint(),
        shape: shape.into(),
    };
    let secrets = [TagSecret::from_bytes([7; 32]), TagSecret::from_bytes([8; 32])];
    let all = [
        namespace("m", &PAGE, "tp 1"),
        namespace("n", &PAGE, "tp 1"),
        namespace("m", &INDEX, "tp 1"),
        namespace("m", &TURNED, "tp 1"),
        namespace("m", &PAGE, "tp 2"),
        // The same letters, shared out in another way.
        namespace("mt", &PAGE, "p 1"),
        namespace("", &PAGE, "mtp 1"),
    ];
    let key = |secret, namespace| KeySpace::new(secret, namespace).unwrap().key(b"page").unwrap().0.0;
    let mut keys: Vec<_> =
        secrets.iter().flat_map(|secret| all.iter().map(move |of| key(secret, of))).collect();
    keys.sort_unstable();
    keys.dedup();
    assert_eq!(keys.len(), secrets.len() * all.len());
    let long = "x".repeat(1025);
    for (what, of) in [("model", namespace(&long, &PAGE, "")), ("shape", namespace("", &PAGE, &long))] {
        let error = KeySpace::new(&secrets[0], &of).unwrap_err();
        assert_eq!((error, error.code()), (PageKeyError::Text { what, bytes: 1025 }, 7001));
    }
}

#[test]
fn a_deadline_may_be_centuries_away() {
    let directory = Arc::new(TestDirectory::default());
    let (owner, reader) = (producer("owner", &directory, 2), reader(&directory));
    put(&owner, [1]);
    let places = places(&reader, 2);
    for years in [1, 500, 10_000] {
        let deadline = std::time::Instant::now() + Duration::from_secs(years * 365 * 86_400);
        let mut wanted = batch(&places, [1, 2]);
        assert_eq!(reader.get(&mut wanted, deadline).hits, 1, "{years}: {wanted:?}");
        let mut handle = reader.begin_get(batch(&places, []), deadline);
        assert!(handle.wait(within(60_000)), "{years}");
        drop(wanted);
        let mut handle = reader.begin_get(batch(&places, [1, 2]), deadline);
        assert!(handle.wait(within(60_000)), "{years}");
        assert_eq!(handle.finish().unwrap().1.hits, 1);
    }
}

#[test]
fn a_place_is_in_one_batch_at_a_time_and_an_empty_batch_has_no_page() {
    let directory = Arc::new(TestDirectory::default());
    let (owner, reader) = (producer("owner", &directory, 2), reader(&directory));
    put(&owner, [0, 1]);
    let places = places(&reader, 1);
    let mut first = batch(&places, [0]);
    assert!(places.take(0).is_none() && places.take_any().is_none() && places.take(1).is_none());
    // The same key twice has two places.
    assert_eq!(reader.get(&mut first, within(60_000)).hits, 1);
    assert!(places.take(0).is_none(), "the batch has it until it is taken out");
    drop(first);
    let again = crate::group::places(&reader, 2);
    assert_eq!(get(&reader, &again, [1, 1], 60_000).iter().filter(|result| result.is_ok()).count(), 2);
    let mut handle = reader.begin_get(GetBatch::default(), within(0));
    assert!(handle.poll(), "there is nothing to wait for");
    let (mut got, counts) = handle.finish().unwrap();
    assert_eq!((counts.hits, counts.misses, got.take_pages().count()), (0, 0, 0));
}

#[test]
fn pages_that_are_cleared_while_they_are_got_are_right_or_misses() {
    const KEYS: u64 = 24;
    let directory = Arc::new(TestDirectory::default());
    // A page that is being copied keeps its slot although it was cleared.
    let owner = producer("owner", &directory, KEYS as u32 + 1);
    let reader = reader(&directory);
    let (far, near) = (places(&reader, KEYS as usize), places(&owner, KEYS as usize));
    let (stop, clears, hits) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
    let allowed = ["directory", "cache", "own_pool", "no_owner", "stale"];
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::SeqCst) {
                for number in 0..KEYS {
                    let page = page_of(key(number), BYTES);
                    let _ = owner.put(&PAGE, key(number), &page).unwrap();
                }
                std::thread::yield_now();
                owner.clear();
                reader.clear();
                clears.fetch_add(1, Ordering::SeqCst);
            }
        });
        // From another node, and from the own pool.
        for (node, places) in [(&reader, &far), (&owner, &near)] {
            let (stop, hits) = (&stop, &hits);
            scope.spawn(move || {
                while !stop.load(Ordering::SeqCst) {
                    let results = get(node, places, 0..KEYS, 60_000);
                    assert!(labels(&results).iter().all(|label| allowed.contains(label)), "{results:?}");
                    let got = results.iter().filter(|result| result.is_ok()).count();
                    hits.fetch_add(got as u64, Ordering::SeqCst);
                }
            });
        }
        let limit = within(120_000);
        while clears.load(Ordering::SeqCst) < 200 || hits.load(Ordering::SeqCst) < 2_000 {
            if std::time::Instant::now() >= limit {
                break;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        stop.store(true, Ordering::SeqCst);
    });
    assert!(hits.load(Ordering::SeqCst) >= 2_000 && clears.load(Ordering::SeqCst) >= 200);
    assert_eq!((far.free() as u64, near.free() as u64), (KEYS, KEYS));
}
