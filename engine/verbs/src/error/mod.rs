//! The errors of this crate: what went wrong between a program and its NIC, and what to do.
//!
//! Every type has `code()`, a number for logs and for callers in other languages: `docs/errors.md`.

mod errno;
mod lane;
mod memory;
mod rail;
mod start;
#[cfg(test)]
mod tests;

pub use errno::Errno;
pub use lane::{Unreachable, VerbsLaneError};
pub use memory::{MrError, VerbsRegionError};
pub use rail::RailError;
pub use start::VerbsStartError;
