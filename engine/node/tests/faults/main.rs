//! Faults with real processes: producers, readers and the directory are killed and stopped, in the
//! middle of `put` and `get`. What must hold of those that live: no wrong page, no call long past
//! its deadline, no memory that grows, and pages of other producers all the time.
//!
//! A plain `cargo test` runs few rounds. `KVRAIL_FAULT_ROUNDS=50` runs so many, and stops processes
//! for ten seconds, as `.ci/run faults` does. `KVRAIL_SEED` repeats a run's choices.

mod group;
mod pages;
mod roles;
mod rounds;
