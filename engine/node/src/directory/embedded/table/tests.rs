//! The table against a list of records without any index, and its bounds.

use std::collections::BTreeMap;
use std::num::NonZeroU64;
use std::time::Duration;

use super::*;
use crate::directory::Owner;

const LEASE: Duration = Duration::from_secs(3);

fn lease(owner: u64) -> Lease {
    let owner = Owner {
        epoch: epoch(owner),
        node: "node".parse().unwrap(),
        address: "10.0.0.1:7470".parse().unwrap(),
        zone: "?".parse().unwrap(),
    };
    Lease::new(owner, LEASE)
}

fn epoch(owner: u64) -> Epoch {
    Epoch(NonZeroU64::new(owner + 1).unwrap())
}

fn record(owner: u64, tag: u128, count: u64) -> Record {
    let generation = Generation(count << 1 | 1);
    Record { tag: KeyTag(tag), owner: epoch(owner), pool: PoolId(1), slot: count as u32 * 3, generation }
}

fn found(table: &Table, tag: u128, now: Instant) -> Vec<(u64, u64)> {
    let places = table.places(KeyTag(tag), now);
    let mut found: Vec<_> =
        places.map(|(owner, generation, ..)| (owner.0.get() - 1, generation.0 >> 1)).collect();
    found.sort_unstable();
    found
}

/// Random numbers: SplitMix64.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % end
    }
}

/// What a shard must know, without lists: when each owner's lease ends, and its records.
#[derive(Default)]
struct Model {
    owners: BTreeMap<u64, (Instant, BTreeMap<u128, u64>)>,
}

impl Model {
    fn heard(&mut self, owner: u64, now: Instant) {
        let life = self.owners.entry(owner).or_insert((now, BTreeMap::new()));
        if life.0 <= now {
            life.1.clear();
        }
        life.0 = now + LEASE;
    }

    fn found(&self, tag: u128, now: Instant) -> Vec<(u64, u64)> {
        let has = |(&owner, (until, records)): (&u64, &(Instant, BTreeMap<u128, u64>))| {
            (*until > now).then(|| Some((owner, *records.get(&tag)?))).flatten()
        };
        self.owners.iter().filter_map(has).collect()
    }
}

#[test]
fn a_table_says_what_a_list_would_say_whatever_comes() {
    for seed in 0..20 {
        let (mut random, mut model) = (Random(seed), Model::default());
        let mut table = Table::new(10_000, 100);
        let mut now = Instant::now();
        for step in 0..3000 {
            let owner = random.below(MAX_OWNERS as u64);
            let tag = u128::from(random.below(40));
            let count = 1 + random.below(3);
            match random.below(10) {
                0..5 => {
                    let known = model.owners.get(&owner).is_some_and(|life| life.0 > now);
                    model.heard(owner, now);
                    model.owners.get_mut(&owner).unwrap().1.insert(tag, count);
                    let announced = table.announce(lease(owner), &[record(owner, tag, count)], now).unwrap();
                    assert_eq!((announced.kept, announced.limit), (1, 0));
                    assert!(table.renew(lease(owner), now).unwrap().known, "{known}");
                }
                5..7 => {
                    let life = model.owners.get_mut(&owner).filter(|life| life.0 > now);
                    let same = life.as_ref().is_some_and(|life| life.1.get(&tag) == Some(&count));
                    if let (true, Some(life)) = (same, life) {
                        life.1.remove(&tag);
                    }
                    table.tidy(now);
                    assert_eq!(table.withdraw(&record(owner, tag, count)), same, "seed {seed} step {step}");
                }
                7 => {
                    let known = model.owners.get(&owner).is_some_and(|life| life.0 > now);
                    model.heard(owner, now);
                    assert_eq!(table.renew(lease(owner), now).unwrap().known, known);
                }
                8 => now += Duration::from_millis(random.below(800)),
                _ => {
                    let known = model.owners.get(&owner).is_some_and(|life| life.0 > now);
                    assert_eq!(table.owner(epoch(owner), now).is_some(), known);
                }
            }
            assert_eq!(found(&table, tag, now), model.found(tag, now), "seed {seed} step {step}");
        }
        let living: usize = model.owners.values().filter(|life| life.0 > now).map(|life| life.1.len()).sum();
        table.tidy(now);
        assert_eq!(table.len(), living, "nothing of the dead is left: seed {seed}");
    }
}

#[test]
fn a_dead_owners_records_are_removed_by_and_by_and_never_found() {
    let (mut table, begun) = (Table::new(100_000, 10), Instant::now());
    for tag in 0..10_000 {
        table.announce(lease(0), &[record(0, tag, 1)], begun).unwrap();
    }
    let later = begun + LEASE;
    assert!((0..10_000).all(|tag| found(&table, tag, later).is_empty()), "before any is removed");
    let mut before = table.len();
    assert_eq!(before, 10_000);
    while before > 0 {
        table.tidy(later);
        let removed = before - table.len();
        assert!(removed > 0 && removed <= REMOVED, "{removed} in one call");
        before = table.len();
    }
}

#[test]
fn a_full_table_says_so_and_makes_room_of_the_dead_at_once() {
    let (mut table, begun) = (Table::new(1000, 10), Instant::now());
    let all: Vec<_> = (0..1001).map(|tag| record(0, tag, 1)).collect();
    let announced = table.announce(lease(0), &all, begun).unwrap();
    assert_eq!((announced.kept, announced.limit), (1000, 1000));
    let announced = table.announce(lease(1), &[record(1, 5, 1)], begun).unwrap();
    assert_eq!((announced.kept, announced.limit), (0, 1000));
    // A record that is there is replaced all the same.
    let announced = table.announce(lease(0), &[record(0, 5, 2)], begun).unwrap();
    assert_eq!((announced.kept, announced.limit), (1, 0));
    let later = begun + LEASE;
    let new: Vec<_> = (2000..3000).map(|tag| record(1, tag, 1)).collect();
    let announced = table.announce(lease(1), &new, later).unwrap();
    assert_eq!((announced.kept, announced.limit), (1000, 0));
    assert_eq!(table.len(), 1000);
}

#[test]
fn owners_are_bounded_and_a_dead_ones_place_is_used_again() {
    let (mut table, begun) = (Table::new(1000, 3), Instant::now());
    for owner in 0..3 {
        assert!(!table.renew(lease(owner), begun).unwrap().known);
    }
    assert_eq!(table.renew(lease(3), begun), None);
    assert_eq!(table.announce(lease(3), &[], begun), None);
    let first = table.renew(lease(0), begun).unwrap();
    assert!(first.known);
    let later = begun + LEASE;
    let again = table.renew(lease(0), later).unwrap();
    assert!(!again.known && again.life != first.life);
    for owner in 3..5 {
        table.tidy(later);
        assert!(!table.renew(lease(owner), later).unwrap().known);
    }
}
