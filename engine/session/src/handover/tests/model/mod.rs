//! Both sides of hand-overs against a model of the producer's memory, through random schedules:
//! messages that are late, readers and producers that die and start again, readers that are
//! suspended, clocks that jump, slots that are reused.

mod memory;
mod owner;
mod pulls;
mod world;

use self::memory::Broken;
use self::world::{Weather, World};
use crate::test_seeds as seeds;

/// Runs one schedule; gives how often a reader accepted bytes that are not the page's, and how
/// often it accepted any.
fn run(seed: u64, weather: Weather, broken: Broken) -> (u32, u32) {
    let mut world = World::new(seed, weather, broken);
    for _ in 0..50 {
        world.step();
    }
    world.settle();
    world.stop();
    (world.wrong, world.accepted)
}

/// Runs the schedules of the test `name`, in which more than `least` parts are read together.
fn every_rule_holds(name: &str, weather: Weather, least: u32) {
    let mut accepted = 0;
    let all = seeds::each(name, 0..5_100, |seed| {
        let (wrong, right) = run(seed, weather, Broken::Nothing);
        assert_eq!(wrong, 0, "bytes of another generation, or of no generation, were accepted");
        accepted += right;
    });
    assert!(!all || accepted > least, "only {accepted} parts were read in all schedules");
}

#[test]
fn schedules_with_deaths_and_jumps_keep_every_rule() {
    every_rule_holds("schedules_with_deaths_and_jumps_keep_every_rule", Weather::Stormy, 10_000);
}

#[test]
fn schedules_without_deaths_keep_every_rule() {
    every_rule_holds("schedules_without_deaths_keep_every_rule", Weather::Calm, 20_000);
}

/// Whether a schedule ends with wrong bytes. Some hundred schedules at most are enough today.
fn caught(broken: Broken) -> bool {
    (0..5_000).any(|seed| run(seed, Weather::Stormy, broken).0 > 0)
}

#[test]
fn an_owner_that_reuses_a_slot_without_invalidating_its_entry_is_caught() {
    assert!(caught(Broken::ReuseWithoutInvalidation));
}

#[test]
fn an_owner_that_reuses_slots_before_the_outcome_without_invalidating_is_caught() {
    assert!(caught(Broken::ReuseBeforeOutcome));
}

#[test]
fn an_owner_that_says_ready_before_the_bytes_are_written_is_caught() {
    assert!(caught(Broken::ReadyBeforeBytes));
}
