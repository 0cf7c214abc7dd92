//! The chapters of the book that a user of this crate reads, in their order.
//!
//! The whole book, with pictures and the chapters for contributors, lies in the repository's
//! `docs/`.

#[doc = include_str!("../manual/concepts.md")]
pub mod concepts {}

#[doc = include_str!("../manual/getting-started.md")]
pub mod first_page {}

#[doc = include_str!("../manual/plans.md")]
pub mod plans {}

#[doc = include_str!("../manual/failure.md")]
pub mod failure {}

#[doc = include_str!("../manual/extending.md")]
pub mod extending {}
