//! The provider contract as a suite of tests.
//!
//! An engine hands memory back to its user on a [`Provider`](kvrail_core::provider::Provider)'s word, so a
//! provider that breaks a promise corrupts memory that somebody else has by then. This crate holds one
//! test per promise. Who writes a provider writes a [`Rig`] for it, some forty lines that make the
//! provider, its counterpart and a connection between the two, and runs the suite over that:
//!
//! ```text
//! // my-provider/tests/conformance.rs
//! struct MyRig { … }
//! impl kvrail_conformance::Rig for MyRig { … }
//!
//! kvrail_conformance::conformance_tests!(MyRig);
//! ```
//!
//! Each case becomes a `#[test]` with the name of the fact that it tests, for instance
//! `a_drain_completes_after_everything_before_it`. Without a test harness (on a bare target, the crate is
//! `no_std`), [`run_all`] runs the cases and reports each by its name.
//!
//! A case needs something from the provider that not every provider has: the null device moves no bytes,
//! many providers take one piece per READ. A rig says so in its [`Abilities`], and the case is *skipped*,
//! with the reason. Pin the list of skipped cases in a test, with [`run_all`], so that none is skipped by
//! mistake; the rigs of this workspace do so.
//!
//! The suite tests one thread's view of one provider. It cannot see a write that happens to come too late
//! on another machine only; the `SAFETY` proof beside `unsafe impl Provider` is still what counts.
#![no_std]
#![allow(
    clippy::result_large_err,
    clippy::large_enum_variant,
    reason = "a failure carries its text, for there is no allocator, and a case fails once"
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
