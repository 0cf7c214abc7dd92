//! The provider contract as a suite of tests.
//!
//! An engine hands memory back to its user when a [`Provider`](kvrail_core::provider::Provider)
//! says that nothing writes into it any more. So a provider that breaks a promise corrupts memory
//! that other code has by then. This crate tests these promises one by one. The author of a
//! provider writes a [`Rig`] for it, some forty lines that make the provider, its counterpart and a
//! connection between the two, and runs the suite over the rig:
//!
//! ```text
//! // my-provider/tests/conformance.rs
//! struct MyRig { … }
//! impl kvrail_conformance::Rig for MyRig { … }
//!
//! kvrail_conformance::conformance_tests!(MyRig);
//! ```
//!
//! Each case becomes a `#[test]` whose name is the fact that it tests, for instance
//! `a_drain_completes_after_everything_before_it`. Where there is no test harness, as on a bare
//! target (the crate is `no_std`), [`run_all`] runs the cases and reports each by its name.
//!
//! Some cases need an ability that not every provider has: the null device moves no bytes, and many
//! providers take one piece per READ. A rig names the abilities of its provider ([`Abilities`]),
//! and a case that needs another one is *skipped*, with the reason. Pin the list of skipped cases
//! in a test, with [`run_all`], so that none is skipped by mistake; the rigs of this workspace do
//! so.
//!
//! The suite sees a provider from one thread on one machine. It cannot see a write that comes too
//! late only on another machine, so `unsafe impl Provider` still needs its `SAFETY` proof.
#![no_std]
#![allow(
    clippy::result_large_err,
    clippy::large_enum_variant,
    reason = "a failure holds its text, since there is no allocator, and a case fails once"
)]

mod cases;
mod destination;
mod driver;
mod failure;
mod pattern;
mod rig;
mod suite;

pub use destination::Destination;
pub use failure::{Failure, Outcome};
pub use pattern::{BYTES, pattern};
pub use rig::{Abilities, RemoteBytes, Rig};
pub use suite::{CASES, check, run_all};
