//! Ranges of places against plain lists.

use super::super::ranges::{Places, ReadyRuns};
use super::blocks;
use super::rng::SplitMix64;
use crate::test_seeds as seeds;

#[test]
fn places_and_runs_are_those_of_plain_lists() {
    seeds::each("places_and_runs_are_those_of_plain_lists", 0..300, |seed| {
        let mut rng = SplitMix64::new(seed);
        let length = 1 + rng.up_to(11) as u32;
        let (mut runs, mut counts) = (ReadyRuns::default(), Vec::new());
        let (mut places, mut members) = (Places::default(), vec![false; length as usize]);
        for _ in 0..length {
            counts.push(rng.up_to(2) as u32);
            runs.push(counts[counts.len() - 1]);
        }
        for _ in 0..30 {
            let start = rng.up_to(length.into()) as u32;
            let end = start + rng.up_to(u64::from(length - start)) as u32;
            let parts = rng.up_to(6) as u32;
            let mut raised = runs.raise(start..end, parts);
            for place in start..end {
                let rises = counts[place as usize] < parts;
                counts[place as usize] = counts[place as usize].max(parts);
                assert_eq!(take_out(&mut raised, place), rises);
            }
            assert!(raised.is_empty());
            let adds = rng.up_to(1) == 1;
            if adds {
                places.add(start..end)
            } else {
                places.remove(start..end)
            }
            members[start as usize..end as usize].fill(adds);
            check(&runs, &counts, &places, &members);
        }
    });
}

/// Whether the place is the first of the set; takes it out.
fn take_out(places: &mut Places, place: u32) -> bool {
    let found = places.first().is_some_and(|range| range.start == place);
    places.remove(place..place + 1);
    found
}

fn check(runs: &ReadyRuns, counts: &[u32], places: &Places, members: &[bool]) {
    let mut place = 0;
    for equal in counts.chunk_by(|a, b| a == b) {
        let end = place + equal.len() as u32;
        for inside in place..end {
            assert_eq!(runs.at(inside), Some((place..end, equal[0])));
        }
        place = end;
    }
    assert_eq!(runs.at(place), None);
    let mut list = blocks(0..place, 0);
    runs.write(&mut list);
    assert!(list.iter().map(|block| block.ready).eq(counts.iter().copied()));
    let first = members.iter().position(|&member| member);
    let expected = first.map(|start| {
        let length = members[start..].iter().take_while(|&&member| member).count();
        start as u32..(start + length) as u32
    });
    assert_eq!(places.first(), expected);
}
